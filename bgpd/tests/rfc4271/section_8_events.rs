//! Every event of section 8.1 in every state of section 8.2.2, as one table.

use bgpd::fsm::{Action, State};
use bgpd::speaker::ConnId;
use bgpd::wire::notification::Cease;
use bgpd::wire::{self, MessageType, Notification};

use crate::bench::{Bench, dialed, message, open, sent, settings};

/// What can happen, with the numbers that the RFC gives it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    /// 1, 3: ManualStart, AutomaticStart.
    Start,
    /// 2, 8: ManualStop, AutomaticStop.
    Stop,
    /// 9, 12, 13: the timer that is due next: ConnectRetryTimer, DelayOpenTimer, IdleHoldTimer.
    Retry,
    /// 10: HoldTimer_Expires.
    Hold,
    /// 11: KeepaliveTimer_Expires.
    KeepaliveDue,
    /// 14, 17: TcpConnection_Valid, TcpConnectionConfirmed: the peer connects.
    Accepted,
    /// 15: Tcp_CR_Invalid: an attempt cannot be made.
    ConnectFailed,
    /// 16: Tcp_CR_Acked.
    Connected,
    /// 18: TcpConnectionFails.
    Closed,
    /// 19: BGPOpen.
    Open,
    /// 21: BGPHeaderErr.
    HeaderError,
    /// 22: BGPOpenMsgErr.
    OpenError,
    /// 24: NotifMsgVerErr.
    VersionError,
    /// 25: NotifMsg.
    Notification,
    /// 26: KeepAliveMsg.
    Keepalive,
    /// 27: UpdateMsg.
    Update,
    /// 28: UpdateMsgErr.
    UpdateError,
    /// ROUTE-REFRESH, of RFC 2918.
    Refresh,
}

/// What becomes of it: the state after, and the NOTIFICATION that is sent.
type Outcome = (State, Option<(u8, u8)>);

const IDLE: Outcome = (State::Idle, None);
const CONNECT: Outcome = (State::Connect, None);
const ACTIVE: Outcome = (State::Active, None);
const OPEN_SENT: Outcome = (State::OpenSent, None);
const OPEN_CONFIRM: Outcome = (State::OpenConfirm, None);
const ESTABLISHED: Outcome = (State::Established, None);

/// The session ends with that NOTIFICATION.
const fn ends(code: u8, subcode: u8) -> Outcome {
    (State::Idle, Some((code, subcode)))
}

/// States in their order: Idle, Connect, Active, OpenSent, OpenConfirm, Established. None: it cannot happen there, for
/// want of a connection or timer.
const TABLE: [(Event, [Option<Outcome>; 6]); 18] = {
    use Event::*;
    const NEVER: Option<Outcome> = None;
    [
        (
            Start,
            [
                Some(CONNECT),
                Some(CONNECT),
                Some(ACTIVE),
                Some(OPEN_SENT),
                Some(OPEN_CONFIRM),
                Some(ESTABLISHED),
            ],
        ),
        (
            Stop,
            [
                Some(IDLE),
                Some(IDLE),
                Some(IDLE),
                Some(ends(6, 2)),
                Some(ends(6, 2)),
                Some(ends(6, 2)),
            ],
        ),
        (
            Retry,
            [NEVER, Some(CONNECT), Some(CONNECT), NEVER, NEVER, NEVER],
        ),
        (
            Hold,
            [
                NEVER,
                NEVER,
                NEVER,
                Some(ends(4, 0)),
                Some(ends(4, 0)),
                Some(ends(4, 0)),
            ],
        ),
        (
            KeepaliveDue,
            [
                NEVER,
                NEVER,
                NEVER,
                NEVER,
                Some(OPEN_CONFIRM),
                Some(ESTABLISHED),
            ],
        ),
        // Idle and Established take none (section 6.8); where one is there already, both go on.
        (
            Accepted,
            [
                Some(IDLE),
                Some(OPEN_SENT),
                Some(OPEN_SENT),
                Some(OPEN_SENT),
                Some(OPEN_CONFIRM),
                Some(ESTABLISHED),
            ],
        ),
        (
            ConnectFailed,
            [NEVER, Some(ACTIVE), NEVER, NEVER, NEVER, NEVER],
        ),
        (
            Connected,
            [NEVER, Some(OPEN_SENT), NEVER, NEVER, NEVER, NEVER],
        ),
        (
            Closed,
            [
                NEVER,
                NEVER,
                NEVER,
                Some(ACTIVE),
                Some(ACTIVE),
                Some(ACTIVE),
            ],
        ),
        // RFC 6608 names the state that a message does not belong into.
        (
            Open,
            [
                NEVER,
                NEVER,
                NEVER,
                Some(OPEN_CONFIRM),
                Some(ends(5, 2)),
                Some(ends(5, 3)),
            ],
        ),
        (
            HeaderError,
            [
                NEVER,
                NEVER,
                NEVER,
                Some(ends(1, 1)),
                Some(ends(1, 1)),
                Some(ends(1, 1)),
            ],
        ),
        (
            OpenError,
            [
                NEVER,
                NEVER,
                NEVER,
                Some(ends(2, 2)),
                Some(ends(5, 2)),
                Some(ends(5, 3)),
            ],
        ),
        (
            VersionError,
            [NEVER, NEVER, NEVER, Some(IDLE), Some(IDLE), Some(IDLE)],
        ),
        (
            Notification,
            [NEVER, NEVER, NEVER, Some(IDLE), Some(IDLE), Some(IDLE)],
        ),
        (
            Keepalive,
            [
                NEVER,
                NEVER,
                NEVER,
                Some(ends(5, 1)),
                Some(ESTABLISHED),
                Some(ESTABLISHED),
            ],
        ),
        (
            Update,
            [
                NEVER,
                NEVER,
                NEVER,
                Some(ends(5, 1)),
                Some(ends(5, 2)),
                Some(ESTABLISHED),
            ],
        ),
        (
            UpdateError,
            [
                NEVER,
                NEVER,
                NEVER,
                Some(ends(5, 1)),
                Some(ends(5, 2)),
                Some(ends(3, 1)),
            ],
        ),
        (
            Refresh,
            [
                NEVER,
                NEVER,
                NEVER,
                Some(ends(5, 1)),
                Some(ends(5, 2)),
                Some(ESTABLISHED),
            ],
        ),
    ]
};

const STATES: [State; 6] = [
    State::Idle,
    State::Connect,
    State::Active,
    State::OpenSent,
    State::OpenConfirm,
    State::Established,
];

/// A session in a state, with the connection that it is about.
fn bench(state: State) -> (Bench, Option<ConnId>) {
    let (bench, conn) = match state {
        State::Idle => return (Bench::new(settings()), None),
        State::Connect => Bench::started(),
        State::Active => {
            let (mut bench, conn) = Bench::started();
            bench.connect_failed(conn);
            return (bench, None);
        }
        State::OpenSent => Bench::open_sent(),
        State::OpenConfirm => Bench::open_confirm(),
        State::Established => Bench::established(),
    };
    (bench, Some(conn))
}

/// Lets the event happen; what the session wants done.
fn happen(bench: &mut Bench, conn: Option<ConnId>, event: Event) -> Vec<Action> {
    let bytes = match event {
        Event::Start => return bench.act(|it, now, out| it.start(now, out)),
        Event::Stop => return bench.act(|it, now, out| it.stop(Cease::Shutdown, now, out)),
        Event::Retry | Event::KeepaliveDue => return bench.expire().1,
        Event::Hold => {
            // In time: who looks later gives an established session another moment.
            bench.now += match bench.state() {
                State::Established => 90_000,
                _ => 240_000,
            };
            return bench.act(|it, now, out| it.tick(now, out));
        }
        Event::Accepted => return bench.accepted().map(|it| it.1).unwrap_or_default(),
        Event::ConnectFailed => return bench.connect_failed(conn.unwrap()),
        Event::Connected => return bench.connected(conn.unwrap()),
        Event::Closed => return bench.closed(conn.unwrap()),
        Event::Open => {
            // The same once more would be no event.
            let another = bench.state() == State::OpenConfirm;
            open(if another { 8 } else { 7 }).encode().to_vec()
        }
        Event::HeaderError => vec![0; 19],
        Event::OpenError => {
            let wrong = wire::Open::new(64999, 90, [10, 0, 0, 7].into(), Vec::new());
            wrong.encode().to_vec()
        }
        Event::VersionError => {
            let it = wire::notification::OpenError::UnsupportedVersion;
            Notification::open(it, &[0, 4]).encode().to_vec()
        }
        Event::Notification => message(MessageType::Notification),
        Event::Keepalive => message(MessageType::Keepalive),
        Event::Update => message(MessageType::Update),
        Event::UpdateError => [&[0xff; 16][..], &[0, 23, 2, 0, 9, 0, 0]].concat(),
        Event::Refresh => message(MessageType::RouteRefresh),
    };
    bench.bytes(conn.unwrap(), &bytes)
}

#[test]
fn every_event_in_every_state() {
    for (event, outcomes) in TABLE {
        for (state, outcome) in STATES.into_iter().zip(outcomes) {
            let Some((after, notification)) = outcome else {
                continue;
            };
            let (mut bench, conn) = bench(state);
            assert_eq!(bench.state(), state);
            let actions = happen(&mut bench, conn, event);
            let at = format!("{event:?} in {state}: {actions:?}");
            assert_eq!(bench.state(), after, "{at}");
            let told = conn.and_then(|conn| {
                sent(&actions, conn).into_iter().find_map(|it| match it {
                    wire::Message::Notification(it) => Some((it.code, it.subcode)),
                    _ => None,
                })
            });
            assert_eq!(told, notification, "{at}");
            let closed = conn.is_some_and(|it| actions.contains(&Action::Close(it)));
            if notification.is_some() {
                assert!(closed, "{at}");
            }
            // Whatever ended is tried again, unless it was stopped; nothing else is given up.
            let waits = bench.session.next_timeout().is_some();
            assert_eq!(
                waits,
                event != Event::Stop && (state, event) != (State::Idle, Event::Accepted),
                "{at}"
            );
        }
    }
}

#[test]
fn an_attempt_after_each_end_is_a_new_one() {
    for state in [State::OpenSent, State::OpenConfirm, State::Established] {
        for event in [
            Event::Closed,
            Event::HeaderError,
            Event::Notification,
            Event::Hold,
        ] {
            let (mut bench, conn) = bench(state);
            happen(&mut bench, conn, event);
            let (waited, actions) = bench.expire();
            assert_ne!(Some(dialed(&actions)), conn);
            assert!(waited >= 700, "{state}, {event:?}: after {waited} ms");
        }
    }
}

/// 29 000 reconnects in ten seconds are what the field has seen of a peer that refuses everything.
#[test]
fn a_peer_that_refuses_everything_is_left_in_peace() {
    let refusals = [
        Notification::open(wire::notification::OpenError::BadPeerAs, &[]),
        Notification::open(wire::notification::OpenError::UnsupportedCapability, &[]),
        Notification::cease(Cease::Rejected),
    ];
    for refusal in refusals {
        let (mut bench, mut conn) = Bench::started();
        let mut attempts = 0;
        while bench.now < 10_000 {
            bench.connected(conn);
            bench.bytes(conn, &refusal.encode());
            assert!(bench.accepted().is_none());
            conn = dialed(&bench.expire().1);
            attempts += 1;
        }
        assert!(attempts <= 6, "{attempts} attempts in ten seconds");
    }
}

#[test]
fn a_peer_whose_connections_come_to_nothing_is_let_in_once_a_second() {
    let (mut bench, own) = Bench::started();
    bench.connect_failed(own);
    let mut taken = 0;
    for _ in 0..1_000 {
        bench.now += 10;
        if let Some((conn, _)) = bench.accepted() {
            taken += 1;
            bench.closed(conn);
        }
        bench.act(|it, now, out| it.tick(now, out));
    }
    assert!((8..=20).contains(&taken), "{taken} of 1000 in ten seconds");
    bench.now += 2_000;
    let (conn, _) = bench.accepted().unwrap();
    bench.bytes(conn, &open(7).encode());
    bench.bytes(conn, &wire::keepalive());
    assert_eq!(
        bench.state(),
        State::Established,
        "it is let in all the same"
    );
}
