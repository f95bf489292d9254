//! Prefixes whose ways somebody is still to be told.

use std::collections::VecDeque;

use super::ids::IdSet;
use super::table::Rib;
use super::{LegsId, PrefixId};

impl Rib {
    /// Whether these are the ways to any prefix, as of the last decision. Looks at them all, up to the first.
    pub fn leads_over(&self, legs: LegsId) -> bool {
        self.entries.iter().any(|entry| entry.legs == legs)
    }

    /// For how many prefixes there is room, used or not.
    pub fn breadth(&self) -> usize {
        self.entries.len()
    }
}

/// Prefixes that are due to be told, in the order of their change, each once. A prefix keeps its number as long as it is
/// in here.
#[derive(Debug, Default)]
pub struct Due {
    queue: VecDeque<PrefixId>,
    ids: IdSet,
}

impl Due {
    /// Adds a prefix, unless it is in here.
    pub fn push(&mut self, id: PrefixId, rib: &mut Rib) {
        if self.ids.insert(id) {
            rib.hold(id);
            self.queue.push_back(id);
        }
    }

    /// Adds every prefix that there are ways to.
    pub fn push_all(&mut self, rib: &mut Rib) {
        let all: Vec<PrefixId> = rib.ids().collect();
        for id in all {
            if !rib.leg_list(rib.legs(id)).is_empty() {
                self.push(id, rib);
            }
        }
    }

    /// Takes the one out that has been in here longest, and says what it has become to `tell`, before its number may be
    /// given to another. Whether there was one.
    pub fn pop(&mut self, rib: &mut Rib, tell: impl FnOnce(&Rib, PrefixId)) -> bool {
        let Some(id) = self.queue.pop_front() else {
            // What a whole table took is not kept for the changes of an hour.
            self.queue = VecDeque::new();
            return false;
        };
        tell(rib, id);
        self.ids.remove(id);
        rib.let_go(id);
        true
    }

    /// Forgets them all.
    pub fn clear(&mut self, rib: &mut Rib) {
        while self.pop(rib, |_, _| {}) {}
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing is due.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
