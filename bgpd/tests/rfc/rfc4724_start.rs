//! Graceful restart: what this speaker says about its own restart, and what it waits for.

use bgpd::config::Config;
use bgpd::speaker::{ConnId, DataplaneReport, Input, Output, SpeakerEvent, TcpEvent};
use bgpd::wire::Capability;
use crds::net::Family;

use crate::bench::{Bench, best, ends, with_peers};
use crate::peers::{
    announce, connect, end_of_rib, graceful, join, lose, open, opened, own_graceful, pass,
    restarting, with,
};
use crate::sim::{cidr, interface, origin};

fn report(preserved: &[Family], restarted: bool) -> Input {
    Input::Dataplane(DataplaneReport {
        boot_id: "boot".into(),
        preserved: preserved.to_vec(),
        restarted,
    })
}

fn two() -> Config {
    let mut config = with_peers(2);
    config.origins = vec![origin("10.1.0.0/26")];
    config
}

fn boot(config: Config) -> Bench {
    let mut bench = Bench::new(config);
    let addresses = ["192.0.2.1/24", "2001:db8::1/64", "fe80::1/64"];
    bench.input(Input::Kernel(interface(3, &addresses)));
    bench
}

/// A speaker that has restarted while all routes were kept, its origins complete.
fn restarted(config: Config) -> (Bench, Vec<Output>) {
    let mut bench = boot(config);
    let mut outputs = bench.input(report(&Family::ALL, true));
    outputs.extend(bench.input(Input::OriginsComplete));
    (bench, outputs)
}

fn is_complete(outputs: &[Output]) -> bool {
    outputs.contains(&Output::BestComplete)
}

/// R bit, and families with the F bit, in the OPEN for the peer's connection.
fn bits(bench: &mut Bench, host: u8, n: u64) -> (bool, Vec<u16>) {
    let (conn, outputs) = connect(bench, host, n);
    let own = own_graceful(&opened(&outputs, conn)).unwrap();
    assert_eq!((own.time, own.families.len()), (120, 2));
    let preserved = own.families.iter().filter(|it| it.2);
    (own.restarted, preserved.map(|it| it.0).collect())
}

#[test]
fn the_first_start_is_no_restart() {
    let mut bench = boot(two());
    bench.input(report(&[], false));
    assert_eq!(
        bits(&mut bench, 2, 0),
        (false, vec![1, 2]),
        "it is complete at once"
    );
    let mut bench = boot(two());
    bench.input(report(&[], true));
    assert!(!bits(&mut bench, 2, 0).0, "nothing was kept");
}

#[test]
fn a_restart_says_what_was_kept() {
    let mut bench = boot(two());
    bench.input(report(&[Family::V6], true));
    assert_eq!(bits(&mut bench, 2, 0), (true, vec![2]));
    // Routes there are, but nobody knows of an earlier life.
    let mut bench = boot(two());
    bench.input(report(&[Family::V6], false));
    assert!(!bits(&mut bench, 2, 0).0);
}

#[test]
fn without_a_dataplane_nothing_is_kept() {
    let mut bench = boot(two());
    bench.tick(10_000);
    assert_eq!(bits(&mut bench, 2, 0), (false, vec![]));
    let mut bench = boot(two());
    let nobody = DataplaneReport {
        boot_id: String::new(),
        preserved: Vec::new(),
        restarted: false,
    };
    bench.input(Input::Dataplane(nobody));
    assert_eq!(bits(&mut bench, 2, 0), (false, vec![]));
}

#[test]
fn once_complete_it_is_restarting_no_more_and_forwards_all_the_time() {
    let (mut bench, outputs) = restarted(two());
    assert!(!is_complete(&outputs), "passive peers may come back");
    assert!(is_complete(&pass(&mut bench, 5_000, &[])));
    assert_eq!(bits(&mut bench, 2, 0), (false, vec![1, 2]));
}

#[test]
fn end_of_rib_of_each_peer_that_promised_one_is_waited_for() {
    let (mut bench, _) = restarted(two());
    let (two, outputs) = join(&mut bench, 2, 0, &restarting(&[Family::V4], true));
    assert!(!is_complete(&outputs));
    let (three, outputs) = join(&mut bench, 3, 0, &restarting(&[Family::V4], true));
    assert!(!is_complete(&outputs));
    let outputs = announce(&mut bench, 2, two, &[cidr("10.2.0.0/26")]);
    assert_eq!(best(&outputs), [], "the kernel has what was, and keeps it");
    assert!(!is_complete(&end_of_rib(&mut bench, two, Family::V4)));
    let outputs = end_of_rib(&mut bench, three, Family::V4);
    assert!(is_complete(&outputs));
    assert_eq!(best(&outputs).len(), 1);
    // Only now are the peers' kept routes of the earlier life complete without what is missing.
    assert_eq!(ends(&outputs, two), [Family::V4]);
    assert_eq!(ends(&outputs, three), [Family::V4]);
}

#[test]
fn nobody_waits_for_peers_that_promise_nothing_or_wait_themselves() {
    let waiting = Capability::GracefulRestart({
        let mut it = graceful(&[Family::V4], true);
        it.restarted = true;
        it
    });
    for capabilities in [with([]), with([waiting])] {
        let (mut bench, _) = restarted(with_peers(1));
        let (_, outputs) = join(&mut bench, 2, 0, &capabilities);
        assert!(is_complete(&outputs), "{capabilities:?}");
    }
}

#[test]
fn a_peer_that_keeps_nothing_is_waited_for_as_it_says_when_it_is_through() {
    let listing_nothing = Capability::GracefulRestart(graceful(&[], true));
    let (mut bench, _) = restarted(with_peers(1));
    let (conn, outputs) = join(&mut bench, 2, 0, &with([listing_nothing]));
    assert!(!is_complete(&outputs));
    assert!(is_complete(&end_of_rib(&mut bench, conn, Family::V4)));
}

#[test]
fn nobody_waits_for_peers_that_refuse_twice() {
    let mut config = two();
    config.peers.iter_mut().for_each(|it| it.passive = false);
    let (mut bench, outputs) = restarted(config);
    assert!(!is_complete(&outputs));
    let dialed = |outputs: &[Output]| -> Vec<ConnId> {
        let conns = outputs.iter().filter_map(|it| match it {
            Output::Connect { conn, .. } => Some(*conn),
            _ => None,
        });
        conns.collect()
    };
    let refused = |conn| {
        let reason = "connection refused".into();
        Input::Tcp(conn, TcpEvent::ConnectFailed { reason })
    };
    let first = dialed(&bench.outputs.concat());
    assert_eq!(first.len(), 2);
    for conn in first {
        assert!(!is_complete(&bench.input(refused(conn))), "it is starting");
    }
    let again = dialed(&pass(&mut bench, 500, &[]));
    assert_eq!(again.len(), 2);
    assert!(!is_complete(&bench.input(refused(again[0]))));
    assert!(is_complete(&bench.input(refused(again[1]))));
}

#[test]
fn a_peer_that_answers_late_is_waited_for_while_there_is_something_to_lose() {
    let mut config = with_peers(1);
    config.selection_deferral = 30_000;
    let (mut bench, _) = restarted(config.clone());
    // It connects, and is slow to say anything.
    pass(&mut bench, 4_000, &[]);
    let (conn, _) = connect(&mut bench, 2, 0);
    assert!(!is_complete(&pass(&mut bench, 20_000, &[])));
    let capabilities = restarting(&[Family::V4], true);
    bench.bytes(conn, &open(2, capabilities).encode());
    assert!(!is_complete(&bench.bytes(conn, &bgpd::wire::keepalive())));
    assert!(is_complete(&end_of_rib(&mut bench, conn, Family::V4)));
    // It has the deferral, and no more.
    let (mut bench, _) = restarted(config);
    connect(&mut bench, 2, 0);
    assert!(!is_complete(&pass(&mut bench, 29_999, &[])));
    assert!(is_complete(&pass(&mut bench, 1, &[])));
}

#[test]
fn a_peer_that_answers_nothing_is_waited_for_five_seconds() {
    let mut config = two();
    config.peers.iter_mut().for_each(|it| it.passive = false);
    let (mut bench, _) = restarted(config);
    assert!(!is_complete(&pass(&mut bench, 4_999, &[])));
    assert!(is_complete(&pass(&mut bench, 1, &[])));
}

#[test]
fn a_peer_lost_while_it_is_waited_for_has_the_time_of_a_peer_that_answers_nothing() {
    let (mut bench, _) = restarted(with_peers(1));
    let (conn, outputs) = join(&mut bench, 2, 0, &restarting(&[Family::V4], true));
    assert!(!is_complete(&outputs));
    assert!(!is_complete(&lose(&mut bench, conn)));
    assert!(!is_complete(&pass(&mut bench, 4_999, &[])));
    assert!(is_complete(&pass(&mut bench, 1, &[])));
}

#[test]
fn waiting_ends_with_the_deferral() {
    let mut config = with_peers(1);
    config.selection_deferral = 30_000;
    let (mut bench, _) = restarted(config);
    let (conn, _) = join(&mut bench, 2, 0, &restarting(&[Family::V4], true));
    assert!(!is_complete(&pass(&mut bench, 29_999, &[conn])));
    let outputs = pass(&mut bench, 1, &[conn]);
    assert!(is_complete(&outputs));
    assert!(outputs.contains(&Output::Event(SpeakerEvent::DeferralOver)));
    assert_eq!(ends(&outputs, conn), [Family::V4]);
}

#[test]
fn a_first_start_keeps_no_peer_waiting_for_end_of_rib() {
    let mut bench = boot(with_peers(1));
    bench.input(report(&[], false));
    bench.input(Input::OriginsComplete);
    let (conn, outputs) = join(&mut bench, 2, 0, &restarting(&[Family::V4], true));
    assert_eq!(
        ends(&outputs, conn),
        [Family::V4],
        "two that start together wait in vain otherwise"
    );
}

#[test]
fn no_end_of_rib_leaves_before_the_origins_are_complete() {
    let mut bench = boot(with_peers(1));
    bench.input(report(&Family::ALL, true));
    let (conn, _) = join(&mut bench, 2, 0, &restarting(&[Family::V4], true));
    let outputs = end_of_rib(&mut bench, conn, Family::V4);
    assert!(is_complete(&outputs));
    assert!(ends(&outputs, conn).is_empty());
    assert_eq!(
        ends(&bench.input(Input::OriginsComplete), conn),
        [Family::V4]
    );
}

#[test]
fn a_later_report_changes_nothing_of_what_is_said() {
    let (mut bench, _) = restarted(two());
    bench.input(report(&[], false));
    assert_eq!(bits(&mut bench, 2, 0), (true, vec![1, 2]));
}

#[test]
fn two_ways_that_were_kept_stay_two_until_both_peers_have_said_theirs() {
    let prefix = cidr("10.2.0.0/26");
    let (mut bench, _) = restarted(two());
    let mut said = Vec::new();
    for host in [2, 3] {
        let (conn, outputs) = join(&mut bench, host, 0, &restarting(&[Family::V4], true));
        said.extend(outputs);
        said.extend(announce(&mut bench, host, conn, &[prefix]));
        said.extend(end_of_rib(&mut bench, conn, Family::V4));
    }
    let both = ["192.0.2.2", "192.0.2.3"].map(str::to_owned).to_vec();
    assert_eq!(best(&said), [(prefix, both)]);
    let complete = said.iter().position(|it| *it == Output::BestComplete);
    let route = |it: &Output| matches!(it, Output::Best { .. });
    assert!(complete.unwrap() > said.iter().position(route).unwrap());
    // Where nothing was kept, routes are said as they come.
    let mut bench = boot(two());
    bench.input(report(&[], true));
    bench.input(Input::OriginsComplete);
    let (conn, _) = join(&mut bench, 2, 0, &restarting(&[Family::V4], true));
    assert_eq!(best(&announce(&mut bench, 2, conn, &[prefix])).len(), 1);
}
