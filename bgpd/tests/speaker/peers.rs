//! What peers are sent, what people are shown, and replay.

use std::net::SocketAddr;

use bgpd::Millis;
use bgpd::config::{Config, ExportClass, ImportPolicy, OriginKind, Peer, Pool};
use bgpd::speaker::{
    ConnId, Input, Output, RouteFilter, SEND_WINDOW, Speaker, SpeakerEvent, TcpEvent,
};
use bgpd::wire::{self, AsPath, Attributes, update};
use crds::net::{Cidr, Family};

use crate::bench::{Bench, EBGP, PEER_ASN, announced, best, report, updates, with_peers};
use crate::sim::{cidr, ip, origin, peer};

#[test]
fn a_route_refresh_is_answered_with_everything_of_the_family() {
    let mut config = with_peers(1);
    config.origins = vec![origin("10.1.0.0/26"), origin("fd00:1::/122")];
    let mut bench = Bench::started(config);
    bench.input(Input::OriginsComplete);
    let (conn, _) = bench.join(2, &Family::ALL);
    let outputs = bench.bytes(
        conn,
        &wire::RouteRefresh {
            afi: 2,
            subtype: 0,
            safi: 1,
        }
        .encode(),
    );
    assert_eq!(announced(&outputs, conn), [cidr("fd00:1::/122")]);
    assert_eq!(
        bench.bytes(
            conn,
            &wire::RouteRefresh {
                afi: 25,
                subtype: 0,
                safi: 70
            }
            .encode()
        ),
        []
    );
}

#[test]
fn a_slow_peer_is_sent_a_window_and_then_the_newest_state() {
    let mut config = with_peers(2);
    config.peers[1].export = ExportClass::Transit;
    let mut bench = Bench::started(config);
    bench.join(2, &[Family::V4]);
    let (slow, _) = bench.join(3, &[Family::V4]);
    bench.report_sent = false;
    let mut unsent = 0;
    let mut told = 0;
    // Each route with attributes of its own, so that each needs a message.
    for n in 0..8_000u32 {
        let mut attributes = Attributes::new(ip("192.0.2.2").into());
        attributes.as_path = AsPath::sequence([PEER_ASN, 100_000 + n]);
        let prefix =
            Cidr::new(std::net::Ipv4Addr::from(0x1400_0000 + (n << 8)).into(), 24).unwrap();
        let outputs = bench.announce_with(2, &attributes, &[prefix]);
        told += announced(&outputs, slow).len();
        unsent += outputs
            .iter()
            .map(|it| {
                if let Output::Send(_, bytes) = it {
                    bytes.len()
                } else {
                    0
                }
            })
            .sum::<usize>();
    }
    assert!(
        told < 8_000 && unsent < SEND_WINDOW + 4096,
        "{told} routes, {unsent} bytes"
    );
    // All of it is taken back before the peer has read on: of what it has not heard, it never hears.
    bench.input(Input::Tcp(
        ConnId::In(2),
        TcpEvent::Closed {
            reason: String::new(),
        },
    ));
    let outputs = bench.input(Input::Tcp(slow, TcpEvent::Sent(unsent)));
    let withdrawn: usize = updates(&outputs, slow)
        .iter()
        .map(|it| it.withdrawn.len())
        .sum();
    assert_eq!((announced(&outputs, slow).len(), withdrawn), (0, told));
    assert!(outputs.len() < 20, "withdrawals share messages");
}

#[test]
fn routes_with_the_same_attributes_share_messages() {
    let mut config = with_peers(2);
    config.peers[1].export = ExportClass::Transit;
    let mut bench = Bench::started(config);
    bench.join(2, &[Family::V4]);
    let prefixes: Vec<Cidr> = (0..5_000u32)
        .map(|n| Cidr::new(std::net::Ipv4Addr::from(0x0a00_0000 + (n << 6)).into(), 26).unwrap())
        .collect();
    bench.announce(2, &prefixes);
    let (three, outputs) = bench.join(3, &[Family::V4]);
    assert_eq!(announced(&outputs, three).len(), 5_000);
    let messages = updates(&outputs, three).len();
    assert_eq!(messages, 5_000usize.div_ceil((4096 - 23 - 24) / 5));
}

#[test]
fn a_malformed_route_is_withdrawn_and_the_session_stays() {
    let mut bench = Bench::started(with_peers(1));
    let (conn, _) = bench.join(2, &[Family::V4]);
    let prefix = cidr("10.2.0.0/26");
    bench.announce(2, &[prefix]);
    let mut bytes = {
        let mut attributes = Attributes::new(ip("192.0.2.2").into());
        attributes.as_path = AsPath::sequence([PEER_ASN]);
        update::announce(&attributes, Family::V4, &[prefix], EBGP).unwrap()[0].to_vec()
    };
    // The value of ORIGIN follows header, two lengths, flags, type and length.
    bytes[19 + 4 + 3] = 9;
    let outputs = bench.bytes(conn, &bytes);
    assert_eq!(best(&outputs), [(prefix, vec![])]);
    assert!(
        outputs
            .iter()
            .any(|it| matches!(it, Output::Event(SpeakerEvent::Malformed { .. })))
    );
    assert_eq!(bench.speaker.summary().neighbors_established, 1);
}

#[test]
fn neighbors_show_counts_and_capabilities() {
    let mut config = with_peers(2);
    config.peers[0].import = ImportPolicy::Pools;
    config.pools = vec![Pool {
        cidr: cidr("10.244.0.0/16"),
        block_size: 26,
    }];
    config.origins = vec![origin("10.244.9.0/26")];
    let mut bench = Bench::started(config);
    bench.input(Input::OriginsComplete);
    bench.join(2, &[Family::V4]);
    bench.announce(2, &[cidr("10.244.1.0/26"), cidr("10.99.0.0/26")]);
    bench.now += 5_000;
    let neighbors = bench.speaker.neighbors(bench.now);
    let two = &neighbors[0];
    let four = two.families[0];
    assert_eq!((four.received, four.accepted, four.advertised), (2, 1, 1));
    assert!(four.negotiated && !four.end_of_rib && !two.families[1].negotiated);
    assert_eq!(
        (two.state_millis, two.established_count, two.hold_time),
        (5_000, 1, 9)
    );
    assert_eq!(two.capabilities, ["IPv4 unicast", "4-octet AS"]);
    assert_eq!(neighbors[1].state.to_string(), "Active");
    let routes = bench.speaker.routes(&RouteFilter::default(), bench.now);
    let reason = |prefix: &str| {
        routes
            .iter()
            .find(|it| it.prefix == cidr(prefix))
            .unwrap()
            .reason()
    };
    assert_eq!(
        reason("10.99.0.0/26"),
        "outside of pools and configured ranges"
    );
    assert_eq!(reason("10.244.1.0/26"), "");
}

#[test]
fn a_recorded_run_replays_to_the_same_outputs() {
    let mut config = with_peers(2);
    config.origins = vec![origin("10.1.0.0/26"), origin("fd00:1::/122")];
    config.peers[1].export = ExportClass::Transit;
    config.peers.push(Peer {
        passive: false,
        ..peer("192.0.2.9", 65009)
    });
    let mut bench = Bench::started(config.clone());
    bench.input(Input::OriginsComplete);
    bench.join(2, &Family::ALL);
    bench.join(3, &[Family::V4]);
    bench.announce(2, &[cidr("10.2.0.0/26")]);
    // Numbers of prefixes become free and are given out again.
    let blocks = |second: u8| {
        (0..50u8)
            .map(|n| cidr(&format!("20.{second}.{n}.0/24")))
            .collect::<Vec<_>>()
    };
    for second in 0..3 {
        bench.announce(2, &blocks(second));
        bench.input(Input::Tcp(
            ConnId::In(3),
            TcpEvent::Closed {
                reason: String::new(),
            },
        ));
        let withdrawals = update::withdraw(Family::V4, &blocks(second)).concat();
        bench.bytes(ConnId::In(2), &withdrawals);
        bench.join(3, &[Family::V4]);
    }
    for _ in 0..20 {
        let due = bench.speaker.next_timeout().unwrap().max(bench.now);
        bench.tick(due - bench.now);
    }
    config.peers.remove(0);
    bench.input(Input::Config(config.clone()));
    let recorded: Vec<String> = bench
        .inputs
        .iter()
        .map(|it| serde_json::to_string(it).unwrap())
        .collect();

    let first: Config = {
        let mut first = config.clone();
        first.peers.insert(0, with_peers(1).peers.remove(0));
        first
    };
    let mut speaker = Speaker::new(first, 1, 0);
    for (line, outputs) in recorded.iter().zip(&bench.outputs) {
        let (input, now): (Input, Millis) = serde_json::from_str(line).unwrap();
        assert_eq!(speaker.handle(input, now), *outputs, "{line}");
    }
}

#[test]
fn a_peer_that_fails_is_left_alone_for_a_while_whatever_else_happens() {
    let mut config = with_peers(1);
    config.peers[0].passive = false;
    let mut bench = Bench::new(config);
    let outputs = bench.input(report());
    let [Output::Connect { conn, .. }] = outputs[..] else {
        panic!("{outputs:?}")
    };
    let end = |host| SocketAddr::from(([192, 0, 2, host], 179));
    bench.input(Input::Tcp(
        conn,
        TcpEvent::Connected {
            local: end(1),
            remote: end(2),
        },
    ));
    let outputs = bench.bytes(conn, &wire::keepalive());
    assert!(outputs.contains(&Output::Close(conn)));
    let origin = |withdrawn| Input::Origin {
        prefix: cidr("10.1.0.0/26"),
        kind: OriginKind::Block,
        withdrawn,
    };
    for input in [
        origin(false),
        origin(true),
        Input::OriginsComplete,
        Input::Tick,
    ] {
        assert_eq!(bench.input(input), []);
    }
    let due = bench.speaker.next_timeout().unwrap();
    assert!(due > bench.now + 100);
    assert!(matches!(
        bench.tick(due - bench.now)[..],
        [Output::Connect { .. }]
    ));
}

#[test]
fn a_changed_session_starts_again_at_once() {
    let mut config = with_peers(2);
    let mut bench = Bench::started(config.clone());
    let (two, _) = bench.join(2, &[Family::V4]);
    let (three, _) = bench.join(3, &[Family::V4]);
    config.peers[0].hold_time = Some(30);
    let outputs = bench.input(Input::Config(config));
    assert!(outputs.contains(&Output::Close(two)) && !outputs.contains(&Output::Close(three)));
    let (_, outputs) = bench.join(2, &[Family::V4]);
    let hold = |it: &Output| {
        matches!(
            it,
            Output::Event(SpeakerEvent::Established { hold_time: 30, .. })
        )
    };
    assert!(outputs.iter().any(hold));
    let neighbors = bench.speaker.neighbors(bench.now);
    assert_eq!(
        (
            neighbors[0].established_count,
            neighbors[1].established_count
        ),
        (2, 1)
    );
}

#[test]
fn a_long_answer_comes_in_pages_in_order() {
    use bgpd::speaker::Page;
    let mut config = with_peers(2);
    config.peers[1].export = ExportClass::Transit;
    let mut bench = Bench::started(config);
    bench.join(2, &[Family::V4]);
    bench.join(3, &[Family::V4]);
    let prefixes: Vec<Cidr> = (0..100_u32)
        // In an order that is not theirs.
        .map(|n| 0x1400_0000 + ((n * 37 % 100) << 8))
        .map(|it| Cidr::new(std::net::Ipv4Addr::from(it).into(), 24).unwrap())
        .collect();
    bench.announce(2, &prefixes);
    let mut ordered = prefixes;
    ordered.sort();
    let to = config_key(3);
    for limit in [1, 7, 99, 100, 101] {
        let (mut shown, mut told, mut pages) = (Vec::new(), Vec::new(), 0);
        let mut page = Page { after: None, limit };
        loop {
            let (routes, next) = bench.speaker.routes_on(page, &RouteFilter::default(), 0);
            let (out, same) = bench.speaker.advertised_on(page, &to).unwrap();
            assert!(routes.len() <= limit && next == same);
            shown.extend(routes.iter().map(|it| it.prefix));
            told.extend(out.iter().map(|it| it.prefix));
            pages += 1;
            match next {
                Some(_) => page.after = next,
                None => break,
            }
        }
        assert_eq!((&shown, &told), (&ordered, &ordered), "{limit} a page");
        assert_eq!(pages, 100_usize.div_ceil(limit));
    }
}

fn config_key(host: u8) -> bgpd::config::PeerKey {
    bgpd::config::PeerKey::Address(ip(&format!("192.0.2.{host}")))
}
