//! What follows from an input: decisions, what felix is told, what peers are told.

use crate::Millis;
use crate::config::PeerKey;
use crate::wire::update;

use super::peer::PeerState;
use super::{Output, SEND_WINDOW, Speaker, SpeakerEvent};

impl Speaker {
    /// Decides, tells felix, tells peers.
    pub(super) fn settle(&mut self, now: Millis, out: &mut Vec<Output>) {
        for change in self
            .rib
            .settle(&self.table, usize::from(self.config.multipath))
        {
            if let Some(legs) = change.legs {
                out.push(Output::Best {
                    prefix: change.prefix,
                    legs: legs.to_vec(),
                });
            }
            if change.best_changed {
                let ups = self.peers.values_mut().filter_map(|peer| peer.up.as_mut());
                ups.for_each(|up| up.adj_out.touch(change.id));
            }
        }
        let complete = self.origins.complete;
        let keys: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.has_news(complete))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.tell(&key, out);
        }
        if !self.startup.is_complete() {
            let waiting = self.peers.values().any(PeerState::is_awaited);
            self.startup.settle(waiting, now, out);
        }
    }

    /// Sends a peer what it has not been told yet, as far as its window goes, then End-of-RIB.
    fn tell(&mut self, key: &PeerKey, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let Some(negotiated) = peer.session.negotiated() else {
            return;
        };
        let (dialect, families) = (negotiated.dialect, negotiated.families.clone());
        let Some(up) = &mut peer.up else { return };
        let Some(connection) = self.connections.get_mut(&up.conn) else {
            return;
        };
        let mut messages = Vec::new();
        let mut unsent = connection.unsent;
        while unsent < SEND_WINDOW && !up.adj_out.is_done() {
            let batch = up.adj_out.batch(&mut self.rib, &up.to, dialect);
            unsent += batch.messages.iter().map(bytes::Bytes::len).sum::<usize>();
            messages.extend(batch.messages);
            let too_long = |prefix| SpeakerEvent::TooLong {
                peer: key.clone(),
                prefix,
            };
            out.extend(batch.too_long.into_iter().map(too_long).map(Output::Event));
        }
        if up.adj_out.is_done() && self.origins.complete {
            for family in families {
                if up.to.next_hop(family).is_none() && !up.missing.contains(&family) {
                    up.missing.push(family);
                    out.push(Output::Event(SpeakerEvent::NoNextHop {
                        peer: key.clone(),
                        family,
                    }));
                }
                if !up.eor_sent.contains(&family) {
                    up.eor_sent.push(family);
                    messages.push(update::end_of_rib(family));
                }
            }
        }
        peer.session
            .count_sent(u64::try_from(messages.len()).unwrap_or(u64::MAX));
        connection.unsent += messages.iter().map(bytes::Bytes::len).sum::<usize>();
        out.extend(
            messages
                .into_iter()
                .map(|message| Output::Send(up.conn, message)),
        );
    }
}
