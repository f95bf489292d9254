//! Addresses for pods: blocks of a pool owned by a node, addresses of a block given to attachments, and the log of both.
//!
//! ```text
//!                     Listed Seen Gone · Pools · Created Exists … · InUse · Tick
//!                                            │ handle(input, now)
//!  log ── journal::replay ── recover ──►┌────▼──────────────────────────────┐
//!  CNI ADD ─────────────── allocate ───►│ Ipam (plan)                       │──poll──► Log          append to the log
//!  CNI DEL ───────────────── free ─────►│  blocks: Pending → Owned(epoch)   │          Create Delete Mirror Survey
//!                                       │   ⇄ Missing → Releasing, or       │                       ask the API server
//!                                       │   Quarantined by another's claim  │          Announce Withdraw Quarantined
//!                                       │  attachments, held addresses      │                       tell the routes
//!                                       └───────────────────────────────────┘──next_timeout──► one timer ──► Tick
//! ```
//!
//! The order of calls, for a driver:
//!
//! 1. `Ipam::new(owner, boot_id)`, then once [`Ipam::recover`] with the replay of the log (an absent log is an empty one), then
//!    write [`Ipam::compact`]'s bytes to a new file and rename it over the old one. Damage in the replay goes to the operator.
//!    Free the keys of recovered attachments whose link is gone. Before the API answers, the header of the replay says who the
//!    owner was.
//! 2. [`Input::InUse`] with the addresses the kernel's workload routes and the node's pods in the API show, and again about
//!    every minute while [`Ipam::held`] is not 0. Only a log that is incomplete makes allocation wait for the first one.
//! 3. [`Input::Pools`] whenever the pools in force for this node change, [`Input::Configuration`] with the configuration.
//! 4. [`Input::Listed`] with the node's blocks after the first and after every later list; Seen and Gone in between.
//! 5. [`Ipam::allocate`] and [`Ipam::free`] as the plugin asks.
//!
//! After *each* of these calls take outputs from [`Ipam::poll`] until there are none and carry them out in order; above all, a
//! `Log` record is in the file before an ADD is answered or an `Announce` acted on. Then arm the timer by [`Ipam::next_timeout`].
//! Every Create, Delete, Mirror and Withdraw is answered exactly once by its input, be it a failure; a lost answer is a failure.
//!
//! What the controller does is here as well: [`programmed`] says where policies are enforced, [`election`] which controller
//! leads. Everything but `controller` is a core: no clock, no files, no network.

pub mod args;
pub mod attachment;
pub mod block;
pub mod controller;
pub mod election;
mod error;
pub mod journal;
pub mod ownership;
pub mod plan;
pub mod pool;
pub mod programmed;

pub use attachment::{Attachment, Key, Pod, Request};
pub use error::AllocateError;
pub use ownership::{Quarantine, State};
pub use plan::{BlockStatus, Input, Ipam, Output};

/// Milliseconds since an arbitrary start that stays the same while the process runs.
pub type Millis = u64;
