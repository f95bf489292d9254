//! Graceful restart after a NOTIFICATION.

use bgpd::speaker::Input;
use bgpd::wire::notification::Cease;
use bgpd::wire::{Capability, Notification};
use crds::net::Family;

use crate::bench::{Bench, with_peers};
use crate::peers::{
    announce, conn, graceful, info, join, notification, open, opened, own_graceful, pass, routes,
    with,
};
use crate::sim::cidr;

fn capabilities() -> Vec<Capability> {
    let mut it = graceful(&[Family::V4], true);
    it.notifications = true;
    with([Capability::GracefulRestart(it)])
}

fn with_route() -> Bench {
    let mut bench = Bench::started(with_peers(1));
    let (conn, outputs) = join(&mut bench, 2, 0, &capabilities());
    let own = own_graceful(&opened(&outputs, conn)).unwrap();
    assert!(own.notifications, "we offer it too");
    announce(&mut bench, 2, conn, &[cidr("10.2.0.0/26")]);
    bench
}

#[test]
fn a_notification_keeps_routes_but_a_hard_reset_does_not() {
    for (it, left) in [
        (Notification::cease(Cease::Shutdown), 1),
        (Notification::cease(Cease::OtherChange), 1),
        (Notification::hold_timer(), 1),
        (Notification::cease(Cease::HardReset), 0),
        (Notification::cease(Cease::Shutdown).hard(), 0),
    ] {
        let mut bench = with_route();
        bench.bytes(conn(2, 0), &it.encode());
        assert_eq!(routes(&bench, 2), (left, left), "{it}");
    }
}

#[test]
fn the_end_of_the_hold_time_keeps_routes() {
    let mut bench = with_route();
    let outputs = pass(&mut bench, 9_000, &[]);
    assert_eq!(
        notification(&outputs, conn(2, 0)),
        Some(Notification::hold_timer())
    );
    assert_eq!(routes(&bench, 2), (1, 1));
}

#[test]
fn an_error_of_the_peer_keeps_routes() {
    let mut bench = with_route();
    let outputs = bench.bytes(conn(2, 0), &open(2, capabilities()).encode());
    assert_eq!(notification(&outputs, conn(2, 0)).unwrap().code, 5);
    assert_eq!(routes(&bench, 2), (1, 1));
}

#[test]
fn what_is_meant_to_be_final_leaves_as_a_hard_reset() {
    let mut bench = with_route();
    let mut config = with_peers(1);
    config.peers.clear();
    let outputs = bench.input(Input::Config(config));
    let sent = notification(&outputs, conn(2, 0)).unwrap();
    assert!(sent.is_cease(Cease::HardReset));
    assert_eq!(
        sent.inside(),
        Some(Notification::cease(Cease::Deconfigured))
    );
    assert_eq!(
        sent.to_string(),
        "Cease: hard reset (6/9) for Cease: peer de-configured (6/3)"
    );
}

#[test]
fn a_change_of_the_session_is_no_reason_to_forget_routes() {
    let mut bench = with_route();
    let mut config = with_peers(1);
    config.peers[0].hold_time = Some(30);
    let outputs = bench.input(Input::Config(config));
    let sent = notification(&outputs, conn(2, 0)).unwrap();
    assert!(sent.is_cease(Cease::OtherChange));
    assert_eq!(routes(&bench, 2), (1, 1));
}

#[test]
fn a_peer_without_the_bit_is_told_plainly() {
    let mut bench = Bench::started(with_peers(1));
    let plain = with([Capability::GracefulRestart(graceful(&[Family::V4], true))]);
    join(&mut bench, 2, 0, &plain);
    let mut config = with_peers(1);
    config.peers.clear();
    let outputs = bench.input(Input::Config(config));
    let sent = notification(&outputs, conn(2, 0)).unwrap();
    assert_eq!(sent, Notification::cease(Cease::Deconfigured));
}

#[test]
fn a_nest_of_hard_resets_is_shown_in_one_line() {
    let mut bench = with_route();
    let mut data = Vec::new();
    for _ in 0..500 {
        data.extend_from_slice(&[6, 9]);
    }
    let nest = Notification {
        data,
        ..Notification::cease(Cease::HardReset)
    };
    bench.bytes(conn(2, 0), &nest.encode());
    let text = info(&bench, 2).last_error.unwrap().to_string();
    assert!(
        text.starts_with("received Cease: hard reset (6/9) data 0609"),
        "{text}"
    );
}
