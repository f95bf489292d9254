use api::v1;
use serde_json::{Value, json};

use crate::offline::{Cluster, Document};

fn pod(name: &str, node: &str, address: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
           "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}},
           "spec": {"nodeName": node, "containers": []}, "status": {"podIPs": [{"ip": address}]}})
}

fn node(name: &str, address: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"host": name}},
           "status": {"addresses": [{"type": "InternalIP", "address": address}]}})
}

fn ours(kind: &str, name: &str, labels: Value, spec: Value) -> Value {
    json!({"apiVersion": "margay.io/v1", "kind": kind, "metadata": {"name": name, "labels": labels}, "spec": spec})
}

fn endpoint(name: &str, node: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["node"] = node.into();
    ours("HostEndpoint", name, json!({"host": node}), spec)
}

fn policy(name: &str, spec: Value) -> Value {
    ours("GlobalNetworkPolicy", name, json!({}), spec)
}

/// A pod on each of two nodes, and whatever else.
fn cluster(more: Vec<Value>) -> Cluster {
    let mut objects = vec![
        node("n1", "192.0.2.1"),
        node("n2", "192.0.2.2"),
        pod("web", "n1", "10.0.1.1"),
        pod("api", "n1", "10.0.1.2"),
        pod("db", "n2", "10.0.2.1"),
    ];
    objects.extend(more);
    let documents = objects.into_iter().flat_map(|it| Document::unfold("f", it));
    Cluster::load(documents.collect())
}

fn ask(from: &str, to: &str, port: u32) -> v1::ExplainPolicyRequest {
    v1::ExplainPolicyRequest {
        from: from.into(),
        to: to.into(),
        protocol: 6,
        port,
        ..Default::default()
    }
}

fn explained(cluster: &Cluster, request: &v1::ExplainPolicyRequest) -> v1::ExplainedFlow {
    let answer = cluster.explain(request).unwrap();
    assert_eq!(answer.allowed, answer.flows[0].allowed);
    answer.flows.into_iter().next().unwrap()
}

/// Hook, node, host endpoint and verdict of each, in order.
fn hooks(of: &[v1::HookJudgement]) -> Vec<(&str, &str, &str, bool)> {
    let hooks = of.iter().map(|hook| {
        let judged = hook.judgement.as_ref().unwrap();
        let of: (&str, &str) = (&hook.hook, &hook.node);
        (of.0, of.1, judged.endpoint.as_str(), judged.allowed)
    });
    hooks.collect()
}

const STAGES: [Option<&str>; 3] = [None, Some("Allow"), Some("Deny")];

/// Written from what docs/policy.md says of each kind of policy.
fn passes(raw: Option<&str>, pre: Option<&str>, own: Option<&str>, forward: Option<&str>) -> bool {
    raw.is_none() && ![pre, own, forward].contains(&Some("Deny"))
}

#[test]
fn a_flow_from_outside_passes_when_every_hook_on_its_way_lets_it() {
    let mut seen = [0, 0];
    for raw in STAGES {
        for pre in STAGES {
            for own in STAGES {
                for forward in STAGES {
                    let rule = |action: &str| json!([{"action": action, "protocol": "TCP", "destination": {"ports": [80]}}]);
                    let of = |name, stage: &str, action: Option<&str>| {
                        let mut spec = json!({"selector": "host == 'n2'", "applyOnForward": true});
                        spec["ingress"] = rule(action?);
                        if !stage.is_empty() {
                            spec[stage] = true.into();
                        }
                        Some(policy(name, spec))
                    };
                    let of_pod = own.map(|action| {
                        let spec = json!({"selector": "app == 'db'", "ingress": rule(action)});
                        policy("own", spec)
                    });
                    let mut objects =
                        vec![endpoint("n2-eth0", "n2", json!({"interfaceName": "eth0"}))];
                    objects.extend(of("raw", "doNotTrack", raw));
                    objects.extend(of("pre", "preDNAT", pre));
                    objects.extend(of("forward", "", forward));
                    objects.extend(of_pod);
                    let cluster = cluster(objects);
                    let flow = explained(&cluster, &ask("203.0.113.7", "shop/db", 80));
                    let expected = passes(raw, pre, own, forward);
                    let case = format!("{raw:?} {pre:?} {own:?} {forward:?}\n{flow:#?}");
                    assert_eq!(flow.allowed, expected, "{case}");
                    seen[usize::from(expected)] += 1;
                    let said = hooks(&flow.on_the_way);
                    let mut order = Vec::new();
                    order.extend(raw.map(|_| ("doNotTrack in", "n2", "n2-eth0", false)));
                    if raw.is_none() {
                        let pre = pre.map(|it| ("preDNAT in", "n2", "n2-eth0", it != "Deny"));
                        order.extend(pre);
                    }
                    assert_eq!(said, order, "{case}");
                    let stopped = raw.is_some() || pre == Some("Deny");
                    let last = forward.filter(|_| !stopped);
                    let last = last.map(|it| ("applyOnForward in", "n2", "n2-eth0", it != "Deny"));
                    assert_eq!(hooks(&flow.at_last), Vec::from_iter(last), "{case}");
                }
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 5), "{seen:?}");
}

/// n1 lets nothing out but port 443, n2 lets nothing in but from n1's pods, to port 443 or 444.
fn guarded() -> Vec<Value> {
    let out = json!({"selector": "host == 'n1'", "applyOnForward": true, "types": ["Egress"],
        "egress": [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [443]}}]});
    let into = json!({"selector": "host == 'n2'", "applyOnForward": true, "types": ["Ingress"],
        "ingress": [{"action": "Allow", "protocol": "TCP", "source": {"nets": ["10.0.1.0/24"]},
                     "destination": {"ports": ["443:444"]}}]});
    vec![
        endpoint("n1-eth0", "n1", json!({"interfaceName": "eth0"})),
        endpoint("n2-all", "n2", json!({"interfaceName": "*"})),
        policy("out", out),
        policy("into", into),
    ]
}

#[test]
fn both_nodes_are_asked_and_none_between_pods_of_one() {
    let cluster = cluster(guarded());
    let flow = explained(&cluster, &ask("shop/web", "shop/db", 443));
    assert!(flow.allowed, "{flow:#?}");
    assert_eq!(
        hooks(&flow.on_the_way),
        [("applyOnForward out", "n1", "n1-eth0", true)]
    );
    assert_eq!(
        hooks(&flow.at_last),
        [("applyOnForward in", "n2", "n2-all", true)]
    );
    let out = flow.on_the_way[0].judgement.as_ref().unwrap();
    assert_eq!(
        out.summary,
        "egress[0] of GlobalNetworkPolicy out (tier default) allows it"
    );
    assert!(out.known.starts_with("assumed"), "{}", out.known);

    let flow = explained(&cluster, &ask("shop/web", "shop/db", 444));
    assert!(!flow.allowed);
    assert_eq!(
        hooks(&flow.on_the_way),
        [("applyOnForward out", "n1", "n1-eth0", false)]
    );
    assert!(
        flow.advice[1].contains("GlobalNetworkPolicy out under spec.egress")
            && flow.advice[1].contains("host endpoint n1-eth0"),
        "{:?}",
        flow.advice
    );
    let same = explained(&cluster, &ask("shop/web", "shop/api", 444));
    assert!(same.allowed && same.on_the_way.is_empty() && same.at_last.is_empty());
    // Out of the cluster; from a node to a pod of another; from elsewhere.
    assert!(explained(&cluster, &ask("shop/web", "203.0.113.7", 443)).allowed);
    assert!(!explained(&cluster, &ask("shop/web", "203.0.113.7", 80)).allowed);
    let flow = explained(&cluster, &ask("192.0.2.1", "shop/db", 443));
    assert_eq!(
        hooks(&flow.at_last),
        [("applyOnForward in", "n2", "n2-all", false)],
        "a node is no pod: {flow:#?}"
    );
    assert!(explained(&cluster, &ask("192.0.2.2", "shop/db", 80)).allowed);
    assert!(!explained(&cluster, &ask("203.0.113.7", "shop/db", 443)).allowed);
}

#[test]
fn the_interface_can_be_said_and_what_has_no_endpoint_is_not_asked() {
    let mut objects = guarded();
    let labels = json!({"host": "other"});
    let spec = json!({"node": "n1", "interfaceName": "eth1", "expectedIPs": ["198.51.100.1"]});
    objects.push(ours("HostEndpoint", "n1-eth1", labels, spec));
    let cluster = cluster(objects);
    let by = |interface: &str| {
        let request = v1::ExplainPolicyRequest {
            interface: interface.into(),
            ..ask("shop/web", "203.0.113.7", 80)
        };
        cluster.explain(&request).unwrap()
    };
    for (interface, allowed) in [
        ("eth0", false),
        ("n1-eth0", false),
        ("eth1", true),
        ("n1-eth1", true),
        ("198.51.100.1", true),
        // Of another node: says nothing of this one.
        ("n2-all", false),
        ("", false),
    ] {
        assert_eq!(by(interface).allowed, allowed, "{interface}");
    }
    let answer = by("eth2");
    assert!(answer.allowed);
    assert!(
        answer
            .notes
            .iter()
            .any(|it| it.contains("passes n1 has no host endpoint")),
        "{:?}",
        answer.notes
    );
    // A pod that is bound to no node.
    let answer = {
        let mut objects = guarded();
        objects.push(pod("lost", "", "10.0.3.1"));
        self::cluster(objects)
            .explain(&ask("shop/lost", "203.0.113.7", 80))
            .unwrap()
    };
    assert!(
        answer
            .notes
            .iter()
            .any(|it| it.contains("do not say on which node"))
    );
}

#[test]
fn nodes_are_host_endpoints_by_themselves_as_the_files_say() {
    let chosen = |name: &str, spec: Value| ours("FelixConfiguration", name, json!({}), spec);
    let deny = json!({"selector": "has(host)", "ingress": [
        {"action": "Allow", "protocol": "TCP", "destination": {"ports": [443]}}]});
    let objects = vec![
        chosen("default", json!({"autoHostEndpoints": "Enabled"})),
        chosen(
            "node.n2",
            json!({"autoHostEndpoints": "Disabled", "failsafeInboundHostPorts": []}),
        ),
        policy("deny", deny.clone()),
    ];
    let cluster = cluster(objects.clone());
    let allowed = |to: &str, port| explained(&cluster, &ask("203.0.113.7", to, port)).allowed;
    assert!(allowed("192.0.2.1", 443));
    assert!(!allowed("192.0.2.1", 80));
    assert!(allowed("192.0.2.1", 22), "a failsafe port");
    assert!(allowed("192.0.2.2", 80), "not this node");
    // With an object of its own the second is one after all, and has no failsafe ports.
    let mut objects = objects;
    objects.push(endpoint(
        "n2-all",
        "n2",
        json!({"interfaceName": "*", "expectedIPs": ["192.0.2.2"]}),
    ));
    let cluster = self::cluster(objects);
    let allowed = |to: &str, port| explained(&cluster, &ask("203.0.113.7", to, port)).allowed;
    assert!(allowed("192.0.2.2", 443));
    assert!(!allowed("192.0.2.2", 22));
    assert!(allowed("192.0.2.1", 22));
}

#[test]
fn what_pods_open_to_their_own_node_is_as_the_operator_chose() {
    for (action, port, allowed) in [
        ("Accept", 80, true),
        ("Drop", 443, false),
        ("Return", 80, false),
        ("Return", 443, true),
        ("Return", 22, true),
    ] {
        let into = json!({"selector": "host == 'n1'", "ingress": [
            {"action": "Allow", "protocol": "TCP", "destination": {"ports": [443]}}]});
        let objects = vec![
            ours(
                "FelixConfiguration",
                "node.n1",
                json!({}),
                json!({"defaultEndpointToHostAction": action}),
            ),
            endpoint("n1-all", "n1", json!({"interfaceName": "*"})),
            policy("into", into),
        ];
        let cluster = cluster(objects);
        let flow = explained(&cluster, &ask("shop/web", "192.0.2.1", port));
        assert_eq!(flow.allowed, allowed, "{action} {port}: {flow:#?}");
        // Another node's pod comes by an interface.
        let flow = explained(&cluster, &ask("shop/db", "192.0.2.1", port));
        assert_eq!(flow.allowed, port != 80, "{port}: {flow:#?}");
        assert!(explained(&cluster, &ask("192.0.2.1", "shop/web", port)).allowed);
    }
}
