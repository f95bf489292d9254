//! What the board is told, and what it wants, as plain data.

use std::fmt;

use crds::condition::ConditionStatus;

/// A kind of policy that has a status. A Kubernetes NetworkPolicy has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// NetworkPolicy of ours.
    NetworkPolicy,
    /// GlobalNetworkPolicy.
    GlobalNetworkPolicy,
    /// ClusterNetworkPolicy.
    ClusterNetworkPolicy,
}

/// A policy object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for kinds of the cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{:?} {}", self.kind, self.name),
            namespace => write!(f, "{:?} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// What is known of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// Whether the condition Accepted of this generation holds; `None` while nobody has judged it.
    pub accepted: Option<bool>,
    /// What the object says of where it is enforced.
    pub told: Option<Told>,
}

/// The condition Programmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// It is enforced wherever it selects something.
    pub status: ConditionStatus,
    /// Why, in a word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// The generation this is about.
    pub generation: i64,
    /// Nodes that enforce it, of those that have to: `2/3`. Not every kind has a place for it.
    pub nodes: Option<String>,
}

/// What a node says of one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The policy.
    pub key: Key,
    /// What is in force; `None`: it selects nothing on the node any more.
    pub state: Option<InForce>,
}

/// A policy on a node where it selects something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// `metadata.uid` of the object.
    pub uid: String,
    /// The generation in force, with live connections judged by it; 0 for none.
    pub generation: i64,
    /// Why a newer one is not.
    pub error: Option<String>,
}

/// Names one stream of reports while it is open.
pub type StreamId = u64;

/// Something happened.
#[derive(Debug)]
pub enum Input {
    /// A policy came or changed.
    Object(Key, Object),
    /// A policy is gone.
    Gone(Key),
    /// A node came or changed: its name, and whether its kubelet says that it is ready.
    Node(String, bool),
    /// A node is gone.
    NodeGone(String),
    /// All policies and nodes have been told.
    Listed,
    /// felix on that node opened a stream. What it says replaces what it said over an earlier one.
    Opened(StreamId, String),
    /// It reports.
    Reports(StreamId, Vec<Report>),
    /// It has reported every policy once.
    SnapshotEnd(StreamId),
    /// The stream ended.
    Closed(StreamId),
    /// Outcome of an [`Output::Write`].
    Written(Key, Result<String, Failure>),
    /// A timeout passed.
    Tick,
}

/// Why a status was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Somebody else has written the object; the watch brings it.
    Conflict,
    /// The API does not take it now.
    Away,
}

/// What shall be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Write the condition, if the object still has this version; answer with [`Input::Written`] and the new version.
    Write(Key, String, Told),
    /// End a stream, and say why.
    Close(StreamId, String),
}
