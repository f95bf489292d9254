//! RFC 4271, section by section.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod bench;
mod section_10;
mod section_6_2;
mod section_6_8;
mod section_8;
mod section_8_events;
