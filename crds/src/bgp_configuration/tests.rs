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
}
