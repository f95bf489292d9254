use serde_json::json;

use super::*;

fn peer(spec: serde_json::Value) -> Result<Peer, FieldError> {
    let object = json!({ "apiVersion": "margay.io/v1", "kind": "BGPPeer", "metadata": { "name": "tor" }, "spec": spec });
    Peer::try_from(&serde_json::from_value::<BGPPeer>(object).unwrap())
}

fn error(spec: serde_json::Value) -> String {
    peer(spec).unwrap_err().to_string()
}

#[test]
fn an_address_and_an_as_are_enough() {
    let peer = peer(json!({ "peerIP": "192.0.2.1", "asNumber": 4200000001u32 })).unwrap();
    let want = Peer {
        name: "tor".to_owned(),
        nodes: Nodes::All,
        address: "192.0.2.1".parse().unwrap(),
        port: 179,
        as_number: 4_200_000_001,
        hold_time: None,
        local_address: None,
        families: BTreeSet::from([Family::V4]),
        passive: false,
    };
    assert_eq!(peer, want);
}

#[test]
fn ports_and_families_are_read() {
    let read = |ip: &str| {
        let peer = peer(json!({ "peerIP": ip, "asNumber": 1 })).unwrap();
        (peer.address.to_string(), peer.port)
    };
    assert_eq!(read("192.0.2.1:1179"), ("192.0.2.1".to_owned(), 1179));
    assert_eq!(read("2001:db8::1"), ("2001:db8::1".to_owned(), 179));
    assert_eq!(read("[2001:db8::1]:1179"), ("2001:db8::1".to_owned(), 1179));
    let both = peer(json!({ "peerIP": "192.0.2.1", "asNumber": 1, "families": ["ipv6", "ipv4"] }))
        .unwrap();
    assert_eq!(both.families, BTreeSet::from(Family::ALL));
}

#[test]
fn nodes_are_one_selected_or_all() {
    let labels = std::collections::BTreeMap::from([("rack".to_owned(), "a".to_owned())]);
    let nodes = |extra: serde_json::Value| {
        let mut spec = json!({ "peerIP": "192.0.2.1", "asNumber": 1 });
        spec.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        peer(spec)
    };
    assert!(nodes(json!({})).unwrap().nodes.includes("n1", &labels));
    assert!(
        nodes(json!({ "node": "n1" }))
            .unwrap()
            .nodes
            .includes("n1", &labels)
    );
    assert!(
        !nodes(json!({ "node": "n2" }))
            .unwrap()
            .nodes
            .includes("n1", &labels)
    );
    assert!(
        nodes(json!({ "nodeSelector": "rack == 'a'" }))
            .unwrap()
            .nodes
            .includes("n1", &labels)
    );
    assert!(
        !nodes(json!({ "nodeSelector": "rack == 'b'" }))
            .unwrap()
            .nodes
            .includes("n1", &labels)
    );
    let both = nodes(json!({ "node": "n1", "nodeSelector": "all()" })).unwrap_err();
    assert_eq!(
        both.to_string(),
        "spec.nodeSelector: node is set too: remove one of the two"
    );
}

#[test]
fn errors_name_the_field() {
    for bad in [
        "banana",
        "192.0.2.1:",
        "192.0.2.1:65536",
        "2001:db8::1:",
        "[2001:db8::1]",
        "fe80::1%eth0",
        "",
    ] {
        assert!(
            error(json!({ "peerIP": bad, "asNumber": 1 })).starts_with("spec.peerIP: "),
            "{bad}"
        );
    }
    assert!(error(json!({ "peerIP": "192.0.2.1:0", "asNumber": 1 })).contains("port 0"));
    assert!(
        error(json!({ "peerIP": "224.0.0.1", "asNumber": 1 }))
            .contains("not the address of one host")
    );
    assert!(
        error(json!({ "peerIP": "0.0.0.0", "asNumber": 1 }))
            .contains("not the address of one host")
    );
    assert!(
        error(json!({ "peerIP": "192.0.2.1", "asNumber": 0 }))
            .starts_with("spec.asNumber: 0 is no AS number")
    );
    assert!(
        error(json!({ "peerIP": "192.0.2.1", "asNumber": 4294967296i64 }))
            .starts_with("spec.asNumber: ")
    );
    assert!(
        error(json!({ "peerIP": "192.0.2.1", "asNumber": 1, "holdTime": 2 }))
            .starts_with("spec.holdTime: ")
    );
    let crossed = json!({ "peerIP": "192.0.2.1", "asNumber": 1, "localAddress": "2001:db8::2" });
    assert!(error(crossed).starts_with("spec.localAddress: "));
}
