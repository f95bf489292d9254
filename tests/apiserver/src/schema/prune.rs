//! Pruning: dropping the fields a schema does not specify.

use serde_json::Value;

use super::node::{Additional, Node};
use crate::field::{child, index};

/// The fields of `metadata` (ObjectMeta of `meta/v1`).
const METADATA: [&str; 15] = [
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

/// Prunes a whole object; its own `apiVersion`, `kind` and `metadata` stay.
pub(super) fn prune(root: &Node, object: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    walk(root, object, "", true, &mut dropped);
    dropped
}

/// Prunes a value inside an object.
pub(super) fn below(node: &Node, value: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    walk(node, value, "", node.embedded, &mut dropped);
    dropped
}

fn walk(node: &Node, value: &mut Value, path: &str, is_object: bool, dropped: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.retain(|name, value| {
            let at = child(path, name);
            if is_object && matches!(name.as_str(), "apiVersion" | "kind") {
                return true;
            }
            if is_object && name == "metadata" {
                prune_metadata(value, &at, dropped);
                return true;
            }
            if let Some(schema) = node.field(name) {
                walk(schema, value, &at, schema.embedded, dropped);
                return true;
            }
            if node.preserve_unknown || matches!(node.additional, Additional::Any) {
                return true;
            }
            dropped.push(at);
            false
        }),
        Value::Array(items) => {
            if let Some(schema) = &node.items {
                for (position, item) in items.iter_mut().enumerate() {
                    walk(
                        schema,
                        item,
                        &index(path, position),
                        schema.embedded,
                        dropped,
                    );
                }
            }
        }
        _ => {}
    }
}

fn prune_metadata(metadata: &mut Value, path: &str, dropped: &mut Vec<String>) {
    if let Value::Object(fields) = metadata {
        fields.retain(|name, _| {
            let known = METADATA.contains(&name.as_str());
            if !known {
                dropped.push(child(path, name));
            }
            known
        });
    }
}
