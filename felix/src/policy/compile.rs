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

use super::active::{PortName, Settled, Uses, port_names};
use super::classes::{ClassKey, Nets, SubjectKey};
use super::engine::{Compiled, Engine, Programmed};
use super::evaluate::Tiered;
use super::ids::Interned;
use super::index::{Ifname, Uid};
use super::model::PolicyKey;
use super::selecting::Labelled;
use super::tables::{Class, Direction, Subject};
use crate::feed::NamedPort;

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
        let before = settled.blocks.then(|| self.cut_blocks(&mut moves));
        self.sort_pods(&settled);
        self.classify(before.as_ref(), &mut moves);
        if let Some(before) = before {
            self.release_blocks(&before);
        }
        self.assign_subjects(&mut moves);
        self.fill_rows(&moves);
        self.drop_rows();
        let narrowing = std::mem::take(&mut self.narrowing) || self.narrows(&moves);
        if narrowing {
            self.freed.clear();
        }
        self.write_programs();
        self.subjects.sweep(self.revision);
        self.classes.sweep(self.revision);
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

        let mut released = std::mem::take(&mut self.dirty.uses);
        for key in &touched {
            let Some(installed) = self.policies.get_mut(key) else {
                continue;
            };
            let uses = if installed.selected.is_empty() {
                Uses::default()
            } else {
                Uses::of(installed)
            };
            if uses != installed.uses {
                self.active.acquire(&uses, &self.lists);
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
        moves.edited = edited;
    }

    /// The policies that select an endpoint, or may by the namespace of its pod.
    fn candidates(&self, ifname: &str) -> BTreeSet<PolicyKey> {
        let namespace = self.namespace(ifname).map(str::to_owned);
        let anywhere = self.by_namespace.get(&None).into_iter().flatten();
        let inside = namespace.and_then(|name| self.by_namespace.get(&Some(name)));
        let selecting = self
            .endpoints
            .get(ifname)
            .into_iter()
            .flat_map(|it| &it.policies);
        anywhere
            .chain(inside.into_iter().flatten())
            .chain(selecting)
            .cloned()
            .collect()
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
                let selects = installed
                    .policy
                    .subject
                    .selects(Labelled::Pod(&pod.identity), &self.index.inherited);
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

    /// Cuts the blocks anew; returns what they were. The classes of both are held.
    fn cut_blocks(&mut self, moves: &mut Moves) -> Nets {
        let classes = &mut self.classes;
        let nets = Nets::new(self.active.spans(), |key| acquire_class(classes, key));
        for (span, before, after) in nets.moved(&self.nets) {
            moves.classes.insert((before, after));
            self.dirty
                .addresses
                .extend(self.index.claimed(span.0, span.1));
        }
        for (span, _) in self.nets.pieces() {
            self.ledger.put_net(span, None);
        }
        for (span, piece) in nets.pieces() {
            self.ledger.put_net(span, Some(piece.class));
        }
        std::mem::replace(&mut self.nets, nets)
    }

    fn release_blocks(&mut self, nets: &Nets) {
        for (_, piece) in nets.pieces() {
            self.classes.release(piece.class.0);
        }
    }

    /// Which pods are in which lists.
    fn sort_pods(&mut self, settled: &Settled) {
        let dirty = std::mem::take(&mut self.dirty.pods);
        for uid in &dirty {
            let Some(pod) = self.index.resident(uid) else {
                continue;
            };
            let lists = self.active.lists().filter(|&id| {
                self.work.lists += 1;
                let list = self.lists.list(id);
                list.is_some_and(|list| {
                    list.selects(Labelled::Pod(&pod.identity), &self.index.inherited)
                })
            });
            let lists = lists.collect();
            if let Some(pod) = self.index.resident_mut(uid) {
                pod.lists = lists;
                self.dirty.addresses.extend(pod.claimed());
            }
        }
        for &id in &settled.added {
            let Some(list) = self.lists.list(id) else {
                continue;
            };
            let candidates: Vec<Uid> = match list.named_namespaces() {
                Some(names) => {
                    let names = names.into_iter();
                    names
                        .flat_map(|name| self.index.in_namespace(name))
                        .map(Arc::clone)
                        .collect()
                }
                None => self
                    .index
                    .residents()
                    .map(|(uid, _)| Arc::clone(uid))
                    .collect(),
            };
            for uid in candidates.iter().filter(|uid| !dirty.contains(*uid)) {
                let Some(pod) = self.index.resident(uid) else {
                    continue;
                };
                self.work.lists += 1;
                if list.selects(Labelled::Pod(&pod.identity), &self.index.inherited)
                    && let Some(pod) = self.index.resident_mut(uid)
                {
                    pod.lists.insert(id);
                    self.dirty.addresses.extend(pod.claimed());
                }
            }
        }
        if settled.removed.is_empty() && settled.renamed.is_empty() {
            return;
        }
        let asked = |port: &NamedPort| {
            settled
                .renamed
                .contains(&(port.name.clone(), port.protocol))
        };
        let mut stale = Vec::new();
        for (uid, pod) in self.index.residents() {
            let listed = !settled.removed.is_disjoint(&pod.lists);
            if listed {
                stale.push(Arc::clone(uid));
            }
            if listed || (!settled.renamed.is_empty() && pod.identity.named_ports.iter().any(asked))
            {
                self.dirty.addresses.extend(pod.claimed());
            }
        }
        for uid in stale {
            if let Some(pod) = self.index.resident_mut(&uid) {
                pod.lists.retain(|id| !settled.removed.contains(id));
            }
        }
    }

    /// The classes of addresses. One that has no owner any more is not counted as moved: whoever had it is gone, and
    /// when another pod gets it, live flows are judged again.
    fn classify(&mut self, before: Option<&Nets>, moves: &mut Moves) {
        for address in std::mem::take(&mut self.dirty.addresses) {
            self.work.addresses += 1;
            let held = self.addresses.get(&address).copied();
            let around = self.nets.class(address);
            let key = self.class_key(address);
            let class = key.map(|key| acquire_class(&mut self.classes, key));
            if let Some(class) = class {
                let old = held.unwrap_or_else(|| before.unwrap_or(&self.nets).class(address));
                if old != class {
                    moves.classes.insert((old, class));
                }
                self.addresses.insert(address, class);
            } else {
                self.addresses.remove(&address);
            }
            if let Some(held) = held {
                self.classes.release(held.0);
            }
            self.ledger
                .put_peer(address, class.filter(|&class| class != around));
        }
    }

    /// What the rules in use know of an address that has an owner.
    fn class_key(&self, address: IpAddr) -> Option<ClassKey> {
        let (_, pod) = self.index.owner(address)?;
        let mut lists = pod.lists.clone();
        if let Some(piece) = self.nets.around(address) {
            lists.extend(&piece.lists);
        }
        let asked = |port: &&NamedPort| {
            self.active
                .asks(&(port.name.clone(), port.protocol), &lists)
        };
        let ports = pod
            .identity
            .named_ports
            .iter()
            .filter(asked)
            .cloned()
            .collect();
        Some(ClassKey { lists, ports })
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
        let selecting = |direction| {
            let keys = programmed.policies.iter();
            keys.filter(move |key| {
                self.policies
                    .get(*key)
                    .is_some_and(|it| it.rules(direction).is_some())
            })
        };
        let ingress: BTreeSet<_> = selecting(Direction::Ingress).cloned().collect();
        let installed = ingress.iter().filter_map(|key| self.policies.get(key));
        let rules = installed.flat_map(|installed| &installed.ingress);
        let names: BTreeSet<PortName> = rules.flat_map(|rule| port_names(rule.ports())).collect();
        let asked = |port: &&NamedPort| names.contains(&(port.name.clone(), port.protocol));
        let ports = pod
            .identity
            .named_ports
            .iter()
            .filter(asked)
            .cloned()
            .collect();
        Some(SubjectKey {
            egress: selecting(Direction::Egress).cloned().collect(),
            ingress,
            ports,
        })
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
                ranked.push((tier, installed.policy.order, key, rules));
            }
        }
        ranked.sort_by_key(|&(tier, order, key, _)| (tier.order, &tier.name, order, key));
        let mut stages: Vec<Tiered<'a>> = Vec::new();
        for (tier, _, key, rules) in ranked {
            match stages.last_mut() {
                Some(stage) if stage.tier.name == tier.name => stage.policies.push((key, rules)),
                _ => stages.push(Tiered {
                    tier,
                    policies: vec![(key, rules)],
                }),
            }
        }
        stages
    }
}

fn acquire_class(classes: &mut Interned<ClassKey>, key: ClassKey) -> Class {
    if key.is_empty() {
        return Class::NONE;
    }
    classes.acquire(key).map_or(Class::NONE, Class)
}
