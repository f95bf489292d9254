//! `IPAMBlock`: a piece of a pool that one node owns.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::condition::{Condition, date_time};
use crate::error::FieldError;
use crate::net::Cidr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Label that names the owning node, so that a node can watch only its own blocks.
pub const NODE_LABEL: &str = "margay.io/node";

/// A piece of a pool owned by one node. Written by Margay; creating the object is the claim, and its uid the epoch of the ownership.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "margay.io",
    version = "v1",
    kind = "IPAMBlock",
    plural = "ipamblocks",
    shortname = "block",
    category = "margay",
    status = "IPAMBlockStatus",
    derive = "PartialEq",
    doc = "A piece of a pool owned by one node.",
    printcolumn(name = "CIDR", type_ = "string", json_path = ".spec.cidr"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.owner.node"),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.used"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct IPAMBlockSpec {
    /// The addresses of the block.
    #[schemars(length(max = 48))]
    #[x_kube(
        validation = Rule::new("isCIDR(self) && cidr(self) == cidr(self).masked()")
            .message("cidr must be a prefix without host bits: write it as 10.244.0.0/26"),
        validation = Rule::new("self == oldSelf").message("cidr of a block cannot change: blocks are claimed and released whole")
    )]
    pub cidr: String,
    /// Name of the IPPool it was cut from.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("pool of a block cannot change: blocks are claimed and released whole"))]
    pub pool: String,
    /// Who owns it.
    #[x_kube(validation = Rule::new("self == oldSelf").message("owner of a block cannot change: delete the block and let the node claim it"))]
    pub owner: Owner,
}

/// Who owns a block. All three must match for the owner to be the same.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, KubeSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Name of the Node.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// metadata.uid of the Node: a node made again under the same name is another owner.
    #[serde(rename = "nodeUID")]
    #[schemars(length(max = 64))]
    pub node_uid: String,
    /// Random id kept in the node's state directory: differs when that was lost.
    #[schemars(length(max = 64))]
    pub instance: String,
}

/// What the owner says about its block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPAMBlockStatus {
    /// Addresses in use, mirrored from the node about a second later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 4096))]
    pub allocations: Vec<Allocation>,
    /// Number of addresses in use.
    #[serde(default)]
    pub used: i32,
    /// When the mirror was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub updated_at: Option<Time>,
    /// Accepted is False when the node cannot use the block.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// An address in use and what uses it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// The address.
    #[schemars(length(max = 45))]
    pub address: String,
    /// Name of the CNI network.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub network: String,
    /// Container id of the sandbox.
    #[serde(default, rename = "containerID")]
    #[schemars(length(max = 253))]
    pub container_id: String,
    /// Interface inside the pod.
    #[serde(default)]
    #[schemars(length(max = 15))]
    pub interface: String,
    /// Namespace of the pod.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Name of the pod.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub pod: String,
    /// metadata.uid of the pod.
    #[serde(default, rename = "podUID")]
    #[schemars(length(max = 64))]
    pub pod_uid: String,
}

/// An [`IPAMBlock`] that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Name of the object.
    pub name: String,
    /// metadata.uid: the epoch of the ownership.
    pub uid: String,
    /// The addresses.
    pub cidr: Cidr,
    /// Name of the pool.
    pub pool: String,
    /// Who owns it.
    pub owner: Owner,
    /// The mirror: addresses in use as last written. Entries with an unreadable or outside address are dropped; they hold nothing back.
    pub allocations: Vec<(IpAddr, Allocation)>,
}

impl Block {
    /// The object that claims `cidr` for `owner`.
    pub fn claim(cidr: Cidr, pool: &str, owner: &Owner) -> IPAMBlock {
        let spec = IPAMBlockSpec {
            cidr: cidr.to_string(),
            pool: pool.to_owned(),
            owner: owner.clone(),
        };
        let mut object = IPAMBlock::new(&cidr.object_name(), spec);
        object.metadata.labels = Some(BTreeMap::from([(
            NODE_LABEL.to_owned(),
            owner.node.clone(),
        )]));
        object
    }
}

impl TryFrom<&IPAMBlock> for Block {
    type Error = FieldError;

    fn try_from(object: &IPAMBlock) -> Result<Self, FieldError> {
        let spec = &object.spec;
        let cidr: Cidr = spec
            .cidr
            .parse()
            .map_err(|e| FieldError::new("spec.cidr", e))?;
        let name = object.metadata.name.clone().unwrap_or_default();
        if name != cidr.object_name() {
            // Two objects for one prefix would be two owners.
            let problem = format!(
                "the block of {cidr} is named {}, this one {name:?}: delete it",
                cidr.object_name()
            );
            return Err(FieldError::new("metadata.name", problem));
        }
        let mirrored = object.status.iter().flat_map(|status| &status.allocations);
        let allocations = mirrored
            .filter_map(|allocation| Some((allocation.address.parse().ok()?, allocation.clone())))
            .filter(|(address, _)| cidr.contains(*address))
            .collect();
        Ok(Self {
            name,
            uid: object.metadata.uid.clone().unwrap_or_default(),
            cidr,
            pool: spec.pool.clone(),
            owner: spec.owner.clone(),
            allocations,
        })
    }
}

#[cfg(test)]
mod tests;
