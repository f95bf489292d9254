//! All adj-RIBs-in and the loc-RIB in one table.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crds::net::{Cidr, Family};

use super::decide::{self, Candidate, Decision};
use super::{
    Best, Entry, Freshness, Interner, Path, PrefixId, Source, SourceCount, SourceId, Verdict,
};
use crate::Millis;
use crate::nexthop::{NextHop, Resolution, Table};
use crate::policy::ImportRefusal;
use crate::speaker::Leg;
use crate::wire::Attributes;

/// The routing tables.
#[derive(Debug, Default)]
pub struct Rib {
    index: HashMap<Cidr, PrefixId>,
    entries: Vec<Entry>,
    free: Vec<PrefixId>,
    sources: BTreeMap<SourceId, Source>,
    counts: BTreeMap<(SourceId, Family), SourceCount>,
    /// Prefixes whose paths have changed since the last decision.
    pending: BTreeSet<PrefixId>,
    resolved: HashMap<(NextHop, Option<u32>), Option<Resolution>>,
    forget_at: usize,
    /// All attribute sets.
    pub interner: Interner,
}

/// What a decision changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The prefix's number.
    pub id: PrefixId,
    /// The prefix.
    pub prefix: Cidr,
    /// Another best path, or the same with other attributes, or none.
    pub best_changed: bool,
    /// The ways to it, when they are others now.
    pub legs: Option<Arc<[Leg]>>,
}

/// Fewer remembered next hops than this are not worth forgetting.
const FORGET_MIN: usize = 1024;

impl Rib {
    /// Names a source, or changes what is known of it.
    pub fn set_source(&mut self, id: SourceId, source: Source) {
        if self.sources.insert(id, source.clone()) != Some(source) {
            self.touch_where(|path| path.from == id);
        }
    }

    /// Removes a source and all its paths.
    pub fn remove_source(&mut self, id: SourceId) {
        self.remove_paths(|path, _| path.from == id);
        self.sources.remove(&id);
    }

    /// A path to a prefix, in place of the one that the source announced before with that path identifier.
    pub fn insert(
        &mut self,
        from: SourceId,
        path_id: u32,
        prefix: Cidr,
        attributes: &Arc<Attributes>,
        verdict: Verdict,
        now: Millis,
    ) {
        let id = self.number(prefix);
        let (refused, changed) = match verdict {
            Ok(changed) => (None, changed),
            Err(refused) => (Some(refused), None),
        };
        let path = Path {
            from,
            id: path_id,
            received: changed.is_some().then(|| attributes.clone()),
            attributes: changed.unwrap_or_else(|| attributes.clone()),
            freshness: Freshness::Fresh,
            refused,
            since: now,
        };
        let (entry, counts) = (
            &mut self.entries[usize::try_from(id.0).unwrap_or(usize::MAX)],
            &mut self.counts,
        );
        let have = entry.paths.iter_mut().find(|it| it.key() == path.key());
        if let Some(have) = have {
            let since = have.since;
            count(counts, prefix, have, false);
            let before = std::mem::replace(have, path);
            count(counts, prefix, have, true);
            let same =
                Arc::ptr_eq(&have.attributes, &before.attributes) && have.refused == before.refused;
            if same {
                have.since = since;
            }
            if same && before.freshness != Freshness::LongLived {
                return;
            }
        } else {
            count(counts, prefix, &path, true);
            entry.paths.push(path);
        }
        self.pending.insert(id);
    }

    /// The source has no path of that identifier to the prefix any more.
    pub fn withdraw(&mut self, from: SourceId, path_id: u32, prefix: Cidr) {
        let Some(id) = self.index.get(&prefix).copied() else {
            return;
        };
        let entry = &mut self.entries[usize::try_from(id.0).unwrap_or(usize::MAX)];
        let of = |path: &Path| path.key() == (from, path_id);
        if let Some(at) = entry.paths.iter().position(of) {
            count(&mut self.counts, prefix, &entry.paths.remove(at), false);
            self.pending.insert(id);
        }
    }

    /// The source may no longer stand by its paths of a family: each is stale until it comes again. Those that were
    /// stale before stay what they are.
    pub fn mark_stale(&mut self, source: SourceId, family: Family) {
        self.edit(source, family, |path| {
            if path.freshness == Freshness::Fresh {
                path.freshness = Freshness::Stale;
            }
            // A stale path is as good as a fresh one.
            false
        });
    }

    /// Stale paths of a source and family are from now on used only where there is no other.
    pub fn set_long_lived(&mut self, source: SourceId, family: Family) {
        self.edit(source, family, |path| {
            let changes = path.freshness == Freshness::Stale;
            if changes {
                path.freshness = Freshness::LongLived;
            }
            changes
        });
    }

    /// Removes the paths of a source and family that have not come again since they were marked.
    pub fn sweep_stale(&mut self, source: SourceId, family: Family) {
        if self.source_count(source, family).stale > 0 {
            self.remove_paths(|path, prefix| {
                path.from == source
                    && prefix.family() == family
                    && path.freshness != Freshness::Fresh
            });
        }
    }

    /// How many paths of a family a source has.
    pub fn source_count(&self, source: SourceId, family: Family) -> SourceCount {
        self.counts
            .get(&(source, family))
            .copied()
            .unwrap_or_default()
    }

    /// Removes a source's paths of which `gone` says so, whatever their freshness.
    pub fn withdraw_where(&mut self, source: SourceId, gone: impl Fn(&Path) -> bool) {
        self.remove_paths(|path, _| path.from == source && gone(path));
    }

    fn remove_paths(&mut self, gone: impl Fn(&Path, Cidr) -> bool) {
        for (id, entry) in numbered(&mut self.entries) {
            let prefix = entry.prefix;
            let before = entry.paths.len();
            for path in entry.paths.extract_if(.., |path| gone(path, prefix)) {
                count(&mut self.counts, prefix, &path, false);
            }
            if entry.paths.len() != before {
                self.pending.insert(id);
            }
        }
    }

    /// Changes paths of a source and family; what `change` says yes to is decided again.
    fn edit(
        &mut self,
        source: SourceId,
        family: Family,
        mut change: impl FnMut(&mut Path) -> bool,
    ) {
        for (id, entry) in numbered(&mut self.entries) {
            if entry.prefix.family() != family {
                continue;
            }
            for path in entry.paths.iter_mut().filter(|path| path.from == source) {
                count(&mut self.counts, entry.prefix, path, false);
                if change(path) {
                    self.pending.insert(id);
                }
                count(&mut self.counts, entry.prefix, path, true);
            }
        }
    }

    /// Judges import anew, of every path in `within` or of all, from what was received.
    pub fn judge_again(
        &mut self,
        within: Option<Cidr>,
        judge: impl Fn(SourceId, Cidr, &Attributes) -> Result<Option<Attributes>, ImportRefusal>,
    ) {
        for (id, entry) in numbered(&mut self.entries) {
            if within.is_some_and(|within| !within.covers(entry.prefix)) {
                continue;
            }
            for path in entry
                .paths
                .iter_mut()
                .filter(|path| path.from != SourceId::LOCAL)
            {
                let received = path.as_received().clone();
                let (refused, changed) = match judge(path.from, entry.prefix, &received) {
                    Ok(changed) => (None, changed.map(|it| self.interner.intern(it))),
                    Err(refused) => (Some(refused), None),
                };
                let attributes = changed.as_ref().unwrap_or(&received);
                if path.refused != refused || !Arc::ptr_eq(&path.attributes, attributes) {
                    count(&mut self.counts, entry.prefix, path, false);
                    path.refused = refused;
                    path.attributes = attributes.clone();
                    path.received = changed.is_some().then_some(received);
                    count(&mut self.counts, entry.prefix, path, true);
                    self.pending.insert(id);
                }
            }
        }
    }

    /// Decides about every prefix again.
    pub fn decide_again(&mut self) {
        self.touch_where(|_| true);
    }

    /// The next-hop table changed: decides again where a next hop resolves differently.
    pub fn next_hops_changed(&mut self, table: &Table) {
        let mut changed = BTreeSet::new();
        for ((next_hop, ifindex), resolution) in &mut self.resolved {
            let now = table.resolve(*next_hop, *ifindex);
            if *resolution != now {
                *resolution = now;
                changed.insert((*next_hop, *ifindex));
            }
        }
        if changed.is_empty() {
            return;
        }
        for (id, entry) in numbered(&mut self.entries) {
            let affected = |path: &Path| {
                let ifindex = self
                    .sources
                    .get(&path.from)
                    .and_then(|source| source.ifindex);
                changed.contains(&(path.attributes.next_hop, ifindex))
            };
            if entry.paths.iter().any(affected) {
                self.pending.insert(id);
            }
        }
    }

    /// Runs the decision process for all prefixes that need it, in the order of their numbers.
    pub fn settle(&mut self, table: &Table, max_paths: usize) -> Vec<Settled> {
        self.forget_next_hops();
        let mut settled = Vec::new();
        for id in std::mem::take(&mut self.pending) {
            self.resolve_paths(id, table);
            let entry = self.entry(id);
            let (best, legs) = self.choose(entry, max_paths);
            let entry = self.entry_mut(id);
            let best_changed = entry.best != best;
            entry.best = best;
            let legs = (*entry.legs != *legs).then(|| Arc::from(legs));
            if let Some(legs) = &legs {
                entry.legs = Arc::clone(legs);
            }
            if best_changed || legs.is_some() {
                settled.push(Settled {
                    id,
                    prefix: entry.prefix,
                    best_changed,
                    legs,
                });
            }
            self.release(id);
        }
        settled
    }

    /// Gives free the number of a prefix without paths that no peer has been told of.
    pub(super) fn release(&mut self, id: PrefixId) {
        let entry = self.entry(id);
        if entry.paths.is_empty() && entry.told == 0 && entry.best.is_none() {
            let prefix = entry.prefix;
            if self.index.get(&prefix) == Some(&id) {
                self.index.remove(&prefix);
                self.free.push(id);
            }
        }
    }

    /// A peer has been told of the prefix, or that it is gone.
    pub(super) fn told(&mut self, id: PrefixId, told: bool) {
        let entry = self.entry_mut(id);
        entry.told = if told {
            entry.told + 1
        } else {
            entry.told.saturating_sub(1)
        };
        if !told {
            self.release(id);
        }
    }

    /// The prefix of that number.
    pub fn entry(&self, id: PrefixId) -> &Entry {
        &self.entries[usize::try_from(id.0).unwrap_or(usize::MAX)]
    }

    /// What is known of a prefix.
    pub fn get(&self, prefix: Cidr) -> Option<&Entry> {
        self.index.get(&prefix).map(|id| self.entry(*id))
    }

    /// All prefixes with paths, in the order of their numbers.
    pub fn entries(&self) -> impl Iterator<Item = (PrefixId, &Entry)> {
        (0..)
            .map(PrefixId)
            .zip(&self.entries)
            .filter(|(_, entry)| !entry.paths.is_empty())
    }

    /// What is known of a source.
    pub fn source(&self, id: SourceId) -> Option<&Source> {
        self.sources.get(&id)
    }

    /// The whole decision about a prefix, by index of its paths; refused ones have no reason in it.
    pub fn explain(&self, entry: &Entry, max_paths: usize) -> Decision {
        let (indices, candidates) = self.candidates(entry);
        let decision = decide::decide(&candidates, max_paths);
        let mut reasons = vec![None; entry.paths.len()];
        for (index, reason) in indices.iter().zip(decision.reasons) {
            reasons[*index] = reason;
        }
        Decision {
            best: decision.best.map(|at| indices[at]),
            multipath: decision.multipath.iter().map(|at| indices[*at]).collect(),
            reasons,
        }
    }

    fn choose(&self, entry: &Entry, max_paths: usize) -> (Option<Best>, Vec<Leg>) {
        let decision = self.explain(entry, max_paths);
        let best = decision.best.map(|index| {
            let path = &entry.paths[index];
            Best {
                from: path.from,
                attributes: path.attributes.clone(),
            }
        });
        let resolutions = decision
            .multipath
            .iter()
            .filter_map(|index| self.resolution(&entry.paths[*index]));
        let mut legs: Vec<Leg> = resolutions
            .map(|it| Leg {
                address: it.gateway,
                ifindex: Some(it.ifindex),
                onlink: it.onlink,
                weight: 1,
            })
            .collect();
        legs.sort_unstable();
        legs.dedup();
        (best, legs)
    }

    fn candidates<'a>(&'a self, entry: &'a Entry) -> (Vec<usize>, Vec<Candidate<'a>>) {
        let usable = entry
            .paths
            .iter()
            .enumerate()
            .filter(|(_, path)| path.refused.is_none());
        usable
            .filter_map(|(index, path)| {
                let source = self.sources.get(&path.from)?;
                let cost = self.resolution(path).map(|it| it.cost);
                Some((
                    index,
                    Candidate {
                        attributes: &path.attributes,
                        source,
                        path_id: path.id,
                        long_lived: path.freshness == Freshness::LongLived,
                        cost,
                    },
                ))
            })
            .unzip()
    }

    fn resolution(&self, path: &Path) -> Option<Resolution> {
        let ifindex = self.sources.get(&path.from)?.ifindex;
        *self.resolved.get(&(path.attributes.next_hop, ifindex))?
    }

    /// Looks up the next hops of a prefix that are not remembered yet. Own paths have none.
    fn resolve_paths(&mut self, id: PrefixId, table: &Table) {
        let entry = &self.entries[usize::try_from(id.0).unwrap_or(usize::MAX)];
        for path in entry
            .paths
            .iter()
            .filter(|path| path.from != SourceId::LOCAL)
        {
            let ifindex = self
                .sources
                .get(&path.from)
                .and_then(|source| source.ifindex);
            let next_hop = path.attributes.next_hop;
            self.resolved
                .entry((next_hop, ifindex))
                .or_insert_with(|| table.resolve(next_hop, ifindex));
        }
    }

    /// Drops remembered next hops that no path has, when there are twice as many as last time.
    fn forget_next_hops(&mut self) {
        if self.resolved.len() < self.forget_at.max(FORGET_MIN) {
            return;
        }
        let mut used = BTreeSet::new();
        for path in self.entries.iter().flat_map(|entry| &entry.paths) {
            let ifindex = self
                .sources
                .get(&path.from)
                .and_then(|source| source.ifindex);
            used.insert((path.attributes.next_hop, ifindex));
        }
        self.resolved.retain(|key, _| used.contains(key));
        self.forget_at = self.resolved.len() * 2;
    }

    fn touch_where(&mut self, of_interest: impl Fn(&Path) -> bool) {
        for (id, entry) in numbered(&mut self.entries) {
            if entry.paths.iter().any(&of_interest) {
                self.pending.insert(id);
            }
        }
    }

    fn entry_mut(&mut self, id: PrefixId) -> &mut Entry {
        &mut self.entries[usize::try_from(id.0).unwrap_or(usize::MAX)]
    }

    fn number(&mut self, prefix: Cidr) -> PrefixId {
        if let Some(id) = self.index.get(&prefix) {
            return *id;
        }
        let entry = Entry {
            prefix,
            paths: Vec::new(),
            best: None,
            legs: Arc::from([]),
            told: 0,
        };
        let id = match self.free.pop() {
            Some(id) => {
                *self.entry_mut(id) = entry;
                id
            }
            None => {
                let id = PrefixId(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
                self.entries.push(entry);
                id
            }
        };
        self.index.insert(prefix, id);
        id
    }
}

/// Counts a path in, or out.
fn count(
    counts: &mut BTreeMap<(SourceId, Family), SourceCount>,
    prefix: Cidr,
    path: &Path,
    present: bool,
) {
    let key = (path.from, prefix.family());
    let count = counts.entry(key).or_default();
    let change = |number: &mut usize, counts: bool| match (counts, present) {
        (true, true) => *number += 1,
        (true, false) => *number -= 1,
        (false, _) => {}
    };
    change(&mut count.received, true);
    change(&mut count.accepted, path.refused.is_none());
    change(&mut count.stale, path.freshness != Freshness::Fresh);
    if count.received == 0 {
        counts.remove(&key);
    }
}

fn numbered(entries: &mut [Entry]) -> impl Iterator<Item = (PrefixId, &mut Entry)> {
    (0..).map(PrefixId).zip(entries)
}
