//! Margay's custom resources: what people write, what it means, and how it is checked.
//!
//! ```text
//!  kubectl apply ──► schema + CEL (deploy/crds, written by crdgen) ──► object ──► Pool, Block, Peer, …
//!                    refuses with the field and the fix                           checked once, here
//! ```
//!
//! Every kind has two forms. The object (`IPPool`, `BGPPeer`, …) is what the API stores, with strings as people wrote
//! them. The domain type beside it (`ip_pool::Pool`, `bgp_peer::Peer`, …) is made by `TryFrom`, holds parsed values only
//! and is the one the cores see. An object that slipped past the schema fails that conversion with a [`FieldError`],
//! which belongs into the object's status as a condition; the last good version stays in force.

#![expect(
    unreachable_pub,
    reason = "KubeSchema expands to a pub struct inside a function"
)]
#![expect(
    clippy::duplicated_attributes,
    reason = "printer columns of one kind share a type"
)]

pub mod bgp_configuration;
pub mod bgp_filter;
pub mod bgp_peer;
pub mod bootstrap;
pub mod cluster_network_policy;
pub mod community;
pub mod condition;
mod error;
pub mod felix_configuration;
pub mod generate;
pub mod global_network_policy;
pub mod host_endpoint;
pub mod ip_pool;
pub mod ipam_block;
pub mod ipam_configuration;
pub mod net;
pub mod network_policy;
pub mod network_set;
pub mod policy;
mod seconds;
pub mod selector;
pub mod tier;

pub use bgp_configuration::BGPConfiguration;
pub use bgp_filter::BGPFilter;
pub use bgp_peer::BGPPeer;
pub use cluster_network_policy::{ClusterNetworkPolicy, foreign_crds};
pub use community::Community;
pub use condition::Condition;
pub use error::FieldError;
pub use felix_configuration::FelixConfiguration;
pub use generate::all_crds;
pub use global_network_policy::GlobalNetworkPolicy;
pub use host_endpoint::HostEndpoint;
pub use ip_pool::IPPool;
pub use ipam_block::IPAMBlock;
pub use ipam_configuration::IPAMConfiguration;
pub use network_policy::NetworkPolicy;
pub use network_set::{GlobalNetworkSet, NetworkSet};
pub use tier::Tier;

/// The API group of every kind.
pub const GROUP: &str = "margay.io";

/// The only name a singleton (`IPAMConfiguration`, `BGPConfiguration`) may have.
pub const SINGLETON: &str = "default";
