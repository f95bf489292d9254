//! The table of every node: readable, the only one that is ours, and closed to whatever has not been programmed.

use std::fs;

use e2e::suite::{self, Pod, Suite, World, list, namespace, until};
use serde_json::Value;

/// Tables of a node as `family name`.
fn tables(suite: &Suite, node: &str) -> Vec<String> {
    suite
        .run(node, &["nft", "list", "tables"])
        .lines()
        .map(|line| line.trim_start_matches("table ").to_owned())
        .collect()
}

/// Packets dropped before routing: of unknown interfaces and with sources that are not the pod's.
fn dropped(suite: &Suite, node: &str) -> u64 {
    let argv = ["nft", "-j", "list", "chain", "inet", "margay", "prerouting"];
    let chain = suite.run_json(node, &argv);
    list(&chain["nftables"])
        .iter()
        .flat_map(|item| list(&item["rule"]["expr"]).to_vec())
        .filter_map(|expr| expr["counter"]["packets"].as_u64())
        .sum()
}

#[test]
fn nft_prints_the_ruleset_of_every_node() {
    let suite = suite::shared();
    let ns = "prints";
    suite.create(&[namespace(ns, &[])]);
    // Every kind of element there is.
    suite.apply_text(&format!(
        "{{ apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{ name: all, namespace: {ns} }}, spec: {{ podSelector: {{}},
           ingress: [{{ from: [{{ ipBlock: {{ cidr: 10.0.0.0/8, except: [10.1.0.0/16] }} }}, {{ ipBlock: {{ cidr: 'fd00::/8' }} }}, {{ podSelector: {{}} }}],
             ports: [{{ port: 80 }}, {{ port: 1000, endPort: 2000 }}, {{ protocol: UDP }}] }}],
           egress: [{{ to: [{{ namespaceSelector: {{}} }}] }}] }} }}"
    ));
    suite.run_pods(&[
        Pod::new(ns, "a", "n1"),
        Pod::new(ns, "b", "n2"),
        Pod::new(ns, "c", "n3"),
    ]);
    for node in ["n1", "n2", "n3"] {
        let ruleset = suite.run(node, &["nft", "list", "ruleset"]);
        assert!(ruleset.contains("table inet margay"), "{ruleset}");
        let pod = format!(
            "{ns}/{}",
            match node {
                "n1" => "a",
                "n2" => "b",
                _ => "c",
            }
        );
        assert!(
            ruleset.contains(&pod),
            "elements say whose they are: {ruleset}"
        );
        let json = suite.run_json(node, &["nft", "-j", "list", "ruleset"]);
        let foreign: Vec<&Value> = list(&json["nftables"])
            .iter()
            .filter(|item| {
                let what = item.as_object().and_then(|o| o.values().next());
                what.is_some_and(|w| w["table"].is_string() && w["table"] != "margay")
            })
            .collect();
        assert!(foreign.is_empty(), "{foreign:?}");
        // Chains do not grow with pods or policies.
        let chains = list(&json["nftables"])
            .iter()
            .filter(|item| item["chain"].is_object())
            .count();
        assert!(chains < 80, "{chains} chains");
        // What nft prints it can read: no expression only we know how to write.
        let file = suite.plan().dir.join(format!("{node}.nft"));
        fs::write(&file, &ruleset).unwrap();
        suite.run(node, &["nft", "-c", "-f", &file.display().to_string()]);
    }
}

#[test]
fn foreign_tables_are_left_alone() {
    let suite = suite::alone();
    let node = "n2";
    suite.kill("felix", Some(node)).unwrap();
    suite.run(node, &["nft", "delete", "table", "inet", "margay"]);
    // Names and hooks as near to ours as they get.
    for command in [
        "add table ip margay",
        "add table inet margay2",
        "add chain inet margay2 forward { type filter hook forward priority -1 ; policy accept ; }",
        "add rule inet margay2 forward ip daddr 203.0.113.1 drop comment \"mine\"",
        "add set ip margay workload4 { type ipv4_addr ; elements = { 192.0.2.1 } ; }",
    ] {
        suite.run(node, &["nft", command]);
    }
    let foreign = |suite: &Suite| {
        let one = suite.run(node, &["nft", "list", "table", "ip", "margay"]);
        one + &suite.run(node, &["nft", "list", "table", "inet", "margay2"])
    };
    let before = foreign(&suite);
    suite.start("felix", Some(node)).unwrap();
    suite.wait_felix(node);
    let ns = "foreign";
    suite.create(&[namespace(ns, &[])]);
    suite.run_pods(&[Pod::new(ns, "a", node)]);
    suite.delete_pod(&format!("{ns}/a"));
    let mut all = tables(&suite, node);
    all.sort();
    assert_eq!(all, ["inet margay", "inet margay2", "ip margay"]);
    assert_eq!(foreign(&suite), before);
    suite.run(node, &["nft", "delete", "table", "ip", "margay"]);
    suite.run(node, &["nft", "delete", "table", "inet", "margay2"]);
    for other in ["n1", "n3"] {
        assert_eq!(tables(&suite, other), ["inet margay"]);
    }
}

#[test]
fn a_pod_made_while_felix_is_stopped_has_no_network_until_it_is_back() {
    let suite = suite::alone();
    let world = World { prefix: "stopped" };
    let (ns, node) = (world.ns("x"), "n2");
    suite.create(&[namespace(&ns, &[])]);
    suite.run_pods(&[Pod::new(&ns, "before", node), Pod::new(&ns, "far", "n3")]);
    let links = suite.pod_links(node);
    suite.kill("felix", Some(node)).unwrap();
    let pod = Pod::new(&ns, "late", node);
    suite.create(&[pod.object()]);
    let runner = suite.log_files(node, Some("runner")).unwrap().remove(0);
    until("ADD to have failed more than once", || {
        let log = fs::read_to_string(&runner).unwrap_or_default();
        let failures: Vec<&str> = log
            .lines()
            .filter(|l| l.contains("will try again"))
            .collect();
        match failures.len() {
            0 | 1 => Err(log),
            _ => Ok(()),
        }
    });
    let object = suite.object(&["get", "pod", "-n", &ns, "late"]);
    assert_ne!(object["status"]["phase"], "Running", "{object}");
    assert_eq!(list(&object["status"]["podIPs"]).len(), 0, "{object}");
    // A failed ADD leaves no interface, and the pods that were there do not notice.
    until("no interface that was not there before", || {
        let now = suite.pod_links(node);
        match now == links {
            true => Ok(()),
            false => Err(format!("{now:?}")),
        }
    });
    suite.expect(
        world,
        &[(
            "x/far x/before",
            "x/far x/before",
            "tcp/80 udp/80 icmp",
            true,
        )],
    );
    suite.start("felix", Some(node)).unwrap();
    suite.wait_ready(&pod.to_string());
    suite.expect(
        world,
        &[(
            "x/far x/before x/late",
            "x/far x/before x/late",
            "tcp/80",
            true,
        )],
    );
    assert_eq!(suite.pod_links(node).len(), links.len() + 1);
}

#[test]
fn an_unknown_interface_has_no_network() {
    let suite = suite::alone();
    let world = World { prefix: "unknown" };
    let (ns, node) = (world.ns("x"), "n1");
    suite.create(&[namespace(&ns, &[])]);
    suite.run_pods(&[Pod::new(&ns, "a", node), Pod::new(&ns, "far", "n3")]);
    // In the place of a pod that nobody announced: a pod's namespace of another node lends its far end.
    let link = "mgy0123456789ab";
    let stranger = suite.netns(&format!("{ns}/far")).unwrap();
    let netns = stranger.file_name().unwrap().to_string_lossy().into_owned();
    suite.run(
        node,
        &[
            "ip", "link", "add", link, "type", "veth", "peer", "name", "stray", "netns", &netns,
        ],
    );
    suite.run(node, &["ip", "link", "set", link, "up"]);
    suite.run(node, &["ip", "addr", "add", "192.0.2.1/24", "dev", link]);
    suite.run(
        node,
        &["ip", "addr", "add", "2001:db8::1/64", "dev", link, "nodad"],
    );
    let far = format!("{ns}/far");
    for command in [
        "ip link set stray up",
        "ip addr add 192.0.2.2/24 dev stray",
        "ip addr add 2001:db8::2/64 dev stray nodad",
        "ip route add 172.30.1.11/32 via 192.0.2.1 dev stray",
        "ip route add fd00:30:1::11/128 via 2001:db8::1 dev stray",
    ] {
        suite.run(&far, &command.split(' ').collect::<Vec<_>>());
    }
    let a = suite.addresses(&format!("{ns}/a"));
    for (address, via) in [(&a[0], "192.0.2.1"), (&a[1], "2001:db8::1")] {
        suite.run(
            &far,
            &["ip", "route", "add", address, "via", via, "dev", "stray"],
        );
    }
    let before = dropped(&suite, node);
    for target in [
        "192.0.2.1",
        "172.30.1.11",
        "2001:db8::1",
        "fd00:30:1::11",
        &a[0],
        &a[1],
    ] {
        let ping = [
            "ping", "-c", "2", "-i", "0.2", "-W", "1", "-I", "stray", target,
        ];
        let output = suite.exec(&far, &ping).unwrap();
        assert!(
            !output.status.success(),
            "{target} answers an unknown interface: {}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    let after = dropped(&suite, node);
    assert!(after > before, "dropped {before} before, {after} after");
    // Nor does anything get an answer from behind it.
    let to_stray = |source: &str, target: &str| {
        let ping = ["ping", "-c", "2", "-i", "0.2", "-W", "1", target];
        suite.exec(source, &ping).unwrap().status.success()
    };
    let pod = format!("{ns}/a");
    for target in ["192.0.2.2", "2001:db8::2"] {
        assert!(!to_stray(node, target), "{target} from the node");
        assert!(!to_stray(&pod, target), "{target} from a pod");
    }
    suite.run(node, &["ip", "link", "del", link]);
    suite.expect(world, &[("x/far", "x/a", "tcp/80 icmp", true)]);
}

#[test]
fn spoofed_sources_are_dropped() {
    let suite = suite::alone();
    let world = World { prefix: "spoof" };
    let (ns, node) = (world.ns("x"), "n1");
    suite.create(&[namespace(&ns, &[])]);
    suite.run_pods(&[
        Pod::new(&ns, "liar", node),
        Pod::new(&ns, "victim", node),
        Pod::new(&ns, "target", "n3"),
    ]);
    let (liar, target) = (format!("{ns}/liar"), format!("{ns}/target"));
    let victim = suite.addresses(&format!("{ns}/victim"));
    let own = suite.addresses(&liar);
    // What arrives at the target is counted there.
    for command in [
        "add table inet watch",
        "add chain inet watch input { type filter hook input priority 0 ; }",
    ] {
        suite.run(&target, &["nft", command]);
    }
    let sources = [
        (victim[0].as_str(), "ip"),
        ("203.0.113.9", "ip"),
        ("172.30.1.11", "ip"),
        (victim[1].as_str(), "ip6"),
        ("2001:db8::9", "ip6"),
        ("fd00:30:1::11", "ip6"),
    ];
    let watched = [(own[0].as_str(), "ip"), (own[1].as_str(), "ip6")];
    for (source, family) in sources.iter().chain(&watched) {
        let rule = format!("add rule inet watch input {family} saddr {source} counter");
        suite.run(&target, &["nft", &rule]);
    }
    let arrived = || -> Vec<u64> {
        let chain = suite.run_json(
            &target,
            &["nft", "-j", "list", "chain", "inet", "watch", "input"],
        );
        list(&chain["nftables"])
            .iter()
            .flat_map(|item| list(&item["rule"]["expr"]).to_vec())
            .filter_map(|expr| expr["counter"]["packets"].as_u64())
            .collect()
    };
    let to = suite.addresses(&target);
    for (source, family) in sources {
        // An address that is still looked for elsewhere cannot be sent from.
        let (length, at_once, to) = match family {
            "ip" => ("32", None, &to[0]),
            _ => ("128", Some("nodad"), &to[1]),
        };
        let address = format!("{source}/{length}");
        let mut add = vec!["ip", "addr", "add", &address, "dev", "eth0"];
        add.extend(at_once);
        suite.run(&liar, &add);
        let before = dropped(&suite, node);
        let ping = ["ping", "-c", "3", "-i", "0.2", "-W", "1", "-I", source, to];
        let output = suite.exec(&liar, &ping).unwrap();
        assert!(!output.status.success(), "{source}");
        let after = dropped(&suite, node);
        assert!(
            after >= before + 3,
            "{source}: {before} → {after}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        suite.run(&liar, &["ip", "addr", "del", &address, "dev", "eth0"]);
    }
    for (source, to) in [(&own[0], &to[0]), (&own[1], &to[1])] {
        suite.run(
            &liar,
            &["ping", "-c", "3", "-i", "0.2", "-W", "2", "-I", source, to],
        );
    }
    let arrived = arrived();
    assert_eq!(arrived.len(), 8, "{arrived:?}");
    assert!(arrived[..6].iter().all(|n| *n == 0), "{arrived:?}");
    assert!(arrived[6..].iter().all(|n| *n >= 3), "{arrived:?}");
}
