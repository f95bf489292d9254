//! What the speaker knows, for people.

use std::collections::{BTreeMap, BinaryHeap};

use crds::net::{Cidr, Family};

use crate::Millis;
use crate::config::PeerKey;
use crate::fsm::State;
use crate::rib::{Groups, PrefixId, Rib, SourceId};
use crate::wire::Attributes;

use super::peer::PeerState;
use super::{FamilyCount, Leg, NeighborInfo, RouteFilter, RouteInfo, Speaker, Summary};

/// A part of a long answer, in the order of prefixes: a question costs a bounded time and memory, however large the table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Only prefixes after this one; None: from the first.
    pub after: Option<Cidr>,
    /// Most prefixes.
    pub limit: usize,
}

impl Page {
    /// Everything at once.
    pub const ALL: Self = Self {
        after: None,
        limit: usize::MAX,
    };
}

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
            routes: self.rib.len(),
        }
    }

    /// Every configured peer, in the order of keys.
    pub fn neighbors(&self, now: Millis) -> Vec<NeighborInfo> {
        self.peers
            .iter()
            .map(|(key, peer)| NeighborInfo {
                bfd: self.watched.get(key).map(|it| it.info(now)),
                ..neighbor(key, peer, (&self.rib, &self.groups), now)
            })
            .collect()
    }

    /// All paths, ordered by prefix, best first.
    pub fn routes(&self, filter: &RouteFilter, now: Millis) -> Vec<RouteInfo> {
        self.routes_on(Page::ALL, filter, now).0
    }

    /// Paths to the prefixes of a page, ordered by prefix, best first; and where the next page begins.
    pub fn routes_on(
        &self,
        page: Page,
        filter: &RouteFilter,
        now: Millis,
    ) -> (Vec<RouteInfo>, Option<Cidr>) {
        let neighbors: BTreeMap<SourceId, &PeerKey> =
            self.peers.iter().map(|(key, it)| (it.id, key)).collect();
        let (ids, next) = match filter.prefix {
            Some(prefix) => (self.rib.find(prefix).into_iter().collect(), None),
            None => self.page(page, |prefix| filter.asks_for(prefix)),
        };
        let mut routes = Vec::new();
        for id in ids {
            let mut paths = self.paths(id, &neighbors, now);
            paths.retain(|it| filter.takes(it));
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
        (routes, next)
    }

    /// The prefixes of a page in their order; and the last of them, if there are more. Takes the time of a look at each
    /// prefix of the table, and the memory of the page.
    pub(super) fn page(
        &self,
        page: Page,
        asks_for: impl Fn(Cidr) -> bool,
    ) -> (Vec<PrefixId>, Option<Cidr>) {
        let known = self.rib.ids().map(|id| (self.rib.prefix(id), id));
        let wanted = known
            .filter(|(prefix, _)| page.after.is_none_or(|it| it < *prefix) && asks_for(*prefix));
        // The lowest ones so far, the highest of them on top.
        let mut lowest = BinaryHeap::new();
        let mut more = false;
        for it in wanted {
            lowest.push(it);
            if lowest.len() > page.limit {
                lowest.pop();
                more = true;
            }
        }
        let lowest = lowest.into_sorted_vec();
        let next = lowest.last().filter(|_| more).map(|(prefix, _)| *prefix);
        (lowest.into_iter().map(|(_, id)| id).collect(), next)
    }

    /// The legs last told for every prefix, ordered by prefix: the snapshot for a new felix.
    pub fn best(&self) -> Vec<(Cidr, Vec<Leg>)> {
        let of = |id: PrefixId| {
            let legs = self.rib.leg_list(self.rib.legs(id));
            (!legs.is_empty()).then(|| (self.rib.prefix(id), legs.to_vec()))
        };
        let mut best: Vec<_> = self.rib.ids().filter_map(of).collect();
        best.sort_by_key(|(prefix, _)| *prefix);
        best
    }

    /// Whether [`Output::BestComplete`](super::Output::BestComplete) has been said.
    pub fn is_best_complete(&self) -> bool {
        self.startup.is_complete()
    }

    pub(super) fn paths(
        &self,
        id: PrefixId,
        neighbors: &BTreeMap<SourceId, &PeerKey>,
        now: Millis,
    ) -> Vec<RouteInfo> {
        let decision = self.rib.explain(id, usize::from(self.config.multipath));
        let several = decision.multipath.len() > 1;
        let paths = self.rib.paths(id).into_iter().enumerate();
        let prefix = self.rib.prefix(id);
        paths
            .map(|(index, path)| {
                let multipath = several && decision.multipath.contains(&index);
                let neighbor = neighbors.get(&path.from).map(|key| (*key).clone());
                let filters = neighbor.as_ref().and_then(|key| self.peers.get(key));
                RouteInfo {
                    best: decision.best == Some(index) || multipath,
                    multipath,
                    refused: path.refused,
                    refusal: path.refused.map(|it| match filters {
                        Some(peer) => it.words(&peer.policy.import),
                        None => it.to_string(),
                    }),
                    why_not_best: decision.reasons[index],
                    age_millis: now.saturating_sub(path.since),
                    ..route(prefix, neighbor, &path.attributes)
                }
            })
            .collect()
    }
}

/// A route with these attributes, of which nothing else is known.
pub(super) fn route(prefix: Cidr, neighbor: Option<PeerKey>, attributes: &Attributes) -> RouteInfo {
    let next_hop = attributes.next_hop.address;
    RouteInfo {
        prefix,
        neighbor,
        next_hop: (!next_hop.is_unspecified()).then_some(next_hop),
        as_path: attributes.as_path.asns().collect(),
        origin: attributes.origin.name(),
        local_pref: attributes.local_pref,
        med: attributes.med,
        best: false,
        multipath: false,
        refused: None,
        refusal: None,
        why_not_best: None,
        communities: attributes.communities_text(),
        age_millis: 0,
    }
}

fn neighbor(
    key: &PeerKey,
    peer: &PeerState,
    (rib, groups): (&Rib, &Groups),
    now: Millis,
) -> NeighborInfo {
    let session = &peer.session;
    let negotiated = session.negotiated();
    let (received, sent) = session.counts();
    let families = Family::ALL.map(|family| {
        let count = rib.source_count(peer.id, family);
        FamilyCount {
            family,
            negotiated: peer.families().contains(&family),
            received: count.received,
            stale: count.stale,
            stale_stage: peer.stale.get(&family).map(|it| it.stage),
            stale_millis: peer
                .stale
                .get(&family)
                .map_or(0, |it| it.until.saturating_sub(now)),
            limit: peer.limit(family).copied(),
            over_limit: peer.over.contains(&family) || peer.torn_down == Some(family),
            accepted: count.accepted,
            not_kept: peer
                .up
                .as_ref()
                .and_then(|up| up.unkept.get(&family))
                .map_or(0, |unkept| unkept.count),
            advertised: groups.count(peer.id, family),
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
        hindrance: peer.hindrance.clone().filter(|_| peer.up.is_none()),
        surplus_paths: peer.up.as_ref().map_or(0, |it| it.surplus),
        messages_received: received.total(),
        messages_sent: sent.total(),
        bfd: None,
        received,
        sent,
        announced: negotiated.map_or_else(Vec::new, |it| {
            it.announced.iter().map(ToString::to_string).collect()
        }),
        restart: negotiated.and_then(|it| it.restart.clone()),
        retry_millis: session.retry_at().map(|at| at.saturating_sub(now)),
        capabilities: negotiated.map_or_else(Vec::new, |it| {
            it.capabilities.iter().map(ToString::to_string).collect()
        }),
    }
}
