//! What a peer has been told, and what it is still to be told.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use crds::net::{Cidr, Family};

use super::{PrefixId, Rib};
use crate::policy::export::{self, To};
use crate::wire::{Attributes, Dialect, update};

/// The adj-RIB-out of one established session.
#[derive(Debug, Default)]
pub struct AdjOut {
    told: HashMap<PrefixId, (Family, Arc<Attributes>)>,
    dirty: BTreeSet<PrefixId>,
    /// Prefixes to be told again although nothing changed.
    repeat: BTreeSet<PrefixId>,
}

/// Messages for a peer.
#[derive(Debug, Default)]
pub struct Batch {
    /// UPDATEs, in their order.
    pub messages: Vec<Bytes>,
    /// Prefixes that could not be told, as their attributes are too long; those told before are withdrawn.
    pub too_long: Vec<Cidr>,
}

/// Prefixes looked at for one batch: enough to fill messages well, and little to hold at once.
const BATCH: usize = 16_384;

impl AdjOut {
    /// The prefix is to be looked at.
    pub fn touch(&mut self, id: PrefixId) {
        self.dirty.insert(id);
    }

    /// Everything is to be looked at: what there is, and what has been told.
    pub fn touch_all(&mut self, rib: &Rib) {
        self.dirty.extend(rib.entries().map(|(id, _)| id));
        self.dirty.extend(self.told.keys());
    }

    /// Everything of a family is to be told again.
    pub fn repeat(&mut self, family: Family) {
        let ids = self
            .told
            .iter()
            .filter(|(_, (it, _))| *it == family)
            .map(|(id, _)| *id);
        self.repeat.extend(ids);
        self.dirty.extend(&self.repeat);
    }

    /// Whether there is nothing to be looked at.
    pub fn is_done(&self) -> bool {
        self.dirty.is_empty()
    }

    /// How many prefixes of a family have been told.
    pub fn count(&self, family: Family) -> usize {
        self.told.values().filter(|(it, _)| *it == family).count()
    }

    /// The attributes a prefix has been told with.
    pub fn told(&self, id: PrefixId) -> Option<&Arc<Attributes>> {
        self.told.get(&id).map(|(_, attributes)| attributes)
    }

    /// The session is over: nothing has been told any more.
    pub fn clear(&mut self, rib: &mut Rib) {
        // In order: numbers become free in this order, and a replay has to give them out alike.
        let told: BTreeSet<PrefixId> = std::mem::take(&mut self.told).into_keys().collect();
        for id in told {
            rib.told(id, false);
        }
        self.dirty.clear();
        self.repeat.clear();
    }

    /// Messages that bring the peer up to date, as far as one batch goes.
    pub fn batch(&mut self, rib: &mut Rib, to: &To, dialect: Dialect) -> Batch {
        let mut gone: [Vec<(PrefixId, Cidr)>; 2] = [Vec::new(), Vec::new()];
        let mut groups = Groups::default();
        // Paths with the same attributes leave with the same attributes.
        let mut exported = HashMap::new();
        for _ in 0..BATCH {
            let Some(id) = self.dirty.pop_first() else {
                break;
            };
            let entry = rib.entry(id);
            let (prefix, family) = (entry.prefix, entry.prefix.family());
            let best = entry.best.clone();
            let wanted = best
                .filter(|best| Some(best.from) != to.source)
                .and_then(|best| {
                    // A filter that looks at prefixes judges each by itself.
                    let alone = to.filters.looks_at_prefix().then_some(id);
                    let key = (best.from, Arc::as_ptr(&best.attributes), family, alone);
                    let known = exported.entry(key).or_insert_with(|| {
                        let source = rib.source(best.from)?;
                        let attributes =
                            export::export(prefix, &best.attributes, source, to).ok()?;
                        Some(rib.interner.intern(attributes))
                    });
                    known.clone()
                });
            let repeat = self.repeat.remove(&id);
            match (wanted, self.told.get(&id)) {
                (None, None) => rib.release(id),
                (None, Some(_)) => gone[index(family)].push((id, prefix)),
                (Some(wanted), Some((_, have))) if !repeat && Arc::ptr_eq(&wanted, have) => {}
                (Some(wanted), _) => groups.add(wanted, family, id, prefix),
            }
        }
        let mut batch = Batch::default();
        for Group {
            attributes,
            family,
            members,
        } in groups.all
        {
            let prefixes: Vec<Cidr> = members.iter().map(|(_, prefix)| *prefix).collect();
            match update::announce(&attributes, family, &prefixes, dialect) {
                Ok(messages) => {
                    batch.messages.extend(messages);
                    for (id, _) in members {
                        if self.told.insert(id, (family, attributes.clone())).is_none() {
                            rib.told(id, true);
                        }
                    }
                }
                Err(update::TooLong) => {
                    batch.too_long.extend(&prefixes);
                    gone[index(family)]
                        .extend(members.iter().filter(|(id, _)| self.told.contains_key(id)));
                }
            }
        }
        let mut withdrawals = Vec::new();
        for (family, members) in Family::ALL.into_iter().zip(gone) {
            let prefixes: Vec<Cidr> = members.iter().map(|(_, prefix)| *prefix).collect();
            withdrawals.extend(update::withdraw(family, &prefixes));
            for (id, _) in members {
                self.told.remove(&id);
                rib.told(id, false);
            }
        }
        // A peer frees what is gone before it takes what is new.
        batch.messages.splice(0..0, withdrawals);
        batch
    }
}

/// Prefixes of one family that are told with the same attributes.
struct Group {
    attributes: Arc<Attributes>,
    family: Family,
    members: Vec<(PrefixId, Cidr)>,
}

/// Prefixes by attributes, in the order the attributes first came.
#[derive(Default)]
struct Groups {
    all: Vec<Group>,
    places: HashMap<(*const Attributes, Family), usize>,
}

impl Groups {
    fn add(&mut self, attributes: Arc<Attributes>, family: Family, id: PrefixId, prefix: Cidr) {
        let place = *self
            .places
            .entry((Arc::as_ptr(&attributes), family))
            .or_insert_with(|| {
                self.all.push(Group {
                    attributes,
                    family,
                    members: Vec::new(),
                });
                self.all.len() - 1
            });
        self.all[place].members.push((id, prefix));
    }
}

fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}
