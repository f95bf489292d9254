//! Which next hops are taken of whom, and what own addresses that come and go change about it.

use bgpd::config::Distance;
use bgpd::nexthop::{Change, Route, Via};
use bgpd::policy::ImportRefusal;
use bgpd::speaker::{Input, Output, REFUSED_KEPT};
use bgpd::wire;
use crds::net::{Cidr, Family};

use crate::bench::{Bench, best, with_peers};
use crate::refused::join_refreshing;
use crate::routes::{external, internal, with_internal};
use crate::sim::{cidr, interface, ip};

const PREFIX: &str = "10.2.0.0/26";

/// The peer at 192.0.2.2 announces a prefix with that next hop.
fn said(bench: &mut Bench, next_hop: &str) -> Option<ImportRefusal> {
    let mut attributes = external(2, &[]);
    attributes.next_hop = ip(next_hop).into();
    bench.announce_with(2, &attributes, &[cidr(PREFIX)]);
    bench.refusal(PREFIX)
}

fn way_to(prefix: &str) -> Input {
    Input::Kernel(vec![Change::Route(Route {
        prefix: cidr(prefix),
        metric: 0,
        vias: vec![Via {
            gateway: Some(ip("192.0.2.254")),
            ifindex: 3,
        }],
    })])
}

#[test]
fn a_direct_external_peer_names_itself_or_somebody_on_a_shared_network() {
    // RFC 4271 section 6.3.
    let mut bench = Bench::started(with_peers(1));
    bench.input(way_to("198.51.100.0/24"));
    bench.join(2, &[Family::V4]);
    assert_eq!(said(&mut bench, "192.0.2.2"), None);
    assert_eq!(said(&mut bench, "192.0.2.9"), None, "a third party");
    let foreign = Some(ImportRefusal::ForeignNextHop);
    assert_eq!(said(&mut bench, "198.51.100.9"), foreign);
    assert_eq!(bench.speaker.summary().neighbors_established, 1);
    // Networks come and go.
    bench.input(Input::Kernel(interface(4, &["198.51.100.1/24"])));
    assert_eq!(bench.refusal(PREFIX), None);
    bench.input(Input::Kernel(vec![Change::LinkGone { ifindex: 4 }]));
    assert_eq!(bench.refusal(PREFIX), foreign);
}

#[test]
fn farther_and_internal_peers_may_name_anybody() {
    let mut config = with_peers(1);
    config.peers[0].options.distance = Distance::Multihop(4);
    let mut bench = Bench::started(config);
    bench.input(way_to("198.51.100.0/24"));
    bench.join(2, &[Family::V4]);
    assert_eq!(said(&mut bench, "198.51.100.9"), None);

    // One that is reached through somebody else is not on a network with us.
    let mut config = with_peers(1);
    let mut bench = Bench::started(config.clone());
    bench.input(way_to("198.51.100.0/24"));
    bench.join(2, &[Family::V4]);
    let foreign = Some(ImportRefusal::ForeignNextHop);
    assert_eq!(said(&mut bench, "198.51.100.9"), foreign);
    config.peers[0].options.reachable_by = Some(ip("192.0.2.254"));
    bench.input(Input::Config(config));
    assert_eq!(bench.refusal(PREFIX), None);

    let mut bench = Bench::started(with_internal(1, &[2]));
    bench.input(way_to("198.51.100.0/24"));
    bench.join(2, &[Family::V4]);
    let mut attributes = internal(2, &[]);
    attributes.next_hop = ip("198.51.100.9").into();
    bench.announce_inside(2, &attributes, PREFIX);
    assert_eq!(bench.refusal(PREFIX), None);
}

#[test]
fn an_address_that_becomes_ours_is_nobody_else_s_next_hop() {
    let mut bench = Bench::started(with_peers(1));
    bench.join(2, &[Family::V4]);
    assert_eq!(said(&mut bench, "192.0.2.9"), None);
    let other = cidr("10.2.1.0/26");
    bench.announce(2, &[other]);
    let outputs = bench.input(Input::Kernel(interface(4, &["192.0.2.9/32"])));
    assert_eq!(best(&outputs), [(cidr(PREFIX), vec![])]);
    assert_eq!(bench.refusal(PREFIX), Some(ImportRefusal::OwnNextHop));
    assert_eq!(bench.refusal("10.2.1.0/26"), None);
    let outputs = bench.input(Input::Kernel(vec![Change::LinkGone { ifindex: 4 }]));
    assert_eq!(
        best(&outputs),
        [(cidr(PREFIX), vec!["192.0.2.9".to_owned()])]
    );
}

#[test]
fn peers_are_asked_again_only_for_what_an_address_changes() {
    let mut bench = Bench::started(with_peers(1));
    bench.input(Input::Kernel(interface(4, &["192.0.2.9/32"])));
    let conn = join_refreshing(&mut bench);
    let all: Vec<Cidr> = (0..=REFUSED_KEPT)
        .map(|n| {
            cidr("10.0.0.0/8")
                .subnet(26, n.try_into().unwrap())
                .unwrap()
        })
        .collect();
    let mut attributes = external(2, &[]);
    attributes.next_hop = ip("192.0.2.9").into();
    bench.announce_with(2, &attributes, &all);
    assert_eq!(bench.speaker.neighbors(0)[0].families[0].not_kept, 1);
    // Pods come and go.
    for index in 10..20 {
        let outputs = bench.input(Input::Kernel(interface(index, &["fe80::99/64"])));
        assert_eq!(outputs, []);
        let outputs = bench.input(Input::Kernel(vec![Change::LinkGone { ifindex: index }]));
        assert_eq!(outputs, []);
    }
    let outputs = bench.input(Input::Kernel(vec![Change::LinkGone { ifindex: 4 }]));
    let refresh = wire::RouteRefresh {
        afi: 1,
        subtype: 0,
        safi: 1,
    };
    let asked = Output::Send(conn, refresh.encode());
    assert!(outputs.contains(&asked), "{outputs:?}");
}
