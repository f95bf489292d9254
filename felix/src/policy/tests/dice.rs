//! Random objects, few enough that they meet.

use std::net::IpAddr;

use super::super::labels::{LabelSelector, Requirement, Test};
use super::super::model::{
    Action, EndpointSelector, Enforcement, NamespaceSelector, Order, Peer, PeerList, PodSelector,
    Policy, PolicyKey, PolicyKind, PortMatch, Rule, Scope, Selection, ServiceAccounts, Stage, Term,
};
use super::*;

/// Numbers that look random and are the same every time (xorshift64*).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let roll = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(roll).unwrap() % sides
    }

    pub(super) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// Once in so many times.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(super) fn some<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }
}

pub(super) const NAMESPACES: [&str; 3] = ["x", "y", "z"];

pub(super) fn addresses() -> Vec<IpAddr> {
    let pods = (1..=4).flat_map(|n| [format!("10.0.0.{n}"), format!("fd00::{n}")]);
    let endpoints = (0..3).flat_map(|n| [format!("10.0.1.{n}"), format!("fd00::1:{n}")]);
    let others = ["192.0.2.7", "10.0.0.77", "2001:db8::7", "192.0.2.130"].map(str::to_owned);
    pods.chain(endpoints)
        .chain(others)
        .map(|text| ip(&text))
        .collect()
}

/// Protocol, source port, port.
pub(super) const TRAFFIC: [(u8, u16, u16); 16] = [
    (TCP, 40000, 79),
    (TCP, 40000, 80),
    (TCP, 53, 80),
    (TCP, 1024, 443),
    (TCP, 40000, 8080),
    (TCP, 53, 65535),
    (UDP, 53, 53),
    (UDP, 40000, 53),
    (UDP, 1024, 8100),
    (SCTP, 53, 80),
    (136, 53, 80),
    (ICMP, 0, 0x0800),
    (ICMP, 0, 0x0301),
    (ICMP6, 0, 0x8000),
    (ICMP6, 0, 0x8003),
    (47, 0, 0),
];

pub(super) fn some_labels(dice: &mut Dice) -> Labels {
    let mut labels = BTreeMap::new();
    for (key, values) in [("app", ["web", "db"]), ("stage", ["dev", "live"])] {
        if !dice.once_in(3) {
            labels.insert(key.to_owned(), dice.pick(&values).to_owned());
        }
    }
    labels.into()
}

pub(super) fn selector(dice: &mut Dice) -> crds::selector::Selector {
    let text = dice.pick(&[
        "all()",
        "all()",
        "app == 'web'",
        "app != 'web'",
        "has(stage)",
        "!has(app)",
        "app in {'web','db'} && stage not in {'dev'}",
        "stage starts with 'l' || app contains 'e'",
        "stage ends with 'v'",
        "margay.io/namespace == 'x'",
        "margay.io/serviceaccount == 'admin'",
        "margay.io/name in {'x','admin'}",
    ]);
    text.parse().unwrap()
}

pub(super) fn kubernetes_selector(dice: &mut Dice) -> LabelSelector {
    let values = |values: &[&str]| values.iter().map(|it| (*it).to_owned()).collect();
    let requirements = dice.some(1, |dice| Requirement {
        key: dice.pick(&["app", "stage"]).to_owned(),
        test: dice.pick(&[
            Test::In(values(&["web", "dev"])),
            Test::NotIn(values(&["db", "live"])),
            Test::Exists,
            Test::DoesNotExist,
        ]),
    });
    LabelSelector::new(requirements)
}

pub(super) fn pods(dice: &mut Dice) -> PodSelector {
    let namespaces = match dice.below(2) {
        0 => NamespaceSelector::Named(dice.pick(&NAMESPACES).to_owned()),
        _ => NamespaceSelector::Labels(kubernetes_selector(dice)),
    };
    PodSelector {
        namespaces,
        pods: kubernetes_selector(dice),
    }
}

pub(super) fn endpoints(dice: &mut Dice) -> EndpointSelector {
    let scope = match dice.below(5) {
        0 | 1 => Scope::Anywhere,
        2 => Scope::Namespace(dice.pick(&NAMESPACES).to_owned()),
        3 => Scope::Namespaces(selector(dice)),
        _ => Scope::Global,
    };
    let service_accounts = dice.once_in(5).then(|| ServiceAccounts {
        names: dice
            .some(1, |dice| dice.pick(&["admin", "default"]).to_owned())
            .into_iter()
            .collect(),
        labels: selector(dice),
    });
    EndpointSelector {
        scope,
        labels: selector(dice),
        service_accounts,
    }
}

pub(super) fn net(dice: &mut Dice) -> ipnetwork::IpNetwork {
    let nets = [
        "0.0.0.0/0",
        "::/0",
        "10.0.0.0/16",
        "10.0.0.1/32",
        "10.0.1.0/31",
        "192.0.2.0/25",
        "192.0.2.0/24",
        "fd00::/64",
        "fd00::1:0/127",
        "2001:db8::/32",
    ];
    dice.pick(&nets).parse().unwrap()
}

pub(super) fn peer(dice: &mut Dice) -> Peer {
    match dice.below(8) {
        0 | 1 => Peer::Pods(pods(dice)),
        2..=4 => Peer::Endpoints(endpoints(dice)),
        5 => {
            let cidr = net(dice);
            let except = dice.some(2, net);
            let except = except
                .into_iter()
                .filter(|it| it.is_ipv4() == cidr.is_ipv4() && it.prefix() > cidr.prefix());
            Peer::Net {
                cidr,
                except: except.filter(|it| cidr.contains(it.ip())).collect(),
            }
        }
        6 => Peer::Nodes(kubernetes_selector(dice)),
        _ => Peer::Service {
            namespace: "x".to_owned(),
            name: dice.pick(&["s0", "s1"]).to_owned(),
        },
    }
}

pub(super) fn peers(dice: &mut Dice) -> Term<PeerList> {
    Term {
        negated: dice.once_in(3),
        any: PeerList::new(dice.some(2, peer)),
    }
}

pub(super) fn port(dice: &mut Dice, destination: bool) -> PortMatch {
    let protocol = dice.pick(&[TCP, TCP, UDP, SCTP, 136]);
    match dice.below(if destination { 7 } else { 4 }) {
        0 => PortMatch::Protocol(dice.pick(&[TCP, UDP, SCTP, ICMP, ICMP6, 47])),
        1 => {
            let first = dice.pick(&[53, 80, 443, 8080]);
            let last = first;
            PortMatch::Ports {
                protocol,
                first,
                last,
            }
        }
        2 => PortMatch::Ports {
            protocol,
            first: dice.pick(&[0, 53, 80]),
            last: dice.pick(&[80, 1024, 8100, 65535]),
        },
        3 => PortMatch::Named {
            protocol: dice.pick(&[TCP, UDP]),
            name: dice.pick(&["http", "dns"]).to_owned(),
        },
        4 => PortMatch::Service {
            namespace: "x".to_owned(),
            name: dice.pick(&["s0", "s1"]).to_owned(),
        },
        _ => {
            let (protocol, kind) = dice.pick(&[(ICMP, 8), (ICMP, 3), (ICMP6, 128)]);
            PortMatch::Icmp {
                protocol,
                kind,
                code: dice.pick(&[None, Some(0), Some(1), Some(3)]),
            }
        }
    }
}

pub(super) fn rule(dice: &mut Dice) -> Rule {
    let actions = [
        Action::Allow,
        Action::Allow,
        Action::Deny,
        Action::Pass,
        Action::Log,
    ];
    let ports = |dice: &mut Dice, destination| Term {
        negated: dice.once_in(3),
        any: dice.some(2, |dice| port(dice, destination)),
    };
    Rule {
        action: dice.pick(&actions),
        peers: dice.some(2, peers),
        own: if dice.once_in(4) {
            vec![peers(dice)]
        } else {
            Vec::new()
        },
        traffic: dice.some(2, |dice| ports(dice, true)),
        source_ports: if dice.once_in(4) {
            vec![ports(dice, false)]
        } else {
            Vec::new()
        },
    }
}

pub(super) fn key(number: usize) -> PolicyKey {
    PolicyKey {
        namespace: String::new(),
        name: format!("policy-{number}"),
        kind: PolicyKind::GlobalNetworkPolicy,
    }
}

pub(super) fn policy(dice: &mut Dice, number: usize) -> Policy {
    let stages = [Stage::Normal, Stage::Normal, Stage::ApplyOnForward];
    Policy {
        key: key(number),
        uid: String::new(),
        generation: 1,
        tier: dice
            .pick(&["default", "default", "admin", "late"])
            .to_owned(),
        order: Order(dice.pick(&[1.0, 2.0])),
        subject: match dice.below(2) {
            0 => Selection::Pods(pods(dice)),
            _ => Selection::Endpoints(endpoints(dice)),
        },
        enforcement: if dice.once_in(5) {
            Enforcement::Audit
        } else {
            Enforcement::Enforce
        },
        stage: if dice.once_in(4) {
            dice.pick(&[Stage::PreDnat, Stage::DoNotTrack])
        } else {
            dice.pick(&stages)
        },
        egress: (!dice.once_in(3)).then(|| dice.some(3, rule)),
        ingress: (!dice.once_in(3)).then(|| dice.some(3, rule)),
    }
}

pub(super) fn uid(number: usize) -> String {
    format!("uid-{number}")
}

pub(super) fn identity(dice: &mut Dice, number: usize) -> Identity {
    let names = [
        vec![],
        vec![named("http", TCP, 80)],
        vec![named("http", TCP, 8080), named("dns", UDP, 53)],
        vec![named("dns", TCP, 53), named("http", UDP, 8100)],
    ];
    let at = 1 + dice.below(4);
    Identity {
        uid: uid(number).into(),
        namespace: dice.pick(&NAMESPACES).into(),
        name: format!("pod-{number}").into(),
        labels: some_labels(dice),
        service_account: dice.pick(&["default", "admin"]).into(),
        created: i64::try_from(dice.below(4)).unwrap(),
        addresses: [ip(&format!("10.0.0.{at}")), ip(&format!("fd00::{at}"))].into(),
        named_ports: dice.pick(&names).into(),
        host_network: dice.once_in(12),
    }
}
