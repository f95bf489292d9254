//! `Service`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::network_policy::{PROTOCOLS, port_number};
use super::{items, meta, names, one_of, text};
use crate::field::{FieldError, child, index};

pub(super) fn validate(service: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let spec = &service["spec"];
    one_of(
        spec,
        "type",
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        "spec",
        errors,
    );
    one_of(
        spec,
        "sessionAffinity",
        &["ClientIP", "None"],
        "spec",
        errors,
    );
    meta::labels(&spec["selector"], "spec.selector", errors);
    let ports = items(spec, "ports").count();
    let headless = spec["clusterIP"] == "None";
    if ports == 0 && !headless && spec["type"] != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    let mut seen = BTreeSet::new();
    for (position, port) in items(spec, "ports") {
        let path = index("spec.ports", position);
        port_number(&port["port"], &child(&path, "port"), errors);
        one_of(port, "protocol", &PROTOCOLS, &path, errors);
        let at = child(&path, "name");
        match text(port, "name") {
            None if ports > 1 => errors.push(FieldError::required(at, "")),
            None => {}
            Some(name) => {
                if let Some(problem) = names::dns_label(name) {
                    errors.push(FieldError::invalid(&at, &port["name"], problem));
                }
                if !seen.insert(name) {
                    errors.push(FieldError::duplicate(at, &port["name"]));
                }
            }
        }
        let at = child(&path, "targetPort");
        match &port["targetPort"] {
            Value::Null => {}
            Value::String(name) => {
                if let Some(problem) = names::port_name(name) {
                    errors.push(FieldError::invalid(at, &port["targetPort"], problem));
                }
            }
            number => port_number(number, &at, errors),
        }
    }
    if let Some(old) = old
        && let Some(before) = text(&old["spec"], "clusterIP")
        && text(spec, "clusterIP").is_some_and(|now| now != before)
    {
        errors.push(FieldError::invalid(
            "spec.clusterIP",
            &spec["clusterIP"],
            "field is immutable",
        ));
    }
}
