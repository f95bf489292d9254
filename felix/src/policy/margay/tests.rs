use serde_json::{Value, json};

use super::*;

fn namespaced(spec: Value) -> Result<Policy, PolicyError> {
    let object = json!({
        "apiVersion": "margay.io/v1", "kind": "NetworkPolicy",
        "metadata": { "namespace": "shop", "name": "p", "generation": 3 }, "spec": spec,
    });
    network_policy(&serde_json::from_value(object).unwrap())
}

fn global(spec: Value) -> Result<Policy, PolicyError> {
    let object = json!({
        "apiVersion": "margay.io/v1", "kind": "GlobalNetworkPolicy", "metadata": { "name": "p" }, "spec": spec,
    });
    global_network_policy(&serde_json::from_value(object).unwrap())
}

fn selector(text: &str) -> Selector {
    text.parse().unwrap()
}

fn endpoints(scope: Scope, labels: &str) -> PeerList {
    PeerList::new(vec![Peer::Endpoints(EndpointSelector {
        scope,
        labels: selector(labels),
        service_accounts: None,
    })])
}

fn net(text: &str) -> Peer {
    Peer::Net {
        cidr: text.parse().unwrap(),
        except: Vec::new(),
    }
}

fn ingress(rule: Value) -> Rule {
    let policy = namespaced(json!({ "ingress": [rule] })).unwrap();
    policy.ingress.unwrap().remove(0)
}

#[test]
fn a_policy_is_in_its_tier_and_namespace() {
    let policy = namespaced(json!({ "selector": "a == 'b'", "tier": "x", "order": -0.0 })).unwrap();
    assert_eq!(policy.key.kind, PolicyKind::NetworkPolicy);
    assert_eq!((policy.tier.as_str(), policy.order), ("x", Order(0.0)));
    assert_eq!(policy.generation, 3);
    let Selection::Endpoints(subject) = policy.subject else {
        panic!("not selected by our selectors");
    };
    assert_eq!(subject.scope, Scope::Namespace("shop".into()));
    assert_eq!(policy.ingress, Some(Vec::new()));
    assert_eq!(policy.egress, None);
    let policy = global(json!({ "serviceAccountSelector": "has(x)" })).unwrap();
    assert_eq!(policy.order, Order(f64::INFINITY));
    assert_eq!(policy.key.kind, PolicyKind::GlobalNetworkPolicy);
    let Selection::Endpoints(subject) = policy.subject else {
        panic!("not selected by our selectors");
    };
    assert_eq!(subject.scope, Scope::Anywhere);
    assert_eq!(subject.service_accounts.unwrap().labels, selector("has(x)"));
    let policy = global(json!({ "namespaceSelector": "all()" })).unwrap();
    assert_eq!(
        policy.subject,
        Selection::Endpoints(EndpointSelector {
            scope: Scope::Namespaces(Selector::all()),
            labels: Selector::all(),
            service_accounts: None
        })
    );
}

#[test]
fn a_selector_looks_where_the_policy_is() {
    for (source, want) in [
        (
            json!({ "selector": "has(a)" }),
            endpoints(Scope::Namespace("shop".into()), "has(a)"),
        ),
        (
            json!({ "selector": "has(a)", "namespaceSelector": "has(b)" }),
            endpoints(Scope::Namespaces(selector("has(b)")), "has(a)"),
        ),
        (
            json!({ "namespaceSelector": "has(b)" }),
            endpoints(Scope::Namespaces(selector("has(b)")), "all()"),
        ),
        (
            json!({ "selector": "has(a)", "namespaceSelector": "global()" }),
            endpoints(Scope::Global, "has(a)"),
        ),
    ] {
        let rule = ingress(json!({ "action": "Allow", "source": source }));
        assert_eq!(rule.peers, [Term::is(want)], "{source}");
        assert!(rule.own.is_empty() && rule.traffic.is_empty());
    }
    let rules = json!([{ "action": "Allow", "source": { "selector": "has(a)" } }]);
    let policy = global(json!({ "ingress": rules })).unwrap();
    assert_eq!(
        policy.ingress.unwrap()[0].peers,
        [Term::is(endpoints(Scope::Anywhere, "has(a)"))]
    );
}

#[test]
fn a_service_account_is_one_of_the_namespace() {
    let rule = ingress(json!({
        "action": "Allow", "source": { "serviceAccounts": { "names": ["a", "b"], "selector": "has(c)" } },
    }));
    let accounts = ServiceAccounts {
        names: ["a".to_owned(), "b".to_owned()].into(),
        labels: selector("has(c)"),
    };
    let want = EndpointSelector {
        scope: Scope::Namespace("shop".into()),
        labels: Selector::all(),
        service_accounts: Some(accounts),
    };
    assert_eq!(
        rule.peers,
        [Term::is(PeerList::new(vec![Peer::Endpoints(want)]))]
    );
}

#[test]
fn what_a_rule_says_twice_has_to_hold_twice() {
    let rule = ingress(json!({
        "action": "Deny", "ipVersion": 4, "protocol": "TCP", "notProtocol": "UDP",
        "source": { "nets": ["10.0.0.0/8"], "notNets": ["10.1.0.0/16", "10.2.0.0/16"], "notSelector": "has(x)",
                    "ports": [53] },
        "destination": { "selector": "all()", "ports": [80, "http"], "notPorts": ["81:90"] },
    }));
    assert_eq!(rule.action, Action::Deny);
    assert_eq!(
        rule.peers,
        [
            Term::is(PeerList::new(vec![net("10.0.0.0/8")])),
            Term::not(PeerList::new(vec![net("10.1.0.0/16"), net("10.2.0.0/16")])),
            Term::not(endpoints(Scope::Anywhere, "has(x)")),
            Term::is(PeerList::new(vec![net("0.0.0.0/0")])),
        ]
    );
    assert_eq!(
        rule.own,
        [Term::is(endpoints(
            Scope::Namespace("shop".into()),
            "all()"
        ))]
    );
    let ports = |first, last| PortMatch::Ports {
        protocol: 6,
        first,
        last,
    };
    let http = PortMatch::Named {
        protocol: 6,
        name: "http".into(),
    };
    assert_eq!(
        rule.traffic,
        [
            Term::is(vec![PortMatch::Protocol(6)]),
            Term::not(vec![PortMatch::Protocol(17)]),
            Term::is(vec![ports(80, 80), http]),
            Term::not(vec![ports(81, 90)]),
        ]
    );
    assert_eq!(rule.source_ports, [Term::is(vec![ports(53, 53)])]);
}

#[test]
fn the_ends_of_egress_are_the_other_way_round() {
    let policy = namespaced(json!({ "egress": [{
        "action": "Allow", "source": { "selector": "has(own)" }, "destination": { "nets": ["192.0.2.1"] },
    }] }));
    let rule = policy.unwrap().egress.unwrap().remove(0);
    assert_eq!(
        rule.peers,
        [Term::is(PeerList::new(vec![net("192.0.2.1/32")]))]
    );
    assert_eq!(
        rule.own,
        [Term::is(endpoints(
            Scope::Namespace("shop".into()),
            "has(own)"
        ))]
    );
}

#[test]
fn a_name_without_a_protocol_is_looked_up_with_every_one_that_has_ports() {
    let rule = ingress(json!({ "action": "Allow", "destination": { "ports": ["dns"] } }));
    let [term] = &rule.traffic[..] else {
        panic!("{:?}", rule.traffic);
    };
    let protocols: Vec<u8> = term
        .any
        .iter()
        .map(|it| match it {
            PortMatch::Named { protocol, name } if name == "dns" => *protocol,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(protocols, [6, 17, 132, 136]);
}

#[test]
fn icmp_is_a_type_and_a_code() {
    let rule = ingress(json!({
        "action": "Allow", "protocol": "ICMPv6", "icmp": { "type": 128 }, "notICMP": { "type": 128, "code": 1 },
    }));
    let icmp = |code| PortMatch::Icmp {
        protocol: 58,
        kind: 128,
        code,
    };
    assert_eq!(
        rule.traffic,
        [
            Term::is(vec![PortMatch::Protocol(58)]),
            Term::is(vec![icmp(None)]),
            Term::not(vec![icmp(Some(1))]),
        ]
    );
    let rule = ingress(json!({ "action": "Allow", "protocol": "ICMP", "notICMP": {} }));
    assert_eq!(rule.traffic[1], Term::not(vec![PortMatch::Protocol(1)]));
}

#[test]
fn a_service_is_addresses_as_a_source_and_ports_as_a_destination() {
    let (namespace, name) = ("shop".to_owned(), "web".to_owned());
    let service = json!({ "services": { "name": "web" } });
    let rule = ingress(json!({ "action": "Allow", "source": service }));
    let want = Peer::Service {
        namespace: namespace.clone(),
        name: name.clone(),
    };
    assert_eq!(rule.peers, [Term::is(PeerList::new(vec![want]))]);
    assert!(rule.traffic.is_empty());
    let policy = namespaced(json!({ "egress": [{ "action": "Allow", "destination": service }] }));
    let rule = policy.unwrap().egress.unwrap().remove(0);
    assert_eq!(
        rule.traffic,
        [Term::is(vec![PortMatch::Service { namespace, name }])]
    );
    assert!(rule.peers.is_empty());
}

#[test]
fn what_is_not_understood_denies_what_it_selects() {
    let refused = namespaced(json!({
        "tier": "x", "selector": "a == 'b'", "types": ["Ingress", "Egress"], "enforcement": "Enforce",
        "ingress": [{ "action": "Allow" }, { "action": "Allow", "source": { "selector": "(" } }],
    }))
    .unwrap_err();
    assert_eq!(refused.field, "spec.ingress[1].source.selector");
    let closed = refused.closed.unwrap();
    let deny = Some(vec![Rule::new(Action::Deny)]);
    assert_eq!((&closed.ingress, &closed.egress), (&deny, &deny));
    assert_eq!(closed.tier, "x");
    let refused = namespaced(json!({ "selector": "(" })).unwrap_err();
    assert_eq!(refused.closed, None);
}

#[test]
fn built_in_tiers_are_those_of_the_engine() {
    let [admin, default, baseline] = SaidTier::built_in().map(tier);
    assert_eq!(admin.default_action, Action::Pass);
    assert_eq!(default.name, super::super::model::DEFAULT_TIER);
    assert_eq!(default.order, super::super::model::DEFAULT_TIER_ORDER);
    assert!(admin.order < default.order && default.order < baseline.order);
}

#[test]
fn a_policy_says_where_on_the_way_of_a_packet_it_is_asked() {
    let spec = |stage: &str| json!({ stage: true, "applyOnForward": true, "types": ["Ingress"], "ingress": [{ "action": "Deny" }] });
    assert_eq!(global(spec("preDNAT")).unwrap().stage, Stage::PreDnat);
    assert_eq!(global(spec("doNotTrack")).unwrap().stage, Stage::DoNotTrack);
}
