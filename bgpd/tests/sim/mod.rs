//! A simulated network: speakers joined by connections with seeded delay and loss of connections.
//!
//! Everything is driven by one queue of events in virtual time, so a seed reproduces a run exactly.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use bgpd::Millis;
use bgpd::config::{Config, ImportPolicy, Origin, OriginKind, Peer};
use bgpd::fsm::{Jitter, State};
use bgpd::nexthop::Change;
use bgpd::speaker::{
    ConnId, DataplaneReport, Input, Leg, Output, PeerKey, RouteFilter, Speaker, SpeakerEvent,
    TcpEvent,
};
use bytes::Bytes;
use crds::net::{Cidr, Family};

/// What happens at a point in time.
#[derive(Debug)]
enum Event {
    /// A connection request reaches its target.
    Syn {
        from: usize,
        life: u64,
        conn: ConnId,
        local: SocketAddr,
        remote: SocketAddr,
    },
    /// An input reaches a node, unless it has restarted since.
    Deliver {
        node: usize,
        life: u64,
        input: Input,
    },
    /// A node looks at its timers.
    Wake { node: usize, life: u64, at: Millis },
}

/// One end of a connection: node, its life, and the name of the connection in that life.
type End = (usize, u64, ConnId);

pub(crate) struct Node {
    pub(crate) speaker: Speaker,
    pub(crate) config: Config,
    pub(crate) best: BTreeMap<Cidr, Vec<Leg>>,
    pub(crate) best_complete: bool,
    /// What the kernel forwards by: best paths, and until they are complete those of the life before.
    pub(crate) forwarding: BTreeMap<Cidr, Vec<Leg>>,
    pub(crate) events: Vec<SpeakerEvent>,
    pub(crate) addresses: BTreeSet<IpAddr>,
    pub(crate) kernel: Vec<Change>,
    /// Families whose routes the kernel kept through the last restart.
    pub(crate) preserved: Vec<Family>,
    /// Counts restarts; what was on its way to an earlier life is lost.
    life: u64,
    up: bool,
    wake: Option<Millis>,
}

pub(crate) struct Net {
    pub(crate) now: Millis,
    pub(crate) nodes: Vec<Node>,
    pub(crate) random: Jitter,
    /// Longest delay of anything on its way, milliseconds.
    pub(crate) delay: Millis,
    /// Pairs of nodes between which nothing passes.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    queue: BTreeMap<(Millis, u64), Event>,
    order: u64,
    /// The other end of each end, and when the last thing sent from it arrives: bytes never overtake.
    links: BTreeMap<End, (End, Millis)>,
    next_in: u64,
    /// Whether every node has felix: otherwise it has to be said by hand.
    pub(crate) felix: bool,
}

impl Net {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: 0,
            nodes: Vec::new(),
            random: Jitter::new(seed),
            delay: 5,
            cut: BTreeSet::new(),
            queue: BTreeMap::new(),
            order: 0,
            links: BTreeMap::new(),
            next_in: 0,
            felix: true,
        }
    }

    /// Adds a node that listens on `addresses`, with `kernel` as what its kernel knows.
    pub(crate) fn add(
        &mut self,
        config: Config,
        addresses: &[IpAddr],
        kernel: Vec<Change>,
    ) -> usize {
        let seed = self.random.next_u64();
        self.nodes.push(Node {
            speaker: Speaker::new(config.clone(), seed, self.now),
            config,
            best: BTreeMap::new(),
            best_complete: false,
            forwarding: BTreeMap::new(),
            events: Vec::new(),
            addresses: addresses.iter().copied().collect(),
            kernel,
            preserved: Vec::new(),
            life: 0,
            up: true,
            wake: None,
        });
        let node = self.nodes.len() - 1;
        self.boot(node);
        node
    }

    fn boot(&mut self, node: usize) {
        let kernel = self.nodes[node].kernel.clone();
        self.input(node, Input::Kernel(kernel));
        if self.felix {
            let report = DataplaneReport {
                boot_id: "boot".into(),
                preserved: self.nodes[node].preserved.clone(),
                restarted: self.nodes[node].life > 0,
            };
            self.input(node, Input::Dataplane(report));
            self.input(node, Input::OriginsComplete);
        }
    }

    /// Resets every connection of a node.
    fn hang_up_all(&mut self, node: usize) {
        let of_node = self.links.keys().filter(|it| it.0 == node);
        let ends: Vec<End> = of_node.copied().collect();
        for end in ends {
            self.hang_up(end, "reset");
        }
    }

    /// Kills a node and starts it anew, at once.
    pub(crate) fn restart(&mut self, node: usize) {
        self.hang_up_all(node);
        let seed = self.random.next_u64();
        let now = self.now;
        let it = &mut self.nodes[node];
        it.life += 1;
        it.speaker = Speaker::new(it.config.clone(), seed, now);
        it.best.clear();
        it.forwarding.clear();
        it.best_complete = false;
        it.wake = None;
        self.boot(node);
    }

    /// Kills a node for good.
    pub(crate) fn stop(&mut self, node: usize) {
        self.restart(node);
        self.hang_up_all(node);
        let it = &mut self.nodes[node];
        it.up = false;
        it.life += 1;
    }

    /// The same for the program alone: the kernel keeps forwarding and felix says so.
    pub(crate) fn restart_gracefully(&mut self, node: usize) {
        let forwarding = self.nodes[node].forwarding.clone();
        self.nodes[node].preserved = Family::ALL.to_vec();
        self.restart(node);
        self.nodes[node].preserved.clear();
        self.nodes[node].forwarding = forwarding;
    }

    /// Breaks all connections between two nodes; both ends notice.
    pub(crate) fn reset(&mut self, a: usize, b: usize) {
        let between = |(from, to): &(End, End)| (from.0, to.0) == (a, b);
        let pairs: Vec<(End, End)> = self
            .links
            .iter()
            .map(|(from, (to, _))| (*from, *to))
            .filter(|it| between(it))
            .collect();
        for (from, to) in pairs {
            self.hang_up(from, "reset");
            self.deliver(
                from,
                Input::Tcp(
                    from.2,
                    TcpEvent::Closed {
                        reason: "reset".into(),
                    },
                ),
                1,
            );
            let _ = to;
        }
    }

    pub(crate) fn configure(&mut self, node: usize, config: Config) {
        self.nodes[node].config = config.clone();
        self.input(node, Input::Config(config));
    }

    pub(crate) fn input(&mut self, node: usize, input: Input) {
        let taken = matches!(input, Input::BestTaken(_));
        let outputs = self.nodes[node].speaker.handle(input, self.now);
        let best = |it: &&Output| matches!(it, Output::Best { .. });
        let best = outputs.iter().filter(best).count();
        for output in outputs {
            self.output(node, output);
        }
        self.arm(node);
        if best > 0 && !taken {
            self.input(node, Input::BestTaken(best));
        }
    }

    fn arm(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let Some(at) = it.speaker.next_timeout() else {
            return;
        };
        let at = at.max(self.now);
        if it.wake.is_none_or(|wake| at < wake) {
            it.wake = Some(at);
            let life = it.life;
            self.push(at, Event::Wake { node, life, at });
        }
    }

    fn push(&mut self, at: Millis, event: Event) {
        self.order += 1;
        self.queue.insert((at, self.order), event);
    }

    fn some_delay(&mut self) -> Millis {
        1 + self.random.next_u64() % self.delay.max(1)
    }

    fn output(&mut self, node: usize, output: Output) {
        match output {
            Output::Connect {
                local,
                remote,
                conn,
                ..
            } => {
                let own = self.own_address(node, local, remote);
                let at = self.now + self.some_delay();
                self.push(
                    at,
                    Event::Syn {
                        from: node,
                        life: self.nodes[node].life,
                        conn,
                        local: own,
                        remote,
                    },
                );
            }
            Output::Send(conn, bytes) => {
                let length = bytes.len();
                let end = self.end(node, conn);
                self.carry(end, bytes);
                self.deliver(end, Input::Tcp(conn, TcpEvent::Sent(length)), 1);
            }
            Output::Limit(..) => {}
            Output::Close(conn) => self.hang_up(self.end(node, conn), ""),
            Output::Best { prefix, legs } if legs.is_empty() => {
                assert!(
                    self.nodes[node].best.remove(&prefix).is_some(),
                    "{prefix} was not known"
                );
                self.nodes[node].forwarding.remove(&prefix);
            }
            Output::Best { prefix, legs } => {
                let it = &mut self.nodes[node];
                it.forwarding.insert(prefix, legs.clone());
                let before = it.best.insert(prefix, legs.clone());
                assert_ne!(before, Some(legs), "{prefix} is told twice");
            }
            // What it is ahead of comes too.
            Output::BestMoved { .. } => {}
            Output::BestComplete => {
                let it = &mut self.nodes[node];
                assert!(!std::mem::replace(&mut it.best_complete, true));
                it.forwarding = it.best.clone();
            }
            Output::Event(event) => self.nodes[node].events.push(event),
            // What BFD would say is given as an input.
            Output::BfdStart { .. } | Output::BfdStop { .. } | Output::Bmp { .. } => {}
        }
    }

    fn own_address(&self, node: usize, local: Option<IpAddr>, remote: SocketAddr) -> SocketAddr {
        let addresses = &self.nodes[node].addresses;
        let same_network = |it: &&IpAddr| Cidr::new(**it, 24).unwrap().contains(remote.ip());
        let guess = addresses.iter().find(same_network);
        let any = addresses
            .iter()
            .find(|it| Family::of(**it) == Family::of(remote.ip()));
        let address = local
            .or_else(|| guess.copied())
            .or_else(|| any.copied())
            .unwrap();
        SocketAddr::new(address, 40000)
    }

    fn end(&self, node: usize, conn: ConnId) -> End {
        (node, self.nodes[node].life, conn)
    }

    fn deliver(&mut self, end: End, input: Input, delay: Millis) {
        let life = end.1;
        self.push(
            self.now + delay,
            Event::Deliver {
                node: end.0,
                life,
                input,
            },
        );
    }

    /// Brings bytes to the other end, whole or in pieces.
    fn carry(&mut self, end: End, bytes: Bytes) {
        let Some((other, last)) = self.links.get(&end).copied() else {
            return;
        };
        if self.is_cut(end.0, other.0) {
            return;
        }
        let mut at = (self.now + self.some_delay()).max(last);
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = match self.random.next_u64() % 4 {
                0 => 1 + usize::try_from(self.random.next_u64() % 40).unwrap(),
                _ => rest.len(),
            };
            let piece = rest.split_to(piece.min(rest.len()));
            let life = other.1;
            let input = Input::Tcp(other.2, TcpEvent::Bytes(piece));
            self.push(
                at,
                Event::Deliver {
                    node: other.0,
                    life,
                    input,
                },
            );
            at += self.random.next_u64() % 2;
        }
        if let Some(link) = self.links.get_mut(&end) {
            link.1 = at;
        }
    }

    /// One end is gone; the other one hears of it after everything sent before.
    fn hang_up(&mut self, end: End, reason: &str) {
        let Some((other, last)) = self.links.remove(&end) else {
            return;
        };
        let at = (self.now + self.some_delay()).max(last);
        if self.links.contains_key(&other) && !self.is_cut(end.0, other.0) {
            let life = other.1;
            let input = Input::Tcp(
                other.2,
                TcpEvent::Closed {
                    reason: reason.into(),
                },
            );
            self.push(
                at,
                Event::Deliver {
                    node: other.0,
                    life,
                    input,
                },
            );
        }
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a, b)) || self.cut.contains(&(b, a))
    }

    fn listener(&self, address: IpAddr) -> Option<usize> {
        self.nodes
            .iter()
            .position(|node| node.up && node.addresses.contains(&address))
    }

    fn syn(&mut self, from: usize, conn: ConnId, local: SocketAddr, remote: SocketAddr) {
        let target = self
            .listener(remote.ip())
            .filter(|to| !self.is_cut(from, *to));
        let Some(to) = target else {
            let reason = "connection refused".into();
            self.deliver(
                self.end(from, conn),
                Input::Tcp(conn, TcpEvent::ConnectFailed { reason }),
                1,
            );
            return;
        };
        self.next_in += 1;
        let accepted = ConnId::In(self.next_in);
        let (own, other) = (self.end(from, conn), self.end(to, accepted));
        self.links.insert(own, (other, self.now));
        self.links.insert(other, (own, self.now));
        let delay = self.some_delay();
        let connected = TcpEvent::Connected { local, remote };
        self.deliver(own, Input::Tcp(conn, connected), delay);
        // Bytes follow the handshake.
        if let Some(link) = self.links.get_mut(&other) {
            link.1 = self.now + delay;
        }
        let accept = TcpEvent::Accepted {
            local: remote,
            remote: local,
            ttl: None,
        };
        self.input(to, Input::Tcp(accepted, accept));
    }

    /// Lets events happen until `until` or until nothing is left.
    pub(crate) fn run_until(&mut self, until: Millis) {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            match event {
                Event::Syn {
                    from,
                    life,
                    conn,
                    local,
                    remote,
                } => {
                    // The kernel of one that is gone knows nothing of it.
                    let it = &self.nodes[from];
                    if it.life == life && it.up {
                        self.syn(from, conn, local, remote);
                    }
                }
                Event::Deliver { node, life, input } => {
                    if self.nodes[node].life == life && self.nodes[node].up {
                        if let Input::Tcp(conn, TcpEvent::Closed { .. }) = &input {
                            self.links.remove(&(node, life, *conn));
                        }
                        self.input(node, input);
                    }
                }
                Event::Wake { node, life, at } => {
                    let it = &self.nodes[node];
                    if it.life == life && it.up && it.wake == Some(at) {
                        self.nodes[node].wake = None;
                        self.input(node, Input::Tick);
                    }
                }
            }
        }
        self.now = until;
    }

    pub(crate) fn run_for(&mut self, time: Millis) {
        self.run_until(self.now + time);
    }

    /// Lets time pass until the condition holds, a minute at most.
    pub(crate) fn run_until_that(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = self.now + 60_000;
        while !condition(self) {
            assert!(
                self.now < deadline,
                "{what}: not within a minute of simulated time\n{}",
                self.show()
            );
            self.run_for(50);
        }
    }

    pub(crate) fn established(&self, node: usize) -> usize {
        self.nodes[node].speaker.summary().neighbors_established
    }

    pub(crate) fn state(&self, node: usize, peer: IpAddr) -> State {
        let key = PeerKey::Address(peer);
        let neighbors = self.nodes[node].speaker.neighbors(self.now);
        neighbors.iter().find(|it| it.key == key).unwrap().state
    }

    pub(crate) fn all_established(&self) -> bool {
        self.nodes.iter().all(|node| {
            let summary = node.speaker.summary();
            summary.neighbors_established == summary.neighbors_configured
        })
    }

    /// Prefixes of a node that have a best path, with the neighbours it is from.
    pub(crate) fn table(&self, node: usize) -> Vec<(String, Vec<u32>)> {
        let routes = self.nodes[node]
            .speaker
            .routes(&RouteFilter::default(), self.now);
        routes
            .iter()
            .filter(|it| it.best)
            .map(|it| (it.prefix.to_string(), it.as_path.clone()))
            .collect()
    }

    pub(crate) fn show(&self) -> String {
        let mut text = String::new();
        for (index, node) in self.nodes.iter().enumerate() {
            for it in node.speaker.neighbors(self.now) {
                let stale: usize = it.families.iter().map(|it| it.stale).sum();
                text += &format!(
                    "node {index} peer {} {} {stale} stale {:?}\n",
                    it.key, it.state, it.last_error
                );
            }
        }
        text
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

/// A configuration without peers that imports everything.
pub(crate) fn config(asn: u32, router_id: &str) -> Config {
    Config {
        hold_time: 9,
        multipath: 8,
        ..Config::new(asn, router_id.parse().unwrap())
    }
}

/// A dual-stack peer that is believed everything.
pub(crate) fn peer(address: &str, asn: u32) -> Peer {
    Peer {
        families: Family::ALL.to_vec(),
        import: ImportPolicy::All,
        ..Peer::new(ip(address), asn)
    }
}

pub(crate) fn origin(prefix: &str) -> Origin {
    Origin {
        prefix: cidr(prefix),
        kind: OriginKind::Block,
    }
}

/// An interface that is up, with addresses given as "192.0.2.1/24".
pub(crate) fn interface(ifindex: u32, addresses: &[&str]) -> Vec<Change> {
    let mut changes = vec![Change::Link {
        ifindex,
        name: format!("eth{ifindex}"),
        up: true,
    }];
    for text in addresses {
        let (address, length) = text.split_once('/').unwrap();
        let address = ip(address);
        let network = Cidr::new(address, length.parse().unwrap()).unwrap();
        changes.push(Change::Address {
            ifindex,
            address,
            network,
        });
    }
    changes
}
