//! What leads to an answer: the rules that matched on the way, and where it ended. Causes have numbers, which stand in
//! the values of the kernel's maps: two answers with different causes are different answers, so that each element, and
//! the kernel's counter on it, belongs to one cause.

use std::sync::Arc;

use super::function::Function;
use super::ids::Interned;
use super::model::PolicyKey;
use super::tables::{CauseId, Direction, Verdict};

/// Names a rule for as long as it is in force unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RuleId(pub(super) u64);

/// Where an evaluation ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Ended {
    /// Every tier passed.
    Nothing,
    /// With a rule.
    Rule(RuleId),
    /// With what a tier does by default, as no rule of these policies of it matched.
    Tier {
        tier: String,
        policies: Vec<PolicyKey>,
    },
    /// With one of these, and it is not kept apart which.
    Untold,
}

/// What leads to an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Cause {
    pub(super) direction: Direction,
    pub(super) verdict: Verdict,
    /// Rules with action Pass or Log that matched on the way.
    pub(super) noted: Vec<RuleId>,
    pub(super) ended: Ended,
    /// Where it would end if policies under audit were enforced; `None` when there are none.
    pub(super) would: Option<Ended>,
}

/// Numbers of causes. A cause is held by the functions it occurs in, and by the fixed programs that stand for it.
#[derive(Debug)]
pub(super) struct Causes {
    known: Interned<Cause>,
    /// Those that nobody holds any more, and the compile since which that is so: the kernel may still count them.
    gone: Vec<(u64, CauseId, Arc<Cause>)>,
    /// That no policy says anything is not counted now.
    pub(super) quiet: bool,
}

impl Default for Causes {
    fn default() -> Self {
        Self {
            known: Interned::new(CauseId::FIRST, CauseId::LAST),
            gone: Vec::new(),
            quiet: false,
        }
    }
}

impl Causes {
    /// The number of a cause, which nobody holds yet; 0 when all are taken.
    pub(super) fn number(&mut self, cause: Cause) -> CauseId {
        let says_nothing =
            cause.ended == Ended::Nothing && cause.noted.is_empty() && cause.would.is_none();
        if self.quiet && says_nothing {
            return CauseId::default();
        }
        if let Some(number) = self.known.number(&cause) {
            return CauseId(number);
        }
        let Some(number) = self.known.acquire(cause) else {
            return CauseId::default();
        };
        self.known.release(number);
        CauseId(number)
    }

    /// One holder more.
    pub(super) fn reuse(&mut self, cause: CauseId) {
        self.known.reuse(cause.0);
    }

    /// One holder less.
    pub(super) fn release(&mut self, cause: CauseId) {
        self.known.release(cause.0);
    }

    /// Whether a function's causes are not kept apart.
    pub(super) fn merged(&self, function: &Function) -> bool {
        let untold = |cause: &CauseId| self.get(*cause).is_none_or(|it| it.ended == Ended::Untold);
        function.causes().iter().all(untold)
    }

    /// The same function with causes that are not kept apart.
    pub(super) fn merge(&mut self, function: &Function) -> Function {
        let direction = function
            .causes()
            .iter()
            .find_map(|cause| Some(self.get(*cause)?.direction));
        let Some(direction) = direction else {
            return function.clone();
        };
        let mut untold = |verdict| {
            self.number(Cause {
                direction,
                verdict,
                noted: Vec::new(),
                ended: Ended::Untold,
                would: None,
            })
        };
        let [allow, deny, pass] = [Verdict::Allow, Verdict::Deny, Verdict::Pass].map(&mut untold);
        function.with_causes(|answer| match answer.verdict {
            Verdict::Allow => allow,
            Verdict::Deny => deny,
            Verdict::Pass => pass,
        })
    }

    /// What a number in the kernel stands for.
    pub(super) fn get(&self, number: CauseId) -> Option<&Cause> {
        let gone = || self.gone.iter().find(|(_, it, _)| *it == number);
        let known = self.known.value(number.0);
        known.or_else(|| Some(&gone()?.2)).map(|it| &**it)
    }

    /// A number that the kernel uses with a meaning we do not know.
    pub(super) fn reserve(&mut self, number: CauseId) {
        self.known.reserve(number.0);
    }

    /// Gives up those that nobody holds. They are remembered until the kernel has this compile.
    pub(super) fn sweep(&mut self, revision: u64) {
        for number in self.known.unused() {
            if let Some(cause) = self.known.value(number) {
                let cause = Arc::clone(cause);
                self.gone.push((revision, CauseId(number), cause));
            }
        }
        self.known.sweep(revision);
    }

    /// The kernel holds what was compiled as this revision.
    pub(super) fn applied(&mut self, revision: u64) {
        self.gone.retain(|(since, ..)| *since > revision);
        self.known.applied(revision);
    }
}
