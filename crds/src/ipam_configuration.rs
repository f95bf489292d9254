//! `IPAMConfiguration`: limits of address management.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::error::FieldError;

/// Limits of address management; there is one, named default.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "margay.io",
    version = "v1",
    kind = "IPAMConfiguration",
    plural = "ipamconfigurations",
    shortname = "ipamconfig",
    category = "margay",
    status = "IPAMConfigurationStatus",
    derive = "PartialEq",
    doc = "Limits of address management.",
    validation = Rule::new("self.metadata.name == 'default'").message("there is one IPAMConfiguration: name it default"),
    printcolumn(name = "Blocks per node", type_ = "integer", json_path = ".spec.maxBlocksPerNode"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct IPAMConfigurationSpec {
    /// How many blocks of each family a node may own. 20 blocks of 64 addresses are 1280 pods.
    #[serde(default = "default_max_blocks")]
    #[schemars(range(min = 1, max = 4096))]
    pub max_blocks_per_node: i32,
}

/// Whether the configuration is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPAMConfigurationStatus {
    /// Accepted is False when the spec is not understood.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

fn default_max_blocks() -> i32 {
    20
}

/// An [`IPAMConfiguration`] that was understood; the default is what holds without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Configuration {
    /// How many blocks of each family a node may own.
    pub max_blocks_per_node: u32,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            max_blocks_per_node: 20,
        }
    }
}

impl TryFrom<&IPAMConfiguration> for Configuration {
    type Error = FieldError;

    fn try_from(object: &IPAMConfiguration) -> Result<Self, FieldError> {
        let given = object.spec.max_blocks_per_node;
        match u32::try_from(given) {
            Ok(max @ 1..=4096) => Ok(Self {
                max_blocks_per_node: max,
            }),
            _ => Err(FieldError::new(
                "spec.maxBlocksPerNode",
                format!("{given} is out of range: set 1 to 4096"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: serde_json::Value) -> Result<Configuration, FieldError> {
        let object = json!({ "apiVersion": "margay.io/v1", "kind": "IPAMConfiguration", "metadata": {}, "spec": spec });
        Configuration::try_from(&serde_json::from_value::<IPAMConfiguration>(object).unwrap())
    }

    #[test]
    fn limits_are_read_or_refused() {
        assert_eq!(read(json!({})).unwrap(), Configuration::default());
        assert_eq!(
            read(json!({ "maxBlocksPerNode": 2 }))
                .unwrap()
                .max_blocks_per_node,
            2
        );
        assert_eq!(
            read(json!({ "maxBlocksPerNode": 0 })).unwrap_err().field,
            "spec.maxBlocksPerNode"
        );
    }
}
