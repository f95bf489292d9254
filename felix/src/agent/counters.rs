//! What the agent says of the packets that rules have decided.

use std::collections::BTreeMap;

use api::v1;

use super::Agent;
use crate::Millis;
use crate::explain::rule_at;
use crate::policy::counts::{Counted, End, Packets};
use crate::policy::tables::Direction;

impl Agent {
    /// Takes in what elements of the kernel had counted that are gone. Before the kernel is said to hold the next compile.
    pub fn count(&mut self, gone: &Packets) {
        self.engine.count(gone);
    }

    /// What each rule has decided. `there`: what the kernel's elements say, or why they cannot be read.
    #[must_use]
    pub fn list_rule_counters(
        &self,
        there: Result<Packets, String>,
        now: Millis,
    ) -> v1::ListRuleCountersResponse {
        let mut answer = v1::ListRuleCountersResponse {
            node: self.node_name.clone(),
            since_seconds: now.saturating_sub(self.started) / 1000,
            ..v1::ListRuleCountersResponse::default()
        };
        let there = there.unwrap_or_else(|problem| {
            answer.notes.push(format!(
                "the kernel's counters cannot be read, so that only older packets are counted: {problem}"
            ));
            Packets::new()
        });
        if !self.options.counters {
            answer.notes.push(
                "nothing is counted now: ruleCounters of the FelixConfiguration is Disabled".into(),
            );
        }
        let Counted { policies, ends } = self.engine.counted(&there);
        for policy in policies {
            let rules = policy.rules.into_iter().map(|rule| v1::RuleCounter {
                policy: policy.key.to_string(),
                kind: policy.key.kind.to_string(),
                tier: policy.tier.clone(),
                direction: rule.direction.word().to_owned(),
                rule: rule
                    .index
                    .map(|index| rule_at(rule.direction, index))
                    .unwrap_or_default(),
                action: rule.action.to_string(),
                text: rule.text,
                packets: rule.packets.filter(|_| self.options.counters),
                audit: policy.audit,
            });
            answer.rules.extend(rules);
        }
        let ends = ends.into_iter().map(|it| {
            let (end, tier) = match it.end {
                End::TierDefault(tier) => ("tier default", tier),
                End::Passed => ("every tier passed", String::new()),
                End::Untold => ("not told apart", String::new()),
            };
            v1::EndCounter {
                end: end.to_owned(),
                tier,
                direction: it.direction.word().to_owned(),
                packets: it.packets,
            }
        });
        answer.ends = ends.collect();
        answer
    }

    /// Puts the counters beside the rules of an explanation, where they are in force on this node.
    pub fn add_counters(
        &self,
        answer: &mut v1::ExplainPolicyResponse,
        there: Result<Packets, String>,
    ) {
        let there = match there {
            Ok(_) if !self.options.counters => return,
            Ok(there) => there,
            Err(problem) => {
                let note = format!("the kernel's counters cannot be read: {problem}");
                return answer.notes.push(note);
            }
        };
        let mut counted: BTreeMap<(String, String, &str, Option<usize>), Option<u64>> =
            BTreeMap::new();
        for policy in self.engine.counted(&there).policies {
            for rule in policy.rules {
                let (kind, name) = (policy.key.kind.to_string(), policy.key.to_string());
                counted.insert(
                    (kind, name, rule.direction.word(), rule.index),
                    rule.packets,
                );
            }
        }
        let ends = answer.flows.iter_mut();
        let judged = ends.flat_map(|flow| {
            let hooks = flow.on_the_way.iter_mut().chain(&mut flow.at_last);
            let hooks = hooks.map(|hook| &mut hook.judgement);
            [&mut flow.egress, &mut flow.ingress]
                .into_iter()
                .chain(hooks)
        });
        for judgement in judged.flatten().filter(|it| it.enforced_here) {
            let direction = Direction::BOTH
                .into_iter()
                .map(Direction::word)
                .find(|word| *word == judgement.direction)
                .unwrap_or_default();
            for policy in judgement.tiers.iter_mut().flat_map(|it| &mut it.policies) {
                let at = |index| (policy.kind.clone(), policy.name.clone(), direction, index);
                policy.unmatched = counted.get(&at(None)).copied().flatten();
                let found: Vec<_> = policy
                    .rules
                    .iter()
                    .map(|rule| {
                        let index = usize::try_from(rule.index).ok();
                        counted.get(&at(index)).copied().flatten()
                    })
                    .collect();
                for (rule, packets) in policy.rules.iter_mut().zip(found) {
                    rule.packets = packets;
                }
            }
        }
    }
}
