//! Which generation of each policy is in force: in the kernel, and live connections have been judged by it.
//!
//! ```text
//!  compiled ──► coming ──(the kernel took it)──► applied ──(a new epoch began)──► in force
//! ```
//!
//! A change that forbids flows is in the kernel at once for new ones; those which live are judged when the epoch is bumped,
//! up to 100 ms later. Only then is the change acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::PolicyStatus;
use crate::policy::model::PolicyKey;

/// What of a policy is in force on this node, for those who count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// `metadata.uid` of the object.
    pub uid: String,
    /// The generation in force; `None` for none.
    pub generation: Option<i64>,
    /// Why a newer one is not.
    pub error: Option<String>,
}

/// A policy as of one compile.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Compiled {
    uid: String,
    generation: Option<i64>,
    /// It selects endpoints of this node.
    selects: bool,
    /// Why its newest version is not understood.
    error: Option<String>,
}

/// On their way into force, and in force.
#[derive(Debug, Default)]
pub(super) struct Acks {
    coming: BTreeMap<PolicyKey, Option<Compiled>>,
    applied: BTreeMap<PolicyKey, Option<Compiled>>,
    in_force: BTreeMap<PolicyKey, Compiled>,
    /// Why the kernel is not in step.
    problem: Option<String>,
    /// Everything has been in force once.
    complete: bool,
    /// The kernel took a compile that is not in force yet.
    taken: bool,
    /// Whose [`InForce`] may have changed since it was last asked for.
    changed: BTreeSet<PolicyKey>,
}

impl Acks {
    /// These policies are not what they were, as of a compile.
    pub(super) fn compiled(&mut self, stirred: Vec<(PolicyKey, Option<PolicyStatus>)>) {
        for (key, status) in stirred {
            let compiled = status.map(|status| Compiled {
                uid: status.uid,
                generation: status.in_force,
                selects: status.endpoints > 0,
                error: status.error.map(|error| error.to_string()),
            });
            self.coming.insert(key, compiled);
        }
    }

    /// The kernel has taken everything that was compiled.
    pub(super) fn applied(&mut self) {
        self.applied.append(&mut self.coming);
        self.taken = true;
        if self.problem.take().is_some() {
            self.changed.extend(self.applied.keys().cloned());
        }
    }

    /// The kernel is not in step.
    pub(super) fn failed(&mut self, problem: &str) {
        let unfinished = self.coming.keys().chain(self.applied.keys());
        self.changed.extend(unfinished.cloned());
        self.problem = Some(problem.to_owned());
    }

    /// Live connections have been judged by all that the kernel has.
    pub(super) fn judged(&mut self) {
        if !std::mem::take(&mut self.taken) {
            return;
        }
        self.complete = true;
        for (key, compiled) in std::mem::take(&mut self.applied) {
            match compiled {
                Some(compiled) => self.in_force.insert(key.clone(), compiled),
                None => self.in_force.remove(&key),
            };
            self.changed.insert(key);
        }
    }

    /// The generation in force.
    pub(super) fn generation(&self, key: &PolicyKey) -> Option<i64> {
        self.in_force.get(key)?.generation
    }

    /// Why the newest version is not in force yet, if the kernel refuses it.
    pub(super) fn problem(&self, key: &PolicyKey) -> Option<&str> {
        let pending = self.coming.contains_key(key) || self.applied.contains_key(key);
        self.problem.as_deref().filter(|_| pending)
    }

    /// What changed since this was last asked, and what it is now: `None` when the policy selects nothing here. Nothing
    /// before everything has been in force once.
    pub(super) fn changes(&mut self) -> Option<Vec<(PolicyKey, Option<InForce>)>> {
        if !self.complete {
            return None;
        }
        let changed = std::mem::take(&mut self.changed).into_iter();
        let now = |key: PolicyKey| {
            let now = self.now(&key);
            (key, now)
        };
        Some(changed.map(now).collect())
    }

    fn now(&self, key: &PolicyKey) -> Option<InForce> {
        let have = self.in_force.get(key).filter(|it| it.selects);
        let next = self.coming.get(key).or_else(|| self.applied.get(key));
        let stuck = self.problem.as_ref().filter(|_| next.is_some());
        if let Some(problem) = stuck {
            let next = next.and_then(Option::as_ref).filter(|it| it.selects);
            let shown = have.or(next)?;
            return Some(InForce {
                uid: shown.uid.clone(),
                generation: have.and_then(|it| it.generation),
                error: Some(problem.clone()),
            });
        }
        have.map(|it| InForce {
            uid: it.uid.clone(),
            generation: it.generation,
            error: it.error.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::model::{Enforcement, Order, PolicyKind};

    fn key() -> PolicyKey {
        PolicyKey {
            namespace: String::new(),
            name: "p".to_owned(),
            kind: PolicyKind::GlobalNetworkPolicy,
        }
    }

    fn status(generation: i64, endpoints: usize) -> PolicyStatus {
        PolicyStatus {
            key: key(),
            uid: "u".to_owned(),
            generation,
            in_force: Some(generation),
            tier: "default".to_owned(),
            tier_order: Some(Order(0.0)),
            order: Order(0.0),
            enforcement: Enforcement::Enforce,
            rules: 0,
            directions: Vec::new(),
            endpoints,
            error: None,
        }
    }

    fn compiled(acks: &mut Acks, generation: i64, endpoints: usize) {
        acks.compiled(vec![(key(), Some(status(generation, endpoints)))]);
    }

    fn told(acks: &mut Acks) -> Vec<Option<(Option<i64>, Option<String>)>> {
        let changes = acks.changes().unwrap_or_default().into_iter();
        let short = |it: InForce| (it.generation, it.error);
        changes.map(|(_, now)| now.map(short)).collect()
    }

    /// A node where generation 1 is in force.
    fn one() -> Acks {
        let mut acks = Acks::default();
        compiled(&mut acks, 1, 2);
        assert_eq!(
            acks.changes(),
            None,
            "nothing is known before the kernel has it"
        );
        acks.judged();
        assert_eq!(acks.changes(), None);
        acks.applied();
        assert_eq!(acks.changes(), None);
        acks.judged();
        assert_eq!(told(&mut acks), [Some((Some(1), None))]);
        acks
    }

    #[test]
    fn a_generation_is_acknowledged_after_live_connections_were_judged() {
        let mut acks = one();
        compiled(&mut acks, 2, 2);
        acks.applied();
        assert_eq!(told(&mut acks), []);
        assert_eq!(acks.generation(&key()), Some(1));
        // Another change is compiled while the bump is owed: it is not in the kernel when the bump comes.
        compiled(&mut acks, 3, 2);
        acks.judged();
        assert_eq!(told(&mut acks), [Some((Some(2), None))]);
        acks.applied();
        acks.judged();
        assert_eq!(told(&mut acks), [Some((Some(3), None))]);
        acks.judged();
        assert_eq!(told(&mut acks), [], "nothing happened");
    }

    #[test]
    fn what_the_kernel_refuses_is_told_with_what_is_still_in_force() {
        let mut acks = one();
        compiled(&mut acks, 2, 2);
        acks.failed("refused");
        assert_eq!(told(&mut acks), [Some((Some(1), Some("refused".into())))]);
        acks.judged();
        assert_eq!(acks.generation(&key()), Some(1));
        // The next try is a compile without news.
        acks.applied();
        assert_eq!(told(&mut acks), [Some((Some(1), None))]);
        acks.judged();
        assert_eq!(told(&mut acks), [Some((Some(2), None))]);
        let mut new = Acks::default();
        new.applied();
        new.judged();
        compiled(&mut new, 1, 1);
        new.failed("refused");
        assert_eq!(told(&mut new), [Some((None, Some("refused".into())))]);
    }

    #[test]
    fn a_policy_that_selects_nothing_any_more_is_told_once() {
        let mut acks = one();
        compiled(&mut acks, 1, 0);
        acks.applied();
        acks.judged();
        assert_eq!(told(&mut acks), [None]);
        assert_eq!(acks.generation(&key()), Some(1));
        acks.compiled(vec![(key(), None)]);
        acks.applied();
        acks.judged();
        assert_eq!(told(&mut acks), [None]);
        assert_eq!(acks.generation(&key()), None);
    }
}
