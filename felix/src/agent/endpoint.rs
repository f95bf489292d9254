//! The life of an attachment on this node.
//!
//! ```text
//!  Add ─► Reserved ── Ready ─► Programming ── kernel in step ─► Attached ── Del ─► Removing ── kernel in step ─► (gone)
//!            └────────── hang-up, Del, no such pod ───────────────────────────────────▲
//! ```

use std::net::IpAddr;

use cni::frame::Pod;
use cni::key::AttachmentKey;

use super::input::CallId;
use crate::Millis;

/// One attachment.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// What names it.
    pub key: AttachmentKey,
    /// Its pod, as the runtime named it.
    pub pod: Pod,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Index of the veth's host side, once it is there.
    pub ifindex: Option<u32>,
    /// Where it is in its life.
    pub state: State,
}

/// Where an attachment is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It has addresses; the plugin makes the veth.
    Reserved {
        /// The call that reserved it: its end takes the attachment back.
        call: CallId,
        /// Since when.
        since: Millis,
    },
    /// The veth is there; route and policy are on their way into the kernel.
    Programming {
        /// The call that waits: its end takes the attachment back.
        call: CallId,
        /// Since when.
        since: Millis,
        /// The API has been asked about the pod.
        asked: bool,
    },
    /// Route and policy are in force.
    Attached,
    /// It leaves the kernel; its address is held until it has.
    Removing {
        /// The calls that wait.
        calls: Vec<CallId>,
    },
}

impl Endpoint {
    /// Name of the veth's host side.
    #[must_use]
    pub fn host_interface(&self) -> String {
        self.key.host_interface()
    }

    /// The pod as "namespace/name".
    #[must_use]
    pub fn pod_name(&self) -> String {
        format!("{}/{}", self.pod.namespace, self.pod.name)
    }

    /// The state, in one word.
    #[must_use]
    pub const fn state_name(&self) -> &'static str {
        match self.state {
            State::Reserved { .. } => "Reserved",
            State::Programming { .. } => "Programming",
            State::Attached => "Ready",
            State::Removing { .. } => "Removing",
        }
    }

    /// Does it stand in the kernel, or is it about to?
    #[must_use]
    pub const fn wanted(&self) -> bool {
        matches!(self.state, State::Programming { .. } | State::Attached)
    }
}
