//! Import and export policy: pure functions from a route and its context to a verdict with its reason.

mod community;
pub mod export;
pub mod filter;
pub mod import;
mod prefixes;

pub use filter::Chain;
pub use import::{ImportRefusal, Importer};
