//! The whole of policy, from objects to verdicts of the tables.

mod cost;
mod counters;
mod dice;
mod numbers;
mod oracle;
mod own;
mod random;
mod reference;
mod semantics;
mod tiers;
mod whole;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::model::protocol::{ICMP, ICMP6};
use super::tables::{
    Answer, Change, Class, Direction, Guard, HostHook, Program, Subject, Tables, Verdict,
};
use super::{Engine, Traffic, k8s};
use crate::feed::{Identity, Labels, LocalEndpoint, NamedPort};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A pod; its UID is `namespace/name`.
fn pod(namespace: &str, name: &str, pairs: &[(&str, &str)], addresses: &[&str]) -> Identity {
    Identity {
        uid: format!("{namespace}/{name}").into(),
        namespace: namespace.into(),
        name: name.into(),
        labels: labels(pairs),
        service_account: "default".into(),
        created: 0,
        addresses: addresses.iter().copied().map(ip).collect(),
        named_ports: [].into(),
        host_network: false,
    }
}

fn named(name: &str, protocol: u8, port: u16) -> NamedPort {
    NamedPort {
        name: name.to_owned(),
        protocol,
        port,
    }
}

fn endpoint_of(pod: &Identity) -> LocalEndpoint {
    LocalEndpoint {
        uid: pod.uid.to_string(),
        namespace: pod.namespace.to_string(),
        pod: pod.name.to_string(),
        addresses: pod.addresses.to_vec(),
    }
}

fn object(
    namespace: &str,
    name: &str,
    spec: &Value,
) -> k8s_openapi::api::networking::v1::NetworkPolicy {
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name, "generation": 1}, "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

fn network_policy(namespace: &str, name: &str, spec: &Value) -> super::model::Policy {
    k8s::parse(&object(namespace, name, spec)).unwrap()
}

/// What the fixed rules make of the tables: the lookups of a packet, in their order.
fn lookup(
    tables: &Tables,
    direction: Direction,
    subject: Subject,
    peer: IpAddr,
    traffic: Traffic,
) -> Answer {
    if !subject.isolated(direction) {
        return Answer::ALLOW;
    }
    let class = class_of(tables, peer);
    let program = tables.pairs.get(&(direction, subject, class));
    let Some(&program) = program.or_else(|| tables.defaults.get(&(direction, subject))) else {
        return Answer::DENY;
    };
    run(tables, program, traffic)
}

fn class_of(tables: &Tables, peer: IpAddr) -> Class {
    let interval = || {
        let end = (peer, IpAddr::from([0xffff_u16; 8]));
        let (&(_, last), class) = tables.nets.range(..=end).next_back()?;
        (last >= peer).then_some(*class)
    };
    let single = tables.peers.get(&peer).copied();
    single.or_else(interval).unwrap_or(Class::NONE)
}

/// The same at a hook of a host endpoint.
fn lookup_host(
    tables: &Tables,
    hook: HostHook,
    interface: &str,
    [own_address, peer]: [IpAddr; 2],
    traffic: Traffic,
) -> Answer {
    let (guard, nothing) = if hook.is_raw() {
        (Guard::Packets, Answer::PASS)
    } else {
        (Guard::Flows, Answer::ALLOW)
    };
    if !tables.guard.contains_key(&guard) {
        return nothing;
    }
    let own = Some(interface.to_owned());
    let class = class_of(tables, peer);
    let by_class = Some(class).filter(|class| *class != Class::NONE);
    let row = |interface, class| tables.hosts.get(&(hook, interface, class));
    let program = by_class
        .and_then(|class| row(own.clone(), Some(class)))
        .or_else(|| row(own.clone(), None))
        .or_else(|| by_class.and_then(|class| row(None, Some(class))))
        .or_else(|| row(None, None));
    let Some(&program) = program else {
        return nothing;
    };
    if !program.is_owned() {
        return run(tables, program, traffic);
    }
    let mut spans = tables.owns.iter();
    let found = spans.find(|((of, first, last), _)| {
        *of == program
            && first.is_ipv4() == own_address.is_ipv4()
            && (*first..=*last).contains(&own_address)
    });
    let found = found.map(|(_, to)| to);
    let to = found.or_else(|| tables.own_rest.get(&program));
    to.map_or(Answer::DENY, |to| run(tables, *to, traffic))
}

/// What a program answers.
fn run(tables: &Tables, program: Program, traffic: Traffic) -> Answer {
    let Traffic {
        protocol,
        source_port,
        port,
    } = traffic;
    if let Some(answer) = program.answer() {
        return answer;
    }
    let within = |(of, kind, first, last): (Program, u8, u16, u16), at: u16| {
        of == program && kind == protocol && (first..=last).contains(&at)
    };
    if program.is_refined() {
        let mut sources = tables.sources.range((program, protocol, 0, 0)..);
        let found = sources.find(|(key, _)| key.0 != program || within(**key, source_port));
        let found = found.filter(|(key, _)| key.0 == program).map(|it| it.1);
        let Some(&inner) = found.or_else(|| tables.source_rest.get(&program)) else {
            return Answer::DENY;
        };
        assert!(!inner.is_refined(), "refined twice");
        return run(tables, inner, traffic);
    }
    let icmp = || {
        let icmp = protocol == ICMP || protocol == ICMP6;
        icmp.then(|| tables.icmp.get(&(program, protocol, port)))
            .flatten()
    };
    let range = || {
        let mut ranges = tables.port_ranges.range((program, protocol, 0, 0)..);
        let found = ranges.find(|(key, _)| key.0 != program || within(**key, port));
        found.filter(|(key, _)| key.0 == program).map(|it| it.1)
    };
    let answer = tables
        .ports
        .get(&(program, protocol, port))
        .or_else(icmp)
        .or_else(|| tables.programs.get(&program))
        .or_else(range)
        .or_else(|| tables.protos.get(&(program, protocol)))
        .or_else(|| tables.programs_ranged.get(&program));
    answer.copied().unwrap_or(Answer::DENY)
}

/// The verdict on a flow of the endpoint behind an interface: an interface without a link is denied.
fn through(
    tables: &Tables,
    direction: Direction,
    ifname: &str,
    peer: IpAddr,
    protocol: u8,
    port: u16,
) -> bool {
    let traffic = Traffic {
        protocol,
        source_port: 0,
        port,
    };
    let subject = tables.links.get(ifname);
    subject.is_some_and(|subject| {
        lookup(tables, direction, *subject, peer, traffic).verdict == Verdict::Allow
    })
}

/// A copy of the tables that knows only the changes.
#[derive(Default)]
struct Mirror(Tables);

impl Mirror {
    fn follow(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.0.apply(change);
        }
    }
}

/// How many elements each map has: the same for two tables that differ in numbers only.
fn shape(tables: &Tables) -> BTreeMap<&'static str, usize> {
    BTreeMap::from([
        ("workloads", tables.workloads.len()),
        ("peers", tables.peers.len()),
        ("nets", tables.nets.len()),
        ("pairs", tables.pairs.len()),
        ("defaults", tables.defaults.len()),
        ("ports", tables.ports.len()),
        ("port_ranges", tables.port_ranges.len()),
        ("icmp", tables.icmp.len()),
        ("protos", tables.protos.len()),
        ("programs", tables.programs.len()),
        ("programs_ranged", tables.programs_ranged.len()),
        ("sources", tables.sources.len()),
        ("source_rest", tables.source_rest.len()),
        ("links", tables.links.len()),
        ("hosts", tables.hosts.len()),
        ("owns", tables.owns.len()),
        ("own_rest", tables.own_rest.len()),
        ("guard", tables.guard.len()),
    ])
}

/// A cluster of which one node is seen.
struct Node(Engine);

impl Node {
    fn new() -> Self {
        let mut engine = Engine::new();
        for (name, team) in [("x", "red"), ("y", "blue"), ("z", "red")] {
            engine.apply_namespace(
                name,
                labels(&[("kubernetes.io/metadata.name", name), ("team", team)]),
            );
        }
        Self(engine)
    }

    fn remote(&mut self, pod: Identity) -> &mut Self {
        self.0.apply_identity(pod);
        self
    }

    /// Attaches a pod; its interface is called like the pod.
    fn local(&mut self, pod: Identity) -> &mut Self {
        self.0.set_local(&pod.name, endpoint_of(&pod));
        self.remote(pod)
    }

    fn policy(&mut self, namespace: &str, name: &str, spec: &Value) -> &mut Self {
        self.0.apply_policy(network_policy(namespace, name, spec));
        self
    }

    fn allows(
        &mut self,
        direction: Direction,
        ifname: &str,
        peer: &str,
        protocol: u8,
        port: u16,
    ) -> bool {
        self.0.compile();
        through(self.0.tables(), direction, ifname, ip(peer), protocol, port)
    }

    fn ingress(&mut self, ifname: &str, peer: &str, protocol: u8, port: u16) -> bool {
        self.allows(Direction::Ingress, ifname, peer, protocol, port)
    }

    fn egress(&mut self, ifname: &str, peer: &str, protocol: u8, port: u16) -> bool {
        self.allows(Direction::Egress, ifname, peer, protocol, port)
    }
}
