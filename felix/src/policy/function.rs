//! What a program computes, in a form that is equal exactly when the functions are equal.

use std::collections::{BTreeMap, BTreeSet};

use super::model::protocol::{ICMP, ICMP6};
use super::tables::{Ledger, Program, Verdict};

/// Ports at which a verdict may change, per protocol.
pub(super) type Cuts = BTreeMap<u8, BTreeSet<u16>>;

/// Runs of ports with the same verdict: where each begins, the first at 0, neighbours different.
type Runs = Vec<(u16, Verdict)>;

/// Ranges up to this many ports become single elements: those are found with one lookup less.
const SINGLE_PORTS: u16 = 16;

/// From protocol and port (or ICMP type and code) to a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Function {
    rest: Verdict,
    /// Only protocols that differ from the rest somewhere.
    protocols: BTreeMap<u8, Runs>,
}

impl Function {
    /// The same verdict for everything.
    pub(super) const fn constant(verdict: Verdict) -> Self {
        Self {
            rest: verdict,
            protocols: BTreeMap::new(),
        }
    }

    /// Asks once per protocol and stretch of ports between two cuts, and once for a protocol that has none.
    pub(super) fn tabulate(cuts: &Cuts, judge: impl Fn(u8, u16) -> Verdict) -> Self {
        let unmentioned = (0..=u8::MAX)
            .rev()
            .find(|protocol| !cuts.contains_key(protocol));
        let rest = unmentioned.map_or(Verdict::Deny, |protocol| judge(protocol, 0));
        let mut protocols = BTreeMap::new();
        for (&protocol, ports) in cuts {
            let mut runs = vec![(0, judge(protocol, 0))];
            for &port in ports.range(1..) {
                let verdict = judge(protocol, port);
                if runs.last().is_some_and(|&(_, last)| last != verdict) {
                    runs.push((port, verdict));
                }
            }
            if runs != [(0, rest)] {
                protocols.insert(protocol, runs);
            }
        }
        Self { rest, protocols }
    }

    /// The program every kernel table knows, if the function is constant.
    pub(super) fn fixed(&self) -> Option<Program> {
        self.protocols.is_empty().then_some(match self.rest {
            Verdict::Allow => Program::ALLOW,
            Verdict::Deny => Program::DENY,
        })
    }

    fn at(&self, protocol: u8, port: u16) -> Verdict {
        let Some(runs) = self.protocols.get(&protocol) else {
            return self.rest;
        };
        let after = runs.partition_point(|&(first, _)| first <= port);
        after
            .checked_sub(1)
            .and_then(|run| runs.get(run))
            .map_or(self.rest, |&(_, verdict)| verdict)
    }

    /// Whether everything that `old` allows is allowed here too.
    pub(super) fn covers(&self, old: &Self) -> bool {
        let worse = |new: Verdict, old: Verdict| old == Verdict::Allow && new == Verdict::Deny;
        if worse(self.rest, old.rest) && self.protocols.len() + old.protocols.len() < 256 {
            return false;
        }
        let protocols: BTreeSet<_> = self.protocols.keys().chain(old.protocols.keys()).collect();
        protocols.into_iter().all(|protocol| {
            let runs = |function: &Self| {
                function
                    .protocols
                    .get(protocol)
                    .cloned()
                    .unwrap_or_default()
            };
            let starts = runs(self)
                .into_iter()
                .chain(runs(old))
                .map(|(first, _)| first);
            starts
                .into_iter()
                .all(|port| !worse(self.at(*protocol, port), old.at(*protocol, port)))
        })
    }

    /// Writes the elements of the function under a number, or takes them away.
    pub(super) fn write(&self, ledger: &mut Ledger, program: Program, present: bool) {
        let value = |verdict| present.then_some(verdict);
        let mut ranged = false;
        for (&protocol, runs) in &self.protocols {
            let usual = usual(runs);
            if usual != self.rest {
                ranged = true;
                ledger.put_proto((program, protocol), value(usual));
            }
            for (first, last, verdict) in spans(runs).filter(|&(_, _, verdict)| verdict != usual) {
                if protocol == ICMP || protocol == ICMP6 {
                    for message in first..=last {
                        ledger.put_icmp((program, protocol, message), value(verdict));
                    }
                } else if last - first < SINGLE_PORTS {
                    for port in first..=last {
                        ledger.put_port((program, protocol, port), value(verdict));
                    }
                } else {
                    ranged = true;
                    ledger.put_port_range((program, protocol, first, last), value(verdict));
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

fn spans(runs: &Runs) -> impl Iterator<Item = (u16, u16, Verdict)> {
    let ends = runs
        .iter()
        .skip(1)
        .map(|&(first, _)| first - 1)
        .chain([u16::MAX]);
    runs.iter()
        .zip(ends)
        .map(|(&(first, verdict), last)| (first, last, verdict))
}

/// The verdict of the longest run: stated once for the protocol, so that only the other runs need elements.
fn usual(runs: &Runs) -> Verdict {
    spans(runs)
        .max_by_key(|&(first, last, _)| (last - first, std::cmp::Reverse(first)))
        .map_or(Verdict::Deny, |(_, _, verdict)| verdict)
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Allow, Deny};
    use super::*;

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
        Function::tabulate(&BTreeMap::from([(6, cuts.collect())]), |protocol, port| {
            if protocol == 6 && inside(port) {
                Allow
            } else {
                Deny
            }
        })
    }

    #[test]
    fn equal_functions_have_one_form() {
        assert_eq!(tcp(&[(80, 80), (81, 90)]), tcp(&[(80, 90)]));
        assert_eq!(tcp(&[]), Function::constant(Deny));
        assert_eq!(tcp(&[]).fixed(), Some(Program::DENY));
        assert_eq!(tcp(&[(0, 65535)]).fixed(), None);
    }

    #[test]
    fn covering_is_inclusion_of_what_is_allowed() {
        assert!(tcp(&[(80, 90)]).covers(&tcp(&[(85, 85)])));
        assert!(!tcp(&[(85, 85)]).covers(&tcp(&[(80, 90)])));
        assert!(!tcp(&[(80, 90)]).covers(&tcp(&[(90, 91)])));
        assert!(Function::constant(Allow).covers(&tcp(&[(1, 2)])));
        assert!(!tcp(&[(0, 65535)]).covers(&Function::constant(Allow)));
        assert!(tcp(&[]).covers(&tcp(&[])));
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
            BTreeMap::from([(Program(16), Deny)])
        );
        assert!(tables.protos.is_empty() && tables.programs.is_empty());

        let mut ledger = Ledger::default();
        tcp(&[(0, 99), (101, 65535)]).write(&mut ledger, Program(17), true);
        assert_eq!(
            ledger.tables().protos,
            BTreeMap::from([((Program(17), 6), Allow)])
        );
        assert_eq!(
            ledger.tables().ports,
            BTreeMap::from([((Program(17), 6, 100), Deny)])
        );
    }
}
