//! What the API server refuses, with the name of the field.

use e2e::suite::{Suite, shared};

const PEER: &str = "namespaces: {}";

fn refused(suite: &Suite, spec: &str, field: &str) {
    let refusal = suite.refusal(
        &["apply", "-f", "-"],
        &format!(
            "{{ apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {{ name: refused }}, spec: {spec} }}"
        ),
    );
    assert!(refusal.contains(field), "{field} is not named: {refusal}");
}

/// A spec with something else in the place of what is right.
fn but(tier: &str, priority: &str, subject: &str, ingress: &str) -> String {
    format!("{{ tier: {tier}, priority: {priority}, subject: {subject}, ingress: [{ingress}] }}")
}

fn rule(more: &str) -> String {
    let subject = format!("{{ {PEER} }}");
    but(
        "Admin",
        "5",
        &subject,
        &format!("{{ action: Deny, from: [{{ {PEER} }}], {more} }}"),
    )
}

#[test]
fn a_tier_is_admin_or_baseline() {
    let suite = shared();
    refused(
        &suite,
        &but("Default", "5", "{ namespaces: {} }", ""),
        "spec.tier",
    );
}

#[test]
fn a_priority_is_0_to_1000() {
    let suite = shared();
    for priority in ["-1", "1001"] {
        let spec = but("Admin", priority, "{ namespaces: {} }", "");
        refused(&suite, &spec, "spec.priority");
    }
}

#[test]
fn a_subject_is_namespaces_or_pods() {
    let suite = shared();
    let both = "{ namespaces: {}, pods: { namespaceSelector: {}, podSelector: {} } }";
    for subject in ["{}", both] {
        refused(&suite, &but("Admin", "5", subject, ""), "spec.subject");
    }
}

#[test]
fn an_action_is_accept_deny_or_pass() {
    let suite = shared();
    for action in ["Allow", "Log"] {
        let rule = format!("{{ action: {action}, from: [{{ {PEER} }}] }}");
        let spec = but("Admin", "5", "{ namespaces: {} }", &rule);
        refused(&suite, &spec, "spec.ingress[0].action");
    }
}

#[test]
fn a_rule_has_1_to_25_peers() {
    let suite = shared();
    let many = vec!["{ namespaces: {} }"; 26].join(", ");
    for peers in ["", many.as_str()] {
        let rule = format!("{{ action: Deny, from: [{peers}] }}");
        let spec = but("Admin", "5", "{ namespaces: {} }", &rule);
        refused(&suite, &spec, "spec.ingress[0].from");
    }
}

#[test]
fn a_direction_has_25_rules_at_most() {
    let suite = shared();
    let rules = vec!["{ action: Deny, from: [{ namespaces: {} }] }"; 26].join(", ");
    let spec = but("Admin", "5", "{ namespaces: {} }", &rules);
    refused(&suite, &spec, "spec.ingress");
}

#[test]
fn protocols_are_1_to_25_when_they_are_said() {
    let suite = shared();
    refused(&suite, &rule("protocols: []"), "spec.ingress[0].protocols");
}

#[test]
fn a_port_is_1_to_65535() {
    let suite = shared();
    for port in ["0", "65536"] {
        let protocol =
            format!("protocols: [{{ tcp: {{ destinationPort: {{ number: {port} }} }} }}]");
        refused(&suite, &rule(&protocol), "destinationPort.number");
    }
}

#[test]
fn a_range_of_ports_begins_below_its_end() {
    let suite = shared();
    for (start, end) in [(80, 80), (81, 80)] {
        let protocol = format!(
            "protocols: [{{ udp: {{ destinationPort: {{ range: {{ start: {start}, end: {end} }} }} }} }}]"
        );
        refused(&suite, &rule(&protocol), "destinationPort.range");
    }
}
