//! Kubernetes NetworkPolicy → [`Policy`].
//!
//! The API server checks objects when they are written, but not always by the rules of today, so nothing is taken for
//! granted here: what does not make sense is an error that names the field.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use thiserror::Error;

use super::labels::{LabelSelector, Requirement, Test};
use super::model::{
    Action, DEFAULT_TIER, Enforcement, NETWORK_POLICY_ORDER, NamespaceSelector, Peer, PeerList,
    PodSelector, Policy, PolicyKey, PolicyKind, PortMatch, Rule, Selection, Stage, Term, protocol,
};

/// Why a policy object cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct PolicyError {
    /// Path of the field, as in `spec.ingress[0].from[1].ipBlock.cidr`.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub problem: String,
    /// What to enforce while no earlier version is in force: the same pods and directions with no rule, so that the
    /// object allows nothing. `None` when not even the selection can be read.
    pub closed: Option<Box<Policy>>,
}

type Result<T> = std::result::Result<T, PolicyError>;

pub(super) fn error(field: &str, problem: impl Into<String>) -> PolicyError {
    PolicyError {
        field: field.to_owned(),
        problem: problem.into(),
        closed: None,
    }
}

/// The key of the object.
#[must_use]
pub fn key(object: &NetworkPolicy) -> PolicyKey {
    PolicyKey {
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        name: object.metadata.name.clone().unwrap_or_default(),
        kind: PolicyKind::KubernetesNetworkPolicy,
    }
}

/// Understands the object whole, or not at all.
///
/// # Errors
/// The first field that makes no sense, with what to enforce instead.
pub fn parse(object: &NetworkPolicy) -> Result<Policy> {
    let key = key(object);
    let none = NetworkPolicySpec::default();
    let spec = object.spec.as_ref().unwrap_or(&none);
    let pods = match &spec.pod_selector {
        Some(selector) => label_selector("spec.podSelector", selector)?,
        None => LabelSelector::default(),
    };
    // Directions that cannot be read are closed too.
    let (directions, unreadable) = match directions(spec) {
        Ok(directions) => (directions, None),
        Err(error) => ((true, true), Some(error)),
    };
    let (ingress, egress) = directions;
    let closed = Policy {
        subject: Selection::Pods(PodSelector {
            namespaces: NamespaceSelector::Named(key.namespace.clone()),
            pods,
        }),
        enforcement: Enforcement::Enforce,
        stage: Stage::Normal,
        key,
        uid: object.metadata.uid.clone().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or(0),
        tier: DEFAULT_TIER.to_owned(),
        order: NETWORK_POLICY_ORDER,
        ingress: ingress.then(Vec::new),
        egress: egress.then(Vec::new),
    };
    let rules = match unreadable {
        Some(error) => Err(error),
        None => rules(spec, &closed.key.namespace),
    };
    match rules {
        Ok((ingress, egress)) => Ok(Policy {
            ingress: closed.ingress.is_some().then_some(ingress),
            egress: closed.egress.is_some().then_some(egress),
            ..closed
        }),
        Err(error) => Err(PolicyError {
            closed: Some(Box::new(closed)),
            ..error
        }),
    }
}

/// Whether ingress and egress are governed: as `policyTypes` says; without it ingress always, and egress when there is
/// an egress rule.
fn directions(spec: &NetworkPolicySpec) -> Result<(bool, bool)> {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        return Ok((
            true,
            spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        ));
    }
    let (mut ingress, mut egress) = (false, false);
    for (index, kind) in types.iter().enumerate() {
        match kind.as_str() {
            "Ingress" => ingress = true,
            "Egress" => egress = true,
            other => {
                let field = format!("spec.policyTypes[{index}]");
                return Err(error(
                    &field,
                    format!("{other:?} is neither Ingress nor Egress"),
                ));
            }
        }
    }
    Ok((ingress, egress))
}

/// Rules for ingress and for egress. Those of a direction that is not governed are checked all the same.
fn rules(spec: &NetworkPolicySpec, namespace: &str) -> Result<(Vec<Rule>, Vec<Rule>)> {
    let ingress = spec
        .ingress
        .iter()
        .flatten()
        .enumerate()
        .map(|(index, rule)| {
            let path = format!("spec.ingress[{index}]");
            allow(
                &path,
                "from",
                rule.from.as_deref(),
                rule.ports.as_deref(),
                namespace,
            )
        });
    let ingress = ingress.collect::<Result<_>>()?;
    let egress = spec
        .egress
        .iter()
        .flatten()
        .enumerate()
        .map(|(index, rule)| {
            let path = format!("spec.egress[{index}]");
            allow(
                &path,
                "to",
                rule.to.as_deref(),
                rule.ports.as_deref(),
                namespace,
            )
        });
    Ok((ingress, egress.collect::<Result<_>>()?))
}

fn allow(
    path: &str,
    side: &str,
    peers: Option<&[NetworkPolicyPeer]>,
    ports: Option<&[NetworkPolicyPort]>,
    namespace: &str,
) -> Result<Rule> {
    // An absent list and an empty one both mean: any.
    let peers = peers.filter(|peers| !peers.is_empty()).map(|peers| {
        let peers = peers.iter().enumerate();
        peers
            .map(|(index, it)| peer(&format!("{path}.{side}[{index}]"), it, namespace))
            .collect()
    });
    let ports = ports.filter(|ports| !ports.is_empty()).map(|ports| {
        let ports = ports.iter().enumerate();
        ports
            .map(|(index, it)| port(&format!("{path}.ports[{index}]"), it))
            .collect()
    });
    let peers = peers.transpose()?.map(PeerList::new);
    Ok(Rule {
        peers: peers.map(Term::is).into_iter().collect(),
        traffic: ports.transpose()?.map(Term::is).into_iter().collect(),
        ..Rule::new(Action::Allow)
    })
}

fn peer(path: &str, peer: &NetworkPolicyPeer, namespace: &str) -> Result<Peer> {
    match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
        (Some(block), None, None) => ip_block(&format!("{path}.ipBlock"), block),
        (Some(_), ..) => Err(error(
            path,
            "ipBlock excludes podSelector and namespaceSelector: use two entries",
        )),
        (None, None, None) => Err(error(
            path,
            "one of podSelector, namespaceSelector and ipBlock is needed",
        )),
        (None, namespaces, pods) => {
            let namespaces = match namespaces {
                Some(selector) => {
                    let selector = label_selector(&format!("{path}.namespaceSelector"), selector)?;
                    NamespaceSelector::Labels(selector)
                }
                None => NamespaceSelector::Named(namespace.to_owned()),
            };
            let pods = match pods {
                Some(selector) => label_selector(&format!("{path}.podSelector"), selector)?,
                None => LabelSelector::default(),
            };
            Ok(Peer::Pods(PodSelector { namespaces, pods }))
        }
    }
}

fn ip_block(path: &str, block: &IPBlock) -> Result<Peer> {
    let cidr = network(&format!("{path}.cidr"), &block.cidr)?;
    let mut except = Vec::new();
    for (index, text) in block.except.iter().flatten().enumerate() {
        let field = format!("{path}.except[{index}]");
        let exception = network(&field, text)?;
        let inside = cidr.is_ipv4() == exception.is_ipv4()
            && cidr.contains(exception.network())
            && exception.prefix() > cidr.prefix();
        if !inside {
            return Err(error(
                &field,
                format!("{exception} is not a part of {cidr}"),
            ));
        }
        except.push(exception);
    }
    except.sort_unstable();
    except.dedup();
    Ok(Peer::Net { cidr, except })
}

/// A block without host bits: `10.0.0.1/8` means what `10.0.0.0/8` means.
pub(super) fn network(field: &str, text: &str) -> Result<IpNetwork> {
    let wrong = || {
        error(
            field,
            format!("{text:?} is not a block such as 10.0.0.0/8 or fd00::/8"),
        )
    };
    // A bare address is no block, though the library would take it for one.
    let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    if prefix.is_empty() || !prefix.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(wrong());
    }
    let given = prefix
        .parse()
        .ok()
        .and_then(|prefix| IpNetwork::new(address, prefix).ok());
    let given = given.ok_or_else(wrong)?;
    IpNetwork::new(given.network(), given.prefix()).map_err(|_| wrong())
}

fn port(path: &str, port: &NetworkPolicyPort) -> Result<PortMatch> {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => protocol::TCP,
        Some("UDP") => protocol::UDP,
        Some("SCTP") => protocol::SCTP,
        Some(other) => {
            let problem = format!("{other:?} is none of TCP, UDP and SCTP");
            return Err(error(&format!("{path}.protocol"), problem));
        }
    };
    let end = format!("{path}.endPort");
    match (&port.port, port.end_port) {
        (None, None) => Ok(PortMatch::Protocol(protocol)),
        (None, Some(_)) => Err(error(&end, "needs port beside it")),
        (Some(IntOrString::String(_)), Some(_)) => Err(error(
            &end,
            "needs port to be a number: a name is no start of a range",
        )),
        (Some(IntOrString::String(name)), None) => {
            port_name(&format!("{path}.port"), name)?;
            Ok(PortMatch::Named {
                protocol,
                name: name.clone(),
            })
        }
        (Some(IntOrString::Int(first)), last) => {
            let first = number(&format!("{path}.port"), *first)?;
            let last = last.map_or(Ok(first), |last| number(&end, last))?;
            if last < first {
                return Err(error(
                    &end,
                    format!("{last} is less than port, which is {first}"),
                ));
            }
            Ok(PortMatch::Ports {
                protocol,
                first,
                last,
            })
        }
    }
}

pub(super) fn number(field: &str, number: i32) -> Result<u16> {
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    port.ok_or_else(|| error(field, format!("{number} is not a port from 1 to 65535")))
}

/// IANA service name, RFC 6335 section 5.1.
fn port_name(field: &str, name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = (1..=15).contains(&name.len())
        && name.bytes().all(allowed)
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if good {
        return Ok(());
    }
    let problem =
        format!("{name:?} is no port name: up to 15 of a-z, 0-9 and single dashes inside");
    Err(error(field, problem))
}

pub(super) fn label_selector(path: &str, selector: &meta::LabelSelector) -> Result<LabelSelector> {
    let mut requirements = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        let field = format!("{path}.matchLabels[{key}]");
        label_key(&field, key)?;
        label_value(&field, value)?;
        let values = BTreeSet::from([value.clone()]);
        requirements.push(Requirement {
            key: key.clone(),
            test: Test::In(values),
        });
    }
    for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let path = format!("{path}.matchExpressions[{index}]");
        label_key(&format!("{path}.key"), &expression.key)?;
        let values: BTreeSet<_> = expression.values.iter().flatten().cloned().collect();
        let field = format!("{path}.values");
        for value in &values {
            label_value(&field, value)?;
        }
        let some = matches!(expression.operator.as_str(), "In" | "NotIn");
        let test = match expression.operator.as_str() {
            "In" => Test::In(values.clone()),
            "NotIn" => Test::NotIn(values.clone()),
            "Exists" => Test::Exists,
            "DoesNotExist" => Test::DoesNotExist,
            other => {
                let problem = format!("{other:?} is none of In, NotIn, Exists and DoesNotExist");
                return Err(error(&format!("{path}.operator"), problem));
            }
        };
        if some == values.is_empty() {
            let what = if some {
                "needs at least one value"
            } else {
                "takes no values"
            };
            return Err(error(&field, format!("{} {what}", expression.operator)));
        }
        requirements.push(Requirement {
            key: expression.key.clone(),
            test,
        });
    }
    Ok(LabelSelector::new(requirements))
}

/// An optional DNS subdomain and a slash, then a name.
fn label_key(field: &str, key: &str) -> Result<()> {
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let subdomain = prefix.is_none_or(|prefix| {
        let label = |label: &str| {
            let byte =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            !label.is_empty()
                && label.bytes().all(byte)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        prefix.len() <= 253 && prefix.split('.').all(label)
    });
    if subdomain && !name.is_empty() && label_text(name) {
        return Ok(());
    }
    Err(error(
        field,
        format!("{key:?} is no label key, such as app or example.com/app"),
    ))
}

fn label_value(field: &str, value: &str) -> Result<()> {
    if label_text(value) {
        return Ok(());
    }
    let problem = format!("{value:?} is no label value: up to 63 letters, digits, and -_. inside");
    Err(error(field, problem))
}

/// What label values and the names in label keys are made of; empty is allowed here.
fn label_text(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
        && edge(bytes.first())
        && edge(bytes.last())
}

/// What a fuzzer and the property tests share: any JSON is either refused somewhere or makes a policy, never a panic;
/// and a policy that was refused allows nothing.
///
/// # Panics
/// When that does not hold.
pub fn check_json(json: &[u8]) {
    let Ok(object) = serde_json::from_slice::<NetworkPolicy>(json) else {
        return;
    };
    match parse(&object) {
        Ok(policy) => assert_eq!(policy.key, key(&object)),
        Err(PolicyError {
            field,
            problem,
            closed,
        }) => {
            assert!(field.starts_with("spec."), "{field} is no path of a field");
            assert!(!problem.is_empty(), "{field} without a reason");
            let rules = closed
                .iter()
                .flat_map(|it| [&it.ingress, &it.egress])
                .flatten();
            assert_eq!(rules.flatten().count(), 0, "a refused policy has rules");
        }
    }
}

#[cfg(test)]
mod tests;
