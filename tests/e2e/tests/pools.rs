//! Pools: what a change of one means for blocks, routes and new pods, and what becomes of an object nobody can
//! understand.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;

use e2e::suite::{self, Pod, Suite, World, list, namespace, text, until};
use serde_json::Value;

fn patch(suite: &Suite, kind: &str, name: &str, spec: &str) {
    let merge = format!(r#"{{"spec":{spec}}}"#);
    suite.kubectl(&["patch", kind, name, "--type=merge", "-p", &merge]);
}

fn accepted(object: &Value) -> Option<(String, String)> {
    list(&object["status"]["conditions"])
        .iter()
        .find(|c| c["type"] == "Accepted")
        .map(|c| (text(&c["status"]), text(&c["message"])))
}

/// Prefixes within a range (as the beginning of their text) that a ToR knows.
fn known(suite: &Suite, tor: &str, begin: &str) -> BTreeSet<String> {
    suite
        .routes(tor)
        .unwrap()
        .into_iter()
        .map(|r| r.prefix)
        .filter(|p| p.starts_with(begin))
        .collect()
}

#[test]
fn a_pool_without_export_is_not_in_bgp() {
    let suite = suite::alone();
    let world = World { prefix: "export" };
    let ns = world.ns("x");
    suite.create(&[namespace(&ns, &[])]);
    suite.run_pods(&[Pod::new(&ns, "one", "n1"), Pod::new(&ns, "far", "n3")]);
    let before = known(&suite, "tor-b", "10.244.");
    assert_eq!(before.len(), 3, "{before:?}");
    patch(&suite, "ippool", "pods-v4", r#"{"disableBGPExport":true}"#);
    for tor in ["tor-a", "tor-b"] {
        until("the blocks to be withdrawn", || {
            let known = known(&suite, tor, "10.244.");
            match known.is_empty() {
                true => Ok(()),
                false => Err(format!("{tor}: {known:?}")),
            }
        });
    }
    // The other pool, and the node's own way to its pods, are as they were.
    assert_eq!(known(&suite, "tor-b", "fd00:10:244:").len(), 3);
    suite.expect(world, &[("n1", "x/one", "tcp/80", true)]);
    patch(&suite, "ippool", "pods-v4", r#"{"disableBGPExport":false}"#);
    until("the blocks to be announced again", || {
        let known = known(&suite, "tor-b", "10.244.");
        match known == before {
            true => Ok(()),
            false => Err(format!("{known:?}")),
        }
    });
    suite.expect(world, &[("x/one x/far", "x/one x/far", "tcp/80", true)]);
}

#[test]
fn a_full_block_is_followed_by_another_and_a_disabled_pool_gives_nothing() {
    let suite = suite::alone();
    let world = World { prefix: "small" };
    let ns = world.ns("x");
    suite.create(&[namespace(&ns, &[])]);
    suite.run_pods(&[Pod::new(&ns, "old", "n2"), Pod::new(&ns, "far", "n3")]);
    let old = suite.addresses(&format!("{ns}/old"));
    suite.apply_text(
        "{ apiVersion: margay.io/v1, kind: IPPool, metadata: { name: small }, \
         spec: { cidr: 10.250.0.0/28, blockSize: 30, nodeSelector: \"kubernetes.io/hostname == 'n2'\" } }",
    );
    patch(&suite, "ippool", "pods-v4", r#"{"disabled":true}"#);
    until("a block of the small pool", || {
        let known = known(&suite, "tor-b", "10.250.0.");
        match known.is_empty() {
            false => Ok(()),
            true => Err("none".to_owned()),
        }
    });
    let names: Vec<String> = (0..10).map(|i| format!("p{i}")).collect();
    let pods: Vec<Pod<'_>> = names.iter().map(|n| Pod::new(&ns, n, "n2")).collect();
    suite.run_pods(&pods);
    let mut used = BTreeSet::new();
    for pod in &pods {
        let addresses = suite.addresses(&pod.to_string());
        assert!(addresses[0].starts_with("10.250.0."), "{addresses:?}");
        assert!(used.insert(addresses[0].clone()), "{addresses:?} twice");
    }
    let blocks: BTreeSet<String> = suite
        .objects(&["ipamblocks"])
        .iter()
        .filter(|b| b["spec"]["pool"] == "small")
        .map(|b| {
            assert_eq!(b["spec"]["owner"]["node"], "n2", "{b}");
            text(&b["spec"]["cidr"])
        })
        .collect();
    assert!(blocks.len() >= 3, "ten pods in blocks of four: {blocks:?}");
    for tor in ["tor-a", "tor-b"] {
        until("all blocks in BIRD", || {
            let known = known(&suite, tor, "10.250.0.");
            match known == blocks {
                true => Ok(()),
                false => Err(format!("{tor}: {known:?}, API: {blocks:?}")),
            }
        });
    }
    // Pods with addresses of the disabled pool keep them and their traffic.
    assert_eq!(suite.addresses(&format!("{ns}/old")), old);
    suite.expect(
        world,
        &[
            ("x/far", "x/p0 x/p9 x/old", "tcp/80 icmp", true),
            ("x/p0 x/p9 x/old", "x/far", "tcp/80", true),
            ("x/p0", "x/p9", "tcp/80", true),
        ],
    );
    // Without the small pool no IPv4 pool is in force on n1: its pods have IPv6 only.
    suite.run_pods(&[Pod::new(&ns, "sole", "n1")]);
    let sole = suite.addresses(&format!("{ns}/sole"));
    assert!(sole.len() == 1 && sole[0].contains(':'), "{sole:?}");

    patch(&suite, "ippool", "pods-v4", r#"{"disabled":false}"#);
    patch(&suite, "ippool", "small", r#"{"disabled":true}"#);
    for pod in &pods {
        suite.delete_pod(&pod.to_string());
    }
    suite.run_pods(&[Pod::new(&ns, "new", "n2")]);
    let new = suite.addresses(&format!("{ns}/new"));
    assert!(new[0].starts_with("10.244."), "{new:?}");
}

#[test]
fn what_cannot_be_understood_is_said_in_the_status_and_the_last_good_stays() {
    let suite = suite::alone();
    let ns = "badly";
    suite.create(&[namespace(ns, &[])]);

    // The schema cannot judge the grammar of a selector.
    let peer = text(&suite.object(&["get", "bgppeer", "tor-a-v4"])["spec"]["nodeSelector"]);
    patch(
        &suite,
        "bgppeer",
        "tor-a-v4",
        r#"{"nodeSelector":"rack =="}"#,
    );
    patch(&suite, "ippool", "pods-v4", r#"{"nodeSelector":"all("}"#);
    for (kind, name) in [("bgppeer", "tor-a-v4"), ("ippool", "pods-v4")] {
        let message = until(
            &format!("{kind} {name} to be refused in its status"),
            || {
                let object = suite.object(&["get", kind, name]);
                match accepted(&object) {
                    Some((status, message)) if status == "False" => Ok(message),
                    other => Err(format!("{other:?}")),
                }
            },
        );
        assert!(message.contains("nodeSelector"), "{kind}: {message}");
    }
    until("margayctl to report the pool", || {
        let problems = suite.ctl("n1", &["status"])["problems"].to_string();
        match problems.contains("pods-v4") {
            true => Ok(()),
            false => Err(problems),
        }
    });
    // The last good ones are in force: sessions stand, pods get addresses of that pool.
    for session in suite.sessions("tor-a").unwrap() {
        assert!(session.established, "{session:?}");
    }
    suite.run_pods(&[Pod::new(ns, "a", "n1")]);
    let addresses = suite.addresses(&format!("{ns}/a"));
    assert_eq!(addresses.len(), 2, "{addresses:?}");

    let selector = format!(r#"{{"nodeSelector":"{peer}"}}"#);
    patch(&suite, "bgppeer", "tor-a-v4", &selector);
    patch(&suite, "ippool", "pods-v4", r#"{"nodeSelector":"all()"}"#);
    for (kind, name) in [("bgppeer", "tor-a-v4"), ("ippool", "pods-v4")] {
        until(&format!("{kind} {name} to be accepted"), || {
            let object = suite.object(&["get", kind, name]);
            match accepted(&object) {
                Some((status, _)) if status == "True" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    for node in ["n1", "n2", "n3"] {
        until("no problem to be left", || {
            let problems = e2e::problems(&suite.ctl(node, &["status"]));
            match problems.is_empty() {
                true => Ok(()),
                false => Err(problems.join("; ")),
            }
        });
    }
}
