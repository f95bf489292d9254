//! A leaf-spine fabric in network namespaces that runs the real daemons.
//!
//! ```text
//!            tor-a (BIRD, AS 65001) ───── tor-b (BIRD, AS 65002)        routers: real BIRD
//!             │ rack a          │                  │ rack b
//!             n1                n2                 n3                   nodes: margay-felix, margay-bgpd,
//!          ╭──┴──╮              │                  │                    and a runner in the kubelet's place
//!         pod   pod            pod                pod                   pods: namespaces, attached by the
//!                                                                       plugin; a responder in each
//!   apiserver on 127.0.0.1 of the machine and of every node; scheduler
//! ```
//!
//! [`Lab::up`] makes one, [`Lab::down`] leaves nothing of it. The binary `lab` is the same for the shell.
//! [`plan`] says what there is (pure), [`fabric`], [`bird`] and [`programs`] make it; [`runner`] is the
//! kubelet's part, [`scheduler`] binds pods, [`probe`] asks who reaches whom.
//!
//! A lab belongs to its directory: names of namespaces are derived from it, so that labs in different
//! directories run side by side.

pub mod api;
pub mod args;
pub mod bird;
mod bootstrap;
mod checks;
mod command;
mod demo;
mod down;
pub mod fabric;
pub mod netns;
pub mod objects;
mod options;
pub mod place;
pub mod plan;
pub mod pods;
pub mod probe;
pub mod process;
pub mod programs;
pub mod responder;
pub mod runner;
pub mod scheduler;
mod status;
mod up;

pub use command::Lab;
pub use options::{Options, Parts, bin_dir, resolve_dir};
pub use status::{ProcessStatus, Status, TorStatus};
