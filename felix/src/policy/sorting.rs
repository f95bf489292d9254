//! Who is in which list in use: pods, network sets and the rest.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::active::Settled;
use super::anchors::Anchor;
use super::classes::{ClassKey, Offer};
use super::compile::{Moves, acquire_class};
use super::engine::Engine;
use super::index::{Resident, Uid};
use super::intervals::Span;
use super::lists::ListId;
use super::model::PortMatch;
use super::nets::Cut;
use super::selecting::Labelled;
use super::tables::Class;
use super::told::{Object, Other, Set};
use crate::feed::NamedPort;

impl Engine {
    /// Cuts the blocks of lists and sets anew where they changed. The classes of the pieces before are held until
    /// [`Self::release_blocks`].
    pub(super) fn cut_blocks(&mut self, settled: &Settled, moves: &mut Moves) -> Cut {
        for set in std::mem::take(&mut self.dirty.gone_sets) {
            for &list in &set.lists {
                self.uncover(&set.spans, list);
            }
        }
        for &list in &settled.removed {
            let spans = self.blocks.remove(&list).unwrap_or_default();
            self.uncover(&spans, list);
            for set in self.others.sets.values_mut() {
                if set.lists.remove(&list) {
                    for &span in &set.spans {
                        self.nets.remove(span, list);
                    }
                }
            }
        }
        for &list in &settled.added {
            let Some(of) = self.lists.list(list) else {
                continue;
            };
            let spans = of.spans();
            for &span in &spans {
                self.nets.add(span, list);
            }
            if !spans.is_empty() {
                self.blocks.insert(list, spans);
            }
            if !of.asks_beyond_pods() {
                continue;
            }
            for set in self.others.sets.values_mut() {
                self.work.lists += 1;
                if of.selects(Labelled::Set(&set.now), &self.index.inherited) {
                    set.lists.insert(list);
                    for &span in &set.spans {
                        self.nets.add(span, list);
                    }
                }
            }
        }
        for key in std::mem::take(&mut self.dirty.sets) {
            self.resort_set(&key);
        }
        let classes = &mut self.classes;
        let cut = self.nets.cut(|key| acquire_class(classes, key));
        for &((first, last), before, after) in &cut.moved {
            moves.classes.insert((before, after));
            let dirty = &mut self.dirty.addresses;
            dirty.extend(self.index.claimed(first, last));
            dirty.extend(self.others.addresses(first, last));
        }
        for &(span, _) in &cut.old {
            self.ledger.put_net(span, None);
        }
        for &(span, class) in &cut.new {
            self.ledger.put_net(span, Some(class));
        }
        cut
    }

    fn uncover(&mut self, spans: &[Span], list: ListId) {
        for &span in spans {
            self.nets.remove(span, list);
        }
    }

    /// Brings one set's blocks under the lists that select it now.
    fn resort_set(&mut self, key: &(Option<String>, String)) {
        let Some(set) = self.others.sets.get(key) else {
            return;
        };
        let lists: BTreeSet<ListId> = self
            .active
            .lists()
            .filter(|&id| {
                let list = self.lists.list(id);
                list.is_some_and(|list| {
                    self.work.lists += 1;
                    list.selects(Labelled::Set(&set.now), &self.index.inherited)
                })
            })
            .collect();
        let spans = set.spans_now();
        let Some(set) = self.others.sets.get_mut(key) else {
            return;
        };
        let Set {
            spans: old_spans,
            lists: old_lists,
            ..
        } = set;
        let (gone, come) = difference(old_spans, &spans);
        for &list in old_lists.iter() {
            let all = !lists.contains(&list);
            for &span in if all { &*old_spans } else { &gone } {
                self.nets.remove(span, list);
            }
        }
        for &list in &lists {
            let all = !old_lists.contains(&list);
            for &span in if all { &spans } else { &come } {
                self.nets.add(span, list);
            }
        }
        *old_spans = spans;
        *old_lists = lists;
    }

    pub(super) fn release_blocks(&mut self, cut: &Cut) {
        for (_, class) in &cut.old {
            self.classes.release(class.0);
        }
    }

    /// Which pods are in which lists.
    pub(super) fn sort_pods(&mut self, settled: &Settled) {
        for &id in &settled.added {
            if let Some(list) = self.lists.list(id) {
                let anchor = Anchor::of_list(list);
                self.listing.insert(&anchor, &id);
                self.anchors.insert(id, anchor);
            }
        }
        for &id in &settled.removed {
            self.leave(id);
        }
        let dirty = std::mem::take(&mut self.dirty.pods);
        for uid in &dirty {
            let Some(pod) = self.index.resident(uid) else {
                continue;
            };
            let mut lists = self.listing.of(pod.identity.every_label());
            lists.retain(|&id| {
                self.work.lists += 1;
                let list = self.lists.list(id);
                list.is_some_and(|list| {
                    list.selects(Labelled::Pod(&pod.identity), &self.index.inherited)
                })
            });
            if let Some(pod) = self.index.resident_mut(uid) {
                pod.lists = lists;
                self.dirty.addresses.extend(pod.claimed());
            }
        }
        for &id in &settled.added {
            self.sort_pods_into(id, &dirty);
        }
        if settled.renamed.is_empty() {
            return;
        }
        let asked = |port: &NamedPort| settled.renamed.contains(&named(port));
        for (_, pod) in self.index.residents() {
            if pod.identity.named_ports.iter().any(asked) {
                self.dirty.addresses.extend(pod.claimed());
            }
        }
    }

    /// A list is no longer in use: no pod is in it.
    fn leave(&mut self, id: ListId) {
        let Some(anchor) = self.anchors.remove(&id) else {
            return;
        };
        self.listing.remove(&anchor, &id);
        for uid in self.index.under(&anchor) {
            if let Some(pod) = self.index.resident_mut(&uid)
                && pod.lists.remove(&id)
            {
                self.dirty.addresses.extend(pod.claimed());
            }
        }
    }

    /// Tries a list that came into use on the pods that it may select, but for these.
    fn sort_pods_into(&mut self, id: ListId, but: &BTreeSet<Uid>) {
        let (Some(list), Some(anchor)) = (self.lists.list(id), self.anchors.get(&id)) else {
            return;
        };
        for uid in self.index.under(anchor).difference(but) {
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

    /// Which services, nodes and host endpoints are in which lists.
    pub(super) fn sort_others(&mut self, settled: &Settled) {
        let dirty = std::mem::take(&mut self.dirty.others);
        for id in &dirty {
            let Some(other) = self.others.get(id) else {
                continue;
            };
            let lists: BTreeSet<ListId> = self
                .active
                .lists()
                .filter(|&id| {
                    let list = self.lists.list(id);
                    list.is_some_and(|list| {
                        self.work.lists += 1;
                        other.object.listed(list, &self.index.inherited)
                    })
                })
                .collect();
            if let Some(other) = self.others.get_mut(id)
                && other.lists != lists
            {
                other.lists = lists;
                self.dirty.addresses.extend(&other.addresses);
            }
        }
        for &id in &settled.added {
            let Some(list) = self.lists.list(id).filter(|it| it.asks_beyond_pods()) else {
                continue;
            };
            for other in self.others.iter_mut() {
                self.work.lists += 1;
                if other.object.listed(list, &self.index.inherited) && other.lists.insert(id) {
                    self.dirty.addresses.extend(&other.addresses);
                }
            }
        }
        if settled.removed.is_empty() && settled.renamed.is_empty() {
            return;
        }
        for other in self.others.iter_mut() {
            let before = other.lists.len();
            other.lists.retain(|id| !settled.removed.contains(id));
            let asked = match &other.object {
                Object::Service(service) => settled.renamed.contains(&PortMatch::Service {
                    namespace: service.namespace.clone(),
                    name: service.name.clone(),
                }),
                Object::Node(_) => false,
                Object::Host(host) => {
                    let mut ports = host.named_ports.iter();
                    ports.any(|port| settled.renamed.contains(&named(port)))
                }
            };
            if asked || other.lists.len() != before {
                self.dirty.addresses.extend(&other.addresses);
            }
        }
    }

    /// The classes of addresses. One whose pod is gone is not counted as moved: its flows die with it, and when another
    /// pod gets it, live flows are judged again.
    pub(super) fn classify(&mut self, cut: &Cut, moves: &mut Moves) {
        for address in std::mem::take(&mut self.dirty.addresses) {
            self.work.addresses += 1;
            let held = self.addresses.get(&address).copied();
            let around = self.nets.class(address);
            let key = self.class_key(address);
            let class = key.map(|key| acquire_class(&mut self.classes, key));
            if let Some(class) = class {
                let old = held.unwrap_or_else(|| cut.before(address).unwrap_or(around));
                // Whoever had a freed address is gone, if something else is still said to have it.
                if old != class
                    && (!self.freed.contains(&address) || self.index.owner(address).is_some())
                {
                    moves.classes.insert((old, class));
                }
                self.addresses.insert(address, class);
                if let Some((uid, _)) = self.index.owner(address) {
                    let attached = self.index.attached(uid).map(Arc::clone);
                    self.dirty.endpoints.extend(attached);
                }
            } else {
                self.addresses.remove(&address);
                if let Some(held) = held.filter(|&held| held != around)
                    && !self.freed.contains(&address)
                {
                    moves.classes.insert((held, around));
                }
            }
            if let Some(held) = held {
                self.classes.release(held.0);
            }
            self.ledger
                .put_peer(address, class.filter(|&class| class != around));
        }
    }

    /// What the rules in use know of an address that somebody has.
    fn class_key(&self, address: IpAddr) -> Option<ClassKey> {
        let owner = self.index.owner(address).map(|(_, pod)| pod);
        let others: Vec<&Other> = self.others.at(address).collect();
        if owner.is_none() && others.is_empty() {
            return None;
        }
        let mut lists = owner.map(|pod| pod.lists.clone()).unwrap_or_default();
        if let Some(piece) = self.nets.around(address) {
            lists.extend(&piece.lists);
        }
        for other in &others {
            lists.extend(&other.lists);
        }
        let ports = offers(owner, &others, address)
            .into_iter()
            .filter(|offer| self.active.asks(&offer.entry, &lists))
            .collect();
        Some(ClassKey { lists, ports })
    }

    /// The ports that an address has by some name.
    pub(super) fn offers(&self, address: IpAddr) -> BTreeSet<Offer> {
        let owner = self.index.owner(address).map(|(_, pod)| pod);
        let others: Vec<&Other> = self.others.at(address).collect();
        offers(owner, &others, address)
    }

    /// The lists in use that contain an address, as of the last classification.
    pub(super) fn lists_at(&self, address: IpAddr) -> BTreeSet<ListId> {
        let class = self.addresses.get(&address).copied();
        let class = class.unwrap_or_else(|| self.nets.class(address));
        let key = self.classes.value(class.0);
        key.map(|key| key.lists.clone()).unwrap_or_default()
    }
}

impl Cut {
    /// The class of an address before the cut, where the cut changed something.
    fn before(&self, address: IpAddr) -> Option<Class> {
        let moved = self
            .moved
            .partition_point(|((first, _), ..)| *first <= address);
        let ((_, last), before, _) = self.moved.get(moved.checked_sub(1)?)?;
        (*last >= address).then_some(*before)
    }
}

/// The entry of a rule that finds a port.
pub(super) fn named(port: &NamedPort) -> PortMatch {
    PortMatch::Named {
        protocol: port.protocol,
        name: port.name.clone(),
    }
}

/// A port by its name.
pub(super) fn offer(port: &NamedPort) -> Offer {
    Offer {
        entry: named(port),
        protocol: port.protocol,
        port: port.port,
    }
}

fn offers(owner: Option<&Resident>, others: &[&Other], address: IpAddr) -> BTreeSet<Offer> {
    let mut offers = BTreeSet::new();
    offers.extend(
        owner
            .iter()
            .flat_map(|pod| &*pod.identity.named_ports)
            .map(offer),
    );
    for other in others {
        match &other.object {
            Object::Service(service) => {
                let entry = PortMatch::Service {
                    namespace: service.namespace.clone(),
                    name: service.name.clone(),
                };
                let ports = service.ports.iter().filter(|(of, ..)| *of == address);
                offers.extend(ports.map(|&(_, protocol, port)| Offer {
                    entry: entry.clone(),
                    protocol,
                    port,
                }));
            }
            Object::Node(_) => {}
            Object::Host(host) => offers.extend(host.named_ports.iter().map(offer)),
        }
    }
    offers
}

/// What is only in the first and what is only in the second of two ordered lists.
fn difference(old: &[Span], new: &[Span]) -> (Vec<Span>, Vec<Span>) {
    let only = |a: &[Span], b: &[Span]| {
        let spans = a.iter().filter(|span| b.binary_search(span).is_err());
        spans.copied().collect()
    };
    (only(old, new), only(new, old))
}
