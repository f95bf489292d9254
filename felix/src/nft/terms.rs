//! What `inet margay` holds beside policy: which of the rules for it there are, and the elements of its sets.

use std::collections::BTreeMap;

use super::build::TERMS;
use super::diff::Batch;
use super::model::{Element, Set, Value};

/// Which rules there are beside those of policy. What nobody asks for costs no packet anything: it has no rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// Some pool's pods leave the cluster by the node's address, with source ports of this range if there is one.
    pub outgoing: Option<Option<(u16, u16)>>,
    /// Pods may have floating addresses.
    pub floating: bool,
    /// Packets to Services that nobody translated do not leave again.
    pub services: Option<Services>,
    /// Some pod here has limits or a DSCP.
    pub limits: bool,
    /// Some interface of the node is a host endpoint.
    pub hosts: bool,
    /// Some pod here may have only so many connections.
    pub connections: bool,
}

impl Rules {
    /// All there can be.
    pub const EVERY: Self = Self {
        outgoing: Some(None),
        floating: true,
        services: Some(Services::Drop),
        limits: true,
        hosts: true,
        connections: true,
    };
}

/// What becomes of packets to Services that nobody translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Services {
    /// They are dropped.
    Drop,
    /// The sender is told.
    Reject,
}

/// The elements of [`TERMS`], by set and key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elements {
    by_key: BTreeMap<(usize, Vec<Value>), Element>,
}

impl Elements {
    /// Puts one in, unless its set is of policy.
    pub fn insert(&mut self, element: Element) {
        if let Some(place) = place(element.set) {
            let key = (place, element.key.clone());
            self.by_key.insert(key, element);
        }
    }

    /// All of them, set by set.
    pub fn iter(&self) -> impl Iterator<Item = &Element> {
        self.by_key.values()
    }

    /// None is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// From these to `wanted`. Connections are judged again when packets of theirs may be seen otherwise than before and
    /// would pass as judged.
    #[must_use]
    pub fn step(&self, wanted: &Self) -> Batch {
        let mut batch = Batch::default();
        for (key, old) in &self.by_key {
            if wanted.by_key.get(key) != Some(old) {
                batch.delete.push(old.clone());
            }
        }
        for (key, new) in &wanted.by_key {
            if self.by_key.get(key) != Some(new) {
                batch.bump |= narrows(new.set);
                batch.add.push(new.clone());
            }
        }
        batch
    }
}

impl FromIterator<Element> for Elements {
    fn from_iter<I: IntoIterator<Item = Element>>(elements: I) -> Self {
        let mut all = Self::default();
        elements.into_iter().for_each(|it| all.insert(it));
        all
    }
}

fn place(set: &Set) -> Option<usize> {
    TERMS.iter().position(|other| std::ptr::eq(set, *other))
}

fn narrows(set: &Set) -> bool {
    use super::build::{LIMITED, SERVICE4, SERVICE6};
    [&LIMITED, &SERVICE4, &SERVICE6]
        .iter()
        .any(|other| std::ptr::eq(set, *other))
}
