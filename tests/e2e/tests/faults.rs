//! Daemons and the API server die, hang and come back, while pods talk.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::process::Command;
use std::thread;
use std::time::Duration;

use e2e::fault::{Call, Pod, Rig, Watch, call, claims, pictures, same_as, scene, wait};
use lab::netns;
use serde_json::{Value, json};

/// How long a fault lasts: traffic goes on meanwhile.
const DWELL: Duration = Duration::from_millis(700);
const SOON: Duration = Duration::from_secs(20);

fn signal(rig: &Rig, process: &str, signal: &str) {
    let pid = rig.pid(process).unwrap().to_string();
    assert!(
        Command::new("kill")
            .args([signal, &pid])
            .status()
            .unwrap()
            .success()
    );
}

/// The IPv4 and IPv6 block of a node.
fn blocks_of(rig: &Rig, node: &str) -> Vec<Value> {
    let mut blocks = Vec::new();
    // It may just have been started.
    wait("felix to answer", SOON, || {
        let shown = rig.json(node, &["margayctl", "ipam", "show", "-o", "json"]);
        Ok(match shown {
            Ok(shown) => {
                blocks = shown["blocks"].as_array().unwrap().clone();
                None
            }
            Err(error) => Some(format!("{error:#}")),
        })
    })
    .unwrap();
    blocks
}

fn cidrs(blocks: &[Value]) -> Vec<String> {
    let text = |block: &Value| block["cidr"].as_str().unwrap().to_owned();
    blocks.iter().map(text).collect()
}

/// Whether a ToR has the prefix as a node's own.
fn announced(rig: &Rig, node: &str, prefix: &str) -> bool {
    let asn = rig.plan().node(node).unwrap().asn;
    rig.plan().tors.iter().all(|tor| {
        let routes = rig.routes(&tor.name).unwrap();
        routes
            .iter()
            .any(|r| r.best && r.prefix == prefix && r.origin_as == Some(asn))
    })
}

#[test]
fn felix_killed_and_started_again_costs_nothing_and_changes_nothing() {
    let rig = scene("felix").unwrap();
    let before = pictures(&rig).unwrap();
    let watch = Watch::start(&rig).unwrap();
    for _ in 0..3 {
        for node in ["n1", "n2", "n3"] {
            rig.kill("felix", Some(node)).unwrap();
        }
        thread::sleep(DWELL);
        for node in ["n1", "n2", "n3"] {
            rig.start("felix", Some(node)).unwrap();
        }
        // Killed again while it takes up what it finds, then left alone.
        thread::sleep(Duration::from_millis(30));
        rig.kill("felix", Some("n1")).unwrap();
        rig.start("felix", Some("n1")).unwrap();
        for node in ["n1", "n2", "n3"] {
            rig.felix_ready(node).unwrap();
        }
        same_as(&rig, &before).unwrap();
    }
    watch.unharmed("felix killed and started").unwrap();
    rig.finish().unwrap();
}

#[test]
fn felix_stopped_for_ten_seconds_costs_nothing_and_lets_no_pod_in_unpoliced() {
    let rig = scene("stop").unwrap();
    let before = pictures(&rig).unwrap();
    let watch = Watch::start(&rig).unwrap();
    signal(&rig, "n1.felix", "-STOP");
    rig.create(&[Pod {
        name: "late",
        node: "n1",
    }])
    .unwrap();
    thread::sleep(Duration::from_secs(10));
    let late = &rig.pods().unwrap()["late"];
    assert_ne!(late["status"]["phase"], "Running", "{late}");
    signal(&rig, "n1.felix", "-CONT");
    rig.running(&["late"]).unwrap();
    rig.delete(&["late"]).unwrap();
    rig.gone(&["late"]).unwrap();
    rig.felix_ready("n1").unwrap();
    same_as(&rig, &before).unwrap();
    watch.unharmed("felix stopped for 10 s").unwrap();
    rig.finish().unwrap();
}

#[test]
fn bgpd_killed_and_started_again_costs_seconds_and_changes_nothing() {
    let rig = scene("bgpd").unwrap();
    let before = pictures(&rig).unwrap();
    let watch = Watch::start(&rig).unwrap();
    for _ in 0..2 {
        for node in ["n1", "n3"] {
            rig.kill("bgpd", Some(node)).unwrap();
        }
        thread::sleep(DWELL);
        for node in ["n1", "n3"] {
            rig.start("bgpd", Some(node)).unwrap();
        }
        rig.sessions_up().unwrap();
        for node in ["n1", "n3"] {
            rig.felix_ready(node).unwrap();
        }
        same_as(&rig, &before).unwrap();
    }
    watch.recovered("bgpd killed and started", SOON).unwrap();
    rig.finish().unwrap();
}

#[test]
fn without_the_api_server_traffic_and_policy_go_on_and_watches_resume() {
    let rig = scene("api").unwrap();
    let before = pictures(&rig).unwrap();
    let watch = Watch::start(&rig).unwrap();
    for _ in 0..2 {
        rig.kill("apiserver", None).unwrap();
        thread::sleep(DWELL);
        rig.start("apiserver", None).unwrap();
        rig.run(&[Pod {
            name: "new",
            node: "n2",
        }])
        .unwrap();
        rig.delete(&["new"]).unwrap();
        rig.gone(&["new"]).unwrap();
        for node in ["n1", "n2", "n3"] {
            rig.felix_ready(node).unwrap();
        }
        same_as(&rig, &before).unwrap();
    }
    watch.unharmed("the API server killed and started").unwrap();
    rig.finish().unwrap();
}

#[test]
fn both_daemons_restart_while_the_api_is_away() {
    let rig = scene("alone").unwrap();
    rig.run(&[Pod {
        name: "d",
        node: "n1",
    }])
    .unwrap();
    let doomed = rig.sandbox("d").unwrap();
    let own = blocks_of(&rig, "n1");
    let watch = Watch::start(&rig).unwrap();
    rig.kill("apiserver", None).unwrap();
    for what in ["felix", "bgpd"] {
        rig.kill(what, Some("n1")).unwrap();
    }
    thread::sleep(DWELL);
    for what in ["felix", "bgpd"] {
        rig.start(what, Some("n1")).unwrap();
    }
    // Until then the ToRs keep what they were told before.
    rig.sessions_up().unwrap();
    wait("the blocks to be announced from the log", SOON, || {
        let missing: Vec<String> = cidrs(&own)
            .into_iter()
            .filter(|cidr| !announced(&rig, "n1", cidr))
            .collect();
        Ok((!missing.is_empty()).then(|| missing.join(", ")))
    })
    .unwrap();
    assert_eq!(cidrs(&blocks_of(&rig, "n1")), cidrs(&own));

    // A DEL works, and what it frees is free.
    let del = call(
        &rig,
        &Call {
            node: "n1",
            verb: "DEL",
            container: &doomed.container_id,
            netns: &doomed.netns,
            args: "",
        },
    )
    .unwrap();
    assert!(del.ok, "{del:?}");
    wait("the address to be free", SOON, || {
        let held = blocks_of(&rig, "n1");
        let text = json!(held).to_string();
        Ok(text.contains(&doomed.container_id).then_some(text))
    })
    .unwrap();

    // An ADD is told to try again, and leaves nothing.
    let name = rig.plan().netns("pod-0123456789ab");
    netns::create(&name).unwrap();
    let add = Call {
        node: "n1",
        verb: "ADD",
        container: "early",
        netns: &name,
        args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=x;K8S_POD_UID=0-1-2",
    };
    let refused = call(&rig, &add).unwrap();
    assert!(!refused.ok && refused.out["code"] == 11, "{refused:?}");
    assert!(refused.took < Duration::from_secs(8), "{refused:?}");
    println!(
        "ADD without the API: {} after {:?}",
        refused.out, refused.took
    );
    assert!(!json!(blocks_of(&rig, "n1")).to_string().contains("early"));
    let links = rig.ask("n1", &["ip", "-br", "link"]).unwrap();
    assert_eq!(links.matches("mgy").count(), 1, "{links}");
    netns::delete(&name).unwrap();

    rig.start("apiserver", None).unwrap();
    rig.run(&[Pod {
        name: "after",
        node: "n1",
    }])
    .unwrap();
    rig.felix_ready("n1").unwrap();
    watch
        .recovered("both daemons restarted without the API", SOON)
        .unwrap();
    rig.finish().unwrap();
}

#[test]
fn a_del_while_felix_is_away_waits_in_the_spool() {
    let rig = scene("spool").unwrap();
    let before = pictures(&rig).unwrap();
    rig.run(&[Pod {
        name: "d",
        node: "n1",
    }])
    .unwrap();
    let watch = Watch::start(&rig).unwrap();
    rig.kill("felix", Some("n1")).unwrap();
    rig.delete(&["d"]).unwrap();
    rig.gone(&["d"]).unwrap();
    let spool = rig.plan().node_state_dir("n1").join("spool");
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 1);
    rig.start("felix", Some("n1")).unwrap();
    wait("the spool to be empty", SOON, || {
        let waiting = std::fs::read_dir(&spool)?.count();
        Ok((waiting > 0).then(|| format!("{waiting} files")))
    })
    .unwrap();
    rig.felix_ready("n1").unwrap();
    same_as(&rig, &before).unwrap();
    watch.unharmed("a DEL while felix was away").unwrap();
    rig.finish().unwrap();
}

#[test]
fn blocks_that_vanish_from_the_api_are_made_again_by_their_owners() {
    let rig = scene("lost").unwrap();
    let before = pictures(&rig).unwrap();
    let watch = Watch::start(&rig).unwrap();
    let crd = rig
        .kubectl(&["get", "crd", "ipamblocks.margay.io", "-o", "json"], "")
        .unwrap();
    let mut crd: Value = serde_json::from_str(&crd).unwrap();
    crd.as_object_mut().unwrap().remove("status");
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation"] {
        crd["metadata"].as_object_mut().unwrap().remove(field);
    }
    let loss: [&dyn Fn(); 3] = [
        &|| drop(rig.kubectl(&["delete", "ipamblocks", "--all"], "").unwrap()),
        &|| {
            rig.kubectl(&["delete", "crd", "ipamblocks.margay.io"], "")
                .unwrap();
            thread::sleep(DWELL);
            rig.kubectl(&["create", "-f", "-"], &crd.to_string())
                .unwrap();
        },
        // Nobody watches while they go: only the next list can tell.
        &|| {
            for node in ["n1", "n2", "n3"] {
                rig.kill("felix", Some(node)).unwrap();
            }
            rig.kubectl(&["delete", "ipamblocks", "--all"], "").unwrap();
            for node in ["n1", "n2", "n3"] {
                rig.start("felix", Some(node)).unwrap();
            }
        },
    ];
    for lose in loss {
        let own: Vec<String> = ["n1", "n2", "n3"]
            .iter()
            .flat_map(|node| cidrs(&blocks_of(&rig, node)))
            .collect();
        lose();
        wait(
            "the blocks to be there again",
            Duration::from_secs(60),
            || {
                let list = rig.kubectl(
                    &[
                        "get",
                        "ipamblocks",
                        "-o",
                        "jsonpath={range .items[*]}{.spec.cidr} {end}",
                    ],
                    "",
                )?;
                let missing: Vec<&String> = own
                    .iter()
                    .filter(|cidr| !list.split(' ').any(|there| there == *cidr))
                    .collect();
                Ok((!missing.is_empty()).then(|| format!("{missing:?}")))
            },
        )
        .unwrap();
        for node in ["n1", "n2", "n3"] {
            rig.felix_ready(node).unwrap();
            for cidr in cidrs(&blocks_of(&rig, node)) {
                assert!(announced(&rig, node, &cidr), "{cidr} of {node}");
            }
        }
    }
    watch.unharmed("blocks gone from the API").unwrap();
    // The same but for the epochs, which are new.
    let strip = |mut pictures: Vec<e2e::fault::Picture>| {
        for picture in &mut pictures {
            picture.blocks = picture
                .blocks
                .iter()
                .map(|block| {
                    let words = block.split(' ').filter(|word| !word.starts_with("epoch="));
                    words.collect::<Vec<_>>().join(" ")
                })
                .collect();
        }
        pictures
    };
    let before = strip(before);
    wait("the same state as before", SOON, || {
        let now = strip(pictures(&rig)?);
        Ok((now != before).then(|| format!("{before:#?}\nnow {now:#?}")))
    })
    .unwrap();
    assert!(claims(&rig).unwrap().values().all(|by| by.len() == 1));
    rig.finish().unwrap();
}

#[test]
fn a_block_that_another_took_is_withdrawn_and_quarantined() {
    let rig = scene("taken").unwrap();
    let own = blocks_of(&rig, "n1");
    let lost = own
        .iter()
        .find(|b| !b["cidr"].as_str().unwrap().contains(':'))
        .unwrap();
    let (name, cidr) = (
        lost["name"].as_str().unwrap(),
        lost["cidr"].as_str().unwrap(),
    );
    assert!(announced(&rig, "n1", cidr));
    rig.kill("felix", Some("n1")).unwrap();
    let object = rig
        .kubectl(&["get", "ipamblock", name, "-o", "json"], "")
        .unwrap();
    let object: Value = serde_json::from_str(&object).unwrap();
    rig.kubectl(&["delete", "ipamblock", name], "").unwrap();
    let theirs = json!({
        "apiVersion": "margay.io/v1", "kind": "IPAMBlock",
        "metadata": { "name": name, "labels": { "margay.io/node": "n2" } },
        "spec": {
            "cidr": cidr, "pool": object["spec"]["pool"],
            "owner": { "node": "n2", "nodeUID": "another", "instance": "another" },
        },
    });
    rig.kubectl(&["create", "-f", "-"], &theirs.to_string())
        .unwrap();
    rig.start("felix", Some("n1")).unwrap();
    wait("the block to be withdrawn", SOON, || {
        let asn = rig.plan().node("n1").unwrap().asn;
        let routes = rig.routes("tor-a")?;
        let still = routes
            .iter()
            .any(|r| r.prefix == cidr && r.origin_as == Some(asn));
        Ok(still.then(|| format!("{routes:?}")))
    })
    .unwrap();
    wait("the block to be quarantined", SOON, || {
        let blocks = blocks_of(&rig, "n1");
        let state = blocks.iter().find(|b| b["cidr"] == cidr);
        let quarantined = state.is_some_and(|b| {
            b["state"]
                .as_str()
                .is_some_and(|s| s.to_lowercase().contains("quarantin"))
        });
        Ok((!quarantined).then(|| json!(blocks).to_string()))
    })
    .unwrap();
    // New pods get addresses of another block; nobody gets one of the lost block.
    rig.run(&[Pod {
        name: "new",
        node: "n1",
    }])
    .unwrap();
    let claims = claims(&rig).unwrap();
    assert!(claims.values().all(|by| by.len() == 1), "{claims:?}");
    // The object is still the other's.
    let now = rig
        .kubectl(
            &[
                "get",
                "ipamblock",
                name,
                "-o",
                "jsonpath={.spec.owner.node}",
            ],
            "",
        )
        .unwrap();
    assert_eq!(now, "n2");
    rig.finish().unwrap();
}
