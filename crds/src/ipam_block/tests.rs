use super::*;

fn owner() -> Owner {
    Owner {
        node: "n1".to_owned(),
        node_uid: "u1".to_owned(),
        instance: "i1".to_owned(),
    }
}

#[test]
fn a_claim_reads_back() {
    let cidr: Cidr = "10.244.0.64/26".parse().unwrap();
    let mut object = Block::claim(cidr, "pods", &owner());
    assert_eq!(object.metadata.name.as_deref(), Some("10-244-0-64-26"));
    assert_eq!(object.metadata.labels.as_ref().unwrap()[NODE_LABEL], "n1");
    object.metadata.uid = Some("epoch".to_owned());
    let block = Block::try_from(&object).unwrap();
    assert_eq!(
        (block.cidr, block.uid.as_str(), block.owner),
        (cidr, "epoch", owner())
    );
    assert_eq!(
        serde_json::to_value(&object).unwrap()["spec"]["owner"]["nodeUID"],
        "u1"
    );
}

#[test]
fn a_second_name_for_a_prefix_is_refused() {
    let mut object = Block::claim("10.244.0.0/26".parse().unwrap(), "pods", &owner());
    object.metadata.name = Some("mine".to_owned());
    let error = Block::try_from(&object).unwrap_err();
    assert_eq!(error.field, "metadata.name");
    assert!(error.problem.contains("named 10-244-0-0-26"), "{error}");
}

#[test]
fn mirrored_addresses_outside_the_block_hold_nothing() {
    let mut object = Block::claim("10.244.0.0/26".parse().unwrap(), "pods", &owner());
    let entry = |address: &str| Allocation {
        address: address.to_owned(),
        ..Allocation::default()
    };
    let allocations = vec![entry("10.244.0.7"), entry("10.244.9.9"), entry("junk")];
    object.status = Some(IPAMBlockStatus {
        allocations,
        ..IPAMBlockStatus::default()
    });
    let block = Block::try_from(&object).unwrap();
    assert_eq!(
        block
            .allocations
            .iter()
            .map(|(address, _)| address.to_string())
            .collect::<Vec<_>>(),
        ["10.244.0.7"]
    );
}
