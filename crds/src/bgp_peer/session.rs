//! What can be asked of the session with a peer.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::net::Family;
use crate::seconds::duration_rule;

/// An address family exchanged with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// Whoever connects from a range is a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerRange {
    /// The range peers connect from: 10.0.0.0/24.
    #[schemars(length(max = 48))]
    #[x_kube(validation = Rule::new("isCIDR(self) && cidr(self) == cidr(self).masked()")
        .message("cidr of a peerRange is a prefix without host bits: write it as 10.0.0.0/24 or fd00::/64"))]
    pub cidr: String,
    /// The most of them at one time.
    #[serde(default = "range_limit")]
    #[schemars(range(min = 1, max = 100_000))]
    pub limit: i32,
}

fn range_limit() -> i32 {
    100
}

/// Where the session's own address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SourceAddress {
    /// The node's InternalIP of the peer's family.
    UseNodeIP,
    /// The route to the peer decides.
    None,
}

/// The password of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerPassword {
    /// The Secret that holds it, in the namespace of the speakers.
    pub secret_key_ref: SecretKeyRef,
}

/// A key of a Secret.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, KubeSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key inside it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// BFD of a session (RFC 5880): a failure is seen after multiplier times the interval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerBfd {
    /// Least time between packets sent, milliseconds.
    #[serde(default = "bfd_millis")]
    #[schemars(range(min = 10, max = 60_000))]
    pub transmit_millis: i32,
    /// Least time between packets that can be taken, milliseconds.
    #[serde(default = "bfd_millis")]
    #[schemars(range(min = 10, max = 60_000))]
    pub receive_millis: i32,
    /// Packets missed before the peer is down.
    #[serde(default = "bfd_multiplier")]
    #[schemars(range(min = 1, max = 255))]
    pub multiplier: i32,
    /// What happens to the peer's routes then.
    #[serde(default)]
    pub on_failure: BfdFailure,
}

fn bfd_millis() -> i32 {
    300
}

fn bfd_multiplier() -> i32 {
    3
}

/// What a failure that BFD reports does to the peer's routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum BfdFailure {
    /// They are gone at once, even under graceful restart.
    #[default]
    Purge,
    /// They are kept as graceful restart would.
    Graceful,
}

/// Graceful restart (RFC 4724, 8538) and its long-lived kind (RFC 9494).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerRestart {
    /// Offered to the peer at all.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// How long the peer's routes are kept at most while it restarts, whatever it asks for: 5m when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = duration_rule!("staleTime"))]
    pub stale_time: Option<String>,
    /// How long routes are kept after that as the least preferred ones (RFC 9494): not at all when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = duration_rule!("longLivedStaleTime"))]
    pub long_lived_stale_time: Option<String>,
}

fn yes() -> bool {
    true
}

/// The most prefixes a peer may announce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("has(self.ipv4) || has(self.ipv6)").message("maxPrefixes without a number limits nothing: set ipv4, ipv6 or both"),
    validation = Rule::new("!has(self.restartAfter) || self.action == 'TearDown'").message("restartAfter is for action TearDown: set the action or leave it out")
)]
#[serde(rename_all = "camelCase")]
pub struct MaxPrefixes {
    /// That many IPv4 prefixes are fine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub ipv4: Option<i32>,
    /// That many IPv6 prefixes are fine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub ipv6: Option<i32>,
    /// What happens beyond.
    #[serde(default)]
    pub action: LimitAction,
    /// When a session that was torn down is tried again; when the peer is edited only, if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = duration_rule!("restartAfter"))]
    pub restart_after: Option<String>,
}

/// What happens when a peer announces more prefixes than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum LimitAction {
    /// The log and the status say so.
    #[default]
    Warn,
    /// Further prefixes are not taken.
    Drop,
    /// The session ends.
    TearDown,
}

/// The next hop that routes are told with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum PeerNextHop {
    /// The own address to external peers and for own routes, unchanged otherwise.
    #[default]
    Auto,
    /// Always the own address.
    #[serde(rename = "Self")]
    Itself,
    /// As it was learnt, also to external peers.
    Keep,
}

/// Several paths for one prefix (RFC 7911).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerAddPath {
    /// The most paths told for one prefix; 0 or 1: only the best one.
    #[serde(default)]
    #[schemars(range(min = 0, max = 255))]
    pub send: i32,
    /// Several paths of the peer are taken.
    #[serde(default)]
    pub receive: bool,
}

/// Whether the other side of a session between nodes is configured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ReversePeering {
    /// The nodes that peerSelector selects have the session too.
    #[default]
    Auto,
    /// Another BGPPeer has to say so.
    Manual,
}
