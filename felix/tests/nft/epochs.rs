//! What a new epoch does to connections that live: once, and through all its numbers several times.

use crate::net;
use crate::policed::{FROM_R, Policed, address, enforce};
use felix::policy::tables::{Direction, Subject};

#[test]
fn a_bump_ends_what_is_forbidden_now_and_nothing_else() {
    let policed = Policed::new();
    for (r, a) in [("10.9.0.2", "10.1.0.1"), ("fd00:9::2", "fd00:1::1")] {
        let mut doomed = policed.network.connect("r", address(a), 8080);
        let mut spared = policed.network.connect("b", address(a), 8080);
        let mut outbound = policed.network.connect("a", address(r), 8080);
        for stream in [&mut doomed, &mut spared, &mut outbound] {
            net::echo(stream).expect("the connection lives");
        }

        // Without a bump, connections outlive the change; with it, they do not.
        let mut want = policed.tables.clone();
        want.pairs
            .remove(&(Direction::Ingress, Subject::new(7, false, true), FROM_R));
        enforce(&policed.kernel, &policed.tables, &want, false);
        net::echo(&mut doomed).expect("nobody judged it again");
        let epoch = policed.kernel.with(|nft| nft.epoch());
        policed.kernel.with(|nft| nft.bump().expect("bump"));
        assert_eq!(policed.kernel.with(|nft| nft.epoch()), epoch.next());

        let error = net::echo(&mut doomed).expect_err("forbidden");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        for _ in 0..3 {
            net::echo(&mut spared).expect("still allowed");
            net::echo(&mut outbound).expect("still allowed");
        }
        assert!(
            policed
                .kernel
                .with(|nft| nft.counters().expect("counters"))
                .reset
                > 0
        );
        enforce(&policed.kernel, &want, &policed.tables, false);
    }
}

/// Three whole cycles. A number comes round that connections of an earlier cycle were stamped with: one that nobody heard
/// of since and is forbidden meanwhile must not pass, those that are allowed must, whether they spoke in between or not.
#[test]
fn cycles_of_epochs_spare_no_old_connection_and_cost_no_allowed_one() {
    let policed = Policed::new();
    let (r, a) = (address("10.9.0.2"), address("10.1.0.1"));
    let mut talking = policed.network.connect("b", a, 8080);
    let mut idle = policed.network.connect("a", r, 8080);
    let without = {
        let mut tables = policed.tables.clone();
        tables
            .pairs
            .remove(&(Direction::Ingress, Subject::new(7, false, true), FROM_R));
        tables
    };
    let start = policed.kernel.with(|nft| nft.epoch().number());
    for cycle in 0..3_u8 {
        // Stamped with another number each time, in both halves.
        let stamped = start.wrapping_add(100 * cycle).max(1);
        let bump = || policed.kernel.with(|nft| nft.bump().expect("bump"));
        while policed.kernel.with(|nft| nft.epoch().number()) != stamped {
            bump();
        }
        let mut doomed = policed.network.connect("r", a, 8080);
        net::echo(&mut doomed).expect("the connection lives");
        enforce(&policed.kernel, &policed.tables, &without, true);
        let mut bumps = 1;
        while policed.kernel.with(|nft| nft.epoch().number()) != stamped {
            bump();
            bumps += 1;
            if bumps % 50 == 0 {
                net::echo(&mut talking).expect("allowed all the time");
            }
        }
        assert_eq!(bumps, 255);
        net::echo(&mut doomed).expect_err("its number is in force again, its permission is not");
        enforce(&policed.kernel, &without, &policed.tables, true);
        net::echo(&mut talking).expect("allowed all the time");
    }
    net::echo(&mut idle).expect("idle through three cycles, and allowed");
}
