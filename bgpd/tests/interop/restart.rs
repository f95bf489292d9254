//! Cells of graceful restart (RFC 4724), in both roles.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::rig::{self, EXTRA, Kind, OURS, Rig, Setup, THEIRS};
use crate::support::felix::Felix;
use crate::support::wait_for;

/// The peer is killed and comes back: we keep what it told, and sweep what it does not tell again.
pub(crate) fn they_restart(kind: Kind) {
    let setup = Setup {
        graceful: true,
        extra: true,
        ..Setup::default()
    };
    let mut rig = Rig::new(kind, &setup);
    rig.established();
    for prefix in [THEIRS[0], THEIRS[1], EXTRA] {
        rig.we_see(prefix);
    }
    rig.router().kill();
    wait_for("the loss", || {
        rig.four().filter(|it| it.state != "Established")
    });
    for prefix in [THEIRS[0], THEIRS[1], EXTRA] {
        assert!(rig.we_see(prefix).best, "{prefix} is kept");
    }
    rig.router().start_again();
    wait_for("the session and its End-of-RIB", || {
        for prefix in THEIRS {
            let routes = rig::routes(&rig.socket(), prefix);
            assert_eq!(routes.len(), 1, "{prefix} was gone");
        }
        let all = rig.neighbors();
        let stale = |it: &api::v1::Neighbor| it.families.iter().any(|it| it.stale > 0);
        (rig.is_established() && !all.iter().any(stale)).then_some(())
    });
    assert!(rig::routes(&rig.socket(), EXTRA).is_empty(), "it is swept");
}

/// Says to our speaker what felix says, in its first life or after a restart through which all routes stayed.
fn felix(rig: &Rig, preserved: bool, origins: &[&str]) {
    rig::block_on(async {
        let mut felix = match preserved {
            true => Felix::connect_preserved(&rig.socket()).await,
            false => Felix::connect(&rig.socket()).await,
        };
        for origin in origins {
            felix.origin(origin).await;
        }
        felix.end_of_snapshot().await;
        felix.acked().await;
    });
}

/// We are killed and come back, twice: the peer keeps what we told, and sweeps what we do not tell again.
pub(crate) fn we_restart(kind: Kind) {
    let setup = Setup {
        graceful: true,
        speaker: "waitForFelix: true",
        ..Setup::default()
    };
    let (kept, left) = ("10.244.7.0/26", "10.244.8.0/26");
    let mut rig = Rig::new(kind, &setup);
    felix(&rig, false, &[kept, left]);
    rig.established();
    for prefix in [OURS[0], OURS[1], kept, left] {
        rig.peer_sees(prefix);
    }
    for round in 0..2 {
        rig.bgpd().kill();
        rig.start_again();
        felix(&rig, true, &[kept]);
        wait_for("the sessions", || {
            for prefix in [OURS[0], OURS[1], kept] {
                assert!(rig.peer_has(prefix), "round {round}: {prefix} was gone");
            }
            rig.is_established().then_some(())
        });
        wait_for("the peer to sweep", || {
            for prefix in [OURS[0], kept] {
                assert!(rig.peer_has(prefix), "round {round}: {prefix} was gone");
            }
            (!rig.peer_has(left)).then_some(())
        });
    }
    let said = rig.router().restarts();
    let wanted: &[&str] = match kind {
        Kind::Bird => &["Restart recovery", "AF preserved: ipv4"],
        Kind::Frr => &["R bit: True", "F bit: True"],
        // It waits five seconds before it takes a connection again: our start is over by then.
        Kind::Gobgp => &["forward flag set"],
        Kind::Openbgpd => &["preserved"],
    };
    for word in wanted {
        assert!(said.contains(word), "{word}: {said}");
    }
}

/// We are ended and started again, as by an upgrade, while BFD watches the sessions: the peer keeps what we told.
pub(crate) fn planned_restart(kind: Kind) {
    let setup = Setup {
        graceful: true,
        bfd: true,
        speaker: "waitForFelix: true",
        ..Setup::default()
    };
    let mut rig = Rig::new(kind, &setup);
    felix(&rig, false, &[]);
    for round in 0..2 {
        rig.established();
        wait_for("BFD", || {
            let all = rig.neighbors();
            all.iter().all(|it| it.bfd == "Up").then_some(())
        });
        for prefix in OURS {
            rig.peer_sees(prefix);
        }
        rig.bgpd().signal(Signal::SIGTERM);
        assert_eq!(rig.bgpd().wait_exit(), Some(0));
        // As long as an upgrade takes, or longer than the peer's BFD takes to notice.
        let away = Instant::now() + Duration::from_secs(2);
        let kept = |when: &str| {
            for prefix in OURS {
                assert!(
                    rig.peer_has(prefix),
                    "round {round}: {prefix} was gone {when}"
                );
            }
        };
        while Instant::now() < away {
            kept("while we were away");
        }
        rig.start_again();
        felix(&rig, true, &[]);
        let until = Instant::now() + Duration::from_secs(1);
        wait_for("the sessions", || {
            for prefix in OURS {
                assert!(rig.peer_has(prefix), "round {round}: {prefix} was gone");
            }
            (rig.is_established() && Instant::now() > until).then_some(())
        });
    }
}
