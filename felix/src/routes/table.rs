//! What is wanted and what the kernel has, side by side. A change of some prefixes costs what these prefixes cost; the
//! whole difference is made only after the kernel has been read.

use std::collections::{BTreeMap, BTreeSet};

use super::diff::{Conflict, Op, Plan, Sweep, diff};
use super::model::{Entry, Kernel, Key, Legs, Nexthop, Route, Via};
use super::step::step;
use super::want::{Connected, Wants};

/// What may be wanted otherwise than before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Changed {
    /// Nothing.
    #[default]
    Nothing,
    /// Routes at these keys.
    Keys(BTreeSet<Key>),
    /// Any route.
    All,
}

impl Changed {
    /// Whether there is something to do.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::Nothing
    }

    /// The route at a key as well.
    pub fn add(&mut self, key: Key) {
        match self {
            Self::Nothing => *self = Self::Keys([key].into()),
            Self::Keys(keys) => {
                keys.insert(key);
            }
            Self::All => {}
        }
    }
}

/// How often things are used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Uses {
    /// By wanted routes.
    pub(super) legs: BTreeMap<Legs, usize>,
    /// By routes in the kernel.
    pub(super) objects: BTreeMap<u32, usize>,
}

/// The routes of this node.
#[derive(Debug, Clone, Default)]
pub struct Table {
    kernel: Kernel,
    connected: Connected,
    want: BTreeMap<Key, Route>,
    uses: Uses,
    conflicts: BTreeMap<Key, u8>,
    sweep: Sweep,
    /// The kernel has been read, or more was done than is known of here, and nothing compared since.
    unknown: bool,
    /// The links have changed since legs were last resolved.
    moved: bool,
}

impl Table {
    /// What the kernel has, as it was last read or changed.
    #[must_use]
    pub const fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The links, as they were last read.
    #[must_use]
    pub const fn connected(&self) -> &Connected {
        &self.connected
    }

    /// What is wanted, as of the last plan.
    #[must_use]
    pub const fn wanted(&self) -> &BTreeMap<Key, Route> {
        &self.want
    }

    /// Where wanted routes lead, each set of ways once.
    pub fn legs(&self) -> impl Iterator<Item = &Legs> {
        self.uses.legs.keys()
    }

    /// Routes that others have where ours should be, as of the last plan.
    pub fn conflicts(&self) -> impl Iterator<Item = Conflict> {
        let conflict = |(key, protocol): (&Key, &u8)| Conflict {
            key: *key,
            protocol: *protocol,
        };
        self.conflicts.iter().map(conflict)
    }

    /// The kernel has been read.
    pub fn read(&mut self, kernel: Kernel) {
        self.uses.objects = BTreeMap::new();
        for entry in kernel.routes.values() {
            count(&mut self.uses.objects, entry.via, true);
        }
        self.kernel = kernel;
        self.unknown = true;
    }

    /// The links have been read.
    pub fn link(&mut self, connected: Connected) {
        if self.connected != connected {
            // Groups may have lost legs over links that are back already, so that what is wanted is the same as ever.
            self.unknown |= self.moved;
            self.moved = true;
            self.connected = connected;
        }
    }

    /// Whether a changed route leads over an interface that did not run when the links were last read. Those of pods come
    /// and go without such a look.
    #[must_use]
    pub fn lacks_link(&self, wants: &Wants, changed: &Changed) -> bool {
        let Changed::Keys(keys) = changed else {
            return false;
        };
        let mut legs = keys
            .iter()
            .filter_map(|key| wants.bgp.get(&key.prefix))
            .flatten();
        legs.any(|leg| {
            leg.ifindex
                .is_some_and(|it| !self.connected.running.contains(&it))
        })
    }

    /// What cannot wait after links have failed: groups lose the legs over them, as far as others are left. It looks at no
    /// route; the plan that follows does, and finds this done. Carried out, it has to be [`done`](Self::done).
    #[must_use]
    pub fn fail_over(&self) -> Vec<Op> {
        let runs = |id: &u32| match self.kernel.nexthops.get(id) {
            Some(Nexthop::Leg(leg)) => self.connected.running.contains(&leg.ifindex),
            _ => true,
        };
        let groups = self.kernel.nexthops.iter();
        let failed = groups.filter_map(|(id, nexthop)| {
            let Nexthop::Group(members) = nexthop else {
                return None;
            };
            let left: BTreeMap<u32, u8> = members
                .iter()
                .filter(|(member, _)| runs(member))
                .map(|(member, weight)| (*member, *weight))
                .collect();
            let some = !left.is_empty() && left.len() < members.len();
            some.then_some(Op::ReplaceNexthop(*id, Nexthop::Group(left)))
        });
        failed.collect()
    }

    /// What is to be done now that `wants` has changed like that. Carried out, it has to be [`done`](Self::done); what was
    /// not is seen when the kernel is read again.
    pub fn plan(&mut self, wants: &Wants, changed: &Changed, sweep: Sweep) -> Plan {
        let swept = std::mem::replace(&mut self.sweep, sweep) != sweep;
        let all = std::mem::take(&mut self.moved) || *changed == Changed::All;
        let whole = std::mem::take(&mut self.unknown) || swept;
        let mut keys = BTreeSet::new();
        match changed {
            _ if all || whole => keys = self.want_all(wants),
            Changed::Keys(those) => {
                for key in those {
                    if self.want_one(*key, wants) {
                        keys.insert(*key);
                    }
                }
            }
            Changed::Nothing | Changed::All => {}
        }
        let plan = match whole {
            true => {
                self.conflicts.clear();
                diff(&self.kernel, &self.want, sweep)
            }
            false => {
                keys.iter().for_each(|key| {
                    self.conflicts.remove(key);
                });
                step(&self.kernel, &self.want, &keys, &self.uses, sweep)
            }
        };
        let conflicts = plan.conflicts.iter();
        self.conflicts
            .extend(conflicts.map(|it| (it.key, it.protocol)));
        plan
    }

    /// These requests have been carried out.
    pub fn done(&mut self, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::AddNexthop(id, nexthop) | Op::ReplaceNexthop(id, nexthop) => {
                    self.kernel.nexthops.insert(id, nexthop);
                }
                Op::AddRoute(key, entry) | Op::ReplaceRoute(key, entry) => {
                    self.enter(key, Some(entry));
                }
                Op::DeleteRoute(key, _) => self.enter(key, None),
                Op::DeleteNexthop(id) => {
                    self.kernel.nexthops.remove(&id);
                }
            }
        }
    }

    fn enter(&mut self, key: Key, entry: Option<Entry>) {
        let before = match entry {
            Some(entry) => {
                count(&mut self.uses.objects, entry.via, true);
                self.kernel.routes.insert(key, entry)
            }
            None => self.kernel.routes.remove(&key),
        };
        if let Some(before) = before {
            count(&mut self.uses.objects, before.via, false);
        }
    }

    /// Wants the route at a key as it is to be now; whether that is another one.
    fn want_one(&mut self, key: Key, wants: &Wants) -> bool {
        let route = wants.route(key, &self.connected);
        if self.want.get(&key) == route.as_ref() {
            return false;
        }
        let before = match route {
            Some(route) => {
                count_legs(&mut self.uses.legs, &route, true);
                self.want.insert(key, route)
            }
            None => self.want.remove(&key),
        };
        if let Some(before) = before {
            count_legs(&mut self.uses.legs, &before, false);
        }
        true
    }

    /// Wants all routes as they are to be now; the keys of those that are others.
    fn want_all(&mut self, wants: &Wants) -> BTreeSet<Key> {
        let now = wants.routes(&self.connected).routes;
        let before = std::mem::replace(&mut self.want, now);
        self.uses.legs = BTreeMap::new();
        for route in self.want.values() {
            count_legs(&mut self.uses.legs, route, true);
        }
        let (mut old, mut new) = (before.iter().peekable(), self.want.iter().peekable());
        let mut differing = Vec::new();
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((old, _)), Some((new, _))) => old.cmp(new),
            };
            let was = if order.is_le() { old.next() } else { None };
            let is = if order.is_ge() { new.next() } else { None };
            if was != is {
                differing.extend(was.or(is).map(|(key, _)| *key));
            }
        }
        differing.into_iter().collect()
    }
}

fn count(objects: &mut BTreeMap<u32, usize>, via: Via, more: bool) {
    if let Via::Nexthop { id, .. } = via {
        let uses = objects.entry(id).or_default();
        *uses = if more { *uses + 1 } else { *uses - 1 };
        if *uses == 0 {
            objects.remove(&id);
        }
    }
}

fn count_legs(legs: &mut BTreeMap<Legs, usize>, route: &Route, more: bool) {
    let Route::Bgp { legs: those, .. } = route else {
        return;
    };
    match legs.get_mut(those) {
        Some(uses) if more => *uses += 1,
        Some(1) => {
            legs.remove(those);
        }
        Some(uses) => *uses -= 1,
        None => {
            legs.insert(those.clone(), 1);
        }
    }
}

#[cfg(test)]
mod tests;
