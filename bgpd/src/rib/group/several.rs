//! Several paths for one prefix, told to one member (RFC 7911).
//!
//! A path goes by its number in the table, which stays the same for as long as its source tells it. Only a
//! member that takes several pays for them: it has an adj-RIB-out of its own for these families, which its group leaves
//! alone.

use crds::net::{Cidr, Family};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::super::ids::IdSet;
use super::super::prefixes::side;
use super::super::{Best, PrefixId, Rib, SourceId};
use super::batch::{Batch, Outcome};
use super::{Key, Outlet, STEP};
use crate::wire::writer::withdraw_all;

/// What one member has been told, and is still to be told.
#[derive(Debug)]
pub(super) struct Several {
    key: Key,
    /// The paths told of each prefix. Their attribute sets and the prefix's number are held.
    told: HashMap<PrefixId, Vec<Told>, RandomState>,
    counts: [usize; 2],
    todo: IdSet,
    /// Prefixes to be told even if they have the same paths as before, unless that makes no difference to what `before`
    /// says.
    again: IdSet,
    before: Option<Key>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    id: u32,
    best: Best,
}

impl Several {
    pub(super) fn new(key: Key, rib: &Rib) -> Self {
        let mut this = Self {
            key,
            told: HashMap::default(),
            counts: [0, 0],
            todo: IdSet::default(),
            again: IdSet::default(),
            before: None,
        };
        for id in rib.ids() {
            this.todo.insert(id);
        }
        this
    }

    /// The member is told otherwise from now on: it is told of what that changes.
    pub(super) fn change_key(&mut self, key: Key, rib: &Rib) {
        if self.key == key {
            return;
        }
        let before = std::mem::replace(&mut self.key, key);
        // Of two changes at once only that something differs is known.
        self.before = self.again.is_empty().then_some(before);
        for id in self.told.keys().copied().chain(rib.ids()) {
            self.again.insert(id);
            self.todo.insert(id);
        }
    }

    /// The paths to a prefix may have changed.
    pub(super) fn touch(&mut self, id: PrefixId) {
        self.todo.insert(id);
    }

    /// A prefix is to be told again although its paths are the same.
    pub(super) fn retell(&mut self, id: PrefixId) {
        self.again.insert(id);
        self.before = None;
        self.todo.insert(id);
    }

    /// Everything of a family is to be told again.
    pub(super) fn repeat(&mut self, family: Family, rib: &Rib) {
        let all = self.told.keys().copied();
        let all: Vec<PrefixId> = all.filter(|id| rib.family(*id) == family).collect();
        all.into_iter().for_each(|id| self.retell(id));
    }

    pub(super) fn is_done(&self) -> bool {
        self.todo.is_empty()
    }

    /// How many paths of a family have been told.
    pub(super) fn count(&self, family: Family) -> usize {
        self.counts[side(family)]
    }

    /// The paths told of a prefix, the best one first; None: the family is not its own.
    pub(super) fn told(&self, id: PrefixId, family: Family) -> Option<Vec<Best>> {
        let is_ours = self.key.dialect.paths_sent.contains(family);
        is_ours.then(|| {
            let told = self.told.get(&id).into_iter().flatten();
            told.map(|it| it.best).collect()
        })
    }

    /// Tells what is to be told, as far as the member has room.
    pub(super) fn tell(&mut self, member: SourceId, rib: &mut Rib, outlet: &mut impl Outlet) {
        while !self.todo.is_empty() && outlet.has_room(member) {
            self.step(member, rib, outlet);
        }
        if self.todo.is_empty() {
            self.before = None;
        }
    }

    fn step(&mut self, member: SourceId, rib: &mut Rib, outlet: &mut impl Outlet) {
        let (mut batch, mut past) = (Batch::default(), Batch::default());
        let mut items: Vec<(usize, u32, PrefixId)> = Vec::new();
        let mut gone: [Vec<(u32, Cidr)>; 2] = [Vec::new(), Vec::new()];
        for _ in 0..STEP.0 {
            if batch.size > STEP.1 {
                break;
            }
            let Some(id) = self.todo.pop_first() else {
                break;
            };
            let again = self.again.remove(id);
            let family = rib.family(id);
            if !self.key.dialect.paths_sent.contains(family) {
                continue;
            }
            let mut now: Vec<(usize, Told)> = Vec::new();
            let (key, most) = (&self.key, usize::from(self.key.paths));
            rib.ranked(id, |number, best| {
                if best.from == member {
                    return true;
                }
                let place = batch.place(rib, key, best, id);
                match batch.outcome(place) {
                    Outcome::Told(_) => {
                        let id = number.saturating_add(1);
                        now.push((place, Told { id, best }));
                    }
                    Outcome::TooLong => outlet.too_long(member, rib.prefix(id)),
                    Outcome::Refused => {}
                }
                now.len() < most
            });
            let have = self.told.get(&id).cloned().unwrap_or_default();
            for old in &have {
                if !now.iter().any(|(_, it)| it.id == old.id) {
                    gone[side(family)].push((old.id, rib.prefix(id)));
                }
            }
            for (place, it) in &now {
                let same = have.contains(it)
                    && match &self.before {
                        _ if !again => true,
                        Some(key) => {
                            let before = past.place(rib, key, it.best, id);
                            past.outcome(before) == batch.outcome(*place)
                        }
                        None => false,
                    };
                if !same {
                    items.push((*place, it.id, id));
                }
            }
            self.note(rib, id, now.into_iter().map(|(_, it)| it).collect());
        }
        let (bytes, messages) = self.write(member, &batch, items, gone, rib, outlet);
        if !bytes.is_empty() {
            outlet.send(member, bytes.into());
        }
        outlet.sent(member, messages);
    }

    /// Withdrawals, then announcements; the bytes, and how many messages they are.
    fn write(
        &mut self,
        member: SourceId,
        batch: &Batch,
        mut items: Vec<(usize, u32, PrefixId)>,
        mut gone: [Vec<(u32, Cidr)>; 2],
        rib: &mut Rib,
        outlet: &mut impl Outlet,
    ) -> (Vec<u8>, usize) {
        items.sort_by_key(|(place, ..)| *place);
        let (mut told, mut messages) = (Vec::new(), 0);
        for items in items.chunk_by(|one, other| one.0 == other.0) {
            let Some(Outcome::Told(announcer)) =
                items.first().map(|(place, ..)| batch.outcome(*place))
            else {
                continue;
            };
            let paths: Vec<(u32, Cidr)> = items
                .iter()
                .map(|(_, id, prefix)| (*id, rib.prefix(*prefix)))
                .collect();
            let start = told.len();
            match announcer.write(&paths, &mut told) {
                Ok(some) => messages += some,
                Err(_) => {
                    // A long prefix may not fit where the others do.
                    told.truncate(start);
                    for ((_, id, prefix), (_, cidr)) in items.iter().zip(&paths) {
                        if let Ok(some) = announcer.write(&[(*id, *cidr)], &mut told) {
                            messages += some;
                            continue;
                        }
                        outlet.too_long(member, *cidr);
                        // It may have had one that was told.
                        gone[side(cidr.family())].push((*id, *cidr));
                        let mut left = self.told.get(prefix).cloned().unwrap_or_default();
                        left.retain(|it| it.id != *id);
                        self.note(rib, *prefix, left);
                    }
                }
            }
        }
        let mut bytes = Vec::new();
        for family in Family::ALL {
            messages += withdraw_all(family, &gone[side(family)], &mut bytes);
        }
        bytes.append(&mut told);
        (bytes, messages)
    }

    /// Notes what is told of a prefix now.
    fn note(&mut self, rib: &mut Rib, id: PrefixId, now: Vec<Told>) {
        now.iter().for_each(|it| rib.sets.hold(it.best.set));
        let count = &mut self.counts[side(rib.family(id))];
        *count += now.len();
        let is_told = !now.is_empty();
        let before = match is_told {
            true => self.told.insert(id, now),
            false => self.told.remove(&id),
        };
        *count -= before.as_ref().map_or(0, Vec::len);
        match (&before, is_told) {
            (None, true) => rib.hold(id),
            (Some(_), false) => rib.let_go(id),
            // Nobody may need the number any more that it was looked at by.
            (None, false) => rib.release(id),
            (Some(_), true) => {}
        }
        for it in before.into_iter().flatten() {
            rib.sets.drop_one(it.best.set);
        }
    }

    /// Lets go of everything that is held.
    pub(super) fn dissolve(self, rib: &mut Rib) {
        for (id, told) in self.told {
            for it in told {
                rib.sets.drop_one(it.best.set);
            }
            rib.let_go(id);
        }
        for id in self.todo.iter() {
            rib.release(id);
        }
    }
}
