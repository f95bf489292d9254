//! Structural schemas of CustomResourceDefinitions: defaulting, pruning, validation.
//!
//! ```text
//!  openAPIV3Schema ──parse──► Node tree (patterns and CEL rules compiled)
//!                                │
//!       object ──► prune ──► default ──► validate ──► field errors
//!                  (unknown fields)      (values, then the CEL rules)
//! ```

mod fill;
mod format;
mod node;
mod parse;
mod prune;
mod rules;
mod validate;

#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::field::FieldError;

pub(crate) use node::{Additional, Node, Type};

/// A parsed `openAPIV3Schema`.
#[derive(Debug)]
pub struct Schema {
    root: Node,
}

impl Schema {
    /// Reads an `openAPIV3Schema`; the error names what is not structural or not understood.
    pub fn parse(schema: &Value) -> Result<Self, String> {
        parse::schema(schema).map(|root| Self { root })
    }

    /// Fills in the defaults of absent fields, and drops nulls where null is no value.
    pub fn default(&self, object: &mut Value) {
        fill::defaults(&self.root, object);
    }

    /// Removes the fields the schema does not specify and returns their paths.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(&self.root, object)
    }

    /// What is wrong with `object`, `x-kubernetes-validations` included; `old` is the object it replaces.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = validate::values(&self.root, object);
        rules::check(&self.root, object, old, &mut errors);
        errors
    }
}
