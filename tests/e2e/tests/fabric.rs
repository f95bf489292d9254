//! Routes: what BIRD learns from the nodes, what the nodes' kernels hold, and that foreign routes are left alone.

use std::collections::{BTreeMap, BTreeSet};

use crds::net::Cidr;
use e2e::suite::{self, Pod, Suite, World, list, namespace, text, until};
use lab::plan::CLUSTER_SPACE;
use serde_json::Value;

const WORKLOADS: i64 = 77;
const LEARNT: i64 = 78;

/// Blocks in the API: prefix → owning node.
fn blocks(suite: &Suite) -> BTreeMap<String, String> {
    suite
        .objects(&["ipamblocks"])
        .iter()
        .map(|block| {
            let spec = &block["spec"];
            (text(&spec["cidr"]), text(&spec["owner"]["node"]))
        })
        .collect()
}

fn within(space: &str, prefix: &str) -> bool {
    let parse = |text: &str| match text.parse::<Cidr>() {
        Ok(cidr) => cidr,
        Err(e) => panic!("{text}: {e}"),
    };
    parse(space).covers(parse(prefix))
}

/// Prefixes of the cluster's space in a ToR, with the node that originates each by its AS.
fn announced(suite: &Suite, tor: &str) -> Result<BTreeMap<String, String>, String> {
    let routes = suite.routes(tor).map_err(|e| format!("{e:#}"))?;
    let owner = |asn: Option<u32>| {
        let node = suite.plan().nodes.iter().find(|n| Some(n.asn) == asn);
        node.map_or_else(|| format!("{asn:?}"), |n| n.name.clone())
    };
    Ok(routes
        .iter()
        .filter(|r| CLUSTER_SPACE.iter().any(|space| within(space, &r.prefix)))
        .map(|r| (r.prefix.clone(), owner(r.origin_as)))
        .collect())
}

fn wait_announced(suite: &Suite) -> BTreeMap<String, String> {
    until("BIRD to have exactly the blocks of the API", || {
        let blocks = blocks(suite);
        for tor in ["tor-a", "tor-b"] {
            let announced = announced(suite, tor)?;
            if announced != blocks {
                return Err(format!("{tor}: {announced:?}\nAPI: {blocks:?}"));
            }
        }
        Ok(blocks)
    })
}

/// A pod on every node.
fn pods_everywhere(suite: &Suite, ns: &str) {
    suite.create(&[namespace(ns, &[])]);
    suite.run_pods(&[
        Pod::new(ns, "a", "n1"),
        Pod::new(ns, "b", "n2"),
        Pod::new(ns, "c", "n3"),
    ]);
}

fn number(value: &Value) -> i64 {
    match value {
        Value::String(text) => text.parse().unwrap_or(-1),
        other => other.as_i64().unwrap_or(-1),
    }
}

#[test]
fn every_session_is_established_on_both_sides() {
    let suite = suite::shared();
    let mut seen = BTreeSet::new();
    for tor in ["tor-a", "tor-b"] {
        for session in suite.sessions(tor).unwrap() {
            assert!(session.established, "{tor} {session:?}");
            seen.insert(format!("{tor} {}", session.name));
        }
    }
    let wanted = [
        "tor-a n1_v4",
        "tor-a n1_v6",
        "tor-a n2_v4",
        "tor-a n2_v6",
        "tor-a tor_b_v4",
        "tor-a tor_b_v6",
        "tor-b n3_v4",
        "tor-b n3_v6",
        "tor-b tor_a_v4",
        "tor-b tor_a_v6",
    ];
    assert_eq!(seen, wanted.map(str::to_owned).into());
    for node in ["n1", "n2", "n3"] {
        let neighbors = suite.ctl(node, &["bgp", "neighbors"]);
        let neighbors = list(&neighbors["neighbors"]);
        assert_eq!(neighbors.len(), 2, "{neighbors:?}");
        for neighbor in neighbors {
            assert_eq!(neighbor["state"], "Established", "{neighbor}");
            assert_eq!(neighbor["last_error"], "", "{neighbor}");
        }
    }
}

#[test]
fn bird_has_exactly_the_blocks_and_refused_nothing() {
    let suite = suite::shared();
    pods_everywhere(&suite, "blocks");
    let blocks = wait_announced(&suite);
    let owners: BTreeSet<(&str, bool)> = blocks
        .iter()
        .map(|(cidr, node)| (node.as_str(), cidr.contains(':')))
        .collect();
    assert_eq!(
        owners.len(),
        6,
        "a block per family and node at least: {blocks:?}"
    );
    for tor in ["tor-a", "tor-b"] {
        for route in suite.routes(tor).unwrap() {
            let host = route.prefix.ends_with("/32") || route.prefix.ends_with("/128");
            assert!(!host, "{tor}: {route:?}");
        }
        // What a node should never have sent: outside the cluster's space, or not its own.
        let refused = suite
            .birdc(tor, "show route filtered where proto ~ \"n*\"")
            .unwrap();
        assert!(
            !refused.contains("unicast") && !refused.contains("unreachable"),
            "{tor}: {refused}"
        );
        for node in &suite.plan().nodes {
            for family in [4, 6] {
                let name = format!("{}_v{family}", node.name);
                if !suite.sessions(tor).unwrap().iter().any(|s| s.name == name) {
                    continue;
                }
                let from = suite
                    .birdc(tor, &format!("show route protocol {name}"))
                    .unwrap();
                let from: Vec<String> = lab::bird::show::routes(&from)
                    .into_iter()
                    .map(|r| r.prefix)
                    .collect();
                let own: Vec<&String> = blocks
                    .iter()
                    .filter(|(cidr, owner)| {
                        **owner == node.name && cidr.contains(':') == (family == 6)
                    })
                    .map(|(cidr, _)| cidr)
                    .collect();
                assert_eq!(from.iter().collect::<Vec<_>>(), own, "{name}");
            }
        }
    }
}

#[test]
fn only_protocols_77_and_78_are_ours_with_the_fixed_metrics() {
    let suite = suite::shared();
    pods_everywhere(&suite, "kernel");
    let blocks = wait_announced(&suite);
    for node in ["n1", "n2", "n3"] {
        let (mut workloads, mut unreachable, mut learnt) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let routes = until(&format!("BGP routes on {node}"), || {
            let routes = suite.kernel_routes(node);
            let missing: Vec<&String> = blocks
                .keys()
                .filter(|cidr| !routes.iter().any(|r| r["dst"] == **cidr))
                .collect();
            match missing.is_empty() {
                true => Ok(routes),
                false => Err(format!("{missing:?}")),
            }
        });
        for route in &routes {
            let (dst, metric) = (text(&route["dst"]), route["metric"].as_i64());
            match (number(&route["protocol"]), text(&route["type"]).as_str()) {
                (WORKLOADS, "unreachable" | "7") => {
                    assert_eq!(metric, Some(64), "{node}: {route}");
                    unreachable.insert(dst);
                }
                (WORKLOADS, _) => {
                    assert_eq!(metric, Some(32), "{node}: {route}");
                    let dev = text(&route["dev"]);
                    assert!(dev.starts_with("mgy") && dev.len() == 15, "{node}: {route}");
                    assert!(!dst.contains('/'), "a host route: {route}");
                    workloads.insert(dst);
                }
                (LEARNT, _) => {
                    assert_eq!(metric, Some(128), "{node}: {route}");
                    assert!(route["nhid"].is_u64(), "{node}: {route}");
                    learnt.insert(dst);
                }
                // Of the kernel itself: the segment and link-local addresses.
                (protocol, _) => assert_eq!(protocol, 2, "{node}: {route}"),
            }
        }
        let own: BTreeSet<String> = blocks
            .iter()
            .filter(|(_, owner)| *owner == node)
            .map(|(cidr, _)| cidr.clone())
            .collect();
        assert_eq!(unreachable, own, "{node}");
        let others: BTreeSet<&String> = blocks.keys().filter(|c| !own.contains(*c)).collect();
        assert!(
            others.iter().all(|cidr| learnt.contains(*cidr)),
            "{node}: {learnt:?}"
        );
        let pods: BTreeSet<String> = suite
            .objects(&["pods", "-A"])
            .iter()
            .filter(|pod| pod["spec"]["nodeName"] == node)
            .flat_map(|pod| list(&pod["status"]["podIPs"]).to_vec())
            .map(|ip| text(&ip["ip"]))
            .collect();
        // Another test may be making pods now: those that run have their routes.
        assert!(pods.is_subset(&workloads), "{node}: {pods:?} {workloads:?}");

        let nexthops = suite.run_json(node, &["ip", "-N", "-j", "nexthop", "show"]);
        assert!(!list(&nexthops).is_empty(), "{node}");
        for nexthop in list(&nexthops) {
            assert_eq!(number(&nexthop["protocol"]), LEARNT, "{node}: {nexthop}");
        }
        // Nothing in other tables, no rules.
        let rules = suite.run(node, &["ip", "rule"]);
        assert_eq!(rules.lines().count(), 3, "{node}: {rules}");
    }
}

/// Routes and nexthops that are not ours, as `ip` prints them, without those of the kernel.
fn foreign(suite: &Suite, node: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for family in ["-4", "-6"] {
        let all = suite.run(node, &["ip", "-N", family, "route", "show", "table", "all"]);
        lines.extend(all.lines().map(str::to_owned));
    }
    let nexthops = suite.run(node, &["ip", "-N", "nexthop", "show"]);
    lines.extend(nexthops.lines().map(str::to_owned));
    lines.retain(|line| line.contains("proto 4"));
    lines
        .iter()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

#[test]
fn foreign_routes_stay_whatever_happens() {
    let suite = suite::alone();
    let blocks = wait_announced(&suite);
    let block = |node: &str, v6: bool| {
        let found = blocks
            .iter()
            .find(|(cidr, owner)| *owner == node && cidr.contains(':') == v6);
        found.map(|(cidr, _)| cidr.clone()).unwrap()
    };
    let node = "n1";
    let (n3_v4, n3_v6) = (block("n3", false), block("n3", true));
    // Defaults, routes to our own destinations with another metric, and a nexthop object with a route of its own.
    for command in [
        "ip route add default via 172.30.1.1 proto static".to_owned(),
        "ip -6 route add default via fd00:30:1::1 proto static".to_owned(),
        format!("ip route add {n3_v4} via 172.30.1.12 proto static metric 500"),
        format!("ip -6 route add {n3_v6} via fd00:30:1::12 proto static metric 500"),
        "ip nexthop add id 7 via 172.30.1.1 dev eth0 proto static".to_owned(),
        "ip route add 198.51.100.0/24 nhid 7 proto static".to_owned(),
        "ip -6 route add 2001:db8::/32 dev eth0 proto static".to_owned(),
    ] {
        suite.run(node, &command.split(' ').collect::<Vec<_>>());
    }
    // At exactly our prefix and metric: ours has to be out of the way when they come.
    suite.kill("felix", Some(node)).unwrap();
    for (family, cidr, via) in [
        ("-4", &n3_v4, "172.30.1.12"),
        ("-6", &n3_v6, "fd00:30:1::12"),
    ] {
        let ours = ["metric", "128"];
        suite.run(
            node,
            &[&["ip", family, "route", "del", cidr], &ours[..]].concat(),
        );
        let argv = [
            "ip", family, "route", "add", cidr, "via", via, "proto", "static",
        ];
        suite.run(node, &[&argv[..], &ours[..]].concat());
    }
    let before = foreign(&suite, node);
    assert_eq!(before.len(), 9, "{before:#?}");
    suite.start("felix", Some(node)).unwrap();
    suite.wait_felix(node);

    let problems = until("felix to report the routes in its way", || {
        let status = suite.ctl(node, &["status"]);
        let problems = status["felix"]["problems"].to_string();
        match problems.contains(&n3_v4) && problems.contains(&n3_v6) {
            true => Ok(problems),
            false => Err(problems),
        }
    });
    assert_eq!(foreign(&suite, node), before, "{problems}");

    // Pods come and go, routes of other nodes change.
    let world = World { prefix: "foreign" };
    suite.create(&[namespace(&world.ns("x"), &[])]);
    for round in ["one", "two"] {
        let ns = world.ns("x");
        suite.run_pods(&[Pod::new(&ns, round, node), Pod::new(&ns, "far", "n2")]);
        suite.expect(
            world,
            &[(
                &format!("x/{round} x/far"),
                &format!("x/{round} x/far"),
                "tcp/80",
                true,
            )],
        );
        assert_eq!(foreign(&suite, node), before);
        suite.delete_pod(&format!("{ns}/{round}"));
        suite.delete_pod(&format!("{ns}/far"));
    }
    suite.kill("bgpd", Some("n3")).unwrap();
    suite.start("bgpd", Some("n3")).unwrap();
    suite.kill("felix", Some(node)).unwrap();
    suite.start("felix", Some(node)).unwrap();
    suite.wait_felix(node);
    wait_announced(&suite);
    assert_eq!(foreign(&suite, node), before);

    // When they are out of the way, ours come back by themselves.
    for (family, cidr) in [("-4", &n3_v4), ("-6", &n3_v6)] {
        let foreign = ["metric", "128", "proto", "static"];
        suite.run(
            node,
            &[&["ip", family, "route", "del", cidr], &foreign[..]].concat(),
        );
    }
    until("our routes in their place", || {
        let routes = suite.kernel_routes(node);
        let back = [&n3_v4, &n3_v6].iter().all(|cidr| {
            routes
                .iter()
                .any(|r| r["dst"] == ***cidr && number(&r["protocol"]) == LEARNT)
        });
        match back {
            true => Ok(()),
            false => Err(format!("{routes:?}")),
        }
    });
    until("no problem to be left", || {
        let problems = e2e::problems(&suite.ctl(node, &["status"])["felix"]);
        match problems.is_empty() {
            true => Ok(()),
            false => Err(problems.join("; ")),
        }
    });
    for command in [
        "ip route del default".to_owned(),
        "ip -6 route del default".to_owned(),
        format!("ip route del {n3_v4} metric 500"),
        format!("ip -6 route del {n3_v6} metric 500"),
        "ip route del 198.51.100.0/24".to_owned(),
        "ip -6 route del 2001:db8::/32".to_owned(),
        "ip nexthop del id 7".to_owned(),
    ] {
        suite.run(node, &command.split(' ').collect::<Vec<_>>());
    }
    assert!(foreign(&suite, node).is_empty());
}
