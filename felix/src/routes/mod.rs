//! Kernel routes: model, wanted set, difference.
//!
//! ```text
//!  attachments, blocks, best routes ─► want ─┐
//!                                            ├─► table ─► diff or step ─► Plan {ops, conflicts} ─► driver::netlink
//!  driver::netlink ─► Kernel, Connected ─────┘                                                        ─► kernel
//! ```
//!
//! Ours are the routes of protocols 77 (workloads and blocks) and 78 (learnt over BGP), at metrics nobody else uses by
//! default, and the nexthop objects of protocol 78 in a range of numbers of their own. Nothing else is ever changed.

pub mod diff;
pub mod model;
mod step;
pub mod table;
pub mod uplink;
pub mod want;
pub mod wire;
