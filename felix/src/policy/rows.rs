//! The rows of the truth table: for every subject and class, what the evaluator says, as a program.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::active::{PortName, port_names};
use super::classes::{ClassKey, SubjectKey};
use super::compile::Moves;
use super::engine::Engine;
use super::evaluate::{Peer, Rule, Tiered, judge, judged_alike};
use super::function::{Cuts, Function};
use super::lists::ListId;
use super::model::{PolicyKey, PortMatch};
use super::tables::{Class, Direction, Program, Subject};
use crate::feed::NamedPort;

impl Engine {
    /// Rows of new subjects, of subjects whose policies changed, and of new classes.
    pub(super) fn fill_rows(&mut self, moves: &Moves) {
        let numbered = |(number, key): (u32, &Arc<ClassKey>)| (Class(number), Arc::clone(key));
        let fresh: Vec<_> = self.classes.used_fresh().map(numbered).collect();
        let mut all: Option<Vec<_>> = None;
        let subjects: Vec<_> = if fresh.is_empty() && moves.edited.is_empty() {
            self.subjects
                .used_fresh()
                .map(|(number, key)| (number, Arc::clone(key)))
                .collect()
        } else {
            self.subjects
                .used()
                .map(|(number, key)| (number, Arc::clone(key)))
                .collect()
        };
        for (number, key) in subjects {
            let new = !self.subjects.lasting(number);
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
        let lists: BTreeSet<ListId> = rules
            .iter()
            .flat_map(|rule| &rule.peers)
            .map(|term| term.any)
            .collect();
        let names: BTreeSet<PortName> = match direction {
            Direction::Egress => rules
                .iter()
                .flat_map(|rule| port_names(rule.ports()))
                .collect(),
            Direction::Ingress => BTreeSet::new(),
        };
        let mut functions: Vec<Function> = Vec::new();
        let mut known: HashMap<ClassKey, usize> = HashMap::new();
        let mut rows: Vec<(Class, Option<usize>)> = Vec::new();
        for (class, value) in classes {
            let of = ClassKey {
                lists: value.lists.intersection(&lists).copied().collect(),
                ports: value
                    .ports
                    .iter()
                    .filter(|port| names.contains(&(port.name.clone(), port.protocol)))
                    .cloned()
                    .collect(),
            };
            let function = (!of.is_empty()).then(|| {
                *known.entry(of).or_insert_with_key(|of| {
                    let ports = if direction == Direction::Egress {
                        &of.ports
                    } else {
                        &key.ports
                    };
                    functions.push(tabulated(
                        &stages,
                        &Seen {
                            lists: &of.lists,
                            ports,
                        },
                    ));
                    functions.len() - 1
                })
            });
            rows.push((*class, function));
        }
        let none = ClassKey::default();
        let ports = if direction == Direction::Egress {
            &none.ports
        } else {
            &key.ports
        };
        let default = again.then(|| {
            tabulated(
                &stages,
                &Seen {
                    lists: &none.lists,
                    ports,
                },
            )
        });
        self.work.functions += known.len() as u64 + u64::from(again);

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
        let programs: Vec<Program> = functions
            .into_iter()
            .map(|function| self.acquire_program(function))
            .collect();
        for (class, function) in rows {
            let program = function
                .and_then(|function| programs.get(function))
                .copied();
            if let Some(program) = program {
                self.programs.reuse(program.0);
            }
            self.put_row((direction, subject, class), program, default);
        }
        for program in programs {
            self.release_program(Some(program));
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
    pub(super) fn drop_rows(&mut self) {
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
    pub(super) fn write_programs(&mut self) {
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
fn tabulated(stages: &[Tiered<'_>], peer: &Seen<'_>) -> Function {
    let mut cuts = Cuts::new();
    let rules = stages
        .iter()
        .flat_map(|stage| &stage.policies)
        .flat_map(|(_, rules)| *rules);
    for entry in rules
        .filter(|rule| rule.may_match(peer))
        .flat_map(Rule::ports)
    {
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
        PortMatch::Service { .. } => {}
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
        }
    }
}
