//! What `NetworkPolicy` and `GlobalNetworkPolicy` share: rules, and what they mean.

mod head;
mod rule;
pub(crate) mod schema;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;

pub use head::{Enforcement, Head, Policy, Refused, Stage, Subject};
pub use rule::{Action, Entity, Icmp, Port, Protocol, Rule, ServiceAccounts, ServiceRef};
pub(crate) use rule::{networks, protocol};

/// Tier of policies that name none.
pub const DEFAULT_TIER: &str = "default";

/// The tier that policies without one are in.
pub(crate) fn default_tier() -> String {
    DEFAULT_TIER.to_owned()
}

/// One rule: all that it looks for has to hold. The first rule that matches decides, but for Log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("!(has(self.icmp) || has(self.notICMP)) || (has(self.protocol) && (self.protocol == 'ICMP' || self.protocol == 'ICMPv6' || self.protocol == 1 || self.protocol == 58))")
        .message("icmp and notICMP need to know the kind of ICMP: set protocol to ICMP or ICMPv6")
)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRule {
    /// What happens to a flow that the rule matches: Allow lets it pass, Deny drops it, Pass leaves the rest of the tier out
    /// and asks the next one, Log notes it and goes on with the next rule.
    #[schemars(schema_with = "schema::action")]
    pub action: String,
    /// Only flows of IPv4 (4) or IPv6 (6).
    #[serde(default, rename = "ipVersion", skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == 4 || self == 6").message("ipVersion is 4 or 6; leave it out for both"))]
    pub ip_version: Option<i32>,
    /// Only that protocol: TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::protocol")]
    pub protocol: Option<IntOrString>,
    /// Every protocol but that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::protocol")]
    pub not_protocol: Option<IntOrString>,
    /// Only such ICMP messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpMatch>,
    /// Every ICMP message but such.
    #[serde(default, rename = "notICMP", skip_serializing_if = "Option::is_none")]
    pub not_icmp: Option<IcmpMatch>,
    /// Where the flow comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<EntityRule>,
    /// Where the flow goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<EntityRule>,
    /// Notes about the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<RuleMetadata>,
}

/// Kinds of ICMP messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.type) || !has(self.code)").message("a code belongs to a type: set type as well"))]
#[serde(rename_all = "camelCase")]
pub struct IcmpMatch {
    /// Type of the message: 8 asks for an echo (ICMP), 128 (ICMPv6). Any when unset.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 254))]
    pub type_: Option<i32>,
    /// Code of the message. Any when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 255))]
    pub code: Option<i32>,
}

/// One end of a flow: all that is set has to hold; a list holds when one of its members does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("!has(self.services) || !(has(self.nets) || has(self.notNets) || has(self.selector) || has(self.notSelector) || has(self.namespaceSelector) || has(self.serviceAccounts) || has(self.ports) || has(self.notPorts))")
        .message("services stands for addresses and ports: leave nets, selectors, serviceAccounts and ports out beside it")
)]
#[serde(rename_all = "camelCase")]
pub struct EntityRule {
    /// Addresses: 10.0.0.0/8, 2001:db8::/32, 192.0.2.1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::nets")]
    pub nets: Vec<String>,
    /// Every address but these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::nets")]
    pub not_nets: Vec<String>,
    /// Pods, host endpoints and network sets by their labels: app == 'web' && !has(canary). In a NetworkPolicy those of its own
    /// namespace, unless namespaceSelector says which; in a GlobalNetworkPolicy all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
    /// Whoever is not selected by this. Unlike a negated selector it holds for addresses that are no endpoint's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub not_selector: Option<String>,
    /// Namespaces that selector and serviceAccounts look into, by their labels; alone, everything in them. global() is what is
    /// in no namespace: host endpoints and GlobalNetworkSets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub namespace_selector: Option<String>,
    /// Pods by their service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_accounts: Option<ServiceAccountMatch>,
    /// The pods and ports behind a Service, as its EndpointSlices say. Only as the destination of egress and the source of
    /// ingress; there the ports do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<ServiceMatch>,
    /// Ports: 80, a range 8000:8999, or the name of a container port. Numbers need a protocol that has ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::ports")]
    pub ports: Vec<IntOrString>,
    /// Every port but these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::ports")]
    pub not_ports: Vec<IntOrString>,
}

/// Service accounts: those named whose labels match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountMatch {
    /// Their names; any when unset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub names: Vec<String>,
    /// Their labels; any when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
}

/// A Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceMatch {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Its namespace; in a NetworkPolicy that of the policy when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// Notes about a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct RuleMetadata {
    /// Any texts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub annotations: BTreeMap<String, String>,
}

/// Whether a policy is understood, and where it is enforced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// Accepted is False when the spec is not understood: its last good version stays in force, and if there is none, what it
    /// selects is closed. Programmed is True when every node that holds endpoints which the policy selects enforces its
    /// newest generation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// Nodes that enforce the newest generation, of those that hold endpoints which the policy selects: 2/3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub enforced_on: Option<String>,
}

#[cfg(test)]
mod tests;
