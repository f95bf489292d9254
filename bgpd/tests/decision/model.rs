//! The decision process and what is told of its result, from RFC 4271 section 9 and RFC 4456 alone, in plain slow code:
//! every route is looked at each time, nothing is kept, nothing is shared with the speaker.

use std::collections::{BTreeMap, BTreeSet};

/// Own AS, and the cluster of its reflector, which is also its address and identifier.
pub(crate) const AS: u32 = 65001;
pub(crate) const SELF: u8 = 1;

/// One peer: its last octet stands for its address 192.0.2.x and its identifier 10.0.0.x.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) host: u8,
    pub(crate) asn: u32,
    pub(crate) client: bool,
}

impl Peer {
    pub(crate) fn internal(self) -> bool {
        self.asn == AS
    }
}

/// What a peer says of a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) local_pref: Option<u32>,
    /// A sequence, then a set, which may be empty.
    pub(crate) path: Vec<u32>,
    pub(crate) set: Vec<u32>,
    /// 0, 1 or 2.
    pub(crate) origin: u8,
    pub(crate) med: Option<u32>,
    /// Last octet of the next hop, 203.0.113.x.
    pub(crate) next_hop: u8,
    /// Identifier 10.0.0.x of the originator, and how many other clusters it has come through.
    pub(crate) originator: Option<u8>,
    pub(crate) clusters: u8,
    pub(crate) no_export: bool,
    pub(crate) no_advertise: bool,
}

/// What a peer is told of a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) local_pref: Option<u32>,
    pub(crate) path: Vec<u32>,
    pub(crate) origin: u8,
    pub(crate) med: Option<u32>,
    /// None: the speaker's own address.
    pub(crate) next_hop: Option<u8>,
    pub(crate) originator: Option<u8>,
    pub(crate) clusters: usize,
}

/// Everything that is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) peers: Vec<Peer>,
    /// By prefix and by the host that says it.
    pub(crate) routes: BTreeMap<u8, BTreeMap<u8, Route>>,
    pub(crate) origins: BTreeSet<u8>,
    /// Cost of the way to a next hop; the others cannot be reached.
    pub(crate) costs: BTreeMap<u8, u32>,
    pub(crate) max_paths: usize,
}

/// Where the best route of a prefix comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Best {
    Own,
    Of(u8),
}

struct Candidate<'a> {
    peer: Peer,
    route: &'a Route,
    cost: u32,
}

impl Model {
    fn peer(&self, host: u8) -> Peer {
        *self.peers.iter().find(|it| it.host == host).unwrap()
    }

    /// Section 9.1.2: routes that may be used at all. Section 9.1.2 excludes loops, RFC 4456 section 8 its own.
    fn usable(&self, prefix: u8) -> Vec<Candidate<'_>> {
        let mut usable = Vec::new();
        for (host, route) in self.routes.get(&prefix).into_iter().flatten() {
            let peer = self.peer(*host);
            let looped = route.path.contains(&AS) || route.set.contains(&AS);
            let mine = peer.internal() && route.originator == Some(SELF);
            let first_as = peer.internal() || route.path.first() == Some(&peer.asn);
            let Some(cost) = self.costs.get(&route.next_hop) else {
                continue;
            };
            if !looped && !mine && first_as {
                usable.push(Candidate {
                    peer,
                    route,
                    cost: *cost,
                });
            }
        }
        usable
    }

    /// Sections 9.1.1 and 9.1.2.2 a to e: what is left before identifiers and addresses break the tie.
    fn equal(&self, prefix: u8) -> Vec<Candidate<'_>> {
        let mut left = self.usable(prefix);
        // LOCAL_PREF of an external peer is not listened to (section 5.1.5).
        let preference = |it: &Candidate<'_>| match it.peer.internal() {
            true => it.route.local_pref.unwrap_or(100),
            false => 100,
        };
        let highest = left.iter().map(preference).max();
        left.retain(|it| Some(preference(it)) == highest);
        let length =
            |it: &Candidate<'_>| it.route.path.len() + usize::from(!it.route.set.is_empty());
        let shortest = left.iter().map(length).min();
        left.retain(|it| Some(length(it)) == shortest);
        let lowest = left.iter().map(|it| it.route.origin).min();
        left.retain(|it| Some(it.route.origin) == lowest);
        // c: only among routes learnt from the same neighbouring AS.
        let meds: Vec<(Option<u32>, u32)> = left.iter().map(med).collect();
        left.retain(|it| {
            let (asn, own) = med(it);
            !meds.iter().any(|(other, med)| *other == asn && *med < own)
        });
        if left.iter().any(|it| !it.peer.internal()) {
            left.retain(|it| !it.peer.internal());
        }
        let nearest = left.iter().map(|it| it.cost).min();
        left.retain(|it| Some(it.cost) == nearest);
        left
    }

    pub(crate) fn best(&self, prefix: u8) -> Option<Best> {
        if self.origins.contains(&prefix) {
            return Some(Best::Own);
        }
        let left = self.equal(prefix);
        // f, with RFC 4456 section 9: the originator's identifier, the shorter cluster list, g.
        let best = left.iter().min_by_key(|it| {
            let id = it.route.originator.filter(|_| it.peer.internal());
            let clusters = if it.peer.internal() {
                it.route.clusters
            } else {
                0
            };
            (id.unwrap_or(it.peer.host), clusters, it.peer.host)
        });
        best.map(|it| Best::Of(it.peer.host))
    }

    /// All that are used together: the best, and external ones that are equal to it up to the last steps and have its MED;
    /// by the peer's address, the best one first.
    pub(crate) fn multipath(&self, prefix: u8) -> Vec<u8> {
        let Some(Best::Of(best)) = self.best(prefix) else {
            return Vec::new();
        };
        let equal = self.equal(prefix);
        let own = equal.iter().find(|it| it.peer.host == best).unwrap();
        let of_best = med(own).1;
        let mut used = vec![best];
        for other in &equal {
            let same = other.peer.host != best && !other.peer.internal();
            if same && med(other).1 == of_best && used.len() < self.max_paths {
                used.push(other.peer.host);
            }
        }
        used
    }

    /// Section 9.2 and RFC 4456 section 6: what a peer is told of a prefix.
    pub(crate) fn told(&self, host: u8, prefix: u8) -> Option<Told> {
        let to = self.peer(host);
        let from = match self.best(prefix)? {
            Best::Own => {
                return Some(Told {
                    local_pref: to.internal().then_some(100),
                    path: if to.internal() { vec![] } else { vec![AS] },
                    origin: 0,
                    med: None,
                    next_hop: None,
                    originator: None,
                    clusters: 0,
                });
            }
            Best::Of(from) => self.peer(from),
        };
        if from.host == host {
            return None;
        }
        let route = &self.routes[&prefix][&from.host];
        if route.no_advertise || route.no_export && !to.internal() {
            return None;
        }
        let reflected = from.internal() && to.internal();
        if reflected && !from.client && !to.client {
            return None;
        }
        let mut path = route.path.clone();
        path.extend(&route.set);
        if !to.internal() {
            path.insert(0, AS);
        }
        let originator = route.originator.unwrap_or(from.host);
        let preference = route.local_pref.filter(|_| from.internal());
        Some(Told {
            // Sections 5.1.5, 5.1.4 and 5.1.3.
            local_pref: to.internal().then_some(preference.unwrap_or(100)),
            path,
            origin: route.origin,
            med: route.med.filter(|_| to.internal()),
            next_hop: to.internal().then_some(route.next_hop),
            originator: reflected.then_some(originator),
            clusters: if reflected {
                1 + usize::from(route.clusters)
            } else {
                0
            },
        })
    }
}

/// The neighbouring AS, and MED, which counts as the lowest where there is none.
fn med(it: &Candidate<'_>) -> (Option<u32>, u32) {
    (it.route.path.first().copied(), it.route.med.unwrap_or(0))
}
