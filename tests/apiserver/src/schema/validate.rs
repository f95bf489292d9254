//! Validation of values: everything but the CEL rules.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::node::{Checks, ListType, Node, Type};
use crate::field::{FieldError, FieldErrorKind, child, index, key};

/// What is wrong with a value as such.
pub(super) fn values(node: &Node, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(node, value, "", &mut errors);
    errors
}

fn walk(node: &Node, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if value.is_null() && node.nullable {
        return;
    }
    if !right_type(node, value) {
        let wanted = node.kind.map_or("integer,string", Type::name);
        let found = type_name(value);
        errors.push(FieldError::new(
            path,
            FieldErrorKind::TypeInvalid,
            Some(json!(found)),
            format!("{} must be of type {wanted}: {found:?}", in_body(path)),
        ));
        return;
    }
    check(&node.checks, value, path, errors);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let Some(schema) = node.field(name) else {
                    continue;
                };
                let at = if node.property(name).is_some() {
                    child(path, name)
                } else {
                    key(path, name)
                };
                walk(schema, value, &at, errors);
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &node.items {
                for (position, item) in items.iter().enumerate() {
                    walk(schema, item, &index(path, position), errors);
                }
            }
            duplicates(&node.list_type, node.items.as_deref(), items, path, errors);
        }
        _ => {}
    }
}

fn right_type(node: &Node, value: &Value) -> bool {
    if node.int_or_string {
        return value.is_string() || is_integer(value);
    }
    match node.kind {
        None => true,
        Some(Type::Object) => value.is_object(),
        Some(Type::Array) => value.is_array(),
        Some(Type::String) => value.is_string(),
        Some(Type::Integer) => is_integer(value),
        Some(Type::Number) => value.is_number(),
        Some(Type::Boolean) => value.is_boolean(),
    }
}

fn is_integer(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|n| n.fract() == 0.0)
        }
        _ => false,
    }
}

pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn in_body(path: &str) -> String {
    format!("{path} in body").trim_start().to_owned()
}

fn check(checks: &Checks, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut invalid = |bad: &Value, detail: String| {
        errors.push(FieldError::new(
            path,
            FieldErrorKind::Invalid,
            Some(bad.clone()),
            format!("{} {detail}", in_body(path)),
        ));
    };
    match value {
        Value::String(text) => {
            let length = text.chars().count();
            if let Some(least) = checks.min_length.filter(|least| length < *least) {
                invalid(value, format!("should be at least {least} chars long"));
            }
            if let Some(pattern) = &checks.pattern
                && !pattern.is_match(text)
            {
                invalid(value, format!("should match '{pattern}'"));
            }
        }
        Value::Number(number) => {
            if let Some(number) = number.as_f64() {
                check_number(checks, number, value, &mut invalid);
            }
        }
        Value::Array(items) => {
            if let Some(least) = checks.min_items.filter(|least| items.len() < *least) {
                let size = json!(items.len());
                invalid(&size, format!("should have at least {least} items"));
            }
        }
        Value::Object(fields) => {
            if let Some(least) = checks.min_properties.filter(|least| fields.len() < *least) {
                let size = json!(fields.len());
                invalid(&size, format!("should have at least {least} properties"));
            }
        }
        _ => {}
    }
    if let Some(format) = checks.format
        && !format.accepts(value)
    {
        invalid(value, format!("must be of type {}: {value}", format.name()));
    }
    check_size(checks, value, path, errors);
    if let Value::Object(fields) = value {
        for name in &checks.required {
            if !fields.contains_key(name) {
                errors.push(FieldError::required(child(path, name), ""));
            }
        }
    }
    if let Some(allowed) = &checks.one_of_values
        && !allowed.iter().any(|a| same(a, value))
    {
        let names: Vec<String> = allowed.iter().map(Value::to_string).collect();
        errors.push(FieldError::new(
            path,
            FieldErrorKind::NotSupported,
            Some(value.clone()),
            format!("supported values: {}", names.join(", ")),
        ));
    }
    junctors(checks, value, path, errors);
}

fn check_number(
    checks: &Checks,
    number: f64,
    value: &Value,
    invalid: &mut impl FnMut(&Value, String),
) {
    if let Some(least) = checks.minimum {
        if checks.exclusive_minimum && number <= least {
            invalid(value, format!("should be greater than {least}"));
        } else if number < least {
            invalid(value, format!("should be greater than or equal to {least}"));
        }
    }
    if let Some(most) = checks.maximum {
        if checks.exclusive_maximum && number >= most {
            invalid(value, format!("should be less than {most}"));
        } else if number > most {
            invalid(value, format!("should be less than or equal to {most}"));
        }
    }
    if let Some(factor) = checks.multiple_of
        && factor > 0.0
        && (number / factor).fract() != 0.0
    {
        invalid(value, format!("should be a multiple of {factor}"));
    }
}

fn check_size(checks: &Checks, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let (size, limit) = match value {
        Value::String(text) => {
            if let Some(most) = checks.max_length
                && text.chars().count() > most
            {
                errors.push(FieldError::new(
                    path,
                    FieldErrorKind::TooLong,
                    None,
                    format!("may not be more than {most} bytes"),
                ));
            }
            return;
        }
        Value::Array(items) => (items.len(), checks.max_items),
        Value::Object(fields) => (fields.len(), checks.max_properties),
        _ => return,
    };
    if let Some(most) = limit
        && size > most
    {
        errors.push(FieldError::new(
            path,
            FieldErrorKind::TooMany,
            Some(json!(size)),
            format!("must have at most {most} items"),
        ));
    }
}

fn junctors(checks: &Checks, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let fits = |node: &Node| values(node, value).is_empty();
    let mut refuse = |detail: String| {
        errors.push(FieldError::new(
            path,
            FieldErrorKind::Invalid,
            Some(value.clone()),
            format!("{path:?} {detail}"),
        ));
    };
    if !checks.any_of.is_empty() && !checks.any_of.iter().any(fits) {
        refuse("must validate at least one schema (anyOf)".to_owned());
    }
    if !checks.one_of.is_empty() {
        match checks.one_of.iter().filter(|node| fits(node)).count() {
            1 => {}
            0 => {
                refuse("must validate one and only one schema (oneOf). Found none valid".to_owned())
            }
            many => refuse(format!(
                "must validate one and only one schema (oneOf). Found {many} valid alternatives"
            )),
        }
    }
    if checks.not.as_deref().is_some_and(fits) {
        refuse("must not validate the schema (not)".to_owned());
    }
    if !checks.all_of.iter().all(fits) {
        refuse("must validate all the schemas (allOf)".to_owned());
        for node in &checks.all_of {
            walk(node, value, path, errors);
        }
    }
}

/// Refuses items that repeat an earlier one, for the list types that tell items apart.
fn duplicates(
    list_type: &ListType,
    items_schema: Option<&Node>,
    items: &[Value],
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let mut seen: HashMap<String, ()> = HashMap::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        let id = match list_type {
            ListType::Atomic => return,
            ListType::Set => item.clone(),
            ListType::Map(keys) => item_key(keys, items_schema, item),
        };
        if seen.insert(canonical(&id), ()).is_some() {
            errors.push(FieldError::new(
                index(path, position),
                FieldErrorKind::Duplicate,
                Some(id),
                "",
            ));
        }
    }
}

/// The fields that tell an item of a map list apart; a missing one counts as its default.
pub(super) fn item_key(keys: &[String], schema: Option<&Node>, item: &Value) -> Value {
    keys.iter()
        .filter_map(|name| {
            let value = item.get(name).cloned().or_else(|| {
                schema
                    .and_then(|s| s.property(name))
                    .and_then(|s| s.default.clone())
            })?;
            Some((name.clone(), value))
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// A text that is equal for equal values, whatever the order of their fields.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut parts: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{name:?}:{}", canonical(value)))
                .collect();
            parts.sort();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(items) => {
            let parts: Vec<String> = items.iter().map(canonical).collect();
            format!("[{}]", parts.join(","))
        }
        plain => plain.to_string(),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        _ => a == b,
    }
}
