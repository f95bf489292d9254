//! The engine: what it is told, and what it answers.

use super::k8s::PolicyError;
use super::model::{Policy, PolicyKey, Tier};
use super::tables::{Change, Ledger, Program, Tables, Verdict};
use crate::feed::{Identity, Labels, LocalEndpoint};

/// What one compile changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Number of this compile; hand it to [`Engine::applied`] when the kernel has it.
    pub revision: u64,
    /// The elements that differ from the compile before, at most one change per element.
    pub changes: Vec<Change>,
    /// Some flow that was allowed may now be denied: live flows must be judged again.
    pub narrowing: bool,
}

/// Index, evaluator and tables of one node.
#[derive(Debug)]
pub struct Engine {
    ledger: Ledger,
    revision: u64,
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine {
    /// An engine that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let mut ledger = Ledger::default();
        ledger.put_program(Program::DENY, Some(Verdict::Deny));
        Self {
            ledger,
            revision: 0,
        }
    }

    /// Tells what the kernel holds from an earlier life of felix, before the first compile: none of the numbers in
    /// use there gets another meaning until a compile was [applied](Self::applied).
    pub fn resume(&mut self, _kernel: &Tables) {}

    /// Tells that the kernel holds the tables of this compile: numbers that went out of use before may be reused.
    pub fn applied(&mut self, _revision: u64) {}

    /// A namespace came or changed.
    pub fn apply_namespace(&mut self, _name: &str, _labels: Labels) {}

    /// A namespace is gone.
    pub fn delete_namespace(&mut self, _name: &str) {}

    /// A pod came or changed. Pods that have finished are to be deleted, not applied: their addresses are free.
    pub fn apply_identity(&mut self, _identity: Identity) {}

    /// A pod is gone. One that is still attached here keeps its identity until it is detached.
    pub fn delete_identity(&mut self, _uid: &str) {}

    /// A tier came or changed. The tier `default` is there from the start.
    pub fn apply_tier(&mut self, _tier: Tier) {}

    /// A policy came or changed.
    pub fn apply_policy(&mut self, _policy: Policy) {}

    /// A policy came or changed and cannot be understood: its last good version stays in force, and if there is none,
    /// what it selects is closed.
    pub fn refuse_policy(&mut self, _key: PolicyKey, _generation: i64, _error: PolicyError) {}

    /// A policy is gone.
    pub fn delete_policy(&mut self, _key: &PolicyKey) {}

    /// An endpoint is attached here, or its addresses changed.
    pub fn set_local(&mut self, _ifname: &str, _endpoint: LocalEndpoint) {}

    /// An endpoint is detached.
    pub fn remove_local(&mut self, _ifname: &str) {}

    /// Brings the tables up to date with everything told so far.
    pub fn compile(&mut self) -> Compiled {
        self.revision += 1;
        Compiled {
            revision: self.revision,
            changes: self.ledger.drain(),
            narrowing: false,
        }
    }

    /// All elements as of the last compile.
    #[must_use]
    pub const fn tables(&self) -> &Tables {
        self.ledger.tables()
    }
}
