//! `GlobalNetworkPolicy`: what may be opened from and to pods of any namespace, and host endpoints.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::network_policy::enforce;
use crate::policy::{PolicyRule, PolicyStatus};

/// What may be opened from and to pods of any namespace and host endpoints, in a tier.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "margay.io",
    version = "v1",
    kind = "GlobalNetworkPolicy",
    plural = "globalnetworkpolicies",
    shortname = "gnp",
    category = "margay",
    status = "PolicyStatus",
    derive = "PartialEq",
    doc = "What may be opened from and to pods of any namespace and host endpoints, in a tier.",
    printcolumn(name = "Tier", type_ = "string", json_path = ".spec.tier"),
    printcolumn(name = "Order", type_ = "number", json_path = ".spec.order"),
    printcolumn(
        name = "Enforcement",
        type_ = "string",
        json_path = ".spec.enforcement"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.enforcedOn"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Selector",
        type_ = "string",
        json_path = ".spec.selector",
        priority = 1
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].message",
        priority = 1
    )
)]
#[x_kube(
    validation = Rule::new("!(self.preDNAT && self.doNotTrack)")
        .message("set preDNAT or doNotTrack, not both: use two policies"),
    validation = Rule::new("!(self.preDNAT || self.doNotTrack) || self.applyOnForward")
        .message("preDNAT and doNotTrack look at forwarded flows too: set applyOnForward to true"),
    validation = Rule::new("!self.preDNAT || !(has(self.egress) || (has(self.types) && 'Egress' in self.types))")
        .message("preDNAT looks at flows when they come in: leave egress out")
)]
#[serde(rename_all = "camelCase")]
pub struct GlobalNetworkPolicySpec {
    /// The tier it is in. Tiers are asked in order; the first that decides has the word.
    #[serde(default = "crate::policy::default_tier")]
    #[schemars(length(min = 1, max = 63))]
    pub tier: String,
    /// Its place inside the tier, lower first; last when unset. A Kubernetes NetworkPolicy has 1000 in the tier default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// Pods and host endpoints that it governs, by their labels: app == 'web'.
    #[serde(default = "crate::selector::everything")]
    #[schemars(length(max = 1024))]
    pub selector: String,
    /// Of these only pods in namespaces whose labels match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub namespace_selector: Option<String>,
    /// Of these only pods whose service account's labels match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub service_account_selector: Option<String>,
    /// Whether ingress (flows opened to them), egress (flows they open) or both are governed. When unset: that which there are
    /// rules for, and ingress if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::policy::schema::types")]
    pub types: Vec<String>,
    /// Rules for flows that are opened to the selected endpoints. The first that matches decides; what none decides the tier
    /// does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub ingress: Vec<PolicyRule>,
    /// Rules for flows that the selected endpoints open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub egress: Vec<PolicyRule>,
    /// Enforce, or Audit: what it would decide otherwise is counted and logged, and it decides nothing.
    #[serde(default = "enforce")]
    #[schemars(schema_with = "crate::policy::schema::enforcement")]
    pub enforcement: String,
    /// For host endpoints: govern flows that pass through the host as well, not only its own.
    #[serde(default)]
    pub apply_on_forward: bool,
    /// For host endpoints: look at incoming flows before their destination is translated, as they are on the wire (node ports).
    /// What such a policy does not deny goes on to the others.
    #[serde(default, rename = "preDNAT")]
    pub pre_dnat: bool,
    /// For host endpoints: look at every packet of the host before connections are tracked, and leave what is allowed untracked:
    /// it passes, and no other policy is asked. Replies need rules of their own. What is not mentioned goes on to the others.
    #[serde(default)]
    pub do_not_track: bool,
}
