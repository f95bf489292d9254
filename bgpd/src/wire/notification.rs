//! NOTIFICATION: why a session ends (RFC 4271 sections 4.5 and 6, RFC 4486, RFC 6608).

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::cursor::Cursor;
use super::frame::{self, MessageType};
use super::{HEADER, MAX_MESSAGE, hex};

/// An error that ends a session, as it is sent or was received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode; 0: unspecific.
    pub subcode: u8,
    /// What helps to find the reason.
    pub data: Vec<u8>,
}

/// Message Header Error subcodes (RFC 4271 section 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum HeaderError {
    /// The marker is not all ones.
    NotSynchronized = 1,
    /// The length is impossible for the type; data: the length.
    BadLength = 2,
    /// The type is unknown; data: the type.
    BadType = 3,
}

/// OPEN Message Error subcodes (RFC 4271 section 6.2, RFC 5492).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum OpenError {
    /// The message does not parse.
    Unspecific = 0,
    /// Data: the version spoken here.
    UnsupportedVersion = 1,
    /// Not the AS that was configured, or AS 0 (RFC 7607).
    BadPeerAs = 2,
    /// 0, or ours within the AS (RFC 6286).
    BadIdentifier = 3,
    /// A parameter that is not capabilities.
    UnsupportedParameter = 4,
    /// 1 or 2 seconds.
    UnacceptableHoldTime = 6,
    /// No family in common; data: the capabilities wanted.
    UnsupportedCapability = 7,
}

/// UPDATE Message Error subcodes (RFC 4271 section 6.3), those that RFC 7606 left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum UpdateError {
    /// Lengths that contradict each other, or an attribute twice that may not be.
    MalformedAttributes = 1,
    /// Data: the attribute.
    UnrecognizedWellKnown = 2,
    /// MP_REACH_NLRI or MP_UNREACH_NLRI does not parse; data: the attribute.
    OptionalAttribute = 9,
    /// IPv4 prefixes do not parse.
    InvalidNetwork = 10,
}

/// Finite State Machine Error subcodes (RFC 6608).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FsmError {
    /// Data: the message's type.
    InOpenSent = 1,
    /// Data: the message's type.
    InOpenConfirm = 2,
    /// Data: the message's type.
    InEstablished = 3,
}

/// Cease subcodes (RFC 4486, RFC 8538, RFC 9384).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cease {
    /// More prefixes than the peer may announce; data: AFI, SAFI, the most it may.
    MaxPrefixes = 1,
    /// An operator stopped the session.
    Shutdown = 2,
    /// The peer is not configured any more.
    Deconfigured = 3,
    /// An operator restarts the session.
    Reset = 4,
    /// No connection is wanted.
    Rejected = 5,
    /// The session's configuration changed.
    OtherChange = 6,
    /// The other of two connections is kept.
    Collision = 7,
    /// There is no room for one more.
    OutOfResources = 8,
    /// Nothing of the session is to be kept, whatever graceful restart says; data: the NOTIFICATION that this is
    /// otherwise, code and subcode first (RFC 8538 section 3.1).
    HardReset = 9,
    /// BFD says that the way to the peer is gone (RFC 9384).
    BfdDown = 10,
}

const HEADER_CODE: u8 = 1;
const OPEN_CODE: u8 = 2;
const UPDATE_CODE: u8 = 3;
const HOLD_CODE: u8 = 4;
const FSM_CODE: u8 = 5;
const CEASE_CODE: u8 = 6;
const REFRESH_CODE: u8 = 7;
const SEND_HOLD_CODE: u8 = 8;

/// Bytes of an operator's words (RFC 9003 section 2).
const WORDS_MAX: usize = 255;

impl Notification {
    /// Message Header Error.
    pub fn header(subcode: HeaderError, data: &[u8]) -> Self {
        Self {
            code: HEADER_CODE,
            subcode: subcode as u8,
            data: data.to_vec(),
        }
    }

    /// OPEN Message Error.
    pub fn open(subcode: OpenError, data: &[u8]) -> Self {
        Self {
            code: OPEN_CODE,
            subcode: subcode as u8,
            data: data.to_vec(),
        }
    }

    /// UPDATE Message Error.
    pub fn update(subcode: UpdateError, data: &[u8]) -> Self {
        Self {
            code: UPDATE_CODE,
            subcode: subcode as u8,
            data: data.to_vec(),
        }
    }

    /// Hold Timer Expired.
    pub fn hold_timer() -> Self {
        Self {
            code: HOLD_CODE,
            subcode: 0,
            data: Vec::new(),
        }
    }

    /// Send Hold Timer Expired (RFC 9687).
    pub fn send_hold_timer() -> Self {
        Self {
            code: SEND_HOLD_CODE,
            subcode: 0,
            data: Vec::new(),
        }
    }

    /// Finite State Machine Error: a message of type `kind` where it does not belong.
    pub fn fsm(subcode: FsmError, kind: MessageType) -> Self {
        Self {
            code: FSM_CODE,
            subcode: subcode as u8,
            data: vec![kind as u8],
        }
    }

    /// Cease.
    pub fn cease(subcode: Cease) -> Self {
        Self {
            code: CEASE_CODE,
            subcode: subcode as u8,
            data: Vec::new(),
        }
    }

    /// A shutdown or reset with the operator's words, cut to 255 bytes (RFC 9003); no words: none are sent.
    pub fn cease_with(subcode: Cease, words: &str) -> Self {
        let mut notification = Self::cease(subcode);
        let end = words.floor_char_boundary(WORDS_MAX);
        if let (Ok(length), false) = (u8::try_from(end), words.is_empty()) {
            notification.data.push(length);
            notification
                .data
                .extend_from_slice(&words.as_bytes()[..end]);
        }
        notification
    }

    /// Cease because of that many prefixes in a family, of AFI and SAFI (RFC 4486 section 4).
    pub fn max_prefixes(afi: u16, safi: u8, most: u32) -> Self {
        let mut notification = Self::cease(Cease::MaxPrefixes);
        notification.data.extend_from_slice(&afi.to_be_bytes());
        notification.data.push(safi);
        notification.data.extend_from_slice(&most.to_be_bytes());
        notification
    }

    /// The same as a hard reset (RFC 8538 section 3.1).
    pub fn hard(self) -> Self {
        if self.is_cease(Cease::HardReset) {
            return self;
        }
        let mut notification = Self::cease(Cease::HardReset);
        notification
            .data
            .extend_from_slice(&[self.code, self.subcode]);
        notification.data.extend(self.data);
        notification
    }

    /// What a hard reset would be otherwise; None: it is none, or does not say.
    pub fn inside(&self) -> Option<Self> {
        match self.data.split_first_chunk::<2>() {
            Some(([code, subcode], data)) if self.is_cease(Cease::HardReset) => Some(Self {
                code: *code,
                subcode: *subcode,
                data: data.to_vec(),
            }),
            _ => None,
        }
    }

    /// Whether this is a Cease after which nothing of the session shall be kept.
    pub fn is_final(&self) -> bool {
        [
            Cease::MaxPrefixes,
            Cease::Shutdown,
            Cease::Deconfigured,
            Cease::BfdDown,
        ]
        .into_iter()
        .any(|it| self.is_cease(it))
    }

    /// ROUTE-REFRESH Message Error, invalid length (RFC 7313).
    pub fn refresh(data: &[u8]) -> Self {
        Self {
            code: REFRESH_CODE,
            subcode: 1,
            data: data.to_vec(),
        }
    }

    /// Whether this is that Cease.
    pub fn is_cease(&self, subcode: Cease) -> bool {
        self.code == CEASE_CODE && self.subcode == subcode as u8
    }

    /// Whether the peer could not take what an OPEN offered (RFC 5492 section 3).
    pub fn refuses_capabilities(&self) -> bool {
        let subcodes = [
            OpenError::UnsupportedParameter as u8,
            OpenError::UnsupportedCapability as u8,
        ];
        self.code == OPEN_CODE && subcodes.contains(&self.subcode)
    }

    /// Reads the body; the frame reader has made sure of its first two bytes.
    pub fn decode(body: &[u8]) -> Self {
        let mut cursor = Cursor::new(body);
        let code = cursor.u8().unwrap_or_default();
        let subcode = cursor.u8().unwrap_or_default();
        Self {
            code,
            subcode,
            data: cursor.rest().to_vec(),
        }
    }

    /// The whole message; data beyond the longest message is left out.
    pub fn encode(&self) -> Bytes {
        let mut body = vec![self.code, self.subcode];
        let room = MAX_MESSAGE - HEADER - body.len();
        body.extend_from_slice(&self.data[..self.data.len().min(room)]);
        frame::message(MessageType::Notification, &body)
    }

    fn names(&self) -> (&'static str, &'static str) {
        match (self.code, self.subcode) {
            (1, 1) => ("message header error", "connection not synchronized"),
            (1, 2) => ("message header error", "bad message length"),
            (1, 3) => ("message header error", "bad message type"),
            (1, _) => ("message header error", ""),
            (2, 1) => ("OPEN message error", "unsupported version number"),
            (2, 2) => ("OPEN message error", "bad peer AS"),
            (2, 3) => ("OPEN message error", "bad BGP identifier"),
            (2, 4) => ("OPEN message error", "unsupported optional parameter"),
            (2, 6) => ("OPEN message error", "unacceptable hold time"),
            (2, 7) => ("OPEN message error", "unsupported capability"),
            (2, _) => ("OPEN message error", ""),
            (3, 1) => ("UPDATE message error", "malformed attribute list"),
            (3, 2) => ("UPDATE message error", "unrecognized well-known attribute"),
            (3, 3) => ("UPDATE message error", "missing well-known attribute"),
            (3, 4) => ("UPDATE message error", "attribute flags error"),
            (3, 5) => ("UPDATE message error", "attribute length error"),
            (3, 6) => ("UPDATE message error", "invalid ORIGIN attribute"),
            (3, 8) => ("UPDATE message error", "invalid NEXT_HOP attribute"),
            (3, 9) => ("UPDATE message error", "optional attribute error"),
            (3, 10) => ("UPDATE message error", "invalid network field"),
            (3, 11) => ("UPDATE message error", "malformed AS_PATH"),
            (3, _) => ("UPDATE message error", ""),
            (4, _) => ("hold timer expired", ""),
            (5, 1) => (
                "finite state machine error",
                "unexpected message in OpenSent",
            ),
            (5, 2) => (
                "finite state machine error",
                "unexpected message in OpenConfirm",
            ),
            (5, 3) => (
                "finite state machine error",
                "unexpected message in Established",
            ),
            (5, _) => ("finite state machine error", ""),
            (6, 1) => ("Cease", "maximum number of prefixes reached"),
            (6, 2) => ("Cease", "administrative shutdown"),
            (6, 3) => ("Cease", "peer de-configured"),
            (6, 4) => ("Cease", "administrative reset"),
            (6, 5) => ("Cease", "connection rejected"),
            (6, 6) => ("Cease", "other configuration change"),
            (6, 7) => ("Cease", "connection collision resolution"),
            (6, 8) => ("Cease", "out of resources"),
            (6, 9) => ("Cease", "hard reset"),
            (6, 10) => ("Cease", "BFD down"),
            (6, _) => ("Cease", ""),
            (7, 1) => ("ROUTE-REFRESH message error", "invalid message length"),
            (7, _) => ("ROUTE-REFRESH message error", ""),
            (8, _) => ("send hold timer expired", ""),
            _ => ("unknown error", ""),
        }
    }

    /// The operator's words in a shutdown or reset (RFC 9003), if there are any.
    pub fn words(&self) -> Option<&str> {
        if self.code != CEASE_CODE
            || !(self.subcode == Cease::Shutdown as u8 || self.subcode == Cease::Reset as u8)
        {
            return None;
        }
        let (length, text) = self.data.split_first()?;
        std::str::from_utf8(text.get(..usize::from(*length))?)
            .ok()
            .filter(|text| !text.is_empty())
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, subcode) = self.names();
        write!(f, "{code}")?;
        if !subcode.is_empty() {
            write!(f, ": {subcode}")?;
        }
        write!(f, " ({}/{})", self.code, self.subcode)?;
        // A peer may nest as deep as a message goes; people need one level.
        if let Some(inside) = self.inside().filter(|it| it.inside().is_none()) {
            return write!(f, " for {inside}");
        }
        if let Some(words) = self.words() {
            write!(f, " {words:?}")?;
        } else if !self.data.is_empty() {
            write!(f, " data {}", hex(&self.data))?;
        }
        Ok(())
    }
}
