//! `metadata`: names, labels, annotations, finalizers, owners.

use serde_json::Value;

use super::names;
use crate::field::{FieldError, FieldErrorKind, child, index};

/// All annotations of an object together, keys and values, in bytes.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// What is wrong with the metadata of an object of any kind, but for its name.
pub fn metadata(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let metadata = &object["metadata"];
    if let Some(namespace) = super::text(metadata, "namespace")
        && let Some(problem) = names::dns_label(namespace)
    {
        errors.push(FieldError::invalid(
            "metadata.namespace",
            &metadata["namespace"],
            problem,
        ));
    }
    labels(&metadata["labels"], "metadata.labels", &mut errors);
    annotations(&metadata["annotations"], &mut errors);
    for (position, finalizer) in super::items(metadata, "finalizers") {
        let problem = finalizer
            .as_str()
            .map_or_else(|| Some("must be a string".to_owned()), names::qualified);
        if let Some(problem) = problem {
            let path = index("metadata.finalizers", position);
            errors.push(FieldError::invalid(path, finalizer, problem));
        }
    }
    let mut controllers = 0;
    for (position, owner) in super::items(metadata, "ownerReferences") {
        let path = index("metadata.ownerReferences", position);
        for field in ["apiVersion", "kind", "name", "uid"] {
            super::require(owner, field, &path, &mut errors);
        }
        controllers += usize::from(owner["controller"] == true);
    }
    if controllers > 1 {
        errors.push(FieldError::invalid(
            "metadata.ownerReferences",
            &metadata["ownerReferences"],
            "only one reference can have controller set to true",
        ));
    }
    errors
}

/// Keys and values of a map of labels.
pub(super) fn labels(labels: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match labels {
        Value::Null => {}
        Value::Object(labels) => {
            for (key, value) in labels {
                if let Some(problem) = names::qualified(key) {
                    errors.push(FieldError::invalid(
                        path,
                        &Value::from(key.as_str()),
                        problem,
                    ));
                }
                let problem = match value {
                    Value::String(text) => names::label_value(text),
                    _ => Some("must be a string".to_owned()),
                };
                if let Some(problem) = problem {
                    errors.push(FieldError::invalid(path, value, problem));
                }
            }
        }
        other => errors.push(FieldError::invalid(path, other, "must be a map of strings")),
    }
}

fn annotations(annotations: &Value, errors: &mut Vec<FieldError>) {
    let path = "metadata.annotations";
    let fields = match annotations {
        Value::Null => return,
        Value::Object(fields) => fields,
        other => {
            errors.push(FieldError::invalid(path, other, "must be a map of strings"));
            return;
        }
    };
    let mut size = 0;
    for (key, value) in fields {
        // The prefix of an annotation may be in upper case, unlike that of a label.
        if let Some(problem) = names::qualified(&key.to_lowercase()) {
            errors.push(FieldError::invalid(
                path,
                &Value::from(key.as_str()),
                problem,
            ));
        }
        match value {
            Value::String(text) => size += key.len() + text.len(),
            other => errors.push(FieldError::invalid(
                format!("{path}[{key}]"),
                other,
                "must be a string",
            )),
        }
    }
    if size > ANNOTATIONS_LIMIT {
        errors.push(FieldError::new(
            path,
            FieldErrorKind::TooLong,
            None,
            format!("may not be more than {ANNOTATIONS_LIMIT} bytes"),
        ));
    }
}

/// The name, by the rule of its kind. An absent name is the caller's business, as it may be generated.
pub(super) fn name(kind: &str, object: &Value, errors: &mut Vec<FieldError>) {
    let metadata = &object["metadata"];
    let Some(name) = super::text(metadata, "name") else {
        return;
    };
    let problem = match kind {
        "Namespace" => names::dns_label(name),
        "Service" => names::dns_1035_label(name),
        "Role" | "ClusterRole" | "RoleBinding" | "ClusterRoleBinding" => names::path_segment(name),
        _ => names::dns_subdomain(name),
    };
    if let Some(problem) = problem {
        errors.push(FieldError::invalid(
            child("metadata", "name"),
            &metadata["name"],
            problem,
        ));
    }
}
