//! The other side.

use e2e::suite;

use crate::world::Policies;

const SRV: &str = "{ pods: { namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: {red} } }, podSelector: { matchLabels: { app: srv } } } }";
const BLUE: &str = "{ namespaces: { matchLabels: { kubernetes.io/metadata.name: {blue} } } }";

fn from(action: &str, peers: &str) -> String {
    format!(
        "{{ tier: Admin, priority: 5, subject: {SRV}, ingress: [{{ action: {action}, from: [{peers}] }}] }}"
    )
}

fn to(action: &str, peers: &str) -> String {
    format!(
        "{{ tier: Admin, priority: 5, subject: {SRV}, egress: [{{ action: {action}, to: [{peers}] }}] }}"
    )
}

#[test]
fn peer_namespaces_is_every_pod_of_the_namespaces() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpns");
    let it = p.cluster("clusternetworkpolicy", "p", &from("Deny", BLUE));
    p.expect(&[
        ("blue/cli", "red/srv", "tcp/80 udp/80 icmp", false),
        ("red/cli", "red/srv", "tcp/80", true),
    ]);
    it.becomes(&from(
        "Deny",
        "{ namespaces: { matchExpressions: [{ key: team, operator: NotIn, values: [blue] }, { key: world, operator: Exists }] } }",
    ));
    p.expect(&[
        ("blue/cli", "red/srv", "tcp/80", true),
        ("red/cli", "red/srv", "tcp/80", false),
    ]);
    // All namespaces are all pods, and nobody else.
    it.becomes(&from("Deny", "{ namespaces: {} }"));
    p.expect(&[
        ("blue/cli red/cli", "red/srv", "tcp/80", false),
        ("n2 tor-a", "red/srv", "tcp/80", true),
    ]);
    drop(it);
}

#[test]
fn peer_pods_is_selected_pods_of_selected_namespaces() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnppods");
    let pods = |namespaces: &str, pods: &str| {
        format!("{{ pods: {{ namespaceSelector: {namespaces}, podSelector: {pods} }} }}")
    };
    let own = "{ matchLabels: { world: cnppods } }";
    let it = p.cluster(
        "clusternetworkpolicy",
        "p",
        &from("Deny", &pods(own, "{ matchLabels: { role: b } }")),
    );
    p.expect(&[
        ("blue/cli", "red/srv", "tcp/80", false),
        ("red/cli", "red/srv", "tcp/80", true),
    ]);
    let red = "{ matchLabels: { kubernetes.io/metadata.name: {red} } }";
    it.becomes(&from("Deny", &pods(red, "{ matchLabels: { role: b } }")));
    p.expect(&[("blue/cli red/cli", "red/srv", "tcp/80", true)]);
    it.becomes(&from("Deny", &pods(own, "{}")));
    p.expect(&[("blue/cli red/cli", "red/srv", "tcp/80", false)]);
    drop(it);
}

#[test]
fn several_peers_of_a_rule_are_alternatives() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpor");
    let red = "{ pods: { namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: {red} } }, podSelector: { matchLabels: { role: a } } } }";
    let it = p.cluster(
        "clusternetworkpolicy",
        "p",
        &from("Deny", &format!("{BLUE}, {red}")),
    );
    p.expect(&[("blue/cli red/cli", "red/srv", "tcp/80", false)]);
    it.becomes(&to("Deny", &format!("{BLUE}, {{ nodes: {{}} }}")));
    p.expect(&[
        ("red/srv", "blue/cli", "tcp/80", false),
        ("red/srv", "n2 n3", "icmp", false),
        ("red/srv", "red/cli", "tcp/80", true),
        ("red/srv", "tor-a", "icmp", true),
    ]);
    drop(it);
}

#[test]
fn peer_networks_is_addresses_whoever_has_them() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpnets");
    let nets = |nets: &str| to("Deny", &format!("{{ networks: [{nets}] }}"));
    // Pods, routers and nodes alike.
    let it = p.cluster(
        "clusternetworkpolicy",
        "p",
        &nets("10.244.0.0/16, 'fd00:10:244::/64'"),
    );
    p.expect(&[
        ("red/srv", "blue/cli red/cli", "tcp/80 icmp", false),
        ("red/srv", "tor-a n2", "icmp", true),
        // Who opens it counts.
        ("blue/cli", "red/srv", "tcp/80", true),
    ]);
    it.becomes(&nets("172.30.0.0/16, 'fd00:30::/32'"));
    p.expect(&[
        ("red/srv", "blue/cli red/cli", "tcp/80 icmp", true),
        ("red/srv", "tor-a n2", "icmp", false),
    ]);
    // Each family for itself, everything of it included.
    it.becomes(&nets("0.0.0.0/0"));
    suite.expect_family(p.world, "red/srv", "blue/cli", "tcp/80", [false, true]);
    suite.expect_family(p.world, "red/srv", "tor-a", "icmp", [false, true]);
    it.becomes(&nets("'::/0'"));
    suite.expect_family(p.world, "red/srv", "blue/cli", "tcp/80", [true, false]);
    drop(it);
}

#[test]
fn peer_nodes_is_addresses_of_selected_nodes_and_not_their_pods() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpnodes");
    let nodes = |selector: &str| to("Deny", &format!("{{ nodes: {selector} }}"));
    let it = p.cluster(
        "clusternetworkpolicy",
        "p",
        &nodes("{ matchLabels: { kubernetes.io/hostname: n2 } }"),
    );
    p.expect(&[
        ("red/srv", "n2", "icmp", false),
        ("red/srv", "n3 tor-a", "icmp", true),
        ("red/srv", "blue/cli", "tcp/80 icmp", true),
    ]);
    it.becomes(&nodes(
        "{ matchExpressions: [{ key: kubernetes.io/hostname, operator: NotIn, values: [n2] }] }",
    ));
    p.expect(&[
        ("red/srv", "n2", "icmp", true),
        ("red/srv", "n3", "icmp", false),
    ]);
    it.becomes(&nodes("{}"));
    p.expect(&[
        ("red/srv", "n2 n3", "icmp", false),
        ("red/srv", "tor-a", "icmp", true),
        // A node reaches its own pods all the same.
        ("n1", "red/srv", "tcp/80", true),
    ]);
    drop(it);
}

#[test]
fn ingress_has_no_nodes_and_networks_and_is_closed_with_them() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "cnpinnet");
    let rows = |allowed: bool| {
        p.expect(&[("red/cli blue/cli", "red/srv", "tcp/80 icmp", allowed)]);
    };
    let it = p.cluster(
        "clusternetworkpolicy",
        "p",
        &from("Deny", "{ nodes: { matchLabels: { nobody: here } } }"),
    );
    rows(false);
    // To accept is nothing, so that what comes after decides.
    it.becomes(&from("Accept", "{ networks: [0.0.0.0/0, '::/0'] }"));
    rows(true);
    p.apply("red", "np", "{ podSelector: {} }");
    rows(false);
    drop(it);
}
