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
mod several;
mod told;
mod walk;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use crds::net::{Cidr, Family};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::ids::IdSet;
use super::{Best, PrefixId, Rib, SourceId};
use crate::policy::export::To;
use crate::wire::{Dialect, Families};

use batch::{Batch, Outcome, special, withdrawals};
use chunk::Chunk;
use several::Several;
use told::Told;
use walk::Walk;

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

/// Bytes of chunks that wait for slow members.
const QUEUE_MAX: usize = 1 << 22;

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

#[derive(Debug)]
struct Group {
    key: Key,
    told: Told,
    dirty: VecDeque<PrefixId>,
    is_dirty: IdSet,
    /// Dirty prefixes to be told even if they have the same path as before, unless that makes no difference to what
    /// `before` says.
    again: IdSet,
    before: Option<Key>,
    queue: VecDeque<Chunk>,
    /// Number of the first chunk in the queue.
    first: u64,
    queued: usize,
    members: BTreeMap<SourceId, Member>,
    /// The only member that there has ever been: its own paths are nobody's business, and are not even written.
    sole: Option<SourceId>,
}

/// How far a member is.
#[derive(Debug)]
enum Member {
    /// It has all chunks before that one.
    Following(u64),
    Walking(Walk),
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

impl Group {
    fn new(key: Key, sole: SourceId, rib: &Rib) -> Self {
        let mut group = Self {
            key,
            told: Told::default(),
            dirty: VecDeque::new(),
            is_dirty: IdSet::default(),
            again: IdSet::default(),
            before: None,
            queue: VecDeque::new(),
            first: 0,
            queued: 0,
            members: BTreeMap::new(),
            sole: Some(sole),
        };
        for id in rib.ids() {
            group.touch(id);
        }
        group
    }

    fn touch(&mut self, id: PrefixId) -> bool {
        let is_new = self.is_dirty.insert(id);
        if is_new {
            self.dirty.push_back(id);
        }
        is_new
    }

    fn end(&self) -> u64 {
        self.first + u64::try_from(self.queue.len()).unwrap_or(u64::MAX)
    }

    /// Chunks from that one on.
    fn chunks_from(&self, number: u64) -> impl Iterator<Item = &Chunk> {
        let skip = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.queue.iter().skip(skip)
    }

    fn join(&mut self, member: SourceId, known: IdSet, rib: &Rib) {
        if let Some(sole) = self.sole.take_if(|it| *it != member) {
            for id in rib.ids_of(sole) {
                self.touch(id);
            }
        }
        let mut walk = Walk {
            todo: IdSet::default(),
            known,
        };
        for (id, _) in self.told.iter() {
            walk.todo.insert(id);
        }
        for id in walk.known.iter() {
            walk.todo.insert(id);
        }
        let state = if walk.todo.is_empty() {
            Member::Following(self.end())
        } else {
            Member::Walking(walk)
        };
        self.members.insert(member, state);
    }

    fn is_done(&self, member: SourceId) -> bool {
        let caught_up = match self.members.get(&member) {
            Some(Member::Following(next)) => *next == self.end(),
            Some(Member::Walking(_)) => false,
            None => true,
        };
        caught_up && self.dirty.is_empty()
    }

    /// From now on the member walks: it differs from the group in the chunks it has not got.
    fn walk(&mut self, member: SourceId, rib: &mut Rib) {
        let Some(Member::Following(next)) = self.members.get(&member) else {
            return;
        };
        let mut walk = Walk::default();
        for chunk in self.chunks_from(*next) {
            for id in chunk.announced.iter().chain(&chunk.gone) {
                walk.todo.insert(*id);
            }
        }
        for (id, told) in self.told.iter() {
            if told.from != member {
                walk.known.insert(id);
            }
        }
        for id in walk.todo.iter() {
            walk.known.insert(id);
        }
        for id in walk.known.iter() {
            rib.hold(id);
        }
        self.members.insert(member, Member::Walking(walk));
    }

    fn repeat(&mut self, member: SourceId, family: Family, rib: &mut Rib) {
        self.walk(member, rib);
        if let Some(Member::Walking(walk)) = self.members.get_mut(&member) {
            for (id, _) in self.told.iter() {
                if rib.family(id) == family {
                    walk.todo.insert(id);
                }
            }
        }
    }

    fn tell(&mut self, rib: &mut Rib, outlet: &mut impl Outlet) {
        loop {
            self.give(outlet);
            self.trim(rib);
            let end = self.end();
            let wanted = |(member, state): (&SourceId, &Member)| {
                let waits = match state {
                    Member::Following(next) => *next == end,
                    Member::Walking(_) => true,
                };
                waits && outlet.has_room(*member)
            };
            if self.dirty.is_empty() || !self.members.iter().any(wanted) {
                break;
            }
            self.step(rib, outlet);
        }
        // A member that walks reads what the group has come to.
        if self.dirty.is_empty() {
            self.walk_on(rib, outlet);
        }
    }

    /// Gives members that follow the chunks that they have room for.
    fn give(&mut self, outlet: &mut impl Outlet) {
        let end = self.end();
        for (member, state) in &mut self.members {
            let Member::Following(next) = state else {
                continue;
            };
            while *next < end && outlet.has_room(*member) {
                let at = usize::try_from(*next - self.first).unwrap_or(usize::MAX);
                let Some(chunk) = self.queue.get(at) else {
                    break;
                };
                let messages = chunk.give(*member, |bytes| outlet.send(*member, bytes));
                outlet.sent(*member, messages);
                *next += 1;
            }
        }
    }

    /// Drops chunks that everybody has, and those that only members need who are too far behind.
    fn trim(&mut self, rib: &mut Rib) {
        while !self.queue.is_empty() {
            let behind: Vec<SourceId> = self
                .members
                .iter()
                .filter(
                    |(_, state)| matches!(state, Member::Following(next) if *next == self.first),
                )
                .map(|(member, _)| *member)
                .collect();
            if !behind.is_empty() && self.queued <= QUEUE_MAX {
                return;
            }
            for member in behind {
                self.walk(member, rib);
            }
            if let Some(chunk) = self.queue.pop_front() {
                self.first += 1;
                self.queued -= chunk.size();
                for id in chunk.gone {
                    rib.let_go(id);
                }
            }
        }
    }

    /// Judges dirty prefixes and makes a chunk of what is told of them now.
    fn step(&mut self, rib: &mut Rib, outlet: &mut impl Outlet) {
        let (mut batch, mut past) = (Batch::default(), Batch::default());
        let (mut gone, mut too_long) = (Vec::new(), Vec::new());
        // Members whose own path is the best one now, which they have not been told with.
        let mut own: Vec<(SourceId, PrefixId)> = Vec::new();
        for _ in 0..STEP.0 {
            if batch.size > STEP.1 {
                break;
            }
            let Some(id) = self.dirty.pop_front() else {
                break;
            };
            self.is_dirty.remove(id);
            let paths_sent = self.key.dialect.paths_sent;
            let others = paths_sent != Families::NONE && paths_sent.contains(rib.family(id));
            let told = |it: &Best| !others && Some(it.from) != self.sole;
            let best = rib.best(id).filter(told);
            let have = self.told.get(id);
            let again = self.again.remove(id);
            if best == have && !again {
                if have.is_none() {
                    rib.release(id);
                }
                continue;
            }
            let place = best.map(|best| (batch.place(rib, &self.key, best, id), best));
            let told = place.filter(|(place, _)| match batch.outcome(*place) {
                Outcome::Told(_) => true,
                Outcome::TooLong => {
                    too_long.push(id);
                    false
                }
                Outcome::Refused => false,
            });
            match (told, have) {
                (None, None) => {}
                (None, Some(have)) => gone.push((id, have.from)),
                (Some((place, _)), None) => batch.add(place, id),
                (Some((place, best)), Some(have)) => {
                    let moved = best.from != have.from;
                    let seen = |source| moved && self.members.contains_key(&source);
                    let same = match &self.before {
                        _ if !again => {
                            let before = batch.place(rib, &self.key, have, id);
                            batch.outcome(before) == batch.outcome(place)
                        }
                        Some(key) => {
                            let before = past.place(rib, key, have, id);
                            past.outcome(before) == batch.outcome(place)
                        }
                        None => false,
                    };
                    if same && !seen(best.from) && !seen(have.from) {
                        self.note(rib, id, Some(best));
                        continue;
                    }
                    if seen(best.from) {
                        own.push((best.from, id));
                    }
                    batch.add(place, id);
                }
            }
        }
        if self.dirty.is_empty() {
            self.before = None;
        }
        let written = batch.write(rib);
        for id in written.too_long {
            too_long.push(id);
            own.retain(|(_, it)| *it != id);
            if let Some(have) = self.told.get(id) {
                gone.push((id, have.from));
            }
        }
        for id in too_long {
            for member in self.members.keys() {
                outlet.too_long(*member, rib.prefix(id));
            }
        }
        let mut chunk = Chunk {
            withdrawals: withdrawals(rib, gone.iter().map(|(id, _)| *id)),
            special: special(rib, &gone, &own, |it| self.members.contains_key(&it)),
            announcements: written.bytes,
            runs: written.runs,
            announced: Vec::with_capacity(written.told.len()),
            gone: gone.iter().map(|(id, _)| *id).collect(),
        };
        for (id, best) in written.told {
            self.note(rib, id, Some(best));
            chunk.announced.push(id);
        }
        for id in &chunk.gone {
            // It stays held, by the chunk.
            rib.hold(*id);
            self.note(rib, *id, None);
        }
        if chunk.is_empty() {
            return;
        }
        for state in self.members.values_mut() {
            if let Member::Walking(walk) = state {
                walk.take_note(&chunk);
            }
        }
        self.queued += chunk.size();
        self.queue.push_back(chunk);
    }

    /// Notes what a prefix is told with now.
    fn note(&mut self, rib: &mut Rib, id: PrefixId, now: Option<Best>) {
        if let Some(now) = now {
            rib.sets.hold(now.set);
        }
        let before = self.told.set(id, rib.family(id), now);
        if let Some(before) = before {
            rib.sets.drop_one(before.set);
        }
        match (before, now) {
            (None, Some(_)) => rib.hold(id),
            (Some(_), None) => rib.let_go(id),
            _ => {}
        }
    }

    /// Lets members that walk go on, as far as they have room.
    fn walk_on(&mut self, rib: &mut Rib, outlet: &mut impl Outlet) {
        let end = self.end();
        for (member, state) in &mut self.members {
            let Member::Walking(walk) = state else {
                continue;
            };
            while !walk.todo.is_empty() && outlet.has_room(*member) {
                walk.step(*member, &self.told, &self.key, rib, outlet);
            }
            if walk.todo.is_empty() {
                for id in walk.known.iter() {
                    rib.let_go(id);
                }
                *state = Member::Following(end);
            }
        }
    }

    /// Lets go of everything that is held.
    fn dissolve(self, rib: &mut Rib) {
        for chunk in self.queue {
            for id in chunk.gone {
                rib.let_go(id);
            }
        }
        for (id, told) in self.told.iter() {
            rib.sets.drop_one(told.set);
            rib.let_go(id);
        }
        for id in self.dirty {
            rib.release(id);
        }
    }
}
