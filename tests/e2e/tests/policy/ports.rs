//! What: ports, ranges, names, protocols.

use e2e::suite;

use crate::world::{CLIENTS, Policies, SERVERS};

const ALL: &str = "tcp/80 tcp/8080 tcp/8081 tcp/9000 udp/80 udp/5353 icmp";

fn but(allowed: &str) -> String {
    let others: Vec<&str> = ALL
        .split(' ')
        .filter(|what| !allowed.split(' ').any(|a| a == *what))
        .collect();
    others.join(" ")
}

#[test]
fn ports_ranges_names_and_protocols_in_both_directions() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "ports");
    // Ports, and what that is on srv1 and on srv3.
    let cases: [(&str, &str, &str); 10] = [
        ("[{ port: 80 }]", "tcp/80", "tcp/80"),
        ("[{ port: 80, protocol: UDP }]", "udp/80", "udp/80"),
        (
            "[{ port: 8080 }, { port: 5353, protocol: UDP }]",
            "tcp/8080 udp/5353",
            "tcp/8080 udp/5353",
        ),
        (
            "[{ port: 8080, endPort: 8081 }]",
            "tcp/8080 tcp/8081",
            "tcp/8080 tcp/8081",
        ),
        (
            "[{ port: 81, endPort: 65535 }]",
            "tcp/8080 tcp/8081 tcp/9000",
            "tcp/8080 tcp/8081 tcp/9000",
        ),
        (
            "[{ port: 1, endPort: 8080 }, { port: 8080, endPort: 8081 }]",
            "tcp/80 tcp/8080 tcp/8081",
            "tcp/80 tcp/8080 tcp/8081",
        ),
        // A name is the number the pod gives it.
        ("[{ port: api }]", "tcp/8080", "tcp/9000"),
        (
            "[{ port: dns, protocol: UDP }, { port: 80 }]",
            "tcp/80 udp/5353",
            "tcp/80 udp/80",
        ),
        // Every port of a protocol.
        (
            "[{ protocol: TCP }]",
            "tcp/80 tcp/8080 tcp/8081 tcp/9000",
            "tcp/80 tcp/8080 tcp/8081 tcp/9000",
        ),
        (
            "[{ protocol: UDP }, { port: no-such-port }]",
            "udp/80 udp/5353",
            "udp/80 udp/5353",
        ),
    ];
    let srv = "podSelector: { matchLabels: { app: srv } }";
    let from = "red/cli1 blue/cli2 blue/cli3";
    for (ports, one, three) in &cases {
        p.apply(
            "red",
            "p",
            &format!("{{ {srv}, ingress: [{{ ports: {ports} }}] }}"),
        );
        p.expect(&[
            (from, "red/srv1", one, true),
            (from, "red/srv1", &but(one), false),
            (from, "red/srv3", three, true),
            (from, "red/srv3", &but(three), false),
        ]);
    }
    p.delete("red", "p");
    // Outwards it is the target's number that counts.
    for (ports, one, three) in &cases {
        p.apply(
            "blue",
            "p",
            &format!(
                "{{ podSelector: {{}}, policyTypes: [Egress], egress: [{{ ports: {ports} }}] }}"
            ),
        );
        p.expect(&[
            ("blue/cli1 blue/cli2", "red/srv1", one, true),
            ("blue/cli1 blue/cli2", "red/srv1", &but(one), false),
            ("blue/cli1 blue/cli2", "red/srv3", three, true),
            ("blue/cli1 blue/cli2", "red/srv3", &but(three), false),
        ]);
    }
}

#[test]
fn peers_and_ports_belong_together_in_a_rule() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "rules");
    p.apply(
        "red",
        "p",
        "{ podSelector: { matchLabels: { app: srv } }, ingress: [
            { from: [{ podSelector: { matchLabels: { role: a } } }], ports: [{ port: 80 }] },
            { from: [{ namespaceSelector: { matchLabels: { team: blue } } }], ports: [{ port: api }, { port: 5353, protocol: UDP }] },
            { ports: [{ port: 8081 }] } ] }",
    );
    p.expect(&[
        ("red/cli1", SERVERS, "tcp/80 tcp/8081", true),
        ("red/cli1", SERVERS, "udp/5353 icmp", false),
        ("red/cli3", SERVERS, "tcp/8081", true),
        (
            "red/cli3",
            SERVERS,
            "tcp/80 tcp/8080 tcp/9000 udp/5353",
            false,
        ),
        (
            "blue/cli1 blue/cli2 blue/cli3",
            "red/srv1",
            "tcp/8080 udp/5353 tcp/8081",
            true,
        ),
        (
            "blue/cli1 blue/cli2 blue/cli3",
            "red/srv3",
            "tcp/9000 udp/5353 tcp/8081",
            true,
        ),
        (
            "blue/cli1 blue/cli2 blue/cli3",
            "red/srv1",
            "tcp/80 tcp/9000 udp/80 icmp",
            false,
        ),
        (
            "blue/cli1 blue/cli2 blue/cli3",
            "red/srv3",
            "tcp/80 tcp/8080 udp/80 icmp",
            false,
        ),
        ("tor-a tor-b n2", SERVERS, "tcp/8081", true),
        ("tor-a tor-b n2", SERVERS, "tcp/80 udp/5353", false),
    ]);
    p.delete("red", "p");
    p.expect(&[(CLIENTS, SERVERS, ALL, true)]);
}
