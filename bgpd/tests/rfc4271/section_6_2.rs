//! OPEN message errors, with RFC 6286 (identifiers), RFC 7607 (AS 0) and RFC 5492 (capabilities).

use std::net::Ipv4Addr;

use bgpd::fsm::State;
use bgpd::wire::{Capability, Open};
use crds::net::Family;

use crate::bench::{Bench, OWN_ASN, PEER_ASN, ends_with, open, settings};

/// The peer's OPEN is refused with that code.
fn refused(edit: impl FnOnce(&mut Open), subcode: u8) -> Vec<u8> {
    let (mut bench, conn) = Bench::open_sent();
    let mut open = open(7);
    edit(&mut open);
    let actions = bench.bytes(conn, &open.encode());
    assert_eq!(bench.state(), State::Idle);
    ends_with(&actions, conn, State::OpenSent, 2, subcode).data
}

fn with_asn(asn: u32) -> impl Fn(&mut Open) {
    move |it| {
        *it = Open::new(
            asn,
            it.hold_time,
            it.router_id,
            vec![Capability::unicast(Family::V4)],
        )
    }
}

#[test]
fn another_as_than_configured() {
    refused(with_asn(PEER_ASN + 1), 2);
}

#[test]
fn as_0() {
    refused(with_asn(0), 2);
    // Not even if somebody configured it.
    let mut settings = settings();
    settings.remote_asn = 0;
    let mut bench = Bench::new(settings);
    bench.act(|it, now, out| it.start(now, out));
    let (conn, _) = bench.accepted().unwrap();
    let mut open = open(7);
    with_asn(0)(&mut open);
    let actions = bench.bytes(conn, &open.encode());
    ends_with(&actions, conn, State::OpenSent, 2, 2);
}

#[test]
fn the_capability_has_the_last_word_about_the_as() {
    refused(
        |it| {
            it.as_field = 65002;
            it.capabilities = vec![Capability::FourOctetAs(65009)];
        },
        2,
    );
    let (mut bench, conn) = Bench::open_sent();
    let mut open = open(7);
    open.as_field = 23456;
    bench.bytes(conn, &open.encode());
    assert_eq!(bench.state(), State::OpenConfirm);
}

#[test]
fn an_old_speaker_is_taken_by_its_2_octet_as() {
    let (mut bench, conn) = Bench::open_sent();
    let mut open = open(7);
    open.capabilities.clear();
    bench.bytes(conn, &open.encode());
    bench.bytes(conn, &bgpd::wire::keepalive());
    let negotiated = bench.session.negotiated().unwrap();
    assert!(!negotiated.dialect.four_octet_as);
    // RFC 4760 section 8: without the capability it speaks of IPv4.
    assert_eq!(negotiated.families, [Family::V4]);
}

#[test]
fn identifier_zero() {
    refused(|it| it.router_id = Ipv4Addr::UNSPECIFIED, 3);
}

#[test]
fn our_identifier_is_refused_inside_the_as_only() {
    let (mut bench, conn) = Bench::open_sent();
    bench.bytes(conn, &open(5).encode());
    assert_eq!(
        bench.state(),
        State::OpenConfirm,
        "RFC 6286: another AS may use it"
    );

    let mut settings = settings();
    settings.remote_asn = OWN_ASN;
    let mut bench = Bench::new(settings);
    bench.act(|it, now, out| it.start(now, out));
    let (conn, _) = bench.accepted().unwrap();
    let mut open = open(5);
    with_asn(OWN_ASN)(&mut open);
    let actions = bench.bytes(conn, &open.encode());
    ends_with(&actions, conn, State::OpenSent, 2, 3);
}

#[test]
fn identifiers_need_not_be_addresses() {
    let (mut bench, conn) = Bench::open_sent();
    let mut open = open(7);
    open.router_id = Ipv4Addr::new(224, 0, 0, 1);
    bench.bytes(conn, &open.encode());
    assert_eq!(bench.state(), State::OpenConfirm);
}

#[test]
fn hold_times_of_one_and_two_seconds() {
    refused(|it| it.hold_time = 1, 6);
    refused(|it| it.hold_time = 2, 6);
}

#[test]
fn the_smaller_hold_time_counts() {
    for (theirs, expected) in [(3, 3), (90, 90), (180, 90), (0, 0)] {
        let (mut bench, conn) = Bench::open_sent();
        let mut open = open(7);
        open.hold_time = theirs;
        bench.bytes(conn, &open.encode());
        bench.bytes(conn, &bgpd::wire::keepalive());
        assert_eq!(bench.session.negotiated().unwrap().hold_time, expected);
    }
}

#[test]
fn no_family_in_common() {
    let data = refused(
        |it| {
            it.capabilities = vec![
                Capability::unicast(Family::V6),
                Capability::FourOctetAs(PEER_ASN),
            ]
        },
        7,
    );
    assert_eq!(data, [1, 4, 0, 1, 0, 1], "the capability wanted");
}
