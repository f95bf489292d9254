//! The rows of the truth table: for every subject and class, what the evaluator says, as a program.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::active::peer_names;
use super::causes::Causes;
use super::classes::{ClassKey, Offer, SubjectKey};
use super::compile::Moves;
use super::engine::Engine;
use super::evaluate::{Rule, Sides, Tiered, Traffic, judge, judged_alike};
use super::function::{BySource, Cuts, Function};
use super::lists::ListId;
use super::model::PortMatch;
use super::tables::{Class, Direction, Program, Subject, Verdict};

/// Elements of programs on a node up to which every rule is counted apart. Programs that were one function now differ by
/// the rule that decides; beyond this they are shared again, and what they decide is counted for nobody.
pub(super) const MOST_COUNTED: usize = 1 << 16;

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
        let causes = RefCell::new(std::mem::take(&mut self.causes));
        let stages = self.stages(key.policies(direction), direction);
        let Found {
            functions,
            rows,
            default,
        } = self.rows_of(direction, &stages, Verdict::Allow, key, classes, &causes);
        self.causes = causes.into_inner();
        self.work.functions += functions.len() as u64 + u64::from(again);
        let default = again.then_some(default);

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
                self.reuse_program(program);
            }
            self.put_row((direction, subject, class), program, default);
        }
        for program in programs {
            self.release_program(Some(program));
        }
    }

    /// What each of these classes may do, as far as it is not the default; `otherwise` where no policy decides.
    pub(super) fn rows_of(
        &self,
        direction: Direction,
        stages: &[Tiered<'_>],
        otherwise: Verdict,
        key: &SubjectKey,
        classes: &[(Class, Arc<ClassKey>)],
        causes: &RefCell<Causes>,
    ) -> Found {
        let rules: Vec<&Rule> = stages
            .iter()
            .flat_map(|stage| &stage.policies)
            .flat_map(|policy| policy.rules)
            .collect();
        let mut lists: BTreeSet<ListId> = rules.iter().flat_map(|rule| rule.lists()).collect();
        let by_family = rules
            .iter()
            .flat_map(|rule| rule.own_lists())
            .any(|list| self.lists.by_family(list));
        if by_family {
            lists.insert(ListId::IPV4);
        }
        let names: BTreeSet<&PortMatch> = rules
            .iter()
            .flat_map(|rule| peer_names(rule, direction))
            .collect();
        let mut functions: Vec<BySource<Function>> = Vec::new();
        let mut known: HashMap<ClassKey, usize> = HashMap::new();
        let mut rows: Vec<(Class, Option<usize>)> = Vec::new();
        let seen = |of: &ClassKey| {
            tabulated(
                stages,
                otherwise,
                &Seen {
                    direction,
                    of,
                    subject: key,
                    by_family,
                },
                causes,
            )
        };
        for (class, value) in classes {
            let asked = |offer: &&Offer| names.contains(&offer.entry);
            let of = ClassKey {
                lists: value.lists.intersection(&lists).copied().collect(),
                ports: value.ports.iter().filter(asked).cloned().collect(),
            };
            let function = (!of.is_empty()).then(|| {
                *known.entry(of).or_insert_with_key(|of| {
                    functions.push(seen(of));
                    functions.len() - 1
                })
            });
            rows.push((*class, function));
        }
        let default = seen(&ClassKey::default());
        Found {
            functions,
            rows,
            default,
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

    pub(super) fn acquire_program(&mut self, function: BySource<Function>) -> Program {
        if function.protocols.is_empty() {
            return self.acquire_plain(function.rest);
        }
        let inner = function.map(|it| self.acquire_plain(it.clone()));
        let held: Vec<Program> = inner.iter().copied().collect();
        let number = match self.refined.number(&inner) {
            // That one holds its programs already.
            Some(number) => {
                self.refined.reuse(number);
                self.release_all(&held);
                Some(number)
            }
            None => self.refined.acquire(inner),
        };
        number.map_or_else(
            || {
                self.release_all(&held);
                Program::DENY
            },
            |number| Program(number | Program::REFINED),
        )
    }

    fn acquire_plain(&mut self, function: Function) -> Program {
        if let Some(fixed) = function.fixed() {
            self.reuse_program(fixed);
            return fixed;
        }
        if let Some(number) = self.programs.number(&function) {
            self.programs.reuse(number);
            return Program(number);
        }
        let size = function.elements();
        if self.written + size > self.most_counted && !self.causes.merged(&function) {
            let merged = self.causes.merge(&function);
            return self.acquire_plain(merged);
        }
        for cause in function.causes() {
            self.causes.reuse(cause);
        }
        let causes = function.causes();
        match self.programs.acquire(function) {
            Some(number) => {
                self.written += size;
                Program(number)
            }
            None => {
                causes.into_iter().for_each(|it| self.causes.release(it));
                Program::DENY
            }
        }
    }

    pub(super) fn reuse_program(&mut self, program: Program) {
        if let Some(answer) = program.answer() {
            self.causes.reuse(answer.cause);
        } else if program.is_refined() {
            self.refined.reuse(program.0 & !Program::REFINED);
        } else if program.is_owned() {
            self.owned.reuse(program.0 & !Program::OWNED);
        } else {
            self.programs.reuse(program.0);
        }
    }

    pub(super) fn release_program(&mut self, program: Option<Program>) {
        if let Some(answer) = program.and_then(Program::answer) {
            self.causes.release(answer.cause);
            return;
        }
        match program {
            Some(it) if it.is_refined() => self.refined.release(it.0 & !Program::REFINED),
            Some(it) if it.is_owned() => self.owned.release(it.0 & !Program::OWNED),
            Some(it) => self.programs.release(it.0),
            None => {}
        }
    }

    fn release_all(&mut self, programs: &[Program]) {
        for program in programs {
            self.release_program(Some(*program));
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
        self.write_owned();
        self.write_refined();
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
            self.written -= function.elements();
            for cause in function.causes() {
                self.causes.release(cause);
            }
        }
        self.programs.sweep(self.revision);
    }

    fn write_refined(&mut self) {
        let fresh: Vec<u32> = self.refined.fresh().iter().copied().collect();
        let unused = self.refined.unused();
        for (number, present) in fresh
            .into_iter()
            .map(|number| (number, true))
            .chain(unused.into_iter().map(|number| (number, false)))
        {
            let Some(function) = self.refined.value(number).map(Arc::clone) else {
                continue;
            };
            function.write(
                &mut self.ledger,
                Program(number | Program::REFINED),
                present,
            );
            if !present {
                let held: Vec<Program> = function.iter().copied().collect();
                self.release_all(&held);
            }
        }
        self.refined.sweep(self.revision);
    }
}

/// What classes may do.
pub(super) struct Found {
    /// Every function that differs by class.
    pub(super) functions: Vec<BySource<Function>>,
    /// For each class, the number of its function; `None` where that is the default.
    pub(super) rows: Vec<(Class, Option<usize>)>,
    /// The function of a class that no rule knows.
    pub(super) default: BySource<Function>,
}

/// A class as a subject sees it.
struct Seen<'a> {
    direction: Direction,
    of: &'a ClassKey,
    subject: &'a SubjectKey,
    /// Whether rules may see our side differently in the two families.
    by_family: bool,
}

impl Seen<'_> {
    /// Ports of the destination, and of the source.
    const fn ports(&self) -> (&BTreeSet<Offer>, &BTreeSet<Offer>) {
        match self.direction {
            Direction::Egress => (&self.of.ports, &self.subject.ports),
            Direction::Ingress => (&self.subject.ports, &self.of.ports),
        }
    }
}

impl Sides for Seen<'_> {
    fn listed(&self, list: ListId) -> bool {
        self.of.lists.contains(&list)
    }

    fn own(&self, list: ListId) -> bool {
        let ip4 = self.of.lists.contains(&ListId::IPV4);
        let has = |family| self.subject.own.contains(&(family, list));
        if self.by_family {
            has(ip4)
        } else {
            has(true) || has(false)
        }
    }

    fn serves(&self, entry: &PortMatch, protocol: u8, port: u16) -> bool {
        offered(self.ports().0, entry, protocol, port)
    }

    fn sends_from(&self, entry: &PortMatch, protocol: u8, port: u16) -> bool {
        offered(self.ports().1, entry, protocol, port)
    }
}

fn offered(offers: &BTreeSet<Offer>, entry: &PortMatch, protocol: u8, port: u16) -> bool {
    let mut offers = offers.iter();
    offers.any(|it| it.entry == *entry && it.protocol == protocol && it.port == port)
}

/// Asks the evaluator once for every stretch of ports that no rule can tell apart.
fn tabulated(
    stages: &[Tiered<'_>],
    otherwise: Verdict,
    sides: &Seen<'_>,
    causes: &RefCell<Causes>,
) -> BySource<Function> {
    let mut cuts = Cuts::new();
    let mut sources = Cuts::new();
    let (destination, source) = sides.ports();
    let rules = stages
        .iter()
        .flat_map(|stage| &stage.policies)
        .flat_map(|policy| policy.rules);
    for rule in rules.filter(|rule| rule.may_match(sides)) {
        for entry in rule.ports() {
            cut(&mut cuts, entry, destination);
        }
        for entry in rule.sources() {
            cut(&mut sources, entry, source);
        }
    }
    for &protocol in sources.keys() {
        cuts.entry(protocol).or_default();
    }
    BySource::tabulate(&cuts, &sources, |protocol, source_port, port| {
        let traffic = Traffic {
            protocol,
            source_port,
            port,
        };
        let number = |cause| causes.borrow_mut().number(cause);
        judge(sides.direction, stages, otherwise, sides, traffic, number)
    })
}

fn cut(cuts: &mut Cuts, entry: &PortMatch, offers: &BTreeSet<Offer>) {
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
        PortMatch::Named { .. } | PortMatch::Service { .. } => {
            for offer in offers.iter().filter(|offer| offer.entry == *entry) {
                between(offer.protocol, offer.port, offer.port);
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
        }
    }
}
