//! What the speaker knows, for people.

use std::collections::BTreeMap;

use crds::net::{Cidr, Family};

use crate::Millis;
use crate::config::PeerKey;
use crate::fsm::State;
use crate::rib::{Entry, Rib, SourceId};

use super::peer::PeerState;
use super::{FamilyCount, Leg, NeighborInfo, RouteFilter, RouteInfo, Speaker, Summary};

impl Speaker {
    /// The speaker as a whole.
    pub fn summary(&self) -> Summary {
        let established = |peer: &&PeerState| peer.session.state() == State::Established;
        Summary {
            asn: self.config.asn,
            router_id: self.config.router_id,
            neighbors_configured: self.peers.len(),
            neighbors_established: self.peers.values().filter(established).count(),
            origins: self.origins.len(),
            routes: self.rib.entries().map(|(_, entry)| entry.paths.len()).sum(),
        }
    }

    /// Every configured peer, in the order of keys.
    pub fn neighbors(&self, now: Millis) -> Vec<NeighborInfo> {
        self.peers
            .iter()
            .map(|(key, peer)| neighbor(key, peer, &self.rib, now))
            .collect()
    }

    /// Paths, ordered by prefix, best first.
    pub fn routes(&self, filter: &RouteFilter, now: Millis) -> Vec<RouteInfo> {
        let neighbors: BTreeMap<SourceId, &PeerKey> =
            self.peers.iter().map(|(key, it)| (it.id, key)).collect();
        let mut entries: Vec<&Entry> = match filter.prefix {
            Some(prefix) => self.rib.get(prefix).into_iter().collect(),
            None => self.rib.entries().map(|(_, entry)| entry).collect(),
        };
        entries.sort_by_key(|entry| entry.prefix);
        let mut routes = Vec::new();
        for entry in entries {
            let mut paths = self.paths(entry, &neighbors, now);
            paths.retain(|it| filter.neighbor.is_none() || it.neighbor == filter.neighbor);
            paths.sort_by_key(|it| {
                (
                    !it.best,
                    !it.multipath,
                    it.refused.is_some(),
                    it.neighbor.clone(),
                )
            });
            routes.append(&mut paths);
        }
        routes
    }

    /// The legs last told for every prefix, ordered by prefix: the snapshot for a new felix.
    pub fn best(&self) -> Vec<(Cidr, Vec<Leg>)> {
        let with_legs = self
            .rib
            .entries()
            .filter(|(_, entry)| !entry.legs.is_empty());
        let mut best: Vec<_> = with_legs
            .map(|(_, entry)| (entry.prefix, entry.legs.to_vec()))
            .collect();
        best.sort_by_key(|(prefix, _)| *prefix);
        best
    }

    /// Whether [`Output::BestComplete`](super::Output::BestComplete) has been said.
    pub fn is_best_complete(&self) -> bool {
        self.startup.is_complete()
    }

    fn paths(
        &self,
        entry: &Entry,
        neighbors: &BTreeMap<SourceId, &PeerKey>,
        now: Millis,
    ) -> Vec<RouteInfo> {
        let decision = self.rib.explain(entry, usize::from(self.config.multipath));
        let several = decision.multipath.len() > 1;
        let paths = entry.paths.iter().enumerate();
        paths
            .map(|(index, path)| {
                let attributes = &path.attributes;
                let multipath = several && decision.multipath.contains(&index);
                RouteInfo {
                    prefix: entry.prefix,
                    neighbor: neighbors.get(&path.from).map(|key| (*key).clone()),
                    next_hop: (path.from != SourceId::LOCAL).then_some(attributes.next_hop.address),
                    as_path: attributes.as_path.asns().collect(),
                    origin: attributes.origin.name(),
                    local_pref: attributes.local_pref,
                    med: attributes.med,
                    best: decision.best == Some(index) || multipath,
                    multipath,
                    refused: path.refused,
                    why_not_best: decision.reasons[index],
                    communities: attributes.communities_text(),
                    age_millis: now.saturating_sub(path.since),
                }
            })
            .collect()
    }
}

fn neighbor(key: &PeerKey, peer: &PeerState, rib: &Rib, now: Millis) -> NeighborInfo {
    let session = &peer.session;
    let negotiated = session.negotiated();
    let (messages_received, messages_sent) = session.counts();
    let families = Family::ALL.map(|family| {
        let count = rib.source_count(peer.id, family);
        FamilyCount {
            family,
            negotiated: peer.families().contains(&family),
            received: count.received,
            accepted: count.accepted,
            not_kept: peer
                .up
                .as_ref()
                .and_then(|up| up.unkept.get(&family))
                .map_or(0, |unkept| unkept.count),
            advertised: peer.up.as_ref().map_or(0, |up| up.adj_out.count(family)),
            end_of_rib: peer
                .up
                .as_ref()
                .is_some_and(|up| up.eor_received.contains(&family)),
        }
    });
    NeighborInfo {
        name: peer.config.name.clone(),
        key: key.clone(),
        range: peer.range,
        remote_asn: session.remote_asn(),
        local_asn: session.settings().local_asn,
        state: session.state(),
        state_millis: now.saturating_sub(session.since()),
        hold_time: negotiated.map_or(0, |it| it.hold_time),
        router_id: negotiated.map(|it| it.router_id),
        families: families.to_vec(),
        established_count: session.established_count(),
        last_error: session.last_error().cloned(),
        hindrance: peer.hindrance.clone(),
        messages_received,
        messages_sent,
        capabilities: negotiated.map_or_else(Vec::new, |it| {
            it.capabilities.iter().map(ToString::to_string).collect()
        }),
    }
}
