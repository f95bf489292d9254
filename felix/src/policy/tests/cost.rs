//! What a change costs, counted: it must not grow with the cluster.

use super::super::Work;
use super::*;

const PODS: u32 = 10_000;
const POLICIES: usize = 100;

fn remote(number: u32, app: &str) -> Identity {
    let address = std::net::Ipv4Addr::from_bits(0x0a40_0000 + number);
    pod(
        "y",
        &format!("pod-{number}"),
        &[("app", app)],
        &[&address.to_string()],
    )
}

/// A node with 20 pods under 100 policies in a cluster of 10,000 pods, compiled.
fn large() -> Node {
    let mut node = Node::new();
    for number in 0..20 {
        node.local(pod(
            "x",
            &format!("web-{number}"),
            &[("app", "web")],
            &[&format!("10.0.0.{number}")],
        ));
    }
    for number in 0..PODS {
        node.remote(remote(number, &format!("app-{}", number % 50)));
    }
    for number in 0..POLICIES {
        let app = format!("app-{}", number % 60);
        node.policy("x", &format!("p{number}"), &json!({"podSelector": {}, "ingress": [
            {"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": app}}}], "ports": [{"port": 1000 + number}]}]}));
    }
    node.0.compile();
    assert_eq!(node.0.tables().peers.len(), PODS as usize);
    node
}

fn spent(node: &mut Node, change: impl FnOnce(&mut Node)) -> (usize, Work) {
    let before = node.0.work();
    change(node);
    let changes = node.0.compile().changes.len();
    let after = node.0.work();
    let work = Work {
        lists: after.lists - before.lists,
        selectors: after.selectors - before.selectors,
        addresses: after.addresses - before.addresses,
        functions: after.functions - before.functions,
    };
    (changes, work)
}

#[test]
fn a_remote_pod_costs_one_element_and_a_look_at_the_lists_that_ask_for_its_labels() {
    let mut node = large();
    let one = Work {
        lists: 1,
        selectors: 0,
        addresses: 1,
        functions: 0,
    };
    let none = Work { lists: 0, ..one };
    let spent_on = |node: &mut Node, pod: Identity| spent(node, |node| node.0.apply_identity(pod));
    assert_eq!(
        spent_on(&mut node, remote(7, "app-8")),
        (1, one),
        "relabelled"
    );
    assert_eq!(spent_on(&mut node, remote(PODS, "app-8")), (1, one), "new");
    assert_eq!(
        spent_on(&mut node, remote(7, "nothing")),
        (1, none),
        "no longer mentioned"
    );
    assert_eq!(
        spent_on(&mut node, remote(7, "nothing")),
        (0, Work::default()),
        "unchanged"
    );
    let gone = Work {
        addresses: 1,
        ..Work::default()
    };
    assert_eq!(
        spent(&mut node, |node| node.0.delete_identity("y/pod-8")),
        (1, gone),
        "gone"
    );
}

#[test]
fn a_class_nobody_had_costs_one_function_for_every_kind_of_subject() {
    let mut node = large();
    let (changes, work) = spent(&mut node, |node| node.0.apply_identity(remote(7, "app-55")));
    assert_eq!((work.lists, work.functions), (1, 1));
    // The address, its row, and the port and the rest of its program.
    assert_eq!(changes, 4);
}

#[test]
fn a_list_that_comes_or_goes_costs_the_pods_that_it_may_select() {
    let mut node = large();
    let policy = json!({"podSelector": {}, "ingress": [
        {"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "app-7", "tier": "x"}}}]}]});
    let few = u64::from(PODS) / 50;
    let (_, work) = spent(&mut node, |node| {
        node.policy("x", "new", &policy);
    });
    assert_eq!(work.lists, few);
    let (_, work) = spent(&mut node, |node| {
        node.0
            .delete_policy(&k8s::key(&object("x", "new", &policy)))
    });
    assert_eq!((work.lists, work.addresses), (0, 0), "nobody was in it");
}

#[test]
fn a_local_pod_like_others_costs_its_own_elements() {
    let mut node = large();
    let (changes, work) = spent(&mut node, |node| {
        node.local(pod("x", "web-99", &[("app", "web")], &["10.0.0.99"]));
    });
    assert_eq!(changes, 2, "its source address and its link");
    assert_eq!((work.functions, work.addresses), (0, 1));
    assert_eq!(work.selectors, POLICIES as u64);
}

#[test]
fn a_new_port_in_a_policy_costs_nothing_on_peers() {
    let mut node = large();
    let (changes, work) = spent(&mut node, |node| {
        node.policy("x", "p1", &json!({"podSelector": {}, "ingress": [{"from": [
            {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "app-1"}}}], "ports": [{"port": 9999}]}]}));
    });
    assert_eq!((work.lists, work.addresses), (0, 0));
    // One class, so one row; its program goes and another comes, with two ports and a rest each.
    assert_eq!(changes, 7);
}
