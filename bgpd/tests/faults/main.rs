//! Peers that misbehave, against the real daemon: while each does its worst the daemon answers, and afterwards the session
//! and the routes of another peer are what they were. How long answers take is printed, not judged.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod played;
mod rig;
#[path = "../support/mod.rs"]
mod support;

use std::io::Write as _;
use std::net::Shutdown;

use bgpd::wire::{self, RouteRefresh};
use crds::net::{Cidr, Family};

use played::{announce, attributes, open, prefixes, reset, until_closed, withdraw};
use rig::{BAD, BAD_AS, GOOD, Rig, TO_BAD};

/// Whatever the bad peer says is taken, and it is told everything.
const OPEN_DOOR: &str = "import: all, export: transit";

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

#[test]
fn a_peer_that_takes_nothing_costs_a_window() {
    let rig = Rig::new(OPEN_DOOR);
    let mut stalled = played::connect(&rig.bad, TO_BAD, Some(2048));
    assert!(played::establish(&mut stalled, BAD_AS, 3));
    let before = rig.memory();
    // Each round is more than a window of bytes for it, and replaces the one before.
    let more = prefixes(1000, 2000);
    rig.during("a stalled peer", || {
        for round in 0..30 {
            let mut said = attributes(GOOD, &[65002]);
            said.med = Some(round);
            said.communities = (0..60).map(|it| it + round).collect();
            rig.good.say(announce(&said, &more));
        }
        rig.good.say(withdraw(&more));
        rig.wait_family(GOOD, "withdrawn again", |it| it.accepted == 200);
    });
    let grown = rig.memory().saturating_sub(before);
    assert!(
        grown < 48 << 20,
        "{grown} bytes for a peer that takes nothing"
    );
    assert_eq!(rig.neighbor(BAD).state, "Established");
    drop(stalled);
    rig.wait_neighbor(BAD, "is gone", |it| it.state != "Established");
}

#[test]
fn a_peer_that_floods_is_one_among_others() {
    let rig = Rig::new(OPEN_DOOR);
    let mut flood = rig.session();
    let many = prefixes(5000, 500);
    let mut sent = 0;
    let refresh = RouteRefresh {
        afi: 1,
        safi: 1,
        subtype: 0,
    };
    rig.during("a flood", || {
        for round in 0..150 {
            let mut said = attributes(BAD, &[BAD_AS, 7]);
            said.med = Some(round);
            let mut bytes = announce(&said, &many);
            bytes.extend(wire::keepalive().repeat(200));
            bytes.extend(refresh.encode().repeat(20));
            if round % 3 == 0 {
                bytes.extend(withdraw(&many));
            }
            flood.write_all(&bytes).unwrap();
            sent += bytes.len();
        }
        rig.wait_family(BAD, "all its routes", |it| it.received == 500);
    });
    println!("{sent} bytes were sent");
    drop(flood);
    rig.wait_heard(&[]);
    rig.judge();
}

#[test]
fn a_peer_that_flaps_leaves_nothing_behind() {
    let rig = Rig::new(OPEN_DOOR);
    let some = prefixes(5000, 50);
    let said = announce(&attributes(BAD, &[BAD_AS]), &some);
    let before = rig.memory();
    rig.during("flaps", || {
        for round in 0..40 {
            // Not every one is let in: it is the daemon's to slow it down.
            let mut stream = rig.connect();
            if round % 4 == 0 || played::establish(&mut stream, BAD_AS, 3) {
                let _ = stream.write_all(&said);
            }
        }
    });
    rig.wait_heard(&[]);
    rig.wait_family(BAD, "nothing is left", |it| it.received == 0);
    let grown = rig.memory().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes after 40 sessions");
    let mut stream = rig.session();
    stream.write_all(&said).unwrap();
    rig.wait_heard(&some);
}

#[test]
fn a_half_closed_connection_is_closed() {
    let rig = Rig::new(OPEN_DOOR);
    let mut stream = rig.session();
    stream
        .write_all(&announce(&attributes(BAD, &[BAD_AS]), &prefixes(5000, 50)))
        .unwrap();
    rig.wait_heard(&prefixes(5000, 50));
    rig.during("a half-close", || {
        stream.shutdown(Shutdown::Write).unwrap();
        until_closed(&mut stream);
    });
    rig.wait_heard(&[]);
}

#[test]
fn segments_of_one_byte_are_messages_too() {
    let rig = Rig::new(OPEN_DOOR);
    let mut stream = rig.connect();
    stream.set_nodelay(true).unwrap();
    let some = prefixes(5000, 50);
    let mut bytes = open(BAD_AS, 3);
    bytes.extend(wire::keepalive());
    bytes.extend(announce(&attributes(BAD, &[BAD_AS]), &some));
    rig.during("segments of one byte", || {
        for byte in bytes {
            stream.write_all(&[byte]).unwrap();
        }
        rig.wait_heard(&some);
    });
}

#[test]
fn resets_in_every_state_end_one_session_only() {
    let rig = Rig::new(OPEN_DOOR);
    let some = prefixes(5000, 300);
    let said = announce(&attributes(BAD, &[BAD_AS]), &some);
    rig.during("resets", || {
        // In OpenSent.
        reset(rig.connect());
        // Half an OPEN, a whole one, and one with its KEEPALIVE unread.
        let hello = [open(BAD_AS, 3), wire::keepalive().to_vec()].concat();
        for length in [10, 19, 25, open(BAD_AS, 3).len(), hello.len()] {
            let mut stream = rig.connect();
            let _ = stream.write_all(&hello[..length]);
            reset(stream);
        }
        // In Established, between messages and in the middle of one.
        for length in [0, 30, said.len()] {
            let mut stream = rig.session();
            stream.write_all(&said[..length]).unwrap();
            reset(stream);
            rig.wait_neighbor(BAD, "is down", |it| it.state != "Established");
        }
    });
    rig.wait_heard(&[]);
    let mut stream = rig.session();
    stream.write_all(&said).unwrap();
    rig.wait_heard(&some);
}

#[test]
fn own_prefixes_and_parts_of_others_are_refused() {
    let rig = Rig::new("export: transit");
    // A block of somebody else.
    let block = [cidr("10.244.1.0/26")];
    rig.good.say(announce(&attributes(GOOD, &[65002]), &block));
    rig.wait_family(GOOD, "its block", |it| it.accepted == 201);
    let mut stream = rig.session();
    let stolen = [
        "10.244.0.0/26",
        "10.244.0.0/28",
        "10.244.0.1/32",
        "10.244.1.0/27",
        "10.244.1.5/32",
        "20.0.0.0/25",
        "20.0.1.0/24",
        "0.0.0.0/0",
        "127.0.0.0/8",
    ]
    .map(cidr);
    rig.during("stolen prefixes", || {
        let bytes = announce(&attributes(BAD, &[BAD_AS]), &stolen);
        stream.write_all(&bytes).unwrap();
        let own = announce(&attributes(BAD, &[BAD_AS]), &[cidr("10.244.9.0/26")]);
        stream.write_all(&own).unwrap();
        rig.wait_family(BAD, "its own block is taken", |it| it.accepted == 1);
    });
    let used: Vec<String> = rig
        .routes(BAD)
        .into_iter()
        .filter(|it| it.best)
        .map(|it| it.prefix)
        .collect();
    assert_eq!(used, ["10.244.9.0/26"]);
    rig.wait_heard(&[cidr("10.244.9.0/26")]);
}

#[test]
fn looped_paths_go_no_further() {
    let rig = Rig::new(OPEN_DOOR);
    let mut stream = rig.session();
    let looped = prefixes(5000, 100);
    let good = prefixes(6000, 1);
    rig.during("looped paths", || {
        for path in [&[BAD_AS, 65001][..], &[BAD_AS, 7, 65001, 7], &[65001], &[7]] {
            let bytes = announce(&attributes(BAD, path), &looped);
            stream.write_all(&bytes).unwrap();
        }
        // As long as a path can be in a message of this size.
        let long: Vec<u32> = (0..900).map(|_| BAD_AS).collect();
        stream
            .write_all(&announce(&attributes(BAD, &long), &good))
            .unwrap();
        rig.wait_heard(&good);
    });
    assert!(
        rig.routes(BAD)
            .iter()
            .all(|it| !it.best || it.prefix == good[0].to_string())
    );
    assert_eq!(rig.neighbor(BAD).established_count, 1);
}

#[test]
fn a_limit_bounds_memory_whatever_is_sent() {
    let rig = Rig::new("import: all, export: transit, maxPrefixes: {ipv4: 1000, action: Drop}");
    let mut stream = rig.session();
    let before = rig.memory();
    // What counts is that nothing grows with their number; two million take an unoptimised daemon minutes.
    let count = std::env::var("FAULT_ROUTES").map_or(200_000, |it| it.parse().unwrap());
    rig.during(&format!("{count} routes against a limit of 1000"), || {
        for first in (0..count).step_by(10_000) {
            let said = attributes(BAD, &[BAD_AS, 100_000 + first]);
            stream
                .write_all(&announce(&said, &prefixes(10_000 + first, 10_000)))
                .unwrap();
        }
        stream
            .write_all(&withdraw(&prefixes(count + 9_999, 1)))
            .unwrap();
        let refresh = RouteRefresh::unicast(Family::V4, 0);
        stream.write_all(&refresh.encode()).unwrap();
        rig.wait_neighbor(BAD, "all has been read", |it| {
            it.received.as_ref().is_some_and(|it| it.refresh == 1)
        });
    });
    rig.wait_family(BAD, "as many as it may", |it| it.received == 1000);
    let grown = rig.memory().saturating_sub(before);
    assert!(
        grown < 16 << 20,
        "{grown} bytes for routes that are not taken"
    );
    rig.wait_heard(&prefixes(10_000, 1000));
}

#[test]
fn a_limit_that_ends_the_session_leaves_nothing() {
    let rig = Rig::new("import: all, export: transit, maxPrefixes: {ipv4: 1000, action: TearDown}");
    let mut stream = rig.session();
    rig.during("a limit that ends the session", || {
        let bytes = announce(&attributes(BAD, &[BAD_AS]), &prefixes(5000, 5000));
        // It may be closed before all is written.
        let _ = stream.write_all(&bytes);
        let said = until_closed(&mut stream);
        println!("{said:?}");
    });
    rig.wait_heard(&[]);
    rig.wait_family(BAD, "nothing is left", |it| it.received == 0);
    rig.judge();
}
