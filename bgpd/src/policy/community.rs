//! Communities as people read them, and changes of a route's communities.

use std::collections::BTreeSet;
use std::fmt;

use crate::config::filter::Community;
use crate::wire::Attributes;
use crate::wire::attribute::community;

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(it) => f.write_str(&community::text(*it)),
            Self::Extended(it) => write!(f, "0x{}", crate::wire::hex(it)),
            Self::Large([a, b, c]) => write!(f, "{a}:{b}:{c}"),
        }
    }
}

impl fmt::Display for Communities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let standard = self.standard.iter().copied().map(Community::Standard);
        let extended = self.extended.iter().copied().map(Community::Extended);
        let large = self.large.iter().copied().map(Community::Large);
        for (at, it) in standard.chain(extended).chain(large).enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{it}")?;
        }
        Ok(())
    }
}

/// Communities by kind, each in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Communities {
    standard: Vec<u32>,
    extended: Vec<[u8; 8]>,
    large: Vec<[u32; 3]>,
}

impl Communities {
    pub(super) fn new<'a>(communities: impl IntoIterator<Item = &'a Community>) -> Self {
        let mut all = Self::default();
        let communities: BTreeSet<&Community> = communities.into_iter().collect();
        for it in communities {
            match it {
                Community::Standard(it) => all.standard.push(*it),
                Community::Extended(it) => all.extended.push(*it),
                Community::Large(it) => all.large.push(*it),
            }
        }
        all
    }

    /// Whether the standard community is one of them.
    pub(super) fn names(&self, standard: u32) -> bool {
        self.standard.binary_search(&standard).is_ok()
    }

    /// Whether the route carries one of them.
    pub(super) fn any(&self, of: &Attributes) -> bool {
        holds_one(&of.communities, &self.standard)
            || holds_one(&of.extended_communities, &self.extended)
            || holds_one(&of.large_communities, &self.large)
    }

    /// Whether the route carries all of them.
    pub(super) fn all(&self, of: &Attributes) -> bool {
        self.standard.iter().all(|it| of.communities.contains(it))
            && self
                .extended
                .iter()
                .all(|it| of.extended_communities.contains(it))
            && self
                .large
                .iter()
                .all(|it| of.large_communities.contains(it))
    }

    /// Adds those that the route does not carry yet.
    pub(super) fn add(&self, to: &mut Attributes) {
        add(&mut to.communities, &self.standard);
        add(&mut to.extended_communities, &self.extended);
        add(&mut to.large_communities, &self.large);
    }

    /// Takes them away.
    pub(super) fn remove(&self, from: &mut Attributes) {
        from.communities
            .retain(|it| self.standard.binary_search(it).is_err());
        from.extended_communities
            .retain(|it| self.extended.binary_search(it).is_err());
        from.large_communities
            .retain(|it| self.large.binary_search(it).is_err());
    }

    /// Makes them the route's only ones, of all kinds.
    pub(super) fn replace(&self, of: &mut Attributes) {
        of.communities.clone_from(&self.standard);
        of.extended_communities.clone_from(&self.extended);
        of.large_communities.clone_from(&self.large);
    }
}

fn holds_one<T: Ord>(carried: &[T], asked: &[T]) -> bool {
    !asked.is_empty() && carried.iter().any(|it| asked.binary_search(it).is_ok())
}

/// Those that are new come last; the order of the others says nothing and stays.
fn add<T: Copy + PartialEq>(to: &mut Vec<T>, new: &[T]) {
    for it in new {
        if !to.contains(it) {
            to.push(*it);
        }
    }
}
