//! Every order in which felix's snapshots begin, break off and end, and a peer comes and sends its routes: nothing is
//! withdrawn but by the end of a snapshot that does not name it, no End-of-RIB is sent before the first such end, and the
//! best paths are complete when the peer's End-of-RIBs are there and not before.

use std::collections::BTreeSet;

use bgpd::config::OriginKind;
use bgpd::speaker::{ConnId, Input, Output};
use bgpd::wire::update;
use crds::net::{Cidr, Family};

use crate::bench::{Bench, announced, ends, updates, with_peers};
use crate::sim::cidr;

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// felix opens a stream; the one before, if there was one, broke off.
    Begin,
    /// It names this prefix.
    Name(&'static str),
    /// Its snapshot ends.
    End,
    /// The peer's session comes up.
    Join,
    /// The peer ends its RIB, in both families.
    PeerEnd,
}

const STEPS: [Step; 6] = [
    Step::Begin,
    Step::Name("10.1.0.0/26"),
    Step::Name("10.2.0.0/26"),
    Step::End,
    Step::Join,
    Step::PeerEnd,
];

/// What should be so.
#[derive(Default)]
struct Model {
    origins: BTreeSet<Cidr>,
    unconfirmed: BTreeSet<Cidr>,
    complete: bool,
    joined: bool,
    told: BTreeSet<Cidr>,
    told_end: bool,
}

impl Model {
    fn step(&mut self, step: Step) {
        match step {
            Step::Begin => self.unconfirmed = self.origins.clone(),
            Step::Name(prefix) => {
                self.origins.insert(cidr(prefix));
                self.unconfirmed.remove(&cidr(prefix));
            }
            Step::End => {
                for prefix in std::mem::take(&mut self.unconfirmed) {
                    self.origins.remove(&prefix);
                }
                self.complete = true;
            }
            Step::Join => self.joined = true,
            Step::PeerEnd => {}
        }
    }
}

fn take(bench: &mut Bench, joined: bool, step: Step) -> Vec<Output> {
    let conn = ConnId::In(2);
    match step {
        Step::Begin => bench.input(Input::OriginsBegin),
        Step::Name(prefix) => bench.input(Input::Origin {
            prefix: cidr(prefix),
            kind: OriginKind::Block,
            withdrawn: false,
        }),
        Step::End => bench.input(Input::OriginsComplete),
        Step::Join if joined => Vec::new(),
        Step::Join => bench.join(2, &Family::ALL).1,
        Step::PeerEnd if !joined => Vec::new(),
        Step::PeerEnd => {
            let ends = Family::ALL.map(|family| update::end_of_rib(family).to_vec());
            bench.bytes(conn, &ends.concat())
        }
    }
}

#[test]
fn every_order_of_snapshots_and_sessions_withdraws_only_what_an_end_does_not_name() {
    const LENGTH: u32 = 4;
    let conn = ConnId::In(2);
    for number in 0..STEPS.len().pow(LENGTH) {
        let order: Vec<Step> = (0..LENGTH)
            .map(|place| STEPS[number / STEPS.len().pow(place) % STEPS.len()])
            .collect();
        let mut bench = Bench::started(with_peers(1));
        let mut model = Model::default();
        let last = [Step::Join, Step::Begin, STEPS[1], Step::End, Step::PeerEnd];
        for (place, step) in order.iter().chain(&last).enumerate() {
            let outputs = take(&mut bench, model.joined, *step);
            model.step(*step);
            let at = format!("{order:?}, step {place}");
            // A passive peer that promises nothing is not waited for: the start was complete at once.
            assert!(!outputs.contains(&Output::BestComplete), "{at}");
            for update in updates(&outputs, conn) {
                for prefix in update.withdrawn {
                    assert!(model.told.remove(&prefix), "{at}: {prefix}");
                }
            }
            model.told.extend(announced(&outputs, conn));
            if !ends(&outputs, conn).is_empty() {
                assert!(model.complete && !model.told_end, "{at}: an End-of-RIB");
                model.told_end = true;
            }
            if model.joined {
                assert_eq!(model.told, model.origins, "{at}");
                assert_eq!(model.told_end, model.complete, "{at}");
            }
        }
        assert_eq!(model.told, [cidr("10.1.0.0/26")].into(), "{order:?}");
    }
}
