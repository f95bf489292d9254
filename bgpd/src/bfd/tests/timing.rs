//! Intervals, jitter, slow start, poll sequences, demand.

use super::*;

/// Within a permille.
fn about(value: Micros, low: Micros, high: Micros) -> bool {
    (low..=high).contains(&value)
}

#[test]
fn nothing_is_sent_more_often_than_once_in_a_second_before_it_is_up() {
    let mut pair = Pair::new();
    pair.start(0, settings(0, 50_000, 50_000, 3));
    pair.run(60 * SECOND);
    let gaps = pair.gaps(0);
    assert!(gaps.len() >= 59);
    assert!(
        gaps.iter().all(|gap| about(*gap, 750_000, SECOND)),
        "{gaps:?}"
    );
    assert!(
        pair.packets[0]
            .iter()
            .all(|(_, it)| it.desired_min_tx == 1_000_000 && it.your_discriminator == 0)
    );
}

#[test]
fn packets_are_spread_over_a_quarter_of_the_interval() {
    for (multiplier, low, high) in [(3, 75_000, 100_000), (1, 75_000, 90_000)] {
        let mut pair = Pair::up(100_000, multiplier);
        pair.forget();
        pair.run(100 * SECOND);
        let gaps = pair.gaps(0);
        assert!(gaps.iter().all(|gap| about(*gap, low, high)), "{gaps:?}");
        let span = gaps.iter().max().unwrap() - gaps.iter().min().unwrap();
        assert!(span > (high - low) * 9 / 10, "all of it is used: {span} µs");
        assert!(pair.events.concat().is_empty(), "no false alarm");
    }
}

#[test]
fn each_side_sends_as_slowly_as_the_other_one_wants() {
    let mut pair = Pair::new();
    pair.start(0, settings(0, 50_000, 400_000, 3));
    pair.start(1, settings(1, 100_000, 200_000, 5));
    pair.run(5 * SECOND);
    assert_eq!(pair.states(), [State::Up; 2]);
    let (a, b) = (pair.info(0), pair.info(1));
    assert_eq!(
        (a.transmit_interval, a.detection_time),
        (200_000, 5 * 400_000)
    );
    assert_eq!(
        (b.transmit_interval, b.detection_time),
        (400_000, 3 * 200_000)
    );
    pair.forget();
    pair.run(20 * SECOND);
    assert!(pair.gaps(0).iter().all(|gap| about(*gap, 150_000, 200_000)));
    assert!(pair.gaps(1).iter().all(|gap| about(*gap, 300_000, 400_000)));
}

#[test]
fn the_fast_intervals_are_told_with_a_poll_when_it_is_up() {
    let pair = Pair::up(100_000, 3);
    for host in [0, 1] {
        let mut up = pair.packets[host]
            .iter()
            .filter(|(_, it)| it.state == State::Up && !it.is_final);
        let (_, first) = up.next().unwrap();
        assert!(first.poll && first.desired_min_tx == 100_000);
        assert!(!up.next_back().unwrap().1.poll, "the poll was answered");
        assert!(pair.packets[1 - host].iter().any(|(_, it)| it.is_final));
    }
}

#[test]
fn slower_packets_wait_until_the_peer_knows() {
    let mut pair = Pair::up(100_000, 3);
    pair.forget();
    // The answer does not come for a while.
    pair.passes = Box::new(|host| host == 0);
    pair.start(0, settings(0, 500_000, 500_000, 3));
    pair.run(250_000);
    let (_, told) = pair.packets[0][0];
    assert!(told.poll);
    assert_eq!(
        (told.desired_min_tx, told.required_min_rx),
        (500_000, 500_000)
    );
    assert_eq!(pair.info(0).transmit_interval, 100_000);
    assert!(pair.packets[0].len() >= 3 && pair.packets[0].iter().all(|(_, it)| it.poll));
    // What it can take less often is counted at once: the peer may already heed it.
    assert_eq!(pair.info(0).detection_time, 3 * 500_000);
    pair.passes = Box::new(|_| true);
    pair.run(SECOND);
    assert_eq!(pair.info(0).transmit_interval, 500_000);
    assert_eq!(pair.info(1).detection_time, 3 * 500_000);
    pair.run(60 * SECOND);
    assert!(pair.events.concat().is_empty(), "no false alarm");
    assert!(!pair.packets[0].last().unwrap().1.poll);
}

#[test]
fn a_shorter_detection_waits_until_the_peer_knows() {
    let mut pair = Pair::new();
    pair.start(0, settings(0, 500_000, 500_000, 3));
    pair.start(1, settings(1, 100_000, 100_000, 3));
    pair.run(5 * SECOND);
    pair.forget();
    pair.passes = Box::new(|host| host == 1);
    pair.start(0, settings(0, 500_000, 100_000, 3));
    pair.run(400_000);
    assert_eq!(pair.info(0).detection_time, 3 * 500_000);
    pair.passes = Box::new(|_| true);
    pair.run(2 * SECOND);
    assert_eq!(pair.info(0).detection_time, 3 * 100_000);
    pair.run(60 * SECOND);
    assert!(pair.events.concat().is_empty(), "no false alarm");
}

#[test]
fn a_change_during_a_poll_is_polled_for_again() {
    let mut pair = Pair::up(100_000, 3);
    pair.forget();
    pair.delay = 30_000;
    pair.start(0, settings(0, 400_000, 100_000, 3));
    pair.run(40_000);
    // The first answer is under way, to values that are not the last ones.
    pair.start(0, settings(0, 800_000, 100_000, 3));
    pair.run(25_000);
    assert_eq!(pair.info(0).transmit_interval, 100_000);
    pair.run(3 * SECOND);
    assert_eq!(pair.info(0).transmit_interval, 800_000);
    pair.run(60 * SECOND);
    assert!(pair.events.concat().is_empty(), "no false alarm");
}

#[test]
fn another_multiplier_is_told_at_once() {
    let mut pair = Pair::up(100_000, 3);
    pair.forget();
    pair.start(0, settings(0, 100_000, 100_000, 10));
    assert_eq!(pair.packets[0].len(), 1);
    pair.run(1000);
    assert_eq!(pair.info(1).detection_time, 10 * 100_000);
}

/// What a peer of host 0 says, made from what host 0 knows of it.
fn say(pair: &mut Pair, edit: impl FnOnce(&mut Packet)) {
    let info = pair.info(0);
    let mut packet = Packet {
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
    edit(&mut packet);
    let received = Pair::received(0, packet.encode());
    pair.input(0, Input::Packet(received));
}

#[test]
fn a_peer_that_demands_silence_gets_it_and_its_polls_answered() {
    let mut pair = Pair::up(100_000, 3);
    pair.hosts[1] = Monitor::new(3);
    pair.forget();
    for _ in 0..100 {
        say(&mut pair, |it| it.demand = true);
        pair.run(100_000);
    }
    assert!(pair.packets[0].is_empty());
    say(&mut pair, |it| (it.demand, it.poll) = (true, true));
    assert!(matches!(pair.packets[0][..], [(_, answer)] if answer.is_final && !answer.poll));
    // Own polls are sent all the same (section 6.6).
    pair.forget();
    pair.start(0, settings(0, 200_000, 100_000, 3));
    say(&mut pair, |it| it.demand = true);
    pair.run(250_000);
    assert!(pair.packets[0].len() >= 2 && pair.packets[0].iter().all(|(_, it)| it.poll));
    say(&mut pair, |it| (it.demand, it.is_final) = (true, true));
    pair.forget();
    pair.run(100_000);
    say(&mut pair, |it| it.demand = true);
    pair.run(100_000);
    assert!(pair.packets[0].is_empty());
    // Silence of the peer itself is a failure as ever.
    pair.run(SECOND);
    assert!(matches!(pair.events[0][..], [(_, Event::Down { .. })]));
}

#[test]
fn a_peer_that_wants_no_packets_gets_none() {
    let mut pair = Pair::up(100_000, 3);
    pair.hosts[1] = Monitor::new(3);
    say(&mut pair, |it| it.required_min_rx = 0);
    pair.forget();
    for _ in 0..20 {
        pair.run(100_000);
        say(&mut pair, |it| it.required_min_rx = 0);
    }
    assert!(pair.packets[0].is_empty());
    say(&mut pair, |_| ());
    pair.run(200_000);
    assert!(pair.packets[0].len() >= 2);
}

#[test]
fn a_poll_is_answered_without_waiting_and_without_changing_the_rhythm() {
    let mut pair = Pair::up(100_000, 3);
    pair.forget();
    for _ in 0..50 {
        pair.run(10_000);
        let before = pair.packets[0].len();
        say(&mut pair, |it| it.poll = true);
        let (_, answer) = pair.packets[0][before];
        assert!(answer.is_final && !answer.poll);
    }
    assert!(pair.gaps(0).iter().all(|gap| about(*gap, 75_000, 100_000)));
}

#[test]
fn the_peers_c_bit_is_passed_on() {
    let mut pair = Pair::up(100_000, 3);
    pair.hosts[1] = Monitor::new(3);
    pair.forget();
    say(&mut pair, |it| it.independent = true);
    pair.run(SECOND);
    assert!(matches!(
        pair.events[0][..],
        [(
            _,
            Event::Down {
                independent: true,
                ..
            }
        )]
    ));
}
