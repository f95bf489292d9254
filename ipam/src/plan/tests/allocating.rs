use super::*;

#[test]
fn both_families_come_in_one_step_and_the_same_again() {
    let mut ipam = synced(&[
        pool("four", "10.244.0.0/16", 26),
        pool("six", "fd00:10:244::/48", 122),
    ]);
    assert_eq!(
        ipam.allocate(&request(1, &Family::ALL), NOW),
        Err(AllocateError::Claiming(Family::V4))
    );
    assert!(!ipam.is_ready());
    grant(&mut ipam, NOW);
    assert!(ipam.is_ready());
    let addresses = ipam.allocate(&request(1, &Family::ALL), NOW).unwrap();
    assert_eq!(
        addresses.iter().map(|a| Family::of(*a)).collect::<Vec<_>>(),
        Family::ALL
    );
    let Some(Output::Log(Record::Attach(attachment))) = ipam.poll() else {
        panic!("the log comes first")
    };
    assert_eq!(
        (attachment.addresses, attachment.host_interface.as_str()),
        (addresses.clone(), "mgy1")
    );
    assert_eq!(ipam.allocate(&request(1, &Family::ALL), NOW), Ok(addresses));
    assert_eq!(actions(&mut ipam), []);
}

#[test]
fn a_missing_family_gives_nothing_of_the_other() {
    let (mut ipam, cidr) = with_block();
    assert_eq!(
        ipam.allocate(&request(1, &Family::ALL), NOW),
        Err(AllocateError::NoPool(Family::V6))
    );
    assert!(ipam.blocks().all(|block| block.allocations.is_empty()));
    assert_eq!(
        ipam.allocate(&request(1, &[Family::V4]), NOW),
        Ok(vec![cidr.first()])
    );
}

#[test]
fn nothing_is_given_before_the_blocks_are_listed() {
    let mut ipam = Ipam::new(us(), BOOT);
    ipam.recover(
        journal::replay(&journal::write_all(&header(), []), BOOT),
        NOW,
    );
    ipam.handle(Input::Pools(vec![pool("pods", "10.244.0.0/24", 30)]), NOW);
    assert_eq!(
        ipam.allocate(&request(1, &[Family::V4]), NOW),
        Err(AllocateError::NotSynced)
    );
    assert_eq!(drain(&mut ipam), [], "nor is anything claimed");
}

#[test]
fn freeing_is_logged_and_rests_the_address() {
    let (mut ipam, _) = with_block();
    let first = ipam.allocate(&request(1, &[Family::V4]), NOW).unwrap();
    drain(&mut ipam);
    assert_eq!(ipam.free(&key(1), NOW).unwrap().addresses, first);
    assert_eq!(
        drain(&mut ipam)[0],
        Output::Log(Record::Detach { key: key(1) })
    );
    assert_eq!(ipam.free(&key(1), NOW), None, "a second DEL is no error");
    assert_eq!(drain(&mut ipam), []);
    assert_ne!(
        ipam.allocate(&request(2, &[Family::V4]), NOW).unwrap(),
        first
    );
}

#[test]
fn the_next_block_is_claimed_before_the_first_is_full() {
    let (mut ipam, cidr) = with_block();
    for n in 0..3 {
        ipam.allocate(&request(n, &[Family::V4]), NOW).unwrap();
        assert_eq!(actions(&mut ipam), [], "{n}: a quarter is still free");
    }
    ipam.allocate(&request(3, &[Family::V4]), NOW).unwrap();
    let next = sent_create(&mut ipam);
    assert_ne!(next, cidr);
    assert_eq!(
        ipam.allocate(&request(4, &[Family::V4]), NOW),
        Err(AllocateError::Claiming(Family::V4))
    );
    ipam.handle(
        Input::Created {
            cidr: next,
            uid: "e2".to_owned(),
        },
        NOW,
    );
    assert_eq!(
        actions(&mut ipam),
        [Output::Announce {
            cidr: next,
            pool: "pods".to_owned()
        }]
    );
    assert_eq!(
        ipam.allocate(&request(4, &[Family::V4]), NOW),
        Ok(vec![next.first()])
    );
}

#[test]
fn pending_blocks_give_nothing_and_are_not_announced() {
    let mut ipam = synced(&[pool("pods", "10.244.0.0/24", 30)]);
    let cidr = sent_create(&mut ipam);
    assert_eq!(states(&ipam), [(cidr.to_string(), "Pending".to_owned())]);
    assert!(ipam.blocks().all(|block| !block.announced));
    assert!(ipam.allocate(&request(1, &[Family::V4]), NOW).is_err());
}

#[test]
fn a_disabled_pool_gives_no_new_addresses() {
    let (mut ipam, _) = with_block();
    ipam.allocate(&request(1, &[Family::V4]), NOW).unwrap();
    ipam.handle(Input::Pools(Vec::new()), NOW);
    assert_eq!(
        ipam.allocate(&request(2, &[Family::V4]), NOW),
        Err(AllocateError::NoPool(Family::V4))
    );
    assert!(
        ipam.allocate(&request(1, &[Family::V4]), NOW).is_ok(),
        "who has one keeps it"
    );
    assert_eq!(actions(&mut ipam), [], "and the block stays announced");
}

#[test]
fn the_limit_of_blocks_is_named() {
    let (mut ipam, _) = with_block();
    ipam.handle(
        Input::Configuration(Configuration {
            max_blocks_per_node: 1,
        }),
        NOW,
    );
    for n in 0..4 {
        ipam.allocate(&request(n, &[Family::V4]), NOW).unwrap();
    }
    let error = ipam.allocate(&request(4, &[Family::V4]), NOW).unwrap_err();
    assert_eq!(
        error,
        AllocateError::BlockLimit {
            family: Family::V4,
            max: 1
        }
    );
    assert!(!error.is_transient());
    assert_eq!(actions(&mut ipam), []);
}

#[test]
fn a_full_pool_is_named_and_looked_at_again() {
    let mut ipam = synced(&[pool("tiny", "10.244.0.0/30", 30)]);
    let cidr = sent_create(&mut ipam);
    ipam.handle(
        Input::Exists(seen(cidr, "x", &owner("n2", "u2", "i2"))),
        NOW,
    );
    assert_eq!(actions(&mut ipam), [Output::Survey]);
    assert_eq!(
        ipam.allocate(&request(1, &[Family::V4]), NOW),
        Err(AllocateError::Claiming(Family::V4))
    );
    ipam.handle(Input::Surveyed(BTreeSet::from([cidr])), NOW);
    let exhausted = AllocateError::Exhausted {
        pool: "tiny".to_owned(),
    };
    assert_eq!(
        ipam.allocate(&request(1, &[Family::V4]), NOW),
        Err(exhausted)
    );
    assert_eq!(actions(&mut ipam), []);
    let again = ipam.next_timeout().unwrap();
    ipam.handle(Input::Tick, again);
    assert_eq!(actions(&mut ipam), [Output::Survey]);
    ipam.handle(Input::Surveyed(BTreeSet::new()), again);
    assert_eq!(sent_create(&mut ipam), cidr);
}

#[test]
fn the_first_pool_by_name_is_used_first_and_its_fullest_block() {
    let mut ipam = synced(&[pool("b", "10.2.0.0/24", 30), pool("a", "10.1.0.0/30", 30)]);
    assert_eq!(sent_create(&mut ipam), cidr("10.1.0.0/30"));
    ipam.handle(
        Input::Created {
            cidr: cidr("10.1.0.0/30"),
            uid: "e".to_owned(),
        },
        NOW,
    );
    for n in 0..4 {
        assert_eq!(
            ipam.allocate(&request(n, &[Family::V4]), NOW),
            Ok(vec![cidr("10.1.0.0/30").nth(n as u128).unwrap()])
        );
    }
    drain(&mut ipam);
    let (second, _) = ipam
        .entries
        .iter()
        .find(|(_, e)| e.state == State::Pending)
        .map(|(c, e)| (*c, e.pool.clone()))
        .unwrap();
    assert!(cidr("10.2.0.0/24").covers(second), "{second}");
}
