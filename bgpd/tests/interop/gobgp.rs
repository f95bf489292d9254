//! GoBGP.

use std::path::Path;

use serde_json::Value;

use crate::rig::{OUR_AS, Router, Seen, Setup, THEIR_AS, THEIRS};
use crate::support::{Namespace, Process, wait_for};

pub(crate) struct Gobgp {
    _process: Process,
    namespace: Namespace,
}

impl Gobgp {
    pub(crate) fn start(namespace: Namespace, dir: &Path, setup: &Setup) -> Self {
        let mut config = format!(
            "[global.config]\nas = {THEIR_AS}\nrouter-id = \"192.0.2.254\"\nlocal-address-list = [\"192.0.2.254\", \"2001:db8::254\"]\n"
        );
        for (address, family) in [("192.0.2.1", "ipv4"), ("2001:db8::1", "ipv6")] {
            let password = setup
                .password
                .map_or_else(String::new, |key| format!("auth-password = \"{key}\"\n"));
            let gtsm = if setup.gtsm {
                "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n"
            } else {
                ""
            };
            config.push_str(&format!(
                "[[neighbors]]
[neighbors.config]
neighbor-address = \"{address}\"
peer-as = {OUR_AS}
{password}{gtsm}[neighbors.timers.config]
connect-retry = 1
[[neighbors.afi-safis]]
[neighbors.afi-safis.config]
afi-safi-name = \"{family}-unicast\"
"
            ));
        }
        std::fs::write(dir.join("gobgp.toml"), config).unwrap();
        let mut gobgpd = namespace.command("gobgpd");
        gobgpd.arg("-f").arg(dir.join("gobgp.toml"));
        gobgpd.args(["--api-hosts", "127.0.0.1:50051"]);
        let process = Process::start(gobgpd, dir.join("gobgpd.log"));
        let this = Self {
            _process: process,
            namespace,
        };
        wait_for("gobgpd to answer", || this.gobgp("neighbor").map(drop));
        let [four, six] = THEIRS;
        let with = "community 64601:7 large-community 64601:8:9";
        for add in [
            format!("global rib add {four} {with} -a ipv4"),
            format!("global rib add {six} -a ipv6"),
        ] {
            this.gobgp(&add).unwrap();
        }
        this
    }

    /// What the command prints, when it succeeds.
    fn gobgp(&self, command: &str) -> Option<String> {
        let mut gobgp = self.namespace.command("gobgp");
        let output = gobgp.args(command.split(' ')).output().unwrap();
        let printed = || String::from_utf8(output.stdout).unwrap();
        output.status.success().then(printed)
    }
}

impl Router for Gobgp {
    fn sees(&self, prefix: &str) -> Option<Seen> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let text = self.gobgp(&format!("global rib {prefix} -a {family} -j"))?;
        let answer: Value = serde_json::from_str(&text).ok()?;
        let attributes = answer.get(prefix)?.get(0)?["attrs"].as_array()?.clone();
        let of = |code: u64| attributes.iter().find(|it| it["type"] == code);
        let numbers = |value: &Value| -> Vec<u64> {
            let list = value.as_array().into_iter().flatten();
            list.filter_map(Value::as_u64).collect()
        };
        let as_path = numbers(&of(2)?["as_paths"][0]["asns"]);
        let standard = of(8).map_or_else(Vec::new, |it| numbers(&it["communities"]));
        let standard = standard
            .iter()
            .map(|it| format!("{}:{}", it >> 16, it & 0xffff));
        let large = of(32)
            .and_then(|it| it["value"].as_array().cloned())
            .unwrap_or_default();
        let large = large
            .iter()
            .map(|it| format!("{}:{}:{}", it["ASN"], it["LocalData1"], it["LocalData2"]));
        Some(Seen {
            as_path: as_path
                .into_iter()
                .filter_map(|it| it.try_into().ok())
                .collect(),
            communities: standard.chain(large).collect(),
        })
    }

    fn ask_again(&self) {
        for address in ["192.0.2.1", "2001:db8::1"] {
            self.gobgp(&format!("neighbor {address} softresetin"))
                .unwrap();
        }
    }
}
