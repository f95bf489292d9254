//! What the agent is told, as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::v1::BgpdMessage;
use cni::error::CniError;
use cni::frame::Request;
use cni::key::AttachmentKey;
use crds::felix_configuration::FelixConfigurationSpec;
use crds::host_endpoint;

use super::services::Slice;
use crate::feed::{Identity, Labels, NetworkSet, NodeAddresses, ServiceAccount};
use crate::policy::k8s::PolicyError;
use crate::policy::model::{Policy, PolicyKey, Tier};

/// Names one call of the plugin while it is being served.
pub type CallId = u64;

/// Something happened.
#[derive(Debug)]
pub enum Input {
    /// The cluster changed.
    Feed(Update),
    /// The plugin asks.
    Call(CallId, Request),
    /// The plugin went away; a call still being served is taken back.
    Hangup(CallId),
    /// bgpd answered a connection.
    BgpdConnected,
    /// bgpd says.
    Bgpd(BgpdMessage),
    /// The connection to bgpd ended; nothing that it said is taken back.
    BgpdLost,
    /// A DEL that the plugin left in the spool.
    Detach(AttachmentKey),
    /// A host interface of ours has this index, or is gone.
    Link(String, Option<u32>),
    /// MTU of the smallest uplink, in bytes.
    Mtu(u32),
    /// Own addresses on a loopback interface that are valid everywhere: nobody is told of them but by routing.
    Loopbacks(BTreeSet<IpAddr>),
    /// Own addresses by interface, without those of pods and loopbacks.
    Interfaces(BTreeMap<String, BTreeSet<IpAddr>>),
    /// Kernel settings that are not as they must be, one sentence each.
    SettingsRefused(BTreeSet<String>),
    /// Packets that rules hand over are read, or why not.
    EventsRead(Option<String>),
    /// The kernel refuses rules that hand packets over; all others are in force.
    LoggingRefused(bool),
    /// Routes of ours, as prefix and metric, that are not made because another program has one there.
    RoutesRefused(BTreeSet<String>),
    /// An uplink failed or came back, and the rest is looked at soon: only its legs are to be seen to now.
    UplinksChanged,
    /// Routes, nexthops or uplinks changed, and it was not our doing: look and repair.
    RoutesChanged,
    /// The table changed, and it was not our doing: look and repair.
    TablesChanged,
    /// Address management has an answer.
    Ipam(Box<ipam::Input>),
    /// A timeout passed.
    Tick,
    /// Answer to a look at one pod in the API.
    PodFetched(String, Box<Fetched>),
}

/// What a look at one pod in the API found.
#[derive(Debug)]
pub enum Fetched {
    /// The pod.
    Pod(Pod),
    /// The API says that there is no such pod.
    Gone,
    /// The API does not answer.
    Away(String),
}

/// A kind of object that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Namespaces.
    Namespace,
    /// Pods of all nodes.
    Pod,
    /// NetworkPolicies.
    NetworkPolicy,
    /// This node's object.
    Node,
    /// IPPools.
    IpPool,
    /// IPAMBlocks of this node.
    IpamBlock,
    /// The IPAMConfiguration.
    IpamConfiguration,
    /// Every node's object, for its addresses.
    Nodes,
    /// ServiceAccounts, for their labels.
    ServiceAccount,
    /// EndpointSlices: who is behind a Service.
    EndpointSlice,
    /// Tiers.
    Tier,
    /// NetworkPolicies of ours.
    MargayNetworkPolicy,
    /// GlobalNetworkPolicies.
    GlobalNetworkPolicy,
    /// ClusterNetworkPolicies.
    ClusterNetworkPolicy,
    /// NetworkSets.
    NetworkSet,
    /// GlobalNetworkSets.
    GlobalNetworkSet,
    /// HostEndpoints of all nodes.
    HostEndpoint,
    /// FelixConfigurations.
    FelixConfiguration,
}

impl Kind {
    /// All of them: the feed is complete when each has been listed.
    pub const ALL: [Self; 18] = [
        Self::Namespace,
        Self::Pod,
        Self::NetworkPolicy,
        Self::Node,
        Self::IpPool,
        Self::IpamBlock,
        Self::IpamConfiguration,
        Self::Nodes,
        Self::ServiceAccount,
        Self::EndpointSlice,
        Self::Tier,
        Self::MargayNetworkPolicy,
        Self::GlobalNetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::NetworkSet,
        Self::GlobalNetworkSet,
        Self::HostEndpoint,
        Self::FelixConfiguration,
    ];
}

/// One change of the cluster.
#[derive(Debug)]
pub enum Update {
    /// A namespace came or changed.
    Namespace(String, Labels),
    /// A namespace is gone.
    NamespaceGone(String),
    /// A pod came or changed.
    Pod(Pod),
    /// The pod with this uid is gone.
    PodGone(String),
    /// A policy came or changed.
    Policy(Box<Policy>),
    /// A policy that cannot be understood came, with its generation.
    PolicyRefused(PolicyKey, i64, PolicyError),
    /// A policy came or changed of which a part is not understood; that part is closed, the rest is in force.
    PolicyFlawed(Box<Policy>, PolicyError),
    /// A policy is gone.
    PolicyGone(PolicyKey),
    /// A tier came or changed.
    Tier(Tier),
    /// A tier is gone.
    TierGone(String),
    /// Addresses with labels came or changed.
    NetworkSet(NetworkSet),
    /// The set of that namespace, if it is in one, and name is gone.
    NetworkSetGone(Option<String>, String),
    /// A host endpoint of any node came or changed.
    HostEndpoint(host_endpoint::Endpoint),
    /// A host endpoint is gone.
    HostEndpointGone(String),
    /// A service account came or changed.
    ServiceAccount(ServiceAccount),
    /// The service account of that namespace and name is gone.
    ServiceAccountGone(String, String),
    /// Some of the backends of a service came or changed.
    Slice(Slice),
    /// The slice of that namespace and name is gone.
    SliceGone(String, String),
    /// Any node came or changed.
    NodeAddresses(NodeAddresses),
    /// A node is gone.
    NodeGone(String),
    /// This node came or changed.
    Node(Node),
    /// A pool came or changed.
    ///
    /// The last part is whether its condition says that it is refused, `None` when that cannot be read.
    Pool(
        String,
        Result<crds::ip_pool::Pool, crds::FieldError>,
        Option<bool>,
    ),
    /// A pool is gone.
    PoolGone(String),
    /// A block of this node came or changed.
    Block(Box<crds::IPAMBlock>),
    /// A block of this node is gone.
    BlockGone(String),
    /// A block of this node is not in a new list, although nobody saw it go.
    BlockUnlisted(String),
    /// Limits of address management; the defaults when there is no configuration.
    Configuration(crds::ipam_configuration::Configuration),
    /// The FelixConfiguration of this name came or changed, and was understood; `None` when it is gone.
    FelixConfiguration(String, Option<Box<FelixConfigurationSpec>>),
    /// Every object of the kind has been told, and those that vanished unseen have been told gone.
    InSync(Kind),
    /// The watch of a kind failed; what was told stays in force.
    Lost(Kind, String),
    /// The API serves a kind again whose watch failed. A watch that goes on where it was has nothing else to say.
    Resumed(Kind),
}

/// A pod, as far as felix cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// What policy sees.
    pub identity: Identity,
    /// `spec.nodeName`; empty while it waits for one.
    pub node: String,
    /// `status.phase` is Succeeded or Failed: its addresses are free.
    pub finished: bool,
    /// What it asks for beside policy, by annotation.
    pub annotations: BTreeMap<String, String>,
}

/// This node's object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `status.addresses` of type InternalIP.
    pub addresses: Vec<IpAddr>,
}

/// A call that cannot be served now.
pub(super) fn try_again(msg: &str, details: impl ToString) -> CniError {
    CniError::new(cni::error::Code::TryAgain, msg, details)
}
