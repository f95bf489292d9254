//! The configuration of one node, from the objects of the Kubernetes API.
//!
//! An object that is not understood stays in force as it last was; the problem is told, in [`Outcome::problems`] and for
//! peers by [`Cluster::verdicts`].

mod node;
mod peers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use crds::bgp_configuration::Configuration;
use crds::bgp_peer;
use crds::net::Family;
use crds::{BGPConfiguration, BGPFilter, BGPPeer, IPPool};
use k8s_openapi::api::core::v1::{Node, Pod};

use self::node::Facts;
pub use self::node::{AS_ANNOTATION, CLUSTER_ID, DRAIN_ANNOTATION};
use self::peers::Secret;
use super::objects::general;
use super::{Config, Filter, Pool};

/// What stands for the namespace among the labels of a pod.
pub const NAMESPACE_LABEL: &str = "margay.io/namespace";

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

    fn invalid(&self) -> Option<Problem> {
        self.problem.as_deref().map(Problem::invalid)
    }
}

/// What matters of a pod on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Workload {
    labels: BTreeMap<String, String>,
    addresses: Vec<IpAddr>,
}

/// The objects that make one node's configuration.
#[derive(Debug)]
pub struct Cluster {
    node: String,
    /// The last configuration that was used, in this run or the one before; stands in for objects that were never understood.
    before: Option<Config>,
    nodes: BTreeMap<String, Kept<Facts>>,
    configuration: Option<Kept<Configuration>>,
    peers: BTreeMap<String, Kept<bgp_peer::Peer>>,
    pools: BTreeMap<String, Kept<crds::ip_pool::Pool>>,
    filters: BTreeMap<String, Kept<Filter>>,
    /// Those that were read, by name.
    secrets: BTreeMap<String, Secret>,
    /// Pods on this node, by namespace and name.
    pods: BTreeMap<String, Workload>,
}

/// What the objects make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The node's configuration.
    pub config: Config,
    /// What is not in force as it was asked for, one sentence each.
    pub problems: Vec<String>,
}

/// Whether an object is understood, and what it refers to is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Name of the object.
    pub name: String,
    /// What is wrong with it; None: nothing.
    pub problem: Option<Problem>,
}

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// In one word.
    pub reason: &'static str,
    /// In a sentence: the field, what is wrong, and what holds meanwhile.
    pub message: String,
}

impl Problem {
    /// The newest version is not understood.
    fn invalid(problem: &str) -> Self {
        Self {
            reason: "Invalid",
            message: format!("{problem}; the last good version stays in force"),
        }
    }
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
            filters: BTreeMap::new(),
            secrets: BTreeMap::new(),
            pods: BTreeMap::new(),
        }
    }

    /// A configuration of [`Self::outcome`] is in use: what it says of objects holds until they are understood again.
    pub fn used(&mut self, config: &Config) {
        self.before = Some(config.clone());
    }

    /// Name of this node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// A Node is there or has changed.
    pub fn node_applied(&mut self, node: &Node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let kept = self.nodes.remove(&name);
        let before = kept.as_ref().and_then(|kept| kept.good.as_ref());
        let (drain, note) = node::drain(node, before.map(|good| good.drain));
        let mut facts = node::facts(node, drain);
        // A Node that is registered anew has no addresses until somebody enters them.
        if let (Ok(facts), Some(before)) = (&mut facts, before)
            && facts.addresses.is_empty()
        {
            facts.addresses.clone_from(&before.addresses);
        }
        let mut kept = Kept::take(kept, facts);
        // A drain that is not understood holds nothing else up.
        kept.problem = kept.problem.or(note);
        self.nodes.insert(name, kept);
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

    /// A BGPFilter is there or has changed.
    pub fn filter_applied(&mut self, name: &str, read: Read<BGPFilter>) {
        let understood = read.and_then(|o| Filter::try_from(&o.spec).map_err(|e| e.to_string()));
        let kept = self.filters.remove(name);
        self.filters
            .insert(name.to_owned(), Kept::take(kept, understood));
    }

    /// A BGPFilter is gone.
    pub fn filter_deleted(&mut self, name: &str) {
        self.filters.remove(name);
    }

    /// Only these BGPFilters exist.
    pub fn filters_are(&mut self, names: &BTreeSet<String>) {
        self.filters.retain(|name, _| names.contains(name));
    }

    /// A Secret has that content; None: it does not exist.
    pub fn secret_is(&mut self, name: &str, data: Option<BTreeMap<String, Vec<u8>>>) {
        self.secrets.entry(name.to_owned()).or_default().is(data);
    }

    /// A pod on this node is there or has changed.
    pub fn pod_applied(&mut self, name: &str, pod: &Pod) {
        match workload(pod) {
            Some(workload) => self.pods.insert(name.to_owned(), workload),
            None => self.pods.remove(name),
        };
    }

    /// A pod is gone.
    pub fn pod_deleted(&mut self, name: &str) {
        self.pods.remove(name);
    }

    /// Only these pods are on this node.
    pub fn pods_are(&mut self, names: &BTreeSet<String>) {
        self.pods.retain(|name, _| names.contains(name));
    }

    /// What is wrong with this node's annotations.
    pub fn node_problem(&self) -> Option<&str> {
        self.nodes.get(&self.node)?.problem.as_deref()
    }

    /// Whether each BGPPeer that concerns this node is understood, and what it refers to is there.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let concerns = |kept: &Kept<bgp_peer::Peer>| match (&kept.good, self.own()) {
            (Some(good), Some(own)) => self.concerns(good, &self.node, own),
            // Nobody can tell whom it concerns, so everybody looks.
            _ => true,
        };
        let concerned = self.peers.iter().filter(|(_, kept)| concerns(kept));
        concerned
            .map(|(name, kept)| Verdict {
                name: name.clone(),
                problem: kept.invalid().or_else(|| {
                    let good = kept.good.as_ref()?;
                    let at = good.password.as_ref();
                    at.and_then(|at| self.secret_problem("spec.password", at))
                        .or_else(|| self.filter_problem(good))
                }),
            })
            .collect()
    }

    /// Whether each BGPFilter is understood.
    pub fn filter_verdicts(&self) -> Vec<Verdict> {
        let verdict = |(name, kept): (&String, &Kept<Filter>)| Verdict {
            name: name.clone(),
            problem: kept.invalid(),
        };
        self.filters.iter().map(verdict).collect()
    }

    /// Whether the BGPConfiguration is understood, and what it refers to is there.
    pub fn configuration_verdict(&self) -> Option<Verdict> {
        let kept = self.configuration.as_ref()?;
        let at = || kept.good.as_ref()?.mesh_password.as_ref();
        let secret = || self.secret_problem("spec.nodeMeshPassword", at()?);
        Some(Verdict {
            name: crds::SINGLETON.to_owned(),
            problem: kept.invalid().or_else(secret),
        })
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
        let had_pools = |before: &Config| !before.pools.is_empty();
        if self.pools.is_empty() && self.before.as_ref().is_some_and(had_pools) {
            // An API that has lost its objects looks like this, and withdraws nothing.
            return Err(
                "all IPPools are gone from the API: the last configuration stays in force until there is one again"
                    .to_owned(),
            );
        }
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
        config.drain = own.drain;
        general(&mut config, &configuration);
        config.cluster_id = own.cluster_id;
        config.filters = self.make_filters();
        let never = self
            .configuration
            .as_ref()
            .is_some_and(|kept| kept.good.is_none());
        if let Some(before) = self.before.as_ref().filter(|_| never) {
            config.advertisements.clone_from(&before.advertisements);
            config.bmp.clone_from(&before.bmp);
        }
        (config.peers, config.dynamic) =
            self.make_peers(own, &configuration, &config, &mut problems);
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
        for (name, kept) in &self.filters {
            note("BGPFilter", name, &kept.problem);
        }
        for verdict in self
            .verdicts()
            .into_iter()
            .chain(self.configuration_verdict())
        {
            // Those that are not understood are noted above.
            if let Some(problem) = verdict.problem.filter(|it| it.reason != "Invalid") {
                problems.push(format!("{}: {}", verdict.name, problem.message));
            }
        }
        problems
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

/// What matters of a pod; None: it has no address of its own, or has ended.
fn workload(pod: &Pod) -> Option<Workload> {
    let status = pod.status.as_ref()?;
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let hosts = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    if ended || hosts {
        return None;
    }
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    labels.insert(NAMESPACE_LABEL.to_owned(), namespace);
    let ips = status.pod_ips.iter().flatten();
    let addresses: Vec<IpAddr> = ips.filter_map(|ip| ip.ip.parse().ok()).collect();
    (!addresses.is_empty()).then_some(Workload { labels, addresses })
}

#[cfg(test)]
mod tests;
