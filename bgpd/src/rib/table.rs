//! All adj-RIBs-in and the loc-RIB in one table.

use std::sync::Arc;

use crds::net::{Cidr, Family};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::ids::IdSet;
use super::nexthops::{Legs, LegsId};
use super::prefixes::{Prefixes, at, count, side};
use super::{
    Best, Freshness, PATHS_MAX, Path, PrefixId, SetId, Sets, Source, SourceCount, SourceId, Verdict,
};
use crate::Millis;
use crate::policy::ImportRefusal;
use crate::speaker::Leg;
use crate::wire::Attributes;

/// The routing tables.
#[derive(Debug, Default)]
pub struct Rib {
    pub(super) prefixes: Prefixes,
    pub(super) entries: Vec<Entry>,
    pub(super) paths: Vec<PathRecord>,
    free_paths: Vec<u32>,
    /// What was received, of paths that import policy made something else of.
    pub(super) received: HashMap<u32, SetId, RandomState>,
    /// Reasons of import, by number from 1 on: few, as each is a step of policy or a rule of a filter.
    refusals: Vec<ImportRefusal>,
    pub(super) sources: HashMap<SourceId, SourceState, RandomState>,
    /// Prefixes whose paths have changed since the last decision, each once.
    pub(super) pending: Vec<PrefixId>,
    pub(super) legs: Legs,
    /// All attribute sets.
    pub sets: Sets,
}

/// What is known of a prefix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// How many adj-RIBs-out need its number, and [`PENDING`] and [`BEST_TOUCHED`].
    told: u32,
    /// The ways to it, as last told.
    pub(super) legs: LegsId,
    /// The best path of the last decision, and the first of the list of all paths.
    pub(super) best: u32,
    pub(super) first: u32,
}

/// A decision is to be made.
const PENDING: u32 = 1 << 31;

/// The best path has been replaced or removed since the last decision.
const BEST_TOUCHED: u32 = 1 << 30;

impl Entry {
    /// A decision has been made; whether the best path had been touched.
    pub(super) fn decided(&mut self) -> bool {
        let touched = self.told & BEST_TOUCHED != 0;
        self.told &= !(PENDING | BEST_TOUCHED);
        touched
    }
}

/// One path, and the next one to the same prefix.
#[derive(Debug, Clone, Copy)]
pub(super) struct PathRecord {
    pub(super) set: SetId,
    pub(super) from: SourceId,
    pub(super) path_id: u32,
    /// Seconds.
    pub(super) since: u32,
    pub(super) next: u32,
    pub(super) refused: Refused,
    pub(super) freshness: Freshness,
}

/// Why import refused a path, by number; 0: it did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused(u16);

impl Refused {
    pub(super) fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// No path.
pub(super) const NONE: u32 = u32::MAX;

const NO_ENTRY: Entry = Entry {
    told: 0,
    legs: Legs::NONE,
    best: NONE,
    first: NONE,
};

#[derive(Debug)]
pub(super) struct SourceState {
    source: Source,
    /// Prefixes it has paths to.
    ids: IdSet,
    pub(super) counts: [SourceCount; 2],
}

impl Rib {
    /// Empty tables. `seed` makes their hashes unforeseeable; nothing that shows depends on it.
    pub fn new(seed: u64) -> Self {
        Self {
            prefixes: Prefixes::new(seed),
            sets: Sets::new(seed),
            ..Self::default()
        }
    }

    /// Names a source, or changes what is known of it; whether its paths may have to be told with other attributes.
    pub fn set_source(&mut self, id: SourceId, source: Source) -> bool {
        let mut retell = false;
        match self.sources.get_mut(&id) {
            Some(state) if state.source == source => return false,
            Some(state) => {
                let before = std::mem::replace(&mut state.source, source);
                let told = |it: &Source| (it.internal, it.client, it.router_id);
                retell = told(&before) != told(&state.source) && !state.ids.is_empty();
            }
            None => {
                let state = SourceState {
                    source,
                    ids: IdSet::default(),
                    counts: <[SourceCount; 2]>::default(),
                };
                self.sources.insert(id, state);
            }
        }
        for id in self.ids_of(id) {
            self.touch(id);
        }
        retell
    }

    /// Removes a source and all its paths.
    pub fn remove_source(&mut self, id: SourceId) {
        self.remove_paths(id, None, |_| true);
        self.sources.remove(&id);
    }

    /// A path to a prefix, in place of the one that the source announced before with that path identifier. The sets in
    /// it stay held by the caller too. Paths of sources without a name are not taken. Whether there was room for it: a
    /// source has at most [`PATHS_MAX`] paths to a prefix.
    pub fn insert(
        &mut self,
        from: SourceId,
        path_id: u32,
        prefix: Cidr,
        received: SetId,
        verdict: Verdict,
        now: Millis,
    ) -> bool {
        let (refused, changed) = match verdict {
            Ok(changed) => (None, changed.filter(|it| *it != received)),
            Err(refused) => (Some(refused), None),
        };
        let refused = self.refused(refused);
        let set = changed.unwrap_or(received);
        if !self.sources.contains_key(&from) {
            return true;
        }
        let (id, is_new) = self.prefixes.number(prefix);
        if is_new {
            match self.entries.get_mut(id.index()) {
                Some(entry) => *entry = NO_ENTRY,
                None => self.entries.push(NO_ENTRY),
            }
        }
        let since = u32::try_from(now / 1000).unwrap_or(u32::MAX);
        let record = PathRecord {
            set,
            from,
            path_id,
            since,
            next: NONE,
            refused,
            freshness: Freshness::Fresh,
        };
        let mut others = 0;
        let known = self.path_numbers(id).find(|number| {
            let path = &self.paths[at(*number)];
            others += usize::from(path.from == from);
            path.from == from && path.path_id == path_id
        });
        match known {
            Some(path) => {
                let before = self.paths[at(path)];
                let same = before.set == set && before.refused == refused;
                self.paths[at(path)] = PathRecord {
                    since: if same { before.since } else { since },
                    next: before.next,
                    ..record
                };
                self.count(id, &before, false);
                self.count(id, &record, true);
                if before.set != set {
                    self.sets.hold(set);
                    self.sets.drop_one(before.set);
                }
                self.keep_received(path, changed.map(|_| received));
                if !same || before.freshness == Freshness::LongLived {
                    self.touch_path(id, path);
                }
            }
            None if others >= PATHS_MAX => return false,
            None => {
                self.sets.hold(set);
                let path = self.add_path(id, record);
                self.keep_received(path, changed.map(|_| received));
                self.count(id, &record, true);
                if let Some(source) = self.sources.get_mut(&from) {
                    source.ids.insert(id);
                }
                self.touch(id);
            }
        }
        true
    }

    /// The source has no path of that identifier to the prefix any more.
    pub fn withdraw(&mut self, from: SourceId, path_id: u32, prefix: Cidr) {
        if let Some(id) = self.prefixes.find(prefix) {
            self.remove_where(id, |path| path.from == from && path.path_id == path_id);
        }
    }

    /// Removes a source's paths of which `gone` says so, by their attributes and by why import refused them.
    pub fn withdraw_where(
        &mut self,
        source: SourceId,
        gone: impl Fn(&dyn Fn() -> Attributes, Option<ImportRefusal>) -> bool,
    ) {
        for id in self.ids_of(source) {
            let mut next = self.entries[id.index()].first;
            while next != NONE {
                let path = next;
                let record = self.paths[at(path)];
                next = record.next;
                let attributes = || self.sets.get(record.set);
                if record.from == source && gone(&attributes, self.refusal(record.refused)) {
                    self.unlink(id, path);
                }
            }
        }
    }

    /// How many paths of a family a source has.
    pub fn source_count(&self, source: SourceId, family: Family) -> SourceCount {
        let source = self.sources.get(&source);
        source.map_or_else(SourceCount::default, |it| it.counts[side(family)])
    }

    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.paths.len() - self.free_paths.len()
    }

    /// Whether there is no path.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives free the number of a prefix without paths that no peer has been told of. What a decision has changed has to
    /// be released once it has been looked at.
    pub fn release(&mut self, id: PrefixId) {
        let entry = &mut self.entries[id.index()];
        let unused = entry.first == NONE && entry.told == 0 && entry.best == NONE;
        if unused && self.prefixes.is_used(id) {
            self.prefixes.release(id);
        }
    }

    /// An adj-RIB-out needs the prefix's number.
    pub(super) fn hold(&mut self, id: PrefixId) {
        self.entries[id.index()].told += 1;
    }

    /// An adj-RIB-out does not need the prefix's number any more.
    pub(super) fn let_go(&mut self, id: PrefixId) {
        self.entries[id.index()].told -= 1;
        self.release(id);
    }

    /// The number of a prefix, if anything is known of it.
    pub fn find(&self, prefix: Cidr) -> Option<PrefixId> {
        self.prefixes.find(prefix)
    }

    /// The prefix of that number.
    pub fn prefix(&self, id: PrefixId) -> Cidr {
        self.prefixes.get(id)
    }

    /// The family of the prefix of that number.
    pub fn family(&self, id: PrefixId) -> Family {
        self.prefixes.family(id)
    }

    /// All prefixes with paths, in the order of their numbers.
    pub fn ids(&self) -> impl Iterator<Item = PrefixId> {
        let entries = (0..).map(PrefixId).zip(&self.entries);
        entries
            .filter(|(_, entry)| entry.first != NONE)
            .map(|(id, _)| id)
    }

    /// The best path of the last decision, unless it is gone since.
    pub fn best(&self, id: PrefixId) -> Option<Best> {
        let path = self.paths.get(at(self.entries[id.index()].best))?;
        Some(Best {
            from: path.from,
            set: path.set,
        })
    }

    /// The ways to a prefix, as of the last decision.
    pub fn legs(&self, id: PrefixId) -> LegsId {
        self.entries[id.index()].legs
    }

    /// A list of ways.
    pub fn leg_list(&self, id: LegsId) -> &Arc<[Leg]> {
        self.legs.get(id)
    }

    /// All paths to a prefix, decoded.
    pub fn paths(&self, id: PrefixId) -> Vec<Path> {
        let path = |number: u32| {
            let record = &self.paths[at(number)];
            Path {
                from: record.from,
                id: record.path_id,
                attributes: self.sets.get(record.set),
                received: self.received.get(&number).map(|set| self.sets.get(*set)),
                freshness: record.freshness,
                refused: self.refusal(record.refused),
                since: Millis::from(record.since) * 1000,
            }
        };
        self.path_numbers(id).map(path).collect()
    }

    /// How many paths there are to a prefix.
    pub fn path_count(&self, id: PrefixId) -> usize {
        self.path_numbers(id).count()
    }

    /// What is known of a source.
    pub fn source(&self, id: SourceId) -> Option<&Source> {
        self.sources.get(&id).map(|it| &it.source)
    }

    /// The numbers of all paths to a prefix.
    pub(super) fn path_numbers(&self, id: PrefixId) -> impl Iterator<Item = u32> {
        let mut next = self.entries[id.index()].first;
        std::iter::from_fn(move || {
            let number = next;
            next = self.paths.get(at(number))?.next;
            Some(number)
        })
    }

    /// Whether a source has a path of that identifier to a prefix.
    pub fn has_path(&self, from: SourceId, path_id: u32, prefix: Cidr) -> bool {
        let id = self.prefixes.find(prefix);
        id.is_some_and(|id| self.find_path(id, from, path_id).is_some())
    }

    pub(super) fn find_path(&self, id: PrefixId, from: SourceId, path_id: u32) -> Option<u32> {
        self.path_numbers(id).find(|number| {
            let path = &self.paths[at(*number)];
            path.from == from && path.path_id == path_id
        })
    }

    /// All prefixes with paths.
    pub(super) fn all_ids(&self) -> Vec<PrefixId> {
        self.ids().collect()
    }

    /// All prefixes that a source has paths to.
    pub fn ids_of(&self, source: SourceId) -> Vec<PrefixId> {
        let source = self.sources.get(&source);
        source.map_or_else(Vec::new, |it| it.ids.iter().collect())
    }

    pub(super) fn touch(&mut self, id: PrefixId) {
        let entry = &mut self.entries[id.index()];
        if entry.told & PENDING == 0 {
            entry.told |= PENDING;
            self.pending.push(id);
        }
    }

    pub(super) fn touch_path(&mut self, id: PrefixId, path: u32) {
        let entry = &mut self.entries[id.index()];
        if entry.best == path {
            entry.told |= BEST_TOUCHED;
        }
        self.touch(id);
    }

    fn add_path(&mut self, id: PrefixId, record: PathRecord) -> u32 {
        let first = &mut self.entries[id.index()].first;
        let record = PathRecord {
            next: *first,
            ..record
        };
        let number = match self.free_paths.pop() {
            Some(number) => {
                self.paths[at(number)] = record;
                number
            }
            None => {
                self.paths.push(record);
                count(self.paths.len()) - 1
            }
        };
        *first = number;
        number
    }

    /// Removes a path.
    fn unlink(&mut self, id: PrefixId, path: u32) {
        let record = self.paths[at(path)];
        let entry = &mut self.entries[id.index()];
        if entry.first == path {
            entry.first = record.next;
        } else {
            let before = self
                .path_numbers(id)
                .find(|number| self.paths[at(*number)].next == path);
            if let Some(before) = before {
                self.paths[at(before)].next = record.next;
            }
        }
        self.count(id, &record, false);
        self.keep_received(path, None);
        self.sets.drop_one(record.set);
        self.free_paths.push(path);
        self.touch_path(id, path);
        let entry = &mut self.entries[id.index()];
        if entry.best == path {
            // The number may be another path's before the next decision.
            entry.best = NONE;
        }
        let others = self
            .path_numbers(id)
            .any(|number| self.paths[at(number)].from == record.from);
        if !others && let Some(source) = self.sources.get_mut(&record.from) {
            source.ids.remove(id);
        }
    }

    fn remove_where(&mut self, id: PrefixId, gone: impl Fn(&PathRecord) -> bool) {
        let mut next = self.entries[id.index()].first;
        while next != NONE {
            let path = next;
            let record = self.paths[at(path)];
            next = record.next;
            if gone(&record) {
                self.unlink(id, path);
            }
        }
    }

    pub(super) fn remove_paths(
        &mut self,
        source: SourceId,
        family: Option<Family>,
        gone: impl Fn(&PathRecord) -> bool,
    ) {
        for id in self.ids_of(source) {
            if family.is_none_or(|family| self.prefixes.family(id) == family) {
                self.remove_where(id, |path| path.from == source && gone(path));
            }
        }
    }

    /// Keeps what was received of a path that import policy made something else of, or forgets it.
    pub(super) fn keep_received(&mut self, path: u32, received: Option<SetId>) {
        if received.is_none() && self.received.is_empty() {
            return;
        }
        let before = match received {
            Some(set) => {
                self.sets.hold(set);
                self.received.insert(path, set)
            }
            None => self.received.remove(&path),
        };
        if let Some(before) = before {
            self.sets.drop_one(before);
        }
    }

    pub(super) fn refused(&mut self, refusal: Option<ImportRefusal>) -> Refused {
        let Some(refusal) = refusal else {
            return Refused(0);
        };
        let known = self.refusals.iter().position(|it| *it == refusal);
        let index = known.unwrap_or_else(|| {
            self.refusals.push(refusal);
            self.refusals.len() - 1
        });
        // Of more reasons than that the last one stands for all.
        Refused(u16::try_from(index + 1).unwrap_or(u16::MAX))
    }

    pub(super) fn refusal(&self, refused: Refused) -> Option<ImportRefusal> {
        let index = usize::from(refused.0).checked_sub(1)?;
        self.refusals.get(index).copied()
    }

    /// Counts a path in, or out.
    pub(super) fn count(&mut self, id: PrefixId, path: &PathRecord, present: bool) {
        let side = side(self.prefixes.family(id));
        let Some(source) = self.sources.get_mut(&path.from) else {
            return;
        };
        let counts = &mut source.counts[side];
        let change = |number: &mut usize, counts: bool| match (counts, present) {
            (true, true) => *number += 1,
            (true, false) => *number -= 1,
            (false, _) => {}
        };
        change(&mut counts.received, true);
        change(&mut counts.accepted, path.refused.is_none());
        change(&mut counts.stale, path.freshness != Freshness::Fresh);
    }
}
