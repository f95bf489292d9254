//! CustomResourceDefinitions: what makes one valid, and what the server adds to it.

use serde_json::{Value, json};

use crate::clock;
use crate::field::{FieldError, FieldErrorKind};
use crate::resource::ResourceInfo;
use crate::schema::Schema;
use crate::store::Key;

/// Where definitions are in the store.
pub(crate) const COLLECTION: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Keeps a definition until its objects are gone.
pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The definition of a custom kind.
pub(crate) fn key(resource: &ResourceInfo) -> Key {
    Key::new("", format!("{}.{}", resource.plural, resource.group))
}

/// Fills in what a definition may leave out, judges it, and says in its status that it is served.
pub(crate) fn prepare(definition: &mut Value, old: Option<&Value>) -> Vec<FieldError> {
    if !definition["spec"].is_object() {
        return vec![FieldError::new("spec", FieldErrorKind::Required, None, "")];
    }
    let errors = judge(definition, old);
    if !errors.is_empty() {
        return errors;
    }
    fill(definition);
    if old.is_none() {
        let metadata = &mut definition["metadata"];
        let mut finalizers = metadata["finalizers"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if finalizers.iter().all(|name| name != FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
        metadata["finalizers"] = finalizers.into();
    }
    serve(definition);
    errors
}

fn judge(definition: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &definition["spec"];
    let mut errors = Vec::new();
    let mut refuse = |path: &str, kind, value: &Value, detail: &str| {
        let found = (!value.is_null()).then(|| value.clone());
        errors.push(FieldError::new(
            path,
            if found.is_none() {
                FieldErrorKind::Required
            } else {
                kind
            },
            found,
            detail,
        ));
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for path in ["group", "names", "scope", "versions"] {
        if spec[path].is_null() {
            refuse(
                &format!("spec.{path}"),
                FieldErrorKind::Required,
                &Value::Null,
                "",
            );
        }
    }
    for name in ["plural", "kind"] {
        if spec["names"][name].as_str().is_none_or(str::is_empty) {
            refuse(
                &format!("spec.names.{name}"),
                FieldErrorKind::Required,
                &Value::Null,
                "",
            );
        }
    }
    if !spec["scope"].is_null() && spec["scope"] != "Cluster" && spec["scope"] != "Namespaced" {
        let detail = "supported values: \"Cluster\", \"Namespaced\"";
        refuse(
            "spec.scope",
            FieldErrorKind::NotSupported,
            &spec["scope"],
            detail,
        );
    }
    let name = format!(
        "{}.{}",
        text(&spec["names"]["plural"]),
        text(&spec["group"])
    );
    if definition["metadata"]["name"] != name.as_str() {
        let detail = format!("must be spec.names.plural+\".\"+spec.group ({name})");
        refuse(
            "metadata.name",
            FieldErrorKind::Invalid,
            &definition["metadata"]["name"],
            &detail,
        );
    }
    let versions = spec["versions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if versions
        .iter()
        .filter(|version| version["storage"] == true)
        .count()
        != 1
    {
        refuse(
            "spec.versions",
            FieldErrorKind::Invalid,
            &spec["versions"],
            "must have exactly one version marked as storage version",
        );
    }
    for (at, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{at}]");
        if version["name"].as_str().is_none_or(str::is_empty) {
            refuse(
                &format!("{path}.name"),
                FieldErrorKind::Required,
                &Value::Null,
                "",
            );
        }
        let schema = &version["schema"]["openAPIV3Schema"];
        let path = format!("{path}.schema.openAPIV3Schema");
        if !schema.is_object() {
            refuse(
                &path,
                FieldErrorKind::Required,
                &Value::Null,
                "schemas are required",
            );
        } else if let Err(problem) = Schema::parse(schema) {
            refuse(&path, FieldErrorKind::Invalid, &json!("schema"), &problem);
        }
    }
    for field in ["group", "scope"] {
        if let Some(before) = old
            .map(|old| &old["spec"][field])
            .filter(|before| **before != spec[field])
        {
            let detail = format!("field is immutable, was {before}");
            refuse(
                &format!("spec.{field}"),
                FieldErrorKind::Invalid,
                &spec[field],
                &detail,
            );
        }
    }
    errors
}

fn fill(definition: &mut Value) {
    let names = &mut definition["spec"]["names"];
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    if names["singular"].as_str().is_none_or(str::is_empty) {
        names["singular"] = kind.to_lowercase().into();
    }
    if names["listKind"].as_str().is_none_or(str::is_empty) {
        names["listKind"] = format!("{kind}List").into();
    }
    if definition["spec"]["conversion"].is_null() {
        definition["spec"]["conversion"] = json!({"strategy": "None"});
    }
}

/// Sets the parts of the status the server owns; a definition is served from the moment it is stored.
fn serve(definition: &mut Value) {
    let names = definition["spec"]["names"].clone();
    let versions = definition["spec"]["versions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let stored = versions
        .iter()
        .find(|version| version["storage"] == true)
        .map(|version| version["name"].clone());
    let status = &mut definition["status"];
    if !status.is_object() {
        *status = json!({});
    }
    status["acceptedNames"] = names;
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    for (kind, reason, message) in [
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        (
            "Established",
            "InitialNamesAccepted",
            "the initial names have been accepted",
        ),
    ] {
        if conditions.iter().all(|condition| condition["type"] != kind) {
            conditions.push(json!({
                "type": kind, "status": "True", "reason": reason, "message": message,
                "lastTransitionTime": clock::timestamp(),
            }));
        }
    }
    status["conditions"] = conditions.into();
    let mut versions = status["storedVersions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if let Some(stored) = stored.filter(|stored| !versions.contains(stored)) {
        versions.push(stored);
    }
    status["storedVersions"] = versions.into();
}
