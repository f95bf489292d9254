//! What felix is told: the best routes, in the order of their change, each prefix only in its newest state.
//!
//! The state is what felix has not been told of since it changed, so a slow felix costs no more memory than the table.
//! A new stream begins with nothing: the speaker is asked for all it knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crds::net::Cidr;
use tokio::sync::watch;

use crate::speaker::Leg;

/// Routes told in one go.
const CHUNK: usize = 256;

/// Routes for felix, and how far its newest stream is.
pub(crate) struct Fib {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    /// Ways to prefixes that are to be told; none: there is no way any more.
    untold: BTreeMap<Cidr, Vec<Leg>>,
    /// The speaker has said all it knew when the stream was opened.
    complete: bool,
    /// The newest stream; older ones end.
    stream: u64,
    /// It is open, so what changes is to be told.
    open: bool,
    snapshot_told: bool,
    ack: Option<Ack>,
    /// Interfaces to send router advertisements on.
    interfaces: BTreeSet<String>,
    interfaces_told: bool,
}

/// An acknowledgement that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) generation: u64,
    /// Empty: applied.
    pub(crate) error: String,
}

/// What a stream has to send next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) ack: Option<Ack>,
    /// Interfaces to send router advertisements on from now on.
    pub(crate) interfaces: Option<Vec<String>>,
    pub(crate) routes: Vec<(Cidr, Vec<Leg>)>,
    /// The snapshot ends after these routes.
    pub(crate) end_of_snapshot: bool,
}

impl Fib {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The best paths to a prefix are these now.
    pub(crate) fn set(&self, prefix: Cidr, legs: Vec<Leg>) {
        let mut state = self.lock();
        if !state.open {
            return;
        }
        state.untold.insert(prefix, legs);
        drop(state);
        self.changed.send_replace(());
    }

    /// The speaker has said all it knew, for that stream.
    pub(crate) fn complete(&self, stream: u64) {
        let mut state = self.lock();
        if state.stream != stream {
            return;
        }
        state.complete = true;
        drop(state);
        self.changed.send_replace(());
    }

    /// Router advertisements are wanted on these interfaces.
    pub(crate) fn advertise(&self, interfaces: BTreeSet<String>) {
        let mut state = self.lock();
        if state.interfaces != interfaces {
            state.interfaces = interfaces;
            state.interfaces_told = false;
            drop(state);
            self.changed.send_replace(());
        }
    }

    /// A new stream, which replaces the one before; its number, and a signal for each change.
    pub(crate) fn open(&self) -> (u64, watch::Receiver<()>) {
        let mut state = self.lock();
        state.stream += 1;
        state.open = true;
        state.untold = BTreeMap::new();
        state.complete = false;
        state.snapshot_told = false;
        state.ack = None;
        // A new felix sends none unasked.
        state.interfaces_told = state.interfaces.is_empty();
        let opened = (state.stream, self.changed.subscribe());
        drop(state);
        self.changed.send_replace(());
        opened
    }

    /// That stream has ended; nothing is gathered until the next one.
    pub(crate) fn close(&self, stream: u64) {
        let mut state = self.lock();
        if state.stream == stream {
            state.open = false;
            state.untold = BTreeMap::new();
        }
    }

    /// Whether no newer stream has been opened.
    pub(crate) fn is_current(&self, stream: u64) -> bool {
        self.lock().stream == stream
    }

    /// The stream's messages up to that generation are dealt with.
    pub(crate) fn ack(&self, stream: u64, generation: u64, error: String) {
        let mut state = self.lock();
        if state.stream != stream {
            return;
        }
        // An error is kept until it is told.
        let error = match state.ack.take() {
            Some(before) if !before.error.is_empty() => before.error,
            _ => error,
        };
        state.ack = Some(Ack { generation, error });
        drop(state);
        self.changed.send_replace(());
    }

    /// What the stream has to send next, an empty step when nothing; None: a newer stream has taken over.
    pub(crate) fn step(&self, stream: u64) -> Option<Step> {
        let mut state = self.lock();
        if state.stream != stream {
            return None;
        }
        let mut step = Step {
            ack: state.ack.take(),
            ..Step::default()
        };
        if !std::mem::replace(&mut state.interfaces_told, true) {
            step.interfaces = Some(state.interfaces.iter().cloned().collect());
        }
        while step.routes.len() < CHUNK
            && let Some(route) = state.untold.pop_first()
        {
            step.routes.push(route);
        }
        if state.untold.is_empty() && state.complete && !state.snapshot_told {
            state.snapshot_told = true;
            step.end_of_snapshot = true;
        }
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(last: u8) -> Vec<Leg> {
        vec![Leg {
            address: [192, 0, 2, last].into(),
            ifindex: Some(2),
            onlink: false,
            weight: 1,
        }]
    }

    fn prefix(third: u8) -> Cidr {
        Cidr::new([10, 244, third, 0].into(), 26).unwrap()
    }

    #[test]
    fn a_stream_ends_its_snapshot_after_the_speaker_has_said_all_for_it() {
        let fib = Fib::new();
        let (stream, _) = fib.open();
        fib.set(prefix(1), leg(1));
        let step = fib.step(stream).unwrap();
        assert_eq!(step.routes, [(prefix(1), leg(1))]);
        assert!(!step.end_of_snapshot);
        fib.set(prefix(2), leg(2));
        fib.complete(stream);
        let step = fib.step(stream).unwrap();
        assert_eq!(step.routes, [(prefix(2), leg(2))]);
        assert!(step.end_of_snapshot);
        assert_eq!(fib.step(stream).unwrap(), Step::default());

        let (newer, _) = fib.open();
        assert_eq!(fib.step(stream), None, "the older stream ends");
        fib.complete(stream);
        fib.set(prefix(1), leg(1));
        let step = fib.step(newer).unwrap();
        assert_eq!(step.routes, [(prefix(1), leg(1))]);
        assert!(!step.end_of_snapshot, "that was said for the older one");
        fib.complete(newer);
        assert!(fib.step(newer).unwrap().end_of_snapshot);
    }

    #[test]
    fn nothing_is_gathered_for_nobody() {
        let fib = Fib::new();
        fib.set(prefix(1), leg(1));
        let (stream, _) = fib.open();
        assert!(fib.step(stream).unwrap().routes.is_empty());
        fib.close(stream);
        fib.set(prefix(1), leg(1));
        assert!(fib.lock().untold.is_empty());
    }

    #[test]
    fn changes_between_two_steps_are_told_once_in_their_newest_state() {
        let fib = Fib::new();
        let (stream, _) = fib.open();
        fib.set(prefix(1), leg(1));
        fib.set(prefix(1), leg(2));
        fib.set(prefix(2), leg(1));
        fib.set(prefix(2), Vec::new());
        let step = fib.step(stream).unwrap();
        assert_eq!(step.routes, [(prefix(1), leg(2)), (prefix(2), Vec::new())]);
    }

    #[test]
    fn an_error_is_not_covered_by_a_later_acknowledgement() {
        let fib = Fib::new();
        let (stream, _) = fib.open();
        fib.ack(stream, 1, "bad prefix".into());
        fib.ack(stream, 2, String::new());
        let ack = fib.step(stream).unwrap().ack.unwrap();
        assert_eq!((ack.generation, ack.error.as_str()), (2, "bad prefix"));
        fib.ack(stream, 3, String::new());
        assert_eq!(fib.step(stream).unwrap().ack.unwrap().error, "");
    }
}
