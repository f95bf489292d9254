//! How long things take. Printed, never judged: a busy machine is no fault of the code.

use std::time::{Duration, Instant};

use e2e::fault::{Kind, Pod, Rig, Traffic, wait};
use serde_json::json;

/// Median and 99th percentile, in milliseconds.
fn spread(mut samples: Vec<f64>) -> String {
    assert!(!samples.is_empty());
    samples.sort_by(f64::total_cmp);
    let at = |percent: usize| samples[(samples.len() - 1) * percent / 100];
    format!(
        "median {:.1} ms, p99 {:.1} ms, of {}",
        at(50),
        at(99),
        samples.len()
    )
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Whether datagrams from one pod to another are answered now, in both families.
fn answered(rig: &Rig, from: &str, to: &str) -> anyhow::Result<bool> {
    let mut probe = Traffic::none();
    for address in rig.sandbox(to)?.addresses {
        let netns = rig.netns(&format!("default/{from}"))?;
        probe.add_one(from, &netns, address, Kind::NewFlows);
    }
    probe.stop_soon()
}

#[test]
fn figures() {
    let rig = Rig::up("latency").unwrap();
    println!("lab up: {:.2} s", rig.up_time.as_secs_f64());
    rig.run(&[Pod {
        name: "far",
        node: "n3",
    }])
    .unwrap();

    let mut ready = Vec::new();
    for i in 0..20 {
        let name = format!("p{i}");
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "default", "labels": { "app": "p" } },
            "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "i",
                "ports": [{ "containerPort": 80, "protocol": "UDP" }] }] },
        });
        // kubectl's own start is not what is measured.
        let text = object.to_string();
        rig.kubectl(&["create", "-f", "-"], &text).unwrap();
        let created = Instant::now();
        while !answered(&rig, "far", &name).unwrap_or(false) {
            assert!(created.elapsed() < Duration::from_secs(20), "{name}");
        }
        ready.push(ms(created));
    }
    println!(
        "pod created (kubectl has returned) → answers the other rack: {}",
        spread(ready)
    );

    let log = rig.log("n1", "runner");
    let adds = log.lines().filter_map(|line| {
        let (_, rest) = line.split_once(" add_ms=")?;
        rest.split(' ').next()?.parse().ok()
    });
    println!("ADD as the runner sees it: {}", spread(adds.collect()));
    let status = rig
        .json("n1", &["margayctl", "status", "-o", "json"])
        .unwrap();
    println!(
        "route and policy of a pod, as felix sees it: median {} ms, p99 {} ms",
        status["felix"]["add_p50_ms"], status["felix"]["add_p99_ms"]
    );

    let mut enforced = Vec::new();
    for i in 0..10 {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "name": format!("deny-{i}"), "namespace": "default" },
            "spec": { "podSelector": { "matchLabels": { "app": "p" } }, "policyTypes": ["Ingress"] },
        });
        rig.apply(&policy.to_string()).unwrap();
        let applied = Instant::now();
        while answered(&rig, "far", "p0").unwrap() {
            assert!(applied.elapsed() < Duration::from_secs(20));
        }
        enforced.push(ms(applied));
        rig.kubectl(&["delete", "networkpolicies", "--all"], "")
            .unwrap();
        wait("the policy to be gone", Duration::from_secs(20), || {
            Ok((!answered(&rig, "far", "p0")?).then(|| "still denied".to_owned()))
        })
        .unwrap();
    }
    println!(
        "policy applied (kubectl has returned) → in force: {}",
        spread(enforced)
    );
    rig.finish().unwrap();
}
