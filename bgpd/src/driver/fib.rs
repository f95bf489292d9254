//! What felix is told: the best routes, in the order in which the speaker says them.
//!
//! The speaker says no more than is taken, so that what waits here is bounded. A new stream begins with nothing: the
//! speaker is asked for all it knows.

use std::collections::{BTreeSet, VecDeque};
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
    untold: VecDeque<Told>,
    /// The speaker has said all it knew when the stream was opened: that many of these routes are still before the end of
    /// the snapshot.
    complete: Option<usize>,
    /// The newest stream; older ones end.
    stream: u64,
    /// It is open, so what changes is to be told.
    open: bool,
    ack: Option<Ack>,
    /// Interfaces to send router advertisements on.
    interfaces: BTreeSet<String>,
    interfaces_told: bool,
}

/// What is told of best routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// The ways to a prefix; none: there is no way any more.
    Route(Cidr, Vec<Leg>),
    /// All prefixes with the first ways have left them, most of them for the second.
    Moved(Vec<Leg>, Vec<Leg>),
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
    pub(crate) routes: Vec<Told>,
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

    /// The best paths to these prefixes are these now, for that stream; none is left in `routes`. `complete`: with them
    /// the speaker has said all that it knew when the stream was opened.
    pub(crate) fn tell(&self, stream: u64, routes: &mut Vec<Told>, complete: bool) {
        let mut state = self.lock();
        if state.stream != stream || !state.open {
            routes.clear();
            return;
        }
        state.untold.extend(routes.drain(..));
        if complete {
            state.complete = Some(state.untold.len());
        }
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
        state.untold = VecDeque::new();
        state.complete = None;
        state.ack = None;
        // A new felix sends none unasked.
        state.interfaces_told = state.interfaces.is_empty();
        let opened = (state.stream, self.changed.subscribe());
        drop(state);
        self.changed.send_replace(());
        opened
    }

    /// That stream has ended; nothing is kept for it.
    pub(crate) fn close(&self, stream: u64) {
        let mut state = self.lock();
        if state.stream == stream {
            state.open = false;
            state.untold = VecDeque::new();
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
        let before_end = state.complete.unwrap_or(usize::MAX);
        let count = CHUNK.min(state.untold.len()).min(before_end);
        step.routes = state.untold.drain(..count).collect();
        step.end_of_snapshot = count == before_end;
        state.complete = state
            .complete
            .filter(|_| !step.end_of_snapshot)
            .map(|left| left - count);
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

    fn route(prefix: Cidr) -> Told {
        Told::Route(prefix, leg(1))
    }

    fn tell(fib: &Fib, stream: u64, prefixes: &[Cidr], complete: bool) {
        let mut routes = prefixes.iter().map(|it| route(*it)).collect();
        fib.tell(stream, &mut routes, complete);
        assert!(routes.is_empty());
    }

    #[test]
    fn a_stream_ends_its_snapshot_after_the_speaker_has_said_all_for_it() {
        let fib = Fib::new();
        let (stream, _) = fib.open();
        tell(&fib, stream, &[prefix(1)], false);
        let step = fib.step(stream).unwrap();
        assert_eq!(step.routes, [route(prefix(1))]);
        assert!(!step.end_of_snapshot);
        tell(&fib, stream, &[prefix(2)], true);
        tell(&fib, stream, &[prefix(3)], false);
        let step = fib.step(stream).unwrap();
        assert_eq!(step.routes, [route(prefix(2))]);
        assert!(step.end_of_snapshot);
        let step = fib.step(stream).unwrap();
        assert_eq!(step.routes, [route(prefix(3))]);
        assert!(!step.end_of_snapshot);
        assert_eq!(fib.step(stream).unwrap(), Step::default());

        let (newer, _) = fib.open();
        assert_eq!(fib.step(stream), None, "the older stream ends");
        tell(&fib, stream, &[prefix(1)], true);
        assert_eq!(
            fib.step(newer).unwrap(),
            Step::default(),
            "that was said for the older one"
        );
        tell(&fib, newer, &[], true);
        assert!(fib.step(newer).unwrap().end_of_snapshot);
    }

    #[test]
    fn nothing_is_kept_for_nobody() {
        let fib = Fib::new();
        let (stream, _) = fib.open();
        tell(&fib, stream, &[prefix(1)], false);
        fib.close(stream);
        tell(&fib, stream, &[prefix(1)], true);
        assert!(fib.lock().untold.is_empty());
    }

    #[test]
    fn many_routes_are_told_in_steps() {
        let fib = Fib::new();
        let (stream, _) = fib.open();
        let many = vec![prefix(1); CHUNK + 1];
        tell(&fib, stream, &many, true);
        let step = fib.step(stream).unwrap();
        assert_eq!((step.routes.len(), step.end_of_snapshot), (CHUNK, false));
        let step = fib.step(stream).unwrap();
        assert_eq!((step.routes.len(), step.end_of_snapshot), (1, true));
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
