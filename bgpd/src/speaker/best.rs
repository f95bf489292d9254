//! Telling felix the best routes: as many at a time as it takes, the rest waits in the tables.

use super::{Output, Speaker};
use crate::rib::Due;

/// Most best routes said that the driver has not yet said are taken ([`Input::BestTaken`](super::Input::BestTaken)). More
/// wait in the tables, where later changes overtake them.
pub const BEST_WINDOW: usize = 4096;

/// Who takes the best routes, and how far they have been told.
#[derive(Debug)]
pub(super) struct Taker {
    /// There is somebody.
    pub(super) wanted: bool,
    pub(super) due: Due,
    /// Said, and not taken yet.
    untaken: usize,
    snapshot: Snapshot,
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

    /// Tells what is due, as far as there is room.
    pub(super) fn tell_best(&mut self, out: &mut Vec<Output>) {
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
