//! The conditions of a rule.

use std::collections::BTreeSet;

use crds::net::{Cidr, Family};

use super::Route;
use crate::config::filter::{Match, PeerType, Source};
use crate::policy::community::Communities;
use crate::policy::prefixes::{Hold, Prefixes};
use crate::rib::decide::DEFAULT_LOCAL_PREF;
use crate::wire::AsPath;
use crate::wire::as_path::SegmentKind;

/// One condition; those that ask for nothing are not made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Condition {
    Sources(BTreeSet<Source>),
    PeerType(PeerType),
    Med(u32),
    LocalPref(u32),
    PathMin(usize),
    PathMax(usize),
    Prefixes(Prefixes),
    PathPrefix(Vec<u32>),
    OriginAs(BTreeSet<u32>),
    PathContains(BTreeSet<u32>),
    NextHops(Vec<Cidr>),
    AnyCommunity(Communities),
    AllCommunities(Communities),
}

/// What conditions that held have to say.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The prefix is one that the rule names.
    pub(super) named: bool,
}

impl Condition {
    /// All that a rule looks for, the cheapest first.
    pub(super) fn all(matches: &Match) -> Vec<Self> {
        // Every field is named, so that none can be forgotten.
        let Match {
            prefixes,
            as_path_contains,
            as_path_prefix,
            origin_as,
            as_path_min_length,
            as_path_max_length,
            communities_any,
            communities_all,
            next_hops,
            peer_type,
            sources,
            med,
            local_pref,
        } = matches;
        let length = |it: u32| usize::try_from(it).unwrap_or(usize::MAX);
        let mut all = Vec::new();
        if !sources.is_empty() {
            all.push(Self::Sources(sources.clone()));
        }
        all.extend(peer_type.map(Self::PeerType));
        all.extend(med.map(Self::Med));
        all.extend(local_pref.map(Self::LocalPref));
        all.extend(as_path_min_length.map(length).map(Self::PathMin));
        all.extend(as_path_max_length.map(length).map(Self::PathMax));
        if !prefixes.is_empty() {
            all.push(Self::Prefixes(Prefixes::new(prefixes)));
        }
        if !as_path_prefix.is_empty() {
            all.push(Self::PathPrefix(as_path_prefix.clone()));
        }
        if !origin_as.is_empty() {
            all.push(Self::OriginAs(origin_as.clone()));
        }
        if !as_path_contains.is_empty() {
            all.push(Self::PathContains(as_path_contains.clone()));
        }
        if !next_hops.is_empty() {
            all.push(Self::NextHops(next_hops.clone()));
        }
        if !communities_any.is_empty() {
            all.push(Self::AnyCommunity(Communities::new(communities_any)));
        }
        if !communities_all.is_empty() {
            all.push(Self::AllCommunities(Communities::new(communities_all)));
        }
        all
    }

    /// Whether it can hold for a prefix of that family.
    pub(super) fn is_about(&self, family: Family) -> bool {
        match self {
            Self::Prefixes(prefixes) => prefixes.mean(family),
            _ => true,
        }
    }

    pub(super) fn looks_at_prefix(&self) -> bool {
        matches!(self, Self::Prefixes(prefixes) if prefixes.look_at_prefix())
    }

    /// Whether the standard community is among those asked for.
    pub(super) fn asks_for(&self, standard: u32) -> bool {
        matches!(self, Self::AnyCommunity(it) | Self::AllCommunities(it) if it.names(standard))
    }

    /// What it looks at, for people.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Sources(_) => "source",
            Self::PeerType(_) => "peer type",
            Self::Med(_) => "MED",
            Self::LocalPref(_) => "LOCAL_PREF",
            Self::PathMin(_) | Self::PathMax(_) => "length of the AS path",
            Self::Prefixes(_) => "prefix",
            Self::PathPrefix(_) => "start of the AS path",
            Self::OriginAs(_) => "origin AS",
            Self::PathContains(_) => "AS path",
            Self::NextHops(_) => "next hop",
            Self::AnyCommunity(_) | Self::AllCommunities(_) => "communities",
        }
    }

    pub(super) fn holds(&self, route: &Route<'_>, held: &mut Held) -> bool {
        let attributes = &route.attributes;
        match self {
            Self::Sources(sources) => sources.contains(&route.context.source),
            Self::PeerType(peer_type) => route.context.peer_type == *peer_type,
            Self::Med(med) => attributes.med == Some(*med),
            Self::LocalPref(preference) => {
                attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF) == *preference
            }
            Self::PathMin(length) => attributes.as_path.length() >= *length,
            Self::PathMax(length) => attributes.as_path.length() <= *length,
            Self::Prefixes(prefixes) => {
                let hold = prefixes.hold(route.prefix);
                held.named |= hold == Some(Hold::Named);
                hold.is_some()
            }
            Self::PathPrefix(asns) => starts_with(&attributes.as_path, asns),
            Self::OriginAs(asns) => originates_in(&attributes.as_path, route.context.asn, asns),
            Self::PathContains(asns) => attributes.as_path.asns().any(|it| asns.contains(&it)),
            Self::NextHops(ranges) => {
                let address = attributes.next_hop.address;
                ranges.iter().any(|range| range.contains(address))
            }
            Self::AnyCommunity(communities) => communities.any(attributes),
            Self::AllCommunities(communities) => communities.all(attributes),
        }
    }
}

/// Sets have no order, so a path starts with the AS numbers before its first set at most.
fn starts_with(path: &AsPath, asns: &[u32]) -> bool {
    let ordered = path
        .segments
        .iter()
        .take_while(|segment| segment.kind == SegmentKind::Sequence)
        .flat_map(|segment| &segment.asns);
    ordered.take(asns.len()).eq(asns)
}

/// The last AS of the path, any one of a set; the own one when it never left the AS.
fn originates_in(path: &AsPath, own: u32, asns: &BTreeSet<u32>) -> bool {
    match path.segments.last() {
        None => asns.contains(&own),
        Some(last) if last.kind == SegmentKind::Sequence => {
            last.asns.last().is_some_and(|it| asns.contains(it))
        }
        Some(last) => last.asns.iter().any(|it| asns.contains(it)),
    }
}
