//! What a session says about itself.

use std::net::SocketAddr;

use bytes::Bytes;

use super::{Connection, Session};
use crate::Millis;
use crate::fsm::{DownReason, MessageCounts, Negotiated, Settings, State};

impl Session {
    /// Notes since when the state is what it is.
    pub(super) fn show(&mut self, now: Millis) {
        if self.shown.0 != self.state() {
            self.shown = (self.state(), now);
        }
    }

    /// State of the session: that of the connection that is furthest.
    pub fn state(&self) -> State {
        self.connections
            .iter()
            .map(Connection::state)
            .max()
            .unwrap_or(self.rest)
    }

    /// When the session came into its state.
    pub fn since(&self) -> Millis {
        self.shown.1
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What was negotiated, once the session is established.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.established().and_then(Connection::negotiated)
    }

    /// The peer's AS; 0: any external one, until the session is established.
    pub fn remote_asn(&self) -> u32 {
        self.negotiated()
            .map_or(self.settings.remote_asn, |it| it.asn)
    }

    /// Both ends of the established connection, own one first.
    pub fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.established().map(|conn| (conn.local, conn.remote))
    }

    /// Both OPENs of the established connection, whole messages, own one first.
    pub fn opens(&self) -> Option<(Bytes, Bytes)> {
        let conn = self.established()?;
        let theirs = conn.peer_open.as_ref()?;
        Some((conn.open.encode(), theirs.encode()))
    }

    fn established(&self) -> Option<&Connection> {
        self.connections
            .iter()
            .find(|conn| conn.state() == State::Established)
    }

    /// When the next connection is tried, or the one under way given up.
    pub fn retry_at(&self) -> Option<Millis> {
        self.retry_at
    }

    /// Why the last connection ended.
    pub fn last_error(&self) -> Option<&DownReason> {
        self.last_error.as_ref()
    }

    /// How many times the session was established.
    pub fn established_count(&self) -> u64 {
        self.established_count
    }

    /// Messages received and sent.
    pub fn counts(&self) -> (MessageCounts, MessageCounts) {
        (self.received, self.sent)
    }

    /// The session may be up soon: nothing says that the peer is down.
    pub fn is_coming(&self) -> bool {
        let under_way = self.rest != State::Idle || !self.connections.is_empty();
        self.unreachable == 0 && (under_way || self.retry_at.is_some())
    }

    /// The peer is not known to be down: it answers, or it has refused once and is to be asked again.
    pub fn is_likely(&self) -> bool {
        let refused_once = self.unreachable == 1 && self.retry_at.is_some();
        self.state() >= State::OpenSent || refused_once
    }

    /// When [`tick`](Self::tick) is due.
    pub fn next_timeout(&self) -> Option<Millis> {
        let of_connections = self
            .connections
            .iter()
            .flat_map(|conn| [conn.hold_at, conn.keepalive_at, conn.send_hold_at]);
        of_connections.chain([self.retry_at]).flatten().min()
    }
}
