//! Import and export policy: pure functions from a route and its context to a verdict with its reason.

pub mod export;
pub mod import;

pub use import::{ImportRefusal, Importer};
