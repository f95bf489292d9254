//! Structural schemas of CustomResourceDefinitions: defaulting, pruning, validation.

use serde_json::Value;

use crate::field::FieldError;

/// A parsed `openAPIV3Schema`.
#[derive(Debug, Clone)]
pub struct Schema {}

impl Schema {
    /// Reads an `openAPIV3Schema`; the error names what is not structural or not understood.
    pub fn parse(_schema: &Value) -> Result<Self, String> {
        Ok(Self {})
    }

    /// Fills in the defaults of absent fields.
    pub fn default(&self, _object: &mut Value) {}

    /// Removes the fields the schema does not specify and returns their paths.
    pub fn prune(&self, _object: &mut Value) -> Vec<String> {
        Vec::new()
    }

    /// What is wrong with `object`, `x-kubernetes-validations` included; `old` is the object it replaces.
    pub fn validate(&self, _object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        Vec::new()
    }
}
