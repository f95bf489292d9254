//! The real `margay-bgpd` against real routers, where the kernel's sockets, neighbours and routes matter.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod dynamic;
mod fib;
mod hops;
mod keys;
mod rig;
#[path = "../support/mod.rs"]
mod support;
mod unnumbered;
