//! BIRD 2.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::{CLUSTER, Router, Seen, Session, Setup, THEIRS, wait_for_file};
use crate::support::{Namespace, Process};

pub(crate) struct Bird {
    dir: PathBuf,
    setup: Setup,
    process: Process,
    namespace: Namespace,
}

impl Bird {
    pub(crate) fn start(namespace: Namespace, dir: &Path, setup: &Setup) -> Self {
        std::fs::write(dir.join("bird.conf"), configuration(setup)).unwrap();
        Self {
            process: launch(&namespace, dir, &[]),
            dir: dir.to_owned(),
            setup: *setup,
            namespace,
        }
    }

    fn birdc(&self, command: &str) -> String {
        let mut birdc = Command::new("birdc");
        birdc.arg("-s").arg(self.dir.join("bird.ctl"));
        let output = birdc.args(command.split(' ')).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

fn launch(namespace: &Namespace, dir: &Path, more: &[&str]) -> Process {
    let mut bird = namespace.command("bird");
    bird.arg("-f").args(more);
    bird.arg("-c").arg(dir.join("bird.conf"));
    bird.arg("-s").arg(dir.join("bird.ctl"));
    bird.arg("-P").arg(dir.join("bird.pid"));
    let process = Process::start(bird, dir.join("bird.log"));
    wait_for_file(&dir.join("bird.ctl"));
    process
}

fn configuration(setup: &Setup) -> String {
    let [four, six] = THEIRS;
    let more: String = setup
        .more()
        .iter()
        .map(|it| format!("route {it} blackhole;"))
        .collect();
    let mut options = String::new();
    if let Some(key) = setup.password {
        options.push_str(&format!("password \"{key}\"; "));
    }
    if setup.gtsm {
        options.push_str("ttl security on; ");
    }
    if setup.graceful {
        options.push_str("graceful restart on; ");
    }
    if setup.bfd {
        options.push_str("bfd on; ");
    }
    if setup.peer_reflects() {
        options.push_str(&format!("rr client; rr cluster id {CLUSTER}; "));
    }
    let sessions: String = setup
        .sessions()
        .iter()
        .map(|it| session(it, setup))
        .collect();
    format!(
        "
router id 192.0.2.254;
log stderr all;
protocol device {{}}
protocol direct {{ ipv4; ipv6; }}
protocol kernel {{ learn; ipv4 {{ import all; export none; }}; }}
protocol bfd {{ interface \"up0\" {{ interval 100 ms; multiplier 3; }}; }}
protocol static pods4 {{
  ipv4;
  route {four} blackhole {{ bgp_community.add((64601,7)); bgp_large_community.add((64601,8,9)); }};
  {more}
}}
protocol static pods6 {{ ipv6; route {six} blackhole; }}
template bgp node {{
  connect delay time 1; connect retry time 1; error wait time 1, 2; {options}
}}
{sessions}
"
    )
}

fn session(session: &Session, setup: &Setup) -> String {
    let mut channel = "import all; export where source ~ [RTS_STATIC, RTS_BGP];".to_owned();
    if !setup.is_internal() {
        channel.push_str(" next hop self;");
    }
    if setup.add_path {
        channel.push_str(" add paths on;");
    }
    let four = match (session.four, session.six) {
        (true, true) => format!("ipv4 {{ {channel} extended next hop on; }};"),
        (true, false) => format!("ipv4 {{ {channel} }};"),
        _ => String::new(),
    };
    let six = match session.six {
        true => format!("ipv6 {{ {channel} }};"),
        false => String::new(),
    };
    format!(
        "protocol bgp {} from node {{
  local {} as {}; neighbor {} as {};
  {four} {six}
}}
",
        session.name,
        session.local,
        setup.their_as(),
        session.remote,
        session.asn
    )
}

impl Router for Bird {
    fn paths(&self, prefix: &str) -> Vec<Seen> {
        let text = self.birdc(&format!("show route {prefix} all"));
        // A path begins with a line that names its protocol; what is said of it is indented by a tab.
        let mut paths: Vec<Vec<&str>> = Vec::new();
        for line in text.lines() {
            match (line.strip_prefix('\t'), paths.last_mut()) {
                (Some(line), Some(path)) => path.push(line.trim()),
                _ if line.contains(" [") => paths.push(Vec::new()),
                _ => {}
            }
        }
        let by_bgp = |path: &&Vec<&str>| path.iter().any(|it| it.starts_with("Type: BGP"));
        paths.iter().filter(by_bgp).map(|path| seen(path)).collect()
    }

    fn ask_again(&self) {
        for protocol in ["node4", "node6"] {
            let answer = self.birdc(&format!("reload in {protocol}"));
            assert!(answer.contains("reload"), "{answer}");
        }
    }

    fn kill(&mut self) {
        self.process.kill();
        std::fs::remove_file(self.dir.join("bird.ctl")).unwrap();
    }

    fn start_again(&mut self) {
        self.setup.extra = false;
        std::fs::write(self.dir.join("bird.conf"), configuration(&self.setup)).unwrap();
        // It recovers from a restart: R and F bits are set.
        self.process = launch(&self.namespace, &self.dir, &["-R"]);
    }

    fn restarts(&self) -> String {
        self.birdc("show protocols all node4")
    }
}

fn seen(path: &[&str]) -> Seen {
    let of = |name: &str| {
        let line = path.iter().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    let as_path = of("BGP.as_path:");
    let lists = [of("BGP.community:"), of("BGP.large_community:")];
    let communities = lists.iter().flat_map(|list| {
        let each = list.split(')').filter_map(|it| it.split_once('('));
        each.map(|(_, it)| it.replace(", ", ":").replace(',', ":"))
            .collect::<Vec<_>>()
    });
    let clusters = of("BGP.cluster_list:");
    Seen {
        as_path: as_path
            .split_whitespace()
            .filter_map(|it| it.parse().ok())
            .collect(),
        communities: communities.collect(),
        next_hop: of("BGP.next_hop:"),
        originator: Some(of("BGP.originator_id:")).filter(|it| !it.is_empty()),
        clusters: clusters.split_whitespace().map(str::to_owned).collect(),
    }
}
