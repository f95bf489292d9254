//! The elements that follow from what is wanted.

use std::net::IpAddr;

use crds::net::{Cidr, Family};

use super::annotations::{Limits, Way};
use super::{Terms, place, widest};
use crate::nft::build;
use crate::nft::model::{Element, More, Quota, Set, Value};
use crate::nft::rows;
use crate::nft::terms::Elements;

/// A set for each family.
type Sets = [&'static Set; 2];

const NAT_FROM: Sets = [&build::NAT_FROM4, &build::NAT_FROM6];
const NAT_NOT: Sets = [&build::NAT_NOT4, &build::NAT_NOT6];
const NAT_TO: Sets = [&build::NAT_TO4, &build::NAT_TO6];
const SERVICE: Sets = [&build::SERVICE4, &build::SERVICE6];
const CLUSTER: Sets = [&build::CLUSTER4, &build::CLUSTER6];
const FLOATING: Sets = [&build::FLOATING4, &build::FLOATING6];
const HAIRPIN: Sets = [&build::HAIRPIN4, &build::HAIRPIN6];
const SOURCE: Sets = [&build::SOURCE4, &build::SOURCE6];

impl Terms {
    pub(super) fn elements(&self) -> Elements {
        let mut all = Elements::default();
        self.translation(&mut all);
        if self.rules().services.is_some() {
            ranges(&mut all, SERVICE, self.chosen.service_cidrs.iter().copied());
        }
        self.of_pods(&mut all);
        for (address, _, pod) in self.floating() {
            let family = Family::of(address);
            let mapped = |sets, key: Vec<Value>, to| Element {
                more: Some(More::Address(to)),
                ..rows::element(of(sets, family), key)
            };
            all.insert(mapped(FLOATING, vec![Value::Address(address)], pod));
            // With several, any of them will do.
            let itself = vec![Value::Address(pod), Value::Address(pod)];
            all.insert(mapped(HAIRPIN, itself, address));
        }
        all
    }

    fn pools(&self) -> impl Iterator<Item = Cidr> {
        self.pools.values().map(|pool| pool.cidr)
    }

    fn hosts(&self) -> impl Iterator<Item = Cidr> {
        self.nodes.values().flatten().copied().map(Cidr::host)
    }

    fn translation(&self, all: &mut Elements) {
        let nat = self.pools.values().filter(|pool| pool.nat_outgoing);
        let from = widest(nat.map(|pool| pool.cidr));
        if from.is_empty() {
            return;
        }
        ranges(all, NAT_FROM, from.iter().copied());
        let hosts = self.hosts().filter(|_| self.chosen.nodes_excluded);
        ranges(all, NAT_NOT, self.pools().chain(hosts));
        for prefix in from {
            let family = place(prefix.family());
            if let Some(address) = self.chosen.nat_address[family].or(self.own[family]) {
                all.insert(Element {
                    more: Some(More::Address(address)),
                    ..range(NAT_TO, prefix)
                });
            }
        }
    }

    fn of_pods(&self, all: &mut Elements) {
        let mut marked = false;
        for (name, link, asked) in self.asked() {
            let key = vec![Value::Name(name.clone())];
            let named = |set| Element {
                comment: Some(link.pod.clone()),
                ..rows::element(set, key.clone())
            };
            if self.chosen.spoofing {
                for prefix in widest(asked.sources.iter().copied()) {
                    let value =
                        |address: IpAddr| vec![Value::Name(name.clone()), Value::Address(address)];
                    all.insert(Element {
                        last: Some(value(prefix.last())),
                        comment: Some(link.pod.clone()),
                        ..rows::element(of(SOURCE, prefix.family()), value(prefix.first()))
                    });
                }
            }
            if asked.is_limited() {
                all.insert(named(&build::LIMITED));
            }
            for way in [Way::In, Way::Out] {
                for (set, quota) in quotas(way, asked.limits[way as usize]) {
                    all.insert(Element {
                        more: Some(More::Over(quota)),
                        ..named(set)
                    });
                }
            }
            if let Some(dscp) = asked.dscp {
                marked = true;
                all.insert(Element {
                    value: Some(dscp.into()),
                    ..named(&build::DSCP)
                });
            }
        }
        if marked {
            ranges(all, CLUSTER, self.pools().chain(self.hosts()));
        }
    }
}

/// What a pod gets is limited by a queue of its interface, everything else by sets.
fn quotas(way: Way, limits: Limits) -> Vec<(&'static Set, Quota)> {
    let packets: &'static Set = match way {
        Way::In => &build::INGRESS_PACKETS,
        Way::Out => &build::EGRESS_PACKETS,
    };
    let mut quotas = Vec::new();
    if let Some((rate, burst)) = limits.packets {
        quotas.push((packets, Quota::Packets { rate, burst }));
    }
    if let Some(most) = limits.connections {
        let set: &'static Set = match way {
            Way::In => &build::INGRESS_CONNECTIONS,
            Way::Out => &build::EGRESS_CONNECTIONS,
        };
        quotas.push((set, Quota::Connections(most)));
    }
    if let Some(shape) = limits.bandwidth.filter(|_| way == Way::Out) {
        let quota = Quota::Bytes {
            rate: shape.rate,
            burst: shape.burst,
        };
        quotas.push((&build::EGRESS_BYTES, quota));
    }
    quotas
}

const fn of(sets: Sets, family: Family) -> &'static Set {
    sets[place(family)]
}

fn range(sets: Sets, prefix: Cidr) -> Element {
    let value = |address| vec![Value::Address(address)];
    Element {
        last: Some(value(prefix.last())),
        ..rows::element(of(sets, prefix.family()), value(prefix.first()))
    }
}

fn ranges(all: &mut Elements, sets: Sets, prefixes: impl IntoIterator<Item = Cidr>) {
    for prefix in widest(prefixes) {
        all.insert(range(sets, prefix));
    }
}
