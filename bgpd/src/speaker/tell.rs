//! What follows from an input: decisions, what felix is told, what peers are told.

use std::collections::BTreeMap;

use bytes::Bytes;
use crds::net::{Cidr, Family};

use crate::Millis;
use crate::config::PeerKey;
use crate::rib::{Outlet, SourceId};
use crate::wire::{RouteRefresh, refresh, update};

use super::peer::PeerState;
use super::{ConnId, Connection, Output, SEND_WINDOW, Speaker, SpeakerEvent};

impl Speaker {
    /// Decides, tells felix, tells peers: what follows from the inputs taken.
    pub fn settle(&mut self, now: Millis, out: &mut Vec<Output>) {
        let mut settled = std::mem::take(&mut self.settled);
        let max_paths = usize::from(self.config.multipath);
        self.rib.settle(&self.table, max_paths, &mut settled);
        for change in settled.drain(..) {
            self.best_settled(&change);
            if change.best_changed {
                self.groups.touch(change.id);
            }
            self.groups.touch_paths(change.id);
            self.rib.release(change.id);
        }
        self.settled = settled;
        self.tell_best(out);
        self.tell(now, out);
        if !self.startup.is_complete() {
            let deferral = self.config.selection_deferral;
            let (coming, kept) = (self.startup.is_coming(now), self.startup.has_kept());
            let waiting = |it: &PeerState| it.is_awaited(coming, kept);
            let waiting = self.peers.values().any(waiting);
            if self.startup.settle(waiting, deferral, now, out) {
                // This speaker is no restarted one any more, and owes its peers an End-of-RIB.
                self.tell_restart();
                self.tell(now, out);
                self.tell_best(out);
            }
        }
        self.settle_stations(now, out);
    }

    /// Tells peers what they have not been told yet, as far as their connections have room, and that it is all.
    fn tell(&mut self, now: Millis, out: &mut Vec<Output>) {
        loop {
            let mut outlet = Peers {
                peers: &mut self.peers,
                connections: &mut self.connections,
                established: &self.established,
                now,
                out,
            };
            self.groups.tell(&mut self.rib, &mut outlet);
            let may_end = self.origins.complete && self.startup.may_end();
            if !may_end || !self.finish(now, out) {
                return;
            }
        }
    }

    /// A peer is told everything again that it asked for, once it has got End-of-RIB, where a refresh has its place
    /// (RFC 7313 section 4.1). However often it asks while an answer is under way or cannot leave, it gets one more.
    /// Whether there was something.
    pub(super) fn repeat(&mut self, key: &PeerKey, now: Millis, out: &mut Vec<Output>) -> bool {
        let Some(peer) = self.peers.get_mut(key) else {
            return false;
        };
        let marked = peer
            .session
            .negotiated()
            .is_some_and(|it| it.enhanced_refresh);
        let Some(up) = &mut peer.up else { return false };
        let Some(connection) = self.connections.get_mut(&up.conn) else {
            return false;
        };
        // What stays is looked at again when something has been sent.
        self.unfinished.insert(peer.id);
        if connection.unsent >= SEND_WINDOW {
            return false;
        }
        let (sent, refreshing) = (&up.eor_sent, &up.refreshing);
        let may = |it: &mut Family| sent.contains(it) && !refreshing.contains(it);
        let asked: Vec<Family> = up.asked.extract_if(.., may).collect();
        for family in &asked {
            if marked {
                let begin = RouteRefresh::unicast(*family, refresh::BEGIN);
                let bytes = peer.session.refresh(up.conn, begin, now);
                connection.unsent += bytes.len();
                out.push(Output::Send(up.conn, bytes));
            }
            up.refreshing.push(*family);
            self.groups.repeat(peer.id, *family, &mut self.rib);
        }
        !asked.is_empty()
    }

    /// Says to peers that have got all routes that these are all. Whether some are to be told more now.
    fn finish(&mut self, now: Millis, out: &mut Vec<Output>) -> bool {
        let groups = &self.groups;
        let done = self.unfinished.extract_if(.., |it| groups.is_done(*it));
        let mut again = Vec::new();
        for source in done {
            let Some((key, conn)) = self.established.get(&source) else {
                continue;
            };
            let Some(peer) = self.peers.get_mut(key) else {
                continue;
            };
            let families = peer.families().to_vec();
            let (Some(up), Some(connection)) = (&mut peer.up, self.connections.get_mut(conn))
            else {
                continue;
            };
            for family in families {
                if up.to.next_hop(family).is_none() && !up.missing.contains(&family) {
                    up.missing.push(family);
                    let peer = key.clone();
                    out.push(Output::Event(SpeakerEvent::NoNextHop { peer, family }));
                }
                if !up.eor_sent.contains(&family) {
                    up.eor_sent.push(family);
                    let bytes = update::end_of_rib(family);
                    connection.unsent += bytes.len();
                    peer.session.count_sent(1);
                    peer.session.sending(*conn, bytes.len(), now);
                    out.push(Output::Send(*conn, bytes));
                }
            }
            let marked = peer.session.negotiated();
            let marked = marked.is_some_and(|it| it.enhanced_refresh);
            for family in std::mem::take(&mut up.refreshing) {
                if !marked {
                    continue;
                }
                let end = RouteRefresh::unicast(family, refresh::END);
                let bytes = peer.session.refresh(*conn, end, now);
                connection.unsent += bytes.len();
                out.push(Output::Send(*conn, bytes));
            }
            if !up.asked.is_empty() {
                again.push(key.clone());
            }
        }
        let mut any = false;
        for key in again {
            any |= self.repeat(&key, now, out);
        }
        any
    }
}

/// The established peers, as the tables see them.
struct Peers<'a> {
    peers: &'a mut BTreeMap<PeerKey, PeerState>,
    connections: &'a mut BTreeMap<ConnId, Connection>,
    established: &'a BTreeMap<SourceId, (PeerKey, ConnId)>,
    now: Millis,
    out: &'a mut Vec<Output>,
}

impl Outlet for Peers<'_> {
    fn has_room(&self, member: SourceId) -> bool {
        let conn = self.established.get(&member).map(|(_, conn)| conn);
        conn.and_then(|conn| self.connections.get(conn))
            .is_some_and(|it| it.unsent < SEND_WINDOW)
    }

    fn send(&mut self, member: SourceId, bytes: Bytes) {
        if let Some((key, conn)) = self.established.get(&member)
            && let Some(connection) = self.connections.get_mut(conn)
        {
            connection.unsent += bytes.len();
            if let Some(peer) = self.peers.get_mut(key) {
                peer.session.sending(*conn, bytes.len(), self.now);
            }
            self.out.push(Output::Send(*conn, bytes));
        }
    }

    fn sent(&mut self, member: SourceId, messages: usize) {
        if let Some((key, _)) = self.established.get(&member)
            && let Some(peer) = self.peers.get_mut(key)
        {
            let messages = u64::try_from(messages).unwrap_or(u64::MAX);
            peer.session.count_sent(messages);
        }
    }

    fn too_long(&mut self, member: SourceId, prefix: Cidr) {
        if let Some((key, _)) = self.established.get(&member) {
            let peer = key.clone();
            let event = SpeakerEvent::TooLong { peer, prefix };
            self.out.push(Output::Event(event));
        }
    }
}
