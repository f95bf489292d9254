//! What the policies that select an endpoint here make of peers: only their lists and port names tell peers apart.

use std::collections::{BTreeMap, BTreeSet};

use super::engine::Installed;
use super::intervals::Span;
use super::lists::{ListId, PeerLists};
use super::model::PortMatch;
use super::tables::Direction;

/// Name and protocol of a container port.
pub(super) type PortName = (String, u8);

/// What one policy has in use.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Uses {
    lists: BTreeSet<ListId>,
    /// Names in egress rules, with a list of the rule: the name says something about those peers only. Names in
    /// ingress rules are those of the subject.
    names: BTreeSet<(PortName, Option<ListId>)>,
}

impl Uses {
    /// Of a policy that selects an endpoint here.
    pub(super) fn of(installed: &Installed) -> Self {
        let mut uses = Self::default();
        for direction in Direction::BOTH {
            for rule in installed.rules(direction).into_iter().flatten() {
                uses.lists.extend(rule.peers.iter().map(|term| term.any));
                if direction == Direction::Egress {
                    let list = rule.peers.iter().find(|term| !term.negated);
                    let list = list.map(|term| term.any);
                    uses.names
                        .extend(port_names(rule.ports()).map(|name| (name, list)));
                }
            }
        }
        uses
    }
}

/// The names among a rule's ports.
pub(super) fn port_names<'a>(
    ports: impl Iterator<Item = &'a PortMatch>,
) -> impl Iterator<Item = PortName> {
    ports.filter_map(|entry| match entry {
        PortMatch::Named { protocol, name } => Some((name.clone(), *protocol)),
        _ => None,
    })
}

/// A list in use.
#[derive(Debug)]
struct Listed {
    policies: usize,
    spans: Vec<Span>,
}

/// Everything in use.
#[derive(Debug, Default)]
pub(super) struct Active {
    lists: BTreeMap<ListId, Listed>,
    names: BTreeMap<PortName, BTreeMap<Option<ListId>, usize>>,
    /// Lists that were acquired or released since the last settlement, and whether they were in use before.
    unsettled: BTreeMap<ListId, bool>,
    renamed: BTreeSet<PortName>,
}

/// What came into use and went out of it.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) added: BTreeSet<ListId>,
    pub(super) removed: BTreeSet<ListId>,
    /// Names whose uses changed.
    pub(super) renamed: BTreeSet<PortName>,
    /// A list with blocks came or went.
    pub(super) blocks: bool,
}

impl Active {
    pub(super) fn acquire(&mut self, uses: &Uses, lists: &PeerLists) {
        for &id in &uses.lists {
            self.unsettled
                .entry(id)
                .or_insert_with(|| self.lists.get(&id).is_some_and(|list| list.policies > 0));
            let spans = || {
                lists
                    .list(id)
                    .filter(|list| list.has_blocks())
                    .map(|list| list.spans())
            };
            self.lists
                .entry(id)
                .or_insert_with(|| Listed {
                    policies: 0,
                    spans: spans().unwrap_or_default(),
                })
                .policies += 1;
        }
        for (name, list) in &uses.names {
            self.renamed.insert(name.clone());
            *self
                .names
                .entry(name.clone())
                .or_default()
                .entry(*list)
                .or_default() += 1;
        }
    }

    pub(super) fn release(&mut self, uses: &Uses) {
        for &id in &uses.lists {
            if let Some(list) = self.lists.get_mut(&id) {
                self.unsettled.entry(id).or_insert(list.policies > 0);
                list.policies -= 1;
            }
        }
        for (name, list) in &uses.names {
            self.renamed.insert(name.clone());
            let Some(uses) = self.names.get_mut(name) else {
                continue;
            };
            if let Some(policies) = uses.get_mut(list) {
                *policies -= 1;
                if *policies == 0 {
                    uses.remove(list);
                }
            }
            if uses.is_empty() {
                self.names.remove(name);
            }
        }
    }

    /// Forgets what nobody uses and says what changed since the last time.
    pub(super) fn settle(&mut self) -> Settled {
        let mut settled = Settled {
            renamed: std::mem::take(&mut self.renamed),
            ..Settled::default()
        };
        for (id, before) in std::mem::take(&mut self.unsettled) {
            let Some(list) = self.lists.get(&id) else {
                continue;
            };
            let now = list.policies > 0;
            if now != before {
                settled.blocks |= !list.spans.is_empty();
                if now {
                    settled.added.insert(id)
                } else {
                    settled.removed.insert(id)
                };
            }
            if !now {
                self.lists.remove(&id);
            }
        }
        settled
    }

    pub(super) fn lists(&self) -> impl Iterator<Item = ListId> {
        self.lists.keys().copied()
    }

    /// Every block of every list.
    pub(super) fn spans(&self) -> impl Iterator<Item = (Span, ListId)> {
        self.lists
            .iter()
            .flat_map(|(&id, list)| list.spans.iter().map(move |&span| (span, id)))
    }

    /// Whether some egress rule asks for this name on peers in these lists.
    pub(super) fn asks(&self, name: &PortName, lists: &BTreeSet<ListId>) -> bool {
        let uses = self.names.get(name);
        uses.is_some_and(|uses| {
            uses.keys()
                .any(|list| list.is_none_or(|list| lists.contains(&list)))
        })
    }
}
