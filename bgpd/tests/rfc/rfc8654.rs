//! Extended messages.

use bgpd::config::ExportClass;
use bgpd::speaker::{ConnId, Output, SpeakerEvent};
use bgpd::wire::{Capability, Dialect, MAX_EXTENDED_MESSAGE, MAX_MESSAGE, update};
use crds::net::{Cidr, Family};

use crate::bench::{Bench, EBGP, announced, with_peers};
use crate::peers::{announce_with, connect, counts, join, notification, open, opened, with};
use crate::sim::cidr;

fn extended() -> Vec<Capability> {
    with([Capability::ExtendedMessage])
}

fn many(count: u32) -> Vec<Cidr> {
    let one = |n: u32| Cidr::new(std::net::Ipv4Addr::from(0x0a00_0000 + (n << 6)).into(), 26);
    (0..count).map(|n| one(n).unwrap()).collect()
}

/// One UPDATE of more than 4096 bytes.
fn long() -> Vec<u8> {
    let mut attributes = bgpd::wire::Attributes::new(crate::sim::ip("192.0.2.2").into());
    attributes.as_path = bgpd::wire::AsPath::sequence([65002]);
    let dialect = Dialect {
        extended_message: true,
        ..EBGP
    };
    let messages = update::announce(&attributes, Family::V4, &many(5_000), dialect).unwrap();
    assert_eq!(messages.len(), 1);
    messages[0].to_vec()
}

/// Lengths of the messages for a connection.
fn lengths(outputs: &[Output], conn: ConnId) -> Vec<usize> {
    let mut lengths = Vec::new();
    for output in outputs {
        if let Output::Send(to, bytes) = output
            && *to == conn
        {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let length = usize::from(u16::from_be_bytes([rest[16], rest[17]]));
                lengths.push(length);
                rest = &rest[length..];
            }
        }
    }
    lengths
}

#[test]
fn long_messages_are_taken_where_both_sides_want_them() {
    let mut bench = Bench::started(with_peers(1));
    let (conn, outputs) = join(&mut bench, 2, 0, &extended());
    let own = opened(&outputs, conn);
    assert!(own.capabilities.contains(&Capability::ExtendedMessage));
    bench.bytes(conn, &long());
    assert_eq!(counts(&bench, 2, Family::V4).received, 5_000);
}

#[test]
fn elsewhere_they_are_of_bad_length() {
    let mut bench = Bench::started(with_peers(1));
    let (conn, _) = join(&mut bench, 2, 0, &with([]));
    let long = long();
    let outputs = bench.bytes(conn, &long);
    let sent = notification(&outputs, conn).unwrap();
    assert_eq!((sent.code, sent.subcode), (1, 2));
    assert_eq!(sent.data, long[16..18]);
}

#[test]
fn open_and_keepalive_stay_short() {
    let mut bench = Bench::started(with_peers(1));
    let (conn, _) = connect(&mut bench, 2, 0);
    let mut bad = open(2, extended()).encode().to_vec();
    bad[16..18].copy_from_slice(&5_000u16.to_be_bytes());
    let outputs = bench.bytes(conn, &bad);
    assert_eq!(notification(&outputs, conn).unwrap().subcode, 2);

    let mut bench = Bench::started(with_peers(1));
    let (conn, _) = join(&mut bench, 2, 0, &extended());
    let mut bad = bgpd::wire::keepalive().to_vec();
    bad[16..18].copy_from_slice(&20u16.to_be_bytes());
    bad.push(0);
    let outputs = bench.bytes(conn, &bad);
    assert_eq!(notification(&outputs, conn).unwrap().subcode, 2);
}

#[test]
fn much_is_told_in_few_messages_to_who_takes_long_ones() {
    let mut config = with_peers(3);
    config
        .peers
        .iter_mut()
        .for_each(|it| it.export = ExportClass::Transit);
    let mut bench = Bench::started(config);
    let (two, _) = join(&mut bench, 2, 0, &extended());
    bench.bytes(two, &long());
    let (three, outputs) = join(&mut bench, 3, 0, &extended());
    let lengths_three = lengths(&outputs, three);
    assert_eq!(announced_long(&outputs, three).len(), 5_000);
    assert!(lengths_three.iter().any(|it| *it > MAX_MESSAGE));
    assert!(lengths_three.iter().all(|it| *it <= MAX_EXTENDED_MESSAGE));
    let (four, outputs) = join(&mut bench, 4, 0, &with([]));
    assert_eq!(announced(&outputs, four).len(), 5_000);
    assert!(lengths(&outputs, four).iter().all(|it| *it <= MAX_MESSAGE));
}

#[test]
fn a_route_that_needs_a_long_message_is_kept_from_who_takes_short_ones() {
    let mut config = with_peers(3);
    config
        .peers
        .iter_mut()
        .for_each(|it| it.export = ExportClass::Transit);
    let mut bench = Bench::started(config);
    let (two, _) = join(&mut bench, 2, 0, &extended());
    let (three, _) = join(&mut bench, 3, 0, &extended());
    let (four, _) = join(&mut bench, 4, 0, &with([]));
    let prefix = cidr("10.2.0.0/26");
    let mut attributes = bgpd::wire::Attributes::new(crate::sim::ip("192.0.2.2").into());
    attributes.as_path = bgpd::wire::AsPath::sequence([65002]);
    attributes.communities = (0..1_100).map(|it| 0x0001_0000 + it).collect();
    let dialect = Dialect {
        extended_message: true,
        ..EBGP
    };
    let messages = update::announce(&attributes, Family::V4, &[prefix], dialect).unwrap();
    let outputs = bench.bytes(two, &messages.concat());
    assert_eq!(announced_long(&outputs, three), [prefix]);
    assert!(lengths(&outputs, four).is_empty());
    let too_long = |it: &Output| matches!(it, Output::Event(SpeakerEvent::TooLong { .. }));
    assert_eq!(outputs.iter().filter(|it| too_long(it)).count(), 1);
    // Another path without so much to say is told to all.
    let outputs = announce_with(&mut bench, 2, two, &[prefix], |_| ());
    assert_eq!(announced(&outputs, four), [prefix]);
}

fn announced_long(outputs: &[Output], conn: ConnId) -> Vec<Cidr> {
    let all = crate::peers::messages(outputs, conn).into_iter();
    all.filter_map(|it| match it {
        bgpd::wire::Message::Update(it) => Some(it.announced),
        _ => None,
    })
    .flatten()
    .flat_map(|it| it.1)
    .collect()
}

#[test]
fn a_path_that_is_too_long_in_four_octets_is_withdrawn() {
    let mut bench = Bench::started(with_peers(1));
    let (conn, _) = connect(&mut bench, 2, 0);
    let mut old = open(2, extended());
    let four = |it: &Capability| matches!(it, Capability::FourOctetAs(_));
    old.capabilities.retain(|it| !four(it));
    bench.bytes(conn, &old.encode());
    bench.bytes(conn, &bgpd::wire::keepalive());
    let dialect = Dialect {
        extended_message: true,
        four_octet_as: false,
        ..EBGP
    };
    let mut say = |hops: usize| {
        let mut attributes = bgpd::wire::Attributes::new(crate::sim::ip("192.0.2.2").into());
        attributes.as_path = bgpd::wire::AsPath::sequence(std::iter::repeat_n(65002, hops));
        let messages = update::announce(&attributes, Family::V4, &many(1), dialect).unwrap();
        let outputs = bench.bytes(conn, &messages.concat());
        let malformed = |it: &Output| matches!(it, Output::Event(SpeakerEvent::Malformed { .. }));
        let routes = bench.speaker.routes(&Default::default(), bench.now);
        let lengths: Vec<usize> = routes.iter().map(|it| it.as_path.len()).collect();
        (lengths, outputs.iter().any(malformed))
    };
    assert_eq!(say(16_000), (vec![16_000], false));
    assert_eq!(say(32_000), (vec![], true));
    assert_eq!(say(1), (vec![1], false));
}

#[test]
fn one_prefix_too_many_does_not_keep_back_the_others() {
    let mut config = with_peers(2);
    config.peers[1].export = ExportClass::Transit;
    let mut bench = Bench::started(config);
    let (two, _) = join(&mut bench, 2, 0, &extended());
    let (three, _) = join(&mut bench, 3, 0, &with([]));
    let mut attributes = bgpd::wire::Attributes::new(crate::sim::ip("192.0.2.2").into());
    attributes.as_path = bgpd::wire::AsPath::sequence([65002]);
    // With our AS in the path they leave two bytes of a short message.
    attributes.communities = (0..1_010).map(|it| 0x0001_0000 + it).collect();
    attributes.atomic_aggregate = true;
    let dialect = Dialect {
        extended_message: true,
        ..EBGP
    };
    let prefixes = ["10.2.0.0/26", "11.0.0.0/8", "12.0.0.0/8"].map(cidr);
    let messages = update::announce(&attributes, Family::V4, &prefixes, dialect).unwrap();
    let outputs = bench.bytes(two, &messages.concat());
    assert_eq!(announced(&outputs, three), prefixes[1..]);
    let told = |it: &Output| match it {
        Output::Event(SpeakerEvent::TooLong { prefix, .. }) => Some(*prefix),
        _ => None,
    };
    let too_long: Vec<Cidr> = outputs.iter().filter_map(told).collect();
    assert_eq!(too_long, prefixes[..1]);
}
