//! Host endpoints, source ports and notes, with packets.

use felix::policy::tables::{
    Answer, Class, Direction, HostHook, Program, Subject, Tables, Verdict,
};

use crate::net::Probe::{Ping, Tcp, Udp};
use crate::policed::{FROM_R, Policed, enforce};

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
    tables.guard.insert((), ());
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
            verdict,
            log: true,
            audit: true,
        };
        tables.ports.insert((WEB, 6, 8080), noted(Verdict::Allow));
        tables.ports.insert((WEB, 6, 8081), noted(Verdict::Deny));
    });
    policed.expect("r", "a", &[(Tcp(8080), true), (Tcp(8081), false)]);
}
