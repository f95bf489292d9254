use serde_json::json;

use super::*;

fn node(name: &str, asn: Option<&str>, addresses: &[&str]) -> Node {
    let addresses: Vec<_> = addresses
        .iter()
        .map(|a| json!({"type": "InternalIP", "address": a}))
        .chain([json!({"type": "Hostname", "address": name})])
        .collect();
    let mut object = json!({
        "metadata": {"name": name, "labels": {"rack": "a"}},
        "status": {"addresses": addresses},
    });
    if let Some(asn) = asn {
        object["metadata"]["annotations"] = json!({ AS_ANNOTATION: asn });
    }
    serde_json::from_value(object).unwrap()
}

fn peer(name: &str, spec: serde_json::Value) -> Read<BGPPeer> {
    serde_json::from_value(json!({
        "apiVersion": "margay.io/v1", "kind": "BGPPeer", "metadata": {"name": name}, "spec": spec,
    }))
    .map_err(|e| e.to_string())
}

fn pool(name: &str, cidr: &str) -> Read<IPPool> {
    serde_json::from_value(json!({
        "apiVersion": "margay.io/v1", "kind": "IPPool", "metadata": {"name": name}, "spec": {"cidr": cidr},
    }))
    .map_err(|e| e.to_string())
}

fn configuration(spec: serde_json::Value) -> Option<Read<BGPConfiguration>> {
    Some(
        serde_json::from_value(json!({
            "apiVersion": "margay.io/v1", "kind": "BGPConfiguration", "metadata": {"name": "default"}, "spec": spec,
        }))
        .map_err(|e| e.to_string()),
    )
}

/// n1 in rack a with its own AS, one peer and one pool.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new("n1", None);
    cluster.node_applied(&node("n1", Some("4200000001"), &["10.0.1.1", "fd00:1::1"]));
    cluster.peer_applied(
        "tor-a",
        peer(
            "tor-a",
            json!({"nodeSelector": "rack == 'a'", "peerIP": "10.0.1.254", "asNumber": 64601}),
        ),
    );
    cluster.pool_applied("v4", pool("v4", "10.244.0.0/16"));
    cluster
}

fn names(outcome: &Outcome) -> Vec<&str> {
    outcome
        .config
        .peers
        .iter()
        .map(|p| p.name.as_str())
        .collect()
}

#[test]
fn objects_make_the_configuration_of_their_node() {
    let mut cluster = cluster();
    cluster.peer_applied(
        "tor-b",
        peer(
            "tor-b",
            json!({"nodeSelector": "rack == 'b'", "peerIP": "10.0.2.254", "asNumber": 64602}),
        ),
    );
    cluster.peer_applied(
        "n2",
        peer(
            "n2",
            json!({"node": "n2", "peerIP": "10.0.2.253", "asNumber": 64602}),
        ),
    );
    let outcome = cluster.outcome().unwrap();
    assert_eq!(outcome.problems, [""; 0]);
    assert_eq!(outcome.config.router_id, Ipv4Addr::new(10, 0, 1, 1));
    assert_eq!(outcome.config.asn, 4_200_000_001);
    assert_eq!(names(&outcome), ["tor-a"]);
    assert_eq!(outcome.config.pools[0].block_size, 26);
}

#[test]
fn a_bad_version_leaves_the_last_good_one_in_force() {
    let mut cluster = cluster();
    let good = cluster.outcome().unwrap().config;
    cluster.peer_applied(
        "tor-a",
        peer("tor-a", json!({"peerIP": "banana", "asNumber": 64601})),
    );
    cluster.pool_applied("v4", pool("v4", "10.244.0.1/16"));
    cluster.node_applied(&node("n1", Some("zero"), &["10.0.1.1"]));
    let outcome = cluster.outcome().unwrap();
    assert_eq!(outcome.config, good);
    assert_eq!(outcome.problems.len(), 3);
    assert!(
        outcome.problems[1].contains("BGPPeer tor-a: spec.peerIP"),
        "{:?}",
        outcome.problems
    );
    let [verdict] = &cluster.verdicts()[..] else {
        panic!()
    };
    assert!(verdict.problem.as_ref().unwrap().message.contains("banana"));

    cluster.peer_deleted("tor-a");
    assert!(
        cluster.outcome().unwrap().config.peers.is_empty(),
        "a deletion is meant"
    );
}

#[test]
fn what_was_never_understood_is_taken_from_the_run_before() {
    let before = cluster().outcome().unwrap().config;
    let mut after = Cluster::new("n1", Some(before.clone()));
    after.node_applied(&node("n1", Some("4200000001"), &["10.0.1.1", "fd00:1::1"]));
    after.configuration_is(Some(Err("spec.asNumber: not a number".into())));
    after.peer_applied("tor-a", Err("spec.asNumber: not a number".into()));
    after.pool_applied("v4", Err("spec.cidr: missing".into()));
    assert_eq!(after.outcome().unwrap().config, before);

    let mut fresh = Cluster::new("n1", None);
    fresh.node_applied(&node("n1", None, &["10.0.1.1"]));
    fresh.configuration_is(Some(Err("spec.asNumber: not a number".into())));
    assert!(fresh.outcome().unwrap_err().contains("asNumber"));
}

#[test]
fn an_api_that_lost_everything_takes_nothing_away() {
    let mut cluster = cluster();
    let outcome = cluster.outcome().unwrap();
    cluster.used(&outcome.config);
    let none = BTreeSet::new();
    cluster.pools_are(&none);
    cluster.peers_are(&none);
    cluster.configuration_is(None);
    // The node is registered anew, with nothing known of it yet.
    cluster.node_applied(&node("n1", Some("4200000001"), &[]));
    assert!(cluster.outcome().unwrap_err().contains("IPPools"));
    cluster.pool_applied("v4", pool("v4", "10.244.0.0/16"));
    let after = cluster.outcome().unwrap().config;
    assert_eq!(
        (after.router_id, after.asn),
        (outcome.config.router_id, 4_200_000_001)
    );
}

#[test]
fn the_own_node_is_needed_and_survives_its_deletion() {
    let mut cluster = Cluster::new("n1", None);
    assert!(cluster.outcome().unwrap_err().contains("--node-name"));
    cluster.node_applied(&node("n1", None, &["fd00:1::1"]));
    let outcome = cluster.outcome().unwrap();
    assert_eq!(outcome.config.asn, 64512);
    assert!(!outcome.config.router_id.is_unspecified());
    cluster.node_deleted("n1");
    cluster.nodes_are(&BTreeSet::new());
    assert_eq!(cluster.outcome().unwrap(), outcome);
}

#[test]
fn the_mesh_has_a_session_for_each_family_both_nodes_have() {
    let mut cluster = cluster();
    cluster.node_applied(&node("n2", Some("4200000002"), &["10.0.1.2"]));
    cluster.node_applied(&node("n3", None, &["10.0.2.3", "fd00:2::3"]));
    assert_eq!(names(&cluster.outcome().unwrap()), ["tor-a"]);
    cluster.configuration_is(configuration(
        json!({"nodeToNodeMeshEnabled": true, "asNumber": 65000, "listenPort": 1790}),
    ));
    let outcome = cluster.outcome().unwrap();
    let mesh: Vec<(String, u32, u16)> = outcome
        .config
        .peers
        .iter()
        .filter(|p| p.name.starts_with("mesh-"))
        .map(|p| (p.key.to_string(), p.remote_asn, p.port))
        .collect();
    let expected = [
        ("10.0.1.2", 4_200_000_002),
        ("10.0.2.3", 65000),
        ("fd00:2::3", 65000),
    ];
    assert_eq!(
        mesh,
        expected.map(|(address, asn)| (address.to_owned(), asn, 1790))
    );
    assert!(
        outcome
            .config
            .peers
            .iter()
            .all(|p| p.key.address() != Some("10.0.1.1".parse().unwrap()))
    );
}

#[test]
fn of_two_peers_with_one_address_the_first_is_used_and_a_node_is_not_its_own_peer() {
    let mut cluster = cluster();
    cluster.peer_applied(
        "zz",
        peer("zz", json!({"peerIP": "10.0.1.254", "asNumber": 7})),
    );
    cluster.peer_applied(
        "rr",
        peer("rr", json!({"peerIP": "10.0.1.1", "asNumber": 7})),
    );
    let outcome = cluster.outcome().unwrap();
    assert_eq!(names(&outcome), ["tor-a"]);
    assert!(
        outcome.problems[0].contains("remove one"),
        "{:?}",
        outcome.problems
    );
}

mod annotations;
mod relations;
