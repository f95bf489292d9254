//! ROUTE-REFRESH (RFC 2918, RFC 7313).

use bytes::Bytes;

use super::Notification;
use super::cursor::Cursor;
use super::frame::{self, MessageType};

/// A request to send all routes of a family again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRefresh {
    /// Address family identifier, as received.
    pub afi: u16,
    /// 0 for a request; others mark begin and end of a refresh (RFC 7313).
    pub subtype: u8,
    /// Subsequent address family identifier, as received.
    pub safi: u8,
}

impl RouteRefresh {
    /// Reads the body. Further bytes (outbound route filters) are ignored.
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        let mut cursor = Cursor::new(body);
        match (cursor.u16(), cursor.u8(), cursor.u8()) {
            (Some(afi), Some(subtype), Some(safi)) => Ok(Self { afi, subtype, safi }),
            _ => Err(Notification::refresh(body)),
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
