//! `IPPool`: a range pods get addresses from.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::error::FieldError;
use crate::net::{Cidr, Family};
use crate::selector::Selector;

/// A range of addresses for pods. Nodes claim blocks of it, announce them over BGP and give their pods addresses out of them.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "margay.io",
    version = "v1",
    kind = "IPPool",
    plural = "ippools",
    shortname = "ipp",
    shortname = "pool",
    category = "margay",
    status = "IPPoolStatus",
    derive = "PartialEq",
    doc = "A range of addresses for pods.",
    printcolumn(name = "CIDR", type_ = "string", json_path = ".spec.cidr"),
    printcolumn(name = "Block", type_ = "integer", json_path = ".spec.blockSize"),
    printcolumn(name = "Disabled", type_ = "boolean", json_path = ".spec.disabled"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".spec.nodeSelector"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    validation = Rule::new("!has(self.blockSize) || !isCIDR(self.cidr) || cidr(self.cidr).ip().family() != 4 || (self.blockSize >= 20 && self.blockSize <= 32)")
        .message("blockSize of an IPv4 pool is the prefix length of a block: set it between 20 and 32 (26 when unset)"),
    validation = Rule::new("!has(self.blockSize) || !isCIDR(self.cidr) || cidr(self.cidr).ip().family() != 6 || (self.blockSize >= 116 && self.blockSize <= 128)")
        .message("blockSize of an IPv6 pool is the prefix length of a block: set it between 116 and 128 (122 when unset)"),
    validation = Rule::new("!isCIDR(self.cidr) || cidr(self.cidr).prefixLength() <= (has(self.blockSize) ? self.blockSize : (cidr(self.cidr).ip().family() == 4 ? 26 : 122))")
        .message("a block must fit into the pool: make cidr larger, or blockSize (26 for IPv4, 122 for IPv6 when unset) at least the prefix length of cidr"),
    validation = Rule::new("has(self.blockSize) == has(oldSelf.blockSize) && (!has(self.blockSize) || self.blockSize == oldSelf.blockSize)")
        .message("blockSize cannot change while blocks of the pool may exist: create a new pool and disable this one")
)]
#[serde(rename_all = "camelCase")]
pub struct IPPoolSpec {
    /// The range, as 10.244.0.0/16 or fd00:10:244::/48. Cannot be changed.
    #[schemars(length(max = 48))]
    #[x_kube(
        validation = Rule::new("isCIDR(self) && cidr(self) == cidr(self).masked()")
            .message("cidr must be a prefix without host bits: write it as 10.244.0.0/16 or fd00:10:244::/48"),
        validation = Rule::new("self == oldSelf").message("cidr cannot change: create a new pool and disable this one")
    )]
    pub cidr: String,
    /// Prefix length of the blocks nodes claim: 20 to 32 for IPv4 (26 when unset), 116 to 128 for IPv6 (122 when unset).
    /// Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<i32>,
    /// No new addresses from this pool; those in use stay.
    #[serde(default)]
    pub disabled: bool,
    /// Blocks of this pool are not announced over BGP.
    #[serde(default, rename = "disableBGPExport")]
    pub disable_bgp_export: bool,
    /// What pods of this pool send to destinations outside all pools has the node's address as its source, so that answers come
    /// back where the pool is not known. See natOutgoingExclusions, natOutgoingAddress and natPortRange of FelixConfiguration.
    #[serde(default)]
    pub nat_outgoing: bool,
    /// Nodes that may claim blocks, as a selector over their labels: rack == 'a' && !has(edge).
    #[serde(default = "crate::selector::everything")]
    #[schemars(length(max = 1024))]
    pub node_selector: String,
}

/// What the controller knows about a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPPoolStatus {
    /// Accepted is False when the spec is not understood.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// Prefix length of a block when the pool does not say.
pub fn default_block_size(family: Family) -> u8 {
    match family {
        Family::V4 => 26,
        Family::V6 => 122,
    }
}

/// Block sizes a pool may have: at most 4096 addresses a block.
pub fn block_sizes(family: Family) -> std::ops::RangeInclusive<u8> {
    match family {
        Family::V4 => 20..=32,
        Family::V6 => 116..=128,
    }
}

/// An [`IPPool`] that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Name of the object.
    pub name: String,
    /// The range.
    pub cidr: Cidr,
    /// Prefix length of its blocks.
    pub block_size: u8,
    /// No new addresses from here.
    pub disabled: bool,
    /// Whether its blocks are announced over BGP.
    pub export: bool,
    /// Whether what leaves all pools from here gets the node's address.
    pub nat_outgoing: bool,
    /// Nodes that may claim blocks.
    pub node_selector: Selector,
}

impl Pool {
    /// A pool of default-sized blocks open to every node.
    pub fn new(name: impl Into<String>, cidr: Cidr) -> Self {
        Self {
            name: name.into(),
            cidr,
            block_size: default_block_size(cidr.family()).max(cidr.prefix_len()),
            disabled: false,
            export: true,
            nat_outgoing: false,
            node_selector: Selector::all(),
        }
    }
}

impl TryFrom<&IPPool> for Pool {
    type Error = FieldError;

    fn try_from(object: &IPPool) -> Result<Self, FieldError> {
        let spec = &object.spec;
        let cidr: Cidr = spec
            .cidr
            .parse()
            .map_err(|e| FieldError::new("spec.cidr", e))?;
        let family = cidr.family();
        let sizes = block_sizes(family);
        let block_size = match spec.block_size {
            None => default_block_size(family),
            Some(given) => u8::try_from(given)
                .ok()
                .filter(|size| sizes.contains(size))
                .ok_or_else(|| {
                    let problem = format!(
                        "{given} is no {family} block size: set {} to {}",
                        sizes.start(),
                        sizes.end()
                    );
                    FieldError::new("spec.blockSize", problem)
                })?,
        };
        if block_size < cidr.prefix_len() {
            let problem = format!(
                "a /{block_size} block does not fit into {cidr}: raise it to {} or more",
                cidr.prefix_len()
            );
            return Err(FieldError::new("spec.blockSize", problem));
        }
        let node_selector = spec
            .node_selector
            .parse()
            .map_err(|e| FieldError::new("spec.nodeSelector", e))?;
        Ok(Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            cidr,
            block_size,
            disabled: spec.disabled,
            export: !spec.disable_bgp_export,
            nat_outgoing: spec.nat_outgoing,
            node_selector,
        })
    }
}

#[cfg(test)]
mod tests;
