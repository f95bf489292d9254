//! What a node has on disk before it boots: its bootstrap file, its kubeconfig, its boot id.

use std::fs;

use anyhow::{Context, Result};
use serde_json::json;

use crate::objects;
use crate::plan::{FABRIC_SPACE, Fabric, Node, Plan};

/// Writes what is there before the first boot.
pub(crate) fn install(plan: &Plan, node: &Node) -> Result<()> {
    if plan.fabric == Fabric::DualTor {
        let file = plan.bootstrap_file(&node.name);
        fs::write(&file, file_of(plan, node))
            .with_context(|| format!("write {}", file.display()))?;
    }
    boot(plan, node)
}

/// Another boot.
pub(crate) fn boot(plan: &Plan, node: &Node) -> Result<()> {
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let file = plan.boot_id_file(&node.name);
    fs::write(&file, id).with_context(|| format!("write {}", file.display()))
}

/// Writes the nodes' kubeconfig, where it differs from the admin's, which the API server has written.
pub(crate) fn kubeconfig(plan: &Plan, port: u16) -> Result<()> {
    let Some(address) = plan.api_address() else {
        return Ok(());
    };
    let text = fs::read_to_string(plan.kubeconfig()).context("read the kubeconfig")?;
    let text = text.replace(
        &format!("https://127.0.0.1:{port}"),
        &format!("https://{}:{port}", address.v4),
    );
    fs::write(plan.node_kubeconfig(), text).context("write the nodes' kubeconfig")
}

/// Its ToRs, its addresses, and where everything else is. JSON is YAML too.
fn file_of(plan: &Plan, node: &Node) -> String {
    let peers: Vec<_> = node
        .uplinks
        .iter()
        .flat_map(|link| {
            link.far.both().map(|address| {
                let mut peer =
                    json!({ "name": link.tor, "peerIP": address, "asNumber": link.tor_asn });
                if plan.bfd {
                    peer["bfd"] = objects::bfd();
                }
                peer
            })
        })
        .collect();
    let origins = node.address.both().map(|address| {
        let length = if address.is_ipv4() { 32 } else { 128 };
        json!({ "prefix": format!("{address}/{length}"), "kind": "node" })
    });
    let file = json!({
        "asNumber": node.asn,
        "routerID": node.address.v4,
        "peers": peers,
        "origins": origins,
        "import": { "ranges": FABRIC_SPACE },
    });
    format!("{file:#}\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_node_finds_its_addresses_in_its_bootstrap_file() {
        let plan = Plan::with_fabric(Path::new("/x"), 3, Fabric::DualTor);
        let node = &plan.nodes[2];
        let addresses = crds::bootstrap::node_addresses(&file_of(&plan, node)).unwrap();
        assert_eq!(addresses, node.address.both());
    }
}
