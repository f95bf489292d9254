//! What follows from an input: decisions, what felix is told, what peers are told.

use std::collections::BTreeMap;

use bytes::Bytes;
use crds::net::Cidr;

use crate::Millis;
use crate::config::PeerKey;
use crate::rib::{Outlet, SourceId};
use crate::wire::update;

use super::peer::PeerState;
use super::{ConnId, Connection, Output, SEND_WINDOW, Speaker, SpeakerEvent};

impl Speaker {
    /// Decides, tells felix, tells peers.
    pub(super) fn settle(&mut self, now: Millis, out: &mut Vec<Output>) {
        let mut settled = std::mem::take(&mut self.settled);
        let max_paths = usize::from(self.config.multipath);
        self.rib.settle(&self.table, max_paths, &mut settled);
        for change in settled.drain(..) {
            if let Some(legs) = change.legs {
                out.push(Output::Best {
                    prefix: self.rib.prefix(change.id),
                    legs: self.rib.leg_list(legs).to_vec(),
                });
            }
            if change.best_changed {
                self.groups.touch(change.id);
            }
            self.rib.release(change.id);
        }
        self.settled = settled;
        let mut outlet = Peers {
            peers: &mut self.peers,
            connections: &mut self.connections,
            established: &self.established,
            out,
        };
        self.groups.tell(&mut self.rib, &mut outlet);
        if self.origins.complete {
            self.finish(out);
        }
        if !self.startup.is_complete() {
            let waiting = self.peers.values().any(PeerState::is_awaited);
            self.startup.settle(waiting, now, out);
        }
    }

    /// Says End-of-RIB to peers that have got all routes.
    fn finish(&mut self, out: &mut Vec<Output>) {
        let groups = &self.groups;
        let done = self.unfinished.extract_if(.., |it| groups.is_done(*it));
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
                    out.push(Output::Send(*conn, bytes));
                }
            }
        }
    }
}

/// The established peers, as the tables see them.
struct Peers<'a> {
    peers: &'a mut BTreeMap<PeerKey, PeerState>,
    connections: &'a mut BTreeMap<ConnId, Connection>,
    established: &'a BTreeMap<SourceId, (PeerKey, ConnId)>,
    out: &'a mut Vec<Output>,
}

impl Outlet for Peers<'_> {
    fn has_room(&self, member: SourceId) -> bool {
        let conn = self.established.get(&member).map(|(_, conn)| conn);
        conn.and_then(|conn| self.connections.get(conn))
            .is_some_and(|it| it.unsent < SEND_WINDOW)
    }

    fn send(&mut self, member: SourceId, bytes: Bytes) {
        if let Some((_, conn)) = self.established.get(&member)
            && let Some(connection) = self.connections.get_mut(conn)
        {
            connection.unsent += bytes.len();
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
