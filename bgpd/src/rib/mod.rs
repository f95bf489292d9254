//! Routing tables and the decision process of RFC 4271 section 9.
//!
//! ```text
//!  Update ─► insert/withdraw ─► paths (adj-RIBs-in) ─► decide ─► best path (loc-RIB) ─► Groups (adj-RIBs-out)
//!                                                         ▲
//!                                        next hops resolved, remembered per next hop
//! ```
//!
//! Prefixes, attribute sets and lists of ways are held once and go by dense numbers, so that a prefix with one path
//! costs some 60 bytes and no allocation of its own.

pub mod attributes;
pub mod decide;
mod due;
pub mod group;
mod ids;
mod judge;
mod nexthops;
mod prefixes;
mod settle;
mod stale;
mod table;

use std::net::{IpAddr, Ipv4Addr};

use crate::Millis;
use crate::policy::ImportRefusal;
use crate::wire::Attributes;

pub use attributes::{SetId, Sets};
pub use decide::{Decision, WhyNotBest};
pub use due::Due;
pub use group::{Groups, Outlet};
pub use nexthops::LegsId;
pub use settle::Settled;
pub use table::Rib;

/// Who paths come from: a peer for as long as it is configured, or this speaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u32);

impl SourceId {
    /// This speaker.
    pub const LOCAL: Self = Self(0);
}

/// Most paths of one source to one prefix (RFC 7911): more than any use of several paths needs, and few enough that a
/// peer that sends more and more of them does not make each costlier than the one before.
pub const PATHS_MAX: usize = 64;

/// A prefix's number; given to another prefix once nothing refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixId(u32);

impl PrefixId {
    fn index(self) -> usize {
        prefixes::at(self.0)
    }
}

/// What the decision process has to know of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The peer's address; None: this speaker.
    pub address: Option<IpAddr>,
    /// The peer is in our AS.
    pub internal: bool,
    /// The peer is a route reflection client.
    pub client: bool,
    /// The peer's BGP identifier.
    pub router_id: Ipv4Addr,
    /// The interface the session runs over.
    pub ifindex: Option<u32>,
    /// The peer is a pod on this node: what it announces is here.
    pub workload: bool,
}

impl Source {
    /// This speaker.
    pub fn local(router_id: Ipv4Addr) -> Self {
        Self {
            address: None,
            internal: false,
            client: false,
            router_id,
            ifindex: None,
            workload: false,
        }
    }

    /// Whether this is this speaker.
    pub fn is_local(&self) -> bool {
        self.address.is_none()
    }
}

/// What import policy makes of a path: refused, taken with other attributes, or taken as it is.
pub type Verdict<A = SetId> = Result<Option<A>, ImportRefusal>;

/// Whether a path's source still stands by it (RFC 4724 section 4.2, RFC 9494 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Freshness {
    /// It does.
    #[default]
    Fresh,
    /// The session has restarted or is gone, and the path has not come again; it is used like a fresh one.
    Stale,
    /// The same for so long that every other path is better.
    LongLived,
}

/// How many paths of one family a source has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceCount {
    /// All of them.
    pub received: usize,
    /// Those that import policy took.
    pub accepted: usize,
    /// Those that are not fresh.
    pub stale: usize,
}

/// One path to a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Who announced it.
    pub from: SourceId,
    /// Which of the source's paths to the prefix it is (RFC 7911); 0 without path identifiers.
    pub id: u32,
    /// What was said about it, or what import policy made of that.
    pub attributes: Attributes,
    /// What was said about it, when import policy made something else of it.
    pub received: Option<Attributes>,
    /// Whether its source still stands by it.
    pub freshness: Freshness,
    /// Why it is not used; None: import policy took it.
    pub refused: Option<ImportRefusal>,
    /// When it was received in this form, to the second.
    pub since: Millis,
}

/// The best path of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Best {
    /// Who announced it.
    pub from: SourceId,
    /// What was said about it.
    pub set: SetId,
}

#[cfg(test)]
mod tests;
