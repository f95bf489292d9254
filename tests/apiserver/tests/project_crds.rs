//! The project's own definitions, judged by the schemas and rules the server compiles from them.

use apiserver::schema::Schema;
use serde_json::{Value, json};

fn schema(kind: &str) -> Schema {
    let crd = crds::all_crds()
        .into_iter()
        .find(|crd| crd.spec.names.kind == kind)
        .unwrap_or_else(|| panic!("there is no {kind}"));
    let crd = serde_json::to_value(crd).unwrap_or_default();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    Schema::parse(schema).unwrap_or_else(|e| panic!("{kind}: {e}"))
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "margay.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// Prunes, defaults and validates as the server does.
fn judge(kind: &str, mut object: Value, old: Option<&Value>) -> Vec<String> {
    let schema = schema(kind);
    let dropped = schema.prune(&mut object);
    schema.default(&mut object);
    let mut problems: Vec<String> = dropped
        .iter()
        .map(|f| format!("unknown field {f}"))
        .collect();
    problems.extend(
        schema
            .validate(&object, old)
            .iter()
            .map(ToString::to_string),
    );
    problems
}

#[test]
fn every_schema_compiles() {
    for crd in crds::all_crds() {
        schema(&crd.spec.names.kind);
    }
}

#[test]
fn good_objects_pass() {
    for (kind, name, spec) in [
        (
            "IPPool",
            "v4",
            json!({"cidr": "10.244.0.0/16", "blockSize": 26}),
        ),
        ("IPPool", "v6", json!({"cidr": "fd00:10:244::/48"})),
        ("BGPConfiguration", "default", json!({})),
        ("IPAMConfiguration", "default", json!({})),
        (
            "BGPPeer",
            "tor",
            json!({"peerIP": "192.0.2.1", "asNumber": 64512}),
        ),
        (
            "BGPPeer",
            "tor-port",
            json!({"peerIP": "[2001:db8::1]:1179", "asNumber": 64512, "node": "n1"}),
        ),
        ("Tier", "security", json!({"order": -1.5})),
        (
            "Tier",
            "kube-admin",
            json!({"order": 1000, "defaultAction": "Pass"}),
        ),
        ("NetworkPolicy", "empty", json!({})),
        (
            "NetworkPolicy",
            "full",
            json!({"tier": "security", "order": 1, "types": ["Ingress", "Egress"], "enforcement": "Audit",
                "ingress": [
                    {"action": "Allow", "protocol": "TCP", "source": {"nets": ["10.0.0.0/8", "192.0.2.1", "fd00::/8"]},
                        "destination": {"ports": [80, "443", "8000:8999", "http"]}},
                    {"action": "Log", "protocol": 58, "icmp": {"type": 128, "code": 0}, "ipVersion": 6},
                    {"action": "Pass", "notProtocol": "UDPLite", "metadata": {"annotations": {"why": "x"}}}],
                "egress": [{"action": "Deny", "destination": {"services": {"name": "web", "namespace": "shop"}}}]}),
        ),
        (
            "GlobalNetworkPolicy",
            "before-nat",
            json!({"preDNAT": true, "applyOnForward": true, "ingress": [{"action": "Deny"}], "selector": "has(host)"}),
        ),
        (
            "NetworkSet",
            "s",
            json!({"nets": ["10.0.0.0/8", "fd00::1"]}),
        ),
        ("GlobalNetworkSet", "s", json!({})),
        (
            "HostEndpoint",
            "h",
            json!({"node": "n1", "interfaceName": "*", "ports": [{"name": "ssh", "protocol": "TCP", "port": 22}]}),
        ),
        (
            "HostEndpoint",
            "h",
            json!({"node": "n1", "expectedIPs": ["192.0.2.1"]}),
        ),
    ] {
        let problems = judge(kind, object(kind, name, spec.clone()), None);
        assert!(problems.is_empty(), "{kind} {spec}: {problems:?}");
    }
}

#[test]
fn bad_objects_are_refused_by_field() {
    for (kind, name, spec, field) in [
        ("IPPool", "p", json!({"cidr": "banana"}), "spec.cidr: "),
        (
            "IPPool",
            "p",
            json!({"cidr": "10.244.0.1/16"}),
            "spec.cidr: ",
        ),
        (
            "IPPool",
            "p",
            json!({"cidr": "10.244.0.0/16", "blockSize": 8}),
            "spec",
        ),
        ("IPPool", "p", json!({}), "spec.cidr: Required value"),
        (
            "IPPool",
            "p",
            json!({"cidr": 7}),
            "spec.cidr: Invalid value",
        ),
        ("BGPConfiguration", "other", json!({}), "name it default"),
        (
            "BGPPeer",
            "p",
            json!({"peerIP": "tor-a", "asNumber": 64512}),
            "spec.peerIP: ",
        ),
        (
            "BGPPeer",
            "p",
            json!({"peerIP": "192.0.2.1", "asNumber": 64512, "node": "n1", "nodeSelector": "all()"}),
            "spec: ",
        ),
        (
            "BGPPeer",
            "p",
            json!({"peerIp": "192.0.2.1", "asNumber": 64512}),
            "unknown field spec.peerIp",
        ),
        ("Tier", "Not_a_label", json!({}), "the name of a tier"),
        (
            "Tier",
            "default",
            json!({"order": 5}),
            "the tier default is built in",
        ),
        (
            "Tier",
            "kube-admin",
            json!({"order": 1000}),
            "the tier kube-admin is built in",
        ),
        (
            "Tier",
            "t",
            json!({"defaultAction": "Allow"}),
            "spec.defaultAction: Unsupported value",
        ),
        (
            "NetworkPolicy",
            "p",
            json!({"enforcement": "Maybe"}),
            "spec.enforcement: Unsupported value",
        ),
        (
            "NetworkPolicy",
            "p",
            json!({"namespaceSelector": "all()"}),
            "unknown field spec.namespaceSelector",
        ),
        (
            "NetworkPolicy",
            "p",
            json!({"types": ["Ingress", "Ingress"]}),
            "spec.types",
        ),
        (
            "NetworkPolicy",
            "p",
            json!({"ingress": [{}]}),
            "spec.ingress[0].action: Required value",
        ),
        (
            "NetworkPolicy",
            "p",
            json!({"ingress": [{"action": "Allow"}, {"action": "Accept"}]}),
            "spec.ingress[1].action: Unsupported value",
        ),
        (
            "NetworkPolicy",
            "p",
            json!({"ingress": [{"action": "Allow", "protocol": "IPIP"}]}),
            "spec.ingress[0].protocol: Invalid value",
        ),
        (
            "NetworkPolicy",
            "p",
            json!({"ingress": [{"action": "Allow", "protocol": 256}]}),
            "spec.ingress[0].protocol: Invalid value",
        ),
        (
            "NetworkPolicy",
            "p",
            json!({"ingress": [{"action": "Allow", "protocol": "TCP", "icmp": {"type": 8}}]}),
            "spec.ingress[0]: Invalid value",
        ),
        (
            "NetworkPolicy",
            "p",
            json!({"ingress": [{"action": "Allow", "protocol": "ICMP", "icmp": {"code": 8}}]}),
            "spec.ingress[0].icmp: Invalid value",
        ),
        (
            "NetworkPolicy",
            "p",
            json!({"egress": [{"action": "Allow", "destination": {"nets": ["10.0.0.0/8", "10.0.0.1/8"]}}]}),
            "spec.egress[0].destination.nets[1]: Invalid value",
        ),
        (
            "NetworkPolicy",
            "p",
            json!({"egress": [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [80, "80-90"]}}]}),
            "spec.egress[0].destination.ports[1]: Invalid value",
        ),
        (
            "NetworkPolicy",
            "p",
            json!({"egress": [{"action": "Allow", "destination": {"services": {"name": "x"}, "selector": "all()"}}]}),
            "spec.egress[0].destination: Invalid value",
        ),
        (
            "GlobalNetworkPolicy",
            "p",
            json!({"preDNAT": true, "doNotTrack": true, "applyOnForward": true}),
            "set preDNAT or doNotTrack",
        ),
        (
            "GlobalNetworkPolicy",
            "p",
            json!({"doNotTrack": true}),
            "set applyOnForward to true",
        ),
        (
            "GlobalNetworkPolicy",
            "p",
            json!({"preDNAT": true, "applyOnForward": true, "egress": [{"action": "Deny"}]}),
            "leave egress out",
        ),
        (
            "NetworkSet",
            "s",
            json!({"nets": ["banana"]}),
            "spec.nets[0]: Invalid value",
        ),
        (
            "HostEndpoint",
            "h",
            json!({"interfaceName": "*"}),
            "spec.node: Required value",
        ),
        (
            "HostEndpoint",
            "h",
            json!({"node": "n1"}),
            "say which interface",
        ),
        (
            "HostEndpoint",
            "h",
            json!({"node": "n1", "expectedIPs": ["n1"]}),
            "spec.expectedIPs: Invalid value",
        ),
    ] {
        let problems = judge(kind, object(kind, name, spec.clone()), None);
        assert!(
            problems.iter().any(|p| p.contains(field)),
            "{kind} {spec}: {problems:?}"
        );
    }
}

#[test]
fn what_cannot_change_does_not() {
    let old = object("IPPool", "p", json!({"cidr": "10.244.0.0/16"}));
    let new = object("IPPool", "p", json!({"cidr": "10.245.0.0/16"}));
    let problems = judge("IPPool", new, Some(&old));
    assert!(
        problems
            .iter()
            .any(|p| p.starts_with("spec.cidr: ") && p.contains("cannot change")),
        "{problems:?}"
    );
}
