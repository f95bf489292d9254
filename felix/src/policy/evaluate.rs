//! The evaluator: the one place that decides what policies mean together. The compiler only tabulates it.

use super::lists::ListId;
use super::model::protocol::{ICMP, ICMP6};
use super::model::{Action, PolicyKey, PortMatch, Term, Tier};
use super::tables::{Direction, Verdict};

/// Who is judged against: the other side of the flow, and the names of the destination's ports.
pub(super) trait Peer {
    /// Whether the peer is in this list.
    fn listed(&self, list: ListId) -> bool;
    /// Whether the destination gives this port this name.
    fn named(&self, name: &str, protocol: u8, port: u16) -> bool;
}

/// A rule with its lists interned.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) action: Action,
    pub(super) peers: Vec<Term<ListId>>,
    pub(super) traffic: Vec<Term<Vec<PortMatch>>>,
}

/// The policies of one tier that select the subject in one direction, in order.
#[derive(Debug)]
pub(super) struct Tiered<'a> {
    pub(super) tier: &'a Tier,
    pub(super) policies: Vec<(&'a PolicyKey, &'a [Rule])>,
}

/// What decided about a flow, in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictTrace {
    /// The direction that was judged.
    pub direction: Direction,
    /// The rules with action Pass that matched on the way, in order.
    pub passed: Vec<RuleRef>,
    /// Where the evaluation ended.
    pub decided: Decided,
}

/// Where an evaluation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    /// No policy selects the subject in this direction, or every tier passed: allowed.
    NoPolicy,
    /// A rule matched.
    Rule(RuleRef),
    /// Policies of the tier select the subject and none of their rules matched.
    TierDefault {
        /// Name of the tier.
        tier: String,
        /// Its policies that select the subject.
        policies: Vec<PolicyKey>,
    },
}

/// Names a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleRef {
    /// Name of the tier.
    pub tier: String,
    /// The policy.
    pub policy: PolicyKey,
    /// Position among the policy's rules of the direction, from 0.
    pub index: usize,
}

/// Judges a flow by the policies that select the subject in the direction. For ICMP, `port` is `type << 8 | code`.
pub(super) fn judge(tiers: &[Tiered<'_>], peer: &impl Peer, protocol: u8, port: u16) -> Verdict {
    walk(tiers, peer, protocol, port, |_, _| {})
}

/// Judges likewise, and says why.
pub(super) fn explain(
    direction: Direction,
    tiers: &[Tiered<'_>],
    peer: &impl Peer,
    protocol: u8,
    port: u16,
) -> (Verdict, VerdictTrace) {
    let mut trace = VerdictTrace {
        direction,
        passed: Vec::new(),
        decided: Decided::NoPolicy,
    };
    let verdict = walk(tiers, peer, protocol, port, |stage, rule| {
        let tier = stage.tier.name.clone();
        match rule {
            Some((policy, index, action)) => {
                let rule = RuleRef {
                    tier,
                    policy: policy.clone(),
                    index,
                };
                if action == Action::Pass {
                    trace.passed.push(rule);
                } else {
                    trace.decided = Decided::Rule(rule);
                }
            }
            None if stage.tier.default_action == Action::Pass => {}
            None => {
                let policies = stage
                    .policies
                    .iter()
                    .map(|(key, _)| (*key).clone())
                    .collect();
                trace.decided = Decided::TierDefault { tier, policies };
            }
        }
    });
    (verdict, trace)
}

fn walk<'a>(
    tiers: &[Tiered<'a>],
    peer: &impl Peer,
    protocol: u8,
    port: u16,
    mut visit: impl FnMut(&Tiered<'a>, Option<(&PolicyKey, usize, Action)>),
) -> Verdict {
    let port = request(protocol, port);
    for stage in tiers {
        let rules = stage.policies.iter().flat_map(|&(key, rules)| {
            rules
                .iter()
                .enumerate()
                .map(move |(index, rule)| (key, index, rule))
        });
        let mut rules = rules.filter(|(_, _, rule)| {
            rule.action != Action::Log && rule.matches(peer, protocol, port)
        });
        let hit = rules
            .next()
            .map(|(key, index, rule)| (key, index, rule.action));
        visit(stage, hit);
        match hit.map_or(stage.tier.default_action, |(_, _, action)| action) {
            Action::Allow => return Verdict::Allow,
            Action::Deny => return Verdict::Deny,
            Action::Pass | Action::Log => {}
        }
    }
    Verdict::Allow
}

impl Rule {
    /// Whether the rule matches this peer for some protocol and port, as far as its peers go.
    pub(super) fn may_match(&self, peer: &impl Peer) -> bool {
        let mut terms = self.peers.iter();
        terms.all(|term| peer.listed(term.any) != term.negated)
    }

    /// Every entry of its conditions on traffic.
    pub(super) fn ports(&self) -> impl Iterator<Item = &PortMatch> {
        self.traffic.iter().flat_map(|term| &term.any)
    }

    fn matches(&self, peer: &impl Peer, protocol: u8, port: u16) -> bool {
        let among = |ports: &[PortMatch]| {
            ports
                .iter()
                .any(|entry| entry.matches(peer, protocol, port))
        };
        self.may_match(peer)
            && self
                .traffic
                .iter()
                .all(|term| among(&term.any) != term.negated)
    }
}

impl PortMatch {
    pub(super) fn matches(&self, peer: &impl Peer, protocol: u8, port: u16) -> bool {
        match self {
            Self::Protocol(wanted) => *wanted == protocol,
            Self::Ports {
                protocol: wanted,
                first,
                last,
            } => *wanted == protocol && (*first..=*last).contains(&port),
            Self::Named {
                protocol: wanted,
                name,
            } => *wanted == protocol && peer.named(name, protocol, port),
            Self::Service { .. } => false,
            Self::Icmp {
                protocol: wanted,
                kind,
                code,
            } => {
                let [message, detail] = port.to_be_bytes();
                *wanted == protocol && *kind == message && code.is_none_or(|code| code == detail)
            }
        }
    }
}

/// ICMP messages that answer another: a flow is judged by the type of its request whichever of its packets is seen,
/// and an answer without a request never gets this far.
const ICMP_ANSWERS: [(u8, u8, u8); 6] = [
    (ICMP, 0, 8),
    (ICMP, 14, 13),
    (ICMP, 16, 15),
    (ICMP, 18, 17),
    (ICMP6, 129, 128),
    (ICMP6, 140, 139),
];

pub(super) fn request(protocol: u8, port: u16) -> u16 {
    let [message, code] = port.to_be_bytes();
    let asked = ICMP_ANSWERS
        .iter()
        .find(|&&(of, answer, _)| of == protocol && answer == message);
    asked.map_or(port, |&(_, _, request)| u16::from_be_bytes([request, code]))
}

/// The types of ICMP messages that are judged like this one, itself included.
pub(super) fn judged_alike(protocol: u8, message: u8) -> impl Iterator<Item = u8> {
    let answers = ICMP_ANSWERS
        .iter()
        .filter(move |&&(of, _, request)| of == protocol && request == message);
    std::iter::once(message).chain(answers.map(|&(_, answer, _)| answer))
}
