//! ClusterNetworkPolicy of `policy.networking.k8s.io` → [`Policy`].
//!
//! Its API says what becomes of a rule with something in it that is not understood, which may be of a later version: an
//! Accept matches nothing, a Deny or Pass denies everything. The rest of the policy is in force.

use crds::cluster_network_policy::{
    ClusterNetworkPolicy, ClusterPeer, ClusterPort, ClusterProtocol, ClusterSubject,
    ClusterTransport, NamespacedPod,
};
use crds::tier::{ADMIN_TIER, BASELINE_TIER};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use super::k8s::{PolicyError, error, label_selector, network, number};
use super::labels::LabelSelector;
use super::model::{
    Action, Enforcement, NamespaceSelector, Order, Peer, PeerList, PodSelector, Policy, PolicyKey,
    PolicyKind, PortMatch, Rule, Selection, Stage, Term, protocol,
};

type Result<T> = std::result::Result<T, PolicyError>;

/// A policy, and the first thing in its rules that is not understood.
pub type Understood = (Policy, Option<PolicyError>);

/// The key of the object of that name.
#[must_use]
pub fn key(name: String) -> PolicyKey {
    PolicyKey {
        namespace: String::new(),
        name,
        kind: PolicyKind::ClusterNetworkPolicy,
    }
}

/// Understands the object, rule by rule.
///
/// # Errors
/// What it selects or its tier makes no sense, with what to enforce instead.
pub fn parse(object: &ClusterNetworkPolicy) -> Result<Understood> {
    let spec = &object.spec;
    let subject = subject(&spec.subject)?;
    let (tier, unknown) = match spec.tier.as_str() {
        "Admin" => (ADMIN_TIER, None),
        "Baseline" => (BASELINE_TIER, None),
        other => {
            let problem = format!("{other:?} is neither Admin nor Baseline");
            (ADMIN_TIER, Some(error("spec.tier", problem)))
        }
    };
    let mut problem = None;
    let ingress = spec.ingress.iter().enumerate().map(|(index, it)| {
        let path = format!("spec.ingress[{index}]");
        let parts = Parts {
            path: &path,
            action: &it.action,
            side: "from",
            peers: &it.from,
            protocols: it.protocols.as_deref(),
        };
        closing(parts, &mut problem)
    });
    let ingress: Vec<Rule> = ingress.flatten().collect();
    let egress = spec.egress.iter().enumerate().map(|(index, it)| {
        let path = format!("spec.egress[{index}]");
        let parts = Parts {
            path: &path,
            action: &it.action,
            side: "to",
            peers: &it.to,
            protocols: it.protocols.as_deref(),
        };
        closing(parts, &mut problem)
    });
    let egress: Vec<Rule> = egress.flatten().collect();
    let policy = |ingress: Vec<Rule>, egress: Vec<Rule>| Policy {
        key: key(object.metadata.name.clone().unwrap_or_default()),
        uid: object.metadata.uid.clone().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
        tier: tier.to_owned(),
        order: Order(f64::from(spec.priority)),
        subject: Selection::Pods(subject),
        enforcement: Enforcement::Enforce,
        stage: Stage::Normal,
        // A direction without rules is left alone.
        ingress: (!spec.ingress.is_empty()).then_some(ingress),
        egress: (!spec.egress.is_empty()).then_some(egress),
    };
    match unknown {
        None => Ok((policy(ingress, egress), problem)),
        Some(error) => {
            let deny = || vec![Rule::new(Action::Deny)];
            Err(PolicyError {
                closed: Some(Box::new(policy(deny(), deny()))),
                ..error
            })
        }
    }
}

/// What a rule of either direction has.
struct Parts<'a> {
    path: &'a str,
    action: &'a str,
    side: &'a str,
    peers: &'a [ClusterPeer],
    protocols: Option<&'a [ClusterProtocol]>,
}

/// The rule, or what stands for it; None when it then matches nothing.
fn closing(parts: Parts<'_>, problem: &mut Option<PolicyError>) -> Option<Rule> {
    let accepts = parts.action == "Accept";
    match rule(parts) {
        Ok(rule) => Some(rule),
        Err(error) => {
            problem.get_or_insert(error);
            (!accepts).then(|| Rule::new(Action::Deny))
        }
    }
}

fn rule(parts: Parts<'_>) -> Result<Rule> {
    let path = parts.path;
    let action = match parts.action {
        "Accept" => Action::Allow,
        "Deny" => Action::Deny,
        "Pass" => Action::Pass,
        other => {
            let problem = format!("{other:?} is none of Accept, Deny and Pass");
            return Err(error(&format!("{path}.action"), problem));
        }
    };
    let mut peers = Vec::new();
    for (index, it) in parts.peers.iter().enumerate() {
        let field = format!("{path}.{}[{index}]", parts.side);
        peer(&field, it, parts.side == "to", &mut peers)?;
    }
    let mut rule = Rule {
        peers: vec![Term::is(PeerList::new(peers))],
        ..Rule::new(action)
    };
    if let Some(protocols) = parts.protocols {
        let mut matches = Vec::new();
        for (index, it) in protocols.iter().enumerate() {
            traffic(&format!("{path}.protocols[{index}]"), it, &mut matches)?;
        }
        rule.traffic = vec![Term::is(matches)];
    }
    Ok(rule)
}

fn subject(subject: &ClusterSubject) -> Result<PodSelector> {
    match (&subject.namespaces, &subject.pods) {
        (Some(namespaces), None) => all_pods("spec.subject.namespaces", namespaces),
        (None, Some(pods)) => some_pods("spec.subject.pods", pods),
        _ => Err(error(
            "spec.subject",
            "exactly one of namespaces and pods is needed",
        )),
    }
}

fn all_pods(path: &str, namespaces: &meta::LabelSelector) -> Result<PodSelector> {
    Ok(PodSelector {
        namespaces: NamespaceSelector::Labels(label_selector(path, namespaces)?),
        pods: LabelSelector::default(),
    })
}

fn some_pods(path: &str, it: &NamespacedPod) -> Result<PodSelector> {
    let namespaces = label_selector(&format!("{path}.namespaceSelector"), &it.namespace_selector)?;
    Ok(PodSelector {
        namespaces: NamespaceSelector::Labels(namespaces),
        pods: label_selector(&format!("{path}.podSelector"), &it.pod_selector)?,
    })
}

fn peer(path: &str, it: &ClusterPeer, egress: bool, peers: &mut Vec<Peer>) -> Result<()> {
    let fields = [
        it.namespaces.is_some(),
        it.pods.is_some(),
        it.nodes.is_some(),
        it.networks.is_some(),
        it.domain_names.is_some(),
    ];
    if fields.iter().filter(|set| **set).count() != 1 {
        let problem =
            "exactly one kind of peer is needed; none is one of a later version of the API";
        return Err(error(path, problem));
    }
    if let Some(namespaces) = &it.namespaces {
        let pods = all_pods(&format!("{path}.namespaces"), namespaces)?;
        peers.push(Peer::Pods(pods));
    } else if let Some(pods) = &it.pods {
        peers.push(Peer::Pods(some_pods(&format!("{path}.pods"), pods)?));
    } else if !egress {
        return Err(error(path, "ingress comes from namespaces or pods"));
    } else if let Some(nodes) = &it.nodes {
        let selector = label_selector(&format!("{path}.nodes"), nodes)?;
        peers.push(Peer::Nodes(selector));
    } else if it.domain_names.is_some() {
        let problem = "names of the DNS are not supported: use networks";
        return Err(error(&format!("{path}.domainNames"), problem));
    }
    for (index, text) in it.networks.iter().flatten().enumerate() {
        peers.push(Peer::Net {
            cidr: network(&format!("{path}.networks[{index}]"), text)?,
            except: Vec::new(),
        });
    }
    Ok(())
}

fn traffic(path: &str, it: &ClusterProtocol, matches: &mut Vec<PortMatch>) -> Result<()> {
    let transports = [
        ("tcp", protocol::TCP, &it.tcp),
        ("udp", protocol::UDP, &it.udp),
        ("sctp", protocol::SCTP, &it.sctp),
    ];
    let set = transports.iter().filter(|(.., it)| it.is_some()).count();
    if set + usize::from(it.destination_named_port.is_some()) != 1 {
        let problem = "exactly one of tcp, udp, sctp and destinationNamedPort is needed; none is one of a later version of the API";
        return Err(error(path, problem));
    }
    for (name, protocol, transport) in transports {
        if let Some(transport) = transport {
            matches.push(ports(&format!("{path}.{name}"), protocol, transport)?);
        }
        if let Some(name) = &it.destination_named_port {
            let name = name.clone();
            matches.push(PortMatch::Named { protocol, name });
        }
    }
    Ok(())
}

fn ports(path: &str, protocol: u8, transport: &ClusterTransport) -> Result<PortMatch> {
    let path = format!("{path}.destinationPort");
    let Some(port) = &transport.destination_port else {
        let problem = "is not set, so something of a later version of the API is";
        return Err(error(&path, problem));
    };
    let (first, last) = match port {
        ClusterPort {
            number: Some(port),
            range: None,
        } => {
            let port = number(&format!("{path}.number"), *port)?;
            (port, port)
        }
        ClusterPort {
            number: None,
            range: Some(range),
        } => {
            let first = number(&format!("{path}.range.start"), range.start)?;
            (first, number(&format!("{path}.range.end"), range.end)?)
        }
        _ => return Err(error(&path, "exactly one of number and range is needed")),
    };
    if last < first {
        let problem = format!("{last} is less than start, which is {first}");
        return Err(error(&format!("{path}.range.end"), problem));
    }
    Ok(PortMatch::Ports {
        protocol,
        first,
        last,
    })
}

/// What a fuzzer and the property tests share: any JSON is either refused or makes a policy, never a panic; what is not
/// understood of it accepts nothing.
///
/// # Panics
/// When that does not hold.
pub fn check_json(json: &[u8]) {
    let Ok(object) = serde_json::from_slice::<ClusterNetworkPolicy>(json) else {
        return;
    };
    let rules = |policy: &Policy| {
        let both = [&policy.ingress, &policy.egress];
        both.map(|rules| rules.as_ref().map_or(0, Vec::len))
    };
    match parse(&object) {
        Ok((policy, problem)) => {
            let given = [object.spec.ingress.len(), object.spec.egress.len()];
            let kept = rules(&policy);
            assert!(kept[0] <= given[0] && kept[1] <= given[1]);
            assert!(kept == given || problem.is_some(), "a rule went silently");
        }
        Err(error) => {
            assert!(error.field.starts_with("spec."), "{error}");
            let closed = error.closed.iter();
            let rules = closed.flat_map(|it| [&it.ingress, &it.egress]).flatten();
            for rules in rules {
                assert_eq!(rules, &[Rule::new(Action::Deny)], "it is not closed");
            }
        }
    }
}

#[cfg(test)]
mod tests;
