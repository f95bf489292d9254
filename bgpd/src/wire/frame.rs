//! Messages in a stream of bytes: the header of RFC 4271 section 4.1.

use bytes::{BufMut, Bytes, BytesMut};

use super::notification::HeaderError;
use super::{HEADER, MAX_EXTENDED_MESSAGE, MAX_MESSAGE, Notification};

/// Kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageType {
    /// OPEN.
    Open = 1,
    /// UPDATE.
    Update = 2,
    /// NOTIFICATION.
    Notification = 3,
    /// KEEPALIVE.
    Keepalive = 4,
    /// ROUTE-REFRESH (RFC 2918).
    RouteRefresh = 5,
}

impl MessageType {
    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Open,
            2 => Self::Update,
            3 => Self::Notification,
            4 => Self::Keepalive,
            5 => Self::RouteRefresh,
            _ => return None,
        })
    }

    /// Shortest and longest whole message of that kind, where `longest` has been agreed on. RFC 8654 section 4 leaves
    /// OPEN and KEEPALIVE as they are.
    fn bounds(self, longest: usize) -> (usize, usize) {
        match self {
            Self::Open => (29, MAX_MESSAGE),
            Self::Update => (23, longest),
            Self::Notification => (21, longest),
            Self::Keepalive => (HEADER, HEADER),
            Self::RouteRefresh => (23, longest),
        }
    }
}

/// A message whose header has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its kind.
    pub kind: MessageType,
    /// What follows the header.
    pub body: Bytes,
}

impl Frame {
    /// The whole message again.
    pub fn encode(&self) -> Bytes {
        message(self.kind, &self.body)
    }
}

/// Collects bytes and gives whole messages.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    longest: usize,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self {
            buffer: BytesMut::new(),
            longest: MAX_MESSAGE,
        }
    }
}

impl FrameReader {
    /// Takes messages of up to that many bytes from now on (RFC 8654).
    pub fn set_longest(&mut self, bytes: usize) {
        self.longest = bytes;
    }

    /// Appends what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message; None: more bytes are needed. After an error the stream is unusable.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Notification> {
        let Some((header, _)) = self.buffer.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let (marker, [high, low, code]) = header
            .split_first_chunk::<16>()
            .map_or(([0; 16], [0; 3]), |(marker, rest)| {
                (*marker, [rest[0], rest[1], rest[2]])
            });
        if marker != [0xff; 16] {
            return Err(Notification::header(HeaderError::NotSynchronized, &[]));
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        let bad_length = || Notification::header(HeaderError::BadLength, &[high, low]);
        if !(HEADER..=self.longest).contains(&length) {
            return Err(bad_length());
        }
        let kind = MessageType::from_code(code)
            .ok_or_else(|| Notification::header(HeaderError::BadType, &[code]))?;
        let (shortest, longest) = kind.bounds(self.longest);
        if !(shortest..=longest).contains(&length) {
            return Err(bad_length());
        }
        if self.buffer.len() < length {
            return Ok(None);
        }
        let mut message = self.buffer.split_to(length);
        let body = message.split_off(HEADER).freeze();
        Ok(Some(Frame { kind, body }))
    }
}

/// A message of that kind; `body` must fit.
pub(super) fn message(kind: MessageType, body: &[u8]) -> Bytes {
    let length = HEADER + body.len();
    debug_assert!(
        length <= MAX_EXTENDED_MESSAGE,
        "the caller bounds what it writes"
    );
    let mut out = BytesMut::with_capacity(length);
    out.put_bytes(0xff, 16);
    out.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
    out.put_u8(kind as u8);
    out.put_slice(body);
    out.freeze()
}
