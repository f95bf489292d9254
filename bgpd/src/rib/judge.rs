//! Judging paths again that are in the tables already.

use crds::net::Cidr;

use super::prefixes::at;
use super::table::{NONE, PathRecord, Rib};
use super::{SetId, SourceId, Verdict};
use crate::nexthop::NextHop;
use crate::policy::ImportRefusal;
use crate::wire::Attributes;

impl Rib {
    /// Judges import anew, of every path in `within` or of all, from what was received; only of those with a next hop,
    /// received or used, or a refusal of which `concerned` says so.
    pub fn judge_again(
        &mut self,
        within: Option<Cidr>,
        concerned: impl Fn(NextHop, Option<ImportRefusal>) -> bool,
        judge: impl Fn(SourceId, Cidr, &Attributes) -> Verdict<Attributes>,
    ) {
        // Mostly it is nobody's next hop that has come or gone.
        let mut counts = self.sources.values().flat_map(|it| &it.counts);
        let refused = counts.any(|it| it.received > it.accepted);
        if !refused && !self.sets.uses(|next_hop| concerned(next_hop, None)) {
            return;
        }
        // Neighbours in the table often have the same attributes.
        let mut last: Option<(SetId, Attributes)> = None;
        for id in self.all_ids() {
            let prefix = self.prefixes.get(id);
            if within.is_some_and(|within| !within.covers(prefix)) {
                continue;
            }
            let mut next = self.entries[id.index()].first;
            while next != NONE {
                let path = next;
                let record = self.paths[at(path)];
                next = record.next;
                if record.from == SourceId::LOCAL {
                    continue;
                }
                let received = self.received.get(&path).copied().unwrap_or(record.set);
                let was = self.refusal(record.refused);
                let concerns = |set| concerned(self.sets.next_hop(set), was);
                if !concerns(record.set) && (received == record.set || !concerns(received)) {
                    continue;
                }
                let attributes = match &mut last {
                    Some((set, attributes)) if *set == received => attributes,
                    _ => &mut last.insert((received, self.sets.get(received))).1,
                };
                let verdict = judge(record.from, prefix, attributes);
                let (refused, changed) = match self.sets.intern_verdict(verdict) {
                    Ok(changed) => (None, changed),
                    Err(refused) => (Some(refused), None),
                };
                let refused = self.refused(refused);
                let set = changed.unwrap_or(received);
                if (record.refused, record.set) != (refused, set) {
                    let now = PathRecord {
                        set,
                        refused,
                        ..record
                    };
                    self.count(id, &record, false);
                    self.count(id, &now, true);
                    self.paths[at(path)] = now;
                    self.sets.hold(set);
                    self.keep_received(path, (set != received).then_some(received));
                    self.sets.drop_one(record.set);
                    self.touch_path(id, path);
                }
                if let Some(changed) = changed {
                    self.sets.drop_one(changed);
                }
            }
        }
    }
}
