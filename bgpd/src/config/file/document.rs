//! What a file may say, beyond the fields it shares with the custom resources.

use crds::bgp_configuration::BGPConfigurationSpec;
use crds::bgp_filter::BGPFilterSpec;
use crds::bgp_peer::BGPPeerSpec;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// The configuration of one margay-bgpd.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    /// The own AS number.
    #[schemars(range(min = 1, max = 4294967295i64))]
    #[expect(
        dead_code,
        reason = "read with the fields of a BGPConfiguration; required here"
    )]
    as_number: i64,
    /// The BGP identifier: one of the machine's IPv4 addresses.
    #[serde(rename = "routerID")]
    pub(super) router_id: String,
    /// The cluster of reflection clients (RFC 4456); the routerID when unset.
    #[serde(rename = "clusterID")]
    pub(super) cluster_id: Option<String>,
    /// Who is peered with. The fields of a BGPPeer, and some.
    #[serde(default)]
    #[schemars(with = "Vec<PeerEntry>")]
    pub(super) peers: Vec<Value>,
    /// Filters that peers name. The fields of a BGPFilter, and the name.
    #[serde(default)]
    #[schemars(with = "Vec<FilterEntry>")]
    pub(super) filters: Vec<Value>,
    /// Pools whose blocks are taken from peers.
    #[serde(default)]
    pub(super) pools: Vec<Pool>,
    /// Prefixes this speaker originates.
    #[serde(default)]
    pub(super) origins: Vec<Origin>,
    /// How far the machine is taken out of use (RFC 8326).
    #[serde(default)]
    pub(super) drain: Drain,
    /// Sessions start when felix has said what it preserved; it brings more origins.
    #[serde(default)]
    pub(super) wait_for_felix: bool,
}

/// The configuration of one margay-bgpd: the fields of a BGPConfiguration, and some.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct Whole {
    #[serde(flatten)]
    shared: BGPConfigurationSpec,
    // What is flattened later describes a field that both have.
    #[serde(flatten)]
    own: Document,
}

/// A peer: the fields of a BGPPeer, and some.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct PeerEntry {
    #[serde(flatten)]
    shared: BGPPeerSpec,
    #[serde(flatten)]
    own: PeerOwn,
}

/// A filter: the fields of a BGPFilter, and its name.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct FilterEntry {
    #[serde(flatten)]
    own: FilterOwn,
    #[serde(flatten)]
    shared: BGPFilterSpec,
}

/// What a filter of a file has beyond the fields of a BGPFilter.
#[derive(Deserialize, JsonSchema)]
pub(super) struct FilterOwn {
    /// The name that peers refer to it by.
    #[schemars(length(min = 1, max = 253))]
    pub(super) name: String,
}

/// How far the machine is taken out of use.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
pub(super) enum Drain {
    /// In use.
    #[default]
    No,
    /// Addresses of services leave: told with GRACEFUL_SHUTDOWN first, withdrawn later. Blocks stay.
    Services,
    /// Everything leaves in the same way.
    Everything,
}

/// Fields of the custom resources that need other objects, and so mean nothing in a file.
pub(super) const OBJECTS_ONLY: [&str; 9] = [
    "node",
    "nodeSelector",
    "peerSelector",
    "reversePeering",
    "localWorkloadSelector",
    "sourceAddress",
    "nodeToNodeMeshEnabled",
    "nodeMeshPassword",
    "nodeMeshMaxRestartTime",
];

/// What a peer of a file has beyond the fields of a BGPPeer.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PeerOwn {
    /// A name for people; what says who the peer is, when unset.
    pub(super) name: Option<String>,
    /// Password of the session (TCP MD5, RFC 2385).
    pub(super) password: Option<Password>,
    /// Which routes the peer is told.
    #[serde(default)]
    pub(super) export: Export,
    /// Which of its routes are used.
    #[serde(default)]
    pub(super) import: Import,
    /// The cluster of this reflection client (RFC 4456); that of the file when unset.
    #[serde(rename = "clusterID")]
    pub(super) cluster_id: Option<String>,
    /// How long the session waits for a connection.
    pub(super) connect: Option<Connect>,
}

/// A password, 1 to 80 bytes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Password {
    /// The password itself: keep the file to its owner.
    #[schemars(length(min = 1, max = 80))]
    pub(super) value: String,
}

/// Waits, each shortened by a random quarter.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Connect {
    /// Wait for a connection before it is tried anew, milliseconds: 20000 when unset.
    #[schemars(range(min = 100, max = 600_000))]
    pub(super) timeout_millis: Option<u32>,
    /// First wait between two attempts, milliseconds: 500 when unset. It doubles with each failure.
    #[schemars(range(min = 100, max = 600_000))]
    pub(super) retry_min_millis: Option<u32>,
    /// Longest wait between two attempts, milliseconds: 15000 when unset.
    #[schemars(range(min = 100, max = 600_000))]
    pub(super) retry_max_millis: Option<u32>,
}

/// Which routes a peer is told.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Export {
    /// Only what this speaker originates: it never carries transit.
    #[default]
    Origins,
    /// The peer is a route reflection client (RFC 4456).
    Reflect,
    /// Every best route, within the rules of iBGP.
    Transit,
}

/// Which of a peer's routes are used.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Import {
    /// Blocks of the pools and the ranges of import, nothing inside own blocks.
    #[default]
    Pools,
    /// Everything that RFC 4271 does not forbid.
    All,
}

/// A pool whose blocks are taken from peers.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pool {
    /// The range, as 10.244.0.0/16 or fd00:10:244::/48.
    pub(super) cidr: String,
    /// Prefix length of its blocks: 26 for IPv4 and 122 for IPv6 when unset.
    pub(super) block_size: Option<i32>,
}

/// A prefix this speaker originates: a block, or of the kind said.
#[derive(Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a prefix, or a prefix and a kind: {prefix: 192.0.2.1/32, kind: node}"
)]
pub(super) enum Origin {
    /// A block.
    Block(String),
    /// A prefix of a kind.
    Kind(KindOrigin),
}

/// A prefix and why it is originated.
#[derive(Deserialize, JsonSchema)]
pub(super) struct KindOrigin {
    /// The prefix.
    pub(super) prefix: String,
    /// Why it is originated.
    pub(super) kind: Kind,
}

/// Why a prefix is originated.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub(super) enum Kind {
    Block,
    Borrowed,
    Service,
    Node,
}
