use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::error::FieldError;
use crate::net::Family;

fn peer(spec: serde_json::Value) -> Result<Peer, FieldError> {
    let object = json!({ "apiVersion": "margay.io/v1", "kind": "BGPPeer", "metadata": { "name": "tor" }, "spec": spec });
    Peer::try_from(&serde_json::from_value::<BGPPeer>(object).unwrap())
}

fn error(spec: serde_json::Value) -> String {
    peer(spec).unwrap_err().to_string()
}

#[test]
fn an_address_and_an_as_are_enough() {
    let peer = peer(json!({ "peerIP": "192.0.2.1", "asNumber": 4200000001u32 })).unwrap();
    let want = Peer {
        name: "tor".to_owned(),
        nodes: Nodes::All,
        remote: Remote::Address("192.0.2.1".parse().unwrap(), 179),
        as_number: Some(4_200_000_001),
        local_as_number: None,
        hold_time: None,
        keepalive: None,
        local_address: LocalAddress::Route,
        local_port: None,
        families: None,
        passive: false,
        distance: Distance::Direct,
        password: None,
        bfd: None,
        restart: Restart::default(),
        limits: None,
        allowed_own_as: 0,
        next_hop: PeerNextHop::Auto,
        filters: Vec::new(),
        add_path: (0, false),
        keep_rejected: false,
        shutdown: None,
        reachable_by: None,
    };
    assert_eq!(peer, want);
}

#[test]
fn ports_and_families_are_read() {
    let read = |ip: &str| {
        let peer = peer(json!({ "peerIP": ip, "asNumber": 1 })).unwrap();
        match peer.remote {
            Remote::Address(address, port) => (address.to_string(), port),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(read("192.0.2.1:1179"), ("192.0.2.1".to_owned(), 1179));
    assert_eq!(read("2001:db8::1"), ("2001:db8::1".to_owned(), 179));
    assert_eq!(read("[2001:db8::1]:1179"), ("2001:db8::1".to_owned(), 1179));
    let both = peer(json!({ "peerIP": "192.0.2.1", "asNumber": 1, "families": ["ipv6", "ipv4"] }))
        .unwrap();
    assert_eq!(both.families, Some(BTreeSet::from(Family::ALL)));
    let one = peer(json!({ "peerIP": "192.0.2.1", "asNumber": 1 })).unwrap();
    assert_eq!(one.families(Some(Family::V4)), [Family::V4]);
}

#[test]
fn nodes_are_one_selected_or_all() {
    let labels = std::collections::BTreeMap::from([("rack".to_owned(), "a".to_owned())]);
    let nodes = |extra: serde_json::Value| {
        let mut spec = json!({ "peerIP": "192.0.2.1", "asNumber": 1 });
        spec.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        peer(spec)
    };
    assert!(nodes(json!({})).unwrap().nodes.includes("n1", &labels));
    assert!(
        nodes(json!({ "node": "n1" }))
            .unwrap()
            .nodes
            .includes("n1", &labels)
    );
    assert!(
        !nodes(json!({ "node": "n2" }))
            .unwrap()
            .nodes
            .includes("n1", &labels)
    );
    assert!(
        nodes(json!({ "nodeSelector": "rack == 'a'" }))
            .unwrap()
            .nodes
            .includes("n1", &labels)
    );
    assert!(
        !nodes(json!({ "nodeSelector": "rack == 'b'" }))
            .unwrap()
            .nodes
            .includes("n1", &labels)
    );
    let both = nodes(json!({ "node": "n1", "nodeSelector": "all()" })).unwrap_err();
    assert_eq!(
        both.to_string(),
        "spec.nodeSelector: node is set too: remove one of the two"
    );
}

#[test]
fn errors_name_the_field() {
    for bad in [
        "banana",
        "192.0.2.1:",
        "192.0.2.1:65536",
        "2001:db8::1:",
        "[2001:db8::1]",
        "fe80::1%",
        "fe80::1%eth 0",
        "fe80::1%eth0:179",
        "[fe80::1%eth0]",
        "fe80::1",
        "2001:db8::1%eth0",
        "192.0.2.1%eth0",
        "",
    ] {
        assert!(
            error(json!({ "peerIP": bad, "asNumber": 1 })).starts_with("spec.peerIP: "),
            "{bad}"
        );
    }
    assert!(error(json!({ "peerIP": "192.0.2.1:0", "asNumber": 1 })).contains("port 0"));
    assert!(
        error(json!({ "peerIP": "224.0.0.1", "asNumber": 1 }))
            .contains("not the address of one host")
    );
    assert!(
        error(json!({ "peerIP": "0.0.0.0", "asNumber": 1 }))
            .contains("not the address of one host")
    );
    assert!(
        error(json!({ "peerIP": "192.0.2.1", "asNumber": 0 }))
            .starts_with("spec.asNumber: 0 is no AS number")
    );
    assert!(
        error(json!({ "peerIP": "192.0.2.1", "asNumber": 4294967296i64 }))
            .starts_with("spec.asNumber: ")
    );
    assert!(
        error(json!({ "peerIP": "192.0.2.1", "asNumber": 1, "holdTime": 2 }))
            .starts_with("spec.holdTime: ")
    );
    let crossed = json!({ "peerIP": "192.0.2.1", "asNumber": 1, "localAddress": "2001:db8::2" });
    assert!(error(crossed).starts_with("spec.localAddress: "));
}

#[test]
fn every_field_of_the_session_is_read() {
    let peer = peer(json!({
        "peerIP": "192.0.2.1", "asNumber": 1, "localASNumber": 65009, "keepaliveTime": "10s", "sourceAddress": "UseNodeIP",
        "localPort": 1790, "ttlSecurity": 1, "password": { "secretKeyRef": { "name": "bgp", "key": "tor" } },
        "bfd": { "transmitMillis": 100, "onFailure": "Graceful" }, "maxRestartTime": "90s",
        "gracefulRestart": { "staleTime": "10m", "longLivedStaleTime": "24h" },
        "maxPrefixes": { "ipv4": 1000, "action": "TearDown", "restartAfter": "5m" }, "numAllowedLocalASNumbers": 2,
        "nextHopMode": "Self", "filters": ["a", "b"], "addPath": { "send": 4, "receive": true },
        "keepRejectedRoutes": true, "reachableBy": "192.0.2.254",
    }))
    .unwrap();
    assert_eq!(
        (peer.local_as_number, peer.keepalive, peer.local_port),
        (Some(65009), Some(10), Some(1790))
    );
    assert_eq!(
        (peer.local_address, peer.distance),
        (LocalAddress::Node, Distance::Secure(1))
    );
    assert_eq!(peer.password.unwrap().key, "tor");
    let bfd = Bfd {
        transmit: 100,
        receive: 300,
        multiplier: 3,
        on_failure: BfdFailure::Graceful,
    };
    assert_eq!(peer.bfd, Some(bfd));
    let restart = Restart {
        disabled: false,
        restart_time: Some(90),
        stale_time: Some(600),
        long_lived_time: Some(86_400),
    };
    assert_eq!(peer.restart, restart);
    let limits = Limits {
        ipv4: Some(1000),
        ipv6: None,
        action: LimitAction::TearDown,
        restart_after: Some(300),
    };
    assert_eq!(peer.limits, Some(limits));
    assert_eq!(
        (peer.allowed_own_as, peer.next_hop, peer.add_path),
        (2, PeerNextHop::Itself, (4, true))
    );
    assert_eq!(peer.filters, ["a", "b"]);
    assert!(peer.keep_rejected);
    assert_eq!(peer.reachable_by, Some("192.0.2.254".parse().unwrap()));
}

#[test]
fn the_words_of_a_shutdown_fit_into_a_message() {
    let read =
        |words: &str| peer(json!({ "peerIP": "192.0.2.1", "asNumber": 1, "shutdown": words }));
    for words in ["", "moving", &"a".repeat(255)] {
        assert_eq!(read(words).unwrap().shutdown.as_deref(), Some(words));
    }
    let error = read(&"ä".repeat(128)).unwrap_err().to_string();
    assert_eq!(error, "spec.shutdown: it has 256 bytes: say it in 255");
}

#[test]
fn a_peer_is_named_in_exactly_one_way() {
    let remote = |spec: serde_json::Value| peer(spec).map(|peer| peer.remote);
    assert_eq!(
        remote(json!({ "interface": "eth0" })),
        Ok(Remote::Interface("eth0".to_owned()))
    );
    assert_eq!(
        remote(json!({ "peerRange": { "cidr": "10.0.0.0/24" } })),
        Ok(Remote::Range("10.0.0.0/24".parse().unwrap(), 100))
    );
    let nodes = remote(json!({ "peerSelector": "all()", "reversePeering": "Manual" })).unwrap();
    assert!(matches!(nodes, Remote::Nodes { reverse: false, .. }));
    let pods = peer(json!({ "localWorkloadSelector": "bgp == 'yes'", "asNumber": 65001 })).unwrap();
    assert!(pods.passive && matches!(pods.remote, Remote::Workloads(_)));
    for (spec, want) in [
        (json!({}), "spec.peerIP: the peer is missing"),
        (
            json!({ "peerIP": "192.0.2.1", "interface": "eth0", "asNumber": 1 }),
            "spec.interface: the peer is named",
        ),
        (json!({ "interface": "eth 0" }), "spec.interface: "),
        (
            json!({ "peerRange": { "cidr": "10.0.0.1/24" } }),
            "spec.peerRange.cidr: ",
        ),
        (json!({ "peerSelector": "rack ==" }), "spec.peerSelector: "),
        (
            json!({ "localWorkloadSelector": "all()" }),
            "spec.asNumber: it is missing",
        ),
        (
            json!({ "peerIP": "192.0.2.1" }),
            "spec.asNumber: it is missing",
        ),
        (
            json!({ "peerSelector": "all()", "asNumber": 1 }),
            "spec.asNumber: the AS number of peers that are nodes",
        ),
    ] {
        let found = error(spec.clone());
        assert!(found.starts_with(want), "{spec}: {found}");
    }
}

#[test]
fn fields_that_contradict_each_other_are_refused() {
    for (field, value, want) in [
        (
            "ebgpMultihop",
            json!(0),
            "spec.ebgpMultihop: 0 is out of range: set 1 to 255",
        ),
        ("ttlSecurity", json!(255), "spec.ttlSecurity: 255"),
        (
            "bfd",
            json!({ "transmitMillis": 1 }),
            "spec.bfd.transmitMillis: 1 is out of range",
        ),
        (
            "maxRestartTime",
            json!("2h"),
            "spec.maxRestartTime: 2h is out of range: set 0s to 4095s",
        ),
        (
            "gracefulRestart",
            json!({ "staleTime": "1d" }),
            "spec.gracefulRestart.staleTime: ",
        ),
        (
            "maxPrefixes",
            json!({ "action": "Drop" }),
            "spec.maxPrefixes: no number",
        ),
        (
            "maxPrefixes",
            json!({ "ipv4": 1, "restartAfter": "1m" }),
            "spec.maxPrefixes.restartAfter: ",
        ),
        (
            "filters",
            json!(["a", "a"]),
            "spec.filters[1]: a is listed twice",
        ),
        ("reachableBy", json!("2001:db8::1"), "spec.reachableBy: "),
        (
            "localASNumber",
            json!(0),
            "spec.localASNumber: 0 is no AS number",
        ),
        ("keepaliveTime", json!("0s"), "spec.keepaliveTime: "),
    ] {
        let mut spec = json!({ "peerIP": "192.0.2.1", "asNumber": 1 });
        spec[field] = value.clone();
        let found = error(spec);
        assert!(found.starts_with(want), "{field} {value}: {found}");
    }
    for (one, other) in [
        (("ttlSecurity", json!(1)), ("ebgpMultihop", json!(2))),
        (
            ("localAddress", json!("192.0.2.2")),
            ("sourceAddress", json!("None")),
        ),
        (
            ("keepOriginalNextHop", json!(true)),
            ("nextHopMode", json!("Keep")),
        ),
    ] {
        let mut spec = json!({ "peerIP": "192.0.2.1", "asNumber": 1 });
        spec[one.0] = one.1.clone();
        peer(spec.clone()).unwrap();
        spec[other.0] = other.1.clone();
        assert!(error(spec).contains("is set too"), "{} {}", one.0, other.0);
    }
}

#[test]
fn a_link_local_address_has_an_interface() {
    let remote = |text: &str| peer(json!({ "peerIP": text, "asNumber": 1 })).map(|it| it.remote);
    for (text, port) in [("fe80::1%eth0", 179), ("[fe80::1%eth0]:1179", 1179)] {
        let expected = Remote::LinkLocal {
            address: "fe80::1".parse().unwrap(),
            interface: "eth0".to_owned(),
            port,
        };
        assert_eq!(remote(text).unwrap(), expected, "{text}");
    }
    let bare = remote("fe80::1").unwrap_err().to_string();
    assert_eq!(
        bare,
        "spec.peerIP: fe80::1 is link-local: add its interface, as fe80::1%eth0"
    );
    let no_as = peer(json!({ "peerIP": "fe80::1%eth0" })).unwrap_err();
    assert_eq!(no_as.field, "spec.asNumber");
}
