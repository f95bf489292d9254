use serde_json::{Value, json};

use super::*;
use crate::net::Family;
use crate::selector::NamespaceSelector;
use crate::{GlobalNetworkPolicy, NetworkPolicy};

fn namespaced(spec: Value) -> Result<Policy, Refused> {
    let object = json!({
        "apiVersion": "margay.io/v1", "kind": "NetworkPolicy",
        "metadata": { "namespace": "shop", "name": "p", "generation": 7 }, "spec": spec,
    });
    Policy::try_from(&serde_json::from_value::<NetworkPolicy>(object).unwrap())
}

fn global(spec: Value) -> Result<Policy, Refused> {
    let object = json!({
        "apiVersion": "margay.io/v1", "kind": "GlobalNetworkPolicy",
        "metadata": { "name": "p", "generation": 7 }, "spec": spec,
    });
    Policy::try_from(&serde_json::from_value::<GlobalNetworkPolicy>(object).unwrap())
}

/// An ingress rule with these fields beside the action.
fn rule(mut fields: Value) -> Result<Rule, Refused> {
    fields["action"] = json!("Allow");
    namespaced(json!({ "ingress": [fields] })).map(|mut policy| policy.ingress.remove(0))
}

#[test]
fn an_empty_policy_closes_its_namespace_for_ingress() {
    let policy = namespaced(json!({})).unwrap();
    let head = &policy.head;
    assert_eq!((head.tier.as_str(), head.order), ("default", None));
    assert_eq!((head.ingress, head.egress), (true, false));
    assert_eq!(head.enforcement, Enforcement::Enforce);
    assert_eq!(head.stage, Stage::Normal);
    assert_eq!(head.generation, 7);
    assert_eq!(head.subject.namespace.as_deref(), Some("shop"));
    assert_eq!(head.subject.selector, crate::selector::Selector::all());
    assert!(policy.ingress.is_empty());
    assert_eq!(global(json!({})).unwrap().head.subject.namespace, None);
}

#[test]
fn directions_are_those_said_or_those_with_rules() {
    let rules = json!([{ "action": "Allow" }]);
    for (spec, want) in [
        (json!({ "ingress": rules }), (true, false)),
        (json!({ "egress": rules }), (false, true)),
        (json!({ "ingress": rules, "egress": rules }), (true, true)),
        (json!({ "types": ["Egress"] }), (false, true)),
        (json!({ "types": ["Ingress", "Egress"] }), (true, true)),
        (
            json!({ "types": ["Egress"], "ingress": rules }),
            (false, true),
        ),
    ] {
        let head = namespaced(spec.clone()).unwrap().head;
        assert_eq!((head.ingress, head.egress), want, "{spec}");
    }
}

#[test]
fn every_field_of_a_global_policy_is_read() {
    let policy = global(json!({
        "tier": "security", "order": -1.5, "selector": "app == 'web'", "namespaceSelector": "env == 'prod'",
        "serviceAccountSelector": "trusted == 'no'", "types": ["Ingress"], "enforcement": "Audit",
        "applyOnForward": true,
    }))
    .unwrap();
    let head = policy.head;
    assert_eq!((head.tier.as_str(), head.order), ("security", Some(-1.5)));
    assert_eq!(head.subject.selector.to_string(), "app == 'web'");
    assert_eq!(
        head.subject.namespaces.unwrap().to_string(),
        "env == 'prod'"
    );
    assert_eq!(
        head.subject.service_accounts.unwrap().to_string(),
        "trusted == 'no'"
    );
    assert_eq!(
        (head.enforcement, head.stage),
        (Enforcement::Audit, Stage::ApplyOnForward)
    );
    for (spec, stage) in [
        (
            json!({ "preDNAT": true, "applyOnForward": true }),
            Stage::PreDnat,
        ),
        (
            json!({ "doNotTrack": true, "applyOnForward": true }),
            Stage::DoNotTrack,
        ),
    ] {
        assert_eq!(global(spec).unwrap().head.stage, stage);
    }
}

#[test]
fn every_field_of_a_rule_is_read() {
    let found = rule(json!({
        "ipVersion": 4, "protocol": "TCP", "notProtocol": 17,
        "source": {
            "nets": ["10.0.0.0/8", "192.0.2.1"], "notNets": ["10.1.0.0/16"], "selector": "a == 'b'",
            "notSelector": "has(c)", "namespaceSelector": "env == 'prod'",
            "serviceAccounts": { "names": ["x", "y"], "selector": "has(z)" },
            "ports": [53], "notPorts": ["1:9"],
        },
        "destination": { "ports": [80, "8000:8999", "http", "443", 0], "namespaceSelector": "global()" },
        "metadata": { "annotations": { "why": "because" } },
    }))
    .unwrap();
    assert_eq!(found.family, Some(Family::V4));
    assert_eq!((found.protocol, found.not_protocol), (Some(6), Some(17)));
    let nets: Vec<String> = found.source.nets.iter().map(ToString::to_string).collect();
    assert_eq!(nets, ["10.0.0.0/8", "192.0.2.1/32"]);
    assert_eq!(found.source.not_nets.len(), 1);
    assert_eq!(found.source.not_selector.unwrap().to_string(), "has(c)");
    let accounts = found.source.service_accounts.unwrap();
    assert_eq!(accounts.names.len(), 2);
    assert_eq!(accounts.selector.unwrap().to_string(), "has(z)");
    assert_eq!(found.source.ports, [Port::Range(53, 53)]);
    assert_eq!(found.source.not_ports, [Port::Range(1, 9)]);
    assert_eq!(
        found.destination.ports,
        [
            Port::Range(80, 80),
            Port::Range(8000, 8999),
            Port::Named("http".into()),
            Port::Range(443, 443),
            Port::Range(0, 0)
        ]
    );
    assert_eq!(
        found.destination.namespaces,
        Some(NamespaceSelector::Global)
    );
    assert_eq!(found.annotations["why"], "because");
}

#[test]
fn names_of_ports_need_no_protocol() {
    let found = rule(json!({ "destination": { "ports": ["http"] } })).unwrap();
    assert_eq!(found.port_protocols(), [6, 17, 132, 136]);
    let found =
        rule(json!({ "protocol": "UDPLite", "destination": { "ports": ["http"] } })).unwrap();
    assert_eq!(found.port_protocols(), [136]);
}

#[test]
fn messages_of_icmp_are_read() {
    for (protocol, number) in [(json!("ICMP"), 1), (json!("ICMPv6"), 58), (json!(58), 58)] {
        let found =
            rule(json!({ "protocol": protocol, "icmp": { "type": 8, "code": 0 }, "notICMP": {} }));
        let found = found.unwrap();
        assert_eq!(found.protocol, Some(number));
        assert_eq!(
            found.icmp,
            Some(Icmp {
                kind: Some(8),
                code: Some(0)
            })
        );
        assert_eq!(
            found.not_icmp,
            Some(Icmp {
                kind: None,
                code: None
            })
        );
    }
}

#[test]
fn services_stand_for_a_source_of_ingress_or_a_destination_of_egress() {
    let service = json!({ "services": { "name": "web" } });
    let found = rule(json!({ "source": service })).unwrap();
    assert_eq!(found.source.service.unwrap().namespace, "shop");
    let egress = json!({ "egress": [{ "action": "Allow", "destination": service }] });
    assert!(namespaced(egress.clone()).is_ok());
    let error = global(egress).unwrap_err().to_string();
    assert_eq!(
        error,
        "spec.egress[0].destination.services.namespace: a GlobalNetworkPolicy is in no namespace: say which one the Service is in"
    );
    for (rules, field) in [
        (
            json!({ "ingress": [{ "action": "Allow", "destination": service }] }),
            "spec.ingress[0].destination.services",
        ),
        (
            json!({ "egress": [{ "action": "Allow", "source": service }] }),
            "spec.egress[0].source.services",
        ),
    ] {
        assert_eq!(namespaced(rules).unwrap_err().error.field, field);
    }
}

#[test]
fn errors_name_field_and_fix() {
    for (fields, problem) in [
        (
            json!({ "protocol": "IPIP" }),
            "spec.ingress[0].protocol: IPIP is no protocol: set TCP",
        ),
        (
            json!({ "notProtocol": 256 }),
            "spec.ingress[0].notProtocol: 256 is no protocol",
        ),
        (
            json!({ "protocol": 0 }),
            "spec.ingress[0].protocol: 0 is no protocol",
        ),
        (
            json!({ "ipVersion": 5 }),
            "spec.ingress[0].ipVersion: 5 is no version of IP: set 4 or 6",
        ),
        (
            json!({ "ipVersion": 6, "source": { "nets": ["10.0.0.0/8"] } }),
            "spec.ingress[0].source.nets: 10.0.0.0/8 is IPv4, which ipVersion excludes",
        ),
        (
            json!({ "source": { "nets": ["10.0.0.1/8"] } }),
            "spec.ingress[0].source.nets[0]: 10.0.0.1/8 has bits set beyond its length: write 10.0.0.0/8",
        ),
        (
            json!({ "source": { "selector": "a =" } }),
            "spec.ingress[0].source.selector: selector is wrong at character 3",
        ),
        (
            json!({ "source": { "selector": "global()" } }),
            "spec.ingress[0].source.selector: selector is wrong at character 1: global() stands alone",
        ),
        (
            json!({ "source": { "namespaceSelector": "!global()" } }),
            "spec.ingress[0].source.namespaceSelector: ",
        ),
        (
            json!({ "source": { "serviceAccounts": { "selector": "(" } } }),
            "spec.ingress[0].source.serviceAccounts.selector: ",
        ),
        (
            json!({ "icmp": {} }),
            "spec.ingress[0].icmp: needs to know the kind of ICMP",
        ),
        (
            json!({ "protocol": "TCP", "notICMP": {} }),
            "spec.ingress[0].notICMP: needs to know the kind of ICMP",
        ),
        (
            json!({ "protocol": "ICMP", "icmp": { "code": 1 } }),
            "spec.ingress[0].icmp.code: belongs to a type",
        ),
        (
            json!({ "protocol": "ICMP", "icmp": { "type": 255 } }),
            "spec.ingress[0].icmp.type: 255 is out of range",
        ),
        (
            json!({ "destination": { "ports": [80] } }),
            "spec.ingress[0].destination.ports[0]: ports need a protocol that has some",
        ),
        (
            json!({ "protocol": "ICMP", "destination": { "ports": ["http"] } }),
            "spec.ingress[0].destination.ports[0]: ports need a protocol",
        ),
        (
            json!({ "protocol": "TCP", "destination": { "notPorts": ["9:1"] } }),
            "spec.ingress[0].destination.notPorts[0]: 9:1 ends before it starts: write 1:9",
        ),
        (
            json!({ "protocol": "TCP", "destination": { "ports": [70000] } }),
            "spec.ingress[0].destination.ports[0]: 70000 is no port",
        ),
        (
            json!({ "protocol": "TCP", "destination": { "ports": ["70000"] } }),
            "spec.ingress[0].destination.ports[0]: 70000 is no port",
        ),
        (
            json!({ "protocol": "TCP", "destination": { "ports": ["80-90"] } }),
            "spec.ingress[0].destination.ports[0]: 80-90 is no port",
        ),
        (
            json!({ "protocol": "TCP", "destination": { "ports": [""] } }),
            "spec.ingress[0].destination.ports[0]:  is no port",
        ),
        (
            json!({ "protocol": "TCP", "source": { "services": { "name": "x" }, "ports": [1] } }),
            "spec.ingress[0].source.services: stands for addresses and ports",
        ),
    ] {
        let error = rule(fields.clone()).unwrap_err().to_string();
        assert!(error.starts_with(problem), "{fields}: {error}");
    }
    let error = namespaced(json!({ "egress": [{ "action": "Reject" }] })).unwrap_err();
    assert_eq!(
        error.to_string(),
        "spec.egress[0].action: \"Reject\" is no action: set Allow, Deny, Log, Pass"
    );
}

#[test]
fn what_is_not_understood_keeps_its_subject() {
    let refused = namespaced(json!({
        "selector": "app == 'web'", "types": ["Egress"], "tier": "security", "order": 5,
        "egress": [{ "action": "Explode" }],
    }))
    .unwrap_err();
    let head = refused.head.unwrap();
    assert_eq!(head.subject.selector.to_string(), "app == 'web'");
    assert_eq!((head.ingress, head.egress), (false, true));
    assert_eq!((head.tier.as_str(), head.order), ("security", Some(5.0)));
    // Directions and modes that cannot be read are closed too.
    let refused = namespaced(json!({ "types": ["Sideways"], "enforcement": "Maybe" })).unwrap_err();
    assert_eq!(refused.error.field, "spec.types[0]");
    let head = refused.head.unwrap();
    assert_eq!((head.ingress, head.egress), (true, true));
    assert_eq!(head.enforcement, Enforcement::Enforce);
    // Nobody is selected by what cannot be read.
    let refused = namespaced(json!({ "selector": "app =" })).unwrap_err();
    assert_eq!(
        (refused.error.field.as_str(), refused.head),
        ("spec.selector", None)
    );
    let refused = global(json!({ "namespaceSelector": "global()" })).unwrap_err();
    assert_eq!(
        (refused.error.field.as_str(), refused.head),
        ("spec.namespaceSelector", None)
    );
}

#[test]
fn stages_that_exclude_each_other_are_refused() {
    for (spec, field) in [
        (
            json!({ "preDNAT": true, "doNotTrack": true, "applyOnForward": true }),
            "spec.preDNAT",
        ),
        (json!({ "preDNAT": true }), "spec.applyOnForward"),
        (json!({ "doNotTrack": true }), "spec.applyOnForward"),
        (
            json!({ "preDNAT": true, "applyOnForward": true, "types": ["Egress"] }),
            "spec.preDNAT",
        ),
        (
            json!({ "preDNAT": true, "applyOnForward": true, "egress": [{ "action": "Deny" }] }),
            "spec.preDNAT",
        ),
    ] {
        let refused = global(spec.clone()).unwrap_err();
        assert_eq!(refused.error.field, field, "{spec}");
        assert!(refused.head.is_some());
    }
}
