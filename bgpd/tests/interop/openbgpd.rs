//! OpenBGPD.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::rig::{OUR_AS, Router, Seen, Setup, THEIR_AS, THEIRS, wait_for_file};
use crate::support::{Namespace, Process};

pub(crate) struct Openbgpd {
    control: PathBuf,
    _process: Process,
    _namespace: Namespace,
}

impl Openbgpd {
    pub(crate) fn start(namespace: Namespace, dir: &Path, setup: &Setup) -> Self {
        let control = dir.join("bgpd.sock");
        let password = setup
            .password
            .map_or_else(String::new, |key| format!("tcp md5sig password \"{key}\""));
        let gtsm = if setup.gtsm { "ttl-security yes" } else { "" };
        let [four, six] = THEIRS;
        let config = format!(
            "
AS {THEIR_AS}
router-id 192.0.2.254
socket \"{}\"
fib-update no
listen on 192.0.2.254
listen on 2001:db8::254
network {four} set {{ community 64601:7 large-community 64601:8:9 }}
network {six}
neighbor 192.0.2.1 {{
  remote-as {OUR_AS}
  announce IPv4 unicast
  {password}
  {gtsm}
}}
neighbor 2001:db8::1 {{
  remote-as {OUR_AS}
  announce IPv6 unicast
  announce IPv4 none
  {password}
  {gtsm}
}}
allow from any
allow to any
",
            control.display()
        );
        let path = dir.join("bgpd.conf");
        std::fs::write(&path, config).unwrap();
        std::fs::create_dir_all("/run/openbgpd").unwrap();
        let mut bgpd = namespace.command("/usr/sbin/bgpd");
        bgpd.args(["-d", "-f"]).arg(path);
        let process = Process::start(bgpd, dir.join("openbgpd.log"));
        wait_for_file(&control);
        Self {
            control,
            _process: process,
            _namespace: namespace,
        }
    }

    fn bgpctl(&self, command: &str) -> String {
        let mut bgpctl = Command::new("bgpctl");
        bgpctl.arg("-s").arg(&self.control).args(command.split(' '));
        String::from_utf8(bgpctl.output().unwrap().stdout).unwrap()
    }
}

impl Router for Openbgpd {
    fn sees(&self, prefix: &str) -> Option<Seen> {
        let text = self.bgpctl(&format!("-j show rib detail {prefix}"));
        let answer: Value = serde_json::from_str(&text).ok()?;
        let route = answer["rib"].get(0)?;
        let path = route["aspath"].as_str()?;
        let texts = |value: &Value| -> Vec<String> {
            let list = value.as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let communities = [
            texts(&route["communities"]),
            texts(&route["large_communities"]),
        ];
        Some(Seen {
            as_path: path
                .split_whitespace()
                .filter_map(|it| it.parse().ok())
                .collect(),
            communities: communities.into_iter().flatten().collect(),
        })
    }

    fn ask_again(&self) {
        for address in ["192.0.2.1", "2001:db8::1"] {
            self.bgpctl(&format!("neighbor {address} refresh"));
        }
    }
}
