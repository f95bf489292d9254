//! Nodes that are taken out of use, as their ToRs see it (RFC 8326): told with GRACEFUL_SHUTDOWN, withdrawn 30 s later, over
//! a restart of bgpd as well, and told as before when they are back in use. All kinds of drains go on side by side, so that
//! those 30 s are waited for once.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::fault::{Pod, Rig, wait};
use e2e::suite::{list, text};
use lab::plan::FABRIC_SPACE;
use serde_json::json;

const SOON: Duration = Duration::from_secs(20);
/// From the beginning of a drain to the withdrawal.
const DRAIN_WAIT: Duration = Duration::from_secs(30);
/// An address of a service, announced by n1.
const SERVICE: &str = "10.250.0.1/32";

/// How a ToR knows a route of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Without the community.
    InUse,
    /// With it.
    Leaving,
    Gone,
}

fn known(rig: &Rig, tor: &str, prefix: &str) -> anyhow::Result<Known> {
    let answer = match rig.birdc(tor, &format!("show route for {prefix} all")) {
        Ok(answer) => answer,
        Err(error) if format!("{error:#}").contains("Network not found") => {
            return Ok(Known::Gone);
        }
        Err(error) => return Err(error),
    };
    // `for` would fall back to a wider prefix.
    if !answer.contains(&format!("{prefix} ")) {
        return Ok(Known::Gone);
    }
    Ok(match answer.contains("(65535,0)") {
        true => Known::Leaving,
        false => Known::InUse,
    })
}

/// Waits until each route is known to the ToR of its rack as it should be.
fn becomes(rig: &Rig, expected: &[(&str, &str, Known)]) {
    wait("the routes of drained nodes", SOON, || {
        for (tor, prefix, wanted) in expected {
            let found = known(rig, tor, prefix)?;
            if found != *wanted {
                return Ok(Some(format!(
                    "{tor}: {prefix} is {found:?}, not {wanted:?}"
                )));
            }
        }
        Ok(None)
    })
    .unwrap();
}

/// The IPv4 block of a node.
fn block(rig: &Rig, node: &str) -> String {
    let mut block = String::new();
    wait("a block", SOON, || {
        let held = rig.json(node, &["margayctl", "ipam", "show", "-o", "json"])?;
        let mut blocks = list(&held["blocks"]).iter().map(|it| text(&it["cidr"]));
        block = blocks.find(|it| it.contains('.')).unwrap_or_default();
        Ok(block.is_empty().then(|| held.to_string()))
    })
    .unwrap();
    block
}

/// n1 speaks BGP from a file that has a service's address, beside what felix brings.
struct ByFile {
    child: Option<Child>,
}

impl ByFile {
    fn start(rig: &Rig) -> Self {
        let plan = rig.plan();
        let (node, tor) = (plan.node("n1").unwrap(), &plan.tors[0]);
        let peers = tor
            .address
            .both()
            .map(|address| json!({ "name": tor.name, "peerIP": address, "asNumber": tor.asn }));
        let config = json!({
            "asNumber": node.asn,
            "routerID": node.address.v4,
            "peers": peers,
            "pools": [{ "cidr": "10.244.0.0/16" }, { "cidr": "fd00:10:244::/64" }],
            "import": { "ranges": FABRIC_SPACE },
            "origins": [{ "prefix": SERVICE, "kind": "service" }],
            "waitForFelix": true,
        });
        let path = plan.dir.join("n1.yaml");
        fs::write(&path, config.to_string()).unwrap();
        let (run, state) = (plan.run_dir("n1"), plan.node_state_dir("n1"));
        let bgpd = rig
            .exec("n1", &["sh", "-c", "command -v margay-bgpd"])
            .unwrap();
        let bgpd = String::from_utf8(bgpd.stdout).unwrap();
        let mut command: Command = rig
            .command("n1", &[bgpd.trim(), "--config", path.to_str().unwrap()])
            .unwrap();
        command
            .arg("--run-dir")
            .arg(run)
            .arg("--state-dir")
            .arg(state);
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(plan.dir.join("n1-by-file.log"))
            .unwrap();
        let child = command.stderr(Stdio::from(log)).spawn().unwrap();
        Self { child: Some(child) }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for ByFile {
    fn drop(&mut self) {
        self.kill();
    }
}

fn drain(rig: &Rig, node: &str, options: &[&str]) -> String {
    let argv = [&["margayctl", "bgp", "drain"], options].concat();
    let mut said = String::new();
    wait("bgpd to answer", SOON, || {
        said = rig.ask(node, &argv)?;
        Ok(None)
    })
    .unwrap();
    said
}

fn annotate(rig: &Rig, annotation: &str) {
    rig.kubectl(&["annotate", "--overwrite", "node", "n2", annotation], "")
        .unwrap();
}

#[test]
fn drained_nodes_leave_and_stay_away_and_come_back() {
    use Known::{Gone, InUse, Leaving};
    let rig = Rig::beside("drain").unwrap();
    rig.run(&[
        Pod {
            name: "a",
            node: "n1",
        },
        Pod {
            name: "b",
            node: "n3",
        },
    ])
    .unwrap();
    rig.kill("bgpd", Some("n1")).unwrap();
    let mut by_file = ByFile::start(&rig);
    rig.sessions_up().unwrap();
    let blocks = ["n1", "n2", "n3"].map(|node| block(&rig, node));
    let [n1, n2, n3] = blocks.each_ref().map(String::as_str);
    // n1 and n2 are in rack a.
    let all = |service, first, second, third| {
        [
            ("tor-a", SERVICE, service),
            ("tor-a", n1, first),
            ("tor-a", n2, second),
            ("tor-b", n3, third),
        ]
    };
    becomes(&rig, &all(InUse, InUse, InUse, InUse));

    // Without options only services leave. A block with a pod does so only by force.
    let begun = Instant::now();
    let said = drain(&rig, "n1", &[]);
    assert!(
        said.starts_with("addresses of services: withdrawn in "),
        "{said}"
    );
    annotate(&rig, "margay.io/drain=everything");
    drain(&rig, "n3", &["--everything"]);
    becomes(&rig, &all(Leaving, InUse, Leaving, InUse));
    drain(&rig, "n3", &["--everything", "--force"]);
    becomes(&rig, &all(Leaving, InUse, Leaving, Leaving));
    let status = rig.ask("n3", &["margayctl", "status"]).unwrap();
    assert!(
        status.contains("drained     blocks with pods: withdrawn in "),
        "{status}"
    );
    assert!(begun.elapsed() < DRAIN_WAIT, "too slow to see anything");

    let withdrawn = all(Gone, InUse, Gone, Gone);
    std::thread::sleep(DRAIN_WAIT.saturating_sub(begun.elapsed()));
    becomes(&rig, &withdrawn);
    assert!(begun.elapsed() >= DRAIN_WAIT);

    // It is remembered, or is still to be read on the Node. The block of n3 must not even come back for a moment.
    by_file.kill();
    by_file = ByFile::start(&rig);
    for node in ["n2", "n3"] {
        rig.kill("bgpd", Some(node)).unwrap();
        rig.start("bgpd", Some(node)).unwrap();
    }
    rig.sessions_up().unwrap();
    for node in ["n1", "n2", "n3"] {
        wait("the drain after a restart", SOON, || {
            let status = rig.ask(node, &["margayctl", "status"])?;
            let drained = status.contains("drained ") && status.contains("origins");
            Ok((!drained).then_some(status))
        })
        .unwrap();
    }
    becomes(&rig, &withdrawn);

    // Whom the annotation drains, a command cannot bring back.
    let undo = ["margayctl", "bgp", "drain", "--undo"];
    let refused = rig.exec("n2", &undo).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(why.contains("margay.io/drain"), "{why}");
    annotate(&rig, "margay.io/drain-");
    for node in ["n1", "n3"] {
        assert_eq!(drain(&rig, node, &["--undo"]), "nothing is drained\n");
    }
    becomes(&rig, &all(InUse, InUse, InUse, InUse));
    drop(by_file);
    rig.finish().unwrap();
}
