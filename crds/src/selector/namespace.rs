use std::fmt;
use std::str::FromStr;

use super::{Selector, SelectorError};

/// What `namespaceSelector` of a rule says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceSelector {
    /// `global()`: what is in no namespace, which are host endpoints and GlobalNetworkSets.
    Global,
    /// What is in namespaces whose labels match.
    Labels(Selector),
}

impl FromStr for NamespaceSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let inside = text.trim().strip_prefix("global");
        let inside = inside.and_then(|it| it.trim_start().strip_prefix('('));
        if inside.is_some_and(|it| it.trim_start() == ")") {
            return Ok(Self::Global);
        }
        text.parse().map(Self::Labels)
    }
}

impl fmt::Display for NamespaceSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global()"),
            Self::Labels(selector) => selector.fmt(f),
        }
    }
}
