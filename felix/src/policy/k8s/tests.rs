use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn object(spec: &Value) -> NetworkPolicy {
    serde_json::from_value(
        json!({"metadata": {"namespace": "x", "name": "p", "generation": 3}, "spec": spec}),
    )
    .unwrap()
}

fn refused(spec: &Value) -> (String, PolicyError) {
    let error = parse(&object(spec)).unwrap_err();
    (error.field.clone(), error)
}

fn ingress(peer: &Value) -> Value {
    json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}, peer]}]})
}

fn ports(port: &Value) -> Value {
    json!({"podSelector": {}, "egress": [{}, {"ports": [port]}]})
}

#[test]
fn errors_name_the_field() {
    let block = |cidr: &str, except: &[&str]| {
        ingress(&json!({"ipBlock": {"cidr": cidr, "except": except}}))
    };
    let expression = |operator: &str, values: &[&str]| {
        ingress(
            &json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": operator, "values": values}]}}),
        )
    };
    let from = "spec.ingress[0].from[1]";
    let cases = [
        (block("10.0.0.0/33", &[]), format!("{from}.ipBlock.cidr")),
        (block("10.0.0.0", &[]), format!("{from}.ipBlock.cidr")),
        (
            block("10.0.0.0/255.0.0.0", &[]),
            format!("{from}.ipBlock.cidr"),
        ),
        (block("10.0.0.0/+8", &[]), format!("{from}.ipBlock.cidr")),
        (block("", &[]), format!("{from}.ipBlock.cidr")),
        (
            block("10.0.0.0/8", &["10.1.0.0/16", "11.0.0.0/16"]),
            format!("{from}.ipBlock.except[1]"),
        ),
        (
            block("10.0.0.0/8", &["10.0.0.0/8"]),
            format!("{from}.ipBlock.except[0]"),
        ),
        (
            block("10.0.0.0/8", &["0.0.0.0/0"]),
            format!("{from}.ipBlock.except[0]"),
        ),
        (
            block("10.0.0.0/8", &["fd00::/16"]),
            format!("{from}.ipBlock.except[0]"),
        ),
        (
            block("10.0.0.0/8", &["x"]),
            format!("{from}.ipBlock.except[0]"),
        ),
        (ingress(&json!({})), from.to_owned()),
        (
            ingress(&json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}})),
            from.to_owned(),
        ),
        (
            expression("Like", &["a"]),
            format!("{from}.podSelector.matchExpressions[0].operator"),
        ),
        (
            expression("In", &[]),
            format!("{from}.podSelector.matchExpressions[0].values"),
        ),
        (
            expression("Exists", &["a"]),
            format!("{from}.podSelector.matchExpressions[0].values"),
        ),
        (
            expression("In", &["-a"]),
            format!("{from}.podSelector.matchExpressions[0].values"),
        ),
        (
            ingress(
                &json!({"namespaceSelector": {"matchExpressions": [{"key": "a b", "operator": "Exists"}]}}),
            ),
            format!("{from}.namespaceSelector.matchExpressions[0].key"),
        ),
        (
            ingress(&json!({"namespaceSelector": {"matchLabels": {"a/b/c": "x"}}})),
            format!("{from}.namespaceSelector.matchLabels[a/b/c]"),
        ),
        (
            ports(&json!({"protocol": "ICMP"})),
            "spec.egress[1].ports[0].protocol".to_owned(),
        ),
        (
            ports(&json!({"protocol": "tcp"})),
            "spec.egress[1].ports[0].protocol".to_owned(),
        ),
        (
            ports(&json!({"port": 0})),
            "spec.egress[1].ports[0].port".to_owned(),
        ),
        (
            ports(&json!({"port": 65536})),
            "spec.egress[1].ports[0].port".to_owned(),
        ),
        (
            ports(&json!({"port": "no such Port"})),
            "spec.egress[1].ports[0].port".to_owned(),
        ),
        (
            ports(&json!({"port": "80"})),
            "spec.egress[1].ports[0].port".to_owned(),
        ),
        (
            ports(&json!({"endPort": 9})),
            "spec.egress[1].ports[0].endPort".to_owned(),
        ),
        (
            ports(&json!({"port": 10, "endPort": 9})),
            "spec.egress[1].ports[0].endPort".to_owned(),
        ),
        (
            ports(&json!({"port": "http", "endPort": 9})),
            "spec.egress[1].ports[0].endPort".to_owned(),
        ),
        (
            ports(&json!({"port": 9, "endPort": 70000})),
            "spec.egress[1].ports[0].endPort".to_owned(),
        ),
        (
            json!({"podSelector": {}, "policyTypes": ["Ingress", "Both"]}),
            "spec.policyTypes[1]".to_owned(),
        ),
    ];
    for (spec, field) in cases {
        let (found, error) = refused(&spec);
        assert_eq!(found, field, "{spec}");
        let closed = error.closed.unwrap();
        assert_eq!(closed.generation, 3);
        assert!(
            closed.ingress.is_some_and(|rules| rules.is_empty()),
            "what it selects is closed: {spec}"
        );
    }
}

#[test]
fn what_cannot_be_read_is_closed_in_the_directions_it_governs() {
    let governed = |spec: &Value| {
        let closed = refused(spec).1.closed.unwrap();
        (closed.ingress.is_some(), closed.egress.is_some())
    };
    let bad = json!([{"ports": [{"port": 0}]}]);
    assert_eq!(
        governed(&json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": bad})),
        (false, true)
    );
    assert_eq!(
        governed(&json!({"podSelector": {}, "egress": bad})),
        (true, true)
    );
    assert_eq!(
        governed(&json!({"podSelector": {}, "ingress": bad})),
        (true, false)
    );
    assert_eq!(
        governed(&json!({"podSelector": {}, "policyTypes": ["?"]})),
        (true, true)
    );
}

#[test]
fn without_a_selection_there_is_nothing_to_close() {
    let (field, error) = refused(&json!({"podSelector": {"matchLabels": {"app": "no value!"}}}));
    assert_eq!(field, "spec.podSelector.matchLabels[app]");
    assert_eq!(error.closed, None);
}

#[test]
fn what_the_documentation_shows_is_understood() {
    let policy = parse(&object(&json!({
        "podSelector": {"matchLabels": {"role": "db", "example.com/Part.of": "A_b-c.D"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{
            "from": [
                {"ipBlock": {"cidr": "172.17.0.0/16", "except": ["172.17.1.0/24"]}},
                {"namespaceSelector": {"matchLabels": {"project": "myproject"}}},
                {"podSelector": {"matchLabels": {"role": "frontend"}}}
            ],
            "ports": [{"protocol": "TCP", "port": 6379}]
        }],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/24"}}], "ports": [{"port": 32000, "endPort": 32768}]}]
    })))
    .unwrap();
    assert_eq!(policy.ingress.unwrap()[0].peers[0].any.iter().count(), 3);
    let ports = policy.egress.unwrap()[0].traffic[0].any.clone();
    assert_eq!(
        ports,
        [PortMatch::Ports {
            protocol: protocol::TCP,
            first: 32000,
            last: 32768
        }]
    );
}

#[test]
fn an_object_without_a_spec_isolates_its_namespace() {
    let policy = parse(
        &serde_json::from_value(json!({"metadata": {"namespace": "x", "name": "p"}})).unwrap(),
    )
    .unwrap();
    assert_eq!((policy.ingress, policy.egress), (Some(Vec::new()), None));
    let all = PodSelector {
        namespaces: NamespaceSelector::Named("x".to_owned()),
        pods: LabelSelector::default(),
    };
    assert_eq!(policy.subject, Selection::Pods(all));
}

/// Strings of which some are right somewhere.
fn text() -> impl Strategy<Value = String> {
    let known = [
        "",
        "TCP",
        "tcp",
        "SCTP",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "::/0",
        "fd00::/8",
        "10.0.0.0/99",
        "1.2.3.4",
        "In",
        "NotIn",
        "Exists",
        "DoesNotExist",
        "http",
        "Ingress",
        "Egress",
        "a/b",
        "example.com/app",
    ];
    prop_oneof![9 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => ".{0,6}"]
}

fn selector() -> impl Strategy<Value = Value> {
    let requirement = (text(), text(), prop::collection::vec(text(), 0..3)).prop_map(
        |(key, operator, values)| json!({"key": key, "operator": operator, "values": values}),
    );
    (
        prop::collection::btree_map(text(), text(), 0..2),
        prop::collection::vec(requirement, 0..2),
    )
        .prop_map(
            |(labels, expressions)| json!({"matchLabels": labels, "matchExpressions": expressions}),
        )
}

fn rule(side: &'static str) -> impl Strategy<Value = Value> {
    let peer = prop_oneof![
        (text(), prop::collection::vec(text(), 0..3))
            .prop_map(|(cidr, except)| json!({"ipBlock": {"cidr": cidr, "except": except}})),
        selector().prop_map(|it| json!({"podSelector": it})),
        selector().prop_map(|it| json!({"namespaceSelector": it, "podSelector": {}})),
        Just(json!({})),
    ];
    let number = || {
        prop_oneof![
            (-1..4).prop_map(Value::from),
            any::<i32>().prop_map(Value::from)
        ]
    };
    let port = (
        prop_oneof![number(), text().prop_map(Value::from)],
        number(),
        text(),
        0..8_u8,
    )
        .prop_map(|(port, end, protocol, parts)| {
            let mut entry = json!({});
            for (bit, key, value) in [
                (1, "port", port),
                (2, "endPort", end),
                (4, "protocol", protocol.into()),
            ] {
                if parts & bit != 0 {
                    entry[key] = value;
                }
            }
            entry
        });
    (
        prop::collection::vec(peer, 0..3),
        prop::collection::vec(port, 0..3),
    )
        .prop_map(move |(peers, ports)| json!({side: peers, "ports": ports}))
}

proptest! {
    #[test]
    fn anything_of_the_right_shape_is_refused_or_understood(
        pods in prop_oneof![Just(json!({})), selector()],
        ingress in prop::collection::vec(rule("from"), 0..3),
        egress in prop::collection::vec(rule("to"), 0..3),
        types in prop::option::of(prop::collection::vec(text(), 0..3)),
    ) {
        let spec = json!({"podSelector": pods, "ingress": ingress, "egress": egress, "policyTypes": types});
        let text = json!({"metadata": {"name": "p"}, "spec": spec}).to_string();
        prop_assert!(serde_json::from_str::<NetworkPolicy>(&text).is_ok(), "not of the right shape: {}", text);
        check_json(text.as_bytes());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        check_json(&bytes);
    }
}
