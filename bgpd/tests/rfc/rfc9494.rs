//! Long-lived graceful restart.

use bgpd::config::{Config, ExportClass};
use bgpd::speaker::{Output, SpeakerEvent, StaleStage};
use bgpd::wire::Capability;
use bgpd::wire::attribute::community::{LLGR_STALE, NO_LLGR};
use crds::net::{Cidr, Family};

use crate::bench::{Bench, announced, best, updates, with_peers};
use crate::peers::{
    announce, announce_with, counts, end_of_rib, graceful, join, long_lived, lose, opened, pass,
    routes, with,
};
use crate::sim::cidr;

const LONG: u32 = 3600;

fn config() -> Config {
    let mut config = with_peers(4);
    for it in &mut config.peers {
        it.options.graceful_restart.long_lived_time = 2 * LONG;
        it.export = ExportClass::Transit;
    }
    config
}

fn capabilities() -> Vec<Capability> {
    let restart = Capability::GracefulRestart(graceful(&[Family::V4], true));
    with([restart, long_lived(Family::V4, LONG)])
}

fn prefix() -> Cidr {
    cidr("10.2.0.0/26")
}

/// Peer 2 is gone beyond its restart time; 3 knows of long-lived routes, 4 does not. What that said, and their names.
fn gone_for_long() -> (Bench, Vec<Output>, [bgpd::speaker::ConnId; 2]) {
    let mut bench = Bench::started(config());
    bench.input(bgpd::speaker::Input::OriginsComplete);
    let (two, outputs) = join(&mut bench, 2, 0, &capabilities());
    assert!(
        opened(&outputs, two)
            .capabilities
            .contains(&Capability::LongLived(
                [1, 2]
                    .map(|afi| bgpd::wire::capability::LongLived {
                        afi,
                        safi: 1,
                        preserved: true,
                        time: 2 * LONG,
                    })
                    .to_vec()
            ))
    );
    let (three, _) = join(&mut bench, 3, 0, &capabilities());
    let (four, _) = join(&mut bench, 4, 0, &with([]));
    announce(&mut bench, 2, two, &[prefix()]);
    announce_with(&mut bench, 2, two, &[cidr("10.2.1.0/26")], |it| {
        it.communities = vec![NO_LLGR];
    });
    let outputs = lose(&mut bench, two);
    assert!(announced(&outputs, three).is_empty());
    let outputs = pass(&mut bench, 60_000, &[three, four]);
    (bench, outputs, [three, four])
}

#[test]
fn routes_are_a_last_resort_after_the_restart_time() {
    let (bench, outputs, [three, four]) = gone_for_long();
    assert_eq!(routes(&bench, 2), (1, 1), "the one that may not is gone");
    assert_eq!(
        best(&outputs),
        [(cidr("10.2.1.0/26"), vec![])],
        "the other is still used"
    );
    let of_family = counts(&bench, 2, Family::V4);
    assert_eq!(of_family.stale_stage, Some(StaleStage::LongLived));
    assert_eq!(
        of_family.stale_millis,
        u64::from(LONG) * 1000,
        "the shorter of both"
    );
    let told = updates(&outputs, three);
    let attributes = &told
        .iter()
        .find(|it| !it.announced.is_empty())
        .unwrap()
        .announced[0];
    assert_eq!(
        (&attributes.0.communities, &attributes.1),
        (&vec![LLGR_STALE], &vec![prefix()])
    );
    let withdrawn: Vec<Cidr> = updates(&outputs, four)
        .into_iter()
        .flat_map(|it| it.withdrawn)
        .collect();
    assert!(
        withdrawn.contains(&prefix()),
        "who does not know is not told"
    );
    assert!(announced(&outputs, four).is_empty());
}

#[test]
fn any_other_path_is_better() {
    let (mut bench, _, [three, four]) = gone_for_long();
    let outputs = announce_with(&mut bench, 4, four, &[prefix()], |it| {
        it.as_path = bgpd::wire::AsPath::sequence([65004, 1, 2, 3, 4, 5]);
    });
    assert_eq!(best(&outputs), [(prefix(), vec!["192.0.2.4".to_owned()])]);
    assert_eq!(announced(&outputs, three), [prefix()]);
}

#[test]
fn another_speaker_s_word_counts_as_much() {
    let mut bench = Bench::started(config());
    let (two, _) = join(&mut bench, 2, 0, &capabilities());
    let (three, _) = join(&mut bench, 3, 0, &capabilities());
    announce_with(&mut bench, 2, two, &[prefix()], |it| {
        it.communities = vec![LLGR_STALE]
    });
    let outputs = announce_with(&mut bench, 3, three, &[prefix()], |it| {
        it.as_path = bgpd::wire::AsPath::sequence([65003, 1, 2, 3, 4, 5]);
    });
    assert_eq!(best(&outputs), [(prefix(), vec!["192.0.2.3".to_owned()])]);
}

#[test]
fn the_long_time_ends_as_well() {
    let (mut bench, _, alive) = gone_for_long();
    let long = u64::from(LONG) * 1000;
    assert!(best(&pass(&mut bench, long - 1, &alive)).is_empty());
    assert_eq!(best(&pass(&mut bench, 1, &alive)), [(prefix(), vec![])]);
    assert_eq!(routes(&bench, 2), (0, 0));
}

#[test]
fn a_peer_that_comes_back_late_says_its_routes_again() {
    let (mut bench, _, alive) = gone_for_long();
    pass(&mut bench, 100_000, &alive);
    let (two, _) = join(&mut bench, 2, 1, &capabilities());
    assert_eq!(routes(&bench, 2), (1, 1));
    let outputs = announce(&mut bench, 2, two, &[prefix()]);
    assert_eq!(routes(&bench, 2), (1, 0));
    let told = updates(&outputs, alive[0]);
    assert!(
        told[0].announced[0].0.communities.is_empty(),
        "it is fresh again"
    );
    assert_eq!(announced(&outputs, alive[1]), [prefix()]);
    end_of_rib(&mut bench, two, Family::V4);
    assert_eq!(counts(&bench, 2, Family::V4).stale_stage, None);
}

#[test]
fn a_peer_that_comes_back_without_what_it_kept_loses_it() {
    let (mut bench, _, _) = gone_for_long();
    let (_, outputs) = join(&mut bench, 2, 1, &with([]));
    assert_eq!(best(&outputs), [(prefix(), vec![])]);
}

#[test]
fn a_restart_time_of_zero_leads_straight_there() {
    let mut bench = Bench::started(config());
    let mut restart = graceful(&[Family::V4], true);
    restart.time = 0;
    let restart = Capability::GracefulRestart(restart);
    let (two, _) = join(
        &mut bench,
        2,
        0,
        &with([restart, long_lived(Family::V4, LONG)]),
    );
    announce(&mut bench, 2, two, &[prefix()]);
    lose(&mut bench, two);
    let outputs = pass(&mut bench, 0, &[]);
    assert!(
        outputs
            .iter()
            .any(|it| matches!(it, Output::Event(SpeakerEvent::KeptLonger { .. })))
    );
    assert_eq!(routes(&bench, 2), (1, 1));
}

#[test]
fn who_does_not_ask_for_it_does_not_get_it() {
    let mut config = config();
    config.peers[0].options.graceful_restart.long_lived_time = 0;
    let mut bench = Bench::started(config);
    let (two, _) = join(&mut bench, 2, 0, &capabilities());
    announce(&mut bench, 2, two, &[prefix()]);
    lose(&mut bench, two);
    assert_eq!(best(&pass(&mut bench, 60_000, &[])), [(prefix(), vec![])]);
}
