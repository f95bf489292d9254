//! `ClusterNetworkPolicy` of `policy.networking.k8s.io/v1alpha2`: somebody else's kind, as far as it is read here.
//!
//! The API defines that whatever a later version adds to peers and protocols fails closed, so nothing here is required and
//! words are text: what is not there, or not known, is for the reader to judge. The definition that
//! [`foreign_crds`] gives is for clusters that have none, such as a lab.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::condition::Condition;

/// A policy of the cluster's administrators, before or after the NetworkPolicies of namespaces.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "policy.networking.k8s.io",
    version = "v1alpha2",
    kind = "ClusterNetworkPolicy",
    plural = "clusternetworkpolicies",
    shortname = "cnp",
    status = "ClusterNetworkPolicyStatus",
    derive = "PartialEq",
    doc = "A policy of the cluster's administrators, before or after the NetworkPolicies of namespaces.",
    annotation(
        "api-approved.kubernetes.io",
        "https://github.com/kubernetes-sigs/network-policy-api/pull/347"
    ),
    printcolumn(name = "Tier", type_ = "string", json_path = ".spec.tier"),
    printcolumn(name = "Priority", type_ = "string", json_path = ".spec.priority"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkPolicySpec {
    /// Admin: before NetworkPolicies. Baseline: after them.
    #[schemars(schema_with = "tiers")]
    pub tier: String,
    /// Place inside the tier, lower first: 0 to 1000.
    #[schemars(range(min = 0, max = 1000))]
    pub priority: i32,
    /// The pods it governs.
    pub subject: ClusterSubject,
    /// Rules for flows that are opened to them, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 25))]
    pub ingress: Vec<ClusterIngressRule>,
    /// Rules for flows that they open, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 25))]
    pub egress: Vec<ClusterEgressRule>,
}

/// What implementations say of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ClusterNetworkPolicyStatus {
    /// Accepted is False when a part of the spec is not understood: that part is closed. Programmed is True when every node
    /// that holds pods which the policy selects enforces its newest generation.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// Pods: exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.namespaces) != has(self.pods)").message("set exactly one of namespaces and pods"))]
pub struct ClusterSubject {
    /// Every pod of the namespaces that are selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "label_selector")]
    pub namespaces: Option<LabelSelector>,
    /// Selected pods of selected namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
}

/// Selected pods of selected namespaces.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedPod {
    /// Namespaces by their labels; empty selects all.
    #[serde(default)]
    #[schemars(schema_with = "label_selector")]
    pub namespace_selector: LabelSelector,
    /// Pods by their labels; empty selects all.
    #[serde(default)]
    #[schemars(schema_with = "label_selector")]
    pub pod_selector: LabelSelector,
}

/// A rule for flows that are opened to the subject.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct ClusterIngressRule {
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub name: Option<String>,
    /// Accept, Deny or Pass.
    #[schemars(schema_with = "actions")]
    pub action: String,
    /// Where they come from: one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 25))]
    pub from: Vec<ClusterPeer>,
    /// What they are: one of these, anything when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 25))]
    pub protocols: Option<Vec<ClusterProtocol>>,
}

/// A rule for flows that the subject opens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct ClusterEgressRule {
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub name: Option<String>,
    /// Accept, Deny or Pass.
    #[schemars(schema_with = "actions")]
    pub action: String,
    /// Where they go to: one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 25))]
    pub to: Vec<ClusterPeer>,
    /// What they are: one of these, anything when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 25))]
    pub protocols: Option<Vec<ClusterProtocol>>,
}

/// The other side: exactly one field is set, the first two only for ingress. None of them is one of a later version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPeer {
    /// Every pod of the namespaces that are selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "label_selector")]
    pub namespaces: Option<LabelSelector>,
    /// Selected pods of selected namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
    /// Addresses of the nodes that are selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "label_selector")]
    pub nodes: Option<LabelSelector>,
    /// Prefixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 25), inner(length(max = 43)))]
    pub networks: Option<Vec<String>>,
    /// Names of the DNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 25), inner(length(max = 255)))]
    pub domain_names: Option<Vec<String>>,
}

/// A protocol: exactly one field is set. None of them is one of a later version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterProtocol {
    /// Of TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<ClusterTransport>,
    /// Of UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<ClusterTransport>,
    /// Of SCTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sctp: Option<ClusterTransport>,
    /// The container ports of that name, of any protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub destination_named_port: Option<String>,
}

/// What is asked of one protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterTransport {
    /// Destination ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<ClusterPort>,
}

/// Ports: exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ClusterPort {
    /// One port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub number: Option<i32>,
    /// More.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<ClusterPortRange>,
}

/// Ports from start to end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.start < self.end").message("start is the lower port of the range: exchange start and end"))]
pub struct ClusterPortRange {
    /// The first.
    #[schemars(range(min = 1, max = 65535))]
    pub start: i32,
    /// The last.
    #[schemars(range(min = 1, max = 65535))]
    pub end: i32,
}

fn tiers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Admin", "Baseline"] })
}

fn actions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Accept", "Deny", "Pass"] })
}

fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": { "type": "object", "additionalProperties": { "type": "string" } },
            "matchExpressions": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": { "type": "string" },
                        "operator": { "type": "string" },
                        "values": { "type": "array", "items": { "type": "string" } },
                    },
                },
            },
        },
    })
}

/// Definitions of the kinds of others that are read here.
pub fn foreign_crds() -> Vec<CustomResourceDefinition> {
    let mut crd = ClusterNetworkPolicy::crd();
    crate::generate::tidied(&mut crd);
    vec![crd]
}
