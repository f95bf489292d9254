//! The policy language: filters that judge and change routes, as data. [`crate::policy`] evaluates them.

mod understood;

use std::collections::BTreeSet;
use std::net::IpAddr;

use crds::net::Cidr;
use serde::{Deserialize, Serialize};

/// A list of rules; the first that matches and does not say [`Action::Next`] decides. What no rule decides goes on to
/// the peer's next filter, and after the last one is accepted or not as the peer's class says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// For routes learnt.
    pub import: Vec<Rule>,
    /// For routes told.
    pub export: Vec<Rule>,
}

/// One rule: all of its conditions have to hold; a list holds when one of its members does, an empty one always.
///
/// On import, [`Action::Accept`] also takes what [`super::ImportPolicy::Pools`] leaves out, but only prefixes that the
/// rule's own prefix conditions name, a default route only where /0 is named with no other length, and nothing inside
/// the speaker's own prefixes. Likewise a route that carries BLACKHOLE (RFC 7999) is taken only by a rule that asks for
/// that community. No rule overrides what RFC 4271 and 4456 say about loops.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Name for people and traces; empty: its place.
    pub name: String,
    /// What it is for.
    pub matches: Match,
    /// Changes to the route, in order. Later rules see them.
    pub changes: Vec<Change>,
    /// What then.
    pub action: Action,
}

/// What a rule does with a route that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Action {
    /// The route is taken, or told.
    Accept,
    /// It is not.
    Reject,
    /// The next rule looks at it.
    #[default]
    Next,
}

/// Prefixes inside a prefix whose length is within a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixMatch {
    /// The prefix.
    pub cidr: Cidr,
    /// The least length.
    pub min_len: u8,
    /// The greatest length.
    pub max_len: u8,
    /// Everything of the same family but these.
    pub negated: bool,
}

/// A community of any kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Community {
    /// RFC 1997.
    Standard(u32),
    /// RFC 4360.
    Extended([u8; 8]),
    /// RFC 8092.
    Large([u32; 3]),
}

/// Kind of the peer a route comes from, or goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PeerType {
    /// In another AS.
    External,
    /// In the own AS.
    Internal,
}

/// Where a route comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Source {
    /// Learnt from a peer.
    Remote,
    /// A block of this node.
    Block,
    /// An address borrowed from another node.
    Borrowed,
    /// A service's address.
    Service,
    /// The node's own address.
    Node,
}

/// What a rule looks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Match {
    /// One of these prefixes.
    pub prefixes: Vec<PrefixMatch>,
    /// The AS path contains one of these.
    pub as_path_contains: BTreeSet<u32>,
    /// The AS path begins with these.
    pub as_path_prefix: Vec<u32>,
    /// The route originates in one of these.
    pub origin_as: BTreeSet<u32>,
    /// The AS path is at least that long.
    pub as_path_min_length: Option<u32>,
    /// The AS path is at most that long.
    pub as_path_max_length: Option<u32>,
    /// It carries one of these.
    pub communities_any: BTreeSet<Community>,
    /// It carries all of these.
    pub communities_all: BTreeSet<Community>,
    /// The next hop is inside one of these.
    pub next_hops: Vec<Cidr>,
    /// The peer is of that type.
    pub peer_type: Option<PeerType>,
    /// It comes from there.
    pub sources: BTreeSet<Source>,
    /// MULTI_EXIT_DISC is that.
    pub med: Option<u32>,
    /// LOCAL_PREF is that.
    pub local_pref: Option<u32>,
}

/// A change to a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Adds communities.
    AddCommunities(BTreeSet<Community>),
    /// Removes communities.
    RemoveCommunities(BTreeSet<Community>),
    /// These and no others.
    ReplaceCommunities(BTreeSet<Community>),
    /// Puts an AS in front of the path, that many times; None: the own one.
    Prepend(Option<u32>, u8),
    /// Sets MULTI_EXIT_DISC; None removes it.
    Med(Option<u32>),
    /// Sets LOCAL_PREF.
    LocalPref(u32),
    /// Sets the next hop.
    NextHop(IpAddr),
}
