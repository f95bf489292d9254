//! Packets that must not count.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A packet that the session of host 0 takes.
fn good(pair: &Pair) -> Received {
    let info = pair.info(0);
    let packet = Packet {
        diagnostic: Diagnostic::NONE,
        state: State::Up,
        poll: false,
        is_final: false,
        independent: false,
        demand: false,
        multiplier: 3,
        my_discriminator: info.remote_discriminator,
        your_discriminator: info.discriminator,
        desired_min_tx: 100_000,
        required_min_rx: 100_000,
        required_min_echo_rx: 0,
    };
    Pair::received(0, packet.encode())
}

#[test]
fn every_check_drops_and_counts() {
    let mut pair = Pair::up(100_000, 3);
    type Edit = fn(&mut Received);
    let cases: [(Refusal, Edit); 18] = [
        (Refusal::Length, |it| it.bytes.truncate(3)),
        (Refusal::Length, |it| it.bytes.truncate(23)),
        (Refusal::Length, |it| it.bytes[3] = 23),
        (Refusal::Length, |it| it.bytes[3] = 25),
        // With the A bit the least length is 26.
        (Refusal::Length, |it| it.bytes[1] |= 0x04),
        (Refusal::Version, |it| it.bytes[0] = 0),
        (Refusal::Version, |it| it.bytes[0] |= 0xe0),
        (Refusal::Multiplier, |it| it.bytes[2] = 0),
        (Refusal::Multipoint, |it| it.bytes[1] |= 0x01),
        (Refusal::Discriminator, |it| it.bytes[4..8].fill(0)),
        (Refusal::Stateless, |it| it.bytes[8..12].fill(0)),
        (Refusal::Authentication, |it| {
            it.bytes.extend_from_slice(&[1, 4, 1, b'x']);
            it.bytes[1] |= 0x04;
            it.bytes[3] = 28;
        }),
        (Refusal::NoSession, |it| it.bytes[8] ^= 0x80),
        (Refusal::NoSession, |it| {
            // It names no session, and nobody expects its source.
            it.bytes[1] = 0x40;
            it.bytes[8..12].fill(0);
            it.source = IpAddr::from([192, 0, 2, 77]);
        }),
        (Refusal::TimeToLive, |it| it.ttl = 254),
        (Refusal::WrongPath, |it| it.ifindex = 4),
        (Refusal::WrongPath, |it| {
            it.source = IpAddr::from([192, 0, 2, 77])
        }),
        (Refusal::WrongPath, |it| it.multihop = true),
    ];
    let good = good(&pair);
    let mut expected = BTreeMap::new();
    for (refusal, edit) in cases {
        let mut bad = good.clone();
        edit(&mut bad);
        let before = pair.info(0);
        let outputs = pair.hosts[0].handle(Input::Packet(bad.clone()), pair.now);
        assert_eq!(outputs, [], "{refusal}: {bad:?}");
        assert_eq!(pair.info(0), before, "{refusal}: {bad:?}");
        *expected.entry(refusal).or_insert(0) += 1;
        assert_eq!(pair.hosts[0].refused(), &expected, "{bad:?}");
    }
    let before = pair.info(0).counts.received;
    pair.input(0, Input::Packet(good));
    assert_eq!(pair.info(0).counts.received, before + 1);
}

#[test]
fn what_is_dropped_does_not_keep_a_session_up() {
    let mut pair = Pair::up(100_000, 3);
    pair.forget();
    pair.passes = Box::new(|_| false);
    let mut far = good(&pair);
    far.ttl = 254;
    for _ in 0..10 {
        pair.input(0, Input::Packet(far.clone()));
        pair.run(50_000);
    }
    assert!(matches!(pair.events[0][..], [(_, Event::Down { .. })]));
}

#[test]
fn bytes_beyond_the_length_are_nobodys() {
    let mut pair = Pair::up(100_000, 3);
    let mut long = good(&pair);
    long.bytes.extend_from_slice(&[0xff; 40]);
    let before = pair.info(0).counts.received;
    pair.input(0, Input::Packet(long));
    assert_eq!(pair.info(0).counts.received, before + 1);
}

#[test]
fn several_hops_take_their_port_addresses_and_ttl() {
    let mut monitor = Monitor::new(1);
    let path = Path::Multihop { least_ttl: 250 };
    let wanted = Settings {
        local: Some(address(0)),
        path,
        ..settings(0, 100_000, 100_000, 3)
    };
    let peer = peer_of(0);
    monitor.handle(
        Input::Start {
            peer,
            settings: wanted,
        },
        0,
    );
    let hello = Packet {
        state: State::Down,
        your_discriminator: 0,
        my_discriminator: 9,
        ..Packet::decode(&good(&Pair::up(100_000, 3)).bytes).unwrap()
    };
    let received = Received {
        ttl: 250,
        multihop: true,
        ifindex: 17,
        ..Pair::received(0, hello.encode())
    };
    let mut refused = |edit: fn(&mut Received)| {
        let mut packet = received.clone();
        edit(&mut packet);
        monitor.handle(Input::Packet(packet), 0).is_empty()
    };
    assert!(refused(|it| it.ttl = 249));
    assert!(refused(|it| it.multihop = false));
    assert!(refused(|it| it.destination = IpAddr::from([192, 0, 2, 200])));
    assert!(refused(|it| it.source = IpAddr::from([192, 0, 2, 200])));
    assert!(!refused(|_| ()));
    assert_eq!(monitor.sessions(0)[0].state, State::Init);
}

#[test]
fn a_packet_costs_one_answer_at_most_two() {
    let mut pair = Pair::up(100_000, 3);
    let mut hello = good(&pair);
    // Down and administratively down in turns, with a poll each.
    for turn in 0_u8..100 {
        hello.bytes[1] = (turn & 1) << 6 | 0x20;
        let outputs = pair.hosts[0].handle(Input::Packet(hello.clone()), pair.now);
        let sent = outputs
            .iter()
            .filter(|it| matches!(it, Output::Send { .. }));
        assert!(sent.count() <= 2);
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..600)) {
        exercise::any(&bytes);
    }

    #[test]
    fn no_packets_of_the_session_panic(pieces in vec((any::<u8>(), any::<[u8; 24]>()), 0..60)) {
        let bytes: Vec<u8> = pieces.iter().flat_map(|(how, packet)| [&[how | 1], &packet[..]].concat()).collect();
        exercise::any(&bytes);
    }
}
