//! From what the kernel has to what is wanted.
//!
//! BGP routes refer to nexthop objects: one per leg, one more per set of several legs. Thousands of routes share few
//! sets, so that a leg which comes or goes changes the group and none of the routes: a group whose routes all move on
//! to another set is changed in place.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::model::{
    BGP_PROTOCOL, Entry, FIRST_NEXTHOP, Kernel, Key, LAST_NEXTHOP, Leg, Legs, Nexthop, Route, Via,
    WORKLOAD_PROTOCOL,
};

/// One request to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Makes a nexthop object; fails when the number is taken.
    AddNexthop(u32, Nexthop),
    /// Changes the members of a group.
    ReplaceNexthop(u32, Nexthop),
    /// Makes a route; fails when the key is taken.
    AddRoute(Key, Entry),
    /// Changes a route of ours.
    ReplaceRoute(Key, Entry),
    /// Removes a route of ours.
    DeleteRoute(Key, u8),
    /// Removes a nexthop object, and with it what refers to it: nothing any more.
    DeleteNexthop(u32),
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddNexthop(id, nexthop) => write!(f, "add nexthop {id} {nexthop}"),
            Self::ReplaceNexthop(id, nexthop) => write!(f, "replace nexthop {id} {nexthop}"),
            Self::AddRoute(key, entry) => write!(f, "add route {key} {}", entry.via),
            Self::ReplaceRoute(key, entry) => write!(f, "replace route {key} {}", entry.via),
            Self::DeleteRoute(key, protocol) => write!(f, "delete route {key} proto {protocol}"),
            Self::DeleteNexthop(id) => write!(f, "delete nexthop {id}"),
        }
    }
}

impl fmt::Display for Nexthop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leg(leg) => write!(f, "{leg}"),
            Self::Group(members) => {
                let members: Vec<_> = members
                    .iter()
                    .map(|(id, weight)| format!("{id},{weight}"))
                    .collect();
                write!(f, "group {}", members.join("/"))
            }
            Self::Other => f.write_str("of another kind"),
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Device { source, .. } | Self::Nexthop { source, .. }) = self else {
            return f.write_str(if *self == Self::Unreachable {
                "unreachable"
            } else {
                "otherwise"
            });
        };
        match self {
            Self::Device { ifindex, .. } => write!(f, "dev #{ifindex}")?,
            Self::Nexthop { id, .. } => write!(f, "nhid {id}")?,
            Self::Unreachable | Self::Other => {}
        }
        source.map_or(Ok(()), |source| write!(f, " src {source}"))
    }
}

/// Somebody else's route where one of ours should be. It stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The key both want.
    pub key: Key,
    /// Protocol of the route that is there (`rtnetlink(7)`).
    pub protocol: u8,
}

/// Whether what is not wanted may be removed, by protocol. Not before everything that could want it has been heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Routes to workloads and of blocks.
    pub workloads: bool,
    /// Routes learnt over BGP, and nexthop objects.
    pub bgp: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Requests, in order: nexthop objects, routes, removals of routes, of groups, of single nexthop objects.
    pub ops: Vec<Op>,
    /// Routes that cannot be had.
    pub conflicts: Vec<Conflict>,
}

/// The way from one to the other.
#[must_use]
pub fn diff(have: &Kernel, want: &BTreeMap<Key, Route>, sweep: Sweep) -> Plan {
    let mut plan = Plan::default();
    let wanted: BTreeMap<_, _> = want
        .iter()
        .filter(|(key, _)| match have.foreign.get(key) {
            Some(protocol) if !have.routes.contains_key(key) => {
                plan.conflicts.push(Conflict {
                    key: **key,
                    protocol: *protocol,
                });
                false
            }
            _ => true,
        })
        .collect();
    let mut nexthops = Nexthops::of(have);
    nexthops.change_in_place(have, &wanted, sweep.bgp);
    for route in wanted.values() {
        if let Route::Bgp { legs, .. } = route {
            nexthops.provide(legs);
        }
    }
    plan.ops = nexthops.take_ops();

    let mut used = BTreeSet::new();
    for (key, route) in &wanted {
        let there = have.routes.get(key);
        let Some(via) = nexthops.via(route, there) else {
            continue;
        };
        if let Via::Nexthop { id, .. } = via {
            used.insert(id);
        }
        let entry = Entry {
            protocol: route.protocol(),
            via,
        };
        match there {
            None => plan.ops.push(Op::AddRoute(**key, entry)),
            Some(there) if *there != entry => plan.ops.push(Op::ReplaceRoute(**key, entry)),
            Some(_) => {}
        }
    }
    for (key, entry) in &have.routes {
        let swept = match entry.protocol {
            WORKLOAD_PROTOCOL => sweep.workloads,
            BGP_PROTOCOL => sweep.bgp,
            _ => false,
        };
        if swept && !wanted.contains_key(key) {
            plan.ops.push(Op::DeleteRoute(*key, entry.protocol));
        }
    }
    if sweep.bgp {
        plan.ops
            .extend(nexthops.unused(&used).map(Op::DeleteNexthop));
    }
    plan
}

/// Our nexthop objects, as they will be once the ops are done.
pub(super) struct Nexthops<'a> {
    objects: BTreeMap<u32, Nexthop>,
    taken: &'a BTreeSet<u32>,
    by_leg: BTreeMap<Leg, u32>,
    /// Where routes with these legs are led to. A single leg's own object comes before a group of one.
    by_legs: BTreeMap<Legs, u32>,
    leads_to: BTreeMap<u32, Legs>,
    ops: Vec<Op>,
    next: u32,
}

impl<'a> Nexthops<'a> {
    pub(super) fn of(have: &'a Kernel) -> Self {
        let mut nexthops = Self {
            objects: have.nexthops.clone(),
            taken: &have.foreign_nexthops,
            by_leg: BTreeMap::new(),
            by_legs: BTreeMap::new(),
            leads_to: BTreeMap::new(),
            ops: Vec::new(),
            next: FIRST_NEXTHOP,
        };
        for (id, nexthop) in &have.nexthops {
            if let Nexthop::Leg(leg) = nexthop {
                nexthops.by_leg.entry(*leg).or_insert(*id);
            }
        }
        for id in have.nexthops.keys() {
            nexthops.index(*id);
        }
        nexthops
    }

    fn index(&mut self, id: u32) {
        self.leads_to.remove(&id);
        if let Some(legs) = self.members_of(id) {
            self.leads_to.insert(id, legs.clone());
            let plain = matches!(self.objects.get(&id), Some(Nexthop::Leg(_)));
            let entry = self.by_legs.entry(legs).or_insert(id);
            if plain && !matches!(self.objects.get(entry), Some(Nexthop::Leg(_))) {
                *entry = id;
            }
        }
    }

    /// Where an object leads.
    pub(super) fn legs(&self, id: u32) -> Option<&Legs> {
        self.leads_to.get(&id)
    }

    fn members_of(&self, id: u32) -> Option<Legs> {
        match self.objects.get(&id)? {
            Nexthop::Leg(leg) => Legs::new([(*leg, 1)]),
            Nexthop::Group(members) => {
                let legs = members
                    .iter()
                    .map(|(member, weight)| match self.objects.get(member) {
                        Some(Nexthop::Leg(leg)) => Some((*leg, *weight)),
                        _ => None,
                    });
                Legs::new(legs.collect::<Option<Vec<_>>>()?)
            }
            Nexthop::Other => None,
        }
    }

    fn leads(&self, id: u32, legs: &Legs) -> bool {
        self.legs(id) == Some(legs)
    }

    fn id_of(&self, via: Via) -> Option<u32> {
        match via {
            Via::Nexthop { id, .. } => self.objects.contains_key(&id).then_some(id),
            _ => None,
        }
    }

    /// Groups with legs that nobody wants get the legs which most of their routes want now. Before a sweep, a group
    /// that an unwanted route uses is left alone: that route may yet prove to be wanted.
    fn change_in_place(&mut self, have: &Kernel, wanted: &BTreeMap<&Key, &Route>, sweep: bool) {
        let all: BTreeSet<&Legs> = wanted
            .values()
            .filter_map(|route| match route {
                Route::Bgp { legs, .. } => Some(legs),
                _ => None,
            })
            .collect();
        let mut votes: BTreeMap<u32, BTreeMap<&Legs, usize>> = BTreeMap::new();
        let mut held = BTreeSet::new();
        for (key, entry) in &have.routes {
            let Some(id) = self.id_of(entry.via) else {
                continue;
            };
            match wanted.get(key) {
                Some(Route::Bgp { legs, .. }) => {
                    *votes.entry(id).or_default().entry(legs).or_default() += 1
                }
                _ if !sweep => {
                    held.insert(id);
                }
                _ => {}
            }
        }
        for (id, votes) in votes {
            let group = matches!(self.objects.get(&id), Some(Nexthop::Group(_)));
            let orphan = self.legs(id).is_none_or(|legs| !all.contains(legs));
            if !group || !orphan || held.contains(&id) {
                continue;
            }
            if let Some((legs, _)) = votes.into_iter().max_by_key(|(_, count)| *count) {
                self.replace(id, legs);
            }
        }
    }

    /// Gives a group other legs.
    pub(super) fn replace(&mut self, id: u32, legs: &Legs) {
        self.by_legs.retain(|_, object| *object != id);
        let Some(members) = self.members(legs) else {
            return;
        };
        let members = Nexthop::Group(members);
        self.objects.insert(id, members.clone());
        self.ops.push(Op::ReplaceNexthop(id, members));
        self.index(id);
    }

    /// Where a wanted route is led to; None: the numbers of objects are used up.
    pub(super) fn via(&self, route: &Route, there: Option<&Entry>) -> Option<Via> {
        Some(match route {
            Route::Workload { ifindex, source } => Via::Device {
                ifindex: *ifindex,
                source: *source,
            },
            Route::Unreachable => Via::Unreachable,
            Route::Bgp { legs, source } => {
                // Any object with these legs will do: a route is not moved from one to another like it.
                let now = there
                    .and_then(|entry| self.id_of(entry.via))
                    .filter(|id| self.leads(*id, legs));
                Via::Nexthop {
                    id: now.or_else(|| self.by_legs.get(legs).copied())?,
                    source: *source,
                }
            }
        })
    }

    /// The requests so far.
    pub(super) fn take_ops(&mut self) -> Vec<Op> {
        std::mem::take(&mut self.ops)
    }

    /// Makes the object for these legs, unless there is one.
    pub(super) fn provide(&mut self, legs: &Legs) {
        if self.by_legs.contains_key(legs) {
            return;
        }
        if let Some(leg) = legs.single() {
            self.leg(leg);
        } else if let Some(members) = self.members(legs) {
            self.add(Nexthop::Group(members));
        }
    }

    fn members(&mut self, legs: &Legs) -> Option<BTreeMap<u32, u8>> {
        legs.iter()
            .map(|(leg, weight)| Some((self.leg(leg)?, weight)))
            .collect()
    }

    fn leg(&mut self, leg: Leg) -> Option<u32> {
        if let Some(id) = self.by_leg.get(&leg) {
            return Some(*id);
        }
        let id = self.add(Nexthop::Leg(leg))?;
        self.by_leg.insert(leg, id);
        Some(id)
    }

    fn add(&mut self, nexthop: Nexthop) -> Option<u32> {
        let free = |id: &u32| !self.objects.contains_key(id) && !self.taken.contains(id);
        let id = (self.next..=LAST_NEXTHOP).find(free)?;
        self.next = id + 1;
        self.objects.insert(id, nexthop.clone());
        self.ops.push(Op::AddNexthop(id, nexthop));
        self.index(id);
        Some(id)
    }

    /// Objects that neither routes nor groups in use refer to: groups first.
    pub(super) fn unused(&self, used: &BTreeSet<u32>) -> impl Iterator<Item = u32> {
        let mut needed = used.clone();
        for id in used {
            if let Some(Nexthop::Group(members)) = self.objects.get(id) {
                needed.extend(members.keys());
            }
        }
        let unused = self
            .objects
            .iter()
            .filter(move |(id, _)| !needed.contains(id));
        let (groups, legs): (Vec<_>, Vec<_>) =
            unused.partition(|(_, object)| matches!(object, Nexthop::Group(_)));
        groups
            .into_iter()
            .chain(legs)
            .map(|(id, _)| *id)
            .collect::<Vec<_>>()
            .into_iter()
    }
}

#[cfg(test)]
pub(super) mod tests;
