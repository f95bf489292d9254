//! JSON values as CEL values, typed by their schema.

use std::borrow::Cow;
use std::collections::HashMap;

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelUInt,
};
use cel::common::value::Val;
use serde_json::Value;

use super::string;
use crate::schema::{Additional, Node, Type};

/// What a rule sees of a value. Fields without a schema are hidden; a Kubernetes object shows its
/// `apiVersion`, `kind`, and of its metadata the name.
pub(super) fn of(node: &Node, is_object: bool, value: &Value) -> Box<dyn Val> {
    match value {
        Value::Object(fields) => {
            let mut map = HashMap::with_capacity(fields.len());
            for (name, value) in fields {
                let seen = if is_object && matches!(name.as_str(), "apiVersion" | "kind") {
                    untyped(value)
                } else if is_object && name == "metadata" {
                    metadata(value)
                } else if let Some(schema) = node.field(name) {
                    of(schema, schema.embedded, value)
                } else if node.preserve_unknown || matches!(node.additional, Additional::Any) {
                    untyped(value)
                } else {
                    continue;
                };
                let name = if matches!(node.additional, Additional::Absent) {
                    escape(name)
                } else {
                    Cow::Borrowed(name.as_str())
                };
                map.insert(CelMapKey::from(name.into_owned()), seen);
            }
            Box::new(CelMap::from(map))
        }
        Value::Array(items) => match &node.items {
            Some(schema) => {
                let items: Vec<_> = items
                    .iter()
                    .map(|item| of(schema, schema.embedded, item))
                    .collect();
                Box::new(CelList::from(items))
            }
            None => untyped(value),
        },
        Value::Number(number) if node.kind == Some(Type::Number) => {
            Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN)))
        }
        Value::Number(number) if node.kind == Some(Type::Integer) && number.is_f64() => {
            // `2.0` is an integer to JSON schema.
            match format!("{:.0}", number.as_f64().unwrap_or(f64::NAN)).parse::<i64>() {
                Ok(whole) => Box::new(CelInt::from(whole)),
                Err(_) => untyped(value),
            }
        }
        plain => untyped(plain),
    }
}

fn metadata(value: &Value) -> Box<dyn Val> {
    let map: HashMap<CelMapKey<'_>, Box<dyn Val>> = ["name", "generateName"]
        .into_iter()
        .filter_map(|name| Some((CelMapKey::from(name.to_owned()), untyped(value.get(name)?))))
        .collect();
    Box::new(CelMap::from(map))
}

fn untyped(value: &Value) -> Box<dyn Val> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(yes) => Box::new(CelBool::from(*yes)),
        Value::Number(number) => {
            if let Some(whole) = number.as_i64() {
                Box::new(CelInt::from(whole))
            } else if let Some(whole) = number.as_u64() {
                Box::new(CelUInt::from(whole))
            } else {
                Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN)))
            }
        }
        Value::String(text) => Box::new(string(text.as_str())),
        Value::Array(items) => {
            Box::new(CelList::from(items.iter().map(untyped).collect::<Vec<_>>()))
        }
        Value::Object(fields) => {
            let map: HashMap<CelMapKey<'_>, Box<dyn Val>> = fields
                .iter()
                .map(|(name, value)| (CelMapKey::from(name.clone()), untyped(value)))
                .collect();
            Box::new(CelMap::from(map))
        }
    }
}

/// A property's name as rules write it: CEL identifiers have no dots, dashes or slashes, and some words are
/// its own.
pub(super) fn escape(name: &str) -> Cow<'_, str> {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if RESERVED.contains(&name) {
        return Cow::Owned(format!("__{name}__"));
    }
    if !name.contains("__") && !name.contains(['.', '-', '/']) {
        return Cow::Borrowed(name);
    }
    let escaped = name
        .replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__");
    Cow::Owned(escaped)
}
