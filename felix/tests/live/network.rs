//! A node with pods, a neighbour, services as kube-proxy translates them, and felix' policy: engine, steps and kernel as
//! in felix itself.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use felix::driver::enforce::Enforcer;
use felix::driver::netlink::Netlink;
use felix::feed::{Identity, LocalEndpoint};
use felix::nft::diff;
use felix::nft::epoch::Options;
use felix::policy::Engine;

use crate::ns::Namespace;
use crate::rules::{Said, addresses, key, uid};

/// Three pods, and last the neighbour.
pub(crate) const HOSTS: [&str; 4] = ["a", "b", "c", "r"];
/// The neighbour.
pub(crate) const R: usize = 3;
/// Ports that services lead to, and those of the neighbour towards which the node hides its pods.
pub(crate) const PORTS: [(u8, u16, u16); 2] = [(6, 8080, 8081), (17, 5001, 5002)];

/// As kube-proxy in nftables mode makes them: the packet's mark says what is to be masqueraded. A mark of the
/// connection that belongs to somebody else goes with every one.
const SERVICES: &str = r#"
table inet kube-proxy {
  map services4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; elements = { %services4% } }
  map services6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; elements = { %services6% } }
  map nodeports4 { type inet_proto . inet_service : ipv4_addr . inet_service; elements = { tcp . 30080 : 10.1.0.1 . 8080, udp . 30080 : 10.1.0.1 . 5001 } }
  map nodeports6 { type inet_proto . inet_service : ipv6_addr . inet_service; elements = { tcp . 30080 : fd00:1::1 . 8080, udp . 30080 : fd00:1::1 . 5001 } }
  chain nat-prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local meta mark set meta mark | 0x4000
    fib daddr type local dnat ip to meta l4proto . th dport map @nodeports4
    fib daddr type local dnat ip6 to meta l4proto . th dport map @nodeports6
    ip saddr . ip daddr { 10.1.0.1 . 10.96.0.1, 10.1.0.2 . 10.96.0.2 } meta mark set meta mark | 0x4000
    ip6 saddr . ip6 daddr { fd00:1::1 . fd96::1, fd00:1::2 . fd96::2 } meta mark set meta mark | 0x4000
    dnat ip to ip daddr . meta l4proto . th dport map @services4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @services6
  }
  chain theirs {
    type filter hook forward priority -10; policy accept;
    ct mark set ct mark | %theirs%
  }
  chain nat-postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    meta mark & 0x4000 == 0x4000 meta mark set meta mark ^ 0x4000 masquerade fully-random
    oifname "up0" meta l4proto { tcp, udp } th dport { 8081, 5002 } masquerade
  }
  chain spoilt {
    type filter hook postrouting priority 300; policy accept;
    ct state established ct mark & %others% != %theirs% counter comment "somebody else's bits of the connection's mark"
    meta priority != 0 meta l4proto { tcp, udp } oifname { "mgya", "mgyb", "mgyc", "up0" } counter comment "the packet's priority"
    meta mark != 0 meta l4proto { tcp, udp } counter comment "the packet's mark"
  }
}
"#;

/// The node's policy.
pub(crate) struct Felix {
    pub(crate) engine: Engine,
    pub(crate) enforcer: Enforcer,
    netlink: Netlink,
    lives: [usize; HOSTS.len() - 1],
    /// Transactions so far.
    pub(crate) commits: usize,
}

pub(crate) struct Network {
    pub(crate) node: Namespace,
    pub(crate) hosts: Vec<Namespace>,
    felix: Arc<Mutex<Felix>>,
}

fn interface(pod: usize) -> String {
    format!("mgy{}", HOSTS[pod])
}

impl Network {
    pub(crate) fn new(options: Options) -> Self {
        let node = Namespace::new();
        let hosts: Vec<Namespace> = HOSTS.iter().map(|_| Namespace::new()).collect();
        node.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0");
        for (pod, host) in hosts.iter().enumerate() {
            host.sh("sysctl -qw net.ipv6.conf.default.accept_dad=0");
            let [ip4, ip6] = addresses(pod);
            if pod == R {
                node.sh(&format!(
                    "ip link add up0 type veth peer name eth0 netns {}; ip link set up0 up
                     ip addr add 10.9.0.1/24 dev up0; ip addr add fd00:9::1/64 dev up0 nodad",
                    host.id()
                ));
                host.sh("ip link set eth0 up; ip addr add 10.9.0.2/24 dev eth0; ip addr add fd00:9::2/64 dev eth0 nodad
                         ip route add default via 10.9.0.1; ip -6 route add default via fd00:9::1");
                continue;
            }
            let (link, gateway) = (interface(pod), "ee:ee:ee:ee:ee:ee");
            node.sh(&format!(
                "ip link add {link} address {gateway} type veth peer name eth0 netns {}; ip link set {link} up
                 ip route add {ip4}/32 dev {link}; ip -6 route add {ip6}/128 dev {link}",
                host.id()
            ));
            host.sh(&format!(
                "ip link set eth0 up; ip addr add {ip4}/32 dev eth0; ip addr add {ip6}/128 dev eth0 nodad
                 ip neigh add 169.254.1.1 lladdr {gateway} dev eth0 nud permanent
                 ip neigh add fe80::1 lladdr {gateway} dev eth0 nud permanent
                 ip route add default via 169.254.1.1 dev eth0 onlink; ip -6 route add default via fe80::1 dev eth0 onlink"
            ));
        }
        let theirs = if options.mark.mask() & 0x8000 == 0 {
            0x8000
        } else {
            0x0080_0000
        };
        let services = |family: usize| {
            let mut elements = Vec::new();
            for pod in 0..2 {
                for (protocol, port, _) in PORTS {
                    let to = addresses(pod)[family];
                    elements.push(format!(
                        "{} . {protocol} . 80 : {to} . {port}",
                        service(pod)[family]
                    ));
                }
            }
            elements.join(", ")
        };
        let rules = SERVICES
            .replace("%services4%", &services(0))
            .replace("%services6%", &services(1))
            .replace("%theirs%", &format!("{theirs:#x}"))
            .replace("%others%", &format!("{:#x}", !options.mark.mask()));
        node.feed("nft -f -", &rules);
        let felix = node.run(move || {
            let (mut enforcer, _) = Enforcer::open().expect("nftables");
            enforcer.ensure_table(options).expect("the table");
            Felix {
                engine: Engine::new(),
                enforcer,
                netlink: Netlink::open().expect("rtnetlink"),
                lives: [0; HOSTS.len() - 1],
                commits: 0,
            }
        });
        let network = Self {
            node,
            hosts,
            felix: Arc::new(Mutex::new(felix)),
        };
        network.felix(|felix| {
            felix.engine.apply_namespace("t", [].into());
            for pod in 0..felix.lives.len() {
                felix.attach(pod, 0);
            }
            felix.commit();
        });
        network
    }

    /// Does something with felix, in the node's namespace.
    pub(crate) fn felix<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Felix) -> T + Send + 'static,
    ) -> T {
        let felix = self.felix.clone();
        self.node.run(move || act(&mut felix.lock().expect("lock")))
    }

    /// Packets on which others found something spoilt.
    pub(crate) fn spoilt(&self) -> String {
        let chain = self.node.sh("nft list chain inet kube-proxy spoilt");
        let lines = chain
            .lines()
            .filter(|line| line.contains("counter packets"));
        lines.filter(|line| !line.contains("packets 0 ")).collect()
    }
}

impl Felix {
    /// The pod there is now has this label.
    pub(crate) fn label(&mut self, pod: usize, value: usize) {
        self.engine
            .apply_identity(identity(pod, self.lives[pod], value));
    }

    /// Another pod gets the address.
    pub(crate) fn replace(&mut self, pod: usize, value: usize) {
        self.engine.remove_local(&interface(pod));
        self.engine.delete_identity(&uid(pod, self.lives[pod]));
        self.commit();
        self.lives[pod] += 1;
        self.attach(pod, value);
    }

    fn attach(&mut self, pod: usize, value: usize) {
        let life = self.lives[pod];
        self.label(pod, value);
        let endpoint = LocalEndpoint {
            uid: uid(pod, life),
            namespace: "t".into(),
            pod: HOSTS[pod].into(),
            addresses: addresses(pod).to_vec(),
        };
        self.engine.set_local(&interface(pod), endpoint);
    }

    /// Makes policy this, without looking at what it was.
    pub(crate) fn say(&mut self, said: &Said, numbers: impl IntoIterator<Item = usize>) {
        for number in numbers {
            match said.policies.get(&number) {
                Some(spec) => self.engine.apply_policy(spec.policy(number)),
                None => self.engine.delete_policy(&key(number)),
            }
        }
    }

    /// Brings the kernel in step.
    pub(crate) fn commit(&mut self) {
        let compiled = self.engine.compile();
        let phases = diff::plan(&compiled.changes, self.engine.tables(), compiled.narrowing);
        self.enforcer.prepare(&phases).expect("prepare");
        self.enforcer
            .commit(&phases, &mut self.netlink)
            .expect("commit");
        self.engine.applied(compiled.revision);
        self.commits += 1;
    }
}

fn identity(pod: usize, life: usize, value: usize) -> Identity {
    Identity {
        uid: uid(pod, life).into(),
        namespace: "t".into(),
        name: HOSTS[pod].into(),
        service_account: "".into(),
        labels: [("x".to_owned(), value.to_string())].into(),
        created: i64::try_from(life).expect("few lives"),
        addresses: addresses(pod).into(),
        named_ports: [].into(),
        host_network: false,
    }
}

/// Addresses of the service in front of a pod.
fn service(pod: usize) -> [String; 2] {
    [format!("10.96.0.{}", pod + 1), format!("fd96::{}", pod + 1)]
}

/// Where to send what shall reach a port of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    Plain,
    Service,
    NodePort,
    /// The node hides the source.
    Hidden,
}

/// What a client connects to, in IPv4 (0) or IPv6 (1).
pub(crate) fn target(to: usize, protocol: u8, via: Via, family: usize) -> SocketAddr {
    let (_, port, hidden) = PORTS[usize::from(protocol == 17)];
    let node = ["10.9.0.1", "fd00:9::1"];
    let (ip, port) = match via {
        Via::Plain => return (addresses(to)[family], port).into(),
        Via::Hidden => return (addresses(to)[family], hidden).into(),
        Via::Service => (service(to)[family].clone(), 80),
        Via::NodePort => (node[family].to_owned(), 30080),
    };
    SocketAddr::new(ip.parse().expect("address"), port)
}
