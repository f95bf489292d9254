//! The objects a fresh lab has in its API: nodes, pools, and who peers with whom.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::plan::{BFD, Dual, FABRIC_SPACE, Fabric, Node, POOL_V4, POOL_V6, Plan};

/// The label that says which rack a node is in.
pub const RACK_LABEL: &str = "margay.io/rack";
/// The annotation with a node's own AS.
pub const AS_ANNOTATION: &str = "margay.io/as-number";

/// The service account of felix, which the controller knows.
pub const FELIX_ACCOUNT: &str = "margay-felix";

/// Felix' service account, in the namespace of the lab's kubeconfig.
pub fn felix_account() -> Value {
    json!({ "metadata": { "name": FELIX_ACCOUNT } })
}

/// What a node's kubelet asks for when it mounts felix' token for the controller; longer than a lab lives.
pub fn token_request(node: &str) -> Value {
    json!({ "spec": {
        "audiences": ["margay-controller"],
        "expirationSeconds": 365 * 24 * 3600,
        "boundObjectRef": { "kind": "Node", "apiVersion": "v1", "name": node },
    } })
}

/// The custom resources, as in deploy/crds, and those of others that felix reads.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [crds::all_crds(), crds::foreign_crds()].concat()
}

/// A node as its kubelet would register it; status goes in by a second request.
pub fn node(node: &Node) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": {
                "kubernetes.io/hostname": node.name,
                "kubernetes.io/os": "linux",
                RACK_LABEL: node.rack.to_string(),
                "topology.kubernetes.io/zone": format!("rack-{}", node.rack),
            },
            "annotations": { AS_ANNOTATION: node.asn.to_string() },
        },
        "spec": {},
    })
}

/// A node's addresses, and that nothing is attached to it yet.
pub fn node_status(node: &Node) -> Value {
    json!({
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": node.address.v4 },
                { "type": "InternalIP", "address": node.address.v6 },
                { "type": "Hostname", "address": node.name },
            ],
            "capacity": { "pods": "500" },
            "allocatable": { "pods": "500" },
        },
    })
}

/// Margay's own objects.
pub fn margay(plan: &Plan) -> Vec<Value> {
    let mut objects = vec![
        pool("pods-v4", POOL_V4),
        pool("pods-v6", POOL_V6),
        json!({
            "apiVersion": "margay.io/v1",
            "kind": "BGPConfiguration",
            "metadata": { "name": "default" },
            "spec": {
                "nodeToNodeMeshEnabled": false,
                // Nodes of the other rack and the routers are reached by routes, not by a default route.
                "import": { "ranges": FABRIC_SPACE },
            },
        }),
    ];
    match plan.fabric {
        Fabric::SingleTor => {
            for tor in &plan.tors {
                let nodes = json!({ "nodeSelector": format!("{RACK_LABEL} == '{}'", tor.rack) });
                objects.extend(peers(&tor.name, &nodes, tor.address, tor.asn));
            }
        }
        Fabric::DualTor => {
            for node in &plan.nodes {
                for link in &node.uplinks {
                    let name = format!("{}-{}", node.name, link.tor);
                    let mut nodes = json!({ "node": node.name });
                    if plan.bfd {
                        nodes["bfd"] = bfd();
                    }
                    objects.extend(peers(&name, &nodes, link.far, link.tor_asn));
                }
            }
        }
    }
    objects
}

/// BFD of a node's session.
pub fn bfd() -> Value {
    let (interval, multiplier) = BFD;
    json!({ "transmitMillis": interval, "receiveMillis": interval, "multiplier": multiplier })
}

/// The session of each family that some nodes have with a ToR.
fn peers(name: &str, nodes: &Value, address: Dual, asn: u32) -> [Value; 2] {
    let [v4, v6] = address.both();
    [("v4", v4), ("v6", v6)].map(|(family, address)| {
        let mut spec = nodes.clone();
        spec["peerIP"] = json!(address);
        spec["asNumber"] = json!(asn);
        json!({
            "apiVersion": "margay.io/v1",
            "kind": "BGPPeer",
            "metadata": { "name": format!("{name}-{family}") },
            "spec": spec,
        })
    })
}

fn pool(name: &str, (cidr, block_size): (&str, u8)) -> Value {
    json!({
        "apiVersion": "margay.io/v1",
        "kind": "IPPool",
        "metadata": { "name": name },
        "spec": { "cidr": cidr, "blockSize": block_size },
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_objects_are_what_the_crds_understand() {
        let plan = |fabric| Plan::with_fabric(Path::new("/x"), 3, fabric);
        let mut kinds = Vec::new();
        let objects = [Fabric::SingleTor, Fabric::DualTor].map(|fabric| margay(&plan(fabric)));
        for object in objects.concat() {
            let kind = object["kind"].as_str().unwrap().to_owned();
            let understood = match kind.as_str() {
                "IPPool" => serde_json::from_value(object)
                    .map_err(|e| e.to_string())
                    .and_then(|o: crds::IPPool| {
                        crds::ip_pool::Pool::try_from(&o)
                            .map(|_| ())
                            .map_err(|e| e.to_string())
                    }),
                "BGPConfiguration" => serde_json::from_value(object)
                    .map_err(|e| e.to_string())
                    .and_then(|o: crds::BGPConfiguration| {
                        crds::bgp_configuration::Configuration::try_from(&o)
                            .map(|_| ())
                            .map_err(|e| e.to_string())
                    }),
                "BGPPeer" => serde_json::from_value(object)
                    .map_err(|e| e.to_string())
                    .and_then(|o: crds::BGPPeer| {
                        crds::bgp_peer::Peer::try_from(&o)
                            .map(|_| ())
                            .map_err(|e| e.to_string())
                    }),
                _ => Err("unknown kind".into()),
            };
            assert_eq!(understood, Ok(()), "{kind}");
            kinds.push(kind);
        }
        assert_eq!(kinds.iter().filter(|k| *k == "BGPPeer").count(), 4 + 12);
    }
}
