//! The session state machine of RFC 4271 section 8.

pub mod collision;
mod connection;
mod counts;
pub mod jitter;
pub mod negotiate;
mod session;

use std::fmt;
use std::net::Ipv4Addr;

use crds::net::Family;
use serde::{Deserialize, Serialize};

use crate::config::{AddPath, Config, GracefulRestart, Peer, Timers};
use crate::wire::Notification;
use crate::wire::notification::Cease;

pub use counts::MessageCounts;
pub use jitter::Jitter;
pub use negotiate::{Forwarding, Negotiated, Offer, PeerRestart};
pub use session::{Action, Session};

/// State of a session (RFC 4271 section 8.2.2); of two connections the further one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// No connection is made or taken.
    Idle,
    /// Waiting for a connection to be made.
    Connect,
    /// Waiting to be connected to, or for the next attempt.
    Active,
    /// OPEN is sent.
    OpenSent,
    /// OPEN has been received.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownReason {
    /// This side sent that NOTIFICATION.
    Sent(Notification),
    /// The peer sent that NOTIFICATION.
    Received(Notification),
    /// No connection could be made.
    ConnectFailed(String),
    /// The connection broke; empty: the peer closed it.
    Closed(String),
    /// The interface of that name went down.
    LinkDown(String),
    /// BFD says that the way to the peer is gone; nothing was sent, so that routes are kept on both sides.
    BfdDown,
    /// The peer made a new connection: it has restarted (RFC 4724 section 5).
    Replaced,
}

impl DownReason {
    /// Whether the peer's routes are kept as its graceful restart says (RFC 4724 section 4.2, RFC 8538 section 4). With
    /// the link, the way to the peer is gone.
    pub fn keeps_routes(&self, restart: &PeerRestart) -> bool {
        match self {
            Self::Closed(_) | Self::Replaced | Self::ConnectFailed(_) | Self::BfdDown => true,
            Self::LinkDown(_) => false,
            Self::Sent(it) | Self::Received(it) => {
                restart.notifications && !it.is_cease(Cease::HardReset)
            }
        }
    }
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(notification) => write!(f, "sent {notification}"),
            Self::Received(notification) => write!(f, "received {notification}"),
            Self::ConnectFailed(why) => write!(f, "connection failed: {why}"),
            Self::Closed(why) if why.is_empty() => f.write_str("closed by the peer"),
            Self::Closed(why) => write!(f, "connection lost: {why}"),
            Self::BfdDown => f.write_str("BFD session down"),
            Self::LinkDown(name) => write!(f, "interface {name} is down"),
            Self::Replaced => f.write_str("replaced by a new connection of the peer"),
        }
    }
}

/// What a session has to know of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Own BGP identifier.
    pub router_id: Ipv4Addr,
    /// The AS told to the peer.
    pub local_asn: u32,
    /// The peer's AS; 0: any external one.
    pub remote_asn: u32,
    /// Hold time offered, seconds.
    pub hold_time: u16,
    /// Families offered.
    pub families: Vec<Family>,
    /// Never connect.
    pub passive: bool,
    /// How long to wait for what.
    pub timers: Timers,
    /// What is announced of graceful restart, and asked of the peer's.
    pub graceful_restart: GracefulRestart,
    /// Several paths for one prefix.
    pub add_path: AddPath,
    /// IPv4 routes with IPv6 next hops are taken and told (RFC 8950).
    pub extended_next_hop: bool,
}

impl Settings {
    /// The settings of one of the configuration's peers.
    pub fn new(config: &Config, peer: &Peer) -> Self {
        Self {
            router_id: config.router_id,
            local_asn: peer.local_asn.unwrap_or(config.asn),
            remote_asn: peer.remote_asn,
            hold_time: peer.hold_time.unwrap_or(config.hold_time),
            families: peer.families.clone(),
            passive: peer.passive,
            timers: peer.timers,
            graceful_restart: peer.options.graceful_restart,
            add_path: peer.options.add_path,
            // Over IPv4 there is always an IPv4 next hop.
            extended_next_hop: peer.families.contains(&Family::V4)
                && !peer.key.address().is_some_and(|it| it.is_ipv4()),
        }
    }

    /// Whether the peer may be in that AS.
    pub fn expects(&self, asn: u32) -> bool {
        match self.remote_asn {
            0 => asn != self.local_asn,
            expected => asn == expected,
        }
    }

    /// Both sides are in one AS.
    pub fn is_internal(&self) -> bool {
        self.local_asn == self.remote_asn
    }
}
