//! Routes and nexthop objects as values.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crds::net::Cidr;

/// The main routing table (`RT_TABLE_MAIN`).
pub const MAIN_TABLE: u32 = 254;
/// Protocol of routes to workloads and of unreachable blocks.
pub const WORKLOAD_PROTOCOL: u8 = 77;
/// Protocol of routes learnt over BGP, and of all nexthop objects.
pub const BGP_PROTOCOL: u8 = 78;
/// Metric of routes to workloads.
pub const WORKLOAD_METRIC: u32 = 32;
/// Metric of unreachable blocks.
pub const BLOCK_METRIC: u32 = 64;
/// Metric of routes learnt over BGP.
pub const BGP_METRIC: u32 = 128;
/// Numbers of our nexthop objects lie from here …
pub const FIRST_NEXTHOP: u32 = 0x6d00_0000;
/// … to here.
pub const LAST_NEXTHOP: u32 = 0x6dff_ffff;

/// What identifies a route: the kernel replaces one with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Routing table.
    pub table: u32,
    /// Destination.
    pub prefix: Cidr,
    /// Metric; lower wins.
    pub metric: u32,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} metric {}", self.prefix, self.metric)?;
        if self.table == MAIN_TABLE {
            Ok(())
        } else {
            write!(f, " table {}", self.table)
        }
    }
}

/// A way to a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leg {
    /// The neighbour; of either family for an IPv4 destination (RFC 8950).
    pub gateway: IpAddr,
    /// Interface it is on.
    pub ifindex: u32,
    /// No connected route says so.
    pub onlink: bool,
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "via {} dev #{}{}",
            self.gateway,
            self.ifindex,
            if self.onlink { " onlink" } else { "" }
        )
    }
}

/// The ways to a destination, with their shares of the traffic. One alone always has the share 1. Thousands of routes share
/// few of these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Legs(Arc<BTreeMap<Leg, u8>>);

impl Legs {
    /// These ways; `None` when there is none. Of one named twice, the last share counts; a share of 0 is 1.
    #[must_use]
    pub fn new(legs: impl IntoIterator<Item = (Leg, u8)>) -> Option<Self> {
        let mut legs: BTreeMap<_, _> = legs
            .into_iter()
            .map(|(leg, weight)| (leg, weight.max(1)))
            .collect();
        if legs.len() == 1 {
            legs.values_mut().for_each(|weight| *weight = 1);
        }
        (!legs.is_empty()).then(|| Self(Arc::new(legs)))
    }

    /// The ways and their shares.
    pub fn iter(&self) -> impl Iterator<Item = (Leg, u8)> {
        self.0.iter().map(|(leg, weight)| (*leg, *weight))
    }

    /// The way, if there is but one.
    #[must_use]
    pub fn single(&self) -> Option<Leg> {
        (self.0.len() == 1)
            .then(|| self.0.keys().next().copied())
            .flatten()
    }
}

/// A route as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To a local pod's address, over its host veth.
    Workload {
        /// The veth.
        ifindex: u32,
        /// Source address of the node's own packets on it.
        source: Option<IpAddr>,
    },
    /// The addresses of an own block which no pod has.
    Unreachable,
    /// Learnt over BGP.
    Bgp {
        /// The ways.
        legs: Legs,
        /// Source address of the node's own packets on it.
        source: Option<IpAddr>,
    },
}

impl Route {
    /// Protocol it is entered with.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        match self {
            Self::Workload { .. } | Self::Unreachable => WORKLOAD_PROTOCOL,
            Self::Bgp { .. } => BGP_PROTOCOL,
        }
    }
}

/// Where a route of the kernel's leads, as far as ours go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// An interface, without a gateway.
    Device {
        /// The interface.
        ifindex: u32,
        /// Source address.
        source: Option<IpAddr>,
    },
    /// Nowhere: packets are answered with an ICMP error.
    Unreachable,
    /// A nexthop object.
    Nexthop {
        /// Its number.
        id: u32,
        /// Source address.
        source: Option<IpAddr>,
    },
    /// Anything else; never ours.
    Other,
}

/// A route of ours, as it is in the kernel or shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Protocol 77 or 78.
    pub protocol: u8,
    /// Where it leads.
    pub via: Via,
}

/// A nexthop object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nexthop {
    /// One way.
    Leg(Leg),
    /// Several objects that are [`Nexthop::Leg`]s, and their shares.
    Group(BTreeMap<u32, u8>),
    /// Anything else; never ours.
    Other,
}

/// What the kernel has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Our routes.
    pub routes: BTreeMap<Key, Entry>,
    /// Protocols of others' routes.
    pub foreign: BTreeMap<Key, u8>,
    /// Our nexthop objects.
    pub nexthops: BTreeMap<u32, Nexthop>,
    /// Numbers in our range that others' objects have.
    pub foreign_nexthops: std::collections::BTreeSet<u32>,
}
