//! How often live connections are judged again: not with every change, or a cluster in motion would judge all the time.

use crate::Millis;

/// Least time between two bumps of the epoch. A connection that a change forbids may live this much longer.
const APART: Millis = 100;

/// When the epoch was bumped, and whether a bump is owed.
#[derive(Debug, Default)]
pub struct Pace {
    last: Option<Millis>,
    owed: bool,
}

impl Pace {
    /// Whether a transaction at `now` that wants a bump shall bump. What is not urgent waits until [`Pace::due`] when
    /// the last bump was a moment ago: several changes share one then.
    pub fn grants(&mut self, now: Millis, urgent: bool) -> bool {
        let early = self.last.is_some_and(|last| now < last + APART);
        if early && !urgent {
            self.owed = true;
            return false;
        }
        true
    }

    /// The epoch was bumped.
    pub const fn bumped(&mut self, now: Millis) {
        self.last = Some(now);
        self.owed = false;
    }

    /// When to bump for the changes that have waited.
    #[must_use]
    pub fn due(&self) -> Option<Millis> {
        self.owed
            .then(|| self.last.map_or(0, |last| last.saturating_add(APART)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_in_a_row_share_a_bump_and_none_waits_long() {
        let mut pace = Pace::default();
        let (mut bumps, mut waiting) = (Vec::new(), None);
        for now in 0..2000 {
            let due = pace.due().is_some_and(|due| due <= now);
            let changed = now % 7 == 0 && now < 1500 && pace.grants(now, false);
            if due || changed {
                pace.bumped(now);
                bumps.push(now);
                waiting = None;
            } else if now % 7 == 0 && now < 1500 {
                waiting.get_or_insert(now);
            }
            assert!(waiting.is_none_or(|since| now - since < APART), "at {now}");
        }
        assert!(bumps.windows(2).all(|pair| pair[1] - pair[0] >= APART));
        assert_eq!((bumps.len(), waiting), (16, None));
        assert_eq!(pace.due(), None);
    }

    #[test]
    fn what_is_urgent_does_not_wait_and_settles_what_did() {
        let mut pace = Pace::default();
        assert!(pace.grants(5, false));
        pace.bumped(5);
        assert!(!pace.grants(6, false));
        assert_eq!(pace.due(), Some(105));
        assert!(pace.grants(7, true));
        pace.bumped(7);
        assert_eq!(pace.due(), None);
    }
}
