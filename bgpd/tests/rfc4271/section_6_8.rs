//! Connection collision detection.

use bgpd::fsm::{Action, State};
use bgpd::speaker::ConnId;
use bgpd::wire;

use crate::bench::{Bench, ends_with, open};

/// Both connections are there and have sent their OPEN; the peer's identifier ends with `id`, ours with 5. Returns the
/// bench, our connection and the peer's.
fn colliding() -> (Bench, ConnId, ConnId) {
    let (mut bench, own) = Bench::started();
    let (theirs, _) = bench.accepted().unwrap();
    bench.connected(own);
    (bench, own, theirs)
}

fn resolved(first_own: bool, id: u8) -> (Bench, ConnId, ConnId, Vec<Action>) {
    let (mut bench, own, theirs) = colliding();
    let (first, second) = if first_own {
        (own, theirs)
    } else {
        (theirs, own)
    };
    let actions = bench.bytes(first, &open(id).encode());
    assert!(
        !actions.iter().any(|it| matches!(it, Action::Close(_))),
        "one OPEN decides nothing"
    );
    let actions = bench.bytes(second, &open(id).encode());
    (bench, own, theirs, actions)
}

#[test]
fn the_connection_of_the_higher_identifier_is_kept() {
    for first_own in [true, false] {
        for (id, peer_is_higher) in [(9, true), (2, false)] {
            let (mut bench, own, theirs, actions) = resolved(first_own, id);
            let (kept, lost) = if peer_is_higher {
                (theirs, own)
            } else {
                (own, theirs)
            };
            let lost_state = if first_own == peer_is_higher {
                State::OpenConfirm
            } else {
                State::OpenSent
            };
            ends_with(&actions, lost, lost_state, 6, 7);
            assert_eq!(bench.state(), State::OpenConfirm);
            let actions = bench.bytes(kept, &wire::keepalive());
            assert_eq!(actions, [Action::Established(kept)]);
        }
    }
}

#[test]
fn with_equal_identifiers_the_higher_as_decides() {
    // RFC 6286 section 2.3: the peer is in 65002, we are in 65001.
    let (bench, own, _, actions) = resolved(true, 5);
    ends_with(&actions, own, State::OpenConfirm, 6, 7);
    assert_eq!(bench.state(), State::OpenConfirm);
}

#[test]
fn an_established_session_ends_the_other_connection() {
    let (mut bench, own, theirs) = colliding();
    bench.bytes(own, &open(9).encode());
    let actions = bench.bytes(own, &wire::keepalive());
    ends_with(&actions, theirs, State::OpenSent, 6, 7);
    assert_eq!(bench.state(), State::Established);
}

#[test]
fn an_established_session_ends_an_attempt_under_way() {
    let (mut bench, own) = Bench::started();
    let (theirs, _) = bench.accepted().unwrap();
    bench.bytes(theirs, &open(9).encode());
    let actions = bench.bytes(theirs, &wire::keepalive());
    assert_eq!(actions, [Action::Close(own), Action::Established(theirs)]);
}

#[test]
fn an_established_session_refuses_another_connection() {
    let (mut bench, _) = Bench::established();
    assert!(bench.accepted().is_none());
    assert_eq!(bench.state(), State::Established);
}

#[test]
fn a_second_connection_of_the_peer_replaces_its_first() {
    let (mut bench, _) = Bench::started();
    let (first, _) = bench.accepted().unwrap();
    let (second, actions) = bench.accepted().unwrap();
    ends_with(&actions, first, State::OpenSent, 6, 7);
    bench.bytes(second, &open(9).encode());
    assert_eq!(bench.state(), State::OpenConfirm);
}

#[test]
fn the_other_connection_goes_on_when_one_breaks() {
    let (mut bench, own, theirs) = colliding();
    bench.bytes(own, &open(9).encode());
    bench.closed(own);
    assert_eq!(bench.state(), State::OpenSent);
    bench.bytes(theirs, &open(9).encode());
    bench.bytes(theirs, &wire::keepalive());
    assert_eq!(bench.state(), State::Established);
}

#[test]
fn a_lost_collision_is_no_failure_of_the_peer() {
    let (mut bench, own, theirs, _) = resolved(true, 9);
    assert_ne!(own, theirs);
    bench.closed(theirs);
    assert_eq!(bench.state(), State::Active, "the peer may connect at once");
    assert!(bench.accepted().is_some());
}
