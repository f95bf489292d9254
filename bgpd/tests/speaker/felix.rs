//! The order of a start, origins, and the routes felix is told.

use std::net::{Ipv4Addr, SocketAddr};

use bgpd::config::{Distance, OriginKind};
use bgpd::nexthop::Change;
use bgpd::rib::WhyNotBest;
use bgpd::speaker::{BEST_WINDOW, ConnId, Input, Leg, Output, RouteFilter, SpeakerEvent, TcpEvent};
use bgpd::wire::update;
use crds::net::{Cidr, Family};

use crate::bench::{Bench, announced, best, ends, report, updates, with_peers};
use crate::sim::{cidr, config, ip, origin};

#[test]
fn no_session_starts_before_felix_has_reported() {
    let mut config = with_peers(2);
    config.peers[0].passive = false;
    let mut bench = Bench::new(config);
    assert_eq!(bench.input(Input::OriginsComplete), []);
    assert_eq!(bench.speaker.next_timeout(), Some(10_000));
    // A peer that connects meanwhile is not spoken to.
    let conn = ConnId::In(1);
    let (local, remote) = (
        SocketAddr::from(([192, 0, 2, 1], 179)),
        SocketAddr::from(([192, 0, 2, 3], 4000)),
    );
    let ttl = None;
    let accepted = TcpEvent::Accepted { local, remote, ttl };
    let outputs = bench.input(Input::Tcp(conn, accepted));
    assert!(outputs.contains(&Output::Close(conn)));
    assert!(!outputs.iter().any(|it| matches!(it, Output::Send(..))));
    let outputs = bench.input(report());
    assert!(
        matches!(
            outputs[..],
            [Output::Connect {
                conn: ConnId::Out(_),
                ..
            }]
        ),
        "{outputs:?}"
    );
}

#[test]
fn a_report_that_does_not_come_is_waited_for_ten_seconds() {
    let mut config = with_peers(1);
    config.peers[0].passive = false;
    let mut bench = Bench::new(config);
    assert_eq!(bench.tick(9_999), []);
    let outputs = bench.tick(1);
    assert!(matches!(
        outputs[..],
        [
            Output::Event(SpeakerEvent::DataplaneOverdue),
            Output::Connect { .. }
        ]
    ));
}

#[test]
fn no_end_of_rib_before_the_origins_are_complete() {
    let mut bench = Bench::started(with_peers(1));
    let (conn, outputs) = bench.join(2, &Family::ALL);
    assert_eq!(updates(&outputs, conn), []);
    let first = Input::Origin {
        prefix: cidr("10.1.0.0/26"),
        kind: OriginKind::Block,
        withdrawn: false,
    };
    let outputs = bench.input(first);
    assert_eq!(announced(&outputs, conn), [cidr("10.1.0.0/26")]);
    assert_eq!(ends(&outputs, conn), []);
    let outputs = bench.input(Input::OriginsComplete);
    assert_eq!(ends(&outputs, conn), Family::ALL);
    // Said once.
    assert_eq!(bench.input(Input::OriginsComplete), []);
}

#[test]
fn a_later_snapshot_takes_back_what_it_does_not_name() {
    let mut config = with_peers(1);
    config.origins = vec![origin("10.9.0.0/26")];
    let mut bench = Bench::started(config);
    let of = |text: &str, withdrawn| Input::Origin {
        prefix: cidr(text),
        kind: OriginKind::Block,
        withdrawn,
    };
    bench.input(Input::OriginsBegin);
    bench.input(of("10.1.0.0/26", false));
    bench.input(of("10.2.0.0/26", false));
    bench.input(of("10.9.0.0/26", false));
    bench.input(Input::OriginsComplete);
    let (conn, outputs) = bench.join(2, &[Family::V4]);
    assert_eq!(announced(&outputs, conn).len(), 3);
    // felix comes back: nothing happens until its snapshot is complete.
    assert_eq!(bench.input(Input::OriginsBegin), []);
    assert_eq!(bench.input(of("10.2.0.0/26", false)), []);
    let outputs = bench.input(Input::OriginsComplete);
    assert_eq!(updates(&outputs, conn)[0].withdrawn, [cidr("10.1.0.0/26")]);
    // What the configuration names stays.
    assert_eq!(bench.input(of("10.9.0.0/26", true)), []);
    assert_eq!(bench.speaker.summary().origins, 2);
}

#[test]
fn best_paths_are_complete_at_once_where_nobody_has_to_be_waited_for() {
    let mut bench = Bench::new(config(65001, "192.0.2.1"));
    assert!(
        !bench
            .input(Input::OriginsComplete)
            .contains(&Output::BestComplete)
    );
    assert_eq!(bench.input(report()), [Output::BestComplete]);

    // Passive peers on a first start: nothing was kept that their routes would have to replace.
    let mut bench = Bench::started(with_peers(1));
    assert!(bench.speaker.is_best_complete());
    assert_eq!(bench.tick(60_000), []);
}

#[test]
fn routes_are_told_to_felix_by_difference() {
    let mut bench = Bench::started(with_peers(2));
    let (two, _) = bench.join(2, &[Family::V4]);
    bench.join(3, &[Family::V4]);
    let prefix = cidr("10.2.0.0/26");
    let is = |legs: &[&str]| {
        vec![(
            prefix,
            legs.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>(),
        )]
    };
    assert_eq!(best(&bench.announce(3, &[prefix])), is(&["192.0.2.3"]));
    assert_eq!(
        best(&bench.announce(2, &[prefix])),
        is(&["192.0.2.2", "192.0.2.3"])
    );
    assert_eq!(best(&bench.announce(2, &[prefix])), []);
    let leg = |address| Leg {
        address: ip(address),
        ifindex: Some(3),
        onlink: false,
        weight: 1,
    };
    assert_eq!(
        bench.speaker.best(),
        [(prefix, vec![leg("192.0.2.2"), leg("192.0.2.3")])]
    );
    let gone = Input::Tcp(
        two,
        TcpEvent::Closed {
            reason: String::new(),
        },
    );
    assert_eq!(best(&bench.input(gone)), is(&["192.0.2.3"]));
    let withdrawal = update::withdraw(Family::V4, &[prefix]).concat();
    assert_eq!(best(&bench.bytes(ConnId::In(3), &withdrawal)), is(&[]));
    assert_eq!(bench.speaker.summary().routes, 0);
}

#[test]
fn a_link_that_goes_down_takes_its_legs_with_it() {
    // A peer that may be farther away keeps its session.
    let mut config = with_peers(1);
    config.peers[0].options.distance = Distance::Multihop(2);
    let mut bench = Bench::started(config);
    bench.join(2, &[Family::V4]);
    let prefix = cidr("10.2.0.0/26");
    bench.announce(2, &[prefix]);
    let link = |up| {
        Input::Kernel(vec![Change::Link {
            ifindex: 3,
            name: "eth3".into(),
            up,
        }])
    };
    assert_eq!(best(&bench.input(link(false))), [(prefix, vec![])]);
    let routes = bench.speaker.routes(&RouteFilter::default(), bench.now);
    assert_eq!(routes[0].why_not_best, Some(WhyNotBest::NextHopUnreachable));
    assert_eq!(
        best(&bench.input(link(true))),
        [(prefix, vec!["192.0.2.2".to_owned()])]
    );
    assert_eq!(bench.input(link(true)), []);
}

#[test]
fn an_own_prefix_beats_everything_and_is_not_a_route() {
    let mut bench = Bench::started(with_peers(1));
    bench.join(2, &[Family::V4]);
    let prefix = cidr("10.2.0.0/26");
    assert_eq!(best(&bench.announce(2, &[prefix])).len(), 1);
    let ours = Input::Origin {
        prefix,
        kind: OriginKind::Block,
        withdrawn: false,
    };
    assert_eq!(best(&bench.input(ours)), [(prefix, vec![])]);
    let routes = bench.speaker.routes(&RouteFilter::default(), bench.now);
    assert_eq!((routes[0].neighbor.clone(), routes[0].best), (None, true));
    assert_eq!(routes[1].why_not_best, Some(WhyNotBest::LocalOrigin));
}

#[test]
fn best_paths_are_said_to_those_who_take_them_beginning_with_all() {
    let mut bench = Bench::started(with_peers(1));
    bench.input(Input::Best(false));
    let (conn, outputs) = bench.join(2, &[Family::V4]);
    assert!(!outputs.contains(&Output::BestComplete));
    assert!(best(&bench.announce(2, &[cidr("10.1.0.0/26")])).is_empty());
    let outputs = bench.bytes(conn, &update::end_of_rib(Family::V4));
    assert!(
        !outputs.contains(&Output::BestComplete),
        "nobody takes them"
    );
    assert!(bench.speaker.is_best_complete());

    let outputs = bench.input(Input::Best(true));
    let ways = vec!["192.0.2.2".to_owned()];
    assert_eq!(best(&outputs), [(cidr("10.1.0.0/26"), ways.clone())]);
    assert_eq!(outputs.last(), Some(&Output::BestComplete));
    let outputs = bench.announce(2, &[cidr("10.2.0.0/26")]);
    assert_eq!(best(&outputs), [(cidr("10.2.0.0/26"), ways)]);
}

#[test]
fn a_peer_that_is_lost_moves_all_its_prefixes_at_once() {
    let mut bench = Bench::started(with_peers(2));
    let (two, _) = bench.join(2, &[Family::V4]);
    bench.join(3, &[Family::V4]);
    let prefix = |number: u32| {
        Cidr::new(Ipv4Addr::from_bits(0x0a01_0000 + (number << 6)).into(), 26).unwrap()
    };
    let all: Vec<Cidr> = (0..100).map(prefix).collect();
    bench.announce(2, &all);
    let moved = |outputs: &[Output]| -> Vec<(Vec<String>, Vec<String>)> {
        let words = |legs: &[Leg]| legs.iter().map(|it| it.address.to_string()).collect();
        let of = |it: &Output| match it {
            Output::BestMoved { from, to } => Some((words(from), words(to))),
            _ => None,
        };
        outputs.iter().filter_map(of).collect()
    };
    // Some of them still have the ways that the others leave.
    let outputs = bench.announce(3, &all[1..]);
    assert_eq!(moved(&outputs), []);
    assert_eq!(best(&outputs).len(), 99);
    bench.announce(3, &all[..1]);
    let gone = Input::Tcp(
        two,
        TcpEvent::Closed {
            reason: String::new(),
        },
    );
    let outputs = bench.input(gone);
    let (both, one) = (["192.0.2.2", "192.0.2.3"], ["192.0.2.3"]);
    let expected = (
        both.map(str::to_owned).to_vec(),
        one.map(str::to_owned).to_vec(),
    );
    assert_eq!(moved(&outputs), [expected]);
    let place = |wanted: fn(&Output) -> bool| outputs.iter().position(wanted);
    assert!(
        place(|it| matches!(it, Output::BestMoved { .. }))
            < place(|it| matches!(it, Output::Best { .. }))
    );
    assert_eq!(best(&outputs).len(), 100, "each is told all the same");
}

#[test]
fn best_paths_wait_in_the_tables_for_who_is_slow_to_take_them() {
    let mut bench = Bench::started(with_peers(1));
    bench.input(Input::Best(false));
    let (conn, _) = bench.join(2, &[Family::V4]);
    let count = u32::try_from(BEST_WINDOW).unwrap() + 100;
    let prefix = |number: u32| {
        Cidr::new(Ipv4Addr::from_bits(0x0a01_0000 + (number << 6)).into(), 26).unwrap()
    };
    let all: Vec<Cidr> = (0..count).map(prefix).collect();
    for some in all.chunks(500) {
        bench.announce(2, some);
    }
    bench.bytes(conn, &update::end_of_rib(Family::V4));

    let outputs = bench.input(Input::Best(true));
    assert_eq!(best(&outputs).len(), BEST_WINDOW);
    assert!(!outputs.contains(&Output::BestComplete));
    // What goes meanwhile is told as gone, in its turn and once; what changes behind the snapshot's end, after it.
    let (told, untold) = (all[0], all[all.len() - 1]);
    let withdrawal = update::withdraw(Family::V4, &[told, untold]).concat();
    assert!(best(&bench.bytes(conn, &withdrawal)).is_empty());
    let outputs = bench.input(Input::BestTaken(BEST_WINDOW));
    let said = best(&outputs);
    assert_eq!(said.len(), 101);
    assert_eq!(said[99], (untold, vec![]));
    assert_eq!(said[100], (told, vec![]));
    let end = outputs.iter().position(|it| *it == Output::BestComplete);
    assert_eq!(end, Some(100));

    // Whoever comes next begins with all that is left, and nothing is kept for nobody.
    bench.input(Input::Best(false));
    assert!(best(&bench.announce(2, &[told])).is_empty());
    assert!(best(&bench.input(Input::BestTaken(5))).is_empty());
    assert_eq!(best(&bench.input(Input::Best(true))).len(), BEST_WINDOW);
    let outputs = bench.input(Input::BestTaken(1000));
    assert_eq!(best(&outputs).len(), 99);
    assert_eq!(outputs.last(), Some(&Output::BestComplete));
}
