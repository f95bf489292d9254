//! The compiled form of a schema.

use regex::Regex;
use serde_json::Value;

use super::format::Format;
use crate::cel::Rule;

/// JSON types a schema can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// What `additionalProperties` says of fields that are not named.
#[derive(Debug, Default)]
pub(crate) enum Additional {
    /// Nothing: such fields are unknown.
    #[default]
    Absent,
    /// `true`: anything goes.
    Any,
    /// Each is of this schema.
    Of(Box<Node>),
}

/// How the items of a list are told apart.
#[derive(Debug, Default)]
pub(crate) enum ListType {
    /// They are not.
    #[default]
    Atomic,
    /// Each value occurs once.
    Set,
    /// Each combination of these fields occurs once.
    Map(Vec<String>),
}

/// A schema of one value.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) kind: Option<Type>,
    pub(crate) int_or_string: bool,
    pub(crate) nullable: bool,
    pub(crate) preserve_unknown: bool,
    /// A whole Kubernetes object with its own `apiVersion`, `kind` and `metadata`.
    pub(crate) embedded: bool,
    pub(crate) properties: Vec<(String, Self)>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Box<Self>>,
    pub(crate) list_type: ListType,
    pub(crate) default: Option<Value>,
    pub(crate) checks: Checks,
    pub(crate) rules: Vec<Rule>,
    /// Whether this node or one below has rules.
    pub(crate) has_rules: bool,
}

impl Node {
    pub(crate) fn property(&self, name: &str) -> Option<&Self> {
        self.properties
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, node)| node)
    }

    /// The schema of a field, named or additional.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        self.property(name).or(match &self.additional {
            Additional::Of(node) => Some(node),
            Additional::Absent | Additional::Any => None,
        })
    }
}

/// Conditions on a value that do not shape it.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) required: Vec<String>,
    pub(crate) one_of_values: Option<Vec<Value>>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) format: Option<Format>,
    pub(crate) minimum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_maximum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) min_length: Option<usize>,
    pub(crate) max_length: Option<usize>,
    pub(crate) min_items: Option<usize>,
    pub(crate) max_items: Option<usize>,
    pub(crate) min_properties: Option<usize>,
    pub(crate) max_properties: Option<usize>,
    pub(crate) all_of: Vec<Node>,
    pub(crate) any_of: Vec<Node>,
    pub(crate) one_of: Vec<Node>,
    pub(crate) not: Option<Box<Node>>,
}
