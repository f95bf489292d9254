//! Which prefixes of a set hold a prefix, in as many look-ups as there are lengths in the set.

use std::collections::{BTreeMap, BTreeSet};

use crds::net::{Cidr, Family};

/// A set of prefixes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cover {
    prefixes: BTreeSet<Cidr>,
    /// How many prefixes there are of each length.
    lengths: BTreeMap<(Family, u8), usize>,
}

impl Cover {
    /// Adds a prefix; returns whether it was not there.
    pub(super) fn insert(&mut self, prefix: Cidr) -> bool {
        let new = self.prefixes.insert(prefix);
        if new {
            *self.lengths.entry(key(prefix)).or_default() += 1;
        }
        new
    }

    /// Removes a prefix; returns whether it was there.
    pub(super) fn remove(&mut self, prefix: Cidr) -> bool {
        if !self.prefixes.remove(&prefix) {
            return false;
        }
        if let Some(count) = self.lengths.get_mut(&key(prefix)) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&key(prefix));
            }
        }
        true
    }

    pub(super) fn contains(&self, prefix: Cidr) -> bool {
        self.prefixes.contains(&prefix)
    }

    /// The prefixes that hold this one, the shortest first.
    pub(super) fn of(&self, prefix: Cidr) -> impl Iterator<Item = Cidr> {
        let family = prefix.family();
        self.lengths
            .range((family, 0)..=(family, prefix.prefix_len()))
            .filter_map(move |((_, length), _)| Cidr::new(prefix.first(), *length).ok())
            .filter(|it| self.prefixes.contains(it))
    }
}

impl FromIterator<Cidr> for Cover {
    fn from_iter<I: IntoIterator<Item = Cidr>>(prefixes: I) -> Self {
        let mut cover = Self::default();
        for prefix in prefixes {
            cover.insert(prefix);
        }
        cover
    }
}

fn key(prefix: Cidr) -> (Family, u8) {
    (prefix.family(), prefix.prefix_len())
}
