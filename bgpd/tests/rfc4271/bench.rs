//! One session on the bench, with its peer played by the test.

use std::net::{Ipv4Addr, SocketAddr};

use bgpd::Millis;
use bgpd::config::{AddPath, GracefulRestart, Timers};
use bgpd::fsm::{Action, DownReason, Session, Settings, State};
use bgpd::speaker::ConnId;
use bgpd::wire::{self, Capability, Dialect, Message, MessageType, Notification, Open};
use crds::net::Family;

pub(crate) const OWN_ASN: u32 = 65001;
pub(crate) const PEER_ASN: u32 = 65002;

/// Timers that are easy to tell apart.
pub(crate) const TIMERS: Timers = Timers {
    connect: 20_000,
    retry_min: 1_000,
    retry_max: 8_000,
    keepalive: None,
};

pub(crate) fn settings() -> Settings {
    Settings {
        router_id: Ipv4Addr::new(10, 0, 0, 5),
        local_asn: OWN_ASN,
        remote_asn: PEER_ASN,
        hold_time: 90,
        families: vec![Family::V4],
        passive: false,
        timers: TIMERS,
        graceful_restart: GracefulRestart::default(),
        add_path: AddPath::default(),
        extended_next_hop: false,
    }
}

/// An acceptable OPEN of a peer whose identifier ends with `id`.
pub(crate) fn open(id: u8) -> Open {
    Open::new(
        PEER_ASN,
        90,
        Ipv4Addr::new(10, 0, 0, id),
        vec![Capability::unicast(Family::V4)],
    )
}

pub(crate) struct Bench {
    pub(crate) session: Session,
    pub(crate) now: Millis,
    next_in: u64,
}

impl Bench {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            session: Session::new(settings, 1, 0, 0),
            now: 0,
            next_in: 0,
        }
    }

    /// A session that has been started.
    pub(crate) fn started() -> (Self, ConnId) {
        let mut bench = Self::new(settings());
        let conn = dialed(&bench.act(|it, now, out| it.start(now, out)));
        (bench, conn)
    }

    /// A session in OpenSent, on an own connection.
    pub(crate) fn open_sent() -> (Self, ConnId) {
        let (mut bench, conn) = Self::started();
        bench.connected(conn);
        (bench, conn)
    }

    /// A session in OpenConfirm, on an own connection.
    pub(crate) fn open_confirm() -> (Self, ConnId) {
        let (mut bench, conn) = Self::open_sent();
        bench.bytes(conn, &open(7).encode());
        (bench, conn)
    }

    /// A session in Established, on an own connection.
    pub(crate) fn established() -> (Self, ConnId) {
        let (mut bench, conn) = Self::open_confirm();
        let actions = bench.bytes(conn, &wire::keepalive());
        assert_eq!(actions, [Action::Established(conn)]);
        (bench, conn)
    }

    pub(crate) fn act(
        &mut self,
        work: impl FnOnce(&mut Session, Millis, &mut Vec<Action>),
    ) -> Vec<Action> {
        let mut out = Vec::new();
        work(&mut self.session, self.now, &mut out);
        self.report_sent(&out);
        out
    }

    /// The kernel takes everything at once.
    fn report_sent(&mut self, actions: &[Action]) {
        for action in actions {
            if let Action::Send(conn, bytes) = action {
                self.session.sent(*conn, bytes.len(), self.now);
            }
        }
    }

    pub(crate) fn state(&self) -> State {
        self.session.state()
    }

    pub(crate) fn connected(&mut self, conn: ConnId) -> Vec<Action> {
        self.act(|it, now, out| it.connected(conn, end(40000), end(179), now, out))
    }

    pub(crate) fn connect_failed(&mut self, conn: ConnId) -> Vec<Action> {
        self.act(|it, now, out| it.connect_failed(conn, "refused".into(), now, out))
    }

    /// The peer connects; None: it was refused.
    pub(crate) fn accepted(&mut self) -> Option<(ConnId, Vec<Action>)> {
        self.next_in += 1;
        let conn = ConnId::In(self.next_in);
        let mut out = Vec::new();
        self.session
            .accepted(conn, end(179), end(40000), self.now, &mut out)
            .ok()?;
        self.report_sent(&out);
        Some((conn, out))
    }

    pub(crate) fn bytes(&mut self, conn: ConnId, bytes: &[u8]) -> Vec<Action> {
        let mut all = Vec::new();
        let (mut bytes, mut is_behind) = (bytes, true);
        while is_behind {
            all.extend(self.act(|it, now, out| {
                is_behind = it.bytes(conn, std::mem::take(&mut bytes), now, out);
            }));
        }
        all
    }

    pub(crate) fn closed(&mut self, conn: ConnId) -> Vec<Action> {
        self.act(|it, now, out| it.closed(conn, String::new(), now, out))
    }

    /// Jumps to the next timer and lets it expire; returns how long that took.
    pub(crate) fn expire(&mut self) -> (Millis, Vec<Action>) {
        let before = self.now;
        self.now = self.session.next_timeout().unwrap();
        let actions = self.act(|it, now, out| it.tick(now, out));
        (self.now - before, actions)
    }
}

fn end(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

/// The connection that is asked for.
pub(crate) fn dialed(actions: &[Action]) -> ConnId {
    let find = |it: &Action| {
        if let Action::Connect(conn) = it {
            Some(*conn)
        } else {
            None
        }
    };
    actions.iter().find_map(find).unwrap()
}

/// What is sent on a connection.
pub(crate) fn sent(actions: &[Action], conn: ConnId) -> Vec<Message> {
    let dialect = Dialect::plain(false);
    let bytes = actions.iter().filter_map(|it| match it {
        Action::Send(to, bytes) if *to == conn => Some(bytes.to_vec()),
        _ => None,
    });
    let (messages, error) = wire::decode_stream(&bytes.collect::<Vec<_>>().concat(), dialect);
    assert_eq!(error, None);
    messages
}

/// The connection ends in that state with a NOTIFICATION of ours, of that code and subcode.
pub(crate) fn ends_with(
    actions: &[Action],
    conn: ConnId,
    state: State,
    code: u8,
    subcode: u8,
) -> Notification {
    let messages = sent(actions, conn);
    let Some(Message::Notification(notification)) = messages.last() else {
        panic!("{messages:?}")
    };
    assert_eq!((notification.code, notification.subcode), (code, subcode));
    assert!(actions.contains(&Action::Close(conn)));
    assert!(
        actions.contains(&Action::Down(state, DownReason::Sent(notification.clone()))),
        "{actions:?}"
    );
    notification.clone()
}

/// A message of each kind, without contents that matter.
pub(crate) fn message(kind: MessageType) -> Vec<u8> {
    match kind {
        MessageType::Open => open(7).encode().to_vec(),
        MessageType::Update => wire::update::end_of_rib(Family::V4).to_vec(),
        MessageType::Notification => Notification::hold_timer().encode().to_vec(),
        MessageType::Keepalive => wire::keepalive().to_vec(),
        MessageType::RouteRefresh => wire::RouteRefresh {
            afi: 1,
            subtype: 0,
            safi: 1,
        }
        .encode()
        .to_vec(),
    }
}
