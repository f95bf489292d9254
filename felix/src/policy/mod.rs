//! Policy: parsed objects, the one evaluator, and the tables that tabulate it.

mod engine;
pub mod k8s;
pub mod labels;
pub mod model;
pub mod tables;

pub use engine::{Compiled, Engine};
