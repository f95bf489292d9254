//! The only I/O of felix: Kubernetes, netlink, gRPC, the CNI socket.

pub mod conntrack;
pub mod netlink;
pub mod nft;
pub mod socket;
pub mod sysctl;
