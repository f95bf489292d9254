//! Taking routes out of use: first told as the last ones to be used, then withdrawn (RFC 8326).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Speaker;
use crate::Millis;
use crate::config::{Config, Drain, PeerKey};
use crate::policy::drain::{Drained, Stage};

/// What an operator asks for, beyond [`Config::drain`]; the whole of it each time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DrainRequest {
    /// What leaves to all peers.
    pub node: Drain,
    /// Blocks leave although pods have addresses of them; means nothing without [`Drain::Everything`].
    pub force: bool,
    /// Peers to which everything leaves, and whose own routes are the last to be used.
    pub peers: BTreeSet<PeerKey>,
}

/// What is being drained together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Services,
    Idle,
    Busy,
    Peer(PeerKey),
}

/// How far a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Withdrawn then.
    Until(Millis),
    Gone,
}

/// All drains in force.
#[derive(Debug, Default)]
pub(super) struct Drains {
    request: DrainRequest,
    progress: BTreeMap<What, Progress>,
}

impl Drains {
    pub(super) fn request(&self) -> &DrainRequest {
        &self.request
    }

    /// How far routes to a peer have left.
    pub(super) fn of(&self, peer: &PeerKey) -> Drained {
        let stage = |what: &What| match self.progress.get(what) {
            None => Stage::InUse,
            Some(Progress::Until(_)) => Stage::Leaving,
            Some(Progress::Gone) => Stage::Gone,
        };
        Drained {
            services: stage(&What::Services),
            idle: stage(&What::Idle),
            busy: stage(&What::Busy),
            peer: stage(&What::Peer(peer.clone())),
        }
    }

    /// When the next routes are to be withdrawn.
    pub(super) fn next_timeout(&self) -> Option<Millis> {
        let waiting = self.progress.values().filter_map(|it| match it {
            Progress::Until(at) => Some(*at),
            Progress::Gone => None,
        });
        waiting.min()
    }

    fn wanted(&self, config: Drain) -> BTreeSet<What> {
        let mut wanted: BTreeSet<What> =
            self.request.peers.iter().cloned().map(What::Peer).collect();
        let node = config.max(self.request.node);
        if node >= Drain::Services {
            wanted.insert(What::Services);
        }
        if node >= Drain::Everything {
            wanted.insert(What::Idle);
        }
        if self.request.node == Drain::Everything && self.request.force {
            wanted.insert(What::Busy);
        }
        wanted
    }

    /// Begins and ends drains, and lets those go on whose time has come. Where nobody has been told anything, nobody
    /// needs time to find another way: a speaker that starts drained tells nothing.
    fn proceed(&mut self, config: Drain, now: Millis, told: impl Fn(Option<&PeerKey>) -> bool) {
        let wanted = self.wanted(config);
        self.progress.retain(|what, _| wanted.contains(what));
        for what in wanted {
            let told = match &what {
                What::Peer(key) => told(Some(key)),
                _ => told(None),
            };
            self.progress.entry(what).or_insert(match told {
                true => Progress::Until(now + Config::DRAIN_WAIT),
                false => Progress::Gone,
            });
        }
        for progress in self.progress.values_mut() {
            if matches!(progress, Progress::Until(at) if *at <= now) {
                *progress = Progress::Gone;
            }
        }
    }
}

impl Speaker {
    /// What an operator has asked to be drained.
    pub fn drain_request(&self) -> &DrainRequest {
        self.drains.request()
    }

    /// What is being drained, in words, and how long until it is withdrawn; None: it is.
    pub fn drains(&self, now: Millis) -> Vec<(String, Option<Millis>)> {
        let of = |(what, progress): (&What, &Progress)| {
            let name = match what {
                What::Services => "addresses of services".to_owned(),
                What::Idle => "blocks without pods, routes passed on".to_owned(),
                What::Busy => "blocks with pods".to_owned(),
                What::Peer(key) => format!("everything over {key}"),
            };
            let left = match progress {
                Progress::Until(at) => Some(at.saturating_sub(now)),
                Progress::Gone => None,
            };
            (name, left)
        };
        self.drains.progress.iter().map(of).collect()
    }

    /// Whether the configuration, rather than an operator, drains the node.
    pub fn drained_by_configuration(&self) -> bool {
        self.config.drain != Drain::No
    }

    /// An operator asks for something else.
    pub(super) fn drain(&mut self, request: DrainRequest, now: Millis) {
        self.drains.request = request;
        self.drain_on(now);
    }

    /// Brings drains to what is asked for and to what time it is, and tells peers what follows.
    pub(super) fn drain_on(&mut self, now: Millis) {
        let peers = &self.peers;
        self.drains
            .proceed(self.config.drain, now, |key| match key {
                Some(key) => peers.get(key).is_some_and(|peer| peer.up.is_some()),
                None => peers.values().any(|peer| peer.up.is_some()),
            });
        let mut judge = false;
        let mut changed = Vec::new();
        for (key, peer) in &mut self.peers {
            let drained = self.drains.of(key);
            if peer.policy.drained == drained {
                continue;
            }
            judge |= (peer.policy.drained.peer == Stage::InUse) != (drained.peer == Stage::InUse);
            peer.policy.drained = drained;
            changed.push(key.clone());
        }
        for key in changed {
            self.reconsider(&key);
        }
        if judge {
            self.judge_again(None);
        }
    }
}
