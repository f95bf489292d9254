use std::net::IpAddr;

use crds::net::{Cidr, Family};

use crate::Millis;
use crate::block::Block;
use crate::error::AllocateError;
use crate::ownership::State;

use super::Ipam;
use super::mirror::Mirror;

/// A block this node has to do with.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) pool: String,
    pub(super) state: State,
    /// The API was seen to agree that it is ours, in this life of the process.
    pub(super) confirmed: bool,
    pub(super) announced: bool,
    pub(super) block: Block,
    /// The Create or Delete that the state asks for.
    pub(super) call: Call,
    pub(super) failures: u32,
    /// Since when nothing is in use; None while something is.
    pub(super) empty_since: Option<Millis>,
    pub(super) mirror: Mirror,
}

/// Where a Create or Delete stands. At most one is out per block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Idle,
    Sent,
    Wait(Millis),
}

impl Call {
    pub(super) fn is_due(self, now: Millis) -> bool {
        match self {
            Self::Idle => true,
            Self::Sent => false,
            Self::Wait(until) => until <= now,
        }
    }

    /// Puts the next call off, unless one is out.
    pub(super) fn wait(&mut self, until: Millis) {
        if *self != Self::Sent {
            *self = Self::Wait(until);
        }
    }
}

impl Entry {
    pub(super) fn is_empty(&self) -> bool {
        self.block.used() == 0
    }
}

impl Ipam {
    /// Begins to know a block: addresses of it that are in use or held back are so from the start. False if it is known, or too
    /// large to be a block.
    pub(super) fn enter(&mut self, cidr: Cidr, pool: &str, state: State, now: Millis) -> bool {
        let Ok(mut block) = Block::new(cidr) else {
            return false;
        };
        if self.entries.contains_key(&cidr) {
            return false;
        }
        let attached = self
            .attachments
            .values()
            .flat_map(|attachment| &attachment.addresses);
        for address in attached.chain(self.held.keys()) {
            block.take(*address);
        }
        let entry = Entry {
            pool: pool.to_owned(),
            state,
            confirmed: false,
            announced: false,
            empty_since: (block.used() == 0).then_some(now),
            block,
            call: Call::Idle,
            failures: 0,
            mirror: Mirror::default(),
        };
        self.entries.insert(cidr, entry);
        self.hold_in_use(cidr, now);
        true
    }

    /// Marks an address as in use.
    pub(super) fn take(&mut self, cidr: Cidr, address: IpAddr, now: Millis) {
        if let Some(entry) = self.entries.get_mut(&cidr)
            && entry.block.take(address)
        {
            entry.empty_since = None;
            entry.mirror.touch(now);
        }
    }

    /// Marks an address as free, in whichever of our blocks it is.
    pub(super) fn give_back(&mut self, address: IpAddr, now: Millis) {
        // What was seen in use was this.
        if let Some(in_use) = &mut self.in_use {
            in_use.remove(&address);
        }
        for (_, entry) in self
            .entries
            .iter_mut()
            .filter(|(cidr, _)| cidr.contains(address))
        {
            if entry.block.free(address) {
                entry.empty_since = entry.is_empty().then_some(now);
                entry.mirror.touch(now);
            }
        }
    }

    /// Blocks of a family that addresses may be given out of.
    pub(super) fn usable(&self, family: Family) -> impl Iterator<Item = (Cidr, &Entry)> {
        let of_family = self
            .entries
            .iter()
            .filter(move |(cidr, _)| cidr.family() == family);
        of_family
            .map(|(cidr, entry)| (*cidr, entry))
            .filter(|(cidr, entry)| {
                entry.confirmed
                    && matches!(entry.state, State::Owned { .. })
                    && self.pool_in_force(&entry.pool, *cidr).is_some()
            })
    }

    /// The address to give out next: of the first pool, of its fullest block, so that the others can empty.
    pub(super) fn pick(&self, family: Family) -> Result<(Cidr, IpAddr), AllocateError> {
        let free = self
            .usable(family)
            .filter_map(|(cidr, entry)| Some((cidr, entry, entry.block.next()?)));
        let best =
            free.min_by_key(|(cidr, entry, _)| (&entry.pool, entry.block.available(), *cidr));
        best.map(|(cidr, _, address)| (cidr, address))
            .ok_or_else(|| self.why_none(family))
    }
}
