//! What the end-to-end suites share. Each test binary has a lab of its own: real daemons, real BIRD, real kubectl,
//! in network namespaces (root). [`suite`] is that lab and what tests ask of it.

pub mod suite;
