//! The decision process.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::Source;
use crate::wire::attribute::community;
use crate::wire::plain::{self, Fields};
use crate::wire::{Attributes, Origin};

/// The step of the decision process that a path lost (RFC 4271 section 9.1.2.2), in the order of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WhyNotBest {
    /// Nothing says how to reach its next hop.
    NextHopUnreachable,
    /// Its source has been gone for long (RFC 9494 section 4.3).
    Stale,
    /// This speaker originates the prefix itself.
    LocalOrigin,
    /// Lower LOCAL_PREF.
    LocalPref,
    /// Longer AS path.
    AsPathLength,
    /// Worse ORIGIN.
    Origin,
    /// Higher MED than another path from the same AS.
    Med,
    /// From an internal peer while there is one from an external peer.
    InternalPeer,
    /// Farther next hop.
    IgpCost,
    /// Higher BGP identifier of its originator.
    RouterId,
    /// Longer cluster list (RFC 4456).
    ClusterListLength,
    /// Higher address of the peer.
    PeerAddress,
    /// Higher path identifier of the same peer (RFC 7911).
    PathId,
}

impl fmt::Display for WhyNotBest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NextHopUnreachable => "next hop unreachable",
            Self::Stale => "long-lived stale",
            Self::LocalOrigin => "originated here",
            Self::LocalPref => "lower LOCAL_PREF",
            Self::AsPathLength => "longer AS path",
            Self::Origin => "worse ORIGIN",
            Self::Med => "higher MED",
            Self::InternalPeer => "from an internal peer",
            Self::IgpCost => "farther next hop",
            Self::RouterId => "higher router id",
            Self::ClusterListLength => "longer cluster list",
            Self::PeerAddress => "higher peer address",
            Self::PathId => "higher path identifier",
        })
    }
}

/// What the decision process looks at of an attribute set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// LOCAL_PREF, or its default.
    pub local_pref: u32,
    /// Length of the AS path.
    pub path_length: u16,
    /// MED; 0 where there is none.
    pub med: u32,
    /// The neighbouring AS, if the path says one.
    pub first_as: Option<NonZeroU32>,
    /// ORIGINATOR_ID.
    pub originator: Option<Ipv4Addr>,
    /// Length of the cluster list.
    pub clusters: u16,
    /// ORIGIN.
    pub origin: Origin,
    /// It carries LLGR_STALE (RFC 9494).
    pub long_lived: bool,
}

impl From<&Attributes> for Summary {
    fn from(attributes: &Attributes) -> Self {
        Self {
            local_pref: attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF),
            path_length: u16::try_from(attributes.as_path.length()).unwrap_or(u16::MAX),
            med: attributes.med.unwrap_or(0),
            first_as: attributes.as_path.first().and_then(NonZeroU32::new),
            originator: attributes.originator_id,
            clusters: u16::try_from(attributes.cluster_list.len()).unwrap_or(u16::MAX),
            origin: attributes.origin,
            long_lived: attributes.communities.contains(&community::LLGR_STALE),
        }
    }
}

impl From<&Fields<'_>> for Summary {
    fn from(fields: &Fields<'_>) -> Self {
        let mut communities = fields.list(plain::Field::Communities);
        Self {
            local_pref: fields
                .number(plain::Field::LocalPref)
                .unwrap_or(DEFAULT_LOCAL_PREF),
            path_length: u16::try_from(fields.path().length()).unwrap_or(u16::MAX),
            med: fields.number(plain::Field::Med).unwrap_or(0),
            first_as: fields.path().first().and_then(NonZeroU32::new),
            originator: fields
                .number(plain::Field::OriginatorId)
                .map(Ipv4Addr::from),
            clusters: u16::try_from(fields.list(plain::Field::ClusterList).count())
                .unwrap_or(u16::MAX),
            origin: match fields.origin() {
                0 => Origin::Igp,
                1 => Origin::Egp,
                _ => Origin::Incomplete,
            },
            long_lived: communities.any(|it| it == community::LLGR_STALE),
        }
    }
}

/// A path that import policy took.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// What was said about it.
    pub attributes: &'a Summary,
    /// Who said it.
    pub source: &'a Source,
    /// Which of the source's paths it is.
    pub path_id: u32,
    /// Its source has been gone for long.
    pub long_lived: bool,
    /// Cost of the way to its next hop; None: there is none. Nothing is asked of own routes.
    pub cost: Option<u32>,
}

/// What became of the candidates, by their index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// The best path.
    pub best: Option<usize>,
    /// All paths to be used together, the best one first, then by the peer's address.
    pub multipath: Vec<usize>,
    /// Why each is not the best; None for the best one.
    pub reasons: Vec<Option<WhyNotBest>>,
}

/// LOCAL_PREF of a path that has none (RFC 4271 leaves it to us; 100 is what everybody takes).
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// Chooses the best path, and up to `max_paths` to be used together. It depends on the set of candidates only, not
/// on their order.
pub fn decide(candidates: &[Candidate<'_>], max_paths: usize) -> Decision {
    let mut field = Field {
        candidates,
        alive: (0..candidates.len()).collect(),
        reasons: vec![None; candidates.len()],
    };
    field.keep_lowest(WhyNotBest::NextHopUnreachable, |it| {
        if it.source.is_local() || it.cost.is_some() {
            Some(0)
        } else {
            None
        }
    });
    field.keep_lowest(WhyNotBest::Stale, |it| Some(it.long_lived));
    field.keep_lowest(WhyNotBest::LocalOrigin, |it| {
        Some(u64::from(!it.source.is_local()))
    });
    field.keep_lowest(WhyNotBest::LocalPref, |it| {
        Some(u32::MAX - it.attributes.local_pref)
    });
    field.keep_lowest(WhyNotBest::AsPathLength, |it| {
        Some(it.attributes.path_length)
    });
    field.keep_lowest(WhyNotBest::Origin, |it| Some(it.attributes.origin));
    field.drop_worse_med();
    field.keep_lowest(WhyNotBest::InternalPeer, |it| {
        Some(u64::from(it.source.internal))
    });
    field.keep_lowest(WhyNotBest::IgpCost, |it| {
        Some(u64::from(it.cost.unwrap_or(0)))
    });
    let equal = field.alive.clone();
    field.keep_lowest(WhyNotBest::RouterId, |it| {
        // RFC 4456 section 9: the originator stands for the reflector.
        Some(u64::from(u32::from(
            it.attributes.originator.unwrap_or(it.source.router_id),
        )))
    });
    field.keep_lowest(WhyNotBest::ClusterListLength, |it| {
        Some(it.attributes.clusters)
    });
    field.keep_lowest(WhyNotBest::PeerAddress, |it| Some(it.source.address));
    field.keep_lowest(WhyNotBest::PathId, |it| Some(it.path_id));
    let best = field.alive.first().copied();
    let multipath = best.map_or_else(Vec::new, |best| field.together(best, equal, max_paths));
    Decision {
        best,
        multipath,
        reasons: field.reasons,
    }
}

struct Field<'a> {
    candidates: &'a [Candidate<'a>],
    alive: Vec<usize>,
    reasons: Vec<Option<WhyNotBest>>,
}

impl Field<'_> {
    /// Keeps those with the lowest rank; those without one lose even alone.
    fn keep_lowest<R: Ord>(
        &mut self,
        step: WhyNotBest,
        rank: impl Fn(&Candidate<'_>) -> Option<R>,
    ) {
        let lowest = self
            .alive
            .iter()
            .filter_map(|index| rank(&self.candidates[*index]))
            .min();
        let (candidates, reasons) = (self.candidates, &mut self.reasons);
        self.alive.retain(|index| {
            let it = rank(&candidates[*index]);
            let keep = it.is_some() && it == lowest;
            if !keep {
                reasons[*index] = Some(step);
            }
            keep
        });
    }

    /// RFC 4271 section 9.1.2.2 c: MEDs are compared among paths from one neighbouring AS; none counts as 0.
    fn drop_worse_med(&mut self) {
        let candidates = self.candidates;
        let key = |index: &usize| {
            let attributes = candidates[*index].attributes;
            (attributes.first_as, attributes.med)
        };
        let mut lowest = BTreeMap::new();
        for (asn, med) in self.alive.iter().map(key) {
            let so_far = lowest.entry(asn).or_insert(med);
            *so_far = med.min(*so_far);
        }
        let reasons = &mut self.reasons;
        self.alive.retain(|index| {
            let (asn, med) = key(index);
            let keep = lowest.get(&asn) == Some(&med);
            if !keep {
                reasons[*index] = Some(WhyNotBest::Med);
            }
            keep
        });
    }

    /// Which of the equal paths are used together with the best one: external ones of the same MED.
    fn together(&self, best: usize, equal: Vec<usize>, max_paths: usize) -> Vec<usize> {
        let of = |index: usize| &self.candidates[index];
        let mut others = equal;
        others.retain(|index| {
            *index != best
                && !of(best).source.is_local()
                && !of(*index).source.internal
                && of(*index).attributes.med == of(best).attributes.med
        });
        others.sort_by_key(|index| (of(*index).source.address, of(*index).path_id));
        let mut multipath = vec![best];
        multipath.extend(others);
        multipath.truncate(max_paths.max(1));
        multipath
    }
}

#[cfg(test)]
mod tests;
