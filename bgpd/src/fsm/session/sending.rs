//! What is sent past a session, and what the kernel has taken.

use bytes::Bytes;

use super::Session;
use crate::Millis;
use crate::speaker::ConnId;
use crate::wire::RouteRefresh;

impl Session {
    /// Counts UPDATEs that were given to be sent past the session.
    pub fn count_sent(&mut self, updates: u64) {
        self.sent.update += updates;
    }

    /// Bytes were given to be sent past the session.
    pub fn sending(&mut self, id: ConnId, bytes: usize, now: Millis) {
        if let Some(conn) = self.connection(id) {
            conn.sending(bytes, now);
        }
    }

    /// The kernel has taken bytes of a connection.
    pub fn sent(&mut self, id: ConnId, bytes: usize, now: Millis) {
        if let Some(conn) = self.connection(id) {
            conn.sent(bytes, now);
        }
    }

    /// A ROUTE-REFRESH message, to be sent past the session.
    pub fn refresh(&mut self, id: ConnId, refresh: RouteRefresh, now: Millis) -> Bytes {
        let bytes = refresh.encode();
        self.sent.refresh += 1;
        if let Some(conn) = self.connection(id) {
            conn.sending(bytes.len(), now);
        }
        bytes
    }
}
