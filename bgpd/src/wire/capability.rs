//! Capabilities in OPEN (RFC 5492).

use std::fmt;

use crds::net::Family;

use super::cursor::Cursor;
use super::nlri::{SAFI_UNICAST, afi, family_of};

/// Something the sender of an OPEN can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capability {
    /// Routes of that family (RFC 4760).
    MultiProtocol {
        /// Address family identifier.
        afi: u16,
        /// Subsequent address family identifier.
        safi: u8,
    },
    /// ROUTE-REFRESH (RFC 2918).
    RouteRefresh,
    /// Routes of a family with next hops of another (RFC 8950): (AFI, SAFI, next hop's AFI).
    ExtendedNextHop(Vec<(u16, u16, u16)>),
    /// Graceful restart (RFC 4724).
    GracefulRestart(GracefulRestart),
    /// Messages of up to 65535 bytes (RFC 8654).
    ExtendedMessage,
    /// 4-octet AS numbers, with the sender's (RFC 6793).
    FourOctetAs(u32),
    /// Several paths for one prefix (RFC 7911).
    AddPath(Vec<PathsOf>),
    /// Begin and end of a refresh are marked (RFC 7313).
    EnhancedRefresh,
    /// Long-lived graceful restart (RFC 9494).
    LongLived(Vec<LongLived>),
    /// The sender's name: host, then domain; for people.
    Name(String, String),
    /// Any other one, or one of those above whose value does not parse.
    Unknown {
        /// Its code.
        code: u8,
        /// Its value.
        value: Vec<u8>,
    },
}

/// What the sender does about several paths in one family (RFC 7911 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathsOf {
    /// Address family identifier.
    pub afi: u16,
    /// Subsequent address family identifier.
    pub safi: u8,
    /// It takes several paths.
    pub receive: bool,
    /// It may tell several paths.
    pub send: bool,
}

/// One family of the long-lived graceful restart capability (RFC 9494 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongLived {
    /// Address family identifier.
    pub afi: u16,
    /// Subsequent address family identifier.
    pub safi: u8,
    /// Forwarding state kept.
    pub preserved: bool,
    /// Seconds that routes are to be kept after the restart time; at most 2^24 - 1.
    pub time: u32,
}

/// The graceful restart capability (RFC 4724 section 3, RFC 8538).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GracefulRestart {
    /// The sender has restarted.
    pub restarted: bool,
    /// NOTIFICATIONs keep routes too (RFC 8538).
    pub notifications: bool,
    /// Seconds until the sender expects to be back; at most 4095.
    pub time: u16,
    /// (AFI, SAFI, forwarding state kept).
    pub families: Vec<(u16, u8, bool)>,
}

const MULTI_PROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const EXTENDED_NEXT_HOP: u8 = 5;
const EXTENDED_MESSAGE: u8 = 6;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_AS: u8 = 65;
const ADD_PATH: u8 = 69;
const ENHANCED_REFRESH: u8 = 70;
const LONG_LIVED: u8 = 71;
const NAME: u8 = 73;

/// Bit of the flags of a family whose forwarding state has been kept.
const PRESERVED: u8 = 0x80;
/// Bits of what is done about several paths.
const PATHS_RECEIVE: u8 = 1;
const PATHS_SEND: u8 = 2;

impl Capability {
    /// Unicast routes of a family.
    pub fn unicast(family: Family) -> Self {
        Self::MultiProtocol {
            afi: afi(family),
            safi: SAFI_UNICAST,
        }
    }

    /// The family, if this is unicast routes of one.
    pub fn family(&self) -> Option<Family> {
        match self {
            Self::MultiProtocol { afi, safi } => family_of(*afi, *safi),
            _ => None,
        }
    }

    /// Reads one capability, code and length before it; None: it is longer than what is there.
    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Option<Self> {
        let code = cursor.u8()?;
        let length = cursor.u8()?;
        let value = cursor.take(usize::from(length))?;
        Some(Self::parse(code, value).unwrap_or_else(|| Self::Unknown {
            code,
            value: value.to_vec(),
        }))
    }

    fn parse(code: u8, value: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(value);
        let capability = match code {
            MULTI_PROTOCOL => {
                let afi = cursor.u16()?;
                cursor.u8()?;
                Self::MultiProtocol {
                    afi,
                    safi: cursor.u8()?,
                }
            }
            ROUTE_REFRESH => Self::RouteRefresh,
            EXTENDED_NEXT_HOP => {
                let mut all = Vec::new();
                while !cursor.is_empty() {
                    all.push((cursor.u16()?, cursor.u16()?, cursor.u16()?));
                }
                Self::ExtendedNextHop(all)
            }
            GRACEFUL_RESTART => {
                let head = cursor.u16()?;
                let mut families = Vec::new();
                while !cursor.is_empty() {
                    families.push((cursor.u16()?, cursor.u8()?, cursor.u8()? & PRESERVED != 0));
                }
                Self::GracefulRestart(GracefulRestart {
                    restarted: head & 0x8000 != 0,
                    notifications: head & 0x4000 != 0,
                    time: head & 0x0fff,
                    families,
                })
            }
            FOUR_OCTET_AS => Self::FourOctetAs(cursor.u32()?),
            EXTENDED_MESSAGE => Self::ExtendedMessage,
            ENHANCED_REFRESH => Self::EnhancedRefresh,
            ADD_PATH => Self::AddPath(parse_paths(&mut cursor)?),
            LONG_LIVED => {
                let mut families = Vec::new();
                while !cursor.is_empty() {
                    let (afi, safi, flags) = (cursor.u16()?, cursor.u8()?, cursor.u8()?);
                    let [a, b, c] = cursor.array()?;
                    families.push(LongLived {
                        afi,
                        safi,
                        preserved: flags & PRESERVED != 0,
                        time: u32::from_be_bytes([0, a, b, c]),
                    });
                }
                Self::LongLived(families)
            }
            NAME => Self::Name(parse_name(&mut cursor)?, parse_name(&mut cursor)?),
            _ => return None,
        };
        cursor.is_empty().then_some(capability)
    }

    /// Writes code, length and value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (code, value) = match self {
            Self::MultiProtocol { afi, safi } => {
                let [high, low] = afi.to_be_bytes();
                (MULTI_PROTOCOL, vec![high, low, 0, *safi])
            }
            Self::RouteRefresh => (ROUTE_REFRESH, Vec::new()),
            Self::ExtendedNextHop(all) => {
                let words = all
                    .iter()
                    .flat_map(|(afi, safi, next_hop)| [*afi, *safi, *next_hop]);
                (
                    EXTENDED_NEXT_HOP,
                    words.flat_map(u16::to_be_bytes).collect(),
                )
            }
            Self::GracefulRestart(restart) => {
                let head = u16::from(restart.restarted) << 15
                    | u16::from(restart.notifications) << 14
                    | restart.time & 0x0fff;
                let mut value = head.to_be_bytes().to_vec();
                for (afi, safi, kept) in &restart.families {
                    value.extend_from_slice(&afi.to_be_bytes());
                    value.extend_from_slice(&[*safi, preserved_bit(*kept)]);
                }
                (GRACEFUL_RESTART, value)
            }
            Self::FourOctetAs(asn) => (FOUR_OCTET_AS, asn.to_be_bytes().to_vec()),
            Self::ExtendedMessage => (EXTENDED_MESSAGE, Vec::new()),
            Self::EnhancedRefresh => (ENHANCED_REFRESH, Vec::new()),
            Self::AddPath(families) => {
                let mut value = Vec::new();
                for it in families {
                    let mode =
                        PATHS_RECEIVE * u8::from(it.receive) + PATHS_SEND * u8::from(it.send);
                    value.extend_from_slice(&it.afi.to_be_bytes());
                    value.extend_from_slice(&[it.safi, mode]);
                }
                (ADD_PATH, value)
            }
            Self::LongLived(families) => {
                let mut value = Vec::new();
                for it in families {
                    let [_, time @ ..] = it.time.min(LONG_LIVED_MAX).to_be_bytes();
                    value.extend_from_slice(&it.afi.to_be_bytes());
                    value.extend_from_slice(&[it.safi, preserved_bit(it.preserved)]);
                    value.extend_from_slice(&time);
                }
                (LONG_LIVED, value)
            }
            Self::Name(host, domain) => {
                let mut value = Vec::new();
                for name in [host, domain] {
                    let length = u8::try_from(name.len()).unwrap_or(0);
                    value.push(length);
                    value.extend_from_slice(&name.as_bytes()[..usize::from(length)]);
                }
                (NAME, value)
            }
            Self::Unknown { code, value } => (*code, value.clone()),
        };
        let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
        out.extend_from_slice(&[code, length]);
        out.extend_from_slice(&value[..usize::from(length)]);
    }
}

/// The longest time RFC 9494 can say.
const LONG_LIVED_MAX: u32 = (1 << 24) - 1;

fn preserved_bit(preserved: bool) -> u8 {
    if preserved { PRESERVED } else { 0 }
}

fn parse_paths(cursor: &mut Cursor<'_>) -> Option<Vec<PathsOf>> {
    let mut families = Vec::new();
    while !cursor.is_empty() {
        let (afi, safi, mode) = (cursor.u16()?, cursor.u8()?, cursor.u8()?);
        // RFC 7911 section 4: any other mode is ignored, which leaves neither.
        let known = (1..=3).contains(&mode);
        families.push(PathsOf {
            afi,
            safi,
            receive: known && mode & PATHS_RECEIVE != 0,
            send: known && mode & PATHS_SEND != 0,
        });
    }
    Some(families)
}

fn parse_name(cursor: &mut Cursor<'_>) -> Option<String> {
    let length = cursor.u8()?;
    let bytes = cursor.take(usize::from(length))?;
    Some(std::str::from_utf8(bytes).ok()?.to_owned())
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MultiProtocol { afi, safi } => match self.family() {
                Some(family) => write!(f, "{family} unicast"),
                None => write!(f, "family {afi}/{safi}"),
            },
            Self::RouteRefresh => f.write_str("route refresh"),
            Self::ExtendedNextHop(_) => f.write_str("extended next hop"),
            Self::GracefulRestart(restart) => {
                write!(f, "graceful restart {} s", restart.time)?;
                if restart.restarted {
                    f.write_str(", restarted")?;
                }
                if restart.notifications {
                    f.write_str(", notifications")?;
                }
                let kept = restart.families.iter().filter(|(_, _, kept)| *kept);
                kept.filter_map(|(afi, safi, _)| family_of(*afi, *safi))
                    .try_for_each(|family| write!(f, ", {family} preserved"))
            }
            Self::ExtendedMessage => f.write_str("extended messages"),
            Self::EnhancedRefresh => f.write_str("enhanced route refresh"),
            Self::AddPath(families) => {
                f.write_str("add-path")?;
                families.iter().try_for_each(|it| {
                    let family = family_of(it.afi, it.safi)
                        .map_or_else(|| format!("{}/{}", it.afi, it.safi), |it| it.to_string());
                    let way = match (it.receive, it.send) {
                        (true, true) => "both ways",
                        (true, false) => "receive",
                        (false, true) => "send",
                        (false, false) => "nothing",
                    };
                    write!(f, " {family} {way}")
                })
            }
            Self::LongLived(families) => {
                f.write_str("long-lived graceful restart")?;
                families
                    .iter()
                    .filter_map(|it| Some((family_of(it.afi, it.safi)?, it)))
                    .try_for_each(|(family, it)| write!(f, " {family} {} s", it.time))
            }
            // A peer's words must not command a terminal.
            Self::Name(host, domain) if domain.is_empty() => write!(f, "name {host:?}"),
            Self::Name(host, domain) => write!(f, "name {host:?} in {domain:?}"),
            Self::FourOctetAs(_) => f.write_str("4-octet AS"),
            Self::Unknown { code, .. } => write!(f, "capability {code}"),
        }
    }
}
