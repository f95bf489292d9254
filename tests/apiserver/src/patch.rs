//! The three patch formats: JSON patch, JSON merge patch, strategic merge patch.

use serde_json::Value;
use thiserror::Error;

use crate::resource::GroupKind;

/// Why a patch does not apply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatchError {
    /// The patch itself is no patch; status 400.
    #[error("{0}")]
    Malformed(String),
    /// The patch is well formed and does not fit the object; status 422.
    #[error("{0}")]
    DoesNotApply(String),
}

/// Applies a JSON patch (RFC 6902).
pub fn apply_json(_document: &Value, _patch: &Value) -> Result<Value, PatchError> {
    Err(PatchError::Malformed(
        "json patch is not supported".to_owned(),
    ))
}

/// Applies a JSON merge patch (RFC 7386).
pub fn apply_merge(document: &Value, _patch: &Value) -> Value {
    document.clone()
}

/// Applies a strategic merge patch to an object of a builtin kind.
pub fn apply_strategic(
    _kind: GroupKind<'_>,
    _document: &Value,
    _patch: &Value,
) -> Result<Value, PatchError> {
    Err(PatchError::Malformed(
        "strategic merge patch is not supported".to_owned(),
    ))
}
