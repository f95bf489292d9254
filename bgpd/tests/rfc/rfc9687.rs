//! A peer that takes nothing of what is sent to it.

use bgpd::config::Config;
use bgpd::fsm::{DownReason, State};
use bgpd::speaker::{ConnId, Input, TcpEvent};
use bgpd::wire::Notification;

use crate::bench::{Bench, with_peers};
use crate::peers::{info, join, pass, with};
use crate::sim::origin;

/// A session with a peer that keeps talking while it takes nothing more.
fn stuck(edit: impl FnOnce(&mut Config)) -> (Bench, ConnId) {
    let mut config = with_peers(1);
    config.origins = vec![origin("10.1.0.0/26")];
    edit(&mut config);
    let mut bench = Bench::started(config);
    let (conn, _) = join(&mut bench, 2, 0, &with([]));
    bench.report_sent = false;
    bench.input(Input::OriginsComplete);
    (bench, conn)
}

fn is_given_up(bench: &Bench) -> bool {
    let expected = DownReason::Sent(Notification::send_hold_timer());
    info(bench, 2).last_error == Some(expected)
}

#[test]
fn a_stuck_peer_is_given_up_after_eight_minutes() {
    let (mut bench, conn) = stuck(|_| ());
    pass(&mut bench, 479_000, &[conn]);
    assert_eq!(info(&bench, 2).state, State::Established);
    pass(&mut bench, 2_000, &[conn]);
    assert!(is_given_up(&bench));
    assert_eq!(
        Notification::send_hold_timer().to_string(),
        "send hold timer expired (8/0)"
    );
}

#[test]
fn a_long_hold_time_gives_twice_as_much() {
    let (mut bench, conn) = stuck(|it| it.hold_time = 90);
    pass(&mut bench, 481_000, &[conn]);
    assert!(is_given_up(&bench), "90 s are less than the least");
    let mut config = with_peers(1);
    config.hold_time = 300;
    let mut bench = Bench::started(config);
    let (conn, _) = crate::peers::connect(&mut bench, 2, 0);
    let open = bgpd::wire::Open {
        hold_time: 300,
        ..crate::peers::open(2, with([]))
    };
    bench.bytes(conn, &open.encode());
    bench.bytes(conn, &bgpd::wire::keepalive());
    bench.report_sent = false;
    bench.input(Input::OriginsComplete);
    pass(&mut bench, 599_000, &[conn]);
    assert_eq!(info(&bench, 2).state, State::Established);
    pass(&mut bench, 2_000, &[conn]);
    assert!(is_given_up(&bench));
}

#[test]
fn a_slow_peer_is_no_stuck_one() {
    let (mut bench, conn) = stuck(|_| ());
    for _ in 0..20 {
        pass(&mut bench, 400_000, &[conn]);
        bench.input(Input::Tcp(conn, TcpEvent::Sent(1)));
    }
    assert_eq!(info(&bench, 2).state, State::Established);
}

#[test]
fn without_a_hold_time_nobody_is_given_up() {
    let (mut bench, conn) = stuck(|it| it.hold_time = 0);
    pass(&mut bench, 2_000_000, &[conn]);
    assert_eq!(info(&bench, 2).state, State::Established);
}
