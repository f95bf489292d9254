use std::fmt;

/// Why an object that the API accepted cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// Path of the field inside the object, as `spec.cidr`.
    pub field: String,
    /// What is wrong and, where there is one, the fix.
    pub problem: String,
}

impl FieldError {
    /// That the field has that problem.
    pub fn new(field: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self {
            field: field.into(),
            problem: problem.to_string(),
        }
    }
}
