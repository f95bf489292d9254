//! A session that outlives the program: its peer is asked for more patience before the program ends, and the next life
//! goes on where this one was.

use serde::{Deserialize, Serialize};

use super::{Poll, Session, Wants};
use crate::bfd::{Micros, Settings, State};
use crate::config::PeerKey;

/// What the next life has to know of a session that is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// Whose it is.
    pub peer: PeerKey,
    /// What it was.
    pub settings: Settings,
    /// Own discriminator.
    pub discriminator: u32,
    /// The peer's.
    pub remote_discriminator: u32,
    /// Time between packets that the peer counts on now, microseconds.
    pub interval: u32,
    /// The peer's Required Min RX Interval, Desired Min TX Interval (microseconds) and Detect Mult.
    pub remote: (u32, u32, u8),
}

impl Session {
    /// Asks the peer not to count the session as lost for `time`, though nothing is sent. Whether it can be asked.
    pub(in crate::bfd) fn park(&mut self, time: Micros, now: Micros, wants: &mut Wants) -> bool {
        if (self.state, self.remote_state) != (State::Up, State::Up) {
            return false;
        }
        let interval = time / Micros::from(self.settings.multiplier);
        let interval = u32::try_from(interval).unwrap_or(u32::MAX);
        if self.desire(interval.max(self.effective_tx)) {
            self.start_poll();
            self.send_news(now, wants);
        }
        true
    }

    /// What goes on in the next life, once the peer has answered.
    pub(in crate::bfd) fn parked(&self, peer: &PeerKey) -> Option<Parked> {
        let is_up = (self.state, self.remote_state) == (State::Up, State::Up);
        (is_up && self.poll == Poll::Idle).then(|| Parked {
            peer: peer.clone(),
            settings: self.settings.clone(),
            discriminator: self.discriminator,
            remote_discriminator: self.remote_discriminator,
            interval: self.effective_tx,
            remote: (
                self.remote_min_rx,
                self.remote_min_tx,
                self.remote_multiplier,
            ),
        })
    }

    /// Goes on where an earlier life was. The peer judges us by the interval it knows until it has heard of another.
    pub(in crate::bfd) fn resume(&mut self, parked: &Parked, now: Micros) {
        (
            self.remote_min_rx,
            self.remote_min_tx,
            self.remote_multiplier,
        ) = parked.remote;
        self.remote_discriminator = parked.remote_discriminator;
        self.remote_state = State::Up;
        self.state = State::Up;
        self.since = now;
        self.desired_min_tx = parked.interval;
        self.effective_tx = parked.interval;
        self.counts.up += 1;
        // It has been long since its last packet.
        self.detect_at = Some(now + self.detection_time().max(Micros::from(super::SLOW)));
    }
}
