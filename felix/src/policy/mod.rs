//! Policy: parsed objects, the one evaluator, and the tables that tabulate it.

mod active;
mod classes;
mod compile;
mod engine;
mod evaluate;
mod function;
mod ids;
mod index;
mod intervals;
pub mod k8s;
pub mod labels;
mod lists;
pub mod model;
mod narrowing;
mod rows;
mod status;
pub mod tables;
#[cfg(test)]
mod tests;

pub use engine::{Compiled, Engine, Work};
pub use evaluate::{Decided, RuleRef, VerdictTrace};
pub use status::{EndpointPolicies, PolicyStatus};
