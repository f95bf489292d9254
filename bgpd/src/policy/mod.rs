//! Import and export policy: pure functions from a route and its context to a verdict with its reason.

mod import;

pub use import::{From, ImportRefusal, Importer};
