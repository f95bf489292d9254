//! The node agent: sole writer of the kernel's routes and of the nftables table `inet margay`.
//!
//! ```text
//!  Kubernetes watches ─► feed ─► policy (index, evaluator, tables) ─► nft (model, diff) ─┐
//!  CNI plugin ─► endpoint ─► ipam                                                        ├─► driver ─► kernel
//!  bgpd's best routes ─────────────────► routes (want, diff) ────────────────────────────┘
//! ```
//!
//! Everything but [`driver`] is a core: state × input × now → outputs, without sockets, clock, tokio or kube clients.

pub mod driver;
pub mod feed;
pub mod nft;
pub mod nla;
pub mod policy;
pub mod routes;
