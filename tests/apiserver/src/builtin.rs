//! Validation of built-in kinds.

use serde_json::Value;

use crate::field::FieldError;

/// What is wrong with an object of a built-in `kind`; `old` is the object it replaces.
pub fn validate(_kind: &str, _object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}
