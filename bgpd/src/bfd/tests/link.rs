//! Two sides and any link between them.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A link's life: for how long (milliseconds) which part of the packets is lost each way (percent).
fn weather() -> impl Strategy<Value = Vec<(u64, [u8; 2])>> {
    let loss = prop_oneof![Just(0), Just(100), 0..100_u8];
    vec((50..5000_u64, [loss.clone(), loss]), 1..6)
}

prop_compose! {
    fn sides()(of in [(10..1500_u32, 10..1500_u32, 1..10_u8), (10..1500_u32, 10..1500_u32, 1..10_u8)]) -> [Settings; 2] {
        [0, 1].map(|host| {
            let (transmit, receive, multiplier) = of[host];
            settings(host, transmit * 1000, receive * 1000, multiplier)
        })
    }
}

fn longest(sides: &[Settings; 2]) -> Micros {
    let each = sides.each_ref();
    let interval = each.map(|it| it.transmit.max(it.receive)).into_iter().max();
    let multiplier = each.map(|it| it.multiplier).into_iter().max();
    // The slow start's interval counts until the peer is known to use another.
    Micros::from(interval.unwrap().max(1_000_000)) * Micros::from(multiplier.unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_lost_it_comes_up_and_stays_up(sides in sides(), weather in weather(), delay in 0..4000_u64, seed: u64) {
        let mut pair = Pair::new();
        pair.delay = delay;
        for host in [0, 1] {
            pair.start(host, sides[host].clone());
        }
        let mut chance = crate::fsm::Jitter::new(seed);
        for (time, loss) in weather {
            let mut luck = chance.clone();
            chance.next_u64();
            pair.passes = Box::new(move |host| luck.next_u64() % 100 >= u64::from(loss[host]));
            pair.run(time * 1000);
        }
        pair.passes = Box::new(|_| true);
        pair.run(longest(&sides) + 6 * SECOND);
        prop_assert_eq!(pair.states(), [State::Up; 2]);

        // A multiplier of 1 leaves a tenth of the interval for delay and must be given it.
        let tight = sides.iter().any(|it| it.multiplier == 1 && u64::from(it.transmit) / 10 <= 2 * delay);
        pair.forget();
        pair.run(20 * SECOND);
        if !tight {
            prop_assert!(pair.events.concat().is_empty(), "no false alarm: {:?}", pair.events);
        }
    }

    #[test]
    fn silence_is_never_missed(sides in sides(), delay in 0..4000_u64) {
        let mut pair = Pair::new();
        pair.delay = delay;
        for host in [0, 1] {
            pair.start(host, sides[host].clone());
        }
        pair.run(longest(&sides) + 6 * SECOND);
        pair.passes = Box::new(|_| false);
        let detection = [0, 1].map(|host| pair.info(host).detection_time);
        pair.forget();
        let cut = pair.now;
        pair.run(detection[0].max(detection[1]) + delay);
        for host in [0, 1] {
            let (at, event) = pair.events[host][0];
            prop_assert!(at <= cut + detection[host] + delay, "{} µs", at - cut);
            prop_assert!(matches!(event, Event::Down { .. }), "{:?}", event);
        }
    }

    #[test]
    fn one_seed_one_run(sides in sides(), weather in weather()) {
        let run = || {
            let mut pair = Pair::new();
            for host in [0, 1] {
                pair.start(host, sides[host].clone());
            }
            for (time, loss) in &weather {
                let (loss, mut luck) = (*loss, crate::fsm::Jitter::new(5));
                pair.passes = Box::new(move |host| luck.next_u64() % 100 >= u64::from(loss[host]));
                pair.run(time * 1000);
            }
            (pair.packets, pair.events)
        };
        prop_assert_eq!(run(), run());
    }
}
