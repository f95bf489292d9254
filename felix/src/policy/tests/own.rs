//! What rules of host endpoints say about their own side: the addresses of the node, and of those it forwards for.

use super::super::margay;
use super::super::tables::HostHook;
use super::*;
use crate::feed::{HostEndpoint, HostInterface};

const OTHERS: u32 = 200;

/// A node whose uplink lets web traffic through to databases, in a cluster with some.
fn node() -> Node {
    let mut node = Node::new();
    node.0.apply_host_endpoint(HostEndpoint {
        name: "uplink".to_owned(),
        labels: labels(&[("role", "uplink")]),
        local: true,
        automatic: false,
        interface: HostInterface::Named(["up0".to_owned()].into()),
        addresses: vec![ip("192.0.2.1")],
        named_ports: Vec::new(),
    });
    let object = serde_json::from_value(json!({
        "apiVersion": "margay.io/v1", "kind": "GlobalNetworkPolicy", "metadata": {"name": "db"},
        "spec": {"selector": "role == 'uplink'", "applyOnForward": true, "ingress": [
            {"action": "Allow", "protocol": "TCP", "destination": {"selector": "app == 'db'", "ports": [5432]}}]},
    }));
    let policy = margay::global_network_policy(&object.expect("an object"));
    node.0.apply_policy(policy.expect("a policy"));
    for number in 0..OTHERS {
        let (name, address) = (format!("o{number}"), format!("10.1.0.{number}"));
        let app = if number < 2 { "db" } else { "other" };
        node.remote(pod("y", &name, &[("app", app)], &[&address]));
    }
    node.0.compile();
    node
}

fn may_enter(node: &Node, own: &str) -> bool {
    let addresses = [ip(own), ip("198.51.100.7")];
    let traffic = Traffic {
        protocol: 6,
        source_port: 40_000,
        port: 5432,
    };
    let tables = node.0.tables();
    lookup_host(tables, HostHook::ForwardIn, "up0", addresses, traffic).verdict == Verdict::Allow
}

#[test]
fn rows_follow_those_a_node_forwards_for() {
    let mut node = node();
    assert!(may_enter(&node, "10.1.0.0") && !may_enter(&node, "10.1.0.2"));
    // Its class is there already, with the first two.
    node.remote(pod("y", "late", &[("app", "db")], &["10.1.1.1"]));
    assert!(!may_enter(&node, "10.1.1.1"));
    node.0.compile();
    assert!(may_enter(&node, "10.1.1.1"));
    node.remote(pod("y", "late", &[("app", "other")], &["10.1.1.1"]));
    assert!(node.0.compile().narrowing);
    assert!(!may_enter(&node, "10.1.1.1") && may_enter(&node, "10.1.0.1"));
}

#[test]
fn a_pod_that_no_rule_means_costs_no_row() {
    let mut node = node();
    let before = node.0.work().functions;
    node.remote(pod("y", "late", &[("app", "other")], &["10.1.1.1"]));
    node.0.delete_identity("y/o7");
    node.0.compile();
    assert_eq!(node.0.work().functions, before);
    node.remote(pod("y", "late", &[("app", "db")], &["10.1.1.1"]));
    node.0.compile();
    assert!(node.0.work().functions > before);
}
