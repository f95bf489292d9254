//! Who: selectors of pods and namespaces, and ranges of addresses.

use e2e::suite::{self, WHATS};
use lab::plan::Rack;

use crate::world::{CLIENTS, Policies, SERVERS};

const BLUE: &str = "blue/cli1 blue/cli2 blue/cli3";

#[test]
fn peers_are_selected_by_pod_and_namespace() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "peers");
    // What is allowed in, and who that is.
    let cases: [(&str, &str); 10] = [
        // Pods of the policy's own namespace.
        ("[{ podSelector: {} }]", "red/cli1 red/cli3"),
        (
            "[{ podSelector: { matchLabels: { role: a } } }]",
            "red/cli1",
        ),
        // Every pod of the namespaces.
        ("[{ namespaceSelector: {} }]", CLIENTS),
        (
            "[{ namespaceSelector: { matchLabels: { team: blue } } }]",
            BLUE,
        ),
        (
            "[{ namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: {blue} } } }]",
            BLUE,
        ),
        (
            "[{ namespaceSelector: { matchExpressions: [{ key: env, operator: NotIn, values: [dev] }, { key: team, operator: Exists }] } }]",
            "red/cli1 red/cli3",
        ),
        // Both in one peer: these pods of those namespaces.
        (
            "[{ namespaceSelector: { matchLabels: { team: blue } }, podSelector: { matchLabels: { role: a } } }]",
            "blue/cli1",
        ),
        // In two peers: either.
        (
            "[{ namespaceSelector: { matchLabels: { team: blue } } }, { podSelector: { matchLabels: { role: a } } }]",
            "red/cli1 blue/cli1 blue/cli2 blue/cli3",
        ),
        (
            "[{ namespaceSelector: {}, podSelector: { matchExpressions: [{ key: role, operator: In, values: [b, c] }] } }]",
            "red/cli3 blue/cli2 blue/cli3",
        ),
        (
            "[{ namespaceSelector: { matchLabels: { team: nobody } } }]",
            "",
        ),
    ];
    for (from, allowed) in cases {
        p.apply(
            "red",
            "p",
            &format!(
                "{{ podSelector: {{ matchLabels: {{ app: srv }} }}, ingress: [{{ from: {from} }}] }}"
            ),
        );
        let denied: Vec<&str> = CLIENTS
            .split_whitespace()
            .filter(|c| !allowed.split_whitespace().any(|a| a == *c))
            .collect();
        p.expect(&[
            (allowed, SERVERS, WHATS, true),
            (&denied.join(" "), SERVERS, WHATS, false),
            ("tor-a tor-b n2", SERVERS, "tcp/80", false),
        ]);
    }
    p.delete("red", "p");
    // The same outwards.
    for (to, allowed) in &cases {
        p.apply(
            "red",
            "p",
            &format!(
                "{{ podSelector: {{ matchLabels: {{ app: srv }} }}, policyTypes: [Egress], egress: [{{ to: {to} }}] }}"
            ),
        );
        let denied: Vec<&str> = CLIENTS
            .split_whitespace()
            .filter(|c| !allowed.split_whitespace().any(|a| a == *c))
            .collect();
        p.expect(&[
            (SERVERS, allowed, WHATS, true),
            (SERVERS, &denied.join(" "), WHATS, false),
            (CLIENTS, SERVERS, "tcp/80", true),
        ]);
    }
}

#[test]
fn labels_of_pods_and_namespaces_count_as_they_are_now() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "labels");
    let (red, blue) = (p.world.ns("red"), p.world.ns("blue"));
    p.apply(
        "red",
        "p",
        "{ podSelector: { matchLabels: { app: srv } }, ingress: [{ from: [{ namespaceSelector: { matchLabels: { vip: \"yes\" } }, podSelector: { matchLabels: { role: a } } }] }] }",
    );
    p.expect(&[(CLIENTS, SERVERS, "tcp/80", false)]);
    suite.kubectl(&["label", "namespace", &blue, "vip=yes"]);
    p.expect(&[
        ("blue/cli1", SERVERS, "tcp/80", true),
        ("blue/cli2 blue/cli3 red/cli1", SERVERS, "tcp/80", false),
    ]);
    suite.kubectl(&["label", "pod", "-n", &blue, "cli2", "role=a", "--overwrite"]);
    p.expect(&[
        ("blue/cli1 blue/cli2", SERVERS, "tcp/80", true),
        ("blue/cli3", SERVERS, "tcp/80", false),
    ]);
    suite.kubectl(&["label", "pod", "-n", &blue, "cli1", "role-"]);
    p.expect(&[
        ("blue/cli2", SERVERS, "tcp/80", true),
        ("blue/cli1", SERVERS, "tcp/80", false),
    ]);
    // The subject's label: it is not selected any more.
    suite.kubectl(&[
        "label",
        "pod",
        "-n",
        &red,
        "srv3",
        "app=other",
        "--overwrite",
    ]);
    p.expect(&[
        (CLIENTS, "red/srv3", "tcp/80", true),
        ("blue/cli1 blue/cli3", "red/srv1", "tcp/80", false),
    ]);
    suite.kubectl(&["label", "pod", "-n", &red, "srv3", "app=srv", "--overwrite"]);
    suite.kubectl(&["label", "namespace", &blue, "vip-"]);
    p.expect(&[(CLIENTS, SERVERS, "tcp/80", false)]);
    // A pod made now, and one made again under its name, are judged like the others.
    suite.delete_pod(&format!("{blue}/cli2"));
    suite.kubectl(&["label", "namespace", &blue, "vip=yes"]);
    let again = suite::Pod {
        labels: &[("role", "a")],
        ..suite::Pod::new(&blue, "cli2", "n3")
    };
    suite.run_pods(&[again]);
    p.expect(&[
        ("blue/cli2", SERVERS, "tcp/80", true),
        ("blue/cli1 blue/cli3", SERVERS, "tcp/80", false),
    ]);
}

#[test]
fn ranges_of_addresses_with_exceptions() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "ranges");
    let plan = suite.plan();
    let (n2, tor_b) = (plan.nodes[1].address, plan.tor(Rack::B).address);
    let srv = "podSelector: { matchLabels: { app: srv } }";
    let others = "n2 tor-a tor-b";
    let cases: Vec<(String, &str, &str)> = vec![
        // Everything, and everything but some.
        (
            "[{ ipBlock: { cidr: 0.0.0.0/0 } }, { ipBlock: { cidr: '::/0' } }]".to_owned(),
            "red/cli1 blue/cli2 blue/cli3 n2 tor-a tor-b",
            "",
        ),
        (
            "[{ ipBlock: { cidr: 0.0.0.0/0, except: [172.30.0.0/16] } }, { ipBlock: { cidr: '::/0', except: ['fd00:30::/32'] } }]".to_owned(),
            "red/cli1 blue/cli2 blue/cli3",
            others,
        ),
        (
            "[{ ipBlock: { cidr: 172.30.0.0/16, except: [172.30.2.0/24] } }, { ipBlock: { cidr: 'fd00:30::/32', except: ['fd00:30:2::/64'] } }]".to_owned(),
            "n2 tor-a",
            "tor-b red/cli1 blue/cli2 blue/cli3",
        ),
        // One address, and all but that one.
        (
            format!("[{{ ipBlock: {{ cidr: {}/32 }} }}, {{ ipBlock: {{ cidr: '{}/128' }} }}]", n2.v4, n2.v6),
            "n2",
            "tor-a tor-b red/cli1 blue/cli2",
        ),
        (
            format!(
                "[{{ ipBlock: {{ cidr: 172.30.0.0/16, except: ['{}/32'] }} }}, {{ ipBlock: {{ cidr: 'fd00:30::/32', except: ['{}/128'] }} }}]",
                tor_b.v4, tor_b.v6
            ),
            "n2 tor-a",
            "tor-b blue/cli2",
        ),
        // An exception of one peer is no refusal by another; overlapping ranges.
        (
            "[{ ipBlock: { cidr: 172.30.0.0/16, except: [172.30.2.0/24] } }, { ipBlock: { cidr: 172.30.2.1/32 } }, \
              { ipBlock: { cidr: 'fd00:30::/32', except: ['fd00:30:2::/64'] } }, { ipBlock: { cidr: 'fd00:30:2::1/128' } }]".to_owned(),
            "n2 tor-a tor-b",
            "red/cli1 blue/cli2",
        ),
        // Pods by address: the pools.
        (
            "[{ ipBlock: { cidr: 10.244.0.0/16 } }, { ipBlock: { cidr: 'fd00:10:244::/64' } }]".to_owned(),
            "red/cli1 red/cli3 blue/cli1 blue/cli2 blue/cli3",
            others,
        ),
    ];
    for (from, allowed, denied) in &cases {
        p.apply(
            "red",
            "p",
            &format!("{{ {srv}, ingress: [{{ from: {from} }}] }}"),
        );
        // srv3's own node may always; so it is no source here, nor is n1.
        p.expect(&[
            (allowed, SERVERS, WHATS, true),
            (denied, SERVERS, WHATS, false),
        ]);
    }
    p.delete("red", "p");
    for (to, allowed, denied) in &cases {
        p.apply(
            "red",
            "p",
            &format!("{{ {srv}, policyTypes: [Egress], egress: [{{ to: {to} }}] }}"),
        );
        p.expect(&[
            (SERVERS, allowed, "icmp", true),
            (SERVERS, denied, "icmp", false),
        ]);
    }
    // One family alone says nothing for the other.
    p.apply(
        "red",
        "p",
        &format!("{{ {srv}, ingress: [{{ from: [{{ ipBlock: {{ cidr: 0.0.0.0/0 }} }}] }}] }}"),
    );
    suite.expect_family(p.world, "blue/cli2", "red/srv1", "tcp/80", [true, false]);
    p.apply(
        "red",
        "p",
        &format!("{{ {srv}, ingress: [{{ from: [{{ ipBlock: {{ cidr: '::/0' }} }}] }}] }}"),
    );
    suite.expect_family(p.world, "blue/cli2", "red/srv1", "tcp/80", [false, true]);
}
