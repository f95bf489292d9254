//! How many packets each rule has decided: the kernel counts per element, elements belong to causes, causes name rules.
//!
//! Only packets that are judged are counted: the first of each flow, every further one of a flow that is denied, and one
//! more of each live flow when flows are judged again.

use std::collections::{BTreeMap, BTreeSet};

use super::causes::{Cause, Ended, RuleId};
use super::engine::{Engine, Installed};
use super::evaluate::Rule;
use super::model::{Action, Enforcement, Policy, PolicyKey};
use super::tables::{CauseId, Direction};

/// Packets by what led to their verdicts.
pub type Packets = BTreeMap<CauseId, u64>;

/// What was counted of one rule, or of one end without a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    /// It matched, or decided.
    packets: u64,
    /// It would have decided.
    audited: u64,
}

/// What was counted by elements that are gone, and the numbers of rules.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    next: u64,
    /// Of every rule in force.
    rules: BTreeMap<RuleId, Tally>,
    /// Of flows that no rule of the policy matched, and that its tier decided therefore. An entry per policy and direction
    /// that it governs.
    unmatched: BTreeMap<(PolicyKey, Direction), Tally>,
    /// Of what tiers do by default.
    tiers: BTreeMap<(String, Direction), Tally>,
    /// Of flows that every tier passed.
    passed: BTreeMap<Direction, Tally>,
    /// Of flows that are not counted apart.
    untold: BTreeMap<Direction, Tally>,
}

impl Counts {
    /// Numbers for the rules of a policy that comes into force: a rule that was in the version before keeps its own.
    pub(super) fn ids(
        &mut self,
        direction: Direction,
        policy: &Policy,
        before: Option<&Installed>,
    ) -> Vec<RuleId> {
        let old = before.and_then(|it| Some((it.policy.rules(direction)?, it.rules(direction)?)));
        let (old_rules, old_ids) = old.unwrap_or_default();
        let mut taken = BTreeSet::new();
        let mut found: Vec<Option<RuleId>> = Vec::new();
        let mut from = 0;
        for rule in policy.rules(direction).into_iter().flatten() {
            // Mostly the next one; else wherever it is.
            let places = (from..old_rules.len()).chain(0..from.min(old_rules.len()));
            let mut same = places.filter(|at| !taken.contains(at) && old_rules[*at] == *rule);
            let at = same.next();
            if let Some(at) = at {
                taken.insert(at);
                from = at + 1;
            }
            found.push(at.and_then(|at| old_ids.get(at)).map(|it| it.id));
        }
        let ids = found.into_iter().map(|kept| {
            kept.unwrap_or_else(|| {
                self.next += 1;
                RuleId(self.next)
            })
        });
        ids.collect()
    }

    /// A policy came into force, in the place of this version.
    pub(super) fn installed(&mut self, before: Option<&Installed>, now: &Installed) {
        if let Some(before) = before {
            let ids = |it: &Installed| -> BTreeSet<RuleId> { ids_of(it).collect() };
            for gone in ids(before).difference(&ids(now)) {
                self.rules.remove(gone);
            }
        }
        for id in ids_of(now) {
            self.rules.entry(id).or_default();
        }
        for direction in Direction::BOTH {
            let key = (now.policy.key.clone(), direction);
            match now.rules(direction) {
                Some(_) => drop(self.unmatched.entry(key).or_default()),
                None => drop(self.unmatched.remove(&key)),
            }
        }
    }

    /// A policy is no longer in force.
    pub(super) fn removed(&mut self, gone: &Installed) {
        for id in ids_of(gone) {
            self.rules.remove(&id);
        }
        for direction in Direction::BOTH {
            self.unmatched.remove(&(gone.policy.key.clone(), direction));
        }
    }

    /// So many packets had this cause. Of rules and policies that are gone nothing is kept.
    fn add(&mut self, cause: &Cause, packets: u64) {
        for rule in &cause.noted {
            if let Some(tally) = self.rules.get_mut(rule) {
                tally.packets += packets;
            }
        }
        let Cause {
            direction, ended, ..
        } = cause;
        self.end(*direction, ended, |tally| tally.packets += packets);
        if let Some(would) = &cause.would {
            self.end(*direction, would, |tally| tally.audited += packets);
        }
    }

    fn end(&mut self, direction: Direction, ended: &Ended, add: impl Fn(&mut Tally)) {
        match ended {
            Ended::Rule(rule) => self.rules.get_mut(rule).into_iter().for_each(add),
            Ended::Tier { tier, policies } => {
                for policy in policies {
                    let tally = self.unmatched.get_mut(&(policy.clone(), direction));
                    tally.into_iter().for_each(&add);
                }
                add(self.tiers.entry((tier.clone(), direction)).or_default());
            }
            Ended::Nothing => add(self.passed.entry(direction).or_default()),
            Ended::Untold => add(self.untold.entry(direction).or_default()),
        }
    }
}

fn ids_of(installed: &Installed) -> impl Iterator<Item = RuleId> {
    let rules = installed.egress.iter().chain(&installed.ingress);
    rules.map(|rule: &Rule| rule.id)
}

/// What was counted since felix started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// The policies that select something here, in the order in which they are asked.
    pub policies: Vec<CountedPolicy>,
    /// What no single rule decided.
    pub ends: Vec<CountedEnd>,
}

/// What was counted of one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedPolicy {
    /// The policy.
    pub key: PolicyKey,
    /// Name of its tier.
    pub tier: String,
    /// It decides nothing: counted is what it would decide.
    pub audit: bool,
    /// Its rules of both directions, and after those of each the end without one.
    pub rules: Vec<CountedRule>,
}

/// What was counted of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedRule {
    /// Which flows of a pod it is about.
    pub direction: Direction,
    /// Place among the rules of the direction; `None`: no rule of the policy matched, and its tier decided.
    pub index: Option<usize>,
    /// What it does, or the tier by default.
    pub action: Action,
    /// What it matches, in words; empty without a rule.
    pub text: String,
    /// Packets; `None` when they are not counted, as with rules of a policy under audit that decide nothing.
    pub packets: Option<u64>,
}

/// What was counted of an end without a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedEnd {
    /// What it is.
    pub end: End,
    /// Which flows of a pod it is about.
    pub direction: Direction,
    /// Packets.
    pub packets: u64,
}

/// Ends without a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The tier of this name decided by default.
    TierDefault(String),
    /// Policies select the pod and every tier passed: allowed.
    Passed,
    /// Counted for no rule, as there are too many to tell them apart.
    Untold,
}

impl Engine {
    /// Takes in what elements had counted that are gone.
    pub fn count(&mut self, gone: &Packets) {
        for (number, packets) in gone {
            if let Some(cause) = self.causes.get(*number) {
                self.counts.add(cause, *packets);
            }
        }
    }

    /// All that was counted, given what the elements say that are there now.
    #[must_use]
    pub fn counted(&self, there: &Packets) -> Counted {
        let mut counts = self.counts.clone();
        for (number, packets) in there {
            if let Some(cause) = self.causes.get(*number) {
                counts.add(cause, *packets);
            }
        }
        let mut policies: Vec<_> = self
            .policies
            .values()
            .filter(|it| !it.selected.is_empty() || !it.hosts.is_empty())
            .collect();
        policies.sort_by_key(|it| {
            let tier = self.tiers.get(&it.policy.tier);
            let order = tier.map(|it| it.order);
            (order.is_none(), order, it.policy.order, &it.policy.key)
        });
        let policies = policies
            .into_iter()
            .map(|it| self.counted_policy(it, &counts));
        let tiers = counts.tiers.iter();
        let tiers = tiers.map(|((tier, direction), tally)| {
            (End::TierDefault(tier.clone()), *direction, tally.packets)
        });
        let end = |end: End, of: &BTreeMap<Direction, Tally>| -> Vec<_> {
            let all = of.iter();
            all.map(|(direction, tally)| (end.clone(), *direction, tally.packets))
                .collect()
        };
        let ends = tiers
            .chain(end(End::Passed, &counts.passed))
            .chain(end(End::Untold, &counts.untold));
        Counted {
            policies: policies.collect(),
            ends: ends
                .map(|(end, direction, packets)| CountedEnd {
                    end,
                    direction,
                    packets,
                })
                .collect(),
        }
    }

    fn counted_policy(&self, installed: &Installed, counts: &Counts) -> CountedPolicy {
        let policy = &installed.policy;
        let audit = policy.enforcement == Enforcement::Audit;
        let tier = self.tiers.get(&policy.tier);
        let default = tier.map_or(Action::Deny, |tier| tier.default_action);
        let packets = |tally: Tally| match audit {
            true => tally.audited,
            false => tally.packets,
        };
        let mut rules = Vec::new();
        for direction in Direction::BOTH {
            let (Some(said), Some(numbered)) =
                (policy.rules(direction), installed.rules(direction))
            else {
                continue;
            };
            for (index, (rule, numbered)) in said.iter().zip(numbered).enumerate() {
                let tally = counts.rules.get(&numbered.id).copied().unwrap_or_default();
                let decides = matches!(rule.action, Action::Allow | Action::Deny);
                rules.push(CountedRule {
                    direction,
                    index: Some(index),
                    action: rule.action,
                    text: rule.to_string(),
                    packets: (decides || !audit).then(|| packets(tally)),
                });
            }
            let unmatched = counts.unmatched.get(&(policy.key.clone(), direction));
            if matches!(default, Action::Allow | Action::Deny) {
                rules.push(CountedRule {
                    direction,
                    index: None,
                    action: default,
                    text: String::new(),
                    packets: Some(packets(unmatched.copied().unwrap_or_default())),
                });
            }
        }
        CountedPolicy {
            key: policy.key.clone(),
            tier: policy.tier.clone(),
            audit,
            rules,
        }
    }
}
