//! Addresses that may be in use though no attachment is known: after the log was lost they are not given out.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crds::ipam_block::Block as SeenBlock;
use crds::net::Cidr;

use crate::Millis;
use crate::attachment::{self, Key, Pod};
use crate::journal::{Hold, Record};

use super::Ipam;

/// How long an address is held back at least, whatever is seen in use.
const HOLD: Millis = 60_000;

/// An address that is held back.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// Who had it; empty when only a route or a pod shows it.
    pub(super) key: Key,
    pub(super) pod: Pod,
    pub(super) since: Millis,
}

impl Ipam {
    /// Holds back what is seen in use without an attachment; frees what was held long enough and is not seen any more.
    pub(super) fn in_use(&mut self, addresses: BTreeSet<IpAddr>, now: Millis) {
        let over = self
            .held
            .iter()
            .filter(|(address, held)| held.since + HOLD <= now && !addresses.contains(address));
        for address in over.map(|(address, _)| *address).collect::<Vec<_>>() {
            self.unhold(address, now);
        }
        self.in_use = Some(addresses);
        for cidr in self.entries.keys().copied().collect::<Vec<_>>() {
            self.hold_in_use(cidr, now);
        }
    }

    /// Holds back the addresses of a block that are seen in use.
    pub(super) fn hold_in_use(&mut self, cidr: Cidr, now: Millis) {
        let seen = self
            .in_use
            .iter()
            .flatten()
            .filter(|address| cidr.contains(**address))
            .copied();
        for address in seen.collect::<Vec<_>>() {
            self.hold(cidr, address, Key::default(), Pod::default(), now);
        }
    }

    /// Holds back what the mirror of a block shows, when the log cannot be relied on.
    pub(super) fn hold_mirrored(&mut self, block: &SeenBlock, now: Millis) {
        for (address, line) in &block.allocations {
            let (key, pod) = attachment::from_mirror(line);
            self.hold(block.cidr, *address, key, pod, now);
        }
    }

    fn hold(&mut self, cidr: Cidr, address: IpAddr, key: Key, pod: Pod, now: Millis) {
        let free = self
            .entries
            .get(&cidr)
            .is_some_and(|entry| !entry.block.is_used(address));
        if free {
            self.take(cidr, address, now);
            self.log(Record::Hold(Hold {
                address,
                key: key.clone(),
                pod: pod.clone(),
            }));
            self.held.insert(
                address,
                Held {
                    key,
                    pod,
                    since: now,
                },
            );
        }
    }

    pub(super) fn unhold(&mut self, address: IpAddr, now: Millis) {
        if self.held.remove(&address).is_some() {
            self.log(Record::Unhold { address });
            self.give_back(address, now);
        }
    }
}
