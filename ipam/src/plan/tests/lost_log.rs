use super::*;

/// What the node's life so far left in the log.
fn log_of(ipam: &mut Ipam) -> Vec<u8> {
    ipam.compact()
}

fn restarted(log: &[u8], boot_id: &str) -> Ipam {
    let mut ipam = Ipam::new(us(), boot_id);
    ipam.recover(journal::replay(log, boot_id), NOW);
    ipam.handle(Input::Pools(vec![pool("pods", "10.244.0.0/24", 30)]), NOW);
    ipam
}

fn mirrored(cidr: Cidr, ordinal: u128, n: usize) -> (IpAddr, Allocation) {
    let address = cidr.nth(ordinal).unwrap();
    let Request { key, pod, .. } = request(n, &[]);
    (address, crate::attachment::mirrored(address, &key, &pod))
}

#[test]
fn a_restart_announces_from_the_log_and_gives_out_after_the_list() {
    let (mut ipam, cidr) = with_block();
    let first = ipam.allocate(&request(1, &[Family::V4]), NOW).unwrap();
    let mut ipam = restarted(&log_of(&mut ipam), BOOT);
    assert_eq!(
        drain(&mut ipam),
        [Output::Announce {
            cidr,
            pool: "pods".to_owned()
        }]
    );
    assert_eq!(
        ipam.allocate(&request(1, &[Family::V4]), NOW),
        Ok(first.clone()),
        "who has one keeps it"
    );
    assert_eq!(
        ipam.allocate(&request(2, &[Family::V4]), NOW),
        Err(AllocateError::NotSynced)
    );
    ipam.handle(Input::Listed(vec![seen(cidr, "e1", &us())]), NOW);
    assert_ne!(
        ipam.allocate(&request(2, &[Family::V4]), NOW).unwrap(),
        first
    );
    assert_eq!(
        ipam.next_timeout(),
        Some(NOW + 1000),
        "the mirror lacks both"
    );
}

#[test]
fn another_boot_waits_for_the_list_and_forgets_the_attachments() {
    let (mut ipam, cidr) = with_block();
    ipam.allocate(&request(1, &[Family::V4]), NOW).unwrap();
    let mut ipam = restarted(&log_of(&mut ipam), "boot-2");
    assert_eq!(drain(&mut ipam), []);
    let stale = SeenBlock {
        allocations: vec![mirrored(cidr, 0, 1)],
        ..seen(cidr, "e1", &us())
    };
    ipam.handle(Input::Listed(vec![stale]), NOW);
    assert_eq!(
        actions(&mut ipam),
        [Output::Announce {
            cidr,
            pool: "pods".to_owned()
        }]
    );
    assert_eq!((ipam.attachments().count(), ipam.held()), (0, 0));
    assert_eq!(
        ipam.allocate(&request(2, &[Family::V4]), NOW),
        Ok(vec![cidr.first()])
    );
}

#[test]
fn without_a_log_mirror_and_evidence_are_held_back() {
    let cidr = cidr("10.244.0.0/30");
    let mut ipam = restarted(b"", BOOT);
    let block = SeenBlock {
        allocations: vec![mirrored(cidr, 0, 1), mirrored(cidr, 1, 2)],
        ..seen(cidr, "e1", &us())
    };
    ipam.handle(Input::Listed(vec![block]), NOW);
    assert_eq!(
        ipam.allocate(&request(9, &[Family::V4]), NOW),
        Err(AllocateError::NotSynced),
        "no evidence yet"
    );
    let (shown, only_mirrored) = (cidr.nth(2).unwrap(), cidr.nth(1).unwrap());
    let evidence = BTreeSet::from([cidr.first(), shown, ip("192.0.2.1")]);
    ipam.handle(Input::InUse(evidence.clone()), NOW);
    assert_eq!(ipam.held(), 3);
    assert_eq!(
        ipam.allocate(&request(9, &[Family::V4]), NOW),
        Ok(vec![cidr.nth(3).unwrap()])
    );
    // A DEL of a container the mirror knew frees its address.
    assert_eq!(ipam.free(&key(1), NOW), None);
    assert_eq!(ipam.held(), 2);
    // Evidence that is gone frees, but not at once.
    ipam.handle(Input::InUse(BTreeSet::from([shown])), NOW + 59_999);
    assert_eq!(ipam.held(), 2);
    ipam.handle(Input::InUse(BTreeSet::from([shown])), NOW + 60_000);
    assert_eq!(ipam.held.keys().copied().collect::<Vec<_>>(), [shown]);
    assert!(!ipam.entries[&cidr].block.is_used(only_mirrored));
}

#[test]
fn what_is_held_back_survives_a_restart() {
    let cidr = cidr("10.244.0.0/30");
    let mut ipam = restarted(b"", BOOT);
    let block = SeenBlock {
        allocations: vec![mirrored(cidr, 0, 1)],
        ..seen(cidr, "e1", &us())
    };
    ipam.handle(Input::Listed(vec![block]), NOW);
    // Once from the records as they were appended, once from a compacted log.
    let appended = drain(&mut ipam).into_iter().filter_map(|o| {
        if let Output::Log(r) = o {
            Some(r)
        } else {
            None
        }
    });
    for log in [journal::write_all(&header(), appended), log_of(&mut ipam)] {
        let mut again = restarted(&log, BOOT);
        again.handle(Input::Listed(vec![seen(cidr, "e1", &us())]), NOW);
        assert_eq!(again.held(), 1);
        assert_eq!(
            again.allocate(&request(9, &[Family::V4]), NOW),
            Ok(vec![cidr.nth(1).unwrap()])
        );
    }
}

#[test]
fn a_damaged_log_holds_back_what_others_show() {
    let (mut ipam, cidr) = with_block();
    ipam.allocate(&request(1, &[Family::V4]), NOW).unwrap();
    ipam.allocate(&request(2, &[Family::V4]), NOW).unwrap();
    let mut log = log_of(&mut ipam);
    let middle = log.windows(4).position(|w| w == b"\"c1\"").unwrap();
    log[middle + 1] = b'X';
    let mut ipam = restarted(&log, BOOT);
    ipam.handle(Input::Listed(vec![seen(cidr, "e1", &us())]), NOW);
    assert_eq!(
        ipam.allocate(&request(9, &[Family::V4]), NOW),
        Err(AllocateError::NotSynced)
    );
    ipam.handle(
        Input::InUse(BTreeSet::from([cidr.nth(0).unwrap(), cidr.nth(1).unwrap()])),
        NOW,
    );
    assert_eq!((ipam.attachments().count(), ipam.held()), (1, 1));
    assert_eq!(
        ipam.allocate(&request(9, &[Family::V4]), NOW),
        Ok(vec![cidr.nth(2).unwrap()])
    );
}

#[test]
fn a_block_of_an_earlier_instance_is_adopted_with_its_mirror_held() {
    let cidr = cidr("10.244.0.0/30");
    let before = owner("n1", "u1", "i0");
    let mut ipam = restarted(&journal::write_all(&header(), []), BOOT);
    let block = SeenBlock {
        allocations: vec![mirrored(cidr, 0, 1)],
        ..seen(cidr, "e1", &before)
    };
    ipam.handle(Input::Listed(vec![block]), NOW);
    assert_eq!(states(&ipam), [(cidr.to_string(), "Owned".to_owned())]);
    assert_eq!(ipam.held(), 1);
    assert_eq!(
        ipam.allocate(&request(9, &[Family::V4]), NOW),
        Ok(vec![cidr.nth(1).unwrap()])
    );
    // From then on the log answers for it.
    ipam.free(&key(1), NOW);
    let mut ipam = restarted(&log_of(&mut ipam), BOOT);
    let stale = SeenBlock {
        allocations: vec![mirrored(cidr, 0, 1)],
        ..seen(cidr, "e1", &before)
    };
    ipam.handle(Input::Listed(vec![stale]), NOW);
    assert_eq!(ipam.held(), 0);
}

#[test]
fn attachments_whose_block_is_gone_get_it_back() {
    let (mut ipam, cidr) = with_block();
    ipam.allocate(&request(1, &[Family::V4]), NOW).unwrap();
    let attachment = ipam.attachment(&key(1)).unwrap().clone();
    let log = journal::write_all(&header(), [Record::Attach(attachment)]);
    let mut ipam = restarted(&log, BOOT);
    ipam.handle(Input::Listed(Vec::new()), NOW);
    let creates = actions(&mut ipam);
    assert!(
        creates.contains(&Output::Create {
            cidr,
            pool: "pods".to_owned()
        }),
        "{creates:?}"
    );
    ipam.handle(
        Input::Exists(seen(cidr, "x", &owner("n2", "u2", "i2"))),
        NOW,
    );
    assert!(states(&ipam).contains(&(cidr.to_string(), "Quarantined".to_owned())));
}

#[test]
fn the_log_is_compacted_when_most_of_it_is_history() {
    let (mut ipam, _) = with_block();
    for n in 0..600 {
        assert!(!ipam.wants_compaction() || n > 500);
        ipam.allocate(&request(n, &[Family::V4]), NOW).unwrap();
        ipam.free(&key(n), NOW);
    }
    assert!(ipam.wants_compaction());
    let replay = journal::replay(&ipam.compact(), BOOT);
    assert_eq!(
        (
            replay.records,
            replay.attachments.len(),
            replay.blocks.len()
        ),
        (2, 0, 1)
    );
    assert!(!ipam.wants_compaction());
}

#[test]
fn what_is_held_back_becomes_an_attachment_when_its_owner_is_found() {
    let (mut ipam, cidr) = with_block();
    let address = cidr.first();
    let attachment = Attachment {
        key: key(7),
        addresses: vec![address],
        pod: request(7, &[]).pod,
        host_interface: "mgy7".to_owned(),
    };
    assert!(!ipam.adopt(attachment.clone(), NOW), "it is nobody's");
    ipam.handle(Input::InUse([address].into()), NOW);
    assert!(ipam.is_held(address));
    drain(&mut ipam);
    assert!(ipam.adopt(attachment.clone(), NOW));
    assert_eq!(drain(&mut ipam), [Output::Log(Record::Attach(attachment))]);
    assert_eq!(ipam.held(), 0);
    let log = journal::replay(&ipam.compact(), BOOT);
    assert_eq!((log.attachments.len(), log.holds.len()), (1, 0));
    ipam.free(&key(7), NOW);
    assert_eq!(ipam.blocks().map(|b| b.allocations.len()).sum::<usize>(), 0);
}
