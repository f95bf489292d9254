//! `FelixConfiguration`: what an operator chooses of how felix works.

use kube::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::error::FieldError;

/// What an operator chooses of how felix works; there is one, named default.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "margay.io",
    version = "v1",
    kind = "FelixConfiguration",
    plural = "felixconfigurations",
    shortname = "felixconfig",
    category = "margay",
    status = "FelixConfigurationStatus",
    derive = "PartialEq",
    doc = "What an operator chooses of how felix works.",
    validation = Rule::new("self.metadata.name == 'default'").message("there is one FelixConfiguration: name it default"),
    printcolumn(name = "Mark", type_ = "string", json_path = ".spec.conntrackMarkMask"),
    printcolumn(name = "Revoked", type_ = "string", json_path = ".spec.revokedConnections"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct FelixConfigurationSpec {
    /// Eight adjacent bits of the mark of tracked connections in which felix keeps when it judged them. All others are left to
    /// others. Every connection is judged once again when it changes.
    #[serde(default = "mark_mask")]
    #[schemars(length(max = 10))]
    #[x_kube(validation = Rule::new("self.matches('^0x[0-9a-fA-F]{1,8}$')").message("conntrackMarkMask is eight adjacent bits: write it as 0xff000000"))]
    pub conntrack_mark_mask: String,
    /// What becomes of a connection that policy allowed and forbids now. Reset: TCP is answered with a reset, anything else is
    /// dropped. Drop: packets are dropped, and nobody is told.
    #[serde(default = "reset")]
    #[schemars(schema_with = "revocations")]
    pub revoked_connections: String,
}

/// Whether the configuration is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FelixConfigurationStatus {
    /// Accepted is False when the spec is not understood: the last good version stays in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

fn mark_mask() -> String {
    "0xff000000".to_owned()
}

fn reset() -> String {
    "Reset".to_owned()
}

fn revocations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Reset", "Drop"] })
}

/// A [`FelixConfiguration`] that was understood; the default is what holds without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Configuration {
    /// Bits of the mark of connections; eight adjacent ones.
    pub mark_mask: u32,
    /// TCP connections that are forbidden now are answered with a reset.
    pub reset: bool,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            mark_mask: 0xff00_0000,
            reset: true,
        }
    }
}

impl TryFrom<&FelixConfiguration> for Configuration {
    type Error = FieldError;

    fn try_from(object: &FelixConfiguration) -> Result<Self, FieldError> {
        let text = &object.spec.conntrack_mark_mask;
        let digits = text.strip_prefix("0x").filter(|it| !it.starts_with('+'));
        let mask = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let byte = |mask: &u32| *mask != 0 && *mask >> mask.trailing_zeros() == 0xff;
        let mark_mask = mask.filter(byte).ok_or_else(|| {
            let problem = format!("{text:?} is not eight adjacent bits: write it as 0xff000000");
            FieldError::new("spec.conntrackMarkMask", problem)
        })?;
        let reset = match object.spec.revoked_connections.as_str() {
            "Reset" => true,
            "Drop" => false,
            other => {
                let problem = format!("{other:?} is neither Reset nor Drop");
                return Err(FieldError::new("spec.revokedConnections", problem));
            }
        };
        Ok(Self { mark_mask, reset })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: serde_json::Value) -> Result<Configuration, FieldError> {
        let object = json!({ "apiVersion": "margay.io/v1", "kind": "FelixConfiguration", "metadata": {}, "spec": spec });
        Configuration::try_from(&serde_json::from_value::<FelixConfiguration>(object).unwrap())
    }

    #[test]
    fn choices_are_read_or_refused() {
        assert_eq!(read(json!({})), Ok(Configuration::default()));
        let found = read(json!({ "conntrackMarkMask": "0x0FF0", "revokedConnections": "Drop" }));
        let want = Configuration {
            mark_mask: 0x0ff0,
            reset: false,
        };
        assert_eq!(found, Ok(want));
        for mask in ["0x1ff", "0xf0f0", "0x0", "ff", "0x", "0x+ff", "0x1ff000000"] {
            let error = read(json!({ "conntrackMarkMask": mask })).unwrap_err();
            assert_eq!(error.field, "spec.conntrackMarkMask", "{mask}");
        }
        let error = read(json!({ "revokedConnections": "Ask" })).unwrap_err();
        assert_eq!(error.field, "spec.revokedConnections");
    }
}
