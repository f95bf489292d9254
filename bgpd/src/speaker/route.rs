//! One route as people see it, and which of them they ask for.

use std::net::IpAddr;

use crds::net::Cidr;
use serde::Serialize;

use crate::Millis;
use crate::config::PeerKey;
use crate::policy::ImportRefusal;
use crate::rib::WhyNotBest;

/// Which routes to show; the default is all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteFilter {
    /// Only of exactly that prefix.
    pub prefix: Option<Cidr>,
    /// Only of prefixes inside that one, itself among them.
    pub inside: Option<Cidr>,
    /// Only of prefixes that hold that one, itself among them.
    pub around: Option<Cidr>,
    /// Only of that peer.
    pub neighbor: Option<PeerKey>,
    /// Only own ones.
    pub local: bool,
    /// Only those that originate in that AS.
    pub origin_as: Option<u32>,
    /// Only those that carry that community, as text.
    pub community: Option<String>,
}

impl RouteFilter {
    /// Whether paths to the prefix are asked for.
    pub(super) fn asks_for(&self, prefix: Cidr) -> bool {
        self.prefix.is_none_or(|it| it == prefix)
            && self.inside.is_none_or(|it| it.covers(prefix))
            && self.around.is_none_or(|it| prefix.covers(it))
    }

    /// Whether the path is asked for.
    pub(super) fn takes(&self, route: &RouteInfo) -> bool {
        (self.neighbor.is_none() || self.neighbor == route.neighbor)
            && (!self.local || route.neighbor.is_none())
            && self
                .origin_as
                .is_none_or(|asn| route.as_path.last() == Some(&asn))
            && self
                .community
                .as_ref()
                .is_none_or(|it| route.communities.contains(it))
    }
}

/// One path to a prefix.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteInfo {
    /// The prefix.
    pub prefix: Cidr,
    /// Who announced it; None: this speaker.
    pub neighbor: Option<PeerKey>,
    /// Its next hop; None for an own one.
    pub next_hop: Option<IpAddr>,
    /// Its AS path, sets flattened.
    pub as_path: Vec<u32>,
    /// "igp", "egp" or "incomplete".
    pub origin: &'static str,
    /// LOCAL_PREF, when it has one.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC, when it has one.
    pub med: Option<u32>,
    /// The best path, or one used together with it.
    pub best: bool,
    /// One of several used together.
    pub multipath: bool,
    /// Why import refused it.
    pub refused: Option<ImportRefusal>,
    /// The same in words, with the rule of the filter that did.
    pub refusal: Option<String>,
    /// Why another one is best.
    pub why_not_best: Option<WhyNotBest>,
    /// Communities, all kinds, as text.
    pub communities: Vec<String>,
    /// How long ago it was received.
    pub age_millis: Millis,
}

impl RouteInfo {
    /// Why it is not used in a few words; empty for the best path and those used with it.
    pub fn reason(&self) -> String {
        if self.best {
            return String::new();
        }
        match (&self.refusal, &self.why_not_best) {
            (Some(refusal), _) => refusal.clone(),
            (None, Some(why)) => why.to_string(),
            (None, None) => String::new(),
        }
    }
}
