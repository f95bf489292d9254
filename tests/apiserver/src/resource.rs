//! The kinds the server serves: their names, scope and, for custom ones, schema and printer columns.

use std::sync::Arc;

use serde_json::Value;

use crate::schema::Schema;

/// One kind in one API version, as discovery lists it.
#[derive(Debug, Clone)]
pub struct ResourceInfo {
    /// API group; empty for the core group.
    pub group: String,
    /// API version, `v1`.
    pub version: String,
    /// Kind, `Pod`.
    pub kind: String,
    /// Name in paths, `pods`.
    pub plural: String,
    /// Name kubectl also accepts, `pod`.
    pub singular: String,
    /// Kind of a list, `PodList`.
    pub list_kind: String,
    /// Abbreviations kubectl accepts, `po`.
    pub short_names: Vec<String>,
    /// Groups of resources kubectl accepts, `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether there is a `/status` subresource.
    pub status: bool,
    /// What a CustomResourceDefinition says about this version; `None` for built-in kinds.
    pub custom: Option<Arc<Custom>>,
}

/// What a CustomResourceDefinition's version adds to the names.
#[derive(Debug)]
pub struct Custom {
    /// `openAPIV3Schema` as written.
    pub schema_json: Value,
    /// The same, parsed.
    pub schema: Schema,
    /// `additionalPrinterColumns` as written; empty if there are none.
    pub columns: Vec<Value>,
    /// `selectableFields` without the leading dot, as field selectors name them.
    pub selectable_fields: Vec<String>,
}

impl ResourceInfo {
    /// `v1` or `networking.k8s.io/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The name of the kind in the store, the same for all its versions: `pods`, `ippools.margay.io`.
    /// Events are one kind with two groups.
    pub fn collection(&self) -> String {
        if self.group.is_empty() || self.group == "events.k8s.io" {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }
}
