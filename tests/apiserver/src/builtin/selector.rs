//! `LabelSelector` of `meta/v1`.

use serde_json::Value;

use super::{items, meta, names};
use crate::field::{FieldError, child, index};

/// What is wrong with a label selector; an absent one is not judged.
pub(super) fn validate(selector: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if selector.is_null() {
        return;
    }
    if !selector.is_object() {
        errors.push(FieldError::invalid(
            path,
            selector,
            "must be a label selector",
        ));
        return;
    }
    meta::labels(
        &selector["matchLabels"],
        &child(path, "matchLabels"),
        errors,
    );
    for (position, expression) in items(selector, "matchExpressions") {
        let path = index(&child(path, "matchExpressions"), position);
        let values = items(expression, "values").count();
        let operator = &expression["operator"];
        match operator.as_str() {
            Some("In" | "NotIn") if values == 0 => errors.push(FieldError::required(
                child(&path, "values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            Some("Exists" | "DoesNotExist") if values > 0 => errors.push(FieldError::forbidden(
                child(&path, "values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            Some("In" | "NotIn" | "Exists" | "DoesNotExist") => {}
            _ => errors.push(FieldError::invalid(
                child(&path, "operator"),
                operator,
                "not a valid selector operator",
            )),
        }
        let key = expression["key"].as_str().unwrap_or_default();
        if let Some(problem) = names::qualified(key) {
            errors.push(FieldError::invalid(
                child(&path, "key"),
                &expression["key"],
                problem,
            ));
        }
        for (position, value) in items(expression, "values") {
            let problem = value
                .as_str()
                .map_or_else(|| Some("must be a string".to_owned()), names::label_value);
            if let Some(problem) = problem {
                let path = index(&child(&path, "values"), position);
                errors.push(FieldError::invalid(path, value, problem));
            }
        }
    }
}
