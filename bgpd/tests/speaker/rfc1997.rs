//! RFC 1997 (communities) and 8092 (large ones): what they keep back, and that they are passed on.

use bgpd::config::{Advertisement, ExportClass};
use bgpd::wire::attribute::community::{NO_ADVERTISE, NO_EXPORT, NO_EXPORT_SUBCONFED};
use crds::net::Family;

use crate::bench::{Bench, with_peers};
use crate::routes::{external, told, with_internal};
use crate::sim::{cidr, origin};

#[test]
fn well_known_communities_keep_routes_back() {
    // 3 is outside, 4 inside; 2 tells.
    let mut config = with_internal(3, &[4]);
    for peer in &mut config.peers {
        peer.export = ExportClass::Transit;
    }
    let mut bench = Bench::started(config);
    let conns: Vec<_> = (2..=4)
        .map(|host| bench.join(host, &[Family::V4]).0)
        .collect();
    for (community, outside, inside) in [
        (0xfde8_0001, true, true),
        (NO_EXPORT, false, true),
        (NO_EXPORT_SUBCONFED, false, true),
        (NO_ADVERTISE, false, false),
    ] {
        let outputs = bench.announce_with(2, &external(2, &[community]), &[cidr("10.2.0.0/26")]);
        let (out, within) = (
            told(&outputs, conns[1], false),
            told(&outputs, conns[2], true),
        );
        let carried = |told: &[(_, bgpd::wire::Attributes)]| {
            told.iter().any(|(_, it)| it.communities == [community])
        };
        assert_eq!(
            (carried(&out), carried(&within)),
            (outside, inside),
            "{community:x}"
        );
    }
}

#[test]
fn own_prefixes_are_told_with_the_communities_configured_for_them() {
    let mut config = with_peers(1);
    config.origins = vec![origin("10.1.0.0/26"), origin("10.9.0.0/26")];
    config.advertisements = vec![
        Advertisement {
            prefix: cidr("10.1.0.0/16"),
            // For those who learn it, not for us.
            communities: [NO_EXPORT, 0xfde8_0007].into(),
            large_communities: [[65001, 1, 2]].into(),
        },
        Advertisement {
            prefix: cidr("10.1.0.0/26"),
            communities: [0xfde8_0008].into(),
            large_communities: [].into(),
        },
    ];
    let mut bench = Bench::started(config.clone());
    bench.input(bgpd::speaker::Input::OriginsComplete);
    let (conn, outputs) = bench.join(2, &[Family::V4]);
    let routes = told(&outputs, conn, false);
    let of = |prefix: &str| {
        let found = routes.iter().find(|(it, _)| *it == cidr(prefix));
        found.map(|(_, it)| (it.communities.clone(), it.large_communities.clone()))
    };
    let given = (
        vec![0xfde8_0007, 0xfde8_0008, NO_EXPORT],
        vec![[65001, 1, 2]],
    );
    assert_eq!(of("10.1.0.0/26"), Some(given));
    assert_eq!(of("10.9.0.0/26"), Some((vec![], vec![])));
    // A change is told at once, without the session.
    config.advertisements.clear();
    let outputs = bench.input(bgpd::speaker::Input::Config(config));
    let again = told(&outputs, conn, false);
    assert_eq!(again.len(), 1);
    assert!(again[0].1.communities.is_empty());
}
