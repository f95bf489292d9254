//! Applying a configuration by difference.

use crate::Millis;
use crate::config::{self, Config, Cost, Peer, PeerChange, PeerKey};
use crate::fsm::{Session, Settings};
use crate::policy::Importer;
use crate::rib::{Source, SourceId};
use crate::wire::notification::Cease;

use super::peer::PeerState;
use super::{Output, Speaker};

impl Speaker {
    /// Takes a new configuration. Sessions of peers that it does not change go on untouched.
    pub(super) fn configure(&mut self, config: Config, now: Millis, out: &mut Vec<Output>) {
        let (have, want) = (
            self.with_dynamic(self.config.clone()),
            self.with_dynamic(config.clone()),
        );
        let changes = config::diff(&have, &want);
        let old = std::mem::replace(&mut self.config, config);
        let wanted = |key: &PeerKey| want.peers.iter().find(|peer| peer.key == *key);
        for (key, change) in changes {
            match change {
                PeerChange::Removed => {
                    self.with_session(&key, now, out, |it, actions| {
                        it.stop(Cease::Deconfigured, now, actions)
                    });
                    self.peers.remove(&key);
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
        self.reach_again(now, out);
        if old.router_id != self.config.router_id {
            self.rib
                .set_source(SourceId::LOCAL, Source::local(self.config.router_id));
        }
        self.take_origins(now);
        let importer = Importer::new(&self.config, self.origins.prefixes());
        let import_changed = importer != self.importer;
        self.importer = importer;
        // A peer's own import policy may have changed as well, which the peers' part does not judge.
        if import_changed || old.peers != self.config.peers || old.dynamic != self.config.dynamic {
            self.judge_again(None);
        }
        if old.multipath != self.config.multipath {
            self.rib.decide_again();
        }
    }

    /// Takes the origins that the configuration names.
    pub(super) fn take_origins(&mut self, now: Millis) {
        for (prefix, present) in self.origins.configure(&self.config.origins) {
            self.originate(prefix, present, now);
        }
    }

    /// Adds a peer; its session starts when sessions may.
    pub(super) fn add_peer(&mut self, peer: &Peer, now: Millis) {
        let id = SourceId(self.next_peer);
        self.next_peer += 1;
        let settings = Settings::new(&self.config, peer);
        // Each session names its connections in a range of its own.
        let first_conn = u64::from(id.0) << 32;
        let session = Session::new(settings, self.jitter.next_u64(), first_conn, now);
        self.unstarted.push(peer.key.clone());
        self.peers.insert(
            peer.key.clone(),
            PeerState {
                id,
                config: peer.clone(),
                session,
                up: None,
                hindrance: None,
                range: None,
            },
        );
    }

    fn change_peer(&mut self, peer: &Peer, cost: Cost, now: Millis, out: &mut Vec<Output>) {
        let key = &peer.key;
        let settings = Settings::new(&self.config, peer);
        if cost == Cost::Session {
            // It starts again in the same step.
            self.unstarted.push(key.clone());
            self.with_session(key, now, out, |it, actions| {
                it.stop(Cease::OtherChange, now, actions)
            });
        }
        if let Some(state) = self.peers.get_mut(key) {
            state.config = peer.clone();
        }
        self.with_session(key, now, out, |it, actions| it.set(settings, now, actions));
        let Some(state) = self.peers.get_mut(key) else {
            return;
        };
        let (source, to) = (state.source(&self.table), state.to(&self.table));
        if let (Some(up), Some(source), Some(to)) = (&mut state.up, source, to) {
            self.rib.set_source(state.id, source);
            if up.to != to {
                up.to = to;
                up.adj_out.touch_all(&self.rib);
            }
        }
    }
}
