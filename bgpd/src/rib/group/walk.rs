//! Bringing one member to where its group is.

use super::super::ids::IdSet;
use super::super::{Rib, SourceId};
use super::batch::{Batch, withdrawals};
use super::chunk::Chunk;
use super::told::Told;
use super::{Key, Outlet, STEP};

/// How a member differs from its group.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Prefixes of which it has to be told as they are in the group.
    pub(super) todo: IdSet,
    /// Prefixes it may have been told of; their numbers are held.
    pub(super) known: IdSet,
}

impl Walk {
    /// The group has gone on.
    pub(super) fn take_note(&mut self, chunk: &Chunk) {
        for id in &chunk.announced {
            self.todo.insert(*id);
        }
        for id in &chunk.gone {
            if self.known.contains(*id) {
                self.todo.insert(*id);
            } else {
                self.todo.remove(*id);
            }
        }
    }

    /// Tells the member of some of the prefixes.
    pub(super) fn step(
        &mut self,
        member: SourceId,
        told: &Told,
        key: &Key,
        rib: &mut Rib,
        outlet: &mut impl Outlet,
    ) {
        let (mut batch, mut gone) = (Batch::default(), Vec::new());
        for _ in 0..STEP.0 {
            if batch.size > STEP.1 {
                break;
            }
            let Some(id) = self.todo.pop_first() else {
                break;
            };
            match told.get(id).filter(|told| told.from != member) {
                Some(best) => {
                    let place = batch.place(rib, key, best, id);
                    batch.add(place, id);
                    if self.known.insert(id) {
                        rib.hold(id);
                    }
                }
                None if self.known.contains(id) => gone.push(id),
                None => {}
            }
        }
        let (bytes, mut messages) = withdrawals(rib, gone.iter().copied());
        if !bytes.is_empty() {
            outlet.send(member, bytes);
        }
        for id in gone {
            self.known.remove(id);
            rib.let_go(id);
        }
        let written = batch.write(rib);
        messages += written.runs.iter().map(|run| run.messages).sum::<usize>();
        if !written.bytes.is_empty() {
            outlet.send(member, written.bytes);
        }
        outlet.sent(member, messages);
    }
}
