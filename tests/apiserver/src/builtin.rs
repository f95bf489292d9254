//! Defaults and validation of the builtin kinds.

use serde_json::Value;

use crate::field::FieldError;
use crate::resource::GroupKind;

/// Everything wrong with an object of a builtin kind; `old` is its stored version on updates.
pub fn validate(_kind: GroupKind<'_>, _object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}

/// Fills in the defaults of a builtin kind.
pub fn default(_kind: GroupKind<'_>, _object: &mut Value) {}
