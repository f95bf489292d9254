//! Cease subcodes, and the limits of prefixes that need one.

use bgpd::config::{Config, ImportPolicy, OverLimit, PrefixLimit};
use bgpd::fsm::State;
use bgpd::speaker::{Input, Output, SpeakerEvent};
use bgpd::wire::Notification;
use bgpd::wire::notification::Cease;
use crds::net::{Cidr, Family};

use crate::bench::{Bench, best, with_peers};
use crate::peers::{
    announce, connect, counts, info, join, lose, notification, pass, restarting, with,
};
use crate::sim::cidr;

fn limited(action: OverLimit) -> Config {
    let mut config = with_peers(1);
    config.peers[0].options.limits = vec![PrefixLimit {
        family: Family::V4,
        max: 2,
        action,
    }];
    config
}

fn prefixes(range: std::ops::Range<u8>) -> Vec<Cidr> {
    range.map(|n| cidr(&format!("10.2.{n}.0/26"))).collect()
}

fn warnings(outputs: &[Output]) -> usize {
    let is = |it: &&Output| matches!(it, Output::Event(SpeakerEvent::OverLimit { .. }));
    outputs.iter().filter(is).count()
}

#[test]
fn each_subcode_has_a_name() {
    let all = [
        (
            Cease::MaxPrefixes,
            "maximum number of prefixes reached (6/1)",
        ),
        (Cease::Shutdown, "administrative shutdown (6/2)"),
        (Cease::Deconfigured, "peer de-configured (6/3)"),
        (Cease::Reset, "administrative reset (6/4)"),
        (Cease::Rejected, "connection rejected (6/5)"),
        (Cease::OtherChange, "other configuration change (6/6)"),
        (Cease::Collision, "connection collision resolution (6/7)"),
        (Cease::OutOfResources, "out of resources (6/8)"),
        (Cease::HardReset, "hard reset (6/9)"),
        (Cease::BfdDown, "BFD down (6/10)"),
    ];
    for (number, (cease, name)) in (1..).zip(all) {
        let it = Notification::cease(cease);
        assert_eq!((it.code, it.subcode), (6, number));
        assert_eq!(it.to_string(), format!("Cease: {name}"));
    }
}

#[test]
fn a_warning_is_said_once_in_a_session_and_nothing_is_lost() {
    let mut bench = Bench::started(limited(OverLimit::Warn));
    let (conn, _) = join(&mut bench, 2, 0, &with([]));
    assert_eq!(warnings(&announce(&mut bench, 2, conn, &prefixes(0..2))), 0);
    assert!(!counts(&bench, 2, Family::V4).over_limit);
    assert_eq!(warnings(&announce(&mut bench, 2, conn, &prefixes(2..4))), 1);
    assert_eq!(warnings(&announce(&mut bench, 2, conn, &prefixes(4..5))), 0);
    let of_family = counts(&bench, 2, Family::V4);
    assert_eq!((of_family.received, of_family.over_limit), (5, true));
    lose(&mut bench, conn);
    let (conn, _) = join(&mut bench, 2, 1, &with([]));
    assert!(!counts(&bench, 2, Family::V4).over_limit);
    assert_eq!(warnings(&announce(&mut bench, 2, conn, &prefixes(0..3))), 1);
}

#[test]
fn further_prefixes_are_dropped_and_known_ones_still_change() {
    let mut bench = Bench::started(limited(OverLimit::Drop));
    let (conn, _) = join(&mut bench, 2, 0, &with([]));
    let outputs = announce(&mut bench, 2, conn, &prefixes(0..4));
    assert_eq!((warnings(&outputs), best(&outputs).len()), (1, 2));
    assert_eq!(counts(&bench, 2, Family::V4).received, 2);
    let withdrawals = bgpd::wire::update::withdraw(Family::V4, &prefixes(0..1)).concat();
    bench.bytes(conn, &withdrawals);
    let outputs = announce(&mut bench, 2, conn, &prefixes(1..4));
    let left: Vec<Cidr> = best(&outputs).into_iter().map(|it| it.0).collect();
    assert_eq!(left, prefixes(2..3), "there is room for one again");
}

#[test]
fn refused_prefixes_count_as_well() {
    let mut config = limited(OverLimit::Warn);
    config.peers[0].import = ImportPolicy::Pools;
    let mut bench = Bench::started(config);
    let (conn, _) = join(&mut bench, 2, 0, &with([]));
    assert_eq!(warnings(&announce(&mut bench, 2, conn, &prefixes(0..3))), 1);
    assert_eq!(counts(&bench, 2, Family::V4).accepted, 0);
}

#[test]
fn stale_prefixes_of_an_earlier_session_do_not_count() {
    let mut bench = Bench::started(limited(OverLimit::Warn));
    let (conn, _) = join(&mut bench, 2, 0, &restarting(&[Family::V4], true));
    announce(&mut bench, 2, conn, &prefixes(0..2));
    lose(&mut bench, conn);
    let (conn, _) = join(&mut bench, 2, 1, &restarting(&[Family::V4], true));
    let outputs = announce(&mut bench, 2, conn, &prefixes(2..4));
    assert_eq!(warnings(&outputs), 0);
}

#[test]
fn a_session_is_torn_down_with_the_limit_as_data_and_starts_again_when_told() {
    let restart_after = Some(30_000);
    let mut bench = Bench::started(limited(OverLimit::TearDown { restart_after }));
    let (conn, _) = join(&mut bench, 2, 0, &with([]));
    let outputs = announce(&mut bench, 2, conn, &prefixes(0..3));
    let sent = notification(&outputs, conn).unwrap();
    assert_eq!(sent, Notification::max_prefixes(1, 1, 2));
    assert_eq!(sent.data, [0, 1, 1, 0, 0, 0, 2]);
    let info = info(&bench, 2);
    assert_eq!((info.state, info.retry_millis), (State::Idle, Some(30_000)));
    assert!(counts(&bench, 2, Family::V4).over_limit, "it says why");
    let (refused, outputs) = connect(&mut bench, 2, 1);
    assert!(outputs.contains(&Output::Close(refused)));
    pass(&mut bench, 30_000, &[]);
    join(&mut bench, 2, 2, &with([]));
    assert!(!counts(&bench, 2, Family::V4).over_limit);
}

#[test]
fn graceful_restart_does_not_keep_what_is_too_much() {
    let action = OverLimit::TearDown {
        restart_after: None,
    };
    let mut bench = Bench::started(limited(action));
    let mut all = restarting(&[Family::V4], true);
    if let bgpd::wire::Capability::GracefulRestart(it) = &mut all[1] {
        it.notifications = true;
    }
    let (conn, _) = join(&mut bench, 2, 0, &all);
    let outputs = announce(&mut bench, 2, conn, &prefixes(0..3));
    let sent = notification(&outputs, conn).unwrap();
    assert_eq!(sent.inside(), Some(Notification::max_prefixes(1, 1, 2)));
    assert_eq!(counts(&bench, 2, Family::V4).received, 0);
}

#[test]
fn a_session_torn_down_for_good_starts_when_its_peer_is_edited() {
    let action = OverLimit::TearDown {
        restart_after: None,
    };
    let mut bench = Bench::started(limited(action));
    let (conn, _) = join(&mut bench, 2, 0, &with([]));
    announce(&mut bench, 2, conn, &prefixes(0..3));
    pass(&mut bench, 1_000_000, &[]);
    assert_eq!(info(&bench, 2).state, State::Idle);
    let mut config = limited(action);
    config.peers[0].options.limits[0].max = 10;
    bench.input(Input::Config(config));
    let (conn, _) = join(&mut bench, 2, 1, &with([]));
    announce(&mut bench, 2, conn, &prefixes(0..3));
    assert_eq!(info(&bench, 2).state, State::Established);
}

#[test]
fn another_limit_holds_for_what_was_announced_before() {
    let mut bench = Bench::started(limited(OverLimit::Warn));
    let (conn, _) = join(&mut bench, 2, 0, &with([]));
    assert_eq!(warnings(&announce(&mut bench, 2, conn, &prefixes(0..3))), 1);
    let mut config = limited(OverLimit::Warn);
    config.peers[0].options.limits[0].max = 5;
    assert_eq!(warnings(&bench.input(Input::Config(config))), 0);
    assert!(!counts(&bench, 2, Family::V4).over_limit, "it is no more");
    let action = OverLimit::TearDown {
        restart_after: None,
    };
    let outputs = bench.input(Input::Config(limited(action)));
    let sent = notification(&outputs, conn).unwrap();
    assert_eq!(sent, Notification::max_prefixes(1, 1, 2));
    assert_eq!(info(&bench, 2).state, State::Idle);
}
