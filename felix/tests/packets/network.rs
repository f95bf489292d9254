//! Two nodes with felix' policy as in felix itself, their pods, and who is behind the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use felix::driver::enforce::Enforcer;
use felix::driver::netlink::Netlink;
use felix::nft::diff;
use felix::nft::epoch::Options;
use felix::policy::Engine;
use socket2::{Domain, Protocol, Socket, Type};

use crate::ns::Namespace;
use crate::wire::{self, Flow};

/// Pods of a node.
pub(crate) const PODS: usize = 3;
/// The rest of the world.
pub(crate) const R: usize = 2 * PODS;
const PROTOCOLS: [u8; 7] = [1, 6, 17, 47, 58, 132, 136];
/// How long what is allowed may take on a machine that has a lot to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// A node's policy.
struct Felix {
    engine: Engine,
    enforcer: Enforcer,
    netlink: Netlink,
}

struct Node {
    namespace: Namespace,
    felix: Arc<Mutex<Felix>>,
}

struct Host {
    namespace: Namespace,
    addresses: Vec<IpAddr>,
    /// They hear what arrives, of IPv4 and IPv6, before the host itself does.
    ears: [Socket; 2],
}

pub(crate) struct Network {
    nodes: [Node; 2],
    hosts: Vec<Host>,
    mouths: BTreeMap<(IpAddr, u8), Socket>,
    round: u16,
}

/// Addresses of a pod.
pub(crate) fn pod_addresses(pod: usize) -> [IpAddr; 2] {
    [format!("10.0.1.{pod}"), format!("fd00::1:{pod}")].map(|it| it.parse().expect("an address"))
}

pub(crate) fn interface(pod: usize) -> String {
    format!("mgy{pod}")
}

fn length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl Network {
    /// `world` are the addresses of everybody else.
    pub(crate) fn new(world: &[IpAddr]) -> Self {
        let router = Namespace::new();
        router.sh(PREPARE);
        for address in world {
            let length = length(*address);
            router.sh(&format!("ip addr add {address}/{length} dev lo"));
        }
        let mut hosts = Vec::new();
        let nodes = [0, 1].map(|number| {
            let namespace = Namespace::new();
            namespace.sh(PREPARE);
            namespace.sh(&format!(
                "ip link add up0 type veth peer name eth{number} netns {}; ip link set up0 up
                 ip addr add 10.9.{number}.1/24 dev up0; ip addr add fd00:9:{number}::1/64 dev up0 nodad",
                router.id()
            ));
            router.sh(&format!(
                "ip link set eth{number} up; ip addr add 10.9.{number}.2/24 dev eth{number}
                 ip addr add fd00:9:{number}::2/64 dev eth{number} nodad"
            ));
            namespace.sh(&format!(
                "ip route add default via 10.9.{number}.2; ip -6 route add default via fd00:9:{number}::2"
            ));
            for pod in number * PODS..(number + 1) * PODS {
                hosts.push(make_pod(&namespace, pod));
                for address in pod_addresses(pod) {
                    let via = if address.is_ipv4() {
                        format!("10.9.{number}.1")
                    } else {
                        format!("fd00:9:{number}::1")
                    };
                    router.sh(&format!("ip route add {address}/{} via {via}", length(address)));
                }
            }
            let felix = namespace.run(|| {
                let (mut enforcer, _) = Enforcer::open().expect("nftables");
                enforcer.ensure_table(Options::default()).expect("the table");
                Felix {
                    engine: Engine::new(),
                    enforcer,
                    netlink: Netlink::open().expect("rtnetlink"),
                }
            });
            Node {
                namespace,
                felix: Arc::new(Mutex::new(felix)),
            }
        });
        hosts.push(listening(router, world.to_vec()));
        let mut mouths = BTreeMap::new();
        for host in &hosts {
            for address in &host.addresses {
                for protocol in PROTOCOLS {
                    let address = *address;
                    let mouth = host.namespace.run(move || raw(address, protocol));
                    mouths.insert((address, protocol), mouth);
                }
            }
        }
        Self {
            nodes,
            hosts,
            mouths,
            round: 0,
        }
    }

    /// Tells a node's felix something.
    pub(crate) fn tell(&self, node: usize, act: impl FnOnce(&mut Engine) + Send + 'static) {
        let node = &self.nodes[node];
        act(&mut node.felix.lock().expect("lock").engine);
    }

    /// Brings both kernels in step, live flows included.
    pub(crate) fn commit(&self) {
        for node in &self.nodes {
            let felix = node.felix.clone();
            node.namespace.run(move || {
                let felix = &mut *felix.lock().expect("lock");
                let compiled = felix.engine.compile();
                let tables = felix.engine.tables();
                let phases = diff::plan(&compiled.changes, tables, compiled.narrowing);
                felix.enforcer.prepare(&phases).expect("prepare");
                felix
                    .enforcer
                    .commit(&phases, &mut felix.netlink)
                    .expect("commit");
                felix.engine.applied(compiled.revision);
                while let Some(due) = felix.enforcer.bump_due() {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    felix.enforcer.bump().expect("bump");
                }
            });
        }
    }

    /// Who has an address.
    pub(crate) fn host_of(&self, address: IpAddr) -> usize {
        let mut hosts = self.hosts.iter();
        hosts
            .position(|host| host.addresses.contains(&address))
            .expect("somebody's address")
    }

    /// Sends the first packet of each flow, and tells which of them have arrived.
    pub(crate) fn try_all(
        &mut self,
        flows: &[Flow],
        expected: &BTreeSet<usize>,
    ) -> BTreeSet<usize> {
        self.round += 1;
        let base = u32::from(self.round) << 16;
        let mut arrived = BTreeSet::new();
        for (index, flow) in flows.iter().enumerate() {
            let number = base | u32::try_from(index).expect("fewer than 65 536");
            let mouth = &self.mouths[&(flow.source, flow.protocol)];
            let packet = wire::first_packet(flow, number);
            mouth
                .send_to(&packet, &SocketAddr::new(flow.destination, 0).into())
                .unwrap_or_else(|error| panic!("{flow:?}: {error}"));
            if index % 64 == 63 {
                self.listen(base, &mut arrived);
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while !expected.is_subset(&arrived) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
            self.listen(base, &mut arrived);
        }
        // A node reaches its pods whatever policy says: once that has come, so has everything that was sent before.
        let last = base | 0xffff;
        let mut fences: BTreeSet<IpAddr> = BTreeSet::new();
        for (number, node) in self.nodes.iter().enumerate() {
            for pod in number * PODS..(number + 1) * PODS {
                let addresses = pod_addresses(pod);
                fences.extend(addresses);
                node.namespace.run(move || {
                    for address in addresses {
                        let own: IpAddr = match address {
                            IpAddr::V4(_) => [0, 0, 0, 0].into(),
                            IpAddr::V6(_) => [0_u16; 8].into(),
                        };
                        let socket = UdpSocket::bind((own, 0)).expect("a socket");
                        let sent = socket.send_to(&last.to_be_bytes(), (address, 9));
                        sent.expect("a node reaches its pods");
                    }
                });
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while !fences.is_empty() {
            assert!(Instant::now() < deadline, "not heard: {fences:?}");
            thread::sleep(Duration::from_millis(5));
            for address in self.listen(base, &mut arrived) {
                fences.remove(&address);
            }
        }
        arrived
    }

    /// Takes what has arrived; returns to whom the last packet of a node has come.
    fn listen(&self, base: u32, arrived: &mut BTreeSet<usize>) -> Vec<IpAddr> {
        let mut fences = Vec::new();
        let mut buffer = [0; 2048];
        for host in &self.hosts {
            for ear in &host.ears {
                loop {
                    match (&*ear).read(&mut buffer) {
                        Ok(length) => match wire::heard(&buffer[..length]) {
                            // The world's router hears what it only passes on, too.
                            Some((to, number))
                                if number & 0xffff_0000 == base && host.addresses.contains(&to) =>
                            {
                                match usize::try_from(number & 0xffff).expect("16 bits") {
                                    0xffff => fences.push(to),
                                    index => drop(arrived.insert(index)),
                                }
                            }
                            _ => {}
                        },
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }
        fences
    }
}

const PREPARE: &str = "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0";

fn make_pod(node: &Namespace, pod: usize) -> Host {
    let namespace = Namespace::new();
    let (link, gateway) = (interface(pod), "ee:ee:ee:ee:ee:ee");
    let [ip4, ip6] = pod_addresses(pod);
    namespace.sh("sysctl -qw net.ipv6.conf.default.accept_dad=0");
    node.sh(&format!(
        "ip link add {link} address {gateway} type veth peer name eth0 netns {}; ip link set {link} up
         ip route add {ip4}/32 dev {link}; ip -6 route add {ip6}/128 dev {link}",
        namespace.id()
    ));
    namespace.sh(&format!(
        "ip link set eth0 up; ip addr add {ip4}/32 dev eth0; ip addr add {ip6}/128 dev eth0 nodad
         ip neigh add 169.254.1.1 lladdr {gateway} dev eth0 nud permanent
         ip neigh add fe80::1 lladdr {gateway} dev eth0 nud permanent
         ip route add default via 169.254.1.1 dev eth0 onlink; ip -6 route add default via fe80::1 dev eth0 onlink"
    ));
    listening(namespace, vec![ip4, ip6])
}

/// Hears everything and answers nothing.
fn listening(namespace: Namespace, addresses: Vec<IpAddr>) -> Host {
    namespace.feed(
        "nft -f -",
        "table inet quiet {
           chain input {
             type filter hook input priority 0; policy drop;
             icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
           }
         }",
    );
    let ears = namespace.run(|| {
        // `ETH_P_IP`, `ETH_P_IPV6`: a socket for one protocol does not hear what the host itself sends.
        [0x0800_u16, 0x86dd].map(|kind| {
            let kind = Protocol::from(i32::from(kind.to_be()));
            let ear =
                Socket::new(Domain::PACKET, Type::DGRAM, Some(kind)).expect("a packet socket");
            ear.set_nonblocking(true).expect("nonblocking");
            ear
        })
    });
    Host {
        namespace,
        addresses,
        ears,
    }
}

fn raw(address: IpAddr, protocol: u8) -> Socket {
    let address = SocketAddr::new(address, 0);
    let kind = Protocol::from(i32::from(protocol));
    let socket = Socket::new(Domain::for_address(address), Type::RAW, Some(kind));
    let socket = socket.expect("a raw socket");
    socket.bind(&address.into()).expect("bind");
    socket
}
