//! What the kernel's routes shall be: one for each address of an endpoint, an unreachable one for each block, and bgpd's.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::v1::OriginKind;
use crds::net::{Cidr, Family};

use super::endpoint::State;
use super::{Agent, Output};
use crate::routes::table::Changed;
use crate::routes::want;

impl Agent {
    /// Wants the routes to an endpoint's addresses.
    pub(super) fn want_workload(&mut self, name: &str) {
        let Some(endpoint) = self.endpoints.get(name) else {
            return;
        };
        let Some(ifindex) = endpoint.ifindex else {
            return;
        };
        for address in &endpoint.addresses {
            if self.wants.workloads.insert(*address, ifindex) != Some(ifindex) {
                self.routes_changed.add(want::workload(*address));
            }
        }
    }

    /// Wants them no more.
    pub(super) fn unwant_workload(&mut self, name: &str) {
        let Some(endpoint) = self.endpoints.get(name) else {
            return;
        };
        for address in &endpoint.addresses {
            if self.wants.workloads.remove(address).is_some() {
                self.routes_changed.add(want::workload(*address));
            }
        }
    }

    /// Wants packets to addresses of a block that nobody has to be refused here, not sent back to the fabric.
    pub(super) fn want_block(&mut self, cidr: Cidr) {
        if self.wants.blocks.insert(cidr) {
            self.routes_changed.add(want::block(cidr));
        }
    }

    pub(super) fn unwant_block(&mut self, cidr: Cidr) {
        if self.wants.blocks.remove(&cidr) {
            self.routes_changed.add(want::block(cidr));
        }
    }

    /// Makes a prefix's route what bgpd last said.
    pub(super) fn want_bgp(&mut self, prefix: Cidr) {
        match self.bgp.legs(&prefix) {
            Some(legs) => self.wants.bgp.insert(prefix, legs.to_vec()),
            None => self.wants.bgp.remove(&prefix),
        };
        self.routes_changed.add(want::bgp(prefix));
    }

    /// The node's addresses changed: routes name them as the source of the node's own packets.
    pub(super) fn readdress(&mut self) {
        let addresses = self.node.addresses.iter().rev();
        self.wants.sources = addresses
            .map(|address| (Family::of(*address), *address))
            .collect();
        self.routes_changed = Changed::All;
        self.tell_addresses();
    }

    /// Own addresses on loopback interfaces are these now.
    pub(super) fn loopbacks(&mut self, addresses: BTreeSet<IpAddr>) {
        if self.loopbacks != addresses {
            self.loopbacks = addresses;
            self.tell_addresses();
        }
    }

    /// Announces the node's addresses that are on a loopback interface, where no neighbour finds them by itself.
    fn tell_addresses(&mut self) {
        let own: BTreeSet<IpAddr> = self.node.addresses.iter().copied().collect();
        let wanted: BTreeSet<IpAddr> = own.intersection(&self.loopbacks).copied().collect();
        let gone: Vec<IpAddr> = self.told_addresses.difference(&wanted).copied().collect();
        for address in gone {
            let (message, _) = self.bgp.withdraw(Cidr::host(address));
            self.outputs.extend(message.map(Output::ToBgpd));
        }
        for address in &wanted {
            let message = self
                .bgp
                .announce(Cidr::host(*address), OriginKind::Node, false);
            self.outputs.extend(message.map(Output::ToBgpd));
        }
        self.terms.own(wanted.iter());
        self.told_addresses = wanted;
    }

    /// A host interface of ours came or went.
    pub(super) fn link(&mut self, name: &str, ifindex: Option<u32>) {
        match ifindex {
            Some(ifindex) => self.links.insert(name.to_owned(), ifindex),
            None => self.links.remove(name),
        };
        let Some(endpoint) = self.endpoints.get_mut(name) else {
            return;
        };
        if endpoint.ifindex == ifindex {
            return;
        }
        endpoint.ifindex = ifindex;
        match (&endpoint.state, ifindex) {
            // The pod's namespace went without a DEL yet. Its routes went with the interface; the DEL frees the rest.
            (State::Attached | State::Programming { .. }, None) => self.unwant_workload(name),
            (State::Attached | State::Programming { .. }, Some(_)) => {
                self.want_workload(name);
                // A new interface has the kernel's default group.
                self.tables_known = false;
                self.engine_dirty = true;
            }
            _ => {}
        }
    }
}
