//! What the API documentation says about every kind of policy, told about a small cluster: no classes, no indexes, no
//! tables, and nothing shared with the code under test but the plain data.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crds::selector::{Expr, Selector, Test};
use ipnetwork::IpNetwork;

use super::super::labels::{self, LabelSelector};
use super::super::model::{
    Action, EndpointSelector, Enforcement, NamespaceSelector, Peer, PeerList, Policy, PolicyKey,
    PortMatch, Rule, Scope, Selection, Stage, Term, Tier,
};
use super::super::tables::HostHook;
use crate::feed::{
    HostEndpoint, HostInterface, Identity, Labels, LocalEndpoint, NetworkSet, NodeAddresses,
    ServiceBackends,
};

/// Labels, and more of them.
fn with(labels: &Labels, more: &[(&str, &str)]) -> Labels {
    let all = labels.iter().chain(more.iter().copied());
    all.map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Everything that was told.
#[derive(Debug, Clone, Default)]
pub(super) struct Cluster {
    pub(super) namespaces: BTreeMap<String, Labels>,
    pub(super) accounts: BTreeMap<(String, String), Labels>,
    /// By UID; the flag says that the pod was deleted while attached.
    pub(super) pods: BTreeMap<String, (Identity, bool)>,
    pub(super) endpoints: BTreeMap<String, LocalEndpoint>,
    pub(super) sets: BTreeMap<(Option<String>, String), NetworkSet>,
    pub(super) services: BTreeMap<(String, String), ServiceBackends>,
    pub(super) nodes: BTreeMap<String, NodeAddresses>,
    pub(super) hosts: BTreeMap<String, HostEndpoint>,
    pub(super) tiers: BTreeMap<String, Tier>,
    pub(super) policies: BTreeMap<PolicyKey, Policy>,
}

/// A flow at one of its ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flow {
    /// The endpoint opens it.
    pub(super) egress: bool,
    /// Interface of the endpoint.
    pub(super) ifname: String,
    /// The other end.
    pub(super) peer: IpAddr,
    pub(super) protocol: u8,
    pub(super) source_port: u16,
    pub(super) port: u16,
}

/// Whether a flow is allowed, logged, and judged otherwise with policies under audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) allowed: bool,
    pub(super) logged: bool,
    pub(super) audited: bool,
}

/// What policies of host endpoints say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Said {
    /// `None` when they say nothing.
    pub(super) allowed: Option<bool>,
    pub(super) logged: bool,
    pub(super) audited: bool,
}

/// One end of a flow.
#[derive(Clone, Copy)]
struct End<'a> {
    pod: Option<&'a Identity>,
    /// The host endpoint that policies select.
    host: Option<&'a HostEndpoint>,
    address: Option<IpAddr>,
    /// The end that policies select.
    own: bool,
}

impl Cluster {
    fn addresses(&self, pod: &Identity) -> Vec<IpAddr> {
        let mut attached = Vec::new();
        let mut here = false;
        for endpoint in self.endpoints.values().filter(|it| *it.uid == *pod.uid) {
            here = true;
            attached.extend(&endpoint.addresses);
        }
        match (here, pod.host_network) {
            (true, _) => attached,
            (false, true) => Vec::new(),
            (false, false) => pod.addresses.to_vec(),
        }
    }

    /// The pod that has an address: one attached here, else the newest.
    pub(super) fn owner(&self, address: IpAddr) -> Option<&Identity> {
        let mut best: Option<(bool, i64, &str, &Identity)> = None;
        for (pod, _) in self.pods.values() {
            if self.addresses(pod).contains(&address) {
                let here = self.endpoints.values().any(|it| *it.uid == *pod.uid);
                let claim = (here, pod.created, &*pod.uid, pod);
                if best.is_none_or(|it| (it.0, it.1, it.2) < (claim.0, claim.1, claim.2)) {
                    best = Some(claim);
                }
            }
        }
        best.map(|it| it.3)
    }

    pub(super) fn judge(&self, flow: &Flow) -> Judged {
        let endpoint = self.endpoints.get(&flow.ifname);
        let Some((pod, _)) = endpoint.and_then(|it| self.pods.get(&it.uid)) else {
            return Judged {
                allowed: false,
                logged: false,
                audited: false,
            };
        };
        let mut own = self.addresses(pod).into_iter();
        // A pod's endpoints are all here, and have one address of a family between them.
        let own = own.find(|address| address.is_ipv4() == flow.peer.is_ipv4());
        let own = End {
            pod: Some(pod),
            host: None,
            address: own,
            own: true,
        };
        let peer = End {
            pod: self.owner(flow.peer),
            host: None,
            address: Some(flow.peer),
            own: false,
        };
        let (allowed, logged) = self.walk(flow, own, peer, false);
        let (with_audit, _) = self.walk(flow, own, peer, true);
        Judged {
            allowed,
            logged,
            audited: allowed != with_audit,
        }
    }

    fn walk(&self, flow: &Flow, own: End<'_>, peer: End<'_>, audit: bool) -> (bool, bool) {
        let (verdict, logged) = self.through(flow, own, peer, audit, None);
        (verdict.unwrap_or(true), logged)
    }

    /// What is said of a flow of this node at a hook of its interface `flow.ifname`, if anything is.
    pub(super) fn judge_host(&self, hook: HostHook, own: IpAddr, flow: &Flow) -> Said {
        let of_this_node = self.hosts.values().filter(|host| host.local);
        let mut named = of_this_node.clone().filter(|host| match &host.interface {
            HostInterface::Named(names) => names.contains(&flow.ifname),
            HostInterface::All => false,
        });
        let mut all = of_this_node.filter(|host| host.interface == HostInterface::All);
        // In the order of their names.
        let Some(host) = named.next().or_else(|| all.next()) else {
            return Said::default();
        };
        let own = End {
            pod: self.owner(own),
            host: Some(host),
            address: Some(own),
            own: true,
        };
        let peer = End {
            pod: self.owner(flow.peer),
            host: None,
            address: Some(flow.peer),
            own: false,
        };
        let (allowed, logged) = self.through(flow, own, peer, false, Some(hook));
        let (with_audit, _) = self.through(flow, own, peer, true, Some(hook));
        let raw = matches!(hook, HostHook::RawIn | HostHook::RawOut);
        // Elsewhere, what nobody forbids may pass.
        let end = |said: Option<bool>| if raw { said } else { said.or(Some(true)) };
        Said {
            allowed,
            logged,
            audited: end(allowed) != end(with_audit),
        }
    }

    fn selects_host(&self, subject: &Selection, host: &HostEndpoint) -> bool {
        match subject {
            Selection::Pods(_) => false,
            Selection::Endpoints(selector) => {
                selector.service_accounts.is_none()
                    && self.in_scope(&selector.scope, None)
                    && holds(selector.labels.expr(), &host.labels)
            }
        }
    }

    /// Whether the policies allow it, if they say anything, and whether a Log rule matched; at a hook of a host endpoint,
    /// or of pods.
    fn through(
        &self,
        flow: &Flow,
        own: End<'_>,
        peer: End<'_>,
        audit: bool,
        hook: Option<HostHook>,
    ) -> (Option<bool>, bool) {
        let stages: &[Stage] = match hook {
            None | Some(HostHook::LocalIn | HostHook::LocalOut) => {
                &[Stage::Normal, Stage::ApplyOnForward]
            }
            Some(HostHook::ForwardIn | HostHook::ForwardOut) => &[Stage::ApplyOnForward],
            Some(HostHook::PreDnat) => &[Stage::PreDnat],
            Some(HostHook::RawIn | HostHook::RawOut) => &[Stage::DoNotTrack],
        };
        let goes_on = stages == [Stage::PreDnat] || stages == [Stage::DoNotTrack];
        let mut selecting: Vec<(Tier, &Policy)> = Vec::new();
        for policy in self.policies.values() {
            let rules = if flow.egress {
                &policy.egress
            } else {
                &policy.ingress
            };
            let enforced = audit || policy.enforcement == Enforcement::Enforce;
            let here = stages.contains(&policy.stage);
            let selects = || match own.host {
                Some(host) => self.selects_host(&policy.subject, host),
                None => self.selects(&policy.subject, own.pod),
            };
            if rules.is_some() && enforced && here && selects() {
                let undeclared = Tier {
                    name: policy.tier.clone(),
                    order: super::super::model::Order(f64::INFINITY),
                    default_action: Action::Deny,
                };
                let tier = self.tiers.get(&policy.tier).cloned();
                selecting.push((tier.unwrap_or(undeclared), policy));
            }
        }
        selecting.sort_by(|(a, p), (b, q)| {
            a.order
                .0
                .total_cmp(&b.order.0)
                .then(a.name.cmp(&b.name))
                .then(p.order.0.total_cmp(&q.order.0))
                .then(p.key.cmp(&q.key))
        });
        let mut logged = false;
        let mut at = 0;
        while at < selecting.len() {
            let tier = selecting[at].0.clone();
            let end = selecting[at..]
                .iter()
                .position(|(other, _)| other.name != tier.name)
                .map_or(selecting.len(), |more| at + more);
            let mut action = if goes_on {
                Action::Pass
            } else {
                tier.default_action
            };
            'tier: for (_, policy) in &selecting[at..end] {
                let rules = if flow.egress {
                    &policy.egress
                } else {
                    &policy.ingress
                };
                for rule in rules.iter().flatten() {
                    if self.matches(rule, flow, own, peer) {
                        if rule.action == Action::Log {
                            logged = true;
                        } else {
                            action = rule.action;
                            break 'tier;
                        }
                    }
                }
            }
            match action {
                Action::Allow => return (Some(true), logged),
                Action::Deny => return (Some(false), logged),
                _ => at = end,
            }
        }
        (None, logged)
    }

    fn matches(&self, rule: &Rule, flow: &Flow, own: End<'_>, peer: End<'_>) -> bool {
        let (source, destination) = if flow.egress {
            (own, peer)
        } else {
            (peer, own)
        };
        let side = |terms: &[Term<PeerList>], end: End<'_>| {
            let mut holds = true;
            for term in terms {
                let any = term.any.iter().any(|entry| self.is_peer(entry, end));
                holds &= any != term.negated;
            }
            holds
        };
        let ports = |terms: &[Term<Vec<PortMatch>>], end: End<'_>, port: u16| {
            let mut holds = true;
            for term in terms {
                let mut any = false;
                for entry in &term.any {
                    any |= self.is_port(entry, end, flow.protocol, port);
                }
                holds &= any != term.negated;
            }
            holds
        };
        side(&rule.peers, peer)
            && side(&rule.own, own)
            && ports(&rule.traffic, destination, flow.port)
            && ports(&rule.source_ports, source, flow.source_port)
    }

    fn selects(&self, subject: &Selection, pod: Option<&Identity>) -> bool {
        let Some(pod) = pod.filter(|pod| !pod.host_network) else {
            return false;
        };
        match subject {
            Selection::Pods(selector) => {
                self.is_pod(&selector.namespaces, &selector.pods, Some(pod))
            }
            Selection::Endpoints(selector) => self.is_labelled_pod(selector, pod),
        }
    }

    fn is_pod(
        &self,
        namespaces: &NamespaceSelector,
        pods: &LabelSelector,
        pod: Option<&Identity>,
    ) -> bool {
        let Some(pod) = pod.filter(|pod| !pod.host_network) else {
            return false;
        };
        let namespace = match namespaces {
            NamespaceSelector::Named(name) => **name == *pod.namespace,
            NamespaceSelector::Labels(selector) => match self.namespaces.get(&*pod.namespace) {
                Some(labels) => required(selector, labels),
                None => selector.is_empty(),
            },
        };
        namespace && required(pods, &pod.labels)
    }

    fn is_labelled_pod(&self, selector: &EndpointSelector, pod: &Identity) -> bool {
        if pod.host_network || !self.in_scope(&selector.scope, Some(&pod.namespace)) {
            return false;
        }
        if let Some(accounts) = &selector.service_accounts {
            let account = &*pod.service_account;
            let key = (pod.namespace.to_string(), account.to_owned());
            let labels = self.accounts.get(&key).cloned().unwrap_or_default();
            let labels = with(&labels, &[("margay.io/name", account)]);
            let named = accounts.names.is_empty() || accounts.names.contains(account);
            if !named || !holds(accounts.labels.expr(), &labels) {
                return false;
            }
        }
        let namespace = ("margay.io/namespace", &*pod.namespace);
        let account = ("margay.io/serviceaccount", &*pod.service_account);
        let labels = with(&pod.labels, &[namespace, account]);
        holds(selector.labels.expr(), &labels)
    }

    fn in_scope(&self, scope: &Scope, namespace: Option<&str>) -> bool {
        match scope {
            Scope::Anywhere => true,
            Scope::Global => namespace.is_none(),
            Scope::Namespace(name) => namespace == Some(name.as_str()),
            Scope::Namespaces(selector) => namespace.is_some_and(|namespace| {
                let Some(labels) = self.namespaces.get(namespace) else {
                    return *selector == Selector::all();
                };
                let labels = with(labels, &[("margay.io/name", namespace)]);
                holds(selector.expr(), &labels)
            }),
        }
    }

    fn is_peer(&self, entry: &Peer, end: End<'_>) -> bool {
        match entry {
            Peer::Pods(selector) => self.is_pod(&selector.namespaces, &selector.pods, end.pod),
            Peer::Endpoints(selector) => {
                end.pod
                    .is_some_and(|pod| self.is_labelled_pod(selector, pod))
                    || end
                        .address
                        .is_some_and(|it| self.is_set_or_host(selector, it))
            }
            Peer::Net { cidr, except } => end.address.is_some_and(|address| {
                inside(*cidr, address) && !except.iter().any(|part| inside(*part, address))
            }),
            Peer::Nodes(selector) => end.address.is_some_and(|address| {
                let mut nodes = self.nodes.values();
                nodes.any(|node| {
                    node.addresses.contains(&address) && required(selector, &node.labels)
                })
            }),
            Peer::Service { namespace, name } => end.address.is_some_and(|address| {
                let key = (namespace.clone(), name.clone());
                let ports = self.services.get(&key).map(|it| it.ports.clone());
                ports.is_some_and(|ports| ports.iter().any(|it| it.0 == address))
            }),
        }
    }

    fn is_set_or_host(&self, selector: &EndpointSelector, address: IpAddr) -> bool {
        if selector.service_accounts.is_some() {
            return false;
        }
        for set in self.sets.values() {
            let namespace = set.namespace.as_deref();
            let automatic = namespace.map(|it| ("margay.io/namespace", it));
            let labels = with(&set.labels, automatic.as_slice());
            if set.nets.iter().any(|net| inside(*net, address))
                && self.in_scope(&selector.scope, set.namespace.as_deref())
                && holds(selector.labels.expr(), &labels)
            {
                return true;
            }
        }
        self.hosts.values().any(|host| {
            host.addresses.contains(&address)
                && self.in_scope(&selector.scope, None)
                && holds(selector.labels.expr(), &host.labels)
        })
    }

    fn is_port(&self, entry: &PortMatch, end: End<'_>, protocol: u8, port: u16) -> bool {
        match entry {
            PortMatch::Protocol(wanted) => *wanted == protocol,
            PortMatch::Ports {
                protocol: wanted,
                first,
                last,
            } => *wanted == protocol && *first <= port && port <= *last,
            PortMatch::Icmp {
                protocol: wanted,
                kind,
                code,
            } => {
                let asked = u16::from(*kind) << 8;
                *wanted == protocol
                    && match code {
                        Some(code) => port == asked | u16::from(*code),
                        None => port & 0xff00 == asked,
                    }
            }
            PortMatch::Named {
                protocol: wanted,
                name,
            } => {
                let pod = end.pod.filter(|_| end.host.is_none());
                let pod = pod.into_iter().flat_map(|pod| &*pod.named_ports);
                let hosts = self.hosts.values().filter(|host| {
                    let mut address = end.address.iter();
                    !end.own && address.any(|address| host.addresses.contains(address))
                });
                let hosts = hosts.chain(end.host);
                let mut ports = pod.chain(hosts.flat_map(|host| &host.named_ports));
                *wanted == protocol
                    && ports
                        .any(|it| it.name == *name && it.protocol == protocol && it.port == port)
            }
            // Legal in egress destinations only.
            PortMatch::Service { .. } if end.own => false,
            PortMatch::Service { namespace, name } => end.address.is_some_and(|address| {
                let key = (namespace.clone(), name.clone());
                let service = self.services.get(&key);
                service.is_some_and(|it| it.ports.contains(&(address, protocol, port)))
            }),
        }
    }
}

fn inside(net: IpNetwork, address: IpAddr) -> bool {
    match (net, address) {
        (IpNetwork::V4(net), IpAddr::V4(address)) => {
            let bits = net.ip().to_bits() ^ address.to_bits();
            bits.checked_shr(32 - u32::from(net.prefix())).unwrap_or(0) == 0
        }
        (IpNetwork::V6(net), IpAddr::V6(address)) => {
            let bits = net.ip().to_bits() ^ address.to_bits();
            bits.checked_shr(128 - u32::from(net.prefix())).unwrap_or(0) == 0
        }
        _ => false,
    }
}

fn required(selector: &LabelSelector, labels: &Labels) -> bool {
    selector.requirements().all(|it| {
        let value = labels.get(&it.key);
        let among = |values: &std::collections::BTreeSet<String>| {
            value.is_some_and(|value| values.contains(value))
        };
        match &it.test {
            labels::Test::In(values) => among(values),
            labels::Test::NotIn(values) => !among(values),
            labels::Test::Exists => value.is_some(),
            labels::Test::DoesNotExist => value.is_none(),
        }
    })
}

fn holds(expr: &Expr, labels: &Labels) -> bool {
    match expr {
        Expr::All => true,
        Expr::Has(key) => labels.get(key).is_some(),
        Expr::Not(inner) => !holds(inner, labels),
        Expr::And(parts) => parts.iter().all(|part| holds(part, labels)),
        Expr::Or(parts) => parts.iter().any(|part| holds(part, labels)),
        Expr::Test { key, test } => match (labels.get(key), test) {
            (None, Test::Differs(_) | Test::NotIn(_)) => true,
            (None, _) => false,
            (Some(value), Test::Equals(it)) => value == it,
            (Some(value), Test::Differs(it)) => value != it,
            (Some(value), Test::In(set)) => set.contains(value),
            (Some(value), Test::NotIn(set)) => !set.contains(value),
            (Some(value), Test::Contains(it)) => value.contains(it.as_str()),
            (Some(value), Test::StartsWith(it)) => value.starts_with(it.as_str()),
            (Some(value), Test::EndsWith(it)) => value.ends_with(it.as_str()),
        },
    }
}
