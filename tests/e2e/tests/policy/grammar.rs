//! The words of policies of ours: every operator of selectors, service accounts of the subject, SCTP and named ports.

use e2e::suite;

use crate::world::Policies;

#[test]
fn every_operator_of_selectors() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "grammar");
    // Whether it is red/cli (role a) and blue/cli (role b).
    for (selector, red, blue) in [
        ("all()", true, true),
        ("role == 'a'", true, false),
        ("role != 'a'", false, true),
        ("has(role)", true, true),
        ("!has(role)", false, false),
        ("role in {'a', 'z'}", true, false),
        ("role not in {'a', 'z'}", false, true),
        ("app contains 'l'", true, true),
        ("role starts with 'a'", true, false),
        ("app ends with 'li' && role == 'b'", false, true),
        ("role == 'a' || role == 'b'", true, true),
        ("!(role == 'a')", false, true),
        ("(role == 'a' || role == 'b') && app == 'srv'", false, false),
    ] {
        p.namespaced(
            "red",
            "p",
            &format!("{{ selector: app == 'srv', ingress: [{{ action: Allow, source: {{ selector: \"{selector}\", namespaceSelector: all() }} }}] }}"),
        );
        p.expect(&[
            ("red/cli", "red/srv", "tcp/80", red),
            ("blue/cli", "red/srv", "tcp/80", blue),
        ]);
    }
}

#[test]
fn a_policy_of_the_cluster_is_for_pods_of_service_accounts_in_namespaces() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "subjects");
    let deny = p.cluster(
        "globalnetworkpolicy",
        "p",
        "{ namespaceSelector: world == 'subjects', serviceAccountSelector: trusted == 'no', ingress: [{ action: Deny }] }",
    );
    let open = [
        ("blue/cli", "red/srv red/cli", "tcp/80", true),
        ("red/cli", "blue/cli", "tcp/80", true),
    ];
    p.expect(&open);
    let red = p.world.ns("red");
    let account = ["label", "serviceaccount", "-n", &red, "default"];
    suite.kubectl(&[&account[..], &["trusted=no"]].concat());
    p.expect(&[
        ("blue/cli", "red/srv red/cli", "tcp/80", false),
        ("red/cli", "blue/cli", "tcp/80", true),
    ]);
    suite.kubectl(&[&account[..], &["trusted-"]].concat());
    p.expect(&open);
    drop(deny);
}

#[test]
fn sctp_and_names_of_ports() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "words2");
    p.namespaced(
        "red",
        "p",
        "{ selector: app == 'srv', ingress: [{ action: Allow, protocol: SCTP, destination: { ports: [80, '8000:9000'] } }, { action: Allow, protocol: TCP, destination: { ports: [api] } }] }",
    );
    p.expect(&[
        ("blue/cli", "red/srv", "tcp/8080", true),
        ("blue/cli", "red/srv", "tcp/80 tcp/9000 udp/80 icmp", false),
    ]);
    for (port, allowed) in [(80, true), (8500, true), (81, false), (9001, false)] {
        suite.expect_sctp(p.world, "blue/cli", "red/srv", port, allowed);
    }
}
