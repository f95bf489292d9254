//! The table `inet margay`: model, fixed rules, difference, netlink encoding.
//!
//! Policy is data. The chains and rules are the same on every node and never grow ([`build`]); what is allowed is held
//! by the elements of a constant number of sets and maps, which tabulate the evaluator ([`crate::policy::tables`]).
//!
//! ```text
//!  policy::tables::Change ─► diff::plan ─► Phases {add, links, commit, …} ─► encode ─► driver::nft ─► kernel
//!  build::table ─────────────────────────────────────────────────────────┘              │
//!  policy::tables::Tables ◄──────────────────────── rows ◄── decode ◄───────────────────┘
//! ```

mod bridge;
pub mod build;
pub mod counted;
pub mod decode;
pub mod diff;
pub mod encode;
pub mod epoch;
mod expr;
pub mod json;
pub mod log;
pub mod model;
pub mod pace;
pub mod rows;
pub mod terms;
