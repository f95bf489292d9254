//! Why a flow is allowed or denied, for people: what felix answers to `margayctl policy explain`, and what margayctl
//! finds out itself from files.

mod advice;
mod host;
mod passage;
pub mod table;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use api::v1;
use thiserror::Error;

use crate::feed::{Identity, Labels};
use crate::policy::describe::traffic;
use crate::policy::explain::{Asked, Explanation, Mismatch, RuleOutcome, TierOutcome};
use crate::policy::model::{Enforcement, PolicyKey, protocol};
use crate::policy::tables::{Direction, Verdict};
use crate::policy::{Decided, Engine, RuleRef};

pub use passage::Nodes;

/// Who asks what of the cluster.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// What is known.
    pub engine: &'a Engine,
    /// Name of the node that answers; empty when nobody's node does.
    pub node: &'a str,
    /// What is known of nodes.
    pub nodes: &'a dyn Nodes,
}

/// Why there is no answer.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Unanswered {
    /// There is no such pod.
    #[error("no pod {0} is known{1}")]
    NoPod(String, String),
    /// Neither a pod nor an address.
    #[error("{0:?} is neither NAMESPACE/NAME of a pod nor an address")]
    NoEnd(String),
    /// A pod has no address yet.
    #[error("pod {0} has no address yet")]
    NoAddress(String),
    /// The ends do not have an address family in common.
    #[error("{0} and {1} have no address family in common")]
    NoFamily(String, String),
    /// No port has this name.
    #[error("{pod} has no {protocol} port named {name:?}{others}")]
    NoPort {
        /// The destination.
        pod: String,
        /// Name of the protocol.
        protocol: String,
        /// The name asked for.
        name: String,
        /// The names there are.
        others: String,
    },
    /// A number is too large.
    #[error("{0} is no {1}")]
    NoNumber(u32, &'static str),
}

/// One end, looked up.
struct End<'a> {
    name: String,
    pod: Option<&'a Identity>,
    addresses: Vec<IpAddr>,
    here: bool,
}

impl End<'_> {
    /// The pod, when policy governs it.
    fn governed(&self) -> Option<&Identity> {
        self.pod.filter(|pod| !pod.host_network)
    }

    fn address(&self, v6: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|it| it.is_ipv6() == v6)
    }

    fn view(&self, address: IpAddr) -> v1::FlowEnd {
        let kind = match self.pod {
            None => "no pod",
            Some(pod) if pod.host_network => "host network",
            Some(_) => "pod",
        };
        v1::FlowEnd {
            address: address.to_string(),
            pod: self.pod.map(name).unwrap_or_default(),
            labels: self
                .pod
                .map(|pod| string_map(&pod.labels))
                .unwrap_or_default(),
            here: self.here,
            kind: kind.to_owned(),
        }
    }
}

/// An address as one end of a flow.
pub(crate) fn flow_end(engine: &Engine, address: IpAddr) -> v1::FlowEnd {
    let pod = engine.pod_at(address);
    let end = End {
        name: address.to_string(),
        pod,
        addresses: vec![address],
        here: pod.is_some_and(|pod| engine.is_here(&pod.uid)),
    };
    end.view(address)
}

/// "namespace/name" of a pod.
fn name(pod: &Identity) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

impl<'a> View<'a> {
    /// Judges the flow at both ends.
    ///
    /// # Errors
    /// When an end or a port is not known.
    pub fn explain(
        self,
        request: &v1::ExplainPolicyRequest,
    ) -> Result<v1::ExplainPolicyResponse, Unanswered> {
        let from = self.end(&request.from)?;
        let to = self.end(&request.to)?;
        let number =
            |number: u32| u16::try_from(number).map_err(|_| Unanswered::NoNumber(number, "port"));
        let protocol = u8::try_from(request.protocol)
            .map_err(|_| Unanswered::NoNumber(request.protocol, "IP protocol"))?;
        let port = match request.port_name.as_str() {
            "" => number(request.port)?,
            named => port_named(&to, protocol, named)?,
        };
        let source_port = number(request.source_port)?;
        let mut flows = Vec::new();
        let mut notes = BTreeSet::new();
        for v6 in [false, true] {
            let (Some(source), Some(destination)) = (from.address(v6), to.address(v6)) else {
                continue;
            };
            let (protocol, port) = of_family(protocol, port, v6);
            let flow = Flow {
                ends: [(&from, source), (&to, destination)],
                protocol,
                port,
                source_port,
                interface: &request.interface,
            };
            flows.push(self.flow(&flow, &mut notes));
        }
        if flows.is_empty() {
            return Err(Unanswered::NoFamily(from.name, to.name));
        }
        Ok(v1::ExplainPolicyResponse {
            node: self.node.to_owned(),
            allowed: flows.iter().all(|flow| flow.allowed),
            flows,
            notes: notes.into_iter().collect(),
        })
    }

    fn end(self, text: &str) -> Result<End<'a>, Unanswered> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let pod = self.engine.pod_at(address);
            return Ok(End {
                name: text.to_owned(),
                pod,
                addresses: vec![address],
                here: pod.is_some_and(|pod| self.engine.is_here(&pod.uid)),
            });
        }
        let Some((namespace, name)) = text.split_once('/') else {
            return Err(Unanswered::NoEnd(text.to_owned()));
        };
        let Some(pod) = self.engine.pod(namespace, name) else {
            // margayctl puts a namespace before a name that has none.
            let host = self.engine.host_named(name);
            if let Some(host) = host.filter(|host| !host.addresses.is_empty()) {
                return Ok(End {
                    name: host.name.clone(),
                    pod: None,
                    addresses: host.addresses.clone(),
                    here: host.local,
                });
            }
            return Err(Unanswered::NoPod(
                text.to_owned(),
                self.similar(namespace, name),
            ));
        };
        let addresses = self.engine.addresses_of(&pod.uid);
        if addresses.is_empty() {
            return Err(Unanswered::NoAddress(text.to_owned()));
        }
        Ok(End {
            name: text.to_owned(),
            pod: Some(pod),
            addresses,
            here: self.engine.is_here(&pod.uid),
        })
    }

    /// Pods somebody may have meant: names are cut short, and namespaces forgotten.
    fn similar(self, namespace: &str, wanted: &str) -> String {
        const SAID: usize = 5;
        let alike = |pod: &&Identity| {
            *pod.name == *wanted || *pod.namespace == *namespace && pod.name.starts_with(wanted)
        };
        let found: Vec<String> = self.engine.pods().filter(alike).map(name).collect();
        let more = match found.len() {
            0 => return String::new(),
            count if count > SAID => format!(" and {} more", count - SAID),
            _ => String::new(),
        };
        let said: Vec<&str> = found.iter().take(SAID).map(String::as_str).collect();
        format!("; is it {}{more}?", said.join(", "))
    }

    fn flow(self, flow: &Flow<'_>, notes: &mut BTreeSet<String>) -> v1::ExplainedFlow {
        let passage = self.passage(flow);
        notes.extend(passage.notes);
        let egress = self.judgement(flow, Direction::Egress);
        let ingress = self.judgement(flow, Direction::Ingress);
        let [(from, source), (to, destination)] = &flow.ends;
        let mut advice = Vec::new();
        if source == destination && from.pod.is_some() {
            advice.push(
                "Under its own address a pod reaches itself without being asked: such packets never leave it. This is \
                 about a Service that leads the pod back to itself."
                    .to_owned(),
            );
        }
        for (judged, direction) in [(&egress, Direction::Egress), (&ingress, Direction::Ingress)] {
            if let Some(explanation) = &judged.1
                && explanation.verdict == Verdict::Deny
                && !judged.0.allowed
            {
                let (own, _) = flow.own(direction);
                let said = advice::advice(self.engine, flow, direction, &own.name, explanation);
                advice.extend(said);
            }
        }
        advice.extend(passage.advice);
        v1::ExplainedFlow {
            from: Some(from.view(*source)),
            to: Some(to.view(*destination)),
            traffic: traffic(flow.protocol, flow.port),
            allowed: egress.0.allowed && ingress.0.allowed && !passage.denied,
            egress: Some(egress.0),
            ingress: Some(ingress.0),
            advice,
            on_the_way: passage.before,
            at_last: passage.after,
        }
    }

    /// What the policies of one end say.
    fn judgement(
        self,
        flow: &Flow<'_>,
        direction: Direction,
    ) -> (v1::Judgement, Option<Explanation>) {
        let (own, own_address) = flow.own(direction);
        let (_, peer) = flow.other(direction);
        let mut judgement = v1::Judgement {
            direction: direction.word().to_owned(),
            allowed: true,
            enforced_here: own.here,
            ..Default::default()
        };
        let Some(pod) = own.governed() else {
            return (self.at_node(flow, direction), None);
        };
        let asked = Asked {
            own: own_address,
            peer,
            protocol: flow.protocol,
            port: flow.port,
            source_port: flow.source_port,
        };
        let explanation = self.engine.explain(direction, &pod.uid, &asked);
        let Some(explanation) = explanation else {
            return (judgement, None);
        };
        judgement.allowed = explanation.verdict == Verdict::Allow;
        judgement.summary = summary(self.engine, &explanation);
        judgement.tiers = self.tiers(&explanation, &name(pod), flow, direction);
        judgement.not_selecting = self.not_selecting(pod, direction);
        if direction == Direction::Ingress
            && self.own_node(peer, pod)
            && explanation.verdict == Verdict::Deny
        {
            judgement.allowed = true;
            judgement.summary =
                "a node always reaches its own pods, whatever their policies say".to_owned();
        }
        (judgement, Some(explanation))
    }

    /// Whether an address is of the node on which a pod runs.
    fn own_node(self, address: IpAddr, pod: &Identity) -> bool {
        let node = self.nodes.of_pod(pod);
        node.is_some() && node == self.nodes.at(address)
    }

    /// What the tiers had to do with it. `own` is the name of the end that is judged.
    fn tiers(
        self,
        explanation: &Explanation,
        own: &str,
        flow: &Flow<'_>,
        direction: Direction,
    ) -> Vec<v1::ExplainedTier> {
        let tiers = explanation.tiers.iter().map(|tier| v1::ExplainedTier {
            name: tier.tier.name.clone(),
            default_action: tier.tier.default_action.to_string(),
            outcome: match tier.outcome {
                TierOutcome::Decided => "decided",
                TierOutcome::Default => "default",
                TierOutcome::Passed => "passed",
                TierOutcome::NotAsked => "not asked",
            }
            .to_owned(),
            policies: tier
                .policies
                .iter()
                .map(|policy| self.policy(&policy.key, &policy.rules, own, flow, direction))
                .collect(),
        });
        tiers.collect()
    }

    fn policy(
        self,
        key: &PolicyKey,
        rules: &[crate::policy::explain::ExplainedRule],
        own: &str,
        flow: &Flow<'_>,
        direction: Direction,
    ) -> v1::ExplainedPolicy {
        let known = self.engine.policy(key);
        let peer = flow.other(direction);
        let rules = rules.iter().enumerate().map(|(index, rule)| {
            let (outcome, why) = match &rule.outcome {
                RuleOutcome::Matched => ("matched", String::new()),
                RuleOutcome::NotAsked => ("not asked", String::new()),
                RuleOutcome::Failed(parts) => {
                    let parts = parts.iter().map(|part| why(part, own, peer, flow));
                    ("no match", parts.collect::<Vec<_>>().join("; and "))
                }
            };
            v1::ExplainedRule {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                action: rule.action.to_string(),
                text: rule.text.clone(),
                outcome: outcome.to_owned(),
                why,
                packets: None,
            }
        });
        v1::ExplainedPolicy {
            name: key.to_string(),
            kind: key.kind.to_string(),
            order: known.map(|it| it.order.0).unwrap_or_default(),
            generation: known.map(|it| it.generation).unwrap_or_default(),
            error: self.engine.problem(key).unwrap_or_default(),
            rules: rules.collect(),
            audit: known.is_some_and(|it| it.enforcement == Enforcement::Audit),
            unmatched: None,
        }
    }

    /// Policies that could have selected the pod in this direction.
    fn not_selecting(self, pod: &Identity, direction: Direction) -> Vec<String> {
        const SAID: usize = 8;
        let missed = self.engine.not_selecting(pod, direction);
        let said = missed.iter().take(SAID).map(|policy| {
            format!(
                "{} {}: it selects {}",
                policy.key.kind, policy.key, policy.subject
            )
        });
        let mut said: Vec<String> = said.collect();
        if missed.len() > SAID {
            said.push(format!("and {} more", missed.len() - SAID));
        }
        said
    }
}

/// A flow between two addresses.
struct Flow<'a> {
    /// Who opens it, and to whom.
    ends: [(&'a End<'a>, IpAddr); 2],
    protocol: u8,
    port: u16,
    source_port: u16,
    /// By which it passes nodes, when somebody said so.
    interface: &'a str,
}

impl Flow<'_> {
    /// The end that is judged in a direction.
    fn own(&self, direction: Direction) -> (&End<'_>, IpAddr) {
        match direction {
            Direction::Egress => self.ends[0],
            Direction::Ingress => self.ends[1],
        }
    }

    /// The other one.
    fn other(&self, direction: Direction) -> (&End<'_>, IpAddr) {
        match direction {
            Direction::Egress => self.ends[1],
            Direction::Ingress => self.ends[0],
        }
    }
}

/// A rule's place in its object, as in `ingress[0]`.
pub(crate) fn rule_at(direction: Direction, index: usize) -> String {
    format!("{}[{index}]", direction.word())
}

/// The rule, as a person looks it up in the object.
fn rule_name(rule: &RuleRef, direction: Direction) -> String {
    format!(
        "{}[{}] of {} {}",
        direction.word(),
        rule.index,
        rule.policy.kind,
        rule.policy
    )
}

/// What decided, in one sentence.
pub(crate) fn summary(engine: &Engine, explanation: &Explanation) -> String {
    let direction = explanation.trace.direction;
    match &explanation.trace.decided {
        Decided::NoPolicy if explanation.tiers.is_empty() => format!(
            "no policy selects it for {}, so everything may pass",
            direction.word()
        ),
        Decided::NoPolicy => "every tier passes it on, so it may pass".to_owned(),
        Decided::Rule(rule) => {
            let verb = match explanation.verdict {
                Verdict::Allow => "allows",
                _ => "denies",
            };
            let rule_said = rule_name(rule, direction);
            format!("{rule_said} (tier {}) {verb} it", rule.tier)
        }
        Decided::TierDefault { tier, policies } => {
            let broken = policies.iter().find(|key| engine.is_closed(key));
            if let Some(key) = broken {
                return format!(
                    "{} {key} is not understood, so it allows nothing, and no other policy allows it",
                    key.kind
                );
            }
            let names: Vec<String> = policies.iter().take(3).map(ToString::to_string).collect();
            let more = match policies.len() {
                count if count > names.len() => format!(" and {} more", count - names.len()),
                _ => String::new(),
            };
            format!(
                "no rule of {}{more} allows it, and what the policies of tier {tier} do not allow is denied",
                names.join(", ")
            )
        }
    }
}

/// Why a part of a rule does not hold.
fn why(part: &Mismatch, own: &str, peer: (&End<'_>, IpAddr), flow: &Flow<'_>) -> String {
    let (end, address) = peer;
    let other = match end.pod {
        Some(pod) if pod.host_network => {
            format!("{} ({address}, in its node's network)", name(pod))
        }
        Some(pod) => format!("{} ({address}, {})", name(pod), labels(pod)),
        None => format!("{address} (no pod's address)"),
    };
    match part {
        Mismatch::Peer(term) => match term.strip_prefix("not ") {
            Some(excluded) => format!("{other} is {excluded}"),
            None => format!("{other} is not {term}"),
        },
        Mismatch::Own(term) => format!("{own} is not {term}"),
        Mismatch::Traffic(term) => format!("{} is not {term}", traffic(flow.protocol, flow.port)),
        Mismatch::SourcePort(term) => format!("the source port is not {term}"),
    }
}

fn string_map(labels: &Labels) -> HashMap<String, String> {
    let labels = labels.iter();
    labels
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Labels as a selector would name them.
fn labels(pod: &Identity) -> String {
    const SAID: usize = 6;
    if pod.labels.is_empty() {
        return "no labels".to_owned();
    }
    let mut said: Vec<String> = advice::telling(pod)
        .take(SAID)
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if pod.labels.len() > said.len() {
        said.push("...".to_owned());
    }
    said.join(",")
}

fn port_named(to: &End<'_>, number: u8, wanted: &str) -> Result<u16, Unanswered> {
    let ports = to.pod.into_iter().flat_map(|pod| &*pod.named_ports);
    let mut same = ports.filter(|port| port.protocol == number);
    if let Some(found) = same.clone().find(|port| port.name == wanted) {
        return Ok(found.port);
    }
    let names: Vec<&str> = same.by_ref().map(|port| port.name.as_str()).collect();
    Err(Unanswered::NoPort {
        pod: to.name.clone(),
        protocol: crate::policy::describe::protocol_name(number),
        name: wanted.to_owned(),
        others: match names.is_empty() {
            true => String::new(),
            false => format!("; it has {}", names.join(", ")),
        },
    })
}

/// ICMP of the family, with the echo request of the family.
fn of_family(number: u8, port: u16, v6: bool) -> (u8, u16) {
    const ECHO: u16 = 8 << 8;
    const ECHO6: u16 = 128 << 8;
    match (number, v6) {
        (protocol::ICMP, true) => (protocol::ICMP6, if port == ECHO { ECHO6 } else { port }),
        (protocol::ICMP6, false) => (protocol::ICMP, if port == ECHO6 { ECHO } else { port }),
        _ => (number, port),
    }
}

#[cfg(test)]
mod tests;
