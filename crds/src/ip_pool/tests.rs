use serde_json::json;

use super::*;

fn pool(spec: serde_json::Value) -> Result<Pool, FieldError> {
    let object = json!({ "apiVersion": "margay.io/v1", "kind": "IPPool", "metadata": { "name": "pods" }, "spec": spec });
    Pool::try_from(&serde_json::from_value::<IPPool>(object).unwrap())
}

fn error(spec: serde_json::Value) -> String {
    pool(spec).unwrap_err().to_string()
}

#[test]
fn a_cidr_is_enough() {
    let pool = pool(json!({ "cidr": "10.244.0.0/16" })).unwrap();
    assert_eq!(pool, Pool::new("pods", "10.244.0.0/16".parse().unwrap()));
    assert_eq!(pool.block_size, 26);
    assert!(pool.export && !pool.disabled);
}

#[test]
fn every_field_is_read() {
    let spec = json!({
        "cidr": "fd00:10:244::/48", "blockSize": 120, "disabled": true, "disableBGPExport": true,
        "nodeSelector": "rack == 'a'",
    });
    let pool = pool(spec).unwrap();
    assert_eq!(
        (pool.block_size, pool.disabled, pool.export),
        (120, true, false)
    );
    assert_eq!(pool.node_selector.to_string(), "rack == 'a'");
}

#[test]
fn errors_name_field_and_fix() {
    assert_eq!(
        error(json!({ "cidr": "banana" })),
        "spec.cidr: \"banana\" is not a prefix: write it as 10.244.0.0/16 or fd00:10:244::/48"
    );
    assert_eq!(
        error(json!({ "cidr": "10.0.0.0/16", "blockSize": 19 })),
        "spec.blockSize: 19 is no IPv4 block size: set 20 to 32"
    );
    assert_eq!(
        error(json!({ "cidr": "fd00::/48", "blockSize": 26 })),
        "spec.blockSize: 26 is no IPv6 block size: set 116 to 128"
    );
    assert_eq!(
        error(json!({ "cidr": "10.0.0.0/16", "blockSize": -1 })),
        "spec.blockSize: -1 is no IPv4 block size: set 20 to 32"
    );
    assert_eq!(
        error(json!({ "cidr": "10.0.0.0/28" })),
        "spec.blockSize: a /26 block does not fit into 10.0.0.0/28: raise it to 28 or more"
    );
    assert!(
        error(json!({ "cidr": "10.0.0.0/16", "nodeSelector": "rack =" }))
            .starts_with("spec.nodeSelector: selector is wrong at character 6")
    );
}
