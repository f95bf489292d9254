//! A node with pods and a neighbour, and probes between them. Everybody echoes TCP and UDP and answers pings.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::ns::Namespace;

/// How long an answer may take before it counts as none.
const SILENCE: Duration = Duration::from_millis(250);
const TCP_PORTS: [u16; 2] = [8080, 8081];
const UDP_PORTS: [u16; 3] = [5001, 5002, 6000];

/// Something that is answered, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    Tcp(u16),
    Udp(u16),
    Ping,
}

type Seen = Arc<Mutex<BTreeMap<IpAddr, usize>>>;

struct Host {
    namespace: Namespace,
    addresses: Vec<IpAddr>,
    seen: Seen,
}

/// A node, in a namespace of the test's, with pods behind interfaces of ours, and `r` behind another.
pub(crate) struct Network {
    node: Vec<IpAddr>,
    hosts: BTreeMap<String, Host>,
    prober: Prober,
}

/// Jobs run in the node's namespace, too.
struct Prober(std::sync::mpsc::Sender<Box<dyn FnOnce() + Send>>);

impl Network {
    pub(crate) fn new(node: &Namespace, pods: &[&str]) -> Self {
        prepare(node);
        node.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        let mut hosts = BTreeMap::new();
        for (number, pod) in (1..).zip(pods) {
            hosts.insert((*pod).to_owned(), make_pod(node, pod, number));
        }
        hosts.insert("r".to_owned(), make_neighbour(node));
        serve(node, Seen::default());
        let (jobs, receiver) = std::sync::mpsc::channel::<Box<dyn FnOnce() + Send>>();
        node.run(move || {
            thread::spawn(move || receiver.into_iter().for_each(|job| job()));
        });
        let addresses = vec![
            "10.9.0.1".parse().expect("address"),
            "fd00:9::1".parse().expect("address"),
        ];
        Self {
            node: addresses,
            hosts,
            prober: Prober(jobs),
        }
    }

    /// Name of a pod's interface on the node.
    pub(crate) fn interface(pod: &str) -> String {
        format!("mgy0000000000{pod:0>2}")
    }

    pub(crate) fn addresses(&self, host: &str) -> Vec<IpAddr> {
        if host == "node" {
            self.node.clone()
        } else {
            self.hosts[host].addresses.clone()
        }
    }

    /// Whether it is answered.
    pub(crate) fn probe(&self, from: &str, to: IpAddr, probe: Probe) -> bool {
        self.run(from, move || match probe {
            Probe::Tcp(port) => TcpStream::connect_timeout(&SocketAddr::new(to, port), SILENCE)
                .is_ok_and(|mut s| echo(&mut s).is_ok()),
            Probe::Udp(port) => udp(to, port).is_ok(),
            Probe::Ping => ping(to).is_ok(),
        })
    }

    pub(crate) fn connect(&self, from: &str, to: IpAddr, port: u16) -> TcpStream {
        self.run(from, move || {
            TcpStream::connect_timeout(&SocketAddr::new(to, port), 4 * SILENCE)
                .expect("a connection")
        })
    }

    /// Sends one datagram under a source that is not the sender's.
    pub(crate) fn send_as(&self, from: &str, source: IpAddr, to: IpAddr, port: u16) {
        let length = if source.is_ipv4() { 32 } else { 128 };
        let host = &self.hosts[from].namespace;
        host.sh(&format!(
            "ip addr add {source}/{length} dev eth0 nodad || ip addr add {source}/{length} dev eth0"
        ));
        host.run(move || {
            let socket = UdpSocket::bind(SocketAddr::new(source, 0)).expect("bind");
            socket
                .send_to(b"forged", SocketAddr::new(to, port))
                .expect("send");
        });
    }

    /// Sends datagrams until it is told to stop; returns how many.
    pub(crate) fn flood(
        &self,
        from: &str,
        to: IpAddr,
        port: u16,
        stop: Arc<AtomicBool>,
    ) -> JoinHandle<usize> {
        self.run(from, move || {
            let socket = UdpSocket::bind(any(to)).expect("bind");
            thread::spawn(move || {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    let _ = socket.send_to(b"flood", SocketAddr::new(to, port));
                    sent += 1;
                    thread::sleep(Duration::from_micros(200));
                }
                sent
            })
        })
    }

    /// Datagrams this host has received from this source.
    pub(crate) fn seen(&self, host: &str, source: IpAddr) -> usize {
        self.hosts[host]
            .seen
            .lock()
            .expect("lock")
            .get(&source)
            .copied()
            .unwrap_or_default()
    }

    fn run<T: Send + 'static>(&self, host: &str, job: impl FnOnce() -> T + Send + 'static) -> T {
        if host != "node" {
            return self.hosts[host].namespace.run(job);
        }
        let (sender, result) = std::sync::mpsc::channel();
        self.prober
            .0
            .send(Box::new(move || {
                sender.send(job()).expect("the test waits")
            }))
            .expect("the node's thread");
        result.recv().expect("the job")
    }
}

/// Pings without privileges, and addresses that can be used at once.
fn prepare(namespace: &Namespace) {
    namespace
        .sh("sysctl -qw net.ipv4.ping_group_range='0 1000' net.ipv6.conf.default.accept_dad=0");
}

fn make_pod(node: &Namespace, pod: &str, number: u8) -> Host {
    let namespace = Namespace::new();
    prepare(&namespace);
    let interface = Network::interface(pod);
    let (ip4, ip6) = (format!("10.1.0.{number}"), format!("fd00:1::{number}"));
    let gateway = "ee:ee:ee:ee:ee:ee";
    node.sh(&format!(
        "ip link add {interface} address {gateway} type veth peer name eth0 netns {}
         ip link set {interface} up
         ip route add {ip4}/32 dev {interface}
         ip -6 route add {ip6}/128 dev {interface}",
        namespace.id()
    ));
    namespace.sh(&format!(
        "ip link set eth0 up
         ip addr add {ip4}/32 dev eth0
         ip addr add {ip6}/128 dev eth0 nodad
         ip neigh add 169.254.1.1 lladdr {gateway} dev eth0 nud permanent
         ip neigh add fe80::1 lladdr {gateway} dev eth0 nud permanent
         ip route add default via 169.254.1.1 dev eth0 onlink
         ip -6 route add default via fe80::1 dev eth0 onlink"
    ));
    host(namespace, &[&ip4, &ip6])
}

fn make_neighbour(node: &Namespace) -> Host {
    let namespace = Namespace::new();
    prepare(&namespace);
    node.sh(&format!(
        "ip link add up0 type veth peer name eth0 netns {}
         ip link set up0 up
         ip addr add 10.9.0.1/24 dev up0
         ip addr add fd00:9::1/64 dev up0 nodad",
        namespace.id()
    ));
    namespace.sh("ip link set eth0 up
         ip addr add 10.9.0.2/24 dev eth0
         ip addr add fd00:9::2/64 dev eth0 nodad
         ip route add default via 10.9.0.1
         ip -6 route add default via fd00:9::1");
    host(namespace, &["10.9.0.2", "fd00:9::2"])
}

fn host(namespace: Namespace, addresses: &[&str]) -> Host {
    let seen = Seen::default();
    serve(&namespace, seen.clone());
    let addresses = addresses
        .iter()
        .map(|text| text.parse().expect("address"))
        .collect();
    Host {
        namespace,
        addresses,
        seen,
    }
}

/// Echoes TCP and UDP, and counts datagrams by source.
fn serve(namespace: &Namespace, seen: Seen) {
    namespace.run(move || {
        for any in [
            IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::from(Ipv6Addr::UNSPECIFIED),
        ] {
            for port in TCP_PORTS {
                let socket = bound(any, port, Type::STREAM);
                socket.listen(128).expect("listen");
                let listener = TcpListener::from(socket);
                thread::spawn(move || {
                    for stream in listener.incoming().flatten() {
                        thread::spawn(move || io::copy(&mut &stream, &mut &stream));
                    }
                });
            }
            for port in UDP_PORTS {
                let socket = UdpSocket::from(bound(any, port, Type::DGRAM));
                let seen = seen.clone();
                thread::spawn(move || {
                    let mut buffer = [0; 64];
                    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                        *seen.lock().expect("lock").entry(from.ip()).or_default() += 1;
                        let _ = socket.send_to(&buffer[..length], from);
                    }
                });
            }
        }
    });
}

fn bound(any: IpAddr, port: u16, kind: Type) -> Socket {
    let address = SocketAddr::new(any, port);
    let socket = Socket::new(Domain::for_address(address), kind, None).expect("socket");
    if any.is_ipv6() {
        socket.set_only_v6(true).expect("v6 only");
    }
    socket.bind(&address.into()).expect("bind");
    socket
}

fn any(to: IpAddr) -> SocketAddr {
    let any = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    SocketAddr::new(any, 0)
}

/// Writes a line and waits for its echo.
pub(crate) fn echo(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(4 * SILENCE))?;
    stream.write_all(b"ping")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)
}

fn udp(to: IpAddr, port: u16) -> io::Result<()> {
    let socket = UdpSocket::bind(any(to))?;
    socket.set_read_timeout(Some(SILENCE))?;
    socket.connect(SocketAddr::new(to, port))?;
    socket.send(b"ping")?;
    socket.recv(&mut [0; 8]).map(|_| ())
}

fn ping(to: IpAddr) -> io::Result<()> {
    let (protocol, request) = if to.is_ipv4() {
        (Protocol::ICMPV4, 8)
    } else {
        (Protocol::ICMPV6, 128)
    };
    let socket = Socket::new(
        Domain::for_address(SocketAddr::new(to, 0)),
        Type::DGRAM,
        Some(protocol),
    )?;
    socket.set_read_timeout(Some(SILENCE))?;
    socket.connect(&SockAddr::from(SocketAddr::new(to, 0)))?;
    socket.send(&[request, 0, 0, 0, 0, 0, 0, 1])?;
    (&socket).read(&mut [0; 64]).map(|_| ())
}

/// Waits until it holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(5), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}
