//! FRR.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::rig::{CLUSTER, Router, Seen, Session, Setup, THEIRS, wait_for_file};
use crate::support::{Namespace, Process, run};

pub(crate) struct Frr {
    dir: PathBuf,
    setup: Setup,
    bgpd: Process,
    _others: Vec<Process>,
    namespace: Namespace,
}

impl Frr {
    pub(crate) fn start(namespace: Namespace, dir: &Path, setup: &Setup) -> Self {
        std::fs::write(dir.join("frr.conf"), configuration(setup)).unwrap();
        // zebra tells the others of interfaces.
        let mut others = vec![launch(&namespace, dir, "zebra", &[])];
        if setup.bfd {
            let control = dir.join("bfdd.sock").display().to_string();
            others.push(launch(&namespace, dir, "bfdd", &["--bfdctl", &control]));
        }
        Self {
            bgpd: launch(&namespace, dir, "bgpd", &["-p", "179"]),
            _others: others,
            dir: dir.to_owned(),
            setup: *setup,
            namespace,
        }
    }

    fn vtysh(&self, command: &str) -> String {
        let sockets = self.dir.display().to_string();
        run("vtysh", &["--vty_socket", &sockets, "-c", command])
    }
}

fn launch(namespace: &Namespace, dir: &Path, daemon: &str, more: &[&str]) -> Process {
    let mut command = namespace.command(format!("/usr/lib/frr/{daemon}"));
    command.args(["-P", "0", "-f"]).arg(dir.join("frr.conf"));
    command.arg("-z").arg(dir.join("zserv"));
    command.arg("-i").arg(dir.join(format!("{daemon}.pid")));
    command.arg("--vty_socket").arg(dir).args(more);
    let process = Process::start(command, dir.join(format!("{daemon}.log")));
    wait_for_file(&dir.join(format!("{daemon}.vty")));
    process
}

fn configuration(setup: &Setup) -> String {
    let [four, six] = THEIRS;
    let mut options = String::new();
    let mut option = |text: &str| options.push_str(&format!(" {text}\n"));
    if setup.graceful {
        option("bgp graceful-restart");
        option("bgp graceful-restart preserve-fw-state");
    }
    if setup.peer_reflects() {
        option(&format!("bgp cluster-id {CLUSTER}"));
    }
    let sessions = setup.sessions();
    let general: String = sessions.iter().map(|it| general(it, setup)).collect();
    let family = |is_in: fn(&Session) -> bool| -> String {
        let each = sessions.iter().map(|it| match is_in(it) {
            true => activated(it, setup),
            false => format!("  no neighbor {} activate\n", it.remote),
        });
        each.collect()
    };
    let more: String = setup
        .more()
        .iter()
        .map(|it| format!("  network {it}\n"))
        .collect();
    format!(
        "
log stdout
bfd
 profile fast
  transmit-interval 100
  receive-interval 100
  detect-multiplier 3
 !
!
route-map told permit 10
 set community 64601:7
 set large-community 64601:8:9
!
router bgp {}
 bgp router-id 192.0.2.254
 no bgp ebgp-requires-policy
 no bgp network import-check
{options}{general} !
 address-family ipv4 unicast
  network {four} route-map told
{more}{} exit-address-family
 address-family ipv6 unicast
  network {six}
{} exit-address-family
",
        setup.their_as(),
        family(|it| it.four),
        family(|it| it.six),
    )
}

fn general(session: &Session, setup: &Setup) -> String {
    let mut lines = String::new();
    let mut line = |text: &str| {
        lines.push_str(&format!(" neighbor {} {text}\n", session.remote));
    };
    line(&format!("remote-as {}", session.asn));
    line("timers connect 1");
    if let Some(key) = setup.password {
        line(&format!("password {key}"));
    }
    if setup.gtsm {
        line("ttl-security hops 1");
    }
    if session.four && session.six {
        line("capability extended-nexthop");
    }
    if setup.bfd {
        line("bfd");
        line("bfd profile fast");
    }
    lines
}

fn activated(session: &Session, setup: &Setup) -> String {
    let mut lines = String::new();
    let mut line = |text: &str| {
        lines.push_str(&format!("  neighbor {} {text}\n", session.remote));
    };
    line("activate");
    if setup.peer_reflects() {
        line("route-reflector-client");
    }
    if setup.add_path {
        line("addpath-tx-all-paths");
    }
    lines
}

impl Router for Frr {
    fn paths(&self, prefix: &str) -> Vec<Seen> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let text = self.vtysh(&format!("show bgp {family} unicast {prefix} json"));
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        let paths = answer["paths"].as_array().cloned().unwrap_or_default();
        let learnt = |path: &&Value| path["peer"]["peerId"] != "0.0.0.0" && path["peer"] != "::";
        paths
            .iter()
            .filter(learnt)
            .filter(|path| path["sourced"].as_bool() != Some(true))
            .map(seen)
            .collect()
    }

    fn ask_again(&self) {
        self.vtysh("clear bgp ipv4 unicast * soft in");
        self.vtysh("clear bgp ipv6 unicast * soft in");
    }

    fn kill(&mut self) {
        self.bgpd.kill();
        std::fs::remove_file(self.dir.join("bgpd.vty")).unwrap();
    }

    fn start_again(&mut self) {
        self.setup.extra = false;
        std::fs::write(self.dir.join("frr.conf"), configuration(&self.setup)).unwrap();
        self.bgpd = launch(&self.namespace, &self.dir, "bgpd", &["-p", "179"]);
    }

    fn restarts(&self) -> String {
        self.vtysh("show bgp ipv4 neighbors 192.0.2.1 graceful-restart")
    }
}

fn seen(path: &Value) -> Seen {
    let words = |value: &Value| -> Vec<String> {
        let text = value["string"].as_str().unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let clusters = path["clusterList"]["list"].as_array().into_iter().flatten();
    let as_path = words(&path["aspath"]);
    let communities = [words(&path["community"]), words(&path["largeCommunity"])];
    Seen {
        as_path: as_path.iter().filter_map(|it| it.parse().ok()).collect(),
        communities: communities.into_iter().flatten().collect(),
        next_hop: text(&path["nexthops"][0]["ip"]),
        originator: path["originatorId"].as_str().map(str::to_owned),
        clusters: clusters.map(text).collect(),
    }
}
