//! ClusterNetworkPolicy: each rule of its API, seen by packets.

mod order;
mod peers;
mod protocols;
mod refused;
mod subjects;

use e2e::suite;

use crate::world::{CLIENTS, Object, Policies, SERVERS};

const BLUE: &str = "blue/cli1 blue/cli2 blue/cli3";
const RED: &str = "red/cli1 red/cli3";
const SUBJECT: &str = "{ pods: { namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: {red} } }, podSelector: { matchLabels: { app: srv } } } }";
const FROM_BLUE: &str =
    "[{ namespaces: { matchLabels: { kubernetes.io/metadata.name: {blue} } } }]";
const FROM_RED: &str = "[{ namespaces: { matchLabels: { kubernetes.io/metadata.name: {red} } } }]";
const EVERYBODY: &str = "[{ namespaces: {} }]";

fn spec(tier: &str, priority: u32, rules: &str) -> String {
    format!("{{ tier: {tier}, priority: {priority}, subject: {SUBJECT}, ingress: [{rules}] }}")
}

fn ingress<'a>(
    p: &'a Policies<'a>,
    name: &str,
    tier: &str,
    priority: u32,
    rules: &str,
) -> Object<'a> {
    p.cluster("clusternetworkpolicy", name, &spec(tier, priority, rules))
}

/// The specs of egress from the whole namespace.
fn egress(rules: &str) -> String {
    let subject = "{ namespaces: { matchLabels: { kubernetes.io/metadata.name: {red} } } }";
    format!("{{ tier: Admin, priority: 5, subject: {subject}, egress: [{rules}] }}")
}

fn rule(action: &str, from: &str) -> String {
    format!("{{ action: {action}, from: {from} }}")
}

#[test]
fn admin_rules_come_before_network_policies() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "cnpadmin");
    p.apply("red", "k8s", "{ podSelector: { matchLabels: { app: srv } }, ingress: [{ from: [{ podSelector: {} }] }] }");
    p.expect(&[
        (BLUE, SERVERS, "tcp/80", false),
        (RED, SERVERS, "tcp/80", true),
    ]);
    // Accept and Deny are final.
    let both = format!("{}, {}", rule("Accept", FROM_BLUE), rule("Deny", FROM_RED));
    let admin = ingress(&p, "p", "Admin", 5, &both);
    p.expect(&[
        (BLUE, SERVERS, "tcp/80 icmp", true),
        (RED, SERVERS, "tcp/80 icmp", false),
    ]);
    // Pass leaves it to them, and skips the rest of the tier.
    let passed = format!("{}, {}", rule("Pass", EVERYBODY), rule("Deny", EVERYBODY));
    admin.becomes(&spec("Admin", 5, &passed));
    let later = ingress(&p, "later", "Admin", 6, &rule("Deny", EVERYBODY));
    p.expect(&[
        (BLUE, SERVERS, "tcp/80", false),
        (RED, SERVERS, "tcp/80", true),
    ]);
    drop((admin, later));
}

#[test]
fn baseline_rules_come_after_network_policies() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "cnpbase");
    let baseline = ingress(&p, "p", "Baseline", 5, &rule("Deny", FROM_BLUE));
    p.expect(&[
        (BLUE, SERVERS, "tcp/80", false),
        (RED, SERVERS, "tcp/80", true),
    ]);
    // A NetworkPolicy has the last word on the pods it selects.
    p.apply("red", "k8s", "{ podSelector: { matchLabels: { zone: one } }, ingress: [{ from: [{ namespaceSelector: {} }] }] }");
    p.expect(&[
        (CLIENTS, "red/srv1", "tcp/80", true),
        (BLUE, "red/srv3", "tcp/80", false),
    ]);
    p.apply(
        "red",
        "k8s",
        "{ podSelector: { matchLabels: { zone: one } }, ingress: [] }",
    );
    let accept = ingress(&p, "q", "Baseline", 1, &rule("Accept", EVERYBODY));
    p.expect(&[
        (CLIENTS, "red/srv1", "tcp/80", false),
        (CLIENTS, "red/srv3", "tcp/80", true),
    ]);
    drop((baseline, accept));
}

#[test]
fn the_lower_priority_and_the_earlier_rule_decide() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "cnporder");
    let deny = ingress(&p, "deny", "Admin", 20, &rule("Deny", EVERYBODY));
    p.expect(&[(CLIENTS, SERVERS, "tcp/80", false)]);
    let accept = ingress(&p, "accept", "Admin", 10, &rule("Accept", FROM_BLUE));
    p.expect(&[
        (BLUE, SERVERS, "tcp/80", true),
        (RED, SERVERS, "tcp/80", false),
    ]);
    accept.becomes(&spec("Admin", 30, &rule("Accept", FROM_BLUE)));
    p.expect(&[(CLIENTS, SERVERS, "tcp/80", false)]);
    drop(deny);
    let rules = format!("{}, {}", rule("Accept", FROM_RED), rule("Deny", EVERYBODY));
    accept.becomes(&spec("Admin", 30, &rules));
    p.expect(&[
        (RED, SERVERS, "tcp/80", true),
        (BLUE, SERVERS, "tcp/80", false),
    ]);
    drop(accept);
}

#[test]
fn a_direction_without_rules_and_pods_of_no_subject_are_left_alone() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "cnpalone");
    let policy = ingress(&p, "p", "Admin", 5, &rule("Deny", EVERYBODY));
    p.expect(&[
        (CLIENTS, SERVERS, "tcp/80", false),
        (SERVERS, "blue/cli1 red/cli1", "tcp/80", true),
        // Nor is there isolation by itself: from outside the cluster no rule matches.
        ("tor-a", SERVERS, "tcp/80", true),
        // A node reaches its own pods.
        ("n1", "red/srv1", "tcp/80", true),
    ]);
    drop(policy);
    p.expect(&[(CLIENTS, SERVERS, "tcp/80", true)]);
}

#[test]
fn protocols_are_ports_ranges_and_names() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "cnpports");
    let accept = |protocols: &str| {
        let deny = rule("Deny", EVERYBODY);
        format!("{{ action: Accept, from: {EVERYBODY}, protocols: {protocols} }}, {deny}")
    };
    let policy = ingress(&p, "p", "Admin", 5, &rule("Deny", EVERYBODY));
    for (protocols, allowed, denied) in [
        (
            "[{ tcp: { destinationPort: { number: 80 } } }]",
            "tcp/80",
            "tcp/8080 udp/80 icmp",
        ),
        (
            "[{ udp: { destinationPort: { range: { start: 80, end: 90 } } } }]",
            "udp/80",
            "udp/5353 tcp/80 icmp",
        ),
        (
            "[{ tcp: { destinationPort: { range: { start: 8080, end: 8081 } } } }, { udp: { destinationPort: { number: 5353 } } }]",
            "tcp/8080 tcp/8081 udp/5353",
            "tcp/80 tcp/9000 udp/80",
        ),
    ] {
        policy.becomes(&spec("Admin", 5, &accept(protocols)));
        p.expect(&[
            ("red/cli1 blue/cli3", SERVERS, allowed, true),
            ("red/cli1 blue/cli3", SERVERS, denied, false),
        ]);
    }
    // The servers give the name to different numbers.
    policy.becomes(&spec(
        "Admin",
        5,
        &accept("[{ destinationNamedPort: api }]"),
    ));
    p.expect(&[
        ("red/cli1 blue/cli3", "red/srv1", "tcp/8080", true),
        ("red/cli1 blue/cli3", "red/srv1", "tcp/9000", false),
        ("red/cli1 blue/cli3", "red/srv3", "tcp/9000", true),
        ("red/cli1 blue/cli3", "red/srv3", "tcp/8080", false),
    ]);
    drop(policy);
}

#[test]
fn egress_goes_to_pods_networks_and_nodes() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "cnpout");
    let networks: Vec<String> = suite
        .addresses(&p.world.place("blue/cli2"))
        .iter()
        .map(|it| format!("'{it}/{}'", if it.contains(':') { 128 } else { 32 }))
        .collect();
    let denied = egress(&format!(
        "{{ action: Deny, to: [{{ networks: [{}] }}] }}",
        networks.join(", ")
    ));
    let policy = p.cluster("clusternetworkpolicy", "p", &denied);
    p.expect(&[
        (RED, "blue/cli2", "tcp/80 icmp", false),
        (RED, "blue/cli1 blue/cli3 red/srv1", "tcp/80", true),
    ]);
    policy.becomes(&egress(
        "{ action: Deny, to: [{ nodes: { matchLabels: { kubernetes.io/hostname: n3 } } }] }",
    ));
    p.expect(&[
        ("red/cli1", "n3", "icmp", false),
        ("red/cli1", "n2", "icmp", true),
        (RED, "blue/cli2 blue/cli3", "tcp/80", true),
    ]);
    policy.becomes(&egress("{ action: Deny, to: [{ pods: { namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: {blue} } }, podSelector: { matchLabels: { role: a } } } }] }"));
    p.expect(&[
        (RED, "blue/cli1", "tcp/80", false),
        (RED, "blue/cli2 blue/cli3", "tcp/80", true),
    ]);
    drop(policy);
}

#[test]
fn what_is_not_supported_accepts_nothing_and_denies_everything() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "cnpclosed");
    let rules = |action: &str| {
        egress(&format!(
            "{{ action: {action}, to: [{{ domainNames: [example.com] }}] }}, {{ action: Deny, to: {FROM_BLUE} }}"
        ))
    };
    let policy = p.cluster("clusternetworkpolicy", "p", &rules("Accept"));
    p.expect(&[(RED, BLUE, "tcp/80", false), (RED, SERVERS, "tcp/80", true)]);
    suite::until("the field to be named", || {
        let list = suite.ctl("n1", &["policy", "list"]).to_string();
        match list.contains("spec.egress[0].to[0].domainNames") {
            true => Ok(()),
            false => Err(list),
        }
    });
    policy.becomes(&rules("Deny"));
    p.expect(&[
        (RED, BLUE, "tcp/80", false),
        (RED, SERVERS, "tcp/80", false),
    ]);
    policy.becomes(&rules("Pass"));
    p.expect(&[
        (RED, SERVERS, "tcp/80 icmp", false),
        (BLUE, SERVERS, "tcp/80", true),
    ]);
    drop(policy);
}
