//! Tiers, orders, Deny and Pass: what NetworkPolicy has no words for yet.

use proptest::prelude::*;
use proptest::sample::select;

use super::super::labels::{LabelSelector, Requirement, Test};
use super::super::model::{
    Action, Enforcement, NamespaceSelector, Order, Peer, PeerList, PodSelector, Policy, PolicyKey,
    PolicyKind, PortMatch, Rule, Selection, Stage, Term, Tier,
};
use super::super::{Decided, RuleRef};
use super::*;

fn app(value: &str) -> PodSelector {
    let values = std::collections::BTreeSet::from([value.to_owned()]);
    PodSelector {
        namespaces: NamespaceSelector::Labels(LabelSelector::default()),
        pods: LabelSelector::new([Requirement {
            key: "app".to_owned(),
            test: Test::In(values),
        }]),
    }
}

fn rule(action: Action, peers: Option<Vec<Peer>>, ports: Option<Vec<PortMatch>>) -> Rule {
    Rule {
        peers: peers.map(PeerList::new).map(Term::is).into_iter().collect(),
        traffic: ports.map(Term::is).into_iter().collect(),
        ..Rule::new(action)
    }
}

fn policy(tier: &str, order: f64, name: &str, ingress: Vec<Rule>) -> Policy {
    Policy {
        key: PolicyKey {
            namespace: String::new(),
            name: name.to_owned(),
            kind: PolicyKind::GlobalNetworkPolicy,
        },
        uid: String::new(),
        generation: 1,
        tier: tier.to_owned(),
        order: Order(order),
        subject: Selection::Pods(app("web")),
        enforcement: Enforcement::Enforce,
        stage: Stage::Normal,
        egress: None,
        ingress: Some(ingress),
    }
}

fn tier(name: &str, order: f64, default_action: Action) -> Tier {
    Tier {
        name: name.to_owned(),
        order: Order(order),
        default_action,
    }
}

fn node() -> Node {
    let mut node = Node::new();
    node.local(pod("x", "web", &[("app", "web")], &["10.0.0.1"]))
        .remote(pod("x", "db", &[("app", "db")], &["10.0.0.2"]))
        .remote(pod("y", "far", &[("app", "web")], &["10.0.0.3"]));
    node.0.apply_tier(tier("admin", 1.0, Action::Pass));
    node
}

const DB: &str = "10.0.0.2";
const FAR: &str = "10.0.0.3";

#[test]
fn order_then_name_and_the_first_match_decides() {
    let mut node = node();
    node.0.apply_policy(policy(
        "default",
        2.0,
        "a",
        vec![rule(Action::Allow, None, None)],
    ));
    node.0.apply_policy(policy(
        "default",
        1.0,
        "z",
        vec![rule(Action::Deny, Some(vec![Peer::Pods(app("db"))]), None)],
    ));
    assert!(!node.ingress("web", DB, TCP, 80) && node.ingress("web", FAR, TCP, 80));
    // Equal orders go by name.
    node.0.apply_policy(policy(
        "default",
        1.0,
        "a",
        vec![rule(Action::Allow, None, None)],
    ));
    assert!(node.ingress("web", DB, TCP, 80));
}

#[test]
fn pass_skips_the_rest_of_the_tier_and_the_tier_default_ends_it() {
    let mut node = node();
    let passing = vec![
        rule(Action::Pass, Some(vec![Peer::Pods(app("db"))]), None),
        rule(
            Action::Deny,
            None,
            Some(vec![PortMatch::Ports {
                protocol: TCP,
                first: 22,
                last: 22,
            }]),
        ),
    ];
    node.0.apply_policy(policy("admin", 1.0, "admin", passing));
    assert!(
        node.ingress("web", DB, TCP, 22),
        "no policy below, so what passes is allowed"
    );
    assert!(!node.ingress("web", FAR, TCP, 22) && node.ingress("web", FAR, TCP, 80));
    node.0
        .apply_policy(policy("default", 1.0, "np", Vec::new()));
    assert!(!node.ingress("web", DB, TCP, 22) && !node.ingress("web", FAR, TCP, 80));
    node.0.apply_tier(tier("admin", 1.0, Action::Deny));
    let (_, trace) = node
        .0
        .judge(Direction::Ingress, "x/web", ip(FAR), TCP, 80)
        .unwrap();
    assert!(
        matches!(&trace.decided, Decided::TierDefault { tier, policies } if tier == "admin" && policies.len() == 1)
    );
    let (verdict, trace) = node
        .0
        .judge(Direction::Ingress, "x/web", ip(DB), TCP, 22)
        .unwrap();
    assert_eq!(verdict, Verdict::Deny);
    let passed: Vec<_> = trace
        .passed
        .iter()
        .map(|RuleRef { policy, index, .. }| (policy.name.as_str(), *index))
        .collect();
    assert_eq!(passed, [("admin", 0)]);
}

#[test]
fn a_tier_nobody_declared_comes_last_and_denies() {
    let mut node = node();
    node.0.apply_policy(policy(
        "later",
        0.0,
        "l",
        vec![rule(Action::Allow, Some(vec![Peer::Pods(app("db"))]), None)],
    ));
    assert!(node.ingress("web", DB, TCP, 80) && !node.ingress("web", FAR, TCP, 80));
    node.0.apply_policy(policy(
        "default",
        9.0,
        "d",
        vec![rule(Action::Deny, None, None)],
    ));
    assert!(!node.ingress("web", DB, TCP, 80));
}

#[test]
fn icmp_answers_are_judged_like_their_requests() {
    let mut node = node();
    let ping = PortMatch::Icmp {
        protocol: ICMP,
        kind: 8,
        code: None,
    };
    let unreachable = PortMatch::Icmp {
        protocol: ICMP,
        kind: 3,
        code: Some(4),
    };
    node.0.apply_policy(policy(
        "default",
        1.0,
        "p",
        vec![rule(Action::Allow, None, Some(vec![ping, unreachable]))],
    ));
    for (message, allowed) in [
        (0x0800, true),
        (0x0000, true),
        (0x0304, true),
        (0x0303, false),
        (0x0d00, false),
    ] {
        assert_eq!(
            node.ingress("web", DB, ICMP, message),
            allowed,
            "{message:#x}"
        );
    }
    assert!(!node.ingress("web", DB, ICMP6, 0x8000) && !node.ingress("web", DB, TCP, 80));
}

#[test]
fn a_rule_with_an_empty_list_matches_nothing() {
    let mut node = node();
    let never = vec![
        rule(Action::Allow, Some(vec![]), None),
        rule(Action::Allow, None, Some(vec![])),
    ];
    node.0.apply_policy(policy("default", 1.0, "p", never));
    assert!(!node.ingress("web", DB, TCP, 80));
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let net = |cidr: &str, except: &[&str]| Peer::Net {
        cidr: cidr.parse().unwrap(),
        except: except.iter().map(|it| it.parse().unwrap()).collect(),
    };
    let peers = vec![
        Peer::Pods(app("db")),
        Peer::Pods(app("web")),
        net("10.0.0.0/8", &["10.0.0.2/31"]),
        net("0.0.0.0/0", &[]),
    ];
    let ports = vec![
        PortMatch::Protocol(TCP),
        PortMatch::Ports {
            protocol: TCP,
            first: 80,
            last: 80,
        },
        PortMatch::Ports {
            protocol: TCP,
            first: 50,
            last: 200,
        },
        PortMatch::Ports {
            protocol: UDP,
            first: 0,
            last: 65535,
        },
        PortMatch::Named {
            protocol: TCP,
            name: "http".to_owned(),
        },
        PortMatch::Icmp {
            protocol: ICMP,
            kind: 8,
            code: None,
        },
        PortMatch::Icmp {
            protocol: ICMP,
            kind: 3,
            code: Some(1),
        },
    ];
    (
        select(vec![Action::Allow, Action::Deny, Action::Pass]),
        proptest::option::of(proptest::sample::subsequence(peers, 0..3)),
        proptest::option::of(proptest::sample::subsequence(ports, 0..4)),
    )
        .prop_map(|(action, peers, ports)| rule(action, peers, ports))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn tables_say_what_the_explanation_says(
        policies in proptest::collection::vec(
            (select(vec!["admin", "default", "other"]), 0..3_i8, 0..4_u8, proptest::collection::vec(any_rule(), 0..4), any::<bool>()),
            1..8,
        ),
        default in select(vec![Action::Pass, Action::Deny, Action::Allow]),
    ) {
        let mut node = node();
        let mut db = pod("x", "db", &[("app", "db")], &[DB]);
        db.named_ports = [named("http", TCP, 80), named("http", TCP, 81)].into();
        node.remote(db);
        node.0.apply_tier(tier("admin", 1.0, default));
        for (tier, order, name, rules, egress) in policies {
            let mut policy = policy(tier, f64::from(order), &format!("p{name}"), rules);
            if egress {
                policy.egress = policy.ingress.take();
            }
            node.0.apply_policy(policy);
            let narrowing = {
                let before = node.0.tables().clone();
                let narrowing = node.0.compile().narrowing;
                (before, narrowing)
            };
            for peer in [DB, FAR, "10.9.9.9", "192.0.2.1"] {
                for (protocol, port) in [
                    (TCP, 79), (TCP, 80), (TCP, 81), (TCP, 201), (UDP, 0), (ICMP, 0x0800), (ICMP, 0), (ICMP, 0x0301),
                    (ICMP, 0x0302), (47, 0),
                ] {
                    for direction in Direction::BOTH {
                        let (verdict, _) = node.0.judge(direction, "x/web", ip(peer), protocol, port).unwrap();
                        let now = through(node.0.tables(), direction, "web", ip(peer), protocol, port);
                        prop_assert_eq!(now, verdict == Verdict::Allow);
                        let was = through(&narrowing.0, direction, "web", ip(peer), protocol, port);
                        prop_assert!(!was || now || narrowing.1, "{} {}/{} died unnoticed", peer, protocol, port);
                    }
                }
            }
        }
    }
}
