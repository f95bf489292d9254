//! The control packet: RFC 5880 section 4.1.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes of a control packet without authentication.
pub const LENGTH: usize = 24;

const VERSION: u8 = 1;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const INDEPENDENT: u8 = 0x08;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// State of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Held down on purpose.
    AdminDown,
    /// Nothing is heard of the peer, or it has just ended the session.
    Down,
    /// The peer is heard; it does not hear this side, as far as is known.
    Init,
    /// Both sides hear each other.
    Up,
}

impl State {
    fn code(self) -> u8 {
        match self {
            Self::AdminDown => 0,
            Self::Down => 1,
            Self::Init => 2,
            Self::Up => 3,
        }
    }

    fn from_code(code: u8) -> Self {
        match code & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why a session last left the state Up, 0 to 31.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Diagnostic(pub u8);

impl Diagnostic {
    /// Nothing to say.
    pub const NONE: Self = Self(0);
    /// No packet came for the detection time.
    pub const TIME_EXPIRED: Self = Self(1);
    /// The peer said that it is down.
    pub const NEIGHBOR_DOWN: Self = Self(3);
    /// Somebody wants it so.
    pub const ADMIN_DOWN: Self = Self(7);
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "no diagnostic",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbor signaled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            code => return write!(f, "diagnostic {code}"),
        })
    }
}

/// Why a packet was dropped (RFC 5880 section 6.8.6, 5881 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refusal {
    /// Shorter than its length field says, or than any packet can be.
    #[error("length")]
    Length,
    /// Not version 1.
    #[error("version")]
    Version,
    /// The detection multiplier is zero.
    #[error("multiplier")]
    Multiplier,
    /// The multipoint bit is set.
    #[error("multipoint")]
    Multipoint,
    /// The sender's discriminator is zero.
    #[error("discriminator")]
    Discriminator,
    /// It names no session, but its state needs one.
    #[error("state without session")]
    Stateless,
    /// It is authenticated, and no session here is.
    #[error("authentication")]
    Authentication,
    /// No session has that discriminator, or none that source.
    #[error("no session")]
    NoSession,
    /// It came farther than the session's peer is.
    #[error("time to live")]
    TimeToLive,
    /// The session it names has another peer, own address, link or port.
    #[error("wrong path")]
    WrongPath,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::Length,
        Self::Version,
        Self::Multiplier,
        Self::Multipoint,
        Self::Discriminator,
        Self::Stateless,
        Self::Authentication,
        Self::NoSession,
        Self::TimeToLive,
        Self::WrongPath,
    ];
}

/// A control packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session last left the state Up.
    pub diagnostic: Diagnostic,
    /// State of the sender's session.
    pub state: State,
    /// The sender wants an answer with [`is_final`](Self::is_final).
    pub poll: bool,
    /// This answers a poll.
    pub is_final: bool,
    /// The sender's BFD does not share the fate of its control plane.
    pub independent: bool,
    /// The sender wants no periodic packets once both sides are up.
    pub demand: bool,
    /// The sender's detection multiplier.
    pub multiplier: u8,
    /// The sender's discriminator.
    pub my_discriminator: u32,
    /// The receiver's discriminator, as far as the sender knows it; else zero.
    pub your_discriminator: u32,
    /// The sender will not send more often, microseconds.
    pub desired_min_tx: u32,
    /// The sender cannot take packets more often, microseconds; 0: it wants none.
    pub required_min_rx: u32,
    /// The same for echo packets; 0: there is no echo function.
    pub required_min_echo_rx: u32,
}

impl Packet {
    /// Reads a packet: all checks of RFC 5880 section 6.8.6 that need no session.
    ///
    /// # Errors
    ///
    /// Says why the packet has to be dropped.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let Some(&[first, flags, multiplier, length]) = bytes.first_chunk() else {
            return Err(Refusal::Length);
        };
        if first >> 5 != VERSION {
            return Err(Refusal::Version);
        }
        let least = if flags & AUTHENTICATION == 0 {
            LENGTH
        } else {
            LENGTH + 2
        };
        let length = usize::from(length);
        if length < least || length > bytes.len() {
            return Err(Refusal::Length);
        }
        if multiplier == 0 {
            return Err(Refusal::Multiplier);
        }
        if flags & MULTIPOINT != 0 {
            return Err(Refusal::Multipoint);
        }
        let word = |at: usize| {
            let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
            word.map_or(0, |word| u32::from_be_bytes(*word))
        };
        let packet = Self {
            diagnostic: Diagnostic(first & 0x1f),
            state: State::from_code(flags >> 6),
            poll: flags & POLL != 0,
            is_final: flags & FINAL != 0,
            independent: flags & INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            multiplier,
            my_discriminator: word(4),
            your_discriminator: word(8),
            desired_min_tx: word(12),
            required_min_rx: word(16),
            required_min_echo_rx: word(20),
        };
        if packet.my_discriminator == 0 {
            return Err(Refusal::Discriminator);
        }
        if packet.your_discriminator == 0 && packet.state > State::Down {
            return Err(Refusal::Stateless);
        }
        // No session here uses it, so the check does not have to wait for the session.
        if flags & AUTHENTICATION != 0 {
            return Err(Refusal::Authentication);
        }
        Ok(packet)
    }

    /// The packet's bytes.
    pub fn encode(&self) -> [u8; LENGTH] {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = self.state.code() << 6
            | bit(self.poll, POLL)
            | bit(self.is_final, FINAL)
            | bit(self.independent, INDEPENDENT)
            | bit(self.demand, DEMAND);
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(&[
            VERSION << 5 | self.diagnostic.0 & 0x1f,
            flags,
            self.multiplier,
            24,
        ]);
        let words = [
            self.my_discriminator,
            self.your_discriminator,
            self.desired_min_tx,
            self.required_min_rx,
            self.required_min_echo_rx,
        ];
        for (place, word) in bytes[4..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}
