//! Peers on an interface, whoever they are.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use bgpd::config::{Config, ImportPolicy, OriginKind, Peer, PeerKey};
use bgpd::nexthop::Change;
use bgpd::speaker::{ConnId, Hindrance, Input, Leg, Output, TcpEvent};
use bgpd::wire::{self, AsPath, Attributes, Capability, Dialect, Open, update};
use bytes::Bytes;
use crds::net::Family;

use crate::bench::{Bench, report, updates};
use crate::sim::{cidr, config, interface, ip};

const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99);

fn unnumbered(edit: impl FnOnce(&mut Peer)) -> Config {
    let mut config = config(65001, "192.0.2.1");
    let mut peer = Peer::new(ip("::"), 0);
    peer.key = PeerKey::Interface("eth3".into());
    peer.families = vec![Family::V4, Family::V6];
    peer.import = ImportPolicy::All;
    edit(&mut peer);
    config.peers = vec![peer];
    config
}

fn end(address: Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddrV6::new(address, port, 0, 3).into()
}

fn router(known: bool) -> Input {
    let (ifindex, address) = (3, ROUTER);
    Input::Kernel(vec![match known {
        true => Change::Router { ifindex, address },
        false => Change::RouterGone { ifindex, address },
    }])
}

fn dialed(outputs: &[Output]) -> Option<(ConnId, SocketAddr)> {
    outputs.iter().find_map(|it| match it {
        Output::Connect { conn, remote, .. } => Some((*conn, *remote)),
        _ => None,
    })
}

fn extended() -> Capability {
    Capability::ExtendedNextHop(vec![(1, 1, 2)])
}

/// What two speakers that are connected say; the outputs of the last word.
fn greet(bench: &mut Bench, conn: ConnId) -> Vec<Output> {
    let mut capabilities: Vec<Capability> = Family::ALL.map(Capability::unicast).into();
    capabilities.push(extended());
    let open = Open::new(65099, 90, [10, 0, 0, 99].into(), capabilities);
    bench.bytes(conn, &open.encode());
    bench.bytes(conn, &wire::keepalive())
}

#[test]
fn a_router_that_advertises_itself_is_connected_to() {
    let mut bench = Bench::new(unnumbered(|_| ()));
    bench.input(report());
    let shown = |bench: &Bench| bench.speaker.neighbors(bench.now)[0].hindrance.clone();
    bench.input(Input::Kernel(interface(4, &["fe80::4/64"])));
    assert_eq!(shown(&bench), Some(Hindrance::NoInterface("eth3".into())));
    bench.input(Input::Kernel(interface(3, &["fe80::1/64"])));
    assert_eq!(shown(&bench), Some(Hindrance::NoRouter("eth3".into())));
    assert_eq!(dialed(&bench.tick(60_000)), None);
    let own = Change::Router {
        ifindex: 3,
        address: "fe80::1".parse().unwrap(),
    };
    let outputs = bench.input(Input::Kernel(vec![own]));
    assert_eq!(dialed(&outputs), None, "its own advertisement, heard again");
    bench.input(Input::Kernel(interface(4, &["fe80::99/64"])));
    let outputs = bench.input(router(true));
    let (conn, remote) = dialed(&outputs).expect("a connection");
    assert_eq!(remote, end(ROUTER, 179));
    assert_eq!(shown(&bench), None);

    // It goes before it answers, and comes back.
    assert_eq!(bench.input(router(false)), [Output::Close(conn)]);
    let outputs = bench.input(router(true));
    let (conn, _) = dialed(&outputs).expect("a connection");
    let connected = TcpEvent::Connected {
        local: end("fe80::1".parse().unwrap(), 40000),
        remote,
    };
    bench.input(Input::Tcp(conn, connected));
    greet(&mut bench, conn);
    assert_eq!(bench.speaker.summary().neighbors_established, 1);
    assert_eq!(bench.speaker.neighbors(bench.now)[0].remote_asn, 65099);
    // A session does not depend on what the neighbour table says.
    assert_eq!(bench.input(router(false)), []);
}

#[test]
fn only_the_address_that_is_named_is_the_peer() {
    let said = "fe80::77".parse().unwrap();
    let mut bench = Bench::new(unnumbered(|it| {
        (it.options.link_local, it.remote_asn) = (Some(said), 65099);
    }));
    bench.input(report());
    // Nothing needs to be advertised, and what is does not matter.
    let outputs = bench.input(Input::Kernel(interface(3, &["fe80::1/64"])));
    let (_, remote) = dialed(&outputs).expect("a connection");
    assert_eq!(remote, end(said, 179));
    assert_eq!(bench.input(router(true)), []);
    let accept = |conn, from| {
        let accepted = TcpEvent::Accepted {
            local: end("fe80::1".parse().unwrap(), 179),
            remote: end(from, 40000),
            ttl: None,
        };
        Input::Tcp(conn, accepted)
    };
    let refused = bench.input(accept(ConnId::In(1), ROUTER));
    let closes = |it: &Output| matches!(it, Output::Close(ConnId::In(1)));
    assert!(refused.iter().any(closes), "{refused:?}");
    bench.input(accept(ConnId::In(2), said));
    greet(&mut bench, ConnId::In(2));
    assert_eq!(bench.speaker.summary().neighbors_established, 1);
}

#[test]
fn both_families_pass_over_one_link_local_session() {
    let mut bench = Bench::new(unnumbered(|it| it.passive = true));
    bench.input(Input::Kernel(interface(3, &["fe80::1/64", "192.0.2.1/24"])));
    // The router's own address on one link may be ours on another.
    bench.input(Input::Kernel(interface(4, &["fe80::99/64"])));
    bench.input(report());
    for prefix in ["10.1.0.0/26", "fd00:1::/122"] {
        bench.input(Input::Origin {
            prefix: cidr(prefix),
            kind: OriginKind::Block,
            withdrawn: false,
        });
    }
    bench.input(Input::OriginsComplete);
    let conn = ConnId::In(1);
    let accepted = TcpEvent::Accepted {
        local: end("fe80::1".parse().unwrap(), 179),
        remote: end(ROUTER, 40000),
        ttl: Some(1),
    };
    bench.input(Input::Tcp(conn, accepted));
    let outputs = greet(&mut bench, conn);
    let told: Vec<_> = updates(&outputs, conn)
        .into_iter()
        .flat_map(|it| it.announced)
        .map(|(attributes, prefixes)| (prefixes[0].family(), attributes.next_hop))
        .collect();
    let own = ip("fe80::1").into();
    assert_eq!(
        told,
        [(Family::V4, own), (Family::V6, own)],
        "an IPv4 address is there, and is not asked for"
    );

    let mut attributes = Attributes::new(ip("fe80::99").into());
    attributes.as_path = AsPath::sequence([65099]);
    let dialect = Dialect {
        extended_next_hop: true,
        ..Dialect::plain(false)
    };
    let mut best = Vec::new();
    for prefix in ["10.2.0.0/26", "fd00:2::/122"] {
        let prefix = cidr(prefix);
        let messages = update::announce(&attributes, prefix.family(), &[prefix], dialect).unwrap();
        for message in messages {
            let event = TcpEvent::Bytes(Bytes::copy_from_slice(&message));
            best.extend(bench.input(Input::Tcp(conn, event)));
        }
    }
    let leg = Leg {
        address: ip("fe80::99"),
        ifindex: Some(3),
        onlink: false,
        weight: 1,
    };
    let expected = ["10.2.0.0/26", "fd00:2::/122"].map(|prefix| Output::Best {
        prefix: cidr(prefix),
        legs: vec![leg],
    });
    best.retain(|it| matches!(it, Output::Best { .. }));
    assert_eq!(best, expected);
}

#[test]
fn a_link_local_address_of_another_interface_is_nobodys() {
    let mut bench = Bench::new(unnumbered(|_| ()));
    bench.input(Input::Kernel(interface(3, &["fe80::1/64"])));
    bench.input(Input::Kernel(interface(4, &["fe80::4/64"])));
    bench.input(report());
    let accepted = |scope| TcpEvent::Accepted {
        local: end("fe80::1".parse().unwrap(), 179),
        remote: SocketAddrV6::new(ROUTER, 40000, 0, scope).into(),
        ttl: Some(1),
    };
    let outputs = bench.input(Input::Tcp(ConnId::In(1), accepted(4)));
    assert!(outputs.contains(&Output::Close(ConnId::In(1))));
    let outputs = bench.input(Input::Tcp(ConnId::In(2), accepted(3)));
    assert!(
        !outputs.contains(&Output::Close(ConnId::In(2))),
        "{outputs:?}"
    );
}
