//! `BGPPeer`: a speaker outside the cluster that nodes have a session with.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::bgp_configuration::{as_number, hold_time};
use crate::condition::Condition;
use crate::error::FieldError;
use crate::net::Family;
use crate::selector::Selector;

/// The port of BGP (RFC 4271).
pub const PORT: u16 = 179;

/// A BGP speaker that one node, the selected nodes, or all nodes have a session with.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "margay.io",
    version = "v1",
    kind = "BGPPeer",
    plural = "bgppeers",
    shortname = "peer",
    category = "margay",
    status = "BGPPeerStatus",
    derive = "PartialEq",
    doc = "A BGP speaker that nodes have a session with.",
    printcolumn(name = "Peer", type_ = "string", json_path = ".spec.peerIP"),
    printcolumn(name = "AS", type_ = "integer", json_path = ".spec.asNumber"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".spec.nodeSelector"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    validation = Rule::new("!has(self.node) || !has(self.nodeSelector)")
        .message("set node (one node) or nodeSelector (those it selects), not both; neither means every node"),
    validation = Rule::new("!has(self.holdTime) || self.holdTime == 0 || self.holdTime >= 3")
        .message("holdTime is 0 (no keepalives) or at least 3 seconds (RFC 4271)")
)]
#[serde(rename_all = "camelCase")]
pub struct BGPPeerSpec {
    /// Name of the one node that has the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node: Option<String>,
    /// Nodes that have the session, as a selector over their labels: rack == 'a'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub node_selector: Option<String>,
    /// Address of the peer: 192.0.2.1 or 2001:db8::1; with a port, 192.0.2.1:1179, an IPv6 address then in brackets.
    #[serde(rename = "peerIP")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new(r"isIP(self) || (self.matches('^[0-9.]+:[1-9][0-9]{0,4}$') && isIP(self.split(':')[0]) && int(self.split(':')[1]) <= 65535) || (self.matches('^\\[[0-9a-fA-F:.]+\\]:[1-9][0-9]{0,4}$') && isIP(self.split(']')[0].split('[')[1]) && int(self.split(']:')[1]) <= 65535)")
        .message("peerIP is an address with an optional port: write it as 192.0.2.1, 192.0.2.1:1179, 2001:db8::1 or [2001:db8::1]:1179"))]
    pub peer_ip: String,
    /// AS number of the peer.
    #[schemars(range(min = 1, max = 4294967295i64))]
    pub as_number: i64,
    /// Hold time offered to this peer, seconds; that of the BGPConfiguration when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub hold_time: Option<i32>,
    /// Own address of the session; the route to the peer decides when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    #[x_kube(validation = Rule::new("isIP(self)").message("localAddress is an address of the node: write it as 192.0.2.2 or 2001:db8::2"))]
    pub local_address: Option<String>,
    /// Address families exchanged; that of peerIP when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub families: Option<Vec<PeerFamily>>,
    /// Wait for the peer to connect.
    #[serde(default)]
    pub passive: bool,
}

/// An address family exchanged with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum PeerFamily {
    Ipv4,
    Ipv6,
}

impl From<PeerFamily> for Family {
    fn from(family: PeerFamily) -> Self {
        match family {
            PeerFamily::Ipv4 => Self::V4,
            PeerFamily::Ipv6 => Self::V6,
        }
    }
}

/// Whether the peer is configured on its nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BGPPeerStatus {
    /// Accepted is False when the spec is not understood.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// Nodes that have a session with a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nodes {
    /// Every node.
    All,
    /// The node of that name.
    Named(String),
    /// Nodes whose labels match.
    Selected(Selector),
}

impl Nodes {
    /// Whether the node of that name and with those labels is one of them.
    pub fn includes(
        &self,
        node: &str,
        labels: &std::collections::BTreeMap<String, String>,
    ) -> bool {
        match self {
            Self::All => true,
            Self::Named(name) => name == node,
            Self::Selected(selector) => selector.matches(labels),
        }
    }
}

/// A [`BGPPeer`] that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Name of the object.
    pub name: String,
    /// Nodes that have the session.
    pub nodes: Nodes,
    /// Address of the peer.
    pub address: IpAddr,
    /// TCP port of the peer.
    pub port: u16,
    /// AS number of the peer.
    pub as_number: u32,
    /// Hold time offered, seconds; None is that of the configuration.
    pub hold_time: Option<u16>,
    /// Own address of the session; None leaves it to the route.
    pub local_address: Option<IpAddr>,
    /// Families exchanged; never empty.
    pub families: BTreeSet<Family>,
    /// Only the peer connects.
    pub passive: bool,
}

impl TryFrom<&BGPPeer> for Peer {
    type Error = FieldError;

    fn try_from(object: &BGPPeer) -> Result<Self, FieldError> {
        let spec = &object.spec;
        let nodes = match (&spec.node, &spec.node_selector) {
            (None, None) => Nodes::All,
            (Some(node), None) => Nodes::Named(node.clone()),
            (None, Some(text)) => Nodes::Selected(
                text.parse()
                    .map_err(|e| FieldError::new("spec.nodeSelector", e))?,
            ),
            (Some(_), Some(_)) => {
                return Err(FieldError::new(
                    "spec.nodeSelector",
                    "node is set too: remove one of the two",
                ));
            }
        };
        let (address, port) = endpoint(&spec.peer_ip)?;
        let local_address = match &spec.local_address {
            None => None,
            Some(text) => {
                let local: IpAddr = text.parse().map_err(|_| {
                    FieldError::new(
                        "spec.localAddress",
                        format!("{text:?} is no address: write it as 192.0.2.2"),
                    )
                })?;
                if Family::of(local) != Family::of(address) {
                    let problem =
                        format!("{local} and the peer's {address} are of different families");
                    return Err(FieldError::new("spec.localAddress", problem));
                }
                Some(local)
            }
        };
        let families = match spec.families.as_deref() {
            None | Some([]) => BTreeSet::from([Family::of(address)]),
            Some(listed) => listed.iter().map(|f| Family::from(*f)).collect(),
        };
        Ok(Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            nodes,
            address,
            port,
            as_number: as_number("spec.asNumber", spec.as_number)?,
            hold_time: spec
                .hold_time
                .map(|given| hold_time("spec.holdTime", given))
                .transpose()?,
            local_address,
            families,
            passive: spec.passive,
        })
    }
}

/// `ip`, `ip4:port` or `[ip6]:port`.
fn endpoint(text: &str) -> Result<(IpAddr, u16), FieldError> {
    let error = |problem: String| FieldError::new("spec.peerIP", problem);
    let (address, port) = if let Ok(address) = text.parse::<IpAddr>() {
        (address, PORT)
    } else if let Ok(socket) = text.parse::<SocketAddr>() {
        (socket.ip(), socket.port())
    } else {
        return Err(error(format!(
            "{text:?} is no address with an optional port: write it as 192.0.2.1:1179 or [2001:db8::1]:1179"
        )));
    };
    if port == 0 {
        return Err(error(
            "port 0 cannot be connected to: set 1 to 65535".to_owned(),
        ));
    }
    if address.is_unspecified() || address.is_multicast() {
        return Err(error(format!("{address} is not the address of one host")));
    }
    Ok((address, port))
}

#[cfg(test)]
mod tests;
