//! Sessions and tables as one machine: inputs × now → outputs.

mod types;

pub use types::{
    ConnId, DataplaneReport, FamilyCount, Input, Leg, NeighborInfo, Output, RouteFilter, RouteInfo,
    SpeakerEvent, Summary, TcpEvent,
};

pub use crate::config::PeerKey;

use crds::net::Cidr;

use crate::Millis;
use crate::config::Config;

/// Most bytes given to a connection that the driver has not yet said are [`TcpEvent::Sent`]. More waits in the tables,
/// where later changes overtake it.
pub const SEND_WINDOW: usize = 1 << 18;

/// A BGP speaker. It does nothing by itself: every input is answered with the outputs it causes.
#[derive(Debug)]
pub struct Speaker {
    config: Config,
}

impl Speaker {
    /// A speaker that will be what `config` says once inputs arrive. All its random choices come from `seed`.
    pub fn new(config: Config, seed: u64, now: Millis) -> Self {
        let _ = (seed, now);
        Self { config }
    }

    /// Takes one input; the outputs are to be carried out in their order.
    pub fn handle(&mut self, input: Input, now: Millis) -> Vec<Output> {
        let _ = (input, now);
        Vec::new()
    }

    /// When [`Input::Tick`] is due; None: nothing is waited for.
    pub fn next_timeout(&self) -> Option<Millis> {
        None
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The speaker as a whole.
    pub fn summary(&self) -> Summary {
        Summary {
            asn: self.config.asn,
            router_id: self.config.router_id,
            neighbors_configured: self.config.peers.len(),
            neighbors_established: 0,
            origins: self.config.origins.len(),
            routes: 0,
        }
    }

    /// Every configured peer, in the order of keys.
    pub fn neighbors(&self, now: Millis) -> Vec<NeighborInfo> {
        let _ = now;
        Vec::new()
    }

    /// Paths, ordered by prefix, best first.
    pub fn routes(&self, filter: &RouteFilter, now: Millis) -> Vec<RouteInfo> {
        let _ = (filter, now);
        Vec::new()
    }

    /// The legs last told for every prefix, ordered by prefix: the snapshot for a new felix.
    pub fn best(&self) -> Vec<(Cidr, Vec<Leg>)> {
        Vec::new()
    }

    /// Whether [`Output::BestComplete`] has been said.
    pub fn is_best_complete(&self) -> bool {
        false
    }
}
