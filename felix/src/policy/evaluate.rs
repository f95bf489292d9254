//! The evaluator: the one place that decides what policies mean together. The compiler only tabulates it.

use super::causes::{Cause, Ended, RuleId};
use super::lists::ListId;
use super::model::protocol::{ICMP, ICMP6};
use super::model::{Action, Enforcement, PolicyKey, PortMatch, Term, Tier};
use super::tables::{Answer, CauseId, Direction, Verdict};

/// Who is judged: both sides of the flow, as far as rules can know them.
pub(super) trait Sides {
    /// Whether the other side is in this list.
    fn listed(&self, list: ListId) -> bool;
    /// Whether our side is in this list.
    fn own(&self, list: ListId) -> bool;
    /// Whether the destination has this port under the name, or for the Service, that the entry asks for.
    fn serves(&self, entry: &PortMatch, protocol: u8, port: u16) -> bool;
    /// Whether the source calls this port by the name that the entry asks for.
    fn sends_from(&self, entry: &PortMatch, protocol: u8, port: u16) -> bool;
}

/// What the packets of a flow say of themselves, seen from the one who opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Traffic {
    /// IP protocol number.
    pub protocol: u8,
    /// Port of the source; 0 where the protocol has none.
    pub source_port: u16,
    /// Port of the destination; for ICMP `type << 8 | code`; 0 where the protocol has none.
    pub port: u16,
}

/// A rule with its lists interned.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// Its own for as long as it is in force unchanged, whatever comes before it.
    pub(super) id: RuleId,
    pub(super) action: Action,
    pub(super) peers: Vec<Term<ListId>>,
    pub(super) own: Vec<Term<ListId>>,
    pub(super) traffic: Vec<Term<Vec<PortMatch>>>,
    pub(super) source_ports: Vec<Term<Vec<PortMatch>>>,
}

/// The policies of one tier that select the subject in one direction, in order.
#[derive(Debug)]
pub(super) struct Tiered<'a> {
    pub(super) tier: &'a Tier,
    pub(super) policies: Vec<Asked<'a>>,
}

/// One policy and its rules of one direction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) key: &'a PolicyKey,
    pub(super) enforcement: Enforcement,
    pub(super) rules: &'a [Rule],
}

/// What decided about a flow, in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictTrace {
    /// The direction that was judged.
    pub direction: Direction,
    /// The rules with action Pass that matched on the way, in order.
    pub passed: Vec<RuleRef>,
    /// The rules with action Log that matched on the way, in order.
    pub logged: Vec<RuleRef>,
    /// Where the evaluation ended.
    pub decided: Decided,
    /// What would be the verdict if policies under audit were enforced, and why; `None` when none selects the subject.
    pub audited: Option<(Verdict, Decided)>,
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

/// Judges a flow by the policies that select the subject in the direction; `otherwise` when none of them decides. What
/// led there gets a number from `number`.
pub(super) fn judge(
    direction: Direction,
    tiers: &[Tiered<'_>],
    otherwise: Verdict,
    sides: &impl Sides,
    traffic: Traffic,
    number: impl FnOnce(Cause) -> CauseId,
) -> Answer {
    let mut log = false;
    let mut noted = Vec::new();
    let mut ended = Ended::Nothing;
    let verdict = walk(tiers, false, sides, traffic, |tiered, hit| match hit {
        Some((_, rule)) => match rule.action {
            Action::Allow | Action::Deny => ended = Ended::Rule(rule.id),
            Action::Log | Action::Pass => {
                log |= rule.action == Action::Log;
                noted.push(rule.id);
            }
        },
        None => ended = tiered.ended(false).unwrap_or(Ended::Nothing),
    });
    let verdict = verdict.unwrap_or(otherwise);
    let mut audit = false;
    let mut would = None;
    if audited(tiers) {
        let mut ended = Ended::Nothing;
        let audited = walk(tiers, true, sides, traffic, |tiered, hit| match hit {
            Some((_, rule)) if !matches!(rule.action, Action::Allow | Action::Deny) => {}
            Some((_, rule)) => ended = Ended::Rule(rule.id),
            None => ended = tiered.ended(true).unwrap_or(Ended::Nothing),
        });
        audit = audited.unwrap_or(otherwise) != verdict;
        would = Some(ended);
    }
    Answer {
        verdict,
        log,
        audit,
        cause: number(Cause {
            direction,
            verdict,
            noted,
            ended,
            would,
        }),
    }
}

/// Judges likewise, and says why.
pub(super) fn explain(
    direction: Direction,
    tiers: &[Tiered<'_>],
    otherwise: Verdict,
    sides: &impl Sides,
    traffic: Traffic,
) -> (Verdict, VerdictTrace) {
    let (verdict, mut trace) = traced(direction, tiers, false, sides, traffic);
    if audited(tiers) {
        let (verdict, would) = traced(direction, tiers, true, sides, traffic);
        trace.audited = Some((verdict.unwrap_or(otherwise), would.decided));
    }
    (verdict.unwrap_or(otherwise), trace)
}

/// Whether some of these policies are under audit.
fn audited(tiers: &[Tiered<'_>]) -> bool {
    let mut policies = tiers.iter().flat_map(|tier| &tier.policies);
    policies.any(|policy| policy.enforcement == Enforcement::Audit)
}

fn traced(
    direction: Direction,
    tiers: &[Tiered<'_>],
    audit: bool,
    sides: &impl Sides,
    traffic: Traffic,
) -> (Option<Verdict>, VerdictTrace) {
    let mut trace = VerdictTrace {
        direction,
        passed: Vec::new(),
        logged: Vec::new(),
        decided: Decided::NoPolicy,
        audited: None,
    };
    let verdict = walk(tiers, audit, sides, traffic, |tiered, hit| {
        let tier = tiered.tier.name.clone();
        match hit {
            Some(((policy, index), matched)) => {
                let rule = RuleRef {
                    tier,
                    policy: policy.clone(),
                    index,
                };
                match matched.action {
                    Action::Pass => trace.passed.push(rule),
                    Action::Log => trace.logged.push(rule),
                    Action::Allow | Action::Deny => trace.decided = Decided::Rule(rule),
                }
            }
            None if tiered.tier.default_action == Action::Pass => {}
            None => {
                let policies = tiered.enforced(audit);
                trace.decided = Decided::TierDefault {
                    tier,
                    policies: policies.map(|policy| policy.key.clone()).collect(),
                };
            }
        }
    });
    (verdict, trace)
}

/// Asks tier by tier, `None` when nobody decides. Visits every rule that matches, and every tier whose default decides.
fn walk<'a>(
    tiers: &[Tiered<'a>],
    audit: bool,
    sides: &impl Sides,
    traffic: Traffic,
    mut visit: impl FnMut(&Tiered<'a>, Option<Hit<'_>>),
) -> Option<Verdict> {
    let traffic = Traffic {
        port: request(traffic.protocol, traffic.port),
        ..traffic
    };
    for tiered in tiers {
        // A tier of which only policies under audit select the subject is not there.
        if tiered.enforced(audit).next().is_none() {
            continue;
        }
        match tiered.ask(audit, sides, traffic, &mut visit) {
            Action::Allow => return Some(Verdict::Allow),
            Action::Deny => return Some(Verdict::Deny),
            Action::Pass | Action::Log => {}
        }
    }
    None
}

/// A rule that matched: of which policy, at which place, and the rule.
type Hit<'a> = ((&'a PolicyKey, usize), &'a Rule);

impl<'a> Tiered<'a> {
    /// Where it ends when none of its rules matches; `None`: with the next tier.
    fn ended(&self, audit: bool) -> Option<Ended> {
        let decides = matches!(self.tier.default_action, Action::Allow | Action::Deny);
        decides.then(|| Ended::Tier {
            tier: self.tier.name.clone(),
            policies: self.enforced(audit).map(|it| it.key.clone()).collect(),
        })
    }

    /// Its policies, those under audit only when asked for.
    fn enforced(&self, audit: bool) -> impl Iterator<Item = &Asked<'a>> {
        self.policies
            .iter()
            .filter(move |policy| audit || policy.enforcement == Enforcement::Enforce)
    }

    fn ask(
        &self,
        audit: bool,
        sides: &impl Sides,
        traffic: Traffic,
        visit: &mut impl FnMut(&Self, Option<Hit<'_>>),
    ) -> Action {
        for policy in self.enforced(audit) {
            for (index, rule) in policy.rules.iter().enumerate() {
                if rule.matches(sides, traffic) {
                    visit(self, Some(((policy.key, index), rule)));
                    if rule.action != Action::Log {
                        return rule.action;
                    }
                }
            }
        }
        visit(self, None);
        self.tier.default_action
    }
}

impl Rule {
    /// Whether the rule matches these sides for some traffic, as far as its terms about them go.
    pub(super) fn may_match(&self, sides: &impl Sides) -> bool {
        let mut peers = self.peers.iter();
        let mut own = self.own.iter();
        peers.all(|term| sides.listed(term.any) != term.negated)
            && own.all(|term| sides.own(term.any) != term.negated)
    }

    /// Every entry of its conditions on protocols and destination ports.
    pub(super) fn ports(&self) -> impl Iterator<Item = &PortMatch> {
        self.traffic.iter().flat_map(|term| &term.any)
    }

    /// Every entry of its conditions on source ports.
    pub(super) fn sources(&self) -> impl Iterator<Item = &PortMatch> {
        self.source_ports.iter().flat_map(|term| &term.any)
    }

    /// Every list that it asks about the other side.
    pub(super) fn lists(&self) -> impl Iterator<Item = ListId> {
        self.peers.iter().map(|term| term.any)
    }

    /// Every list that it asks about our side.
    pub(super) fn own_lists(&self) -> impl Iterator<Item = ListId> {
        self.own.iter().map(|term| term.any)
    }

    fn matches(&self, sides: &impl Sides, traffic: Traffic) -> bool {
        let Traffic {
            protocol,
            source_port,
            port,
        } = traffic;
        let destination = |entry: &PortMatch| entry.is_destination(sides, protocol, port);
        let source = |entry: &PortMatch| entry.is_source(sides, protocol, source_port);
        self.may_match(sides)
            && self
                .traffic
                .iter()
                .all(|term| term.any.iter().any(destination) != term.negated)
            && self
                .source_ports
                .iter()
                .all(|term| term.any.iter().any(source) != term.negated)
    }
}

impl PortMatch {
    /// Whether it matches; `None` when that depends on who has the port.
    fn numbers(&self, protocol: u8, port: u16) -> Option<bool> {
        match self {
            Self::Protocol(wanted) => Some(*wanted == protocol),
            Self::Ports {
                protocol: wanted,
                first,
                last,
            } => Some(*wanted == protocol && (*first..=*last).contains(&port)),
            Self::Icmp {
                protocol: wanted,
                kind,
                code,
            } => {
                let [message, detail] = port.to_be_bytes();
                let code = code.is_none_or(|code| code == detail);
                Some(*wanted == protocol && *kind == message && code)
            }
            Self::Named { .. } | Self::Service { .. } => None,
        }
    }

    /// Whether the destination's port is one of these.
    pub(super) fn is_destination(&self, sides: &impl Sides, protocol: u8, port: u16) -> bool {
        self.numbers(protocol, port)
            .unwrap_or_else(|| sides.serves(self, protocol, port))
    }

    /// Whether the source's port is one of these.
    pub(super) fn is_source(&self, sides: &impl Sides, protocol: u8, port: u16) -> bool {
        self.numbers(protocol, port)
            .unwrap_or_else(|| sides.sends_from(self, protocol, port))
    }

    /// Whether it asks for a port by who has it.
    pub(super) const fn is_name(&self) -> bool {
        matches!(self, Self::Named { .. } | Self::Service { .. })
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
