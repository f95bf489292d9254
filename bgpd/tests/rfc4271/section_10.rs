//! Timers and their jitter.

use bgpd::fsm::{Action, Jitter, State};
use bgpd::wire::Message;

use crate::bench::{Bench, open, sent};

#[test]
fn jitter_takes_up_to_a_quarter_and_uses_the_whole_range() {
    let mut jitter = Jitter::new(7);
    let all: Vec<u64> = (0..1_000).map(|_| jitter.shorten(1_000)).collect();
    assert!(all.iter().all(|it| (750..=1_000).contains(it)));
    assert!(all.iter().any(|it| *it < 770) && all.iter().any(|it| *it > 980));
    assert_eq!(jitter.shorten(0), 0);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let numbers = |seed| {
        let mut jitter = Jitter::new(seed);
        (0..10).map(|_| jitter.next_u64()).collect::<Vec<_>>()
    };
    assert_eq!(numbers(3), numbers(3));
    assert_ne!(numbers(3), numbers(4));
}

#[test]
fn keepalives_are_at_most_a_third_of_the_hold_time_apart() {
    let (mut bench, conn) = Bench::established();
    let mut last = bench.now;
    let mut apart = Vec::new();
    while apart.len() < 50 {
        let (_, actions) = bench.expire();
        assert_eq!(sent(&actions, conn), [Message::Keepalive]);
        apart.push(bench.now - last);
        last = bench.now;
        bench.bytes(conn, &bgpd::wire::keepalive());
    }
    assert!(
        apart.iter().all(|it| (22_500..=30_000).contains(it)),
        "{apart:?}"
    );
    assert!(apart.iter().any(|it| *it != apart[0]), "there is jitter");
}

#[test]
fn without_a_hold_time_the_peer_s_answer_is_still_waited_for_only_so_long() {
    let (mut bench, conn) = Bench::open_sent();
    let mut open = open(7);
    open.hold_time = 0;
    bench.bytes(conn, &open.encode());
    assert_eq!(bench.state(), State::OpenConfirm);
    let (waited, actions) = bench.expire();
    assert_eq!(waited, 240_000);
    assert!(actions.contains(&Action::Close(conn)), "{actions:?}");

    let (mut bench, conn) = Bench::open_sent();
    bench.bytes(conn, &[open.encode(), bgpd::wire::keepalive()].concat());
    assert_eq!(bench.state(), State::Established);
    assert_eq!(
        bench.session.next_timeout(),
        None,
        "from then on there is none"
    );
}

#[test]
fn a_hold_timer_that_is_looked_at_too_late_leaves_time_to_read_what_has_come() {
    let (mut bench, conn) = Bench::established();
    // The machine sleeps; keepalives are waiting when it wakes.
    bench.now += 95_000;
    let actions = bench.act(|it, now, out| it.tick(now, out));
    assert!(sent(&actions, conn).contains(&Message::Keepalive));
    bench.bytes(conn, &bgpd::wire::keepalive());
    assert_eq!(bench.state(), State::Established);
    // Nothing is waiting when it wakes again.
    bench.now += 95_000;
    bench.act(|it, now, out| it.tick(now, out));
    assert_eq!(bench.state(), State::Established);
    bench.now += 2_000;
    let actions = bench.act(|it, now, out| it.tick(now, out));
    assert!(actions.contains(&Action::Close(conn)), "{actions:?}");
    // One that is in time is not spared.
    let (mut bench, conn) = Bench::established();
    bench.now += 90_000;
    let actions = bench.act(|it, now, out| it.tick(now, out));
    assert!(actions.contains(&Action::Close(conn)), "{actions:?}");
}
