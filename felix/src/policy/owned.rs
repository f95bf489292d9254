//! Programs that ask for the address of our own side first. That of a pod is known with its link; packets of a host
//! endpoint may be to any of the node's addresses, or through it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::engine::Engine;
use super::intervals::{Span, subtract};
use super::lists::ListId;
use super::tables::{Class, Ledger, Program};

/// Which program to ask, by our own address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ByOwn {
    /// For all other addresses.
    rest: Program,
    /// Disjoint.
    spans: Vec<(Span, Program)>,
}

impl ByOwn {
    fn programs(&self) -> Vec<Program> {
        let spans = self.spans.iter().map(|&(_, program)| program);
        std::iter::once(self.rest).chain(spans).collect()
    }

    fn write(&self, ledger: &mut Ledger, program: Program, present: bool) {
        let value = |it| present.then_some(it);
        ledger.put_own_rest(program, value(self.rest));
        for &((first, last), of) in &self.spans {
            ledger.put_own((program, first, last), value(of));
        }
    }
}

impl Engine {
    /// Where addresses are in some of these lists, as disjoint spans; everywhere else they are in none.
    pub(super) fn own_views(&self, lists: &BTreeSet<ListId>) -> Vec<(Span, BTreeSet<ListId>)> {
        if lists.is_empty() {
            return Vec::new();
        }
        let view = |class| self.own_view(class, lists);
        let tables = self.ledger.tables();
        let mut views = Vec::new();
        for (&(first, last), &class) in &tables.nets {
            let around = view(class);
            let singles = tables.peers.range(first..=last);
            let others = singles.filter(|&(_, &class)| view(class) != around);
            let others: Vec<Span> = others.map(|(&at, _)| (at, at)).collect();
            if !around.is_empty() {
                let pieces = subtract((first, last), &others);
                views.extend(pieces.into_iter().map(|piece| (piece, around.clone())));
            }
        }
        for (&at, &class) in &tables.peers {
            let own = view(class);
            if !own.is_empty() && own != view(self.nets.class(at)) {
                views.push(((at, at), own));
            }
        }
        views
    }

    /// Which of these lists a class is in.
    fn own_view(&self, class: Class, lists: &BTreeSet<ListId>) -> BTreeSet<ListId> {
        let key = self.classes.value(class.0);
        let of = key.into_iter().flat_map(|key| &key.lists);
        of.filter(|list| lists.contains(list)).copied().collect()
    }

    /// Whether [`Engine::own_views`] of these lists may be others than at the last compile.
    pub(super) fn own_views_moved(&self, lists: &BTreeSet<ListId>) -> bool {
        if lists.is_empty() {
            return false;
        }
        let differ = |old, new| self.own_view(old, lists) != self.own_view(new, lists);
        let nets = self.ledger.moved_nets();
        let none = |class: Option<Class>| class.unwrap_or(Class::NONE);
        let mut nets = nets.map(|(old, new)| (none(old), none(new)));
        let peers = self.ledger.moved_peers();
        let mut peers = peers.map(|(at, old, new)| {
            let around = self.nets.class(at);
            (old.unwrap_or(around), new.unwrap_or(around))
        });
        nets.any(|(old, new)| differ(old, new)) || peers.any(|(old, new)| differ(old, new))
    }

    /// One use more of the program that asks one of these by our own address.
    pub(super) fn acquire_owned(
        &mut self,
        rest: Program,
        spans: impl IntoIterator<Item = (Span, Program)>,
    ) -> Program {
        let spans = spans.into_iter().filter(|&(_, program)| program != rest);
        let spans: Vec<_> = spans.collect();
        if spans.is_empty() {
            self.reuse_program(rest);
            return rest;
        }
        let value = ByOwn { rest, spans };
        if let Some(number) = self.owned.number(&value) {
            self.owned.reuse(number);
            return Program(number | Program::OWNED);
        }
        let held = value.programs();
        let Some(number) = self.owned.acquire(value) else {
            return Program::DENY;
        };
        for program in held {
            self.reuse_program(program);
        }
        Program(number | Program::OWNED)
    }

    /// Elements of those that came into use, and no more of those that went out of it.
    pub(super) fn write_owned(&mut self) {
        let fresh = self.owned.fresh().iter().map(|&number| (number, true));
        let unused = self.owned.unused();
        let all: Vec<_> = fresh
            .chain(unused.into_iter().map(|number| (number, false)))
            .collect();
        for (number, present) in all {
            let Some(value) = self.owned.value(number).map(Arc::clone) else {
                continue;
            };
            value.write(&mut self.ledger, Program(number | Program::OWNED), present);
            if !present {
                for program in value.programs() {
                    self.release_program(Some(program));
                }
            }
        }
        self.owned.sweep(self.revision);
    }
}
