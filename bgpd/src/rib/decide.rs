//! The decision process.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The step of the decision process that a path lost (RFC 4271 section 9.1.2.2), in the order of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WhyNotBest {
    /// Nothing says how to reach its next hop.
    NextHopUnreachable,
    /// This speaker originates the prefix itself.
    LocalOrigin,
    /// Lower LOCAL_PREF.
    LocalPref,
    /// Longer AS path.
    AsPathLength,
    /// Worse ORIGIN.
    Origin,
    /// Higher MED than another path from the same AS.
    Med,
    /// From an internal peer while there is one from an external peer.
    InternalPeer,
    /// Farther next hop.
    IgpCost,
    /// Higher BGP identifier of its originator.
    RouterId,
    /// Longer cluster list (RFC 4456).
    ClusterListLength,
    /// Higher address of the peer.
    PeerAddress,
}

impl fmt::Display for WhyNotBest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NextHopUnreachable => "next hop unreachable",
            Self::LocalOrigin => "originated here",
            Self::LocalPref => "lower LOCAL_PREF",
            Self::AsPathLength => "longer AS path",
            Self::Origin => "worse ORIGIN",
            Self::Med => "higher MED",
            Self::InternalPeer => "from an internal peer",
            Self::IgpCost => "farther next hop",
            Self::RouterId => "higher router id",
            Self::ClusterListLength => "longer cluster list",
            Self::PeerAddress => "higher peer address",
        })
    }
}
