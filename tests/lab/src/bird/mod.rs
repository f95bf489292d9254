//! The ToRs' routing daemon: BIRD's configuration, its control socket, and what it says.

pub mod config;
pub mod control;
pub mod dual;
pub mod show;
