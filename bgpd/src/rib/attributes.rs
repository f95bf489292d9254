//! Attribute sets, each held once, as the bytes that an UPDATE would carry.
//!
//! A set is what the decision process needs of it, and its bytes: a tenth of the memory of a decoded one. It is decoded
//! where policy or people look at it.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::Verdict;
use super::decide::Summary;
use super::nexthops::{NextHopId, NextHops, Resolved};
use super::prefixes::{at, count};
use crate::nexthop::NextHop;
use crate::policy::ImportRefusal;
use crate::wire::Attributes;
use crate::wire::attribute::{pack, unpack};
use crate::wire::plain::Fields;

/// An attribute set's number; equal sets have the same, for as long as somebody holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(u32);

impl SetId {
    /// No set at all.
    pub(super) const NONE: Self = Self(u32::MAX);
}

/// Every attribute set in use.
#[derive(Debug, Default)]
pub struct Sets {
    index: HashTable<u32>,
    sets: Vec<Set>,
    free: Vec<u32>,
    arena: Arena,
    next_hops: NextHops,
    hasher: FixedState,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Set {
    holders: u32,
    hash: u32,
    next_hop: NextHopId,
    summary: Summary,
    place: Place,
    mark: u8,
}

/// Bytes of sets, one after the other: a piece of memory for each would cost a quarter more, and time.
#[derive(Debug, Default)]
struct Arena {
    bytes: Vec<u8>,
    /// Bytes that no set has any more.
    unused: usize,
}

/// Where a set's bytes are.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// In units of [`ALIGN`].
    start: u32,
    length: u32,
}

/// What a number of 32 bits counts bytes by: more sets than there is memory for.
const ALIGN: usize = 4;

/// Fewer unused bytes than this are not worth moving the others.
const UNUSED_MIN: usize = 1 << 16;

impl Arena {
    fn get(&self, place: Place) -> &[u8] {
        let start = at(place.start) * ALIGN;
        &self.bytes[start..start + at(place.length)]
    }

    fn put(&mut self, bytes: &[u8]) -> Place {
        let start = count(self.bytes.len() / ALIGN);
        self.bytes.extend_from_slice(bytes);
        let end = self.bytes.len().next_multiple_of(ALIGN);
        self.bytes.resize(end, 0);
        Place {
            start,
            length: count(bytes.len()),
        }
    }

    /// A set is gone; whether those that are left should move together.
    fn forget(&mut self, place: Place) -> bool {
        let (start, length) = (
            at(place.start) * ALIGN,
            at(place.length).next_multiple_of(ALIGN),
        );
        if start + length == self.bytes.len() {
            self.bytes.truncate(start);
        } else {
            self.unused += length;
        }
        if self.unused == self.bytes.len() {
            *self = Self::default();
        }
        self.unused > UNUSED_MIN.max(self.bytes.len() / 2)
    }
}

impl Sets {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            hasher: FixedState::with_seed(seed),
            ..Self::default()
        }
    }

    /// The number of these attributes, held once more: the caller has to [`drop_one`](Self::drop_one). None: one of them
    /// is longer than an attribute can be.
    pub fn intern(&mut self, attributes: &Attributes) -> Option<SetId> {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        if !pack(attributes, &mut bytes) {
            return None;
        }
        let (next_hop, mark) = (attributes.next_hop, attributes.mark);
        Some(self.number(bytes, next_hop, mark, || attributes.into()))
    }

    /// The same for attributes that have not been taken apart.
    pub(crate) fn intern_fields(&mut self, fields: &Fields<'_>, next_hop: NextHop) -> SetId {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        fields.pack(&mut bytes);
        self.number(bytes, next_hop, 0, || fields.into())
    }

    /// The number of a set that is packed in the scratch space, which is given back.
    fn number(
        &mut self,
        bytes: Vec<u8>,
        next_hop: NextHop,
        mark: u8,
        summary: impl FnOnce() -> Summary,
    ) -> SetId {
        // The next hop stands for itself by its number: few next hops have many attributes.
        let next_hop = self.next_hops.hold(next_hop);
        let hash = self.hash(&bytes, next_hop, mark);
        let (sets, arena) = (&self.sets, &self.arena);
        let found = self.index.find(spread(hash), |id| {
            let set = &sets[at(*id)];
            let same = (set.hash, set.next_hop, set.mark) == (hash, next_hop, mark);
            same && arena.get(set.place) == bytes.as_slice()
        });
        let id = match found.copied() {
            Some(id) => {
                self.next_hops.drop_one(next_hop);
                self.sets[at(id)].holders += 1;
                id
            }
            None => {
                let set = Set {
                    holders: 1,
                    hash,
                    next_hop,
                    summary: summary(),
                    place: self.arena.put(&bytes),
                    mark,
                };
                self.add(set)
            }
        };
        self.scratch = bytes;
        SetId(id)
    }

    /// The same for what import policy makes of attributes.
    pub fn intern_verdict(&mut self, verdict: Verdict<Attributes>) -> Verdict {
        match verdict? {
            Some(changed) => match self.intern(&changed) {
                Some(set) => Ok(Some(set)),
                None => Err(ImportRefusal::TooLong),
            },
            None => Ok(None),
        }
    }

    fn add(&mut self, set: Set) -> u32 {
        let hash = set.hash;
        let id = match self.free.pop() {
            Some(id) => {
                self.sets[at(id)] = set;
                id
            }
            None => {
                self.sets.push(set);
                count(self.sets.len()) - 1
            }
        };
        let sets = &self.sets;
        self.index
            .insert_unique(spread(hash), id, |id| spread(sets[at(*id)].hash));
        id
    }

    fn hash(&self, bytes: &[u8], next_hop: NextHopId, mark: u8) -> u32 {
        let hash = self.hasher.hash_one((bytes, next_hop, mark));
        let [a, b, c, d, ..] = hash.to_ne_bytes();
        u32::from_ne_bytes([a, b, c, d])
    }

    /// Holds a set once more.
    pub fn hold(&mut self, id: SetId) {
        self.sets[at(id.0)].holders += 1;
    }

    /// Lets go of a set once; it is gone with its last holder.
    pub fn drop_one(&mut self, id: SetId) {
        let set = &mut self.sets[at(id.0)];
        set.holders -= 1;
        if set.holders > 0 {
            return;
        }
        let hash = spread(set.hash);
        self.next_hops.drop_one(set.next_hop);
        let is_sparse = self.arena.forget(set.place);
        if let Ok(found) = self.index.find_entry(hash, |it| *it == id.0) {
            found.remove();
        }
        self.free.push(id.0);
        if is_sparse {
            self.compact();
        }
    }

    /// Moves the bytes of all sets together.
    fn compact(&mut self) {
        let before = std::mem::take(&mut self.arena);
        self.arena.bytes.reserve(before.bytes.len() - before.unused);
        for set in self.sets.iter_mut().filter(|it| it.holders > 0) {
            set.place = self.arena.put(before.get(set.place));
        }
    }

    /// The attributes of a set that was learnt, as they are kept; None: something in it is out of the ordinary.
    pub(crate) fn fields(&self, id: SetId) -> Option<Fields<'_>> {
        let set = &self.sets[at(id.0)];
        Fields::of(self.arena.get(set.place)).filter(|_| set.mark == 0)
    }

    /// The attributes of a set.
    pub fn get(&self, id: SetId) -> Attributes {
        let set = &self.sets[at(id.0)];
        let mut attributes = unpack(self.arena.get(set.place), self.next_hop(id));
        attributes.mark = set.mark;
        attributes
    }

    /// What the decision process needs to know of a set.
    pub(super) fn summary(&self, id: SetId) -> &Summary {
        &self.sets[at(id.0)].summary
    }

    pub(super) fn next_hop_id(&self, id: SetId) -> NextHopId {
        self.sets[at(id.0)].next_hop
    }

    /// What a set's next hop resolves to, when that is known already.
    pub(super) fn resolved(&self, id: SetId, ifindex: Option<u32>) -> Option<Resolved> {
        self.next_hops.known(self.next_hop_id(id), ifindex)
    }

    /// A set's next hop.
    pub fn next_hop(&self, id: SetId) -> NextHop {
        self.next_hops.get(self.sets[at(id.0)].next_hop)
    }

    /// Whether a set has a next hop of which `wanted` says so.
    pub(super) fn uses(&self, wanted: impl Fn(NextHop) -> bool) -> bool {
        self.next_hops.all().any(wanted)
    }

    pub(super) fn next_hops(&mut self) -> &mut NextHops {
        &mut self.next_hops
    }

    /// Bytes of a set as an UPDATE carries it, about.
    pub(super) fn size(&self, id: SetId) -> usize {
        at(self.sets[at(id.0)].place.length)
    }

    /// Sets held now.
    pub fn len(&self) -> usize {
        self.sets.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Half a hash as a whole one: tables look at its upper bits too.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn attributes(number: u32) -> Attributes {
        let mut attributes = Attributes::new(IpAddr::from([192, 0, 2, 1]).into());
        attributes.communities = (0..number % 50).chain([number]).collect();
        attributes
    }

    #[test]
    fn a_set_stays_itself_while_others_go() {
        let mut sets = Sets::new(1);
        let all: Vec<SetId> = (0..5000)
            .map(|it| sets.intern(&attributes(it)).unwrap())
            .collect();
        let full = sets.arena.bytes.len();
        let (kept, gone): (Vec<u32>, Vec<u32>) = (0..5000).partition(|it| it % 7 == 0);
        for number in &gone {
            sets.drop_one(all[at(*number)]);
        }
        assert_eq!(sets.len(), kept.len());
        assert!(
            sets.arena.bytes.len() < full / 2,
            "the memory is given back"
        );
        for number in &kept {
            let id = all[at(*number)];
            assert_eq!(sets.get(id), attributes(*number));
            assert_eq!(sets.intern(&attributes(*number)), Some(id));
            sets.drop_one(id);
            sets.drop_one(id);
        }
        assert!(sets.is_empty());
        assert!(sets.arena.bytes.is_empty());
    }
}
