//! The mirror: what `status` of a block's object says about its addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crds::ipam_block::{Allocation, Block as SeenBlock};
use crds::net::Cidr;

use crate::Millis;
use crate::attachment;
use crate::ownership::State;

use super::entry::Entry;
use super::{Ipam, Output};

/// Quiet time before the mirror is written, and least time between two writes.
const QUIET: Millis = 1_000;
/// Longest time a change waits while others follow it.
const CHURN: Millis = 5_000;

/// How far the mirror of a block is behind.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    /// First and last change that is not written.
    changed: Option<(Millis, Millis)>,
    sent: bool,
    not_before: Millis,
}

impl Mirror {
    pub(super) fn touch(&mut self, now: Millis) {
        let first = self.changed.map_or(now, |(first, _)| first);
        self.changed = Some((first, now));
    }

    fn due(&self) -> Option<Millis> {
        let (first, last) = self.changed.filter(|_| !self.sent)?;
        Some((last + QUIET).min(first + CHURN).max(self.not_before))
    }
}

impl Entry {
    /// When the mirror is written; None when it need not or cannot be.
    pub(super) fn mirror_time(&self) -> Option<Millis> {
        let writable = self.confirmed && matches!(self.state, State::Owned { .. });
        self.mirror.due().filter(|_| writable)
    }
}

impl Ipam {
    /// Addresses of the block that are in use or held back, in order.
    pub(super) fn allocations(&self, cidr: Cidr) -> Vec<Allocation> {
        let attached = self.attachments.values().flat_map(|attachment| {
            let line = |address: &IpAddr| {
                (
                    *address,
                    attachment::mirrored(*address, &attachment.key, &attachment.pod),
                )
            };
            attachment.addresses.iter().map(line)
        });
        let held = self.held.iter().map(|(address, held)| {
            (
                *address,
                attachment::mirrored(*address, &held.key, &held.pod),
            )
        });
        let lines: BTreeMap<IpAddr, Allocation> = held
            .chain(attached)
            .filter(|(address, _)| cidr.contains(*address))
            .collect();
        lines.into_values().collect()
    }

    /// Has the mirror written if the object's differs.
    pub(super) fn compare_mirror(&mut self, block: &SeenBlock, now: Millis) {
        let theirs: BTreeMap<IpAddr, &Allocation> = block
            .allocations
            .iter()
            .map(|(a, line)| (*a, line))
            .collect();
        let ours = self.allocations(block.cidr);
        let same = theirs.into_values().eq(ours.iter());
        if let Some(entry) = self.entries.get_mut(&block.cidr)
            && !same
            && entry.mirror.changed.is_none()
            && !entry.mirror.sent
        {
            entry.mirror.touch(now);
        }
    }

    pub(super) fn mirrored(&mut self, cidr: Cidr, now: Millis) {
        if let Some(entry) = self.entries.get_mut(&cidr) {
            entry.mirror.sent = false;
            entry.mirror.not_before = now + QUIET;
        }
    }

    pub(super) fn mirror_failed(&mut self, cidr: Cidr, now: Millis) {
        if let Some(entry) = self.entries.get_mut(&cidr) {
            entry.mirror.sent = false;
            entry.mirror.not_before = now + CHURN;
            entry.mirror.touch(now);
        }
    }

    pub(super) fn send_mirrors(&mut self, now: Millis) {
        let due = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.mirror_time().is_some_and(|at| at <= now));
        for cidr in due.map(|(cidr, _)| *cidr).collect::<Vec<_>>() {
            let allocations = self.allocations(cidr);
            if let Some(entry) = self.entries.get_mut(&cidr)
                && let State::Owned { epoch } = &entry.state
            {
                entry.mirror.sent = true;
                entry.mirror.changed = None;
                self.outputs.push_back(Output::Mirror {
                    cidr,
                    uid: epoch.clone(),
                    allocations,
                });
            }
        }
    }
}
