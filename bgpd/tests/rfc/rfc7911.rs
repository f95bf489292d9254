//! Several paths of one peer for one prefix.

use bgpd::rib::PATHS_MAX;
use bgpd::speaker::{Output, RouteFilter, SpeakerEvent};
use bgpd::wire::capability::PathsOf;
use bgpd::wire::{AsPath, Attributes, Capability, Dialect, update};
use crds::net::{Cidr, Family};

use crate::bench::{Bench, EBGP, best, with_peers};
use crate::peers::{counts, info, join, opened, with};
use crate::sim::{cidr, ip};

fn paths(receive: bool, send: bool) -> Capability {
    Capability::AddPath(vec![PathsOf {
        afi: 1,
        safi: 1,
        receive,
        send,
    }])
}

fn sender() -> Bench {
    let mut config = with_peers(1);
    config.peers[0].options.add_path.receive = true;
    Bench::started(config)
}

fn attributes(path: &[u32]) -> Attributes {
    let mut it = Attributes::new(ip("192.0.2.2").into());
    it.as_path = AsPath::sequence(path.iter().copied());
    it
}

fn prefix() -> Cidr {
    cidr("10.2.0.0/26")
}

fn dialect() -> Dialect {
    Dialect {
        paths_sent: [Family::V4].into_iter().collect(),
        ..EBGP
    }
}

#[test]
fn paths_are_told_apart_by_their_identifier() {
    let mut bench = sender();
    let (conn, outputs) = join(&mut bench, 2, 0, &with([paths(false, true)]));
    let own = opened(&outputs, conn);
    let ours = own.capabilities.iter().find_map(|it| match it {
        Capability::AddPath(all) => Some(all.clone()),
        _ => None,
    });
    assert!(ours.unwrap().iter().all(|it| it.receive));
    for (id, path) in [(1, &[65002, 7, 8][..]), (2, &[65002, 9][..])] {
        let all =
            update::announce_paths(&attributes(path), Family::V4, &[(id, prefix())], dialect());
        bench.bytes(conn, &all.unwrap().concat());
    }
    assert_eq!(counts(&bench, 2, Family::V4).received, 2);
    let routes = bench.speaker.routes(&RouteFilter::default(), bench.now);
    let best: Vec<&Vec<u32>> = routes
        .iter()
        .filter(|it| it.best)
        .map(|it| &it.as_path)
        .collect();
    assert_eq!(best, [&vec![65002, 9]]);
    bench.bytes(
        conn,
        &update::withdraw_paths(Family::V4, &[(2, prefix())]).concat(),
    );
    let routes = bench.speaker.routes(&RouteFilter::default(), bench.now);
    assert_eq!(routes[0].as_path, [65002, 7, 8]);
    let outputs = bench.bytes(
        conn,
        &update::withdraw_paths(Family::V4, &[(1, prefix())]).concat(),
    );
    assert_eq!(crate::bench::best(&outputs), [(prefix(), vec![])]);
}

#[test]
fn without_both_sides_there_are_no_identifiers() {
    let plain = update::announce(&attributes(&[65002]), Family::V4, &[prefix()], EBGP).unwrap();
    for theirs in [paths(true, false), paths(false, false)] {
        let mut bench = sender();
        let (conn, _) = join(&mut bench, 2, 0, &with([theirs]));
        assert_eq!(best(&bench.bytes(conn, &plain.concat())).len(), 1);
    }
    let mut bench = Bench::started(with_peers(1));
    let (conn, _) = join(&mut bench, 2, 0, &with([paths(true, true)]));
    assert_eq!(best(&bench.bytes(conn, &plain.concat())).len(), 1);
}

#[test]
fn identifiers_that_are_cut_off_end_the_session() {
    let mut bench = sender();
    let (conn, _) = join(&mut bench, 2, 0, &with([paths(false, true)]));
    // Its four bytes are the identifier, the fifth is no length.
    let prefixes = [cidr("10.2.0.64/26")];
    let plain = update::announce(&attributes(&[65002]), Family::V4, &prefixes, EBGP).unwrap();
    let outputs = bench.bytes(conn, &plain.concat());
    let sent = crate::peers::notification(&outputs, conn).unwrap();
    assert_eq!((sent.code, sent.subcode), (3, 10));
}

#[test]
fn a_peer_has_so_many_paths_to_a_prefix_and_no_more() {
    let most = u32::try_from(PATHS_MAX).unwrap();
    let mut bench = sender();
    let (conn, _) = join(&mut bench, 2, 0, &with([paths(false, true)]));
    let say = |bench: &mut Bench, ids: &[u32]| {
        let all: Vec<(u32, Cidr)> = ids.iter().map(|id| (*id, prefix())).collect();
        let all = update::announce_paths(&attributes(&[65002]), Family::V4, &all, dialect());
        bench.bytes(conn, &all.unwrap().concat())
    };
    let all: Vec<u32> = (0..10_000).collect();
    let outputs = say(&mut bench, &all);
    let said = |it: &Output| matches!(it, Output::Event(SpeakerEvent::TooManyPaths { .. }));
    assert_eq!(outputs.iter().filter(|it| said(it)).count(), 1);
    assert_eq!(counts(&bench, 2, Family::V4).received, PATHS_MAX);
    assert_eq!(info(&bench, 2).surplus_paths, 10_000 - u64::from(most));
    // Those it has may change, and make room.
    say(&mut bench, &[0]);
    assert_eq!(info(&bench, 2).surplus_paths, 10_000 - u64::from(most));
    let gone = update::withdraw_paths(Family::V4, &[(0, prefix())]);
    bench.bytes(conn, &gone.concat());
    say(&mut bench, &[most]);
    assert_eq!(counts(&bench, 2, Family::V4).received, PATHS_MAX);
    assert_eq!(info(&bench, 2).surplus_paths, 10_000 - u64::from(most));
}
