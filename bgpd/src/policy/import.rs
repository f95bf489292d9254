//! Which routes are taken from peers.
//!
//! What is asked, in this order; each step says why it refuses:
//!
//! 1. the protocol: loops, the first AS, prefixes that never are routed. Nothing overrides it;
//! 2. the peer's class: pools and ranges, nothing inside own prefixes; of a pod on this node nothing;
//! 3. the peer's filters. A rule that accepts takes also what the class leaves out, if it names the prefix, but never
//!    what is inside own prefixes; a filter that rejects is final;
//! 4. communities: BLACKHOLE has to be asked for by the rule that accepts, and then stays inside the AS (RFC 7999);
//!    GRACEFUL_SHUTDOWN makes a route of an external peer the last to be used (RFC 8326).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crds::net::Cidr;
use serde::{Deserialize, Serialize};

use super::cover::Cover;
use super::filter::{Chain, Context, Step, Verdict};
use crate::config::filter::{PeerType, Source};
use crate::config::{Config, ImportPolicy, Pool};
use crate::wire::Attributes;
use crate::wire::attribute::community;
use crate::wire::plain::{Field, Fields};

/// LOCAL_PREF of routes that are about to go: any other route is better (RFC 8326 section 4).
pub const LAST_RESORT: u32 = 0;

/// Why a route is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImportRefusal {
    /// Our AS is in its path more often than it may be (RFC 4271 section 9.1.2).
    AsLoop,
    /// Its path does not start with the peer's AS (RFC 4271 section 6.3).
    FirstAs,
    /// This speaker made it, and it came back through a reflector (RFC 4456 section 8).
    OwnOriginator,
    /// A cluster of ours is in its cluster list (RFC 4456 section 8).
    ClusterLoop,
    /// Its next hop is one of our own addresses (RFC 4271 section 5.1.3).
    OwnNextHop,
    /// Its next hop is neither the peer nor on a network shared with it, though the peer is an external one a single
    /// hop away (RFC 4271 section 6.3).
    ForeignNextHop,
    /// A prefix that never is routed: loopback, link-local, multicast.
    Martian,
    /// A default route that neither a configured range nor a filter asks for.
    DefaultRoute,
    /// Inside a prefix that this speaker originates.
    InsideOwn,
    /// Longer than the blocks of its pool.
    LongerThanBlock,
    /// Neither in a pool nor in a configured range.
    OutsidePools,
    /// From an external peer for which there is no policy (RFC 8212).
    NoPolicy,
    /// From a pod, and no filter names it: pods do not say by themselves what leads to them.
    Workload,
    /// A rule of the peer's filters rejects it.
    Filter(Step),
    /// Policy makes its attributes longer than they can be.
    TooLong,
    /// It carries BLACKHOLE, which no filter asks for (RFC 7999).
    Blackhole,
}

impl fmt::Display for ImportRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AsLoop => "own AS in the path",
            Self::FirstAs => "path does not start with the peer's AS",
            Self::OwnOriginator => "reflected to its originator",
            Self::ClusterLoop => "own cluster in the cluster list",
            Self::OwnNextHop => "next hop is an own address",
            Self::ForeignNextHop => "next hop is on no network shared with the peer",
            Self::Martian => "not a routable prefix",
            Self::DefaultRoute => "default route not asked for",
            Self::InsideOwn => "inside an own prefix",
            Self::LongerThanBlock => "longer than the pool's blocks",
            Self::OutsidePools => "outside of pools and configured ranges",
            Self::NoPolicy => "no policy for this external peer",
            Self::Workload => "from a pod, and no filter names the prefix",
            Self::Filter(_) => "rejected by a filter",
            Self::TooLong => "attributes too long after policy",
            Self::Blackhole => "BLACKHOLE not asked for by a filter",
        })
    }
}

impl ImportRefusal {
    /// In words, with the rule that rejects when it is one of `filters`.
    pub fn words(&self, filters: &Chain) -> String {
        match self {
            Self::Filter(step) => format!("rejected by {}", filters.words(*step)),
            it => it.to_string(),
        }
    }
}

/// What import needs to know of the peer.
#[derive(Debug, Clone, Copy)]
pub struct From<'a> {
    /// Its AS.
    pub asn: u32,
    /// The AS told to it.
    pub local_asn: u32,
    /// Which policy applies.
    pub policy: ImportPolicy,
    /// How many times an own AS may be in its paths.
    pub allowed_own_as: u8,
    /// Its filters.
    pub filters: &'a Chain,
    /// It is being taken out of use: what it says is the last to be used.
    pub leaving: bool,
    /// The interface its session runs over.
    pub ifindex: Option<u32>,
    /// Its address, if it is an external one a single hop away.
    pub neighbor: Option<IpAddr>,
    /// It is a pod on this node.
    pub workload: bool,
}

impl From<'_> {
    fn is_internal(&self) -> bool {
        self.asn == self.local_asn
    }
}

/// The speaker's side of import: pools, ranges and own prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Importer {
    router_id: Ipv4Addr,
    asn: u32,
    clusters: BTreeSet<Ipv4Addr>,
    require_policy: bool,
    pools: Vec<Pool>,
    ranges: Cover,
    own: Cover,
}

impl Importer {
    /// What `config` says, with the prefixes originated now.
    pub fn new(config: &Config, own: impl IntoIterator<Item = Cidr>) -> Self {
        let templates = config.dynamic.iter().map(|it| &it.template);
        let peers = config.peers.iter().chain(templates);
        let of_clients = peers.filter_map(|it| it.options.cluster_id);
        let cluster = config.cluster_id.unwrap_or(config.router_id);
        Self {
            router_id: config.router_id,
            asn: config.asn,
            clusters: of_clients.chain([cluster]).collect(),
            require_policy: config.require_policy,
            pools: config.pools.clone(),
            ranges: config.import_ranges.iter().copied().collect(),
            own: own.into_iter().collect(),
        }
    }

    /// A prefix is originated now, or no longer. Returns whether that is news.
    pub fn own(&mut self, prefix: Cidr, present: bool) -> bool {
        if present {
            self.own.insert(prefix)
        } else {
            self.own.remove(prefix)
        }
    }

    /// Whether a route is taken, and the attributes it is taken with where they are not those received.
    pub fn judge(
        &self,
        prefix: Cidr,
        attributes: &Attributes,
        from: From<'_>,
    ) -> Result<Option<Attributes>, ImportRefusal> {
        self.run(prefix, attributes, from, None)
    }

    /// The same, with every step in words.
    pub fn trace(
        &self,
        prefix: Cidr,
        attributes: &Attributes,
        from: From<'_>,
    ) -> (Result<Option<Attributes>, ImportRefusal>, Vec<String>) {
        let mut steps = Vec::new();
        let verdict = self.run(prefix, attributes, from, Some(&mut steps));
        (verdict, steps)
    }

    fn run(
        &self,
        prefix: Cidr,
        attributes: &Attributes,
        from: From<'_>,
        mut steps: Option<&mut Vec<String>>,
    ) -> Result<Option<Attributes>, ImportRefusal> {
        self.judge_path(attributes, from)?;
        if is_martian(prefix) {
            return Err(ImportRefusal::Martian);
        }
        if let Some(steps) = &mut steps {
            steps.push("protocol: no loop, a routable prefix".to_owned());
        }
        let class = self.judge_class(prefix, from);
        if let Some(steps) = &mut steps {
            let said = class.map_or_else(|it| it.to_string(), |()| "taken".to_owned());
            steps.push(format!("class {}: {said}", from.policy));
        }
        if class == Err(ImportRefusal::InsideOwn) {
            return Err(ImportRefusal::InsideOwn);
        }
        let mut taken = Cow::Borrowed(attributes);
        let mut blackhole_asked = false;
        if from.filters.is_empty() {
            class?;
        } else {
            let context = Context {
                source: Source::Remote,
                peer_type: match from.is_internal() {
                    true => PeerType::Internal,
                    false => PeerType::External,
                },
                asn: from.local_asn,
            };
            let judged = match &mut steps {
                None => from.filters.judge(prefix, attributes, context),
                Some(steps) => {
                    let (judged, trace) = from.filters.trace(prefix, attributes, context);
                    steps.extend(trace.iter().map(ToString::to_string));
                    judged
                }
            };
            match judged.verdict {
                Verdict::Reject(step) => return Err(ImportRefusal::Filter(step)),
                Verdict::Undecided => class?,
                Verdict::Accept {
                    named, blackhole, ..
                } => {
                    blackhole_asked = blackhole;
                    if !named {
                        class?;
                    }
                }
            }
            if let Some(changed) = judged.changed {
                taken = Cow::Owned(changed);
            }
        }
        let mut note = |what: &str| {
            if let Some(steps) = &mut steps {
                steps.push(what.to_owned());
            }
        };
        if attributes.communities.contains(&community::BLACKHOLE) {
            if !blackhole_asked {
                return Err(ImportRefusal::Blackhole);
            }
            let kept_inside =
                |it: &u32| [community::NO_EXPORT, community::NO_ADVERTISE].contains(it);
            if !taken.communities.iter().any(kept_inside) {
                note("BLACKHOLE: NO_EXPORT added");
                taken.to_mut().communities.push(community::NO_EXPORT);
            }
        }
        let shutdown =
            !from.is_internal() && taken.communities.contains(&community::GRACEFUL_SHUTDOWN);
        if (shutdown || from.leaving) && taken.local_pref != Some(LAST_RESORT) {
            note(match shutdown {
                true => "GRACEFUL_SHUTDOWN: LOCAL_PREF set to 0",
                false => "the peer is drained: LOCAL_PREF set to 0",
            });
            taken.to_mut().local_pref = Some(LAST_RESORT);
        }
        Ok(match taken {
            Cow::Borrowed(_) => None,
            Cow::Owned(changed) => Some(changed).filter(|it| it != attributes),
        })
    }

    /// Whether a peer's routes with attributes as usual can be taken as far as these go; None: it takes the whole
    /// policy to say so.
    pub(crate) fn judge_fields(
        &self,
        fields: &Fields<'_>,
        from: From<'_>,
    ) -> Option<Result<(), ImportRefusal>> {
        let mut communities = fields.list(Field::Communities);
        let acts = |it| it == community::BLACKHOLE || it == community::GRACEFUL_SHUTDOWN;
        if !from.filters.is_empty() || from.leaving || communities.any(acts) {
            return None;
        }
        let path = fields.path();
        Some(self.judge_parts(
            (path.first(), path.asns()),
            fields.number(Field::OriginatorId).map(Ipv4Addr::from),
            fields.list(Field::ClusterList).map(Ipv4Addr::from),
            from,
        ))
    }

    /// Whether such a route is taken as far as its prefix goes.
    pub(crate) fn judge_plain(&self, prefix: Cidr, from: From<'_>) -> Result<(), ImportRefusal> {
        if is_martian(prefix) {
            return Err(ImportRefusal::Martian);
        }
        self.judge_class(prefix, from)
    }

    fn judge_path(&self, attributes: &Attributes, from: From<'_>) -> Result<(), ImportRefusal> {
        let path = &attributes.as_path;
        self.judge_parts(
            (path.first(), path.asns()),
            attributes.originator_id,
            attributes.cluster_list.iter().copied(),
            from,
        )
    }

    /// What RFC 4271 and 4456 forbid, whatever the policy.
    fn judge_parts(
        &self,
        (first, asns): (Option<u32>, impl Iterator<Item = u32>),
        originator: Option<Ipv4Addr>,
        mut clusters: impl Iterator<Item = Ipv4Addr>,
        from: From<'_>,
    ) -> Result<(), ImportRefusal> {
        let own = |asn: &u32| *asn == from.local_asn || *asn == self.asn;
        if asns.filter(own).count() > usize::from(from.allowed_own_as) {
            return Err(ImportRefusal::AsLoop);
        }
        if from.is_internal() {
            if originator == Some(self.router_id) {
                return Err(ImportRefusal::OwnOriginator);
            }
            if clusters.any(|it| self.clusters.contains(&it)) {
                return Err(ImportRefusal::ClusterLoop);
            }
        } else if first != Some(from.asn) {
            return Err(ImportRefusal::FirstAs);
        }
        Ok(())
    }

    fn judge_class(&self, prefix: Cidr, from: From<'_>) -> Result<(), ImportRefusal> {
        if from.workload && self.own.of(prefix).next().is_none() {
            return Err(ImportRefusal::Workload);
        }
        match from.policy {
            ImportPolicy::Pools => self.judge_prefix(prefix),
            ImportPolicy::All
                if self.require_policy
                    && !from.is_internal()
                    && !from.filters.is_about(prefix.family()) =>
            {
                Err(ImportRefusal::NoPolicy)
            }
            ImportPolicy::All => Ok(()),
        }
    }

    fn judge_prefix(&self, prefix: Cidr) -> Result<(), ImportRefusal> {
        if prefix.prefix_len() == 0 {
            return match self.ranges.contains(prefix) {
                true => Ok(()),
                false => Err(ImportRefusal::DefaultRoute),
            };
        }
        if self.own.of(prefix).next().is_some() {
            return Err(ImportRefusal::InsideOwn);
        }
        // A default route among the ranges stands for itself only.
        if self.ranges.of(prefix).any(|range| range.prefix_len() > 0) {
            return Ok(());
        }
        let mut refusal = ImportRefusal::OutsidePools;
        for pool in self.pools.iter().filter(|pool| pool.cidr.covers(prefix)) {
            if prefix.prefix_len() <= pool.block_size {
                return Ok(());
            }
            refusal = ImportRefusal::LongerThanBlock;
        }
        Err(refusal)
    }
}

fn is_martian(prefix: Cidr) -> bool {
    // A default route holds everything; only prefixes that lie wholly inside such a range are meant.
    prefix.prefix_len() > 0
        && match prefix.first() {
            IpAddr::V4(v4) => {
                v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast()
            }
            IpAddr::V6(v6) => {
                v6.is_loopback()
                    || v6.is_unicast_link_local()
                    || v6.is_multicast()
                    || v6.to_ipv4_mapped().is_some()
            }
        }
}
