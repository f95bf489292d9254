//! NetworkPolicy: applied with kubectl, judged by packets. Every row of every table is asked in both families.
//!
//! Each test has namespaces of its own (`World`), with the same pods:
//!
//! ```text
//!              n1                    n2              n3 (other rack)
//!  red    srv1 cli1                                  srv3 cli3
//!  blue        cli1                  cli2            cli3
//! ```

mod cluster;
mod docs;
mod flows;
mod hosts;
mod peers;
mod ports;
mod status;
mod tiers;
mod world;

use e2e::suite::{self, WHATS};
use world::{CLIENTS, Policies, SERVERS};

#[test]
fn default_deny_isolates_by_direction_and_deletion_restores() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "deny");
    let free = [
        (CLIENTS, SERVERS, WHATS, true),
        (SERVERS, "blue/cli1 blue/cli2 blue/cli3", WHATS, true),
    ];
    p.expect(&free);
    let cases: [(&str, &[suite::Row<'_>]); 4] = [
        (
            "{ podSelector: {} }",
            &[
                (CLIENTS, SERVERS, WHATS, false),
                (SERVERS, "blue/cli1 blue/cli2 blue/cli3", WHATS, true),
                // From a pod's own node always, from any other not.
                ("n1", "red/srv1", WHATS, true),
                ("n3", "red/srv3", WHATS, true),
                ("n2 n3 tor-a tor-b", "red/srv1", WHATS, false),
                ("n1 n2 tor-a tor-b", "red/srv3", WHATS, false),
                ("tor-b n3", "blue/cli1", WHATS, true),
            ],
        ),
        (
            "{ podSelector: {}, policyTypes: [Egress] }",
            &[
                ("red/cli1 red/cli3", SERVERS, WHATS, false),
                ("blue/cli1 blue/cli2 blue/cli3", SERVERS, WHATS, true),
                (SERVERS, "blue/cli1 blue/cli2 blue/cli3", WHATS, false),
                ("n1 n2 n3 tor-a tor-b", SERVERS, WHATS, true),
                ("red/srv1", "n1 n3 tor-a tor-b", "icmp", false),
            ],
        ),
        (
            "{ podSelector: {}, policyTypes: [Ingress, Egress] }",
            &[
                (CLIENTS, SERVERS, WHATS, false),
                (SERVERS, "blue/cli1 blue/cli2 blue/cli3", WHATS, false),
                ("n1", "red/srv1 red/cli1", WHATS, true),
            ],
        ),
        // Isolated, and everything allowed again.
        (
            "{ podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}] }",
            &free,
        ),
    ];
    for (spec, rows) in cases {
        p.apply("red", "p", spec);
        p.expect(rows);
        p.delete("red", "p");
        p.expect(&free);
    }
}

#[test]
fn the_selected_pods_alone_are_isolated() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "selected");
    for (selector, one, three) in [
        ("{ matchLabels: { app: srv } }", false, false),
        ("{ matchLabels: { app: srv, zone: one } }", false, true),
        (
            "{ matchExpressions: [{ key: zone, operator: In, values: [one, two] }] }",
            false,
            true,
        ),
        (
            "{ matchExpressions: [{ key: zone, operator: NotIn, values: [one] }] }",
            true,
            false,
        ),
        (
            "{ matchExpressions: [{ key: zone, operator: Exists }, { key: app, operator: In, values: [srv] }] }",
            false,
            false,
        ),
        (
            "{ matchExpressions: [{ key: app, operator: DoesNotExist }] }",
            true,
            true,
        ),
    ] {
        p.apply("red", "p", &format!("{{ podSelector: {selector} }}"));
        p.expect(&[
            ("blue/cli1 blue/cli3", "red/srv1", "tcp/80", one),
            ("blue/cli1 blue/cli3", "red/srv3", "tcp/80", three),
        ]);
    }
}

#[test]
fn policies_add_up_and_both_ends_are_judged() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "sum");
    p.apply("red", "deny", "{ podSelector: {} }");
    p.apply(
        "red",
        "one",
        "{ podSelector: { matchLabels: { zone: one } }, ingress: [{ from: [{ podSelector: { matchLabels: { role: a } } }] }] }",
    );
    p.apply(
        "red",
        "both",
        "{ podSelector: { matchLabels: { app: srv } }, ingress: [{ from: [{ podSelector: { matchLabels: { role: b } } }], ports: [{ port: 80 }] }] }",
    );
    let rows = [
        ("red/cli1", "red/srv1", WHATS, true),
        ("red/cli1", "red/srv3", WHATS, false),
        ("red/cli3", SERVERS, "tcp/80", true),
        ("red/cli3", SERVERS, "udp/80 tcp/8080 icmp", false),
        ("blue/cli1 blue/cli2 blue/cli3", SERVERS, WHATS, false),
    ];
    p.expect(&rows);
    // What ingress allows, egress of the source may still forbid.
    p.apply(
        "red",
        "out",
        "{ podSelector: { matchLabels: { role: b } }, policyTypes: [Egress], egress: [{ to: [{ podSelector: { matchLabels: { zone: one } } }] }] }",
    );
    p.expect(&[
        ("red/cli3", "red/srv1", "tcp/80", true),
        ("red/cli3", "red/srv3", "tcp/80", false),
        ("red/cli1", "red/srv1", WHATS, true),
    ]);
    p.delete("red", "out");
    p.expect(&rows);
    p.delete("red", "one");
    p.expect(&[
        ("red/cli1", "red/srv1", WHATS, false),
        ("red/cli3", SERVERS, "tcp/80", true),
    ]);
}

#[test]
fn an_update_takes_effect_as_a_whole() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "update");
    let allow = |who: &str, port: u16| {
        format!(
            "{{ podSelector: {{ matchLabels: {{ app: srv }} }}, ingress: [{{ from: [{{ podSelector: {{ matchLabels: {{ role: {who} }} }} }}], ports: [{{ port: {port} }}] }}] }}"
        )
    };
    for (who, from, not, port, other) in [
        ("a", "red/cli1", "red/cli3", 80, "tcp/8080"),
        ("b", "red/cli3", "red/cli1", 8080, "tcp/80"),
        ("a", "red/cli1", "red/cli3", 8080, "tcp/80"),
    ] {
        p.apply("red", "p", &allow(who, port));
        let open = format!("tcp/{port}");
        p.expect(&[
            (from, SERVERS, &open, true),
            (from, SERVERS, other, false),
            (not, SERVERS, "tcp/80 tcp/8080", false),
            ("blue/cli2", SERVERS, "tcp/80 tcp/8080", false),
        ]);
    }
}
