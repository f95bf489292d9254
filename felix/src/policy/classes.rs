//! What tells peers apart, what tells subjects apart, and the classes of the blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::intervals::{Span, partition};
use super::lists::ListId;
use super::model::PolicyKey;
use super::tables::Class;
use crate::feed::NamedPort;

/// What the rules in use on this node can know of a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct ClassKey {
    /// The lists it is in.
    pub(super) lists: BTreeSet<ListId>,
    /// Its named ports, as far as an egress rule for one of those lists asks for the name.
    pub(super) ports: BTreeSet<NamedPort>,
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
    /// Its named ports, as far as one of the latter asks for the name.
    pub(super) ports: BTreeSet<NamedPort>,
}

/// The blocks of all lists in use, cut into disjoint pieces.
#[derive(Debug, Default)]
pub(super) struct Nets(BTreeMap<IpAddr, Piece>);

/// Addresses that the same lists contain.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) last: IpAddr,
    pub(super) lists: BTreeSet<ListId>,
    pub(super) class: Class,
}

impl Nets {
    /// Cuts the blocks, and gives every piece the class of its lists.
    pub(super) fn new(
        blocks: impl IntoIterator<Item = (Span, ListId)>,
        mut class: impl FnMut(ClassKey) -> Class,
    ) -> Self {
        let pieces = partition(blocks).into_iter().map(|((first, last), lists)| {
            let lists: BTreeSet<_> = lists.into_iter().collect();
            let class = class(ClassKey {
                lists: lists.clone(),
                ports: BTreeSet::new(),
            });
            (first, Piece { last, lists, class })
        });
        Self(pieces.collect())
    }

    /// The piece around an address.
    pub(super) fn around(&self, address: IpAddr) -> Option<&Piece> {
        let (_, piece) = self.0.range(..=address).next_back()?;
        (piece.last >= address).then_some(piece)
    }

    /// The class of an address that nobody has.
    pub(super) fn class(&self, address: IpAddr) -> Class {
        self.around(address)
            .map_or(Class::NONE, |piece| piece.class)
    }

    /// Every piece.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (Span, &Piece)> {
        self.0
            .iter()
            .map(|(&first, piece)| ((first, piece.last), piece))
    }

    /// Where the class of an address that nobody has is not what it was: before and after.
    pub(super) fn moved(&self, before: &Self) -> Vec<(Span, Class, Class)> {
        let old = before
            .pieces()
            .map(|(span, piece)| (span, (false, piece.class)));
        let new = self
            .pieces()
            .map(|(span, piece)| (span, (true, piece.class)));
        let pieces = partition(old.chain(new))
            .into_iter()
            .map(|(span, classes)| {
                let class = |new: bool| {
                    classes
                        .iter()
                        .find(|(of, _)| *of == new)
                        .map_or(Class::NONE, |&(_, class)| class)
                };
                (span, class(false), class(true))
            });
        pieces
            .filter(|(_, before, after)| before != after)
            .collect()
    }
}
