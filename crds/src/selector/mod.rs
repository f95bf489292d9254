//! The selector language: which labels an object must carry.
//!
//! ```text
//! expression = term { "||" term }            term = factor { "&&" factor }
//! factor     = { "!" } ( "(" expression ")" | "all()" | "has(" key ")" | key test )
//! test       = "==" value | "!=" value | "in" set | "not" "in" set | "notin" set
//!            | "contains" value | "starts" "with" value | "ends" "with" value
//! set        = "{" [ value { "," value } [ "," ] ] "}"
//! ```
//!
//! Keys are letters, digits and `_./-`; words of the language are keys where a key stands. Values stand in single or double
//! quotes; there are no escapes. `!=` and `not in` hold for an object without the label, every other test does not. An empty
//! selector is `all()`. A selector over namespaces may be `global()`, alone: see [`NamespaceSelector`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

mod namespace;
mod parse;
#[cfg(test)]
mod tests;

pub use namespace::NamespaceSelector;
pub use parse::{MAX_DEPTH, MAX_LENGTH, Problem, SelectorError};

/// A parsed selector. Its text form is canonical: parsing it gives the same selector.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(Expr);

/// A condition over labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expr {
    /// Holds for everything.
    All,
    /// The label exists.
    Has(String),
    /// A test of one label.
    Test {
        /// Name of the label.
        key: String,
        /// What is asked of its value.
        test: Test,
    },
    /// Does not hold.
    Not(Box<Self>),
    /// All hold; at least two.
    And(Vec<Self>),
    /// At least one holds; at least two are given.
    Or(Vec<Self>),
}

/// What is asked of a label's value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Test {
    /// Is this.
    Equals(String),
    /// Is not this, or there is no label.
    Differs(String),
    /// Is one of these.
    In(BTreeSet<String>),
    /// Is none of these, or there is no label.
    NotIn(BTreeSet<String>),
    /// Contains this.
    Contains(String),
    /// Starts with this.
    StartsWith(String),
    /// Ends with this.
    EndsWith(String),
}

impl Selector {
    /// The selector that holds for everything.
    pub fn all() -> Self {
        Self(Expr::All)
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.holds(&|key| labels.get(key).map(String::as_str))
    }

    /// Whether an object is selected, by a look at its labels one by one.
    pub fn holds<'a>(&self, label: &impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.holds(label)
    }

    /// The condition itself.
    pub fn expr(&self) -> &Expr {
        &self.0
    }
}

impl Expr {
    fn holds<'a>(&self, label: &impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::All => true,
            Self::Has(key) => label(key).is_some(),
            Self::Test { key, test } => test.holds(label(key)),
            Self::Not(inner) => !inner.holds(label),
            Self::And(parts) => parts.iter().all(|part| part.holds(label)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(label)),
        }
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let Some(value) = value else {
            return matches!(self, Self::Differs(_) | Self::NotIn(_));
        };
        match self {
            Self::Equals(it) => value == it,
            Self::Differs(it) => value != it,
            Self::In(set) => set.contains(value),
            Self::NotIn(set) => !set.contains(value),
            Self::Contains(it) => value.contains(it.as_str()),
            Self::StartsWith(it) => value.starts_with(it.as_str()),
            Self::EndsWith(it) => value.ends_with(it.as_str()),
        }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        parse::selector(text).map(Self)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Has(key) => write!(f, "has({key})"),
            Self::Test { key, test } => write!(f, "{key} {test}"),
            Self::Not(inner) => write!(f, "!{}", Operand(inner)),
            Self::And(parts) => join(f, parts, " && "),
            Self::Or(parts) => join(f, parts, " || "),
        }
    }
}

fn join(f: &mut fmt::Formatter<'_>, parts: &[Expr], operator: &str) -> fmt::Result {
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            f.write_str(operator)?;
        }
        write!(f, "{}", Operand(part))?;
    }
    Ok(())
}

/// An operand of a connective: in parentheses when it has operands of its own.
struct Operand<'a>(&'a Expr);

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expr::And(_) | Expr::Or(_) => write!(f, "({})", self.0),
            other => other.fmt(f),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equals(value) => write!(f, "== {}", Quoted(value)),
            Self::Differs(value) => write!(f, "!= {}", Quoted(value)),
            Self::In(set) => write!(f, "in {}", Set(set)),
            Self::NotIn(set) => write!(f, "not in {}", Set(set)),
            Self::Contains(value) => write!(f, "contains {}", Quoted(value)),
            Self::StartsWith(value) => write!(f, "starts with {}", Quoted(value)),
            Self::EndsWith(value) => write!(f, "ends with {}", Quoted(value)),
        }
    }
}

struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A value came out of one kind of quotes, so it never holds both.
        let quote = if self.0.contains('\'') { '"' } else { '\'' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

struct Set<'a>(&'a BTreeSet<String>);

impl fmt::Display for Set<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, value) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}", Quoted(value))?;
        }
        f.write_str("}")
    }
}

/// The default of selector fields.
pub(crate) fn everything() -> String {
    "all()".to_owned()
}
