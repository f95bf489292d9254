//! FRR.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::rig::{OUR_AS, Router, Seen, Setup, THEIR_AS, THEIRS, wait_for_file};
use crate::support::{Namespace, Process, run};

pub(crate) struct Frr {
    sockets: PathBuf,
    _processes: Vec<Process>,
    _namespace: Namespace,
}

impl Frr {
    pub(crate) fn start(namespace: Namespace, dir: &Path, setup: &Setup) -> Self {
        let mut sessions = String::new();
        for address in ["192.0.2.1", "2001:db8::1"] {
            let mut line = |text: &str| sessions.push_str(&format!(" neighbor {address} {text}\n"));
            line(&format!("remote-as {OUR_AS}"));
            line("timers connect 1");
            if let Some(key) = setup.password {
                line(&format!("password {key}"));
            }
            if setup.gtsm {
                line("ttl-security hops 1");
            }
        }
        let [four, six] = THEIRS;
        let config = format!(
            "
log stdout
route-map told permit 10
 set community 64601:7
 set large-community 64601:8:9
!
router bgp {THEIR_AS}
 bgp router-id 192.0.2.254
 no bgp ebgp-requires-policy
 no bgp network import-check
{sessions} !
 address-family ipv4 unicast
  network {four} route-map told
  no neighbor 2001:db8::1 activate
 exit-address-family
 address-family ipv6 unicast
  network {six}
  neighbor 2001:db8::1 activate
 exit-address-family
"
        );
        std::fs::write(dir.join("frr.conf"), config).unwrap();
        let start = |daemon: &str, more: &[&str]| {
            let mut command = namespace.command(format!("/usr/lib/frr/{daemon}"));
            command.args(["-P", "0", "-f"]).arg(dir.join("frr.conf"));
            command.arg("-z").arg(dir.join("zserv"));
            command.arg("-i").arg(dir.join(format!("{daemon}.pid")));
            command.arg("--vty_socket").arg(dir).args(more);
            let process = Process::start(command, dir.join(format!("{daemon}.log")));
            wait_for_file(&dir.join(format!("{daemon}.vty")));
            process
        };
        // zebra tells bgpd of interfaces.
        let processes = vec![start("zebra", &[]), start("bgpd", &["-p", "179"])];
        Self {
            sockets: dir.to_owned(),
            _processes: processes,
            _namespace: namespace,
        }
    }

    fn vtysh(&self, command: &str) -> String {
        let sockets = self.sockets.display().to_string();
        run("vtysh", &["--vty_socket", &sockets, "-c", command])
    }
}

impl Router for Frr {
    fn sees(&self, prefix: &str) -> Option<Seen> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let text = self.vtysh(&format!("show bgp {family} unicast {prefix} json"));
        let answer: Value = serde_json::from_str(&text).ok()?;
        let path = answer["paths"].get(0)?;
        let words = |value: &Value| -> Vec<String> {
            let text = value["string"].as_str().unwrap_or_default();
            text.split_whitespace().map(str::to_owned).collect()
        };
        let as_path = words(&path["aspath"]);
        let communities = [words(&path["community"]), words(&path["largeCommunity"])];
        Some(Seen {
            as_path: as_path.iter().filter_map(|it| it.parse().ok()).collect(),
            communities: communities.into_iter().flatten().collect(),
        })
    }

    fn ask_again(&self) {
        self.vtysh("clear bgp ipv4 unicast * soft in");
        self.vtysh("clear bgp ipv6 unicast * soft in");
    }
}
