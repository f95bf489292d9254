use serde_json::json;

use super::*;

fn read(spec: serde_json::Value) -> Result<Configuration, FieldError> {
    let object = json!({ "apiVersion": "margay.io/v1", "kind": "BGPConfiguration", "metadata": { "name": "default" }, "spec": spec });
    Configuration::try_from(&serde_json::from_value::<BGPConfiguration>(object).unwrap())
}

#[test]
fn an_empty_spec_is_the_default() {
    assert_eq!(read(json!({})).unwrap(), Configuration::default());
}

#[test]
fn every_field_is_read() {
    let spec = json!({
        "asNumber": 65000, "nodeToNodeMeshEnabled": true, "listenPort": 1179, "holdTimeSeconds": 9, "keepaliveSeconds": 3,
        "import": { "ranges": ["192.0.2.0/24", "::/0"] }, "multipath": 4, "requirePolicy": true, "selectionDeferralTime": "1m",
        "communities": [{ "name": "pods", "value": "65000:100" }],
        "prefixAdvertisements": [{ "cidr": "10.244.0.0/16", "communities": ["pods", "65000:1:2"] }],
        "bmpStations": [{ "name": "a", "address": "192.0.2.9:11019", "statisticsInterval": "1m" }],
        "nodeMeshPassword": { "secretKeyRef": { "name": "bgp", "key": "mesh" } }, "nodeMeshMaxRestartTime": "30s",
    });
    let want = Configuration {
        as_number: 65000,
        mesh: Some(true),
        listen_port: 1179,
        hold_time: 9,
        keepalive: Some(3),
        import_ranges: vec!["192.0.2.0/24".parse().unwrap(), "::/0".parse().unwrap()],
        multipath: 4,
        require_policy: true,
        selection_deferral: Some(60),
        advertisements: vec![(
            "10.244.0.0/16".parse().unwrap(),
            vec![
                Community::Standard(0xfde8_0064),
                Community::Large([65000, 1, 2]),
            ],
        )],
        stations: vec![BmpStation {
            name: "a".to_owned(),
            address: "192.0.2.9:11019".parse().unwrap(),
            statistics: 60,
        }],
        mesh_password: Some(SecretKeyRef {
            name: "bgp".to_owned(),
            key: "mesh".to_owned(),
        }),
        mesh_restart_time: Some(30),
    };
    assert_eq!(read(spec).unwrap(), want);
}

#[test]
fn errors_name_the_field() {
    let field = |spec: serde_json::Value| read(spec).unwrap_err().field;
    assert_eq!(field(json!({ "asNumber": 0 })), "spec.asNumber");
    assert_eq!(field(json!({ "listenPort": 0 })), "spec.listenPort");
    assert_eq!(field(json!({ "listenPort": 65536 })), "spec.listenPort");
    assert_eq!(
        field(json!({ "holdTimeSeconds": 2 })),
        "spec.holdTimeSeconds"
    );
    assert_eq!(
        field(json!({ "holdTimeSeconds": 9, "keepaliveSeconds": 4 })),
        "spec.keepaliveSeconds"
    );
    assert_eq!(
        field(json!({ "import": { "ranges": ["10.0.0.0/8", "10.0.0.1/8"] } })),
        "spec.import.ranges[1]"
    );
    let advertise = |communities: serde_json::Value| {
        field(
            json!({ "prefixAdvertisements": [{ "cidr": "10.0.0.0/8", "communities": communities }] }),
        )
    };
    assert_eq!(
        advertise(json!(["1:1", "nobody"])),
        "spec.prefixAdvertisements[0].communities[1]"
    );
    assert_eq!(
        field(json!({ "communities": [{ "name": "a", "value": "1" }] })),
        "spec.communities[0].value"
    );
    assert_eq!(
        field(json!({ "bmpStations": [{ "name": "a", "address": "192.0.2.9" }] })),
        "spec.bmpStations[0].address"
    );
    assert_eq!(field(json!({ "multipath": 0 })), "spec.multipath");
    assert_eq!(
        field(json!({ "selectionDeferralTime": "2h" })),
        "spec.selectionDeferralTime"
    );
}
