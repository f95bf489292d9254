//! What felix is told about the cluster, as plain data.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

pub use labels::Labels;

mod labels;

/// A pod as policy sees it, wherever it runs. What many pods have alike is shared by copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.serviceAccountName`.
    pub service_account: Arc<str>,
    /// `metadata.creationTimestamp` in seconds since 1970: the newer of two claims to one address wins.
    pub created: i64,
    /// `status.podIPs`. While the pod is attached on this node the endpoint's addresses count instead.
    pub addresses: Arc<[IpAddr]>,
    /// Every named container port. A pod may give one name to several ports.
    pub named_ports: Arc<[NamedPort]>,
    /// `spec.hostNetwork`: such a pod is never a subject, and no selector matches it as a peer.
    pub host_network: bool,
}

/// A container port with a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// Name of the port.
    pub name: String,
    /// IP protocol number.
    pub protocol: u8,
    /// Port number.
    pub port: u16,
}

/// An attachment on this node: what is behind one host veth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// UID of the pod.
    pub uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Addresses given to the attachment.
    pub addresses: Vec<IpAddr>,
}

/// A ServiceAccount, for the labels that select its pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Labels,
}

/// Addresses under common labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSet {
    /// `metadata.namespace`, `None` for a GlobalNetworkSet.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.nets`; host bits do not matter, blocks may overlap.
    pub nets: Vec<IpNetwork>,
}

/// Who is behind a Service, from all of its EndpointSlices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceBackends {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// Address, IP protocol number and port of every backend.
    pub ports: Vec<(IpAddr, u8, u16)>,
}

/// A Node as a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddresses {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `status.addresses` that are addresses.
    pub addresses: Vec<IpAddr>,
}

/// Interfaces of a node under policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEndpoint {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// It belongs to this node; those of other nodes are peers only.
    pub local: bool,
    /// Nobody made an object for it: one that somebody did comes before it.
    pub automatic: bool,
    /// Which interfaces.
    pub interface: HostInterface,
    /// `spec.expectedIPs`: the addresses by which it is a peer.
    pub addresses: Vec<IpAddr>,
    /// Every named port.
    pub named_ports: Vec<NamedPort>,
}

/// The interfaces of a host endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostInterface {
    /// Every one but those of pods. An interface with a host endpoint of its own belongs to that one.
    All,
    /// Those with these names.
    Named(BTreeSet<String>),
}

/// A port that no policy of host endpoints closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failsafe {
    /// IP protocol number.
    pub protocol: u8,
    /// Port number: of the node for what comes in, elsewhere for what goes out.
    pub port: u16,
    /// Only from, or to, here.
    pub net: Option<IpNetwork>,
}
