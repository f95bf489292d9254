//! Telling felix the best routes: as many at a time as it takes, the rest waits in the tables.

use std::collections::BTreeMap;

use super::{Output, Speaker};
use crate::rib::{Due, LegsId, Settled};

/// Most best routes said that the driver has not yet said are taken ([`Input::BestTaken`](super::Input::BestTaken)). More
/// wait in the tables, where later changes overtake them.
pub const BEST_WINDOW: usize = 4096;

/// Prefixes that have to change their ways together for that to be said of the ways: as many at least, and such a part of
/// the table.
const MOVED_LEAST: usize = 64;
const MOVED_PART: usize = 256;

/// Who takes the best routes, and how far they have been told.
#[derive(Debug)]
pub(super) struct Taker {
    /// There is somebody.
    pub(super) wanted: bool,
    pub(super) due: Due,
    /// Said, and not taken yet.
    untaken: usize,
    snapshot: Snapshot,
    /// How many prefixes the last decision has moved from some ways to others.
    moved: BTreeMap<(LegsId, LegsId), usize>,
}

/// The snapshot that everybody new begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Snapshot {
    /// It has no end before this speaker's start has.
    Open,
    /// It ends after so many more of what is due.
    Ends(usize),
    Told,
}

impl Default for Taker {
    fn default() -> Self {
        Self {
            wanted: true,
            due: Due::default(),
            untaken: 0,
            snapshot: Snapshot::Open,
            moved: BTreeMap::new(),
        }
    }
}

impl Speaker {
    /// Somebody takes the best routes, or nobody does any more.
    pub(super) fn want_best(&mut self, wanted: bool) {
        self.taker.due.clear(&mut self.rib);
        self.taker = Taker {
            wanted,
            ..Taker::default()
        };
        if wanted {
            self.taker.due.push_all(&mut self.rib);
        }
    }

    /// That many of those said are dealt with.
    pub(super) fn best_taken(&mut self, count: usize) {
        self.taker.untaken = self.taker.untaken.saturating_sub(count);
    }

    /// A decision has changed the ways to a prefix.
    pub(super) fn best_settled(&mut self, change: &Settled) {
        let Some(legs) = change.legs.filter(|_| self.taker.wanted) else {
            return;
        };
        self.taker.due.push(change.id, &mut self.rib);
        let some = |id| !self.rib.leg_list(id).is_empty();
        if some(change.legs_before) && some(legs) {
            let moved = (change.legs_before, legs);
            *self.taker.moved.entry(moved).or_default() += 1;
        }
    }

    /// Says which ways all prefixes that had them have left, most of them for the same others: a link that fails is one
    /// change to felix then, before it hears of each prefix.
    fn tell_moved(&mut self, out: &mut Vec<Output>) {
        let mut most: BTreeMap<LegsId, (usize, LegsId)> = BTreeMap::new();
        for ((from, to), count) in std::mem::take(&mut self.taker.moved) {
            let most = most.entry(from).or_insert((0, to));
            *most = (*most).max((count, to));
        }
        let least = MOVED_LEAST.max(self.rib.breadth() / MOVED_PART);
        for (from, (count, to)) in most {
            if count >= least && !self.rib.leads_over(from) {
                let legs = |id| self.rib.leg_list(id).to_vec();
                let (from, to) = (legs(from), legs(to));
                out.push(Output::BestMoved { from, to });
            }
        }
    }

    /// Tells what is due, as far as there is room; nothing while the kernel has routes that may be better.
    pub(super) fn tell_best(&mut self, out: &mut Vec<Output>) {
        // RFC 4724 section 4.1: routes of the earlier life stay as they are until the selection is complete. The first of
        // two peers that are back would otherwise take all of the traffic from the way through the other.
        if self.startup.has_kept() && !self.startup.is_complete() {
            self.taker.moved.clear();
            return;
        }
        if !self.taker.moved.is_empty() {
            self.tell_moved(out);
        }
        let taker = &mut self.taker;
        if !taker.wanted {
            return;
        }
        if taker.snapshot == Snapshot::Open && self.startup.is_complete() {
            taker.snapshot = Snapshot::Ends(taker.due.len());
        }
        loop {
            if taker.snapshot == Snapshot::Ends(0) {
                taker.snapshot = Snapshot::Told;
                out.push(Output::BestComplete);
            }
            let said = taker.untaken < BEST_WINDOW
                && taker.due.pop(&mut self.rib, |rib, id| {
                    out.push(Output::Best {
                        prefix: rib.prefix(id),
                        legs: rib.leg_list(rib.legs(id)).to_vec(),
                    });
                });
            if !said {
                return;
            }
            taker.untaken += 1;
            if let Snapshot::Ends(left) = &mut taker.snapshot {
                *left -= 1;
            }
        }
    }
}
