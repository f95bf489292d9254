//! Objects as `meta.k8s.io/v1` tables, the way `kubectl get` shows them.

use serde_json::{Value, json};

use crate::resource::ResourceInfo;

/// What each row carries of its object (`includeObject` in the query).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// `PartialObjectMetadata`, the default.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

/// A `Table` of the objects; list metadata (resource version, continue token) is the caller's.
/// `now` is in seconds since 1970.
pub fn render(
    _resource: &ResourceInfo,
    _objects: &[Value],
    _include: IncludeObject,
    _now: i64,
) -> Value {
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": [], "rows": []})
}
