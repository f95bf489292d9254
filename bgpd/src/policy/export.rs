//! Which routes a peer is told, and with which attributes.
//!
//! What is asked, in this order; each step says why a route is kept back:
//!
//! 1. the protocol and the peer's class: own routes and those of pods on this node only, reflected or everything; never from one internal peer to
//!    another unless reflected; NO_ADVERTISE and NO_EXPORT of learnt routes;
//! 2. a drain that has withdrawn it;
//! 3. the peer's filters. They see the route as it is in the table: before our AS is put into its path, and with the
//!    MULTI_EXIT_DISC and LOCAL_PREF it came with. None makes a route leave that its class keeps back;
//! 4. what RFC 4271 and 4456 say about attributes, except where a filter has set MULTI_EXIT_DISC or the next hop.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crds::net::{Cidr, Family};
use serde::{Deserialize, Serialize};

use super::drain::{Drained, Own, Stage};
use super::filter::{Chain, Context, Judged, Step, Verdict};
use super::import::LAST_RESORT;
use crate::config::filter::{self, PeerType};
use crate::config::{ExportClass, NextHopMode, OriginKind};
use crate::nexthop::NextHop;
use crate::rib::Source;
use crate::rib::decide::DEFAULT_LOCAL_PREF;
use crate::wire::Attributes;
use crate::wire::attribute::community;
use crate::wire::plain::{self, Field, Fields};

/// The bit in the first octet of an extended community that keeps it inside its AS (RFC 4360 section 2).
const NOT_TRANSITIVE: u8 = 0x40;

/// What export needs to know of the peer. Peers for which it is equal are told the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct To {
    /// Which routes it is told.
    pub class: ExportClass,
    /// It is in our AS.
    pub internal: bool,
    /// The AS told to it.
    pub local_asn: u32,
    /// The cluster put into what is reflected to it.
    pub cluster_id: Ipv4Addr,
    /// Our next hop for IPv4 routes, if there is one and the family is negotiated.
    pub next_hop_v4: Option<NextHop>,
    /// Our next hop for IPv6 routes, if there is one and the family is negotiated.
    pub next_hop_v6: Option<NextHop>,
    /// It takes IPv6 next hops for IPv4 routes (RFC 8950).
    pub extended_next_hop: bool,
    /// Whose next hop it is told.
    pub next_hop: NextHopMode,
    /// Its filters.
    pub filters: Arc<Chain>,
    /// An external peer needs a policy to be told anything (RFC 8212).
    pub require_policy: bool,
    /// What is leaving.
    pub drained: Drained,
    /// It knows long-lived stale routes for what they are (RFC 9494).
    pub long_lived: bool,
}

impl To {
    /// Our next hop for routes of that family.
    pub fn next_hop(&self, family: Family) -> Option<NextHop> {
        match family {
            Family::V4 => self.next_hop_v4,
            Family::V6 => self.next_hop_v6,
        }
    }
}

/// Why a best route is not told to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExportRefusal {
    /// There is no own next hop for the family, or it is not negotiated.
    NoNextHop,
    /// Learnt from a peer, while this one is told own routes only.
    NotOrigin,
    /// Learnt from one internal peer, not to be told to another (RFC 4271 section 9.2).
    Internal,
    /// It carries NO_ADVERTISE.
    NoAdvertise,
    /// It carries NO_EXPORT or NO_EXPORT_SUBCONFED.
    NoExport,
    /// There is no policy for an external peer (RFC 8212).
    NoPolicy,
    /// It is drained.
    Drained,
    /// A rule of the peer's filters rejects it.
    Filter(Step),
    /// It is kept without its source, and the peer would not know (RFC 9494 section 4.3).
    LongLived,
}

impl fmt::Display for ExportRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoNextHop => "no own next hop for the family",
            Self::NotOrigin => "not originated here",
            Self::Internal => "learnt from an internal peer",
            Self::NoAdvertise => "NO_ADVERTISE",
            Self::NoExport => "NO_EXPORT",
            Self::NoPolicy => "no policy for this external peer",
            Self::Drained => "drained",
            Self::Filter(_) => "rejected by a filter",
            Self::LongLived => "long-lived stale",
        })
    }
}

impl ExportRefusal {
    /// In words, with the rule that rejects when it is one of `filters`.
    pub fn words(&self, filters: &Chain) -> String {
        match self {
            Self::Filter(step) => format!("rejected by {}", filters.words(*step)),
            it => it.to_string(),
        }
    }
}

/// The attributes a best route is told with.
pub fn export(
    prefix: Cidr,
    attributes: &Attributes,
    source: &Source,
    to: &To,
) -> Result<Attributes, ExportRefusal> {
    run(prefix, Cow::Borrowed(attributes), source, to, None)
}

/// The same where nobody else needs the attributes.
pub fn export_owned(
    prefix: Cidr,
    attributes: Attributes,
    source: &Source,
    to: &To,
) -> Result<Attributes, ExportRefusal> {
    run(prefix, Cow::Owned(attributes), source, to, None)
}

/// The same, with every step in words.
pub fn trace(
    prefix: Cidr,
    attributes: &Attributes,
    source: &Source,
    to: &To,
) -> (Result<Attributes, ExportRefusal>, Vec<String>) {
    let mut steps = Vec::new();
    let told = run(
        prefix,
        Cow::Borrowed(attributes),
        source,
        to,
        Some(&mut steps),
    );
    (told, steps)
}

fn run(
    prefix: Cidr,
    attributes: Cow<'_, Attributes>,
    source: &Source,
    to: &To,
    mut steps: Option<&mut Vec<String>>,
) -> Result<Attributes, ExportRefusal> {
    let own_next_hop = to
        .next_hop(prefix.family())
        .ok_or(ExportRefusal::NoNextHop)?;
    let carries = |it| attributes.communities.contains(&it);
    judge_class(prefix.family(), carries, source, to)?;
    let own = Own::of_mark(attributes.mark);
    let stage = to.drained.stage(own);
    if stage == Stage::Gone {
        return Err(ExportRefusal::Drained);
    }
    if let Some(steps) = &mut steps {
        steps.push(format!("class {}: told", to.class));
        if stage == Stage::Leaving {
            steps.push("drained: told with GRACEFUL_SHUTDOWN".to_owned());
        }
    }
    let judged = judge(prefix, &attributes, own, to, steps)?;
    let (med_set, next_hop_set) = (judged.med_set, judged.next_hop_set);
    let (mut told, before) = match judged.changed {
        Some(changed) => (changed, Some(attributes)),
        None => (attributes.into_owned(), None),
    };
    told.mark = 0;
    if !next_hop_set {
        told.next_hop = next_hop(told.next_hop, own_next_hop, source, to);
    }
    if !speakable(prefix.family(), told.next_hop, to) {
        told.next_hop = own_next_hop;
    }
    if stage == Stage::Leaving && !told.communities.contains(&community::GRACEFUL_SHUTDOWN) {
        told.communities.push(community::GRACEFUL_SHUTDOWN);
    }
    if to.internal {
        told.local_pref = Some(match stage {
            Stage::InUse => told.local_pref.unwrap_or(DEFAULT_LOCAL_PREF),
            Stage::Leaving | Stage::Gone => LAST_RESORT,
        });
        if source.internal {
            // RFC 4456 section 8.
            told.originator_id = Some(told.originator_id.unwrap_or(source.router_id));
            told.cluster_list.insert(0, to.cluster_id);
        }
    } else {
        if !source.is_local() {
            // RFC 4360 section 6: what is not transitive ends here, but for what a filter of the peer adds.
            let added = |it: &[u8; 8]| {
                let learnt = before.as_ref().map(|it| &it.extended_communities);
                learnt.is_some_and(|learnt| !learnt.contains(it))
            };
            told.extended_communities
                .retain(|it| !ends_here(*it) || added(it));
        }
        told.as_path.prepend(to.local_asn);
        told.local_pref = None;
        told.originator_id = None;
        told.cluster_list.clear();
        // RFC 4271 section 5.1.4: a learnt MED is not for further ASes.
        if !source.is_local() && !med_set {
            told.med = None;
        }
    }
    Ok(told)
}

/// Writes the attributes that learnt ones as usual are told with, the next hop aside, and gives the next hop; None: it
/// takes the whole policy. What [`export`] says is written the same.
pub(crate) fn write_plain(
    family: Family,
    (fields, learnt): (&Fields<'_>, NextHop),
    source: &Source,
    to: &To,
    out: &mut Vec<u8>,
) -> Option<Result<NextHop, ExportRefusal>> {
    if !to.filters.is_empty() || to.drained.stage(None) != Stage::InUse || source.is_local() {
        return None;
    }
    let Some(own_next_hop) = to.next_hop(family) else {
        return Some(Err(ExportRefusal::NoNextHop));
    };
    let carries = |community| fields.list(Field::Communities).any(|it| it == community);
    if let Err(refusal) = judge_class(family, carries, source, to) {
        return Some(Err(refusal));
    }
    let next_hop = Some(next_hop(learnt, own_next_hop, source, to))
        .filter(|it| speakable(family, *it, to))
        .unwrap_or(own_next_hop);
    let reflected = source.internal.then_some(());
    for field in Field::ALL {
        let value = fields.get(field);
        match (field, value) {
            (Field::NextHop, _) => {
                if let (Family::V4, IpAddr::V4(v4)) = (family, next_hop.address) {
                    field.put(&v4.octets(), out);
                }
            }
            (Field::AsPath, Some(path)) if !to.internal => prepend(to.local_asn, path, out),
            (Field::LocalPref, _) if to.internal => {
                let preference = fields.number(field).unwrap_or(DEFAULT_LOCAL_PREF);
                field.put(&preference.to_be_bytes(), out);
            }
            (Field::OriginatorId, None) if to.internal && reflected.is_some() => {
                field.put(&source.router_id.octets(), out);
            }
            (Field::ClusterList, _) if to.internal && reflected.is_some() => {
                let others = value.unwrap_or_default();
                field.begin(4 + others.len(), out);
                out.extend_from_slice(&to.cluster_id.octets());
                out.extend_from_slice(others);
            }
            // RFC 4271 section 5.1.4: a learnt MED is not for further ASes; the others are for this one only.
            (Field::Med | Field::LocalPref | Field::OriginatorId | Field::ClusterList, _)
                if !to.internal => {}
            (Field::ExtendedCommunities, Some(value)) if !to.internal => {
                let (all, _) = value.as_chunks::<8>();
                let stays = |it: &&[u8; 8]| !ends_here(**it);
                let length = all.iter().filter(stays).count() * 8;
                if length > 0 {
                    field.begin(length, out);
                    out.extend(all.iter().filter(stays).flatten());
                }
            }
            (_, Some(value)) => field.put(value, out),
            (_, None) => {}
        }
    }
    Some(Ok(next_hop))
}

/// Whether an extended community does not leave its AS.
fn ends_here(community: [u8; 8]) -> bool {
    community[0] & NOT_TRANSITIVE != 0
}

/// Writes an AS_PATH with an AS put before it.
fn prepend(asn: u32, path: &[u8], out: &mut Vec<u8>) {
    match *path {
        [plain::SEQUENCE, count, ref rest @ ..] if count < u8::MAX => {
            Field::AsPath.begin(path.len() + 4, out);
            out.extend_from_slice(&[plain::SEQUENCE, count + 1]);
            out.extend_from_slice(&asn.to_be_bytes());
            out.extend_from_slice(rest);
        }
        _ => {
            Field::AsPath.begin(path.len() + 6, out);
            out.extend_from_slice(&[plain::SEQUENCE, 1]);
            out.extend_from_slice(&asn.to_be_bytes());
            out.extend_from_slice(path);
        }
    }
}

/// The next hop that a route is told with where no filter sets one.
fn next_hop(learnt: NextHop, own: NextHop, source: &Source, to: &To) -> NextHop {
    match to.next_hop {
        _ if source.is_local() => own,
        NextHopMode::Itself => own,
        NextHopMode::Keep => passed_on(learnt).unwrap_or(own),
        // RFC 4271 section 5.1.3: inside the AS a learnt next hop stays.
        NextHopMode::Auto if to.internal => passed_on(learnt).unwrap_or(own),
        NextHopMode::Auto => own,
    }
}

/// What the protocol and the class keep back of routes that carry those communities.
fn judge_class(
    family: Family,
    carries: impl Fn(u32) -> bool,
    source: &Source,
    to: &To,
) -> Result<(), ExportRefusal> {
    let passes_on = to.class != ExportClass::Origins;
    // A policy for one family is none for the other.
    let has_policy = to.filters.is_about(family);
    if to.require_policy && !to.internal && passes_on && !has_policy {
        return Err(ExportRefusal::NoPolicy);
    }
    // What communities of own routes ask for is for those who learn them.
    if source.is_local() {
        return Ok(());
    }
    // What a pod on this node announces is reached through this node only.
    if !passes_on && !source.workload {
        return Err(ExportRefusal::NotOrigin);
    }
    // RFC 4456 section 6: from a client to everybody, from others to clients.
    let reflected = source.internal && to.internal;
    if reflected && !source.client && to.class != ExportClass::Reflect {
        return Err(ExportRefusal::Internal);
    }
    if carries(community::NO_ADVERTISE) {
        return Err(ExportRefusal::NoAdvertise);
    }
    if !to.long_lived && carries(community::LLGR_STALE) {
        return Err(ExportRefusal::LongLived);
    }
    if !to.internal && (carries(community::NO_EXPORT) || carries(community::NO_EXPORT_SUBCONFED)) {
        return Err(ExportRefusal::NoExport);
    }
    Ok(())
}

fn judge(
    prefix: Cidr,
    attributes: &Attributes,
    own: Option<Own>,
    to: &To,
    steps: Option<&mut Vec<String>>,
) -> Result<Judged, ExportRefusal> {
    let context = Context {
        source: match own.map(|own| own.kind) {
            None => filter::Source::Remote,
            Some(OriginKind::Block) => filter::Source::Block,
            Some(OriginKind::Borrowed) => filter::Source::Borrowed,
            Some(OriginKind::Service) => filter::Source::Service,
            Some(OriginKind::Node) => filter::Source::Node,
        },
        peer_type: match to.internal {
            true => PeerType::Internal,
            false => PeerType::External,
        },
        asn: to.local_asn,
    };
    let judged = match steps {
        None => to.filters.judge(prefix, attributes, context),
        Some(steps) => {
            let (judged, trace) = to.filters.trace(prefix, attributes, context);
            steps.extend(trace.iter().map(ToString::to_string));
            judged
        }
    };
    match judged.verdict {
        Verdict::Reject(step) => Err(ExportRefusal::Filter(step)),
        Verdict::Accept { .. } | Verdict::Undecided => Ok(judged),
    }
}

/// A learnt next hop as others may see it: without the address that means something on its own link only (RFC 2545
/// section 3). None: it has no other.
fn passed_on(next_hop: NextHop) -> Option<NextHop> {
    match next_hop.address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => None,
        address => Some(NextHop::from(address)),
    }
}

/// Whether the peer understands such a next hop for the prefix.
fn speakable(family: Family, next_hop: NextHop, to: &To) -> bool {
    match (family, Family::of(next_hop.address)) {
        (Family::V4, Family::V6) => to.extended_next_hop,
        (Family::V6, Family::V4) => false,
        _ => true,
    }
}
