//! From what changed to the elements that change.
//!
//! ```text
//!  policies, endpoints ─► which policies select which endpoints ─► subjects ─┐
//!                                    │                                       ├─► rows ─► programs
//!                                    └─► lists and names in use ─► classes ──┘
//!                                                                  ▲
//!                                   pods, addresses, blocks ───────┘
//! ```
//!
//! Each step looks only at what the steps before touched.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::active::{Uses, own_names};
use super::classes::{ClassKey, Offer, SubjectKey};
use super::engine::{Compiled, Engine, Programmed};
use super::evaluate::{Asked, Rule, Tiered};
use super::ids::Interned;
use super::index::Ifname;
use super::model::PolicyKey;
use super::selecting::Labelled;
use super::sorting::offer;
use super::tables::{Class, Direction, Subject};

/// What changed in this compile, for the rows and for the question whether it narrows.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// Policies with other rules or another place than before.
    pub(super) edited: BTreeSet<PolicyKey>,
    /// Address that still has an owner or never had one → its class before and after.
    pub(super) classes: BTreeSet<(Class, Class)>,
    /// Subject of an endpoint before and after.
    pub(super) subjects: BTreeSet<(Subject, Subject)>,
}

impl Engine {
    /// Brings the tables up to date with everything told so far.
    pub fn compile(&mut self) -> Compiled {
        self.revision += 1;
        let mut moves = Moves::default();
        self.select(&mut moves);
        let settled = self.active.settle();
        let cut = self.cut_blocks(&settled, &mut moves);
        self.sort_pods(&settled);
        self.sort_others(&settled);
        self.classify(&cut, &mut moves);
        self.release_blocks(&cut);
        self.assign_subjects(&mut moves);
        self.fill_rows(&moves);
        self.drop_rows();
        let hosts_narrow = self.fill_hosts(&moves);
        let narrowing = std::mem::take(&mut self.narrowing) || self.narrows(&moves) || hosts_narrow;
        if narrowing {
            self.freed.clear();
        }
        self.write_programs();
        self.subjects.sweep(self.revision);
        self.classes.sweep(self.revision);
        self.causes.sweep(self.revision);
        Compiled {
            revision: self.revision,
            changes: self.ledger.drain(),
            narrowing,
        }
    }

    /// Which policies select which endpoints, and what they have in use.
    fn select(&mut self, moves: &mut Moves) {
        let endpoints = std::mem::take(&mut self.dirty.endpoints);
        let edited = std::mem::take(&mut self.dirty.policies);
        let mut touched = edited.clone();
        for ifname in &endpoints {
            let keys = self.candidates(ifname);
            touched.extend(self.reselect(ifname, keys));
        }
        if !edited.is_empty() {
            let others: Vec<_> = self
                .index
                .endpoints()
                .map(|(ifname, _)| Arc::clone(ifname))
                .collect();
            for ifname in others.iter().filter(|ifname| !endpoints.contains(*ifname)) {
                let keys: Vec<_> = {
                    let namespace = self.namespace(ifname);
                    let keys = edited
                        .iter()
                        .filter(|key| self.concerns(key, ifname, namespace));
                    keys.cloned().collect()
                };
                if !self.reselect(ifname, keys).is_empty() {
                    self.dirty.endpoints.insert(Arc::clone(ifname));
                }
            }
        }
        self.dirty.endpoints.extend(endpoints);

        touched.extend(self.reselect_hosts(&edited));
        let mut released = std::mem::take(&mut self.dirty.uses);
        for key in &touched {
            let Some(installed) = self.policies.get_mut(key) else {
                continue;
            };
            let uses = if installed.selected.is_empty() && installed.hosts.is_empty() {
                Uses::default()
            } else {
                Uses::of(installed, &self.lists)
            };
            if uses != installed.uses {
                self.active.acquire(&uses);
                released.push(std::mem::replace(&mut installed.uses, uses));
            }
            // Directions and names of ports are part of what a subject is.
            if edited.contains(key) {
                self.dirty
                    .endpoints
                    .extend(installed.selected.iter().map(Arc::clone));
            }
        }
        for uses in &released {
            self.active.release(uses);
        }
        self.stirred.extend(touched);
        moves.edited = edited;
    }

    /// The policies that select an endpoint, or may by the labels of its pod.
    fn candidates(&self, ifname: &str) -> BTreeSet<PolicyKey> {
        let pod = self.index.endpoint(ifname).map(|it| &it.uid);
        let pod = pod.and_then(|uid| self.index.resident(uid));
        let mut candidates = match pod {
            Some(pod) => self.selectors.of(pod.identity.every_label()),
            None => BTreeSet::new(),
        };
        if let Some(programmed) = self.endpoints.get(ifname) {
            candidates.extend(programmed.policies.iter().cloned());
        }
        candidates
    }

    /// Whether this policy is among the candidates of an endpoint in this namespace.
    fn concerns(&self, key: &PolicyKey, ifname: &str, namespace: Option<&str>) -> bool {
        let selecting = self
            .endpoints
            .get(ifname)
            .is_some_and(|it| it.policies.contains(key));
        let within = self
            .policies
            .get(key)
            .map(|it| it.policy.subject.namespace());
        selecting || within.is_some_and(|within| within.is_none() || within == namespace)
    }

    /// Namespace of the pod behind an interface.
    fn namespace(&self, ifname: &str) -> Option<&str> {
        let pod = self.index.resident(&self.index.endpoint(ifname)?.uid)?;
        Some(&pod.identity.namespace)
    }

    /// Tries these policies on one endpoint; returns those whose answer changed.
    fn reselect(
        &mut self,
        ifname: &Ifname,
        keys: impl IntoIterator<Item = PolicyKey>,
    ) -> Vec<PolicyKey> {
        let endpoint = self.index.endpoint(ifname);
        let Some(pod) = endpoint.and_then(|endpoint| self.index.resident(&endpoint.uid)) else {
            let gone = self.endpoints.remove(ifname).unwrap_or_default();
            for key in &gone.policies {
                if let Some(installed) = self.policies.get_mut(key) {
                    installed.selected.remove(ifname);
                }
            }
            self.ledger.put_link(ifname.to_string(), None);
            if let Some(subject) = gone.subject {
                self.subjects.release(subject.number());
            }
            return gone.policies.into_iter().collect();
        };
        let programmed = self.endpoints.entry(Arc::clone(ifname)).or_default();
        let mut changed = Vec::new();
        for key in keys {
            let selects = self.policies.get_mut(&key).is_some_and(|installed| {
                self.work.selectors += 1;
                let it = Labelled::Pod(&pod.identity);
                let selects = installed.policy.stage.is_for_pods()
                    && installed.policy.subject.selects(it, &self.index.inherited);
                if selects {
                    installed.selected.insert(Arc::clone(ifname));
                } else {
                    installed.selected.remove(ifname);
                }
                selects
            });
            let was = if selects {
                !programmed.policies.insert(key.clone())
            } else {
                programmed.policies.remove(&key)
            };
            if was != selects {
                changed.push(key);
            }
        }
        changed
    }

    fn assign_subjects(&mut self, moves: &mut Moves) {
        for ifname in std::mem::take(&mut self.dirty.endpoints) {
            let Some(programmed) = self.endpoints.get(&ifname) else {
                continue;
            };
            let Some(key) = self.subject_key(&ifname, programmed) else {
                continue;
            };
            let (egress, ingress) = (!key.egress.is_empty(), !key.ingress.is_empty());
            // Without a number there is no link, and without a link the endpoint is denied as not programmed.
            let number = self.subjects.acquire(key);
            let subject = number.map(|number| Subject::new(number, egress, ingress));
            let Some(programmed) = self.endpoints.get_mut(&ifname) else {
                continue;
            };
            let old = std::mem::replace(&mut programmed.subject, subject);
            if let Some(old) = old {
                self.subjects.release(old.number());
            }
            if let (Some(old), Some(new)) = (old, subject)
                && old != new
            {
                moves.subjects.insert((old, new));
            }
            self.ledger.put_link(ifname.to_string(), subject);
        }
    }

    fn subject_key(&self, ifname: &str, programmed: &Programmed) -> Option<SubjectKey> {
        let endpoint = self.index.endpoint(ifname)?;
        let pod = self.index.resident(&endpoint.uid)?;
        let offers: BTreeSet<Offer> = pod.identity.named_ports.iter().map(offer).collect();
        let addresses = endpoint.addresses.iter().copied();
        Some(self.key_of(programmed.policies.iter(), addresses, &offers))
    }

    /// The subject of these policies, as far as they ask about its addresses and ports.
    pub(super) fn key_of<'a>(
        &self,
        policies: impl Iterator<Item = &'a PolicyKey> + Clone,
        addresses: impl Iterator<Item = IpAddr>,
        offers: &BTreeSet<Offer>,
    ) -> SubjectKey {
        let mut key = SubjectKey::default();
        let mut names = BTreeSet::new();
        let mut lists = BTreeSet::new();
        for direction in Direction::BOTH {
            for policy in policies.clone() {
                let installed = self.policies.get(policy);
                let Some(rules) = installed.and_then(|it| it.rules(direction)) else {
                    continue;
                };
                names.extend(rules.iter().flat_map(|rule| own_names(rule, direction)));
                lists.extend(rules.iter().flat_map(Rule::own_lists));
                let keys = match direction {
                    Direction::Egress => &mut key.egress,
                    Direction::Ingress => &mut key.ingress,
                };
                keys.insert(policy.clone());
            }
        }
        let asked = |offer: &&Offer| names.contains(&offer.entry);
        key.ports = offers.iter().filter(asked).cloned().collect();
        if !lists.is_empty() {
            // Of several addresses of one family the first counts.
            let mut seen = [false; 2];
            for address in addresses {
                let family = address.is_ipv4();
                if !std::mem::replace(&mut seen[usize::from(family)], true) {
                    let at = self.lists_at(address);
                    key.own
                        .extend(at.intersection(&lists).map(|&list| (family, list)));
                }
            }
        }
        key
    }

    /// The policies of a subject in one direction, tier by tier.
    pub(super) fn stages<'a>(
        &'a self,
        keys: impl IntoIterator<Item = &'a PolicyKey>,
        direction: Direction,
    ) -> Vec<Tiered<'a>> {
        let mut ranked = Vec::new();
        for key in keys {
            let Some((key, installed)) = self.policies.get_key_value(key) else {
                continue;
            };
            let tier = self.tiers.get(&installed.policy.tier);
            if let (Some(tier), Some(rules)) = (tier, installed.rules(direction)) {
                let asked = Asked {
                    key,
                    enforcement: installed.policy.enforcement,
                    rules,
                };
                ranked.push((tier, installed.policy.order, asked));
            }
        }
        ranked.sort_by_key(|(tier, order, asked)| (tier.order, &tier.name, *order, asked.key));
        let mut stages: Vec<Tiered<'a>> = Vec::new();
        for (tier, _, asked) in ranked {
            match stages.last_mut() {
                Some(stage) if stage.tier.name == tier.name => stage.policies.push(asked),
                _ => stages.push(Tiered {
                    tier,
                    policies: vec![asked],
                }),
            }
        }
        stages
    }
}

pub(super) fn acquire_class(classes: &mut Interned<ClassKey>, key: ClassKey) -> Class {
    if key.is_empty() {
        return Class::NONE;
    }
    classes.acquire(key).map_or(Class::NONE, Class)
}
