mod malformed;
pub(super) mod random;

use std::net::{IpAddr, Ipv4Addr};

use crds::net::{Cidr, Family};

use super::attribute::ProblemKind;
use super::exercise::{again, written};
use super::notification::{Cease, OpenError};
use super::*;
use crate::nexthop::NextHop;

const EBGP: Dialect = Dialect::plain(false);
const IBGP: Dialect = Dialect::plain(true);
const OLD: Dialect = Dialect {
    four_octet_as: false,
    ..EBGP
};

fn bytes(text: &str) -> Vec<u8> {
    unhex(&text.replace([' ', '\n'], "")).unwrap()
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn next_hop(text: &str) -> NextHop {
    NextHop::from(text.parse::<IpAddr>().unwrap())
}

/// The body of an UPDATE from its three parts.
fn body(withdrawn: &str, attributes: &str, prefixes: &str) -> Vec<u8> {
    let (withdrawn, attributes, prefixes) = (bytes(withdrawn), bytes(attributes), bytes(prefixes));
    let length = |part: &[u8]| u16::try_from(part.len()).unwrap().to_be_bytes();
    [
        &length(&withdrawn)[..],
        &withdrawn,
        &length(&attributes),
        &attributes,
        &prefixes,
    ]
    .concat()
}

const ORIGIN: &str = "40 01 01 00";
const PATH: &str = "40 02 06 02 01 0000fde9"; // 65001
const HOP: &str = "40 03 04 c0000201"; // 192.0.2.1
const NLRI: &str = "18 0a0100"; // 10.1.0.0/24

fn with(more: &str) -> Vec<u8> {
    body("", &[ORIGIN, PATH, HOP, more].concat(), NLRI)
}

#[test]
fn keepalive_is_a_bare_header() {
    assert_eq!(hex(&keepalive()), "ffffffffffffffffffffffffffffffff001304");
}

#[test]
fn open_is_written_and_read() {
    let capabilities = vec![
        Capability::unicast(Family::V4),
        Capability::unicast(Family::V6),
        Capability::RouteRefresh,
    ];
    let open = Open::new(4_200_000_001, 90, Ipv4Addr::new(192, 0, 2, 1), capabilities);
    let expected = "ffffffffffffffffffffffffffffffff 0039 01 04 5ba0 005a c0000201 1c
        02 06 01 04 00010001  02 06 01 04 00020001  02 02 02 00  02 06 41 04 fa56ea01";
    assert_eq!(hex(&open.encode()), hex(&bytes(expected)));
    assert_eq!(Open::decode(&open.encode()[HEADER..]), Ok(open.clone()));
    assert_eq!(open.asn(), 4_200_000_001);
}

#[test]
fn open_in_the_long_form_is_read() {
    // RFC 9072: 255, 255, two octets of length, then parameters with two octets of length.
    let body = bytes("04 fde9 005a c0000201 ff ff 0009 02 0006 41 04 0000fde9");
    assert_eq!(
        Open::decode(&body).unwrap().capabilities,
        [Capability::FourOctetAs(65001)]
    );
}

#[test]
fn open_errors_carry_the_right_code() {
    let error = |text| Open::decode(&bytes(text)).unwrap_err();
    assert_eq!(
        error("03 fde9 005a c0000201 00"),
        Notification::open(OpenError::UnsupportedVersion, &[0, 4])
    );
    let parameter = error("04 fde9 005a c0000201 03 01 01 00");
    assert_eq!(
        parameter,
        Notification::open(OpenError::UnsupportedParameter, &[])
    );
    for malformed in [
        "04 fde9 005a c0000201 04 02 01 00",
        "04 fde9 005a c0000201 03 02 05 41",
        "04 fde9",
    ] {
        assert_eq!(
            error(malformed),
            Notification::open(OpenError::Unspecific, &[]),
            "{malformed}"
        );
    }
}

#[test]
fn header_errors_carry_the_right_code() {
    let error = |text: &str| {
        decode_stream(&bytes(text), EBGP)
            .1
            .map(|it| (it.code, it.subcode, it.data))
    };
    let marker = "ffffffffffffffffffffffffffffffff";
    let feff = "feffffffffffffffffffffffffffffff001304";
    assert_eq!(error(feff), Some((1, 1, vec![])));
    assert_eq!(
        error(&[marker, "001204"].concat()),
        Some((1, 2, vec![0, 0x12]))
    );
    assert_eq!(
        error(&[marker, "100104"].concat()),
        Some((1, 2, vec![0x10, 1]))
    );
    assert_eq!(
        error(&[marker, "001404"].concat()),
        Some((1, 2, vec![0, 0x14]))
    );
    assert_eq!(
        error(&[marker, "001c01"].concat()),
        Some((1, 2, vec![0, 0x1c]))
    );
    assert_eq!(error(&[marker, "001306"].concat()), Some((1, 3, vec![6])));
    assert_eq!(error(&[marker, "0017"].concat()), None);
}

#[test]
fn messages_are_found_in_any_pieces() {
    let update = update::end_of_rib(Family::V6);
    let stream = [keepalive(), update.clone(), keepalive()].concat();
    for size in 1..stream.len() {
        let mut reader = FrameReader::default();
        let mut kinds = Vec::new();
        for piece in stream.chunks(size) {
            reader.push(piece);
            while let Some(frame) = reader.next_frame().unwrap() {
                kinds.push(frame.kind);
            }
        }
        assert_eq!(
            kinds,
            [
                MessageType::Keepalive,
                MessageType::Update,
                MessageType::Keepalive
            ]
        );
    }
}

#[test]
fn update_with_ipv4_prefixes_is_written_and_read() {
    let mut attributes = Attributes::new(next_hop("192.0.2.1"));
    attributes.as_path = AsPath::sequence([65001]);
    let prefixes = [cidr("10.1.0.0/24"), cidr("10.2.3.4/32"), cidr("0.0.0.0/0")];
    let messages = update::announce(&attributes, Family::V4, &prefixes, EBGP).unwrap();
    let expected = body(
        "",
        &[ORIGIN, PATH, HOP].concat(),
        "18 0a0100 20 0a020304 00",
    );
    assert_eq!(messages.len(), 1);
    assert_eq!(hex(&messages[0][HEADER..]), hex(&expected));
    let update = Update::decode(&expected, EBGP).unwrap();
    assert_eq!(update.announced, [(attributes, prefixes.to_vec())]);
}

#[test]
fn update_with_ipv6_prefixes_is_written_and_read() {
    let mut attributes = Attributes::new(NextHop {
        address: "2001:db8::1".parse().unwrap(),
        link_local: Some("fe80::1".parse().unwrap()),
    });
    attributes.as_path = AsPath::sequence([65001]);
    let prefixes = [cidr("fd00::/122")];
    let messages = update::announce(&attributes, Family::V6, &prefixes, EBGP).unwrap();
    let reach =
        "80 0e 36 0002 01 20 20010db8000000000000000000000001 fe800000000000000000000000000001
        00 7a fd000000000000000000000000000000";
    let expected = body("", &[reach, ORIGIN, PATH].concat(), "");
    assert_eq!(hex(&messages[0][HEADER..]), hex(&expected));
    assert_eq!(
        Update::decode(&expected, EBGP).unwrap().announced,
        [(attributes, prefixes.to_vec())]
    );
}

#[test]
fn ipv4_prefixes_may_have_an_ipv6_next_hop() {
    // RFC 8950 section 3.
    let mut attributes = Attributes::new(next_hop("fe80::1"));
    attributes.as_path = AsPath::sequence([65001]);
    let messages = update::announce(&attributes, Family::V4, &[cidr("10.1.0.0/24")], EBGP).unwrap();
    let update = Update::decode(&messages[0][HEADER..], EBGP).unwrap();
    assert_eq!(update.announced, [(attributes, vec![cidr("10.1.0.0/24")])]);
}

#[test]
fn end_of_rib_is_written_and_read_for_each_family() {
    let read = |family| Update::decode(&update::end_of_rib(family)[HEADER..], EBGP).unwrap();
    assert_eq!(hex(&update::end_of_rib(Family::V4)[HEADER..]), "00000000");
    assert_eq!(
        hex(&update::end_of_rib(Family::V6)[HEADER..]),
        "00000006800f03000201"
    );
    for family in Family::ALL {
        assert_eq!(
            read(family),
            Update {
                end_of_rib: Some(family),
                ..Update::default()
            }
        );
    }
    let with_a_prefix = Update::decode(&body("18 0a0100", "", ""), EBGP).unwrap();
    assert_eq!(with_a_prefix.end_of_rib, None);
}

#[test]
fn many_prefixes_fill_messages_to_the_brim() {
    let mut attributes = Attributes::new(next_hop("192.0.2.1"));
    attributes.as_path = AsPath::sequence([65001]);
    let prefixes: Vec<Cidr> = (0..4000u32)
        .map(|n| Cidr::new(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + (n << 6))), 26).unwrap())
        .collect();
    let messages = update::announce(&attributes, Family::V4, &prefixes, EBGP).unwrap();
    assert!(messages.iter().all(|message| message.len() <= MAX_MESSAGE));
    // 5 bytes each, 4096 - 19 - 4 - 20 bytes of room.
    assert_eq!(messages.len(), 4000usize.div_ceil((4096 - 19 - 4 - 20) / 5));
    let withdrawals = update::withdraw(Family::V4, &prefixes);
    assert_eq!(withdrawals.len(), 4000usize.div_ceil((4096 - 23) / 5));
    let six: Vec<Cidr> = (0..1000u128)
        .map(|n| {
            Cidr::new(
                IpAddr::from((0xfd00u128 << 112 | n << 6).to_be_bytes()),
                122,
            )
            .unwrap()
        })
        .collect();
    attributes.next_hop = next_hop("2001:db8::1");
    for messages in [
        update::announce(&attributes, Family::V6, &six, EBGP).unwrap(),
        update::withdraw(Family::V6, &six),
    ] {
        assert!(messages.iter().all(|message| message.len() <= MAX_MESSAGE));
        assert_eq!(messages.len(), 5);
        let read = messages
            .iter()
            .map(|it| Update::decode(&it[HEADER..], EBGP).unwrap());
        let count: usize = read
            .map(|it| it.withdrawn.len() + it.announced.iter().map(|it| it.1.len()).sum::<usize>())
            .sum();
        assert_eq!(count, 1000);
    }
}

#[test]
fn attributes_too_long_for_one_message_are_refused() {
    let mut attributes = Attributes::new(next_hop("192.0.2.1"));
    attributes.as_path = AsPath::sequence(1..1100);
    let result = update::announce(&attributes, Family::V4, &[cidr("10.1.0.0/24")], EBGP);
    assert_eq!(result, Err(update::TooLong));
}

#[test]
fn every_attribute_survives_a_session() {
    let mut attributes = Attributes::new(next_hop("192.0.2.1"));
    attributes.origin = Origin::Incomplete;
    attributes.as_path = AsPath::sequence([65001, 4_200_000_000]);
    attributes.as_path.segments.push(Segment {
        kind: SegmentKind::Set,
        asns: vec![7, 70_000],
    });
    attributes.med = Some(5);
    attributes.local_pref = Some(200);
    attributes.atomic_aggregate = true;
    attributes.aggregator = Some(Aggregator {
        asn: 70_000,
        address: Ipv4Addr::new(1, 2, 3, 4),
    });
    attributes.communities = vec![0xffff_ff01, 0xfde8_0001];
    attributes.extended_communities = vec![[0, 2, 0xfd, 0xe8, 0, 0, 0, 1]];
    attributes.large_communities = vec![[65000, 1, 2]];
    attributes.originator_id = Some(Ipv4Addr::new(9, 9, 9, 9));
    attributes.cluster_list = vec![Ipv4Addr::new(8, 8, 8, 8)];
    attributes.unknown = vec![UnknownAttribute {
        code: 99,
        value: vec![1, 2, 3],
    }];
    attributes.partial = vec![8];
    for dialect in [
        EBGP,
        IBGP,
        OLD,
        Dialect {
            four_octet_as: false,
            ..IBGP
        },
    ] {
        for (family, prefix, hop) in [
            (Family::V4, "10.0.0.0/8", "192.0.2.1"),
            (Family::V6, "fd00::/16", "2001:db8::1"),
        ] {
            attributes.next_hop = next_hop(hop);
            let messages = update::announce(&attributes, family, &[cidr(prefix)], dialect).unwrap();
            let update = Update::decode(&messages[0][HEADER..], dialect).unwrap();
            assert_eq!(update.problems, []);
            assert_eq!(
                update.announced,
                [(written(&attributes, dialect), vec![cidr(prefix)])]
            );
        }
    }
    let text = ["no-export", "65000:1", "0x0002fde800000001", "65000:1:2"];
    assert_eq!(attributes.communities_text(), text);
}

#[test]
fn an_old_speaker_in_between_does_not_shorten_the_path() {
    // RFC 6793 section 4.2.3: it has put its own AS before the path and left AS4_PATH alone.
    let old = |two: &str, four: &str| {
        let update =
            Update::decode(&body("", &[ORIGIN, two, HOP, four].concat(), NLRI), OLD).unwrap();
        update.announced[0].0.as_path.to_string()
    };
    let four = "c0 11 0a 02 02 00011170 00011171"; // 70000 70001
    assert_eq!(
        old("40 02 08 02 03 0064 5ba0 5ba0", four),
        "100 70000 70001"
    );
    assert_eq!(old("40 02 06 02 02 5ba0 5ba0", four), "70000 70001");
    // Longer than the AS_PATH: somebody has rewritten that; it counts alone.
    assert_eq!(old("40 02 04 02 01 0064", four), "100");
    // An AGGREGATOR whose AS fits into two octets says nothing about that.
    let aggregated = ["c0 07 06 0064 01020304", four].concat();
    let two = "40 02 08 02 03 0064 5ba0 5ba0";
    assert_eq!(old(two, &aggregated), "100 70000 70001");
    // Beside an AS4_AGGREGATOR it does: an old speaker has aggregated since.
    let since = [&aggregated, "c0 12 08 00011170 01020304"].concat();
    assert_eq!(old(two, &since), "100 23456 23456");
    let before = since.replace("0064 01020304", "5ba0 01020304");
    assert_eq!(old(two, &before), "100 70000 70001");
}

#[test]
fn unknown_optional_attributes_are_carried_on_if_transitive() {
    let update =
        Update::decode(&with("c0 63 02 0102 80 64 01 00 e0 08 04 00010002"), EBGP).unwrap();
    assert_eq!(update.problems, []);
    let attributes = &update.announced[0].0;
    assert_eq!(
        attributes.unknown,
        [UnknownAttribute {
            code: 0x63,
            value: vec![1, 2]
        }]
    );
    let messages = update::announce(attributes, Family::V4, &[cidr("10.1.0.0/24")], EBGP).unwrap();
    let text = hex(&messages[0]);
    assert!(
        text.contains("e063020102"),
        "the Partial bit is set: {text}"
    );
    assert!(
        text.contains("e0080400010002"),
        "the Partial bit stays: {text}"
    );
}

#[test]
fn bits_beyond_a_prefix_mean_nothing() {
    let update = Update::decode(&body("19 0a01007f", "", ""), EBGP).unwrap();
    assert_eq!(update.withdrawn, [cidr("10.1.0.0/25")]);
}

#[test]
fn notifications_speak_to_people() {
    let mut reset = Notification::cease(Cease::Shutdown);
    assert_eq!(reset.to_string(), "Cease: administrative shutdown (6/2)");
    reset.data = [&[4][..], b"maint"].concat();
    assert_eq!(
        reset.to_string(),
        "Cease: administrative shutdown (6/2) \"main\""
    );
    reset.data = vec![200, 1];
    assert_eq!(
        reset.to_string(),
        "Cease: administrative shutdown (6/2) data c801"
    );
    assert_eq!(
        Notification {
            code: 77,
            subcode: 1,
            data: vec![]
        }
        .to_string(),
        "unknown error (77/1)"
    );
}
