//! NetworkPolicy: applied with kubectl, judged by packets. Every row of every table is asked in both families.
//!
//! Each test has namespaces of its own (`World`), with the same pods:
//!
//! ```text
//!              n1                    n2              n3 (other rack)
//!  red    srv1 cli1                                  srv3 cli3
//!  blue        cli1                  cli2            cli3
//! ```
//!
//! What is promised, and the tests that show it; those of `felix/tests` send packets through a kernel without a cluster.
//!
//! | feature | tests |
//! | --- | --- |
//! | NetworkPolicy of Kubernetes | `docs`, `peers`, `ports`, here |
//! | ClusterNetworkPolicy, Admin and Baseline | `cluster` |
//! | its peers by node | `cluster::peers::peer_nodes_is_addresses_of_selected_nodes_and_not_their_pods` |
//! | its peers by name of the DNS: not supported, closed | `cluster::what_is_not_supported_accepts_nothing_and_denies_everything` |
//! | tiers with order, default action and Pass | `tiers::tiers_are_asked_in_order_and_pass_goes_on_to_the_next`, `tiers::what_no_rule_decides_the_tier_does` |
//! | order among policies | `tiers::policies_of_a_tier_are_asked_in_order_among_kubernetes_own` |
//! | selectors with every operator, of namespaces and service accounts, `global()` | `grammar`, `tiers::selectors_look_where_the_policy_is_unless_it_says_where`, `tiers::service_accounts_are_selected_by_their_labels` |
//! | ports by number, range and name, SCTP, ICMP | `grammar::sctp_and_names_of_ports`, `tiers::a_policy_of_a_namespace_says_protocols_ports_and_addresses`, `ports` |
//! | services | `tiers::a_service_is_the_pods_and_ports_behind_it` |
//! | sets of networks | `tiers::sets_are_selected_by_their_labels` |
//! | policies that are only tried | `tiers::an_audited_policy_decides_nothing` |
//! | what is not understood | `tiers::what_is_not_understood_is_closed_and_says_so` |
//! | live flows end when they are forbidden, and only then | `flows::a_change_ends_the_flows_it_forbids_and_no_others`; `felix/tests/live` |
//! | an address that another pod gets | `felix/tests/live`, where pods follow each other among the edits |
//! | changes in force at once | `flows::a_change_is_in_force_soon`, `flows::a_relabelled_pod_is_under_its_new_policies_soon` |
//! | policy before the first packet; ADD waits for it and for the route | `first` |
//! | data instead of rules, one table, all or nothing | `felix/tests/nft`, `felix/tests/listing.rs`, `dataplane.rs` |
//! | tables of others are not read and not touched | `dataplane.rs`, `restarts.rs`, `felix/tests/listing.rs` |
//! | what others break is repaired | `damage.rs`, `felix/tests/tamper.rs` |
//! | closed without felix, and for interfaces that nobody knows | `dataplane.rs`, `restarts.rs` |
//! | packets counted for each rule | `counters`; exactly: `felix/tests/nft/counters.rs` |
//! | the whole path against the reference | `felix/tests/packets` |

mod cluster;
mod counters;
mod docs;
mod explain;
mod first;
mod flows;
mod grammar;
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
