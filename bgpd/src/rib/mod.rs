//! Routing tables and the decision process of RFC 4271 section 9.

pub mod decide;

pub use decide::WhyNotBest;
