//! Host endpoints, source ports and notes, with packets.

use felix::driver::nft::Ensured;
use felix::nft::epoch::{Options, ToHost};
use felix::policy::tables::{
    Answer, Class, Direction, Failsafe, Guard, HostHook, Program, Subject, Tables, Verdict,
};

use crate::net::Probe::{Ping, Tcp, Udp};
use crate::net::echo;
use crate::policed::{FROM_R, OF_A, Policed, address, enforce, options};

const WEB: Program = Program(0x10);

/// Brings the kernel to other tables.
fn change(policed: &mut Policed, edit: impl FnOnce(&mut Tables)) {
    let mut after = policed.tables.clone();
    edit(&mut after);
    enforce(&policed.kernel, &policed.tables, &after, true);
    policed.tables = after;
}

fn row(tables: &mut Tables, hook: HostHook, class: Option<Class>, program: Program) {
    let uplink = Some("up0".to_owned());
    tables.hosts.insert((hook, uplink, class), program);
    tables.guard.insert(Guard::Flows, ());
}

#[test]
fn a_host_endpoint_is_policed_and_its_node_reaches_its_pods() {
    let mut policed = Policed::new();
    policed.expect("r", "node", &[(Tcp(8080), true), (Tcp(8081), true)]);
    change(&mut policed, |tables| {
        row(tables, HostHook::LocalIn, None, Program::DENY);
        row(tables, HostHook::LocalIn, Some(FROM_R), WEB);
        row(tables, HostHook::LocalOut, None, Program::DENY);
    });
    let opened = [
        (Tcp(8080), true),
        (Tcp(8081), false),
        (Udp(5001), true),
        (Udp(6000), false),
    ];
    policed.expect("r", "node", &opened);
    policed.expect("node", "r", &[(Tcp(8080), false), (Ping, false)]);
    for pod in ["a", "b", "c"] {
        policed.expect("node", pod, &[(Tcp(8081), true), (Ping, true)]);
    }
    policed.expect("r", "a", &[(Tcp(8080), true), (Tcp(8081), false)]);
    policed.expect("a", "node", &[(Tcp(8080), true)]);
    change(&mut policed, |tables| {
        row(tables, HostHook::LocalOut, None, Program::ALLOW);
    });
    policed.expect("node", "r", &[(Tcp(8080), true), (Ping, true)]);
    change(&mut policed, |tables| {
        tables.hosts.clear();
        tables
            .hosts
            .insert((HostHook::LocalIn, None, None), Program::DENY);
        tables
            .hosts
            .insert((HostHook::LocalIn, None, Some(FROM_R)), WEB);
    });
    policed.expect("r", "node", &[(Tcp(8080), true), (Tcp(8081), false)]);
    policed.expect("node", "r", &[(Tcp(8081), true)]);
    change(&mut policed, |tables| {
        tables.hosts.clear();
        tables.guard.clear();
    });
    policed.expect("r", "node", &[(Tcp(8081), true)]);
}

#[test]
fn what_a_host_endpoint_forwards_is_policed_both_ways() {
    let mut policed = Policed::new();
    policed.expect("r", "a", &[(Tcp(8080), true)]);
    policed.expect("a", "r", &[(Tcp(8081), true)]);
    change(&mut policed, |tables| {
        row(tables, HostHook::ForwardIn, None, Program::DENY);
    });
    policed.expect("r", "a", &[(Tcp(8080), false)]);
    policed.expect("a", "r", &[(Tcp(8081), true)]);
    policed.expect("r", "node", &[(Tcp(8081), true)]);
    policed.expect("b", "a", &[(Tcp(8080), true)]);
    change(&mut policed, |tables| {
        row(tables, HostHook::ForwardIn, None, Program::ALLOW);
        row(tables, HostHook::ForwardOut, None, Program::DENY);
    });
    policed.expect("r", "a", &[(Tcp(8080), true)]);
    policed.expect("a", "r", &[(Tcp(8081), false)]);
    change(&mut policed, |tables| {
        tables.hosts.clear();
        row(tables, HostHook::PreDnat, None, Program::ALLOW);
        row(tables, HostHook::PreDnat, Some(FROM_R), WEB);
    });
    policed.expect("r", "a", &[(Tcp(8080), true)]);
    policed.expect("r", "b", &[(Tcp(8080), true), (Tcp(8081), false)]);
    policed.expect("r", "node", &[(Tcp(8080), true), (Tcp(8081), false)]);
    policed.expect("a", "r", &[(Tcp(8081), true)]);
}

/// Says nothing about any packet.
const NOTHING: Program = Program(0x20);
/// TCP 8080 by this answer, and nothing about the rest.
const SERVED: Program = Program(0x21);
/// The same of what comes from there.
const ANSWERED: Program = Program(Program::REFINED | 0x22);

/// Packets to and from a TCP port of the node, before connections are tracked.
fn raw(tables: &mut Tables, answer: Answer, program: Program) {
    tables.programs.insert(NOTHING, Answer::PASS);
    tables.programs.insert(SERVED, Answer::PASS);
    tables.ports.insert((SERVED, 6, 8080), answer);
    tables.source_rest.insert(ANSWERED, NOTHING);
    tables.sources.insert((ANSWERED, 6, 8080, 8080), program);
    let any = |hook, class| (hook, None, class);
    tables.hosts.insert(any(HostHook::RawIn, None), NOTHING);
    tables
        .hosts
        .insert(any(HostHook::RawIn, Some(FROM_R)), SERVED);
    tables
        .hosts
        .insert(any(HostHook::RawOut, Some(FROM_R)), ANSWERED);
    tables.guard.insert(Guard::Packets, ());
}

/// How many connections to this port the node tracks.
fn tracked(policed: &Policed, port: u16) -> usize {
    let listed = policed
        .kernel
        .namespace
        .sh("conntrack -L 2>/dev/null; conntrack -L -f ipv6 2>/dev/null; conntrack -F 2>/dev/null");
    let of = format!("dport={port} ");
    listed.lines().filter(|line| line.contains(&of)).count()
}

#[test]
fn what_is_allowed_untracked_passes_and_is_not_tracked() {
    let mut policed = Policed::new();
    change(&mut policed, |tables| {
        row(tables, HostHook::LocalIn, None, Program::DENY);
        row(tables, HostHook::LocalIn, Some(FROM_R), Program::ALLOW);
        row(tables, HostHook::LocalOut, None, Program::DENY);
    });
    policed.expect("r", "node", &[(Tcp(8080), true), (Tcp(8081), true)]);
    assert!(tracked(&policed, 8080) >= 2, "the check sees connections");
    // Whatever comes later is not asked.
    change(&mut policed, |tables| {
        row(tables, HostHook::LocalIn, Some(FROM_R), Program::DENY);
        raw(tables, Answer::ALLOW, Program::ALLOW);
    });
    policed.expect("r", "node", &[(Tcp(8080), true), (Tcp(8081), false)]);
    assert_eq!(tracked(&policed, 8080), 0);
    // Pods are not concerned, and the node reaches them.
    policed.expect("r", "b", &[(Tcp(8081), true)]);
    policed.expect("a", "r", &[(Tcp(8081), true)]);
    policed.expect("node", "a", &[(Tcp(8081), true)]);
    // What it denies is dropped, whatever the others say.
    change(&mut policed, |tables| {
        row(tables, HostHook::LocalIn, Some(FROM_R), Program::ALLOW);
        raw(tables, Answer::DENY, NOTHING);
    });
    policed.expect("r", "node", &[(Tcp(8080), false), (Tcp(8081), true)]);
    change(&mut policed, |tables| {
        tables.hosts.clear();
        tables.guard.clear();
    });
    policed.expect("r", "node", &[(Tcp(8080), true)]);
}

#[test]
fn what_is_forwarded_is_judged_by_the_address_at_the_node_s_end() {
    let mut policed = Policed::new();
    let owned = Program(Program::OWNED | 0x30);
    let of = |name: &str, policed: &Policed| policed.network.addresses(name);
    let (closed, open) = (of("b", &policed), of("node", &policed));
    change(&mut policed, |tables| {
        for hook in [HostHook::ForwardIn, HostHook::ForwardOut, HostHook::LocalIn] {
            tables.hosts.insert((hook, None, None), owned);
        }
        tables.guard.insert(Guard::Flows, ());
        tables.own_rest.insert(owned, Program::ALLOW);
        for address in closed {
            tables.owns.insert((owned, address, address), Program::DENY);
        }
        for address in open {
            tables.owns.insert((owned, address, address), WEB);
        }
    });
    policed.expect("r", "b", &[(Tcp(8081), false), (Ping, false)]);
    policed.expect("r", "a", &[(Tcp(8080), true)]);
    policed.expect("a", "r", &[(Tcp(8081), true)]);
    policed.expect("b", "a", &[(Tcp(8080), true)]);
    let there = policed.kernel.with(|nft| nft.read().expect("read"));
    assert_eq!(there.owns, policed.tables.owns);
    policed.expect("r", "node", &[(Tcp(8080), true), (Tcp(8081), false)]);
}

/// A port that stays open, to and from everywhere or (IPv4) r only.
fn open(tables: &mut Tables, direction: Direction, protocol: u8, port: u16) {
    for (first, last) in [
        ("10.9.0.2", "10.9.0.2"),
        ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ] {
        let failsafe = Failsafe {
            direction,
            protocol,
            port,
            first: address(first),
            last: address(last),
        };
        tables.failsafes.insert(failsafe, ());
    }
}

#[test]
fn failsafe_ports_stay_open_at_every_hook() {
    let mut policed = Policed::new();
    let closed = [(Tcp(8080), false), (Udp(5001), false), (Tcp(8081), false)];
    let opened = [(Tcp(8080), true), (Udp(5001), true), (Tcp(8081), false)];
    for hooks in [
        &[HostHook::LocalIn, HostHook::LocalOut][..],
        &[HostHook::PreDnat, HostHook::LocalOut],
        &[HostHook::RawIn, HostHook::RawOut],
    ] {
        change(&mut policed, |tables| {
            tables.hosts.clear();
            tables.failsafes.clear();
            for hook in hooks {
                row(tables, *hook, None, Program::DENY);
                tables.guard.insert(Guard::Packets, ());
            }
        });
        policed.expect("r", "node", &closed);
        policed.expect("node", "r", &closed);
        change(&mut policed, |tables| {
            for direction in Direction::BOTH {
                open(tables, direction, 6, 8080);
                open(tables, direction, 17, 5001);
            }
        });
        policed.expect("r", "node", &opened);
        policed.expect("node", "r", &opened);
        let there = policed.kernel.with(|nft| nft.read().expect("read"));
        assert_eq!(there.failsafes, policed.tables.failsafes);
    }
    // For those it is open to only.
    change(&mut policed, |tables| {
        tables
            .failsafes
            .retain(|it, ()| it.first.is_ipv6() || it.direction == Direction::Egress);
    });
    let [ip4, ip6] = [0, 1].map(|i| policed.network.addresses("node")[i]);
    assert!(!policed.network.probe("r", ip4, Tcp(8080)));
    assert!(policed.network.probe("r", ip6, Tcp(8080)));
}

#[test]
fn an_operator_says_what_becomes_of_flows_of_pods_to_their_node() {
    let mut policed = Policed::new();
    let all = [(Tcp(8080), true), (Tcp(8081), true), (Ping, true)];
    let none = all.map(|(probe, _)| (probe, false));
    let choose = |policed: &Policed, to_host| {
        let ensured = policed.kernel.with(|nft| {
            nft.set_options(Options {
                to_host,
                ..options()
            });
            nft.ensure_table().expect("table")
        });
        assert_eq!(ensured, Ensured::Replaced);
    };
    policed.expect("a", "node", &all);
    let mut live = policed
        .network
        .connect("a", policed.network.addresses("node")[0], 8080);
    echo(&mut live).expect("it lives");
    choose(&policed, ToHost::Drop);
    assert!(echo(&mut live).is_err(), "a connection outlives its end");
    policed.expect("a", "node", &none);
    policed.expect("a", "r", &all);
    policed.expect("node", "a", &all);
    policed.expect("r", "node", &all);
    choose(&policed, ToHost::Return);
    policed.expect("a", "node", &all);
    change(&mut policed, |tables| {
        let any = |class| (HostHook::LocalIn, None, class);
        tables.hosts.insert(any(None), Program::DENY);
        tables.hosts.insert(any(Some(OF_A)), WEB);
        tables.guard.insert(Guard::Flows, ());
    });
    policed.expect("a", "node", &[(Tcp(8080), true), (Tcp(8081), false)]);
    policed.expect("node", "a", &all);
    // Its own policy allows the pod nothing of the node.
    policed.expect("b", "node", &none);
    choose(&policed, ToHost::Accept);
    policed.expect("a", "node", &all);
}

#[test]
fn source_ports_and_notes_are_judged() {
    let mut policed = Policed::new();
    let ingress = Subject::new(7, false, true);
    let refined = Program(Program::REFINED | 0x10);
    let to_a = (Direction::Ingress, ingress, FROM_R);
    change(&mut policed, |tables| {
        tables.pairs.insert(to_a, refined);
        tables.source_rest.insert(refined, WEB);
        tables.sources.insert((refined, 6, 0, 1023), Program::DENY);
        tables.sources.insert((refined, 6, 1024, 65535), WEB);
    });
    policed.expect("r", "a", &[(Tcp(8080), true), (Udp(5001), true)]);
    change(&mut policed, |tables| {
        tables
            .sources
            .insert((refined, 6, 1024, 65535), Program::DENY);
    });
    policed.expect(
        "r",
        "a",
        &[(Tcp(8080), false), (Udp(5001), true), (Ping, true)],
    );
    policed.expect("a", "r", &[(Tcp(8080), true)]);
    change(&mut policed, |tables| {
        tables.pairs.insert(to_a, WEB);
        let noted = |verdict| Answer {
            log: true,
            audit: true,
            ..Answer::plain(verdict)
        };
        tables.ports.insert((WEB, 6, 8080), noted(Verdict::Allow));
        tables.ports.insert((WEB, 6, 8081), noted(Verdict::Deny));
    });
    policed.expect("r", "a", &[(Tcp(8080), true), (Tcp(8081), false)]);
}
