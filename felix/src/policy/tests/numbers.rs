//! Numbers, narrowing, objects that cannot be read: what the agent builds on.

use super::super::tables::Class;
use super::*;

fn isolated() -> Node {
    let mut node = Node::new();
    node.local(pod("x", "web", &[("app", "web")], &["10.0.0.1"]))
        .remote(pod("x", "db", &[("app", "db")], &["10.0.0.2"]))
        .policy(
            "x",
            "p",
            &json!({"podSelector": {}, "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"port": 80}]}]}),
        );
    assert!(!node.0.compile().narrowing || !node.0.tables().links.is_empty());
    node
}

#[test]
fn additions_do_not_narrow() {
    let mut node = isolated();
    node.remote(pod("x", "db2", &[("app", "db")], &["10.0.0.3"]));
    assert!(!node.0.compile().narrowing, "a remote pod");
    node.local(pod("x", "web2", &[("app", "web")], &["10.0.0.4"]));
    assert!(!node.0.compile().narrowing, "a local pod");
    node.policy(
        "x",
        "q",
        &json!({"podSelector": {}, "ingress": [{"ports": [{"port": 81}]}]}),
    );
    assert!(
        !node.0.compile().narrowing,
        "a policy that adds a port to isolated pods"
    );
    node.0.delete_identity("x/db2");
    assert!(
        !node.0.compile().narrowing,
        "a pod that went takes its flows along"
    );
    node.0.remove_local("web2");
    assert!(!node.0.compile().narrowing);
}

#[test]
fn what_takes_away_narrows() {
    let spec = json!({"podSelector": {}, "ingress": [{"ports": [{"port": 81}]}]});
    let mut node = isolated();
    node.remote(pod("x", "db", &[("app", "other")], &["10.0.0.2"]));
    assert!(node.0.compile().narrowing, "a peer that no longer matches");
    node.policy("x", "q", &spec);
    assert!(!node.0.compile().narrowing);
    let by = |ports: &Value| json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}], "ports": ports}]});
    node.policy("x", "by", &by(&json!([{"port": 1}, {"port": 2}])));
    assert!(!node.0.compile().narrowing);
    node.policy("x", "by", &by(&json!([{"port": 2}])));
    assert!(node.0.compile().narrowing, "a port less for some peers");
    node.policy("x", "by", &by(&json!([{"port": 2}, {"port": 3}])));
    assert!(!node.0.compile().narrowing, "a port more");
    node.0.delete_policy(&k8s::key(&object("x", "q", &spec)));
    assert!(
        node.0.compile().narrowing,
        "a policy that allowed something"
    );
    node.policy(
        "x",
        "out",
        &json!({"podSelector": {}, "policyTypes": ["Egress"]}),
    );
    assert!(node.0.compile().narrowing, "isolation");
}

#[test]
fn an_address_that_comes_back_narrows() {
    let mut node = isolated();
    node.0.delete_identity("x/db");
    assert!(!node.0.compile().narrowing);
    node.remote(pod("x", "new", &[("app", "db")], &["10.0.0.2"]));
    assert!(
        node.0.compile().narrowing,
        "the old pod's flows are judged for the new one"
    );
    node.0.remove_local("web");
    node.0.delete_identity("x/web");
    assert!(!node.0.compile().narrowing);
    node.local(pod("x", "again", &[("app", "web")], &["10.0.0.1"]));
    assert!(node.0.compile().narrowing);
    node.remote(pod("y", "other", &[], &["10.0.0.9"]));
    assert!(!node.0.compile().narrowing, "never used before");

    // Not even a pod that is not known yet may inherit flows.
    node.0.remove_local("again");
    assert!(!node.0.compile().narrowing);
    node.0.set_local(
        "unknown",
        endpoint_of(&pod("x", "unknown", &[], &["10.0.0.1"])),
    );
    assert!(node.0.compile().narrowing);
}

#[test]
fn numbers_in_the_kernel_keep_their_meaning_until_the_compile_without_them_was_applied() {
    let mut node = isolated();
    let first = node.0.tables().links["web"];
    let class = node.0.tables().peers[&ip("10.0.0.2")];
    node.0
        .delete_policy(&k8s::key(&object("x", "p", &json!({}))));
    let gone = node.0.compile().revision;
    let second = node.0.tables().links["web"];
    assert_ne!(first.number(), second.number());
    assert!(node.0.tables().peers.is_empty());

    let other = json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]});
    node.policy("x", "q", &other);
    node.0.compile();
    assert_ne!(
        node.0.tables().links["web"].number(),
        first.number(),
        "not applied yet"
    );
    assert_ne!(node.0.tables().peers[&ip("10.0.0.2")], class);
    node.0.applied(gone);
    node.policy("x", "q", &json!({"podSelector": {}}));
    node.policy("x", "r", &other);
    node.0.compile();
    assert_eq!(
        node.0.tables().links["web"].number(),
        first.number(),
        "free now"
    );
}

#[test]
fn numbers_of_an_earlier_life_are_left_alone() {
    let before = isolated().0.tables().clone();
    let mut node = Node::new();
    node.0.resume(&before);
    node.local(pod("x", "web", &[("app", "web")], &["10.0.0.1"]))
        .remote(pod("x", "db", &[("app", "db")], &["10.0.0.2"]))
        .policy("x", "p", &json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 1}]}]}));
    let compiled = node.0.compile();
    assert!(
        compiled.narrowing,
        "what the kernel allowed before is not known"
    );
    let tables = node.0.tables();
    assert!(
        tables
            .links
            .values()
            .all(|it| before.links.values().all(|old| old.number() != it.number()))
    );
    assert!(
        tables
            .peers
            .values()
            .all(|it| before.peers.values().all(|old| old != it))
    );
    let programs = |tables: &Tables| {
        tables
            .pairs
            .values()
            .copied()
            .filter(|it| it.0 >= Program::FIRST)
            .collect::<Vec<_>>()
    };
    assert!(
        programs(tables)
            .iter()
            .all(|it| !programs(&before).contains(it))
            && !programs(tables).is_empty()
    );
}

#[test]
fn a_difference_of_tables_leads_from_one_to_the_other() {
    let have = isolated().0.tables().clone();
    let mut node = isolated();
    node.policy(
        "x",
        "q",
        &json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [
        {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 1, "endPort": 1000}]}]}),
    );
    node.0.compile();
    let mut tables = have.clone();
    for change in have.diff(node.0.tables()) {
        tables.apply(change);
    }
    assert_eq!(&tables, node.0.tables());
    assert!(tables.diff(node.0.tables()).is_empty());
}

#[test]
fn an_endpoint_has_no_link_until_its_pod_is_known_and_keeps_it_until_it_is_detached() {
    let mut node = isolated();
    let late = pod("x", "late", &[], &["10.0.0.8"]);
    node.0.set_local("late", endpoint_of(&late));
    assert!(!node.ingress("late", "10.0.0.2", TCP, 80));
    assert!(!node.0.tables().links.contains_key("late"));
    assert_eq!(
        node.0.tables().workloads[&("late".to_owned(), ip("10.0.0.8"))],
        "x/late"
    );
    assert_eq!(node.0.endpoint_policies("late").unwrap().subject, None);
    node.remote(late);
    assert!(node.ingress("late", "10.0.0.2", TCP, 80));
    node.0.delete_identity("x/late");
    assert!(
        node.ingress("late", "10.0.0.2", TCP, 80) && !node.ingress("late", "10.0.0.2", TCP, 81)
    );
    node.0.remove_local("late");
    node.0.compile();
    assert!(!node.0.tables().links.contains_key("late"));
    assert!(
        node.0
            .tables()
            .workloads
            .keys()
            .all(|(ifname, _)| ifname != "late")
    );
    assert_eq!(
        node.0
            .judge(Direction::Ingress, "x/late", ip("10.0.0.2"), TCP, 80),
        None
    );
}

#[test]
fn of_two_pods_with_one_address_the_newest_has_it_until_it_goes() {
    let mut node = isolated();
    let mut newer = pod("x", "newer", &[], &["10.0.0.2"]);
    newer.created = 7;
    node.remote(newer);
    assert!(!node.ingress("web", "10.0.0.2", TCP, 80));
    node.0.delete_identity("x/newer");
    assert!(node.ingress("web", "10.0.0.2", TCP, 80));
    // What is attached here is really there.
    let mut stale = pod("y", "stale", &[], &["10.0.0.1"]);
    stale.created = 9;
    node.remote(stale);
    node.policy("x", "q", &json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]}));
    assert!(node.ingress("web", "10.0.0.1", TCP, 1));
}

#[test]
fn a_pod_that_nobody_tells_from_its_surroundings_needs_no_element() {
    let mut node = isolated();
    node.remote(pod("y", "far", &[("app", "db")], &["10.0.7.1"]));
    node.0.compile();
    assert_eq!(
        node.0.tables().peers.keys().copied().collect::<Vec<_>>(),
        [ip("10.0.0.2")]
    );
    assert!(
        !node
            .0
            .tables()
            .peers
            .values()
            .any(|class| *class == Class::NONE)
    );
    // Inside a block its class is that of the block, and the block's own pods differ from it.
    node.policy(
        "x",
        "q",
        &json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/16"}}]}]}),
    );
    node.0.compile();
    assert_eq!(node.0.tables().nets.len(), 1);
    assert_eq!(
        node.0.tables().peers.keys().copied().collect::<Vec<_>>(),
        [ip("10.0.0.2")]
    );
}

#[test]
fn a_policy_that_cannot_be_read_is_closed_or_keeps_its_last_good_version() {
    let bad = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}]});
    let refuse = |node: &mut Node| {
        let object = object("x", "p", &bad);
        node.0
            .refuse_policy(k8s::key(&object), 2, k8s::parse(&object).unwrap_err());
    };
    let mut node = Node::new();
    node.local(pod("x", "web", &[("app", "web")], &["10.0.0.1"]));
    refuse(&mut node);
    assert!(!node.ingress("web", "10.0.0.2", TCP, 80), "closed");
    let status: Vec<_> = node.0.policies().collect();
    assert_eq!(
        (
            status[0].generation,
            status[0].in_force,
            status[0].endpoints
        ),
        (2, None, 1)
    );
    assert_eq!(
        status[0].error.as_ref().unwrap().field,
        "spec.ingress[0].from[0].ipBlock.cidr"
    );

    node.policy(
        "x",
        "p",
        &json!({"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}),
    );
    assert!(node.ingress("web", "10.0.0.2", TCP, 80));
    assert_eq!(node.0.policies().next().unwrap().error, None);
    refuse(&mut node);
    assert!(
        node.ingress("web", "10.0.0.2", TCP, 80) && !node.ingress("web", "10.0.0.2", TCP, 81),
        "last good"
    );
    let status: Vec<_> = node.0.policies().collect();
    assert_eq!(
        (
            status[0].generation,
            status[0].in_force,
            status[0].directions.len()
        ),
        (2, Some(1), 1)
    );
    node.0.delete_policy(&k8s::key(&object("x", "p", &bad)));
    assert!(node.ingress("web", "10.0.0.2", TCP, 81));
    assert_eq!(node.0.policies().count(), 0);

    // Not even a selection: there is nothing to close, only something to say.
    let lost = object(
        "x",
        "l",
        &json!({"podSelector": {"matchLabels": {"no key": "x"}}}),
    );
    node.0
        .refuse_policy(k8s::key(&lost), 1, k8s::parse(&lost).unwrap_err());
    assert!(node.ingress("web", "10.0.0.2", TCP, 81));
    assert_eq!(node.0.policies().next().unwrap().in_force, None);
}

#[test]
fn endpoints_say_which_policies_govern_them() {
    let mut node = isolated();
    node.policy(
        "x",
        "out",
        &json!({"podSelector": {}, "policyTypes": ["Egress"]}),
    );
    node.0.compile();
    let policies = node.0.endpoint_policies("web").unwrap();
    assert_eq!(
        policies
            .ingress
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["x/p"]
    );
    assert_eq!(
        policies
            .egress
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["x/out"]
    );
    assert_eq!(policies.subject, node.0.tables().links.get("web").copied());
    assert_eq!(node.0.endpoint_policies("nobody"), None);
}
