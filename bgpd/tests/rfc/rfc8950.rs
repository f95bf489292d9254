//! IPv4 routes with IPv6 next hops.

use std::net::SocketAddr;

use bgpd::config::Peer;
use bgpd::speaker::{ConnId, Input, Output, TcpEvent};
use bgpd::wire::{self, AsPath, Attributes, Capability, Open, update};
use crds::net::Family;

use crate::bench::{Bench, EBGP, best, report, updates};
use crate::peers::opened;
use crate::sim::{cidr, config, interface, ip, origin, peer};

fn extended() -> Capability {
    Capability::ExtendedNextHop(vec![(1, 1, 2)])
}

/// A session over IPv6 on a link without IPv4 addresses.
fn joined(capabilities: Vec<Capability>) -> (Bench, ConnId, Vec<Output>) {
    let mut config = config(65001, "192.0.2.1");
    config.origins = vec![origin("10.1.0.0/26")];
    config.peers = vec![Peer {
        passive: true,
        ..peer("2001:db8::2", 65002)
    }];
    let mut bench = Bench::new(config);
    bench.input(Input::Kernel(interface(
        3,
        &["2001:db8::1/64", "fe80::1/64"],
    )));
    bench.input(report());
    bench.input(Input::OriginsComplete);
    let conn = ConnId::In(1);
    let end = |text: &str, port| SocketAddr::new(ip(text), port);
    let accepted = TcpEvent::Accepted {
        local: end("2001:db8::1", 179),
        remote: end("2001:db8::2", 40000),
        ttl: None,
    };
    let mut outputs = bench.input(Input::Tcp(conn, accepted));
    let both = Family::ALL.map(Capability::unicast);
    let all = both.into_iter().chain(capabilities).collect();
    let open = Open::new(65002, 90, [10, 0, 0, 2].into(), all);
    outputs.extend(bench.bytes(conn, &open.encode()));
    outputs.extend(bench.bytes(conn, &wire::keepalive()));
    (bench, conn, outputs)
}

#[test]
fn over_ipv6_it_is_offered_and_used_both_ways() {
    let (mut bench, conn, outputs) = joined(vec![extended()]);
    assert!(opened(&outputs, conn).capabilities.contains(&extended()));
    let told = updates(&outputs, conn);
    let announced: Vec<_> = told.iter().flat_map(|it| &it.announced).collect();
    assert_eq!(announced[0].0.next_hop.address, ip("2001:db8::1"));
    assert_eq!(announced[0].1, [cidr("10.1.0.0/26")]);

    let mut attributes = Attributes::new(ip("2001:db8::2").into());
    attributes.as_path = AsPath::sequence([65002]);
    let prefix = cidr("10.2.0.0/26");
    let messages = update::announce(&attributes, Family::V4, &[prefix], EBGP).unwrap();
    let outputs = bench.bytes(conn, &messages.concat());
    assert_eq!(best(&outputs), [(prefix, vec!["2001:db8::2".to_owned()])]);
}

#[test]
fn a_peer_that_does_not_know_it_is_told_no_such_route() {
    let (_, conn, outputs) = joined(vec![]);
    let told = updates(&outputs, conn);
    assert!(told.iter().all(|it| it.announced.is_empty()), "{told:?}");
}

#[test]
fn over_ipv4_it_is_not_offered() {
    let mut bench = Bench::started(crate::bench::with_peers(1));
    let (conn, outputs) = crate::peers::connect(&mut bench, 2, 0);
    assert!(!opened(&outputs, conn).capabilities.contains(&extended()));
}
