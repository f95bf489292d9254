//! Random clusters and their flows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use felix::feed::{LocalEndpoint, NetworkSet, NodeAddresses, ServiceAccount, ServiceBackends};
use felix::policy::Engine;

use super::super::model::{Action, DEFAULT_TIER, DEFAULT_TIER_ORDER, Order, Tier};
use super::dice::{
    Dice, NAMESPACES, TRAFFIC, addresses, identity, key, net, policy, some_labels, uid,
};
use super::reference::{self, Cluster};
use super::{ICMP, ICMP6, Identity, Labels, SCTP, TCP, UDP};
use crate::network::{Network, PODS, R, interface, pod_addresses};
use crate::wire::Flow;

const ROUNDS: usize = 20;

/// Both nodes are told the same.
fn tell(network: &Network, act: impl Fn(&mut Engine) + Send + Clone + 'static) {
    for node in 0..2 {
        network.tell(node, act.clone());
    }
}

/// A pod that is attached: its address is its own, whatever else changes.
fn attached(dice: &mut Dice, pod: usize) -> Identity {
    Identity {
        addresses: pod_addresses(pod).into(),
        host_network: false,
        ..identity(dice, pod)
    }
}

fn tier(name: &str, order: f64, default_action: Action) -> Tier {
    Tier {
        name: name.to_owned(),
        order: Order(order),
        default_action,
    }
}

/// Changes something, for both nodes and the reference.
fn change(dice: &mut Dice, network: &Network, cluster: &mut Cluster) {
    match dice.below(16) {
        0 => {
            let (name, labels) = (dice.pick(&NAMESPACES), some_labels(dice));
            cluster.namespaces.insert(name.to_owned(), labels.clone());
            tell(network, move |engine| {
                engine.apply_namespace(name, labels.clone());
            });
        }
        1 => {
            let account = ServiceAccount {
                namespace: dice.pick(&NAMESPACES).to_owned(),
                name: dice.pick(&["default", "admin"]).to_owned(),
                labels: some_labels(dice),
            };
            let key = (account.namespace.clone(), account.name.clone());
            cluster.accounts.insert(key, account.labels.clone());
            tell(network, move |engine| {
                engine.apply_service_account(account.clone());
            });
        }
        2..=4 => {
            let number = dice.below(R);
            let pod = attached(dice, number);
            cluster.pods.insert(uid(number), (pod.clone(), false));
            tell(network, move |engine| engine.apply_identity(pod.clone()));
        }
        5 => {
            let number = R + dice.below(4);
            if dice.once_in(4) {
                cluster.pods.remove(&uid(number));
                tell(network, move |engine| engine.delete_identity(&uid(number)));
            } else {
                let pod = identity(dice, number);
                cluster.pods.insert(uid(number), (pod.clone(), false));
                tell(network, move |engine| engine.apply_identity(pod.clone()));
            }
        }
        6 => {
            let set = NetworkSet {
                namespace: dice.pick(&[None, Some("x"), Some("y")]).map(str::to_owned),
                name: dice.pick(&["n0", "n1"]).to_owned(),
                labels: some_labels(dice),
                nets: dice.some(3, net),
            };
            let key = (set.namespace.clone(), set.name.clone());
            cluster.sets.insert(key, set.clone());
            tell(network, move |engine| engine.apply_network_set(set.clone()));
        }
        7 => {
            let service = ServiceBackends {
                namespace: "x".to_owned(),
                name: dice.pick(&["s0", "s1"]).to_owned(),
                ports: dice.some(4, |dice| {
                    let (protocol, port) = dice.pick(&[(TCP, 80), (TCP, 443), (UDP, 53)]);
                    (dice.pick(&addresses()), protocol, port)
                }),
            };
            let key = (service.namespace.clone(), service.name.clone());
            cluster.services.insert(key, service.clone());
            tell(network, move |engine| engine.apply_service(service.clone()));
        }
        8 => {
            let node = NodeAddresses {
                name: dice.pick(&["node-0", "node-1"]).to_owned(),
                labels: some_labels(dice),
                addresses: dice.some(2, |dice| dice.pick(&addresses())),
            };
            cluster.nodes.insert(node.name.clone(), node.clone());
            tell(network, move |engine| engine.apply_node(node.clone()));
        }
        9 => {
            let order = dice.pick(&[10.0, 2e6]);
            let action = dice.pick(&[Action::Pass, Action::Deny]);
            let tier = tier(dice.pick(&["admin", "late"]), order, action);
            cluster.tiers.insert(tier.name.clone(), tier.clone());
            tell(network, move |engine| engine.apply_tier(tier.clone()));
        }
        _ => {
            let number = dice.below(5);
            if dice.once_in(4) {
                cluster.policies.remove(&key(number));
                tell(network, move |engine| engine.delete_policy(&key(number)));
            } else {
                let policy = policy(dice, number);
                cluster.policies.insert(key(number), policy.clone());
                tell(network, move |engine| engine.apply_policy(policy.clone()));
            }
        }
    }
}

/// From everybody to everybody, but for what meets no policy.
fn flows(world: &[IpAddr]) -> Vec<Flow> {
    let pods: Vec<IpAddr> = (0..R).flat_map(pod_addresses).collect();
    let everybody: Vec<IpAddr> = pods.iter().chain(world).copied().collect();
    let traffic = TRAFFIC.iter().copied();
    // A packet about another is none that opens a flow.
    let traffic = traffic.filter(|it| (it.0, it.2) != (ICMP, 0x0301));
    let more = [(SCTP, 40000, 8080), (SCTP, 1024, 443), (ICMP, 0, 0x0803)];
    let traffic: Vec<_> = traffic.chain(more).collect();
    let mut flows = Vec::new();
    for source in &everybody {
        for destination in &everybody {
            let family = source.is_ipv4();
            let among_pods = pods.contains(source) || pods.contains(destination);
            if source == destination || destination.is_ipv4() != family || !among_pods {
                continue;
            }
            for (protocol, source_port, port) in &traffic {
                // One that goes back by the same ports is an answer, once the other was let through.
                let answers = source_port == port && ![ICMP, ICMP6].contains(protocol);
                if *protocol != if family { ICMP6 } else { ICMP }
                    && (source < destination || !answers)
                {
                    flows.push(Flow {
                        source: *source,
                        destination: *destination,
                        protocol: *protocol,
                        source_port: *source_port,
                        port: *port,
                    });
                }
            }
        }
    }
    flows
}

/// Both ends are asked, each for itself.
fn allowed(cluster: &Cluster, network: &Network, flow: &Flow) -> bool {
    let end = |host: usize, peer: IpAddr, egress: bool| {
        let flow = reference::Flow {
            egress,
            ifname: interface(host),
            peer,
            protocol: flow.protocol,
            source_port: flow.source_port,
            port: flow.port,
        };
        host == R || cluster.judge(&flow).allowed
    };
    end(network.host_of(flow.source), flow.destination, true)
        && end(network.host_of(flow.destination), flow.source, false)
}

fn begin(dice: &mut Dice, network: &Network) -> Cluster {
    let mut cluster = Cluster::default();
    let default = Tier {
        order: DEFAULT_TIER_ORDER,
        ..tier(DEFAULT_TIER, 0.0, Action::Deny)
    };
    cluster.tiers.insert(DEFAULT_TIER.to_owned(), default);
    for name in NAMESPACES {
        cluster
            .namespaces
            .insert(name.to_owned(), Labels::default());
        tell(network, move |engine| {
            engine.apply_namespace(name, Labels::default());
        });
    }
    for number in 0..R {
        let pod = attached(dice, number);
        let endpoint = LocalEndpoint {
            uid: pod.uid.to_string(),
            namespace: pod.namespace.to_string(),
            pod: pod.name.to_string(),
            addresses: pod.addresses.to_vec(),
        };
        cluster.pods.insert(uid(number), (pod.clone(), false));
        cluster
            .endpoints
            .insert(interface(number), endpoint.clone());
        tell(network, move |engine| engine.apply_identity(pod.clone()));
        network.tell(number / PODS, move |engine| {
            engine.set_local(&interface(number), endpoint);
        });
    }
    cluster
}

#[test]
fn every_packet_on_the_path_of_two_nodes_meets_the_reference_s_verdict() {
    let world: Vec<IpAddr> = addresses()
        .into_iter()
        .filter(|address| !(0..R).any(|pod| pod_addresses(pod).contains(address)))
        .collect();
    let mut network = Network::new(&world);
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let mut cluster = begin(&mut dice, &network);
    for _ in 0..40 {
        change(&mut dice, &network, &mut cluster);
    }
    let flows = flows(&world);
    let start = Instant::now();
    // Sent and arrived, by protocol and family.
    let mut counts: BTreeMap<(u8, bool), (usize, usize)> = BTreeMap::new();
    for round in 0..ROUNDS {
        for _ in 0..=dice.below(5) {
            change(&mut dice, &network, &mut cluster);
        }
        network.commit();
        let expected: BTreeSet<usize> = (0..flows.len())
            .filter(|index| allowed(&cluster, &network, &flows[*index]))
            .collect();
        let arrived = network.try_all(&flows, &expected);
        let describe = |those: Vec<&usize>| {
            let some: Vec<&Flow> = those.iter().take(5).map(|it| &flows[**it]).collect();
            format!("{}: {some:#?}", those.len())
        };
        assert!(
            arrived == expected,
            "round {round}: denied and arrived {}\nallowed and lost {}\n{cluster:#?}",
            describe(arrived.difference(&expected).collect()),
            describe(expected.difference(&arrived).collect()),
        );
        for (index, flow) in flows.iter().enumerate() {
            let count = counts
                .entry((flow.protocol, flow.source.is_ipv4()))
                .or_default();
            count.0 += 1;
            count.1 += usize::from(arrived.contains(&index));
        }
    }
    let sent: usize = counts.values().map(|it| it.0).sum();
    println!(
        "{sent} packets in {ROUNDS} rounds of changes, {:?}:",
        start.elapsed()
    );
    for ((protocol, ipv4), (sent, arrived)) in &counts {
        let family = if *ipv4 { "IPv4" } else { "IPv6" };
        println!("{family} protocol {protocol}: {arrived} of {sent} allowed");
        // A protocol that is always allowed, or never, shows nothing.
        assert!(
            *arrived > 0 && arrived < sent,
            "{family} {protocol}: {arrived} of {sent}"
        );
    }
    assert!(sent >= 40_000, "{sent} packets");
}
