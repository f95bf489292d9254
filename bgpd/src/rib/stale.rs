//! Paths whose source may not stand by them any more (RFC 4724, RFC 9494).

use crds::net::Family;

use super::prefixes::at;
use super::table::{NONE, Rib};
use super::{Freshness, PrefixId, SourceId};

impl Rib {
    /// The source may no longer stand by its paths of a family: each is stale until it comes again. Those that were
    /// stale before stay what they are.
    pub fn mark_stale(&mut self, source: SourceId, family: Family) {
        // A stale path is as good as a fresh one: nothing is decided anew.
        self.age(source, family, Freshness::Fresh, Freshness::Stale);
    }

    /// Stale paths of a source and family are from now on used only where there is no other.
    pub fn set_long_lived(&mut self, source: SourceId, family: Family) {
        for id in self.age(source, family, Freshness::Stale, Freshness::LongLived) {
            self.touch(id);
        }
    }

    /// Removes the paths of a source and family that have not come again since they were marked.
    pub fn sweep_stale(&mut self, source: SourceId, family: Family) {
        if self.source_count(source, family).stale > 0 {
            self.remove_paths(source, Some(family), |path| {
                path.freshness != Freshness::Fresh
            });
        }
    }

    /// Makes a source's paths of a family that are `from` into `to`; their prefixes.
    fn age(
        &mut self,
        source: SourceId,
        family: Family,
        from: Freshness,
        to: Freshness,
    ) -> Vec<PrefixId> {
        let mut aged = Vec::new();
        for id in self.ids_of(source) {
            if self.prefixes.family(id) != family {
                continue;
            }
            let mut next = self.entries[id.index()].first;
            while next != NONE {
                let path = at(next);
                let record = self.paths[path];
                next = record.next;
                if record.from == source && record.freshness == from {
                    self.count(id, &record, false);
                    self.paths[path].freshness = to;
                    let now = self.paths[path];
                    self.count(id, &now, true);
                    aged.push(id);
                }
            }
        }
        aged
    }
}
