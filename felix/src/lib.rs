//! The node agent: sole writer of the kernel's routes and of the nftables table `inet margay`.
//!
//! ```text
//!  Kubernetes watches ─► policy (index, evaluator, tables) ─► nft (model, diff) ─┐
//!  CNI plugin ─► agent (endpoints, ipam, bgp) ─────────────► routes (want, diff) ┴─► driver ─► kernel
//!  bgpd's best routes ──▲
//! ```
//!
//! Everything but [`driver`] is a core: state × input × now → outputs, without sockets, clock, tokio or kube clients.

pub mod agent;
pub mod args;
pub mod driver;
pub mod explain;
pub mod feed;
pub mod nft;
pub mod nla;
pub mod offline;
pub mod policy;
pub mod routes;
pub mod terms;
pub mod translate;

/// Milliseconds since an arbitrary start that stays the same while the process runs.
pub type Millis = u64;
