//! How far peers may be, and which sessions start at all.

use std::net::SocketAddr;

use bgpd::config::{Config, Distance, Password};
use bgpd::nexthop::{Change, Route, Via};
use bgpd::speaker::{ConnId, Hindrance, Hops, Input, Output, SpeakerEvent, TcpEvent};

use crate::bench::{Bench, report, with_peers};
use crate::sim::{cidr, interface, ip};

/// One peer at 192.0.2.2 that is connected to.
fn active(edit: impl FnOnce(&mut Config)) -> Config {
    let mut config = with_peers(1);
    config.peers[0].passive = false;
    edit(&mut config);
    config
}

fn dialed(outputs: &[Output]) -> Option<(Option<u16>, Hops)> {
    outputs.iter().find_map(|it| match it {
        Output::Connect {
            local_port, hops, ..
        } => Some((*local_port, *hops)),
        _ => None,
    })
}

fn held(bench: &Bench) -> Option<Hindrance> {
    bench.speaker.neighbors(bench.now)[0].hindrance.clone()
}

#[test]
fn the_distance_says_how_far_packets_go_and_come() {
    let any = |ttl| Hops { ttl, least: 0 };
    let least = |least| Hops { ttl: 255, least };
    let cases = [
        (Distance::Direct, 65002, any(1)),
        (Distance::Direct, 65001, any(255)),
        (Distance::Multihop(7), 65002, any(7)),
        (Distance::Secure(1), 65002, least(255)),
        (Distance::Secure(3), 65002, least(253)),
        (Distance::Secure(254), 65001, least(2)),
    ];
    for (distance, asn, hops) in cases {
        let config = active(|it| {
            it.peers[0].remote_asn = asn;
            it.peers[0].options.distance = distance;
            it.peers[0].options.local_port = Some(1790);
        });
        let mut bench = Bench::new(config);
        bench.input(Input::Kernel(interface(3, &["192.0.2.1/24"])));
        let outputs = bench.input(report());
        assert_eq!(dialed(&outputs), Some((Some(1790), hops)), "{distance:?}");

        let accepted = |ttl| TcpEvent::Accepted {
            local: SocketAddr::from(([192, 0, 2, 1], 179)),
            remote: SocketAddr::from(([192, 0, 2, 2], 40000)),
            ttl,
        };
        let outputs = bench.input(Input::Tcp(ConnId::In(1), accepted(Some(hops.least))));
        assert_eq!(outputs[0], Output::Limit(ConnId::In(1), hops));
        assert!(matches!(outputs[1], Output::Send(..)), "{outputs:?}");
        if let Some(ttl) = hops.least.checked_sub(1) {
            let outputs = bench.input(Input::Tcp(ConnId::In(2), accepted(Some(ttl))));
            assert!(
                matches!(
                    outputs[..],
                    [
                        Output::Event(SpeakerEvent::TooFar { .. }),
                        Output::Close(ConnId::In(2))
                    ]
                ),
                "nothing is said to who is too far: {outputs:?}"
            );
        }
    }
}

#[test]
fn an_external_peer_has_to_be_on_a_connected_network() {
    let mut bench = Bench::new(active(|_| ()));
    bench.input(Input::Kernel(interface(3, &["198.51.100.1/24"])));
    let outputs = bench.input(report());
    let reason = Hindrance::NotConnected(ip("192.0.2.2"));
    let event = Output::Event(SpeakerEvent::Held {
        peer: bench.speaker.config().peers[0].key.clone(),
        reason: reason.clone(),
    });
    let expected = [event, Output::BestComplete];
    assert_eq!(outputs, expected, "said once, and nothing is tried");
    assert_eq!(dialed(&bench.tick(60_000)), None);
    assert_eq!(held(&bench), Some(reason.clone()));

    let outputs = bench.input(Input::Kernel(interface(4, &["192.0.2.1/24"])));
    assert!(dialed(&outputs).is_some(), "{outputs:?}");
    assert_eq!(held(&bench), None);
    let gone = Change::LinkGone { ifindex: 4 };
    let outputs = bench.input(Input::Kernel(vec![gone]));
    assert!(
        matches!(
            outputs[..],
            [Output::Close(_), Output::Event(SpeakerEvent::Held { .. })]
        ),
        "an attempt that cannot succeed ends: {outputs:?}"
    );
    assert_eq!(held(&bench), Some(reason));
}

#[test]
fn a_peer_farther_away_needs_no_connected_network() {
    for edit in [
        (|it: &mut Config| it.peers[0].options.distance = Distance::Multihop(2)) as fn(&mut Config),
        |it| it.peers[0].options.distance = Distance::Secure(2),
        |it| it.peers[0].remote_asn = 65001,
    ] {
        let mut bench = Bench::new(active(edit));
        bench.input(Input::Kernel(interface(3, &["198.51.100.1/24"])));
        assert!(dialed(&bench.input(report())).is_some());
    }
}

#[test]
fn the_gateway_of_a_peer_is_waited_for() {
    let by = ip("203.0.113.9");
    let mut config = active(|it| it.peers[0].options.reachable_by = Some(by));
    let mut bench = Bench::new(config.clone());
    bench.input(Input::Kernel(interface(3, &["192.0.2.1/24"])));
    assert_eq!(dialed(&bench.input(report())), None);
    assert_eq!(held(&bench), Some(Hindrance::NoRoute(by)));
    let route = Route {
        prefix: cidr("203.0.113.0/24"),
        metric: 0,
        vias: vec![Via {
            gateway: Some(ip("192.0.2.9")),
            ifindex: 3,
        }],
    };
    let outputs = bench.input(Input::Kernel(vec![Change::Route(route)]));
    assert!(dialed(&outputs).is_some());

    config.peers[0].options.reachable_by = Some(ip("203.0.114.9"));
    let outputs = bench.input(Input::Config(config.clone()));
    assert!(matches!(outputs[0], Output::Close(_)), "{outputs:?}");
    config.peers[0].options.reachable_by = None;
    assert!(dialed(&bench.input(Input::Config(config))).is_some());
}

#[test]
fn a_changed_password_costs_nothing() {
    let mut config = with_peers(1);
    let mut bench = Bench::started(config.clone());
    bench.join(2, &[crds::net::Family::V4]);
    for password in [Some("one"), Some("two"), None] {
        config.peers[0].options.password = password.map(|it| Password(it.to_owned()));
        assert_eq!(bench.input(Input::Config(config.clone())), []);
    }
}
