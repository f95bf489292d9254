//! What a next hop resolves to: interfaces, addresses and the kernel's routes that are not from BGP.

mod table;

use std::net::{IpAddr, Ipv6Addr};

use crds::net::Cidr;
use serde::{Deserialize, Serialize};

pub use table::Table;
pub(crate) use table::is_link_local;

/// One change of what the kernel knows. The driver sends all that exists at start, then what changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// An interface appeared or changed.
    Link {
        /// Its index.
        ifindex: u32,
        /// Its name.
        name: String,
        /// Administratively up and with carrier.
        up: bool,
    },
    /// An interface is gone, and with it its addresses.
    LinkGone {
        /// Its index.
        ifindex: u32,
    },
    /// An own address.
    Address {
        /// Interface it is on.
        ifindex: u32,
        /// The address.
        address: IpAddr,
        /// The prefix it makes directly reachable; a /32 or /128 for none but itself or its remote end.
        network: Cidr,
    },
    /// An own address is gone.
    AddressGone {
        /// Interface it was on.
        ifindex: u32,
        /// The address.
        address: IpAddr,
        /// The prefix it made reachable.
        network: Cidr,
    },
    /// A router on a link, by its link-local address: it has sent a router advertisement (RFC 4861).
    Router {
        /// Interface it is on.
        ifindex: u32,
        /// Its address.
        address: Ipv6Addr,
    },
    /// That router is not known any more.
    RouterGone {
        /// Interface it was on.
        ifindex: u32,
        /// Its address.
        address: Ipv6Addr,
    },
    /// A kernel route of a protocol other than BGP's (78), in the main table.
    Route(Route),
    /// That route is gone. Only prefix and metric identify it.
    RouteGone {
        /// Its destination.
        prefix: Cidr,
        /// Its metric.
        metric: u32,
    },
}

/// A kernel route that next hops may be resolved through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Its destination.
    pub prefix: Cidr,
    /// Its metric; the lowest of one prefix counts.
    pub metric: u32,
    /// Its ways, in the kernel's order; empty for unreachable, blackhole and the like.
    pub vias: Vec<Via>,
}

/// One way of a kernel route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Via {
    /// The gateway, of either family; none when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The interface.
    pub ifindex: u32,
}

/// A next hop as an UPDATE carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NextHop {
    /// The address that is announced further; link-local only if the sender has nothing else.
    pub address: IpAddr,
    /// The second address of RFC 2545 section 3.
    pub link_local: Option<Ipv6Addr>,
}

impl From<IpAddr> for NextHop {
    fn from(address: IpAddr) -> Self {
        Self {
            address,
            link_local: None,
        }
    }
}

/// What a next hop resolves to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resolution {
    /// The neighbour that takes the packets.
    pub gateway: IpAddr,
    /// The interface it is on.
    pub ifindex: u32,
    /// No connected prefix holds the gateway.
    pub onlink: bool,
    /// Metric of the kernel route used; 0 for a connected prefix. Compared as the IGP cost.
    pub cost: u32,
}

#[cfg(test)]
mod tests;
