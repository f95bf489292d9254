//! Cells with a third speaker: reflection (RFC 4456) and several paths (RFC 7911).

use std::collections::BTreeSet;

use crate::rig::{self, CLUSTER, Center, Kind, OUR_AS, Rig, Setup, THIRD, Third};
use crate::support::wait_for;

/// What the third speaker originates where that is nobody else's.
const ITS: &str = "10.244.2.0/26";

/// We reflect between the peer and a third speaker, our clients.
pub(crate) fn we_reflect(kind: Kind) {
    let setup = Setup {
        third: Some(Third {
            beyond: Center::Us,
            asn: OUR_AS,
            prefix: ITS,
        }),
        peer: ", export: reflect, import: all",
        speaker: "clusterID: 10.0.0.9",
        ..Setup::default()
    };
    let rig = Rig::new(kind, &setup);
    rig.established();
    let seen = rig.peer_sees(ITS);
    assert_eq!(seen.as_path, [0_u32; 0]);
    assert_eq!(seen.originator.as_deref(), Some(THIRD));
    assert_eq!(seen.clusters, [CLUSTER]);
    assert_eq!(seen.next_hop, THIRD, "it stays");
    // Our own is reflected by nobody.
    let own = rig.peer_sees(rig::OURS[0]);
    assert_eq!((own.originator, own.clusters), (None, vec![]));
    let theirs = wait_for("the third to have the peer's", || {
        rig::routes(&rig.third(), rig::THEIRS[0]).pop()
    });
    assert_eq!(theirs.next_hop, "192.0.2.254");
}

/// The peer reflects between us and a third speaker, its clients.
pub(crate) fn they_reflect(kind: Kind) {
    let setup = Setup {
        third: Some(Third {
            beyond: Center::Peer,
            asn: OUR_AS,
            prefix: ITS,
        }),
        ..Setup::default()
    };
    let rig = Rig::new(kind, &setup);
    rig.established();
    let route = rig.we_see(ITS);
    assert!(route.best, "{route:?}");
    assert_eq!(route.next_hop, THIRD, "it stays");
    assert_eq!(route.as_path, [0_u32; 0]);
    let ours = wait_for("the third to have ours", || {
        rig::routes(&rig.third(), rig::OURS[0]).pop()
    });
    assert_eq!(ours.next_hop, "192.0.2.1");
    assert!(ours.best, "{ours:?}");
}

/// The peer tells its own path and a third speaker's.
pub(crate) fn add_path_receive(kind: Kind) {
    let setup = Setup {
        third: Some(Third {
            beyond: Center::Peer,
            asn: 64700,
            prefix: rig::THEIRS[0],
        }),
        add_path: true,
        peer: ", addPath: {receive: true}",
        ..Setup::default()
    };
    let mut rig = Rig::new(kind, &setup);
    rig.established();
    let paths = rig.we_see_paths(rig::THEIRS[0], 2);
    let ways: Vec<&[u32]> = paths.iter().map(|it| it.as_path.as_slice()).collect();
    assert_eq!(ways, [&[rig::THEIR_AS][..], &[rig::THEIR_AS, 64700]]);
    rig.end_third();
    let paths = rig.we_see_paths(rig::THEIRS[0], 1);
    assert_eq!(paths[0].as_path, [rig::THEIR_AS]);
    assert_eq!(rig.four().unwrap().established_count, 1);
}

/// We tell our own path and a third speaker's.
pub(crate) fn add_path_send(kind: Kind) {
    let setup = Setup {
        third: Some(Third {
            beyond: Center::Us,
            asn: 64700,
            prefix: rig::OURS[0],
        }),
        add_path: true,
        peer: ", export: transit, addPath: {send: 8, receive: true}",
        ..Setup::default()
    };
    let mut rig = Rig::new(kind, &setup);
    rig.established();
    let ways = |paths: &[rig::Seen]| -> BTreeSet<Vec<u32>> {
        paths.iter().map(|it| it.as_path.clone()).collect()
    };
    let (own, its) = (vec![OUR_AS], vec![OUR_AS, 64700]);
    let paths = rig.peer_sees_paths(rig::OURS[0], 2);
    assert_eq!(ways(&paths), [own.clone(), its.clone()].into());
    rig.router().ask_again();
    rig.end_third();
    let paths = rig.peer_sees_paths(rig::OURS[0], 1);
    assert_eq!(ways(&paths), [own].into());
    assert_eq!(rig.four().unwrap().established_count, 1);
}
