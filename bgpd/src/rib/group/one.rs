//! One group: what has been decided goes in, messages for all its members come out.

use std::collections::{BTreeMap, VecDeque};

use crds::net::Family;

use super::super::ids::IdSet;
use super::super::{Best, PrefixId, Rib, SourceId};
use super::batch::{Batch, Outcome, special, withdrawals};
use super::chunk::Chunk;
use super::told::Told;
use super::walk::Walk;
use super::{Key, Outlet, STEP};
use crate::wire::Families;

/// Bytes of chunks that wait for slow members.
const QUEUE_MAX: usize = 1 << 22;

/// Peers that are told the same.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) key: Key,
    pub(super) told: Told,
    pub(super) dirty: VecDeque<PrefixId>,
    is_dirty: IdSet,
    /// Dirty prefixes to be told even if they have the same path as before, unless that makes no difference to what
    /// `before` says.
    pub(super) again: IdSet,
    pub(super) before: Option<Key>,
    queue: VecDeque<Chunk>,
    /// Number of the first chunk in the queue.
    first: u64,
    queued: usize,
    pub(super) members: BTreeMap<SourceId, Member>,
    /// The only member that there has ever been: its own paths are nobody's business, and are not even written.
    sole: Option<SourceId>,
}

/// How far a member is.
#[derive(Debug)]
pub(super) enum Member {
    /// It has all chunks before that one.
    Following(u64),
    Walking(Walk),
}

impl Group {
    pub(super) fn new(key: Key, sole: SourceId, rib: &Rib) -> Self {
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

    pub(super) fn touch(&mut self, id: PrefixId) -> bool {
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

    pub(super) fn join(&mut self, member: SourceId, known: IdSet, rib: &Rib) {
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

    pub(super) fn is_done(&self, member: SourceId) -> bool {
        let caught_up = match self.members.get(&member) {
            Some(Member::Following(next)) => *next == self.end(),
            Some(Member::Walking(_)) => false,
            None => true,
        };
        caught_up && self.dirty.is_empty()
    }

    /// From now on the member walks: it differs from the group in the chunks it has not got.
    pub(super) fn walk(&mut self, member: SourceId, rib: &mut Rib) {
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

    pub(super) fn repeat(&mut self, member: SourceId, family: Family, rib: &mut Rib) {
        self.walk(member, rib);
        if let Some(Member::Walking(walk)) = self.members.get_mut(&member) {
            for (id, _) in self.told.iter() {
                if rib.family(id) == family {
                    walk.todo.insert(id);
                }
            }
        }
    }

    pub(super) fn tell(&mut self, rib: &mut Rib, outlet: &mut impl Outlet) {
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
    pub(super) fn dissolve(self, rib: &mut Rib) {
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
