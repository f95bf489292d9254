//! One TCP connection of a session.

use std::net::SocketAddr;

use super::{Jitter, Negotiated, State};
use crate::Millis;
use crate::config::Timers;
use crate::speaker::ConnId;
use crate::wire::{Frame, FrameReader, Notification, Open};

/// Hold time until the peer's OPEN says another (RFC 4271 section 8.2.2, OpenSent).
pub(super) const OPEN_HOLD: Millis = 240_000;

/// How long a peer may take nothing of what is sent to it, at least (RFC 9687 section 4.1).
pub(super) const SEND_HOLD: Millis = 480_000;

/// A timer looked at so much later (milliseconds) says that this program, or its machine, has stood still.
const LATE: Millis = 1_000;

/// How long (milliseconds) what has arrived meanwhile may take to be read.
const CATCH_UP: Millis = 2_000;

/// How far a connection has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// OPEN is sent.
    OpenSent,
    /// OPEN is received and answered.
    OpenConfirm(Negotiated),
    /// The answer is answered, at that time.
    Established(Negotiated, Millis),
}

/// One TCP connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnId,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// The OPEN that was sent.
    pub(super) open: Open,
    /// The peer's OPEN, once it has come, as it came.
    pub(super) peer_open: Option<Frame>,
    pub(super) phase: Phase,
    pub(super) reader: FrameReader,
    /// The next message, or what is wrong with it, while what came before is still to be carried out.
    pub(super) held: Option<Result<Frame, Notification>>,
    /// When the peer counts as lost.
    pub(super) hold_at: Option<Millis>,
    /// The hold time was over when nobody looked, and has been extended for what may be there to be read.
    pub(super) spared: bool,
    /// When it has to hear of us.
    pub(super) keepalive_at: Option<Millis>,
    /// Bytes given to be sent and not yet taken by the kernel.
    pub(super) unsent: usize,
    /// When the peer counts as stuck if the kernel takes nothing (RFC 9687).
    pub(super) send_hold_at: Option<Millis>,
}

impl Connection {
    pub(super) fn new(
        id: ConnId,
        local: SocketAddr,
        remote: SocketAddr,
        open: Open,
        now: Millis,
    ) -> Self {
        Self {
            id,
            local,
            remote,
            open,
            peer_open: None,
            phase: Phase::OpenSent,
            reader: FrameReader::default(),
            held: None,
            hold_at: Some(now + OPEN_HOLD),
            spared: false,
            keepalive_at: None,
            unsent: 0,
            send_hold_at: None,
        }
    }

    /// This side made it.
    pub(super) fn is_own(&self) -> bool {
        matches!(self.id, ConnId::Out(_))
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::OpenSent => State::OpenSent,
            Phase::OpenConfirm(_) => State::OpenConfirm,
            Phase::Established(..) => State::Established,
        }
    }

    pub(super) fn negotiated(&self) -> Option<&Negotiated> {
        match &self.phase {
            Phase::OpenSent => None,
            Phase::OpenConfirm(negotiated) | Phase::Established(negotiated, _) => Some(negotiated),
        }
    }

    /// NOTIFICATIONs keep routes on this one (RFC 8538).
    pub(super) fn keeps_routes(&self) -> bool {
        self.state() == State::Established
            && self
                .negotiated()
                .and_then(|it| it.restart.as_ref())
                .is_some_and(|it| it.notifications)
    }

    /// Something was heard of the peer.
    pub(super) fn heard(&mut self, now: Millis) {
        let hold = match &self.phase {
            Phase::Established(negotiated, _) => Millis::from(negotiated.hold_time) * 1000,
            // Without a hold time nobody else would notice that nothing follows.
            Phase::OpenConfirm(negotiated) if negotiated.hold_time > 0 => {
                Millis::from(negotiated.hold_time) * 1000
            }
            Phase::OpenConfirm(_) | Phase::OpenSent => OPEN_HOLD,
        };
        self.hold_at = (hold > 0).then(|| now + hold);
        self.spared = false;
    }

    /// Whether the peer counts as lost. Who looks much too late has not listened either: what an established peer has
    /// said meanwhile gets a moment to be read, once.
    pub(super) fn is_lost(&mut self, now: Millis) -> bool {
        let Some(at) = self.hold_at.filter(|at| *at <= now) else {
            return false;
        };
        if self.spared || now - at < LATE || self.state() != State::Established {
            return true;
        }
        self.spared = true;
        self.hold_at = Some(now + CATCH_UP);
        false
    }

    /// Bytes wait to be sent.
    pub(super) fn sending(&mut self, bytes: usize, now: Millis) {
        if self.send_hold_at.is_none() {
            self.wait_to_send(now);
        }
        self.unsent += bytes;
    }

    /// The kernel has taken bytes.
    pub(super) fn sent(&mut self, bytes: usize, now: Millis) {
        self.unsent = self.unsent.saturating_sub(bytes);
        if self.unsent == 0 {
            self.send_hold_at = None;
        } else {
            self.wait_to_send(now);
        }
    }

    fn wait_to_send(&mut self, now: Millis) {
        // RFC 9687 section 4.1: off without a hold time; before OPEN nobody knows of one.
        let hold = self.negotiated().map_or(0, |it| it.hold_time);
        let wait = SEND_HOLD.max(Millis::from(hold) * 2_000);
        self.send_hold_at = (hold > 0).then(|| now + wait);
    }

    /// The peer heard of us; the next time is due within a third of the hold time (RFC 4271 section 4.4).
    pub(super) fn spoke(&mut self, timers: &Timers, jitter: &mut Jitter, now: Millis) {
        let hold = self
            .negotiated()
            .map_or(0, |it| Millis::from(it.hold_time) * 1000);
        let interval = timers
            .keepalive
            .map_or(hold / 3, |configured| configured.min(hold / 3));
        self.keepalive_at = (hold > 0).then(|| now + jitter.shorten(interval.max(1)));
    }
}
