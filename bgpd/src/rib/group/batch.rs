//! Paths put together by what they are told with.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use crds::net::{Cidr, Family};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::super::{Best, PrefixId, Rib, SourceId};
use super::Key;
use super::chunk::{Messages, Run};
use crate::policy::export;
use crate::wire::writer::{Announcer, withdraw_all};

/// Prefixes to be announced in one step. Paths with the same attributes leave with the same attributes.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// By path and family; and by prefix, where a filter looks at prefixes.
    places: HashMap<Kind, usize, RandomState>,
    by_prefix: Option<bool>,
    exports: Vec<Export>,
    last: Option<(Kind, usize)>,
    items: Vec<(usize, PrefixId)>,
    /// Bytes of all attributes, about.
    pub(super) size: usize,
}

type Kind = (Best, Family, Option<PrefixId>);

#[derive(Debug)]
struct Export {
    best: Best,
    outcome: Outcome,
}

/// What becomes of paths with the same attributes from one source.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Policy does not tell them.
    Refused,
    /// They do not fit into a message.
    TooLong,
    Told(Announcer),
}

/// What a batch is as messages.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) bytes: Bytes,
    pub(super) runs: Vec<Run>,
    /// Prefixes in the messages, and the path each is told with.
    pub(super) told: Vec<(PrefixId, Best)>,
    /// Prefixes that could not be told after all.
    pub(super) too_long: Vec<PrefixId>,
}

impl Batch {
    /// Where the export of a path to a prefix is.
    pub(super) fn place(&mut self, rib: &Rib, key: &Key, best: Best, id: PrefixId) -> usize {
        let filters = &key.to.filters;
        let by_prefix = *self
            .by_prefix
            .get_or_insert_with(|| filters.looks_at_prefix());
        let alone = by_prefix.then_some(id);
        let kind = (best, rib.family(id), alone);
        if let Some((last, place)) = self.last
            && last == kind
        {
            return place;
        }
        let place = match self.places.get(&kind) {
            Some(place) => *place,
            None => {
                let outcome = outcome(rib, key, best, rib.prefix(id));
                self.size += rib.sets.size(best.set);
                self.exports.push(Export { best, outcome });
                let place = self.exports.len() - 1;
                self.places.insert(kind, place);
                place
            }
        };
        self.last = Some((kind, place));
        place
    }

    pub(super) fn outcome(&self, place: usize) -> &Outcome {
        &self.exports[place].outcome
    }

    /// A prefix is to be announced with the export at that place.
    pub(super) fn add(&mut self, place: usize, id: PrefixId) {
        self.items.push((place, id));
    }

    /// The fewest messages, in the order in which the attributes came.
    pub(super) fn write(mut self, rib: &Rib) -> Written {
        let mut written = Written::default();
        // Mostly it is in order already, as it came from one peer.
        self.items.sort_by_key(|(place, _)| *place);
        let (mut out, mut prefixes) = (Vec::new(), Vec::<Cidr>::new());
        written.told.reserve(self.items.len());
        for items in self.items.chunk_by(|one, other| one.0 == other.0) {
            let Some(export) = items.first().map(|(place, _)| &self.exports[*place]) else {
                continue;
            };
            let Outcome::Told(announcer) = &export.outcome else {
                continue;
            };
            prefixes.clear();
            prefixes.extend(items.iter().map(|(_, id)| rib.prefix(*id)));
            let start = out.len();
            let ids = items.iter().map(|(_, id)| *id);
            let messages = match announcer.write(&prefixes, &mut out) {
                Ok(messages) => {
                    written.told.extend(ids.map(|id| (id, export.best)));
                    messages
                }
                // A long prefix may not fit where the others do.
                Err(_) => {
                    out.truncate(start);
                    let told = written.told.len();
                    for (id, prefix) in ids.zip(&prefixes) {
                        match announcer.write(&[*prefix], &mut out) {
                            Ok(_) => written.told.push((id, export.best)),
                            Err(_) => written.too_long.push(id),
                        }
                    }
                    written.told.len() - told
                }
            };
            match written.runs.last_mut() {
                _ if messages == 0 => {}
                Some(run) if run.from == export.best.from => {
                    run.bytes.end = out.len();
                    run.messages += messages;
                }
                _ => written.runs.push(Run {
                    from: export.best.from,
                    bytes: start..out.len(),
                    messages,
                }),
            }
        }
        written.bytes = out.into();
        written
    }
}

fn outcome(rib: &Rib, key: &Key, best: Best, prefix: Cidr) -> Outcome {
    let Some(source) = rib.source(best.from) else {
        return Outcome::Refused;
    };
    let family = prefix.family();
    let plain = key.dialect.four_octet_as && key.dialect.internal == key.to.internal;
    if let Some(fields) = rib.sets.fields(best.set).filter(|_| plain) {
        let mut bytes = Vec::with_capacity(128);
        let learnt = (&fields, rib.sets.next_hop(best.set));
        match export::write_plain(family, learnt, source, &key.to, &mut bytes) {
            Some(Ok(next_hop)) => {
                return match Announcer::of(bytes, next_hop, family, key.dialect) {
                    Ok(announcer) => Outcome::Told(announcer),
                    Err(_) => Outcome::TooLong,
                };
            }
            Some(Err(_)) => return Outcome::Refused,
            None => {}
        }
    }
    let attributes = rib.sets.get(best.set);
    match export::export_owned(prefix, attributes, source, &key.to) {
        Ok(told) => match Announcer::new(&told, prefix.family(), key.dialect) {
            Ok(announcer) => Outcome::Told(announcer),
            Err(_) => Outcome::TooLong,
        },
        Err(_) => Outcome::Refused,
    }
}

/// The fewest messages that withdraw the prefixes, of both families.
pub(super) fn withdrawals(rib: &Rib, gone: impl Iterator<Item = PrefixId> + Clone) -> Messages {
    let (mut out, mut messages) = (Vec::new(), 0);
    for family in Family::ALL {
        let prefixes: Vec<Cidr> = gone
            .clone()
            .filter(|id| rib.family(*id) == family)
            .map(|id| rib.prefix(id))
            .collect();
        messages += withdraw_all(family, &prefixes, &mut out);
    }
    (out.into(), messages)
}

/// Withdrawals for members of whose own paths some have become or ceased to be the best. The others get those of
/// `gone`, prefixes each with the source of the path it was told with.
pub(super) fn special(
    rib: &Rib,
    gone: &[(PrefixId, SourceId)],
    own: &[(SourceId, PrefixId)],
    is_member: impl Fn(SourceId) -> bool,
) -> BTreeMap<SourceId, Messages> {
    let sources = gone.iter().map(|(_, from)| *from);
    let concerned: BTreeSet<SourceId> = sources
        .chain(own.iter().map(|(member, _)| *member))
        .filter(|source| is_member(*source))
        .collect();
    let messages = |member: SourceId| {
        let gone = gone.iter().filter(move |(_, from)| *from != member);
        let own = own.iter().filter(move |(it, _)| *it == member);
        withdrawals(rib, gone.map(|(id, _)| *id).chain(own.map(|(_, id)| *id)))
    };
    concerned.into_iter().map(|it| (it, messages(it))).collect()
}
