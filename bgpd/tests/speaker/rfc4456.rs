//! RFC 4456 (route reflection): clients, clusters and what is never passed on.

use std::net::Ipv4Addr;

use bgpd::config::{Config, ExportClass};
use bgpd::policy::ImportRefusal;
use crds::net::Family;

use crate::bench::Bench;
use crate::routes::{internal, told, with_internal};

/// All in one AS; those at 192.0.2.`clients` are clients.
fn reflector(count: u8, clients: &[u8]) -> Config {
    let all: Vec<u8> = (2..2 + count).collect();
    let mut config = with_internal(count, &all);
    for (peer, host) in config.peers.iter_mut().zip(2..) {
        peer.export = match clients.contains(&host) {
            true => ExportClass::Reflect,
            false => ExportClass::Transit,
        };
    }
    config
}

#[test]
fn section_6_a_route_of_a_client_goes_to_all_another_only_to_clients() {
    let mut bench = Bench::started(reflector(4, &[2, 3]));
    let conns: Vec<_> = (2..=5)
        .map(|host| bench.join(host, &[Family::V4]).0)
        .collect();
    let mut reached = |from: u8, prefix: &str| -> Vec<u8> {
        let outputs = bench.announce_inside(from, &internal(from, &[]), prefix);
        (2..)
            .zip(&conns)
            .filter(|(_, conn)| !told(&outputs, **conn, true).is_empty())
            .map(|(host, _)| host)
            .collect()
    };
    assert_eq!(reached(2, "10.2.0.0/26"), [3, 4, 5]);
    assert_eq!(reached(4, "10.4.0.0/26"), [2, 3]);
}

#[test]
fn section_8_the_cluster_is_the_clients_and_any_own_one_is_a_loop() {
    let mut config = reflector(3, &[2, 3]);
    config.cluster_id = Some(Ipv4Addr::new(9, 9, 9, 9));
    config.peers[1].options.cluster_id = Some(Ipv4Addr::new(3, 3, 3, 3));
    let mut bench = Bench::started(config);
    let conns: Vec<_> = (2..=4)
        .map(|host| bench.join(host, &[Family::V4]).0)
        .collect();
    let mut route = internal(2, &[]);
    route.originator_id = Some([10, 0, 0, 77].into());
    route.cluster_list = vec![[7, 7, 7, 7].into()];
    let outputs = bench.announce_inside(2, &route, "10.2.0.0/26");
    for (conn, cluster) in [(conns[1], [3, 3, 3, 3]), (conns[2], [9, 9, 9, 9])] {
        let routes = told(&outputs, conn, true);
        let expected: [Ipv4Addr; 2] = [cluster.into(), [7, 7, 7, 7].into()];
        assert_eq!(routes[0].1.cluster_list, expected);
        assert_eq!(routes[0].1.originator_id, Some([10, 0, 0, 77].into()));
    }
    for cluster in [[3, 3, 3, 3], [9, 9, 9, 9]] {
        route.cluster_list = vec![[7, 7, 7, 7].into(), cluster.into()];
        bench.announce_inside(2, &route, "10.2.0.0/26");
        assert_eq!(
            bench.refusal("10.2.0.0/26"),
            Some(ImportRefusal::ClusterLoop)
        );
    }
    route.cluster_list.clear();
    route.originator_id = Some([192, 0, 2, 1].into());
    bench.announce_inside(2, &route, "10.2.0.0/26");
    assert_eq!(
        bench.refusal("10.2.0.0/26"),
        Some(ImportRefusal::OwnOriginator)
    );
}
