//! Policies as the evaluator knows them, whatever kind of object they came from.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

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
}

/// The kinds of objects that become policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
}

/// Names one policy object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Kind of the object.
    pub kind: PolicyKind,
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
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
}

/// A policy, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The object.
    pub key: PolicyKey,
    /// `metadata.generation`, 0 when the object has none.
    pub generation: i64,
    /// Name of its tier. Policies of a tier nobody declared come after all others, with default action Deny.
    pub tier: String,
    /// Place inside the tier; equal orders go by key.
    pub order: Order,
    /// The pods it selects.
    pub subject: PodSelector,
    /// Rules for flows that selected pods open; `None` leaves that direction alone.
    pub egress: Option<Vec<Rule>>,
    /// Rules for flows opened to selected pods; `None` leaves that direction alone.
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

/// One rule: matches when the peer is in the list and the protocol and port are among the ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What to do on a match.
    pub action: Action,
    /// The whole `from` or `to`; `None` matches every peer.
    pub peers: Option<PeerList>,
    /// `None` matches every protocol and port, an empty list none.
    pub ports: Option<Vec<PortMatch>>,
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
    /// Pods by labels.
    Pods(PodSelector),
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
    /// The ports which the pod that is the destination gives this name.
    Named {
        /// IP protocol number.
        protocol: u8,
        /// Name of the container port.
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
