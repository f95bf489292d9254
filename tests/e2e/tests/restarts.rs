//! felix dies again and again while pods and policies come and go: what policy denies never arrives, what it allows never
//! breaks.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2e::fault::{Pod, Rig, Traffic, Watch, scene, wait};
use lab::netns;

const DEATHS: u32 = 50;
/// Those whose felix dies.
const NODES: [&str; 2] = ["n1", "n3"];
const SOON: Duration = Duration::from_secs(30);

/// Pods of other names, and policies that name them.
const BYSTANDER: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: bystander, namespace: default }
spec:
  podSelector: { matchExpressions: [{ key: app, operator: In, values: [x1, x2] }] }
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{ podSelector: { matchExpressions: [{ key: app, operator: In, values: [VALUES] }] } }]
  egress:
  - to: [{ ipBlock: { cidr: 10.0.0.0/8, except: [10.EXCEPT.0.0/16] } }]
";

/// What kube-proxy keeps on a node, as iptables-nft writes it and in its own nftables mode, and bits of the packet's mark
/// that belong to it, from when a packet comes until policy has judged it.
const BESIDE: &str = r#"
table ip nat {
  chain KUBE-MARK-MASQ { meta mark set meta mark | 0x4000; }
  chain KUBE-SVC-A { ip protocol tcp counter dnat to 10.0.0.1:8080; }
  chain KUBE-SERVICES { ip daddr 10.96.0.1 tcp dport 80 counter jump KUBE-MARK-MASQ; ip daddr 10.96.0.1 tcp dport 80 counter jump KUBE-SVC-A; }
  chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; counter jump KUBE-SERVICES; }
  chain KUBE-POSTROUTING { meta mark & 0x4000 != 0x4000 counter return; counter meta mark set meta mark ^ 0x4000; counter masquerade fully-random; }
  chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; counter jump KUBE-POSTROUTING; }
}
table ip filter {
  chain KUBE-FIREWALL { ip daddr 192.0.2.1 meta mark & 0x8000 == 0x8000 counter drop; }
  chain FORWARD { type filter hook forward priority filter; policy accept; counter jump KUBE-FIREWALL; }
}
table ip kube-proxy {
  comment "rules for kube-proxy"
  set cluster-ips { type ipv4_addr; elements = { 10.96.0.1, 10.96.0.10 } }
  map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 10.96.0.1 . tcp . 443 : goto service-1 } }
  chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
  chain service-1 { meta l4proto tcp dnat to 10.0.0.1:8443; }
  chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
}
table inet marks {
  chain put { type filter hook prerouting priority -140; policy accept; meta mark set meta mark | 0xc000; }
  chain kept {
    type filter hook forward priority 100; policy accept
    meta mark & 0xc000 == 0xc000 counter comment "kept"
    meta mark & 0xc000 != 0xc000 counter comment "lost"
  }
  chain back { type filter hook postrouting priority 99; policy accept; meta mark set meta mark & 0xffff3fff; }
}
"#;
const FOREIGN: &str = "for table in 'ip nat' 'ip filter' 'ip kube-proxy' 'inet marks'; do nft -s list table $table; done";

/// The text of everybody else's tables, without their counters.
fn foreign(rig: &Rig, node: &str) -> String {
    rig.ask(node, &["sh", "-ec", FOREIGN]).unwrap()
}

/// Packets that had their mark still when policy had judged them, and packets that had not.
fn marks(rig: &Rig, node: &str) -> [usize; 2] {
    let listing = rig
        .ask(node, &["nft", "list", "chain", "inet", "marks", "kept"])
        .unwrap();
    ["kept", "lost"].map(|what| {
        let line = listing
            .lines()
            .find(|line| line.contains(what) && line.contains("packets"));
        let mut words = line
            .unwrap()
            .split_whitespace()
            .skip_while(|it| *it != "packets");
        words.nth(1).and_then(|it| it.parse().ok()).unwrap()
    })
}

/// A TCP connection over which something is said all the time, and answered in order.
fn stream(rig: &Rig, from: &str, to: IpAddr, stop: Arc<AtomicBool>) -> thread::JoinHandle<usize> {
    let netns = rig.netns(&format!("default/{from}")).unwrap();
    let target = SocketAddr::new(to, 80);
    let mut stream =
        netns::run_in(&netns, move || TcpStream::connect_timeout(&target, SOON)).unwrap();
    thread::spawn(move || {
        let mut answer = [0; 64];
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut said = 0;
        // The greeting, then an answer to each.
        while stream.read(&mut answer).unwrap() > 0 {
            said += 1;
            if stop.load(Ordering::Relaxed) {
                return said;
            }
            thread::sleep(Duration::from_millis(5));
            stream.write_all(b"?").unwrap();
        }
        panic!("the connection is over after {said} answers");
    })
}

/// Counts, in a pod's namespace, what comes from these addresses, whether or not anything goes back.
fn spy(rig: &Rig, pod: &str, forbidden: &[IpAddr]) {
    let rules: Vec<String> = forbidden
        .iter()
        .map(|address| {
            let family = if address.is_ipv4() { "ip" } else { "ip6" };
            format!("{family} saddr {address} counter")
        })
        .collect();
    let table = format!(
        "table inet spy {{\n chain input {{\n type filter hook input priority 0\n {}\n }}\n }}",
        rules.join("\n ")
    );
    rig.ask(
        &format!("default/{pod}"),
        &["sh", "-c", "echo \"$0\" | nft -f -", &table],
    )
    .unwrap();
}

fn spied(rig: &Rig, pod: &str) -> usize {
    let listing = rig
        .ask(
            &format!("default/{pod}"),
            &["nft", "list", "table", "inet", "spy"],
        )
        .unwrap();
    let mut words = listing.split_whitespace();
    let mut packets = 0;
    while let Some(word) = words.next() {
        if word == "packets" {
            packets += words.next().and_then(|n| n.parse::<usize>().ok()).unwrap();
        }
    }
    packets
}

/// Pods and policies come and go until it is told to stop; how often.
fn churn(rig: &Rig, stop: &AtomicBool) -> usize {
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let name = ["x1", "x2"][rounds % 2];
        let values = ["x1", "x2, c", "a"][rounds % 3];
        let policy = BYSTANDER
            .replace("VALUES", values)
            .replace("EXCEPT", &(rounds % 7).to_string());
        rig.create(&[Pod {
            name,
            node: ["n1", "n3"][rounds / 2 % 2],
        }])
        .unwrap();
        rig.apply(&policy).unwrap();
        thread::sleep(Duration::from_millis(200));
        rig.delete(&[name]).unwrap();
        if rounds % 4 == 3 {
            rig.kubectl(&["delete", "networkpolicy", "bystander"], "")
                .unwrap();
        }
        rig.gone(&[name]).unwrap();
        rounds += 1;
    }
    rounds
}

/// What is denied from some moment on, known by a probe, stays so until the policy is taken back, whether felix is there
/// or not. Returns how often it was.
fn flip(rig: &Rig, stop: &AtomicBool) -> usize {
    let netns = rig.netns("default/c").unwrap();
    let to = rig.sandbox("a").unwrap().addresses;
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: { name: flip, namespace: default }\nspec: { podSelector: { matchLabels: { app: a } }, ingress: [{ from: [{ podSelector: { matchLabels: { app: b } } }] }] }\n";
    // How many of c's packets arrive at a within this time.
    let arrived = |millis: u64| {
        let before = spied(rig, "a");
        let mut probe = Traffic::none();
        for address in &to {
            probe.add("c→a", &netns, &[*address]);
        }
        thread::sleep(Duration::from_millis(millis));
        probe.stop_soon().unwrap();
        spied(rig, "a") - before
    };
    let mut flips = 0;
    while !stop.load(Ordering::Relaxed) {
        rig.apply(policy).unwrap();
        wait("c to be shut out of a", SOON, || {
            Ok((arrived(50) > 0).then(|| "its packets arrive".to_owned()))
        })
        .unwrap();
        assert_eq!(arrived(700), 0, "forbidden, and yet there");
        rig.kubectl(&["delete", "networkpolicy", "flip"], "")
            .unwrap();
        wait("a to be open for c", SOON, || {
            Ok((arrived(50) == 0).then(|| "nothing arrives".to_owned()))
        })
        .unwrap();
        flips += 1;
    }
    flips
}

#[test]
fn fifty_deaths_of_felix_under_churn_break_no_verdict() {
    let rig = scene("fifty").unwrap();
    let beside = NODES.map(|node| {
        rig.ask(node, &["sh", "-ec", "echo \"$0\" | nft -f -", BESIDE])
            .unwrap();
        foreign(&rig, node)
    });
    // c to a is not what is watched here: it is forbidden now and then.
    let watch = Watch::between(&rig, &[("a", "b"), ("b", "a")]).unwrap();
    for pod in ["a", "b"] {
        spy(&rig, pod, &rig.sandbox("c").unwrap().addresses);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let streams: Vec<_> = rig
        .sandbox("b")
        .unwrap()
        .addresses
        .into_iter()
        .map(|address| stream(&rig, "a", address, stop.clone()))
        .collect();
    let start = Instant::now();
    let (rounds, flips) = thread::scope(|scope| {
        let rounds = scope.spawn(|| churn(&rig, &stop));
        let flips = scope.spawn(|| flip(&rig, &stop));
        for death in 0..DEATHS {
            let node = NODES[usize::try_from(death % 2).unwrap()];
            rig.kill("felix", Some(node)).unwrap();
            // Away for a moment, or for long enough that others notice.
            thread::sleep(Duration::from_millis(u64::from(death * 7 % 40) * 5));
            rig.start("felix", Some(node)).unwrap();
            // Dead again in the midst of its start, or when all is done.
            if death % 3 == 0 {
                rig.felix_ready(node).unwrap();
            } else {
                thread::sleep(Duration::from_millis(u64::from(death * 11 % 30) * 10));
            }
        }
        for node in NODES {
            rig.felix_ready(node).unwrap();
        }
        // Each at least once with felix there and not.
        thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        (rounds.join().unwrap(), flips.join().unwrap())
    });
    let said: usize = streams
        .into_iter()
        .map(|stream| stream.join().unwrap())
        .sum();
    watch.unharmed("felix killed fifty times").unwrap();
    assert_eq!(spied(&rig, "b"), 0, "packets of c have arrived at b");
    println!(
        "{DEATHS} deaths in {:?}: {rounds} pods and policies came and went, {flips} times a policy shut c out, {said} answers over TCP",
        start.elapsed()
    );
    assert!(rounds > 0 && flips > 0 && said > 100);
    for (node, before) in NODES.iter().zip(&beside) {
        assert_eq!(&foreign(&rig, node), before, "others' tables on {node}");
        let [kept, lost] = marks(&rig, node);
        assert!(
            kept > 1000 && lost == 0,
            "{node}: {kept} marks kept, {lost} lost"
        );
    }
    rig.finish().unwrap();
}
