//! Numbers for things the kernel refers to by number.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

/// Hands out numbers. One that went out of use is not given again while the kernel may still refer to it by its old
/// meaning: not before a compile that no longer mentions it has been applied.
#[derive(Debug)]
struct Numbers {
    next: u32,
    last: u32,
    free: BTreeSet<u32>,
    /// Gone out of use in the compile with this revision.
    retired: Vec<(u64, u32)>,
    /// In use in the kernel since before this process started.
    foreign: BTreeSet<u32>,
}

impl Numbers {
    fn take(&mut self) -> Option<u32> {
        if let Some(number) = self.free.pop_first() {
            return Some(number);
        }
        while self.foreign.contains(&self.next) {
            self.next += 1;
        }
        let number = self.next;
        if number > self.last {
            return None;
        }
        self.next += 1;
        Some(number)
    }

    fn applied(&mut self, revision: u64) {
        for number in std::mem::take(&mut self.foreign) {
            if number < self.next {
                self.free.insert(number);
            }
        }
        let free = &mut self.free;
        self.retired.retain(|&(since, number)| {
            let pending = since > revision;
            if !pending {
                free.insert(number);
            }
            pending
        });
    }
}

/// Values with numbers and counts of their users.
#[derive(Debug)]
pub(super) struct Interned<K> {
    numbers: Numbers,
    by_value: HashMap<Arc<K>, u32>,
    entries: BTreeMap<u32, (Arc<K>, usize)>,
    /// Numbered since the last sweep.
    fresh: BTreeSet<u32>,
    /// May have lost their last user since the last sweep.
    idle: BTreeSet<u32>,
}

impl<K: Eq + Hash> Interned<K> {
    /// Numbers from `first` to `last`; `last` is below `u32::MAX`.
    pub(super) fn new(first: u32, last: u32) -> Self {
        Self {
            numbers: Numbers {
                next: first,
                last,
                free: BTreeSet::new(),
                retired: Vec::new(),
                foreign: BTreeSet::new(),
            },
            by_value: HashMap::new(),
            entries: BTreeMap::new(),
            fresh: BTreeSet::new(),
            idle: BTreeSet::new(),
        }
    }

    /// The number of a value, with one user more. `None` when all numbers are taken.
    pub(super) fn acquire(&mut self, value: K) -> Option<u32> {
        if let Some(&number) = self.by_value.get(&value) {
            self.reuse(number);
            return Some(number);
        }
        let number = self.numbers.take()?;
        let value = Arc::new(value);
        self.by_value.insert(Arc::clone(&value), number);
        self.entries.insert(number, (value, 1));
        self.fresh.insert(number);
        Some(number)
    }

    /// The number of a value that is not forgotten.
    pub(super) fn number(&self, value: &K) -> Option<u32> {
        self.by_value.get(value).copied()
    }

    /// One user more of a number in use.
    pub(super) fn reuse(&mut self, number: u32) {
        if let Some((_, users)) = self.entries.get_mut(&number) {
            *users += 1;
        }
    }

    /// One user less.
    pub(super) fn release(&mut self, number: u32) {
        if let Some((_, users)) = self.entries.get_mut(&number) {
            *users -= 1;
            if *users == 0 {
                self.idle.insert(number);
            }
        }
    }

    pub(super) fn value(&self, number: u32) -> Option<&Arc<K>> {
        self.entries.get(&number).map(|(value, _)| value)
    }

    /// Everything that has users, by number.
    pub(super) fn used(&self) -> impl Iterator<Item = (u32, &Arc<K>)> {
        self.entries
            .iter()
            .filter(|(_, (_, users))| *users > 0)
            .map(|(&number, (value, _))| (number, value))
    }

    /// What was numbered since the last sweep and has users.
    pub(super) fn used_fresh(&self) -> impl Iterator<Item = (u32, &Arc<K>)> {
        let entries = self.fresh.iter().filter_map(|&number| {
            self.entries
                .get(&number)
                .map(|(value, users)| (number, value, *users))
        });
        entries
            .filter(|&(.., users)| users > 0)
            .map(|(number, value, _)| (number, value))
    }

    /// Whether a number has users now and had its meaning at the last sweep already.
    pub(super) fn lasting(&self, number: u32) -> bool {
        !self.fresh.contains(&number)
            && self
                .entries
                .get(&number)
                .is_some_and(|(_, users)| *users > 0)
    }

    /// What was numbered since the last sweep.
    pub(super) const fn fresh(&self) -> &BTreeSet<u32> {
        &self.fresh
    }

    /// Numbers which have no users now.
    pub(super) fn unused(&self) -> Vec<u32> {
        let unused = |number: &&u32| {
            self.entries
                .get(number)
                .is_some_and(|(_, users)| *users == 0)
        };
        self.idle.iter().filter(unused).copied().collect()
    }

    /// Forgets the unused. Their numbers come back when this revision has been applied.
    pub(super) fn sweep(&mut self, revision: u64) -> Vec<u32> {
        let unused = self.unused();
        for &number in &unused {
            if let Some((value, _)) = self.entries.remove(&number) {
                self.by_value.remove(&value);
                self.numbers.retired.push((revision, number));
            }
        }
        self.idle.clear();
        self.fresh.clear();
        unused
    }

    /// A number the kernel uses with a meaning we do not know.
    pub(super) fn reserve(&mut self, number: u32) {
        if number >= self.numbers.next {
            self.numbers.foreign.insert(number);
        }
    }

    /// The kernel holds what was compiled as this revision.
    pub(super) fn applied(&mut self, revision: u64) {
        self.numbers.applied(revision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_not_reused_before_its_removal_was_applied() {
        let mut ids = Interned::new(1, 100);
        assert_eq!(ids.acquire("a"), Some(1));
        ids.release(1);
        assert_eq!(ids.sweep(5), [1]);
        assert_eq!(ids.acquire("b"), Some(2));
        ids.applied(4);
        assert_eq!(ids.acquire("c"), Some(3));
        ids.applied(5);
        assert_eq!(ids.acquire("d"), Some(1));
    }

    #[test]
    fn numbers_of_an_earlier_life_wait_for_the_first_applied_compile() {
        let mut ids = Interned::new(1, 100);
        ids.reserve(1);
        ids.reserve(3);
        assert_eq!(ids.acquire("a"), Some(2));
        assert_eq!(ids.acquire("b"), Some(4));
        ids.applied(1);
        assert_eq!(ids.acquire("c"), Some(1));
    }

    #[test]
    fn exhaustion_is_an_answer() {
        let mut ids = Interned::new(1, 1);
        assert_eq!(ids.acquire("a"), Some(1));
        assert_eq!(ids.acquire("b"), None);
        assert_eq!(ids.acquire("a"), Some(1));
    }
}
