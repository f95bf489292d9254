//! A table in a kernel, and pods under policy, without felix.

use std::sync::{Arc, Mutex};

use felix::driver::nft::{Ensured, Nft};
use felix::nft::diff;
use felix::nft::epoch::Options;
use felix::nft::terms::Rules;
use felix::policy::tables::{Answer, Class, Direction, Program, Subject, Tables};

use crate::net::{Network, Probe};
use crate::ns::Namespace;

/// A table in a namespace of its own.
pub(crate) struct Kernel {
    pub(crate) namespace: Namespace,
    nft: Arc<Mutex<Nft>>,
}

impl Kernel {
    pub(crate) fn new() -> Self {
        let namespace = Namespace::new();
        let nft = namespace.run(|| Nft::open().expect("netlink"));
        let kernel = Self {
            namespace,
            nft: Arc::new(Mutex::new(nft)),
        };
        assert_eq!(
            kernel.with(|nft| nft.ensure_table().expect("table")),
            Ensured::Created
        );
        kernel
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Nft) -> T) -> T {
        act(&mut self.nft.lock().expect("lock"))
    }
}

pub(crate) fn address(text: &str) -> std::net::IpAddr {
    text.parse().expect("address")
}

/// Brings the kernel from `have` to `want`, links included.
pub(crate) fn enforce(kernel: &Kernel, have: &Tables, want: &Tables, narrowing: bool) {
    let phases = diff::plan(&have.diff(want), want, narrowing);
    kernel.with(|nft| nft.apply(&phases.add).expect("add"));
    let set = |links: &[(String, Subject)]| {
        for (link, subject) in links {
            kernel
                .namespace
                .sh(&format!("ip link set {link} group {}", subject.0));
        }
    };
    set(&phases.links);
    kernel.with(|nft| nft.apply(&phases.commit).expect("commit"));
    set(&phases.relinks);
    kernel.with(|nft| nft.apply(&phases.sweep).expect("sweep"));
}

/// Pods a (ingress isolated), b (egress isolated) and c (known, never programmed) on a node, and r beyond it.
pub(crate) struct Policed {
    pub(crate) kernel: Kernel,
    pub(crate) network: Network,
    pub(crate) tables: Tables,
}

/// With the rules of host endpoints.
pub(crate) fn options() -> Options {
    Options {
        terms: Rules {
            hosts: true,
            ..Rules::default()
        },
        ..Options::default()
    }
}

pub(crate) const FROM_R: Class = Class(0x10);
pub(crate) const OF_A: Class = Class(0x11);
const OF_B: Class = Class(0x12);

impl Policed {
    pub(crate) fn new() -> Self {
        let kernel = Kernel::new();
        let ensured = kernel.with(|nft| {
            nft.set_options(options());
            nft.ensure_table().expect("table")
        });
        assert_eq!(ensured, Ensured::Replaced);
        let network = Network::new(&kernel.namespace, &["a", "b", "c", "d"]);
        let ingress = Subject::new(7, false, true);
        let egress = Subject::new(8, true, false);
        let web = Program(0x10);
        let mut tables = Tables::default();
        for pod in ["a", "b", "c"] {
            for ip in network.addresses(pod) {
                tables
                    .workloads
                    .insert((Network::interface(pod), ip), format!("test/{pod}"));
            }
        }
        for (name, class) in [("r", FROM_R), ("a", OF_A), ("b", OF_B)] {
            for ip in network.addresses(name) {
                tables.peers.insert(ip, class);
            }
        }
        tables.links.insert(Network::interface("a"), ingress);
        tables.links.insert(Network::interface("b"), egress);
        tables
            .defaults
            .insert((Direction::Ingress, ingress), Program::DENY);
        tables
            .defaults
            .insert((Direction::Egress, egress), Program::DENY);
        tables
            .pairs
            .insert((Direction::Ingress, ingress, FROM_R), web);
        tables
            .pairs
            .insert((Direction::Ingress, ingress, OF_B), web);
        tables
            .pairs
            .insert((Direction::Egress, egress, OF_A), Program::ALLOW);
        tables.ports.insert((web, 6, 8080), Answer::ALLOW);
        tables
            .port_ranges
            .insert((web, 17, 5000, 5099), Answer::ALLOW);
        tables.icmp.insert((web, 1, 0x0800), Answer::ALLOW);
        tables.icmp.insert((web, 1, 0), Answer::ALLOW);
        tables.protos.insert((web, 58), Answer::ALLOW);
        tables.programs_ranged.insert(web, Answer::DENY);
        enforce(&kernel, &Tables::default(), &tables, true);
        Self {
            kernel,
            network,
            tables,
        }
    }

    /// The verdicts on all probes of a source and a destination, in both families.
    pub(crate) fn expect(&self, from: &str, to: &str, probes: &[(Probe, bool)]) {
        for address in self.network.addresses(to) {
            for (probe, allowed) in probes {
                // What is allowed may be slow on a busy machine; what is denied must stay silent.
                let tries = if *allowed { 8 } else { 1 };
                let answered = (0..tries).any(|_| self.network.probe(from, address, *probe));
                assert_eq!(
                    answered,
                    *allowed,
                    "{from} to {to} ({address}) {probe:?}\n{}",
                    self.dump()
                );
            }
        }
    }

    fn dump(&self) -> String {
        self.kernel
            .namespace
            .sh("nft list ruleset; ip -d link; conntrack -L 2>&1 | head -40")
    }
}
