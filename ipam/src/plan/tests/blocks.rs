use super::*;

fn taken_by_another(ipam: &mut Ipam, cidr: Cidr) {
    ipam.handle(
        Input::Gone {
            cidr,
            uid: "e1".to_owned(),
        },
        NOW,
    );
    assert_eq!(sent_create(ipam), cidr);
    ipam.handle(
        Input::Exists(seen(cidr, "x1", &owner("n2", "u2", "i2"))),
        NOW,
    );
}

#[test]
fn a_claim_is_logged_before_it_is_announced() {
    let mut ipam = synced(&[pool("pods", "10.244.0.0/24", 30)]);
    let cidr = sent_create(&mut ipam);
    ipam.handle(
        Input::Created {
            cidr,
            uid: "e1".to_owned(),
        },
        NOW,
    );
    let own = OwnedBlock {
        cidr,
        pool: "pods".to_owned(),
        epoch: "e1".to_owned(),
    };
    let want = [
        Output::Log(Record::Own(own)),
        Output::Announce {
            cidr,
            pool: "pods".to_owned(),
        },
    ];
    assert_eq!(drain(&mut ipam), want);
}

#[test]
fn a_lost_race_tries_the_next_block_and_three_ask_for_all() {
    let mut ipam = synced(&[pool("pods", "10.244.0.0/24", 30)]);
    let mut tried = BTreeSet::new();
    for _ in 0..3 {
        let cidr = sent_create(&mut ipam);
        assert!(tried.insert(cidr));
        ipam.handle(
            Input::Exists(seen(cidr, "x", &owner("n2", "u2", "i2"))),
            NOW,
        );
    }
    assert_eq!(actions(&mut ipam), [Output::Survey]);
    let all_but_one: BTreeSet<Cidr> = (1..64)
        .filter_map(|i| cidr("10.244.0.0/24").subnet(30, i))
        .collect();
    ipam.handle(Input::Surveyed(all_but_one), NOW);
    assert_eq!(sent_create(&mut ipam), cidr("10.244.0.0/30"));
}

#[test]
fn a_survey_that_fails_is_not_asked_for_at_once() {
    let mut ipam = synced(&[pool("pods", "10.244.0.0/24", 30)]);
    for _ in 0..3 {
        let cidr = sent_create(&mut ipam);
        ipam.handle(
            Input::Exists(seen(cidr, "x", &owner("n2", "u2", "i2"))),
            NOW,
        );
    }
    assert_eq!(actions(&mut ipam), [Output::Survey]);
    ipam.handle(Input::SurveyFailed, NOW);
    sent_create(&mut ipam);
}

#[test]
fn a_pool_made_anew_with_smaller_blocks_avoids_the_old_ones() {
    let mut ipam = synced(&[pool("pods", "10.244.0.0/24", 28)]);
    let first = sent_create(&mut ipam);
    ipam.handle(Input::CreateFailed { cidr: first }, NOW);
    ipam.handle(Input::Pools(Vec::new()), NOW);
    let old = cidr("10.244.0.0/25");
    ipam.handle(Input::Surveyed(BTreeSet::from([old])), NOW);
    ipam.handle(Input::Pools(vec![pool("pods", "10.244.0.0/24", 30)]), NOW);
    for n in 0..32 {
        grant(&mut ipam, NOW);
        ipam.allocate(&request(n, &[Family::V4]), NOW).unwrap();
    }
    assert!(
        ipam.blocks().all(|block| !block.cidr.overlaps(old)),
        "{:?}",
        states(&ipam)
    );
}

#[test]
fn a_failed_claim_is_tried_again_for_the_same_block() {
    let mut ipam = synced(&[pool("pods", "10.244.0.0/24", 30)]);
    let cidr = sent_create(&mut ipam);
    let mut now = NOW;
    let mut waits = Vec::new();
    for _ in 0..9 {
        ipam.handle(Input::CreateFailed { cidr }, now);
        assert_eq!(actions(&mut ipam), [], "not at once");
        waits.push(ipam.next_timeout().unwrap() - now);
        now = ipam.next_timeout().unwrap();
        ipam.handle(Input::Tick, now);
        assert_eq!(sent_create(&mut ipam), cidr);
    }
    assert_eq!((waits[0], waits[1], waits[8]), (500, 1000, 30_000));
    // The first try had arrived after all.
    ipam.handle(Input::Exists(seen(cidr, "e1", &us())), now);
    assert_eq!(states(&ipam), [(cidr.to_string(), "Owned".to_owned())]);
}

#[test]
fn a_block_that_vanishes_is_made_again_and_stays_announced() {
    let (mut ipam, cidr) = with_block();
    ipam.allocate(&request(1, &[Family::V4]), NOW).unwrap();
    drain(&mut ipam);
    ipam.handle(
        Input::Gone {
            cidr,
            uid: "e1".to_owned(),
        },
        NOW,
    );
    assert_eq!(sent_create(&mut ipam), cidr);
    assert_eq!(states(&ipam), [(cidr.to_string(), "Missing".to_owned())]);
    assert_eq!(
        ipam.allocate(&request(2, &[Family::V4]), NOW),
        Err(AllocateError::Claiming(Family::V4))
    );
    ipam.handle(
        Input::Created {
            cidr,
            uid: "e2".to_owned(),
        },
        NOW,
    );
    assert_eq!(actions(&mut ipam), []);
    assert!(ipam.allocate(&request(2, &[Family::V4]), NOW).is_ok());
}

#[test]
fn a_late_event_of_an_earlier_epoch_changes_nothing() {
    let (mut ipam, cidr) = with_block();
    ipam.handle(
        Input::Gone {
            cidr,
            uid: "e0".to_owned(),
        },
        NOW,
    );
    assert_eq!(actions(&mut ipam), []);
    assert_eq!(states(&ipam), [(cidr.to_string(), "Owned".to_owned())]);
}

#[test]
fn mass_disappearance_withdraws_nothing() {
    let (mut ipam, _) = with_block();
    for n in 0..9 {
        ipam.allocate(&request(n, &[Family::V4]), NOW).unwrap();
        grant(&mut ipam, NOW);
    }
    assert_eq!(ipam.blocks().count(), 3);
    ipam.handle(Input::Listed(Vec::new()), NOW);
    let outputs = actions(&mut ipam);
    assert_eq!(outputs.len(), 3);
    assert!(
        outputs.iter().all(|o| matches!(o, Output::Create { .. })),
        "{outputs:?}"
    );
    assert!(ipam.blocks().all(|block| block.announced));
    assert_eq!(ipam.attachments().count(), 9);
}

#[test]
fn another_owner_quarantines_and_the_attachments_stay_reported() {
    let (mut ipam, cidr) = with_block();
    ipam.allocate(&request(1, &[Family::V4]), NOW).unwrap();
    drain(&mut ipam);
    taken_by_another(&mut ipam, cidr);
    let outputs = drain(&mut ipam);
    let reason = Quarantine::OtherOwner(owner("n2", "u2", "i2"));
    assert_eq!(
        reason.to_string(),
        "block belongs to node n2 (uid u2, instance i2)"
    );
    assert_eq!(
        outputs[..3],
        [
            Output::Withdraw { cidr },
            Output::Log(Record::Disown { cidr }),
            Output::Quarantined { cidr, reason },
        ]
    );
    let next = outputs.iter().find_map(|o| {
        if let Output::Create { cidr, .. } = o {
            Some(*cidr)
        } else {
            None
        }
    });
    assert!(
        next.is_some_and(|next| next != cidr),
        "another block is claimed instead"
    );
    ipam.handle(Input::Withdrawn { cidr }, NOW);
    let status = ipam.blocks().find(|block| block.cidr == cidr).unwrap();
    assert_eq!(
        (
            status.state.to_string().as_str(),
            status.allocations.len(),
            status.announced
        ),
        ("Quarantined", 1, false)
    );
    assert_eq!(
        ipam.allocate(&request(2, &[Family::V4]), NOW),
        Err(AllocateError::Claiming(Family::V4))
    );
    // Once the last attachment is gone there is nothing to keep.
    ipam.free(&key(1), NOW + 60_000);
    assert!(ipam.blocks().all(|block| block.cidr != cidr));
}

#[test]
fn a_quarantined_block_comes_back_when_the_other_gives_it_up() {
    let (mut ipam, cidr) = with_block();
    ipam.allocate(&request(1, &[Family::V4]), NOW).unwrap();
    drain(&mut ipam);
    taken_by_another(&mut ipam, cidr);
    grant(&mut ipam, NOW);
    ipam.handle(Input::Tick, NOW + 60_000);
    let creates: Vec<_> = actions(&mut ipam)
        .into_iter()
        .filter(|o| matches!(o, Output::Create { .. }))
        .collect();
    assert_eq!(
        creates,
        [Output::Create {
            cidr,
            pool: "pods".to_owned()
        }]
    );
    ipam.handle(
        Input::Created {
            cidr,
            uid: "e9".to_owned(),
        },
        NOW + 60_000,
    );
    assert_eq!(
        actions(&mut ipam)[0],
        Output::Announce {
            cidr,
            pool: "pods".to_owned()
        }
    );
}

#[test]
fn a_former_node_of_our_name_is_another_owner_until_its_block_is_gone() {
    let mut ipam = Ipam::new(us(), BOOT);
    ipam.recover(
        journal::replay(&journal::write_all(&header(), []), BOOT),
        NOW,
    );
    ipam.handle(Input::Pools(vec![pool("pods", "10.244.0.0/30", 30)]), NOW);
    let former = seen(cidr("10.244.0.0/30"), "x", &owner("n1", "u0", "i1"));
    ipam.handle(Input::Listed(vec![former]), NOW);
    assert_eq!(
        actions(&mut ipam),
        [Output::Survey],
        "the only block is taken"
    );
    assert_eq!(states(&ipam), []);
    ipam.handle(
        Input::Surveyed(BTreeSet::from([cidr("10.244.0.0/30")])),
        NOW,
    );
    assert_eq!(actions(&mut ipam), []);
    ipam.handle(
        Input::Gone {
            cidr: cidr("10.244.0.0/30"),
            uid: "x".to_owned(),
        },
        NOW,
    );
    assert_eq!(sent_create(&mut ipam), cidr("10.244.0.0/30"));
}

#[test]
fn an_idle_block_is_withdrawn_then_disowned_then_deleted() {
    let (mut ipam, first) = with_block();
    for n in 0..5 {
        ipam.allocate(&request(n, &[Family::V4]), NOW).unwrap();
        grant(&mut ipam, NOW);
    }
    assert_eq!(ipam.blocks().count(), 2);
    let second = ipam
        .blocks()
        .map(|block| block.cidr)
        .find(|cidr| *cidr != first)
        .unwrap();
    (0..5).for_each(|n| drop(ipam.free(&key(n), NOW)));
    drain(&mut ipam);
    ipam.handle(Input::Tick, NOW + 59_999);
    assert!(
        !actions(&mut ipam)
            .iter()
            .any(|o| matches!(o, Output::Withdraw { .. })),
        "not yet"
    );
    ipam.handle(Input::Tick, NOW + 60_000);
    let withdrawn = actions(&mut ipam);
    let [Output::Withdraw { cidr }] = withdrawn.as_slice() else {
        panic!("{withdrawn:?}")
    };
    let (cidr, kept) = (*cidr, if *cidr == first { second } else { first });
    ipam.handle(Input::Tick, NOW + 61_000);
    assert_eq!(actions(&mut ipam), [], "the routes go first");
    ipam.handle(Input::Withdrawn { cidr }, NOW + 61_000);
    let uid = if cidr == first {
        "e1".to_owned()
    } else {
        cidr.object_name()
    };
    assert_eq!(
        drain(&mut ipam),
        [
            Output::Log(Record::Disown { cidr }),
            Output::Delete {
                cidr,
                uid: uid.clone()
            }
        ]
    );
    ipam.handle(Input::DeleteFailed { cidr }, NOW + 61_000);
    ipam.handle(Input::Tick, NOW + 61_500);
    assert_eq!(actions(&mut ipam), [Output::Delete { cidr, uid }]);
    ipam.handle(Input::Deleted { cidr }, NOW + 61_500);
    assert_eq!(states(&ipam), [(kept.to_string(), "Owned".to_owned())]);
    ipam.handle(Input::Tick, NOW + 600_000);
    assert_eq!(actions(&mut ipam), [], "the last block is kept");
    assert_eq!(ipam.next_timeout(), None);
}

#[test]
fn blocks_of_a_pool_that_is_gone_are_released_to_the_last() {
    let (mut ipam, cidr) = with_block();
    ipam.handle(Input::Pools(Vec::new()), NOW);
    assert_eq!(ipam.next_timeout(), Some(NOW + 60_000));
    ipam.handle(Input::Tick, NOW + 60_000);
    assert_eq!(actions(&mut ipam), [Output::Withdraw { cidr }]);
}

#[test]
fn a_releasing_block_somebody_uses_is_kept() {
    let (mut ipam, cidr) = with_block();
    ipam.handle(Input::Pools(Vec::new()), NOW);
    ipam.handle(Input::Tick, NOW + 60_000);
    drain(&mut ipam);
    ipam.handle(Input::InUse(BTreeSet::from([cidr.first()])), NOW + 60_000);
    assert_eq!(
        actions(&mut ipam),
        [Output::Announce {
            cidr,
            pool: "pods".to_owned()
        }]
    );
    ipam.handle(Input::Withdrawn { cidr }, NOW + 60_000);
    assert_eq!(states(&ipam), [(cidr.to_string(), "Owned".to_owned())]);
}

#[test]
fn the_mirror_waits_for_quiet_but_not_for_ever() {
    let (mut ipam, cidr) = with_block();
    ipam.allocate(&request(1, &[Family::V4]), NOW).unwrap();
    drain(&mut ipam);
    assert_eq!(ipam.next_timeout(), Some(NOW + 1000));
    ipam.handle(Input::Tick, NOW + 1000);
    let outputs = actions(&mut ipam);
    let [
        Output::Mirror {
            uid, allocations, ..
        },
    ] = outputs.as_slice()
    else {
        panic!("{outputs:?}")
    };
    assert_eq!(
        (uid.as_str(), allocations.len(), allocations[0].pod.as_str()),
        ("e1", 1, "web-1")
    );
    ipam.handle(Input::Mirrored { cidr }, NOW + 1000);
    assert_eq!(ipam.next_timeout(), None);
    // A change every half second for a minute.
    let mut written = Vec::new();
    for step in 0..120u64 {
        let now = NOW + 10_000 + step * 500;
        if step % 2 == 0 {
            ipam.allocate(&request(2, &[Family::V4]), now).unwrap();
        } else {
            ipam.free(&key(2), now);
        }
        if actions(&mut ipam)
            .iter()
            .any(|o| matches!(o, Output::Mirror { .. }))
        {
            written.push(now);
            ipam.handle(Input::Mirrored { cidr }, now);
        }
    }
    assert!((10..=12).contains(&written.len()), "{written:?}");
}

#[test]
fn a_mirror_that_differs_or_fails_is_written_again() {
    let (mut ipam, cidr) = with_block();
    ipam.handle(Input::Seen(seen(cidr, "e1", &us())), NOW);
    assert_eq!(ipam.next_timeout(), None, "nothing to say");
    let stale = Allocation {
        address: cidr.first().to_string(),
        ..Allocation::default()
    };
    let with_stale = SeenBlock {
        allocations: vec![(cidr.first(), stale)],
        ..seen(cidr, "e1", &us())
    };
    ipam.handle(Input::Seen(with_stale), NOW);
    assert_eq!(ipam.held(), 0, "the log knows better");
    ipam.handle(Input::Tick, NOW + 1000);
    let write = Output::Mirror {
        cidr,
        uid: "e1".to_owned(),
        allocations: Vec::new(),
    };
    assert_eq!(actions(&mut ipam), std::slice::from_ref(&write));
    ipam.handle(Input::MirrorFailed { cidr }, NOW + 1000);
    assert_eq!(ipam.next_timeout(), Some(NOW + 6000));
    ipam.handle(Input::Tick, NOW + 6000);
    assert_eq!(actions(&mut ipam), [write]);
}
