//! What to do about a flow that is denied and should not be.

use std::fmt::Write as _;

use super::{End, Flow, rule_name};
use crate::feed::Identity;
use crate::policy::describe::{protocol_name, traffic};
use crate::policy::explain::{Explanation, Mismatch, RuleOutcome};
use crate::policy::model::{Action, PolicyKey, PolicyKind, protocol};
use crate::policy::tables::Direction;
use crate::policy::{Decided, Engine};

/// Labels that only a controller knows the meaning of: no policy should name them.
const OF_CONTROLLERS: [&str; 5] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
];

/// The labels by which a person would select the pod.
pub(super) fn telling(pod: &Identity) -> impl Iterator<Item = (&str, &str)> {
    pod.labels
        .iter()
        .filter(|(key, _)| !OF_CONTROLLERS.contains(key))
}

/// Advice about the end whose policies deny the flow, `own` by name.
pub(super) fn advice(
    engine: &Engine,
    flow: &Flow<'_>,
    direction: Direction,
    own: &str,
    explanation: &Explanation,
) -> Vec<String> {
    let mut advice = Vec::new();
    match &explanation.trace.decided {
        Decided::NoPolicy => {}
        Decided::Rule(rule) => advice.push(format!(
            "{} denies it. If it should pass, change that rule, or let a rule ahead of it allow it: higher up in the \
             same policy, or in a policy of tier {} with a lower order.",
            rule_name(rule, direction),
            rule.tier
        )),
        Decided::TierDefault { policies, .. } => {
            for key in policies.iter().filter(|key| engine.is_closed(key)) {
                advice.push(format!(
                    "Mend {} {key}: {}",
                    key.kind,
                    engine.problem(key).unwrap_or_default()
                ));
            }
            advice.extend(near_misses(flow, direction, explanation));
            if let Some(key) = extendable(engine, policies, direction) {
                advice.push(format!(
                    "To allow it, add this rule to {} {key} under spec.{} (or to another policy that selects {}):\n{}",
                    key.kind,
                    direction.word(),
                    own,
                    rule_text(flow, direction, key)
                ));
            }
        }
    }
    advice
}

/// Rules that allow the peer, only not this port.
fn near_misses(flow: &Flow<'_>, direction: Direction, explanation: &Explanation) -> Vec<String> {
    let mut found = Vec::new();
    let policies = explanation.tiers.iter().flat_map(|tier| &tier.policies);
    for policy in policies {
        for (index, rule) in policy.rules.iter().enumerate() {
            let RuleOutcome::Failed(parts) = &rule.outcome else {
                continue;
            };
            let [Mismatch::Traffic(ports)] = parts.as_slice() else {
                continue;
            };
            if rule.action == Action::Allow {
                found.push(format!(
                    "{}[{index}] of {} {} allows {}, but for {ports} only, not {}: is the port right?",
                    direction.word(),
                    policy.key.kind,
                    policy.key,
                    flow.other(direction).0.name,
                    traffic(flow.protocol, flow.port)
                ));
            }
        }
    }
    found
}

/// The policy that a rule is best added to: one that allows something already, and is understood.
fn extendable<'a>(
    engine: &Engine,
    policies: &'a [PolicyKey],
    direction: Direction,
) -> Option<&'a PolicyKey> {
    let rules = |key: &PolicyKey| {
        let policy = engine.policy(key);
        policy
            .and_then(|it| it.rules(direction))
            .map_or(0, <[_]>::len)
    };
    let usable = policies.iter().filter(|key| !engine.is_closed(key));
    usable.max_by_key(|key| (rules(key).min(1), std::cmp::Reverse(*key)))
}

/// The rule in YAML, in the language of the policy's kind.
fn rule_text(flow: &Flow<'_>, direction: Direction, key: &PolicyKey) -> String {
    match key.kind {
        PolicyKind::KubernetesNetworkPolicy => kubernetes(flow, direction),
        _ => ours(flow, direction),
    }
}

fn kubernetes(flow: &Flow<'_>, direction: Direction) -> String {
    let side = match direction {
        Direction::Egress => "to",
        Direction::Ingress => "from",
    };
    let (own, _) = flow.own(direction);
    let (other, address) = flow.other(direction);
    let mut text = format!("- {side}:\n");
    match other.governed() {
        None => {
            let length = if address.is_ipv6() { 128 } else { 32 };
            let _ = writeln!(text, "  - ipBlock:\n      cidr: {address}/{length}");
        }
        Some(peer) => {
            let own_namespace = own.pod.map(|pod| &*pod.namespace);
            let mut lead = "  - ";
            if own_namespace != Some(&*peer.namespace) {
                let _ = writeln!(
                    text,
                    "{lead}namespaceSelector:\n      matchLabels:\n        kubernetes.io/metadata.name: {}",
                    peer.namespace
                );
                lead = "    ";
            }
            let labels: Vec<_> = telling(peer).collect();
            match labels.is_empty() {
                true => {
                    let _ = writeln!(text, "{lead}podSelector: {{}}");
                }
                false => {
                    let _ = writeln!(text, "{lead}podSelector:\n      matchLabels:");
                }
            }
            for (key, value) in labels {
                let _ = writeln!(text, "        {key}: {}", quoted(value));
            }
        }
    }
    if let protocol::TCP | protocol::UDP | protocol::SCTP = flow.protocol {
        let _ = writeln!(
            text,
            "  ports:\n  - protocol: {}\n    port: {}",
            protocol_name(flow.protocol),
            flow.port
        );
    }
    text
}

fn ours(flow: &Flow<'_>, direction: Direction) -> String {
    let (other, address) = flow.other(direction);
    let mut text = "- action: Allow\n".to_owned();
    let _ = match flow.protocol {
        protocol::ICMP => writeln!(text, "  protocol: ICMP"),
        protocol::ICMP6 => writeln!(text, "  protocol: ICMPv6"),
        protocol::TCP | protocol::UDP | protocol::SCTP | protocol::UDP_LITE => {
            writeln!(text, "  protocol: {}", protocol_name(flow.protocol))
        }
        number => writeln!(text, "  protocol: {number}"),
    };
    let ports = match flow.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP | protocol::UDP_LITE => Some(flow.port),
        _ => None,
    };
    let peer = entity(other, address);
    let _ = match (direction, ports) {
        (Direction::Ingress, Some(port)) => {
            writeln!(text, "  source:\n{peer}  destination:\n    ports: [{port}]")
        }
        (Direction::Ingress, None) => writeln!(text, "  source:\n{peer}"),
        (Direction::Egress, Some(port)) => {
            writeln!(text, "  destination:\n{peer}    ports: [{port}]")
        }
        (Direction::Egress, None) => writeln!(text, "  destination:\n{peer}"),
    };
    text
}

/// Who the other side is, as the fields of an EntityRule.
fn entity(other: &End<'_>, address: std::net::IpAddr) -> String {
    let Some(peer) = other.governed() else {
        let length = if address.is_ipv6() { 128 } else { 32 };
        return format!("    nets: [\"{address}/{length}\"]\n");
    };
    let labels: Vec<String> = telling(peer)
        .map(|(key, value)| format!("{key} == '{value}'"))
        .collect();
    let selector = match labels.is_empty() {
        true => "all()".to_owned(),
        false => labels.join(" && "),
    };
    format!(
        "    selector: \"{selector}\"\n    namespaceSelector: \"kubernetes.io/metadata.name == '{}'\"\n",
        peer.namespace
    )
}

/// A value that YAML would not take for a string is quoted.
fn quoted(value: &str) -> String {
    let plain = value.starts_with(|c: char| c.is_ascii_alphabetic())
        && !["true", "false", "yes", "no", "on", "off", "null", "y", "n"]
            .contains(&value.to_ascii_lowercase().as_str());
    match plain {
        true => value.to_owned(),
        false => format!("\"{value}\""),
    }
}
