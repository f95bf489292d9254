//! RFC 8326 (graceful shutdown): received ones are used last, own ones are told before they are withdrawn.

use std::collections::BTreeSet;

use bgpd::config::{Config, Drain, OriginKind, PeerKey};
use bgpd::speaker::{ConnId, DrainRequest, Input, RouteFilter};
use bgpd::wire::attribute::community::GRACEFUL_SHUTDOWN;
use crds::net::{Cidr, Family};

use crate::bench::{Bench, announced, best, with_peers};
use crate::routes::{external, told, with_internal, withdrawn};
use crate::sim::{cidr, ip};

const BLOCK: &str = "10.1.0.0/26";
const SERVICE: &str = "10.96.0.1/32";
const NODE: &str = "192.168.0.1/32";

/// A node with a block, a service and an address, told to an external and an internal peer.
fn node(config: Config) -> (Bench, [ConnId; 2]) {
    let mut bench = Bench::started(config);
    for (prefix, kind) in [
        (BLOCK, OriginKind::Block),
        (SERVICE, OriginKind::Service),
        (NODE, OriginKind::Node),
    ] {
        bench.input(Input::Origin {
            prefix: cidr(prefix),
            kind,
            withdrawn: false,
        });
    }
    bench.input(Input::OriginsComplete);
    let conns = [2, 3].map(|host| {
        let (conn, outputs) = bench.join(host, &[Family::V4]);
        let _ = outputs;
        conn
    });
    (bench, conns)
}

fn drain(node: Drain, force: bool, peers: &[&str]) -> Input {
    let key = |it: &&str| PeerKey::Address(ip(it));
    Input::Drain(DrainRequest {
        node,
        force,
        peers: peers.iter().map(key).collect(),
    })
}

fn cidrs(prefixes: &[&str]) -> BTreeSet<Cidr> {
    prefixes.iter().map(|it| cidr(it)).collect()
}

fn set(prefixes: Vec<Cidr>) -> BTreeSet<Cidr> {
    prefixes.into_iter().collect()
}

#[test]
fn section_4_a_received_one_is_the_last_to_be_used() {
    let mut bench = Bench::started(with_peers(2));
    bench.join(2, &[Family::V4]);
    bench.join(3, &[Family::V4]);
    let prefix = cidr("10.2.0.0/26");
    let mut long = external(3, &[]);
    long.as_path = long.as_path.prepended(65003).prepended(65003);
    bench.announce_with(3, &long, &[prefix]);
    let to = |gateway: &str| [(prefix, vec![gateway.to_owned()])];
    assert_eq!(
        best(&bench.announce_with(2, &external(2, &[]), &[prefix])),
        to("192.0.2.2")
    );
    let leaving = external(2, &[GRACEFUL_SHUTDOWN]);
    assert_eq!(
        best(&bench.announce_with(2, &leaving, &[prefix])),
        to("192.0.2.3")
    );
    let filter = RouteFilter {
        community: Some("graceful-shutdown".into()),
        ..RouteFilter::default()
    };
    let routes = bench.speaker.routes(&filter, 0);
    assert_eq!(routes.len(), 1);
    assert_eq!(routes[0].local_pref, Some(0));
    // It comes back into use.
    assert_eq!(
        best(&bench.announce_with(2, &external(2, &[]), &[prefix])),
        to("192.0.2.2")
    );
}

#[test]
fn services_are_told_as_leaving_then_withdrawn_then_told_again() {
    let (mut bench, [outside, inside]) = node(with_internal(2, &[3]));
    let outputs = bench.input(drain(Drain::Services, false, &[]));
    let routes = told(&outputs, outside, false);
    assert_eq!(routes.len(), 1, "only services leave: {routes:?}");
    assert_eq!(routes[0].0, cidr(SERVICE));
    assert_eq!(routes[0].1.communities, [GRACEFUL_SHUTDOWN]);
    let within = told(&outputs, inside, true);
    assert_eq!(
        within[0].1.local_pref,
        Some(0),
        "inside, LOCAL_PREF says it"
    );
    let early = bench.wait(&[2, 3], Config::DRAIN_WAIT - 1);
    assert_eq!(withdrawn(&early, outside), []);
    assert!(
        bench
            .speaker
            .next_timeout()
            .is_some_and(|at| at <= Config::DRAIN_WAIT)
    );
    let late = bench.tick(1);
    assert_eq!(withdrawn(&late, outside), [cidr(SERVICE)]);
    assert_eq!(withdrawn(&late, inside), [cidr(SERVICE)]);
    let back = told(&bench.input(drain(Drain::No, false, &[])), outside, false);
    assert_eq!(back.len(), 1);
    assert!(back[0].1.communities.is_empty());
}

#[test]
fn blocks_with_pods_stay_until_they_are_empty_or_by_force() {
    let (mut bench, [outside, _]) = node(with_peers(2));
    bench.input(drain(Drain::Everything, false, &[]));
    let outputs = bench.wait(&[2, 3], Config::DRAIN_WAIT);
    assert_eq!(withdrawn(&outputs, outside), [cidr(SERVICE)]);
    let idle = |idle| Input::OriginIdle {
        prefix: cidr(BLOCK),
        idle,
    };
    assert_eq!(withdrawn(&bench.input(idle(true)), outside), [cidr(BLOCK)]);
    // A pod starts nevertheless.
    assert_eq!(announced(&bench.input(idle(false)), outside), [cidr(BLOCK)]);
    bench.input(drain(Drain::Everything, true, &[]));
    let outputs = bench.wait(&[2, 3], Config::DRAIN_WAIT);
    assert_eq!(
        withdrawn(&outputs, outside),
        [cidr(BLOCK)],
        "the node's address stays"
    );
}

#[test]
fn one_uplink_is_drained_both_ways() {
    let (mut bench, [two, three]) = node(with_peers(2));
    let prefix = cidr("10.2.0.0/26");
    bench.announce(2, &[prefix]);
    bench.announce(3, &[prefix]);
    let outputs = bench.input(drain(Drain::No, false, &["192.0.2.2"]));
    assert_eq!(
        set(announced(&outputs, two)),
        cidrs(&[BLOCK, SERVICE, NODE])
    );
    assert_eq!(announced(&outputs, three), []);
    assert_eq!(best(&outputs), [(prefix, vec!["192.0.2.3".to_owned()])]);
    let outputs = bench.wait(&[2, 3], Config::DRAIN_WAIT);
    assert_eq!(
        set(withdrawn(&outputs, two)),
        cidrs(&[BLOCK, SERVICE, NODE])
    );
    assert_eq!(withdrawn(&outputs, three), []);
    let outputs = bench.input(drain(Drain::No, false, &[]));
    assert_eq!(
        set(announced(&outputs, two)),
        cidrs(&[BLOCK, SERVICE, NODE])
    );
    let both = vec!["192.0.2.2".to_owned(), "192.0.2.3".to_owned()];
    assert_eq!(best(&outputs), [(prefix, both)]);
}

#[test]
fn a_speaker_that_starts_drained_tells_nothing() {
    let mut config = with_peers(2);
    config.drain = Drain::Services;
    let mut bench = Bench::started(config.clone());
    for (prefix, kind) in [(BLOCK, OriginKind::Block), (SERVICE, OriginKind::Service)] {
        bench.input(Input::Origin {
            prefix: cidr(prefix),
            kind,
            withdrawn: false,
        });
    }
    bench.input(Input::OriginsComplete);
    let (conn, outputs) = bench.join(2, &[Family::V4]);
    assert_eq!(announced(&outputs, conn), [cidr(BLOCK)]);
    // The configuration ends it as well.
    config.drain = Drain::No;
    let outputs = bench.input(Input::Config(config));
    assert_eq!(announced(&outputs, conn), [cidr(SERVICE)]);
}
