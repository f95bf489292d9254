//! From what the kernel has to what is wanted, for some keys only. The rest is in step already, so that this ends where
//! [`diff`](super::diff::diff) would: tests hold the two together.

use std::collections::{BTreeMap, BTreeSet};

use super::diff::{Conflict, Nexthops, Op, Plan, Sweep};
use super::model::{
    BGP_PROTOCOL, Entry, Kernel, Key, Legs, Nexthop, Route, Via, WORKLOAD_PROTOCOL,
};
use super::table::Uses;

/// The way there for these keys.
pub(super) fn step(
    have: &Kernel,
    want: &BTreeMap<Key, Route>,
    keys: &BTreeSet<Key>,
    uses: &Uses,
    sweep: Sweep,
) -> Plan {
    let mut plan = Plan::default();
    let mut wanted = BTreeMap::new();
    for key in keys {
        let Some(route) = want.get(key) else { continue };
        match have.foreign.get(key) {
            Some(protocol) if !have.routes.contains_key(key) => plan.conflicts.push(Conflict {
                key: *key,
                protocol: *protocol,
            }),
            _ => {
                wanted.insert(*key, route);
            }
        }
    }
    let mut nexthops = Nexthops::of(have);
    change_in_place(&mut nexthops, have, keys, &wanted, uses, sweep);
    for route in wanted.values() {
        if let Route::Bgp { legs, .. } = route {
            nexthops.provide(legs);
        }
    }
    plan.ops = nexthops.take_ops();

    let mut objects = uses.objects.clone();
    for (key, route) in &wanted {
        let there = have.routes.get(key);
        let Some(via) = nexthops.via(route, there) else {
            continue;
        };
        let entry = Entry {
            protocol: route.protocol(),
            via,
        };
        if there == Some(&entry) {
            continue;
        }
        if let Via::Nexthop { id, .. } = via {
            *objects.entry(id).or_default() += 1;
        }
        release(&mut objects, there);
        plan.ops.push(match there {
            None => Op::AddRoute(*key, entry),
            Some(_) => Op::ReplaceRoute(*key, entry),
        });
    }
    for key in keys {
        let Some(entry) = have.routes.get(key) else {
            continue;
        };
        let swept = match entry.protocol {
            WORKLOAD_PROTOCOL => sweep.workloads,
            BGP_PROTOCOL => sweep.bgp,
            _ => false,
        };
        if swept && !wanted.contains_key(key) {
            release(&mut objects, Some(entry));
            plan.ops.push(Op::DeleteRoute(*key, entry.protocol));
        }
    }
    if sweep.bgp {
        let used = objects.into_iter().filter(|(_, uses)| *uses > 0);
        let used: BTreeSet<u32> = used.map(|(id, _)| id).collect();
        plan.ops
            .extend(nexthops.unused(&used).map(Op::DeleteNexthop));
    }
    plan
}

fn release(objects: &mut BTreeMap<u32, usize>, entry: Option<&Entry>) {
    if let Some(Entry {
        via: Via::Nexthop { id, .. },
        ..
    }) = entry
        && let Some(uses) = objects.get_mut(id)
    {
        *uses = uses.saturating_sub(1);
    }
}

/// Groups with legs that nobody wants any more get those that most of their routes want now. All of these routes are among
/// the keys, as they wanted the old legs before.
fn change_in_place(
    nexthops: &mut Nexthops<'_>,
    have: &Kernel,
    keys: &BTreeSet<Key>,
    wanted: &BTreeMap<Key, &Route>,
    uses: &Uses,
    sweep: Sweep,
) {
    let mut votes: BTreeMap<u32, BTreeMap<&Legs, usize>> = BTreeMap::new();
    let mut going: BTreeMap<u32, usize> = BTreeMap::new();
    for key in keys {
        let Some(Entry {
            via: Via::Nexthop { id, .. },
            ..
        }) = have.routes.get(key)
        else {
            continue;
        };
        match wanted.get(key) {
            Some(Route::Bgp { legs, .. }) => {
                *votes.entry(*id).or_default().entry(legs).or_default() += 1;
            }
            _ if sweep.bgp => *going.entry(*id).or_default() += 1,
            _ => {}
        }
    }
    for (id, votes) in votes {
        let group = matches!(have.nexthops.get(&id), Some(Nexthop::Group(_)));
        let legs = nexthops.legs(id);
        let orphan = legs.is_none_or(|legs| !uses.legs.contains_key(legs));
        // What an unwanted route uses that may yet prove to be wanted is left alone.
        let known = votes.values().sum::<usize>() + going.get(&id).copied().unwrap_or_default();
        let held = uses.objects.get(&id).is_some_and(|uses| *uses > known);
        if group
            && orphan
            && !held
            && let Some((legs, _)) = votes.into_iter().max_by_key(|(_, count)| *count)
        {
            nexthops.replace(id, legs);
        }
    }
}
