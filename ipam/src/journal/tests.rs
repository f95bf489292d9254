use proptest::prelude::*;

use super::*;

const BOOT: &str = "boot-1";

fn header() -> Header {
    let owner = Owner {
        node: "n1".to_owned(),
        node_uid: "u1".to_owned(),
        instance: "i1".to_owned(),
    };
    Header {
        version: VERSION,
        boot_id: BOOT.to_owned(),
        owner,
    }
}

fn key(n: u8) -> Key {
    Key {
        network: "margay".to_owned(),
        container: format!("c{n}"),
        ifname: "eth0".to_owned(),
    }
}

fn attach(n: u8, address: &str) -> Record {
    let pod = Pod {
        namespace: "shop".to_owned(),
        name: format!("web\n{n}"),
        uid: format!("p{n}"),
    };
    let addresses = vec![address.parse().unwrap()];
    Record::Attach(Attachment {
        key: key(n),
        addresses,
        pod,
        host_interface: format!("mgy{n}"),
    })
}

fn own(cidr: &str) -> Record {
    Record::Own(OwnedBlock {
        cidr: cidr.parse().unwrap(),
        pool: "pods".to_owned(),
        epoch: "e1".to_owned(),
    })
}

fn hold(address: &str) -> Record {
    Record::Hold(Hold {
        address: address.parse().unwrap(),
        key: Key::default(),
        pod: Pod::default(),
    })
}

fn sample() -> Vec<u8> {
    let records = [
        own("10.244.0.0/26"),
        own("10.244.9.0/26"),
        attach(1, "10.244.0.0"),
        attach(2, "10.244.0.1"),
        hold("10.244.0.7"),
        hold("10.244.0.8"),
        Record::Detach { key: key(1) },
        Record::Unhold {
            address: "10.244.0.7".parse().unwrap(),
        },
        Record::Disown {
            cidr: "10.244.9.0/26".parse().unwrap(),
        },
    ];
    write_all(&header(), records)
}

#[test]
fn what_was_written_is_read() {
    let replay = replay(&sample(), BOOT);
    assert!(replay.is_complete() && !replay.void);
    assert_eq!(replay.header, Some(header()));
    assert_eq!(replay.records, 10);
    assert_eq!(
        replay
            .blocks
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["10.244.0.0/26"]
    );
    assert_eq!(
        replay.attachments.keys().cloned().collect::<Vec<_>>(),
        [key(2)]
    );
    assert_eq!(
        replay
            .holds
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["10.244.0.8"]
    );
    let Record::Attach(want) = attach(2, "10.244.0.1") else {
        unreachable!()
    };
    assert_eq!(replay.attachments[&key(2)], want);
}

#[test]
fn the_format_is_readable_and_stable() {
    let mut out = Vec::new();
    encode(&Record::Detach { key: key(1) }, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(
        text,
        "470b1ed5 {\"op\":\"detach\",\"key\":{\"network\":\"margay\",\"container\":\"c1\",\"ifname\":\"eth0\"}}\n"
    );
    assert_eq!(
        crc32(b"123456789"),
        0xcbf4_3926,
        "the check value of CRC-32"
    );
}

#[test]
fn another_boot_voids_attachments_but_not_blocks() {
    let replay = replay(&sample(), "boot-2");
    assert!(replay.void && replay.is_complete());
    assert!(replay.attachments.is_empty() && replay.holds.is_empty());
    assert_eq!(replay.blocks.len(), 1);
}

#[test]
fn no_log_is_incomplete_but_not_damaged() {
    let replay = replay(b"", BOOT);
    assert!(!replay.is_complete() && !replay.void);
    assert_eq!(replay, Replay::default());
}

#[test]
fn every_cut_is_a_shorter_log_or_a_torn_tail() {
    let whole = sample();
    for cut in 0..whole.len() {
        let replay = replay(&whole[..cut], BOOT);
        assert_eq!(replay.damaged, [], "cut at {cut}");
        let last = whole[..cut]
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |newline| newline + 1);
        assert_eq!(replay.torn, (last < cut).then_some(last), "cut at {cut}");
        assert_eq!(
            replay.records,
            whole[..cut].iter().filter(|b| **b == b'\n').count()
        );
    }
}

#[test]
fn damage_is_reported_where_it_is_and_the_rest_is_read() {
    let whole = sample();
    let lines: Vec<usize> = std::iter::once(0)
        .chain(
            whole
                .iter()
                .enumerate()
                .filter(|(_, b)| **b == b'\n')
                .map(|(i, _)| i + 1),
        )
        .collect();
    for offset in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[offset] ^= 0x20;
        let replay = replay(&bytes, BOOT);
        assert!(!replay.is_complete(), "flip at {offset}");
        if whole[offset] != b'\n' {
            let line = lines.iter().rposition(|start| *start <= offset).unwrap();
            assert_eq!(replay.damaged.len(), 1, "flip at {offset}");
            assert_eq!(replay.damaged[0].offset, lines[line], "flip at {offset}");
            assert_eq!(replay.records, 9);
        }
    }
}

#[test]
fn a_lost_detach_cannot_make_two_owners() {
    let bytes = write_all(
        &header(),
        [attach(1, "10.244.0.0"), attach(2, "10.244.0.0")],
    );
    assert_eq!(
        replay(&bytes, BOOT)
            .attachments
            .keys()
            .cloned()
            .collect::<Vec<_>>(),
        [key(2)]
    );
}

#[test]
fn the_next_version_is_read_and_later_ones_are_refused() {
    let line = |text: &str| format!("{:08x} {text}\n", crc32(text.as_bytes())).into_bytes();
    let mut bytes = write_all(
        &Header {
            version: VERSION + 1,
            ..header()
        },
        [attach(1, "10.244.0.0")],
    );
    bytes.extend(line(r#"{"op":"borrow","from":"n2"}"#));
    let next = replay(&bytes, BOOT);
    assert!(next.is_complete());
    assert_eq!((next.attachments.len(), next.records), (1, 3));
    let later = replay(
        &write_all(
            &Header {
                version: VERSION + 2,
                ..header()
            },
            [],
        ),
        BOOT,
    );
    assert_eq!(later.damaged[0].problem, DamageKind::Version(VERSION + 2));
}

#[test]
fn a_log_without_a_header_is_damaged() {
    let mut bytes = Vec::new();
    encode(&own("10.244.0.0/26"), &mut bytes);
    assert_eq!(replay(&bytes, BOOT).damaged[0].problem, DamageKind::Header);
    let mut twice = sample();
    twice.extend(sample());
    assert_eq!(replay(&twice, BOOT).damaged[0].problem, DamageKind::Header);
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b' ')], 0..200)) {
        let replay = replay(&bytes, BOOT);
        prop_assert!(replay.records + replay.damaged.len() <= bytes.len());
    }
}
