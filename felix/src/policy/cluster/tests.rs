use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::labels::{Requirement, Test};
use super::*;

fn read(spec: Value) -> Result<Understood> {
    let object = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": { "name": "p", "generation": 2 }, "spec": spec,
    });
    parse(&serde_json::from_value(object).unwrap())
}

fn good(spec: Value) -> Policy {
    let (policy, problem) = read(spec).unwrap();
    assert_eq!(problem, None);
    policy
}

fn everywhere(mut fields: Value) -> Value {
    fields["tier"] = json!("Admin");
    fields["priority"] = json!(5);
    fields["subject"] = json!({ "namespaces": {} });
    fields
}

fn labelled(key: &str, value: &str) -> LabelSelector {
    LabelSelector::new([Requirement {
        key: key.to_owned(),
        test: Test::In(BTreeSet::from([value.to_owned()])),
    }])
}

#[test]
fn tier_and_priority_are_its_place() {
    for (tier, want) in [("Admin", ADMIN_TIER), ("Baseline", BASELINE_TIER)] {
        let policy = good(json!({
            "tier": tier, "priority": 7,
            "subject": { "pods": { "namespaceSelector": { "matchLabels": { "a": "b" } },
                                   "podSelector": { "matchLabels": { "c": "d" } } } },
            "ingress": [{ "action": "Deny", "from": [{ "namespaces": {} }] }],
        }));
        assert_eq!((policy.tier.as_str(), policy.order), (want, Order(7.0)));
        assert_eq!(policy.key, key("p".into()));
        assert_eq!(policy.generation, 2);
        let subject = PodSelector {
            namespaces: NamespaceSelector::Labels(labelled("a", "b")),
            pods: labelled("c", "d"),
        };
        assert_eq!(policy.subject, Selection::Pods(subject));
        // A direction without rules is left alone.
        assert_eq!(policy.egress, None);
    }
}

#[test]
fn actions_and_peers_are_read() {
    let policy = good(everywhere(json!({
        "egress": [
            { "action": "Accept", "to": [{ "networks": ["10.0.0.0/8", "fd00::/8"] }, { "nodes": { "matchLabels": { "a": "b" } } }] },
            { "action": "Pass", "to": [{ "namespaces": { "matchLabels": { "c": "d" } } }] },
            { "action": "Deny", "to": [{ "pods": { "namespaceSelector": {}, "podSelector": { "matchLabels": { "e": "f" } } } }] },
        ],
    })));
    let rules = policy.egress.unwrap();
    let actions: Vec<Action> = rules.iter().map(|it| it.action).collect();
    assert_eq!(actions, [Action::Allow, Action::Pass, Action::Deny]);
    let net = |text: &str| Peer::Net {
        cidr: text.parse().unwrap(),
        except: Vec::new(),
    };
    let pods = |namespaces, pods| {
        Peer::Pods(PodSelector {
            namespaces: NamespaceSelector::Labels(namespaces),
            pods,
        })
    };
    let peers = |peers| vec![Term::is(PeerList::new(peers))];
    let nodes = Peer::Nodes(labelled("a", "b"));
    assert_eq!(
        rules[0].peers,
        peers(vec![net("10.0.0.0/8"), net("fd00::/8"), nodes])
    );
    let all = LabelSelector::default;
    assert_eq!(rules[1].peers, peers(vec![pods(labelled("c", "d"), all())]));
    assert_eq!(rules[2].peers, peers(vec![pods(all(), labelled("e", "f"))]));
    assert!(rules.iter().all(|it| it.traffic.is_empty()));
}

#[test]
fn protocols_are_read() {
    let policy = good(everywhere(json!({ "ingress": [{
        "action": "Accept", "from": [{ "namespaces": {} }],
        "protocols": [
            { "tcp": { "destinationPort": { "number": 80 } } },
            { "udp": { "destinationPort": { "range": { "start": 1, "end": 9 } } } },
            { "sctp": { "destinationPort": { "number": 3868 } } },
            { "destinationNamedPort": "dns" },
        ],
    }] })));
    let ports = |protocol, first, last| PortMatch::Ports {
        protocol,
        first,
        last,
    };
    let named = |protocol| PortMatch::Named {
        protocol,
        name: "dns".into(),
    };
    let want = vec![
        ports(6, 80, 80),
        ports(17, 1, 9),
        ports(132, 3868, 3868),
        named(6),
        named(17),
        named(132),
    ];
    assert_eq!(policy.ingress.unwrap()[0].traffic, [Term::is(want)]);
}

#[test]
fn what_is_not_understood_accepts_nothing_and_denies_everything() {
    let peers = [
        (json!({}), "spec.egress[0].to[0]"),
        (json!({ "later": {} }), "spec.egress[0].to[0]"),
        (
            json!({ "domainNames": ["example.com"] }),
            "spec.egress[0].to[0].domainNames",
        ),
        (
            json!({ "networks": ["10.0.0.0"] }),
            "spec.egress[0].to[0].networks[0]",
        ),
        (
            json!({ "namespaces": {}, "nodes": {} }),
            "spec.egress[0].to[0]",
        ),
        (
            json!({ "nodes": { "matchExpressions": [{ "key": "a", "operator": "Like" }] } }),
            "spec.egress[0].to[0].nodes.matchExpressions[0].operator",
        ),
    ];
    let protocols = [
        (json!({}), "spec.egress[0].protocols[0]"),
        (
            json!({ "quic": { "destinationPort": { "number": 1 } } }),
            "spec.egress[0].protocols[0]",
        ),
        (
            json!({ "tcp": {} }),
            "spec.egress[0].protocols[0].tcp.destinationPort",
        ),
        (
            json!({ "tcp": { "later": 1 } }),
            "spec.egress[0].protocols[0].tcp.destinationPort",
        ),
        (
            json!({ "tcp": { "destinationPort": {} } }),
            "spec.egress[0].protocols[0].tcp.destinationPort",
        ),
        (
            json!({ "tcp": { "destinationPort": { "number": 0 } } }),
            "spec.egress[0].protocols[0].tcp.destinationPort.number",
        ),
        (
            json!({ "udp": { "destinationPort": { "range": { "start": 9, "end": 1 } } } }),
            "spec.egress[0].protocols[0].udp.destinationPort.range.end",
        ),
    ];
    let peers = peers.map(|(peer, field)| (json!({ "to": [peer] }), field));
    let protocols = protocols.map(|(it, field)| {
        (
            json!({ "to": [{ "namespaces": {} }], "protocols": [it] }),
            field,
        )
    });
    let good = json!({ "action": "Pass", "to": [{ "namespaces": {} }] });
    for (rule, field) in peers.into_iter().chain(protocols) {
        for (action, closed) in [("Accept", 0), ("Deny", 1), ("Pass", 1), ("Later", 1)] {
            let mut rule = rule.clone();
            rule["action"] = json!(action);
            let (policy, problem) = read(everywhere(json!({ "egress": [rule, good] }))).unwrap();
            let found = problem.expect("the problem is told").field;
            if action == "Later" {
                assert_eq!(found, "spec.egress[0].action");
            } else {
                assert_eq!(found, field, "{rule}");
            }
            let rules = policy.egress.unwrap();
            // The rest of the policy is in force.
            assert_eq!(rules.len(), closed + 1, "{rule}");
            assert_eq!(rules[closed].action, Action::Pass);
            assert!(
                rules[..closed]
                    .iter()
                    .all(|it| *it == Rule::new(Action::Deny))
            );
        }
    }
}

#[test]
fn only_pods_are_sources() {
    for peer in [
        json!({ "networks": ["10.0.0.0/8"] }),
        json!({ "nodes": {} }),
    ] {
        let rules = json!([{ "action": "Deny", "from": [peer] }]);
        let (policy, problem) = read(everywhere(json!({ "ingress": rules }))).unwrap();
        assert_eq!(problem.unwrap().field, "spec.ingress[0].from[0]");
        assert_eq!(policy.ingress, Some(vec![Rule::new(Action::Deny)]));
    }
}

#[test]
fn a_tier_of_a_later_version_closes_the_directions_with_rules() {
    let mut spec =
        everywhere(json!({ "egress": [{ "action": "Accept", "to": [{ "namespaces": {} }] }] }));
    spec["tier"] = json!("Later");
    let error = read(spec).unwrap_err();
    assert_eq!(error.field, "spec.tier");
    let closed = error.closed.unwrap();
    assert_eq!((closed.tier.as_str(), closed.ingress), (ADMIN_TIER, None));
    assert_eq!(closed.egress, Some(vec![Rule::new(Action::Deny)]));
    // What is selected by something of a later version nobody knows.
    let mut spec = everywhere(json!({}));
    spec["subject"] = json!({ "later": {} });
    let error = read(spec).unwrap_err();
    assert_eq!((error.field.as_str(), error.closed), ("spec.subject", None));
}
