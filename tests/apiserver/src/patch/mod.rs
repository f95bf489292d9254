//! Patches as pure functions: what an object becomes.

mod json;
mod strategic;
mod strategy;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub use json::apply_json;
pub use strategic::apply_strategic;

/// RFC 7386 merge patch; an object can only be patched with an object.
pub fn apply_merge(target: &Value, patch: &Value) -> Result<Value, String> {
    if !patch.is_object() {
        return Err("a merge patch must be a JSON object".to_owned());
    }
    let mut result = target.clone();
    merge(&mut result, patch);
    Ok(result)
}

/// RFC 7386 section 2, `MergePatch`.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(into) = target else { return };
    for (name, value) in fields {
        if value.is_null() {
            into.shift_remove(name);
        } else {
            merge(into.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}
