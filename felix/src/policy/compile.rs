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

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::active::{PortName, Settled, Uses, port_names};
use super::classes::{ClassKey, Nets, SubjectKey};
use super::engine::{Compiled, Engine, Programmed};
use super::evaluate::{Peer, Rule, Stage, judge, judged_alike};
use super::function::{Cuts, Function};
use super::index::{Ifname, Uid};
use super::lists::ListId;
use super::model::protocol::{ICMP, ICMP6};
use super::model::{PolicyKey, PortMatch};
use super::tables::{Class, Direction, Program, Subject};
use crate::feed::NamedPort;

/// What changed in this compile, for the rows and for the question whether it narrows.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// Policies with other rules or another place than before.
    edited: BTreeSet<PolicyKey>,
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
            let keys: BTreeSet<_> = self.policies.keys().chain(&edited).cloned().collect();
            touched.extend(self.reselect(ifname, keys));
        }
        if !edited.is_empty() {
            let others: Vec<_> = self
                .index
                .endpoints()
                .map(|(ifname, _)| Arc::clone(ifname))
                .collect();
            for ifname in others.iter().filter(|ifname| !endpoints.contains(*ifname)) {
                if !self.reselect(ifname, edited.iter().cloned()).is_empty() {
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
                    .selects(&pod.identity, &self.index.namespaces);
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
                list.is_some_and(|list| list.selects(&pod.identity, &self.index.namespaces))
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
                if list.selects(&pod.identity, &self.index.namespaces)
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
        let names: BTreeSet<PortName> = rules
            .flat_map(|rule| port_names(rule.ports.as_deref()))
            .collect();
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
    ) -> Vec<Stage<'a>> {
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
        let mut stages: Vec<Stage<'a>> = Vec::new();
        for (tier, _, key, rules) in ranked {
            match stages.last_mut() {
                Some(stage) if stage.tier.name == tier.name => stage.policies.push((key, rules)),
                _ => stages.push(Stage {
                    tier,
                    policies: vec![(key, rules)],
                }),
            }
        }
        stages
    }

    /// Rows of new subjects, of subjects whose policies changed, and of new classes.
    fn fill_rows(&mut self, moves: &Moves) {
        let subjects: Vec<_> = self
            .subjects
            .used()
            .map(|(number, key)| (number, Arc::clone(key), !self.subjects.lasting(number)))
            .collect();
        let numbered = |(number, key): (u32, &Arc<ClassKey>)| (Class(number), Arc::clone(key));
        let fresh: Vec<_> = self.classes.used_fresh().map(numbered).collect();
        let mut all: Option<Vec<_>> = None;
        for (number, key, new) in subjects {
            let subject = Subject::new(number, !key.egress.is_empty(), !key.ingress.is_empty());
            for direction in Direction::BOTH {
                let policies = key.policies(direction);
                let again = new || !moves.edited.is_disjoint(policies);
                if policies.is_empty() || (!again && fresh.is_empty()) {
                    continue;
                }
                let classes = if again {
                    all.get_or_insert_with(|| self.classes.used().map(numbered).collect())
                } else {
                    &fresh
                };
                self.fill_direction(direction, subject, &key, classes, again);
            }
        }
    }

    fn fill_direction(
        &mut self,
        direction: Direction,
        subject: Subject,
        key: &SubjectKey,
        classes: &[(Class, Arc<ClassKey>)],
        again: bool,
    ) {
        let stages = self.stages(key.policies(direction), direction);
        let rules: Vec<&Rule> = stages
            .iter()
            .flat_map(|stage| &stage.policies)
            .flat_map(|(_, rules)| *rules)
            .collect();
        let lists: BTreeSet<ListId> = rules.iter().filter_map(|rule| rule.peers).collect();
        let names: BTreeSet<PortName> = match direction {
            Direction::Egress => rules
                .iter()
                .flat_map(|rule| port_names(rule.ports.as_deref()))
                .collect(),
            Direction::Ingress => BTreeSet::new(),
        };
        let mut functions: HashMap<ClassKey, Function> = HashMap::new();
        let mut rows = Vec::new();
        let mut work = 0;
        let mut tabulate = |class: &ClassKey| {
            let of = ClassKey {
                lists: class.lists.intersection(&lists).copied().collect(),
                ports: class
                    .ports
                    .iter()
                    .filter(|port| names.contains(&(port.name.clone(), port.protocol)))
                    .cloned()
                    .collect(),
            };
            if of.is_empty() {
                return None;
            }
            let function = functions.entry(of).or_insert_with_key(|of| {
                work += 1;
                let ports = if direction == Direction::Egress {
                    &of.ports
                } else {
                    &key.ports
                };
                tabulated(
                    &stages,
                    &Seen {
                        lists: &of.lists,
                        ports,
                    },
                )
            });
            Some(function.clone())
        };
        for (class, value) in classes {
            rows.push((*class, tabulate(value)));
        }
        let ports = match direction {
            Direction::Egress => &BTreeSet::new(),
            Direction::Ingress => &key.ports,
        };
        let default = again.then(|| {
            tabulated(
                &stages,
                &Seen {
                    lists: &BTreeSet::new(),
                    ports,
                },
            )
        });
        self.work.functions += work + u64::from(again);

        if let Some(default) = default {
            let program = self.acquire_program(default);
            let old = self
                .ledger
                .tables()
                .defaults
                .get(&(direction, subject))
                .copied();
            self.ledger.put_default((direction, subject), Some(program));
            self.release_program(old);
        }
        let default = self
            .ledger
            .tables()
            .defaults
            .get(&(direction, subject))
            .copied();
        for (class, function) in rows {
            let program = function.map(|function| self.acquire_program(function));
            self.put_row((direction, subject, class), program, default);
        }
    }

    /// Writes a row, or none where the program is the subject's default. Takes over one use of the program.
    fn put_row(
        &mut self,
        key: (Direction, Subject, Class),
        program: Option<Program>,
        default: Option<Program>,
    ) {
        let old = self.ledger.tables().pairs.get(&key).copied();
        let row = program.filter(|program| Some(*program) != default);
        self.ledger.put_pair(key, row);
        self.release_program(old);
        if row.is_none() {
            self.release_program(program);
        }
    }

    fn acquire_program(&mut self, function: Function) -> Program {
        match function.fixed() {
            Some(program) => program,
            None => self
                .programs
                .acquire(function)
                .map_or(Program::DENY, Program),
        }
    }

    fn release_program(&mut self, program: Option<Program>) {
        if let Some(program) = program {
            self.programs.release(program.0);
        }
    }

    /// Removes the rows of subjects and classes that nobody has.
    fn drop_rows(&mut self) {
        let dead: BTreeSet<u32> = self.subjects.unused().into_iter().collect();
        let mut rows = Vec::new();
        if !dead.is_empty() {
            let defaults = self.ledger.tables().defaults.keys();
            let defaults: Vec<_> = defaults
                .filter(|(_, subject)| dead.contains(&subject.number()))
                .copied()
                .collect();
            for (direction, subject) in defaults {
                let pairs = self.ledger.tables().pairs.range(
                    (direction, subject, Class::NONE)..=(direction, subject, Class(u32::MAX)),
                );
                rows.extend(pairs.map(|(key, _)| *key));
                let old = self
                    .ledger
                    .tables()
                    .defaults
                    .get(&(direction, subject))
                    .copied();
                self.ledger.put_default((direction, subject), None);
                self.release_program(old);
            }
        }
        let classes = self.classes.unused();
        if !classes.is_empty() {
            for &(direction, subject) in self.ledger.tables().defaults.keys() {
                rows.extend(
                    classes
                        .iter()
                        .map(|&class| (direction, subject, Class(class))),
                );
            }
        }
        for key in rows {
            self.put_row(key, None, None);
        }
    }

    /// Elements of programs that came into use, and no more of those that went out of it.
    fn write_programs(&mut self) {
        let fresh = self.programs.fresh().iter();
        let fresh =
            fresh.filter_map(|&number| Some((number, Arc::clone(self.programs.value(number)?))));
        for (number, function) in fresh.collect::<BTreeMap<_, _>>() {
            function.write(&mut self.ledger, Program(number), true);
        }
        let unused = self.programs.unused().into_iter();
        let unused =
            unused.filter_map(|number| Some((number, Arc::clone(self.programs.value(number)?))));
        for (number, function) in unused.collect::<BTreeMap<_, _>>() {
            function.write(&mut self.ledger, Program(number), false);
        }
        self.programs.sweep(self.revision);
    }
}

impl SubjectKey {
    fn policies(&self, direction: Direction) -> &BTreeSet<PolicyKey> {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }
}

fn acquire_class(classes: &mut super::ids::Interned<ClassKey>, key: ClassKey) -> Class {
    if key.is_empty() {
        return Class::NONE;
    }
    classes.acquire(key).map_or(Class::NONE, Class)
}

/// A peer as its class describes it.
struct Seen<'a> {
    lists: &'a BTreeSet<ListId>,
    /// Named ports of the destination.
    ports: &'a BTreeSet<NamedPort>,
}

impl Peer for Seen<'_> {
    fn listed(&self, list: ListId) -> bool {
        self.lists.contains(&list)
    }

    fn named(&self, name: &str, protocol: u8, port: u16) -> bool {
        let mut ports = self.ports.iter();
        ports.any(|named| named.port == port && named.protocol == protocol && named.name == name)
    }
}

/// Asks the evaluator once for every stretch of ports that no rule can tell apart.
fn tabulated(stages: &[Stage<'_>], peer: &Seen<'_>) -> Function {
    let mut cuts = Cuts::new();
    let rules = stages
        .iter()
        .flat_map(|stage| &stage.policies)
        .flat_map(|(_, rules)| *rules);
    let matching = rules.filter(|rule| rule.peers.is_none_or(|list| peer.listed(list)));
    for entry in matching.filter_map(|rule| rule.ports.as_ref()).flatten() {
        cut(&mut cuts, entry, peer.ports);
    }
    Function::tabulate(&cuts, |protocol, port| judge(stages, peer, protocol, port))
}

fn cut(cuts: &mut Cuts, entry: &PortMatch, named: &BTreeSet<NamedPort>) {
    let mut between = |protocol: u8, first: u16, last: u16| {
        cuts.entry(protocol)
            .or_default()
            .extend([Some(first), last.checked_add(1)].into_iter().flatten());
    };
    match entry {
        PortMatch::Protocol(protocol) => {
            cuts.entry(*protocol).or_default();
        }
        PortMatch::Ports {
            protocol,
            first,
            last,
        } => between(*protocol, *first, *last),
        PortMatch::Named { protocol, name } => {
            for port in named
                .iter()
                .filter(|port| port.name == *name && port.protocol == *protocol)
            {
                between(*protocol, port.port, port.port);
            }
        }
        PortMatch::Icmp {
            protocol,
            kind,
            code,
        } => {
            for message in judged_alike(*protocol, *kind) {
                let (first, last) = code.map_or((0, u8::MAX), |code| (code, code));
                between(
                    *protocol,
                    u16::from_be_bytes([message, first]),
                    u16::from_be_bytes([message, last]),
                );
            }
            debug_assert!(*protocol == ICMP || *protocol == ICMP6);
        }
    }
}
