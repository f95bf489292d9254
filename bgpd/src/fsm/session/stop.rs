//! Ending a session on purpose.

use super::{Action, Session};
use crate::Millis;
use crate::fsm::{DownReason, State};
use crate::wire::Notification;
use crate::wire::notification::Cease;

impl Session {
    /// Ends everything; each connection gets that Cease. The session can be started again.
    pub fn stop(&mut self, cease: Cease, now: Millis, out: &mut Vec<Action>) {
        self.stop_with(&Notification::cease(cease), now, out);
    }

    /// The same with any NOTIFICATION. Where NOTIFICATIONs keep routes (RFC 8538), one that is meant to be final leaves
    /// as a hard reset.
    pub fn stop_with(&mut self, why: &Notification, now: Millis, out: &mut Vec<Action>) {
        if let Some(conn) = self.dialing.take() {
            out.push(Action::Close(conn));
        }
        for conn in std::mem::take(&mut self.connections) {
            self.farewell(&conn, DownReason::Sent(why.clone()), out);
        }
        self.rest = State::Idle;
        self.retry_at = None;
        self.failures = 0;
        self.fruitless = 0;
        self.show(now);
    }

    /// A stopped session starts by itself at that time.
    pub fn start_at(&mut self, at: Millis) {
        if self.rest == State::Idle && self.connections.is_empty() {
            self.retry_at = Some(at);
        }
    }
}
