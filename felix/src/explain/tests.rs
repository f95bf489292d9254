use serde_json::{Value, json};

use super::*;
use crate::offline::{Cluster, Document};

fn pod(namespace: &str, name: &str, app: &str, addresses: &[&str]) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|it| json!({"ip": it})).collect();
    json!({"apiVersion": "v1", "kind": "Pod",
           "metadata": {"namespace": namespace, "name": name,
                        "labels": {"app": app, "pod-template-hash": "7d9f"}},
           "spec": {"containers": [{"name": "c", "ports": [{"name": "pg", "containerPort": 5432}]}]},
           "status": {"podIPs": ips}})
}

fn policy(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
           "metadata": {"namespace": namespace, "name": name, "generation": 3}, "spec": spec})
}

/// A shop whose database takes its own namespace's api and, for another port, the web tier.
fn shop() -> Cluster {
    let objects = [
        pod("shop", "web", "web", &["10.0.0.1", "fd00::1"]),
        pod("db", "pg", "pg", &["10.0.0.2", "fd00::2"]),
        pod("db", "api", "api", &["10.0.0.3"]),
        policy(
            "db",
            "nothing",
            json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
        ),
        policy(
            "db",
            "clients",
            json!({"podSelector": {"matchLabels": {"app": "pg"}}, "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"app": "api"}}}], "ports": [{"port": 5432}]},
                {"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}],
                 "ports": [{"port": 9187}]}]}),
        ),
        policy(
            "db",
            "elsewhere",
            json!({"podSelector": {"matchLabels": {"app": "cache"}}}),
        ),
    ];
    let documents = objects.into_iter().flat_map(|it| Document::unfold("f", it));
    Cluster::load(documents.collect())
}

fn ask(from: &str, to: &str, protocol: u32, port: u32) -> v1::ExplainPolicyRequest {
    v1::ExplainPolicyRequest {
        from: from.into(),
        to: to.into(),
        protocol,
        port,
        ..Default::default()
    }
}

#[test]
fn a_rule_that_allows_is_named_and_the_others_say_why_not() {
    let answer = shop().explain(&ask("db/api", "db/pg", 6, 5432)).unwrap();
    assert!(answer.allowed);
    let [flow] = answer.flows.as_slice() else {
        panic!("api has IPv4 only: {answer:?}");
    };
    let egress = flow.egress.as_ref().unwrap();
    assert!(
        egress.summary.starts_with("no policy selects it"),
        "{}",
        egress.summary
    );
    let ingress = flow.ingress.as_ref().unwrap();
    assert_eq!(
        ingress.summary,
        "ingress[0] of NetworkPolicy db/clients (tier default) allows it"
    );
    let [tier] = ingress.tiers.as_slice() else {
        panic!("one tier: {ingress:?}");
    };
    assert_eq!(tier.outcome, "decided");
    let outcomes: Vec<_> = tier
        .policies
        .iter()
        .flat_map(|it| it.rules.iter().map(|rule| rule.outcome.as_str()))
        .collect();
    assert_eq!(outcomes, ["matched", "not asked"]);
    assert_eq!(tier.policies[0].generation, 3);
    assert!(
        ingress.not_selecting[0].contains("db/elsewhere"),
        "{ingress:?}"
    );
    assert!(flow.advice.is_empty());
}

#[test]
fn a_denial_says_what_is_missing_and_which_rule_to_add() {
    let answer = shop().explain(&ask("shop/web", "db/pg", 6, 5432)).unwrap();
    assert!(!answer.allowed);
    assert_eq!(answer.flows.len(), 2, "both families are judged");
    let flow = &answer.flows[0];
    let rules = &flow.ingress.as_ref().unwrap().tiers[0].policies[0].rules;
    assert_eq!(
        rules[0].why,
        "shop/web (10.0.0.1, app=web,...) is not pods with app=api of namespace db"
    );
    assert_eq!(rules[1].why, "TCP 5432 is not TCP 9187");
    let [near, add] = flow.advice.as_slice() else {
        panic!("two pieces of advice: {:?}", flow.advice);
    };
    assert!(
        near.contains("ingress[1]") && near.contains("is the port right?"),
        "{near}"
    );
    let yaml = "- from:\n  - namespaceSelector:\n      matchLabels:\n        kubernetes.io/metadata.name: shop\n    \
                podSelector:\n      matchLabels:\n        app: web\n  ports:\n  - protocol: TCP\n    port: 5432\n";
    assert!(add.contains("db/clients under spec.ingress"), "{add}");
    assert!(add.ends_with(yaml), "{add}");
}

#[test]
fn ports_have_names_and_icmp_has_families() {
    let named = v1::ExplainPolicyRequest {
        port_name: "pg".into(),
        ..ask("db/api", "db/pg", 6, 0)
    };
    assert_eq!(shop().explain(&named).unwrap().flows[0].traffic, "TCP 5432");
    let unnamed = v1::ExplainPolicyRequest {
        port_name: "http".into(),
        ..named
    };
    let error = shop().explain(&unnamed).unwrap_err().to_string();
    assert_eq!(error, "db/pg has no TCP port named \"http\"; it has pg");
    let echo = shop().explain(&ask("shop/web", "db/pg", 1, 0x800)).unwrap();
    let said: Vec<_> = echo.flows.iter().map(|it| it.traffic.as_str()).collect();
    assert_eq!(said, ["ICMP type 8 code 0", "ICMPv6 type 128 code 0"]);
}

#[test]
fn who_is_not_known_is_guessed_at() {
    let error = |from: &str| {
        shop()
            .explain(&ask(from, "db/pg", 6, 1))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(error("db/web"), "no pod db/web is known; is it shop/web?");
    assert_eq!(error("db/a"), "no pod db/a is known; is it db/api?");
    assert!(error("web").contains("neither"));
    let apart = shop().explain(&ask("2001:db8::1", "db/api", 6, 1));
    assert!(matches!(apart, Err(Unanswered::NoFamily(..))), "{apart:?}");
}

#[test]
fn an_address_outside_is_judged_by_the_pod_alone() {
    let answer = shop()
        .explain(&ask("203.0.113.7", "db/pg", 6, 5432))
        .unwrap();
    let flow = &answer.flows[0];
    assert_eq!(flow.from.as_ref().unwrap().kind, "no pod");
    assert!(flow.egress.as_ref().unwrap().allowed);
    assert!(!answer.allowed);
    assert!(
        flow.advice
            .iter()
            .any(|it| it.contains("cidr: 203.0.113.7/32")),
        "{:?}",
        flow.advice
    );
}

#[test]
fn a_pod_that_asks_for_itself_learns_that_only_a_service_leads_there() {
    let shop = shop();
    let answer = shop.explain(&ask("db/pg", "db/pg", 6, 9090)).unwrap();
    let flow = &answer.flows[0];
    assert!(!flow.allowed, "{flow:?}");
    assert!(flow.advice[0].contains("Service"), "{flow:?}");
}
