//! What the server knows about one served resource: its names, its scope, and, for custom
//! resources, its schema and printer columns.

use std::sync::Arc;

use serde_json::Value;

use crate::schema::Schema;

/// One resource in one version, as discovery names it.
#[derive(Clone, Debug)]
pub struct ResourceInfo {
    /// API group, empty for the core group.
    pub group: String,
    /// Version inside the group.
    pub version: String,
    /// Kind of one object.
    pub kind: String,
    /// Kind of the list; usually the kind followed by `List`.
    pub list_kind: String,
    /// The name in paths.
    pub plural: String,
    /// The name `kubectl` prints.
    pub singular: String,
    /// Abbreviations `kubectl` accepts.
    pub short_names: Vec<String>,
    /// Groups of resources such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Verbs of the main resource, in the order discovery shows them.
    pub verbs: Vec<String>,
    /// Subresources served below an object.
    pub subresources: Subresources,
    /// Extra columns of `kubectl get`; `None` for builtins, which have their own in [`crate::table`].
    pub columns: Option<Vec<PrinterColumn>>,
    /// The compiled structural schema; `None` for builtins.
    pub schema: Option<Arc<Schema>>,
    /// The schema as its author wrote it, for OpenAPI documents; `None` for builtins.
    pub open_api: Option<Arc<Value>>,
}

/// Subresources of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subresources {
    /// `/status`, written apart from the rest of the object.
    pub status: bool,
    /// `/binding` of a pod.
    pub binding: bool,
}

/// One entry of `additionalPrinterColumns` of a custom resource definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrinterColumn {
    /// Heading, printed in upper case by `kubectl`.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// Format hint, e.g. `name`; often empty.
    pub format: String,
    /// What the column shows.
    pub description: String,
    /// 0 is always shown, more only with `-o wide`.
    pub priority: i64,
    /// Where the value is, from the root of the object: `.spec.cidr`.
    pub json_path: String,
}

impl ResourceInfo {
    /// `v1` for the core group, `group/version` for the others.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The kind in its group, whatever the version.
    pub fn group_kind(&self) -> GroupKind<'_> {
        GroupKind {
            group: &self.group,
            kind: &self.kind,
        }
    }
}

/// A kind in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupKind<'a> {
    /// API group, empty for the core group.
    pub group: &'a str,
    /// Kind of the object.
    pub kind: &'a str,
}
