//! The session state machine of RFC 4271 section 8.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::wire::Notification;

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
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(notification) => write!(f, "sent {notification}"),
            Self::Received(notification) => write!(f, "received {notification}"),
            Self::ConnectFailed(why) => write!(f, "connection failed: {why}"),
            Self::Closed(why) if why.is_empty() => f.write_str("closed by the peer"),
            Self::Closed(why) => write!(f, "connection lost: {why}"),
        }
    }
}
