//! Floating addresses: routed to their pods here, and announced like an address of the node's own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::v1::OriginKind;
use crds::net::Cidr;

use super::{Agent, Output};
use crate::routes::want;

/// Index of no interface.
const NOWHERE: u32 = 0;

impl Agent {
    /// Takes up those of an earlier life: addresses that it routed to pods and that are of no attachment. They stay announced
    /// until the lists are complete and say who has them; the routes stay that long anyway.
    pub(super) fn take_up_floating(&mut self, routed: &BTreeSet<IpAddr>) {
        let attached = self.endpoints.values().flat_map(|it| &it.addresses);
        let attached: BTreeSet<IpAddr> = attached.copied().collect();
        for address in routed.difference(&attached) {
            self.floating.insert(*address, NOWHERE);
            let message = (self.bgp).announce(Cidr::host(*address), OriginKind::Borrowed, false);
            self.outputs.extend(message.map(Output::ToBgpd));
        }
    }

    /// Wants the routes of the floating addresses that are granted now, and no others.
    pub(super) fn float(&mut self) {
        let granted = self.terms.wanted().floating.iter();
        let wanted: BTreeMap<IpAddr, u32> = granted
            .filter_map(|(address, name)| Some((*address, self.endpoints.get(name)?.ifindex?)))
            .collect();
        if wanted == self.floating {
            return;
        }
        for (address, ifindex) in &wanted {
            if self.wants.workloads.insert(*address, *ifindex) != Some(*ifindex) {
                self.routes_changed.add(want::workload(*address));
            }
        }
        let before = std::mem::replace(&mut self.floating, wanted);
        for (address, ifindex) in before {
            if self.floating.contains_key(&address) {
                continue;
            }
            if self.wants.workloads.get(&address) == Some(&ifindex) {
                self.wants.workloads.remove(&address);
            }
            self.routes_changed.add(want::workload(address));
            let (message, _) = self.bgp.withdraw(Cidr::host(address));
            self.outputs.extend(message.map(Output::ToBgpd));
        }
    }

    /// The kernel has their routes: they may be announced.
    pub(super) fn announce_floating(&mut self) {
        for address in self.floating.keys() {
            let prefix = Cidr::host(*address);
            if !self.routed.refused.contains(&prefix) {
                let message = self.bgp.announce(prefix, OriginKind::Borrowed, false);
                self.outputs.extend(message.map(Output::ToBgpd));
            }
        }
    }
}
