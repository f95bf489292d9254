//! Where a policy is enforced, as its condition Programmed says it: counted from what the nodes report.
//!
//! ```text
//!  policies, nodes ──► Object Gone Listed · Node NodeGone ─┐ handle(input, now)
//!                                                     ┌────▼─────────────────────┐
//!  felix on each node ► Opened Reports SnapshotEnd ──►│ Board                    │──poll──► Write  one status
//!                       Closed                        │ policy → node → in force │          Close  end a stream
//!                                                     └──────────────────────────┘──next_timeout──► one timer
//! ```
//!
//! A node reports the policies that select endpoints of its own, with the generation that is in force there or why it is
//! not: it is one of the M nodes of "generation G enforced on N of M nodes". What a node last reported holds until it
//! reports again, or its object is gone: its kernel goes on enforcing whether or not felix runs.
//!
//! Writes are few: none before the nodes have been heard (or [`GRACE`] has passed), one at a time for each policy, with
//! [`PAUSE`] between two and [`CALM`] where only the number of nodes differs, [`RATE`] a second over all.

mod model;
mod say;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crds::condition::ConditionStatus;

use crate::Millis;

pub use self::model::{Failure, InForce, Input, Key, Kind, Object, Output, Report, StreamId, Told};

/// A node that has not reported this long after it was ready counts as silent; the first writes wait so long for it.
pub const GRACE: Millis = 30_000;
/// From a change to the write that tells of it: others of the same kind come along.
pub const SETTLE: Millis = 250;
/// Least time between two writes of one policy.
pub const PAUSE: Millis = 1_000;
/// The same, while the policy is enforced everywhere and only the number of nodes changes.
pub const CALM: Millis = 5_000;
/// After a write that failed.
pub const RETRY: Millis = 10_000;
/// Writes a second, over all policies.
pub const RATE: u64 = 20;
/// Writes that may come at once after a pause.
pub const BURST: u64 = 40;
/// Policies that one node may report beyond those that are known: its view of the API may be ahead.
pub const UNKNOWN: usize = 1_000;
/// Bytes of an error that are kept.
pub const ERROR_BYTES: usize = 512;

/// Millionths of a write that are earned in a millisecond.
const EARNED: u64 = RATE * 1_000;
const ONE: u64 = 1_000_000;

/// Everything known of policies, nodes and what these report.
#[derive(Debug, Default)]
pub struct Board {
    policies: BTreeMap<Arc<Key>, Policy>,
    nodes: BTreeMap<Arc<str>, Node>,
    streams: BTreeMap<StreamId, Arc<str>>,
    known: usize,
    listed: bool,
    settled: bool,
    /// Nodes that ought to report and have not, by when they count as silent.
    awaited: BTreeSet<(Millis, Arc<str>)>,
    silent: BTreeSet<Arc<str>>,
    due: BTreeSet<(Millis, Arc<Key>)>,
    /// Millionths of a write that may be spent, as of the time beside.
    purse: (u64, Millis),
    closing: VecDeque<(StreamId, String)>,
}

#[derive(Debug, Default)]
struct Policy {
    object: Option<Object>,
    nodes: BTreeMap<Arc<str>, InForce>,
    due: Option<Millis>,
    written: Option<Millis>,
    /// What is being written, and the uid of the object it is for.
    writing: Option<(String, Told)>,
}

#[derive(Debug, Default)]
struct Node {
    /// It has an object.
    exists: bool,
    ready: bool,
    /// It has reported everything once.
    heard: bool,
    awaited: Option<Millis>,
    stream: Option<StreamId>,
    policies: BTreeSet<Arc<Key>>,
    /// What the snapshot that is coming in has said so far.
    seen: Option<BTreeSet<Arc<Key>>>,
}

impl Board {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(now: Millis) -> Self {
        Self {
            purse: (BURST * ONE, now),
            ..Self::default()
        }
    }

    /// Tells that something happened.
    pub fn handle(&mut self, input: Input, now: Millis) {
        match input {
            Input::Object(key, object) => self.object(key, object, now),
            Input::Gone(key) => self.gone(&key),
            Input::Node(name, ready) => self.node(&name, ready, now),
            Input::NodeGone(name) => self.node_gone(&name, now),
            Input::Listed => self.listed = true,
            Input::Opened(stream, node) => self.opened(stream, &node, now),
            Input::Reports(stream, reports) => self.reports(stream, reports, now),
            Input::SnapshotEnd(stream) => self.snapshot_end(stream, now),
            Input::Closed(stream) => self.closed(stream, now),
            Input::Written(key, outcome) => self.written(&key, outcome, now),
            Input::Tick => {}
        }
        self.settle(now);
    }

    /// The next thing to do, or `None` when there is nothing until the next input or [`Board::next_timeout`].
    pub fn poll(&mut self, now: Millis) -> Option<Output> {
        if let Some((stream, why)) = self.closing.pop_front() {
            return Some(Output::Close(stream, why));
        }
        self.earn(now);
        while self.settled && self.purse.0 >= ONE {
            let &(at, ref key) = self.due.first()?;
            if at > now {
                return None;
            }
            let key = Arc::clone(key);
            self.due.remove(&(at, Arc::clone(&key)));
            if let Some(output) = self.write(&key, now) {
                self.purse.0 -= ONE;
                return Some(output);
            }
        }
        None
    }

    /// When [`Input::Tick`] is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Millis> {
        let silent = self.awaited.first().filter(|_| self.listed).map(|it| it.0);
        let due = self.due.first().filter(|_| self.settled).map(|it| it.0);
        let affordable = self.purse.1 + ONE.saturating_sub(self.purse.0).div_ceil(EARNED);
        let due = due.map(|due| due.max(affordable));
        silent.into_iter().chain(due).min()
    }

    /// Nodes that report now.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.streams.len()
    }

    fn earn(&mut self, now: Millis) {
        let (purse, since) = self.purse;
        let earned = now.saturating_sub(since).saturating_mul(EARNED);
        self.purse = (
            purse.saturating_add(earned).min(BURST * ONE),
            now.max(since),
        );
    }

    /// Nodes whose time is over become silent; once none is waited for, writes begin.
    fn settle(&mut self, now: Millis) {
        if !self.listed {
            return;
        }
        let mut changed = false;
        while let Some((at, name)) = self.awaited.first().cloned() {
            if at > now {
                break;
            }
            self.awaited.remove(&(at, Arc::clone(&name)));
            if let Some(node) = self.nodes.get_mut(&name) {
                node.awaited = None;
            }
            changed |= self.silent.insert(name);
        }
        if !self.settled && self.awaited.is_empty() {
            self.settled = true;
            changed = true;
        }
        if changed {
            self.touch_all(now);
        }
    }

    fn object(&mut self, key: Key, object: Object, now: Millis) {
        let key = self.intern(key);
        let policy = self.policies.entry(Arc::clone(&key)).or_default();
        if policy.writing.as_ref().is_some_and(|it| it.0 != object.uid) {
            policy.writing = None;
        }
        if policy.object.replace(object).is_none() {
            self.known += 1;
        }
        self.touch(&key, now);
    }

    fn gone(&mut self, key: &Key) {
        let Some(policy) = self.policies.get_mut(key) else {
            return;
        };
        if policy.object.take().is_some() {
            self.known -= 1;
        }
        policy.written = None;
        policy.writing = None;
        self.forget_if_empty(key);
    }

    fn forget_if_empty(&mut self, key: &Key) {
        let empty = |it: &Policy| it.object.is_none() && it.nodes.is_empty();
        if self.policies.get(key).is_some_and(empty)
            && let Some((key, policy)) = self.policies.remove_entry(key)
            && let Some(due) = policy.due
        {
            self.due.remove(&(due, key));
        }
    }

    fn intern(&self, key: Key) -> Arc<Key> {
        let known = self.policies.get_key_value(&key);
        known.map_or_else(|| Arc::new(key), |(known, _)| Arc::clone(known))
    }

    fn node(&mut self, name: &str, ready: bool, now: Millis) {
        let name = self.named(name);
        let node = self.nodes.entry(Arc::clone(&name)).or_default();
        node.exists = true;
        node.ready = ready;
        self.await_report(&name, now);
    }

    fn named(&self, name: &str) -> Arc<str> {
        let known = self.nodes.get_key_value(name);
        known.map_or_else(|| Arc::from(name), |(known, _)| Arc::clone(known))
    }

    /// Begins to wait for a node's first report, or ends it.
    fn await_report(&mut self, name: &Arc<str>, now: Millis) {
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        let wanting = node.exists && node.ready && !node.heard;
        if wanting && node.awaited.is_none() && !self.silent.contains(name) {
            node.awaited = Some(now + GRACE);
            self.awaited.insert((now + GRACE, Arc::clone(name)));
        }
        if !wanting {
            if let Some(at) = node.awaited.take() {
                self.awaited.remove(&(at, Arc::clone(name)));
            }
            if self.silent.remove(name) {
                self.touch_all(now);
            }
        }
    }

    fn node_gone(&mut self, name: &str, now: Millis) {
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        node.exists = false;
        let name = self.named(name);
        self.await_report(&name, now);
        let Some(node) = self.nodes.remove(&name) else {
            return;
        };
        if let Some(stream) = node.stream {
            self.streams.remove(&stream);
            self.closing
                .push_back((stream, format!("the node {name} is gone")));
        }
        for key in node.policies {
            self.leave(&key, &name, now);
        }
    }

    /// A policy selects nothing on a node any more.
    fn leave(&mut self, key: &Key, node: &str, now: Millis) {
        if let Some(policy) = self.policies.get_mut(key)
            && policy.nodes.remove(node).is_some()
        {
            self.touch(key, now);
            self.forget_if_empty(key);
        }
    }

    fn opened(&mut self, stream: StreamId, node: &str, now: Millis) {
        let name = self.named(node);
        let known = self.nodes.get_mut(&name).filter(|node| node.exists);
        let Some(node) = known else {
            let why = format!("there is no node {name}");
            self.closing.push_back((stream, why));
            return;
        };
        node.seen = Some(BTreeSet::new());
        if let Some(earlier) = node.stream.replace(stream) {
            self.streams.remove(&earlier);
            self.closing
                .push_back((earlier, "the node has opened another stream".to_owned()));
        }
        self.streams.insert(stream, Arc::clone(&name));
        self.touch_behind(&name, now);
    }

    fn closed(&mut self, stream: StreamId, now: Millis) {
        let Some(name) = self.streams.remove(&stream) else {
            return;
        };
        if let Some(node) = self.nodes.get_mut(&name) {
            node.stream = None;
            node.seen = None;
        }
        self.touch_behind(&name, now);
    }

    /// What a policy says of a node that lags names how it is connected.
    fn touch_behind(&mut self, name: &Arc<str>, now: Millis) {
        let Some(node) = self.nodes.get(name) else {
            return;
        };
        let behind = |key: &&Arc<Key>| {
            let policy = self.policies.get(*key);
            policy.is_some_and(|it| it.object.as_ref().is_some_and(|o| !it.enforced(o, name)))
        };
        let keys: Vec<_> = node.policies.iter().filter(behind).cloned().collect();
        for key in keys {
            self.touch(&key, now);
        }
    }

    fn reports(&mut self, stream: StreamId, reports: Vec<Report>, now: Millis) {
        let Some(name) = self.streams.get(&stream).cloned() else {
            return;
        };
        for report in reports {
            let key = self.intern(report.key);
            let Some(node) = self.nodes.get_mut(&name) else {
                return;
            };
            let Some(mut state) = report.state else {
                if node.policies.remove(&key) {
                    self.leave(&key, &name, now);
                }
                continue;
            };
            if !node.policies.contains(&key) && node.policies.len() >= self.known + UNKNOWN {
                let why = "more policies are reported than there are".to_owned();
                self.closing.push_back((stream, why));
                self.closed(stream, now);
                return;
            }
            if let Some(error) = &mut state.error {
                shorten(error);
            }
            node.policies.insert(Arc::clone(&key));
            if let Some(seen) = &mut node.seen {
                seen.insert(Arc::clone(&key));
            }
            let policy = self.policies.entry(Arc::clone(&key)).or_default();
            if policy.nodes.get(&name) != Some(&state) {
                policy.nodes.insert(Arc::clone(&name), state);
                self.touch(&key, now);
            }
        }
    }

    fn snapshot_end(&mut self, stream: StreamId, now: Millis) {
        let Some(name) = self.streams.get(&stream).cloned() else {
            return;
        };
        let Some(node) = self.nodes.get_mut(&name) else {
            return;
        };
        let Some(seen) = node.seen.take() else { return };
        node.heard = true;
        let gone: Vec<_> = node.policies.difference(&seen).cloned().collect();
        node.policies = seen;
        for key in gone {
            self.leave(&key, &name, now);
        }
        self.await_report(&name, now);
    }

    fn touch_all(&mut self, now: Millis) {
        let keys: Vec<_> = self.policies.keys().cloned().collect();
        for key in keys {
            self.touch(&key, now);
        }
    }

    /// What the policy should say may be something else now: it is looked at soon.
    fn touch(&mut self, key: &Key, now: Millis) {
        let Some((key, policy)) = self.policies.get_key_value(key) else {
            return;
        };
        if policy.object.is_none() || policy.due.is_some() {
            return;
        }
        let rested = policy.written.map_or(0, |at| at + PAUSE);
        let (key, at) = (Arc::clone(key), rested.max(now + SETTLE));
        self.look_at(key, at);
    }

    fn look_at(&mut self, key: Arc<Key>, at: Millis) {
        if let Some(policy) = self.policies.get_mut(&key) {
            if let Some(before) = policy.due.replace(at) {
                self.due.remove(&(before, Arc::clone(&key)));
            }
            self.due.insert((at, key));
        }
    }

    /// Compares what a policy says with what it should say.
    fn write(&mut self, key: &Arc<Key>, now: Millis) -> Option<Output> {
        self.policies.get_mut(key)?.due = None;
        let policy = self.policies.get(key)?;
        let object = policy.object.as_ref()?;
        let wanted = self.wanted(key, policy, object)?;
        if object.told.as_ref() == Some(&wanted) {
            return None;
        }
        if policy.writing.is_some() {
            // Its outcome brings us back.
            return None;
        }
        let calm = object.told.as_ref().is_some_and(|told| {
            let everywhere = told.status == ConditionStatus::True && told.status == wanted.status;
            everywhere && told.generation == wanted.generation
        });
        let rested = policy.written.map_or(0, |at| at + CALM);
        if calm && now < rested {
            self.look_at(Arc::clone(key), rested);
            return None;
        }
        let (uid, version) = (object.uid.clone(), object.version.clone());
        let policy = self.policies.get_mut(key)?;
        policy.written = Some(now);
        policy.writing = Some((uid, wanted.clone()));
        Some(Output::Write((**key).clone(), version, wanted))
    }

    fn written(&mut self, key: &Key, outcome: Result<String, Failure>, now: Millis) {
        let key = self.intern(key.clone());
        let Some(policy) = self.policies.get_mut(&key) else {
            return;
        };
        let written = policy.writing.take();
        match outcome {
            Ok(version) => {
                if let (Some(object), Some((uid, told))) = (&mut policy.object, written)
                    && object.uid == uid
                {
                    object.told = Some(told);
                    object.version = version;
                }
                self.touch(&key, now);
            }
            Err(Failure::Conflict) => self.touch(&key, now),
            Err(Failure::Away) => self.look_at(key, now + RETRY),
        }
    }
}

impl Policy {
    /// Whether a node that reports it has the object's generation in force.
    fn enforced(&self, object: &Object, node: &str) -> bool {
        let state = self.nodes.get(node);
        state.is_some_and(|it| it.uid == object.uid && it.generation >= object.generation)
    }
}

/// Cuts a text that came from outside.
fn shorten(text: &mut String) {
    if text.len() > ERROR_BYTES {
        let end = (0..=ERROR_BYTES)
            .rev()
            .find(|&at| text.is_char_boundary(at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
}
