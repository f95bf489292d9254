//! BFD: started when it is needed, and its last word.

use tracing::error;

use super::super::bfd::Bfd;
use super::{Engine, seed};
use crate::config::PeerKey;
use crate::fsm::State;

impl Engine {
    /// BFD, which is started when it is first needed.
    pub(super) fn bfd(&mut self) -> Option<&Bfd> {
        if self.bfd.is_none() {
            match Bfd::start(seed(), self.bfd_events.0.clone(), self.life.bfd()) {
                Ok(bfd) => self.bfd = Some(bfd),
                Err(e) => error!(error = format!("{e:#}"), "there is no BFD"),
            }
        }
        self.bfd.as_ref()
    }
}

impl Drop for Engine {
    /// BFD has its last word while the connections are still there: where a peer keeps routes through our restart, it
    /// must not take the restart for a failure of the path.
    fn drop(&mut self) {
        let Some(bfd) = self.bfd.take() else {
            return;
        };
        let neighbors = self.speaker.neighbors(self.now());
        let keeps = neighbors
            .into_iter()
            .filter(|it| it.state == State::Established && it.restart.is_some())
            .map(|it| it.key);
        let config = self.speaker.config();
        let time = |key: &PeerKey| {
            let peer = config.peers.iter().find(|it| it.key == *key);
            peer.map_or(0, |it| it.options.graceful_restart.restart_time)
        };
        let keeps = keeps.map(|key| {
            let time = time(&key);
            (key, u64::from(time) * 1_000_000)
        });
        bfd.leave(keeps.filter(|(_, time)| *time > 0).collect());
    }
}
