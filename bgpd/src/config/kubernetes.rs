//! The configuration of one node, from the objects of the Kubernetes API.
//!
//! An object that is not understood stays in force as it last was; the problem is told, in [`Outcome::problems`] and for
//! peers by [`Cluster::verdicts`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use crds::bgp_configuration::Configuration;
use crds::bgp_peer;
use crds::net::Family;
use crds::{BGPConfiguration, BGPPeer, IPPool};
use k8s_openapi::api::core::v1::Node;

use super::objects::{Asked, asked, general};
use super::{Config, DynamicPeers, Peer, PeerKey, Pool};

/// Annotation of a Node with its own AS.
pub const AS_ANNOTATION: &str = "margay.io/as-number";

/// An object as it came, or why it could not even be read.
pub type Read<K> = Result<K, String>;

/// What was last understood of an object, and what is wrong with its newest version.
#[derive(Debug, Clone)]
struct Kept<T> {
    good: Option<T>,
    problem: Option<String>,
}

impl<T> Kept<T> {
    fn take(kept: Option<Self>, read: Result<T, String>) -> Self {
        match read {
            Ok(good) => Self {
                good: Some(good),
                problem: None,
            },
            Err(problem) => Self {
                good: kept.and_then(|k| k.good),
                problem: Some(problem),
            },
        }
    }
}

/// What matters of a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    labels: BTreeMap<String, String>,
    asn: Option<u32>,
    /// InternalIPs, in the order of the Node.
    addresses: Vec<IpAddr>,
}

impl Facts {
    fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|a| Family::of(*a) == family)
    }
}

/// The objects that make one node's configuration.
#[derive(Debug)]
pub struct Cluster {
    node: String,
    /// The configuration of the run before; stands in for objects that were never understood in this one.
    before: Option<Config>,
    nodes: BTreeMap<String, Kept<Facts>>,
    configuration: Option<Kept<Configuration>>,
    peers: BTreeMap<String, Kept<bgp_peer::Peer>>,
    pools: BTreeMap<String, Kept<crds::ip_pool::Pool>>,
}

/// What the objects make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The node's configuration.
    pub config: Config,
    /// What is not in force as it was asked for, one sentence each.
    pub problems: Vec<String>,
}

/// Whether a BGPPeer is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Name of the object.
    pub name: String,
    /// What is wrong with it; None: nothing.
    pub problem: Option<String>,
}

impl Cluster {
    /// No object yet.
    pub fn new(node: impl Into<String>, before: Option<Config>) -> Self {
        Self {
            node: node.into(),
            before,
            nodes: BTreeMap::new(),
            configuration: None,
            peers: BTreeMap::new(),
            pools: BTreeMap::new(),
        }
    }

    /// Name of this node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether all other nodes are peers, so that all Nodes have to be known.
    pub fn mesh(&self) -> bool {
        self.configuration
            .as_ref()
            .and_then(|kept| kept.good.as_ref())
            .is_some_and(|good| good.mesh == Some(true))
    }

    /// A Node is there or has changed.
    pub fn node_applied(&mut self, node: &Node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let kept = self.nodes.remove(&name);
        self.nodes.insert(name, Kept::take(kept, facts(node)));
    }

    /// A Node is gone. This node's own stays in force: its object may be made anew.
    pub fn node_deleted(&mut self, name: &str) {
        if name != self.node {
            self.nodes.remove(name);
        }
    }

    /// Only these Nodes exist.
    pub fn nodes_are(&mut self, names: &BTreeSet<String>) {
        let own = &self.node;
        self.nodes
            .retain(|name, _| name == own || names.contains(name));
    }

    /// The BGPConfiguration is there or has changed; None: it is gone, and the defaults hold.
    pub fn configuration_is(&mut self, read: Option<Read<BGPConfiguration>>) {
        self.configuration = read.map(|read| {
            let understood =
                read.and_then(|o| Configuration::try_from(&o).map_err(|e| e.to_string()));
            Kept::take(self.configuration.take(), understood)
        });
    }

    /// A BGPPeer is there or has changed.
    pub fn peer_applied(&mut self, name: &str, read: Read<BGPPeer>) {
        let understood = read.and_then(|o| bgp_peer::Peer::try_from(&o).map_err(|e| e.to_string()));
        let kept = self.peers.remove(name);
        self.peers
            .insert(name.to_owned(), Kept::take(kept, understood));
    }

    /// A BGPPeer is gone.
    pub fn peer_deleted(&mut self, name: &str) {
        self.peers.remove(name);
    }

    /// Only these BGPPeers exist.
    pub fn peers_are(&mut self, names: &BTreeSet<String>) {
        self.peers.retain(|name, _| names.contains(name));
    }

    /// An IPPool is there or has changed.
    pub fn pool_applied(&mut self, name: &str, read: Read<IPPool>) {
        let understood =
            read.and_then(|o| crds::ip_pool::Pool::try_from(&o).map_err(|e| e.to_string()));
        let kept = self.pools.remove(name);
        self.pools
            .insert(name.to_owned(), Kept::take(kept, understood));
    }

    /// An IPPool is gone.
    pub fn pool_deleted(&mut self, name: &str) {
        self.pools.remove(name);
    }

    /// Only these IPPools exist.
    pub fn pools_are(&mut self, names: &BTreeSet<String>) {
        self.pools.retain(|name, _| names.contains(name));
    }

    /// Whether each BGPPeer that concerns this node is understood.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let labels = self.own().map(|own| own.labels.clone()).unwrap_or_default();
        let concerns = |kept: &Kept<bgp_peer::Peer>| match &kept.good {
            Some(good) => good.nodes.includes(&self.node, &labels),
            // Nobody can tell whom it concerns, so everybody looks.
            None => true,
        };
        self.peers
            .iter()
            .filter(|(_, kept)| concerns(kept))
            .map(|(name, kept)| Verdict {
                name: name.clone(),
                problem: kept.problem.clone(),
            })
            .collect()
    }

    fn own(&self) -> Option<&Facts> {
        self.nodes
            .get(&self.node)
            .and_then(|kept| kept.good.as_ref())
    }

    /// What the objects make.
    ///
    /// # Errors
    ///
    /// When they make no configuration at all; the last one stays in force then.
    pub fn outcome(&self) -> Result<Outcome, String> {
        let mut problems = self.problems();
        let Some(own) = self.own() else {
            let none = format!("Node {} does not exist: is --node-name right?", self.node);
            return Err(problems.into_iter().next().unwrap_or(none));
        };
        let configuration = match &self.configuration {
            None => Configuration::default(),
            Some(Kept {
                good: Some(good), ..
            }) => good.clone(),
            Some(Kept {
                good: None,
                problem,
            }) => match &self.before {
                Some(before) => like(before),
                None => return Err(problem.clone().unwrap_or_default()),
            },
        };
        let asn = own.asn.unwrap_or(configuration.as_number);
        let mut config = Config::new(asn, router_id(own, &self.node));
        general(&mut config, &configuration);
        (config.peers, config.dynamic) = self.make_peers(own, &configuration, asn, &mut problems);
        config.pools = self.make_pools();
        Ok(Outcome { config, problems })
    }

    /// Every object whose newest version is not understood.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut note = |kind: &str, name: &str, problem: &Option<String>| {
            if let Some(problem) = problem {
                problems.push(format!("{kind} {name}: {problem}"));
            }
        };
        for (name, kept) in &self.nodes {
            note("Node", name, &kept.problem);
        }
        if let Some(kept) = &self.configuration {
            note("BGPConfiguration", crds::SINGLETON, &kept.problem);
        }
        for (name, kept) in &self.peers {
            note("BGPPeer", name, &kept.problem);
        }
        for (name, kept) in &self.pools {
            note("IPPool", name, &kept.problem);
        }
        problems
    }

    fn make_peers(
        &self,
        own: &Facts,
        configuration: &Configuration,
        asn: u32,
        problems: &mut Vec<String>,
    ) -> (Vec<Peer>, Vec<DynamicPeers>) {
        let mut peers: BTreeMap<PeerKey, Peer> = BTreeMap::new();
        let mut dynamic: Vec<DynamicPeers> = Vec::new();
        for (name, kept) in &self.peers {
            let peer = match &kept.good {
                // A peer does not peer with itself when its own node is selected.
                Some(good) if good.address().is_some_and(|a| own.addresses.contains(&a)) => {
                    continue;
                }
                Some(good) if !good.nodes.includes(&self.node, &own.labels) => continue,
                Some(good) => match asked(good, configuration, |family| own.address(family)) {
                    Some(Asked::Peer(peer)) => peer,
                    Some(Asked::Dynamic(range)) => {
                        dynamic.push(range);
                        continue;
                    }
                    None => continue,
                },
                None => {
                    let before = self.before.iter().flat_map(|config| &config.peers);
                    match before.into_iter().find(|peer| peer.name == *name) {
                        Some(peer) => peer.clone(),
                        None => continue,
                    }
                }
            };
            match peers.entry(peer.key.clone()) {
                std::collections::btree_map::Entry::Vacant(free) => {
                    free.insert(peer);
                }
                std::collections::btree_map::Entry::Occupied(first) => problems.push(format!(
                    "BGPPeer {name}: {} is the address of BGPPeer {} too, which is used: remove one",
                    peer.key,
                    first.get().name
                )),
            }
        }
        if configuration.mesh == Some(true) {
            for peer in self.mesh_peers(own, configuration, asn) {
                // A BGPPeer with that address says more.
                peers.entry(peer.key.clone()).or_insert(peer);
            }
        }
        (peers.into_values().collect(), dynamic)
    }

    /// One session with every other node and family that both have.
    fn mesh_peers(&self, own: &Facts, configuration: &Configuration, asn: u32) -> Vec<Peer> {
        let mut peers = Vec::new();
        for (name, kept) in &self.nodes {
            let Some(other) = kept.good.as_ref().filter(|_| *name != self.node) else {
                continue;
            };
            for family in Family::ALL {
                let (Some(local), Some(remote)) = (own.address(family), other.address(family))
                else {
                    continue;
                };
                let remote_asn = match other.asn {
                    Some(other) => other,
                    None if own.asn.is_none() => asn,
                    None => configuration.as_number,
                };
                let mut peer = Peer::new(remote, remote_asn);
                peer.name = format!("mesh-{name}");
                peer.port = configuration.listen_port;
                peer.local_address = Some(local);
                peer.timers.keepalive = configuration
                    .keepalive
                    .map(|seconds| crate::Millis::from(seconds) * 1000);
                peers.push(peer);
            }
        }
        peers
    }

    fn make_pools(&self) -> Vec<Pool> {
        let mut pools: Vec<Pool> = self
            .pools
            .values()
            .filter_map(|kept| kept.good.as_ref())
            .map(|good| Pool {
                cidr: good.cidr,
                block_size: good.block_size,
            })
            .collect();
        // A pool that was never understood is one of those from before; its name is not known there.
        if self.pools.values().any(|kept| kept.good.is_none()) {
            pools.extend(self.before.iter().flat_map(|before| &before.pools));
        }
        pools.sort_by_key(|pool| (pool.cidr, pool.block_size));
        pools.dedup_by_key(|pool| pool.cidr);
        pools
    }
}

/// The part of an earlier configuration that is the same for all nodes.
fn like(before: &Config) -> Configuration {
    Configuration {
        as_number: before.asn,
        mesh: Some(false),
        listen_port: before.listen_port,
        hold_time: before.hold_time,
        keepalive: None,
        import_ranges: before.import_ranges.clone(),
        multipath: before.multipath,
        require_policy: before.require_policy,
        selection_deferral: u32::try_from(before.selection_deferral / 1000).ok(),
        ..Configuration::default()
    }
}

/// The node's IPv4 address; without one, a hash of its name (RFC 6286 wants uniqueness only).
fn router_id(own: &Facts, name: &str) -> Ipv4Addr {
    if let Some(IpAddr::V4(address)) = own.address(Family::V4) {
        return address;
    }
    // FNV-1a: the same in every release, unlike the standard library's hash.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    Ipv4Addr::from(hash.max(1))
}

fn facts(node: &Node) -> Result<Facts, String> {
    let annotations = node.metadata.annotations.as_ref();
    let asn = match annotations.and_then(|all| all.get(AS_ANNOTATION)) {
        None => None,
        Some(text) => Some(text.parse().ok().filter(|asn| *asn != 0).ok_or_else(|| {
            format!("annotation {AS_ANNOTATION}: {text:?} is no AS number: set 1 to 4294967295")
        })?),
    };
    let status = node.status.as_ref();
    let addresses = status
        .and_then(|status| status.addresses.as_ref())
        .into_iter()
        .flatten();
    let addresses: Vec<IpAddr> = addresses
        .filter(|address| address.type_ == "InternalIP")
        .filter_map(|address| address.address.parse().ok())
        .collect();
    let labels = node.metadata.labels.clone().unwrap_or_default();
    Ok(Facts {
        labels,
        asn,
        addresses,
    })
}

#[cfg(test)]
mod tests;
