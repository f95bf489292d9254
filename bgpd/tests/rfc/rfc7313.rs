//! Enhanced route refresh.

use bgpd::speaker::{Input, Output, SEND_WINDOW, StaleStage, TcpEvent};
use bgpd::wire::refresh::{BEGIN, END, REQUEST};
use bgpd::wire::{Capability, Message, RouteRefresh};
use crds::net::{Cidr, Family};

use crate::bench::{Bench, announced, best, with_peers};
use crate::peers::{
    announce, counts, end_of_rib, info, join, messages, notification, pass, refreshes, restarting,
    routes, with,
};
use crate::sim::{cidr, origin};

fn capabilities() -> Vec<Capability> {
    with([Capability::RouteRefresh, Capability::EnhancedRefresh])
}

fn mark(subtype: u8) -> Vec<u8> {
    RouteRefresh::unicast(Family::V4, subtype).encode().to_vec()
}

fn prefixes() -> [Cidr; 3] {
    ["10.2.0.0/26", "10.2.1.0/26", "10.2.2.0/26"].map(cidr)
}

fn started() -> Bench {
    let mut config = with_peers(1);
    config.origins = vec![origin("10.1.0.0/26"), origin("10.1.1.0/26")];
    Bench::started(config)
}

#[test]
fn a_refresh_is_sent_between_its_marks() {
    let mut bench = started();
    bench.input(Input::OriginsComplete);
    let (conn, _) = join(&mut bench, 2, 0, &capabilities());
    let outputs = bench.bytes(conn, &mark(REQUEST));
    let sent = messages(&outputs, conn);
    let subtypes: Vec<u8> = refreshes(&outputs, conn)
        .iter()
        .map(|it| it.subtype)
        .collect();
    assert_eq!(subtypes, [BEGIN, END]);
    assert!(matches!(sent[0], Message::RouteRefresh(_)), "{sent:?}");
    assert!(
        matches!(sent[sent.len() - 1], Message::RouteRefresh(_)),
        "{sent:?}"
    );
    assert_eq!(announced(&outputs, conn).len(), 2);
    assert_eq!(info(&bench, 2).sent.refresh, 2);
}

#[test]
fn a_peer_that_knows_no_marks_gets_none() {
    let mut bench = started();
    bench.input(Input::OriginsComplete);
    let (conn, _) = join(&mut bench, 2, 0, &with([Capability::RouteRefresh]));
    let outputs = bench.bytes(conn, &mark(REQUEST));
    assert!(refreshes(&outputs, conn).is_empty());
    assert_eq!(announced(&outputs, conn).len(), 2);
}

#[test]
fn a_refresh_asked_for_before_end_of_rib_comes_after_it() {
    let mut bench = started();
    let (conn, _) = join(&mut bench, 2, 0, &capabilities());
    assert_eq!(messages(&bench.bytes(conn, &mark(REQUEST)), conn), []);
    let outputs = bench.input(Input::OriginsComplete);
    let sent = messages(&outputs, conn);
    let end = |it: &Message| matches!(it, Message::Update(it) if it.end_of_rib.is_some());
    let begin = |it: &Message| matches!(it, Message::RouteRefresh(it) if it.subtype == BEGIN);
    let at = sent.iter().position(end).unwrap();
    assert!(sent.iter().position(begin).unwrap() > at, "{sent:?}");
}

#[test]
fn what_a_refresh_does_not_repeat_goes_with_its_end() {
    let mut bench = started();
    let (conn, _) = join(&mut bench, 2, 0, &capabilities());
    announce(&mut bench, 2, conn, &prefixes());
    let outputs = bench.bytes(conn, &mark(BEGIN));
    assert!(best(&outputs).is_empty());
    let stage = counts(&bench, 2, Family::V4).stale_stage;
    assert_eq!(stage, Some(StaleStage::Refreshing));
    announce(&mut bench, 2, conn, &prefixes()[1..]);
    assert_eq!(routes(&bench, 2), (3, 1));
    let outputs = bench.bytes(conn, &mark(END));
    assert_eq!(best(&outputs), [(prefixes()[0], vec![])]);
    assert_eq!(routes(&bench, 2), (2, 0));
    // An end without a begin, and a second begin, mean no harm.
    assert_eq!(best(&bench.bytes(conn, &mark(END))), []);
    bench.bytes(conn, &mark(BEGIN));
    bench.bytes(conn, &mark(BEGIN));
    assert_eq!(best(&bench.bytes(conn, &mark(END))).len(), 2);
}

#[test]
fn a_refresh_that_never_ends_has_the_stale_time() {
    let mut bench = started();
    let (conn, _) = join(&mut bench, 2, 0, &capabilities());
    announce(&mut bench, 2, conn, &prefixes());
    bench.bytes(conn, &mark(BEGIN));
    assert!(best(&pass(&mut bench, 299_000, &[conn])).is_empty());
    assert_eq!(best(&pass(&mut bench, 1_000, &[conn])).len(), 3);
}

#[test]
fn marks_before_end_of_rib_or_without_the_capability_mean_nothing() {
    let mut bench = started();
    let mut all = restarting(&[Family::V4], true);
    all.extend([Capability::RouteRefresh, Capability::EnhancedRefresh]);
    let (conn, _) = join(&mut bench, 2, 0, &all);
    announce(&mut bench, 2, conn, &prefixes());
    bench.bytes(conn, &mark(BEGIN));
    assert_eq!(routes(&bench, 2), (3, 0));
    end_of_rib(&mut bench, conn, Family::V4);
    bench.bytes(conn, &mark(BEGIN));
    assert_eq!(routes(&bench, 2), (3, 3));

    let mut bench = started();
    let (conn, _) = join(&mut bench, 2, 0, &with([Capability::RouteRefresh]));
    announce(&mut bench, 2, conn, &prefixes());
    bench.bytes(conn, &mark(BEGIN));
    assert_eq!(routes(&bench, 2), (3, 0));
}

#[test]
fn unknown_subtypes_and_families_are_ignored() {
    let mut bench = started();
    let (conn, _) = join(&mut bench, 2, 0, &capabilities());
    for message in [mark(3), mark(255)] {
        assert_eq!(bench.bytes(conn, &message), []);
    }
    let other = RouteRefresh {
        afi: 25,
        subtype: BEGIN,
        safi: 70,
    };
    assert_eq!(bench.bytes(conn, &other.encode()), []);
}

#[test]
fn a_mark_of_a_wrong_length_ends_the_session_with_the_message_as_data() {
    let mut bench = started();
    let (conn, _) = join(&mut bench, 2, 0, &capabilities());
    let mut bad = mark(BEGIN);
    bad.push(0);
    bad[17] += 1;
    let outputs = bench.bytes(conn, &bad);
    let sent = notification(&outputs, conn).unwrap();
    assert_eq!((sent.code, sent.subcode, sent.data), (7, 1, bad));
    assert!(outputs.contains(&Output::Close(conn)));
}

#[test]
fn a_flood_of_requests_costs_two_answers() {
    for capabilities in [capabilities(), with([Capability::RouteRefresh])] {
        let mut bench = started();
        bench.input(Input::OriginsComplete);
        let (conn, _) = join(&mut bench, 2, 0, &capabilities);
        let outputs = bench.bytes(conn, &mark(REQUEST).repeat(10_000));
        assert_eq!(announced(&outputs, conn).len(), 4);
        assert!(messages(&outputs, conn).len() <= 6);
        // The next one is heard again.
        let outputs = bench.bytes(conn, &mark(REQUEST));
        assert_eq!(announced(&outputs, conn).len(), 2);
    }
}

#[test]
fn a_peer_that_asks_and_does_not_read_is_owed_a_bounded_number_of_bytes() {
    let mut bench = started();
    bench.input(Input::OriginsComplete);
    let (conn, _) = join(&mut bench, 2, 0, &capabilities());
    bench.report_sent = false;
    let mut owed = 0;
    for _ in 0..20_000 {
        let outputs = bench.speaker.handle(
            Input::Tcp(conn, TcpEvent::Bytes(mark(REQUEST).into())),
            bench.now,
        );
        for output in outputs {
            if let Output::Send(_, bytes) = output {
                owed += bytes.len();
            }
        }
    }
    assert!(owed <= SEND_WINDOW + 4096, "{owed}");
    // What was asked for last is answered once there is room.
    let sent = Input::Tcp(conn, TcpEvent::Sent(owed));
    let outputs = bench.input(sent);
    assert_eq!(announced(&outputs, conn).len(), 2);
    let subtypes: Vec<u8> = refreshes(&outputs, conn)
        .iter()
        .map(|it| it.subtype)
        .collect();
    assert_eq!(subtypes, [BEGIN, END]);
}
