//! `EndpointSlice`, `Node`, and the data of ConfigMaps and Secrets.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::network_policy::{PROTOCOLS, cidr};
use super::{immutable, items, names, one_of, require};
use crate::field::{FieldError, FieldErrorKind, child, index};

/// Keys and values of one ConfigMap or Secret together, in bytes.
const DATA_LIMIT: usize = 1024 * 1024;

pub(super) fn endpoint_slice(slice: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let families = ["FQDN", "IPv4", "IPv6"];
    require(slice, "addressType", "", errors);
    one_of(slice, "addressType", &families, "", errors);
    immutable(slice, old, "addressType", "", errors);
    for (position, endpoint) in items(slice, "endpoints") {
        let path = child(&index("endpoints", position), "addresses");
        if items(endpoint, "addresses").next().is_none() {
            errors.push(FieldError::required(
                path,
                "must contain at least 1 address",
            ));
            continue;
        }
        for (position, address) in items(endpoint, "addresses") {
            let text = address.as_str().unwrap_or_default();
            let problem = match slice["addressType"].as_str() {
                Some("IPv4") => text
                    .parse::<Ipv4Addr>()
                    .is_err()
                    .then_some("must be a valid IPv4 address"),
                Some("IPv6") => text
                    .parse::<Ipv6Addr>()
                    .is_err()
                    .then_some("must be a valid IPv6 address"),
                Some("FQDN") => names::dns_subdomain(text).map(|_| "must be a valid domain name"),
                _ => None,
            };
            if let Some(problem) = problem {
                errors.push(FieldError::invalid(
                    index(&path, position),
                    address,
                    problem,
                ));
            }
        }
    }
    for (position, port) in items(slice, "ports") {
        let path = index("ports", position);
        one_of(port, "protocol", &PROTOCOLS, &path, errors);
        if let Some(name) = super::text(port, "name")
            && let Some(problem) = names::dns_label(name)
        {
            errors.push(FieldError::invalid(
                child(&path, "name"),
                &port["name"],
                problem,
            ));
        }
    }
}

pub(super) fn node(node: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let spec = &node["spec"];
    for (position, range) in items(spec, "podCIDRs") {
        if range.as_str().and_then(cidr).is_none() {
            let path = index("spec.podCIDRs", position);
            errors.push(FieldError::invalid(
                path,
                range,
                "must be a valid CIDR value",
            ));
        }
    }
    for (position, taint) in items(spec, "taints") {
        let path = index("spec.taints", position);
        let key = taint["key"].as_str().unwrap_or_default();
        if let Some(problem) = names::qualified(key) {
            errors.push(FieldError::invalid(
                child(&path, "key"),
                &taint["key"],
                problem,
            ));
        }
        require(taint, "effect", &path, errors);
        let effects = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
        one_of(taint, "effect", &effects, &path, errors);
    }
    // Set once, then kept: routes and allocations hang on them.
    for field in ["podCIDR", "providerID"] {
        let before = old.and_then(|old| super::text(&old["spec"], field));
        if before.is_some() && before != super::text(spec, field) {
            errors.push(FieldError::forbidden(
                child("spec", field),
                "cannot change once it is set",
            ));
        }
    }
}

/// The keys and the size of a ConfigMap or Secret, and whether it may change.
pub(super) fn data(kind: &str, object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let mut size = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in object[field].as_object().into_iter().flatten() {
            let path = format!("{field}[{key}]");
            if let Some(problem) = names::data_key(key) {
                errors.push(FieldError::invalid(
                    &path,
                    &Value::from(key.as_str()),
                    problem,
                ));
            }
            match value {
                Value::String(text) => size += text.len(),
                other => errors.push(FieldError::new(
                    path,
                    FieldErrorKind::TypeInvalid,
                    Some(other.clone()),
                    "must be a string",
                )),
            }
        }
    }
    if size > DATA_LIMIT {
        errors.push(FieldError::new(
            "data",
            FieldErrorKind::TooLong,
            None,
            format!("may not be more than {DATA_LIMIT} bytes"),
        ));
    }
    if kind == "Secret" {
        immutable(object, old, "type", "", errors);
    }
    if let Some(old) = old.filter(|old| old["immutable"] == true) {
        for field in ["data", "binaryData", "immutable"] {
            if object.get(field) != old.get(field) {
                errors.push(FieldError::forbidden(
                    field,
                    "field is immutable when `immutable` is set",
                ));
            }
        }
    }
}
