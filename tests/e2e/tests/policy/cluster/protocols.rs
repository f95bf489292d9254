//! What: protocols, ports, names of ports.

use e2e::suite;

use crate::world::Policies;

const ALL: &str = "tcp/80 tcp/8080 tcp/8081 tcp/9000 udp/80 udp/5353 icmp";
const SRV: &str = "{ pods: { namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: {red} } }, podSelector: { matchLabels: { app: srv } } } }";
const BLUE: &str = "[{ namespaces: { matchLabels: { kubernetes.io/metadata.name: {blue} } } }]";

/// Denies these protocols from `blue/cli` to `red/srv`.
fn ingress(protocols: &str) -> String {
    format!(
        "{{ tier: Admin, priority: 5, subject: {SRV}, ingress: [{{ action: Deny, from: {BLUE}, protocols: [{protocols}] }}] }}"
    )
}

/// The same from `red/srv` to `blue/cli`.
fn egress(protocols: &str) -> String {
    format!(
        "{{ tier: Admin, priority: 5, subject: {SRV}, egress: [{{ action: Deny, to: {BLUE}, protocols: [{protocols}] }}] }}"
    )
}

/// Only these are denied, in both directions each with its own policy.
#[track_caller]
fn denies(prefix: &str, cases: &[(&str, &str)]) {
    let suite = suite::shared();
    let p = Policies::few(&suite, prefix);
    let inward = p.cluster("clusternetworkpolicy", "in", &ingress(cases[0].0));
    let outward = p.cluster("clusternetworkpolicy", "out", &egress(cases[0].0));
    for (protocols, denied) in cases {
        inward.becomes(&ingress(protocols));
        outward.becomes(&egress(protocols));
        let others: Vec<&str> = ALL
            .split(' ')
            .filter(|what| !denied.split(' ').any(|it| it == *what))
            .collect();
        let others = others.join(" ");
        p.expect(&[
            ("blue/cli", "red/srv", denied, false),
            ("blue/cli", "red/srv", &others, true),
            ("red/srv", "blue/cli", denied, false),
            ("red/srv", "blue/cli", &others, true),
        ]);
    }
}

#[test]
fn tcp_by_number_and_by_range() {
    denies(
        "cnptcp",
        &[
            ("{ tcp: { destinationPort: { number: 8080 } } }", "tcp/8080"),
            (
                "{ tcp: { destinationPort: { range: { start: 80, end: 8080 } } } }",
                "tcp/80 tcp/8080",
            ),
            (
                "{ tcp: { destinationPort: { range: { start: 8081, end: 65535 } } } }",
                "tcp/8081 tcp/9000",
            ),
        ],
    );
}

#[test]
fn udp_by_number_and_by_range() {
    denies(
        "cnpudp",
        &[
            ("{ udp: { destinationPort: { number: 80 } } }", "udp/80"),
            (
                "{ udp: { destinationPort: { range: { start: 81, end: 5353 } } } }",
                "udp/5353",
            ),
        ],
    );
}

#[test]
fn sctp_by_number_and_by_range() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpsctp");
    let it = p.cluster(
        "clusternetworkpolicy",
        "p",
        &ingress("{ sctp: { destinationPort: { number: 80 } } }"),
    );
    let sctp = |port, allowed| suite.expect_sctp(p.world, "blue/cli", "red/srv", port, allowed);
    sctp(80, false);
    sctp(81, true);
    p.expect(&[("blue/cli", "red/srv", ALL, true)]);
    it.becomes(&ingress(
        "{ sctp: { destinationPort: { range: { start: 8000, end: 9000 } } } }",
    ));
    sctp(80, true);
    sctp(8000, false);
    sctp(9000, false);
    sctp(9001, true);
    p.expect(&[("blue/cli", "red/srv", ALL, true)]);
    // Another protocol's rule is none for it.
    it.becomes(&ingress("{ tcp: { destinationPort: { number: 80 } } }"));
    p.expect(&[("blue/cli", "red/srv", "tcp/80", false)]);
    sctp(80, true);
    drop(it);
}

#[test]
fn a_named_port_is_the_number_and_protocol_the_pod_gives_it() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpnamed");
    let it = p.cluster(
        "clusternetworkpolicy",
        "p",
        &ingress("{ destinationNamedPort: api }"),
    );
    p.expect(&[
        ("blue/cli", "red/srv", "tcp/8080", false),
        ("blue/cli", "red/srv", "tcp/80 tcp/9000 udp/80 icmp", true),
    ]);
    it.becomes(&ingress("{ destinationNamedPort: dns }"));
    p.expect(&[
        ("blue/cli", "red/srv", "udp/5353", false),
        ("blue/cli", "red/srv", "tcp/8080 udp/80", true),
    ]);
    // Nobody's name matches nothing.
    it.becomes(&ingress("{ destinationNamedPort: nobody }"));
    p.expect(&[("blue/cli", "red/srv", ALL, true)]);
    // Outwards it is the other pod's.
    it.becomes(
        "{ tier: Admin, priority: 5, subject: { namespaces: { matchLabels: { kubernetes.io/metadata.name: {blue} } } }, egress: [{ action: Deny, to: [{ namespaces: {} }], protocols: [{ destinationNamedPort: api }] }] }",
    );
    p.expect(&[
        ("blue/cli", "red/srv", "tcp/8080", false),
        ("blue/cli", "red/srv", "tcp/9000", true),
        ("blue/cli", "red/cli", "tcp/8080", true),
    ]);
    drop(it);
}

#[test]
fn several_protocols_of_a_rule_are_alternatives() {
    denies(
        "cnpmany",
        &[(
            "{ tcp: { destinationPort: { number: 80 } } }, { udp: { destinationPort: { number: 5353 } } }, { tcp: { destinationPort: { range: { start: 9000, end: 9001 } } } }",
            "tcp/80 tcp/9000 udp/5353",
        )],
    );
}

#[test]
fn without_protocols_a_rule_is_for_everything() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpany");
    let it = p.cluster(
        "clusternetworkpolicy",
        "p",
        &format!(
            "{{ tier: Admin, priority: 5, subject: {SRV}, ingress: [{{ action: Deny, from: {BLUE} }}] }}"
        ),
    );
    p.expect(&[("blue/cli", "red/srv", ALL, false)]);
    suite.expect_sctp(p.world, "blue/cli", "red/srv", 80, false);
    drop(it);
}
