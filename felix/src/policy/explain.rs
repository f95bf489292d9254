//! Why a flow is judged as it is, rule by rule: what [`Engine::judge`] decides, with what led to it.

use std::net::IpAddr;

use super::engine::{Engine, Installed};
use super::evaluate::{Decided, Sides, Tiered, Traffic, VerdictTrace, request};
use super::model::{Action, PeerList, Policy, PolicyKey, Rule, Term, Tier};
use super::selecting::Labelled;
use super::status::Known;
use super::tables::{Direction, Verdict};
use crate::feed::Identity;

/// A judgement with every tier, policy and rule that had a part in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The verdict.
    pub verdict: Verdict,
    /// What decided.
    pub trace: VerdictTrace,
    /// The tiers whose policies select the subject, in order.
    pub tiers: Vec<ExplainedTier>,
}

/// A tier's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedTier {
    /// The tier.
    pub tier: Tier,
    /// What came of it.
    pub outcome: TierOutcome,
    /// Its policies that select the subject, in order.
    pub policies: Vec<ExplainedPolicy>,
}

/// What came of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TierOutcome {
    /// A rule of it decided.
    Decided,
    /// No rule matched and the default action decided.
    Default,
    /// It left the flow to the next tier.
    Passed,
    /// An earlier tier had decided.
    NotAsked,
}

/// A policy's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedPolicy {
    /// The policy.
    pub key: PolicyKey,
    /// Its rules of the direction.
    pub rules: Vec<ExplainedRule>,
}

/// A rule's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedRule {
    /// What it does on a match.
    pub action: Action,
    /// What it matches, in words.
    pub text: String,
    /// What came of it.
    pub outcome: RuleOutcome,
}

/// What came of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleOutcome {
    /// It matched.
    Matched,
    /// It did not, for these reasons.
    Failed(Vec<Mismatch>),
    /// The flow was decided before.
    NotAsked,
}

/// A part of a rule that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// The other side is not what the rule wants: the term in words.
    Peer(String),
    /// Nor is our own side.
    Own(String),
    /// Nor are protocol and port.
    Traffic(String),
    /// Nor is the source's port.
    SourcePort(String),
}

impl Engine {
    /// Judges a flow of any pod that is known, and tells every rule's part in it. `own` and `peer` are addresses of one
    /// family; of ICMP, `port` is `type << 8 | code`. `None` when nothing is known of the pod.
    #[must_use]
    pub fn explain(
        &self,
        direction: Direction,
        subject: &str,
        flow: &Asked,
    ) -> Option<Explanation> {
        let traffic = Traffic {
            protocol: flow.protocol,
            source_port: flow.source_port,
            port: flow.port,
        };
        let own = Some(flow.own);
        let judged = self.judge_flow(direction, subject, own, flow.peer, traffic)?;
        let pod = self.index.resident(subject)?;
        let selecting = self
            .policies
            .iter()
            .filter(|(_, installed)| self.selects(installed, &pod.identity));
        let stages = self.stages(selecting.map(|(key, _)| key), direction);
        let known = self.known(direction, pod, own, flow.peer);
        Some(self.explained(direction, stages, &known, judged, flow))
    }

    /// Every rule's part in a judgement of these policies.
    pub(super) fn explained(
        &self,
        direction: Direction,
        stages: Vec<Tiered<'_>>,
        known: &Known<'_>,
        (verdict, trace): (Verdict, VerdictTrace),
        flow: &Asked,
    ) -> Explanation {
        let mut asked = true;
        let mut tiers = Vec::new();
        for stage in stages {
            let decided = |wanted: &PolicyKey, index: usize| match &trace.decided {
                Decided::Rule(rule) => rule.policy == *wanted && rule.index == index,
                _ => false,
            };
            let passed = |wanted: &PolicyKey, index: usize| {
                let mut passed = trace.passed.iter();
                passed.any(|rule| rule.policy == *wanted && rule.index == index)
            };
            let mut open = asked;
            let mut outcome = if asked {
                TierOutcome::Default
            } else {
                TierOutcome::NotAsked
            };
            let mut policies = Vec::new();
            for policy in &stage.policies {
                let key = policy.key;
                let installed = self.policies.get(key);
                let rules = installed
                    .and_then(|it| it.policy.rules(direction))
                    .unwrap_or_default();
                let mut explained = Vec::new();
                for (index, rule) in rules.iter().enumerate() {
                    let mut rule_outcome = RuleOutcome::NotAsked;
                    if open {
                        rule_outcome = self.outcome(rule, known, flow);
                        if decided(key, index) {
                            (open, asked, outcome) = (false, false, TierOutcome::Decided);
                        } else if passed(key, index) {
                            (open, outcome) = (false, TierOutcome::Passed);
                        }
                    }
                    explained.push(ExplainedRule {
                        action: rule.action,
                        text: rule.to_string(),
                        outcome: rule_outcome,
                    });
                }
                policies.push(ExplainedPolicy {
                    key: key.clone(),
                    rules: explained,
                });
            }
            if outcome == TierOutcome::Default {
                match stage.tier.default_action {
                    Action::Pass | Action::Log => outcome = TierOutcome::Passed,
                    Action::Allow | Action::Deny => asked = false,
                }
            }
            tiers.push(ExplainedTier {
                tier: stage.tier.clone(),
                outcome,
                policies,
            });
        }
        Explanation {
            verdict,
            trace,
            tiers,
        }
    }

    /// What a rule makes of the flow, term by term.
    fn outcome(&self, rule: &Rule, known: &Known<'_>, flow: &Asked) -> RuleOutcome {
        let id = |term: &Term<PeerList>| self.lists.id(&term.any);
        let port = request(flow.protocol, flow.port);
        let peers = rule
            .peers
            .iter()
            .filter(|term| id(term).is_some_and(|id| known.listed(id)) == term.negated);
        let owns = rule
            .own
            .iter()
            .filter(|term| id(term).is_some_and(|id| known.own(id)) == term.negated);
        let traffic = rule.traffic.iter().filter(|term| {
            let mut entries = term.any.iter();
            entries.any(|it| it.is_destination(known, flow.protocol, port)) == term.negated
        });
        let sources = rule.source_ports.iter().filter(|term| {
            let mut entries = term.any.iter();
            entries.any(|it| it.is_source(known, flow.protocol, flow.source_port)) == term.negated
        });
        let failed: Vec<Mismatch> = peers
            .map(|term| Mismatch::Peer(term.to_string()))
            .chain(owns.map(|term| Mismatch::Own(term.to_string())))
            .chain(traffic.map(|term| Mismatch::Traffic(term.to_string())))
            .chain(sources.map(|term| Mismatch::SourcePort(term.to_string())))
            .collect();
        match failed.is_empty() {
            true => RuleOutcome::Matched,
            false => RuleOutcome::Failed(failed),
        }
    }

    fn selects(&self, installed: &Installed, pod: &Identity) -> bool {
        let inherited = &self.index.inherited;
        installed.policy.stage.is_for_pods()
            && installed
                .policy
                .subject
                .selects(Labelled::Pod(pod), inherited)
    }

    /// Every pod that is known.
    pub fn pods(&self) -> impl Iterator<Item = &Identity> {
        self.index.residents().map(|(_, pod)| &pod.identity)
    }

    /// A pod by name; of several the newest, as one may still be terminating.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Identity> {
        let named = self.index.in_namespace(namespace).filter_map(|uid| {
            let pod = &self.index.resident(uid)?.identity;
            (*pod.name == *name).then_some(pod)
        });
        named.max_by_key(|pod| pod.created)
    }

    /// The pod that an address belongs to.
    #[must_use]
    pub fn pod_at(&self, address: IpAddr) -> Option<&Identity> {
        self.index.owner(address).map(|(_, pod)| &pod.identity)
    }

    /// The addresses a pod has: of its endpoints here, else those its object says.
    #[must_use]
    pub fn addresses_of(&self, uid: &str) -> Vec<IpAddr> {
        let Some(pod) = self.index.resident(uid) else {
            return Vec::new();
        };
        match pod.claimed().is_empty() {
            true => pod.identity.addresses.to_vec(),
            false => pod.claimed().to_vec(),
        }
    }

    /// Whether the pod is attached to this node.
    #[must_use]
    pub fn is_here(&self, uid: &str) -> bool {
        self.index.attached(uid).next().is_some()
    }

    /// The version of a policy that is in force.
    #[must_use]
    pub fn policy(&self, key: &PolicyKey) -> Option<&Policy> {
        self.policies.get(key).map(|installed| &installed.policy)
    }

    /// Why the newest version of a policy is not in force; `None`: it is.
    #[must_use]
    pub fn problem(&self, key: &PolicyKey) -> Option<String> {
        self.refused.get(key).map(|it| it.error.to_string())
    }

    /// Whether a policy was never understood, so that it allows nothing.
    #[must_use]
    pub fn is_closed(&self, key: &PolicyKey) -> bool {
        self.policies.get(key).is_some_and(|it| it.closed)
    }

    /// The policies which could select the pod by its namespace, have rules for the direction, and do not.
    #[must_use]
    pub fn not_selecting(&self, pod: &Identity, direction: Direction) -> Vec<&Policy> {
        let missed = self.policies.values().filter(|installed| {
            let namespace = installed.policy.subject.namespace();
            namespace.is_none_or(|it| *it == *pod.namespace)
                && installed.policy.rules(direction).is_some()
                && !self.selects(installed, pod)
        });
        missed.map(|installed| &installed.policy).collect()
    }
}

/// A flow as one end sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Address of the end that is judged.
    pub own: IpAddr,
    /// Address of the other end, of the same family.
    pub peer: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port; of ICMP `type << 8 | code`.
    pub port: u16,
    /// Source port.
    pub source_port: u16,
}
