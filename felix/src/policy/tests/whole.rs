//! Random clusters under policies that use every word of the model: tables and explanation say what the reference says.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::model::{Action, DEFAULT_TIER, DEFAULT_TIER_ORDER, Order, Tier};
use super::dice::{
    Dice, NAMESPACES, TRAFFIC, addresses, identity, key, net, policy, some_labels, uid,
};
use super::reference::{Cluster, Flow, Judged, Said};
use super::*;
use crate::feed::{
    HostEndpoint, HostInterface, NetworkSet, NodeAddresses, ServiceAccount, ServiceBackends,
};

/// Changes something, for both.
fn change(dice: &mut Dice, engine: &mut Engine, cluster: &mut Cluster) {
    let some_address = |dice: &mut Dice| dice.pick(&addresses());
    match dice.below(22) {
        0 => {
            let name = dice.pick(&NAMESPACES);
            if dice.once_in(4) {
                engine.delete_namespace(name);
                cluster.namespaces.remove(name);
            } else {
                let labels = some_labels(dice);
                engine.apply_namespace(name, labels.clone());
                cluster.namespaces.insert(name.to_owned(), labels);
            }
        }
        1 => {
            let account = ServiceAccount {
                namespace: dice.pick(&NAMESPACES).to_owned(),
                name: dice.pick(&["default", "admin"]).to_owned(),
                labels: some_labels(dice),
            };
            let key = (account.namespace.clone(), account.name.clone());
            if dice.once_in(4) {
                engine.delete_service_account(&key.0, &key.1);
                cluster.accounts.remove(&key);
            } else {
                cluster.accounts.insert(key, account.labels.clone());
                engine.apply_service_account(account);
            }
        }
        2..=6 => {
            let number = dice.below(6);
            if dice.once_in(4) {
                engine.delete_identity(&uid(number));
                let attached = cluster.endpoints.values().any(|it| it.uid == uid(number));
                match cluster.pods.get_mut(&uid(number)) {
                    Some((_, gone)) if attached => *gone = true,
                    _ => drop(cluster.pods.remove(&uid(number))),
                }
            } else {
                let pod = identity(dice, number);
                engine.apply_identity(pod.clone());
                cluster.pods.insert(uid(number), (pod, false));
            }
        }
        7 => {
            let number = dice.below(3);
            let ifname = format!("mgy{number}");
            if dice.once_in(3) {
                engine.remove_local(&ifname);
                cluster.endpoints.remove(&ifname);
                if cluster.pods.get(&uid(number)).is_some_and(|it| it.1) {
                    cluster.pods.remove(&uid(number));
                }
            } else {
                let endpoint = LocalEndpoint {
                    uid: uid(number),
                    namespace: "x".to_owned(),
                    pod: format!("pod-{number}"),
                    addresses: vec![
                        ip(&format!("10.0.1.{number}")),
                        ip(&format!("fd00::1:{number}")),
                    ],
                };
                engine.set_local(&ifname, endpoint.clone());
                cluster.endpoints.insert(ifname, endpoint);
            }
        }
        8 | 9 => {
            let namespace = dice.pick(&[None, Some("x"), Some("y")]).map(str::to_owned);
            let name = dice.pick(&["n0", "n1"]);
            let key = (namespace.clone(), name.to_owned());
            if dice.once_in(4) {
                engine.delete_network_set(namespace.as_deref(), name);
                cluster.sets.remove(&key);
            } else {
                let set = NetworkSet {
                    namespace,
                    name: name.to_owned(),
                    labels: some_labels(dice),
                    nets: dice.some(3, net),
                };
                engine.apply_network_set(set.clone());
                cluster.sets.insert(key, set);
            }
        }
        10 | 11 => {
            let key = ("x".to_owned(), dice.pick(&["s0", "s1"]).to_owned());
            if dice.once_in(4) {
                engine.delete_service(&key.0, &key.1);
                cluster.services.remove(&key);
            } else {
                let service = ServiceBackends {
                    namespace: key.0.clone(),
                    name: key.1.clone(),
                    ports: dice.some(4, |dice| {
                        let (protocol, port) = dice.pick(&[(TCP, 80), (TCP, 443), (UDP, 53)]);
                        (some_address(dice), protocol, port)
                    }),
                };
                engine.apply_service(service.clone());
                cluster.services.insert(key, service);
            }
        }
        12 => {
            let name = dice.pick(&["node-0", "node-1"]).to_owned();
            if dice.once_in(4) {
                engine.delete_node(&name);
                cluster.nodes.remove(&name);
            } else {
                let node = NodeAddresses {
                    name: name.clone(),
                    labels: some_labels(dice),
                    addresses: dice.some(2, some_address),
                };
                engine.apply_node(node.clone());
                cluster.nodes.insert(name, node);
            }
        }
        13 => {
            let name = dice.pick(&["host-0", "host-1", "host-2"]).to_owned();
            if dice.once_in(6) {
                engine.delete_host_endpoint(&name);
                cluster.hosts.remove(&name);
            } else {
                let local = !dice.once_in(3);
                let address = |dice: &mut Dice| match local {
                    // Two owners of one address would be two things that a rule says of one side.
                    true => ip(dice.pick(&["192.0.2.7", "192.0.2.130", "2001:db8::7"])),
                    false => dice.pick(&addresses()),
                };
                let names: &[&[&str]] = &[&["eth0"], &["eth0", "eth1"], &[]];
                let host = HostEndpoint {
                    name: name.clone(),
                    labels: some_labels(dice),
                    local,
                    automatic: false,
                    interface: match dice.below(2) {
                        0 => HostInterface::All,
                        _ => HostInterface::Named(
                            dice.pick(names).iter().map(|it| (*it).to_owned()).collect(),
                        ),
                    },
                    addresses: dice.some(2, address),
                    named_ports: dice.some(1, |_| named("http", TCP, 443)),
                };
                engine.apply_host_endpoint(host.clone());
                cluster.hosts.insert(name, host);
            }
        }
        14 => {
            let name = dice.pick(&["admin", "late"]);
            if dice.once_in(3) {
                engine.delete_tier(name);
                cluster.tiers.remove(name);
            } else {
                let tier = Tier {
                    name: name.to_owned(),
                    order: Order(dice.pick(&[10.0, 2e6])),
                    default_action: dice.pick(&[Action::Pass, Action::Deny]),
                };
                engine.apply_tier(tier.clone());
                cluster.tiers.insert(name.to_owned(), tier);
            }
        }
        _ => {
            let number = dice.below(6);
            if dice.once_in(4) {
                engine.delete_policy(&key(number));
                cluster.policies.remove(&key(number));
            } else {
                let policy = policy(dice, number);
                engine.apply_policy(policy.clone());
                cluster.policies.insert(key(number), policy);
            }
        }
    }
}

fn default_tier() -> Tier {
    Tier {
        name: DEFAULT_TIER.to_owned(),
        order: DEFAULT_TIER_ORDER,
        default_action: Action::Deny,
    }
}

fn flows(cluster: &Cluster) -> Vec<(Flow, Judged)> {
    let mut flows = Vec::new();
    for ifname in cluster.endpoints.keys() {
        for peer in addresses() {
            for (protocol, source_port, port) in TRAFFIC {
                for egress in [false, true] {
                    let flow = Flow {
                        egress,
                        ifname: ifname.clone(),
                        peer,
                        protocol,
                        source_port,
                        port,
                    };
                    let judged = cluster.judge(&flow);
                    flows.push((flow, judged));
                }
            }
        }
    }
    flows
}

fn from_tables(tables: &Tables, flow: &Flow) -> Judged {
    let answer = answered(tables, flow);
    Judged {
        allowed: answer.verdict == Verdict::Allow,
        logged: answer.log,
        audited: answer.audit,
    }
}

fn answered(tables: &Tables, flow: &Flow) -> Answer {
    let direction = if flow.egress {
        Direction::Egress
    } else {
        Direction::Ingress
    };
    let traffic = Traffic {
        protocol: flow.protocol,
        source_port: flow.source_port,
        port: flow.port,
    };
    let subject = tables.links.get(&flow.ifname);
    subject.map_or(Answer::DENY, |subject| {
        lookup(tables, direction, *subject, flow.peer, traffic)
    })
}

/// The hook, the address at our end, and the flow.
type HostFlow = (HostHook, IpAddr, Flow);

/// Addresses of nodes, of a pod, and of nobody.
const OWN: [&str; 5] = [
    "192.0.2.7",
    "10.0.0.1",
    "10.0.0.77",
    "2001:db8::7",
    "fd00::2",
];

/// Flows at every hook of two interfaces of the node: a part of all, always the same.
fn host_flows() -> Vec<HostFlow> {
    let mut flows = Vec::new();
    for hook in HostHook::ALL {
        for ifname in ["eth0", "eth1"] {
            for peer in addresses().into_iter().step_by(3) {
                let own = OWN.map(ip).into_iter();
                let own = own.filter(|it| it.is_ipv4() == peer.is_ipv4());
                let traffic = TRAFFIC.into_iter().step_by(5);
                let all = own.flat_map(|own| traffic.clone().map(move |it| (own, it)));
                for (own, (protocol, source_port, port)) in all {
                    let flow = Flow {
                        egress: hook.direction() == Direction::Egress,
                        ifname: ifname.to_owned(),
                        peer,
                        protocol,
                        source_port,
                        port,
                    };
                    flows.push((hook, own, flow));
                }
            }
        }
    }
    flows
}

/// What is said of a flow at a hook: by the tables, and by the explanation when it is asked.
fn said_of_host(engine: &Engine, (hook, own, flow): &HostFlow, explain: bool) -> Vec<Said> {
    let (hook, own) = (*hook, *own);
    let traffic = Traffic {
        protocol: flow.protocol,
        source_port: flow.source_port,
        port: flow.port,
    };
    let verdict = |verdict| match verdict {
        Verdict::Allow => Some(true),
        Verdict::Deny => Some(false),
        Verdict::Pass => None,
    };
    let answer = lookup_host(
        engine.tables(),
        hook,
        &flow.ifname,
        [own, flow.peer],
        traffic,
    );
    let by_tables = Said {
        allowed: verdict(answer.verdict),
        logged: answer.log,
        audited: answer.audit,
    };
    if !explain {
        return vec![by_tables];
    }
    let explained = engine.host_of(&flow.ifname).map(|host| {
        let asked = crate::policy::explain::Asked {
            own,
            peer: flow.peer,
            protocol: flow.protocol,
            port: flow.port,
            source_port: flow.source_port,
        };
        let explained = engine.explain_host(hook, host, &asked);
        let judged = engine.judge_host(hook, host, own, flow.peer, traffic);
        assert_eq!((explained.verdict, explained.trace), judged, "{asked:?}");
        judged
    });
    if let Some((_, trace)) = &explained {
        counters::check_cause(engine, answer, trace);
    }
    let nothing = Said {
        allowed: verdict(hook.otherwise()),
        ..Said::default()
    };
    let explained = explained.map_or(nothing, |(judged, trace)| Said {
        allowed: verdict(judged),
        logged: !trace.logged.is_empty(),
        audited: trace.audited.is_some_and(|(would, _)| would != judged),
    });
    vec![by_tables, explained]
}

/// Tables and explanation say of host endpoints what the reference says; returns the flows that may pass.
fn check_hosts(engine: &Engine, cluster: &Cluster) -> (usize, BTreeSet<HostFlow>) {
    let flows = host_flows();
    let count = flows.len();
    let mut allowed = BTreeSet::new();
    for (index, asked) in flows.into_iter().enumerate() {
        let explain = (index + engine.tables().entries()).is_multiple_of(16);
        let (hook, own, flow) = &asked;
        let mut expected = cluster.judge_host(*hook, *own, flow);
        if !hook.is_raw() {
            expected.allowed = expected.allowed.or(Some(true));
        }
        for found in said_of_host(engine, &asked, explain) {
            assert_eq!(found, expected, "{hook:?} {own} {flow:?}\n{cluster:#?}");
        }
        if !hook.is_raw() && expected.allowed == Some(true) {
            allowed.insert(asked);
        }
    }
    (count, allowed)
}

/// The explanation agrees, too.
fn check_explained(engine: &Engine, cluster: &Cluster, flow: &Flow, judged: Judged) {
    let Some(endpoint) = cluster.endpoints.get(&flow.ifname) else {
        return;
    };
    let direction = if flow.egress {
        Direction::Egress
    } else {
        Direction::Ingress
    };
    let traffic = Traffic {
        protocol: flow.protocol,
        source_port: flow.source_port,
        port: flow.port,
    };
    let explained = engine.judge_flow(direction, &endpoint.uid, None, flow.peer, traffic);
    if let Some((_, trace)) = &explained {
        counters::check_cause(engine, answered(engine.tables(), flow), trace);
    }
    let found = explained.map_or(
        Judged {
            allowed: false,
            logged: false,
            audited: false,
        },
        |(verdict, trace)| Judged {
            allowed: verdict == Verdict::Allow,
            logged: !trace.logged.is_empty(),
            audited: trace.audited.is_some_and(|(would, _)| would != verdict),
        },
    );
    assert_eq!(found, judged, "the explanation of {flow:?}");
}

/// An engine that is told the final state at once has the same elements but for the numbers.
fn check_scratch(cluster: &Cluster, tables: &Tables) {
    let mut engine = Engine::new();
    for policy in cluster.policies.values() {
        engine.apply_policy(policy.clone());
    }
    for tier in cluster.tiers.values() {
        engine.apply_tier(tier.clone());
    }
    for set in cluster.sets.values() {
        engine.apply_network_set(set.clone());
    }
    for service in cluster.services.values() {
        engine.apply_service(service.clone());
    }
    for host in cluster.hosts.values() {
        engine.apply_host_endpoint(host.clone());
    }
    for (ifname, endpoint) in &cluster.endpoints {
        engine.set_local(ifname, endpoint.clone());
    }
    for (pod, _) in cluster.pods.values() {
        engine.apply_identity(pod.clone());
    }
    for node in cluster.nodes.values() {
        engine.apply_node(node.clone());
    }
    for ((namespace, name), labels) in &cluster.accounts {
        engine.apply_service_account(ServiceAccount {
            namespace: namespace.clone(),
            name: name.clone(),
            labels: labels.clone(),
        });
    }
    for (name, labels) in &cluster.namespaces {
        engine.apply_namespace(name, labels.clone());
    }
    engine.compile();
    assert_eq!(shape(engine.tables()), shape(tables));
}

/// Runs a cluster through random changes; returns how many flows were judged.
fn live(seed: u64, compiles: usize) -> usize {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut engine, mut cluster) = (Engine::new(), Cluster::default());
    cluster
        .tiers
        .insert(DEFAULT_TIER.to_owned(), default_tier());
    for name in NAMESPACES {
        engine.apply_namespace(name, Labels::default());
        cluster
            .namespaces
            .insert(name.to_owned(), Labels::default());
    }
    for _ in 0..60 {
        change(&mut dice, &mut engine, &mut cluster);
    }
    let mut mirror = Mirror::default();
    let mut judged = 0;
    // Flows that may be alive: allowed at some time since live flows were last judged again.
    let mut alive: BTreeSet<Flow> = BTreeSet::new();
    let mut alive_at_hosts = BTreeSet::new();
    let mut once_owned: BTreeSet<IpAddr> = BTreeSet::new();
    for _ in 0..compiles {
        for _ in 0..=dice.below(3) {
            change(&mut dice, &mut engine, &mut cluster);
        }
        let compiled = engine.compile();
        mirror.follow(compiled.changes);
        assert_eq!(&mirror.0, engine.tables(), "seed {seed}");
        if !dice.once_in(3) {
            engine.applied(compiled.revision);
        }
        let flows = flows(&cluster);
        judged += flows.len();
        let mut allowed = BTreeSet::new();
        for (flow, expected) in flows {
            let found = from_tables(engine.tables(), &flow);
            assert_eq!(found, expected, "seed {seed}: {flow:?}\n{cluster:#?}");
            if dice.once_in(16) {
                check_explained(&engine, &cluster, &flow, expected);
            }
            if expected.allowed {
                allowed.insert(flow);
            }
        }
        let (count, at_hosts) = check_hosts(&engine, &cluster);
        judged += count;
        let owned: BTreeSet<IpAddr> = addresses()
            .into_iter()
            .filter(|address| cluster.owner(*address).is_some())
            .collect();
        let lost = alive.difference(&allowed).find(|flow| {
            cluster.endpoints.contains_key(&flow.ifname)
                && (owned.contains(&flow.peer) || !once_owned.contains(&flow.peer))
        });
        assert!(
            lost.is_none() || compiled.narrowing,
            "seed {seed}: {lost:?} was allowed and may live on"
        );
        let lost = alive_at_hosts
            .difference(&at_hosts)
            .find(|(.., flow)| owned.contains(&flow.peer) || !once_owned.contains(&flow.peer));
        assert!(
            lost.is_none() || compiled.narrowing,
            "seed {seed}: {lost:?} was allowed and may live on"
        );
        once_owned.extend(owned);
        if compiled.narrowing {
            alive.clear();
            alive_at_hosts.clear();
        }
        alive.extend(allowed);
        alive_at_hosts.extend(at_hosts);
    }
    check_scratch(&cluster, engine.tables());
    judged
}

fn several(seeds: std::ops::Range<u64>, compiles: usize) -> usize {
    std::thread::scope(|scope| {
        let halves = [0, 1].map(|odd| {
            let seeds = seeds.clone().filter(move |seed| seed % 2 == odd);
            scope.spawn(move || seeds.map(|seed| live(seed, compiles)).sum::<usize>())
        });
        halves.into_iter().map(|half| half.join().unwrap()).sum()
    })
}

#[test]
fn tables_say_what_the_reference_says() {
    let judged = several(0..10, 10);
    assert!(judged > 50_000, "{judged} flows");
}

#[test]
fn a_million_flows_are_judged_as_the_reference_says() {
    let judged = several(1000..1100, 20);
    assert!(judged > 1_000_000, "{judged} flows");
}
