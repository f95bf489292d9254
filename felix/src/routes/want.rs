//! The routes a node wants: to its pods, for its blocks, and those learnt over BGP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crds::net::{Cidr, Family};

use super::model::{BGP_METRIC, BLOCK_METRIC, Key, Leg, Legs, MAIN_TABLE, Route, WORKLOAD_METRIC};

/// A leg as bgpd tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BgpLeg {
    /// The neighbour.
    pub address: IpAddr,
    /// Its interface; `None` when the connected networks shall tell.
    pub ifindex: Option<u32>,
    /// It is on that interface although no connected network says so.
    pub onlink: bool,
    /// Share of the traffic, 1 to 255.
    pub weight: u8,
}

/// What routes are wanted for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// Interface of each local pod's address.
    pub workloads: BTreeMap<IpAddr, u32>,
    /// Own blocks.
    pub blocks: BTreeSet<Cidr>,
    /// Best routes.
    pub bgp: BTreeMap<Cidr, Vec<BgpLeg>>,
    /// The node's address of each family, which its own packets to pods carry.
    pub sources: BTreeMap<Family, IpAddr>,
}

/// What the kernel needs to know of a leg, and bgpd need not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connected {
    /// Interfaces which can carry packets. The kernel refuses nexthop objects on others.
    pub running: BTreeSet<u32>,
    /// Networks on interfaces.
    pub networks: BTreeSet<(Cidr, u32)>,
    /// Own addresses. The kernel refuses routes with any other source.
    pub addresses: BTreeSet<IpAddr>,
}

impl Connected {
    fn legs(&self, legs: &[BgpLeg]) -> Option<Legs> {
        Legs::new(legs.iter().filter_map(|leg| self.resolve(leg)))
    }

    fn resolve(&self, leg: &BgpLeg) -> Option<(Leg, u8)> {
        let ifindex = leg.ifindex.or_else(|| {
            let holding = self
                .networks
                .iter()
                .filter(|(network, _)| network.contains(leg.address));
            holding
                .max_by_key(|(network, _)| network.prefix_len())
                .map(|(_, ifindex)| *ifindex)
        })?;
        self.running.contains(&ifindex).then_some((
            Leg {
                gateway: leg.address,
                ifindex,
                onlink: leg.onlink,
            },
            leg.weight,
        ))
    }
}

/// The wanted routes, and the prefixes which have best routes but no leg that can be used now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Routes by key.
    pub routes: BTreeMap<Key, Route>,
    /// Best routes without a usable leg.
    pub unresolved: BTreeSet<Cidr>,
}

/// Where a pod's address is routed.
#[must_use]
pub fn workload(address: IpAddr) -> Key {
    key(Cidr::host(address), WORKLOAD_METRIC)
}

/// Where a block is made unreachable.
#[must_use]
pub const fn block(cidr: Cidr) -> Key {
    key(cidr, BLOCK_METRIC)
}

/// Where a best route is entered.
#[must_use]
pub const fn bgp(prefix: Cidr) -> Key {
    key(prefix, BGP_METRIC)
}

const fn key(prefix: Cidr, metric: u32) -> Key {
    Key {
        table: MAIN_TABLE,
        prefix,
        metric,
    }
}

impl Wants {
    /// The routes, given the state of the links.
    #[must_use]
    pub fn routes(&self, connected: &Connected) -> Wanted {
        let mut wanted = Wanted::default();
        for (address, ifindex) in &self.workloads {
            let route = self.to_workload(*address, *ifindex, connected);
            wanted.routes.insert(workload(*address), route);
        }
        // In a block of one address that address is a pod's, and nothing is left to be unreachable.
        for cidr in self.blocks.iter().filter(|block| !block.is_host()) {
            wanted.routes.insert(block(*cidr), Route::Unreachable);
        }
        // Most prefixes have the same few ways.
        let mut resolved: BTreeMap<&[BgpLeg], Option<Legs>> = BTreeMap::new();
        for (prefix, legs) in &self.bgp {
            let resolve = || connected.legs(legs);
            match resolved.entry(legs).or_insert_with(resolve) {
                Some(legs) => {
                    let source = self.source(prefix.family(), connected);
                    let legs = legs.clone();
                    wanted
                        .routes
                        .insert(bgp(*prefix), Route::Bgp { legs, source });
                }
                None => {
                    wanted.unresolved.insert(*prefix);
                }
            }
        }
        wanted
    }

    /// The route at one key.
    #[must_use]
    pub fn route(&self, key: Key, connected: &Connected) -> Option<Route> {
        let Key { prefix, metric, .. } = key;
        match metric {
            WORKLOAD_METRIC if prefix.is_host() => {
                let address = prefix.first();
                let ifindex = self.workloads.get(&address)?;
                Some(self.to_workload(address, *ifindex, connected))
            }
            BLOCK_METRIC if !prefix.is_host() => {
                let block = self.blocks.contains(&prefix);
                block.then_some(Route::Unreachable)
            }
            BGP_METRIC => Some(Route::Bgp {
                legs: connected.legs(self.bgp.get(&prefix)?)?,
                source: self.source(prefix.family(), connected),
            }),
            _ => None,
        }
    }

    fn to_workload(&self, address: IpAddr, ifindex: u32, connected: &Connected) -> Route {
        Route::Workload {
            ifindex,
            source: self.source(Family::of(address), connected),
        }
    }

    fn source(&self, family: Family, connected: &Connected) -> Option<IpAddr> {
        let source = self.sources.get(&family).copied();
        source.filter(|source| connected.addresses.contains(source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect("prefix")
    }

    fn leg(address: &str, ifindex: Option<u32>) -> BgpLeg {
        BgpLeg {
            address: address.parse().expect("address"),
            ifindex,
            onlink: false,
            weight: 1,
        }
    }

    #[test]
    fn legs_are_resolved_through_connected_networks_and_kept_off_dead_links() {
        let connected = Connected {
            running: [3, 4].into(),
            networks: [
                (cidr("10.0.0.0/8"), 3),
                (cidr("10.9.0.0/24"), 4),
                (cidr("10.8.0.0/24"), 5),
            ]
            .into(),
            ..Connected::default()
        };
        let wants = Wants {
            bgp: [
                (
                    cidr("10.244.0.0/26"),
                    vec![
                        leg("10.9.0.1", None),
                        leg("10.7.0.1", None),
                        leg("10.8.0.1", None),
                    ],
                ),
                (cidr("10.244.1.0/26"), vec![leg("10.8.0.1", Some(5))]),
            ]
            .into(),
            ..Wants::default()
        };
        let wanted = wants.routes(&connected);
        assert_eq!(wanted.unresolved, [cidr("10.244.1.0/26")].into());
        let key = Key {
            table: MAIN_TABLE,
            prefix: cidr("10.244.0.0/26"),
            metric: BGP_METRIC,
        };
        let Some(Route::Bgp { legs, .. }) = wanted.routes.get(&key) else {
            panic!("{wanted:?}")
        };
        let interfaces: Vec<_> = legs.iter().map(|(leg, _)| leg.ifindex).collect();
        assert_eq!(interfaces, [3, 4]);
    }

    #[test]
    fn blocks_of_one_address_get_no_unreachable_route() {
        let wants = Wants {
            workloads: [("fd00::1".parse().expect("address"), 7)].into(),
            blocks: [
                cidr("10.244.0.0/26"),
                cidr("10.244.9.9/32"),
                cidr("fd00::1/128"),
            ]
            .into(),
            sources: [(Family::V6, "fd00:9::1".parse().expect("address"))].into(),
            ..Wants::default()
        };
        let connected = Connected {
            addresses: ["fd00:9::1".parse().expect("address")].into(),
            ..Connected::default()
        };
        let routes = wants.routes(&connected).routes;
        let printed: Vec<_> = routes
            .iter()
            .map(|(key, route)| format!("{key} {}", route.protocol()))
            .collect();
        assert_eq!(
            printed,
            ["10.244.0.0/26 metric 64 77", "fd00::1/128 metric 32 77"]
        );
        let source = Some("fd00:9::1".parse().expect("address"));
        assert_eq!(
            routes.values().last(),
            Some(&Route::Workload { ifindex: 7, source })
        );
        let unsourced = wants.routes(&Connected::default()).routes;
        let source = None;
        assert_eq!(
            unsourced.values().last(),
            Some(&Route::Workload { ifindex: 7, source })
        );
    }
}
