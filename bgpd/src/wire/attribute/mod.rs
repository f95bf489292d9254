//! Path attributes (RFC 4271 section 5 and others), and what RFC 7606 does about bad ones.

pub mod community;
mod decode;
mod encode;

use std::fmt;
use std::net::Ipv4Addr;

use super::{AsPath, Dialect};
use crate::nexthop::NextHop;

pub(super) use decode::{Decoded, decode, is_usable};
pub(super) use encode::{encode, reach, unreach};

/// Type codes of attributes.
pub(crate) mod code {
    pub(crate) const ORIGIN: u8 = 1;
    pub(crate) const AS_PATH: u8 = 2;
    pub(crate) const NEXT_HOP: u8 = 3;
    pub(crate) const MED: u8 = 4;
    pub(crate) const LOCAL_PREF: u8 = 5;
    pub(crate) const ATOMIC_AGGREGATE: u8 = 6;
    pub(crate) const AGGREGATOR: u8 = 7;
    pub(crate) const COMMUNITIES: u8 = 8;
    pub(crate) const ORIGINATOR_ID: u8 = 9;
    pub(crate) const CLUSTER_LIST: u8 = 10;
    pub(crate) const MP_REACH: u8 = 14;
    pub(crate) const MP_UNREACH: u8 = 15;
    pub(crate) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(crate) const AS4_PATH: u8 = 17;
    pub(crate) const AS4_AGGREGATOR: u8 = 18;
    pub(crate) const LARGE_COMMUNITIES: u8 = 32;
}

/// Attribute flags (RFC 4271 section 4.3).
pub(crate) mod flag {
    pub(crate) const OPTIONAL: u8 = 0x80;
    pub(crate) const TRANSITIVE: u8 = 0x40;
    pub(crate) const PARTIAL: u8 = 0x20;
    pub(crate) const EXTENDED_LENGTH: u8 = 0x10;
}

/// Where a route comes from originally; the lowest is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Origin {
    /// An interior protocol or the originator's own configuration.
    Igp = 0,
    /// The EGP of old.
    Egp = 1,
    /// Anything else.
    Incomplete = 2,
}

impl Origin {
    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Igp => "igp",
            Self::Egp => "egp",
            Self::Incomplete => "incomplete",
        }
    }
}

/// Who aggregated a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Aggregator {
    /// Its AS.
    pub asn: u32,
    /// Its BGP identifier.
    pub address: Ipv4Addr,
}

/// An optional transitive attribute this speaker does not know: carried on with the Partial bit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnknownAttribute {
    /// Type code.
    pub code: u8,
    /// Value.
    pub value: Vec<u8>,
}

/// Everything an UPDATE says about its prefixes. Shared by all routes that have the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH, merged with AS4_PATH.
    pub as_path: AsPath,
    /// NEXT_HOP, or the next hop in MP_REACH_NLRI.
    pub next_hop: NextHop,
    /// MULTI_EXIT_DISC; the lowest is preferred.
    pub med: Option<u32>,
    /// LOCAL_PREF; the highest is preferred.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR, merged with AS4_AGGREGATOR.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES (RFC 1997).
    pub communities: Vec<u32>,
    /// EXTENDED COMMUNITIES (RFC 4360).
    pub extended_communities: Vec<[u8; 8]>,
    /// LARGE_COMMUNITIES (RFC 8092).
    pub large_communities: Vec<[u32; 3]>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456).
    pub cluster_list: Vec<Ipv4Addr>,
    /// Attributes to be carried on unseen, by code.
    pub unknown: Vec<UnknownAttribute>,
    /// Codes of attributes above that came with the Partial bit, which stays (RFC 4271 section 5).
    pub partial: Vec<u8>,
    /// What this speaker's policy remembers of own routes; never sent, and 0 in what is received.
    pub mark: u8,
}

impl Attributes {
    /// Attributes of an own route: nothing but a next hop.
    pub fn new(next_hop: NextHop) -> Self {
        Self {
            origin: Origin::Igp,
            as_path: AsPath::default(),
            next_hop,
            med: None,
            local_pref: None,
            atomic_aggregate: false,
            aggregator: None,
            communities: Vec::new(),
            extended_communities: Vec::new(),
            large_communities: Vec::new(),
            originator_id: None,
            cluster_list: Vec::new(),
            unknown: Vec::new(),
            partial: Vec::new(),
            mark: 0,
        }
    }

    /// All communities as text: `65000:1`, `0x0002fde800000001`, `65000:1:2`.
    pub fn communities_text(&self) -> Vec<String> {
        let standard = self.communities.iter().map(|it| community::text(*it));
        let extended = self
            .extended_communities
            .iter()
            .map(|it| format!("0x{}", super::hex(it)));
        let large = self
            .large_communities
            .iter()
            .map(|[a, b, c]| format!("{a}:{b}:{c}"));
        standard.chain(extended).chain(large).collect()
    }
}

/// Writes everything but the next hop, so that [`unpack`] gives the same again. Whether it can: a path of 2-octet AS
/// numbers that filled a message may be longer than an attribute can be, and policy adds to lists.
pub(crate) fn pack(attributes: &Attributes, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    encode(attributes, false, Dialect::plain(true), out);
    let is_short = u16::try_from(out.len() - start).is_ok();
    is_short || {
        let mut again = unpack(&out[start..], attributes.next_hop);
        again.mark = attributes.mark;
        again == *attributes
    }
}

/// What [`pack`] wrote, with that next hop.
pub(crate) fn unpack(bytes: &[u8], next_hop: NextHop) -> Attributes {
    let decoded = decode(bytes, Dialect::plain(true)).ok();
    let attributes = decoded.and_then(|it| it.attributes(next_hop));
    // What was written, and fits, is readable.
    attributes.unwrap_or_else(|| Attributes::new(next_hop))
}

/// What is done about a bad attribute (RFC 7606 section 2), short of ending the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reaction {
    /// The attribute is left out, the routes stay.
    DiscardAttribute,
    /// All prefixes of the UPDATE count as withdrawn.
    TreatAsWithdraw,
}

/// What was wrong with an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// Flags that contradict the type.
    Flags,
    /// A length that the type cannot have.
    Length,
    /// A value that means nothing.
    Value,
    /// The attribute has come before in this UPDATE.
    Duplicate,
    /// A mandatory attribute is not there.
    Missing,
    /// An attribute that only an internal peer may send, or never this one.
    NotAllowed,
    /// Attributes end in the middle of one.
    Truncated,
    /// Prefixes of a family that is not spoken here.
    Family,
}

impl ProblemKind {
    fn words(self) -> &'static str {
        match self {
            Self::Flags => "wrong flags",
            Self::Length => "wrong length",
            Self::Value => "meaningless value",
            Self::Duplicate => "more than one",
            Self::Missing => "missing",
            Self::NotAllowed => "not allowed from this peer",
            Self::Truncated => "truncated",
            Self::Family => "unknown family",
        }
    }
}

/// A bad attribute and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The attribute's type code; 0 when it could not be read.
    pub code: u8,
    /// What was wrong.
    pub kind: ProblemKind,
    /// What was done.
    pub reaction: Reaction,
    /// The attribute's value.
    pub bytes: Vec<u8>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reaction = match self.reaction {
            Reaction::DiscardAttribute => "attribute discarded",
            Reaction::TreatAsWithdraw => "treated as withdrawal",
        };
        write!(
            f,
            "attribute {}: {}, {reaction}",
            self.code,
            self.kind.words()
        )
    }
}
