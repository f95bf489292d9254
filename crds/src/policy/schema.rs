//! Schemas of what derives cannot say: values that are numbers or strings, and rules for the members of a list, so that a
//! refusal names the member.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// What a rule's action may be.
pub(crate) const ACTIONS: [&str; 4] = ["Allow", "Deny", "Log", "Pass"];

/// One of some words. The type stays text, so that an object with a word of a later version can be read and fails closed.
fn words(words: &[&str]) -> Schema {
    json_schema!({ "type": "string", "enum": words })
}

pub(crate) fn action(_: &mut SchemaGenerator) -> Schema {
    words(&ACTIONS)
}

pub(crate) fn tier_action(_: &mut SchemaGenerator) -> Schema {
    words(&["Deny", "Pass"])
}

pub(crate) fn enforcement(_: &mut SchemaGenerator) -> Schema {
    words(&["Enforce", "Audit"])
}

pub(crate) fn types(_: &mut SchemaGenerator) -> Schema {
    let word = words(&["Ingress", "Egress"]);
    json_schema!({ "type": "array", "maxItems": 2, "x-kubernetes-list-type": "set", "items": word })
}

fn rule(rule: &str, message: &str) -> Value {
    json!([{ "rule": rule, "message": message }])
}

/// A protocol: a name or a number.
pub(crate) fn protocol(_: &mut SchemaGenerator) -> Schema {
    let rules = rule(
        "type(self) == string ? self in ['TCP', 'UDP', 'ICMP', 'ICMPv6', 'SCTP', 'UDPLite'] : (self >= 1 && self <= 255)",
        "a protocol is TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255",
    );
    json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": 7, "x-kubernetes-validations": rules })
}

/// Ports: numbers, ranges, names.
pub(crate) fn ports(_: &mut SchemaGenerator) -> Schema {
    let rules = rule(
        "type(self) == string ? self.matches('^([0-9]{1,5}(:[0-9]{1,5})?|([a-z0-9]+-)*[a-z0-9]*[a-z][a-z0-9]*(-[a-z0-9]+)*)$') : (self >= 0 && self <= 65535)",
        "a port is a number (80), a range (8000:8999) or the name of a container port (http)",
    );
    json_schema!({
        "type": "array",
        "maxItems": 50,
        "x-kubernetes-list-type": "atomic",
        "items": { "x-kubernetes-int-or-string": true, "maxLength": 15, "x-kubernetes-validations": rules },
    })
}

fn network() -> Value {
    let rules = rule(
        "isIP(self) || (isCIDR(self) && cidr(self) == cidr(self).masked())",
        "a network is a prefix without host bits or an address: write it as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1",
    );
    json!({ "type": "string", "maxLength": 48, "x-kubernetes-validations": rules })
}

/// Networks of a rule.
pub(crate) fn nets(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 256,
        "x-kubernetes-list-type": "atomic",
        "items": network(),
    })
}

/// Networks of a set.
pub(crate) fn set_nets(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 50000,
        "x-kubernetes-list-type": "atomic",
        "items": network(),
    })
}

/// Texts by keys.
pub(crate) fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 1024 },
    })
}
