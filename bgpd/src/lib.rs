//! A BGP speaker for data centres: a sans-io core and one driver.
//!
//! ```text
//!  bytes ─► wire ─► fsm (sessions) ─► rib (adj-RIB-in ► decision ► loc-RIB ► adj-RIB-out) ─► wire ─► bytes
//!                        ▲                    │  ▲
//!              config ───┘          policy ───┘  └── nexthop (interfaces, connected routes)
//!                        └────────── speaker: inputs × now → outputs ──────────┘
//!                                        driver: tcp, rtnetlink (read), gRPC, Kubernetes
//! ```
//!
//! Everything but [`driver`] and [`args`] is a core: no sockets, clock, tokio or kube.

pub mod args;
pub mod bfd;
pub mod bmp;
pub mod config;
pub mod driver;
pub mod fsm;
pub mod nexthop;
pub mod policy;
pub mod rib;
pub mod speaker;
pub mod wire;

/// Milliseconds since an arbitrary start, the same for all inputs of one run; never goes back.
pub type Millis = u64;
