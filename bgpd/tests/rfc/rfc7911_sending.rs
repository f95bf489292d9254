//! Several paths for one prefix, told to a peer.

use std::collections::{BTreeMap, BTreeSet};

use bgpd::config::{Config, ExportClass};
use bgpd::speaker::{ConnId, Input, Output, RouteFilter};
use bgpd::wire::attribute::community::NO_ADVERTISE;
use bgpd::wire::capability::PathsOf;
use bgpd::wire::{self, AsPath, Capability, Dialect, Message, RouteRefresh, refresh, update};
use crds::net::{Cidr, Family};

use crate::bench::{Bench, EBGP, with_peers};
use crate::peers::{announce_with, counts, join, lose, opened, restarting, with};
use crate::sim::cidr;

/// What the peer at 192.0.2.2 has: paths by prefix and identifier, each with the AS that told it to us.
#[derive(Debug, Default)]
struct Mirror {
    paths: BTreeMap<(Cidr, u32), u32>,
    /// Announcements and withdrawals of the last outputs.
    heard: (usize, usize),
    ends: usize,
}

impl Mirror {
    fn hear(&mut self, outputs: &[Output], conn: ConnId) {
        let bytes = outputs.iter().filter_map(|it| match it {
            Output::Send(to, bytes) if *to == conn => Some(bytes.to_vec()),
            _ => None,
        });
        let dialect = Dialect {
            extended_message: true,
            paths_received: [Family::V4].into_iter().collect(),
            ..EBGP
        };
        let (messages, error) = wire::decode_stream(&bytes.collect::<Vec<_>>().concat(), dialect);
        assert_eq!(error, None);
        self.heard = (0, 0);
        for message in messages {
            let Message::Update(update) = message else {
                continue;
            };
            assert_eq!(update.problems, []);
            self.ends += usize::from(update.end_of_rib == Some(Family::V4));
            for (prefix, id) in update.withdrawn_paths() {
                assert!(self.paths.remove(&(prefix, id)).is_some(), "{prefix} {id}");
                self.heard.1 += 1;
            }
            for (attributes, paths) in update.announced_paths() {
                let told_by = attributes.as_path.sequence_ases();
                for (prefix, id) in paths {
                    self.paths.insert((prefix, id), told_by);
                    self.heard.0 += 1;
                }
            }
        }
    }

    /// Who told the paths to a prefix, and their identifiers.
    fn of(&self, prefix: Cidr) -> BTreeMap<u32, u32> {
        let all = self.paths.iter();
        all.filter(|((it, _), _)| *it == prefix)
            .map(|((_, id), asn)| (*asn, *id))
            .collect()
    }

    fn sources(&self, prefix: Cidr) -> Vec<u32> {
        self.of(prefix).into_keys().collect()
    }
}

/// The AS behind ours in a path; 0: there is none.
trait Second {
    fn sequence_ases(&self) -> u32;
}

impl Second for AsPath {
    fn sequence_ases(&self) -> u32 {
        self.to_string()
            .split_whitespace()
            .nth(1)
            .map_or(0, |it| it.parse().unwrap())
    }
}

fn config(send: u8) -> Config {
    let mut config = with_peers(4);
    for it in &mut config.peers {
        it.export = ExportClass::Transit;
    }
    config.peers[0].options.add_path.send = send;
    config
}

fn takes_several() -> Capability {
    Capability::AddPath(vec![PathsOf {
        afi: 1,
        safi: 1,
        receive: true,
        send: false,
    }])
}

fn prefix() -> Cidr {
    cidr("10.2.0.0/26")
}

/// A bench with three peers that tell routes, and the one that takes several.
fn bench(send: u8) -> (Bench, Mirror, ConnId, [ConnId; 3]) {
    let mut bench = Bench::started(config(send));
    bench.input(Input::OriginsComplete);
    let others = [3, 4, 5].map(|host| join(&mut bench, host, 0, &with([])).0);
    let (conn, outputs) = join(&mut bench, 2, 0, &with([takes_several()]));
    let own = opened(&outputs, conn);
    let offered = own.capabilities.iter().find_map(|it| match it {
        Capability::AddPath(all) => Some(all.clone()),
        _ => None,
    });
    assert!(offered.unwrap().iter().all(|it| it.send && !it.receive));
    let mut mirror = Mirror::default();
    mirror.hear(&outputs, conn);
    assert_eq!(mirror.ends, 1);
    (bench, mirror, conn, others)
}

/// A path of that many ASes.
fn tell(bench: &mut Bench, host: u8, conn: ConnId, prefix: Cidr, length: usize) -> Vec<Output> {
    announce_with(bench, host, conn, &[prefix], |it| {
        let asn = 65000 + u32::from(host);
        it.as_path = AsPath::sequence(std::iter::repeat_n(asn, length));
    })
}

fn withdraw(bench: &mut Bench, conn: ConnId, prefix: Cidr) -> Vec<Output> {
    bench.bytes(conn, &update::withdraw(Family::V4, &[prefix]).concat())
}

#[test]
fn all_paths_are_told_by_identifiers_that_stay() {
    let (mut bench, mut mirror, conn, others) = bench(8);
    for (host, other) in (3..).zip(others) {
        let outputs = tell(&mut bench, host, other, prefix(), 6 - usize::from(host));
        mirror.hear(&outputs, conn);
        assert_eq!(mirror.heard, (1, 0), "the others are not told again");
    }
    let first = mirror.of(prefix());
    assert_eq!(mirror.sources(prefix()), [65003, 65004, 65005]);
    assert_eq!(counts(&bench, 2, Family::V4).advertised, 3);
    assert!(!first.values().any(|id| *id == 0));
    // Another best path, by other attributes.
    mirror.hear(&tell(&mut bench, 3, others[0], prefix(), 1), conn);
    assert_eq!((mirror.of(prefix()), mirror.heard), (first.clone(), (1, 0)));
    mirror.hear(&withdraw(&mut bench, others[1], prefix()), conn);
    assert_eq!(mirror.sources(prefix()), [65003, 65005]);
    assert_eq!(mirror.heard, (0, 1));
    // A whole session goes.
    mirror.hear(&lose(&mut bench, others[2]), conn);
    assert_eq!(mirror.sources(prefix()), [65003]);
    mirror.hear(&withdraw(&mut bench, others[0], prefix()), conn);
    assert_eq!(mirror.paths, BTreeMap::new());
    assert_eq!(counts(&bench, 2, Family::V4).advertised, 0);
}

#[test]
fn no_more_than_configured_and_the_best_ones() {
    let (mut bench, mut mirror, conn, others) = bench(2);
    for (host, other) in (3..).zip(others) {
        mirror.hear(
            &tell(&mut bench, host, other, prefix(), usize::from(host)),
            conn,
        );
    }
    assert_eq!(mirror.sources(prefix()), [65003, 65004]);
    // The third becomes the first: the second has to go.
    mirror.hear(&tell(&mut bench, 5, others[2], prefix(), 1), conn);
    assert_eq!(mirror.sources(prefix()), [65003, 65005]);
    mirror.hear(&withdraw(&mut bench, others[0], prefix()), conn);
    assert_eq!(mirror.sources(prefix()), [65004, 65005]);
}

#[test]
fn own_paths_do_not_come_back_and_policy_judges_each() {
    let (mut bench, mut mirror, conn, others) = bench(8);
    let outputs = announce_with(&mut bench, 2, conn, &[prefix()], |_| ());
    mirror.hear(&outputs, conn);
    assert_eq!(mirror.sources(prefix()), [0_u32; 0]);
    let outputs = announce_with(&mut bench, 3, others[0], &[prefix()], |it| {
        it.communities = vec![NO_ADVERTISE];
    });
    mirror.hear(&outputs, conn);
    assert_eq!(mirror.sources(prefix()), [0_u32; 0]);
    mirror.hear(&tell(&mut bench, 4, others[1], prefix(), 5), conn);
    assert_eq!(mirror.sources(prefix()), [65004]);
    // It may be told now.
    mirror.hear(&tell(&mut bench, 3, others[0], prefix(), 5), conn);
    assert_eq!(mirror.sources(prefix()), [65003, 65004]);
}

#[test]
fn one_path_is_told_to_those_who_did_not_agree() {
    let mut bench = Bench::started(config(8));
    bench.input(Input::OriginsComplete);
    let (plain, _) = join(&mut bench, 2, 0, &with([]));
    let (three, _) = join(&mut bench, 3, 0, &with([]));
    let (four, _) = join(&mut bench, 4, 0, &with([]));
    let first = tell(&mut bench, 3, three, prefix(), 1);
    assert_eq!(crate::bench::announced(&first, plain), [prefix()]);
    let second = tell(&mut bench, 4, four, prefix(), 2);
    assert!(crate::bench::announced(&second, plain).is_empty());
}

#[test]
fn a_refresh_repeats_all_paths() {
    let (mut bench, mut mirror, conn, others) = bench(8);
    for (host, other) in (3..).zip(others) {
        mirror.hear(&tell(&mut bench, host, other, prefix(), 1), conn);
    }
    let before = mirror.paths.clone();
    let asked = RouteRefresh::unicast(Family::V4, refresh::REQUEST);
    let outputs = bench.bytes(conn, &asked.encode());
    mirror.hear(&outputs, conn);
    assert_eq!((mirror.heard, &mirror.paths), ((3, 0), &before));
}

#[test]
fn routes_come_before_the_end_of_rib() {
    let mut bench = Bench::started(config(8));
    bench.input(Input::OriginsComplete);
    let others = [3, 4].map(|host| join(&mut bench, host, 0, &with([])).0);
    for (host, other) in (3..).zip(others) {
        tell(&mut bench, host, other, prefix(), 1);
    }
    let mut capabilities = restarting(&[Family::V4], true);
    capabilities.push(takes_several());
    let (conn, outputs) = join(&mut bench, 2, 0, &capabilities);
    let end = update::end_of_rib(Family::V4);
    let last = outputs.iter().rev().find_map(|it| match it {
        Output::Send(to, bytes) if *to == conn => Some(bytes),
        _ => None,
    });
    assert_eq!(last, Some(&end));
    let mut mirror = Mirror::default();
    mirror.hear(&outputs, conn);
    assert_eq!(mirror.sources(prefix()), [65003, 65004]);
}

#[test]
fn another_export_policy_is_told_by_what_it_changes() {
    let (mut bench, mut mirror, conn, others) = bench(8);
    for (host, other) in (3..).zip(others) {
        mirror.hear(&tell(&mut bench, host, other, prefix(), 1), conn);
    }
    let mut new = config(8);
    new.peers[0].export = ExportClass::Origins;
    mirror.hear(&bench.input(Input::Config(new)), conn);
    assert_eq!((mirror.heard, mirror.paths.len()), ((0, 3), 0));
    mirror.hear(&bench.input(Input::Config(config(8))), conn);
    assert_eq!((mirror.heard, mirror.paths.len()), ((3, 0), 3));
}

#[test]
fn whatever_happens_the_peer_has_what_the_table_has() {
    for seed in 1..=20_u64 {
        let most = if seed % 2 == 0 { 8 } else { 2 };
        let (mut bench, mut mirror, conn, mut others) = bench(most);
        let mut state = seed;
        let mut next = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        let mut lives = 0;
        for _ in 0..120 {
            let at = usize::try_from(next(3)).unwrap();
            let host = u8::try_from(at + 3).unwrap();
            let it = cidr(&format!("10.2.{}.0/26", next(4)));
            let outputs = match next(12) {
                0 => {
                    lives += 1;
                    // Whoever comes too often is not let in.
                    bench.now += 60_000;
                    let mut outputs = lose(&mut bench, others[at]);
                    let (conn, more) = join(&mut bench, host, lives, &with([]));
                    others[at] = conn;
                    outputs.extend(more);
                    outputs
                }
                1..=3 => withdraw(&mut bench, others[at], it),
                _ => {
                    let length = usize::try_from(1 + next(4)).unwrap();
                    tell(&mut bench, host, others[at], it, length)
                }
            };
            mirror.hear(&outputs, conn);
        }
        for n in 0..4 {
            let it = cidr(&format!("10.2.{n}.0/26"));
            let filter = RouteFilter {
                prefix: Some(it),
                ..RouteFilter::default()
            };
            let mut routes = bench.speaker.routes(&filter, bench.now);
            // Shorter paths first; the lower address decides.
            routes.sort_by_key(|it| (it.as_path.len(), it.as_path[0]));
            let best = routes.iter().take(usize::from(most));
            let wanted: BTreeSet<u32> = best.map(|it| it.as_path[0]).collect();
            let told: BTreeSet<u32> = mirror.sources(it).into_iter().collect();
            assert_eq!(told, wanted, "seed {seed}: {it}");
        }
    }
}
