//! What one session can be asked for beyond an address and an AS.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crds::net::{Cidr, Family};
use serde::{Deserialize, Serialize};

use super::Peer;
use crate::Millis;

/// A key of TCP MD5 (RFC 2385), 1 to 80 bytes. Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// How far away a peer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Distance {
    /// An external peer is on a connected network, an internal one anywhere; packets leave with TTL 1 and 255.
    #[default]
    Direct,
    /// At most that many hops; packets leave with that TTL.
    Multihop(u8),
    /// GTSM (RFC 5082): packets leave with TTL 255, those that came farther than this many hops are dropped.
    Secure(u8),
}

/// What a session failure that BFD reports does to the peer's routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum OnBfdFailure {
    /// They are gone at once, even under graceful restart.
    #[default]
    Purge,
    /// They are kept as graceful restart would.
    Graceful,
}

/// BFD of a session (RFC 5880, 5881; 5883 where the peer is [`Distance::Multihop`] or not on a connected network).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bfd {
    /// Least time between packets sent, milliseconds.
    pub transmit: Millis,
    /// Least time between packets that can be taken, milliseconds.
    pub receive: Millis,
    /// Packets missed before the session is down.
    pub multiplier: u8,
    /// What happens then.
    pub on_failure: OnBfdFailure,
}

/// Graceful restart (RFC 4724, 8538) and its long-lived kind (RFC 9494).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GracefulRestart {
    /// Announced at all; without it no End-of-RIB is waited for and nothing is kept.
    pub enabled: bool,
    /// How long the peer shall keep our routes while we restart, seconds, at most 4095.
    pub restart_time: u16,
    /// How long a peer's routes are kept at most, whatever it asks for, seconds.
    pub stale_time: u32,
    /// How long routes are kept after that as least preferred ones (RFC 9494), seconds; 0: not.
    pub long_lived_time: u32,
}

impl Default for GracefulRestart {
    fn default() -> Self {
        Self {
            enabled: true,
            restart_time: 120,
            stale_time: 300,
            long_lived_time: 0,
        }
    }
}

/// What happens when a peer announces more prefixes than its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum OverLimit {
    /// The log and the status say so.
    #[default]
    Warn,
    /// Further prefixes are not taken.
    Drop,
    /// The session ends with Cease 6/1; it starts again after that time, milliseconds, or when the peer is edited.
    TearDown {
        /// Wait before the next attempt; None: not by itself.
        restart_after: Option<Millis>,
    },
}

impl fmt::Display for OverLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warn => "warn",
            Self::Drop => "drop",
            Self::TearDown { .. } => "tear down",
        })
    }
}

/// The most prefixes a peer may announce in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixLimit {
    /// The family.
    pub family: Family,
    /// That many are fine.
    pub max: u32,
    /// What happens beyond.
    pub action: OverLimit,
}

/// The next hop that routes are told with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum NextHopMode {
    /// Own address to external peers and for own routes, unchanged otherwise (RFC 4271 section 5.1.3).
    #[default]
    Auto,
    /// Always an own address.
    Itself,
    /// As it was learnt, also to external peers.
    Keep,
}

/// Several paths for one prefix (RFC 7911).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AddPath {
    /// The most paths told for one prefix; 0 or 1: only the best one, without path identifiers.
    pub send: u8,
    /// Several paths of the peer are taken.
    pub receive: bool,
}

/// Peers that are not configured one by one: whoever connects from a range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DynamicPeers {
    /// Where they may come from.
    pub range: Cidr,
    /// The most of them at one time.
    pub limit: u32,
    /// What each of them is; its key and name are those of the range, and it is passive. `remote_asn` 0: any external AS.
    pub template: Peer,
}

/// Prefixes that are told with communities, own ones only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advertisement {
    /// The prefix, and those inside it.
    pub prefix: Cidr,
    /// Communities added.
    pub communities: BTreeSet<u32>,
    /// Large communities added (RFC 8092).
    pub large_communities: BTreeSet<[u32; 3]>,
}

/// A station that is told what the speaker knows, by BMP (RFC 7854).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmpStation {
    /// Name of the entry.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Statistics are sent that often, milliseconds; 0: never.
    pub statistics: Millis,
}

/// What is asked of one session beyond an address and an AS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Own TCP port connected from; the kernel's choice when unset.
    pub local_port: Option<u16>,
    /// Key of TCP MD5.
    pub password: Option<Password>,
    /// A key is asked for that nobody has read yet: there is no session, for it would be open to everybody.
    pub withheld: bool,
    /// The session is kept down, and the peer is told these words if there are any (RFC 9003).
    pub shutdown: Option<String>,
    /// How far away the peer may be.
    pub distance: Distance,
    /// BFD, when wanted.
    pub bfd: Option<Bfd>,
    /// Graceful restart.
    pub graceful_restart: GracefulRestart,
    /// Limits of prefixes, at most one for each family.
    pub limits: Vec<PrefixLimit>,
    /// How many times the own AS may be in a path from the peer (allowas-in).
    pub allowed_own_as: u8,
    /// The next hop that routes are told with.
    pub next_hop: NextHopMode,
    /// Names of the filters that judge its routes, in order.
    pub import_filters: Vec<String>,
    /// Names of the filters that judge what it is told, in order.
    pub export_filters: Vec<String>,
    /// Several paths for one prefix.
    pub add_path: AddPath,
    /// Routes that import refused are kept, to be shown and to be judged again without asking the peer.
    pub keep_refused: bool,
    /// An address that has to be reachable before the peer is connected to: its route is looked up instead of the peer's.
    pub reachable_by: Option<IpAddr>,
    /// The cluster of this reflection client; [`super::Config::cluster_id`] when unset.
    pub cluster_id: Option<Ipv4Addr>,
    /// The only address on its interface that the peer may have; any router's when unset. Means nothing without an interface.
    pub link_local: Option<Ipv6Addr>,
    /// The peer is a pod on this node.
    pub workload: bool,
}

impl Options {
    /// Whether there may be a session at all.
    pub const fn is_open(&self) -> bool {
        !self.withheld && self.shutdown.is_none()
    }
}
