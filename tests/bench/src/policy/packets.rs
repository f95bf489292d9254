//! What a packet costs under policy, beside the same packet without any, with connection tracking alone, and with a chain
//! for each policy.
//!
//! ```text
//! namespace "a" ── veth ── namespace "node" ── veth ── namespace "b" (a pod as well)
//! (crafted UDP)            (the ruleset)    └─ veth ── namespace "r" (no pod)
//! ```
//!
//! Every ruleset has namespaces of its own, and all are measured in turn, so that a slow moment of the machine is one for
//! all. A packet is forwarded within the system call that sends it; its time is that of the call.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use felix::feed::Labels;
use felix::nft::epoch::Options;
use lab::netns;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::chains;
use super::cluster;
use super::node::Node;
use crate::ground::{Ground, Namespace};

/// Packets sent in one go.
const BURST: u16 = 250;
/// Port that the policies let through, if they go by a single one.
const PORT: u16 = 8080;
/// The pods on this node.
const A: u32 = 1;
const B: u32 = 2;
/// Behind the node, not a pod.
const R: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const GATEWAY: &str = "ee:ee:ee:ee:ee:ee";
/// Blocks of the ruleset that has many.
const BLOCKS: u32 = 100_000;

/// What a node's packets go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// Nothing.
    None,
    /// Connection tracking.
    Tracking,
    /// That, and a check of sources like ours.
    Sources,
    /// Ours, without a policy.
    Unselected,
    /// Ours, so many policies on each pod.
    Ours(u32),
    /// Ours, a policy on each pod, whose rules do not count.
    Uncounted,
    /// Ours, the peer one block among many.
    Blocks,
    /// Ours, the port within a range.
    Range,
    /// A chain for each of so many policies.
    Chains(u32),
}

impl Rules {
    /// All, in the order of the table.
    pub(crate) const ALL: [Self; 13] = [
        Self::None,
        Self::Tracking,
        Self::Sources,
        Self::Unselected,
        Self::Ours(1),
        Self::Uncounted,
        Self::Ours(50),
        Self::Ours(500),
        Self::Blocks,
        Self::Range,
        Self::Chains(1),
        Self::Chains(10),
        Self::Chains(50),
    ];

    /// For people.
    pub(crate) fn name(self) -> String {
        match self {
            Self::None => "plain forwarding".to_owned(),
            Self::Tracking => "connection tracking".to_owned(),
            Self::Sources => "tracking, sources checked".to_owned(),
            Self::Unselected => "margay, no policy".to_owned(),
            Self::Ours(1) => "margay, 1 policy".to_owned(),
            Self::Ours(n) => format!("margay, {n} policies"),
            Self::Uncounted => "margay, 1 policy, not counted".to_owned(),
            Self::Blocks => "margay, a block of 100,000".to_owned(),
            Self::Range => "margay, a range of ports".to_owned(),
            Self::Chains(1) => "chains, 1 policy".to_owned(),
            Self::Chains(n) => format!("chains, {n} policies"),
        }
    }
}

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The first of its connection, to no pod: judged at one end.
    OneEnd,
    /// The first of its connection, to a pod of the node: judged at both.
    BothEnds,
    /// Another of a connection that was let through.
    Again,
}

impl Flow {
    pub(crate) const ALL: [Self; 3] = [Self::OneEnd, Self::BothEnds, Self::Again];
}

/// Times of one ruleset, in nanoseconds a packet, by flow.
#[derive(Debug)]
pub(crate) struct Times {
    pub(crate) rules: Rules,
    flows: [Vec<f64>; 3],
}

impl Times {
    /// The lower quartile: what disturbs makes it slower only.
    pub(crate) fn of(&self, flow: Flow) -> f64 {
        let mut sorted = self.flows[flow as usize].clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 4).copied().unwrap_or(f64::NAN)
    }
}

/// Measures the chosen rulesets in turn, `rounds` bursts of each flow.
pub(crate) fn run(ground: &Ground, rounds: u16, chosen: &[String]) -> Result<Vec<Times>> {
    let wanted = |rules: &&Rules| {
        let name = rules.name();
        chosen.is_empty() || chosen.iter().any(|part| name.contains(part.as_str()))
    };
    let beds: Vec<Bed> = Rules::ALL
        .iter()
        .filter(wanted)
        .enumerate()
        .map(|(number, rules)| Bed::new(ground, number, *rules).with_context(|| rules.name()))
        .collect::<Result<_>>()?;
    ensure!(
        !beds.is_empty(),
        "no ruleset's name has {} in it",
        chosen.join(" or ")
    );
    let mut times: Vec<Times> = beds
        .iter()
        .map(|bed| Times {
            rules: bed.rules,
            flows: Default::default(),
        })
        .collect();
    for round in 0..rounds {
        for (bed, times) in beds.iter().zip(&mut times) {
            for flow in Flow::ALL {
                let took = bed.burst(flow, round)?;
                // The first round finds neighbours and fills caches.
                if round > 0 {
                    times.flows[flow as usize].push(took);
                }
            }
        }
    }
    for bed in &beds {
        bed.heard(rounds).with_context(|| bed.rules.name())?;
    }
    Ok(times)
}

/// Namespaces with a ruleset, and the sockets in them.
struct Bed {
    rules: Rules,
    sender: Socket,
    at_b: UdpSocket,
    at_r: UdpSocket,
    /// Holds the table.
    _node: Option<Node>,
    _namespaces: [Namespace; 4],
}

impl Bed {
    fn new(ground: &Ground, number: usize, rules: Rules) -> Result<Self> {
        let name = |end: &str| ground.namespace(&format!("p{number}{end}"));
        let (node, a, b, r) = (name("n")?, name("a")?, name("b")?, name("r")?);
        netns::sysctls(&node.path(), &[("net/ipv4/ip_forward", "1")])?;
        pod(&node, &a, A)?;
        pod(&node, &b, B)?;
        node.cable("up0", &r, "eth0")?;
        node.ip("addr add 10.9.0.1/24 dev up0")?;
        r.ip(&format!("addr add {R}/24 dev eth0"))?;
        r.ip("route add default via 10.9.0.1")?;
        let port = if rules == Rules::Range {
            PORT + 50
        } else {
            PORT
        };
        let listen = |at: &Namespace, address: IpAddr| -> Result<UdpSocket> {
            let socket = netns::run_in(&at.path(), move || {
                UdpSocket::bind(SocketAddr::new(address, port))
            })?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let (at_b, at_r) = (listen(&b, cluster::addresses(B)[0])?, listen(&r, R.into())?);
        let sender = netns::run_in(&a.path(), || {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
            socket.set_send_buffer_size(1 << 22)?;
            Ok(socket)
        })?;
        let held = match ours(rules)? {
            Some(policies) => Some(engine(&node, policies, rules != Rules::Uncounted)?),
            None => {
                text(&node, rules)?;
                None
            }
        };
        Ok(Self {
            rules,
            sender,
            at_b,
            at_r,
            _node: held,
            _namespaces: [node, a, b, r],
        })
    }

    /// Nanoseconds a packet.
    fn burst(&self, flow: Flow, round: u16) -> Result<f64> {
        let to = match flow {
            Flow::OneEnd | Flow::Again => R,
            Flow::BothEnds => v4(cluster::addresses(B)[0])?,
        };
        let port = if self.rules == Rules::Range {
            PORT + 50
        } else {
            PORT
        };
        let from = v4(cluster::addresses(A)[0])?;
        let first = 1024 + round * BURST;
        let packets: Vec<_> = (0..BURST)
            .map(|at| packet(from, to, first + at, port))
            .collect();
        let target = SockAddr::from(SocketAddrV4::new(to, 0));
        let start = Instant::now();
        for packet in &packets {
            self.sender.send_to(packet, &target)?;
        }
        Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(BURST))
    }

    /// Both receivers were reached: what is measured is a packet that gets through.
    fn heard(&self, rounds: u16) -> Result<()> {
        for (who, socket) in [("the pod", &self.at_b), ("the outside", &self.at_r)] {
            let mut buffer = [0; 64];
            ensure!(
                socket.recv(&mut buffer).is_ok(),
                "nothing of {rounds} rounds reached {who}"
            );
        }
        Ok(())
    }
}

/// A pod's namespace behind a veth of ours.
fn pod(node: &Namespace, pod: &Namespace, number: u32) -> Result<()> {
    let (veth, _) = cluster::endpoint(number);
    let address = cluster::addresses(number)[0];
    node.cable(&veth, pod, "eth0")?;
    node.ip(&format!("link set {veth} address {GATEWAY}"))?;
    node.ip(&format!("route add {address}/32 dev {veth}"))?;
    pod.ip_batch(&format!(
        "addr add {address}/32 dev eth0\n\
         neigh add 169.254.1.1 lladdr {GATEWAY} dev eth0 nud permanent\n\
         route add default via 169.254.1.1 dev eth0 onlink\n"
    ))
}

/// An IPv4 packet with an empty datagram; the kernel fills in the header's checksum.
fn packet(from: Ipv4Addr, to: Ipv4Addr, source: u16, port: u16) -> [u8; 46] {
    let mut packet = [0; 46];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&46_u16.to_be_bytes());
    packet[8] = 64;
    packet[9] = 17;
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet[20..22].copy_from_slice(&source.to_be_bytes());
    packet[22..24].copy_from_slice(&port.to_be_bytes());
    packet[24..26].copy_from_slice(&26_u16.to_be_bytes());
    packet
}

fn v4(address: IpAddr) -> Result<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => anyhow::bail!("pods have their IPv4 address first"),
    }
}

/// The policies of one of our rulesets; `None` for the others.
fn ours(rules: Rules) -> Result<Option<Vec<Value>>> {
    let peer = |name: &str| json!({ "namespaceSelector": {}, "podSelector": { "matchLabels": { "app": name } } });
    let outside = json!({ "ipBlock": { "cidr": format!("{R}/32") } });
    let single = json!([{ "protocol": "UDP", "port": PORT }]);
    let rule = |peers: Value, ports: &Value| {
        json!({
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{ "from": peers, "ports": ports }],
            "egress": [{ "to": peers, "ports": ports }],
        })
    };
    Ok(Some(match rules {
        Rules::None | Rules::Tracking | Rules::Sources | Rules::Chains(_) => return Ok(None),
        Rules::Unselected => Vec::new(),
        Rules::Uncounted => return ours(Rules::Ours(1)),
        Rules::Ours(count) => (0..count)
            .map(|at| {
                if at + 1 == count {
                    rule(json!([peer("a"), peer("b"), outside]), &single)
                } else {
                    let others: Vec<_> =
                        (0..3).map(|of| peer(&format!("other{at}-{of}"))).collect();
                    rule(Value::Array(others), &single)
                }
            })
            .collect(),
        Rules::Blocks => {
            let mut blocks = cluster::blocks(BLOCKS);
            blocks.extend([outside, json!({ "ipBlock": { "cidr": "10.128.0.0/9" } })]);
            vec![rule(Value::Array(blocks), &single)]
        }
        Rules::Range => {
            let range = json!([{ "protocol": "UDP", "port": PORT, "endPort": PORT + 100 }]);
            vec![rule(json!([peer("a"), peer("b"), outside]), &range)]
        }
    }))
}

/// Our engine with these policies on both pods, in a node's namespace.
fn engine(within: &Namespace, policies: Vec<Value>, counters: bool) -> Result<Node> {
    netns::run_in(&within.path(), move || Ok(enforcing(policies, counters)))?
}

fn enforcing(policies: Vec<Value>, counters: bool) -> Result<Node> {
    let mut node = Node::new()?;
    node.choose(Options {
        counters,
        ..Options::default()
    })?;
    node.change(|engine| {
        for (number, name) in [(A, "a"), (B, "b")] {
            let (veth, mut endpoint) = cluster::endpoint(number);
            let mut identity = cluster::pod(number, 0);
            identity.labels = [("app".to_owned(), name.to_owned())].into();
            engine.apply_namespace(&identity.namespace, Labels::default());
            endpoint.namespace = identity.namespace.to_string();
            engine.set_local(&veth, endpoint);
            engine.apply_identity(identity);
        }
        for (number, rules) in policies.into_iter().enumerate() {
            let namespace = cluster::pod(A, 0).namespace;
            let policy = cluster::policy_of(&format!("np{number}"), &namespace, json!({}), rules)?;
            cluster::tell(engine, &policy)?;
        }
        Ok(())
    })?;
    Ok(node)
}

/// A ruleset that is not ours, through `nft`.
fn text(node: &Namespace, rules: Rules) -> Result<()> {
    let (a, _) = cluster::endpoint(A);
    let (b, _) = cluster::endpoint(B);
    let (from, to) = (
        cluster::addresses(A)[0].to_string(),
        cluster::addresses(B)[0].to_string(),
    );
    let ruleset = match rules {
        Rules::Tracking => chains::TRACKING.to_owned(),
        Rules::Sources => chains::sources(&a, &from),
        Rules::Chains(policies) => {
            chains::ruleset(&[&a], &[&b], policies, PORT, &[&from, &to, &R.to_string()])
        }
        _ => return Ok(()),
    };
    nft(&node.path(), &ruleset)
}

fn nft(within: &Path, ruleset: &str) -> Result<()> {
    let ruleset = ruleset.to_owned();
    let loaded = netns::run_in(within, move || {
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(ruleset.as_bytes())?;
        }
        child.wait()
    })?;
    ensure!(loaded.success(), "nft refuses the ruleset");
    Ok(())
}
