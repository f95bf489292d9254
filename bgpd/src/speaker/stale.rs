//! How far stale routes are, and why they went.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far stale routes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StaleStage {
    /// The session is lost.
    Away,
    /// The session is back; the peer has until its End-of-RIB to say them again.
    Back,
    /// The peer is repeating its routes (RFC 7313).
    Refreshing,
    /// The session was not back in time; they are a last resort (RFC 9494).
    LongLived,
}

impl fmt::Display for StaleStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Away => "waiting for the session",
            Self::Back => "waiting for End-of-RIB",
            Self::Refreshing => "being refreshed",
            Self::LongLived => "long-lived stale",
        })
    }
}

/// Why stale routes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SweepReason {
    /// The peer's routes are complete without them.
    EndOfRib,
    /// The refresh is complete without them.
    Refreshed,
    /// The time is over.
    Timer,
    /// The peer is back and has not kept forwarding.
    NotPreserved,
}

impl fmt::Display for SweepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndOfRib => "End-of-RIB without them",
            Self::Refreshed => "refreshed without them",
            Self::Timer => "the time is over",
            Self::NotPreserved => "the peer has not kept forwarding",
        })
    }
}
