//! `margay-bgpd` with other people's speakers, in network namespaces: a table of peers and features, each cell a test.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod bird;
mod frr;
mod gobgp;
mod openbgpd;
mod paths;
mod restart;
mod rig;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use paths::{add_path_receive, add_path_send, they_reflect, we_reflect};
use restart::{planned_restart, they_restart, we_restart};
use rig::{Rig, Setup};
use support::wait_for;

/// Routes in both families and both directions, with AS numbers of four octets.
fn routes(kind: rig::Kind) {
    let rig = Rig::new(kind, &Setup::default());
    rig.established();
    for prefix in rig::OURS {
        let seen = rig.peer_sees(prefix);
        assert_eq!(seen.as_path, [rig::OUR_AS], "{prefix}");
    }
    for prefix in rig::THEIRS {
        let route = rig.we_see(prefix);
        assert_eq!(route.as_path, [rig::THEIR_AS], "{prefix}");
        assert!(route.best, "{route:?}");
    }
}

/// Standard and large communities in both directions.
fn communities(kind: rig::Kind) {
    let setup = Setup {
        speaker: "
communities: [{name: pods, value: '65010:300'}]
prefixAdvertisements:
- {cidr: 10.244.0.0/16, communities: [pods, '4200000001:1:2']}",
        ..Setup::default()
    };
    let rig = Rig::new(kind, &setup);
    rig.established();
    let seen = rig.peer_sees(rig::OURS[0]);
    let wanted: BTreeSet<String> = ["65010:300", "4200000001:1:2"].map(str::to_owned).into();
    assert_eq!(seen.communities, wanted);
    let route = rig.we_see(rig::THEIRS[0]);
    let told: BTreeSet<String> = route.communities.into_iter().collect();
    assert_eq!(told, ["64601:7", "64601:8:9"].map(str::to_owned).into());
}

/// Sessions with keys of TCP MD5.
fn md5(kind: rig::Kind) {
    let setup = Setup {
        password: Some("not-a-secret"),
        peer: ", password: {value: not-a-secret}",
        ..Setup::default()
    };
    let rig = Rig::new(kind, &setup);
    rig.established();
    rig.peer_sees(rig::OURS[0]);
}

/// Packets that leave and have to come with the greatest TTL.
fn gtsm(kind: rig::Kind) {
    let setup = Setup {
        gtsm: true,
        peer: ", ttlSecurity: 1",
        ..Setup::default()
    };
    let rig = Rig::new(kind, &setup);
    rig.established();
    rig.peer_sees(rig::OURS[0]);
}

/// The peer asks for everything again, and the session goes on.
fn refresh(kind: rig::Kind) {
    let mut rig = Rig::new(kind, &Setup::default());
    rig.established();
    rig.peer_sees(rig::OURS[0]);
    let sent = |rig: &Rig| -> u64 { rig.neighbors().iter().map(|it| it.messages_sent).sum() };
    let before = sent(&rig);
    rig.router().ask_again();
    // An UPDATE and an end, or just the UPDATE, to each of its addresses.
    wait_for("the routes to be sent again", || {
        (sent(&rig) >= before + 2).then_some(())
    });
    assert!(rig.neighbors().iter().all(|it| it.established_count == 1));
    rig.peer_sees(rig::OURS[0]);
}

/// It announces more prefixes than it may: that is said; then the session is torn down, and tried again later.
fn max_prefix(kind: rig::Kind) {
    let setup = Setup {
        extra: true,
        peer: ", maxPrefixes: {ipv4: 1}",
        ..Setup::default()
    };
    let mut rig = Rig::new(kind, &setup);
    rig.established();
    rig.we_see(rig::EXTRA);
    wait_for("a warning", || {
        let log = rig.bgpd().log();
        log.contains("more prefixes than the peer may announce")
            .then_some(())
    });
    assert_eq!(rig.four().unwrap().established_count, 1);
    rig.configure(
        "maxPrefixes: {ipv4: 1}",
        "maxPrefixes: {ipv4: 1, action: TearDown, restartAfter: 1s}",
    );
    let four = wait_for("the session to be torn down, twice", || {
        rig.four()
            .filter(|it| it.established_count >= 2 && it.state != "Established")
    });
    assert!(four.last_error.contains("(6/1)"), "{}", four.last_error);
    assert!(rig::routes(&rig.socket(), rig::EXTRA).is_empty());
    // The other session has nothing to do with it.
    let six = rig.neighbors().into_iter().find(|it| it.name == "six");
    assert_eq!(six.unwrap().established_count, 1);
}

/// IPv4 routes over a link without IPv4 addresses, with IPv6 next hops.
fn extended_next_hop(kind: rig::Kind) {
    let setup = Setup {
        only_six: true,
        ..Setup::default()
    };
    let rig = Rig::new(kind, &setup);
    rig.established();
    let seen = rig.peer_sees(rig::OURS[0]);
    assert!(seen.next_hop.contains(':'), "{seen:?}");
    rig.peer_sees(rig::OURS[1]);
    for prefix in rig::THEIRS {
        let route = rig.we_see(prefix);
        assert!(route.next_hop.contains(':') && route.best, "{route:?}");
    }
}

macro_rules! table {
    ($($peer:ident $kind:ident: $($feature:ident)+;)+) => {
        $(mod $peer {
            mod cells {
                $(#[test]
                fn $feature() {
                    crate::$feature(crate::rig::Kind::$kind);
                })+
            }
        })+
    };
}

mod table {
    table! {
        bird Bird: routes communities md5 gtsm refresh max_prefix extended_next_hop they_restart we_restart planned_restart
            we_reflect they_reflect add_path_receive add_path_send;
        frr Frr: routes communities md5 gtsm refresh max_prefix extended_next_hop they_restart we_restart planned_restart
            we_reflect they_reflect add_path_receive add_path_send;
        gobgp Gobgp: routes communities md5 gtsm refresh max_prefix extended_next_hop they_restart we_restart
            we_reflect they_reflect add_path_receive add_path_send;
        openbgpd Openbgpd: routes communities md5 gtsm refresh max_prefix we_restart
            we_reflect they_reflect add_path_receive add_path_send;
    }
}
