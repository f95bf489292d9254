//! What peers have been told, and what they are still to be told.
//!
//! ```text
//!  decisions ─► dirty numbers ─► step: export, write ─► chunks ─► members that follow, each with its place in the queue
//!                                  │                      │
//!                                  ▼                      ▼ too far behind, new, or to be told again
//!                                told ─────────────────► members that walk: their own numbers to do, read from `told`
//! ```
//!
//! Peers to which the same routes are told with the same attributes are one group: it has one adj-RIB-out, and each
//! message is written once. A member is at the same place as the group, or at some chunk behind it, or has a set of
//! prefixes in which it differs from the group. Chunks that only slow members need are bounded: these walk then. So
//! the slowest member costs the others nothing, and memory that the number of prefixes bounds.

mod batch;
mod chunk;
mod one;
mod several;
mod told;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use crds::net::{Cidr, Family};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::ids::IdSet;
use super::{Best, PrefixId, Rib, SourceId};
use crate::policy::export::To;
use crate::wire::{Dialect, Families};

use one::{Group, Member};
use several::Several;

/// All that decides what a peer is told, apart from which paths are its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Which routes, and with which attributes.
    pub to: To,
    /// How they are written.
    pub dialect: Dialect,
    /// The most paths told for one prefix, in families in which paths have identifiers (RFC 7911).
    pub paths: u8,
}

/// What takes the messages.
pub trait Outlet {
    /// Whether the member's connection takes more bytes.
    fn has_room(&self, member: SourceId) -> bool;

    /// Whole messages for a member, after those before.
    fn send(&mut self, member: SourceId, bytes: Bytes);

    /// So many messages were sent to a member.
    fn sent(&mut self, member: SourceId, messages: usize);

    /// The prefix cannot be told to a member, as its attributes are too long.
    fn too_long(&mut self, member: SourceId, prefix: Cidr);
}

/// Prefixes looked at in one step, and bytes of attributes: enough to fill messages well, and little to hold at once.
const STEP: (usize, usize) = (65_536, 1 << 19);

/// All groups.
#[derive(Debug, Default)]
pub struct Groups {
    all: BTreeMap<u32, Group>,
    by_key: HashMap<Key, u32, RandomState>,
    members: HashMap<SourceId, u32, RandomState>,
    next: u32,
    /// Groups in which something may have to be told.
    awake: BTreeSet<u32>,
    /// Members that are told several paths for one prefix, and those of them that may have to be told something.
    several: BTreeMap<SourceId, Several>,
    several_awake: BTreeSet<SourceId>,
}

impl Groups {
    /// A member joins: nothing has been told to it. One that has joined already moves, and keeps what it knows.
    pub fn join(&mut self, member: SourceId, key: Key, rib: &mut Rib) {
        if key.dialect.paths_sent != Families::NONE {
            match self.several.get_mut(&member) {
                Some(several) => several.change_key(key.clone(), rib),
                None => {
                    let several = Several::new(key.clone(), rib);
                    self.several.insert(member, several);
                }
            }
            self.several_awake.insert(member);
        }
        let is_new = !self.by_key.contains_key(&key);
        let known = match self.group_mut(member) {
            Some((_, group)) if group.key == key => return,
            Some((number, group)) if group.members.len() == 1 && is_new => {
                return self.change_key(number, key, rib);
            }
            Some(_) => self.take_out(member, rib),
            None => IdSet::default(),
        };
        let number = match self.by_key.get(&key) {
            Some(number) => *number,
            None => {
                self.next += 1;
                let group = Group::new(key.clone(), member, rib);
                self.all.insert(self.next, group);
                self.by_key.insert(key, self.next);
                self.next
            }
        };
        self.members.insert(member, number);
        self.awake.insert(number);
        if let Some(group) = self.all.get_mut(&number) {
            group.join(member, known, rib);
        }
    }

    /// The only member of a group is told otherwise from now on: it is told of what that changes.
    fn change_key(&mut self, number: u32, key: Key, rib: &Rib) {
        let Some(group) = self.all.get_mut(&number) else {
            return;
        };
        let before = std::mem::replace(&mut group.key, key.clone());
        self.by_key.remove(&before);
        self.by_key.insert(key, number);
        // Of two changes at once only that something differs is known.
        group.before = group.again.is_empty().then_some(before);
        let told: Vec<PrefixId> = group.told.iter().map(|(id, _)| id).collect();
        for id in told.into_iter().chain(rib.ids()) {
            group.again.insert(id);
            group.touch(id);
        }
        self.awake.insert(number);
    }

    /// A member is gone.
    pub fn leave(&mut self, member: SourceId, rib: &mut Rib) {
        for id in self.take_out(member, rib).iter() {
            rib.let_go(id);
        }
        self.several_awake.remove(&member);
        if let Some(several) = self.several.remove(&member) {
            several.dissolve(rib);
        }
    }

    /// Takes a member out of its group; the prefixes it may know, still held.
    fn take_out(&mut self, member: SourceId, rib: &mut Rib) -> IdSet {
        let Some(number) = self.members.remove(&member) else {
            return IdSet::default();
        };
        let Some(group) = self.all.get_mut(&number) else {
            return IdSet::default();
        };
        group.walk(member, rib);
        let known = match group.members.remove(&member) {
            Some(Member::Walking(walk)) => walk.known,
            _ => IdSet::default(),
        };
        self.awake.insert(number);
        if group.members.is_empty()
            && let Some(group) = self.all.remove(&number)
        {
            self.awake.remove(&number);
            self.by_key.remove(&group.key);
            group.dissolve(rib);
        }
        known
    }

    /// What is told of a prefix may have changed.
    pub fn touch(&mut self, id: PrefixId) {
        for (number, group) in &mut self.all {
            // One that is dirty already is awake, or waits for room.
            if group.touch(id) && group.dirty.len() == 1 {
                self.awake.insert(*number);
            }
        }
    }

    /// Paths to a prefix may have changed, the best one or others.
    pub fn touch_paths(&mut self, id: PrefixId) {
        for (member, several) in &mut self.several {
            several.touch(id);
            self.several_awake.insert(*member);
        }
    }

    /// A prefix is to be told again although its best path is the same: what is told of its source has changed.
    pub fn retell(&mut self, id: PrefixId) {
        for group in self.all.values_mut() {
            group.again.insert(id);
            group.before = None;
        }
        for several in self.several.values_mut() {
            several.retell(id);
        }
        self.touch_paths(id);
        self.touch(id);
    }

    /// Everything of a family is to be told to a member again.
    pub fn repeat(&mut self, member: SourceId, family: Family, rib: &mut Rib) {
        if let Some(several) = self.several.get_mut(&member) {
            several.repeat(family, rib);
            self.several_awake.insert(member);
        }
        let Some((number, group)) = self.group_mut(member) else {
            return;
        };
        group.repeat(member, family, rib);
        self.awake.insert(number);
    }

    /// The member's connection has room again.
    pub fn has_room(&mut self, member: SourceId) {
        if self.several.get(&member).is_some_and(|it| !it.is_done()) {
            self.several_awake.insert(member);
        }
        if let Some((number, group)) = self.group_mut(member)
            && !group.is_done(member)
        {
            self.awake.insert(number);
        }
    }

    /// Whether the member has been told everything.
    pub fn is_done(&self, member: SourceId) -> bool {
        let has_paths = self.several.get(&member).is_none_or(Several::is_done);
        has_paths && self.group(member).is_none_or(|group| group.is_done(member))
    }

    /// How many paths of a family a member has been told, or will be once it has caught up.
    pub fn count(&self, member: SourceId, family: Family) -> usize {
        let several = self.several.get(&member).map_or(0, |it| it.count(family));
        let of_group = self.group(member).map_or(0, |group| {
            group.told.count(family) - group.told.count_from(member, family)
        });
        several + of_group
    }

    /// The path that a prefix is told to a member with.
    pub fn told(&self, member: SourceId, id: PrefixId) -> Option<Best> {
        let told = self.group(member)?.told.get(id)?;
        (told.from != member).then_some(told)
    }

    /// The paths that a prefix of a family is told to a member with, the best one first; None: in that family it is told
    /// one only, without path identifiers.
    pub fn told_paths(&self, member: SourceId, id: PrefixId, family: Family) -> Option<Vec<Best>> {
        self.several.get(&member)?.told(id, family)
    }

    /// Whether something may have to be told.
    pub fn is_awake(&self) -> bool {
        !self.awake.is_empty() || !self.several_awake.is_empty()
    }

    /// Tells what is to be told, as far as members have room.
    pub fn tell(&mut self, rib: &mut Rib, outlet: &mut impl Outlet) {
        for number in std::mem::take(&mut self.awake) {
            if let Some(group) = self.all.get_mut(&number) {
                group.tell(rib, outlet);
            }
        }
        for member in std::mem::take(&mut self.several_awake) {
            if let Some(several) = self.several.get_mut(&member) {
                several.tell(member, rib, outlet);
            }
        }
    }

    fn group(&self, member: SourceId) -> Option<&Group> {
        self.all.get(self.members.get(&member)?)
    }

    fn group_mut(&mut self, member: SourceId) -> Option<(u32, &mut Group)> {
        let number = *self.members.get(&member)?;
        Some((number, self.all.get_mut(&number)?))
    }
}
