//! Policies in words: what a rule matches, as a person would say it.

use std::fmt::{self, Display, Formatter};

use super::labels::{LabelSelector, Requirement, Test};
use super::model::{
    Action, EndpointSelector, NamespaceSelector, Peer, PeerList, PodSelector, PolicyKind,
    PortMatch, Rule, Scope, Selection, Term, protocol,
};

/// Members of a list that are spelled out; the others are counted.
const SPELLED: usize = 6;

/// Joins what there is; past [`SPELLED`] members only their number is said.
fn joined<T: Display>(items: impl IntoIterator<Item = T>, between: &str, none: &str) -> String {
    let items: Vec<T> = items.into_iter().collect();
    if items.is_empty() {
        return none.to_owned();
    }
    let spelled: Vec<String> = items
        .iter()
        .take(SPELLED)
        .map(ToString::to_string)
        .collect();
    let mut text = spelled.join(between);
    if items.len() > SPELLED {
        text.push_str(&format!("{between}{} more", items.len() - SPELLED));
    }
    text
}

impl Display for PolicyKind {
    /// As kubectl would be asked for it.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KubernetesNetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::NetworkPolicy => "NetworkPolicy.margay.io",
            Self::GlobalNetworkPolicy => "GlobalNetworkPolicy",
        })
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "Allow",
            Self::Deny => "Deny",
            Self::Pass => "Pass",
            Self::Log => "Log",
        })
    }
}

impl Display for Rule {
    /// What it matches: "from pods app=web in namespace shop; TCP 80".
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let peers = terms(&self.peers, "any address");
        write!(f, "{peers}; {}", terms(&self.traffic, "any traffic"))?;
        if !self.source_ports.is_empty() {
            write!(f, "; source port {}", terms(&self.source_ports, ""))?;
        }
        if !self.own.is_empty() {
            write!(f, "; own side {}", terms(&self.own, ""))?;
        }
        Ok(())
    }
}

fn terms<T>(terms: &[Term<T>], none: &str) -> String
where
    Term<T>: Display,
{
    joined(terms, " and ", none)
}

impl Display for Term<PeerList> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.negated { "not " } else { "" })?;
        self.any.fmt(f)
    }
}

impl Display for Term<Vec<PortMatch>> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.negated { "not " } else { "" })?;
        f.write_str(&joined(&self.any, ", ", "nothing"))
    }
}

impl Display for PeerList {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(self.iter(), " or ", "nobody"))
    }
}

impl Display for Peer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods(selector) => selector.fmt(f),
            Self::Endpoints(selector) => selector.fmt(f),
            Self::Net { cidr, except } if except.is_empty() => cidr.fmt(f),
            Self::Net { cidr, except } => {
                write!(f, "{cidr} except {}", joined(except, ", ", ""))
            }
            Self::Nodes(labels) if labels.is_empty() => f.write_str("all nodes"),
            Self::Nodes(labels) => write!(f, "nodes with {labels}"),
            Self::Service { namespace, name } => write!(f, "Service {namespace}/{name}"),
        }
    }
}

impl Display for PodSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.pods.is_empty() {
            true => f.write_str("all pods")?,
            false => write!(f, "pods with {}", self.pods)?,
        }
        match &self.namespaces {
            NamespaceSelector::Named(name) => write!(f, " of namespace {name}"),
            NamespaceSelector::Labels(labels) if labels.is_empty() => {
                f.write_str(" of any namespace")
            }
            NamespaceSelector::Labels(labels) => write!(f, " of namespaces with {labels}"),
        }
    }
}

impl Display for EndpointSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "endpoints with {}", self.labels)?;
        match &self.scope {
            Scope::Anywhere => {}
            Scope::Namespace(name) => write!(f, " of namespace {name}")?,
            Scope::Namespaces(labels) => write!(f, " of namespaces with {labels}")?,
            Scope::Global => f.write_str(" without a namespace")?,
        }
        let Some(accounts) = &self.service_accounts else {
            return Ok(());
        };
        match accounts.names.is_empty() {
            true => write!(f, " as a service account with {}", accounts.labels),
            false => write!(
                f,
                " as service account {}",
                joined(&accounts.names, " or ", "")
            ),
        }
    }
}

impl Display for Selection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods(selector) => selector.fmt(f),
            Self::Endpoints(selector) => selector.fmt(f),
        }
    }
}

impl Display for LabelSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(self.requirements(), ",", "any labels"))
    }
}

impl Display for Requirement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.test {
            Test::In(values) if values.len() == 1 => {
                write!(f, "{key}={}", joined(values, "", ""))
            }
            Test::In(values) => write!(f, "{key} in ({})", joined(values, ",", "")),
            Test::NotIn(values) => write!(f, "{key} not in ({})", joined(values, ",", "")),
            Test::Exists => f.write_str(key),
            Test::DoesNotExist => write!(f, "!{key}"),
        }
    }
}

impl Display for PortMatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(number) => write!(f, "all {}", protocol_name(*number)),
            Self::Ports {
                protocol,
                first,
                last,
            } if first == last => write!(f, "{} {first}", protocol_name(*protocol)),
            Self::Ports {
                protocol,
                first,
                last,
            } => write!(f, "{} {first}-{last}", protocol_name(*protocol)),
            Self::Named { protocol, name } => {
                write!(f, "{} port named {name}", protocol_name(*protocol))
            }
            Self::Icmp {
                protocol,
                kind,
                code,
            } => {
                write!(f, "{} type {kind}", protocol_name(*protocol))?;
                match code {
                    Some(code) => write!(f, " code {code}"),
                    None => Ok(()),
                }
            }
            Self::Service { namespace, name } => {
                write!(f, "the ports of Service {namespace}/{name}")
            }
        }
    }
}

/// Name of an IP protocol, or its number when policy has no name for it.
#[must_use]
pub fn protocol_name(number: u8) -> String {
    match number {
        protocol::ICMP => "ICMP".to_owned(),
        protocol::TCP => "TCP".to_owned(),
        protocol::UDP => "UDP".to_owned(),
        protocol::ICMP6 => "ICMPv6".to_owned(),
        protocol::SCTP => "SCTP".to_owned(),
        protocol::UDP_LITE => "UDPLite".to_owned(),
        other => format!("protocol {other}"),
    }
}

/// A protocol with its port, or of ICMP with type and code.
#[must_use]
pub fn traffic(protocol: u8, port: u16) -> String {
    let name = protocol_name(protocol);
    let [kind, code] = port.to_be_bytes();
    match protocol {
        protocol::ICMP | protocol::ICMP6 => format!("{name} type {kind} code {code}"),
        protocol::TCP | protocol::UDP | protocol::SCTP | protocol::UDP_LITE => {
            format!("{name} {port}")
        }
        _ => name,
    }
}
