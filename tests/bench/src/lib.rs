//! Benchmarks that run ours and the program others use for the same work in turn, on the same machine in the same
//! minutes, so that the ratio means something even where the absolute figure does not.
//!
//! ```text
//! pods   lab: pod created → answers the other rack; NetworkPolicy applied → in force
//! cni    lab's n1: margay + felix        ↔  a namespace: ptp + host-local (Debian)
//! policy the engine in a namespace  ↔  connection tracking alone, a chain for each policy
//! bgp    injector ─► margay-bgpd ─► receivers  ↔  BIRD, FRR, GoBGP in its place  ↔  a relay without a table
//! ```
//!
//! Nothing here passes or fails on a figure. `ground` holds what a run makes on the machine and takes it away again.

pub mod args;
mod attach;
mod bgp;
mod cni;
mod ground;
mod pods;
mod policy;
mod probe;
mod report;
mod usage;
