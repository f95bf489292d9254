//! The speaker's contracts with felix, the driver and the operator.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod bench;
mod bfd;
mod bmp;
mod dynamic;
mod felix;
mod orders;
mod peers;
mod policy;
mod reach;
#[path = "../sim/mod.rs"]
mod sim;
