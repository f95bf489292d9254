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
    /// 4-octet AS numbers, with the sender's (RFC 6793).
    FourOctetAs(u32),
    /// Any other one, or one of those above whose value does not parse.
    Unknown {
        /// Its code.
        code: u8,
        /// Its value.
        value: Vec<u8>,
    },
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
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_AS: u8 = 65;

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
                    families.push((cursor.u16()?, cursor.u8()?, cursor.u8()? & 0x80 != 0));
                }
                Self::GracefulRestart(GracefulRestart {
                    restarted: head & 0x8000 != 0,
                    notifications: head & 0x4000 != 0,
                    time: head & 0x0fff,
                    families,
                })
            }
            FOUR_OCTET_AS => Self::FourOctetAs(cursor.u32()?),
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
                    value.extend_from_slice(&[*safi, if *kept { 0x80 } else { 0 }]);
                }
                (GRACEFUL_RESTART, value)
            }
            Self::FourOctetAs(asn) => (FOUR_OCTET_AS, asn.to_be_bytes().to_vec()),
            Self::Unknown { code, value } => (*code, value.clone()),
        };
        let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
        out.extend_from_slice(&[code, length]);
        out.extend_from_slice(&value[..usize::from(length)]);
    }
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
            Self::GracefulRestart(restart) => write!(f, "graceful restart {} s", restart.time),
            Self::FourOctetAs(_) => f.write_str("4-octet AS"),
            Self::Unknown { code, .. } => write!(f, "capability {code}"),
        }
    }
}
