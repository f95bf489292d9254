use std::net::IpAddr;

use crds::net::{Cidr, Family};

use super::*;
use crate::nexthop::{Change, NextHop, Table};

const PEER: SourceId = SourceId(1);
const OTHER: SourceId = SourceId(2);

/// A table with two external peers on a connected network.
fn rib() -> (Rib, Table) {
    let mut rib = Rib::default();
    for (id, host) in [(PEER, 2), (OTHER, 3)] {
        let source = Source {
            address: Some([192, 0, 2, host].into()),
            internal: false,
            client: false,
            router_id: [10, 0, 0, host].into(),
            ifindex: Some(2),
            workload: false,
        };
        rib.set_source(id, source);
    }
    let mut table = Table::default();
    table.apply(Change::Link {
        ifindex: 2,
        name: "eth0".into(),
        up: true,
    });
    table.apply(Change::Address {
        ifindex: 2,
        address: [192, 0, 2, 1].into(),
        network: prefix("192.0.2.0/24"),
    });
    (rib, table)
}

fn prefix(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn announce(rib: &mut Rib, from: SourceId, path_id: u32, to: &str) {
    let host = u8::try_from(from.0 + 1).unwrap();
    let next_hop = NextHop::from(IpAddr::from([192, 0, 2, host]));
    let set = rib.sets.intern(&Attributes::new(next_hop)).unwrap();
    rib.insert(from, path_id, prefix(to), set, Ok(None), 0);
    rib.sets.drop_one(set);
}

fn best(rib: &Rib, to: &str) -> Option<SourceId> {
    rib.best(rib.find(prefix(to))?).map(|best| best.from)
}

/// Decides; how many best paths have changed.
fn settle(rib: &mut Rib, table: &Table) -> usize {
    let mut settled = Vec::new();
    rib.settle(table, 1, &mut settled);
    settled.iter().for_each(|it| rib.release(it.id));
    settled.iter().filter(|it| it.best_changed).count()
}

fn count(received: usize, accepted: usize, stale: usize) -> SourceCount {
    SourceCount {
        received,
        accepted,
        stale,
    }
}

#[test]
fn stale_paths_are_used_until_they_are_swept_and_kept_when_they_come_again() {
    let (mut rib, table) = rib();
    announce(&mut rib, PEER, 0, "10.0.0.0/26");
    announce(&mut rib, PEER, 0, "10.0.0.64/26");
    announce(&mut rib, PEER, 0, "fd00::/122");
    settle(&mut rib, &table);
    rib.mark_stale(PEER, Family::V4);
    assert!(settle(&mut rib, &table) == 0, "nothing changes for now");
    assert_eq!(rib.source_count(PEER, Family::V4), count(2, 2, 2));
    assert_eq!(rib.source_count(PEER, Family::V6), count(1, 1, 0));

    announce(&mut rib, PEER, 0, "10.0.0.0/26");
    assert_eq!(rib.source_count(PEER, Family::V4), count(2, 2, 1));
    rib.sweep_stale(PEER, Family::V4);
    settle(&mut rib, &table);
    assert_eq!(rib.source_count(PEER, Family::V4), count(1, 1, 0));
    assert_eq!(best(&rib, "10.0.0.0/26"), Some(PEER));
    assert_eq!(best(&rib, "10.0.0.64/26"), None);
    assert_eq!(best(&rib, "fd00::/122"), Some(PEER));
}

#[test]
fn a_long_lived_path_is_the_last_resort() {
    let (mut rib, table) = rib();
    announce(&mut rib, PEER, 0, "10.0.0.0/26");
    announce(&mut rib, OTHER, 0, "10.0.0.0/26");
    settle(&mut rib, &table);
    assert_eq!(best(&rib, "10.0.0.0/26"), Some(PEER));
    rib.set_long_lived(PEER, Family::V4);
    assert!(settle(&mut rib, &table) == 0, "it was not stale");
    rib.mark_stale(PEER, Family::V4);
    rib.set_long_lived(PEER, Family::V4);
    settle(&mut rib, &table);
    assert_eq!(best(&rib, "10.0.0.0/26"), Some(OTHER));
    rib.remove_source(OTHER);
    settle(&mut rib, &table);
    assert_eq!(best(&rib, "10.0.0.0/26"), Some(PEER));
    announce(&mut rib, PEER, 0, "10.0.0.0/26");
    assert_eq!(rib.source_count(PEER, Family::V4), count(1, 1, 0));
}

#[test]
fn paths_of_one_source_are_told_apart_by_their_identifier() {
    let (mut rib, table) = rib();
    announce(&mut rib, PEER, 2, "10.0.0.0/26");
    announce(&mut rib, PEER, 1, "10.0.0.0/26");
    announce(&mut rib, PEER, 2, "10.0.0.0/26");
    settle(&mut rib, &table);
    assert_eq!(rib.source_count(PEER, Family::V4), count(2, 2, 0));
    let number = rib.find(prefix("10.0.0.0/26")).unwrap();
    let decision = rib.explain(number, 1);
    let paths = rib.paths(number);
    let of = |id| paths.iter().position(|it| it.id == id).unwrap();
    assert_eq!(decision.best, Some(of(1)));
    assert_eq!(decision.reasons[of(2)], Some(WhyNotBest::PathId));
    rib.withdraw(PEER, 1, prefix("10.0.0.0/26"));
    settle(&mut rib, &table);
    assert_eq!(rib.source_count(PEER, Family::V4), count(1, 1, 0));
    rib.withdraw(PEER, 2, prefix("10.0.0.0/26"));
    settle(&mut rib, &table);
    assert!(rib.find(prefix("10.0.0.0/26")).is_none());
    assert!(rib.sets.is_empty());
}
