//! What a change of policy does to live connections: it ends those it forbids, and disturbs no other, whatever the node
//! does to their addresses, and whoever speaks next.

#[path = "../ns/mod.rs"]
mod ns;

mod flows;
mod network;
mod rules;

use std::thread;
use std::time::{Duration, Instant};

use felix::nft::epoch::{MarkByte, Options, Revoked};
use flows::Flows;
use network::Network;
use rules::{Dice, Said, Spec};

/// Policies there can be at a time.
const POLICIES: usize = 4;

/// Edits at random, one after the other. Each time, everything allowed passes in both directions of every connection,
/// and nothing else does, one second after the edit at the latest.
fn edits(options: Options, seed: u64, count: usize) {
    let network = Network::new(options);
    let mut dice = Dice::new(seed);
    let mut said = Said {
        labels: vec![0; 3],
        ..Said::default()
    };
    let mut flows = Flows::new(&network);
    let questions: Vec<_> = flows.flows.iter().map(|flow| flow.question).collect();
    let mut before = vec![true; questions.len()];
    flows.arrange(&before);
    assert!(flows.round(&before).is_empty());
    let (mut cut, mut kept, mut slowest) = (0, 0, Duration::ZERO);
    let opened = flows.opened;
    for edit in 0..count {
        let number = dice.roll(POLICIES);
        let (pod, value) = (dice.roll(3), dice.roll(3));
        let start = Instant::now();
        match dice.roll(8) {
            0 => drop(said.policies.remove(&number)),
            1..=4 => drop(said.policies.insert(number, Spec::random(&mut dice))),
            kind => {
                said.labels[pod] = value;
                if kind == 5 {
                    // Its connections may end with it; datagrams go on in the name of whoever has the address now.
                    flows.close(pod);
                }
                network.felix(move |felix| match kind {
                    5 => felix.replace(pod, value),
                    _ => felix.label(pod, value),
                });
            }
        }
        let told = said.clone();
        network.felix(move |felix| {
            felix.say(&told, 0..POLICIES);
            felix.commit();
        });
        let allowed: Vec<bool> = questions
            .iter()
            .map(|question| said.allows(*question))
            .collect();
        kept += before
            .iter()
            .zip(&allowed)
            .filter(|(before, now)| **before && **now)
            .count();
        cut += before
            .iter()
            .zip(&allowed)
            .filter(|(before, now)| **before && !**now)
            .count();
        // What was allowed before must be allowed still without being opened again; what is new may be opened.
        let mut through = flows.round(&allowed);
        while let Some(first) = through.first() {
            let elapsed = start.elapsed();
            let what = flows.describe(*first);
            assert!(
                elapsed < Duration::from_secs(1),
                "edit {edit}: {what} goes on; {said:#?}"
            );
            thread::sleep(Duration::from_millis(2));
            network.felix(|felix| felix.enforcer.bump().expect("bump"));
            slowest = slowest.max(elapsed);
            through = flows.round(&allowed);
        }
        flows.arrange(&allowed);
        assert!(
            flows.round(&allowed).is_empty(),
            "edit {edit}: back to life; {said:#?}"
        );
        before = allowed;
    }
    let (commits, bumps) = network.felix(|felix| (felix.commits, felix.enforcer.bumps()));
    println!(
        "{count} edits: {commits} commits, {bumps} bumps; {kept} times a flow that stayed allowed lost nothing, {cut} times one \
         was cut, after {slowest:?} at most; {} connections opened again, {} ends saw a reset",
        flows.opened - opened,
        flows.resets,
    );
    assert!(
        cut > count && kept > 10 * count,
        "most edits change too little to show anything"
    );
    assert_eq!(network.spoilt(), "");
    match options.revoked {
        Revoked::Reset => assert!(flows.resets > 0),
        Revoked::Drop => assert_eq!(flows.resets, 0),
    }
}

/// It takes some seconds: five hundred times, every connection speaks in both directions.
#[test]
fn five_hundred_edits_cut_what_they_forbid_and_nothing_else() {
    edits(Options::default(), 0x5eed, 500);
}

#[test]
fn so_do_edits_with_another_byte_of_the_mark_and_silent_drops() {
    let options = Options {
        mark: MarkByte::new(0x0007_f800).expect("eight bits"),
        revoked: Revoked::Drop,
        quiet: true,
        ..Options::default()
    };
    edits(options, 0xd1ce, 120);
}
