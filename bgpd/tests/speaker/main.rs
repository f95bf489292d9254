//! The speaker's contracts with felix, the driver and the operator.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod bench;
mod bfd;
mod bmp;
mod dynamic;
mod felix;
mod groups;
mod next_hops;
mod orders;
mod peers;
mod policy;
mod reach;
mod refused;
mod rfc1997;
mod rfc4360;
mod rfc4456;
mod rfc7999;
mod rfc8212;
mod rfc8326;
mod routes;
#[path = "../sim/mod.rs"]
mod sim;
mod transit;
mod unnumbered;
mod workload;
