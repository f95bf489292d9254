//! Errors that name a field, in the words and the shape `kubectl` shows.

use std::fmt;

use serde_json::{Value, json};

/// What is wrong with a field; the names are those of `Status.details.causes[].reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The field must be there and is not.
    Required,
    /// The value is of the right type and wrong.
    Invalid,
    /// The value is none of those allowed.
    NotSupported,
    /// The same value or key occurs twice.
    Duplicate,
    /// The field may not be set here.
    Forbidden,
    /// The string is too long.
    TooLong,
    /// The list or map has too many entries.
    TooMany,
    /// The value is of the wrong type.
    TypeInvalid,
    /// A rule could not be evaluated.
    Internal,
}

impl ErrorKind {
    /// The machine-readable cause reason.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }
}

/// One wrong field of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// Where: `spec.ports[0].port`, `metadata.labels[a/b]`.
    pub path: String,
    /// What sort of wrong.
    pub kind: ErrorKind,
    /// What would be right.
    pub detail: String,
    /// The offending value; null when there is none to show.
    pub bad_value: Value,
}

impl FieldError {
    /// An error of any kind.
    pub fn new(
        kind: ErrorKind,
        path: impl Into<String>,
        bad_value: Value,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            path: path.into(),
            kind,
            detail: detail.into(),
            bad_value,
        }
    }

    /// A field that has to be set.
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Required, path, Value::Null, detail)
    }

    /// A wrong value of the right type.
    pub fn invalid(path: impl Into<String>, bad: &Value, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, path, bad.clone(), detail)
    }

    /// A value outside a fixed set.
    pub fn not_supported(path: impl Into<String>, bad: &Value, allowed: &[&str]) -> Self {
        let names: Vec<String> = allowed.iter().map(|a| format!("{a:?}")).collect();
        Self::new(
            ErrorKind::NotSupported,
            path,
            bad.clone(),
            format!("supported values: {}", names.join(", ")),
        )
    }

    /// A value that occurs twice.
    pub fn duplicate(path: impl Into<String>, bad: &Value) -> Self {
        Self::new(ErrorKind::Duplicate, path, bad.clone(), "")
    }

    /// A field that may not be set.
    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, path, Value::Null, detail)
    }

    /// The message without the path, as in `Status.details.causes[].message`.
    pub fn message(&self) -> String {
        let words = self.kind.words();
        let shows_value = !matches!(
            self.kind,
            ErrorKind::Required
                | ErrorKind::Forbidden
                | ErrorKind::TooLong
                | ErrorKind::TooMany
                | ErrorKind::Internal
        );
        let mut text = if shows_value {
            format!("{words}: {}", self.bad_value)
        } else {
            words.to_owned()
        };
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    /// One entry of `Status.details.causes`.
    pub fn cause(&self) -> Value {
        json!({"reason": self.kind.reason(), "message": self.message(), "field": self.path})
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message())
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

/// `a.b`, or `b` when the parent is the root.
pub fn child(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}.{name}")
    }
}

/// `a[3]`.
pub fn index(parent: &str, position: usize) -> String {
    format!("{parent}[{position}]")
}

/// `a[key]`, for keys of maps.
pub fn key(parent: &str, name: &str) -> String {
    format!("{parent}[{name}]")
}
