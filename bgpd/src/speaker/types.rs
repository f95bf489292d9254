//! What goes into the speaker and what comes out; plain data, so that a run can be recorded and replayed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use crds::net::{Cidr, Family};
use serde::{Deserialize, Serialize};

use crate::Millis;
use crate::bfd;
use crate::config::{Config, OriginKind, OverLimit, PeerKey, PrefixLimit};
use crate::fsm::{DownReason, MessageCounts, PeerRestart, State};
use crate::nexthop;

use super::{DrainRequest, Hindrance, StaleStage, StationEvent, SweepReason};

/// One TCP connection, for as long as the speaker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConnId {
    /// Asked for by [`Output::Connect`]; numbered by the speaker.
    Out(u64),
    /// Accepted by the listener; numbered by the driver, never twice the same.
    In(u64),
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Out(n) => write!(f, "out-{n}"),
            Self::In(n) => write!(f, "in-{n}"),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// A new configuration, applied by difference.
    Config(Config),
    /// Something happened to a connection.
    Tcp(ConnId, TcpEvent),
    /// felix's report; sessions start with the first one (or 10 seconds after the start).
    Dataplane(DataplaneReport),
    /// felix starts a snapshot of origins: those not repeated before [`Input::OriginsComplete`] are gone then.
    OriginsBegin,
    /// One origin. In file mode, without felix, origins come from [`Config::origins`].
    Origin {
        /// The prefix.
        prefix: Cidr,
        /// Why it is originated.
        kind: OriginKind,
        /// No longer.
        withdrawn: bool,
    },
    /// Whether a pod has an address of an origin of felix; one does until this says otherwise. A block without pods
    /// leaves when the node is drained, another one only by force.
    OriginIdle {
        /// The prefix.
        prefix: Cidr,
        /// No pod has.
        idle: bool,
    },
    /// An operator wants this drained, and nothing else.
    Drain(DrainRequest),
    /// Every origin has been sent. No End-of-RIB leaves before the first one; in file mode the driver says it at once.
    OriginsComplete,
    /// Changes of interfaces, addresses, kernel routes; together, so that they are judged once.
    Kernel(Vec<nexthop::Change>),
    /// Something happened to a BFD session that [`Output::BfdStart`] asked for.
    Bfd {
        /// Whose it is.
        peer: PeerKey,
        /// What.
        event: bfd::Event,
    },
    /// Something happened to the connection with a BMP station.
    Bmp {
        /// Name of the station.
        station: String,
        /// What.
        event: StationEvent,
    },
    /// Somebody takes the best routes from now on, beginning with all there are; or nobody does any more, and
    /// [`Output::Best`] is not said. Before the first one it is.
    Best(bool),
    /// That many of the best routes said since then are taken. Without it the speaker stops at
    /// [`BEST_WINDOW`](super::BEST_WINDOW), so that who is slow to take them costs no memory.
    BestTaken(usize),
    /// Time has passed: [`next_timeout`](super::Speaker::next_timeout) is due.
    Tick,
}

/// What happened to a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum TcpEvent {
    /// A connection asked for is there.
    Connected {
        /// Own end.
        local: SocketAddr,
        /// The peer's end.
        remote: SocketAddr,
    },
    /// A connection asked for could not be made.
    ConnectFailed {
        /// The system's words.
        reason: String,
    },
    /// The listener accepted a connection. The speaker answers with what it sends, or with [`Output::Close`].
    Accepted {
        /// Own end.
        local: SocketAddr,
        /// The peer's end.
        remote: SocketAddr,
        /// TTL that its first packet came with; None: not known.
        #[serde(default)]
        ttl: Option<u8>,
    },
    /// Bytes have arrived, any number.
    Bytes(#[serde(with = "hex_bytes")] Bytes),
    /// The kernel has taken that many bytes of what was asked to be sent. Without it the speaker stops at
    /// [`SEND_WINDOW`](super::SEND_WINDOW) bytes, so that a slow peer costs no memory.
    Sent(usize),
    /// The connection is gone; not said after [`Output::Close`].
    Closed {
        /// The system's words; empty for an orderly end.
        reason: String,
    },
}

/// How far away the other end of a connection may be (RFC 5082).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hops {
    /// TTL that packets leave with.
    pub ttl: u8,
    /// Packets that come with less are dropped; 0: none.
    pub least: u8,
}

/// What felix found in the kernel when it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataplaneReport {
    /// Identity of the boot.
    pub boot_id: String,
    /// Families whose BGP routes outlived the restart.
    pub preserved: Vec<Family>,
    /// An earlier life of this speaker ran in the same boot.
    #[serde(default)]
    pub restarted: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Output {
    /// Make a connection and report on it as `conn`. An unfinished one ends with [`Output::Close`].
    Connect {
        /// For whom.
        peer: PeerKey,
        /// Address to bind to.
        local: Option<IpAddr>,
        /// Port to bind to.
        local_port: Option<u16>,
        /// Where to. Its key of TCP MD5 is found by that address.
        remote: SocketAddr,
        /// How far away it may be.
        hops: Hops,
        /// Its name from now on.
        conn: ConnId,
    },
    /// The other end of an accepted connection may be that far away. Said before anything is sent.
    Limit(ConnId, Hops),
    /// Send bytes, after those already given.
    Send(ConnId, #[serde(with = "hex_bytes")] Bytes),
    /// Send what was given (for a second at most), then close. The name is not used again.
    Close(ConnId),
    /// The best paths to a prefix are these now; no legs: there is none.
    Best {
        /// The prefix.
        prefix: Cidr,
        /// Ways, ordered by address and interface, without duplicates.
        legs: Vec<Leg>,
    },
    /// Every prefix whose best paths were told to be `from` has others now, most of them `to`. Which has what is told of
    /// each as ever; this is ahead of it.
    BestMoved {
        /// Ways that no prefix has any more, as they were told.
        from: Vec<Leg>,
        /// Ways as in [`Best`](Self::Best); at least one.
        to: Vec<Leg>,
    },
    /// Every best path known after the start has been said. Said once, and again after all paths that an
    /// [`Input::Best`] asks for.
    BestComplete,
    /// Watch the way to a peer by BFD, or watch it otherwise from now on.
    BfdStart {
        /// Whom.
        peer: PeerKey,
        /// How.
        settings: bfd::Settings,
    },
    /// Do not watch it any more.
    BfdStop {
        /// Whom.
        peer: PeerKey,
    },
    /// Send bytes to a BMP station that is connected.
    Bmp {
        /// Name of the station.
        station: String,
        /// Whole messages.
        #[serde(with = "hex_bytes")]
        bytes: Bytes,
    },
    /// For the log.
    Event(SpeakerEvent),
}

/// One way to a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Leg {
    /// The neighbour that takes the packets; of either family.
    pub address: IpAddr,
    /// Its interface.
    pub ifindex: Option<u32>,
    /// No connected prefix holds the address.
    pub onlink: bool,
    /// Share of the traffic, 1 to 255.
    pub weight: u8,
}

/// Something worth a line in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum SpeakerEvent {
    /// A session came up.
    Established {
        /// With whom.
        peer: PeerKey,
        /// Negotiated families.
        families: Vec<Family>,
        /// Negotiated hold time, seconds.
        hold_time: u16,
    },
    /// A connection or session ended.
    Down {
        /// With whom.
        peer: PeerKey,
        /// How far it had come.
        state: State,
        /// Why.
        reason: DownReason,
    },
    /// A connection was refused, as nobody configured its address.
    UnknownPeer {
        /// Its address.
        remote: SocketAddr,
    },
    /// A connection was refused, as its range has as many peers as it may have.
    RangeFull {
        /// Its address.
        remote: SocketAddr,
        /// The range.
        range: Cidr,
        /// The most peers that it may have.
        limit: u32,
    },
    /// A connection of a configured peer was refused, as its session is not ready for one.
    NotReady {
        /// The peer.
        peer: PeerKey,
        /// State of its session.
        state: State,
    },
    /// A connection was refused, as it came from farther away than its peer may be (RFC 5082).
    TooFar {
        /// Its address.
        remote: SocketAddr,
        /// TTL that its first packet came with.
        ttl: u8,
        /// Least TTL that is accepted.
        least: u8,
    },
    /// A session is not started, or waits to be again.
    Held {
        /// The peer.
        peer: PeerKey,
        /// Why.
        reason: Hindrance,
    },
    /// An UPDATE was malformed, but not so much that the session had to end (RFC 7606).
    Malformed {
        /// From whom.
        peer: PeerKey,
        /// What was wrong and what was done, in words.
        problem: String,
        /// The attribute's bytes in hexadecimal.
        bytes: String,
    },
    /// A family is not announced to a peer, as there is no own address for its next hop.
    NoNextHop {
        /// To whom.
        peer: PeerKey,
        /// The family.
        family: Family,
    },
    /// A route is not announced to a peer: its attributes do not fit into one message.
    TooLong {
        /// To whom.
        peer: PeerKey,
        /// One of its prefixes.
        prefix: Cidr,
    },
    /// A session was lost and its routes are kept.
    Kept {
        /// Whose.
        peer: PeerKey,
        /// Of which family.
        family: Family,
        /// For how long at most, until the session has to be back.
        millis: Millis,
    },
    /// The session was not back in time; its routes are kept as a last resort (RFC 9494).
    KeptLonger {
        /// Whose.
        peer: PeerKey,
        /// Of which family.
        family: Family,
        /// For how long at most.
        millis: Millis,
    },
    /// Routes are gone that their peer has not said again.
    Swept {
        /// Whose.
        peer: PeerKey,
        /// Of which family.
        family: Family,
        /// How many.
        routes: usize,
        /// Why now.
        reason: SweepReason,
    },
    /// A peer announces more prefixes than it may; said once in a session.
    OverLimit {
        /// Who.
        peer: PeerKey,
        /// Of which family.
        family: Family,
        /// The most it may.
        max: u32,
        /// What is done about it.
        action: OverLimit,
    },
    /// A peer announces more paths to a prefix than [`PATHS_MAX`](crate::rib::PATHS_MAX), which are not taken; said once
    /// in a session.
    TooManyPaths {
        /// Who.
        peer: PeerKey,
        /// To which prefix.
        prefix: Cidr,
    },
    /// The peer sent its End-of-RIB.
    EndOfRib {
        /// Who.
        peer: PeerKey,
        /// For which family.
        family: Family,
    },
    /// Something happened to a peer's BFD session.
    Bfd {
        /// Whose it is.
        peer: PeerKey,
        /// What.
        event: bfd::Event,
    },
    /// No report came from felix in time; sessions start without.
    DataplaneOverdue,
    /// Not every peer sent its End-of-RIB in time; the best paths are said to be complete without.
    DeferralOver,
}

/// The speaker as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Own AS.
    pub asn: u32,
    /// Own BGP identifier.
    pub router_id: Ipv4Addr,
    /// Peers configured.
    pub neighbors_configured: usize,
    /// Peers with an established session.
    pub neighbors_established: usize,
    /// Prefixes originated.
    pub origins: usize,
    /// Paths held, own ones included.
    pub routes: usize,
}

/// One configured peer and its session.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NeighborInfo {
    /// Name of the object or entry that asks for it.
    pub name: String,
    /// Its identity.
    pub key: PeerKey,
    /// The range it connected from, when it is not configured by itself.
    pub range: Option<Cidr>,
    /// Its AS; 0: any external one, and none has been learnt yet.
    pub remote_asn: u32,
    /// The AS told to it.
    pub local_asn: u32,
    /// State of the session.
    pub state: State,
    /// How long it has been in that state.
    pub state_millis: Millis,
    /// Negotiated hold time, seconds; 0: none.
    pub hold_time: u16,
    /// Its BGP identifier, once known.
    pub router_id: Option<Ipv4Addr>,
    /// Counts for each family, both always.
    pub families: Vec<FamilyCount>,
    /// How many times the session was established.
    pub established_count: u64,
    /// Why the last connection ended.
    pub last_error: Option<DownReason>,
    /// Why the session is not started.
    pub hindrance: Option<Hindrance>,
    /// BGP messages from it.
    pub messages_received: u64,
    /// BGP messages to it.
    pub messages_sent: u64,
    /// Paths from it in this session that were not taken, as there were too many to one prefix.
    pub surplus_paths: u64,
    /// Its BFD session, when it has one.
    pub bfd: Option<BfdInfo>,
    /// BGP messages from it by kind.
    pub received: MessageCounts,
    /// BGP messages to it by kind.
    pub sent: MessageCounts,
    /// Capabilities it announced.
    pub capabilities: Vec<String>,
    /// Capabilities it was announced.
    pub announced: Vec<String>,
    /// What it said about its restarts; None: one side does not do graceful restart, or there is no session.
    pub restart: Option<PeerRestart>,
    /// Until the next attempt to connect, or the end of the one under way; None: none is made.
    pub retry_millis: Option<Millis>,
}

/// A peer's BFD session, as far as the speaker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BfdInfo {
    /// What was last heard of it; None: it has not been up yet.
    pub last: Option<bfd::Event>,
    /// How long ago that was, or how long it has been waited for.
    pub state_millis: Millis,
}

impl BfdInfo {
    /// Its state in a word.
    pub fn state(&self) -> bfd::State {
        match self.last {
            Some(bfd::Event::Up) => bfd::State::Up,
            Some(bfd::Event::AdminDown) => bfd::State::AdminDown,
            Some(bfd::Event::Down { .. }) | None => bfd::State::Down,
        }
    }
}

/// Routes of one family exchanged with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FamilyCount {
    /// The family.
    pub family: Family,
    /// Both sides announced it.
    pub negotiated: bool,
    /// Routes from it.
    pub received: usize,
    /// Those of them that import policy took.
    pub accepted: usize,
    /// Routes from it that import policy refused and that were not kept, since it was last asked for all.
    pub not_kept: u64,
    /// Routes told to it.
    pub advertised: usize,
    /// Its End-of-RIB has been seen.
    pub end_of_rib: bool,
    /// Routes of it that are not fresh.
    pub stale: usize,
    /// Why they are not.
    pub stale_stage: Option<StaleStage>,
    /// How long they stay so, at most.
    pub stale_millis: Millis,
    /// The most prefixes it may announce.
    pub limit: Option<PrefixLimit>,
    /// It has announced more in this session, or ended the last one by that.
    pub over_limit: bool,
}

/// Bytes as a string of hexadecimal digits.
mod hex_bytes {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        bytes: &Bytes,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&crate::wire::hex(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        crate::wire::unhex(&text)
            .map(Bytes::from)
            .ok_or_else(|| D::Error::custom("not pairs of hexadecimal digits"))
    }
}
