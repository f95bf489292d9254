//! Policies as the evaluator knows them, whatever kind of object they came from.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crds::selector::Selector;
use ipnetwork::IpNetwork;

use super::labels::LabelSelector;
use super::tables::Direction;

/// Numbers of the IP protocols that policy names.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMP6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite, RFC 3828.
    pub const UDP_LITE: u8 = 136;
}

/// The kinds of objects that become policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1` NetworkPolicy.
    KubernetesNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetworkPolicy,
    /// Our NetworkPolicy.
    NetworkPolicy,
    /// Our GlobalNetworkPolicy.
    GlobalNetworkPolicy,
}

/// Names one policy object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// `metadata.namespace`; empty for a kind that has none.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Kind of the object.
    pub kind: PolicyKind,
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// Place in a sequence, lower first. Any number, as in Calico's `order`, so that there is always room between two.
#[derive(Debug, Clone, Copy)]
pub struct Order(pub f64);

impl Ord for Order {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Order {}

/// A stage of the evaluation: the policies inside decide before those of later tiers are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Name that policies refer to.
    pub name: String,
    /// Place among the tiers.
    pub order: Order,
    /// What happens to a flow that a policy of the tier selects and no rule of the tier decides.
    pub default_action: Action,
}

/// Name of the tier of Kubernetes NetworkPolicies.
pub const DEFAULT_TIER: &str = "default";
/// Place of that tier among the tiers, as in Calico.
pub const DEFAULT_TIER_ORDER: Order = Order(1_000_000.0);
/// Place of a Kubernetes NetworkPolicy inside its tier.
pub const NETWORK_POLICY_ORDER: Order = Order(1000.0);

/// What a rule does with a flow that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The flow may pass in this direction; nothing else is asked.
    Allow,
    /// The flow may not pass.
    Deny,
    /// The rest of the tier is skipped, the next tier decides.
    Pass,
    /// The flow is noted, and the next rule is asked.
    Log,
}

/// Whether a policy decides anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Enforcement {
    /// It does.
    #[default]
    Enforce,
    /// It does not: flows that it would judge otherwise are noted.
    Audit,
}

/// Where on the way of a packet a policy is asked. All but `Normal` are for host endpoints only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Flows of pods; flows that end in the node itself.
    #[default]
    Normal,
    /// Those, and flows that the node forwards through its host endpoints.
    ApplyOnForward,
    /// Flows that come in through a host endpoint, before their destination is translated. Ingress only.
    PreDnat,
    /// Packets of a host endpoint before connection tracking: what is allowed is not tracked at all.
    DoNotTrack,
}

impl Stage {
    /// Whether a policy of this stage is asked about flows of pods.
    #[must_use]
    pub const fn is_for_pods(self) -> bool {
        matches!(self, Self::Normal | Self::ApplyOnForward)
    }
}

/// What a policy selects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selection {
    /// Pods, as Kubernetes selects them.
    Pods(PodSelector),
    /// Pods and host endpoints.
    Endpoints(EndpointSelector),
}

/// A policy, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The object.
    pub key: PolicyKey,
    /// `metadata.uid`, empty when the object has none.
    pub uid: String,
    /// `metadata.generation`, 0 when the object has none.
    pub generation: i64,
    /// Name of its tier. Policies of a tier nobody declared come after all others, with default action Deny.
    pub tier: String,
    /// Place inside the tier; equal orders go by key.
    pub order: Order,
    /// What it selects.
    pub subject: Selection,
    /// Whether it decides anything.
    pub enforcement: Enforcement,
    /// Where it is asked.
    pub stage: Stage,
    /// Rules for flows that selected endpoints open; `None` leaves that direction alone.
    pub egress: Option<Vec<Rule>>,
    /// Rules for flows opened to selected endpoints; `None` leaves that direction alone.
    pub ingress: Option<Vec<Rule>>,
}

impl Policy {
    /// The rules of one direction.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Egress => self.egress.as_deref(),
            Direction::Ingress => self.ingress.as_deref(),
        }
    }
}

/// A condition that may be turned around.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term<T> {
    /// Holds when no member matches, instead of when any does.
    pub negated: bool,
    /// The members.
    pub any: T,
}

impl<T> Term<T> {
    /// Holds when any member matches.
    pub const fn is(any: T) -> Self {
        Self {
            negated: false,
            any,
        }
    }

    /// Holds when no member matches.
    pub const fn not(any: T) -> Self {
        Self { negated: true, any }
    }
}

/// One rule: matches when all of its terms hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What to do on a match.
    pub action: Action,
    /// About the other side: the source of ingress, the destination of egress. No term matches every peer.
    pub peers: Vec<Term<PeerList>>,
    /// About our own side: the destination of ingress, the source of egress.
    pub own: Vec<Term<PeerList>>,
    /// About the protocol and the destination: `protocol`, ICMP types, ports. No term matches everything, a term with
    /// no member nothing.
    pub traffic: Vec<Term<Vec<PortMatch>>>,
    /// About the protocol and the source's port; names are those which the source gives its ports.
    pub source_ports: Vec<Term<Vec<PortMatch>>>,
}

impl Rule {
    /// A rule that matches everything.
    #[must_use]
    pub const fn new(action: Action) -> Self {
        Self {
            action,
            peers: Vec::new(),
            own: Vec::new(),
            traffic: Vec::new(),
            source_ports: Vec::new(),
        }
    }
}

/// A union of peers. Sorted and without duplicates, so that equal lists of different rules are one predicate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerList(Arc<[Peer]>);

impl PeerList {
    /// The union of these peers; an empty list matches nobody.
    #[must_use]
    pub fn new(mut peers: Vec<Peer>) -> Self {
        peers.sort();
        peers.dedup();
        Self(peers.into())
    }

    /// The members.
    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.0.iter()
    }
}

/// One entry of a rule's `from` or `to`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Pods, as Kubernetes selects them.
    Pods(PodSelector),
    /// Pods, host endpoints and network sets.
    Endpoints(EndpointSelector),
    /// Addresses of Nodes by labels.
    Nodes(LabelSelector),
    /// The addresses behind a Service, whatever the port.
    Service {
        /// Namespace of the Service.
        namespace: String,
        /// Name of the Service.
        name: String,
    },
    /// Addresses, of pods or not, without the exceptions.
    Net {
        /// The block.
        cidr: IpNetwork,
        /// Parts of the block that do not match.
        except: Vec<IpNetwork>,
    },
}

/// Pods by the namespace they are in and by their own labels; both must match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodSelector {
    /// Which namespaces.
    pub namespaces: NamespaceSelector,
    /// Which pods in them.
    pub pods: LabelSelector,
}

/// Namespaces by name or by labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceSelector {
    /// The one with this name.
    Named(String),
    /// Those with matching labels.
    Labels(LabelSelector),
}

/// Pods, host endpoints and network sets: all parts must match. A pod in the host's network is never selected.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointSelector {
    /// Where.
    pub scope: Scope,
    /// Their own labels and the automatic ones.
    pub labels: Selector,
    /// Only pods that run as one of these.
    pub service_accounts: Option<ServiceAccounts>,
}

/// Where an [`EndpointSelector`] looks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Everywhere: pods, network sets and host endpoints.
    Anywhere,
    /// Pods and network sets in the namespace with this name.
    Namespace(String),
    /// Pods and network sets in namespaces with matching labels.
    Namespaces(Selector),
    /// What has no namespace: host endpoints and global network sets.
    Global,
}

/// Service accounts of the pod's own namespace; both parts must match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAccounts {
    /// With one of these names; empty for any.
    pub names: BTreeSet<String>,
    /// With matching labels; one that is not known has none but the automatic.
    pub labels: Selector,
}

/// One entry of a rule's `ports`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortMatch {
    /// Everything of an IP protocol.
    Protocol(u8),
    /// Destination ports of a protocol, from first to last.
    Ports {
        /// IP protocol number.
        protocol: u8,
        /// Lowest port.
        first: u16,
        /// Highest port.
        last: u16,
    },
    /// The ports which the endpoint on that side gives this name.
    Named {
        /// IP protocol number.
        protocol: u8,
        /// Name of the port.
        name: String,
    },
    /// The protocols and ports under which the other side, as the destination of egress, serves a Service. On our own
    /// side it matches nothing.
    Service {
        /// Namespace of the Service.
        namespace: String,
        /// Name of the Service.
        name: String,
    },
    /// A type of ICMP messages.
    Icmp {
        /// [`protocol::ICMP`] or [`protocol::ICMP6`].
        protocol: u8,
        /// Type of the message. A flow has the type of its request.
        kind: u8,
        /// Code of the message, `None` for any.
        code: Option<u8>,
    },
}

impl Selection {
    /// The only namespace it can select in.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Pods(selector) => selector.namespaces.named(),
            Self::Endpoints(selector) => selector.scope.namespace(),
        }
    }
}

impl Scope {
    /// The only namespace it looks in.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Namespace(name) => Some(name),
            _ => None,
        }
    }
}

impl NamespaceSelector {
    /// The only namespace it can select.
    #[must_use]
    pub fn named(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            Self::Labels(_) => None,
        }
    }
}
