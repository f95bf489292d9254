//! Every order in which felix and bgpd of a node die and come back, with what changes meanwhile, and with the API server
//! there or away: no true route is taken from the kernel on the way, no packet is lost, and in the end the kernel and the
//! ToRs have exactly what they should. All nodes go through an order at once, each through another one.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use crds::net::Cidr;
use e2e::fault::{Kind, Pod, Rig, Traffic, scene_of, wait};
use e2e::suite::{list, text};
use lab::plan::CLUSTER_SPACE;

const SOON: Duration = Duration::from_secs(30);
/// All rounds together, without making the lab: 26 s where nothing else runs, a minute on a machine that is ten times as busy
/// as it should be.
const WHOLE: Duration = Duration::from_secs(150);
const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// One thing that happens to a daemon.
#[derive(Debug, Clone, Copy)]
enum Step {
    Kill(&'static str),
    Start(&'static str),
}
use Step::{Kill, Start};

/// Every order for one or both of the daemons, up to killing one while the other comes back. What changes does so after
/// the first step.
const ORDERS: [&[Step]; 6] = [
    &[Kill("felix"), Start("felix")],
    &[Kill("bgpd"), Start("bgpd")],
    &[Kill("felix"), Kill("bgpd"), Start("felix"), Start("bgpd")],
    &[Kill("bgpd"), Kill("felix"), Start("bgpd"), Start("felix")],
    &[Kill("felix"), Start("felix"), Kill("bgpd"), Start("bgpd")],
    &[Kill("bgpd"), Start("bgpd"), Kill("felix"), Start("felix")],
];

/// What changes while a daemon is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Nothing,
    /// The fabric withdraws a route of each family and announces another.
    Routes,
    /// n1 needs one more block; the object of a block of n3, whose pods live, is deleted.
    Blocks,
}

/// Routes of the fabric, of which one pair at a time is announced by the spine.
const PAIRS: [[&str; 2]; 2] = [
    ["10.244.250.0/26", "fd00:10:244::fa00/122"],
    ["10.244.251.0/26", "fd00:10:244::fb00/122"],
];

/// Lets the spine originate the pairs when it is told to.
fn prepare_spine(rig: &Rig) {
    let path = rig.plan().tor_dir("spine").join("bird.conf");
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    for (number, pair) in PAIRS.iter().enumerate() {
        for (prefix, family) in pair.iter().zip([4, 6]) {
            writeln!(
                file,
                "protocol static pair{number}_v{family} {{ disabled; ipv{family}; route {prefix} blackhole; }}"
            )
            .unwrap();
        }
    }
    rig.birdc("spine", "configure").unwrap();
}

fn announce(rig: &Rig, pair: usize, verb: &str) {
    for family in [4, 6] {
        let command = format!("{verb} pair{pair}_v{family}");
        rig.birdc("spine", &command).unwrap();
    }
}

/// Prefixes of blocks by their owners.
type Blocks = BTreeMap<String, BTreeSet<String>>;

fn blocks(rig: &Rig) -> Result<Blocks> {
    let mut blocks = Blocks::new();
    let found = rig.kubectl(&["get", "ipamblocks", "-o", "json"], "")?;
    let found: serde_json::Value = serde_json::from_str(&found)?;
    for block in list(&found["items"]) {
        let owner = text(&block["spec"]["owner"]["node"]);
        let cidr = text(&block["spec"]["cidr"]);
        blocks.entry(owner).or_default().insert(cidr);
    }
    Ok(blocks)
}

/// Routes of a protocol in a node's kernel: prefix, and how many ways it has.
fn kernel(rig: &Rig, node: &str, protocol: &str) -> Result<BTreeMap<String, usize>> {
    let mut found = BTreeMap::new();
    for family in ["-4", "-6"] {
        let argv = ["ip", "-j", family, "route", "show", "proto", protocol];
        let routes = rig.json(node, &argv)?;
        for route in routes.as_array().into_iter().flatten() {
            let ways = route["nexthops"].as_array().map_or(1, Vec::len);
            found.insert(text(&route["dst"]), ways);
        }
    }
    Ok(found)
}

/// Whether a prefix is of the cluster, and not of the fabric.
fn of_cluster(prefix: &str) -> bool {
    let prefix: Cidr = match prefix.parse() {
        Ok(prefix) => prefix,
        Err(_) => Cidr::host(prefix.parse().unwrap()),
    };
    let mut spaces = CLUSTER_SPACE.iter().map(|it| it.parse::<Cidr>().unwrap());
    spaces.any(|space| space.covers(prefix))
}

/// What there should be.
struct Truth {
    /// Routes of the fabric that every node has, by node.
    fabric: BTreeMap<&'static str, BTreeMap<String, usize>>,
    /// The pair the spine announces.
    pair: usize,
    blocks: Blocks,
}

impl Truth {
    fn learn(rig: &Rig) -> Self {
        let fabric = NODES.map(|node| {
            let mut routes = kernel(rig, node, "78").unwrap();
            routes.retain(|prefix, _| !of_cluster(prefix));
            (node, routes)
        });
        Self {
            fabric: fabric.into(),
            pair: 0,
            blocks: blocks(rig).unwrap(),
        }
    }

    /// What a node's kernel should have of BGP.
    fn learnt(&self, node: &str) -> BTreeMap<String, usize> {
        let others = self.blocks.iter().filter(|(owner, _)| *owner != node);
        let cluster = others.flat_map(|(_, blocks)| blocks.iter().cloned());
        let cluster = cluster.chain(PAIRS[self.pair].map(str::to_owned));
        let mut routes = self.fabric[node].clone();
        routes.extend(cluster.map(|prefix| (prefix, 2)));
        routes
    }

    /// What differs from that in the kernel of any node and in any ToR.
    fn missing(&self, rig: &Rig) -> Result<Option<String>> {
        for node in NODES {
            let (found, wanted) = (kernel(rig, node, "78")?, self.learnt(node));
            if found != wanted {
                return Ok(Some(format!("{node} has {found:?}, not {wanted:?}")));
            }
            let own = kernel(rig, node, "77")?;
            let lost = self.blocks[node].iter().find(|it| !own.contains_key(*it));
            if let Some(lost) = lost {
                return Ok(Some(format!("{node} has no route for its block {lost}")));
            }
        }
        for tor in &rig.plan().tors {
            let routes = rig.routes(&tor.name)?;
            let here = rig.plan().nodes.iter().filter(|it| it.rack == tor.rack);
            for node in here {
                let addresses = node.address.both();
                let host = |it: &std::net::IpAddr| Cidr::host(*it).to_string();
                let mut wanted: BTreeSet<String> = addresses.iter().map(host).collect();
                wanted.extend(self.blocks[&node.name].iter().cloned());
                let of = format!("{}_", node.name);
                let told = routes.iter().filter(|it| it.from.starts_with(&of));
                let told: BTreeSet<String> = told.map(|it| it.prefix.clone()).collect();
                if told != wanted {
                    let (tor, node) = (&tor.name, &node.name);
                    return Ok(Some(format!(
                        "{tor} has {told:?} of {node}, not {wanted:?}"
                    )));
                }
            }
            let known: BTreeSet<&String> = routes.iter().map(|it| &it.prefix).collect();
            let all = self.blocks.values().flatten();
            if let Some(lost) = all.clone().find(|it| !known.contains(it)) {
                return Ok(Some(format!("{} has no route to {lost}", tor.name)));
            }
        }
        Ok(None)
    }
}

/// What a node's bgpd still waits for.
fn ended(rig: &Rig, node: &str) -> Result<Option<String>> {
    let all = rig.json(node, &["margayctl", "bgp", "neighbors", "-o", "json"])?;
    let neighbors = list(&all["neighbors"]);
    let complete = neighbors.iter().filter(|it| {
        let mut families = list(&it["families"]).iter();
        it["state"] == "Established"
            && families.all(|it| it["negotiated"] != true || it["end_of_rib"] == true)
    });
    Ok((complete.count() != 4).then(|| all.to_string()))
}

/// Hears what is taken from a node's routes.
struct Monitor {
    node: &'static str,
    child: Child,
    path: std::path::PathBuf,
}

impl Monitor {
    fn start(rig: &Rig, node: &'static str) -> Self {
        let path = rig.plan().dir.join(format!("{node}.routes"));
        let mut command = rig
            .command(node, &["ip", "-o", "monitor", "route"])
            .unwrap();
        let child = command
            .stdout(Stdio::from(File::create(&path).unwrap()))
            .spawn()
            .unwrap();
        Self { node, child, path }
    }

    /// Our routes that were deleted since the file had that many bytes, and how many it has now.
    fn deleted(&self, from: usize) -> (Vec<String>, usize) {
        let heard = std::fs::read_to_string(&self.path).unwrap();
        let ours = |line: &&str| line.contains("proto 77") || line.contains("proto 78");
        let lines = heard[from..].lines().filter(ours);
        let deleted = lines.filter_map(|line| {
            let mut words = line.strip_prefix("Deleted ")?.split(' ');
            let first = words.next()?;
            Some(match first {
                "unreachable" => words.next()?.to_owned(),
                prefix => prefix.to_owned(),
            })
        });
        (deleted.collect(), heard.len())
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn traffic(rig: &Rig) -> Traffic {
    let mut traffic = Traffic::none();
    for (from, to) in [("a", "b"), ("b", "a"), ("c", "a"), ("b", "c")] {
        let netns = rig.netns(&format!("default/{from}")).unwrap();
        for address in rig.sandbox(to).unwrap().addresses {
            traffic.add_one(&format!("{from}→{to}"), &netns, address, Kind::NewFlows);
        }
    }
    traffic
}

/// n1 has IPv4 addresses of a pool with blocks so small that every few pods need one more.
const SMALL: &str = r#"
apiVersion: margay.io/v1
kind: IPPool
metadata: { name: small }
spec: { cidr: 10.250.0.0/24, blockSize: 30, nodeSelector: "kubernetes.io/hostname == 'n1'" }
"#;
const LARGE: &str = r#"{"spec":{"nodeSelector":"kubernetes.io/hostname != 'n1'"}}"#;

#[test]
fn every_order_of_deaths_and_changes_ends_with_the_right_routes_and_nothing_lost() {
    let rig = scene_of(Rig::dual("orders", false).unwrap()).unwrap();
    prepare_spine(&rig);
    rig.apply(SMALL).unwrap();
    let patch = ["patch", "ippool", "pods-v4", "--type", "merge", "-p", LARGE];
    rig.kubectl(&patch, "").unwrap();
    announce(&rig, 0, "enable");
    rig.sessions_up().unwrap();
    let mut truth = Truth::learn(&rig);
    wait("a small block", SOON, || {
        truth.blocks = blocks(&rig)?;
        let small = truth.blocks["n1"]
            .iter()
            .any(|it| it.starts_with("10.250."));
        Ok((!small).then(|| format!("{:?}", truth.blocks)))
    })
    .unwrap();
    wait("the routes", SOON, || truth.missing(&rig)).unwrap();
    let monitors = NODES.map(|node| Monitor::start(&rig, node));
    let mut heard = [0; 3];
    let start = Instant::now();
    let mut round = 0;
    for away in [false, true] {
        for change in [Change::Nothing, Change::Routes, Change::Blocks] {
            for orders in [[0, 1, 2], [3, 4, 5]] {
                let begun = Instant::now();
                let what = format!("{change:?}, orders {orders:?}, API away: {away}");
                let before = NODES.map(|node| truth.learnt(node));
                let sent = traffic(&rig);
                // Another node goes through another order each time.
                let order = |node: usize| ORDERS[orders[(node + round) % orders.len()]];
                go_through(&rig, &mut truth, change, away, round, order);
                wait(&what, SOON, || {
                    if change == Change::Blocks {
                        truth.blocks = blocks(&rig)?;
                        let pods = rig.pods()?;
                        let there = pods.values().all(|it| it["status"]["phase"] == "Running");
                        if !there {
                            return Ok(Some("a pod does not run".to_owned()));
                        }
                    }
                    truth.missing(&rig)
                })
                .unwrap();
                rig.sessions_up().unwrap();
                for node in NODES {
                    rig.felix_ready(node).unwrap();
                    wait("every peer's routes", SOON, || ended(&rig, node)).unwrap();
                }
                wait(&what, SOON, || truth.missing(&rig)).unwrap();
                sent.stop_unharmed(&what).unwrap();
                for (index, monitor) in monitors.iter().enumerate() {
                    let (deleted, now) = monitor.deleted(heard[index]);
                    heard[index] = now;
                    let after = truth.learnt(monitor.node);
                    // It hears what is taken with good reason.
                    let gone = before[index].keys().filter(|it| !after.contains_key(*it));
                    let unheard: Vec<_> = gone.filter(|it| !deleted.contains(it)).collect();
                    assert!(unheard.is_empty(), "{what}: {unheard:?} of {deleted:?}");
                    let wrong = deleted.into_iter().find(|prefix| {
                        after.contains_key(prefix) && before[index].contains_key(prefix)
                            || truth.blocks[monitor.node].contains(prefix)
                    });
                    let node = monitor.node;
                    assert_eq!(wrong, None, "{what}: taken from {node} although true");
                }
                println!("{what}: {} ms", begun.elapsed().as_millis());
                round += 1;
            }
        }
    }
    let took = start.elapsed();
    println!("{round} rounds in {} ms", took.as_millis());
    drop(monitors);
    assert!(took < WHOLE, "{took:?}");
    rig.finish().unwrap();
}

/// One round: the first step on each node, what changes, and the other steps.
fn go_through(
    rig: &Rig,
    truth: &mut Truth,
    change: Change,
    away: bool,
    round: usize,
    order: impl Fn(usize) -> &'static [Step],
) {
    let take = |node: &str, step: Step| match step {
        Kill(daemon) => rig.kill(daemon, Some(node)).unwrap(),
        Start(daemon) => drop(rig.start(daemon, Some(node)).unwrap()),
    };
    for (index, node) in NODES.iter().enumerate() {
        take(node, order(index)[0]);
    }
    match change {
        Change::Nothing => {}
        Change::Routes => {
            announce(rig, truth.pair, "disable");
            truth.pair = 1 - truth.pair;
            announce(rig, truth.pair, "enable");
        }
        Change::Blocks => {
            let names = [0, 1, 2].map(|it| format!("more-{round}-{it}"));
            rig.create(&names.each_ref().map(|name| Pod { name, node: "n1" }))
                .unwrap();
            let lost = truth.blocks["n3"]
                .iter()
                .find(|it| it.contains(':'))
                .unwrap();
            let lost: Cidr = lost.parse().unwrap();
            let argv = ["delete", "ipamblock", &lost.object_name()];
            rig.kubectl(&argv, "").unwrap();
        }
    }
    if away {
        rig.kill("apiserver", None).unwrap();
    }
    for step in 1..4 {
        for (index, node) in NODES.iter().enumerate() {
            if let Some(step) = order(index).get(step) {
                take(node, *step);
            }
        }
    }
    if away {
        // What does not need the API is right without it.
        if change != Change::Blocks {
            wait("the routes without the API", SOON, || truth.missing(rig)).unwrap();
        }
        rig.start("apiserver", None).unwrap();
    }
}
