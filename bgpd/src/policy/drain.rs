//! How routes leave before they are gone (RFC 8326).
//!
//! A drained route is first told with GRACEFUL_SHUTDOWN, to internal peers also with LOCAL_PREF 0, so that everybody
//! finds another way while this one still works; after [`Config::DRAIN_WAIT`](crate::config::Config::DRAIN_WAIT) it is
//! withdrawn. The node's own addresses leave only when one peer is drained: without them nobody could end the drain.

use serde::{Deserialize, Serialize};

use crate::config::OriginKind;

/// How far a route has left.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Stage {
    /// It has not.
    #[default]
    InUse,
    /// Told as the last one to be used.
    Leaving,
    /// Withdrawn.
    Gone,
}

/// What this speaker originates, as export sees it. Own attribute sets carry it as a mark that is never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// Why.
    pub kind: OriginKind,
    /// No pod has an address of it.
    pub idle: bool,
}

impl Own {
    /// The mark of attribute sets of such routes; learnt ones have 0.
    pub fn mark(self) -> u8 {
        let kind = match self.kind {
            OriginKind::Block => 1,
            OriginKind::Borrowed => 2,
            OriginKind::Service => 3,
            OriginKind::Node => 4,
        };
        kind << 1 | u8::from(self.idle)
    }

    /// What a mark stands for; None: a route that was learnt.
    pub fn of_mark(mark: u8) -> Option<Self> {
        let kind = match mark >> 1 {
            1 => OriginKind::Block,
            2 => OriginKind::Borrowed,
            3 => OriginKind::Service,
            4 => OriginKind::Node,
            _ => return None,
        };
        let idle = mark & 1 == 1;
        Some(Self { kind, idle })
    }
}

/// How far each kind of route has left, for one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Drained {
    /// Addresses of services.
    pub services: Stage,
    /// Blocks without pods, and routes that are passed on.
    pub idle: Stage,
    /// Blocks with pods.
    pub busy: Stage,
    /// All routes to this peer.
    pub peer: Stage,
}

impl Drained {
    /// How far a route has left; None: one that was learnt.
    pub fn stage(&self, own: Option<Own>) -> Stage {
        let of_kind = match own {
            None => self.idle,
            Some(Own { kind, idle }) => match kind {
                OriginKind::Service => self.services,
                OriginKind::Block | OriginKind::Borrowed if idle => self.idle,
                OriginKind::Block | OriginKind::Borrowed => self.busy,
                OriginKind::Node => Stage::InUse,
            },
        };
        of_kind.max(self.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_what_it_was_made_of() {
        use OriginKind::{Block, Borrowed, Node, Service};
        for kind in [Block, Borrowed, Service, Node] {
            for idle in [false, true] {
                let own = Own { kind, idle };
                assert_eq!(Own::of_mark(own.mark()), Some(own));
            }
        }
        assert_eq!(Own::of_mark(0), None);
    }

    #[test]
    fn node_addresses_stay_unless_one_peer_is_drained() {
        let node = Some(Own {
            kind: OriginKind::Node,
            idle: false,
        });
        let all = Drained {
            services: Stage::Gone,
            idle: Stage::Gone,
            busy: Stage::Gone,
            peer: Stage::InUse,
        };
        assert_eq!(all.stage(node), Stage::InUse);
        assert_eq!(all.stage(None), Stage::Gone);
        let peer = Stage::Leaving;
        assert_eq!(Drained { peer, ..all }.stage(node), Stage::Leaving);
    }
}
