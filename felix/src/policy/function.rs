//! What a program computes, in a form that is equal exactly when the functions are equal.

use std::collections::{BTreeMap, BTreeSet};

use super::model::protocol::{ICMP, ICMP6};
use super::tables::{Answer, CauseId, Ledger, Program, Verdict};

/// Ports at which an answer may change, per protocol.
pub(super) type Cuts = BTreeMap<u8, BTreeSet<u16>>;

/// Runs of ports with the same answer: where each begins, the first at 0, neighbours different.
type Runs = Vec<(u16, Answer)>;

/// Ranges up to this many ports become single elements: those are found with one lookup less.
const SINGLE_PORTS: u16 = 16;

/// From protocol and port (or ICMP type and code) to an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Function {
    rest: Answer,
    /// Only protocols that differ from the rest somewhere.
    protocols: BTreeMap<u8, Runs>,
}

/// A function for every source port: `T` is a [`Function`], or its program.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct BySource<T> {
    /// For protocols whose source ports no rule tells apart.
    pub(super) rest: T,
    /// For the others, runs of source ports: where each begins, the first at 0, neighbours different.
    pub(super) protocols: BTreeMap<u8, Vec<(u16, T)>>,
}

impl BySource<Function> {
    /// Asks `judge` (protocol, source port, port) once per stretch between two cuts.
    pub(super) fn tabulate(
        cuts: &Cuts,
        source_cuts: &Cuts,
        judge: impl Fn(u8, u16, u16) -> Answer,
    ) -> Self {
        let mut protocols = BTreeMap::new();
        for (&protocol, sources) in source_cuts {
            let ports = cuts.get(&protocol).cloned().unwrap_or_default();
            let mut runs: Vec<(u16, Function)> = Vec::new();
            for &source in BTreeSet::from([0]).union(sources) {
                let of = Cuts::from([(protocol, ports.clone())]);
                let function = Function::tabulate(&of, &BTreeSet::new(), |asked, port| {
                    if asked == protocol {
                        judge(protocol, source, port)
                    } else {
                        Answer::DENY
                    }
                });
                if runs.last().is_none_or(|(_, last)| *last != function) {
                    runs.push((source, function));
                }
            }
            if runs.len() > 1 {
                protocols.insert(protocol, runs);
            }
        }
        let refined: BTreeSet<u8> = protocols.keys().copied().collect();
        let rest = Function::tabulate(cuts, &refined, |protocol, port| judge(protocol, 0, port));
        Self { rest, protocols }
    }

    /// The function of a protocol and source port.
    fn at(&self, protocol: u8, source: u16) -> &Function {
        let runs = self.protocols.get(&protocol).into_iter().flatten();
        let run = runs.take_while(|&&(first, _)| first <= source).last();
        run.map_or(&self.rest, |(_, function)| function)
    }

    /// Whether everything that `old` allows is allowed here too.
    pub(super) fn covers(&self, old: &Self) -> bool {
        let refined: BTreeSet<u8> = self
            .protocols
            .keys()
            .chain(old.protocols.keys())
            .copied()
            .collect();
        if !self.rest.covers_but(&old.rest, &refined) {
            return false;
        }
        refined.iter().all(|&protocol| {
            let starts = |it: &Self| {
                let runs = it.protocols.get(&protocol).into_iter().flatten();
                runs.map(|&(first, _)| first).collect::<Vec<_>>()
            };
            starts(self).into_iter().chain(starts(old)).all(|source| {
                let (new, old) = (self.at(protocol, source), old.at(protocol, source));
                new.covers_protocol(old, protocol)
            })
        })
    }
}

impl<T> BySource<T> {
    /// What does not look at source ports.
    pub(super) const fn plain(rest: T) -> Self {
        Self {
            rest,
            protocols: BTreeMap::new(),
        }
    }

    /// The same with another kind of function.
    pub(super) fn map<U>(&self, mut with: impl FnMut(&T) -> U) -> BySource<U> {
        let rest = with(&self.rest);
        let protocols = self.protocols.iter().map(|(&protocol, runs)| {
            let runs = runs.iter().map(|(first, it)| (*first, with(it)));
            (protocol, runs.collect())
        });
        BySource {
            rest,
            protocols: protocols.collect(),
        }
    }

    /// Every function.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let runs = self.protocols.values().flatten().map(|(_, it)| it);
        std::iter::once(&self.rest).chain(runs)
    }
}

impl BySource<Program> {
    /// Writes the elements of the function under a number, or takes them away.
    pub(super) fn write(&self, ledger: &mut Ledger, program: Program, present: bool) {
        let value = |it: Program| present.then_some(it);
        ledger.put_source_rest(program, value(self.rest));
        for (&protocol, runs) in &self.protocols {
            for (first, last, of) in spans(runs) {
                ledger.put_source((program, protocol, first, last), value(of));
            }
        }
    }
}

impl Function {
    /// The same answer for everything.
    pub(super) const fn constant(answer: Answer) -> Self {
        Self {
            rest: answer,
            protocols: BTreeMap::new(),
        }
    }

    /// Asks once per protocol and stretch of ports between two cuts, and once for a protocol that has none. Protocols
    /// in `but` are not asked about.
    fn tabulate(cuts: &Cuts, but: &BTreeSet<u8>, judge: impl Fn(u8, u16) -> Answer) -> Self {
        let unmentioned = (0..=u8::MAX)
            .rev()
            .find(|protocol| !cuts.contains_key(protocol) && !but.contains(protocol));
        let rest = unmentioned.map_or(Answer::DENY, |protocol| judge(protocol, 0));
        let mut protocols = BTreeMap::new();
        for (&protocol, ports) in cuts.iter().filter(|(protocol, _)| !but.contains(protocol)) {
            let mut runs = vec![(0, judge(protocol, 0))];
            for &port in ports.range(1..) {
                let answer = judge(protocol, port);
                if runs.last().is_some_and(|&(_, last)| last != answer) {
                    runs.push((port, answer));
                }
            }
            if runs != [(0, rest)] {
                protocols.insert(protocol, runs);
            }
        }
        Self { rest, protocols }
    }

    /// The program that needs no elements, if the function is constant and notes nothing.
    pub(super) fn fixed(&self) -> Option<Program> {
        let constant = self.protocols.is_empty() && self.rest.is_plain();
        let said = self.rest.verdict != Verdict::Pass;
        (constant && said).then(|| Program::fixed(self.rest))
    }

    /// What leads to its answers, each once.
    pub(super) fn causes(&self) -> BTreeSet<CauseId> {
        let runs = self.protocols.values().flatten();
        let answers = runs.map(|&(_, answer)| answer).chain([self.rest]);
        answers.map(|answer| answer.cause).collect()
    }

    /// The same with other causes.
    pub(super) fn with_causes(&self, cause: impl Fn(Answer) -> CauseId) -> Self {
        let other = |answer: Answer| Answer {
            cause: cause(answer),
            ..answer
        };
        let rest = other(self.rest);
        let mut protocols = BTreeMap::new();
        for (&protocol, runs) in &self.protocols {
            let mut merged = Runs::new();
            for &(first, answer) in runs {
                let answer = other(answer);
                if merged.last().is_none_or(|&(_, last)| last != answer) {
                    merged.push((first, answer));
                }
            }
            if merged != [(0, rest)] {
                protocols.insert(protocol, merged);
            }
        }
        Self { rest, protocols }
    }

    /// Number of elements it is written as.
    pub(super) fn elements(&self) -> usize {
        let mut elements = 1;
        for (&protocol, runs) in &self.protocols {
            let usual = usual(runs);
            elements += usize::from(usual != self.rest);
            for (first, last, _) in spans(runs).filter(|&(_, _, answer)| answer != usual) {
                let single = protocol == ICMP || protocol == ICMP6 || last - first < SINGLE_PORTS;
                elements += if single {
                    usize::from(last - first) + 1
                } else {
                    1
                };
            }
        }
        elements
    }

    fn at(&self, protocol: u8, port: u16) -> Answer {
        let Some(runs) = self.protocols.get(&protocol) else {
            return self.rest;
        };
        let after = runs.partition_point(|&(first, _)| first <= port);
        after
            .checked_sub(1)
            .and_then(|run| runs.get(run))
            .map_or(self.rest, |&(_, answer)| answer)
    }

    /// Whether everything that `old` allows is allowed here too, whatever becomes of some protocols.
    fn covers_but(&self, old: &Self, but: &BTreeSet<u8>) -> bool {
        let protocols: BTreeSet<u8> = self
            .protocols
            .keys()
            .chain(old.protocols.keys())
            .copied()
            .collect();
        if worse(self.rest, old.rest) && protocols.union(but).count() < 256 {
            return false;
        }
        let mut protocols = protocols.difference(but);
        protocols.all(|&protocol| self.covers_protocol(old, protocol))
    }

    fn covers_protocol(&self, old: &Self, protocol: u8) -> bool {
        let starts = |function: &Self| {
            let runs = function.protocols.get(&protocol).into_iter().flatten();
            runs.map(|&(first, _)| first).collect::<Vec<_>>()
        };
        let starts = starts(self).into_iter().chain(starts(old)).chain([0]);
        starts
            .into_iter()
            .all(|port| !worse(self.at(protocol, port), old.at(protocol, port)))
    }

    /// Writes the elements of the function under a number, or takes them away.
    pub(super) fn write(&self, ledger: &mut Ledger, program: Program, present: bool) {
        let value = |answer| present.then_some(answer);
        let mut ranged = false;
        for (&protocol, runs) in &self.protocols {
            let usual = usual(runs);
            if usual != self.rest {
                ranged = true;
                ledger.put_proto((program, protocol), value(usual));
            }
            for (first, last, answer) in spans(runs).filter(|&(_, _, answer)| answer != usual) {
                if protocol == ICMP || protocol == ICMP6 {
                    for message in first..=last {
                        ledger.put_icmp((program, protocol, message), value(answer));
                    }
                } else if last - first < SINGLE_PORTS {
                    for port in first..=last {
                        ledger.put_port((program, protocol, port), value(answer));
                    }
                } else {
                    ranged = true;
                    ledger.put_port_range((program, protocol, first, last), value(answer));
                }
            }
        }
        if ranged {
            ledger.put_program_ranged(program, value(self.rest));
        } else {
            ledger.put_program(program, value(self.rest));
        }
    }
}

fn worse(new: Answer, old: Answer) -> bool {
    old.verdict == Verdict::Allow && new.verdict == Verdict::Deny
}

/// First, last and value of each run.
fn spans<T: Copy>(runs: &[(u16, T)]) -> impl Iterator<Item = (u16, u16, T)> {
    let ends = runs
        .iter()
        .skip(1)
        .map(|&(first, _)| first - 1)
        .chain([u16::MAX]);
    runs.iter()
        .zip(ends)
        .map(|(&(first, value), last)| (first, last, value))
}

/// The answer of the longest run: stated once for the protocol, so that only the other runs need elements.
fn usual(runs: &Runs) -> Answer {
    spans(runs)
        .max_by_key(|&(first, last, _)| (last - first, std::cmp::Reverse(first)))
        .map_or(Answer::DENY, |(_, _, answer)| answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: Answer = Answer::ALLOW;
    const DENY: Answer = Answer::DENY;

    fn tcp(ports: &[(u16, u16)]) -> Function {
        let cuts = ports
            .iter()
            .flat_map(|&(first, last)| [Some(first), last.checked_add(1)])
            .flatten();
        let inside = |port| {
            ports
                .iter()
                .any(|&(first, last)| (first..=last).contains(&port))
        };
        let cuts = BTreeMap::from([(6, cuts.collect())]);
        Function::tabulate(&cuts, &BTreeSet::new(), |protocol, port| {
            if protocol == 6 && inside(port) {
                ALLOW
            } else {
                DENY
            }
        })
    }

    #[test]
    fn equal_functions_have_one_form() {
        assert_eq!(tcp(&[(80, 80), (81, 90)]), tcp(&[(80, 90)]));
        assert_eq!(tcp(&[]), Function::constant(DENY));
        assert_eq!(tcp(&[]).fixed(), Some(Program::DENY));
        assert_eq!(tcp(&[(0, 65535)]).fixed(), None);
    }

    fn covers(new: &Function, old: &Function) -> bool {
        BySource::plain(new.clone()).covers(&BySource::plain(old.clone()))
    }

    #[test]
    fn covering_is_inclusion_of_what_is_allowed() {
        assert!(covers(&tcp(&[(80, 90)]), &tcp(&[(85, 85)])));
        assert!(!covers(&tcp(&[(85, 85)]), &tcp(&[(80, 90)])));
        assert!(!covers(&tcp(&[(80, 90)]), &tcp(&[(90, 91)])));
        assert!(covers(&Function::constant(ALLOW), &tcp(&[(1, 2)])));
        assert!(!covers(&tcp(&[(0, 65535)]), &Function::constant(ALLOW)));
        assert!(covers(&tcp(&[]), &tcp(&[])));
    }

    #[test]
    fn short_ranges_become_ports_and_the_usual_verdict_is_stated_once() {
        let mut ledger = Ledger::default();
        tcp(&[(80, 81), (1000, 2000)]).write(&mut ledger, Program(16), true);
        let tables = ledger.tables();
        assert_eq!(tables.ports.len(), 2);
        assert_eq!(
            tables.port_ranges.keys().copied().collect::<Vec<_>>(),
            [(Program(16), 6, 1000, 2000)]
        );
        assert_eq!(
            tables.programs_ranged,
            BTreeMap::from([(Program(16), DENY)])
        );
        assert!(tables.protos.is_empty() && tables.programs.is_empty());

        let mut ledger = Ledger::default();
        tcp(&[(0, 99), (101, 65535)]).write(&mut ledger, Program(17), true);
        assert_eq!(
            ledger.tables().protos,
            BTreeMap::from([((Program(17), 6), ALLOW)])
        );
        assert_eq!(
            ledger.tables().ports,
            BTreeMap::from([((Program(17), 6, 100), DENY)])
        );
    }
}
