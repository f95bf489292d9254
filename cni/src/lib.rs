//! The CNI plugin `margay` and the frames it exchanges with felix.
//!
//! The plugin is small and synchronous: it holds no credentials and never talks to the API server. It works inside the
//! pod's network namespace, which felix (not privileged) cannot enter, and asks felix for everything else.
//!
//! ```text
//! runtime ─ env, stdin ─► conf ─► cmd ── frame Add   ──► felix   address
//!                                  │── netns, link        veth, addresses, routes, neighbour
//!                                  └── frame Ready ──► felix   route and policy in force
//! runtime ◄─ stdout ── result, error
//! ```

pub mod client;
pub mod cmd;
pub mod conf;
pub mod env;
pub mod error;
pub mod frame;
pub mod key;
pub mod link;
pub mod netns;
pub mod result;
pub mod spool;
pub mod sysctl;
