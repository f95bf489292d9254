//! What felix is told about the cluster, as plain data.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Labels of an object, or any other string map of the Kubernetes API.
pub type Labels = BTreeMap<String, String>;

/// A pod as policy sees it, wherever it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `metadata.creationTimestamp` in seconds since 1970: the newer of two claims to one address wins.
    pub created: i64,
    /// `status.podIPs`. While the pod is attached on this node the endpoint's addresses count instead.
    pub addresses: Vec<IpAddr>,
    /// Every named container port. A pod may give one name to several ports.
    pub named_ports: Vec<NamedPort>,
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
