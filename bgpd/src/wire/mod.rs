//! The codec: BGP messages as bytes and as types.
//!
//! Every decoder is total: any bytes give a value or an error that says what to do about them, a [`Notification`] that
//! ends the session, or [`Problem`]s of single attributes that RFC 7606 handles without.

pub mod as_path;
pub mod attribute;
pub mod capability;
mod cursor;
pub mod exercise;
pub mod frame;
pub mod nlri;
pub mod notification;
pub mod open;
pub mod plain;
pub mod refresh;
pub mod update;
pub(crate) mod writer;

use bytes::Bytes;
use crds::net::Family;
use serde::Serialize;

pub use as_path::{AsPath, Segment, SegmentKind};
pub use attribute::{Aggregator, Attributes, Origin, Problem, Reaction, UnknownAttribute};
pub use capability::Capability;
pub use frame::{Frame, FrameReader, MessageType};
pub use notification::Notification;
pub use open::Open;
pub use plain::Plain;
pub use refresh::RouteRefresh;
pub use update::Update;

/// Bytes of the longest message (RFC 4271 section 4.1).
pub const MAX_MESSAGE: usize = 4096;

/// Bytes of the longest message where both sides announced extended ones (RFC 8654).
pub const MAX_EXTENDED_MESSAGE: usize = 65535;

/// Bytes of the header every message starts with.
pub const HEADER: usize = 19;

/// What a session has agreed on that changes how UPDATEs are written and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dialect {
    /// Both sides announced 4-octet AS numbers (RFC 6793).
    pub four_octet_as: bool,
    /// Both sides are in one AS.
    pub internal: bool,
    /// Both sides announced extended messages (RFC 8654).
    pub extended_message: bool,
    /// IPv4 routes may have IPv6 next hops, both ways (RFC 8950).
    pub extended_next_hop: bool,
    /// Families whose prefixes we write with path identifiers (RFC 7911).
    pub paths_sent: Families,
    /// Families whose prefixes we read with path identifiers.
    pub paths_received: Families,
}

impl Dialect {
    /// What every current speaker has: 4-octet AS numbers, and nothing that is asked for.
    pub const fn plain(internal: bool) -> Self {
        Self {
            four_octet_as: true,
            internal,
            extended_message: false,
            extended_next_hop: false,
            paths_sent: Families::NONE,
            paths_received: Families::NONE,
        }
    }

    /// Bytes of the longest message.
    pub const fn max_message(self) -> usize {
        if self.extended_message {
            MAX_EXTENDED_MESSAGE
        } else {
            MAX_MESSAGE
        }
    }
}

/// A set of families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub struct Families {
    v4: bool,
    v6: bool,
}

impl Families {
    /// No family.
    pub const NONE: Self = Self {
        v4: false,
        v6: false,
    };

    /// Whether the family is in the set.
    pub const fn contains(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

impl FromIterator<Family> for Families {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        let mut set = Self::NONE;
        for family in families {
            match family {
                Family::V4 => set.v4 = true,
                Family::V6 => set.v6 = true,
            }
        }
        set
    }
}

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// OPEN.
    Open(Open),
    /// UPDATE.
    Update(Update),
    /// NOTIFICATION.
    Notification(Notification),
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH.
    RouteRefresh(RouteRefresh),
}

impl Message {
    /// Reads the message in a frame. An error ends the session.
    pub fn decode(frame: &Frame, dialect: Dialect) -> Result<Self, Notification> {
        let body = frame.body.as_ref();
        match frame.kind {
            MessageType::Open => Open::decode(body).map(Self::Open),
            MessageType::Update => Update::decode(body, dialect).map(Self::Update),
            MessageType::Notification => Ok(Self::Notification(Notification::decode(body))),
            MessageType::Keepalive => Ok(Self::Keepalive),
            MessageType::RouteRefresh => RouteRefresh::decode(body).map(Self::RouteRefresh),
        }
    }
}

/// A KEEPALIVE.
pub fn keepalive() -> Bytes {
    frame::message(MessageType::Keepalive, &[])
}

/// Reads bytes as a peer's whole stream in one dialect. Returns the messages read before
/// the first error, and the error.
pub fn decode_stream(bytes: &[u8], dialect: Dialect) -> (Vec<Message>, Option<Notification>) {
    let mut reader = FrameReader::default();
    reader.set_longest(dialect.max_message());
    reader.push(bytes);
    let mut messages = Vec::new();
    loop {
        let message = match reader.next_frame() {
            Ok(None) => return (messages, None),
            Ok(Some(frame)) => Message::decode(&frame, dialect),
            Err(error) => Err(error),
        };
        match message {
            Ok(message) => messages.push(message),
            Err(error) => return (messages, Some(error)),
        }
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from(DIGITS[usize::from(nibble)]))
        .collect()
}

/// The bytes that [`hex`] wrote; None for anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits?;
    let pairs = digits.chunks_exact(2);
    pairs
        .remainder()
        .is_empty()
        .then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
pub(crate) mod tests;
