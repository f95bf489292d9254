use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::nexthop::NextHop;
use crate::wire::{AsPath, Origin};

#[derive(Debug, Clone)]
struct Sample {
    attributes: Attributes,
    source: Source,
    path_id: u32,
    long_lived: bool,
    cost: Option<u32>,
}

/// An external path through two ASes from the peer with that number.
fn sample(peer: u8) -> Sample {
    let address = IpAddr::from([192, 0, 2, peer]);
    let mut attributes = Attributes::new(NextHop::from(address));
    attributes.as_path = AsPath::sequence([65000 + u32::from(peer), 65100]);
    let router_id = Ipv4Addr::new(10, 0, 0, peer);
    let source = Source {
        address: Some(address),
        internal: false,
        client: false,
        router_id,
        ifindex: None,
        workload: false,
    };
    Sample {
        attributes,
        source,
        path_id: 0,
        long_lived: false,
        cost: Some(0),
    }
}

fn run(samples: &[Sample], max: usize) -> Decision {
    let summaries: Vec<_> = samples
        .iter()
        .map(|it| Summary::from(&it.attributes))
        .collect();
    let candidates: Vec<_> = samples
        .iter()
        .zip(&summaries)
        .map(|(it, summary)| Candidate {
            attributes: summary,
            source: &it.source,
            path_id: it.path_id,
            long_lived: it.long_lived,
            cost: it.cost,
        })
        .collect();
    decide(&candidates, max)
}

/// The second path loses at that step, in either order.
fn loses(better: &Sample, worse: &Sample, step: WhyNotBest) {
    let decision = run(&[better.clone(), worse.clone()], 1);
    assert_eq!((decision.best, decision.reasons[1]), (Some(0), Some(step)));
    let decision = run(&[worse.clone(), better.clone()], 1);
    assert_eq!((decision.best, decision.reasons[0]), (Some(1), Some(step)));
}

#[test]
fn each_step_decides_before_those_after_it() {
    // The worse path is better at every later step.
    let good = |edit: fn(&mut Sample)| {
        let mut it = sample(9);
        edit(&mut it);
        it
    };
    let mut worse = sample(1);
    worse.cost = None;
    worse.attributes.local_pref = Some(1000);
    loses(&sample(9), &worse, WhyNotBest::NextHopUnreachable);

    let mut worse = sample(1);
    worse.long_lived = true;
    worse.attributes.local_pref = Some(1000);
    loses(&sample(9), &worse, WhyNotBest::Stale);

    let local = Sample {
        source: Source::local(Ipv4Addr::BROADCAST),
        cost: None,
        ..sample(9)
    };
    let mut worse = sample(1);
    worse.attributes.local_pref = Some(1000);
    loses(&local, &worse, WhyNotBest::LocalOrigin);

    let mut worse = sample(1);
    worse.attributes.as_path = AsPath::default();
    loses(
        &good(|it| it.attributes.local_pref = Some(101)),
        &worse,
        WhyNotBest::LocalPref,
    );

    let mut worse = sample(1);
    worse.attributes.as_path = AsPath::sequence([65001, 65002, 65003]);
    loses(
        &good(|it| it.attributes.origin = Origin::Incomplete),
        &worse,
        WhyNotBest::AsPathLength,
    );

    let mut worse = sample(1);
    worse.attributes.origin = Origin::Egp;
    loses(
        &good(|it| it.attributes.med = Some(100)),
        &worse,
        WhyNotBest::Origin,
    );

    let mut worse = sample(1);
    worse.attributes.as_path = sample(9).attributes.as_path;
    worse.attributes.med = Some(1);
    loses(
        &good(|it| it.source.internal = true),
        &worse,
        WhyNotBest::Med,
    );

    let mut worse = sample(1);
    worse.source.internal = true;
    loses(
        &good(|it| it.cost = Some(10)),
        &worse,
        WhyNotBest::InternalPeer,
    );

    let mut worse = sample(1);
    worse.cost = Some(1);
    loses(&sample(9), &worse, WhyNotBest::IgpCost);

    let mut worse = sample(1);
    worse.source.router_id = Ipv4Addr::new(10, 0, 0, 10);
    loses(&sample(9), &worse, WhyNotBest::RouterId);

    let mut worse = sample(1);
    worse.source.router_id = sample(9).source.router_id;
    worse.attributes.cluster_list = vec![Ipv4Addr::LOCALHOST];
    loses(&sample(9), &worse, WhyNotBest::ClusterListLength);

    let mut worse = sample(9);
    worse.source.router_id = sample(1).source.router_id;
    loses(&sample(1), &worse, WhyNotBest::PeerAddress);
}

#[test]
fn the_originator_stands_for_its_reflector() {
    let mut reflected = sample(1);
    reflected.attributes.originator_id = Some(Ipv4Addr::new(10, 0, 0, 200));
    loses(&sample(9), &reflected, WhyNotBest::RouterId);
}

#[test]
fn med_is_compared_within_one_neighbouring_as_only() {
    let mut high = sample(1);
    high.attributes.med = Some(100);
    assert_eq!(
        run(&[high.clone(), sample(2)], 1).best,
        Some(0),
        "65001 and 65002 are not compared"
    );
    // The known trap: with 100 from the same AS as another path's 50, pairwise comparison depends on the order.
    let mut low = sample(9);
    low.attributes.as_path = high.attributes.as_path.clone();
    low.attributes.med = Some(50);
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let all = [high.clone(), sample(2), low.clone()];
        let shuffled: Vec<_> = order.iter().map(|index| all[*index].clone()).collect();
        let best = run(&shuffled, 1).best.unwrap();
        assert_eq!(order[best], 1);
    }
}

#[test]
fn a_missing_med_is_the_best_one() {
    let mut other = sample(1);
    other.attributes.as_path = sample(9).attributes.as_path;
    other.attributes.med = Some(1);
    loses(&sample(9), &other, WhyNotBest::Med);
}

#[test]
fn equal_external_paths_are_used_together() {
    let samples: Vec<_> = [4, 2, 3, 1].map(sample).to_vec();
    assert_eq!(run(&samples, 8).multipath, [3, 1, 2, 0]);
    assert_eq!(run(&samples, 3).multipath, [3, 1, 2]);
    assert_eq!(run(&samples, 1).multipath, [3]);
    assert_eq!(run(&samples, 0).multipath, [3]);
    let decision = run(&samples, 8);
    assert_eq!(
        decision.reasons[0],
        Some(WhyNotBest::RouterId),
        "one of them is still the best"
    );
}

#[test]
fn unequal_paths_are_not_used_together() {
    let mut other_med = sample(2);
    other_med.attributes.med = Some(7);
    let mut longer = sample(3);
    longer.attributes.as_path = AsPath::sequence([1, 2, 3]);
    let mut internal = sample(4);
    internal.source.internal = true;
    assert_eq!(
        run(&[sample(1), other_med, longer, internal.clone()], 8).multipath,
        [0]
    );
    let mut another = sample(5);
    another.source.internal = true;
    assert_eq!(
        run(&[internal, another], 8).multipath,
        [0],
        "internal paths are used alone"
    );
}

#[test]
fn no_candidate_is_no_best() {
    assert_eq!(run(&[], 8), Decision::default());
    let unreachable = Sample {
        cost: None,
        ..sample(1)
    };
    let decision = run(&[unreachable], 8);
    assert_eq!((decision.best, decision.multipath.len()), (None, 0));
}

fn any_sample() -> impl Strategy<Value = Sample> {
    // Few values each, so that ties are common at every step.
    let attributes = (0..3u32, 0..2usize, 0..3u8, 0..3u32, 0..2u32);
    (
        attributes,
        any::<bool>(),
        prop::option::weighted(0.9, 0..2u32),
        1..4u8,
        0..2usize,
        prop::bool::weighted(0.2),
    )
        .prop_map(
            |((pref, length, origin, med, asn), internal, cost, id, clusters, long_lived)| {
                let mut it = sample(id);
                it.attributes.local_pref = (pref > 0).then_some(pref * 100);
                it.attributes.as_path = AsPath::sequence((0..=length).map(|_| 65000 + asn));
                it.attributes.origin =
                    [Origin::Igp, Origin::Egp, Origin::Incomplete][usize::from(origin)];
                it.attributes.med = (med > 0).then_some(med);
                it.attributes.cluster_list = vec![Ipv4Addr::LOCALHOST; clusters];
                it.source.internal = internal;
                it.cost = cost;
                it.long_lived = long_lived;
                it
            },
        )
}

/// No two paths with the same identifier from one peer, as in a real table.
fn one_of_each_peer(mut samples: Vec<Sample>) -> Vec<Sample> {
    for (number, sample) in (1u8..).zip(&mut samples) {
        sample.source.address = Some(IpAddr::from([192, 0, 2, number.div_ceil(2)]));
        sample.path_id = u32::from(number);
    }
    samples
}

/// The procedure as RFC 4271 section 9.1.2.2 tells it, by removing from a set what is worse than something in it.
fn model(samples: &[Sample]) -> Option<usize> {
    let mut set: Vec<usize> = (0..samples.len())
        .filter(|it| samples[*it].cost.is_some())
        .collect();
    type Worse = fn(&Sample, &Sample) -> bool;
    let steps: [Worse; 11] = [
        |a, b| a.long_lived && !b.long_lived,
        |a, b| a.attributes.local_pref.unwrap_or(100) < b.attributes.local_pref.unwrap_or(100),
        |a, b| a.attributes.as_path.length() > b.attributes.as_path.length(),
        |a, b| a.attributes.origin > b.attributes.origin,
        |a, b| {
            a.attributes.as_path.first() == b.attributes.as_path.first()
                && a.attributes.med.unwrap_or(0) > b.attributes.med.unwrap_or(0)
        },
        |a, b| a.source.internal && !b.source.internal,
        |a, b| a.cost > b.cost,
        |a, b| a.source.router_id > b.source.router_id,
        |a, b| a.attributes.cluster_list.len() > b.attributes.cluster_list.len(),
        |a, b| a.source.address > b.source.address,
        |a, b| a.path_id > b.path_id,
    ];
    for worse in steps {
        let before = set.clone();
        set.retain(|a| !before.iter().any(|b| worse(&samples[*a], &samples[*b])));
    }
    set.first().copied()
}

proptest! {
    #[test]
    fn the_model_decides_the_same(samples in prop::collection::vec(any_sample(), 0..7)) {
        let samples = one_of_each_peer(samples);
        let decision = run(&samples, 4);
        prop_assert_eq!(decision.best, model(&samples));
        for (index, reason) in decision.reasons.iter().enumerate() {
            prop_assert_eq!(reason.is_none(), decision.best == Some(index));
        }
    }

    #[test]
    fn the_order_of_arrival_changes_nothing(samples in prop::collection::vec(any_sample(), 1..7), turn in 0..7usize) {
        let mut samples = one_of_each_peer(samples);
        let named = |samples: &[Sample]| {
            let decision = run(samples, 4);
            let name = |index: &usize| samples[*index].source.address;
            (decision.best.as_ref().map(name), decision.multipath.iter().map(name).collect::<Vec<_>>())
        };
        let before = named(&samples);
        let turn = turn % samples.len();
        samples.rotate_left(turn);
        prop_assert_eq!(before, named(&samples));
    }
}
