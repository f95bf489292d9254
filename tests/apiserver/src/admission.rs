//! What the server makes of an object before it is stored: identity, bookkeeping fields, defaults, judgement.
//! Pure functions of the object, the one it replaces, and the kind.

use serde_json::{Map, Value, json};

use crate::clock;
use crate::field::{FieldError, FieldErrorKind};
use crate::resource::ResourceInfo;
use crate::status::ApiError;
use crate::{builtin, crd, defaults};

/// The fields of metadata that only the server writes.
const SERVER_FIELDS: [&str; 6] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
];

/// Checks that an object sent to `resource` is one, and that it is meant for this namespace. Fills in what may
/// be left out.
pub(crate) fn identify(
    object: &mut Value,
    resource: &ResourceInfo,
    namespace: Option<&str>,
) -> Result<(), ApiError> {
    if !object.is_object() {
        return Err(ApiError::bad_request("the object is none"));
    }
    let (kind, api_version) = (resource.kind.as_str(), resource.api_version());
    if object["kind"].as_str().is_none_or(str::is_empty) {
        object["kind"] = kind.into();
    }
    if object["apiVersion"].as_str().is_none_or(str::is_empty) {
        object["apiVersion"] = api_version.as_str().into();
    }
    if object["kind"] != kind || object["apiVersion"] != api_version.as_str() {
        return Err(ApiError::bad_request(format!(
            "{} in version {} cannot be handled as a {kind} in version \"{api_version}\"",
            object["kind"].as_str().unwrap_or("?"),
            object["apiVersion"],
        )));
    }
    if object["metadata"].is_null() {
        object["metadata"] = json!({});
    }
    let Some(metadata) = object["metadata"].as_object_mut() else {
        return Err(ApiError::bad_request("metadata is not an object"));
    };
    metadata.shift_remove("managedFields");
    metadata.shift_remove("selfLink");
    let sent = metadata
        .get("namespace")
        .and_then(Value::as_str)
        .unwrap_or_default();
    match namespace {
        Some(namespace) if sent.is_empty() => {
            metadata.insert("namespace".into(), namespace.into());
        }
        Some(namespace) if sent != namespace => {
            return Err(ApiError::bad_request(format!(
                "the namespace of the provided object does not match the namespace sent on the request \
                 ({sent:?}, {namespace:?})"
            )));
        }
        None if !sent.is_empty() => {
            return Err(ApiError::bad_request(
                "namespace is set on an object that lives in none",
            ));
        }
        _ => {}
    }
    if resource.custom.is_none()
        && let Some(field) = ["spec", "status", "data"].into_iter().find(|field| {
            object
                .get(field)
                .is_some_and(|value| !value.is_null() && !value.is_object())
        })
    {
        return Err(ApiError::bad_request(format!(
            "{kind} cannot be decoded: {field} is not an object"
        )));
    }
    // The order in which people expect to read them.
    let mut ordered = Map::new();
    for field in ["apiVersion", "kind", "metadata"] {
        ordered.insert(field.to_owned(), object[field].take());
    }
    for (name, value) in object.as_object().into_iter().flatten() {
        if !ordered.contains_key(name) {
            ordered.insert(name.clone(), value.clone());
        }
    }
    *object = Value::Object(ordered);
    Ok(())
}

/// Makes a sent object a new one, with the identity `uid`.
pub(crate) fn begin(object: &mut Value, resource: &ResourceInfo, uid: String) {
    let Some(metadata) = object["metadata"].as_object_mut() else {
        return;
    };
    for field in SERVER_FIELDS {
        metadata.shift_remove(field);
    }
    metadata.insert("uid".into(), uid.into());
    metadata.insert("creationTimestamp".into(), clock::timestamp().into());
    if has_generation(resource) {
        metadata.insert("generation".into(), 1.into());
    }
    if resource.custom.is_some() && resource.status {
        object
            .as_object_mut()
            .map(|object| object.shift_remove("status"));
    }
}

/// Makes `object` a successor of `old`: what the client may not write stays as it was. `subresource` says what
/// the client may write at all.
pub(crate) fn succeed(
    object: &mut Value,
    old: &Value,
    resource: &ResourceInfo,
    subresource: Option<&str>,
) {
    match subresource {
        Some("status") => {
            let status = object.get_mut("status").map(Value::take);
            // Labels and annotations may be written through /status of built-in kinds, as kubelets do.
            let metadata = object["metadata"].take();
            *object = old.clone();
            set(object, "status", status);
            if resource.custom.is_none() {
                object["metadata"] = metadata;
            }
        }
        Some("finalize") => {
            let finalizers = object["spec"]["finalizers"].take();
            *object = old.clone();
            object["spec"]["finalizers"] = finalizers;
        }
        _ => {
            if resource.status {
                set(object, "status", old.get("status").cloned());
            }
            if resource.kind == "Namespace" && resource.custom.is_none() {
                object["spec"] = old["spec"].clone();
            }
        }
    }
    for field in SERVER_FIELDS {
        set(
            &mut object["metadata"],
            field,
            old["metadata"].get(field).cloned(),
        );
    }
}

/// Counts a change of what the user wants; after defaulting, which can make a change none.
pub(crate) fn count(object: &mut Value, old: &Value, resource: &ResourceInfo) {
    if has_generation(resource)
        && is_changed(object, old, resource)
        && let Some(generation) = old["metadata"]["generation"].as_u64()
    {
        object["metadata"]["generation"] = (generation + 1).into();
    }
}

fn set(object: &mut Value, field: &str, value: Option<Value>) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    match value {
        Some(value) => {
            fields.insert(field.to_owned(), value);
        }
        None => {
            fields.shift_remove(field);
        }
    }
}

fn has_generation(resource: &ResourceInfo) -> bool {
    resource.custom.is_some()
        || matches!(
            resource.kind.as_str(),
            "Pod" | "NetworkPolicy" | "EndpointSlice" | "CustomResourceDefinition"
        )
}

/// Whether what the user wants has changed: everything but metadata and, where it is the controllers', status.
fn is_changed(object: &Value, old: &Value, resource: &ResourceInfo) -> bool {
    let wanted = |object: &Value| {
        let mut fields = object.as_object().cloned().unwrap_or_default();
        fields.shift_remove("metadata");
        fields.shift_remove("apiVersion");
        if resource.status {
            fields.shift_remove("status");
        }
        fields
    };
    wanted(object) != wanted(old)
}

/// Defaults, prunes and judges. Returns the paths of the fields the schema does not know, which are gone.
pub(crate) fn judge(
    object: &mut Value,
    old: Option<&Value>,
    resource: &ResourceInfo,
) -> Result<Vec<String>, ApiError> {
    let unknown;
    let mut errors = name_errors(object);
    if let Some(custom) = &resource.custom {
        unknown = custom.schema.prune(object);
        custom.schema.default(object);
        errors.extend(custom.schema.validate(object, old));
        // The rules for any kind: metadata is the same everywhere.
        errors.extend(builtin::validate("", object, old));
    } else {
        unknown = builtin::prune(&resource.kind, object);
        defaults::apply(object, old, &resource.kind);
        errors.extend(builtin::validate(&resource.kind, object, old));
        if resource.kind == "CustomResourceDefinition" {
            errors.extend(crd::prepare(object, old));
        }
    }
    if errors.is_empty() {
        Ok(unknown)
    } else {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        Err(ApiError::invalid(resource, name, &errors))
    }
}

/// Names that could not stand in a path are refused whatever the kind.
fn name_errors(object: &Value) -> Vec<FieldError> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        let detail = "name or generateName is required";
        return vec![FieldError::new(
            "metadata.name",
            FieldErrorKind::Required,
            None,
            detail,
        )];
    }
    let is_bad = |c: char| c.is_control() || matches!(c, '/' | '%' | '"' | '\\');
    if name.contains(is_bad) || name == "." || name == ".." {
        let detail = "may not be '.' or '..' or contain '/', '%', quotes or control characters";
        return vec![FieldError::new(
            "metadata.name",
            FieldErrorKind::Invalid,
            Some(name.into()),
            detail,
        )];
    }
    Vec::new()
}

#[cfg(test)]
mod tests;
