//! BIRD 2.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::{OUR_AS, Router, Seen, Setup, THEIR_AS, THEIRS, wait_for_file};
use crate::support::{Namespace, Process};

pub(crate) struct Bird {
    control: PathBuf,
    _process: Process,
    _namespace: Namespace,
}

impl Bird {
    pub(crate) fn start(namespace: Namespace, dir: &Path, setup: &Setup) -> Self {
        let password = setup
            .password
            .map_or_else(String::new, |key| format!("password \"{key}\";"));
        let gtsm = if setup.gtsm { "ttl security on;" } else { "" };
        let [four, six] = THEIRS;
        let config = format!(
            "
router id 192.0.2.254;
log stderr all;
protocol device {{}}
protocol static pods4 {{
  ipv4;
  route {four} blackhole {{ bgp_community.add((64601,7)); bgp_large_community.add((64601,8,9)); }};
}}
protocol static pods6 {{ ipv6; route {six} blackhole; }}
template bgp node {{
  connect delay time 1; connect retry time 1; error wait time 1, 2; {password} {gtsm}
}}
protocol bgp node4 from node {{
  local 192.0.2.254 as {THEIR_AS}; neighbor 192.0.2.1 as {OUR_AS};
  ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }};
}}
protocol bgp node6 from node {{
  local 2001:db8::254 as {THEIR_AS}; neighbor 2001:db8::1 as {OUR_AS};
  ipv6 {{ import all; export where source = RTS_STATIC; next hop self; }};
}}
"
        );
        std::fs::write(dir.join("bird.conf"), config).unwrap();
        let control = dir.join("bird.ctl");
        let mut bird = namespace.command("bird");
        bird.arg("-f");
        bird.arg("-c").arg(dir.join("bird.conf"));
        bird.arg("-s").arg(&control);
        bird.arg("-P").arg(dir.join("bird.pid"));
        let process = Process::start(bird, dir.join("bird.log"));
        wait_for_file(&control);
        Self {
            control,
            _process: process,
            _namespace: namespace,
        }
    }

    fn birdc(&self, command: &str) -> String {
        let mut birdc = Command::new("birdc");
        birdc.arg("-s").arg(&self.control).args(command.split(' '));
        String::from_utf8(birdc.output().unwrap().stdout).unwrap()
    }
}

impl Router for Bird {
    fn sees(&self, prefix: &str) -> Option<Seen> {
        let text = self.birdc(&format!("show route {prefix} all"));
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        let path = of("BGP.as_path:");
        let as_path: Vec<u32> = path
            .split_whitespace()
            .filter_map(|it| it.parse().ok())
            .collect();
        let lists = [of("BGP.community:"), of("BGP.large_community:")];
        let communities = lists.iter().flat_map(|list| {
            let each = list.split(')').filter_map(|it| it.split_once('('));
            each.map(|(_, it)| it.replace(", ", ":").replace(',', ":"))
                .collect::<Vec<_>>()
        });
        (!as_path.is_empty()).then(|| Seen {
            as_path,
            communities: communities.collect(),
        })
    }

    fn ask_again(&self) {
        for protocol in ["node4", "node6"] {
            let answer = self.birdc(&format!("reload in {protocol}"));
            assert!(answer.contains("reload"), "{answer}");
        }
    }
}
