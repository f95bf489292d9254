//! What BFD and lost links do to sessions, and which BFD sessions are asked for.

use bgpd::bfd::{self, Diagnostic, Path};
use bgpd::config::{Bfd, Config, Distance, OnBfdFailure, PeerKey};
use bgpd::fsm::State;
use bgpd::nexthop::Change;
use bgpd::speaker::{Input, Output};
use crds::net::Family;

use crate::bench::{Bench, report, with_peers};
use crate::sim::{cidr, interface, ip};

const FAILED: bfd::Event = bfd::Event::Down {
    diagnostic: Diagnostic::TIME_EXPIRED,
    independent: false,
};

fn watched(edit: impl FnOnce(&mut Config)) -> Config {
    let mut config = with_peers(1);
    config.peers[0].options.bfd = Some(Bfd {
        transmit: 100,
        receive: 200,
        multiplier: 3,
        on_failure: OnBfdFailure::Purge,
    });
    edit(&mut config);
    config
}

fn key() -> PeerKey {
    PeerKey::Address(ip("192.0.2.2"))
}

fn asked(outputs: &[Output]) -> Option<&bfd::Settings> {
    outputs.iter().find_map(|it| match it {
        Output::BfdStart { settings, .. } => Some(settings),
        _ => None,
    })
}

fn stopped(outputs: &[Output]) -> bool {
    outputs
        .iter()
        .any(|it| matches!(it, Output::BfdStop { peer } if *peer == key()))
}

fn single_hop(ifindex: u32) -> Path {
    let interface = format!("eth{ifindex}");
    Path::SingleHop { ifindex, interface }
}

fn say(bench: &mut Bench, event: bfd::Event) -> Vec<Output> {
    bench.input(Input::Bfd { peer: key(), event })
}

fn link(ifindex: u32, up: bool) -> Input {
    let name = format!("eth{ifindex}");
    Input::Kernel(vec![Change::Link { ifindex, name, up }])
}

fn down_reason(bench: &Bench) -> String {
    let info = bench.speaker.neighbors(bench.now).remove(0);
    assert_ne!(info.state, State::Established);
    info.last_error.map(|it| it.to_string()).unwrap_or_default()
}

/// A session with a route, whose BFD session is up.
fn up(config: Config) -> Bench {
    let mut bench = Bench::started(config);
    bench.join(2, &[Family::V4]);
    bench.announce(2, &[cidr("10.244.7.0/26")]);
    say(&mut bench, bfd::Event::Up);
    assert_eq!(bench.speaker.best().len(), 1);
    bench
}

#[test]
fn a_peer_is_watched_once_the_way_to_it_is_known() {
    let mut bench = Bench::new(watched(|_| ()));
    assert_eq!(asked(&bench.input(report())), None);
    let outputs = bench.input(Input::Kernel(interface(3, &["192.0.2.1/24"])));
    let settings = asked(&outputs).unwrap().clone();
    assert_eq!(
        settings,
        bfd::Settings {
            remote: ip("192.0.2.2"),
            local: None,
            path: single_hop(3),
            transmit: 100_000,
            receive: 200_000,
            multiplier: 3,
        }
    );
    // Whatever else happens, it is not asked for again.
    assert_eq!(asked(&bench.input(link(9, true))), None);
    bench.join(2, &[Family::V4]);
    // A link without carrier is still the way to the peer.
    let outputs = bench.input(link(3, false));
    assert!(
        asked(&outputs).is_none() && !stopped(&outputs),
        "{outputs:?}"
    );

    let mut slower = watched(|it| it.peers[0].options.bfd.as_mut().unwrap().transmit = 500);
    let outputs = bench.input(Input::Config(slower.clone()));
    assert_eq!(asked(&outputs).unwrap().transmit, 500_000);
    slower.peers[0].options.bfd = None;
    assert!(stopped(&bench.input(Input::Config(slower))));
    assert!(stopped_by_removal());
}

fn stopped_by_removal() -> bool {
    let mut bench = Bench::started(watched(|_| ()));
    stopped(&bench.input(Input::Config(with_peers(0))))
}

#[test]
fn the_distance_says_over_how_many_hops() {
    let multihop = |least_ttl| Path::Multihop { least_ttl };
    let far = |path| (path, "198.51.100.1/24");
    let near = |path| (path, "192.0.2.1/24");
    let cases = [
        (Distance::Direct, 65002, near(single_hop(3))),
        (Distance::Direct, 65001, near(single_hop(3))),
        (Distance::Direct, 65001, far(multihop(0))),
        (Distance::Multihop(3), 65002, near(multihop(0))),
        (Distance::Secure(1), 65002, near(single_hop(3))),
        (Distance::Secure(3), 65002, far(multihop(253))),
    ];
    for (distance, asn, expected) in cases {
        let config = watched(|it| {
            it.peers[0].remote_asn = asn;
            it.peers[0].options.distance = distance;
        });
        let (path, own) = expected;
        let mut bench = Bench::new(config);
        let mut outputs = bench.input(report());
        outputs.extend(bench.input(Input::Kernel(interface(3, &[own]))));
        assert_eq!(
            asked(&outputs).map(|it| &it.path),
            Some(&path),
            "{distance:?} {asn}"
        );
    }
}

#[test]
fn a_failure_ends_the_session_and_takes_its_routes() {
    let mut bench = up(watched(|_| ()));
    let outputs = say(&mut bench, FAILED);
    assert!(bench.speaker.best().is_empty(), "{outputs:?}");
    assert_eq!(down_reason(&bench), "sent Cease: BFD down (6/10)");
    let info = bench.speaker.neighbors(bench.now).remove(0);
    assert_eq!(info.bfd.unwrap().state(), bfd::State::Down);
    // The session comes up again without waiting for BFD.
    bench.tick(60_000);
    bench.join(2, &[Family::V4]);
}

#[test]
fn a_failure_may_leave_the_routes_to_graceful_restart() {
    let graceful = |it: &mut Config| {
        it.peers[0].options.bfd.as_mut().unwrap().on_failure = OnBfdFailure::Graceful;
    };
    let mut bench = up(watched(graceful));
    let outputs = say(&mut bench, FAILED);
    let sent = outputs.iter().any(|it| matches!(it, Output::Send(..)));
    assert!(
        !sent,
        "a NOTIFICATION would end it on the other side: {outputs:?}"
    );
    assert_eq!(down_reason(&bench), "BFD session down");
}

#[test]
fn only_a_session_that_was_up_fails_and_an_end_on_purpose_is_none() {
    let mut bench = up(watched(|_| ()));
    say(&mut bench, bfd::Event::AdminDown);
    let info = bench.speaker.neighbors(bench.now).remove(0);
    assert_eq!(info.state, State::Established);
    assert_eq!(info.bfd.unwrap().state(), bfd::State::AdminDown);
    // Of a peer that is not watched any more, nothing counts.
    bench.input(Input::Config(with_peers(1)));
    say(&mut bench, FAILED);
    assert_eq!(
        bench.speaker.neighbors(bench.now)[0].state,
        State::Established
    );
}

#[test]
fn a_lost_link_ends_the_sessions_over_it_without_waiting() {
    for gone in [
        link(3, false),
        Input::Kernel(vec![Change::LinkGone { ifindex: 3 }]),
    ] {
        let mut bench = up(watched(|_| ()));
        bench.input(link(4, true));
        bench.input(link(4, false));
        assert_eq!(bench.speaker.best().len(), 1, "another link is not its");
        let outputs = bench.input(gone);
        assert!(bench.speaker.best().is_empty());
        let sent = outputs.iter().any(|it| matches!(it, Output::Send(..)));
        assert!(!sent, "nothing could be delivered: {outputs:?}");
        assert_eq!(down_reason(&bench), "interface eth3 is down");
    }
}

#[test]
fn a_peer_that_can_be_reached_another_way_keeps_its_session() {
    let config = watched(|it| it.peers[0].options.distance = Distance::Multihop(2));
    let mut bench = Bench::started(config);
    bench.join(2, &[Family::V4]);
    bench.input(link(3, false));
    assert_eq!(
        bench.speaker.neighbors(bench.now)[0].state,
        State::Established
    );
}
