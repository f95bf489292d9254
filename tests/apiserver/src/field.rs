//! What is wrong with one field of an object, in the words of the Kubernetes API.

use std::fmt;

use serde_json::Value;

/// Why a field is refused; each is one of the `CauseType`s of `metav1.StatusCause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// The value is malformed or out of range.
    Invalid,
    /// A value is missing.
    Required,
    /// The value occurs twice where it must be unique.
    Duplicate,
    /// The value may not be given here, or not be changed.
    Forbidden,
    /// The value is none of an enumeration.
    NotSupported,
    /// The value's JSON type is wrong.
    TypeInvalid,
    /// The string, list or map is too long.
    TooLong,
    /// The list or map has too many items.
    TooMany,
}

impl FieldErrorKind {
    /// The machine-readable `reason` of the status cause.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::NotSupported => "FieldValueNotSupported",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
        }
    }

    /// The words with which the message for people begins.
    pub fn label(self) -> &'static str {
        match self {
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::NotSupported => "Unsupported value",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
        }
    }
}

/// One refused field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// Where, as `spec.ports[0].port`; empty for the whole object.
    pub path: String,
    /// Why.
    pub kind: FieldErrorKind,
    /// What would be right, for people.
    pub detail: String,
    /// The value found, when showing it helps.
    pub bad_value: Option<Value>,
}

impl FieldError {
    /// A refused field; `bad_value` is what was found there.
    pub fn new(
        path: impl Into<String>,
        kind: FieldErrorKind,
        bad_value: Option<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            path: path.into(),
            kind,
            detail: detail.into(),
            bad_value,
        }
    }

    /// A missing value.
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(path, FieldErrorKind::Required, None, detail)
    }

    /// A malformed value.
    pub fn invalid(path: impl Into<String>, bad: &Value, detail: impl Into<String>) -> Self {
        Self::new(path, FieldErrorKind::Invalid, Some(bad.clone()), detail)
    }

    /// A value that is none of `allowed`.
    pub fn not_supported(path: impl Into<String>, bad: &Value, allowed: &[&str]) -> Self {
        let names: Vec<String> = allowed.iter().map(|a| format!("{a:?}")).collect();
        let detail = format!("supported values: {}", names.join(", "));
        Self::new(
            path,
            FieldErrorKind::NotSupported,
            Some(bad.clone()),
            detail,
        )
    }

    /// A value that occurs twice.
    pub fn duplicate(path: impl Into<String>, bad: &Value) -> Self {
        Self::new(path, FieldErrorKind::Duplicate, Some(bad.clone()), "")
    }

    /// A value that may not be given here.
    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(path, FieldErrorKind::Forbidden, None, detail)
    }

    /// The cause's message: everything but the path.
    pub fn message(&self) -> String {
        let mut text = self.kind.label().to_owned();
        if !matches!(
            self.kind,
            FieldErrorKind::Required | FieldErrorKind::Forbidden | FieldErrorKind::TooLong
        ) && let Some(value) = &self.bad_value
        {
            text.push_str(": ");
            text.push_str(&value.to_string());
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() {
            "<nil>"
        } else {
            &self.path
        };
        write!(f, "{path}: {}", self.message())
    }
}

/// All errors of an object in one sentence: the error itself, or `[a, b]` for several.
pub fn sentence(errors: &[FieldError]) -> String {
    match errors {
        [one] => one.to_string(),
        many => {
            let all: Vec<String> = many.iter().map(FieldError::to_string).collect();
            format!("[{}]", all.join(", "))
        }
    }
}

/// The path of a field of `parent`: `a.b`, or `b` at the root.
pub(crate) fn child(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}.{name}")
    }
}

/// The path of an item of a list: `a[3]`.
pub(crate) fn index(parent: &str, position: usize) -> String {
    format!("{parent}[{position}]")
}

/// The path of an entry of a map: `a[key]`.
pub(crate) fn key(parent: &str, name: &str) -> String {
    format!("{parent}[{name}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_like_the_kubernetes_api() {
        let error = FieldError::new(
            "spec.cidr",
            FieldErrorKind::Invalid,
            Some(Value::from("banana")),
            "must be a CIDR",
        );
        assert_eq!(
            error.to_string(),
            "spec.cidr: Invalid value: \"banana\": must be a CIDR"
        );
        let error = FieldError::new("spec.pool", FieldErrorKind::Required, None, "");
        assert_eq!(error.to_string(), "spec.pool: Required value");
    }
}
