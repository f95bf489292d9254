//! Our own kinds → what the engine knows.

use crds::FieldError;
use crds::net::{Cidr, Family};
use crds::policy as said;
use crds::selector::{NamespaceSelector, Selector};
use crds::tier::Stage as SaidTier;
use crds::{GlobalNetworkPolicy, NetworkPolicy};
use ipnetwork::IpNetwork;

use super::k8s::PolicyError;
use super::model::{
    Action, EndpointSelector, Enforcement, Order, Peer, PeerList, Policy, PolicyKey, PolicyKind,
    PortMatch, Rule, Scope, Selection, ServiceAccounts, Stage, Term, Tier,
};

/// Understands a NetworkPolicy of ours whole, or not at all.
///
/// # Errors
/// The first field that makes no sense, with what to enforce instead.
pub fn network_policy(object: &NetworkPolicy) -> Result<Policy, PolicyError> {
    said::Policy::try_from(object)
        .map(|it| policy(&it))
        .map_err(refused)
}

/// Understands a GlobalNetworkPolicy whole, or not at all.
///
/// # Errors
/// The first field that makes no sense, with what to enforce instead.
pub fn global_network_policy(object: &GlobalNetworkPolicy) -> Result<Policy, PolicyError> {
    said::Policy::try_from(object)
        .map(|it| policy(&it))
        .map_err(refused)
}

/// A tier.
#[must_use]
pub fn tier(said: SaidTier) -> Tier {
    Tier {
        name: said.name,
        order: order(said.order),
        default_action: if said.pass {
            Action::Pass
        } else {
            Action::Deny
        },
    }
}

/// Why an object of ours is not understood, when nothing of it can be read.
#[must_use]
pub fn unread(error: FieldError) -> PolicyError {
    PolicyError {
        field: error.field,
        problem: error.problem,
        closed: None,
    }
}

fn refused(refused: said::Refused) -> PolicyError {
    // Whatever the tier does by default, and whatever it would have denied: nothing passes.
    let closed = refused.head.map(|it| {
        let deny = |governed: bool| governed.then(|| vec![Rule::new(Action::Deny)]);
        let (ingress, egress) = (deny(it.ingress), deny(it.egress));
        Box::new(head(&it, ingress, egress))
    });
    PolicyError {
        closed,
        ..unread(refused.error)
    }
}

fn policy(said: &said::Policy) -> Policy {
    let rules = |rules: &[said::Rule], ingress: bool| {
        let of = |it| rule(it, said.head.namespace.as_deref(), ingress);
        rules.iter().map(of).collect()
    };
    let ingress = said.head.ingress.then(|| rules(&said.ingress, true));
    let egress = said.head.egress.then(|| rules(&said.egress, false));
    head(&said.head, ingress, egress)
}

fn head(said: &said::Head, ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>) -> Policy {
    let subject = &said.subject;
    let scope = match (&subject.namespace, &subject.namespaces) {
        (Some(namespace), _) => Scope::Namespace(namespace.clone()),
        (None, Some(selector)) => Scope::Namespaces(selector.clone()),
        (None, None) => Scope::Anywhere,
    };
    let service_accounts = subject.service_accounts.as_ref();
    Policy {
        key: PolicyKey {
            namespace: said.namespace.clone().unwrap_or_default(),
            name: said.name.clone(),
            kind: if said.namespace.is_some() {
                PolicyKind::NetworkPolicy
            } else {
                PolicyKind::GlobalNetworkPolicy
            },
        },
        uid: said.uid.clone(),
        generation: said.generation,
        tier: said.tier.clone(),
        order: order(said.order),
        subject: Selection::Endpoints(EndpointSelector {
            scope,
            labels: subject.selector.clone(),
            service_accounts: service_accounts.map(|labels| ServiceAccounts {
                names: Default::default(),
                labels: labels.clone(),
            }),
        }),
        enforcement: match said.enforcement {
            said::Enforcement::Enforce => Enforcement::Enforce,
            said::Enforcement::Audit => Enforcement::Audit,
        },
        stage: match said.stage {
            said::Stage::Normal => Stage::Normal,
            said::Stage::ApplyOnForward => Stage::ApplyOnForward,
            said::Stage::PreDnat => Stage::PreDnat,
            said::Stage::DoNotTrack => Stage::DoNotTrack,
        },
        egress,
        ingress,
    }
}

/// Without an order it comes last.
fn order(said: Option<f64>) -> Order {
    // Zero has two signs, and they would be two places.
    Order(said.map_or(f64::INFINITY, |order| order + 0.0))
}

/// `namespace` is that of the policy.
fn rule(said: &said::Rule, namespace: Option<&str>, ingress: bool) -> Rule {
    let (peer, own) = if ingress {
        (&said.source, &said.destination)
    } else {
        (&said.destination, &said.source)
    };
    let mut peers = entity(peer, namespace);
    if let Some(family) = said.family {
        let all = match family {
            Family::V4 => "0.0.0.0/0",
            Family::V6 => "::/0",
        };
        // Both are prefixes; a rule without them would match more.
        peers.extend(all.parse::<Cidr>().map(|it| nets(&[it], false)));
    }
    let mut traffic = Vec::new();
    let protocol = |it| vec![PortMatch::Protocol(it)];
    traffic.extend(said.protocol.map(|it| Term::is(protocol(it))));
    traffic.extend(said.not_protocol.map(|it| Term::not(protocol(it))));
    let icmp = |it: said::Icmp| {
        let protocol = said.protocol.unwrap_or_default();
        vec![match it.kind {
            Some(kind) => PortMatch::Icmp {
                protocol,
                kind,
                code: it.code,
            },
            None => PortMatch::Protocol(protocol),
        }]
    };
    traffic.extend(said.icmp.map(|it| Term::is(icmp(it))));
    traffic.extend(said.not_icmp.map(|it| Term::not(icmp(it))));
    traffic.extend(ports(said, &said.destination));
    // As the source of ingress a Service is the addresses behind it; as a destination it is their ports as well.
    match &peer.service {
        Some(it) if ingress => peers.push(Term::is(PeerList::new(vec![Peer::Service {
            namespace: it.namespace.clone(),
            name: it.name.clone(),
        }]))),
        Some(it) => traffic.push(Term::is(vec![PortMatch::Service {
            namespace: it.namespace.clone(),
            name: it.name.clone(),
        }])),
        None => {}
    }
    Rule {
        action: match said.action {
            said::Action::Allow => Action::Allow,
            said::Action::Deny => Action::Deny,
            said::Action::Pass => Action::Pass,
            said::Action::Log => Action::Log,
        },
        peers,
        own: entity(own, namespace),
        traffic,
        source_ports: ports(said, &said.source),
    }
}

/// Everything an end says but its ports and Service.
fn entity(said: &said::Entity, namespace: Option<&str>) -> Vec<Term<PeerList>> {
    let mut terms = Vec::new();
    if !said.nets.is_empty() {
        terms.push(nets(&said.nets, false));
    }
    if !said.not_nets.is_empty() {
        terms.push(nets(&said.not_nets, true));
    }
    let selects =
        said.selector.is_some() || said.namespaces.is_some() || said.service_accounts.is_some();
    if selects {
        let scope = match (&said.namespaces, namespace) {
            (Some(NamespaceSelector::Global), _) => Scope::Global,
            (Some(NamespaceSelector::Labels(selector)), _) => Scope::Namespaces(selector.clone()),
            (None, Some(namespace)) => Scope::Namespace(namespace.to_owned()),
            (None, None) => Scope::Anywhere,
        };
        let accounts = said.service_accounts.as_ref();
        let selector = EndpointSelector {
            scope,
            labels: said.selector.clone().unwrap_or_else(Selector::all),
            service_accounts: accounts.map(|it| ServiceAccounts {
                names: it.names.clone(),
                labels: it.selector.clone().unwrap_or_else(Selector::all),
            }),
        };
        terms.push(Term::is(PeerList::new(vec![Peer::Endpoints(selector)])));
    }
    // Whoever is selected anywhere is excluded: as in Calico, namespaceSelector does not narrow it.
    terms.extend(said.not_selector.as_ref().map(|labels| {
        Term::not(PeerList::new(vec![Peer::Endpoints(EndpointSelector {
            scope: Scope::Anywhere,
            labels: labels.clone(),
            service_accounts: None,
        })]))
    }));
    terms
}

fn nets(nets: &[Cidr], negated: bool) -> Term<PeerList> {
    let nets = nets.iter().map(|cidr| Peer::Net {
        cidr: IpNetwork::from(*cidr),
        except: Vec::new(),
    });
    Term {
        negated,
        any: PeerList::new(nets.collect()),
    }
}

/// What an end says about its ports.
fn ports(rule: &said::Rule, said: &said::Entity) -> Vec<Term<Vec<PortMatch>>> {
    let protocols = rule.port_protocols();
    let list = |ports: &[said::Port]| -> Vec<PortMatch> {
        let each = ports.iter().flat_map(|port| {
            protocols.iter().map(|protocol| match port {
                said::Port::Range(first, last) => PortMatch::Ports {
                    protocol: *protocol,
                    first: *first,
                    last: *last,
                },
                said::Port::Named(name) => PortMatch::Named {
                    protocol: *protocol,
                    name: name.clone(),
                },
            })
        });
        each.collect()
    };
    let mut terms = Vec::new();
    if !said.ports.is_empty() {
        terms.push(Term::is(list(&said.ports)));
    }
    if !said.not_ports.is_empty() {
        terms.push(Term::not(list(&said.not_ports)));
    }
    terms
}

/// What a fuzzer and the property tests share: any JSON is either refused somewhere or makes a policy, never a panic;
/// and a policy that was refused allows nothing.
///
/// # Panics
/// When that does not hold.
pub fn check_json(json: &[u8]) {
    let namespaced = serde_json::from_slice::<NetworkPolicy>(json).map(|it| network_policy(&it));
    let global =
        serde_json::from_slice::<GlobalNetworkPolicy>(json).map(|it| global_network_policy(&it));
    for parsed in [namespaced, global].into_iter().flatten() {
        match parsed {
            Ok(policy) => {
                let named = policy.subject.namespace().unwrap_or_default();
                assert_eq!(policy.key.namespace, named);
            }
            Err(error) => {
                assert!(error.field.starts_with("spec"), "{error} names no field");
                assert!(
                    !error.problem.is_empty(),
                    "{} without a reason",
                    error.field
                );
                let closed = error.closed.iter();
                let rules = closed.flat_map(|it| [&it.ingress, &it.egress]).flatten();
                for rules in rules {
                    assert_eq!(rules, &[Rule::new(Action::Deny)], "it is not closed");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
