//! `NetworkSet` and `GlobalNetworkSet`: addresses with labels, selected by rules as pods are.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::error::FieldError;
use crate::net::Cidr;
use crate::policy;

/// Addresses with labels, which rules select as they select pods of the namespace.
#[derive(
    CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema,
)]
#[kube(
    group = "margay.io",
    version = "v1",
    kind = "NetworkSet",
    plural = "networksets",
    shortname = "netset",
    category = "margay",
    namespaced,
    status = "NetworkSetStatus",
    derive = "PartialEq",
    doc = "Addresses with labels, which rules select as they select pods of the namespace.",
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
pub struct NetworkSetSpec {
    /// The addresses: 10.0.0.0/8, 2001:db8::/32, 192.0.2.1. They may overlap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::policy::schema::set_nets")]
    pub nets: Vec<String>,
}

/// Addresses with labels, in no namespace: rules of a GlobalNetworkPolicy select them by their labels alone, those of a
/// NetworkPolicy with namespaceSelector global().
#[derive(
    CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema,
)]
#[kube(
    group = "margay.io",
    version = "v1",
    kind = "GlobalNetworkSet",
    plural = "globalnetworksets",
    shortname = "gns",
    category = "margay",
    status = "NetworkSetStatus",
    derive = "PartialEq",
    doc = "Addresses with labels, which rules select as they select host endpoints.",
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
pub struct GlobalNetworkSetSpec {
    /// The addresses: 10.0.0.0/8, 2001:db8::/32, 192.0.2.1. They may overlap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::policy::schema::set_nets")]
    pub nets: Vec<String>,
}

/// Whether the set is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkSetStatus {
    /// Accepted is False when the spec is not understood: the last good version stays in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// A [`NetworkSet`] or [`GlobalNetworkSet`] that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Namespace of the object; None of a GlobalNetworkSet.
    pub namespace: Option<String>,
    /// Name of the object.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The addresses, in order, each once.
    pub nets: Vec<Cidr>,
}

impl TryFrom<&NetworkSet> for Set {
    type Error = FieldError;

    fn try_from(object: &NetworkSet) -> Result<Self, FieldError> {
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        set(Some(namespace), &object.metadata, &object.spec.nets)
    }
}

impl TryFrom<&GlobalNetworkSet> for Set {
    type Error = FieldError;

    fn try_from(object: &GlobalNetworkSet) -> Result<Self, FieldError> {
        set(None, &object.metadata, &object.spec.nets)
    }
}

fn set(
    namespace: Option<String>,
    metadata: &kube::core::ObjectMeta,
    nets: &[String],
) -> Result<Set, FieldError> {
    let mut nets = policy::networks("spec.nets", nets)?;
    nets.sort_unstable();
    nets.dedup();
    Ok(Set {
        namespace,
        name: metadata.name.clone().unwrap_or_default(),
        labels: metadata.labels.clone().unwrap_or_default(),
        nets,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn prefixes_and_addresses_are_read() {
        let object = json!({
            "apiVersion": "margay.io/v1", "kind": "NetworkSet",
            "metadata": { "namespace": "shop", "name": "s", "labels": { "a": "b" } },
            "spec": { "nets": ["10.0.0.0/8", "fd00::1", "192.0.2.7", "10.0.0.0/8"] },
        });
        let set = Set::try_from(&serde_json::from_value::<NetworkSet>(object).unwrap()).unwrap();
        let nets: Vec<String> = set.nets.iter().map(ToString::to_string).collect();
        assert_eq!(nets, ["10.0.0.0/8", "192.0.2.7/32", "fd00::1/128"]);
        assert_eq!(set.namespace.as_deref(), Some("shop"));
        assert_eq!(set.labels.len(), 1);
    }

    #[test]
    fn errors_name_the_member_and_the_fix() {
        let mut object = GlobalNetworkSet::new("s", GlobalNetworkSetSpec::default());
        assert_eq!(Set::try_from(&object).unwrap().namespace, None);
        for (net, problem) in [
            (
                "10.0.0.1/8",
                "spec.nets[1]: 10.0.0.1/8 has bits set beyond its length: write 10.0.0.0/8",
            ),
            ("x", "spec.nets[1]: \"x\" is not a prefix: write it as"),
            (
                "::ffff:10.0.0.1",
                "spec.nets[1]: ::ffff:10.0.0.1/128 is an IPv4 address written as IPv6",
            ),
        ] {
            object.spec.nets = vec!["10.0.0.0/8".into(), net.into()];
            let error = Set::try_from(&object).unwrap_err().to_string();
            assert!(error.starts_with(problem), "{error}");
        }
    }
}
