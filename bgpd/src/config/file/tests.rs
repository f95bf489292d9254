use super::*;
use crate::config::{
    AddPath, Bfd, Distance, GracefulRestart, NextHopMode, OnBfdFailure, Options, OverLimit,
    PeerKey, PrefixLimit,
};
use crds::net::Family;

const GOOD: &str = "
asNumber: 4200000001
routerID: 192.0.2.1
peers:
- name: tor-a
  peerIP: 192.0.2.254:1179
  asNumber: 64601
  families: [ipv4, ipv6]
  holdTime: 9
  export: transit
- peerIP: 2001:db8::1
  asNumber: 64602
pools:
- cidr: 10.244.0.0/16
- cidr: fd00:10:244::/48
  blockSize: 120
origins:
- 10.244.0.0/26
- prefix: 192.0.2.1/32
  kind: node
";

#[test]
fn a_file_says_what_the_objects_would() {
    let File {
        config,
        wait_for_felix,
    } = parse(GOOD).unwrap();
    assert!(!wait_for_felix);
    assert_eq!(config.asn, 4_200_000_001);
    assert_eq!((config.listen_port, config.hold_time), (179, 90));
    let [tor_a, six] = &config.peers[..] else {
        panic!("{:?}", config.peers)
    };
    assert_eq!(
        (tor_a.name.as_str(), tor_a.port, tor_a.hold_time),
        ("tor-a", 1179, Some(9))
    );
    assert_eq!(tor_a.families.len(), 2);
    assert_eq!(tor_a.export, ExportClass::Transit);
    assert_eq!(six.name, "2001:db8::1");
    assert_eq!(six.key, PeerKey::Address("2001:db8::1".parse().unwrap()));
    let sizes: Vec<u8> = config.pools.iter().map(|p| p.block_size).collect();
    assert_eq!(sizes, [26, 120]);
    let kinds: Vec<OriginKind> = config.origins.iter().map(|o| o.kind).collect();
    assert_eq!(kinds, [OriginKind::Block, OriginKind::Node]);
}

#[test]
fn an_error_fits_into_one_line() {
    for text in ["peers: [", "a: b: c", "asNumber: 1\nasNumber: 2"] {
        let brief = parse(text).unwrap_err().brief(text);
        assert!(brief.contains("in `") && !brief.contains('\n'), "{brief}");
    }
    let text = GOOD.replacen("64601", "many", 1);
    let brief = parse(&text).unwrap_err().brief(&text);
    assert!(
        brief.starts_with("peers[0].asNumber: ")
            && brief.ends_with("expected a whole number")
            && !brief.contains('\n'),
        "{brief}"
    );
}

#[test]
fn an_error_names_the_field_and_the_fix() {
    let cases = [
        ("64601", "0", "peers[0].asNumber", "set 1 to"),
        (
            "192.0.2.254:1179",
            "tor-a",
            "peers[0].peerIP",
            "write it as",
        ),
        (
            "2001:db8::1",
            "192.0.2.254",
            "peers[1].peerIP",
            "that of tor-a",
        ),
        (
            "10.244.0.0/16",
            "10.244.1.0/16",
            "pools[0].cidr",
            "write 10.244.0.0/16",
        ),
        (
            "192.0.2.1/32",
            "10.244.0.0/26",
            "origins[1]",
            "listed twice",
        ),
        (
            "routerID: 192.0.2.1",
            "routerID: 0.0.0.0",
            "routerID",
            "IPv4 addresses",
        ),
        ("4200000001", "0", "asNumber", "set 1 to"),
        ("peers:", "nonsense: 1\npeers:", "nonsense", "leave it out"),
        ("peerIP", "peerip", "peers[0].peerip", "write peerIP"),
        (
            "name: tor-a",
            "nodeSelector: all()",
            "peers[0].nodeSelector",
            "Kubernetes API",
        ),
        (
            "name: tor-a",
            "bfd: {transmitMilis: 1}",
            "peers[0].bfd.transmitMilis",
            "write transmitMillis",
        ),
        (
            "name: tor-a",
            "bfd: {transmitMillis: 1}",
            "peers[0].bfd.transmitMillis",
            "set 10 to",
        ),
        (
            "name: tor-a",
            "password: {value: \"\"}",
            "peers[0].password.value",
            "1 to 80",
        ),
        (
            "name: tor-a",
            "connect: {retryMinMillis: 20000}",
            "peers[0].connect.retryMinMillis",
            "lower it",
        ),
        (
            "name: tor-a",
            "interface: eth0",
            "peers[0].interface",
            "remove one",
        ),
        (
            "prefix: 192.0.2.1/32",
            "prefix: [1]",
            "origins[1]",
            "a prefix and a kind",
        ),
        (
            "export: transit",
            "export: all",
            "peers[0].export",
            "`transit`",
        ),
        (
            "asNumber: 4200000001",
            "multipath: 1",
            "asNumber",
            "missing",
        ),
        ("holdTime: 9", "holdTime: 2", "peers[0].holdTime", "3"),
        ("families: [ipv4, ipv6]", "families: [ipx]", "ipx", "ipv4"),
    ];
    for (from, to, field, fix) in cases {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD);
        let error = parse(&text).expect_err(to).to_string();
        assert!(
            error.contains(field) && error.contains(fix),
            "{to}: {error}"
        );
    }
}

#[test]
fn what_a_session_can_be_asked_for_is_read() {
    let text = "
asNumber: 65001
routerID: 192.0.2.1
clusterID: 192.0.2.200
multipath: 4
requirePolicy: true
selectionDeferralTime: 30s
peers:
- peerIP: 192.0.2.254
  asNumber: 64601
  localASNumber: 65009
  localPort: 1790
  ttlSecurity: 1
  password: {value: secret}
  bfd: {transmitMillis: 100, receiveMillis: 200, multiplier: 5, onFailure: Graceful}
  maxRestartTime: 60s
  gracefulRestart: {staleTime: 2m, longLivedStaleTime: 1h}
  maxPrefixes: {ipv4: 1000, ipv6: 500, action: TearDown, restartAfter: 5m}
  numAllowedLocalASNumbers: 1
  nextHopMode: Self
  addPath: {send: 4, receive: true}
  keepRejectedRoutes: true
  shutdown: moving
  reachableBy: 192.0.2.253
  keepaliveTime: 5s
  clusterID: 192.0.2.201
  connect: {timeoutMillis: 1000, retryMinMillis: 200, retryMaxMillis: 2000}
- interface: eth1
  ebgpMultihop: 2
- peerRange: {cidr: 10.0.0.0/24, limit: 5}
  asNumber: 65001
  export: reflect
";
    let config = parse(text).unwrap().config;
    assert_eq!(config.cluster_id, Some(Ipv4Addr::new(192, 0, 2, 200)));
    assert_eq!((config.multipath, config.require_policy), (4, true));
    assert_eq!(config.selection_deferral, 30_000);
    let [tor, eth1] = &config.peers[..] else {
        panic!("{:?}", config.peers)
    };
    let limit = |family, max| PrefixLimit {
        family,
        max,
        action: OverLimit::TearDown {
            restart_after: Some(300_000),
        },
    };
    let options = Options {
        local_port: Some(1790),
        password: Some(Password("secret".to_owned())),
        withheld: false,
        shutdown: Some("moving".to_owned()),
        distance: Distance::Secure(1),
        bfd: Some(Bfd {
            transmit: 100,
            receive: 200,
            multiplier: 5,
            on_failure: OnBfdFailure::Graceful,
        }),
        graceful_restart: GracefulRestart {
            enabled: true,
            restart_time: 60,
            stale_time: 120,
            long_lived_time: 3600,
        },
        limits: vec![limit(Family::V4, 1000), limit(Family::V6, 500)],
        allowed_own_as: 1,
        next_hop: NextHopMode::Itself,
        import_filters: Vec::new(),
        export_filters: Vec::new(),
        add_path: AddPath {
            send: 4,
            receive: true,
        },
        keep_refused: true,
        reachable_by: Some("192.0.2.253".parse().unwrap()),
        cluster_id: Some(Ipv4Addr::new(192, 0, 2, 201)),
        link_local: None,
        workload: false,
    };
    assert_eq!(tor.options, options);
    assert_eq!(tor.local_asn, Some(65009));
    assert_eq!(tor.timers.keepalive, Some(5000));
    assert_eq!((tor.timers.connect, tor.timers.retry_max), (1000, 2000));
    assert_eq!(eth1.key, PeerKey::Interface("eth1".to_owned()));
    assert_eq!((eth1.remote_asn, eth1.families.len()), (0, 2));
    assert_eq!(eth1.options.distance, Distance::Multihop(2));
    let [range] = &config.dynamic[..] else {
        panic!("{:?}", config.dynamic)
    };
    assert_eq!(
        (range.limit, range.template.export),
        (5, ExportClass::Reflect)
    );
    assert!(range.template.passive);
}

#[test]
fn filters_advertisements_stations_and_drain_are_read() {
    let text = "
asNumber: 65001
routerID: 192.0.2.1
drain: Services
communities:
- {name: pods, value: '65001:1'}
prefixAdvertisements:
- {cidr: 10.244.0.0/16, communities: [pods, '65001:1:2']}
bmpStations:
- {name: lab, address: '192.0.2.9:11019', statisticsInterval: 60s}
filters:
- name: in
  importV4:
  - {cidr: 10.0.0.0/8, action: Accept}
- name: both
  importV4: [{action: Reject}]
  exportV6: [{action: Reject}]
peers:
- {peerIP: 192.0.2.254, asNumber: 64601, filters: [in, both]}
";
    let config = parse(text).unwrap().config;
    assert_eq!(config.drain, Drain::Services);
    assert_eq!(config.filters.len(), 2);
    let options = &config.peers[0].options;
    assert_eq!(options.import_filters, ["in", "both"]);
    assert_eq!(options.export_filters, ["both"]);
    let [advertisement] = &config.advertisements[..] else {
        panic!("{:?}", config.advertisements)
    };
    assert_eq!(
        (
            advertisement.communities.len(),
            advertisement.large_communities.len()
        ),
        (1, 1)
    );
    assert_eq!(config.bmp[0].statistics, 60_000);
    for (from, to, want) in [
        (
            "filters: [in, both]",
            "filters: [in, out]",
            "peers[0].filters[1]: out is not among the filters",
        ),
        (
            "name: both",
            "name: in",
            "filters[1].name: \"in\" is not a name of its own",
        ),
        (
            "{cidr: 10.0.0.0/8, ",
            "{cidr: 10.0.0.0/8, metric: 3, ",
            "filters[0].importV4[0].metric: it is unknown",
        ),
        (
            "{cidr: 10.0.0.0/8, ",
            "{cidr: fd00::/8, ",
            "filters[0].importV4[0].cidr: fd00::/8 is no IPv4",
        ),
        (
            "action: Accept",
            "action: Permit",
            "filters[0].importV4[0].action: unknown variant `Permit`, expected one of `Accept`",
        ),
        (
            "[pods,",
            "[nobody,",
            "prefixAdvertisements[0].communities[0]: ",
        ),
        ("11019'", "'", "bmpStations[0].address: "),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        let error = parse(&changed).expect_err(to).to_string();
        assert!(error.starts_with(want), "{error}");
    }
}

/// Files of docs/examples, by name.
fn examples() -> Vec<(String, String)> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    let entries = std::fs::read_dir(dir).unwrap();
    let mut files: Vec<(String, String)> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), text)
        })
        .collect();
    files.sort();
    files
}

#[test]
fn the_examples_are_right() {
    let mut files = 0;
    for (name, text) in examples() {
        if name.starts_with("kubernetes") {
            continue;
        }
        files += 1;
        let file = parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let peers = file.config.peers.len() + file.config.dynamic.len();
        assert!(peers > 0, "{name} has no peer");
    }
    assert!(files >= 6, "only {files}");
}

/// Reads one object as bgpd would.
fn read_object(object: Value) -> Result<(), String> {
    let said = match object["kind"].as_str().unwrap_or_default() {
        "BGPConfiguration" => {
            let object: BGPConfiguration = serde_json::from_value(object).unwrap();
            Configuration::try_from(&object).map(|_| ())
        }
        "BGPPeer" => {
            let object: BGPPeer = serde_json::from_value(object).unwrap();
            bgp_peer::Peer::try_from(&object).map(|_| ())
        }
        "BGPFilter" => {
            let object: crds::BGPFilter = serde_json::from_value(object).unwrap();
            Filter::try_from(&object.spec).map(|_| ())
        }
        kind => return Err(format!("{kind:?} is no kind of bgpd's")),
    };
    said.map_err(|e| e.to_string())
}

#[test]
fn the_examples_of_objects_are_right() {
    let mut objects = 0;
    for (name, text) in examples() {
        if !name.starts_with("kubernetes") {
            continue;
        }
        for part in text.split("\n---\n") {
            objects += 1;
            let read = read_object(serde_saphyr::from_str(part).unwrap());
            read.unwrap_or_else(|e| panic!("{name}: {part}: {e}"));
        }
    }
    assert!(objects >= 6, "only {objects}");
}

#[test]
fn what_the_documents_say_to_write_is_right() {
    let mut pieces = 0;
    for name in ["bgp.md", "bootstrap.md"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let text = std::fs::read_to_string(path.join(name)).unwrap();
        let blocks = text.split("```yaml\n").skip(1);
        for block in blocks.filter_map(|it| it.split("```").next()) {
            for part in block.split("\n---\n") {
                pieces += 1;
                let value: Value = serde_saphyr::from_str(part).unwrap();
                let read = match value.get("kind") {
                    Some(_) => read_object(value),
                    None => parse(part).map(|_| ()).map_err(|e| e.to_string()),
                };
                read.unwrap_or_else(|e| panic!("{name}: {part}: {e}"));
            }
        }
    }
    assert!(pieces >= 6, "only {pieces}");
}
