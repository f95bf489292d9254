//! What the end-to-end suites share: real daemons, real BIRD, real kubectl, in network namespaces (root). [`suite`] is
//! the lab of a test binary and what tests ask of it; [`fault`] a lab of one test, which breaks it.

pub mod fault;
pub mod suite;
