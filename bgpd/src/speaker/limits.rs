//! How many prefixes a peer may announce.

use crds::net::{Cidr, Family};

use crate::Millis;
use crate::config::{OverLimit, PeerKey, PrefixLimit};
use crate::rib::Rib;
use crate::wire::Notification;
use crate::wire::nlri::{SAFI_UNICAST, afi};

use super::peer::PeerState;
use super::{Output, Speaker, SpeakerEvent};

impl PeerState {
    /// The limit of a family, if it has one.
    pub(super) fn limit(&self, family: Family) -> Option<&PrefixLimit> {
        let mut limits = self.config.options.limits.iter();
        limits.find(|it| it.family == family)
    }

    /// Whether prefixes may have to be dropped.
    pub(super) fn is_limited(&self) -> bool {
        let mut limits = self.config.options.limits.iter();
        limits.any(|it| it.action == OverLimit::Drop)
    }

    /// Whether one more path is beyond what is taken of the peer; those that it has already may change.
    pub(super) fn is_full(&self, rib: &Rib, prefix: Cidr, path_id: u32) -> bool {
        let limit = self.limit(prefix.family());
        let Some(limit) = limit.filter(|it| it.action == OverLimit::Drop) else {
            return false;
        };
        let is_known = || rib.has_path(self.id, path_id, prefix);
        announced(self, rib, limit.family) >= limit.max && !is_known()
    }
}

impl PeerState {
    /// A path was not taken, as the peer has as many to the prefix as it may; said once in a session.
    pub(super) fn is_surplus(&mut self, key: &PeerKey, prefix: Cidr, out: &mut Vec<Output>) {
        let Some(up) = &mut self.up else { return };
        up.surplus += 1;
        if up.surplus == 1 {
            let peer = key.clone();
            let event = SpeakerEvent::TooManyPaths { peer, prefix };
            out.push(Output::Event(event));
        }
    }
}

/// How many paths of a family the peer has announced in this session, refused ones included.
fn announced(peer: &PeerState, rib: &Rib, family: Family) -> u32 {
    let count = rib.source_count(peer.id, family);
    u32::try_from(count.received.saturating_sub(count.stale)).unwrap_or(u32::MAX)
}

impl Speaker {
    /// Other limits hold for what a peer has announced already, too.
    pub(super) fn limits_changed(&mut self, key: &PeerKey, now: Millis, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        if peer.up.is_some() {
            peer.over.clear();
            self.check_limits(key, &[], now, out);
        }
    }

    /// Looks whether the peer has announced more than it may; `dropped` prefixes of a family were not even taken.
    pub(super) fn check_limits(
        &mut self,
        key: &PeerKey,
        dropped: &[Family],
        now: Millis,
        out: &mut Vec<Output>,
    ) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let mut ended = None;
        for limit in peer.config.options.limits.clone() {
            let family = limit.family;
            let is_over =
                announced(peer, &self.rib, family) > limit.max || dropped.contains(&family);
            if !is_over || peer.over.contains(&family) {
                continue;
            }
            peer.over.push(family);
            out.push(Output::Event(SpeakerEvent::OverLimit {
                peer: key.clone(),
                family,
                max: limit.max,
                action: limit.action,
            }));
            if let OverLimit::TearDown { restart_after } = limit.action {
                ended = Some((limit, restart_after));
            }
        }
        let Some((limit, restart_after)) = ended else {
            return;
        };
        let why = Notification::max_prefixes(afi(limit.family), SAFI_UNICAST, limit.max);
        self.with_session(key, now, out, |session, actions| {
            session.stop_with(&why, now, actions);
            if let Some(wait) = restart_after {
                session.start_at(now + wait);
            }
        });
        if let Some(peer) = self.peers.get_mut(key) {
            peer.torn_down = Some(limit.family);
        }
    }
}
