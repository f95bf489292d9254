//! Peers that come from a range.

use std::net::SocketAddr;

use bgpd::config::{Config, DynamicPeers, ImportPolicy, Peer};
use bgpd::fsm::State;
use bgpd::speaker::{ConnId, Input, Output, SpeakerEvent, TcpEvent};
use bgpd::wire::notification::Cease;
use bgpd::wire::{self, Capability, Notification, Open};
use crds::net::Family;

use crate::bench::{Bench, announced, best, with_peers};
use crate::sim::{cidr, ip};

/// One configured peer at 192.0.2.2, and whoever comes from 192.0.2.0/24.
fn ranged(limit: u32, remote_asn: u32) -> Config {
    let mut config = with_peers(1);
    let mut template = Peer::new(ip("192.0.2.0"), remote_asn);
    template.name = "rack".into();
    template.import = ImportPolicy::All;
    config.dynamic = vec![DynamicPeers {
        range: cidr("192.0.2.0/24"),
        limit,
        template,
    }];
    config
}

fn accept(bench: &mut Bench, host: u8) -> Vec<Output> {
    let accepted = TcpEvent::Accepted {
        local: SocketAddr::from(([192, 0, 2, 1], 179)),
        remote: SocketAddr::from(([192, 0, 2, host], 40000)),
        ttl: None,
    };
    bench.input(Input::Tcp(ConnId::In(u64::from(host)), accepted))
}

fn hang_up(bench: &mut Bench, host: u8) -> Vec<Output> {
    let reason = String::new();
    let conn = ConnId::In(u64::from(host));
    bench.input(Input::Tcp(conn, TcpEvent::Closed { reason }))
}

fn keys(bench: &Bench) -> Vec<String> {
    let neighbors = bench.speaker.neighbors(bench.now);
    neighbors.iter().map(|it| it.key.to_string()).collect()
}

#[test]
fn who_comes_from_a_range_is_a_peer_while_it_is_there() {
    let mut bench = Bench::started(ranged(10, 0));
    bench.join(2, &[Family::V4]);
    let (three, _) = bench.join(3, &[Family::V4]);
    let neighbors = bench.speaker.neighbors(bench.now);
    assert_eq!(keys(&bench), ["192.0.2.2", "192.0.2.3"]);
    assert_eq!(neighbors[0].range, None, "a configured peer is itself");
    assert_eq!(neighbors[1].range, Some(cidr("192.0.2.0/24")));
    assert_eq!(neighbors[1].name, "rack");
    assert_eq!(neighbors[1].remote_asn, 65003, "learnt from its OPEN");
    let outputs = bench.announce(3, &[cidr("10.1.0.0/26")]);
    assert_eq!(best(&outputs).len(), 1);
    let outputs = bench.announce(2, &[cidr("10.2.0.0/26")]);
    assert_eq!(
        announced(&outputs, three),
        [],
        "the export class is the range's"
    );

    let outputs = hang_up(&mut bench, 3);
    assert_eq!(best(&outputs), [(cidr("10.1.0.0/26"), vec![])]);
    assert_eq!(keys(&bench), ["192.0.2.2"]);
    bench.join(3, &[Family::V4]);
    assert_eq!(keys(&bench).len(), 2, "it may come again at once");
}

#[test]
fn one_too_many_is_told_so() {
    let mut bench = Bench::started(ranged(2, 0));
    bench.join(2, &[Family::V4]);
    bench.join(3, &[Family::V4]);
    bench.join(4, &[Family::V4]);
    let outputs = accept(&mut bench, 5);
    let conn = ConnId::In(5);
    let cease = Notification::cease(Cease::OutOfResources).encode();
    assert!(
        matches!(
            outputs[0],
            Output::Event(SpeakerEvent::RangeFull { limit: 2, .. })
        ),
        "{outputs:?}"
    );
    assert_eq!(
        outputs[1..],
        [Output::Send(conn, cease), Output::Close(conn)]
    );
    hang_up(&mut bench, 4);
    bench.join(5, &[Family::V4]);
}

#[test]
fn an_own_address_and_one_outside_are_nobodys() {
    let mut bench = Bench::started(ranged(10, 0));
    for remote in [[192, 0, 2, 1], [198, 51, 100, 1]] {
        let accepted = TcpEvent::Accepted {
            local: SocketAddr::from(([192, 0, 2, 1], 179)),
            remote: SocketAddr::from((remote, 40000)),
            ttl: None,
        };
        let outputs = bench.input(Input::Tcp(ConnId::In(9), accepted));
        assert!(
            matches!(
                outputs[..],
                [
                    Output::Event(SpeakerEvent::UnknownPeer { .. }),
                    Output::Send(..),
                    Output::Close(_)
                ]
            ),
            "{outputs:?}"
        );
    }
    assert_eq!(keys(&bench), ["192.0.2.2"]);
}

#[test]
fn any_external_as_is_not_the_own_one() {
    let mut bench = Bench::started(ranged(10, 0));
    for (host, asn) in [(3, 65001), (4, 0)] {
        accept(&mut bench, host);
        let open = Open::new(
            asn,
            90,
            [10, 0, 0, host].into(),
            vec![Capability::unicast(Family::V4)],
        );
        let outputs = bench.bytes(ConnId::In(u64::from(host)), &open.encode());
        let bad_as = |it: &Output| matches!(it, Output::Send(_, bytes) if bytes[19..21] == [2, 2]);
        assert!(outputs.iter().any(bad_as), "AS {asn}: {outputs:?}");
    }
    // After an error it is not let in at once, and forgotten when the wait is over.
    assert_eq!(keys(&bench).len(), 3);
    assert_eq!(bench.speaker.neighbors(bench.now)[1].state, State::Idle);
    let outputs = accept(&mut bench, 3);
    assert!(
        outputs.contains(&Output::Close(ConnId::In(3))),
        "{outputs:?}"
    );
    bench.tick(60_000);
    assert_eq!(keys(&bench), ["192.0.2.2"]);
}

#[test]
fn a_changed_range_changes_those_who_came_from_it() {
    let mut config = ranged(10, 0);
    let mut bench = Bench::started(config.clone());
    let (three, _) = bench.join(3, &[Family::V4]);
    let (four, _) = bench.join(4, &[Family::V4]);
    config.dynamic[0].limit = 1;
    config.dynamic[0].template.name = "other".into();
    assert_eq!(bench.input(Input::Config(config.clone())), []);
    assert_eq!(bench.speaker.neighbors(bench.now)[2].name, "other");

    // A range of its own, and a peer of its own.
    config.dynamic[0].range = cidr("192.0.2.4/31");
    config.peers.push(Peer {
        name: "three".into(),
        passive: true,
        ..Peer::new(ip("192.0.2.3"), 65003)
    });
    bench.input(Input::Config(config.clone()));
    let neighbors = bench.speaker.neighbors(bench.now);
    let shown = |at: usize| (neighbors[at].name.as_str(), neighbors[at].range);
    assert_eq!(shown(1), ("three", None));
    assert_eq!(shown(2), ("other", Some(cidr("192.0.2.4/31"))));
    assert_eq!(neighbors[2].state, State::Established, "it did not notice");

    config.dynamic.clear();
    let outputs = bench.input(Input::Config(config));
    assert!(outputs.contains(&Output::Close(four)) && !outputs.contains(&Output::Close(three)));
    assert_eq!(keys(&bench), ["192.0.2.2", "192.0.2.3"]);
}

#[test]
fn hundreds_come_from_one_range() {
    let mut config = ranged(300, 0);
    config.dynamic[0].range = cidr("192.0.0.0/16");
    let mut bench = Bench::started(config);
    for host in 0..300_u16 {
        let [high, low] = host.to_be_bytes();
        let conn = ConnId::In(u64::from(host));
        let accepted = TcpEvent::Accepted {
            local: SocketAddr::from(([192, 0, 2, 1], 179)),
            remote: SocketAddr::from(([192, 0, 10 + high, low], 40000)),
            ttl: Some(64),
        };
        bench.input(Input::Tcp(conn, accepted));
        let families = vec![Capability::unicast(Family::V4)];
        let open = Open::new(64512, 90, [10, 1, high, low].into(), families);
        bench.bytes(conn, &open.encode());
        bench.bytes(conn, &wire::keepalive());
    }
    assert_eq!(bench.speaker.summary().neighbors_established, 300);
}
