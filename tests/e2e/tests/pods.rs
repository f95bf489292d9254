//! Pods: from `kubectl apply` to an answer from the other rack, and without a trace when they are gone. The kinds of
//! the project as kubectl sees them, and what margayctl says about all of it.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use e2e::suite::{self, Pod, Suite, WHATS, World, list, namespace, text, until, until_within};
use serde_json::Value;

/// Blocks of a node as the API has them.
fn blocks(suite: &Suite, node: &str) -> Vec<Value> {
    let label = format!("margay.io/node={node}");
    suite.objects(&["ipamblocks", "-l", &label])
}

fn holds(block: &Value, address: &str) -> bool {
    let cidr: crds::net::Cidr = text(&block["spec"]["cidr"]).parse().unwrap();
    cidr.contains(address.parse::<IpAddr>().unwrap())
}

/// Addresses in the mirrors of a node's blocks.
fn mirrored(suite: &Suite, node: &str) -> BTreeSet<String> {
    blocks(suite, node)
        .iter()
        .flat_map(|block| list(&block["status"]["allocations"]).to_vec())
        .map(|line| text(&line["address"]))
        .collect()
}

/// Addresses in use on a node as felix says.
fn allocated(suite: &Suite, node: &str) -> BTreeSet<String> {
    let shown = suite.ctl(node, &["ipam", "show"]);
    list(&shown["blocks"])
        .iter()
        .flat_map(|block| list(&block["allocations"]).to_vec())
        .map(|line| text(&line["address"]))
        .collect()
}

#[test]
fn the_kinds_are_there_and_explain_themselves() {
    let suite = suite::shared();
    let kinds = suite.kubectl(&["get", "crd", "-o", "name"]);
    for kind in [
        "ippools",
        "ipamblocks",
        "ipamconfigurations",
        "bgpconfigurations",
        "bgppeers",
    ] {
        assert!(
            kinds.contains(&format!("/{kind}.margay.io")),
            "{kind}: {kinds}"
        );
    }
    let explained = suite.kubectl(&["explain", "ippool.spec"]);
    for field in ["cidr", "blockSize", "disabled", "nodeSelector"] {
        assert!(explained.contains(field), "{explained}");
    }
    let table = suite.kubectl(&["get", "ipamblocks"]);
    let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["NAME", "CIDR", "NODE", "USED", "POOL", "AGE"]);
}

#[test]
fn a_pod_has_addresses_of_its_node_s_blocks_and_is_reached_from_everywhere() {
    let suite = suite::shared();
    let world = World { prefix: "reach" };
    let ns = world.ns("x");
    suite.create(&[namespace(&ns, &[])]);
    let pods = [
        Pod::new(&ns, "one", "n1"),
        Pod::new(&ns, "same", "n1"),
        Pod::new(&ns, "rack", "n2"),
        Pod::new(&ns, "far", "n3"),
    ];
    suite.run_pods(&pods);
    for pod in pods {
        let addresses = suite.addresses(&pod.to_string());
        assert_eq!(addresses.len(), 2, "{pod}: {addresses:?}");
        assert!(
            !addresses[0].contains(':') && addresses[1].contains(':'),
            "{addresses:?}"
        );
        let blocks = blocks(&suite, pod.node);
        for address in &addresses {
            assert!(
                blocks.iter().any(|b| holds(b, address)),
                "{pod}: {address} is in no block of {}: {blocks:?}",
                pod.node
            );
        }
        // Host addresses, so that no pod believes another to be on its own segment.
        let links = suite.run_json(&pod.to_string(), &["ip", "-j", "addr", "show", "eth0"]);
        let shown: Vec<(String, u64)> = list(&links[0]["addr_info"])
            .iter()
            .filter(|a| a["scope"] == "global")
            .map(|a| (text(&a["local"]), a["prefixlen"].as_u64().unwrap()))
            .collect();
        let wanted = vec![(addresses[0].clone(), 32), (addresses[1].clone(), 128)];
        assert_eq!(shown, wanted, "{pod}");
        assert_eq!(links[0]["mtu"], 1500, "{pod}: that of the uplink");
    }
    suite.expect(
        world,
        &[
            (
                "x/one x/same x/rack x/far",
                "x/one x/same x/rack x/far",
                WHATS,
                true,
            ),
            (
                "n1 n2 n3 tor-a tor-b",
                "x/one x/same x/rack x/far",
                WHATS,
                true,
            ),
            ("x/one x/far", "n1 n2 n3 tor-a tor-b", "icmp", true),
        ],
    );
}

#[test]
fn a_deleted_pod_leaves_nothing() {
    let suite = suite::alone();
    let node = "n2";
    let ns = "trace";
    suite.create(&[namespace(ns, &[])]);
    suite.apply_text(&format!(
        "{{ apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{ name: p, namespace: {ns} }}, \
         spec: {{ podSelector: {{}}, ingress: [{{ from: [{{ podSelector: {{}} }}] }}] }} }}"
    ));
    let elements = |suite: &Suite| -> Vec<String> {
        let table = suite.run(node, &["nft", "list", "table", "inet", "margay"]);
        let mut lines: Vec<String> = table
            .lines()
            .filter(|line| !line.contains("counter") && !line.contains("ct mark"))
            .map(|line| line.trim().to_owned())
            .collect();
        lines.sort();
        lines
    };
    let links = suite.pod_links(node);
    let routes = suite.kernel_routes(node).len();
    let used = allocated(&suite, node);
    let before = elements(&suite);
    let container = |suite: &Suite| -> Option<String> {
        let endpoints = suite.ctl(node, &["endpoints"]);
        let found = list(&endpoints["endpoints"])
            .iter()
            .find(|e| e["pod"] == format!("{ns}/gone"))?;
        Some(text(&found["container_id"]))
    };

    let mut last: Option<Vec<String>> = None;
    let mut containers = Vec::new();
    for _ in 0..3 {
        suite.run_pods(&[Pod::new(ns, "gone", node)]);
        let addresses = suite.addresses(&format!("{ns}/gone"));
        if let Some(last) = &last {
            let again: Vec<&String> = addresses.iter().filter(|a| last.contains(a)).collect();
            assert!(again.is_empty(), "{again:?} used again at once");
        }
        let id = container(&suite).unwrap();
        until("the mirror to show the addresses", || {
            let mirrored = mirrored(&suite, node);
            match addresses.iter().all(|a| mirrored.contains(a)) {
                true => Ok(()),
                false => Err(format!("{mirrored:?}")),
            }
        });
        assert!(
            addresses
                .iter()
                .all(|a| allocated(&suite, node).contains(a))
        );
        assert_eq!(suite.pod_links(node).len(), links.len() + 1);
        assert_ne!(elements(&suite), before);

        suite.delete_pod(&format!("{ns}/gone"));
        until("everything of the pod to be gone", || {
            let now = (
                suite.pod_links(node),
                suite.kernel_routes(node).len(),
                allocated(&suite, node),
            );
            match now == (links.clone(), routes, used.clone()) {
                true => Ok(()),
                false => Err(format!("{now:?}, before {links:?} {routes} {used:?}")),
            }
        });
        until("the elements to be gone", || {
            let now = elements(&suite);
            match now == before {
                true => Ok(()),
                false => Err(now.join("\n")),
            }
        });
        until_within("the mirror without them", Duration::from_secs(15), || {
            let mirrored = mirrored(&suite, node);
            match addresses.iter().any(|a| mirrored.contains(a)) {
                false => Ok(()),
                true => Err(format!("{mirrored:?}")),
            }
        });
        assert_eq!(container(&suite), None);
        containers.push(id);
        last = Some(addresses);
    }
    // Nor does a new life of felix know anything of them.
    suite.kill("felix", Some(node)).unwrap();
    suite.start("felix", Some(node)).unwrap();
    suite.wait_felix(node);
    assert_eq!(allocated(&suite, node), used);
    let log = suite.plan().node_state_dir(node).join("attachments.log");
    let log = fs::read_to_string(&log).unwrap();
    for id in containers {
        assert!(
            !log.contains(&id),
            "{id} in the log that was written anew: {log}"
        );
    }
    assert_eq!(suite.objects(&["pods", "-n", ns]).len(), 0);
}

#[test]
fn margayctl_says_what_kubectl_says() {
    let suite = suite::alone();
    let ns = "agree";
    suite.create(&[namespace(ns, &[])]);
    suite.run_pods(&[
        Pod::new(ns, "a", "n1"),
        Pod::new(ns, "b", "n1"),
        Pod::new(ns, "c", "n3"),
    ]);
    suite.apply_text(&format!(
        "{{ apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{ name: both, namespace: {ns} }}, \
         spec: {{ podSelector: {{}}, policyTypes: [Ingress, Egress] }} }}"
    ));
    for node in ["n1", "n2", "n3"] {
        let pods: Vec<Value> = suite
            .objects(&["pods", "-A"])
            .into_iter()
            .filter(|pod| pod["spec"]["nodeName"] == node)
            .collect();
        let selected = pods
            .iter()
            .filter(|p| p["metadata"]["namespace"] == ns)
            .count();
        until(&format!("the policy on {node}"), || {
            let policies = suite.ctl(node, &["policy", "list"]);
            let policy = list(&policies["policies"])
                .iter()
                .find(|p| p["name"] == format!("{ns}/both"))
                .ok_or_else(|| policies.to_string())?;
            assert_eq!(policy["ingress"], true, "{policy}");
            assert_eq!(policy["egress"], true, "{policy}");
            assert_eq!(policy["error"], "", "{policy}");
            match policy["endpoints"] == selected && policy["generation"] == 1 {
                true => Ok(()),
                false => Err(policy.to_string()),
            }
        });

        let endpoints = suite.ctl(node, &["endpoints"]);
        let endpoints = list(&endpoints["endpoints"]);
        assert_eq!(endpoints.len(), pods.len(), "{node}: {endpoints:?}");
        let table = suite.run(node, &["margayctl", "endpoints"]);
        let links = suite.pod_links(node);
        for pod in &pods {
            let meta = &pod["metadata"];
            let name = format!("{}/{}", text(&meta["namespace"]), text(&meta["name"]));
            let endpoint = endpoints.iter().find(|e| e["pod"] == name).unwrap();
            assert_eq!(endpoint["pod_uid"], meta["uid"]);
            assert_eq!(endpoint["state"], "Ready");
            assert!(links.contains(&text(&endpoint["interface"])), "{endpoint}");
            let ips: Vec<String> = list(&pod["status"]["podIPs"])
                .iter()
                .map(|ip| text(&ip["ip"]))
                .collect();
            let addresses: Vec<String> = list(&endpoint["addresses"]).iter().map(text).collect();
            assert_eq!(addresses, ips, "{name}");
            assert!(table.contains(&name) && table.contains(&ips[0]), "{table}");
            let policies = match meta["namespace"] == ns {
                true => vec![format!("{ns}/both")],
                false => vec![],
            };
            let shown: Vec<String> = list(&endpoint["ingress_policies"])
                .iter()
                .map(text)
                .collect();
            assert_eq!(shown, policies, "{name}");
        }

        until(&format!("blocks and mirrors of {node} to agree"), || {
            let shown = suite.ctl(node, &["ipam", "show"]);
            let shown: BTreeSet<(String, String, u64, Vec<String>)> = list(&shown["blocks"])
                .iter()
                .map(|b| {
                    let lines = list(&b["allocations"]).iter();
                    (
                        text(&b["cidr"]),
                        text(&b["epoch"]),
                        b["used"].as_u64().unwrap_or_default(),
                        lines.map(|l| text(&l["address"])).collect(),
                    )
                })
                .collect();
            let objects: BTreeSet<(String, String, u64, Vec<String>)> = blocks(&suite, node)
                .iter()
                .map(|b| {
                    let lines = list(&b["status"]["allocations"]).iter();
                    (
                        text(&b["spec"]["cidr"]),
                        text(&b["metadata"]["uid"]),
                        b["status"]["used"].as_u64().unwrap_or_default(),
                        lines.map(|l| text(&l["address"])).collect(),
                    )
                })
                .collect();
            match shown == objects {
                true => Ok(()),
                false => Err(format!("felix {shown:?}\nAPI {objects:?}")),
            }
        });

        let peers = suite.objects(&["bgppeers"]);
        let rack =
            text(&suite.object(&["get", "node", node])["metadata"]["labels"]["margay.io/rack"]);
        let peers: BTreeSet<(String, String)> = peers
            .iter()
            .filter(|p| text(&p["spec"]["nodeSelector"]).contains(&format!("'{rack}'")))
            .map(|p| (text(&p["metadata"]["name"]), text(&p["spec"]["peerIP"])))
            .collect();
        let neighbors = suite.ctl(node, &["bgp", "neighbors"]);
        let neighbors: BTreeSet<(String, String)> = list(&neighbors["neighbors"])
            .iter()
            .map(|n| (text(&n["name"]), text(&n["address"])))
            .collect();
        assert_eq!(neighbors, peers, "{node}");

        let routes = suite.ctl(node, &["bgp", "routes"]);
        let own: BTreeSet<String> = list(&routes["routes"])
            .iter()
            .filter(|r| r["neighbor"] == "local")
            .map(|r| text(&r["prefix"]))
            .collect();
        let blocks: BTreeSet<String> = blocks(&suite, node)
            .iter()
            .map(|b| text(&b["spec"]["cidr"]))
            .collect();
        assert_eq!(own, blocks, "{node}");

        let status = suite.ctl(node, &["status"]);
        assert_eq!(status["felix"]["node"], node);
        assert_eq!(status["felix"]["endpoints"], pods.len(), "{status}");
        assert_eq!(status["felix"]["blocks"], blocks.len(), "{status}");
        let in_use = u64::from(selected > 0);
        assert_eq!(status["felix"]["policies"], in_use, "{status}");
        assert_eq!(status["bgpd"]["neighbors_established"], 2, "{status}");
        assert_eq!(e2e::problems(&status), [""; 0], "{status}");
        for argv in [
            &["status"][..],
            &["bgp", "neighbors"],
            &["bgp", "routes"],
            &["ipam", "show"],
            &["policy", "list"],
        ] {
            let table = suite.run(node, &[&["margayctl"], argv].concat());
            assert!(!table.trim().is_empty(), "{argv:?}");
        }
    }
}

#[test]
fn bad_objects_are_refused_with_the_field_named() {
    let suite = suite::shared();
    let kinds = [
        // Kind, spec, what the refusal names.
        ("IPPool", "{ cidr: 10.9.0.1/16 }", "spec.cidr"),
        ("IPPool", "{ cidr: ten }", "spec.cidr"),
        (
            "IPPool",
            "{ cidr: 10.9.0.0/16, blockSize: 33 }",
            "blockSize",
        ),
        (
            "IPPool",
            "{ cidr: 10.9.0.0/28, blockSize: 26 }",
            "blockSize",
        ),
        (
            "IPPool",
            "{ cidr: 10.9.0.0/16, disabled: maybe }",
            "disabled",
        ),
        ("IPPool", "{ blockSize: 26 }", "cidr"),
        ("BGPPeer", "{ peerIP: 192.0.2.1 }", "asNumber"),
        ("BGPPeer", "{ peerIP: 192.0.2.1, asNumber: 0 }", "asNumber"),
        (
            "BGPPeer",
            "{ peerIP: 192.0.2.1, asNumber: 4294967296 }",
            "asNumber",
        ),
        (
            "BGPPeer",
            "{ peerIP: \"192.0.2.1:70000\", asNumber: 65000 }",
            "peerIP",
        ),
        ("BGPPeer", "{ peerIP: nobody, asNumber: 65000 }", "peerIP"),
        (
            "BGPPeer",
            "{ peerIP: 192.0.2.1, asNumber: 65000, node: n1, nodeSelector: all() }",
            "nodeSelector",
        ),
        ("BGPConfiguration", "{ asNumber: -1 }", "asNumber"),
        (
            "BGPConfiguration",
            "{ import: { ranges: [banana] } }",
            "ranges",
        ),
        (
            "IPAMConfiguration",
            "{ maxBlocksPerNode: -1 }",
            "maxBlocksPerNode",
        ),
    ];
    for (kind, spec, field) in kinds {
        let name = match kind {
            "IPPool" | "BGPPeer" => "bad",
            _ => "default",
        };
        let yaml = format!(
            "{{ apiVersion: margay.io/v1, kind: {kind}, metadata: {{ name: {name} }}, spec: {spec} }}"
        );
        let said = suite.refusal(&["apply", "-f", "-"], &yaml);
        assert!(said.contains(field), "{yaml}\nwas refused, but: {said}");
    }
    let said = suite.refusal(
        &[
            "patch",
            "ippool",
            "pods-v4",
            "--type=merge",
            "-p",
            r#"{"spec":{"cidr":"10.0.0.0/16"}}"#,
        ],
        "",
    );
    assert!(said.contains("cidr"), "{said}");
    for (spec, field) in [
        (
            "{ podSelector: {}, ingress: [{ ports: [{ port: 70000 }] }] }",
            "port",
        ),
        (
            "{ podSelector: {}, ingress: [{ ports: [{ port: 80, endPort: 79 }] }] }",
            "endPort",
        ),
        (
            "{ podSelector: {}, ingress: [{ from: [{ ipBlock: { cidr: 10.0.0.0/8, except: [11.0.0.0/16] } }] }] }",
            "except",
        ),
        (
            "{ podSelector: { matchExpressions: [{ key: a, operator: Near }] } }",
            "operator",
        ),
        (
            "{ podSelector: {}, policyTypes: [Sideways] }",
            "policyTypes",
        ),
    ] {
        let yaml = format!(
            "{{ apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{ name: bad, namespace: default }}, spec: {spec} }}"
        );
        let said = suite.refusal(&["apply", "-f", "-"], &yaml);
        assert!(said.contains(field), "{yaml}\nwas refused, but: {said}");
    }
}
