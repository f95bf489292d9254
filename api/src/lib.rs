//! The gRPC status API of a node, and the contracts of felix with bgpd and the controller.
//!
//! ```text
//! margayctl ── NodeStatus ──► felix ── Dataplane.Sync ──► bgpd ◄── BgpStatus ── margayctl
//!                               └── PolicyReports ──► margay-controller, on another node
//! ```
//!
//! The protos under `proto/margay/v1` are the source; their comments say what each field means.

pub mod client;
pub mod daemon;
pub mod local;
pub mod pinned;

/// Version 1 of the API: messages, clients and servers.
pub mod v1 {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::pedantic
    )]
    tonic::include_proto!("margay.v1");
}

/// Where the daemons of a node listen, below the run directory.
pub mod paths {
    /// Default run directory.
    pub const RUN_DIR: &str = "/run/margay";
    /// Default state directory: attachment log, last good configuration.
    pub const STATE_DIR: &str = "/var/lib/margay";
    /// What a node needs to know while the API is not reachable; it may be missing.
    pub const BOOTSTRAP_FILE: &str = "/etc/margay/node.yaml";
    /// felix's gRPC socket, in the run directory.
    pub const FELIX_SOCKET: &str = "felix.sock";
    /// bgpd's gRPC socket, in the run directory.
    pub const BGPD_SOCKET: &str = "bgpd.sock";
    /// felix's socket for the CNI plugin, in the run directory.
    pub const CNI_SOCKET: &str = "cni.sock";
}
