//! Defaulting.

use serde_json::Value;

use super::node::{Additional, Node};

/// Fills in defaults, from the outside in, so that a default object gets its own defaults too. A null where
/// null is no value counts as absent.
pub(super) fn defaults(node: &Node, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, schema) in &node.properties {
                let absent = fields
                    .get(name)
                    .is_none_or(|value| value.is_null() && !schema.nullable);
                if !absent {
                    continue;
                }
                match &schema.default {
                    Some(default) => {
                        fields.insert(name.clone(), default.clone());
                    }
                    None => {
                        fields.shift_remove(name);
                    }
                }
            }
            if let Additional::Of(schema) = &node.additional
                && !schema.nullable
                && let Some(default) = &schema.default
            {
                for value in fields.values_mut().filter(|value| value.is_null()) {
                    *value = default.clone();
                }
            }
            for (name, value) in fields {
                if let Some(schema) = node.field(name) {
                    defaults(schema, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &node.items {
                for item in items {
                    if item.is_null()
                        && !schema.nullable
                        && let Some(default) = &schema.default
                    {
                        *item = default.clone();
                    }
                    defaults(schema, item);
                }
            }
        }
        _ => {}
    }
}
