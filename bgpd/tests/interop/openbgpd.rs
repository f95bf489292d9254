//! OpenBGPD.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::rig::{CLUSTER, Router, Seen, Session, Setup, THEIRS, wait_for_file};
use crate::support::{Namespace, Process};

pub(crate) struct Openbgpd {
    dir: PathBuf,
    setup: Setup,
    process: Process,
    namespace: Namespace,
}

impl Openbgpd {
    pub(crate) fn start(namespace: Namespace, dir: &Path, setup: &Setup) -> Self {
        Self {
            process: launch(&namespace, dir, setup),
            dir: dir.to_owned(),
            setup: *setup,
            namespace,
        }
    }

    fn bgpctl(&self, command: &str) -> String {
        let mut bgpctl = Command::new("bgpctl");
        bgpctl.arg("-s").arg(self.dir.join("bgpd.sock"));
        let output = bgpctl.args(command.split(' ')).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

fn launch(namespace: &Namespace, dir: &Path, setup: &Setup) -> Process {
    let (path, control) = (dir.join("bgpd.conf"), dir.join("bgpd.sock"));
    let [four, six] = THEIRS;
    let listen: String = setup
        .sessions()
        .iter()
        .map(|it| format!("listen on {}\n", it.local))
        .collect();
    let more: String = setup
        .more()
        .iter()
        .map(|it| format!("network {it}\n"))
        .collect();
    let sessions: String = setup
        .sessions()
        .iter()
        .map(|it| session(it, setup))
        .collect();
    let config = format!(
        "
AS {}
router-id 192.0.2.254
socket \"{}\"
fib-update no
{listen}
network {four} set {{ community 64601:7 large-community 64601:8:9 }}
network {six}
{more}
{sessions}
allow from any
allow to any
",
        setup.their_as(),
        control.display()
    );
    std::fs::write(&path, config).unwrap();
    std::fs::create_dir_all("/run/openbgpd").unwrap();
    let mut bgpd = namespace.command("/usr/sbin/bgpd");
    bgpd.args(["-d", "-f"]).arg(path);
    let process = Process::start(bgpd, dir.join("openbgpd.log"));
    wait_for_file(&control);
    process
}

fn session(session: &Session, setup: &Setup) -> String {
    let mut lines = String::new();
    let mut line = |text: &str| lines.push_str(&format!("  {text}\n"));
    line(&format!("remote-as {}", session.asn));
    match session.six {
        true => {
            line("announce IPv6 unicast");
            line("announce IPv4 none");
        }
        false => line("announce IPv4 unicast"),
    }
    if let Some(key) = setup.password {
        line(&format!("tcp md5sig password \"{key}\""));
    }
    if setup.gtsm {
        line("ttl-security yes");
    }
    if setup.peer_reflects() {
        line(&format!("route-reflector {CLUSTER}"));
    }
    if setup.add_path {
        line("announce add-path recv yes");
        line("announce add-path send all");
    }
    format!("neighbor {} {{\n{lines}}}\n", session.remote)
}

impl Router for Openbgpd {
    fn paths(&self, prefix: &str) -> Vec<Seen> {
        let text = self.bgpctl(&format!("-j show rib detail {prefix}"));
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        let paths = answer["rib"].as_array().cloned().unwrap_or_default();
        let learnt = paths
            .iter()
            .filter(|it| it["announced"].as_bool() != Some(true));
        learnt.map(seen).collect()
    }

    fn ask_again(&self) {
        for address in ["192.0.2.1", "2001:db8::1"] {
            self.bgpctl(&format!("neighbor {address} refresh"));
        }
    }

    fn kill(&mut self) {
        self.process.kill();
        std::fs::remove_file(self.dir.join("bgpd.sock")).unwrap();
    }

    fn start_again(&mut self) {
        self.setup.extra = false;
        self.process = launch(&self.namespace, &self.dir, &self.setup);
    }

    fn restarts(&self) -> String {
        self.bgpctl("show neighbor 192.0.2.1")
    }
}

fn seen(route: &Value) -> Seen {
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let attributes = route["attributes"].as_array().cloned().unwrap_or_default();
    let attribute = |name: &str| -> Option<Value> {
        let found = attributes.iter().find(|it| it["type"] == name);
        found.cloned()
    };
    let communities = [
        texts(&route["communities"]),
        texts(&route["large_communities"]),
    ];
    Seen {
        as_path: text(&route["aspath"])
            .split_whitespace()
            .filter_map(|it| it.parse().ok())
            .collect(),
        communities: communities.into_iter().flatten().collect(),
        next_hop: text(&route["exit_nexthop"]),
        originator: attribute("Originator Id").map(|it| text(&it["originator"])),
        clusters: attribute("Cluster Id List")
            .map_or_else(Vec::new, |it| texts(&it["cluster_list"])),
    }
}
