//! One [`Config`] from a file or from Kubernetes, already checked.

pub mod bootstrap;
mod diff;
pub mod file;
pub mod filter;
pub mod kubernetes;
mod objects;
mod options;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crds::net::{Cidr, Family};
use serde::{Deserialize, Serialize};

use crate::Millis;

pub use diff::{Cost, PeerChange, diff};
pub use filter::Filter;
pub use options::{
    AddPath, Advertisement, Bfd, BmpStation, Distance, DynamicPeers, GracefulRestart, NextHopMode,
    OnBfdFailure, Options, OverLimit, Password, PrefixLimit,
};

/// Equal-cost paths used when nobody says how many.
const MULTIPATH: u8 = 16;

/// What the speaker shall be. Applied by difference: see [`diff()`].
///
/// It is kept on disk: a field that an earlier version does not know has a default when it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// BGP identifier; unique within the AS (RFC 6286), never 0.0.0.0.
    pub router_id: Ipv4Addr,
    /// The speaker's own AS.
    pub asn: u32,
    /// TCP port the driver listens on.
    pub listen_port: u16,
    /// Hold time offered in OPEN, seconds: 0 (none) or at least 3. A peer may override it.
    pub hold_time: u16,
    /// Peers, in any order; keys are unique.
    pub peers: Vec<Peer>,
    /// Pools whose blocks are imported by default.
    pub pools: Vec<Pool>,
    /// Further ranges whose prefixes are imported by default; a default route only if it is listed itself.
    pub import_ranges: Vec<Cidr>,
    /// Prefixes this speaker originates by configuration (without felix).
    pub origins: Vec<Origin>,
    /// The most equal-cost paths used for one prefix; at least 1.
    pub multipath: u8,
    /// The cluster of reflection clients (RFC 4456); the BGP identifier when unset.
    #[serde(default)]
    pub cluster_id: Option<Ipv4Addr>,
    /// Filters by name; peers refer to them.
    #[serde(default)]
    pub filters: BTreeMap<String, Filter>,
    /// Own prefixes that are told with communities.
    #[serde(default)]
    pub advertisements: Vec<Advertisement>,
    /// Peers that are not configured one by one.
    #[serde(default)]
    pub dynamic: Vec<DynamicPeers>,
    /// External peers without a filter are told nothing and nothing of theirs is taken (RFC 8212). The built-in import
    /// and export classes other than [`ImportPolicy::All`] and [`ExportClass::Transit`] count as filters.
    #[serde(default)]
    pub require_policy: bool,
    /// How long the best paths wait after a start for the peers' routes, milliseconds.
    #[serde(default = "selection_deferral")]
    pub selection_deferral: Millis,
    /// Stations of BMP.
    #[serde(default)]
    pub bmp: Vec<BmpStation>,
    /// The node is being drained.
    #[serde(default)]
    pub drain: Drain,
}

fn selection_deferral() -> Millis {
    Config::SELECTION_DEFERRAL
}

/// How far the node shall be taken out of use (RFC 8326).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Drain {
    /// In use.
    #[default]
    No,
    /// Addresses of services leave: told with GRACEFUL_SHUTDOWN first, withdrawn after [`Config::DRAIN_WAIT`]. Blocks stay.
    Services,
    /// Everything leaves in the same way.
    Everything,
}

impl Config {
    /// How long drained routes are told with GRACEFUL_SHUTDOWN before they are withdrawn, milliseconds.
    pub const DRAIN_WAIT: Millis = 30_000;

    /// How long the best paths wait after a start, when nothing else is said.
    pub const SELECTION_DEFERRAL: Millis = 10_000;

    /// A speaker without peers and without routes, everything else at its default.
    pub fn new(asn: u32, router_id: Ipv4Addr) -> Self {
        Self {
            router_id,
            asn,
            listen_port: 179,
            hold_time: 90,
            peers: Vec::new(),
            pools: Vec::new(),
            import_ranges: Vec::new(),
            origins: Vec::new(),
            multipath: MULTIPATH,
            cluster_id: None,
            filters: BTreeMap::new(),
            advertisements: Vec::new(),
            dynamic: Vec::new(),
            require_policy: false,
            selection_deferral: Self::SELECTION_DEFERRAL,
            bmp: Vec::new(),
            drain: Drain::No,
        }
    }
}

/// A pool of addresses, cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The pool.
    pub cidr: Cidr,
    /// Prefix length of its blocks.
    pub block_size: u8,
}

/// Why a prefix is originated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OriginKind {
    /// An address block this node owns.
    Block,
    /// A single address borrowed from another node's block.
    Borrowed,
    /// A service's address.
    Service,
    /// The node's own address.
    Node,
}

/// A prefix this speaker originates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The prefix.
    pub prefix: Cidr,
    /// Why.
    pub kind: OriginKind,
}

/// What identifies a peer through all its changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PeerKey {
    /// The peer with that address.
    Address(IpAddr),
    /// Whoever speaks BGP on that interface (unnumbered peering).
    Interface(String),
}

impl PeerKey {
    /// The address, when the key is one.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Interface(_) => None,
        }
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Interface(name) => name.fmt(f),
        }
    }
}

/// Which routes a peer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum ExportClass {
    /// Only what this speaker originates: it never carries transit.
    #[default]
    Origins,
    /// The peer is a route reflection client (RFC 4456).
    Reflect,
    /// Every best route, within the rules of iBGP.
    Transit,
}

/// Which of a peer's routes are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ImportPolicy {
    /// Blocks of the pools and the configured ranges, nothing inside own blocks.
    #[default]
    Pools,
    /// Everything that RFC 4271 does not forbid.
    All,
}

/// How long a session waits, milliseconds. Every one is shortened by a random quarter (RFC 4271 §10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers {
    /// Wait for a TCP connection before it is tried anew.
    pub connect: Millis,
    /// First wait between two attempts; doubles with each failure.
    pub retry_min: Millis,
    /// Longest wait between two attempts.
    pub retry_max: Millis,
    /// Keepalive interval; a third of the negotiated hold time when unset or longer than that.
    pub keepalive: Option<Millis>,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            connect: 20_000,
            retry_min: 500,
            retry_max: 15_000,
            keepalive: None,
        }
    }
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Name of the object or entry that asks for it; for people only.
    pub name: String,
    /// Its identity.
    pub key: PeerKey,
    /// Its TCP port.
    pub port: u16,
    /// Its AS; 0: any external one.
    pub remote_asn: u32,
    /// The AS told to it; [`Config::asn`] when unset.
    pub local_asn: Option<u32>,
    /// The address connected from; the kernel's choice when unset.
    pub local_address: Option<IpAddr>,
    /// Families offered; at least one.
    pub families: Vec<Family>,
    /// Never connect, only be connected to.
    pub passive: bool,
    /// Hold time offered, seconds; [`Config::hold_time`] when unset.
    pub hold_time: Option<u16>,
    /// Which routes it is told.
    pub export: ExportClass,
    /// Which of its routes are used.
    pub import: ImportPolicy,
    /// How long its session waits.
    pub timers: Timers,
    /// What else is asked of its session.
    #[serde(default)]
    pub options: Options,
}

impl Peer {
    /// A peer at `address` in `remote_asn` with everything else at its default and the address's own family.
    pub fn new(address: IpAddr, remote_asn: u32) -> Self {
        Self {
            name: address.to_string(),
            key: PeerKey::Address(address),
            port: 179,
            remote_asn,
            local_asn: None,
            local_address: None,
            families: vec![Family::of(address)],
            passive: false,
            hold_time: None,
            export: ExportClass::default(),
            import: ImportPolicy::default(),
            timers: Timers::default(),
            options: Options::default(),
        }
    }

    /// Both sides are in one AS.
    pub fn is_internal(&self, config: &Config) -> bool {
        self.local_asn.unwrap_or(config.asn) == self.remote_asn
    }
}
