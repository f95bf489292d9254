//! What the policies that select an endpoint here make of peers: only their lists and the ports they ask for by name
//! tell peers apart.

use std::collections::{BTreeMap, BTreeSet};

use super::engine::Installed;
use super::evaluate::Rule;
use super::lists::{ListId, PeerLists};
use super::model::PortMatch;
use super::tables::Direction;

/// What one policy has in use.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Uses {
    lists: BTreeSet<ListId>,
    /// Ports that rules ask of the other side by name, with a list of the rule: that says something about those peers
    /// only. What they ask of our side is part of the subject.
    names: BTreeSet<(PortMatch, Option<ListId>)>,
}

impl Uses {
    /// Of a policy that selects an endpoint here.
    pub(super) fn of(installed: &Installed, lists: &PeerLists) -> Self {
        let mut uses = Self::default();
        for direction in Direction::BOTH {
            for rule in installed.rules(direction).into_iter().flatten() {
                uses.lists.extend(rule.lists().chain(rule.own_lists()));
                if rule.own_lists().any(|list| lists.by_family(list)) {
                    uses.lists.insert(ListId::IPV4);
                }
                let list = rule.peers.iter().find(|term| !term.negated);
                let list = list.map(|term| term.any);
                let names = peer_names(rule, direction);
                uses.names.extend(names.map(|name| (name.clone(), list)));
            }
        }
        uses
    }
}

/// The ports that a rule asks of the other side by name.
pub(super) fn peer_names(rule: &Rule, direction: Direction) -> impl Iterator<Item = &PortMatch> {
    let (destination, source) = match direction {
        Direction::Egress => (Some(rule.ports()), None),
        Direction::Ingress => (None, Some(rule.sources())),
    };
    let names = destination.into_iter().flatten();
    names
        .chain(source.into_iter().flatten())
        .filter(|entry| entry.is_name())
}

/// The ports that a rule asks of our side by name.
pub(super) fn own_names(rule: &Rule, direction: Direction) -> impl Iterator<Item = &PortMatch> {
    let other = match direction {
        Direction::Egress => Direction::Ingress,
        Direction::Ingress => Direction::Egress,
    };
    peer_names(rule, other)
}

/// Everything in use.
#[derive(Debug, Default)]
pub(super) struct Active {
    /// With the number of policies.
    lists: BTreeMap<ListId, usize>,
    names: BTreeMap<PortMatch, BTreeMap<Option<ListId>, usize>>,
    /// Lists that were acquired or released since the last settlement, and whether they were in use before.
    unsettled: BTreeMap<ListId, bool>,
    renamed: BTreeSet<PortMatch>,
}

/// What came into use and went out of it.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) added: BTreeSet<ListId>,
    pub(super) removed: BTreeSet<ListId>,
    /// Names whose uses changed.
    pub(super) renamed: BTreeSet<PortMatch>,
}

impl Active {
    pub(super) fn acquire(&mut self, uses: &Uses) {
        for &id in &uses.lists {
            let policies = self.lists.entry(id).or_default();
            self.unsettled.entry(id).or_insert(*policies > 0);
            *policies += 1;
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
            if let Some(policies) = self.lists.get_mut(&id) {
                self.unsettled.entry(id).or_insert(*policies > 0);
                *policies -= 1;
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
            let now = self.lists.get(&id).is_some_and(|policies| *policies > 0);
            if now && !before {
                settled.added.insert(id);
            }
            if !now {
                self.lists.remove(&id);
                if before {
                    settled.removed.insert(id);
                }
            }
        }
        settled
    }

    pub(super) fn lists(&self) -> impl Iterator<Item = ListId> {
        self.lists.keys().copied()
    }

    /// Whether some rule asks for this name on peers in these lists.
    pub(super) fn asks(&self, name: &PortMatch, lists: &BTreeSet<ListId>) -> bool {
        let uses = self.names.get(name);
        uses.is_some_and(|uses| {
            uses.keys()
                .any(|list| list.is_none_or(|list| lists.contains(&list)))
        })
    }
}
