//! Whom a policy governs.

use e2e::suite::{self, Pod};

use crate::world::Policies;

/// Whatever comes from the namespace `blue` of the test.
fn deny(subject: &str) -> String {
    format!(
        "{{ tier: Admin, priority: 5, subject: {subject}, ingress: [{{ action: Deny, from: [{{ namespaces: {{ matchLabels: {{ kubernetes.io/metadata.name: {{blue}} }} }} }}] }}] }}"
    )
}

#[test]
fn subject_namespaces_is_every_pod_of_the_namespaces() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpsubns");
    let it = p.cluster(
        "clusternetworkpolicy",
        "p",
        &deny("{ namespaces: { matchLabels: { team: red, world: cnpsubns } } }"),
    );
    p.expect(&[
        ("blue/cli", "red/srv red/cli", "tcp/80 icmp", false),
        ("red/cli", "red/srv blue/cli", "tcp/80", true),
    ]);
    // The namespace is not selected any more, then again.
    let red = p.world.ns("red");
    suite.kubectl(&["label", "namespace", &red, "team=green", "--overwrite"]);
    p.expect(&[("blue/cli", "red/srv red/cli", "tcp/80", true)]);
    suite.kubectl(&["label", "namespace", &red, "team=red", "--overwrite"]);
    p.expect(&[("blue/cli", "red/srv red/cli", "tcp/80", false)]);
    drop(it);
}

#[test]
fn subject_namespaces_empty_is_every_pod() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpsuball");
    let it = p.cluster("clusternetworkpolicy", "p", &deny("{ namespaces: {} }"));
    p.expect(&[
        ("blue/cli", "red/srv red/cli", "tcp/80 icmp", false),
        ("red/cli", "red/srv blue/cli", "tcp/80", true),
        // A node is no pod.
        ("blue/cli", "n1", "icmp", true),
    ]);
    drop(it);
}

#[test]
fn subject_pods_is_selected_pods_of_selected_namespaces() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpsubpod");
    let it = p.cluster(
        "clusternetworkpolicy",
        "p",
        &deny("{ pods: { namespaceSelector: { matchExpressions: [{ key: world, operator: In, values: [cnpsubpod] }] }, podSelector: { matchExpressions: [{ key: role, operator: DoesNotExist }] } } }"),
    );
    p.expect(&[
        ("blue/cli", "red/srv", "tcp/80 icmp", false),
        ("blue/cli", "red/cli", "tcp/80", true),
    ]);
    // Every pod there, and pods of that name nowhere else.
    it.becomes(&deny(
        "{ pods: { namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: {red} } }, podSelector: {} } }",
    ));
    p.expect(&[("blue/cli", "red/srv red/cli", "tcp/80", false)]);
    it.becomes(&deny(
        "{ pods: { namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: {blue} } }, podSelector: { matchLabels: { app: srv } } } }",
    ));
    p.expect(&[("blue/cli", "red/srv red/cli", "tcp/80", true)]);
    drop(it);
}

#[test]
fn a_pod_that_is_relabelled_or_new_is_a_subject_at_once() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpsubnew");
    let it = p.cluster(
        "clusternetworkpolicy",
        "p",
        &deny("{ pods: { namespaceSelector: { matchLabels: { world: cnpsubnew } }, podSelector: { matchLabels: { role: z } } } }"),
    );
    let red = p.world.ns("red");
    p.expect(&[("blue/cli", "red/srv red/cli", "tcp/80", true)]);
    suite.kubectl(&["label", "pod", "-n", &red, "srv", "role=z"]);
    p.expect(&[
        ("blue/cli", "red/srv", "tcp/80", false),
        ("blue/cli", "red/cli", "tcp/80", true),
    ]);
    suite.run_pods(&[Pod {
        labels: &[("role", "z")],
        ..Pod::new(&red, "new", "n3")
    }]);
    p.expect(&[
        ("blue/cli", "red/new", "tcp/80", false),
        ("red/cli", "red/new", "tcp/80", true),
    ]);
    drop(it);
}
