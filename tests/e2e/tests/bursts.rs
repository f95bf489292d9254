//! Pods come and go in bursts, and felix is killed in the middle.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use e2e::fault::{Claims, Pod, Rig, claims, leftovers, pictures, wait};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const PATIENCE: Duration = Duration::from_secs(60);

fn names(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|i| format!("p{i:03}")).collect()
}

fn refs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn create(rig: &Rig, names: &[String], node: impl Fn(usize) -> &'static str) {
    let pods: Vec<Pod<'_>> = names
        .iter()
        .enumerate()
        .map(|(i, name)| Pod {
            name,
            node: node(i),
        })
        .collect();
    rig.create(&pods).unwrap();
}

/// Kills and starts felix on every node in turn, `rounds` times, while `meanwhile` goes on.
fn shaken(rig: &Rig, rounds: usize, meanwhile: impl FnOnce()) {
    thread::scope(|scope| {
        let shaker = scope.spawn(|| {
            for round in 0..rounds {
                for node in NODES {
                    // A different moment each time.
                    thread::sleep(Duration::from_millis(40 + 35 * (round as u64)));
                    rig.kill("felix", Some(node)).unwrap();
                    rig.start("felix", Some(node)).unwrap();
                }
            }
        });
        meanwhile();
        shaker.join().unwrap();
    });
}

fn doubles(claims: &Claims) -> Claims {
    let doubles = claims.iter().filter(|(_, by)| by.len() > 1);
    doubles
        .map(|(address, by)| (*address, by.clone()))
        .collect()
}

/// No address has two holders. What is read one after the other may belong to different moments, so that only a
/// double that is seen twice is one.
fn no_duplicates(rig: &Rig) {
    let first = doubles(&claims(rig).unwrap());
    if first.is_empty() {
        return;
    }
    let second = doubles(&claims(rig).unwrap());
    let stays: Vec<_> = first
        .iter()
        .filter(|(address, by)| second.get(address) == Some(by))
        .collect();
    assert!(stays.is_empty(), "two pods with one address: {stays:?}");
}

/// Looks for duplicates as long as `during` goes on.
fn watched(rig: &Rig, during: impl FnOnce()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(Ordering::Relaxed) {
                no_duplicates(rig);
                looks += 1;
                thread::sleep(Duration::from_millis(100));
            }
            looks
        });
        // Also when it fails: nobody waits for the watcher for ever.
        let outcome = catch_unwind(AssertUnwindSafe(during));
        done.store(true, Ordering::Relaxed);
        println!("looked for duplicates {} times", watcher.join().unwrap());
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

fn nothing_left(rig: &Rig) {
    for node in NODES {
        rig.felix_ready(node).unwrap();
    }
    wait("nothing to be left of the pods", PATIENCE, || {
        let mut left = Vec::new();
        for node in NODES {
            left.extend(leftovers(rig, node)?);
        }
        left.extend(
            lab::netns::list()?
                .into_iter()
                .filter(|name| name.starts_with(&rig.plan().netns("pod-"))),
        );
        Ok((!left.is_empty()).then(|| left.join("\n")))
    })
    .unwrap();
    wait("the mirrors to be empty", PATIENCE, || {
        let used = rig.kubectl(
            &[
                "get",
                "ipamblocks",
                "-o",
                "jsonpath={range .items[*]}{.status.allocations}{end}",
            ],
            "",
        )?;
        Ok((!used.replace("[]", "").trim().is_empty()).then_some(used))
    })
    .unwrap();
}

#[test]
fn sixty_pods_in_bursts_with_felix_killed_in_the_middle() {
    let rig = Rig::beside("bursts").unwrap();
    for node in NODES {
        rig.felix_ready(node).unwrap();
    }
    let empty = pictures(&rig).unwrap();
    let all = names(0, 60);
    watched(&rig, || {
        shaken(&rig, 4, || {
            for burst in all.chunks(20) {
                create(&rig, burst, |i| NODES[i % 3]);
            }
        });
        rig.running(&refs(&all)).unwrap();
        let held = claims(&rig).unwrap();
        assert_eq!(held.len(), 120, "an address of each family for each pod");

        // Half of them go while others come, under the same names as well.
        shaken(&rig, 4, || {
            rig.delete(&refs(&all[..30])).unwrap();
            create(&rig, &names(60, 90), |i| NODES[(i + 1) % 3]);
            rig.gone(&refs(&all[..30])).unwrap();
            create(&rig, &all[..10], |i| NODES[(i + 2) % 3]);
        });
        let second = [names(0, 10), names(30, 90)].concat();
        rig.running(&refs(&second)).unwrap();
        assert_eq!(claims(&rig).unwrap().len(), 2 * second.len());

        shaken(&rig, 4, || {
            for burst in second.chunks(25) {
                rig.delete(&refs(burst)).unwrap();
            }
        });
        rig.gone(&refs(&second)).unwrap();
    });
    nothing_left(&rig);
    // As on the first day, but for the blocks' mirrors.
    for (now, empty) in pictures(&rig).unwrap().iter().zip(&empty) {
        assert_eq!(now.routes, empty.routes);
        assert_eq!(now.elements, empty.elements);
        assert_eq!(now.blocks, empty.blocks);
    }
    rig.finish().unwrap();
}

#[test]
fn a_second_block_comes_when_it_is_needed_and_goes_when_it_is_not() {
    let rig = Rig::beside("blocks").unwrap();
    let own = |rig: &Rig| {
        let list = rig
            .kubectl(
                &[
                    "get",
                    "ipamblocks",
                    "-l",
                    "margay.io/node=n2",
                    "-o",
                    "jsonpath={range .items[*]}{.spec.cidr} {end}",
                ],
                "",
            )
            .unwrap();
        list.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(own(&rig).len(), 2, "one of each family at first");
    let many = names(0, 70);
    create(&rig, &many, |_| "n2");
    rig.running(&refs(&many)).unwrap();
    no_duplicates(&rig);
    assert!(own(&rig).len() >= 4, "{:?}", own(&rig));
    rig.delete(&refs(&many)).unwrap();
    rig.gone(&refs(&many)).unwrap();
    wait(
        "the blocks to be given back",
        Duration::from_secs(120),
        || {
            let still = own(&rig);
            Ok((still.len() > 2).then(|| format!("{still:?}")))
        },
    )
    .unwrap();
    // Those that went are neither announced nor routed any more.
    let kept = own(&rig);
    wait("their routes to go", PATIENCE, || {
        let asn = rig.plan().node("n2").map(|n| n.asn);
        let routes = rig.routes("tor-b")?;
        let mut known: Vec<_> = routes
            .iter()
            .filter(|r| r.origin_as == asn)
            .map(|r| r.prefix.clone())
            .collect();
        known.sort();
        known.dedup();
        let mut kept = kept.clone();
        kept.sort();
        Ok((known != kept).then(|| format!("{known:?} for {kept:?}")))
    })
    .unwrap();
    nothing_left(&rig);
    rig.finish().unwrap();
}
