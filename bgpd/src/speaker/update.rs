//! What follows from an UPDATE: paths taken, changed and gone.

use std::net::IpAddr;

use crds::net::{Cidr, Family};

use super::peer::PeerState;
use super::{Output, PeerKey, Speaker, SpeakerEvent, learn};
use crate::Millis;
use crate::policy::ImportRefusal;
use crate::policy::import::From;
use crate::rib::{Rib, SetId, Verdict};
use crate::wire::{Attributes, Plain, Update, hex};

impl Speaker {
    /// A peer's UPDATE, whatever is in it.
    pub(super) fn update(
        &mut self,
        key: &PeerKey,
        update: Update,
        now: Millis,
        out: &mut Vec<Output>,
    ) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let Some(negotiated) = peer.session.negotiated() else {
            return;
        };
        // RFC 4760 section 8: routes of a family that was not negotiated are nobody's.
        let (v4, v6) = (
            negotiated.families.contains(&Family::V4),
            negotiated.families.contains(&Family::V6),
        );
        let spoken = |prefix: &Cidr| {
            if prefix.family() == Family::V4 {
                v4
            } else {
                v6
            }
        };
        for problem in &update.problems {
            out.push(Output::Event(SpeakerEvent::Malformed {
                peer: key.clone(),
                problem: problem.to_string(),
                bytes: hex(&problem.bytes),
            }));
        }
        for (prefix, path_id) in update.withdrawn_paths() {
            if spoken(&prefix) {
                self.rib.withdraw(peer.id, path_id, prefix);
            }
        }
        let mut dropped = Vec::new();
        for (attributes, paths) in update.announced_paths() {
            let Some(set) = self.rib.sets.intern(attributes) else {
                for (prefix, path_id) in paths.filter(|(prefix, _)| spoken(prefix)) {
                    self.rib.withdraw(peer.id, path_id, prefix);
                }
                out.push(Output::Event(SpeakerEvent::Malformed {
                    peer: key.clone(),
                    problem: "attributes longer than they can be, treated as withdrawal".into(),
                    bytes: String::new(),
                }));
                continue;
            };
            let next_hop = learn::judge_next_hop(&self.table, attributes.next_hop, peer.from());
            let said = (set, attributes.next_hop.address);
            let mut take = Take {
                limited: peer.is_limited(),
                peer,
                key,
                rib: &mut self.rib,
                dropped: &mut dropped,
                now,
                out,
            };
            for path in paths.filter(|(prefix, _)| spoken(prefix)) {
                let (importer, table) = (&self.importer, &self.table);
                take.path(path, said, |from| {
                    learn::judge(importer, table, path.0, attributes, from, next_hop)
                });
            }
            self.rib.sets.drop_one(set);
        }
        if let (Some(family), Some(up)) = (update.end_of_rib, peer.up.as_mut())
            && !up.eor_received.contains(&family)
        {
            up.eor_received.push(family);
            out.push(Output::Event(SpeakerEvent::EndOfRib {
                peer: key.clone(),
                family,
            }));
            self.complete(key, family, out);
        }
        self.check_limits(key, &dropped, now, out);
    }

    /// A peer's UPDATE as nearly all are. It is taken apart only for those who want it whole.
    pub(super) fn plain_update(
        &mut self,
        key: &PeerKey,
        plain: &Plain,
        now: Millis,
        out: &mut Vec<Output>,
    ) {
        if self.stations.are_any() || !self.take_plain(key, plain, now, out) {
            // What is plain is readable.
            if let Ok(update) = plain.decode() {
                self.stations_update(key, &update, out);
                self.update(key, update, now, out);
            }
        }
    }

    /// Takes an UPDATE without taking it apart, if policy does not have to see more of it; whether it did.
    fn take_plain(
        &mut self,
        key: &PeerKey,
        plain: &Plain,
        now: Millis,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(key) else {
            return false;
        };
        let negotiated = peer.session.negotiated();
        if !negotiated.is_some_and(|it| it.families.contains(&Family::V4)) {
            return false;
        }
        let fields = plain.fields();
        let judged = fields.and_then(|it| self.importer.judge_fields(&it, peer.from()));
        if fields.is_some() && judged.is_none() {
            return false;
        }
        for prefix in plain.withdrawn() {
            self.rib.withdraw(peer.id, 0, prefix);
        }
        let mut dropped = Vec::new();
        if let (Some(fields), Some(judged)) = (fields, judged)
            && let Some(address) = fields.next_hop().map(IpAddr::V4)
        {
            let next_hop = learn::judge_next_hop(&self.table, address.into(), peer.from());
            // What is said first of all that is wrong is that.
            let judged = match next_hop {
                Err(ImportRefusal::OwnNextHop) => next_hop,
                _ => judged,
            };
            let set = self.rib.sets.intern_fields(&fields, address.into());
            let mut take = Take {
                limited: peer.is_limited(),
                peer,
                key,
                rib: &mut self.rib,
                dropped: &mut dropped,
                now,
                out,
            };
            for prefix in plain.announced() {
                let importer = &self.importer;
                take.path((prefix, 0), (set, address), |from| {
                    judged?;
                    importer.judge_plain(prefix, from)?;
                    next_hop.map(|()| None)
                });
            }
            self.rib.sets.drop_one(set);
        }
        self.check_limits(key, &dropped, now, out);
        true
    }
}

/// What takes announced paths of one peer.
struct Take<'a> {
    peer: &'a mut PeerState,
    key: &'a PeerKey,
    rib: &'a mut Rib,
    /// Families of paths that a limit left out.
    dropped: &'a mut Vec<Family>,
    limited: bool,
    now: Millis,
    out: &'a mut Vec<Output>,
}

impl Take<'_> {
    /// A path to a prefix with that set of attributes and next hop, as policy judges it.
    fn path(
        &mut self,
        (prefix, path_id): (Cidr, u32),
        (set, next_hop): (SetId, IpAddr),
        judge: impl FnOnce(From<'_>) -> Verdict<Attributes>,
    ) {
        if self.limited && self.peer.is_full(self.rib, prefix, path_id) {
            self.dropped.push(prefix.family());
            return;
        }
        let verdict = judge(self.peer.from());
        let from = self.peer.id;
        if let Err(refusal) = verdict {
            let family = prefix.family();
            let count = self.rib.source_count(from, family);
            let refused = count.received.saturating_sub(count.accepted);
            if !self.peer.keeps_refused(refused) {
                self.rib.withdraw(from, path_id, prefix);
                self.peer.not_kept(family, refusal, next_hop);
                return;
            }
        }
        let verdict = self.rib.sets.intern_verdict(verdict);
        let (rib, now) = (&mut *self.rib, self.now);
        if !rib.insert(from, path_id, prefix, set, verdict, now) {
            self.peer.is_surplus(self.key, prefix, self.out);
        }
        if let Ok(Some(changed)) = verdict {
            self.rib.sets.drop_one(changed);
        }
    }
}
