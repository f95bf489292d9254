use crds::net::Family;

/// Why an attachment gets no addresses; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// The node's blocks, or what is in use after the log was lost, are not known yet: retry shortly.
    #[error("the node does not know its blocks yet: retry shortly")]
    NotSynced,
    /// No pool of the family is enabled and selects this node.
    #[error(
        "no {0} pool is enabled for this node: create an IPPool, or check disabled and nodeSelector"
    )]
    NoPool(Family),
    /// A block is being claimed: retry shortly.
    #[error("the node is claiming another {0} block: retry shortly")]
    Claiming(Family),
    /// Every block of the pool (the last, if there are several) has an owner.
    #[error("pool {pool} has no free block: create another IPPool")]
    Exhausted {
        /// Name of the pool.
        pool: String,
    },
    /// The node owns as many blocks as it may.
    #[error(
        "the node's {max} {family} blocks are full: raise maxBlocksPerNode in IPAMConfiguration default"
    )]
    BlockLimit {
        /// Family of the blocks.
        family: Family,
        /// The limit.
        max: u32,
    },
}

impl AllocateError {
    /// Whether waiting, without anybody changing anything, is likely to help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::NotSynced | Self::Claiming(_))
    }
}
