//! The table that next hops are resolved in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use crds::net::{Cidr, Family};

use super::{Change, NextHop, Resolution, Route, Via};

/// Interfaces, own addresses and kernel routes of one node.
#[derive(Debug, Clone, Default)]
pub struct Table {
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<(u32, IpAddr, Cidr)>,
    /// The interfaces that carry an own address, once for each network it is in there.
    own: BTreeMap<IpAddr, Vec<u32>>,
    routes: BTreeMap<Cidr, BTreeMap<u32, Vec<Via>>>,
    routers: BTreeSet<(u32, Ipv6Addr)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    name: String,
    up: bool,
}

impl Table {
    /// Takes a change; returns whether anything differs now.
    pub fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Link { ifindex, name, up } => {
                let link = Link { name, up };
                self.links.insert(ifindex, link.clone()) != Some(link)
            }
            Change::LinkGone { ifindex } => {
                self.addresses.retain(|(index, ..)| *index != ifindex);
                self.own.retain(|_, on| {
                    on.retain(|index| *index != ifindex);
                    !on.is_empty()
                });
                self.routers.retain(|(index, _)| *index != ifindex);
                self.links.remove(&ifindex).is_some()
            }
            Change::Address {
                ifindex,
                address,
                network,
            } => {
                let is_new = self.addresses.insert((ifindex, address, network));
                if is_new {
                    self.own.entry(address).or_default().push(ifindex);
                }
                is_new
            }
            Change::AddressGone {
                ifindex,
                address,
                network,
            } => {
                let is_gone = self.addresses.remove(&(ifindex, address, network));
                if is_gone && let Some(on) = self.own.get_mut(&address) {
                    if let Some(at) = on.iter().position(|index| *index == ifindex) {
                        on.swap_remove(at);
                    }
                    if on.is_empty() {
                        self.own.remove(&address);
                    }
                }
                is_gone
            }
            Change::Router { ifindex, address } => self.routers.insert((ifindex, address)),
            Change::RouterGone { ifindex, address } => self.routers.remove(&(ifindex, address)),
            Change::Route(Route {
                prefix,
                metric,
                vias,
            }) => {
                let routes = self.routes.entry(prefix).or_default();
                routes.insert(metric, vias.clone()) != Some(vias)
            }
            Change::RouteGone { prefix, metric } => {
                let Some(routes) = self.routes.get_mut(&prefix) else {
                    return false;
                };
                let changed = routes.remove(&metric).is_some();
                if routes.is_empty() {
                    self.routes.remove(&prefix);
                }
                changed
            }
        }
    }

    /// Own addresses that a change brings or takes away, with their networks.
    pub fn addresses_of(&self, change: &Change) -> Vec<(IpAddr, Cidr)> {
        match change {
            Change::Address {
                address, network, ..
            }
            | Change::AddressGone {
                address, network, ..
            } => vec![(*address, *network)],
            // They go with their interface.
            Change::LinkGone { ifindex } => {
                let on = self.addresses.iter().filter(|(index, ..)| index == ifindex);
                on.map(|(_, address, network)| (*address, *network))
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether the address is this node's own, on any interface.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains_key(&address)
    }

    /// Whether the address means this node for whoever is on that interface: a link-local one may be a neighbour's
    /// on one link, and an own one on another.
    pub fn is_own_on(&self, address: IpAddr, ifindex: Option<u32>) -> bool {
        let on_it = |on: &Vec<u32>| match ifindex {
            Some(ifindex) if is_link_local(address) => on.contains(&ifindex),
            _ => true,
        };
        self.own.get(&address).is_some_and(on_it)
    }

    /// Whether an own network holds the address, on an interface that is up or not.
    pub fn shares_network(&self, address: IpAddr) -> bool {
        let mut networks = self.addresses.iter().map(|(_, _, network)| network);
        networks.any(|network| network.contains(address))
    }

    /// The interface that carries the own address, an up one first.
    pub fn interface_of(&self, address: IpAddr) -> Option<u32> {
        let mut found = self
            .addresses
            .iter()
            .filter(|(_, own, _)| *own == address)
            .map(|(index, ..)| *index);
        let first = found.clone().next();
        found.find(|index| self.is_up(*index)).or(first)
    }

    /// The interface of that name.
    pub fn interface_named(&self, name: &str) -> Option<u32> {
        self.links
            .iter()
            .find(|(_, link)| link.name == name)
            .map(|(index, _)| *index)
    }

    /// Name of an interface.
    pub fn interface_name(&self, ifindex: u32) -> Option<&str> {
        self.links.get(&ifindex).map(|link| link.name.as_str())
    }

    /// An own address of that family on the interface that can be announced as a next hop: not link-local; the
    /// lowest one, so that the choice is stable.
    pub fn own_address(&self, ifindex: u32, family: Family) -> Option<IpAddr> {
        self.addresses
            .iter()
            .filter(|(index, address, _)| {
                *index == ifindex && Family::of(*address) == family && !is_link_local(*address)
            })
            .map(|(_, address, _)| *address)
            .next()
    }

    /// The interface's own link-local IPv6 address.
    pub fn link_local(&self, ifindex: u32) -> Option<Ipv6Addr> {
        self.addresses
            .iter()
            .find_map(|(index, address, _)| match address {
                IpAddr::V6(v6) if *index == ifindex && v6.is_unicast_link_local() => Some(*v6),
                _ => None,
            })
    }

    /// The up interface whose connected prefix holds the address.
    pub fn connected(&self, address: IpAddr) -> Option<u32> {
        self.longest_connected(address).map(|(index, _)| index)
    }

    /// The router on an up interface, which is not this machine; of several the one with the lowest address, so that the
    /// choice is stable.
    pub fn router(&self, ifindex: u32) -> Option<Ipv6Addr> {
        let mut on = self.routers.iter().filter(|(index, address)| {
            *index == ifindex && !self.is_own_on(IpAddr::V6(*address), Some(ifindex))
        });
        let (_, address) = on.next()?;
        self.is_up(ifindex).then_some(*address)
    }

    /// Whether nothing of the kernel is known yet.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Whether the address is on a connected network, or on one side of a link.
    pub fn is_connected(&self, address: IpAddr) -> bool {
        is_link_local(address) || self.connected(address).is_some()
    }

    /// Where packets to the next hop go. `session` is the interface of the session that gave it, which a link-local
    /// address needs. None: nowhere.
    pub fn resolve(&self, next_hop: NextHop, session: Option<u32>) -> Option<Resolution> {
        if !is_link_local(next_hop.address) {
            let found = self.resolve_global(next_hop.address);
            if found.is_some() {
                return found;
            }
        }
        let gateway = if is_link_local(next_hop.address) {
            next_hop.address
        } else {
            IpAddr::V6(next_hop.link_local?)
        };
        let ifindex = session.filter(|index| self.is_up(*index))?;
        Some(Resolution {
            gateway,
            ifindex,
            onlink: false,
            cost: 0,
        })
    }

    fn resolve_global(&self, address: IpAddr) -> Option<Resolution> {
        let connected = self.longest_connected(address);
        let route = self.longest_route(address);
        let route_is_longer = match (&connected, &route) {
            (Some((_, network)), Some((prefix, ..))) => prefix.prefix_len() > network.prefix_len(),
            (None, _) => true,
            (Some(_), None) => false,
        };
        match (connected, route) {
            (Some((ifindex, _)), _) if !route_is_longer => Some(Resolution {
                gateway: address,
                ifindex,
                onlink: false,
                cost: 0,
            }),
            (_, Some((_, metric, vias))) => {
                let via = vias.iter().find(|via| self.is_up(via.ifindex))?;
                let gateway = via.gateway.unwrap_or(address);
                // An address on the link that only a route says so is not in a connected prefix.
                let onlink =
                    !is_link_local(gateway) && self.connected(gateway) != Some(via.ifindex);
                Some(Resolution {
                    gateway,
                    ifindex: via.ifindex,
                    onlink,
                    cost: metric,
                })
            }
            _ => None,
        }
    }

    fn longest_connected(&self, address: IpAddr) -> Option<(u32, Cidr)> {
        if is_link_local(address) {
            return None;
        }
        self.addresses
            .iter()
            .filter(|(index, _, network)| network.contains(address) && self.is_up(*index))
            .map(|(index, _, network)| (*index, *network))
            // The lowest index of the longest prefix: the order of iteration is by index.
            .reduce(|best, it| {
                if it.1.prefix_len() > best.1.prefix_len() {
                    it
                } else {
                    best
                }
            })
    }

    fn longest_route(&self, address: IpAddr) -> Option<(Cidr, u32, &[Via])> {
        (0..=Family::of(address).bits()).rev().find_map(|length| {
            let prefix = Cidr::new(address, length).ok()?;
            let (metric, vias) = self.routes.get(&prefix)?.first_key_value()?;
            Some((prefix, *metric, vias.as_slice()))
        })
    }

    /// Whether the interface can carry packets.
    pub fn is_up(&self, ifindex: u32) -> bool {
        self.links.get(&ifindex).is_some_and(|link| link.up)
    }
}

/// Whether an address has a meaning on one link only.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
