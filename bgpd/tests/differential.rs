//! The codec against another one, netgauze-bgp-pkt: what we write it reads, what it writes of that we read as the same, and
//! of what is malformed both think the same but for what [`known`] lists.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgpd::wire::capability::{GracefulRestart, PathsOf};
use bgpd::wire::{
    self, Aggregator, AsPath, Attributes, Capability, Dialect, Message, Notification, Open, Origin,
    RouteRefresh, Segment, SegmentKind, UnknownAttribute, Update, update,
};
use crds::net::{Cidr, Family};
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::wire::deserializer::{BgpMessageParsingError, BgpParsingContext};
use netgauze_parse_utils::WritablePdu as _;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput as _;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// What the other one makes of a message; it refuses whatever it finds wrong.
fn theirs(bytes: &[u8], dialect: Dialect) -> Result<BgpMessage, BgpMessageParsingError> {
    let mut context = BgpParsingContext::new(
        dialect.four_octet_as,
        HashMap::new(),
        HashMap::new(),
        true,
        true,
        true,
        true,
    );
    BgpMessage::parse(&mut SliceReader::new(bytes), &mut context)
}

fn ours(bytes: &[u8], dialect: Dialect) -> Result<Message, Notification> {
    let (mut messages, error) = wire::decode_stream(bytes, dialect);
    match error {
        Some(error) => Err(error),
        None => Ok(messages.pop().expect("a whole message")),
    }
}

/// They read what we wrote, and what they write of it means the same to us.
fn there_and_back(bytes: &[u8], dialect: Dialect) {
    let read = theirs(bytes, dialect);
    let read = read.unwrap_or_else(|error| panic!("{error}: {}", wire::hex(bytes)));
    let mut again = Vec::new();
    read.write(&mut again).unwrap();
    assert_eq!(ours(&again, dialect), ours(bytes, dialect), "{read:?}");
}

fn prefix(family: Family) -> impl Strategy<Value = Cidr> {
    let bits = family.bits();
    (any::<u128>(), 8..=bits).prop_map(move |(random, length)| {
        let address = match family {
            // A unicast address: the other one refuses others as malformed, which RFC 7606 does not ask for.
            Family::V4 => {
                let random = u32::try_from(random >> 96).unwrap();
                IpAddr::V4(Ipv4Addr::from(random & 0x3fff_ffff | 0x4000_0000))
            }
            Family::V6 => IpAddr::V6(Ipv6Addr::from(random >> 3 | 1 << 125)),
        };
        Cidr::new(address, length).unwrap()
    })
}

fn segment(kind: SegmentKind) -> impl Strategy<Value = Segment> {
    vec(1..u32::MAX, 1..20).prop_map(move |asns| Segment { kind, asns })
}

prop_compose! {
    fn attributes()(
        origin in prop::sample::select(vec![Origin::Igp, Origin::Egp, Origin::Incomplete]),
        sequence in segment(SegmentKind::Sequence),
        set in option::of(segment(SegmentKind::Set)),
        med in any::<Option<u32>>(),
        local_pref in any::<Option<u32>>(),
        atomic_aggregate in any::<bool>(),
        aggregator in option::of((1..u32::MAX, any::<u32>())),
        communities in vec(any::<u32>(), 0..6),
        large_communities in vec(any::<[u32; 3]>(), 0..4),
        extended in vec(any::<[u8; 6]>(), 0..3),
        originator in option::of(1..u32::MAX),
        clusters in vec(any::<u32>(), 0..4),
        unknown in option::of(vec(any::<u8>(), 0..300)),
    ) -> Attributes {
        let mut it = Attributes::new(IpAddr::from([192, 0, 2, 1]).into());
        it.origin = origin;
        it.as_path = AsPath { segments: [Some(sequence), set].into_iter().flatten().collect() };
        (it.med, it.local_pref, it.atomic_aggregate) = (med, local_pref, atomic_aggregate);
        it.aggregator = aggregator.map(|(asn, address)| Aggregator { asn, address: address.into() });
        it.communities = communities;
        it.large_communities = large_communities;
        // Route targets, which both know.
        it.extended_communities = extended.iter().map(|[a, b, c, d, e, f]| [0, 2, *a, *b, *c, *d, *e, *f]).collect();
        it.originator_id = originator.map(Ipv4Addr::from);
        it.cluster_list = clusters.into_iter().map(Ipv4Addr::from).collect();
        it.unknown = unknown.map(|value| UnknownAttribute { code: 250, value }).into_iter().collect();
        it
    }
}

fn dialect() -> impl Strategy<Value = Dialect> {
    (any::<bool>(), any::<bool>()).prop_map(|(four_octet_as, internal)| Dialect {
        four_octet_as,
        ..Dialect::plain(internal)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn routes_mean_the_same_to_both(
        attributes in attributes(),
        four in vec(prefix(Family::V4), 1..40),
        six in vec(prefix(Family::V6), 1..40),
        dialect in dialect(),
    ) {
        let mut messages = update::announce(&attributes, Family::V4, &four, dialect).unwrap();
        let next_hop: IpAddr = "2001:db8::1".parse().unwrap();
        let attributes = Attributes { next_hop: next_hop.into(), ..attributes };
        messages.extend(update::announce(&attributes, Family::V6, &six, dialect).unwrap());
        messages.extend(update::withdraw(Family::V4, &four));
        messages.extend(update::withdraw(Family::V6, &six));
        messages.extend(Family::ALL.map(update::end_of_rib));
        for message in messages {
            there_and_back(&message, dialect);
        }
    }

    #[test]
    fn opens_mean_the_same_to_both(
        asn in 1..u32::MAX,
        hold_time in 3..u16::MAX,
        // RFC 6286 section 2.1: any number but 0 is one; they take only those that are unicast addresses.
        id in 0x0a00_0000..0x0b00_0000u32,
        bits in any::<u8>(),
        time in 0..4096u16,
    ) {
        let bit = |number: u8| bits >> number & 1 == 1;
        let paths = PathsOf { afi: 1, safi: 1, receive: true, send: bit(5) };
        let restart = GracefulRestart {
            restarted: bit(4),
            notifications: false,
            time,
            families: vec![(1, 1, bit(3)), (2, 1, bit(2))],
        };
        let all = [
            (0, Capability::unicast(Family::V4)),
            (1, Capability::unicast(Family::V6)),
            (2, Capability::RouteRefresh),
            (3, Capability::EnhancedRefresh),
            (4, Capability::ExtendedMessage),
            (5, Capability::AddPath(vec![paths])),
            (6, Capability::GracefulRestart(restart)),
            (7, Capability::ExtendedNextHop(vec![(1, 1, 2)])),
        ];
        let some = all.into_iter().filter(|(number, _)| bit(*number)).map(|it| it.1).collect();
        let open = Open::new(asn, hold_time, Ipv4Addr::from(id), some);
        there_and_back(&open.encode(), Dialect::plain(false));
    }

    #[test]
    fn malformed_updates_are_malformed_to_both(
        attributes in attributes(),
        four in vec(prefix(Family::V4), 1..4),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
        dialect in dialect(),
    ) {
        let messages = update::announce(&attributes, Family::V4, &four, dialect).unwrap();
        let mut message = messages[0].to_vec();
        let at = wire::HEADER + at.index(message.len() - wire::HEADER);
        message[at] = value;
        let (mine, other) = (ours(&message, dialect), theirs(&message, dialect));
        match (&mine, &other) {
            // Which sections of a message are how long is the same to everybody.
            (Err(_), Ok(read)) => prop_assert!(lenient(read), "{mine:?} {read:?} {}", wire::hex(&message)),
            (Ok(Message::Update(read)), Err(error)) if read.problems.is_empty() => {
                prop_assert!(known(read, error), "{error} {read:?} {}", wire::hex(&message));
            }
            _ => {}
        }
    }
}

/// What ends a session here and is fine to them.
fn lenient(read: &BgpMessage) -> bool {
    use netgauze_bgp_pkt::path_attribute::PathAttributeValue as Value;
    let BgpMessage::Update(update) = read else {
        return false;
    };
    let values = || {
        update
            .path_attributes()
            .iter()
            .map(netgauze_bgp_pkt::path_attribute::PathAttribute::value)
    };
    // RFC 4271 section 6.3: an unrecognized well-known attribute ends the session; they carry it on.
    let unknown = values().any(|it| matches!(it, Value::UnknownAttribute(_)));
    // RFC 7606 section 5.2: attributes without any prefix, of which one is bad or missing.
    let nothing = update.nlri().is_empty() && update.withdraw_routes().is_empty();
    // RFC 7606 section 3 g: two lists of prefixes of a kind.
    let lists = values()
        .filter(|it| matches!(it, Value::MpReach(_) | Value::MpUnreach(_)))
        .count();
    unknown || nothing || lists > 1
}

/// What is fine here and malformed to them.
fn known(read: &Update, error: &BgpMessageParsingError) -> bool {
    let prefixes = read
        .withdrawn
        .iter()
        .chain(read.announced.iter().flat_map(|it| &it.1));
    let unicast = |it: &Cidr| match it.first() {
        IpAddr::V4(it) => !(it.is_multicast() || it.is_broadcast() || it.octets()[0] >= 240),
        IpAddr::V6(it) => !it.is_multicast(),
    };
    let text = error.to_string();
    // RFC 7606 section 5.3 asks for the syntax of prefixes only; what nobody routes is for import policy to refuse.
    let not_unicast = text.contains("unicast") || prefixes.clone().any(|it| !unicast(it));
    // RFC 4271 section 5: attributes that are not known here, optional and well-formed, are carried on or ignored unread;
    // they know more of them and read their values.
    let unread = read
        .announced
        .iter()
        .any(|(it, _)| it.unknown.iter().any(|it| it.code != 250))
        || text.contains("attribute") && read.announced.iter().all(|(it, _)| it.unknown.is_empty());
    // RFC 4360 section 2: a value of any type is one; they know what is inside of some.
    let extended = text.to_lowercase().contains("community");
    // RFC 7606 section 3 c looks at the Optional and Transitive bits only.
    let partial = text.contains("partial flag");
    not_unicast || unread || extended || partial
}

#[test]
fn the_other_messages_mean_the_same_to_both() {
    let plain = Dialect::plain(false);
    there_and_back(&wire::keepalive(), plain);
    for family in Family::ALL {
        for subtype in 0..3 {
            there_and_back(&RouteRefresh::unicast(family, subtype).encode(), plain);
        }
    }
    for (code, subcode) in [
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 0),
        (5, 1),
        (6, 2),
        (6, 4),
        (6, 9),
        (7, 1),
    ] {
        let notification = Notification {
            code,
            subcode,
            data: vec![1, 2, 3],
        };
        there_and_back(&notification.encode(), plain);
    }
}
