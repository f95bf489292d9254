//! Every packet is counted for the rule that decided about it, and stays so through edits.

use std::collections::BTreeMap;

use super::super::causes::Ended;
use super::super::counts::{Counted, End, Packets};
use super::super::model::PolicyKind;
use super::super::{Decided, RuleRef, VerdictTrace, margay};
use super::*;

/// The cause of an answer names the rules that the explanation names.
pub(super) fn check_cause(engine: &Engine, answer: Answer, trace: &VerdictTrace) {
    let direction = trace.direction;
    let id = |rule: &RuleRef| {
        let installed = engine.policies.get(&rule.policy);
        let rules = installed.and_then(|it| it.rules(direction)).unwrap();
        rules[rule.index].id
    };
    let ended = |decided: &Decided| match decided {
        Decided::NoPolicy => Ended::Nothing,
        Decided::Rule(rule) => Ended::Rule(id(rule)),
        Decided::TierDefault { tier, policies } => Ended::Tier {
            tier: tier.clone(),
            policies: policies.clone(),
        },
    };
    let Some(cause) = engine.causes.get(answer.cause) else {
        assert_eq!(answer.cause.0, 0, "{answer:?}");
        assert_eq!(trace.decided, Decided::NoPolicy, "{answer:?}");
        assert!(trace.passed.is_empty() && trace.logged.is_empty());
        return;
    };
    assert_eq!(
        (cause.direction, cause.verdict),
        (direction, answer.verdict)
    );
    let mut noted: Vec<_> = trace.passed.iter().chain(&trace.logged).map(id).collect();
    noted.sort_unstable();
    let mut counted = cause.noted.clone();
    counted.sort_unstable();
    assert_eq!(counted, noted, "{trace:?}");
    assert_eq!(cause.ended, ended(&trace.decided), "{trace:?}");
    let would = trace.audited.as_ref().map(|(_, decided)| ended(decided));
    assert_eq!(cause.would, would, "{trace:?}");
}

const WEB: &str = "10.0.0.1";
const NEAR: &str = "10.0.1.1";

fn cluster() -> Node {
    let mut node = Node::new();
    node.local(pod("x", "web", &[("app", "web")], &[WEB]))
        .remote(pod("x", "near", &[("app", "near")], &[NEAR]));
    node
}

/// One packet to web.
fn send(node: &Node, packets: &mut Packets, from: &str, port: u16) {
    let tables = node.0.tables();
    let subject = *tables.links.values().next().unwrap();
    let traffic = Traffic {
        protocol: TCP,
        source_port: 0,
        port,
    };
    let answer = lookup(tables, Direction::Ingress, subject, ip(from), traffic);
    *packets.entry(answer.cause).or_default() += 1;
}

/// Packets of a policy's rules, by "ingress[0]" and the like.
fn of(counted: &Counted, name: &str) -> BTreeMap<String, Option<u64>> {
    let policy = counted.policies.iter().find(|it| it.key.name == name);
    let rules = policy.unwrap().rules.iter();
    let named = rules.map(|rule| match rule.index {
        Some(index) => (format!("{index}"), rule.packets),
        None => ("end".to_owned(), rule.packets),
    });
    named.collect()
}

fn rows<const N: usize>(rows: [(&str, u64); N]) -> BTreeMap<String, Option<u64>> {
    let rows = rows.map(|(name, packets)| (name.to_owned(), Some(packets)));
    rows.into()
}

fn near(port: u16) -> Value {
    json!({"from": [{"podSelector": {"matchLabels": {"app": "near"}}}], "ports": [{"port": port}]})
}

#[test]
fn packets_are_counted_for_the_rule_that_decides_and_for_the_end_without_one() {
    let mut node = cluster();
    node.policy(
        "x",
        "p",
        &json!({"podSelector": {}, "ingress": [near(80), near(81)]}),
    );
    node.0.compile();
    let mut packets = Packets::new();
    for (from, port, times) in [(NEAR, 80, 3), (NEAR, 81, 2), (NEAR, 82, 4), (WEB, 80, 1)] {
        for _ in 0..times {
            send(&node, &mut packets, from, port);
        }
    }
    let counted = node.0.counted(&packets);
    assert_eq!(of(&counted, "p"), rows([("0", 3), ("1", 2), ("end", 5)]));
    let end = End::TierDefault("default".to_owned());
    let ends: Vec<_> = counted
        .ends
        .iter()
        .map(|it| (&it.end, it.packets))
        .collect();
    assert_eq!(ends, [(&end, 5)]);
}

#[test]
fn two_policies_that_say_the_same_are_counted_apart() {
    let mut node = cluster();
    for name in ["a", "b"] {
        let port = if name == "a" { 80 } else { 81 };
        let ports = json!([{"port": port}, {"port": 90}]);
        node.policy(
            "x",
            name,
            &json!({"podSelector": {}, "ingress": [{"ports": ports}]}),
        );
    }
    node.0.compile();
    let mut packets = Packets::new();
    for port in [80, 81, 81, 90, 90, 90, 91] {
        send(&node, &mut packets, NEAR, port);
    }
    let counted = node.0.counted(&packets);
    assert_eq!(of(&counted, "a"), rows([("0", 4), ("end", 1)]));
    assert_eq!(of(&counted, "b"), rows([("0", 2), ("end", 1)]));
}

#[test]
fn a_rule_keeps_its_count_while_it_says_the_same_and_no_longer() {
    let mut node = cluster();
    let spec = |rules: &[Value]| json!({"podSelector": {}, "ingress": rules});
    node.policy("x", "p", &spec(&[near(80), near(81)]));
    let first = node.0.compile();
    node.0.applied(first.revision);
    let mut packets = Packets::new();
    for port in [80, 81, 81, 82] {
        send(&node, &mut packets, NEAR, port);
    }

    // Another rule comes before them, and the elements are others.
    node.policy("x", "p", &spec(&[near(79), near(80), near(81)]));
    let second = node.0.compile();
    node.0.count(&packets);
    node.0.applied(second.revision);
    let mut packets = Packets::new();
    for port in [79, 80] {
        send(&node, &mut packets, NEAR, port);
    }
    let counted = of(&node.0.counted(&packets), "p");
    assert_eq!(
        counted,
        rows([("0", 1), ("1", 2), ("2", 2), ("end", 1)]),
        "what went with the elements is not lost"
    );

    node.policy("x", "p", &spec(&[near(80), near(83)]));
    let third = node.0.compile();
    node.0.count(&packets);
    node.0.applied(third.revision);
    let counted = of(&node.0.counted(&Packets::new()), "p");
    assert_eq!(counted, rows([("0", 2), ("1", 0), ("end", 1)]));

    let key = node.0.policies.keys().next().unwrap().clone();
    node.0.delete_policy(&key);
    node.0.compile();
    node.policy("x", "p", &spec(&[near(80)]));
    node.0.compile();
    let counted = of(&node.0.counted(&Packets::new()), "p");
    assert_eq!(counted, rows([("0", 0), ("end", 0)]), "another policy");
}

#[test]
fn a_number_of_another_life_counts_for_nobody() {
    let mut node = cluster();
    node.policy("x", "p", &json!({"podSelector": {}, "ingress": [near(80)]}));
    node.0.compile();
    let mut packets = Packets::new();
    send(&node, &mut packets, NEAR, 80);
    let mut next = Engine::new();
    next.resume(node.0.tables());
    let mut next = Node(next);
    next.local(pod("x", "web", &[("app", "web")], &[WEB]))
        .remote(pod("x", "near", &[("app", "near")], &[NEAR]));
    next.policy("x", "p", &json!({"podSelector": {}, "ingress": [near(80)]}));
    next.0.compile();
    let counted = of(&next.0.counted(&packets), "p");
    assert_eq!(counted, rows([("0", 0), ("end", 0)]));
}

fn global(name: &str, spec: &Value) -> super::super::model::Policy {
    let object = json!({
        "apiVersion": "margay.io/v1", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name, "generation": 1}, "spec": spec,
    });
    margay::global_network_policy(&serde_json::from_value(object).unwrap()).unwrap()
}

#[test]
fn pass_log_and_what_audited_policies_would_decide_are_counted() {
    let mut node = cluster();
    node.0.apply_policy(global(
        "first",
        &json!({
            "order": 1, "selector": "app == 'web'", "types": ["Ingress"],
            "ingress": [
                {"action": "Log", "protocol": "TCP", "destination": {"ports": [80]}},
                {"action": "Deny", "protocol": "TCP", "destination": {"ports": [81]}},
                {"action": "Pass"},
            ],
        }),
    ));
    node.0.apply_policy(global(
        "trial",
        &json!({
            "order": 0, "selector": "app == 'web'", "types": ["Ingress"], "enforcement": "Audit",
            "ingress": [{"action": "Log"}, {"action": "Deny", "protocol": "TCP", "destination": {"ports": [80]}}],
        }),
    ));
    node.0.compile();
    let mut packets = Packets::new();
    for port in [80, 81, 81, 82, 82, 82] {
        send(&node, &mut packets, NEAR, port);
    }
    let counted = node.0.counted(&packets);
    assert_eq!(
        of(&counted, "first"),
        rows([("0", 1), ("1", 2), ("2", 4), ("end", 0)])
    );
    let mut trial = rows([("1", 1), ("end", 0)]);
    trial.insert("0".to_owned(), None);
    assert_eq!(of(&counted, "trial"), trial);
    let passed: Vec<_> = counted
        .ends
        .iter()
        .map(|it| (&it.end, it.packets))
        .collect();
    assert_eq!(passed, [(&End::Passed, 4)]);
}

#[test]
fn beyond_the_limit_programs_are_shared_again_and_counted_for_nobody() {
    let shared = |most: usize| {
        let mut node = cluster();
        node.0.most_counted = most;
        let teams = 0..20;
        for team in teams.clone() {
            let (name, address) = (format!("t{team}"), format!("10.0.2.{team}"));
            node.remote(pod("x", &name, &[("team", &name)], &[&address]));
            let from = json!([{"podSelector": {"matchLabels": {"team": name}}}]);
            let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": from, "ports": [{"port": 80}]}]});
            node.policy("x", &name, &spec);
        }
        node.0.compile();
        node
    };
    let (apart, merged) = (shared(1000), shared(5));
    assert_eq!(apart.0.tables().ports.len(), 20);
    assert!(
        merged.0.tables().ports.len() < 4,
        "{:?}",
        merged.0.tables().ports
    );
    let mut packets = Packets::new();
    for team in 0..20 {
        let address = format!("10.0.2.{team}");
        assert!(through(
            merged.0.tables(),
            Direction::Ingress,
            merged.0.tables().links.keys().next().unwrap(),
            ip(&address),
            TCP,
            80
        ));
        send(&merged, &mut packets, &address, 80);
    }
    let counted = merged.0.counted(&packets);
    let told: u64 = counted
        .policies
        .iter()
        .filter(|it| it.key.kind == PolicyKind::KubernetesNetworkPolicy)
        .flat_map(|it| it.rules.iter().filter_map(|rule| rule.packets))
        .sum();
    let untold: u64 = counted
        .ends
        .iter()
        .filter(|it| it.end == End::Untold)
        .map(|it| it.packets)
        .sum();
    assert_eq!(told + untold, 20);
    assert!(untold > 10, "{counted:?}");
}
