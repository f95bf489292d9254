//! Running the CEL rules of a schema over an object.

use serde_json::Value;

use super::node::{ListType, Node};
use super::validate::item_key;
use crate::field::{FieldError, FieldErrorKind, child, index, key};

/// Adds the errors of the rules to those of the values. An object whose shape is wrong is not judged by
/// rules, as they could not trust what they see; that itself is said.
pub(super) fn check(
    root: &Node,
    object: &Value,
    old: Option<&Value>,
    errors: &mut Vec<FieldError>,
) {
    if !root.has_rules {
        return;
    }
    let blocked = errors.iter().any(|error| {
        matches!(
            error.kind,
            FieldErrorKind::Required
                | FieldErrorKind::NotSupported
                | FieldErrorKind::TypeInvalid
                | FieldErrorKind::TooLong
                | FieldErrorKind::TooMany
        )
    });
    if blocked {
        errors.push(FieldError::new(
            "",
            FieldErrorKind::Invalid,
            Some(Value::Null),
            "some validation rules were not checked because the object was invalid; correct the existing errors to \
             complete validation",
        ));
        return;
    }
    walk(root, object, old, "", true, errors);
}

fn walk(
    node: &Node,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    root: bool,
    errors: &mut Vec<FieldError>,
) {
    if !node.has_rules || value.is_null() {
        return;
    }
    let old = old.filter(|old| !old.is_null());
    for rule in &node.rules {
        errors.extend(rule.evaluate(node, root, value, old, path));
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let Some(schema) = node.field(name) else {
                    continue;
                };
                let at = if node.property(name).is_some() {
                    child(path, name)
                } else {
                    key(path, name)
                };
                let old = old.and_then(|old| old.get(name));
                walk(schema, value, old, &at, false, errors);
            }
        }
        Value::Array(items) => {
            let Some(schema) = &node.items else { return };
            for (position, item) in items.iter().enumerate() {
                let old = match &node.list_type {
                    ListType::Map(keys) => {
                        let id = item_key(keys, Some(schema), item);
                        old.and_then(Value::as_array).and_then(|list| {
                            list.iter()
                                .find(|old| item_key(keys, Some(schema), old) == id)
                        })
                    }
                    ListType::Set | ListType::Atomic => None,
                };
                walk(schema, item, old, &index(path, position), false, errors);
            }
        }
        _ => {}
    }
}
