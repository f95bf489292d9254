//! `meta.k8s.io/v1` Table: the columns kubectl prints.

use serde_json::{Value, json};

use crate::resource::ResourceInfo;

/// How much of each object a table's row carries (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// A PartialObjectMetadata; the default.
    #[default]
    Metadata,
    /// The object.
    Object,
}

/// The objects as a Table without list metadata; `now` is seconds since the epoch, for ages.
pub fn render(
    _resource: &ResourceInfo,
    objects: &[&Value],
    include: IncludeObject,
    _now: i64,
) -> Value {
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let carried = match include {
                IncludeObject::None => Value::Null,
                IncludeObject::Metadata => json!({
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
                }),
                IncludeObject::Object => (*object).clone(),
            };
            json!({"cells": [object["metadata"]["name"]], "object": carried})
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": [{"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}],
        "rows": rows,
    })
}
