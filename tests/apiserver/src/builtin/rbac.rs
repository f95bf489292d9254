//! Roles and bindings.

use serde_json::Value;

use super::{immutable, items, one_of, require};
use crate::field::{FieldError, child, index};

pub(super) fn role(role: &Value, errors: &mut Vec<FieldError>) {
    for (position, rule) in items(role, "rules") {
        let path = index("rules", position);
        let count = |field: &str| items(rule, field).count();
        if count("verbs") == 0 {
            errors.push(FieldError::required(
                child(&path, "verbs"),
                "verbs must contain at least one value",
            ));
        }
        if count("nonResourceURLs") > 0 {
            continue;
        }
        if count("apiGroups") == 0 {
            errors.push(FieldError::required(
                child(&path, "apiGroups"),
                "resource rules must supply at least one api group",
            ));
        }
        if count("resources") == 0 {
            errors.push(FieldError::required(
                child(&path, "resources"),
                "resource rules must supply at least one resource",
            ));
        }
    }
}

pub(super) fn binding(binding: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let role = &binding["roleRef"];
    require(role, "name", "roleRef", errors);
    one_of(role, "kind", &["ClusterRole", "Role"], "roleRef", errors);
    immutable(binding, old, "roleRef", "", errors);
    for (position, subject) in items(binding, "subjects") {
        let path = index("subjects", position);
        require(subject, "name", &path, errors);
        one_of(
            subject,
            "kind",
            &["Group", "ServiceAccount", "User"],
            &path,
            errors,
        );
    }
}
