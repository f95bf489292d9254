//! Running the decision process where paths have changed.

use crate::nexthop::{Resolution, Table};
use crate::speaker::Leg;

use super::decide::{self, Candidate, Decision};
use super::nexthops::{Legs, LegsId, Resolved, leg};
use super::prefixes::at;
use super::table::{NONE, PathRecord, Rib};
use super::{Best, Freshness, PrefixId, SourceId};

/// What a decision may have changed: a path of the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The prefix's number.
    pub id: PrefixId,
    /// Another best path, or the same with other attributes, or none.
    pub best_changed: bool,
    /// The ways to it, when they are others now.
    pub legs: Option<LegsId>,
    /// The ways to it before.
    pub legs_before: LegsId,
}

impl Rib {
    /// Decides about every prefix again.
    pub fn decide_again(&mut self) {
        for id in self.all_ids() {
            self.touch(id);
        }
    }

    /// The next-hop table changed: decides again where a next hop resolves differently.
    pub fn next_hops_changed(&mut self, table: &Table) {
        let changed = self.sets.next_hops().refresh(table, &mut self.legs);
        if changed.is_empty() {
            return;
        }
        for id in self.all_ids() {
            let affected = self.path_numbers(id).any(|path| {
                let next_hop = self.sets.next_hop_id(self.paths[at(path)].set);
                changed.binary_search(&next_hop).is_ok()
            });
            if affected {
                self.touch(id);
            }
        }
    }

    /// Runs the decision process for all prefixes that need it, in the order in which they came to need it. What each
    /// has become is added to `settled`.
    pub fn settle(&mut self, table: &Table, max_paths: usize, settled: &mut Vec<Settled>) {
        if self.legs.wants_sweep() {
            let used = self.entries.iter().map(|entry| entry.legs);
            self.legs.sweep(used.chain(self.sets.next_hops().legs()));
        }
        let mut pending = std::mem::take(&mut self.pending);
        for id in pending.drain(..) {
            let (best, legs) = self.choose(id, table, max_paths);
            let entry = &mut self.entries[id.index()];
            let best_changed = entry.decided() || entry.best != best;
            let legs_before = entry.legs;
            let legs_changed = legs_before != legs;
            entry.best = best;
            entry.legs = legs;
            settled.push(Settled {
                id,
                best_changed,
                legs: legs_changed.then_some(legs),
                legs_before,
            });
        }
        self.pending = pending;
    }

    /// The whole decision about a prefix, by index of its [`paths`](Self::paths); refused ones have no reason in it.
    pub fn explain(&self, id: PrefixId, max_paths: usize) -> Decision {
        let numbers: Vec<u32> = self.path_numbers(id).collect();
        let candidates: Vec<(u32, Option<Resolution>)> = numbers
            .iter()
            .filter(|number| self.paths[at(**number)].refused.is_none())
            .map(|number| (*number, self.known(&self.paths[at(*number)])))
            .collect();
        let decision = decide::decide(&self.views(&candidates), max_paths);
        let place = |index: usize| {
            let number = candidates[index].0;
            numbers.iter().position(|it| *it == number)
        };
        let mut reasons = vec![None; numbers.len()];
        for (index, reason) in decision.reasons.iter().enumerate() {
            if let Some(place) = place(index) {
                reasons[place] = *reason;
            }
        }
        Decision {
            best: decision.best.and_then(place),
            multipath: decision.multipath.into_iter().filter_map(place).collect(),
            reasons,
        }
    }

    /// The paths to a prefix that can be used, as numbers, the best one first: each is what the decision process chooses
    /// where those before are not there. Until `visit` says that it has enough.
    pub(super) fn ranked(&self, id: PrefixId, mut visit: impl FnMut(u32, Best) -> bool) {
        let mut candidates: Vec<(u32, Option<Resolution>)> = self
            .path_numbers(id)
            .filter(|number| self.paths[at(*number)].refused.is_none())
            .map(|number| (number, self.known(&self.paths[at(number)])))
            .collect();
        while let Some(best) = decide::decide(&self.views(&candidates), 1).best {
            let (number, _) = candidates.remove(best);
            let PathRecord { from, set, .. } = self.paths[at(number)];
            if !visit(number, Best { from, set }) {
                return;
            }
        }
    }

    /// The best path and the ways of all that are used.
    fn choose(&mut self, id: PrefixId, table: &Table, max_paths: usize) -> (u32, LegsId) {
        let first = self.entries[id.index()].first;
        let Some(only) = self.paths.get(at(first)).copied() else {
            return (NONE, Legs::NONE);
        };
        if only.next == NONE {
            if !only.refused.is_none() {
                return (NONE, Legs::NONE);
            }
            if only.from == SourceId::LOCAL {
                return (first, Legs::NONE);
            }
            let resolved = self.resolve(&only, table);
            let best = if resolved.to.is_some() { first } else { NONE };
            return (best, resolved.legs);
        }
        let mut candidates = Vec::with_capacity(4);
        let mut next = first;
        while next != NONE {
            let record = self.paths[at(next)];
            if record.refused.is_none() {
                candidates.push((next, self.resolve(&record, table).to));
            }
            next = record.next;
        }
        let decision = decide::decide(&self.views(&candidates), max_paths);
        let mut legs: Vec<Leg> = decision
            .multipath
            .iter()
            .filter_map(|index| candidates[*index].1)
            .map(leg)
            .collect();
        legs.sort_unstable();
        legs.dedup();
        let best = decision.best.map_or(NONE, |index| candidates[index].0);
        (best, self.legs.number(&legs))
    }

    fn views(&self, candidates: &[(u32, Option<Resolution>)]) -> Vec<Candidate<'_>> {
        let view = |(number, resolution): &(u32, Option<Resolution>)| {
            let record = &self.paths[at(*number)];
            let attributes = self.sets.summary(record.set);
            Some(Candidate {
                attributes,
                source: self.source(record.from)?,
                path_id: record.path_id,
                // RFC 9494 section 4.3: also when another speaker says so.
                long_lived: record.freshness == Freshness::LongLived || attributes.long_lived,
                cost: resolution.map(|it| it.cost),
            })
        };
        // Every path has a source, so that none is left out and indices stay.
        candidates.iter().filter_map(view).collect()
    }

    fn resolve(&mut self, record: &PathRecord, table: &Table) -> Resolved {
        if record.from == SourceId::LOCAL {
            return Resolved {
                to: None,
                legs: Legs::NONE,
            };
        }
        let ifindex = self.source(record.from).and_then(|it| it.ifindex);
        let next_hop = self.sets.next_hop_id(record.set);
        let next_hops = self.sets.next_hops();
        next_hops.resolve(next_hop, ifindex, table, &mut self.legs)
    }

    fn known(&self, record: &PathRecord) -> Option<Resolution> {
        let ifindex = self.source(record.from)?.ifindex;
        self.sets.resolved(record.set, ifindex)?.to
    }
}
