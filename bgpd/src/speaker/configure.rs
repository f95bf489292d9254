//! Applying a configuration by difference.

use std::collections::BTreeMap;

use crate::Millis;
use crate::config::{self, Config, Cost, Peer, PeerChange, PeerKey};
use crate::fsm::Session;
use crate::policy::Importer;
use crate::rib::{Source, SourceId};
use crate::wire::Notification;
use crate::wire::notification::Cease;

use super::learn::{Judging, Policy};
use super::peer::{Last, PeerState};
use super::{Output, Speaker};

impl Speaker {
    /// Takes a new configuration. Sessions of peers that it does not change go on untouched.
    pub(super) fn configure(&mut self, config: Config, now: Millis, out: &mut Vec<Output>) {
        let (have, want) = (
            self.with_dynamic(self.config.clone()),
            self.with_dynamic(config.clone()),
        );
        let changes = config::diff(&have, &want);
        let judging = |peers: &BTreeMap<PeerKey, PeerState>| -> BTreeMap<PeerKey, Judging> {
            let of = |(key, it): (&PeerKey, &PeerState)| (key.clone(), it.judging());
            peers.iter().map(of).collect()
        };
        let before = judging(&self.peers);
        let old = std::mem::replace(&mut self.config, config);
        let wanted = |key: &PeerKey| want.peers.iter().find(|peer| peer.key == *key);
        for (key, change) in changes {
            match change {
                PeerChange::Removed => {
                    self.with_session(&key, now, out, |it, actions| {
                        it.stop(Cease::Deconfigured, now, actions)
                    });
                    if let Some(peer) = self.peers.remove(&key) {
                        self.rib.remove_source(peer.id);
                    }
                }
                PeerChange::Added => {
                    if let Some(peer) = wanted(&key) {
                        self.add_peer(peer, now);
                    }
                }
                PeerChange::Changed(cost) => {
                    if let Some(peer) = wanted(&key) {
                        self.change_peer(peer, cost, now, out);
                    }
                }
            }
        }
        self.assign_ranges();
        self.watch_all();
        self.configure_stations(out);
        self.reach_again(now, out);
        if old.router_id != self.config.router_id {
            self.rib
                .set_source(SourceId::LOCAL, Source::local(self.config.router_id));
        }
        self.take_origins(now, out);
        if old.advertisements != self.config.advertisements {
            self.advertise_again(now, out);
        }
        if old.drain != self.config.drain {
            self.drain_on(now);
        }
        let importer = Importer::new(&self.config, self.origins.prefixes());
        let import_changed = importer != self.importer;
        self.importer = importer;
        // A peer's own import policy may have changed as well, which the peers' part does not judge.
        let after = judging(&self.peers);
        if import_changed || before != after {
            // Before more is refused: what is refused now need not come again.
            self.ask_again(now, out, |key, _| {
                import_changed || before.get(key) != after.get(key)
            });
            self.judge_again(None);
        }
        if old.multipath != self.config.multipath {
            self.rib.decide_again();
        }
    }

    /// Adds a peer; its session starts when sessions may.
    pub(super) fn add_peer(&mut self, peer: &Peer, now: Millis) {
        let id = SourceId(self.next_peer);
        self.next_peer += 1;
        let settings = self.settings(peer);
        // Each session names its connections in a range of its own.
        let first_conn = u64::from(id.0) << 32;
        let mut session = Session::new(settings, self.jitter.next_u64(), first_conn, now);
        session.set_forwarding(self.forwarding);
        self.unstarted.push(peer.key.clone());
        self.rewatch.insert(peer.key.clone());
        self.peers.insert(
            peer.key.clone(),
            PeerState {
                id,
                config: peer.clone(),
                policy: Policy::new(&self.config, peer, self.drains.of(&peer.key)),
                session,
                due: None,
                up: None,
                hindrance: None,
                stale: BTreeMap::new(),
                over: Vec::new(),
                torn_down: None,
                last: Last::default(),
                range: None,
            },
        );
    }

    fn change_peer(&mut self, peer: &Peer, cost: Cost, now: Millis, out: &mut Vec<Output>) {
        let key = &peer.key;
        let settings = self.settings(peer);
        if cost == Cost::Session {
            // It starts again in the same step.
            self.unstarted.push(key.clone());
            let why = match &peer.options.shutdown {
                Some(words) => Notification::cease_with(Cease::Shutdown, words),
                None => Notification::cease(Cease::OtherChange),
            };
            self.with_session(key, now, out, |it, actions| {
                it.stop_with(&why, now, actions)
            });
        }
        let mut limits_changed = false;
        if let Some(state) = self.peers.get_mut(key) {
            limits_changed = state.config.options.limits != peer.options.limits;
            state.policy = Policy::new(&self.config, peer, state.policy.drained);
            // Whoever edits a peer that announced too much wants it tried again.
            if state.torn_down.take().is_some() {
                self.unstarted.push(key.clone());
            }
            state.config = peer.clone();
        }
        self.with_session(key, now, out, |it, actions| it.set(settings, now, actions));
        self.reconsider(key);
        if limits_changed {
            self.limits_changed(key, now, out);
        }
    }
}
