//! Bidirectional forwarding detection, asynchronous mode (RFC 5880), over one hop (RFC 5881) and over several (RFC 5883).
//!
//! ```text
//!  start, stop ─┐            ┌─► send: 24 bytes of a session
//!  packets ─────┤► Monitor ──┼─► open, close: its socket
//!  time ────────┘ (sessions) └─► event: up, down, administratively down
//! ```
//!
//! The monitor shares the fate of the speaker, so the C bit is never set (RFC 5882 section 4.3.2). There is no echo
//! function and no authentication, and demand mode is never asked for; a peer's poll or demand is honoured.

pub mod exercise;
mod monitor;
mod packet;
mod session;
mod settings;

pub use monitor::{Info, Input, Monitor, Output, Received};
pub use packet::{Diagnostic, LENGTH, Packet, Refusal, State};
pub use session::{Counts, Parked};
pub use settings::{Event, Path, Settings};

/// Microseconds since an arbitrary start, the same for all inputs of one monitor; never goes back. The protocol's own unit.
pub type Micros = u64;

#[cfg(test)]
mod tests;
