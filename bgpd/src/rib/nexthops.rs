//! Next hops of paths, what they resolve to, and the ways that follow.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::prefixes::{at, count};
use crate::nexthop::{NextHop, Resolution, Table};
use crate::speaker::Leg;

/// A next hop's number, for as long as an attribute set has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NextHopId(u32);

/// Every next hop in use, with what it resolves to from each interface that it was asked for.
#[derive(Debug, Default)]
pub(super) struct NextHops {
    index: HashMap<NextHop, u32, RandomState>,
    all: Vec<Held>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Held {
    next_hop: NextHop,
    holders: u32,
    resolved: Vec<(Option<u32>, Resolved)>,
}

/// What a next hop resolves to, and the ways of a route that has it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) to: Option<Resolution>,
    pub(super) legs: LegsId,
}

impl NextHops {
    /// The number of a next hop, held once more.
    pub(super) fn hold(&mut self, next_hop: NextHop) -> NextHopId {
        if let Some(id) = self.index.get(&next_hop) {
            self.all[at(*id)].holders += 1;
            return NextHopId(*id);
        }
        let held = Held {
            next_hop,
            holders: 1,
            resolved: Vec::new(),
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.all[at(id)] = held;
                id
            }
            None => {
                self.all.push(held);
                count(self.all.len()) - 1
            }
        };
        self.index.insert(next_hop, id);
        NextHopId(id)
    }

    /// Lets go of a next hop once. The ways it resolved to go with the next look at it, or at the table.
    pub(super) fn drop_one(&mut self, id: NextHopId) {
        let held = &mut self.all[at(id.0)];
        held.holders -= 1;
        if held.holders == 0 {
            self.index.remove(&held.next_hop);
            held.resolved = Vec::new();
            self.free.push(id.0);
        }
    }

    pub(super) fn get(&self, id: NextHopId) -> NextHop {
        self.all[at(id.0)].next_hop
    }

    /// All that are held.
    pub(super) fn all(&self) -> impl Iterator<Item = NextHop> {
        self.index.keys().copied()
    }

    /// What a next hop resolves to, when that is known already.
    pub(super) fn known(&self, id: NextHopId, ifindex: Option<u32>) -> Option<Resolved> {
        let mut resolved = self.all[at(id.0)].resolved.iter();
        resolved.find(|(from, _)| *from == ifindex).map(|it| it.1)
    }

    /// What a next hop resolves to.
    pub(super) fn resolve(
        &mut self,
        id: NextHopId,
        ifindex: Option<u32>,
        table: &Table,
        legs: &mut Legs,
    ) -> Resolved {
        if let Some(known) = self.known(id, ifindex) {
            return known;
        }
        let held = &mut self.all[at(id.0)];
        let resolved = look_up(held.next_hop, ifindex, table, legs);
        held.resolved.push((ifindex, resolved));
        resolved
    }

    /// All ways that are remembered.
    pub(super) fn legs(&self) -> impl Iterator<Item = LegsId> {
        let resolved = self.all.iter().flat_map(|held| &held.resolved);
        resolved.map(|(_, resolved)| resolved.legs)
    }

    /// The table has changed: which next hops resolve differently now.
    pub(super) fn refresh(&mut self, table: &Table, legs: &mut Legs) -> Vec<NextHopId> {
        let mut changed = Vec::new();
        for (number, held) in (0..).zip(&mut self.all) {
            let mut differs = false;
            for (ifindex, resolved) in &mut held.resolved {
                let now = look_up(held.next_hop, *ifindex, table, legs);
                differs |= now != *resolved;
                *resolved = now;
            }
            if differs {
                changed.push(NextHopId(number));
            }
        }
        changed
    }
}

fn look_up(next_hop: NextHop, ifindex: Option<u32>, table: &Table, legs: &mut Legs) -> Resolved {
    let to = table.resolve(next_hop, ifindex);
    let legs = to.map_or(Legs::NONE, |to| legs.number(&[leg(to)]));
    Resolved { to, legs }
}

/// The way that a resolution is.
pub(super) fn leg(to: Resolution) -> Leg {
    Leg {
        address: to.gateway,
        ifindex: Some(to.ifindex),
        onlink: to.onlink,
        weight: 1,
    }
}

/// The number of a list of ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegsId(u32);

/// Lists of ways: as many as neighbours, and as sets of them that are used together.
#[derive(Debug)]
pub(super) struct Legs {
    index: HashMap<Arc<[Leg]>, u32, RandomState>,
    all: Vec<Arc<[Leg]>>,
    free: Vec<u32>,
    sweep_at: usize,
}

/// Fewer lists than this are not worth a sweep.
const SWEEP_MIN: usize = 4096;

impl Default for Legs {
    fn default() -> Self {
        Self {
            index: HashMap::default(),
            all: vec![Arc::from([])],
            free: Vec::new(),
            sweep_at: SWEEP_MIN,
        }
    }
}

impl Legs {
    /// No way at all.
    pub(super) const NONE: LegsId = LegsId(0);

    /// The number of a list.
    pub(super) fn number(&mut self, legs: &[Leg]) -> LegsId {
        if legs.is_empty() {
            return Self::NONE;
        }
        if let Some(id) = self.index.get(legs) {
            return LegsId(*id);
        }
        let legs: Arc<[Leg]> = legs.into();
        let id = match self.free.pop() {
            Some(id) => {
                self.all[at(id)] = legs.clone();
                id
            }
            None => {
                self.all.push(legs.clone());
                count(self.all.len()) - 1
            }
        };
        self.index.insert(legs, id);
        LegsId(id)
    }

    pub(super) fn get(&self, id: LegsId) -> &Arc<[Leg]> {
        &self.all[at(id.0)]
    }

    /// Whether there are so many lists that those no longer used should be looked for.
    pub(super) fn wants_sweep(&self) -> bool {
        self.index.len() >= self.sweep_at
    }

    /// Forgets all lists but those.
    pub(super) fn sweep(&mut self, used: impl Iterator<Item = LegsId>) {
        let mut keep = vec![false; self.all.len()];
        used.for_each(|id| keep[at(id.0)] = true);
        let free = &mut self.free;
        self.index.retain(|_, id| {
            let keep = keep[at(*id)];
            if !keep {
                free.push(*id);
            }
            keep
        });
        // Hash maps have no order that a replay could repeat.
        self.free.sort_unstable();
        for id in &self.free {
            self.all[at(*id)] = Arc::from([]);
        }
        self.sweep_at = (self.index.len() * 2).max(SWEEP_MIN);
    }
}
