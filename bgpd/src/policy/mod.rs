//! Import and export policy: pure functions from a route and its context to a verdict with its reason.

mod community;
mod cover;
pub mod drain;
pub mod export;
pub mod filter;
pub mod import;
mod prefixes;

use std::fmt;

use crate::config::{ExportClass, ImportPolicy};

pub use drain::{Drained, Own};
pub use filter::Chain;
pub use import::{ImportRefusal, Importer};

impl fmt::Display for ImportPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pools => "pools",
            Self::All => "all",
        })
    }
}

impl fmt::Display for ExportClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Origins => "origins",
            Self::Reflect => "reflect",
            Self::Transit => "transit",
        })
    }
}
