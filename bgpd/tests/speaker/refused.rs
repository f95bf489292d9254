//! Filters at work in a speaker, what becomes of refused routes, and explanations.

use bgpd::config::filter::{Action, Change, Match, PrefixMatch};
use bgpd::config::{ExportClass, ImportPolicy, NextHopMode, Pool};
use bgpd::policy::ImportRefusal;
use bgpd::speaker::{ConnId, Input, Output, PeerKey, REFUSED_KEPT, SpeakerEvent, TcpEvent};
use bgpd::wire::{self, AsPath, Capability, Open};
use crds::net::{Cidr, Family};

use crate::bench::{Bench, PEER_ASN, with_peers};
use crate::routes::{
    export_by, external, filter, import_by, inside, internal, told, with_internal,
};
use crate::sim::{cidr, ip, origin};

#[test]
fn a_filter_admits_what_it_names_but_nothing_inside_own_blocks() {
    let mut config = with_peers(1);
    config.peers[0].import = ImportPolicy::Pools;
    config.pools = vec![Pool {
        cidr: cidr("10.244.0.0/16"),
        block_size: 26,
    }];
    config.origins = vec![origin("172.16.0.0/26")];
    import_by(
        &mut config,
        2,
        "bad",
        filter(inside("10.244.9.0/24"), vec![], Action::Reject),
    );
    import_by(
        &mut config,
        2,
        "named",
        filter(inside("172.16.0.0/12"), vec![], Action::Accept),
    );
    let all = filter(Match::default(), vec![], Action::Accept);
    import_by(&mut config, 2, "all", all);
    let mut bench = Bench::started(config);
    bench.join(2, &[Family::V4]);
    for (prefix, refusal) in [
        ("10.244.1.0/26", None),
        ("172.20.0.0/16", None),
        ("172.16.0.0/27", Some(ImportRefusal::InsideOwn)),
        ("10.0.0.0/8", Some(ImportRefusal::OutsidePools)),
        ("0.0.0.0/0", Some(ImportRefusal::DefaultRoute)),
        ("127.0.0.0/8", Some(ImportRefusal::Martian)),
    ] {
        bench.announce(2, &[cidr(prefix)]);
        assert_eq!(bench.refusal(prefix), refusal, "{prefix}");
    }
    bench.announce(2, &[cidr("10.244.9.0/26")]);
    let refused = bench.refusal("10.244.9.0/26");
    assert!(
        matches!(refused, Some(ImportRefusal::Filter(_))),
        "{refused:?}"
    );
    // Loops are loops, whatever a filter says.
    let mut looped = external(2, &[]);
    looped.as_path = AsPath::sequence([PEER_ASN, 65001]);
    bench.announce_with(2, &looped, &[cidr("172.21.0.0/16")]);
    assert_eq!(bench.refusal("172.21.0.0/16"), Some(ImportRefusal::AsLoop));
}

#[test]
fn a_default_route_is_admitted_by_a_rule_that_names_nothing_else() {
    let mut config = with_peers(1);
    config.peers[0].import = ImportPolicy::Pools;
    let default = Match {
        prefixes: vec![PrefixMatch {
            cidr: cidr("0.0.0.0/0"),
            min_len: 0,
            max_len: 0,
            negated: false,
        }],
        ..Match::default()
    };
    import_by(
        &mut config,
        2,
        "default",
        filter(default, vec![], Action::Accept),
    );
    let mut bench = Bench::started(config);
    bench.join(2, &[Family::V4]);
    bench.announce(2, &[cidr("0.0.0.0/0")]);
    assert_eq!(bench.refusal("0.0.0.0/0"), None);
}

#[test]
fn the_own_as_may_be_in_a_path_as_often_as_allowed() {
    let mut config = with_peers(1);
    config.peers[0].options.allowed_own_as = 1;
    let mut bench = Bench::started(config);
    bench.join(2, &[Family::V4]);
    let mut judged = |path: &[u32]| {
        let mut attributes = external(2, &[]);
        attributes.as_path = AsPath::sequence(path.iter().copied());
        bench.announce_with(2, &attributes, &[cidr("10.2.0.0/26")]);
        bench.refusal("10.2.0.0/26")
    };
    assert_eq!(judged(&[PEER_ASN, 65001]), None);
    let twice = [PEER_ASN, 65001, 65009, 65001];
    assert_eq!(judged(&twice), Some(ImportRefusal::AsLoop));
}

#[test]
fn next_hops_are_kept_or_replaced_as_asked_for() {
    // 3 is outside, 4 inside; both are told what 2 says.
    let next_hops = |mode| {
        let mut config = with_internal(3, &[4]);
        for peer in &mut config.peers {
            peer.export = ExportClass::Transit;
            peer.options.next_hop = mode;
        }
        let mut bench = Bench::started(config);
        let conns: Vec<_> = (2..=4)
            .map(|host| bench.join(host, &[Family::V4]).0)
            .collect();
        let mut attributes = external(2, &[]);
        attributes.next_hop = ip("192.0.2.99").into();
        let outputs = bench.announce_with(2, &attributes, &[cidr("10.2.0.0/26")]);
        let of = |conn, within| {
            told(&outputs, conn, within)[0]
                .1
                .next_hop
                .address
                .to_string()
        };
        (of(conns[1], false), of(conns[2], true))
    };
    let (own, learnt) = ("192.0.2.1".to_owned(), "192.0.2.99".to_owned());
    assert_eq!(next_hops(NextHopMode::Auto), (own.clone(), learnt.clone()));
    assert_eq!(next_hops(NextHopMode::Itself), (own.clone(), own));
    assert_eq!(next_hops(NextHopMode::Keep), (learnt.clone(), learnt));
}

#[test]
fn a_learnt_med_stays_inside_unless_a_filter_sets_one() {
    let mut config = with_internal(3, &[4]);
    for peer in &mut config.peers {
        peer.export = ExportClass::Transit;
    }
    let mut set = config.clone();
    let changes = vec![Change::Med(Some(7)), Change::LocalPref(300)];
    export_by(
        &mut set,
        3,
        "out",
        filter(Match::default(), changes, Action::Accept),
    );
    for (config, expected) in [(config, None), (set, Some(7))] {
        let mut bench = Bench::started(config);
        let conns: Vec<_> = (2..=4)
            .map(|host| bench.join(host, &[Family::V4]).0)
            .collect();
        let mut attributes = external(2, &[]);
        attributes.med = Some(50);
        let outputs = bench.announce_with(2, &attributes, &[cidr("10.2.0.0/26")]);
        let outside = told(&outputs, conns[1], false);
        assert_eq!(
            (outside[0].1.med, outside[0].1.local_pref),
            (expected, None)
        );
        assert_eq!(told(&outputs, conns[2], true)[0].1.med, Some(50));
    }
}

#[test]
fn import_changes_are_made_once_however_often_it_is_judged() {
    let mut config = with_peers(1);
    let prepend = vec![Change::Prepend(Some(65009), 1)];
    import_by(
        &mut config,
        2,
        "in",
        filter(Match::default(), prepend, Action::Accept),
    );
    let mut bench = Bench::started(config.clone());
    bench.join(2, &[Family::V4]);
    bench.announce(2, &[cidr("10.2.0.0/26")]);
    let path = |bench: &Bench| {
        bench.speaker.routes(&Default::default(), 0)[0]
            .as_path
            .clone()
    };
    assert_eq!(path(&bench), [65009, PEER_ASN]);
    config.import_ranges = vec![cidr("10.9.0.0/16")];
    bench.input(Input::Config(config.clone()));
    assert_eq!(path(&bench), [65009, PEER_ASN]);
    config.peers[0].options.import_filters.clear();
    bench.input(Input::Config(config));
    assert_eq!(path(&bench), [PEER_ASN]);
}

/// Joins as a peer that can be asked again.
pub(crate) fn join_refreshing(bench: &mut Bench) -> ConnId {
    let conn = ConnId::In(2);
    let end = |host: u8, port: u16| std::net::SocketAddr::from(([192, 0, 2, host], port));
    bench.input(Input::Tcp(
        conn,
        TcpEvent::Accepted {
            local: end(1, 179),
            remote: end(2, 40000),
            ttl: None,
        },
    ));
    let capabilities = vec![Capability::unicast(Family::V4), Capability::RouteRefresh];
    let open = Open::new(PEER_ASN, 90, [10, 0, 0, 2].into(), capabilities);
    bench.bytes(conn, &open.encode());
    let outputs = bench.bytes(conn, &wire::keepalive());
    let up = |it: &Output| matches!(it, Output::Event(SpeakerEvent::Established { .. }));
    assert!(outputs.iter().any(up), "{outputs:?}");
    conn
}

#[test]
fn refused_routes_beyond_the_bound_are_counted_and_asked_for_when_they_might_be_taken() {
    let mut config = with_peers(1);
    config.peers[0].import = ImportPolicy::Pools;
    let mut bench = Bench::started(config.clone());
    let conn = join_refreshing(&mut bench);
    let more = 100;
    let all: Vec<Cidr> = (0..REFUSED_KEPT + more)
        .map(|n| {
            cidr("10.0.0.0/8")
                .subnet(26, n.try_into().unwrap())
                .unwrap()
        })
        .collect();
    bench.announce(2, &all);
    let count = |bench: &Bench| bench.speaker.neighbors(0)[0].families[0];
    let counted = count(&bench);
    assert_eq!((counted.received, counted.accepted), (REFUSED_KEPT, 0));
    assert_eq!(counted.not_kept, u64::try_from(more).unwrap());
    // What it is judged by changes: those kept are judged again, the others asked for.
    config.import_ranges = vec![cidr("10.0.0.0/8")];
    let outputs = bench.input(Input::Config(config.clone()));
    let refresh = wire::RouteRefresh {
        afi: 1,
        subtype: 0,
        safi: 1,
    };
    assert!(
        outputs.contains(&Output::Send(conn, refresh.encode())),
        "{outputs:?}"
    );
    bench.announce(2, &all);
    assert_eq!(
        (count(&bench).accepted, count(&bench).not_kept),
        (all.len(), 0)
    );
    // A policy that refuses all of them at once leaves no more than that either.
    config.import_ranges.clear();
    bench.input(Input::Config(config.clone()));
    assert!(count(&bench).received <= REFUSED_KEPT);
    assert_eq!(count(&bench).not_kept, u64::try_from(all.len()).unwrap());
    // Where all are asked for, all are kept.
    config.peers[0].options.keep_refused = true;
    let outputs = bench.input(Input::Config(config));
    assert!(
        outputs.contains(&Output::Send(conn, refresh.encode())),
        "{outputs:?}"
    );
    bench.announce(2, &all);
    assert_eq!(
        (count(&bench).received, count(&bench).not_kept),
        (all.len(), 0)
    );
}

#[test]
fn an_explanation_names_the_steps_that_decide() {
    let mut config = with_peers(3);
    config.peers[2].export = ExportClass::Transit;
    import_by(
        &mut config,
        3,
        "no-ten",
        filter(inside("10.0.0.0/8"), vec![], Action::Reject),
    );
    let mut bench = Bench::started(config);
    for host in 2..=4 {
        bench.join(host, &[Family::V4]);
    }
    let prefix = cidr("10.2.0.0/26");
    bench.announce(2, &[prefix]);
    bench.announce(3, &[prefix]);
    bench.announce_with(4, &internal_path(), &[prefix]);
    let explained = bench.speaker.explain(prefix, None, 0).unwrap();
    let last: Vec<(String, String)> = explained
        .paths
        .iter()
        .map(|it| (it.import.last().unwrap().clone(), it.decision.clone()))
        .collect();
    let said = |import: &str, decision: &str| (import.to_owned(), decision.to_owned());
    assert_eq!(
        last,
        [
            said("taken", "the best"),
            said("taken", "not used: longer AS path"),
            said("refused: rejected by filter no-ten rule 1", ""),
        ]
    );
    let exports: Vec<&str> = explained
        .exports
        .iter()
        .map(|it| it.steps.last().unwrap().as_str())
        .collect();
    assert_eq!(
        exports,
        [
            "not told: learnt from this peer",
            "not told: not originated here",
            "told"
        ]
    );
    let one = PeerKey::Address(ip("192.0.2.3"));
    let of_one = bench.speaker.explain(prefix, Some(&one), 0).unwrap();
    assert_eq!((of_one.paths.len(), of_one.exports.len()), (1, 1));
    assert_eq!(bench.speaker.explain(cidr("10.9.0.0/26"), None, 0), None);
    let four = PeerKey::Address(ip("192.0.2.4"));
    let advertised = bench.speaker.advertised(&four).unwrap();
    assert_eq!(advertised.len(), 1);
    assert_eq!(advertised[0].as_path, [65001, 65002]);
}

/// A route of the peer at 192.0.2.4 with a longer path.
fn internal_path() -> wire::Attributes {
    let mut attributes = internal(4, &[]);
    attributes.as_path = AsPath::sequence([65004, 65010]);
    attributes.local_pref = None;
    attributes
}
