//! What tells peers apart, and what tells subjects apart.

use std::collections::BTreeSet;

use super::lists::ListId;
use super::model::{PolicyKey, PortMatch};
use super::tables::{Answer, Direction};

/// A port that an address has under a name, or for a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Offer {
    /// The entry of a rule that finds it.
    pub(super) entry: PortMatch,
    pub(super) protocol: u8,
    pub(super) port: u16,
}

/// What the rules in use on this node can know of a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct ClassKey {
    /// The lists it is in.
    pub(super) lists: BTreeSet<ListId>,
    /// Its ports, as far as a rule about one of those lists asks for them.
    pub(super) ports: BTreeSet<Offer>,
}

impl ClassKey {
    pub(super) fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.ports.is_empty()
    }
}

/// What makes two endpoints the same to all policies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct SubjectKey {
    /// The policies that select it for flows it opens.
    pub(super) egress: BTreeSet<PolicyKey>,
    /// The policies that select it for flows opened to it.
    pub(super) ingress: BTreeSet<PolicyKey>,
    /// Its ports, as far as one of them asks for them.
    pub(super) ports: BTreeSet<Offer>,
    /// The lists its addresses are in, by family (IPv4: true), as far as one of them asks about our side.
    pub(super) own: BTreeSet<(bool, ListId)>,
}

impl SubjectKey {
    pub(super) const fn policies(&self, direction: Direction) -> &BTreeSet<PolicyKey> {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }
}

impl Answer {
    /// Nothing but a verdict.
    pub(super) const fn is_plain(self) -> bool {
        !self.log && !self.audit
    }
}
