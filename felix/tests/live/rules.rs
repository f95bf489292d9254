//! Random policies, what they say by a reading of their own, and as objects of the API.

use std::collections::BTreeMap;
use std::net::IpAddr;

use felix::policy::k8s;
use felix::policy::model::{Policy, PolicyKey};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

use crate::network::HOSTS;

/// Numbers that look random and are the same in every run.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Below `sides`.
    pub(crate) const fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % sides
    }
}

/// Blocks in both families: where no pod is, everywhere, and everywhere but where pods are.
const NETS: [[(&str, &[&str]); 2]; 3] = [
    [("10.9.0.0/24", &[]), ("fd00:9::/64", &[])],
    [("0.0.0.0/0", &[]), ("::/0", &[])],
    [("0.0.0.0/0", &["10.1.0.0/16"]), ("::/0", &["fd00:1::/32"])],
];
/// Whether the hosts that are no pods, and the pods, are inside of each.
const INSIDE: [[bool; 2]; 3] = [[true, false], [true, true], [true, false]];

#[derive(Debug, Clone)]
enum Peer {
    /// Pods with this value of the label, or all.
    Pods(Option<usize>),
    Net(usize),
}

#[derive(Debug, Clone)]
struct Rule {
    /// None at all is every peer.
    peers: Vec<Peer>,
    /// Protocol, first and last port. None at all is every port.
    ports: Vec<(u8, u16, u16)>,
}

/// A policy of the namespace `t`.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    subject: Option<usize>,
    egress: Option<Vec<Rule>>,
    ingress: Option<Vec<Rule>>,
}

/// What a connection is to policy: ends as numbers of hosts, behind any translation of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

/// What is said at the moment: policies, and the label of each pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said {
    pub(crate) policies: BTreeMap<usize, Spec>,
    pub(crate) labels: Vec<usize>,
}

impl Spec {
    pub(crate) fn random(dice: &mut Dice) -> Self {
        let subject = some(dice);
        let directions = 1 + dice.roll(3);
        let mut rules = |bit: usize| {
            (directions & bit != 0).then(|| {
                let count = dice.roll(3);
                (0..count).map(|_| Rule::random(dice)).collect()
            })
        };
        Self {
            subject,
            egress: rules(1),
            ingress: rules(2),
        }
    }

    pub(crate) fn policy(&self, number: usize) -> Policy {
        let selector = |label: Option<usize>| match label {
            Some(value) => json!({ "matchLabels": { "x": value.to_string() } }),
            None => json!({}),
        };
        let rules = |rules: &[Rule], side: &str| -> Value {
            rules.iter().map(|rule| rule.object(side)).collect()
        };
        let mut spec = json!({ "podSelector": selector(self.subject), "policyTypes": [] });
        for (name, side, list) in [
            ("Egress", "to", &self.egress),
            ("Ingress", "from", &self.ingress),
        ] {
            if let Some(list) = list {
                spec["policyTypes"]
                    .as_array_mut()
                    .expect("a list")
                    .push(name.into());
                spec[name.to_lowercase()] = rules(list, side);
            }
        }
        let object =
            json!({ "metadata": { "namespace": "t", "name": format!("p{number}") }, "spec": spec });
        let object: NetworkPolicy = serde_json::from_value(object).expect("a policy");
        k8s::parse(&object).expect("a policy")
    }
}

/// The key of policy `number`.
pub(crate) fn key(number: usize) -> PolicyKey {
    let object = json!({ "metadata": { "namespace": "t", "name": format!("p{number}") } });
    k8s::key(&serde_json::from_value(object).expect("a policy"))
}

fn some(dice: &mut Dice) -> Option<usize> {
    match dice.roll(4) {
        3 => None,
        value => Some(value),
    }
}

impl Rule {
    fn random(dice: &mut Dice) -> Self {
        let count = dice.roll(3);
        let peers = (0..count).map(|_| match dice.roll(3) {
            0 => Peer::Net(dice.roll(NETS.len())),
            _ => Peer::Pods(some(dice)),
        });
        let peers = peers.collect();
        let ports = match dice.roll(6) {
            0..3 => vec![],
            3 => vec![(6, 8080, 8080), (17, 5001, 5001)],
            4 => vec![(6, 1, u16::MAX)],
            _ => vec![(17, 5001, 5002), (6, 8081, 9000)],
        };
        Self { peers, ports }
    }

    fn object(&self, side: &str) -> Value {
        let peers = self.peers.iter().flat_map(|peer| match peer {
            Peer::Pods(Some(value)) => {
                vec![json!({ "podSelector": { "matchLabels": { "x": value.to_string() } } })]
            }
            Peer::Pods(None) => vec![json!({ "podSelector": {} })],
            Peer::Net(net) => NETS[*net]
                .iter()
                .map(|(cidr, except)| json!({ "ipBlock": { "cidr": cidr, "except": except } }))
                .collect(),
        });
        let peers: Vec<Value> = peers.collect();
        let ports = self.ports.iter().map(|(protocol, first, last)| {
            let protocol = if *protocol == 6 { "TCP" } else { "UDP" };
            json!({ "protocol": protocol, "port": first, "endPort": last })
        });
        let ports: Vec<Value> = ports.collect();
        json!({ side: peers, "ports": ports })
    }
}

impl Said {
    /// Whether both ends agree to it.
    pub(crate) fn allows(&self, question: Question) -> bool {
        self.side(question.from, question.to, question, |spec| &spec.egress)
            && self.side(question.to, question.from, question, |spec| &spec.ingress)
    }

    fn side(
        &self,
        own: usize,
        other: usize,
        question: Question,
        rules: impl Fn(&Spec) -> &Option<Vec<Rule>>,
    ) -> bool {
        let Some(label) = self.labels.get(own) else {
            return true;
        };
        let mut isolated = false;
        for spec in self.policies.values() {
            let selected = spec.subject.is_none_or(|subject| subject == *label);
            let Some(rules) = rules(spec).as_ref().filter(|_| selected) else {
                continue;
            };
            isolated = true;
            if rules.iter().any(|rule| self.matches(rule, other, question)) {
                return true;
            }
        }
        !isolated
    }

    fn matches(&self, rule: &Rule, other: usize, question: Question) -> bool {
        let label = self.labels.get(other);
        let peer = rule.peers.is_empty()
            || rule.peers.iter().any(|peer| match peer {
                Peer::Pods(wanted) => {
                    label.is_some_and(|label| wanted.is_none_or(|wanted| wanted == *label))
                }
                Peer::Net(net) => INSIDE[*net][usize::from(label.is_some())],
            });
        peer && (rule.ports.is_empty()
            || rule.ports.iter().any(|(protocol, first, last)| {
                *protocol == question.protocol && (*first..=*last).contains(&question.port)
            }))
    }
}

/// A pod's identity: its address stays, its uid tells it from those which had the address before.
pub(crate) fn uid(pod: usize, life: usize) -> String {
    format!("{}-{life}", HOSTS[pod])
}

/// Addresses of a host.
pub(crate) fn addresses(host: usize) -> [IpAddr; 2] {
    match host {
        pod if pod < HOSTS.len() - 1 => [
            format!("10.1.0.{}", pod + 1).parse().expect("address"),
            format!("fd00:1::{}", pod + 1).parse().expect("address"),
        ],
        _ => ["10.9.0.2", "fd00:9::2"].map(|text| text.parse().expect("address")),
    }
}
