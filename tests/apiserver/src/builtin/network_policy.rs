//! `NetworkPolicy` of `networking.k8s.io/v1`.

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::{items, names, one_of, selector};
use crate::field::{FieldError, child, index};

/// The protocols of a port.
pub(super) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(super) fn validate(policy: &Value, errors: &mut Vec<FieldError>) {
    let spec = &policy["spec"];
    selector::validate(&spec["podSelector"], "spec.podSelector", errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (position, rule) in items(spec, direction) {
            let path = index(&child("spec", direction), position);
            for (position, port) in items(rule, "ports") {
                self::port(port, &index(&child(&path, "ports"), position), errors);
            }
            for (position, peer) in items(rule, peers) {
                self::peer(peer, &index(&child(&path, peers), position), errors);
            }
        }
    }
    let types = items(spec, "policyTypes").count();
    if types > 2 {
        errors.push(FieldError::invalid(
            "spec.policyTypes",
            &spec["policyTypes"],
            "may not specify more than two policyTypes",
        ));
        return;
    }
    for (position, name) in items(spec, "policyTypes") {
        if !matches!(name.as_str(), Some("Ingress" | "Egress")) {
            let path = index("spec.policyTypes", position);
            errors.push(FieldError::not_supported(
                path,
                name,
                &["Egress", "Ingress"],
            ));
        }
    }
}

fn port(port: &Value, path: &str, errors: &mut Vec<FieldError>) {
    one_of(port, "protocol", &PROTOCOLS, path, errors);
    let end = port.get("endPort").filter(|end| !end.is_null());
    let at = child(path, "port");
    match &port["port"] {
        Value::Null => {
            if end.is_some() {
                errors.push(FieldError::required(
                    at,
                    "must be specified when `endPort` is specified",
                ));
            }
        }
        Value::String(name) => {
            if let Some(problem) = names::port_name(name) {
                errors.push(FieldError::invalid(at, &port["port"], problem));
            }
            if let Some(end) = end {
                errors.push(FieldError::invalid(
                    child(path, "endPort"),
                    end,
                    "may not be specified when `port` is non-numeric",
                ));
            }
        }
        number => {
            port_number(number, &at, errors);
            if let Some(end) = end {
                let at = child(path, "endPort");
                if end.as_i64() < number.as_i64() {
                    errors.push(FieldError::invalid(
                        &at,
                        end,
                        "must be greater than or equal to `port`",
                    ));
                }
                port_number(end, &at, errors);
            }
        }
    }
}

/// Refuses what is no port number.
pub(super) fn port_number(number: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if !number.as_u64().is_some_and(|n| (1..=65535).contains(&n)) {
        errors.push(FieldError::invalid(
            path,
            number,
            "must be between 1 and 65535, inclusive",
        ));
    }
}

fn peer(peer: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let has = |field: &str| peer.get(field).is_some_and(|value| !value.is_null());
    let selects = has("podSelector") || has("namespaceSelector");
    for field in ["podSelector", "namespaceSelector"] {
        selector::validate(&peer[field], &child(path, field), errors);
    }
    if has("ipBlock") {
        if selects {
            errors.push(FieldError::forbidden(
                path,
                "may not specify both ipBlock and another peer",
            ));
        }
        ip_block(&peer["ipBlock"], &child(path, "ipBlock"), errors);
    } else if !selects {
        errors.push(FieldError::required(path, "must specify a peer"));
    }
}

fn ip_block(block: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let at = child(path, "cidr");
    let Some(text) = super::text(block, "cidr") else {
        errors.push(FieldError::required(at, ""));
        return;
    };
    let Some(cidr) = cidr(text) else {
        errors.push(FieldError::invalid(
            at,
            &block["cidr"],
            "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ));
        return;
    };
    for (position, except) in items(block, "except") {
        let at = index(&child(path, "except"), position);
        let Some(inner) = except.as_str().and_then(self::cidr) else {
            errors.push(FieldError::invalid(
                at,
                except,
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ));
            continue;
        };
        if !cidr.contains(inner.ip()) || cidr.prefix() >= inner.prefix() {
            errors.push(FieldError::invalid(
                at,
                except,
                "must be a strict subset of `cidr`",
            ));
        }
    }
}

/// A CIDR with its length written out.
pub(super) fn cidr(text: &str) -> Option<IpNetwork> {
    let (_, length) = text.split_once('/')?;
    let plain = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}
