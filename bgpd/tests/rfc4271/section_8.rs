//! The finite state machine.

use bgpd::fsm::{Action, DownReason, State};
use bgpd::speaker::ConnId;
use bgpd::wire::notification::Cease;
use bgpd::wire::{self, Message, MessageType, Notification, Open};
use crds::net::Family;
use proptest::prelude::*;

use crate::bench::{Bench, TIMERS, dialed, ends_with, message, open, sent, settings};

#[test]
fn idle_refuses_connections() {
    let mut bench = Bench::new(settings());
    assert_eq!(bench.state(), State::Idle);
    assert!(bench.accepted().is_none());
    assert_eq!(bench.session.next_timeout(), None);
}

#[test]
fn start_connects() {
    let (bench, conn) = Bench::started();
    assert_eq!(bench.state(), State::Connect);
    assert!(matches!(conn, ConnId::Out(_)));
}

#[test]
fn start_waits_when_passive() {
    let mut settings = settings();
    settings.passive = true;
    let mut bench = Bench::new(settings);
    assert_eq!(bench.act(|it, now, out| it.start(now, out)), []);
    assert_eq!(bench.state(), State::Active);
    assert_eq!(bench.session.next_timeout(), None);
    let (conn, actions) = bench.accepted().unwrap();
    assert!(matches!(sent(&actions, conn)[..], [Message::Open(_)]));
    bench.closed(conn);
    assert_eq!(bench.state(), State::Active);
    assert_eq!(bench.session.next_timeout(), None);
}

#[test]
fn an_attempt_that_takes_too_long_is_made_anew() {
    let (mut bench, conn) = Bench::started();
    let (waited, actions) = bench.expire();
    assert!((TIMERS.connect * 3 / 4..=TIMERS.connect).contains(&waited));
    let again = dialed(&actions);
    assert_ne!(again, conn);
    assert_eq!(actions, [Action::Close(conn), Action::Connect(again)]);
    // What becomes of the first one is of no interest any more.
    assert_eq!(bench.connected(conn), []);
    assert_eq!(bench.state(), State::Connect);
}

#[test]
fn failed_attempts_are_repeated_ever_more_slowly() {
    let (mut bench, mut conn) = Bench::started();
    for expected in [1_000, 2_000, 4_000, 8_000, 8_000, 8_000] {
        bench.connect_failed(conn);
        assert_eq!(bench.state(), State::Active);
        let (waited, actions) = bench.expire();
        assert!(
            (expected * 3 / 4..=expected).contains(&waited),
            "{waited} is not about {expected}"
        );
        conn = dialed(&actions);
    }
}

#[test]
fn a_connection_is_answered_with_open() {
    let (mut bench, conn) = Bench::started();
    let actions = bench.connected(conn);
    assert_eq!(bench.state(), State::OpenSent);
    let messages = sent(&actions, conn);
    let [Message::Open(open)] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert_eq!((open.asn(), open.hold_time), (65001, 90));
    let families: Vec<Family> = open
        .capabilities
        .iter()
        .filter_map(wire::Capability::family)
        .collect();
    assert_eq!(families, [Family::V4]);
    assert!(open.capabilities.contains(&wire::Capability::RouteRefresh));
}

#[test]
fn active_takes_connections() {
    let (mut bench, conn) = Bench::started();
    bench.connect_failed(conn);
    let (conn, actions) = bench.accepted().unwrap();
    assert_eq!(bench.state(), State::OpenSent);
    assert!(matches!(sent(&actions, conn)[..], [Message::Open(_)]));
}

#[test]
fn open_is_answered_with_keepalive_and_that_establishes() {
    let (mut bench, conn) = Bench::open_sent();
    let actions = bench.bytes(conn, &open(7).encode());
    assert_eq!(sent(&actions, conn), [Message::Keepalive]);
    assert_eq!(bench.state(), State::OpenConfirm);
    assert_eq!(
        bench.bytes(conn, &wire::keepalive()),
        [Action::Established(conn)]
    );
    assert_eq!(bench.state(), State::Established);
    assert_eq!(bench.session.established_count(), 1);
}

#[test]
fn a_silent_peer_is_waited_for_in_each_state() {
    let (mut bench, conn) = Bench::open_sent();
    let (waited, actions) = bench.expire();
    assert_eq!(waited, 240_000, "RFC 4271 suggests four minutes");
    ends_with(&actions, conn, State::OpenSent, 4, 0);

    for (mut bench, conn, state) in [
        {
            let (bench, conn) = Bench::open_confirm();
            (bench, conn, State::OpenConfirm)
        },
        {
            let (bench, conn) = Bench::established();
            (bench, conn, State::Established)
        },
    ] {
        let mut waited = 0;
        let actions = loop {
            let (more, actions) = bench.expire();
            waited += more;
            if sent(&actions, conn) != [Message::Keepalive] {
                break actions;
            }
        };
        assert_eq!(waited, 90_000);
        ends_with(&actions, conn, state, 4, 0);
    }
}

#[test]
fn keepalives_and_updates_keep_the_session() {
    let (mut bench, conn) = Bench::established();
    for kind in [MessageType::Keepalive, MessageType::Update]
        .into_iter()
        .cycle()
        .take(20)
    {
        let until = bench.now + 80_000;
        while bench.session.next_timeout().unwrap() < until {
            let (_, actions) = bench.expire();
            assert_eq!(sent(&actions, conn), [Message::Keepalive]);
        }
        bench.now = until;
        bench.bytes(conn, &message(kind));
    }
    assert_eq!(bench.state(), State::Established);
}

#[test]
fn a_hold_time_of_zero_needs_no_keepalives() {
    let (mut bench, conn) = Bench::open_sent();
    let mut open = open(7);
    open.hold_time = 0;
    bench.bytes(conn, &open.encode());
    bench.bytes(conn, &wire::keepalive());
    assert_eq!(bench.session.next_timeout(), None);
}

#[test]
fn messages_out_of_place_are_named_by_their_state() {
    use MessageType::{Keepalive, Open, RouteRefresh, Update};
    // RFC 6608.
    type Make = fn() -> (Bench, ConnId);
    let cases: [(Make, State, u8, &[MessageType]); 3] = [
        (
            Bench::open_sent,
            State::OpenSent,
            1,
            &[Update, Keepalive, RouteRefresh],
        ),
        (
            Bench::open_confirm,
            State::OpenConfirm,
            2,
            &[Update, RouteRefresh],
        ),
        (Bench::established, State::Established, 3, &[Open]),
    ];
    for (make, state, subcode, kinds) in cases {
        for kind in kinds {
            let (mut bench, conn) = make();
            let actions = bench.bytes(conn, &message(*kind));
            let notification = ends_with(&actions, conn, state, 5, subcode);
            assert_eq!(notification.data, [*kind as u8]);
            assert_eq!(bench.state(), State::Idle);
        }
    }
}

#[test]
fn a_notification_ends_the_connection_without_an_answer() {
    for make in [Bench::open_sent, Bench::open_confirm, Bench::established] {
        let (mut bench, conn) = make();
        let state = bench.state();
        let cease = Notification::cease(Cease::Shutdown);
        let actions = bench.bytes(conn, &cease.encode());
        assert_eq!(
            actions,
            [
                Action::Close(conn),
                Action::Down(state, DownReason::Received(cease))
            ]
        );
        assert_eq!(bench.state(), State::Idle);
        assert!(bench.accepted().is_none(), "DampPeerOscillations");
        let (_, actions) = bench.expire();
        dialed(&actions);
    }
}

#[test]
fn a_lost_connection_is_replaced_by_whoever_is_first() {
    for make in [Bench::open_sent, Bench::open_confirm, Bench::established] {
        let (mut bench, conn) = make();
        let state = bench.state();
        assert_eq!(
            bench.closed(conn),
            [Action::Down(state, DownReason::Closed(String::new()))]
        );
        assert_eq!(bench.state(), State::Active);
        let (theirs, _) = bench.accepted().unwrap();
        bench.bytes(theirs, &open(7).encode());
        bench.bytes(theirs, &wire::keepalive());
        assert_eq!(bench.state(), State::Established);
    }
}

#[test]
fn a_session_that_always_fails_is_tried_ever_more_slowly() {
    let (mut bench, mut conn) = Bench::started();
    let mut waits = Vec::new();
    for _ in 0..5 {
        bench.connected(conn);
        bench.bytes(conn, &open(7).encode());
        bench.bytes(conn, &wire::keepalive());
        bench.bytes(conn, &message(MessageType::Open));
        assert_eq!(bench.state(), State::Idle);
        let (waited, actions) = bench.expire();
        waits.push(waited);
        conn = dialed(&actions);
    }
    assert!(
        waits
            .windows(2)
            .all(|pair| pair[0] < pair[1] || pair[1] > 6_000),
        "{waits:?}"
    );
}

#[test]
fn a_session_that_lasted_is_replaced_soon() {
    let (mut bench, mut conn) = Bench::started();
    for _ in 0..4 {
        bench.connect_failed(conn);
        conn = dialed(&bench.expire().1);
    }
    bench.connected(conn);
    bench.bytes(conn, &open(7).encode());
    bench.bytes(conn, &wire::keepalive());
    bench.now += 60_000;
    bench.closed(conn);
    let (waited, _) = bench.expire();
    assert!(waited <= TIMERS.retry_min);
}

#[test]
fn stop_says_why_and_is_final() {
    let (mut bench, conn) = Bench::established();
    let actions = bench.act(|it, now, out| it.stop(Cease::Deconfigured, now, out));
    ends_with(&actions, conn, State::Established, 6, 3);
    assert_eq!(bench.state(), State::Idle);
    assert_eq!(bench.session.next_timeout(), None);

    let (mut bench, conn) = Bench::started();
    let actions = bench.act(|it, now, out| it.stop(Cease::Shutdown, now, out));
    assert_eq!(actions, [Action::Close(conn)]);
}

#[test]
fn a_malformed_update_ends_the_session_and_what_follows_is_not_read() {
    let (mut bench, conn) = Bench::established();
    let bad = [&[0xff; 16][..], &[0, 23, 2, 0, 9, 0, 0]].concat();
    let actions = bench.bytes(conn, &[&bad[..], &message(MessageType::Update)].concat());
    ends_with(&actions, conn, State::Established, 3, 1);
    assert!(!actions.iter().any(|it| matches!(it, Action::Update(_))));
}

#[test]
fn an_open_said_twice_is_heard_once() {
    let (mut bench, conn) = Bench::open_confirm();
    assert_eq!(bench.bytes(conn, &open(7).encode()), []);
    assert_eq!(bench.state(), State::OpenConfirm);
    let actions = bench.bytes(conn, &open(8).encode());
    ends_with(&actions, conn, State::OpenConfirm, 5, 2);
}

#[test]
fn messages_in_one_segment_are_all_read() {
    let (mut bench, conn) = Bench::open_sent();
    let all = [
        open(7).encode().to_vec(),
        message(MessageType::Keepalive),
        message(MessageType::Update),
    ]
    .concat();
    let actions = bench.bytes(conn, &all);
    let end_of_rib = wire::Update {
        end_of_rib: Some(Family::V4),
        ..Default::default()
    };
    assert_eq!(
        actions[1..],
        [Action::Established(conn), Action::Update(end_of_rib)]
    );
}

#[derive(Debug, Clone)]
enum Step {
    Connected,
    ConnectFailed,
    Accepted,
    Message(bool, u8, u8),
    Garbage(bool, Vec<u8>),
    Closed(bool),
    Expire,
    Later(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Connected),
        Just(Step::ConnectFailed),
        Just(Step::Accepted),
        (any::<bool>(), 0..6u8, 4..7u8).prop_map(|(own, kind, id)| Step::Message(own, kind, id)),
        (any::<bool>(), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(own, it)| Step::Garbage(own, it)),
        any::<bool>().prop_map(Step::Closed),
        Just(Step::Expire),
        (0..30_000u64).prop_map(Step::Later),
    ]
}

proptest! {
    /// Whatever happens, the session waits for something, keeps its books, and can still be established.
    #[test]
    fn no_order_of_events_leaves_it_stuck(steps in prop::collection::vec(step(), 0..60), passive: bool) {
        let mut settings = settings();
        settings.passive = passive;
        let mut bench = Bench::new(settings);
        let mut dialing = None;
        let mut live: Vec<ConnId> = Vec::new();
        let mut actions = bench.act(|it, now, out| it.start(now, out));
        for step in steps.into_iter().chain([Step::Later(60_000)]) {
            for action in &actions {
                match action {
                    Action::Connect(conn) => dialing = Some(*conn),
                    Action::Close(conn) => {
                        prop_assert!(live.contains(conn) || dialing == Some(*conn), "{:?} closed twice", conn);
                        live.retain(|it| it != conn);
                        dialing = dialing.filter(|it| it != conn);
                    }
                    Action::Send(conn, _) | Action::Established(conn) => prop_assert!(
                        live.contains(conn) || actions.contains(&Action::Close(*conn))
                    ),
                    _ => {}
                }
            }
            prop_assert!(live.len() <= 2);
            let pick = |own: bool| live.iter().copied().find(|it| matches!(it, ConnId::Out(_)) == own);
            actions = match step {
                Step::Connected => match dialing.take() {
                    Some(conn) => {
                        live.push(conn);
                        bench.connected(conn)
                    }
                    None => Vec::new(),
                },
                Step::ConnectFailed => dialing.take().map_or_else(Vec::new, |conn| bench.connect_failed(conn)),
                Step::Accepted => bench.accepted().map_or_else(Vec::new, |(conn, actions)| {
                    live.push(conn);
                    actions
                }),
                Step::Message(own, kind, id) => pick(own).map_or_else(Vec::new, |conn| {
                    let bytes = match kind {
                        0 => open(id).encode().to_vec(),
                        1 => message(MessageType::Update),
                        2 => message(MessageType::Notification),
                        3 => message(MessageType::RouteRefresh),
                        4 => Open { hold_time: 1, ..open(id) }.encode().to_vec(),
                        _ => message(MessageType::Keepalive),
                    };
                    bench.bytes(conn, &bytes)
                }),
                Step::Garbage(own, bytes) => pick(own).map_or_else(Vec::new, |conn| bench.bytes(conn, &bytes)),
                Step::Closed(own) => pick(own).map_or_else(Vec::new, |conn| {
                    live.retain(|it| *it != conn);
                    bench.closed(conn)
                }),
                Step::Expire if bench.session.next_timeout().is_some() => bench.expire().1,
                Step::Expire => Vec::new(),
                Step::Later(time) => {
                    bench.now += time;
                    bench.act(|it, now, out| it.tick(now, out))
                }
            };
            let waiting = bench.session.next_timeout().is_some();
            prop_assert!(waiting || passive && bench.state() == State::Active || bench.state() == State::Established);
        }
    }
}
