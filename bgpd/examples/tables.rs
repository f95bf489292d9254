//! Measures the tables without any I/O: UPDATEs as bytes into a speaker, in nanoseconds and allocations for each route.
//!
//! `cargo run --release -p bgpd --example tables -- [routes] [receivers]`

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bgpd::config::{Config, ExportClass, ImportPolicy, Peer};
use bgpd::nexthop::Change;
use bgpd::speaker::{ConnId, DataplaneReport, Input, Output, Speaker, TcpEvent};
use bgpd::wire::{self, AsPath, Attributes, Capability, Dialect, Open, update};
use bytes::Bytes;
use crds::net::{Cidr, Family};

/// Counts what is allocated.
struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: it hands every call on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps what alloc asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps what dealloc asks for.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(size, Ordering::Relaxed);
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps what realloc asks for.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a driver reads at once.
const CHUNK: usize = 64 << 10;

struct Bench {
    speaker: Speaker,
    now: u64,
    messages: usize,
    bytes: usize,
}

impl Bench {
    /// A relay or reflector; peer 0 sends, the others receive.
    fn new(receivers: usize, reflect: bool) -> Self {
        let mut config = Config::new(65001, [192, 0, 2, 1].into());
        for host in 0..=receivers {
            let asn = if reflect { 65001 } else { 65002 + number(host) };
            let mut peer = Peer::new(address(host).ip(), asn);
            peer.passive = true;
            peer.import = ImportPolicy::All;
            peer.export = if reflect {
                ExportClass::Reflect
            } else {
                ExportClass::Transit
            };
            config.peers.push(peer);
        }
        let mut bench = Self {
            speaker: Speaker::new(config, 1, 0),
            now: 0,
            messages: 0,
            bytes: 0,
        };
        bench.input(Input::Kernel(vec![
            Change::Link {
                ifindex: 2,
                name: "eth0".into(),
                up: true,
            },
            Change::Address {
                ifindex: 2,
                address: [10, 255, 0, 1].into(),
                network: Cidr::new([10, 255, 0, 0].into(), 16).unwrap_or_else(|_| unreachable!()),
            },
        ]));
        bench.input(Input::Dataplane(DataplaneReport {
            boot_id: String::new(),
            restarted: false,
            preserved: Vec::new(),
        }));
        bench.input(Input::OriginsComplete);
        for host in 0..=receivers {
            let asn = if reflect { 65001 } else { 65002 + number(host) };
            let accepted = TcpEvent::Accepted {
                local: SocketAddr::from(([10, 255, 0, 1], 179)),
                remote: address(host),
                ttl: None,
            };
            bench.input(Input::Tcp(conn(host), accepted));
            let capabilities = vec![Capability::unicast(Family::V4)];
            let open = Open::new(asn, 90, [10, 0, 1, 1 + byte(host)].into(), capabilities);
            bench.bytes(host, open.encode());
            bench.bytes(host, wire::keepalive());
        }
        bench
    }

    fn bytes(&mut self, host: usize, bytes: Bytes) {
        self.input(Input::Tcp(conn(host), TcpEvent::Bytes(bytes)));
    }

    fn input(&mut self, input: Input) {
        let mut waiting = self.speaker.handle(input, self.now);
        while !waiting.is_empty() {
            let mut sent = Vec::new();
            for output in waiting {
                if let Output::Send(conn, bytes) = output {
                    self.messages += 1;
                    self.bytes += bytes.len();
                    sent.push((conn, bytes.len()));
                }
            }
            waiting = Vec::new();
            for (conn, bytes) in sent {
                let sent = Input::Tcp(conn, TcpEvent::Sent(bytes));
                waiting.extend(self.speaker.handle(sent, self.now));
            }
        }
    }

    /// Feeds a stream of peer 0 and says what it cost.
    fn feed(&mut self, what: &str, stream: &Bytes, routes: usize) {
        let (calls, before, start) = (CALLS.load(Ordering::Relaxed), self.bytes, Instant::now());
        let mut at = 0;
        while at < stream.len() {
            let end = (at + CHUNK).min(stream.len());
            self.bytes(0, stream.slice(at..end));
            at = end;
        }
        let nanos = start.elapsed().as_nanos() / u128::try_from(routes).unwrap_or(1);
        println!(
            "{what}: {nanos} ns a route, {:.2} allocations a route, {} bytes sent, {} bytes held",
            ratio(CALLS.load(Ordering::Relaxed) - calls, routes),
            self.bytes - before,
            BYTES.load(Ordering::Relaxed),
        );
    }
}

fn ratio(count: usize, of: usize) -> f64 {
    f64::from(number(count)) / f64::from(number(of))
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn byte(index: usize) -> u8 {
    u8::try_from(index).unwrap_or(u8::MAX)
}

fn address(host: usize) -> SocketAddr {
    SocketAddr::from(([10, 255, 1, 2 + byte(host)], 40000))
}

fn conn(host: usize) -> ConnId {
    ConnId::In(u64::try_from(host).unwrap_or(0) + 1)
}

/// Internet-like: some six prefixes for each attribute set.
fn streams(routes: usize, reflect: bool) -> (Bytes, Bytes) {
    let dialect = Dialect::plain(reflect);
    let (mut announce, mut withdraw) = (Vec::new(), Vec::new());
    let mut all = Vec::with_capacity(routes);
    let mut set = 0;
    while all.len() < routes {
        set += 1;
        let mut attributes = Attributes::new(address(0).ip().into());
        let tail = (0..2 + set % 5).map(|hop| 1000 + (set * 7919 + hop * 104_729) % 60_000);
        let asns: Vec<u32> = if reflect {
            tail.collect()
        } else {
            std::iter::once(65002).chain(tail).collect()
        };
        attributes.as_path = AsPath::sequence(asns);
        attributes.communities = (0..set % 4)
            .map(|it| (65002 << 16) | ((set + it) % 65_536))
            .collect();
        attributes.med = (set % 3 == 0).then_some(set % 100);
        attributes.local_pref = reflect.then_some(100);
        let count = usize::try_from(1 + (set * 31) % 11).unwrap_or(1);
        let first = all.len();
        for _ in 0..count {
            let address = 0x0b00_0000 + number(all.len()) * 256;
            let prefix = Cidr::new(std::net::Ipv4Addr::from(address).into(), 24);
            all.extend(prefix.ok());
        }
        let messages = update::announce(&attributes, Family::V4, &all[first..], dialect);
        messages
            .unwrap_or_default()
            .iter()
            .for_each(|it| announce.extend_from_slice(it));
    }
    for message in update::withdraw(Family::V4, &all) {
        withdraw.extend_from_slice(&message);
    }
    (announce.into(), withdraw.into())
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default| {
        let argument = arguments.next().and_then(|it| it.parse().ok());
        argument.unwrap_or(default)
    };
    let (routes, receivers): (usize, usize) = (next(1_000_000), next(1));
    let reflect = receivers > 1;
    let (announce, withdraw) = streams(routes, reflect);
    println!(
        "{routes} routes, {receivers} receivers, {} bytes",
        announce.len()
    );
    let mut bench = Bench::new(receivers, reflect);
    bench.feed("announce", &announce, routes);
    bench.feed("again   ", &announce, routes);
    bench.feed("withdraw", &withdraw, routes);
}
