//! GoBGP.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::rig::{CLUSTER, Router, Seen, Session, Setup, THEIRS};
use crate::support::{Namespace, Process, wait_for};

pub(crate) struct Gobgp {
    dir: PathBuf,
    setup: Setup,
    process: Process,
    namespace: Namespace,
}

impl Gobgp {
    pub(crate) fn start(namespace: Namespace, dir: &Path, setup: &Setup) -> Self {
        std::fs::write(dir.join("gobgp.toml"), configuration(setup)).unwrap();
        let this = Self {
            process: launch(&namespace, dir, &[]),
            dir: dir.to_owned(),
            setup: *setup,
            namespace,
        };
        this.originate();
        this
    }

    fn originate(&self) {
        wait_for("gobgpd to answer", || self.gobgp("neighbor").map(drop));
        let [four, six] = THEIRS;
        let with = "community 64601:7 large-community 64601:8:9";
        let more = self.setup.more().iter();
        let more = more.map(|it| format!("global rib add {it} -a ipv4"));
        let all = [
            format!("global rib add {four} {with} -a ipv4"),
            format!("global rib add {six} -a ipv6"),
        ];
        for add in all.into_iter().chain(more) {
            self.gobgp(&add).unwrap();
        }
    }

    /// What the command prints, when it succeeds.
    fn gobgp(&self, command: &str) -> Option<String> {
        let mut gobgp = self.namespace.command("gobgp");
        let output = gobgp.args(command.split(' ')).output().unwrap();
        let printed = || String::from_utf8(output.stdout).unwrap();
        output.status.success().then(printed)
    }

    /// Refuses connections, ours and its own, or takes them again.
    fn refuse(&self, refuse: bool) {
        let mut nft = self.namespace.command("nft");
        let rules = "add table inet refuse; add chain inet refuse in { type filter hook input priority 0; }; \
                     add rule inet refuse in tcp dport 179 reject with tcp reset; \
                     add rule inet refuse in tcp sport 179 reject with tcp reset";
        let rules = if refuse {
            rules
        } else {
            "delete table inet refuse"
        };
        assert!(nft.arg(rules).status().unwrap().success());
    }
}

fn launch(namespace: &Namespace, dir: &Path, more: &[&str]) -> Process {
    let mut gobgpd = namespace.command("gobgpd");
    gobgpd.arg("-f").arg(dir.join("gobgp.toml")).args(more);
    gobgpd.args(["--api-hosts", "127.0.0.1:50051"]);
    Process::start(gobgpd, dir.join("gobgpd.log"))
}

fn configuration(setup: &Setup) -> String {
    let sessions = setup.sessions();
    let addresses: Vec<&str> = sessions.iter().map(|it| it.local).collect();
    let mut config = format!(
        "[global.config]\nas = {}\nrouter-id = \"192.0.2.254\"\nlocal-address-list = {addresses:?}\n",
        setup.their_as()
    );
    for it in &sessions {
        config.push_str(&session(it, setup));
    }
    config
}

fn session(session: &Session, setup: &Setup) -> String {
    let mut text = format!(
        "[[neighbors]]
[neighbors.config]
neighbor-address = \"{}\"
peer-as = {}
",
        session.remote, session.asn
    );
    if let Some(key) = setup.password {
        text.push_str(&format!("auth-password = \"{key}\"\n"));
    }
    text.push_str("[neighbors.timers.config]\nconnect-retry = 1\n");
    if setup.gtsm {
        text.push_str("[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n");
    }
    if setup.graceful {
        text.push_str(
            "[neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 60\ndeferral-time = 5\n",
        );
    }
    if setup.peer_reflects() {
        text.push_str(&format!(
            "[neighbors.route-reflector.config]\nroute-reflector-client = true\nroute-reflector-cluster-id = \"{CLUSTER}\"\n"
        ));
    }
    for (family, spoken) in [("ipv4", session.four), ("ipv6", session.six)] {
        if !spoken {
            continue;
        }
        text.push_str(&format!(
            "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{family}-unicast\"\n"
        ));
        if setup.graceful {
            text.push_str("[neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n");
        }
        if setup.add_path {
            text.push_str("[neighbors.afi-safis.add-paths.config]\nreceive = true\nsend-max = 8\n");
        }
    }
    text
}

impl Router for Gobgp {
    fn paths(&self, prefix: &str) -> Vec<Seen> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let text = self.gobgp(&format!("global rib {prefix} -a {family} -j"));
        let answer: Value = serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default();
        let paths = answer[prefix].as_array().cloned().unwrap_or_default();
        let learnt = paths.iter().filter(|it| it["source-id"].is_string());
        learnt.map(seen).collect()
    }

    fn ask_again(&self) {
        for address in ["192.0.2.1", "2001:db8::1"] {
            self.gobgp(&format!("neighbor {address} softresetin"))
                .unwrap();
        }
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn start_again(&mut self) {
        self.setup.extra = false;
        // Its routes come by its API: they have to be there before there is a session.
        self.refuse(true);
        self.process = launch(&self.namespace, &self.dir, &["-r"]);
        self.originate();
        self.refuse(false);
    }

    fn restarts(&self) -> String {
        self.gobgp("neighbor 192.0.2.1").unwrap_or_default()
    }
}

fn seen(path: &Value) -> Seen {
    let attributes = path["attrs"].as_array().cloned().unwrap_or_default();
    let nothing = Value::Null;
    let of = |code: u64| {
        let found = attributes.iter().find(|it| it["type"] == code);
        found.unwrap_or(&nothing)
    };
    let numbers = |value: &Value| -> Vec<u64> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(Value::as_u64).collect()
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let as_path = numbers(&of(2)["as_paths"][0]["asns"]);
    let standard = numbers(&of(8)["communities"]);
    let standard = standard
        .iter()
        .map(|it| format!("{}:{}", it >> 16, it & 0xffff));
    let large = of(32)["value"].as_array().cloned().unwrap_or_default();
    let large = large
        .iter()
        .map(|it| format!("{}:{}:{}", it["ASN"], it["LocalData1"], it["LocalData2"]));
    let next_hop = [of(3), of(14)]
        .into_iter()
        .find(|it| it["nexthop"].is_string());
    let clusters = of(10)["value"].as_array().into_iter().flatten();
    Seen {
        as_path: as_path
            .into_iter()
            .filter_map(|it| it.try_into().ok())
            .collect(),
        communities: standard.chain(large).collect(),
        next_hop: text(&next_hop.unwrap_or(&nothing)["nexthop"]),
        originator: of(9)["value"].as_str().map(str::to_owned),
        clusters: clusters.map(text).collect(),
    }
}
