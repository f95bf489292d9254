//! Peers that are not configured one by one: whoever connects from a range is one, for as long as it is there.

use std::net::IpAddr;

use crds::net::Cidr;

use crate::Millis;
use crate::config::{Config, DynamicPeers, Peer, PeerKey};
use crate::fsm::State;

use super::Speaker;
use super::peer::PeerState;

/// Why nobody is made a peer.
pub(super) enum Refusal {
    /// No range holds the address.
    Unknown,
    /// There are as many as the range may have.
    Full {
        /// The range.
        range: Cidr,
        /// The most it may have.
        limit: u32,
    },
}

/// The smallest range that holds the address.
fn range_of(config: &Config, address: IpAddr) -> Option<&DynamicPeers> {
    let around = config
        .dynamic
        .iter()
        .filter(|it| it.range.contains(address));
    around.max_by_key(|it| it.range.prefix_len())
}

/// What the range says that somebody at the address is.
fn made(dynamic: &DynamicPeers, address: IpAddr) -> Peer {
    Peer {
        key: PeerKey::Address(address),
        passive: true,
        ..dynamic.template.clone()
    }
}

impl Speaker {
    /// Makes whoever connects from a range a peer; its session can be connected to at once.
    pub(super) fn admit(&mut self, address: IpAddr, now: Millis) -> Result<PeerKey, Refusal> {
        let key = PeerKey::Address(address);
        // An own address is in the range of the own network: who connects from there is this speaker.
        let found = range_of(&self.config, address)
            .filter(|it| it.template.options.is_open() && !self.table.is_own(address));
        let dynamic = found.ok_or(Refusal::Unknown)?;
        let (range, limit) = (dynamic.range, dynamic.limit);
        let of_range = self.peers.values().filter(|it| it.range == Some(range));
        if of_range.count() >= usize::try_from(limit).unwrap_or(usize::MAX) {
            return Err(Refusal::Full { range, limit });
        }
        let peer = made(dynamic, address);
        self.add_peer(&peer, now);
        if let Some(state) = self.peers.get_mut(&key) {
            state.range = Some(range);
        }
        Ok(key)
    }

    /// The configuration with the dynamic peers among the others, as it would make them.
    pub(super) fn with_dynamic(&self, mut config: Config) -> Config {
        let addresses = self
            .peers
            .values()
            .filter(|peer| peer.range.is_some())
            .filter_map(|peer| peer.config.key.address());
        let made: Vec<Peer> = addresses
            .filter(|it| {
                !config
                    .peers
                    .iter()
                    .any(|peer| peer.key == PeerKey::Address(*it))
            })
            .filter_map(|it| Some(made(range_of(&config, it)?, it)))
            .collect();
        config.peers.extend(made);
        config
    }

    /// Says to which range each peer belongs after a change of configuration.
    pub(super) fn assign_ranges(&mut self) {
        for (key, peer) in &mut self.peers {
            let configured = self.config.peers.iter().any(|it| it.key == *key);
            let range = key
                .address()
                .filter(|_| !configured)
                .and_then(|it| range_of(&self.config, it));
            peer.range = range.map(|it| it.range);
        }
    }

    /// Forgets a dynamic peer that is gone: nobody is connected and nothing of it is kept.
    pub(super) fn forget_if_gone(&mut self, key: &PeerKey) {
        // While it is Idle it is not let in again; Active is passive waiting.
        let is_gone = |peer: &PeerState| {
            peer.range.is_some()
                && peer.up.is_none()
                && peer.stale.is_empty()
                && peer.session.state() == State::Active
        };
        if self.peers.get(key).is_some_and(is_gone)
            && let Some(peer) = self.peers.remove(key)
        {
            self.rib.remove_source(peer.id);
            self.rewatch.insert(key.clone());
        }
    }
}
