//! ROUTE-REFRESH (RFC 2918, RFC 7313).

use bytes::Bytes;
use crds::net::Family;

use super::cursor::Cursor;
use super::frame::{self, MessageType};
use super::nlri::{SAFI_UNICAST, afi, family_of};
use super::{HEADER, Notification};

/// Asks for all routes of a family again (RFC 2918).
pub const REQUEST: u8 = 0;
/// All routes of a family follow: those that do not come before [`END`] are gone (RFC 7313).
pub const BEGIN: u8 = 1;
/// All routes of a family have come since [`BEGIN`].
pub const END: u8 = 2;

/// A request to send all routes of a family again, or a mark around the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRefresh {
    /// Address family identifier, as received.
    pub afi: u16,
    /// [`REQUEST`], [`BEGIN`] or [`END`]; others mean nothing here.
    pub subtype: u8,
    /// Subsequent address family identifier, as received.
    pub safi: u8,
}

impl RouteRefresh {
    /// A message about unicast routes of a family.
    pub fn unicast(family: Family, subtype: u8) -> Self {
        Self {
            afi: afi(family),
            subtype,
            safi: SAFI_UNICAST,
        }
    }

    /// The family, if unicast routes of one are meant.
    pub fn family(self) -> Option<Family> {
        family_of(self.afi, self.safi)
    }

    /// Reads the body. Further bytes of a request (outbound route filters) are ignored; a mark has none (RFC 7313
    /// section 5).
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        let mut cursor = Cursor::new(body);
        match (cursor.u16(), cursor.u8(), cursor.u8()) {
            (Some(afi), Some(subtype), Some(safi))
                if cursor.is_empty() || !matches!(subtype, BEGIN | END) =>
            {
                Ok(Self { afi, subtype, safi })
            }
            _ => {
                // The data is the whole message.
                let mut whole = vec![0xff; HEADER - 3];
                let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX);
                whole.extend_from_slice(&length.to_be_bytes());
                whole.push(MessageType::RouteRefresh as u8);
                whole.extend_from_slice(body);
                Err(Notification::refresh(&whole))
            }
        }
    }

    /// The whole message.
    pub fn encode(self) -> Bytes {
        let [high, low] = self.afi.to_be_bytes();
        frame::message(
            MessageType::RouteRefresh,
            &[high, low, self.subtype, self.safi],
        )
    }
}
