//! RFC 4360 (extended communities) and 8092 (large ones): matched, changed, passed on.

use std::collections::BTreeSet;

use bgpd::config::ExportClass;
use bgpd::config::filter::{Action, Change, Community, Match};
use crds::net::Family;

use crate::bench::{Bench, with_peers};
use crate::routes::{export_by, external, filter, import_by, told, with_internal};
use crate::sim::cidr;

const TARGET: [u8; 8] = [0, 2, 0xfd, 0xe8, 0, 0, 0, 1];

#[test]
fn extended_and_large_communities_are_passed_on_and_changed_by_filters() {
    let mut config = with_peers(2);
    config.peers[1].export = ExportClass::Transit;
    let large = Community::Large([65002, 1, 1]);
    import_by(
        &mut config,
        2,
        "in",
        filter(
            Match {
                communities_all: BTreeSet::from([Community::Extended(TARGET), large]),
                ..Match::default()
            },
            vec![Change::AddCommunities(
                [Community::Large([65001, 0, 7])].into(),
            )],
            Action::Next,
        ),
    );
    export_by(
        &mut config,
        3,
        "out",
        filter(
            Match {
                communities_any: [Community::Large([65001, 0, 7])].into(),
                ..Match::default()
            },
            vec![Change::RemoveCommunities([large].into())],
            Action::Accept,
        ),
    );
    let mut bench = Bench::started(config);
    bench.join(2, &[Family::V4]);
    let (three, _) = bench.join(3, &[Family::V4]);
    let mut attributes = external(2, &[]);
    attributes.extended_communities = vec![TARGET];
    attributes.large_communities = vec![[65002, 1, 1], [65002, 9, 9]];
    let outputs = bench.announce_with(2, &attributes, &[cidr("10.2.0.0/26")]);
    let routes = told(&outputs, three, false);
    assert_eq!(routes[0].1.extended_communities, [TARGET]);
    assert_eq!(
        routes[0].1.large_communities,
        [[65002, 9, 9], [65001, 0, 7]]
    );
}

#[test]
fn extended_communities_that_are_not_transitive_stay_inside_the_as() {
    const INSIDE: [u8; 8] = [0x40, 4, 0xfd, 0xe8, 0, 0, 0, 1];
    const ADDED: [u8; 8] = [0x40, 4, 0xfd, 0xe9, 0, 0, 0, 9];
    // 3 and 5 are outside, 4 inside.
    let mut config = with_internal(4, &[4]);
    for peer in &mut config.peers {
        peer.export = ExportClass::Transit;
    }
    let add = Change::AddCommunities([Community::Extended(ADDED)].into());
    export_by(
        &mut config,
        5,
        "add",
        filter(Match::default(), vec![add], Action::Accept),
    );
    let mut bench = Bench::started(config);
    let conns = [2, 3, 4, 5].map(|host| bench.join(host, &[Family::V4]).0);
    let mut attributes = external(2, &[]);
    attributes.extended_communities = vec![TARGET, INSIDE];
    let outputs = bench.announce_with(2, &attributes, &[cidr("10.2.0.0/26")]);
    let of = |conn, within| {
        told(&outputs, conn, within)[0]
            .1
            .extended_communities
            .clone()
    };
    assert_eq!(of(conns[1], false), [TARGET]);
    assert_eq!(of(conns[2], true), [TARGET, INSIDE]);
    assert_eq!(
        of(conns[3], false),
        [TARGET, ADDED],
        "what a filter adds is wanted"
    );
}
