//! Prefixes and their numbers.

use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crds::net::{Cidr, Family};
use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::PrefixId;

/// Every prefix in use has a number, lower ones first; a number is used again once it has been given back.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    index: [HashTable<u32>; 2],
    keys: Vec<Key>,
    /// Addresses of IPv6 prefixes, which [`Key::low`] points to.
    wide: Vec<u128>,
    free: Vec<u32>,
    free_wide: Vec<u32>,
    hasher: FixedState,
}

/// A prefix, or a number that is free.
#[derive(Debug, Clone, Copy)]
struct Key {
    low: u32,
    length: u8,
    family: Family,
}

/// The length of a prefix that is none.
const FREE: u8 = u8::MAX;

impl Prefixes {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            hasher: FixedState::with_seed(seed),
            ..Self::default()
        }
    }

    pub(super) fn find(&self, prefix: Cidr) -> Option<PrefixId> {
        let (address, length) = (bits(prefix), prefix.prefix_len());
        let hash = self.hash(address, (length, prefix.family()));
        let index = &self.index[side(prefix.family())];
        index
            .find(hash, |id| {
                let key = self.keys[at(*id)];
                key.length == length && self.address(key) == address
            })
            .map(|id| PrefixId(*id))
    }

    /// The number of a prefix, and whether it is new.
    pub(super) fn number(&mut self, prefix: Cidr) -> (PrefixId, bool) {
        if let Some(id) = self.find(prefix) {
            return (id, false);
        }
        let (address, length, family) = (bits(prefix), prefix.prefix_len(), prefix.family());
        let low = match family {
            Family::V4 => u32::try_from(address).unwrap_or(u32::MAX),
            Family::V6 => match self.free_wide.pop() {
                Some(low) => {
                    self.wide[at(low)] = address;
                    low
                }
                None => {
                    self.wide.push(address);
                    count(self.wide.len()) - 1
                }
            },
        };
        let key = Key {
            low,
            length,
            family,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.keys[at(id)] = key;
                id
            }
            None => {
                self.keys.push(key);
                count(self.keys.len()) - 1
            }
        };
        let hash = self.hash(address, (length, family));
        let (keys, wide, hasher) = (&self.keys, &self.wide, &self.hasher);
        self.index[side(family)].insert_unique(hash, id, |id| {
            let key = keys[at(*id)];
            hash_of(hasher, address_of(wide, key), (key.length, key.family))
        });
        (PrefixId(id), true)
    }

    /// Gives a number back.
    pub(super) fn release(&mut self, id: PrefixId) {
        let key = self.keys[id.index()];
        let hash = self.hash(self.address(key), (key.length, key.family));
        if let Ok(found) = self.index[side(key.family)].find_entry(hash, |it| *it == id.0) {
            found.remove();
            if key.family == Family::V6 {
                self.free_wide.push(key.low);
            }
            self.keys[id.index()].length = FREE;
            self.free.push(id.0);
        }
    }

    /// Whether the number is a prefix's.
    pub(super) fn is_used(&self, id: PrefixId) -> bool {
        self.keys[id.index()].length != FREE
    }

    /// The prefix of that number.
    pub(super) fn get(&self, id: PrefixId) -> Cidr {
        let key = self.keys[id.index()];
        let address = match key.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(key.low)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(self.wide[at(key.low)])),
        };
        // Its length was that of a prefix.
        Cidr::new(address, key.length).unwrap_or_else(|_| Cidr::host(address))
    }

    pub(super) fn family(&self, id: PrefixId) -> Family {
        self.keys[id.index()].family
    }

    fn address(&self, key: Key) -> u128 {
        address_of(&self.wide, key)
    }

    fn hash(&self, address: u128, length: (u8, Family)) -> u64 {
        hash_of(&self.hasher, address, length)
    }
}

fn address_of(wide: &[u128], key: Key) -> u128 {
    match key.family {
        Family::V4 => u128::from(key.low),
        Family::V6 => wide[at(key.low)],
    }
}

/// Neighbours are near to each other in the table: 256 prefixes of one length that follow each other are found from one
/// unforeseeable place on, each in a slot of its own. Tables are mostly sent, and withdrawn, in the order of addresses,
/// and then what is looked up is in the processor's cache already.
fn hash_of(hasher: &FixedState, address: u128, (length, family): (u8, Family)) -> u64 {
    let number = address >> (family.bits() - length).min(127);
    let (run, place) = (number >> RUN, number & ((1 << RUN) - 1));
    let place = u64::try_from(place).unwrap_or(0);
    let start = hasher.hash_one((run, length));
    // The table takes the lower bits as the place, and the upper ones to tell apart what has come to the same.
    let tag = start ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (start.wrapping_add(place) & (u64::MAX >> TAG)) | (tag & !(u64::MAX >> TAG))
}

/// Bits of a prefix's number in its run.
const RUN: u32 = 8;

/// Bits that the table tells prefixes apart by.
const TAG: u32 = 7;

fn bits(prefix: Cidr) -> u128 {
    match prefix.first() {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// Where things of a family are among those of both.
pub(super) fn side(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

/// A number as an index.
pub(super) fn at(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// A length as a number.
pub(super) fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
