//! What a session is asked for, and what is told of it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::packet::Diagnostic;

/// Shortest interval that is ever used, microseconds: below it the system's own delays look like failures.
const SHORTEST: u32 = 5_000;

/// Where a session's packets go, and which of those that come are its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Path {
    /// The peer is on that link (RFC 5881): its packets have to come over it, with a TTL of 255.
    SingleHop {
        /// Index of the interface.
        ifindex: u32,
        /// Its name.
        interface: String,
    },
    /// The peer is anywhere (RFC 5883).
    Multihop {
        /// Least TTL its packets may have left; 0 takes all, as not every implementation sends with 255.
        least_ttl: u8,
    },
}

impl Path {
    /// The interface, for a single hop.
    pub fn ifindex(&self) -> Option<u32> {
        match self {
            Self::SingleHop { ifindex, .. } => Some(*ifindex),
            Self::Multihop { .. } => None,
        }
    }
}

/// What one session shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Address of the peer.
    pub remote: IpAddr,
    /// Own address; the kernel's choice when unset.
    pub local: Option<IpAddr>,
    /// Over one hop or several.
    pub path: Path,
    /// Least time between packets sent, microseconds.
    pub transmit: u32,
    /// Least time between packets that can be taken, microseconds.
    pub receive: u32,
    /// Packets the peer may miss before the session is down for it.
    pub multiplier: u8,
}

impl Settings {
    /// With the intervals of a configuration; those that no system can keep are raised to what one can.
    pub fn new(
        remote: IpAddr,
        local: Option<IpAddr>,
        path: Path,
        asked: crate::config::Bfd,
    ) -> Self {
        let micros = |millis: u64| {
            u32::try_from(millis.saturating_mul(1000))
                .unwrap_or(u32::MAX)
                .max(SHORTEST)
        };
        Self {
            remote,
            local,
            path,
            transmit: micros(asked.transmit),
            receive: micros(asked.receive),
            multiplier: asked.multiplier.max(1),
        }
    }
}

/// What a session's client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Packets pass both ways.
    Up,
    /// They did, and do not any more.
    Down {
        /// Why.
        diagnostic: Diagnostic,
        /// The peer's BFD does not share the fate of its BGP (its C bit): what failed is the way to it, not its speaker.
        independent: bool,
    },
    /// The peer ended the session on purpose, which is no failure (RFC 5882 section 3.2).
    AdminDown,
}
