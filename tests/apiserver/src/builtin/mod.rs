//! Validation of built-in kinds: what would make the real server refuse an object.

mod discovery;
mod meta;
mod names;
mod network_policy;
mod pod;
mod rbac;
mod selector;
mod service;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use serde_json::Value;

use crate::field::FieldError;
use crate::openapi;
use crate::schema::Schema;

pub use meta::metadata;

/// What is wrong with an object of a built-in `kind`; `old` is the object it replaces.
pub fn validate(kind: &str, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata(object);
    meta::name(kind, object, &mut errors);
    match kind {
        "Pod" => pod::validate(object, old, &mut errors),
        "Service" => service::validate(object, old, &mut errors),
        "NetworkPolicy" => network_policy::validate(object, &mut errors),
        "EndpointSlice" => discovery::endpoint_slice(object, old, &mut errors),
        "Node" => discovery::node(object, old, &mut errors),
        "ConfigMap" | "Secret" => discovery::data(kind, object, old, &mut errors),
        "Role" | "ClusterRole" => rbac::role(object, &mut errors),
        "RoleBinding" | "ClusterRoleBinding" => rbac::binding(object, old, &mut errors),
        _ => {}
    }
    errors
}

/// Removes the fields an object of a built-in `kind` does not have and returns their paths. Kinds of which not
/// every field is known here keep them all.
pub fn prune(kind: &str, object: &mut Value) -> Vec<String> {
    static SCHEMAS: LazyLock<Mutex<HashMap<String, Option<Schema>>>> =
        LazyLock::new(Mutex::default);
    let mut schemas = SCHEMAS.lock().unwrap_or_else(PoisonError::into_inner);
    let schema = schemas.entry(kind.to_owned()).or_insert_with(|| {
        let schema = openapi::builtin::whole(kind)?;
        Schema::parse(&schema).ok()
    });
    schema
        .as_ref()
        .map_or_else(Vec::new, |schema| schema.prune(object))
}

/// The items of a list field with their positions; none if it is absent.
fn items<'v>(object: &'v Value, field: &str) -> impl Iterator<Item = (usize, &'v Value)> {
    object
        .get(field)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
}

/// A string field, if it is there and not empty.
fn text<'v>(object: &'v Value, field: &str) -> Option<&'v str> {
    object
        .get(field)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

/// Refuses a field that is missing or empty.
fn require(object: &Value, field: &str, path: &str, errors: &mut Vec<FieldError>) {
    let missing = match object.get(field) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    };
    if missing {
        errors.push(FieldError::required(crate::field::child(path, field), ""));
    }
}

/// Refuses a value outside `allowed`; an absent or empty one is not judged.
fn one_of(object: &Value, field: &str, allowed: &[&str], path: &str, errors: &mut Vec<FieldError>) {
    if let Some(value) = object
        .get(field)
        .filter(|value| !value.is_null() && *value != "")
        && !value.as_str().is_some_and(|v| allowed.contains(&v))
    {
        errors.push(FieldError::not_supported(
            crate::field::child(path, field),
            value,
            allowed,
        ));
    }
}

/// Refuses a change of a field.
fn immutable(
    object: &Value,
    old: Option<&Value>,
    field: &str,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let Some(old) = old else { return };
    let (now, before) = (object.get(field), old.get(field));
    if now != before {
        errors.push(FieldError::invalid(
            crate::field::child(path, field),
            now.unwrap_or(&Value::Null),
            "field is immutable",
        ));
    }
}
