//! Safe by default: a node with two ToRs never carries transit, and a mesh never passes routes on.

use bgpd::config::filter::{Action, Change, Match};
use bgpd::config::{Config, Drain, ExportClass, ImportPolicy, NextHopMode, OriginKind, PeerKey};
use bgpd::speaker::{ConnId, DrainRequest, Input, Output};
use crds::net::{Cidr, Family};
use proptest::prelude::*;

use crate::bench::{Bench, announced, with_peers};
use crate::routes::{export_by, external, filter, internal, told, with_internal};
use crate::sim::{cidr, ip};

/// What happens to a node.
#[derive(Debug, Clone)]
enum Step {
    Announce(u8, u8, Vec<u32>),
    Originate(u8, bool),
    Idle(u8, bool),
    Import(bool),
    Drain(u8),
    Wait,
}

fn some_step() -> impl Strategy<Value = Step> {
    let community = prop::sample::select(vec![0xffff_0000_u32, 0xfde8_0001, 0xffff_029a]);
    prop_oneof![
        4 => (2_u8..4, 0_u8..4, prop::collection::vec(community, 0..2))
            .prop_map(|(host, n, communities)| Step::Announce(host, n, communities)),
        2 => (0_u8..4, any::<bool>()).prop_map(|(n, gone)| Step::Originate(n, gone)),
        1 => (0_u8..4, any::<bool>()).prop_map(|(n, idle)| Step::Idle(n, idle)),
        1 => any::<bool>().prop_map(Step::Import),
        1 => (0_u8..4).prop_map(Step::Drain),
        1 => Just(Step::Wait),
    ]
}

fn prefix(n: u8) -> Cidr {
    cidr(&format!("10.2.{n}.0/26"))
}

/// A configuration that does its best to leak, but for the class.
fn leaky() -> Config {
    let mut config = with_peers(2);
    for host in [2, 3] {
        let changes = vec![Change::NextHop(ip("192.0.2.77"))];
        let all = filter(Match::default(), changes, Action::Accept);
        export_by(&mut config, host, "all", all);
        config.peers[usize::from(host) - 2].options.next_hop = NextHopMode::Keep;
    }
    config
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_node_with_two_tors_never_carries_transit(steps in prop::collection::vec(some_step(), 1..40)) {
        let mut config = leaky();
        let mut bench = Bench::started(config.clone());
        bench.input(Input::OriginsComplete);
        for host in [2, 3] {
            bench.join(host, &[Family::V4]);
        }
        let mut own = std::collections::BTreeSet::new();
        for step in steps {
            let outputs = match step {
                Step::Announce(host, n, communities) => {
                    bench.announce_with(host, &external(host, &communities), &[prefix(n)])
                }
                Step::Originate(n, withdrawn) => {
                    if withdrawn {
                        own.remove(&prefix(n));
                    } else {
                        own.insert(prefix(n));
                    }
                    let kind = if n == 0 { OriginKind::Service } else { OriginKind::Block };
                    bench.input(Input::Origin { prefix: prefix(n), kind, withdrawn })
                }
                Step::Idle(n, idle) => bench.input(Input::OriginIdle { prefix: prefix(n), idle }),
                Step::Import(all) => {
                    let policy = if all { ImportPolicy::All } else { ImportPolicy::Pools };
                    config.peers.iter_mut().for_each(|it| it.import = policy);
                    bench.input(Input::Config(config.clone()))
                }
                Step::Drain(n) => bench.input(Input::Drain(DrainRequest {
                    node: [Drain::No, Drain::Services, Drain::Everything][usize::from(n % 3)],
                    force: n == 2,
                    peers: (n == 3).then(|| PeerKey::Address(ip("192.0.2.2"))).into_iter().collect(),
                })),
                Step::Wait => bench.wait(&[2, 3], Config::DRAIN_WAIT),
            };
            for host in [2_u64, 3] {
                for prefix in announced(&outputs, ConnId::In(host)) {
                    prop_assert!(own.contains(&prefix), "{prefix} was told to {host}");
                }
            }
        }
    }

    #[test]
    fn routes_of_a_mesh_are_never_passed_on_inside_it(announcements in prop::collection::vec((2_u8..5, 0_u8..4), 1..20)) {
        let mut config = with_internal(3, &[2, 3, 4]);
        for peer in &mut config.peers {
            peer.export = ExportClass::Transit;
        }
        let mut bench = Bench::started(config);
        let conns: Vec<ConnId> = (2..=4).map(|host| bench.join(host, &[Family::V4]).0).collect();
        for (host, n) in announcements {
            let outputs = bench.announce_inside(host, &internal(host, &[]), &prefix(n).to_string());
            for conn in &conns {
                prop_assert_eq!(told(&outputs, *conn, true), vec![]);
            }
            prop_assert!(!outputs.iter().any(|it| matches!(it, Output::Send(..))));
        }
    }
}
