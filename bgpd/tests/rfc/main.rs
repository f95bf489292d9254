//! What the RFCs beyond 4271 ask of a session, one module for each, through the whole speaker.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

#[allow(dead_code, reason = "each test binary uses a part of it")]
#[path = "../speaker/bench.rs"]
mod bench;
mod peers;
mod rfc4486;
mod rfc4724;
mod rfc4724_start;
mod rfc5492;
mod rfc7313;
mod rfc7911;
mod rfc7911_sending;
mod rfc8538;
mod rfc8654;
mod rfc8950;
mod rfc9003;
mod rfc9494;
mod rfc9687;
#[path = "../sim/mod.rs"]
mod sim;
