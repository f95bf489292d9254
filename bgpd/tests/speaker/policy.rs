//! What is imported and exported, and how.

use bgpd::config::{ExportClass, ImportPolicy, OriginKind, Pool};
use bgpd::policy::ImportRefusal;
use bgpd::speaker::{ConnId, Input, Output, PeerKey, SpeakerEvent};
use bgpd::wire::{self, AsPath, Attributes, Dialect, Message, update};
use crds::net::{Cidr, Family};

use crate::bench::{Bench, PEER_ASN, announced, best, ends, report, updates, with_peers};
use crate::sim::{cidr, interface, ip, origin};

#[test]
fn import_takes_blocks_of_pools_and_configured_ranges_only() {
    let mut config = with_peers(1);
    config.peers[0].import = ImportPolicy::Pools;
    config.pools = vec![Pool {
        cidr: cidr("10.244.0.0/16"),
        block_size: 26,
    }];
    config.import_ranges = vec![cidr("192.168.0.0/16")];
    let mut bench = Bench::started(config.clone());
    bench.input(Input::Origin {
        prefix: cidr("10.244.7.0/26"),
        kind: OriginKind::Block,
        withdrawn: false,
    });
    bench.join(2, &[Family::V4]);
    let cases = [
        ("10.244.1.0/26", None),
        ("10.244.0.0/20", None),
        ("10.244.1.0/27", Some(ImportRefusal::LongerThanBlock)),
        ("10.244.1.1/32", Some(ImportRefusal::LongerThanBlock)),
        ("10.0.0.0/8", Some(ImportRefusal::OutsidePools)),
        ("10.245.0.0/26", Some(ImportRefusal::OutsidePools)),
        ("10.244.7.0/26", Some(ImportRefusal::InsideOwn)),
        ("10.244.7.64/26", None),
        ("10.244.7.32/27", Some(ImportRefusal::InsideOwn)),
        ("192.168.3.1/32", None),
        ("0.0.0.0/0", Some(ImportRefusal::DefaultRoute)),
        ("127.0.0.0/8", Some(ImportRefusal::Martian)),
        ("224.0.0.0/4", Some(ImportRefusal::Martian)),
    ];
    let prefixes: Vec<Cidr> = cases.iter().map(|(text, _)| cidr(text)).collect();
    bench.announce(2, &prefixes);
    for (text, refusal) in cases {
        assert_eq!(bench.refusal(text), refusal, "{text}");
    }
    // Configuration and origins are judged anew without asking the peer again.
    config.import_ranges = vec![cidr("0.0.0.0/0")];
    bench.input(Input::Config(config));
    assert_eq!(bench.refusal("0.0.0.0/0"), None);
    assert_eq!(
        bench.refusal("192.168.3.1/32"),
        Some(ImportRefusal::OutsidePools),
        "a default route implies nothing"
    );
    let origin = |withdrawn| Input::Origin {
        prefix: cidr("10.244.1.0/26"),
        kind: OriginKind::Block,
        withdrawn,
    };
    assert_eq!(
        best(&bench.input(origin(false))),
        [(cidr("10.244.1.0/26"), vec![])]
    );
    assert_eq!(
        bench.refusal("10.244.1.0/26"),
        Some(ImportRefusal::InsideOwn)
    );
    assert_eq!(
        best(&bench.input(origin(true))),
        [(cidr("10.244.1.0/26"), vec!["192.0.2.2".to_owned()])]
    );
}

#[test]
fn import_refuses_loops_and_own_next_hops_whatever_the_policy() {
    let mut bench = Bench::started(with_peers(1));
    bench.join(2, &[Family::V4]);
    let mut attributes = Attributes::new(ip("192.0.2.2").into());
    let mut judged = |path: &[u32], next_hop: &str| {
        attributes.as_path = AsPath::sequence(path.iter().copied());
        attributes.next_hop = ip(next_hop).into();
        bench.announce_with(2, &attributes, &[cidr("10.0.0.0/26")]);
        bench.refusal("10.0.0.0/26")
    };
    assert_eq!(
        judged(&[PEER_ASN, 65001], "192.0.2.2"),
        Some(ImportRefusal::AsLoop)
    );
    assert_eq!(judged(&[65003], "192.0.2.2"), Some(ImportRefusal::FirstAs));
    assert_eq!(judged(&[], "192.0.2.2"), Some(ImportRefusal::FirstAs));
    assert_eq!(
        judged(&[PEER_ASN], "192.0.2.1"),
        Some(ImportRefusal::OwnNextHop)
    );
    assert_eq!(judged(&[PEER_ASN], "192.0.2.9"), None);
}

#[test]
fn own_routes_leave_with_our_as_and_addresses() {
    let mut config = with_peers(1);
    config.origins = vec![origin("10.1.0.0/26"), origin("fd00:1::/122")];
    let mut bench = Bench::started(config);
    bench.input(Input::OriginsComplete);
    let (conn, outputs) = bench.join(2, &Family::ALL);
    let updates = updates(&outputs, conn);
    let routes: Vec<_> = updates.iter().flat_map(|it| &it.announced).collect();
    assert_eq!(routes.len(), 2);
    let (four, six) = (&routes[0].0, &routes[1].0);
    assert_eq!(four.as_path, AsPath::sequence([65001]));
    assert_eq!(four.next_hop.address, ip("192.0.2.1"));
    // The other family's next hop is the address on the same interface, with the link-local one beside it.
    assert_eq!(six.next_hop.address, ip("2001:db8::1"));
    assert_eq!(six.next_hop.link_local, Some("fe80::1".parse().unwrap()));
    assert_eq!((four.local_pref, four.med), (None, None));
}

#[test]
fn a_family_without_an_address_of_ours_is_not_announced() {
    let mut config = with_peers(1);
    config.origins = vec![origin("10.1.0.0/26"), origin("fd00:1::/122")];
    let mut bench = Bench::new(config);
    bench.input(Input::Kernel(interface(3, &["192.0.2.1/24", "fe80::1/64"])));
    bench.input(report());
    bench.input(Input::OriginsComplete);
    let (conn, outputs) = bench.join(2, &Family::ALL);
    assert_eq!(announced(&outputs, conn), [cidr("10.1.0.0/26")]);
    assert_eq!(ends(&outputs, conn), Family::ALL);
    let key = PeerKey::Address(ip("192.0.2.2"));
    assert!(outputs.contains(&Output::Event(SpeakerEvent::NoNextHop {
        peer: key,
        family: Family::V6
    })));
    // It comes later.
    let outputs = bench.input(Input::Kernel(interface(3, &["2001:db8::1/64"])));
    assert_eq!(announced(&outputs, conn), [cidr("fd00:1::/122")]);
}

#[test]
fn export_classes_decide_what_is_passed_on() {
    let learnt = cidr("10.2.0.0/26");
    for (class, expected) in [
        (ExportClass::Origins, vec![]),
        (ExportClass::Transit, vec![learnt]),
    ] {
        let mut config = with_peers(2);
        config.peers[1].export = class;
        let mut bench = Bench::started(config);
        bench.join(2, &[Family::V4]);
        let (three, _) = bench.join(3, &[Family::V4]);
        let outputs = bench.announce(2, &[learnt]);
        assert_eq!(announced(&outputs, three), expected);
        assert_eq!(announced(&outputs, ConnId::In(2)), []);
    }
}

#[test]
fn internal_routes_are_not_passed_on_inside_the_as_unless_reflected() {
    let learnt = cidr("10.2.0.0/26");
    for (class, expected) in [(ExportClass::Transit, false), (ExportClass::Reflect, true)] {
        let mut config = with_peers(2);
        for it in &mut config.peers {
            it.local_asn = Some(it.remote_asn);
            it.export = class;
        }
        let mut bench = Bench::started(config);
        bench.join(2, &[Family::V4]);
        let (three, _) = bench.join(3, &[Family::V4]);
        let mut attributes = Attributes::new(ip("192.0.2.2").into());
        attributes.local_pref = Some(200);
        let internal = Dialect::plain(true);
        let messages = update::announce(&attributes, Family::V4, &[learnt], internal).unwrap();
        let outputs = bench.bytes(ConnId::In(2), &messages.concat());
        assert_eq!(best(&outputs).len(), 1);
        let sent = outputs.iter().find_map(|it| match it {
            Output::Send(to, bytes) if *to == three => Some(bytes.clone()),
            _ => None,
        });
        assert_eq!(sent.is_some(), expected, "{class:?}");
        if let Some(sent) = sent {
            let (messages, _) = wire::decode_stream(&sent, internal);
            let [Message::Update(update)] = &messages[..] else {
                panic!("{messages:?}")
            };
            let told = &update.announced[0].0;
            assert_eq!(
                told.next_hop.address,
                ip("192.0.2.2"),
                "an internal next hop stays"
            );
            assert_eq!(told.local_pref, Some(200));
            assert_eq!(told.originator_id, Some([10, 0, 0, 2].into()));
            assert_eq!(told.cluster_list, [std::net::Ipv4Addr::new(192, 0, 2, 1)]);
        }
    }
}
