//! The state machine of one peer, with both of its possible connections.

mod sending;
mod stop;
mod view;

use std::net::SocketAddr;

use bytes::Bytes;

use super::connection::{Connection, Phase};
use super::{
    DownReason, Forwarding, Jitter, MessageCounts, Offer, Settings, State, collision, negotiate,
};
use crate::Millis;
use crate::speaker::ConnId;
use crate::wire::notification::{Cease, FsmError};
use crate::wire::{
    self, Dialect, Families, Frame, Message, MessageType, Notification, Open, Plain, RouteRefresh,
    Update,
};

/// What a session wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make a connection of that name.
    Connect(ConnId),
    /// Send bytes.
    Send(ConnId, Bytes),
    /// Close a connection, or give up making it.
    Close(ConnId),
    /// The session is up on that connection.
    Established(ConnId),
    /// A connection ended; from [`State::Established`] the session did.
    Down(State, DownReason),
    /// The peer's routes changed.
    Update(Update),
    /// They changed in the way that is usual.
    Plain(Plain),
    /// The peer wants our routes again.
    Refresh(RouteRefresh),
}

/// A session that lasted so long (milliseconds) clears the record of failures before it.
const STABLE: Millis = 10_000;

/// A session so young is rather the winner of a collision that the peer has not noticed yet than one it has forgotten.
const YOUNG: Millis = 5_000;

/// So many connections in a row that came to nothing, and the peer is not let in more often than every [`CALM`].
const PATIENCE: u32 = 5;

/// Milliseconds between two connections of a peer whose connections come to nothing.
const CALM: Millis = 1_000;

/// The session with one peer.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    jitter: Jitter,
    /// Names of own connections count up from here.
    next_conn: u64,
    /// What OPENs say about restarts.
    forwarding: Forwarding,
    /// How much they offer, after what the peer said about the last one.
    offer: Offer,
    /// State while there is no connection: Idle, Connect or Active.
    rest: State,
    dialing: Option<ConnId>,
    connections: Vec<Connection>,
    /// While dialing: when to give up. Otherwise: when to leave Idle or to dial again.
    retry_at: Option<Millis>,
    failures: u32,
    /// Connections in a row that came to nothing.
    fruitless: u32,
    /// Attempts to connect in a row that found nobody.
    unreachable: u32,
    /// The peer is not let in before.
    calm_until: Millis,
    shown: (State, Millis),
    last_error: Option<DownReason>,
    established_count: u64,
    received: MessageCounts,
    sent: MessageCounts,
}

impl Session {
    /// A stopped session. Its own connections are named from `first_conn` on.
    pub fn new(settings: Settings, seed: u64, first_conn: u64, now: Millis) -> Self {
        Self {
            settings,
            jitter: Jitter::new(seed),
            next_conn: first_conn,
            forwarding: Forwarding::default(),
            offer: Offer::default(),
            rest: State::Idle,
            dialing: None,
            connections: Vec::new(),
            retry_at: None,
            failures: 0,
            fruitless: 0,
            unreachable: 0,
            calm_until: 0,
            shown: (State::Idle, now),
            last_error: None,
            established_count: 0,
            received: MessageCounts::default(),
            sent: MessageCounts::default(),
        }
    }

    /// What OPENs say about restarts from now on.
    pub fn set_forwarding(&mut self, forwarding: Forwarding) {
        self.forwarding = forwarding;
    }

    /// Takes settings that cost no session.
    pub fn set(&mut self, settings: Settings, now: Millis, out: &mut Vec<Action>) {
        self.offer = Offer::default();
        let was_passive = std::mem::replace(&mut self.settings, settings).passive;
        if was_passive != self.settings.passive
            && self.rest != State::Idle
            && self.connections.is_empty()
        {
            if let Some(conn) = self.dialing.take() {
                out.push(Action::Close(conn));
            }
            self.begin(now, out);
        }
        self.show(now);
    }

    /// Starts connecting, or waiting to be connected to.
    pub fn start(&mut self, now: Millis, out: &mut Vec<Action>) {
        if self.rest == State::Idle && self.connections.is_empty() {
            self.begin(now, out);
        }
        self.show(now);
    }

    /// A connection asked for is there.
    pub fn connected(
        &mut self,
        id: ConnId,
        local: SocketAddr,
        remote: SocketAddr,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        if self.dialing == Some(id) {
            self.dialing = None;
            self.retry_at = None;
            self.open(id, local, remote, now, out);
        }
        self.show(now);
    }

    /// A connection asked for could not be made.
    pub fn connect_failed(
        &mut self,
        id: ConnId,
        reason: String,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        if self.dialing == Some(id) {
            self.dialing = None;
            self.unreachable = self.unreachable.saturating_add(1);
            let reason = DownReason::ConnectFailed(reason);
            out.push(Action::Down(self.state(), reason.clone()));
            self.last_error = Some(reason);
            self.retry_at = None;
            if self.connections.is_empty() {
                self.wait(State::Active, now);
            }
        }
        self.show(now);
    }

    /// The peer made a connection. The error is the state that is not ready for one.
    pub fn accepted(
        &mut self,
        id: ConnId,
        local: SocketAddr,
        remote: SocketAddr,
        now: Millis,
        out: &mut Vec<Action>,
    ) -> Result<(), State> {
        // RFC 4271 section 8.2.2: Idle refuses; section 6.8: an established session is kept.
        let state = self.state();
        if state == State::Idle || state == State::Established && !self.replace(now, out) {
            return Err(state);
        }
        if now < self.calm_until {
            return Err(state);
        }
        // A peer makes one connection at a time: it has given up the one it made before.
        while let Some(index) = self.connections.iter().position(|conn| !conn.is_own()) {
            let conn = self.connections.remove(index);
            self.fruitless = self.fruitless.saturating_add(1);
            if self.fruitless >= PATIENCE {
                self.calm_until = now + CALM;
            }
            self.farewell(
                &conn,
                DownReason::Sent(Notification::cease(Cease::Collision)),
                out,
            );
        }
        if self.dialing.is_none() {
            self.retry_at = None;
        }
        self.open(id, local, remote, now, out);
        self.show(now);
        Ok(())
    }

    /// A peer that does graceful restart has restarted when it connects anew: what it had before is over, without a
    /// NOTIFICATION (RFC 4724 section 5). Whether it was.
    fn replace(&mut self, now: Millis, out: &mut Vec<Action>) -> bool {
        let forgotten = |conn: &Connection| {
            let restart = conn.negotiated().and_then(|it| it.restart.as_ref());
            restart.is_some_and(|it| it.families != Families::NONE)
                && matches!(conn.phase, Phase::Established(_, since) if now.saturating_sub(since) >= YOUNG)
        };
        let Some(index) = self.connections.iter().position(forgotten) else {
            return false;
        };
        let conn = self.connections.remove(index);
        out.push(Action::Close(conn.id));
        out.push(Action::Down(State::Established, DownReason::Replaced));
        self.last_error = Some(DownReason::Replaced);
        self.failures = 0;
        true
    }

    /// The connection is gone.
    pub fn closed(&mut self, id: ConnId, reason: String, now: Millis, out: &mut Vec<Action>) {
        if let Some(index) = self.connections.iter().position(|conn| conn.id == id) {
            let conn = self.connections.remove(index);
            self.over(&conn, DownReason::Closed(reason), now, out);
        }
        self.show(now);
    }

    /// Nothing gets through to the peer any more: an established session ends for that reason, with its NOTIFICATION or
    /// without a word.
    pub fn path_lost(&mut self, reason: DownReason, now: Millis, out: &mut Vec<Action>) {
        let established = |conn: &Connection| conn.state() == State::Established;
        if let Some(index) = self.connections.iter().position(established) {
            let conn = self.connections.remove(index);
            self.farewell(&conn, reason.clone(), out);
            self.recover(&conn, &reason, now);
        }
        self.show(now);
    }

    /// Bytes have arrived. Whether there is more to be read, by another call, once the actions are carried out: what
    /// a message means depends on the session that it came in, which the next one may end.
    pub fn bytes(&mut self, id: ConnId, bytes: &[u8], now: Millis, out: &mut Vec<Action>) -> bool {
        if let Some(conn) = self.connection(id) {
            conn.reader.push(bytes);
        }
        let mut is_behind = false;
        // Each message may end the connection.
        while let Some(conn) = self.connection(id) {
            let next = match conn.held.take() {
                Some(held) => held,
                None => match conn.reader.next_frame().transpose() {
                    Some(next) => next,
                    None => break,
                },
            };
            // Routes change nothing about the session, and are carried out together.
            let of_routes = |it: &Frame| it.kind == MessageType::Update;
            if !out.is_empty() && !next.as_ref().is_ok_and(of_routes) {
                conn.held = Some(next);
                is_behind = true;
                break;
            }
            match next {
                Ok(frame) => self.frame(id, &frame, now, out),
                Err(error) => self.fail(id, error, now, out),
            }
        }
        self.show(now);
        is_behind
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Millis, out: &mut Vec<Action>) {
        let lost = self.connections.iter_mut().filter_map(|conn| {
            let is_lost = conn.is_lost(now);
            is_lost.then_some(conn.id)
        });
        for id in lost.collect::<Vec<_>>() {
            self.fail(id, Notification::hold_timer(), now, out);
        }
        let stuck = |conn: &Connection| conn.send_hold_at.is_some_and(|at| at <= now);
        while let Some(id) = self
            .connections
            .iter()
            .find(|conn| stuck(conn))
            .map(|conn| conn.id)
        {
            self.fail(id, Notification::send_hold_timer(), now, out);
        }
        for conn in &mut self.connections {
            if conn.keepalive_at.is_some_and(|at| at <= now) {
                let keepalive = wire::keepalive();
                self.sent.keepalive += 1;
                conn.sending(keepalive.len(), now);
                out.push(Action::Send(conn.id, keepalive));
                conn.spoke(&self.settings.timers, &mut self.jitter, now);
            }
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            if let Some(conn) = self.dialing.take() {
                out.push(Action::Close(conn));
                self.failures = self.failures.saturating_add(1);
            }
            if self.connections.is_empty() {
                self.begin(now, out);
            }
        }
        self.show(now);
    }

    fn connection(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|conn| conn.id == id)
    }

    fn begin(&mut self, now: Millis, out: &mut Vec<Action>) {
        if self.settings.passive {
            self.rest = State::Active;
            self.retry_at = None;
            return;
        }
        let id = ConnId::Out(self.next_conn);
        self.next_conn += 1;
        self.rest = State::Connect;
        self.dialing = Some(id);
        self.retry_at = Some(now + self.jitter.shorten(self.settings.timers.connect));
        out.push(Action::Connect(id));
    }

    /// Waits before the next attempt, twice as long after each failure: Idle takes no connection meanwhile, Active does.
    fn wait(&mut self, rest: State, now: Millis) {
        self.rest = rest;
        if rest == State::Active && self.settings.passive {
            self.retry_at = None;
            return;
        }
        let timers = &self.settings.timers;
        let delay = timers
            .retry_min
            .saturating_mul(1 << self.failures.min(20))
            .min(timers.retry_max);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + self.jitter.shorten(delay));
    }

    fn send(
        &mut self,
        id: ConnId,
        kind: MessageType,
        bytes: Bytes,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        self.sent.count(kind);
        if let Some(conn) = self.connection(id) {
            conn.sending(bytes.len(), now);
        }
        out.push(Action::Send(id, bytes));
    }

    fn open(
        &mut self,
        id: ConnId,
        local: SocketAddr,
        remote: SocketAddr,
        now: Millis,
        out: &mut Vec<Action>,
    ) {
        let open = negotiate::offer(&self.settings, self.offer, self.forwarding);
        let bytes = open.encode();
        self.unreachable = 0;
        self.connections
            .push(Connection::new(id, local, remote, open, now));
        self.send(id, MessageType::Open, bytes, now, out);
    }

    fn frame(&mut self, id: ConnId, frame: &Frame, now: Millis, out: &mut Vec<Action>) {
        self.received.count(frame.kind);
        let Some(conn) = self.connection(id) else {
            return;
        };
        let state = conn.state();
        let dialect = conn
            .negotiated()
            .map_or(Dialect::plain(false), |it| it.dialect);
        // RFC 4271 section 8.2.2 has an OPEN looked at for a collision here, and there is none. OpenBGPD 7.7 says its OPEN
        // twice when the connection it had begun before was refused; an error would cost it the routes it keeps of us.
        if state == State::OpenConfirm && conn.peer_open.as_ref() == Some(frame) {
            return;
        }
        let expected = match state {
            State::OpenConfirm => frame.kind == MessageType::Keepalive,
            State::Established => frame.kind != MessageType::Open,
            _ => frame.kind == MessageType::Open,
        };
        if !expected && frame.kind != MessageType::Notification {
            let subcode = match state {
                State::OpenConfirm => FsmError::InOpenConfirm,
                State::Established => FsmError::InEstablished,
                _ => FsmError::InOpenSent,
            };
            return self.fail(id, Notification::fsm(subcode, frame.kind), now, out);
        }
        if frame.kind == MessageType::Update
            && let Some(plain) = Plain::of(&frame.body, dialect)
        {
            conn.heard(now);
            return out.push(Action::Plain(plain));
        }
        match Message::decode(frame, dialect) {
            Err(error) if !out.is_empty() => conn.held = Some(Err(error)),
            Err(error) => self.fail(id, error, now, out),
            Ok(Message::Notification(notification)) => {
                if let Some(index) = self.connections.iter().position(|conn| conn.id == id) {
                    let conn = self.connections.remove(index);
                    out.push(Action::Close(id));
                    self.over(&conn, DownReason::Received(notification), now, out);
                }
            }
            Ok(Message::Open(open)) => {
                conn.peer_open = Some(frame.clone());
                self.opened(id, &open, now, out);
            }
            Ok(message) => {
                conn.heard(now);
                match message {
                    Message::Keepalive if state == State::OpenConfirm => {
                        self.establish(id, now, out)
                    }
                    Message::Update(update) => out.push(Action::Update(update)),
                    Message::RouteRefresh(refresh) => out.push(Action::Refresh(refresh)),
                    _ => {}
                }
            }
        }
    }

    /// The peer's OPEN has come.
    fn opened(&mut self, id: ConnId, open: &Open, now: Millis, out: &mut Vec<Action>) {
        let Some(conn) = self.connections.iter().find(|conn| conn.id == id) else {
            return;
        };
        let negotiated = match negotiate::accept(open, &conn.open, &self.settings) {
            Ok(negotiated) => negotiated,
            Err(error) => return self.fail(id, error, now, out),
        };
        // RFC 4271 section 6.8: the other connection counts once its OPEN has come too.
        let other = self
            .connections
            .iter()
            .position(|conn| conn.id != id && conn.state() > State::OpenSent);
        if let Some(other) = other {
            let own = (self.settings.router_id, self.settings.local_asn);
            let keep_own = collision::keep_own(own, (open.router_id, open.asn()));
            let this_is_own = matches!(id, ConnId::Out(_));
            let loser = if this_is_own == keep_own {
                self.connections[other].id
            } else {
                id
            };
            if let Some(index) = self.connections.iter().position(|conn| conn.id == loser) {
                let conn = self.connections.remove(index);
                self.farewell(
                    &conn,
                    DownReason::Sent(Notification::cease(Cease::Collision)),
                    out,
                );
            }
            if loser == id {
                return;
            }
        }
        self.send(id, MessageType::Keepalive, wire::keepalive(), now, out);
        let timers = self.settings.timers;
        if let Some(conn) = self.connections.iter_mut().find(|conn| conn.id == id) {
            conn.reader.set_longest(negotiated.dialect.max_message());
            conn.phase = Phase::OpenConfirm(negotiated);
            conn.heard(now);
            conn.spoke(&timers, &mut self.jitter, now);
        }
    }

    fn establish(&mut self, id: ConnId, now: Millis, out: &mut Vec<Action>) {
        if let Some(conn) = self.connection(id)
            && let Phase::OpenConfirm(negotiated) = &conn.phase
        {
            conn.phase = Phase::Established(negotiated.clone(), now);
            conn.heard(now);
        }
        self.established_count += 1;
        if let Some(conn) = self.dialing.take() {
            self.retry_at = None;
            out.push(Action::Close(conn));
        }
        while let Some(index) = self.connections.iter().position(|conn| conn.id != id) {
            let conn = self.connections.remove(index);
            self.farewell(
                &conn,
                DownReason::Sent(Notification::cease(Cease::Collision)),
                out,
            );
        }
        out.push(Action::Established(id));
    }

    /// Ends a connection with a NOTIFICATION.
    fn fail(&mut self, id: ConnId, error: Notification, now: Millis, out: &mut Vec<Action>) {
        if let Some(index) = self.connections.iter().position(|conn| conn.id == id) {
            let conn = self.connections.remove(index);
            let reason = DownReason::Sent(error);
            let reason = self.farewell(&conn, reason, out);
            self.recover(&conn, &reason, now);
        }
    }

    /// Says why, closes, and reports it. What comes next is up to the caller.
    /// Returns what was said.
    fn farewell(
        &mut self,
        conn: &Connection,
        reason: DownReason,
        out: &mut Vec<Action>,
    ) -> DownReason {
        let reason = match reason {
            DownReason::Sent(it) if it.is_final() && conn.keeps_routes() => {
                DownReason::Sent(it.hard())
            }
            reason => reason,
        };
        if let DownReason::Sent(notification) = &reason {
            self.sent.notification += 1;
            out.push(Action::Send(conn.id, notification.encode()));
        }
        out.push(Action::Close(conn.id));
        out.push(Action::Down(conn.state(), reason.clone()));
        self.last_error = Some(reason.clone());
        reason
    }

    /// A connection ended from the peer's side.
    fn over(&mut self, conn: &Connection, reason: DownReason, now: Millis, out: &mut Vec<Action>) {
        out.push(Action::Down(conn.state(), reason.clone()));
        self.recover(conn, &reason, now);
        self.last_error = Some(reason);
    }

    /// Decides how to go on after `conn` is gone.
    fn recover(&mut self, conn: &Connection, reason: &DownReason, now: Millis) {
        if let Phase::Established(_, since) = conn.phase {
            // The peer may be another one when it comes back.
            self.offer = Offer::default();
            if now.saturating_sub(since) >= STABLE {
                self.failures = 0;
                self.fruitless = 0;
            }
        } else if let DownReason::Received(notification) = reason
            && notification.refuses_capabilities()
        {
            self.offer = self.offer.less(&self.settings);
        }
        let collision = |it: &Notification| it.is_cease(Cease::Collision);
        let collided =
            matches!(reason, DownReason::Sent(it) | DownReason::Received(it) if collision(it));
        if !collided {
            self.fruitless = self.fruitless.saturating_add(1);
        }
        if self.fruitless >= PATIENCE && !conn.is_own() {
            self.calm_until = now + CALM;
        }
        if !self.connections.is_empty() || self.dialing.is_some() {
            return;
        }
        // After an error nothing is gained by being connected to at once; a lost connection or a lost collision says
        // nothing against the next connection (RFC 4271 section 8.2.2, OpenSent event 18).
        let rest = match reason {
            DownReason::Sent(_) | DownReason::Received(_) if !collided => State::Idle,
            _ => State::Active,
        };
        self.wait(rest, now);
    }
}
