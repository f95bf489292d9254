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
    bytes: Box<[u8]>,
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
        mut bytes: Vec<u8>,
        next_hop: NextHop,
        mark: u8,
        summary: impl FnOnce() -> Summary,
    ) -> SetId {
        // The next hop stands for itself by its number: few next hops have many attributes.
        let next_hop = self.next_hops.hold(next_hop);
        bytes.extend_from_slice(&next_hop.number().to_ne_bytes());
        bytes.push(mark);
        let hash = self.hash(&bytes);
        let sets = &self.sets;
        let found = self.index.find(spread(hash), |id| {
            let set = &sets[at(*id)];
            set.hash == hash && *set.bytes == *bytes
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
                    bytes: bytes.as_slice().into(),
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

    fn hash(&self, bytes: &[u8]) -> u32 {
        let [a, b, c, d, ..] = self.hasher.hash_one(bytes).to_ne_bytes();
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
        set.bytes = Box::default();
        let hash = spread(set.hash);
        self.next_hops.drop_one(set.next_hop);
        if let Ok(found) = self.index.find_entry(hash, |it| *it == id.0) {
            found.remove();
        }
        self.free.push(id.0);
    }

    /// The attributes of a set that was learnt, as they are kept; None: something in it is out of the ordinary.
    pub(crate) fn fields(&self, id: SetId) -> Option<Fields<'_>> {
        let bytes = &self.sets[at(id.0)].bytes;
        let (bytes, extra) = bytes.split_at(bytes.len() - size_of::<u32>() - 1);
        let is_learnt = extra.last() == Some(&0);
        is_learnt.then(|| Fields::of(bytes)).flatten()
    }

    /// The attributes of a set.
    pub fn get(&self, id: SetId) -> Attributes {
        let bytes = &self.sets[at(id.0)].bytes;
        let (bytes, extra) = bytes.split_at(bytes.len() - size_of::<u32>() - 1);
        let mut attributes = unpack(bytes, self.next_hop(id));
        attributes.mark = extra.last().copied().unwrap_or(0);
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
        self.sets[at(id.0)].bytes.len()
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
