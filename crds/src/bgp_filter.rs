//! `BGPFilter`: which routes are taken from or told to the peers that name it, and with what changes.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;

/// Rules for routes learnt from (import) and told to (export) the peers that name the filter. The first rule that matches
/// decides. What no rule decides goes on to the peer's next filter, and in the end is taken or told by the built-in rules.
#[derive(
    CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema,
)]
#[kube(
    group = "margay.io",
    version = "v1",
    kind = "BGPFilter",
    plural = "bgpfilters",
    shortname = "bgpf",
    category = "margay",
    status = "BGPFilterStatus",
    derive = "PartialEq",
    doc = "Which routes are taken from or told to the peers that name it, and with what changes.",
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct BGPFilterSpec {
    /// For IPv4 routes learnt.
    #[serde(default, rename = "importV4", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub import_v4: Vec<FilterRule>,
    /// For IPv4 routes told.
    #[serde(default, rename = "exportV4", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub export_v4: Vec<FilterRule>,
    /// For IPv6 routes learnt.
    #[serde(default, rename = "importV6", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub import_v6: Vec<FilterRule>,
    /// For IPv6 routes told.
    #[serde(default, rename = "exportV6", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub export_v6: Vec<FilterRule>,
}

/// One rule: all that it looks for has to hold; a list holds when one of its members does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("has(self.cidr) || !(has(self.matchOperator) || has(self.prefixLength))")
        .message("matchOperator and prefixLength say how to compare with cidr: set cidr, or leave them out"),
    validation = Rule::new("!has(self.operations) || self.action != 'Reject'")
        .message("operations change a route that is rejected: remove them, or set action to Accept or Next")
)]
#[serde(rename_all = "camelCase")]
pub struct FilterRule {
    /// A name for people; its place when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
    /// A prefix to compare with: 10.244.0.0/16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 48))]
    pub cidr: Option<String>,
    /// How to compare with cidr; In, when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_operator: Option<MatchOperator>,
    /// Lengths of prefixes inside cidr; any when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<PrefixLength>,
    /// More prefixes to compare with: one of these, or cidr.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub prefixes: Vec<FilterPrefix>,
    /// Where the route comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<FilterSource>,
    /// Type of the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<FilterPeerType>,
    /// Communities it carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<FilterCommunities>,
    /// AS numbers its AS path begins with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(range(min = 1, max = 4294967295i64)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub as_path_prefix: Vec<i64>,
    /// What else its AS path has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_path: Option<FilterAsPath>,
    /// Ranges its next hop is in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 48)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub next_hops: Vec<String>,
    /// Its MULTI_EXIT_DISC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4294967295i64))]
    pub med: Option<i64>,
    /// Its LOCAL_PREF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4294967295i64))]
    pub local_pref: Option<i64>,
    /// What happens to the route.
    pub action: FilterAction,
    /// Changes to the route, in order. Later rules see them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub operations: Vec<FilterOperation>,
}

/// A prefix to compare with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilterPrefix {
    /// The prefix: 10.244.0.0/16.
    #[schemars(length(max = 48))]
    pub cidr: String,
    /// How to compare with it; In, when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_operator: Option<MatchOperator>,
    /// Lengths of prefixes inside it; any when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<PrefixLength>,
}

/// How a route's prefix compares with one of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum MatchOperator {
    /// It is the same.
    Equal,
    /// It is another.
    NotEqual,
    /// It is the same or inside.
    #[default]
    In,
    /// It is neither.
    NotIn,
}

/// Lengths of prefixes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrefixLength {
    /// The least; that of the prefix itself when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub min: Option<i32>,
    /// The greatest; 32 or 128 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub max: Option<i32>,
}

/// Where a route comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FilterSource {
    /// It was learnt over BGP.
    RemotePeers,
    /// It is a block of this node.
    Block,
    /// It is an address borrowed from another node.
    Borrowed,
    /// It is an address of a service.
    Service,
    /// It is the node's own address.
    Node,
}

/// Type of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FilterPeerType {
    /// In another AS.
    #[serde(rename = "eBGP")]
    External,
    /// In the own AS.
    #[serde(rename = "iBGP")]
    Internal,
}

/// Communities a route carries: 65000:100, 65000:1:2, rt:65000:100, no-export.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilterCommunities {
    /// One of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 40)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub values: Vec<String>,
    /// All of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 40)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub all_of: Vec<String>,
}

/// What an AS path has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilterAsPath {
    /// One of these AS numbers, anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(range(min = 1, max = 4294967295i64)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub contains: Vec<i64>,
    /// One of these AS numbers at its end: where the route originates.
    #[serde(default, rename = "originAS", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(range(min = 1, max = 4294967295i64)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub origin_as: Vec<i64>,
    /// At least that many AS numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub min_length: Option<i32>,
    /// At most that many AS numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub max_length: Option<i32>,
}

/// What happens to a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum FilterAction {
    /// It is taken, or told.
    Accept,
    /// It is not.
    Reject,
    /// The next rule looks at it.
    #[default]
    Next,
}

/// One change to a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("[has(self.addCommunity), has(self.removeCommunity), has(self.replaceCommunities), has(self.prependASPath), has(self.prependOwnAS), has(self.setMED), has(self.setLocalPref), has(self.setNextHop)].filter(x, x).size() == 1")
    .message("an operation is exactly one change: addCommunity, removeCommunity, replaceCommunities, prependASPath, prependOwnAS, setMED, setLocalPref or setNextHop"))]
#[serde(rename_all = "camelCase")]
pub struct FilterOperation {
    /// Adds a community.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_community: Option<CommunityValue>,
    /// Removes a community.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_community: Option<CommunityValue>,
    /// These communities and no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_communities: Option<CommunityValues>,
    /// Puts AS numbers in front of the AS path.
    #[serde(
        default,
        rename = "prependASPath",
        skip_serializing_if = "Option::is_none"
    )]
    pub prepend_as_path: Option<PathPrefix>,
    /// Puts the own AS number in front of the AS path.
    #[serde(
        default,
        rename = "prependOwnAS",
        skip_serializing_if = "Option::is_none"
    )]
    pub prepend_own_as: Option<Times>,
    /// Sets MULTI_EXIT_DISC.
    #[serde(default, rename = "setMED", skip_serializing_if = "Option::is_none")]
    pub set_med: Option<MedValue>,
    /// Sets LOCAL_PREF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_local_pref: Option<PrefValue>,
    /// Sets the next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_next_hop: Option<NextHopValue>,
}

/// A community.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct CommunityValue {
    /// 65000:100, 65000:1:2, rt:65000:100, no-export.
    #[schemars(length(max = 40))]
    pub value: String,
}

/// Communities.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct CommunityValues {
    /// 65000:100, 65000:1:2, rt:65000:100, no-export.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(max = 40)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub values: Vec<String>,
}

/// AS numbers to put in front of a path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct PathPrefix {
    /// The numbers, the first one in front.
    #[schemars(length(min = 1, max = 10), inner(range(min = 1, max = 4294967295i64)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub prefix: Vec<i64>,
}

/// How often.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Times {
    /// That many times.
    #[schemars(range(min = 1, max = 10))]
    pub times: i32,
}

/// A MULTI_EXIT_DISC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct MedValue {
    /// The value; unset removes the attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4294967295i64))]
    pub value: Option<i64>,
}

/// A LOCAL_PREF.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct PrefValue {
    /// The value; 100 is the usual one.
    #[schemars(range(min = 0, max = 4294967295i64))]
    pub value: i64,
}

/// A next hop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct NextHopValue {
    /// The address.
    #[schemars(length(max = 45))]
    #[x_kube(validation = Rule::new("isIP(self)").message("address of setNextHop is an address: write it as 192.0.2.1 or 2001:db8::1"))]
    pub address: String,
}

/// Whether the filter is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BGPFilterStatus {
    /// Accepted is False when the spec is not understood.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}
