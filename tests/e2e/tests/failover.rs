//! What failures of a dual-ToR fabric cost pods that talk across racks, in lost packets: 100 a second for each pair,
//! family and kind.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use e2e::fault::{Picture, Rig, Watch, pictures, same_as, scene_of, wait};
use serde_json::Value;

/// How long a fault lasts: traffic goes on meanwhile.
const DWELL: Duration = Duration::from_millis(700);
const SOON: Duration = Duration::from_secs(30);

fn scene(what: &str) -> (Rig, Vec<Picture>) {
    scene_in(Rig::dual(what, false).unwrap())
}

fn scene_in(rig: Rig) -> (Rig, Vec<Picture>) {
    let rig = scene_of(rig).unwrap();
    rig.sessions_up().unwrap();
    let before = pictures(&rig).unwrap();
    (rig, before)
}

fn signal(rig: &Rig, process: &str, signal: &str) {
    let pid = rig.pid(process).unwrap().to_string();
    let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
    assert!(sent.success());
}

/// Whether the node's routes to every pod and node lead over both of its uplinks.
fn both_uplinks(rig: &Rig, node: &str) -> anyhow::Result<Option<String>> {
    for family in ["-4", "-6"] {
        let argv = ["ip", "-j", family, "route", "show", "proto", "78"];
        let routes = rig.json(node, &argv)?;
        let far = routes.as_array().into_iter().flatten().filter(|route| {
            let to = route["dst"].as_str().unwrap_or_default();
            to.starts_with("10.244.") || to.starts_with("fd00:10:")
        });
        let mut seen = 0;
        for route in far {
            seen += 1;
            let legs = route["nexthops"].as_array().map_or(0, Vec::len);
            if legs != 2 {
                return Ok(Some(format!("{node}: {route}")));
            }
        }
        if seen < 2 {
            return Ok(Some(format!("{node}: {seen} routes to pods {family}")));
        }
    }
    Ok(None)
}

fn whole_again(rig: &Rig, before: &[Picture]) {
    rig.sessions_up().unwrap();
    for node in ["n1", "n2", "n3"] {
        rig.felix_ready(node).unwrap();
        wait("both uplinks to be used", SOON, || both_uplinks(rig, node)).unwrap();
    }
    same_as(rig, before).unwrap();
}

#[test]
fn daemons_killed_twice_in_a_row_lose_nothing() {
    let (rig, before) = scene("kill");
    let cases: [&[&str]; 3] = [&["bgpd"], &["felix"], &["felix", "bgpd"]];
    for daemons in cases {
        let watch = Watch::start(&rig).unwrap();
        for _ in 0..2 {
            for node in ["n1", "n3"] {
                for daemon in daemons {
                    rig.kill(daemon, Some(node)).unwrap();
                }
            }
            thread::sleep(DWELL);
            for node in ["n1", "n3"] {
                for daemon in daemons {
                    rig.start(daemon, Some(node)).unwrap();
                }
            }
            // The second time while the first is still being got over.
            thread::sleep(DWELL);
        }
        whole_again(&rig, &before);
        let what = format!("{} killed and started twice", daemons.join(" and "));
        watch.unharmed(&what).unwrap();
    }
    rig.finish().unwrap();
}

#[test]
fn a_tors_daemon_killed_loses_nothing() {
    let (rig, before) = scene("tor");
    let watch = Watch::start(&rig).unwrap();
    rig.kill("bird", Some("tor-a1")).unwrap();
    thread::sleep(DWELL);
    rig.start("bird", Some("tor-a1")).unwrap();
    whole_again(&rig, &before);
    watch.unharmed("a ToR's BIRD killed and started").unwrap();
    rig.finish().unwrap();
}

#[test]
fn an_uplink_without_carrier_costs_less_than_a_tenth_of_a_second() {
    let (rig, before) = scene("cable");
    for (tor, interface) in [("tor-a1", "n1"), ("tor-b2", "n3")] {
        let watch = Watch::start(&rig).unwrap();
        thread::sleep(DWELL);
        rig.ask(tor, &["ip", "link", "set", interface, "down"])
            .unwrap();
        thread::sleep(DWELL);
        watch
            .within("an uplink's carrier lost", Duration::from_millis(100))
            .unwrap();
        let watch = Watch::start(&rig).unwrap();
        rig.ask(tor, &["ip", "link", "set", interface, "up"])
            .unwrap();
        whole_again(&rig, &before);
        watch.unharmed("an uplink's carrier back").unwrap();
    }
    rig.finish().unwrap();
}

#[test]
fn a_tor_that_silently_drops_costs_bfds_detection_and_a_tenth_of_a_second() {
    let (rig, before) = scene_in(Rig::dual("silent", true).unwrap());
    let (interval, multiplier) = lab::plan::BFD;
    let limit = Duration::from_millis(u64::from(interval * multiplier) + 100);
    let watch = Watch::start(&rig).unwrap();
    thread::sleep(DWELL);
    let drop = "add table inet fault; add chain inet fault everything { type filter hook prerouting priority -400; policy drop; }";
    rig.ask("tor-a1", &["nft", drop]).unwrap();
    thread::sleep(2 * DWELL);
    watch.within("a ToR drops everything", limit).unwrap();
    let watch = Watch::start(&rig).unwrap();
    rig.ask("tor-a1", &["nft", "delete table inet fault"])
        .unwrap();
    whole_again(&rig, &before);
    watch.unharmed("a ToR drops nothing any more").unwrap();
    rig.finish().unwrap();
}

#[test]
fn a_tor_whose_daemon_is_stopped_loses_nothing() {
    let (rig, before) = scene("stopped");
    // Short enough to wait for.
    let hold = r#"{"spec":{"holdTimeSeconds":6}}"#;
    rig.kubectl(
        &[
            "patch",
            "bgpconfiguration",
            "default",
            "--type",
            "merge",
            "-p",
            hold,
        ],
        "",
    )
    .unwrap();
    wait("the hold time to be short", SOON, || {
        let all = rig.json("n1", &["margayctl", "bgp", "neighbors", "-o", "json"])?;
        let text = all.to_string();
        let short = text.matches("\"hold_seconds\":6").count();
        Ok((short != 4).then_some(text))
    })
    .unwrap();
    whole_again(&rig, &before);
    let watch = Watch::start(&rig).unwrap();
    signal(&rig, "tor-a1.bird", "-STOP");
    wait("n1 to give the ToR up", SOON, || {
        let all = rig.json("n1", &["margayctl", "bgp", "neighbors", "-o", "json"])?;
        let up = all.to_string().matches("Established").count();
        Ok((up != 2).then(|| format!("{up} sessions")))
    })
    .unwrap();
    thread::sleep(DWELL);
    watch.unharmed("a ToR's BIRD stopped").unwrap();
    // The first thing that BIRD reads then is that its session has expired. It drops the node's routes at once, without
    // RFC 8538, and what the spine still sends by it is lost until the spine has been told.
    let watch = Watch::start(&rig).unwrap();
    signal(&rig, "tor-a1.bird", "-CONT");
    whole_again(&rig, &before);
    watch
        .recovered("a ToR's BIRD going on", Duration::from_secs(2))
        .unwrap();
    rig.finish().unwrap();
}

#[test]
fn a_node_boots_by_bgp_alone_and_nobody_else_notices() {
    let (rig, _) = scene("boot");
    let watch = Watch::without(&rig, "b").unwrap();
    rig.power_off("n3").unwrap();
    thread::sleep(DWELL);
    let start = Instant::now();
    rig.power_on("n3").unwrap();
    wait("n3 to be Ready", SOON, || {
        let node: Value =
            serde_json::from_str(&rig.kubectl(&["get", "node", "n3", "-o", "json"], "")?)?;
        let conditions = node["status"]["conditions"].as_array().cloned();
        let ready = conditions
            .unwrap_or_default()
            .into_iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        Ok((!ready).then(|| node["status"].to_string()))
    })
    .unwrap();
    println!("booted in {} ms", start.elapsed().as_millis());
    rig.felix_ready("n3").unwrap();
    rig.sessions_up().unwrap();
    // The pod is made anew, and has network.
    wait("b to be attached again", SOON, || {
        let reached = Watch::start(&rig)?.reached()?;
        Ok((!reached).then(|| "a and b do not reach each other".to_owned()))
    })
    .unwrap();
    for node in ["n1", "n2", "n3"] {
        wait("both uplinks to be used", SOON, || both_uplinks(&rig, node)).unwrap();
    }
    watch.unharmed("a node rebooted").unwrap();
    rig.finish().unwrap();
}

#[test]
fn the_nodes_own_packets_carry_its_address_on_lo_over_both_uplinks() {
    let (rig, _) = scene("own");
    let n3 = rig.plan().node("n3").unwrap().address;
    for (flag, to, from) in [
        (
            "-4",
            n3.v4.to_string(),
            rig.plan().node("n1").unwrap().address.v4.to_string(),
        ),
        (
            "-6",
            n3.v6.to_string(),
            rig.plan().node("n1").unwrap().address.v6.to_string(),
        ),
    ] {
        let route = rig
            .json("n1", &["ip", "-j", flag, "route", "get", &to])
            .unwrap();
        assert_eq!(route[0]["prefsrc"], from, "{route}");
        rig.ask(
            "n1",
            &["ping", flag, "-c", "3", "-i", "0.01", "-W", "2", &to],
        )
        .unwrap();
    }
    let setting = |what: &str| {
        rig.ask("n1", &["cat", &format!("/proc/sys/net/{what}")])
            .unwrap()
    };
    for (what, value) in [
        ("ipv4/conf/eth0/rp_filter", "2"),
        ("ipv4/conf/eth1/rp_filter", "2"),
        ("ipv4/fib_multipath_hash_policy", "1"),
        ("ipv6/fib_multipath_hash_policy", "1"),
        ("ipv4/conf/eth0/ignore_routes_with_linkdown", "1"),
        ("ipv6/conf/eth1/ignore_routes_with_linkdown", "1"),
        ("ipv4/conf/eth0/arp_announce", "2"),
    ] {
        assert_eq!(setting(what).trim(), value, "{what}");
    }
    // And all of it is taken back.
    rig.kill("felix", Some("n1")).unwrap();
    let refused = rig.exec("n1", &["margay-felix", "uninstall"]).unwrap();
    assert!(!refused.status.success(), "a pod is still there");
    rig.ask("n1", &["margay-felix", "uninstall", "--force"])
        .unwrap();
    assert_eq!(setting("ipv4/conf/eth0/rp_filter").trim(), "1");
    assert_eq!(setting("ipv4/fib_multipath_hash_policy").trim(), "0");
    for argv in [
        ["ip", "route", "show", "proto", "77"],
        ["ip", "route", "show", "proto", "78"],
        ["ip", "nexthop", "show", "proto", "78"],
    ] {
        assert_eq!(rig.ask("n1", &argv).unwrap(), "", "{argv:?}");
    }
    let tables = rig.ask("n1", &["nft", "list", "tables"]).unwrap();
    assert!(!tables.contains("margay"), "{tables}");
    rig.finish().unwrap();
}
