//! Policy: parsed objects, the one evaluator, and the tables that tabulate it.
//!
//! ```text
//!  policies ─► k8s, … ─► model ───┐
//!  pods, sets, services, nodes … ─┴─► engine, index ─► compile ─► rows, hosts ─► tables ─► nft
//!                                       │      which lists, classes,  │
//!                                       │      subjects changed       ▼
//!                                       └─► status: judge ───────► evaluate
//! ```
//!
//! A packet is judged by a *subject* (what policies make of the pod on our side), a *class* (what they can know of the
//! other side) and a *program* (a function from protocol and port to a verdict). The tables hold, for every subject and
//! class, the program that the evaluator computes; nothing else decides. A class is a set of *peer lists*: a whole `from`
//! or `to` is one predicate, however many blocks are in it, and only rules of policies that select an endpoint of this
//! node count.
//!
//! An endpoint whose pod is not known has no link and is denied. A policy that cannot be understood keeps its last good
//! version, and without one selects and allows nothing.

mod fork;
pub mod unused;
pub mod whatif;

mod active;
mod anchors;
mod causes;
mod classes;
pub mod cluster;
mod compile;
pub mod counts;
pub mod describe;
mod engine;
mod evaluate;
pub mod explain;
mod function;
mod hosted;
pub(crate) mod hosts;
mod ids;
mod index;
pub(crate) mod intervals;
pub mod k8s;
pub mod labels;
mod lists;
pub mod margay;
pub mod model;
mod narrowing;
mod nets;
mod owned;
mod rows;
mod selecting;
mod shared;
mod sorting;
mod status;
pub mod tables;
#[cfg(test)]
mod tests;
mod told;

pub use engine::{Compiled, Engine, Work};
pub use evaluate::{Decided, RuleRef, Traffic, VerdictTrace};
pub use selecting::{NAME_LABEL, NAMESPACE_LABEL, SERVICE_ACCOUNT_LABEL};
pub use status::{EndpointPolicies, PolicyStatus};
