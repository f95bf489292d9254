//! The table in the JSON of nft (`libnftables-json(5)`), with the types of the crate `nftables`: to look at, to load with
//! `nft -j -f`, and to compare with what `nft -j list` says of the kernel. The kernel itself is told by netlink.
//!
//! The crate has no word for the key types `devgroup`, `classid` and `icmpv6_type`, and its named sets and maps take
//! no other words. So sets and maps have a type of their own here; tables, chains, rules, statements and the expressions of
//! elements are the crate's.

mod same;
mod write;

use std::borrow::Cow;
use std::collections::BTreeMap;

use nftables::expr::Expression;
use nftables::schema;
use nftables::stmt::Limit;
use nftables::types::NfFamily;
use serde::{Deserialize, Serialize};

use super::model::Table;

/// What nft reads and prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// The parts, each after those it refers to.
    pub nftables: Vec<Object>,
}

/// A part of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Object {
    /// What nft says of itself.
    Metainfo(schema::MetainfoObject<'static>),
    /// A table.
    Table(schema::Table<'static>),
    /// A set.
    Set(NamedSet),
    /// A map.
    Map(NamedSet),
    /// A chain.
    Chain(schema::Chain<'static>),
    /// A rule.
    Rule(schema::Rule<'static>),
}

/// A named set, or a map when it has values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedSet {
    /// Family of its table.
    pub family: NfFamily,
    /// Name of its table.
    pub table: Cow<'static, str>,
    /// Its name.
    pub name: Cow<'static, str>,
    /// The kernel's number of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle: Option<u64>,
    /// nft's names of the types of the fields of a key.
    #[serde(rename = "type")]
    pub key: Words,
    /// nft's name of the type of a value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map: Option<Words>,
    /// nft's words for its properties.
    #[serde(default, skip_serializing_if = "Words::is_empty")]
    pub flags: Words,
    /// Its elements; those of a map are pairs of key and value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elem: Vec<Member>,
    /// Whatever else is said of it. We say nothing else.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// An element.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Member {
    /// One that limits what it matches, for which the crate has no word.
    Limiting {
        /// The element.
        elem: Limiting,
    },
    /// Any other.
    Plain(Expression<'static>),
}

/// An element with a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limiting {
    /// Its key.
    pub val: Expression<'static>,
    /// What it lets match.
    pub limit: Limit<'static>,
}

/// One word, or several in a list: nft writes lists of one either way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Words {
    /// One.
    One(Cow<'static, str>),
    /// Any number.
    Several(Vec<Cow<'static, str>>),
}

impl Default for Words {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Words {
    fn of(words: Vec<Cow<'static, str>>) -> Self {
        match <[_; 1]>::try_from(words) {
            Ok([word]) => Self::One(word),
            Err(words) => Self::Several(words),
        }
    }

    fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    fn as_slice(&self) -> &[Cow<'static, str>] {
        match self {
            Self::One(word) => std::slice::from_ref(word),
            Self::Several(words) => words,
        }
    }
}

impl Document {
    /// The table as nft would print it, but for handles and counts.
    #[must_use]
    pub fn of(table: &Table) -> Self {
        Self {
            nftables: write::objects(table),
        }
    }

    /// As nft reads it. The crate writes a statement without operands as a word; nft takes objects only.
    ///
    /// # Errors
    /// When it cannot be written, which no document of ours makes happen.
    pub fn text(&self) -> serde_json::Result<String> {
        let text = serde_json::to_string(self)?;
        Ok(text.replace("\"notrack\"", "{\"notrack\":null}"))
    }

    /// Reads what nft has printed.
    ///
    /// # Errors
    /// When it is no such document, or has parts that no table of ours has.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        // The crate knows words for codes of ICMP only, and nft writes numbers where it is asked for them.
        let text = text.replace(
            "\"type\": \"icmpx\", \"expr\": 3",
            "\"type\": \"icmpx\", \"expr\": \"admin-prohibited\"",
        );
        serde_json::from_str(&text)
    }

    /// What is not the same in another, one sentence each: this is the table as it should be, the other as it is.
    /// Handles, counts and the order of elements do not matter, nor how nft writes a range or a mask.
    #[must_use]
    pub fn differences(&self, there: &Self) -> Vec<String> {
        same::differences(self, there)
    }
}
