use proptest::prelude::*;
use serde_json::{Value, json};

use super::{prune, validate};

mod pods;

fn errors(kind: &str, object: Value) -> Vec<String> {
    validate(kind, &object, None)
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// Whether some error begins like this.
fn has(errors: &[String], start: &str) -> bool {
    errors.iter().any(|error| error.starts_with(start))
}

fn policy(spec: Value) -> Value {
    json!({"metadata": {"name": "np", "namespace": "ns"}, "spec": spec})
}

#[test]
fn names_follow_the_rule_of_their_kind() {
    let long = "a".repeat(64);
    for (kind, name, fine) in [
        ("Namespace", "a", true),
        ("Namespace", "a.b", false),
        ("Namespace", "A", false),
        ("Namespace", "-a", false),
        ("Namespace", long.as_str(), false),
        ("ConfigMap", "a.b-c", true),
        ("ConfigMap", "a..b", false),
        ("ConfigMap", "a_b", false),
        ("ConfigMap", long.as_str(), true),
        ("Service", "1a", false),
        ("Service", "a1", true),
        ("ClusterRole", "system:node", true),
        ("ClusterRole", "a/b", false),
    ] {
        let object = json!({"metadata": {"name": name}, "spec": {"clusterIP": "None"}});
        let found = errors(kind, object);
        assert_eq!(found.is_empty(), fine, "{kind} {name}: {found:?}");
        assert!(
            fine || has(&found, "metadata.name: Invalid value: "),
            "{found:?}"
        );
    }
}

#[test]
fn labels_annotations_finalizers_and_owners_are_checked() {
    for (metadata, start) in [
        (
            json!({"labels": {"a b": "x"}}),
            "metadata.labels: Invalid value: \"a b\": name part",
        ),
        (
            json!({"labels": {"/x": "x"}}),
            "metadata.labels: Invalid value: \"/x\": prefix part",
        ),
        (
            json!({"labels": {"A_B/x": "x"}}),
            "metadata.labels: Invalid value: \"A_B/x\": prefix part",
        ),
        (
            json!({"labels": {"a": "x y"}}),
            "metadata.labels: Invalid value: \"x y\"",
        ),
        (
            json!({"labels": {"a": "x".repeat(64)}}),
            "metadata.labels: Invalid value",
        ),
        (
            json!({"labels": {"a": 1}}),
            "metadata.labels: Invalid value: 1: must be a string",
        ),
        (json!({"labels": ["a"]}), "metadata.labels: Invalid value"),
        (
            json!({"annotations": {"a b": "x"}}),
            "metadata.annotations: Invalid value",
        ),
        (
            json!({"annotations": {"a": "x".repeat(300_000)}}),
            "metadata.annotations: Too long",
        ),
        (
            json!({"finalizers": ["a b"]}),
            "metadata.finalizers[0]: Invalid value",
        ),
        (
            json!({"ownerReferences": [{"kind": "K", "name": "n", "apiVersion": "v1"}]}),
            "metadata.ownerReferences[0].uid: Required value",
        ),
        (
            json!({"namespace": "A"}),
            "metadata.namespace: Invalid value",
        ),
    ] {
        let found = errors("ConfigMap", json!({"metadata": metadata}));
        assert!(has(&found, start), "{metadata}: {found:?}");
    }
    let fine = json!({"metadata": {"name": "x", "labels": {"app.kubernetes.io/name": "a", "x": ""},
        "annotations": {"Example.com/any": "free text, \n really"}, "finalizers": ["margay.io/block"]}});
    assert_eq!(errors("ConfigMap", fine), Vec::<String>::new());
}

#[test]
fn network_policies_are_refused_by_field() {
    let port = |port: Value| json!({"podSelector": {}, "ingress": [{"ports": [port]}]});
    let peer = |peer: Value| json!({"podSelector": {}, "egress": [{"to": [peer]}]});
    for (spec, start) in [
        (
            port(json!({"port": 0})),
            "spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            port(json!({"port": 65536})),
            "spec.ingress[0].ports[0].port: Invalid value",
        ),
        (
            port(json!({"port": "UPPER"})),
            "spec.ingress[0].ports[0].port: Invalid value",
        ),
        (
            port(json!({"port": "123"})),
            "spec.ingress[0].ports[0].port: Invalid value: \"123\": must contain at least one letter",
        ),
        (
            port(json!({"port": "a-very-long-port-name"})),
            "spec.ingress[0].ports[0].port: Invalid value",
        ),
        (
            port(json!({"port": "a--b"})),
            "spec.ingress[0].ports[0].port: Invalid value",
        ),
        (
            port(json!({"port": true})),
            "spec.ingress[0].ports[0].port: Invalid value",
        ),
        (
            port(json!({"port": 80, "protocol": "ICMP"})),
            "spec.ingress[0].ports[0].protocol: Unsupported value: \"ICMP\"",
        ),
        (
            port(json!({"port": 80, "endPort": 79})),
            "spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`",
        ),
        (
            port(json!({"port": 80, "endPort": 70000})),
            "spec.ingress[0].ports[0].endPort: Invalid value: 70000",
        ),
        (
            port(json!({"port": "http", "endPort": 90})),
            "spec.ingress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is non-numeric",
        ),
        (
            port(json!({"endPort": 90})),
            "spec.ingress[0].ports[0].port: Required value: must be specified when `endPort`",
        ),
        (
            peer(json!({})),
            "spec.egress[0].to[0]: Required value: must specify a peer",
        ),
        (
            peer(json!({"ipBlock": {}})),
            "spec.egress[0].to[0].ipBlock.cidr: Required value",
        ),
        (
            peer(json!({"ipBlock": {"cidr": "10.0.0.0"}})),
            "spec.egress[0].to[0].ipBlock.cidr: Invalid value: \"10.0.0.0\": must be a valid CIDR",
        ),
        (
            peer(json!({"ipBlock": {"cidr": "10.0.0.0/33"}})),
            "spec.egress[0].to[0].ipBlock.cidr: Invalid value",
        ),
        (
            peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}})),
            "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
        ),
        (
            peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}})),
            "spec.egress[0].to[0].ipBlock.except[0]: Invalid value",
        ),
        (
            peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["fd00::/16"]}})),
            "spec.egress[0].to[0].ipBlock.except[0]: Invalid value",
        ),
        (
            peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["x"]}})),
            "spec.egress[0].to[0].ipBlock.except[0]: Invalid value",
        ),
        (
            peer(json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}})),
            "spec.egress[0].to[0]: Forbidden: may not specify both ipBlock and another peer",
        ),
        (
            peer(json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}})),
            "spec.egress[0].to[0].podSelector.matchExpressions[0].values: Required value",
        ),
        (
            peer(
                json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}}),
            ),
            "spec.egress[0].to[0].podSelector.matchExpressions[0].values: Forbidden",
        ),
        (
            peer(
                json!({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}}),
            ),
            "spec.egress[0].to[0].namespaceSelector.matchExpressions[0].operator: Invalid value: \"Gt\": not a valid selector operator",
        ),
        (
            json!({"podSelector": {"matchLabels": {"a b": "c"}}}),
            "spec.podSelector.matchLabels: Invalid value: \"a b\"",
        ),
        (
            json!({"podSelector": {"matchExpressions": [{"key": "a b", "operator": "Exists"}]}}),
            "spec.podSelector.matchExpressions[0].key: Invalid value",
        ),
        (
            json!({"podSelector": {}, "policyTypes": ["Both"]}),
            "spec.policyTypes[0]: Unsupported value: \"Both\": supported values: \"Egress\", \"Ingress\"",
        ),
        (
            json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress", "Ingress"]}),
            "spec.policyTypes: Invalid value",
        ),
    ] {
        let found = errors("NetworkPolicy", policy(spec.clone()));
        assert!(has(&found, start), "{spec}: {found:?}");
    }
    let fine = json!({"podSelector": {"matchLabels": {"app": "db"}, "matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b", ""]}]},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": {}, "namespaceSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
                     "ports": [{"port": 80, "endPort": 90, "protocol": "TCP"}, {"port": "http"}, {"protocol": "UDP"}]}, {}],
        "egress": []});
    assert_eq!(errors("NetworkPolicy", policy(fine)), Vec::<String>::new());
}

#[test]
fn the_other_kinds_are_checked_too() {
    for (kind, object, start) in [
        ("Service", json!({"spec": {}}), "spec.ports: Required value"),
        (
            "Service",
            json!({"spec": {"ports": [{"port": 0}]}}),
            "spec.ports[0].port: Invalid value",
        ),
        (
            "Service",
            json!({"spec": {"ports": [{"port": 1}, {"port": 2}]}}),
            "spec.ports[1].name: Required value",
        ),
        (
            "Service",
            json!({"spec": {"ports": [{"port": 1, "targetPort": "A"}]}}),
            "spec.ports[0].targetPort: Invalid value",
        ),
        (
            "Service",
            json!({"spec": {"type": "Odd", "ports": [{"port": 1}]}}),
            "spec.type: Unsupported value",
        ),
        ("EndpointSlice", json!({}), "addressType: Required value"),
        (
            "EndpointSlice",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["::1"]}]}),
            "endpoints[0].addresses[0]: Invalid value",
        ),
        (
            "EndpointSlice",
            json!({"addressType": "IPv4", "endpoints": [{}]}),
            "endpoints[0].addresses: Required value",
        ),
        (
            "Node",
            json!({"spec": {"podCIDRs": ["x"]}}),
            "spec.podCIDRs[0]: Invalid value",
        ),
        (
            "Node",
            json!({"spec": {"taints": [{"key": "k", "effect": "Odd"}]}}),
            "spec.taints[0].effect: Unsupported value",
        ),
        (
            "ConfigMap",
            json!({"data": {"a/b": "x"}}),
            "data[a/b]: Invalid value",
        ),
        (
            "ConfigMap",
            json!({"data": {"a": 1}}),
            "data[a]: Invalid value",
        ),
        (
            "ClusterRole",
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"]}]}),
            "rules[0].verbs: Required value",
        ),
        (
            "ClusterRoleBinding",
            json!({"roleRef": {}}),
            "roleRef.name: Required value",
        ),
    ] {
        let found = errors(kind, object.clone());
        assert!(has(&found, start), "{kind} {object}: {found:?}");
    }
    for (kind, old, new, start) in [
        (
            "Secret",
            json!({"type": "Opaque"}),
            json!({"type": "x"}),
            "type: Invalid value: \"x\": field is immutable",
        ),
        (
            "ConfigMap",
            json!({"immutable": true, "data": {"a": "1"}}),
            json!({"immutable": true, "data": {"a": "2"}}),
            "data: Forbidden",
        ),
        (
            "ClusterRoleBinding",
            json!({"roleRef": {"name": "a"}}),
            json!({"roleRef": {"name": "b"}}),
            "roleRef: Invalid value",
        ),
        (
            "Service",
            json!({"spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 1}]}}),
            json!({"spec": {"clusterIP": "10.0.0.2", "ports": [{"port": 1}]}}),
            "spec.clusterIP: Invalid value",
        ),
        (
            "Node",
            json!({"spec": {"podCIDR": "10.0.0.0/24"}}),
            json!({"spec": {}}),
            "spec.podCIDR: Forbidden",
        ),
    ] {
        let found: Vec<String> = validate(kind, &new, Some(&old))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(has(&found, start), "{kind} {new}: {found:?}");
    }
}

#[test]
fn misspelt_fields_are_found() {
    for (kind, object, want) in [
        (
            "NetworkPolicy",
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "x", "lables": {}},
                "spec": {"podSelector": {"matchLabel": {}}, "ingress": [{"port": [], "ports": [{"port": "http", "endport": 5, "protocol": "TCP"}]}],
                    "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "expect": []}}]}]}}),
            vec![
                "metadata.lables",
                "spec.podSelector.matchLabel",
                "spec.ingress[0].port",
                "spec.ingress[0].ports[0].endport",
                "spec.egress[0].to[0].ipBlock.expect",
            ],
        ),
        (
            "ConfigMap",
            json!({"metadata": {}, "dat": {}, "data": {"any": "key"}}),
            vec!["dat"],
        ),
        (
            "ClusterRole",
            json!({"rules": [{"verbs": [], "resource": []}]}),
            vec!["rules[0].resource"],
        ),
        ("Pod", json!({"spec": {"anything": 1}}), vec![]),
    ] {
        let mut pruned = object.clone();
        assert_eq!(prune(kind, &mut pruned), want, "{kind}");
        assert_eq!(prune(kind, &mut pruned), Vec::<String>::new());
    }
    for kind in [
        "NetworkPolicy",
        "Secret",
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "ClusterRoleBinding",
    ] {
        assert_eq!(prune(kind, &mut json!({"zzz": 1})), ["zzz"], "{kind}");
    }
}

/// Objects with the right field names and any values.
fn any_object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z./A-Z0-9-]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(7, 60, 6, |inner| {
        let name = prop::sample::select(vec![
            "metadata",
            "name",
            "labels",
            "annotations",
            "finalizers",
            "ownerReferences",
            "spec",
            "status",
            "podIPs",
            "ip",
            "containers",
            "initContainers",
            "image",
            "ports",
            "containerPort",
            "protocol",
            "port",
            "endPort",
            "ingress",
            "egress",
            "from",
            "to",
            "ipBlock",
            "cidr",
            "except",
            "podSelector",
            "matchLabels",
            "matchExpressions",
            "key",
            "operator",
            "values",
            "policyTypes",
            "tolerations",
            "volumes",
            "volumeMounts",
            "endpoints",
            "addresses",
            "addressType",
            "rules",
            "roleRef",
            "subjects",
            "data",
            "type",
            "nodeName",
            "taints",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..6).prop_map(|f| Value::Object(
                f.into_iter().map(|(n, v)| (n.to_owned(), v)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn no_object_panics(new in any_object(), old in any_object()) {
        for kind in ["Pod", "Service", "NetworkPolicy", "EndpointSlice", "Node", "ConfigMap", "Secret", "ClusterRole",
            "RoleBinding", "Namespace", "Lease"] {
            validate(kind, &new, None);
            validate(kind, &new, Some(&old));
        }
    }
}
