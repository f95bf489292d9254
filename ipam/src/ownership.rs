//! Who owns a block, and how sure this node is of it.

use std::fmt;

use crds::ipam_block::Owner;

/// How a block's owner relates to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// This node, with the state it has now.
    Ours,
    /// This node before its state directory was lost: ours, but what is in use must be found out.
    Adopted,
    /// Somebody else; also a former node of the same name.
    Foreign,
}

impl Standing {
    /// Compares the owner of a block with this node.
    pub fn of(owner: &Owner, us: &Owner) -> Self {
        if owner.node != us.node || owner.node_uid != us.node_uid {
            Self::Foreign
        } else if owner.instance == us.instance {
            Self::Ours
        } else {
            Self::Adopted
        }
    }
}

/// Where a block stands between this node and the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The claim is sent. Not announced, nothing is given out.
    Pending,
    /// Ours; the epoch is the object's uid. Announced, and addresses are given out while its pool is in force.
    Owned {
        /// uid of the object.
        epoch: String,
    },
    /// The object is gone though we did not delete it: it is being made again. What was announced stays so, nothing is given out.
    Missing,
    /// Empty and not needed. Nothing is given out.
    Releasing {
        /// uid of the object that is deleted.
        epoch: String,
        /// Nobody routes to it any more, so that the object may go.
        withdrawn: bool,
    },
    /// Another's. Not announced, nothing is given out, the attachments inside are still reported.
    Quarantined(Quarantine),
}

/// Why a block cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Quarantine {
    /// Another owner claimed it while our object was gone.
    #[error("block belongs to node {} (uid {}, instance {})", .0.node, .0.node_uid, .0.instance)]
    OtherOwner(Owner),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "Pending",
            Self::Owned { .. } => "Owned",
            Self::Missing => "Missing",
            Self::Releasing { .. } => "Releasing",
            Self::Quarantined(_) => "Quarantined",
        })
    }
}
