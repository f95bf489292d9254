//! `BGPPeer`: a speaker that nodes have a session with.

mod session;
mod understood;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::error::FieldError;
use crate::seconds::duration_rule;

pub use session::{
    BfdFailure, LimitAction, MaxPrefixes, PeerAddPath, PeerBfd, PeerFamily, PeerNextHop,
    PeerPassword, PeerRange, PeerRestart, ReversePeering, SecretKeyRef, SourceAddress,
};
pub(crate) use understood::restart_seconds;
pub use understood::{Bfd, Distance, Limits, LocalAddress, Nodes, Peer, Remote, Restart};

/// The port of BGP (RFC 4271).
pub const PORT: u16 = 179;

/// A BGP speaker that one node, the selected nodes, or all nodes have a session with.
#[derive(
    CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema,
)]
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
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Interface",
        type_ = "string",
        json_path = ".spec.interface",
        priority = 1
    ),
    printcolumn(
        name = "Range",
        type_ = "string",
        json_path = ".spec.peerRange.cidr",
        priority = 1
    ),
    printcolumn(
        name = "PeerNodes",
        type_ = "string",
        json_path = ".spec.peerSelector",
        priority = 1
    ),
    printcolumn(
        name = "Workloads",
        type_ = "string",
        json_path = ".spec.localWorkloadSelector",
        priority = 1
    )
)]
#[x_kube(
    validation = Rule::new("!has(self.node) || !has(self.nodeSelector)")
        .message("set node (one node) or nodeSelector (those it selects), not both; neither means every node"),
    validation = Rule::new("[has(self.peerIP), has(self.interface), has(self.peerRange), has(self.peerSelector), has(self.localWorkloadSelector)].filter(x, x).size() == 1")
        .message("say who the peer is in exactly one way: peerIP, interface, peerRange, peerSelector or localWorkloadSelector"),
    validation = Rule::new("has(self.asNumber) || !(has(self.peerIP) || has(self.localWorkloadSelector))")
        .message("asNumber is missing: set the AS number of the peer"),
    validation = Rule::new("!has(self.asNumber) || !has(self.peerSelector)")
        .message("the AS number of peers that are nodes is that of the node: leave asNumber out"),
    validation = Rule::new("!has(self.holdTime) || self.holdTime == 0 || self.holdTime >= 3")
        .message("holdTime is 0 (no keepalives) or at least 3 seconds (RFC 4271)"),
    validation = Rule::new("!has(self.ttlSecurity) || !has(self.ebgpMultihop)")
        .message("set ttlSecurity (drops packets from farther away) or ebgpMultihop, not both"),
    validation = Rule::new("!has(self.sourceAddress) || !has(self.localAddress)")
        .message("set sourceAddress or localAddress, not both"),
    validation = Rule::new("!has(self.keepOriginalNextHop) || !has(self.nextHopMode)")
        .message("set nextHopMode and leave keepOriginalNextHop out: it is the older name of nextHopMode Keep"),
    validation = Rule::new("!has(self.reachableBy) || has(self.peerIP)")
        .message("reachableBy is for a peer with a peerIP: leave it out"),
    validation = Rule::new("!has(self.reversePeering) || has(self.peerSelector)")
        .message("reversePeering is for peers that are nodes: set peerSelector or leave it out")
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
    /// Address of the peer: 192.0.2.1 or 2001:db8::1; with a port, 192.0.2.1:1179, an IPv6 address then in brackets. A link-local
    /// address has its interface: fe80::1%eth0; one peer at an interface.
    #[serde(default, rename = "peerIP", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new(r"isIP(self) || (self.matches('^\\[?fe[89abAB][0-9a-fA-F]:[0-9a-fA-F:]*%[^/ :%\\]]{1,15}(\\]:[1-9][0-9]{0,4})?$') && self.startsWith('[') == self.contains(']')) || (self.matches('^[0-9.]+:[1-9][0-9]{0,4}$') && isIP(self.split(':')[0]) && int(self.split(':')[1]) <= 65535) || (self.matches('^\\[[0-9a-fA-F:.]+\\]:[1-9][0-9]{0,4}$') && isIP(self.split(']')[0].split('[')[1]) && int(self.split(']:')[1]) <= 65535)")
        .message("peerIP is an address with an optional port: write it as 192.0.2.1, 192.0.2.1:1179, 2001:db8::1, [2001:db8::1]:1179 or fe80::1%eth0"))]
    pub peer_ip: Option<String>,
    /// The peer is whoever speaks BGP on that interface (unnumbered peering): eth0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    #[x_kube(validation = Rule::new("self.matches('^[^/ ]+$')").message("interface is the name of a network interface of the node: eth0"))]
    pub interface: Option<String>,
    /// Peers are whoever connects from a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_range: Option<PeerRange>,
    /// Peers are the other nodes whose labels match: reflector == 'true'. Their AS numbers and addresses are those of the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub peer_selector: Option<String>,
    /// Peers are the pods on the same node whose labels match; the node waits for them to connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub local_workload_selector: Option<String>,
    /// AS number of the peer. On an interface or in a range any AS other than the own one when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4294967295i64))]
    pub as_number: Option<i64>,
    /// AS number told to this peer instead of the node's own.
    #[serde(
        default,
        rename = "localASNumber",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 1, max = 4294967295i64))]
    pub local_as_number: Option<i64>,
    /// Hold time offered to this peer, seconds; that of the BGPConfiguration when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub hold_time: Option<i32>,
    /// Keepalive interval: 10s; a third of the negotiated hold time when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = duration_rule!("keepaliveTime"))]
    pub keepalive_time: Option<String>,
    /// Own address of the session; the route to the peer decides when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    #[x_kube(validation = Rule::new("isIP(self)").message("localAddress is an address of the node: write it as 192.0.2.2 or 2001:db8::2"))]
    pub local_address: Option<String>,
    /// Where the session's own address comes from, for peers of many nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<SourceAddress>,
    /// Own TCP port the session is connected from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub local_port: Option<i32>,
    /// Address families exchanged; that of the peer's address when unset, both on an interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub families: Option<Vec<PeerFamily>>,
    /// Wait for the peer to connect.
    #[serde(default)]
    pub passive: bool,
    /// The peer is at most that many hops away and packets from farther are dropped (GTSM, RFC 5082); the peer has to do it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub ttl_security: Option<i32>,
    /// An external peer that is at most that many hops away; 1, on a connected network, when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 255))]
    pub ebgp_multihop: Option<i32>,
    /// Password of the session (TCP MD5, RFC 2385).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PeerPassword>,
    /// Watch the peer with BFD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<PeerBfd>,
    /// How long the peer shall keep the node's routes while its speaker restarts: 2m when unset, at most 4095s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = duration_rule!("maxRestartTime"))]
    pub max_restart_time: Option<String>,
    /// Graceful restart; on, when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<PeerRestart>,
    /// The most prefixes the peer may announce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefixes: Option<MaxPrefixes>,
    /// How many times the own AS number may be in a path from the peer.
    #[serde(
        default,
        rename = "numAllowedLocalASNumbers",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 0, max = 255))]
    pub num_allowed_local_as_numbers: Option<i32>,
    /// The next hop that routes are told with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop_mode: Option<PeerNextHop>,
    /// The older name of nextHopMode Keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_original_next_hop: Option<bool>,
    /// Names of the BGPFilters that judge what is learnt from and told to the peer, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub filters: Vec<String>,
    /// Several paths for one prefix (RFC 7911).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_path: Option<PeerAddPath>,
    /// Keep the routes that are not accepted, to show them and to judge them again without asking the peer.
    #[serde(default)]
    pub keep_rejected_routes: bool,
    /// Keeps the session down, until it is unset. The words, of 255 bytes at most, are for the peer's operator (RFC 9003);
    /// they may be empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub shutdown: Option<String>,
    /// An address whose route has to be there before the peer is connected to: the gateway to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    #[x_kube(validation = Rule::new("isIP(self)").message("reachableBy is the address of a gateway: write it as 192.0.2.1 or 2001:db8::1"))]
    pub reachable_by: Option<String>,
    /// Whether the nodes that peerSelector selects have the session too; they have, when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverse_peering: Option<ReversePeering>,
}

/// Bytes of an operator's words (RFC 9003 section 2).
const MAX_WORDS: usize = 255;

impl BGPPeerSpec {
    /// What is said by `shutdown`, if the session is shut down. The schema counts characters.
    fn words_of_shutdown(&self) -> Result<Option<String>, FieldError> {
        if let Some(long) = self
            .shutdown
            .as_ref()
            .filter(|words| words.len() > MAX_WORDS)
        {
            let problem = format!("it has {} bytes: say it in {MAX_WORDS}", long.len());
            return Err(FieldError::new("spec.shutdown", problem));
        }
        Ok(self.shutdown.clone())
    }
}

/// Whether the peer is configured on its nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BGPPeerStatus {
    /// Accepted is False when the spec is not understood, or what it refers to is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
mod tests;
