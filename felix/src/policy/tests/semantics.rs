//! The meaning of `networking.k8s.io/v1` NetworkPolicy, clause by clause.

use super::*;

/// `web` and `db` here in namespace x, clients elsewhere.
fn cluster() -> Node {
    let mut node = Node::new();
    node.local(pod("x", "web", &[("app", "web")], &["10.0.0.1", "fd00::1"]))
        .local(pod("x", "db", &[("app", "db")], &["10.0.0.2", "fd00::2"]))
        .remote(pod(
            "x",
            "near",
            &[("app", "web"), ("stage", "live")],
            &["10.0.1.1", "fd00:1::1"],
        ))
        .remote(pod(
            "y",
            "far",
            &[("app", "web"), ("stage", "dev")],
            &["10.0.2.1", "fd00:2::1"],
        ))
        .remote(pod(
            "z",
            "red",
            &[("app", "db")],
            &["10.0.3.1", "fd00:3::1"],
        ));
    node
}

const OUTSIDE: &str = "192.0.2.1";
const NEAR: &str = "10.0.1.1";
const FAR: &str = "10.0.2.1";
const RED: &str = "10.0.3.1";

/// Which of the clients may open TCP port 80 of `web`, under one policy in namespace x. Both families must agree.
fn clients(spec: &Value) -> Vec<&'static str> {
    let mut node = cluster();
    node.policy("x", "p", spec);
    let peers = [
        ("db", "10.0.0.2", "fd00::2"),
        ("near", NEAR, "fd00:1::1"),
        ("far", FAR, "fd00:2::1"),
        ("red", RED, "fd00:3::1"),
        ("outside", OUTSIDE, "2001:db8::1"),
    ];
    let mut allowed = Vec::new();
    for (name, v4, v6) in peers {
        let verdict = node.ingress("web", v4, TCP, 80);
        assert_eq!(
            verdict,
            node.ingress("web", v6, TCP, 80),
            "{name}: families differ"
        );
        if verdict {
            allowed.push(name);
        }
    }
    allowed
}

fn from(peers: &Value) -> Vec<&'static str> {
    clients(&json!({"podSelector": {}, "ingress": [{"from": peers}]}))
}

const ALL: [&str; 5] = ["db", "near", "far", "red", "outside"];

#[test]
fn without_a_policy_everything_is_allowed() {
    let mut node = cluster();
    assert!(node.ingress("web", OUTSIDE, TCP, 80) && node.egress("web", OUTSIDE, UDP, 53));
    assert!(!node.0.tables().links["web"].isolated(Direction::Ingress));
}

#[test]
fn an_empty_rule_list_isolates_and_an_empty_rule_allows_all() {
    assert!(clients(&json!({"podSelector": {}, "ingress": []})).is_empty());
    assert!(clients(&json!({"podSelector": {}})).is_empty());
    assert_eq!(clients(&json!({"podSelector": {}, "ingress": [{}]})), ALL);
    assert_eq!(
        clients(&json!({"podSelector": {}, "ingress": [{"from": [], "ports": []}]})),
        ALL
    );
}

#[test]
fn a_policy_governs_only_what_it_selects() {
    assert_eq!(
        clients(&json!({"podSelector": {"matchLabels": {"app": "db"}}})),
        ALL
    );
    assert!(clients(&json!({"podSelector": {"matchLabels": {"app": "web"}}})).is_empty());
    let mut node = cluster();
    node.policy("y", "elsewhere", &json!({"podSelector": {}}));
    assert!(
        node.ingress("web", OUTSIDE, TCP, 80),
        "a policy of another namespace selects it"
    );
}

#[test]
fn policy_types_default_by_the_rules_that_are_there() {
    let verdicts = |spec: &Value| {
        let mut node = cluster();
        node.policy("x", "p", spec);
        (
            node.ingress("web", FAR, TCP, 80),
            node.egress("web", FAR, TCP, 80),
        )
    };
    assert_eq!(verdicts(&json!({"podSelector": {}})), (false, true));
    assert_eq!(
        verdicts(&json!({"podSelector": {}, "egress": []})),
        (false, true)
    );
    assert_eq!(
        verdicts(&json!({"podSelector": {}, "egress": [{"to": [{"podSelector": {}}]}]})),
        (false, false)
    );
    assert_eq!(
        verdicts(&json!({"podSelector": {}, "policyTypes": ["Egress"]})),
        (true, false)
    );
    assert_eq!(
        verdicts(&json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})),
        (false, false)
    );
    // Rules of a direction that policyTypes leaves out do nothing.
    let other =
        json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [], "egress": [{}]});
    assert_eq!(verdicts(&other), (true, true));
}

#[test]
fn peers_by_labels() {
    assert_eq!(from(&json!([{"podSelector": {}}])), ["db", "near"]);
    assert_eq!(
        from(&json!([{"podSelector": {"matchLabels": {"app": "web"}}}])),
        ["near"]
    );
    assert_eq!(
        from(&json!([{"namespaceSelector": {}}])),
        ["db", "near", "far", "red"]
    );
    assert_eq!(
        from(&json!([{"namespaceSelector": {"matchLabels": {"team": "red"}}}])),
        ["db", "near", "red"]
    );
    let name = json!({"matchLabels": {"kubernetes.io/metadata.name": "y"}});
    assert_eq!(from(&json!([{"namespaceSelector": name}])), ["far"]);
}

#[test]
fn both_selectors_in_one_peer_must_match_and_two_peers_are_alternatives() {
    let red = json!({"matchLabels": {"team": "red"}});
    let web = json!({"matchLabels": {"app": "web"}});
    assert_eq!(
        from(&json!([{"namespaceSelector": red, "podSelector": web}])),
        ["near"]
    );
    assert_eq!(
        from(&json!([{"namespaceSelector": red}, {"podSelector": web}])),
        ["db", "near", "red"]
    );
}

#[test]
fn expressions() {
    let by = |expression: Value| {
        from(&json!([{"namespaceSelector": {}, "podSelector": {"matchExpressions": [expression]}}]))
    };
    assert_eq!(
        by(json!({"key": "stage", "operator": "In", "values": ["dev", "test"]})),
        ["far"]
    );
    // A pod without the label is not in the set.
    assert_eq!(
        by(json!({"key": "stage", "operator": "NotIn", "values": ["dev"]})),
        ["db", "near", "red"]
    );
    assert_eq!(
        by(json!({"key": "stage", "operator": "Exists"})),
        ["near", "far"]
    );
    assert_eq!(
        by(json!({"key": "stage", "operator": "DoesNotExist"})),
        ["db", "red"]
    );
}

#[test]
fn blocks_match_pods_and_strangers_by_address() {
    let block = |cidr: &str, except: &[&str]| json!({"ipBlock": {"cidr": cidr, "except": except}});
    let v6 = block("::/0", &[]);
    assert_eq!(from(&json!([block("0.0.0.0/0", &[]), v6])), ALL);
    let some = json!([
        block("10.0.0.0/16", &["10.0.2.0/24"]),
        block("fd00::/16", &["fd00:2::/32"])
    ]);
    assert_eq!(from(&some), ["db", "near", "red"]);
    // An exception is of its own block: another block of the list brings the addresses back.
    let both = json!([
        block("10.0.0.0/16", &["10.0.2.0/24"]),
        block("10.0.2.0/31", &[]),
        block("fd00::/16", &["fd00:2::/32"]),
        block("fd00:2::/64", &[]),
    ]);
    assert_eq!(from(&both), ["db", "near", "far", "red"]);
    // Host bits do not matter.
    assert_eq!(
        from(&json!([
            block("10.0.2.77/24", &[]),
            block("fd00:2::77/64", &[])
        ])),
        ["far"]
    );
}

#[test]
fn an_exception_of_one_policy_does_not_bind_another() {
    let mut node = cluster();
    let rule = |cidr: &str, except: &[&str]| {
        json!({"podSelector": {}, "ingress": [
        {"from": [{"ipBlock": {"cidr": cidr, "except": except}}]}]})
    };
    node.policy("x", "wide", &rule("10.0.0.0/8", &["10.0.2.0/24"]));
    assert!(!node.ingress("web", FAR, TCP, 80));
    node.policy("x", "narrow", &rule("10.0.2.1/32", &[]));
    assert!(node.ingress("web", FAR, TCP, 80));
    assert!(!node.ingress("web", "10.0.2.2", TCP, 80));
}

#[test]
fn families_do_not_mix() {
    let mut node = cluster();
    let spec =
        json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]});
    node.policy("x", "p", &spec);
    assert!(node.ingress("web", OUTSIDE, TCP, 80));
    assert!(!node.ingress("web", "2001:db8::1", TCP, 80));
}

#[test]
fn ports_and_protocols() {
    let mut node = cluster();
    let ports = json!([
        {"port": 80}, {"protocol": "UDP", "port": 53}, {"port": 8000, "endPort": 8100}, {"protocol": "SCTP"},
        {"port": 90, "endPort": 91},
    ]);
    node.policy(
        "x",
        "p",
        &json!({"podSelector": {}, "ingress": [{"ports": ports}]}),
    );
    let allowed = [
        (TCP, 80),
        (UDP, 53),
        (TCP, 8000),
        (TCP, 8099),
        (TCP, 8100),
        (SCTP, 1),
        (SCTP, 65535),
        (TCP, 91),
    ];
    let denied = [
        (TCP, 53),
        (UDP, 80),
        (TCP, 7999),
        (TCP, 8101),
        (UDP, 8050),
        (TCP, 92),
        (TCP, 89),
        (ICMP, 0x0800),
        (ICMP6, 0x8000),
        (47, 0),
    ];
    for (protocol, port) in allowed {
        assert!(
            node.ingress("web", OUTSIDE, protocol, port),
            "{protocol}/{port}"
        );
    }
    for (protocol, port) in denied {
        assert!(
            !node.ingress("web", OUTSIDE, protocol, port),
            "{protocol}/{port}"
        );
    }
}

#[test]
fn a_rule_without_ports_allows_every_protocol() {
    let mut node = cluster();
    node.policy(
        "x",
        "p",
        &json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}),
    );
    for (protocol, port) in [(ICMP, 0x0800), (47, 0), (SCTP, 9), (UDP, 9), (TCP, 9)] {
        assert!(node.ingress("web", NEAR, protocol, port));
        assert!(!node.ingress("web", FAR, protocol, port));
    }
}

#[test]
fn sctp_is_not_tcp_and_still_isolates() {
    let mut node = cluster();
    node.policy(
        "x",
        "p",
        &json!({"podSelector": {}, "ingress": [{"ports": [{"protocol": "SCTP", "port": 80}]}]}),
    );
    assert!(node.ingress("web", NEAR, SCTP, 80));
    assert!(!node.ingress("web", NEAR, TCP, 80));
}

#[test]
fn a_named_port_for_ingress_is_the_selected_pods_own() {
    let mut node = Node::new();
    let mut one = pod("x", "one", &[], &["10.0.0.1"]);
    one.named_ports = [named("http", TCP, 80), named("dns", UDP, 53)].into();
    let mut two = pod("x", "two", &[], &["10.0.0.2"]);
    two.named_ports = [named("http", TCP, 8080), named("dns", TCP, 53)].into();
    node.local(one)
        .local(two)
        .local(pod("x", "three", &[], &["10.0.0.3"]));
    let ports = json!([{"port": "http"}, {"port": "dns", "protocol": "UDP"}]);
    node.policy(
        "x",
        "p",
        &json!({"podSelector": {}, "ingress": [{"ports": ports}]}),
    );
    assert!(node.ingress("one", OUTSIDE, TCP, 80) && !node.ingress("one", OUTSIDE, TCP, 8080));
    assert!(node.ingress("two", OUTSIDE, TCP, 8080) && !node.ingress("two", OUTSIDE, TCP, 80));
    // The name must have the protocol of the rule.
    assert!(node.ingress("one", OUTSIDE, UDP, 53) && !node.ingress("one", OUTSIDE, TCP, 53));
    assert!(!node.ingress("two", OUTSIDE, UDP, 53) && !node.ingress("two", OUTSIDE, TCP, 53));
    assert!(!node.ingress("three", OUTSIDE, TCP, 80) && !node.ingress("three", OUTSIDE, TCP, 0));
}

#[test]
fn a_named_port_for_egress_is_each_peers_own() {
    let mut node = cluster();
    let mut far = pod("y", "far", &[("app", "web")], &[FAR]);
    far.named_ports = [named("http", TCP, 8080)].into();
    let mut red = pod("z", "red", &[("app", "db")], &[RED]);
    red.named_ports = [named("http", TCP, 80)].into();
    node.remote(far).remote(red);
    let to_web = json!([{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}]);
    let spec = |to: &Value| json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": to, "ports": [{"port": "http"}]}]});
    node.policy("x", "p", &spec(&to_web));
    assert!(node.egress("web", FAR, TCP, 8080) && !node.egress("web", FAR, TCP, 80));
    assert!(!node.egress("web", RED, TCP, 80), "not among the peers");
    assert!(!node.egress("web", NEAR, TCP, 80), "has no such port");

    // Without peers, whoever has the name; and by block, those inside which have it.
    node.policy("x", "p", &spec(&json!([])));
    assert!(node.egress("web", FAR, TCP, 8080) && node.egress("web", RED, TCP, 80));
    assert!(!node.egress("web", FAR, TCP, 80) && !node.egress("web", OUTSIDE, TCP, 80));
    node.policy(
        "x",
        "p",
        &spec(&json!([{"ipBlock": {"cidr": "10.0.2.0/24"}}])),
    );
    assert!(node.egress("web", FAR, TCP, 8080) && !node.egress("web", RED, TCP, 80));
    assert!(
        !node.egress("web", "10.0.2.2", TCP, 8080),
        "no pod, no name"
    );
}

#[test]
fn policies_add_up() {
    let mut node = cluster();
    node.policy("x", "deny", &json!({"podSelector": {}}));
    node.policy(
        "x",
        "http",
        &json!({"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}),
    );
    node.policy(
        "x",
        "near",
        &json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}),
    );
    assert!(node.ingress("web", OUTSIDE, TCP, 80));
    assert!(!node.ingress("web", OUTSIDE, TCP, 81));
    assert!(node.ingress("web", NEAR, TCP, 81));
    // A peer of one rule does not gain the port of another that is not for it.
    let pairs =
        json!([{"from": [{"podSelector": {}}], "ports": [{"port": 1}]}, {"ports": [{"port": 2}]}]);
    let mut node = cluster();
    node.policy("x", "p", &json!({"podSelector": {}, "ingress": pairs}));
    assert!(node.ingress("web", NEAR, TCP, 1) && node.ingress("web", NEAR, TCP, 2));
    assert!(!node.ingress("web", FAR, TCP, 1) && node.ingress("web", FAR, TCP, 2));
}

#[test]
fn host_network_pods_are_neither_subjects_nor_peers_by_label() {
    let mut node = cluster();
    let mut agent = pod("x", "agent", &[("app", "web")], &["172.16.0.1"]);
    agent.host_network = true;
    node.remote(agent);
    node.policy(
        "x",
        "p",
        &json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}),
    );
    assert!(!node.ingress("web", "172.16.0.1", TCP, 80));
    node.policy("x", "q", &json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "172.16.0.1/32"}}]}]}));
    assert!(node.ingress("web", "172.16.0.1", TCP, 80));
    let judged = node
        .0
        .judge(Direction::Ingress, "x/agent", ip(NEAR), TCP, 80)
        .unwrap();
    assert_eq!(judged.0, Verdict::Allow);
}

#[test]
fn labels_of_pods_and_namespaces_count_when_they_change() {
    let mut node = cluster();
    let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [
        {"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]}]});
    node.policy("x", "p", &spec);
    assert!(node.ingress("web", FAR, TCP, 80) && !node.ingress("web", RED, TCP, 80));
    node.0.apply_namespace("z", labels(&[("team", "blue")]));
    node.0.apply_namespace("y", labels(&[]));
    assert!(!node.ingress("web", FAR, TCP, 80) && node.ingress("web", RED, TCP, 80));
    // As a subject: the policy lets go of it, and takes it again.
    node.remote(pod(
        "x",
        "web",
        &[("app", "other")],
        &["10.0.0.1", "fd00::1"],
    ));
    assert!(node.ingress("web", FAR, TCP, 80));
    node.remote(pod("x", "web", &[("app", "web")], &["10.0.0.1", "fd00::1"]));
    assert!(!node.ingress("web", FAR, TCP, 80));
}

#[test]
fn deleting_a_policy_restores() {
    let mut node = cluster();
    let before = {
        node.0.compile();
        node.0.tables().clone()
    };
    node.policy("x", "p", &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": [
        {"to": [{"namespaceSelector": {}}, {"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": 1, "endPort": 99}]}]}));
    assert!(!node.egress("web", FAR, TCP, 100));
    assert_ne!(node.0.tables().programs_ranged, before.programs_ranged);
    node.0
        .delete_policy(&k8s::key(&object("x", "p", &json!({}))));
    assert!(node.egress("web", FAR, TCP, 100));
    assert_eq!(shape(node.0.tables()), shape(&before));
}

#[test]
fn pods_of_the_node_are_peers_too_and_both_ends_are_judged() {
    let mut node = cluster();
    node.policy(
        "x",
        "in",
        &json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [
        {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]}),
    );
    assert!(node.ingress("db", "10.0.0.1", TCP, 80) && node.egress("web", "10.0.0.2", TCP, 80));
    node.policy(
        "x",
        "out",
        &json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"]}),
    );
    assert!(node.ingress("db", "10.0.0.1", TCP, 80) && !node.egress("web", "10.0.0.2", TCP, 80));
}
