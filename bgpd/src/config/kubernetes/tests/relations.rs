//! What depends on other objects: nodes, filters, Secrets, pods.

use super::*;
use crate::config::{ExportClass, Password};

/// A node with labels and, if it is a route reflector, a cluster id.
fn labelled(name: &str, labels: serde_json::Value, cluster: Option<&str>, address: &str) -> Node {
    let mut annotations = json!({});
    if let Some(cluster) = cluster {
        annotations[CLUSTER_ID] = json!(cluster);
    }
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }))
    .unwrap()
}

/// The cluster as one of its nodes sees it: two reflectors and two clients.
fn reflected(node: &str) -> Cluster {
    let mut cluster = Cluster::new(node, None);
    let (rr, none) = (json!({"rr": "true"}), json!({}));
    for (name, labels, id, address) in [
        ("c1", &none, None, "10.0.0.1"),
        ("c2", &none, None, "10.0.0.2"),
        ("r1", &rr, Some("244.0.0.1"), "10.0.0.11"),
        ("r2", &rr, Some("244.0.0.1"), "10.0.0.12"),
    ] {
        cluster.node_applied(&labelled(name, labels.clone(), id, address));
    }
    cluster.peer_applied(
        "rr",
        peer(
            "rr",
            json!({"nodeSelector": "all()", "peerSelector": "rr == 'true'"}),
        ),
    );
    cluster
}

fn filter(spec: serde_json::Value) -> Read<BGPFilter> {
    serde_json::from_value(json!({
        "apiVersion": "margay.io/v1", "kind": "BGPFilter", "metadata": {"name": "f"}, "spec": spec,
    }))
    .map_err(|e| e.to_string())
}

fn secret(value: &str) -> Option<BTreeMap<String, Vec<u8>>> {
    Some(BTreeMap::from([("tor".to_owned(), value.into())]))
}

/// n1 with a ToR whose password is in a Secret.
fn with_password(before: Option<Config>) -> Cluster {
    let mut cluster = Cluster::new("n1", before);
    cluster.node_applied(&node("n1", None, &["10.0.1.1"]));
    let spec = json!({
        "peerIP": "10.0.1.254", "asNumber": 64601,
        "password": {"secretKeyRef": {"name": "bgp", "key": "tor"}},
    });
    cluster.peer_applied("tor", peer("tor", spec));
    cluster
}

fn password(cluster: &Cluster) -> Option<Password> {
    let config = cluster.outcome().unwrap().config;
    config.peers.first()?.options.password.clone()
}

#[test]
fn a_reflector_has_the_other_nodes_as_clients_and_its_twin_not() {
    let of = |node: &str| {
        let cluster = reflected(node);
        assert!(cluster.needs_nodes());
        let config = cluster.outcome().unwrap().config;
        let peers: Vec<(String, ExportClass)> = config
            .peers
            .iter()
            .map(|peer| (peer.name.clone(), peer.export))
            .collect();
        (peers, config.cluster_id)
    };
    let named = |name: &str, class| (name.to_owned(), class);
    let (peers, id) = of("c1");
    assert_eq!(id, None);
    assert_eq!(
        peers,
        [
            named("rr/r1", ExportClass::Origins),
            named("rr/r2", ExportClass::Origins)
        ]
    );
    let (peers, id) = of("r1");
    assert_eq!(id, Some(Ipv4Addr::new(244, 0, 0, 1)));
    let clients = [
        named("rr/c1", ExportClass::Reflect),
        named("rr/c2", ExportClass::Reflect),
        named("rr/r2", ExportClass::Transit),
    ];
    assert_eq!(peers, clients);
    let peer = &reflected("r1").outcome().unwrap().config.peers[0];
    assert_eq!(peer.local_address, Some("10.0.0.11".parse().unwrap()));
}

#[test]
fn the_other_side_of_a_session_between_nodes_can_be_left_to_another_object() {
    let mut cluster = reflected("r1");
    cluster.peer_applied(
        "rr",
        peer("rr", json!({"nodeSelector": "!has(rr)", "peerSelector": "rr == 'true'", "reversePeering": "Manual"})),
    );
    assert!(cluster.outcome().unwrap().config.peers.is_empty());
}

#[test]
fn nodes_without_peers_are_a_mesh_and_those_with_a_tor_are_not() {
    let mut cluster = Cluster::new("n1", None);
    for (name, rack, address) in [
        ("n1", "a", "10.0.1.1"),
        ("n2", "a", "10.0.1.2"),
        ("n3", "b", "10.0.2.3"),
    ] {
        cluster.node_applied(&labelled(name, json!({"rack": rack}), None, address));
    }
    cluster.node_applied(&labelled(
        "r",
        json!({"rack": "a"}),
        Some("244.0.0.1"),
        "10.0.1.9",
    ));
    assert!(cluster.needs_nodes());
    assert_eq!(names(&cluster.outcome().unwrap()), ["mesh-n2", "mesh-n3"]);
    let tor = |rack: &str| json!({"nodeSelector": format!("rack == '{rack}'"), "peerIP": "10.9.9.9", "asNumber": 1});
    cluster.peer_applied("tor", peer("tor", tor("b")));
    assert_eq!(names(&cluster.outcome().unwrap()), ["mesh-n2"]);
    cluster.peer_applied("tor", peer("tor", tor("a")));
    assert!(!cluster.needs_nodes());
    assert_eq!(names(&cluster.outcome().unwrap()), ["tor"]);
    cluster.configuration_is(configuration(json!({"nodeToNodeMeshEnabled": true})));
    assert_eq!(
        names(&cluster.outcome().unwrap()),
        ["mesh-n2", "mesh-n3", "tor"]
    );
    cluster.peer_deleted("tor");
    cluster.configuration_is(configuration(json!({"nodeToNodeMeshEnabled": false})));
    assert!(cluster.outcome().unwrap().config.peers.is_empty());
}

#[test]
fn a_new_object_that_is_not_understood_ends_no_session_of_the_mesh() {
    let mut cluster = Cluster::new("n1", None);
    cluster.node_applied(&node("n1", None, &["10.0.1.1"]));
    cluster.node_applied(&node("n2", None, &["10.0.1.2"]));
    let wrong = || {
        peer(
            "tor",
            json!({"nodeSelector": "rack = 'a'", "peerIP": "10.9.9.9", "asNumber": 1}),
        )
    };
    cluster.peer_applied("tor", wrong());
    let outcome = cluster.outcome().unwrap();
    assert_eq!(names(&outcome), ["mesh-n2"]);
    assert!(
        outcome.problems[0].contains("nodeSelector"),
        "{:?}",
        outcome.problems
    );

    // One that had made a peer goes on with it, and without the mesh.
    let right = json!({"nodeSelector": "rack == 'a'", "peerIP": "10.9.9.9", "asNumber": 1});
    cluster.peer_applied("tor", peer("tor", right));
    let before = cluster.outcome().unwrap().config;
    let mut after = Cluster::new("n1", Some(before));
    after.node_applied(&node("n1", None, &["10.0.1.1"]));
    after.node_applied(&node("n2", None, &["10.0.1.2"]));
    after.peer_applied("tor", wrong());
    assert_eq!(names(&after.outcome().unwrap()), ["tor"]);
}

#[test]
fn the_mesh_waits_for_its_password() {
    let mut cluster = Cluster::new("n1", None);
    cluster.node_applied(&node("n1", None, &["10.0.1.1"]));
    cluster.node_applied(&node("n2", None, &["10.0.1.2"]));
    let secret_of = json!({"nodeMeshPassword": {"secretKeyRef": {"name": "bgp", "key": "tor"}}});
    cluster.configuration_is(configuration(secret_of));
    assert!(cluster.outcome().unwrap().config.peers[0].options.withheld);
    cluster.secret_is("bgp", secret("mesh"));
    assert_eq!(password(&cluster), Some(Password("mesh".to_owned())));
}

#[test]
fn a_peer_without_its_password_is_not_started_and_a_lost_secret_ends_nothing() {
    let mut cluster = with_password(None);
    assert_eq!(cluster.secrets(), BTreeSet::from(["bgp".to_owned()]));
    let problem = |cluster: &Cluster| cluster.verdicts()[0].problem.clone();
    let withheld = |cluster: &Cluster| {
        let peers = cluster.outcome().unwrap().config.peers;
        peers.iter().all(|it| it.options.withheld) && peers.len() == 1
    };
    assert!(withheld(&cluster));
    assert_eq!(problem(&cluster), None, "it was not read yet");
    for (data, want) in [
        (None, "Secret bgp does not exist"),
        (Some(BTreeMap::new()), "Secret bgp has no key tor"),
        (secret(""), "key tor of Secret bgp has 0 bytes"),
    ] {
        cluster.secret_is("bgp", data);
        assert!(withheld(&cluster));
        let problem = problem(&cluster).unwrap();
        assert!(problem.message.contains(want), "{}", problem.message);
        assert_eq!(problem.reason, "NoPassword");
    }
    cluster.secret_is("bgp", secret("first\n"));
    assert!(!withheld(&cluster));
    assert_eq!(password(&cluster), Some(Password("first".to_owned())));
    assert_eq!(problem(&cluster), None);
    cluster.secret_is("bgp", secret("second"));
    assert_eq!(password(&cluster), Some(Password("second".to_owned())));
    cluster.secret_is("bgp", None);
    assert_eq!(password(&cluster), Some(Password("second".to_owned())));
    assert!(problem(&cluster).is_some());

    let before = cluster.outcome().unwrap().config;
    let after = with_password(Some(before.clone()));
    assert_eq!(password(&after), Some(Password("second".to_owned())));

    // Another Secret, which nobody has made yet: the last password is the one that was used last.
    let mut later = with_password(Some(before));
    later.secret_is("bgp", secret("third"));
    later.used(&later.outcome().unwrap().config.clone());
    let spec = json!({
        "peerIP": "10.0.1.254", "asNumber": 64601,
        "password": {"secretKeyRef": {"name": "other", "key": "tor"}},
    });
    later.peer_applied("tor", peer("tor", spec));
    later.secret_is("other", None);
    assert_eq!(password(&later), Some(Password("third".to_owned())));
}

#[test]
fn a_filter_that_is_missing_closes_and_one_that_is_wrong_stays_as_it_was() {
    let mut cluster = Cluster::new("n1", None);
    cluster.node_applied(&node("n1", None, &["10.0.1.1"]));
    let spec = json!({"peerIP": "10.0.1.254", "asNumber": 64601, "filters": ["f"]});
    cluster.peer_applied("tor", peer("tor", spec));
    let judged = |cluster: &Cluster| {
        let config = cluster.outcome().unwrap().config;
        let options = config.peers[0].options.clone();
        (
            config.filters.len(),
            options.import_filters,
            options.export_filters,
        )
    };
    let f = || vec!["f".to_owned()];
    assert_eq!(judged(&cluster), (0, f(), f()));
    let problem = cluster.verdicts()[0].problem.clone().unwrap();
    assert!(
        problem.message.contains("BGPFilter f does not exist"),
        "{}",
        problem.message
    );

    cluster.filter_applied("f", filter(json!({"importV4": [{"action": "Accept"}]})));
    assert_eq!(judged(&cluster), (1, f(), Vec::new()));
    assert_eq!(cluster.verdicts()[0].problem, None);
    cluster.filter_applied(
        "f",
        filter(json!({"importV4": [{"action": "Accept", "cidr": "x"}]})),
    );
    assert_eq!(
        judged(&cluster),
        (1, f(), Vec::new()),
        "the last good one stays"
    );
    let verdict = &cluster.filter_verdicts()[0];
    let problem = verdict.problem.clone().unwrap();
    assert!(
        problem.message.contains("importV4[0].cidr"),
        "{}",
        problem.message
    );

    let before = cluster.outcome().unwrap().config;
    let mut after = Cluster::new("n1", Some(before.clone()));
    after.node_applied(&node("n1", None, &["10.0.1.1"]));
    let spec = json!({"peerIP": "10.0.1.254", "asNumber": 64601, "filters": ["f"]});
    after.peer_applied("tor", peer("tor", spec));
    after.filter_applied(
        "f",
        filter(json!({"importV4": [{"action": "Accept", "cidr": "x"}]})),
    );
    assert_eq!(after.outcome().unwrap().config, before);
    after.filters_are(&BTreeSet::new());
    assert_eq!(judged(&after), (0, f(), f()), "a deletion is meant");
}

#[test]
fn pods_of_the_node_are_peers_that_connect() {
    let pod = |name: &str, router: &str, phase: &str, host: bool| -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "vms", "labels": {"router": router}},
            "spec": {"hostNetwork": host, "containers": []},
            "status": {"phase": phase, "podIPs": [{"ip": "10.244.0.5"}, {"ip": "fd00::5"}]},
        }))
        .unwrap()
    };
    let mut cluster = Cluster::new("n1", None);
    cluster.node_applied(&node("n1", None, &["10.0.1.1"]));
    assert!(!cluster.needs_pods());
    let spec = json!({"localWorkloadSelector": "router == 'yes' && margay.io/namespace == 'vms'", "asNumber": 65100});
    cluster.peer_applied("pods", peer("pods", spec));
    assert!(cluster.needs_pods());
    cluster.pod_applied("vms/a", &pod("a", "yes", "Running", false));
    cluster.pod_applied("vms/b", &pod("b", "no", "Running", false));
    cluster.pod_applied("vms/c", &pod("c", "yes", "Failed", false));
    cluster.pod_applied("vms/d", &pod("d", "yes", "Running", true));
    let peers = cluster.outcome().unwrap().config.peers;
    let addresses: Vec<String> = peers.iter().map(|peer| peer.key.to_string()).collect();
    assert_eq!(addresses, ["10.244.0.5", "fd00::5"]);
    assert!(
        peers
            .iter()
            .all(|peer| peer.passive && peer.remote_asn == 65100)
    );
    assert_eq!(peers[0].name, "pods/vms/a");
    cluster.pods_are(&BTreeSet::new());
    assert!(cluster.outcome().unwrap().config.peers.is_empty());
}
