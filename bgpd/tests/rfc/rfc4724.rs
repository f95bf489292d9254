//! Graceful restart: what is done about a peer that restarts.

use bgpd::config::Config;
use bgpd::fsm::State;
use bgpd::speaker::{Input, Output, SpeakerEvent, StaleStage, SweepReason};
use bgpd::wire::capability::GracefulRestart;
use bgpd::wire::notification::Cease;
use bgpd::wire::{self, Capability, Notification};
use crds::net::{Cidr, Family};

use crate::bench::{Bench, best, with_peers};
use crate::peers::{
    announce, connect, counts, end_of_rib, graceful, info, join, lose, pass, restarting, routes,
    with,
};
use crate::sim::{cidr, interface};

fn started() -> Bench {
    started_with(|_| ())
}

fn started_with(edit: impl FnOnce(&mut Config)) -> Bench {
    let mut config = with_peers(1);
    edit(&mut config);
    let mut bench = Bench::started(config);
    bench.input(Input::OriginsComplete);
    bench
}

fn prefixes() -> [Cidr; 3] {
    ["10.2.0.0/26", "10.2.1.0/26", "10.2.2.0/26"].map(cidr)
}

fn swept(outputs: &[Output]) -> Vec<(Family, usize, SweepReason)> {
    let of = |it: &Output| match it {
        Output::Event(SpeakerEvent::Swept {
            family,
            routes,
            reason,
            ..
        }) => Some((*family, *routes, *reason)),
        _ => None,
    };
    outputs.iter().filter_map(of).collect()
}

#[test]
fn routes_outlive_a_lost_session_and_what_does_not_come_again_goes_with_end_of_rib() {
    let mut bench = started();
    let (conn, _) = join(&mut bench, 2, 0, &restarting(&[Family::V4], true));
    announce(&mut bench, 2, conn, &prefixes());
    end_of_rib(&mut bench, conn, Family::V4);
    let outputs = lose(&mut bench, conn);
    assert!(best(&outputs).is_empty(), "nothing moves: {outputs:?}");
    assert_eq!(routes(&bench, 2), (3, 3));
    let stage = counts(&bench, 2, Family::V4).stale_stage;
    assert_eq!(stage, Some(StaleStage::Away));

    bench.now += 20_000;
    let (conn, outputs) = join(&mut bench, 2, 1, &restarting(&[Family::V4], true));
    assert!(best(&outputs).is_empty() && swept(&outputs).is_empty());
    let outputs = announce(&mut bench, 2, conn, &prefixes()[..2]);
    assert!(best(&outputs).is_empty(), "the same as before");
    assert_eq!(routes(&bench, 2), (3, 1));
    let outputs = end_of_rib(&mut bench, conn, Family::V4);
    assert_eq!(swept(&outputs), [(Family::V4, 1, SweepReason::EndOfRib)]);
    assert_eq!(best(&outputs), [(prefixes()[2], vec![])]);
    assert_eq!(routes(&bench, 2), (2, 0));
}

#[test]
fn without_the_capability_everything_goes_at_once() {
    let mut bench = started();
    let (conn, _) = join(&mut bench, 2, 0, &with([]));
    announce(&mut bench, 2, conn, &prefixes());
    let outputs = lose(&mut bench, conn);
    assert_eq!(best(&outputs).len(), 3);
    assert_eq!(routes(&bench, 2), (0, 0));

    let mut bench = started_with(|it| it.peers[0].options.graceful_restart.enabled = false);
    let (conn, _) = join(&mut bench, 2, 0, &restarting(&[Family::V4], true));
    announce(&mut bench, 2, conn, &prefixes());
    assert_eq!(
        best(&lose(&mut bench, conn)).len(),
        3,
        "we did not offer it"
    );
}

#[test]
fn a_family_that_the_peer_did_not_list_goes_at_once() {
    let mut bench = started();
    let mut capabilities = restarting(&[Family::V4], true);
    capabilities.push(Capability::unicast(Family::V6));
    let (conn, _) = join(&mut bench, 2, 0, &capabilities);
    announce(&mut bench, 2, conn, &prefixes());
    announce(&mut bench, 2, conn, &[cidr("fd00:2::/64")]);
    let outputs = lose(&mut bench, conn);
    assert_eq!(best(&outputs), [(cidr("fd00:2::/64"), vec![])]);
    assert_eq!(counts(&bench, 2, Family::V4).stale, 3);
    assert_eq!(counts(&bench, 2, Family::V6).received, 0);
}

#[test]
fn a_family_that_was_not_preserved_goes_when_the_session_is_back() {
    let both = [Family::V4, Family::V6];
    let half = Capability::GracefulRestart({
        let mut it = graceful(&both, true);
        it.families[0].2 = false;
        it
    });
    let units = both.map(Capability::unicast);
    let none = units.to_vec();
    let half: Vec<Capability> = units.into_iter().chain([half]).collect();
    for (again, left) in [(half, 1), (none, 0), (restarting(&both, false), 0)] {
        let mut bench = started();
        let (conn, _) = join(&mut bench, 2, 0, &restarting(&both, true));
        announce(&mut bench, 2, conn, &prefixes());
        announce(&mut bench, 2, conn, &[cidr("fd00:2::/64")]);
        lose(&mut bench, conn);
        let (_, outputs) = join(&mut bench, 2, 1, &again);
        let reason = SweepReason::NotPreserved;
        assert!(swept(&outputs).iter().all(|it| it.2 == reason));
        assert_eq!(swept(&outputs).len(), 2 - left);
        assert_eq!(routes(&bench, 2), (left, left));
    }
}

#[test]
fn a_peer_that_does_not_come_back_loses_its_routes_after_its_restart_time() {
    for (stale_time, expected) in [(300, 60_000), (20, 20_000)] {
        let mut bench =
            started_with(|it| it.peers[0].options.graceful_restart.stale_time = stale_time);
        let (conn, _) = join(&mut bench, 2, 0, &restarting(&[Family::V4], true));
        announce(&mut bench, 2, conn, &prefixes());
        lose(&mut bench, conn);
        assert_eq!(counts(&bench, 2, Family::V4).stale_millis, expected);
        let outputs = pass(&mut bench, expected - 1, &[]);
        assert!(swept(&outputs).is_empty());
        let outputs = pass(&mut bench, 1, &[]);
        assert_eq!(swept(&outputs), [(Family::V4, 3, SweepReason::Timer)]);
        assert_eq!(best(&outputs).len(), 3);
        assert_eq!(counts(&bench, 2, Family::V4).stale_stage, None);
    }
}

#[test]
fn a_peer_that_never_ends_its_rib_has_the_stale_time() {
    let mut bench = started_with(|it| it.peers[0].options.graceful_restart.stale_time = 100);
    let (conn, _) = join(&mut bench, 2, 0, &restarting(&[Family::V4], true));
    announce(&mut bench, 2, conn, &prefixes());
    lose(&mut bench, conn);
    bench.now += 30_000;
    let (conn, _) = join(&mut bench, 2, 1, &restarting(&[Family::V4], true));
    announce(&mut bench, 2, conn, &prefixes()[..1]);
    let outputs = pass(&mut bench, 69_000, &[conn]);
    assert!(swept(&outputs).is_empty(), "100 s since the loss");
    let outputs = pass(&mut bench, 1_000, &[conn]);
    assert_eq!(swept(&outputs), [(Family::V4, 2, SweepReason::Timer)]);
    assert_eq!(info(&bench, 2).state, State::Established);
}

#[test]
fn a_notification_ends_it_for_good() {
    let mut bench = started();
    let (conn, _) = join(&mut bench, 2, 0, &restarting(&[Family::V4], true));
    announce(&mut bench, 2, conn, &prefixes());
    let outputs = bench.bytes(conn, &Notification::cease(Cease::Reset).encode());
    assert_eq!(best(&outputs).len(), 3);

    let mut bench = started();
    let (conn, _) = join(&mut bench, 2, 0, &restarting(&[Family::V4], true));
    announce(&mut bench, 2, conn, &prefixes());
    let outputs = pass(&mut bench, 9_000, &[]);
    assert_eq!(best(&outputs).len(), 3, "the hold timer's is one too");
}

#[test]
fn of_two_restarts_in_a_row_the_first_one_s_routes_do_not_survive_the_second() {
    let mut bench = started();
    let (conn, _) = join(&mut bench, 2, 0, &restarting(&[Family::V4], true));
    announce(&mut bench, 2, conn, &prefixes());
    lose(&mut bench, conn);
    let (conn, _) = join(&mut bench, 2, 1, &restarting(&[Family::V4], true));
    announce(&mut bench, 2, conn, &prefixes()[..1]);
    let outputs = lose(&mut bench, conn);
    assert_eq!(best(&outputs).len(), 2);
    assert_eq!(routes(&bench, 2), (1, 1));
    let (conn, _) = join(&mut bench, 2, 2, &restarting(&[Family::V4], true));
    announce(&mut bench, 2, conn, &prefixes());
    end_of_rib(&mut bench, conn, Family::V4);
    assert_eq!(routes(&bench, 2), (3, 0));
}

#[test]
fn a_new_connection_of_the_peer_replaces_a_session_it_has_forgotten() {
    let mut bench = started();
    let (old, _) = join(&mut bench, 2, 0, &restarting(&[Family::V4], true));
    announce(&mut bench, 2, old, &prefixes());
    bench.now += 6_000;
    let (new, outputs) = connect(&mut bench, 2, 1);
    assert!(outputs.contains(&Output::Close(old)));
    let sent = crate::peers::messages(&outputs, old);
    assert!(sent.is_empty(), "no NOTIFICATION: {sent:?}");
    assert_eq!(routes(&bench, 2), (3, 3));
    assert_eq!(info(&bench, 2).state, State::OpenSent);
    crate::peers::opened(&outputs, new);
}

#[test]
fn a_young_session_and_one_without_graceful_restart_are_not_replaced() {
    for (capabilities, age) in [(restarting(&[Family::V4], true), 1_000), (with([]), 6_000)] {
        let mut bench = started();
        join(&mut bench, 2, 0, &capabilities);
        bench.now += age;
        let (new, outputs) = connect(&mut bench, 2, 1);
        assert!(outputs.contains(&Output::Close(new)));
        assert_eq!(info(&bench, 2).state, State::Established);
    }
}

#[test]
fn a_peer_that_leaves_the_configuration_takes_its_stale_routes_along() {
    let mut bench = started();
    let (conn, _) = join(&mut bench, 2, 0, &restarting(&[Family::V4], true));
    announce(&mut bench, 2, conn, &prefixes());
    lose(&mut bench, conn);
    let mut config = with_peers(1);
    config.peers.clear();
    assert_eq!(best(&bench.input(Input::Config(config))).len(), 3);
}

#[test]
fn kept_routes_of_a_peer_without_a_fixed_as_are_judged_by_the_one_it_had() {
    let mut bench = started_with(|it| it.peers[0].remote_asn = 0);
    let (conn, _) = join(&mut bench, 2, 0, &restarting(&[Family::V4], true));
    announce(&mut bench, 2, conn, &prefixes());
    lose(&mut bench, conn);
    // Another address has everything judged again.
    let outputs = bench.input(Input::Kernel(interface(4, &["fe80::4/64"])));
    assert!(best(&outputs).is_empty(), "{outputs:?}");
    let count = counts(&bench, 2, Family::V4);
    assert_eq!((count.accepted, count.stale), (3, 3));
    // Also where that is because an origin is gone that they were inside of.
    let origin = |withdrawn| Input::Origin {
        prefix: cidr("10.2.0.0/16"),
        kind: bgpd::config::OriginKind::Block,
        withdrawn,
    };
    bench.input(origin(false));
    bench.input(origin(true));
    assert_eq!(counts(&bench, 2, Family::V4).accepted, 3);
}

#[test]
fn what_was_said_right_before_the_end_of_a_session_counts() {
    let update = |it| wire::update::withdraw(Family::V4, &[it]).concat();
    let notification = Notification::cease(Cease::Shutdown).encode();
    let nonsense = [&[0xff; 16][..], &[0, 19, 9]].concat();
    let malformed = [&[0xff; 16][..], &[0, 23, 2, 0, 9, 0, 0]].concat();
    for end in [&notification[..], &nonsense, &malformed] {
        let mut bench = started();
        let capabilities = with([Capability::GracefulRestart(GracefulRestart {
            notifications: true,
            ..graceful(&[Family::V4], true)
        })]);
        let (conn, _) = join(&mut bench, 2, 0, &capabilities);
        announce(&mut bench, 2, conn, &prefixes());
        let [one, two, three] = prefixes();
        let keepalive = wire::keepalive();
        let read = [&update(one)[..], &keepalive, &update(two), end].concat();
        let outputs = bench.bytes(conn, &read);
        assert_eq!(best(&outputs), [(one, vec![]), (two, vec![])], "{end:?}");
        assert_eq!(routes(&bench, 2), (1, 1), "{three} is kept");
        assert_eq!(
            info(&bench, 2).received.update,
            3 + u64::from(end == malformed)
        );
    }
}
