//! Peers that cannot take what an OPEN offers.

use bgpd::config::Config;
use bgpd::speaker::{ConnId, Input, Output, TcpEvent};
use bgpd::wire::notification::OpenError;
use bgpd::wire::{Capability, Notification, Open};
use crds::net::Family;

use crate::bench::{Bench, with_peers};
use crate::peers::{info, opened, pass};

/// The next connection that the speaker makes, and its OPEN.
fn next(bench: &mut Bench) -> (ConnId, Open) {
    let from = bench.outputs.len();
    pass(bench, 60_000, &[]);
    let all: Vec<&Output> = bench.outputs[from.saturating_sub(1)..]
        .iter()
        .flatten()
        .collect();
    let conn = all.iter().find_map(|it| match it {
        Output::Connect { conn, .. } => Some(*conn),
        _ => None,
    });
    (conn.unwrap(), connected(bench, conn.unwrap()))
}

fn connected(bench: &mut Bench, conn: ConnId) -> Open {
    let end = |host: u8| ([192, 0, 2, host], 179).into();
    let connected = TcpEvent::Connected {
        local: end(1),
        remote: end(2),
    };
    let outputs = bench.input(Input::Tcp(conn, connected));
    opened(&outputs, conn)
}

fn active(edit: impl FnOnce(&mut Config)) -> (Bench, ConnId, Open) {
    let mut config = with_peers(1);
    config.peers[0].passive = false;
    // Only one attempt within the time that tests let pass.
    config.peers[0].timers.connect = 10_000_000;
    edit(&mut config);
    let mut bench = Bench::started(config);
    let conn = bench.outputs.iter().flatten().find_map(|it| match it {
        Output::Connect { conn, .. } => Some(*conn),
        _ => None,
    });
    let open = connected(&mut bench, conn.unwrap());
    (bench, conn.unwrap(), open)
}

fn needed(open: &Open) -> bool {
    let is_needed = |it: &Capability| {
        matches!(
            it,
            Capability::MultiProtocol { .. } | Capability::FourOctetAs(_)
        )
    };
    open.capabilities.iter().all(is_needed)
}

#[test]
fn a_refused_open_is_followed_by_one_that_offers_less() {
    for error in [
        OpenError::UnsupportedParameter,
        OpenError::UnsupportedCapability,
    ] {
        let (mut bench, conn, open) = active(|_| ());
        assert!(!needed(&open));
        let refusal = Notification::open(error, &[]).encode();
        bench.bytes(conn, &refusal);
        let (conn, open) = next(&mut bench);
        assert!(needed(&open) && open.capabilities.len() == 3, "{open:?}");
        bench.bytes(conn, &refusal);
        let (conn, open) = next(&mut bench);
        assert_eq!(open.capabilities, []);
        // With that both sides speak of IPv4 only.
        let theirs = Open {
            capabilities: Vec::new(),
            ..Open::new(65002, 90, [10, 0, 0, 2].into(), Vec::new())
        };
        bench.bytes(conn, &theirs.encode());
        bench.bytes(conn, &bgpd::wire::keepalive());
        let info = info(&bench, 2);
        let spoken = info.families.iter().filter(|it| it.negotiated);
        assert_eq!(spoken.map(|it| it.family).collect::<Vec<_>>(), [Family::V4]);
        bench.input(Input::Tcp(
            conn,
            TcpEvent::Closed {
                reason: String::new(),
            },
        ));
        let (_, open) = next(&mut bench);
        assert!(!needed(&open), "the peer may be another one now");
    }
}

#[test]
fn what_routes_cannot_do_without_is_always_offered() {
    for edit in [
        (|it| it.peers[0].families = vec![Family::V6]) as fn(&mut Config),
        |it| it.asn = 400_000,
    ] {
        let (mut bench, mut conn, _) = active(edit);
        for _ in 0..3 {
            let refusal = Notification::open(OpenError::UnsupportedParameter, &[]);
            bench.bytes(conn, &refusal.encode());
            let open;
            (conn, open) = next(&mut bench);
            assert!(needed(&open) && !open.capabilities.is_empty());
        }
    }
}

#[test]
fn another_error_takes_nothing_back() {
    let (mut bench, conn, _) = active(|_| ());
    bench.bytes(
        conn,
        &Notification::open(OpenError::BadPeerAs, &[]).encode(),
    );
    let (_, open) = next(&mut bench);
    assert!(!needed(&open));
}

#[test]
fn refusals_are_answered_ever_more_slowly() {
    let (mut bench, mut conn, _) = active(|it| it.peers[0].timers.retry_max = 15_000);
    let started = bench.now;
    let mut attempts = 0;
    while bench.now < started + 120_000 {
        let refusal = Notification::open(OpenError::UnsupportedCapability, &[]).encode();
        bench.bytes(conn, &refusal);
        let due = bench.speaker.next_timeout().unwrap();
        bench.now = due;
        let outputs = bench.input(Input::Tick);
        if let Some(Output::Connect { conn: again, .. }) = outputs.first() {
            conn = *again;
            connected(&mut bench, conn);
            attempts += 1;
        }
    }
    assert!((8..20).contains(&attempts), "{attempts} in two minutes");
}
