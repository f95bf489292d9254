//! Routes of a peer whose session is lost: kept, taken over by the next session or swept, kept longer as a last resort
//! (RFC 4724 section 4.2, RFC 8538, RFC 9494); and routes that a refresh has not repeated yet (RFC 7313).

use crds::net::{Cidr, Family};

use crate::Millis;
use crate::config::PeerKey;
use crate::fsm::{Negotiated, PeerRestart};
use crate::rib::{Freshness, Path, Rib, SourceId};
use crate::wire::attribute::community;
use crate::wire::refresh;

use super::learn::{judge, judge_next_hop};
use super::peer::PeerState;
use super::{Output, Speaker, SpeakerEvent, StaleStage, SweepReason};

/// Stale routes of one peer and family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stale {
    pub(super) stage: StaleStage,
    /// When they became stale.
    since: Millis,
    /// When they go, or come into their next stage.
    pub(super) until: Millis,
    /// How long they are kept as long-lived ones after that; 0: not.
    long_lived: Millis,
}

impl PeerState {
    /// How long routes may be stale, whatever the peer asks for.
    fn stale_time(&self) -> Millis {
        Millis::from(self.config.options.graceful_restart.stale_time) * 1000
    }
}

impl Speaker {
    /// The session is lost and its routes are kept as its capabilities said.
    pub(super) fn keep(
        &mut self,
        key: &PeerKey,
        restart: &PeerRestart,
        now: Millis,
        out: &mut Vec<Output>,
    ) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let (id, stale_time) = (peer.id, peer.stale_time());
        let most = Millis::from(peer.config.options.graceful_restart.long_lived_time) * 1000;
        for family in Family::ALL {
            let long_lived = restart.long_lived_time(family).min(most);
            let time = if restart.families.contains(family) {
                restart.time.min(stale_time)
            } else {
                0
            };
            let before = peer.stale.remove(&family);
            if time == 0 && long_lived == 0 {
                purge(&mut self.rib, id, family);
                continue;
            }
            // RFC 4724 section 4.2: what an earlier restart left is gone. Long-lived routes stay (RFC 9494 section 4.2),
            // and so do those that a refresh had not come to.
            let earlier = before.map(|it| it.stage);
            if matches!(earlier, Some(StaleStage::Away | StaleStage::Back)) {
                self.rib.sweep_stale(id, family);
            }
            self.rib.mark_stale(id, family);
            if self.rib.source_count(id, family).stale == 0 {
                continue;
            }
            let (since, until) = (now, now + time);
            let stale = Stale {
                stage: StaleStage::Away,
                since,
                until,
                long_lived,
            };
            peer.stale.insert(family, stale);
            self.sweeps.insert((until, key.clone()));
            out.push(Output::Event(SpeakerEvent::Kept {
                peer: key.clone(),
                family,
                millis: time,
            }));
        }
    }

    /// The session is back: what the peer has not kept forwarding for goes at once, the rest has until its End-of-RIB.
    pub(super) fn resume(&mut self, key: &PeerKey, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let stale_time = peer.stale_time();
        let Some(negotiated) = peer.session.negotiated() else {
            return;
        };
        let mut lost = Vec::new();
        for (family, stale) in &mut peer.stale {
            if !goes_on(negotiated, *family, stale.stage) {
                lost.push(*family);
            } else if stale.stage == StaleStage::Away {
                stale.stage = StaleStage::Back;
                stale.until = stale.since + stale_time;
                self.sweeps.insert((stale.until, key.clone()));
            }
        }
        for family in lost {
            self.sweep(key, family, SweepReason::NotPreserved, out);
        }
    }

    /// Stale routes of a family go.
    fn sweep(&mut self, key: &PeerKey, family: Family, reason: SweepReason, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        peer.stale.remove(&family);
        let routes = self.rib.source_count(peer.id, family).stale;
        self.rib.sweep_stale(peer.id, family);
        if routes > 0 {
            out.push(Output::Event(SpeakerEvent::Swept {
                peer: key.clone(),
                family,
                routes,
                reason,
            }));
        }
    }

    /// The peer has sent End-of-RIB: what it has not said again is gone.
    pub(super) fn complete(&mut self, key: &PeerKey, family: Family, out: &mut Vec<Output>) {
        let stage = |peer: &PeerState| peer.stale.get(&family).map(|it| it.stage);
        let stage = self.peers.get(key).and_then(stage);
        if stage.is_some_and(|it| it != StaleStage::Refreshing) {
            self.sweep(key, family, SweepReason::EndOfRib, out);
        }
    }

    /// The peer marks begin or end of a refresh (RFC 7313 section 4.2).
    pub(super) fn refresh_mark(
        &mut self,
        key: &PeerKey,
        family: Family,
        subtype: u8,
        now: Millis,
        out: &mut Vec<Output>,
    ) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let Some(negotiated) = peer.session.negotiated() else {
            return;
        };
        let Some(up) = &peer.up else { return };
        if !negotiated.enhanced_refresh || !negotiated.families.contains(&family) {
            return;
        }
        match subtype {
            // Before End-of-RIB there is nothing to refresh, and with graceful restart that one sweeps.
            refresh::BEGIN if negotiated.restart.is_none() || up.eor_received.contains(&family) => {
                let count = self.rib.source_count(peer.id, family);
                if count.stale == count.received && peer.stale.contains_key(&family) {
                    // It has begun already.
                    return;
                }
                self.rib.mark_stale(peer.id, family);
                let stale = Stale {
                    stage: StaleStage::Refreshing,
                    since: now,
                    until: now + peer.stale_time(),
                    long_lived: 0,
                };
                peer.stale.insert(family, stale);
                self.sweeps.insert((stale.until, key.clone()));
            }
            refresh::END => {
                let refreshing = peer.stale.get(&family);
                if refreshing.is_some_and(|it| it.stage == StaleStage::Refreshing) {
                    self.sweep(key, family, SweepReason::Refreshed, out);
                }
            }
            _ => {}
        }
    }

    /// Time has passed: what has waited long enough goes, or becomes a last resort.
    pub(super) fn expire_stale(&mut self, now: Millis, out: &mut Vec<Output>) {
        let mut due = Vec::new();
        while let Some((at, key)) = self.sweeps.pop_first() {
            if at > now {
                self.sweeps.insert((at, key));
                break;
            }
            let Some(peer) = self.peers.get(&key) else {
                continue;
            };
            for (family, stale) in peer.stale.iter().filter(|(_, it)| it.until <= now) {
                due.push((key.clone(), *family, *stale));
            }
        }
        for (key, family, stale) in due {
            if stale.stage == StaleStage::Away && stale.long_lived > 0 {
                self.keep_longer(&key, family, stale, now, out);
            } else {
                self.sweep(&key, family, SweepReason::Timer, out);
            }
            self.forget_if_gone(&key);
        }
    }

    /// The restart time is over: routes are kept as a last resort (RFC 9494 section 4.2).
    fn keep_longer(
        &mut self,
        key: &PeerKey,
        family: Family,
        stale: Stale,
        now: Millis,
        out: &mut Vec<Output>,
    ) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let id = peer.id;
        let until = now + stale.long_lived;
        let stage = StaleStage::LongLived;
        peer.stale.insert(
            family,
            Stale {
                stage,
                until,
                ..stale
            },
        );
        self.sweeps.insert((until, key.clone()));
        let from = peer.from();
        for (prefix, path) in stale_paths(&self.rib, id, family) {
            let mut attributes = path.received.unwrap_or(path.attributes);
            if attributes.communities.contains(&community::NO_LLGR) {
                self.rib.withdraw(id, path.id, prefix);
                continue;
            }
            if !attributes.communities.contains(&community::LLGR_STALE) {
                attributes.communities.push(community::LLGR_STALE);
            }
            let verdict = match path.refused {
                Some(refused) => Err(refused),
                None => {
                    let (importer, table) = (&self.importer, &self.table);
                    let next_hop = judge_next_hop(table, attributes.next_hop, from);
                    judge(importer, table, prefix, &attributes, from, next_hop)
                }
            };
            let Some(set) = self.rib.sets.intern(&attributes) else {
                self.rib.withdraw(id, path.id, prefix);
                continue;
            };
            let changed = self.rib.sets.intern_verdict(verdict);
            self.rib
                .insert(id, path.id, prefix, set, changed, path.since);
            if let Ok(Some(changed)) = changed {
                self.rib.sets.drop_one(changed);
            }
            self.rib.sets.drop_one(set);
        }
        self.rib.mark_stale(id, family);
        self.rib.set_long_lived(id, family);
        out.push(Output::Event(SpeakerEvent::KeptLonger {
            peer: key.clone(),
            family,
            millis: stale.long_lived,
        }));
    }
}

fn stale_paths(rib: &Rib, source: SourceId, family: Family) -> Vec<(Cidr, Path)> {
    let ids = rib.ids_of(source).into_iter();
    ids.filter(|id| rib.family(*id) == family)
        .flat_map(|id| {
            rib.paths(id)
                .into_iter()
                .map(move |it| (rib.prefix(id), it))
        })
        .filter(|(_, path)| path.from == source && path.freshness == Freshness::Stale)
        .collect()
}

/// Whether stale routes of a family stay when the session is back.
fn goes_on(negotiated: &Negotiated, family: Family, stage: StaleStage) -> bool {
    let Some(restart) = &negotiated.restart else {
        return false;
    };
    let preserved = restart.preserved.contains(family);
    // RFC 9494 section 4.2: the F bit of its own capability counts for long-lived routes.
    let of_family = |(it, _, preserved): &(Family, Millis, bool)| *it == family && *preserved;
    match stage {
        StaleStage::LongLived => preserved || restart.long_lived.iter().any(of_family),
        _ => preserved,
    }
}

fn purge(rib: &mut Rib, source: SourceId, family: Family) {
    rib.mark_stale(source, family);
    rib.sweep_stale(source, family);
}
