//! The peers of one node, from the BGPPeers, the other nodes and the pods on it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crds::bgp_configuration::Configuration;
use crds::bgp_peer::{self, LocalAddress, Remote, SecretKeyRef};
use crds::net::Family;

use super::{Cluster, Facts, Kept, Problem};
use crate::Millis;
use crate::config::objects::{Asked, asked, name_filters, peer_at};
use crate::config::{Config, DynamicPeers, ExportClass, Filter, Password, Peer, PeerKey};

/// Bytes a key of TCP MD5 may have.
const PASSWORD_MAX: usize = 80;

/// How names of peers begin that are other nodes of the mesh.
const MESH: &str = "mesh-";

/// What is known of a Secret.
#[derive(Debug, Clone, Default)]
pub(super) struct Secret {
    /// What it says; None: it does not exist.
    pub(super) now: Option<BTreeMap<String, Vec<u8>>>,
    /// The last good passwords by their keys, which stay in force.
    good: BTreeMap<String, Password>,
}

impl Secret {
    pub(super) fn is(&mut self, data: Option<BTreeMap<String, Vec<u8>>>) {
        for (key, value) in data.iter().flatten() {
            if let Ok(password) = password(value) {
                self.good.insert(key.clone(), password);
            }
        }
        self.now = data;
    }
}

/// A password as it is meant: the line's end that an editor leaves is not part of it.
fn password(value: &[u8]) -> Result<Password, String> {
    let text = std::str::from_utf8(value).map_err(|_| "is no text".to_owned())?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    if text.is_empty() || text.len() > PASSWORD_MAX {
        return Err(format!("has {} bytes, not 1 to {PASSWORD_MAX}", text.len()));
    }
    Ok(Password(text.to_owned()))
}

impl Cluster {
    /// Peers and ranges of peers of this node.
    pub(super) fn make_peers(
        &self,
        own: &Facts,
        configuration: &Configuration,
        config: &Config,
        problems: &mut Vec<String>,
    ) -> (Vec<Peer>, Vec<DynamicPeers>) {
        let mut made = Made {
            peers: BTreeMap::new(),
            dynamic: Vec::new(),
        };
        for (name, kept) in &self.peers {
            let Some(good) = &kept.good else {
                // Never understood in this run; what it was in the run before.
                made.like_before(name, self.before.as_ref(), problems);
                continue;
            };
            let key = good.password.as_ref().map(|at| self.password(at, name));
            let mut asked = self.asked(good, own, configuration, config);
            let ranges = asked.1.iter_mut().map(|range| &mut range.template);
            for peer in asked.0.iter_mut().chain(ranges) {
                secure(peer, key.as_ref());
                name_filters(peer, &good.filters, &config.filters);
                self.reflect(peer, own, config);
            }
            for peer in asked.0 {
                made.add(name, peer, problems);
            }
            made.dynamic.extend(asked.1);
        }
        if self
            .configuration
            .as_ref()
            .is_some_and(|kept| kept.good.is_none())
        {
            made.like_before(MESH, self.before.as_ref(), problems);
        }
        for peer in self.mesh_peers(own, configuration, config) {
            // A BGPPeer with that address says more.
            made.peers.entry(peer.key.clone()).or_insert(peer);
        }
        (made.peers.into_values().collect(), made.dynamic)
    }

    /// What one BGPPeer asks of this node.
    fn asked(
        &self,
        good: &bgp_peer::Peer,
        own: &Facts,
        configuration: &Configuration,
        config: &Config,
    ) -> (Vec<Peer>, Vec<DynamicPeers>) {
        if !self.concerns(good, &self.node, own) {
            return Default::default();
        }
        let address = |family| own.address(family);
        match &good.remote {
            Remote::Address(..)
            | Remote::Interface(_)
            | Remote::LinkLocal { .. }
            | Remote::Range(..) => {
                match asked(good, configuration, address) {
                    // A peer does not peer with itself when its own node is selected.
                    Some(Asked::Peer(peer)) if own.has(peer.key.address()) => Default::default(),
                    Some(Asked::Peer(peer)) => (vec![peer], Vec::new()),
                    Some(Asked::Dynamic(range)) => (Vec::new(), vec![range]),
                    None => Default::default(),
                }
            }
            Remote::Nodes { selector, reverse } => {
                let asks = good.nodes.includes(&self.node, &own.labels);
                let asked = *reverse && selector.matches(&own.labels);
                let others = self.others().filter(|(name, other)| {
                    (asks && selector.matches(&other.labels))
                        || (asked && good.nodes.includes(name, &other.labels))
                });
                let peers = others.flat_map(|(name, other)| {
                    self.node_peers(good, own, (name, other), configuration, config)
                });
                (peers.collect(), Vec::new())
            }
            Remote::Workloads(selector) => {
                let asn = good.as_number.unwrap_or(0);
                let pods = self
                    .pods
                    .iter()
                    .filter(|(_, pod)| selector.matches(&pod.labels));
                let peers = pods.flat_map(|(name, pod)| {
                    pod.addresses.iter().map(move |at| {
                        let mut peer = peer_at(good, configuration, *at, asn, address);
                        peer.name = format!("{}/{name}", good.name);
                        peer
                    })
                });
                (peers.collect(), Vec::new())
            }
        }
    }

    /// Sessions with another node: one for each family both have.
    fn node_peers(
        &self,
        good: &bgp_peer::Peer,
        own: &Facts,
        (name, other): (&str, &Facts),
        configuration: &Configuration,
        config: &Config,
    ) -> Vec<Peer> {
        let families = Family::ALL.into_iter().filter(|family| {
            let wanted = good.families.as_ref().is_none_or(|f| f.contains(family));
            wanted && own.address(*family).is_some()
        });
        let made = families.filter_map(|family| {
            let asn = other_asn(own, other, configuration, config);
            let address = other.address(family)?;
            let mut peer = peer_at(good, configuration, address, asn, |f| own.address(f));
            peer.name = format!("{}/{name}", good.name);
            peer.port = configuration.listen_port;
            peer.families = vec![family];
            if good.local_address == LocalAddress::Route {
                // The other node expects it from there.
                peer.local_address = own.address(family);
            }
            Some(peer)
        });
        made.collect()
    }

    /// One session with every other node of the mesh and family that both have.
    fn mesh_peers(&self, own: &Facts, configuration: &Configuration, config: &Config) -> Vec<Peer> {
        let mut peers = Vec::new();
        if !self.in_mesh(configuration.mesh, &self.node, own) {
            return peers;
        }
        let at = configuration.mesh_password.as_ref();
        let key = at.map(|at| self.password(at, MESH));
        for (name, other) in self.others() {
            if !self.in_mesh(configuration.mesh, name, other) {
                continue;
            }
            for family in Family::ALL {
                let (Some(local), Some(remote)) = (own.address(family), other.address(family))
                else {
                    continue;
                };
                let mut peer = Peer::new(remote, other_asn(own, other, configuration, config));
                peer.name = format!("{MESH}{name}");
                peer.port = configuration.listen_port;
                peer.local_address = Some(local);
                peer.timers.keepalive = configuration
                    .keepalive
                    .map(|seconds| Millis::from(seconds) * 1000);
                secure(&mut peer, key.as_ref());
                if let Some(seconds) = configuration.mesh_restart_time {
                    peer.options.graceful_restart.restart_time = seconds;
                }
                peers.push(peer);
            }
        }
        peers
    }

    /// Whether a node is in the mesh: no route reflector, and by default none that has peers of its own.
    fn in_mesh(&self, mesh: Option<bool>, name: &str, facts: &Facts) -> bool {
        let wanted = mesh.unwrap_or_else(|| !self.has_peers(name, facts));
        wanted && facts.cluster_id.is_none()
    }

    /// Whether a BGPPeer gives that node a session with anybody but its pods. One that was never understood gives what it
    /// gave in the run before: a mistake in a new object ends no session of the mesh.
    fn has_peers(&self, name: &str, facts: &Facts) -> bool {
        self.peers.iter().any(|(object, kept)| match &kept.good {
            None => name == self.node && self.gave(object),
            Some(good) => {
                !matches!(good.remote, Remote::Workloads(_)) && self.concerns(good, name, facts)
            }
        })
    }

    /// Whether the run before had a peer by that object.
    fn gave(&self, object: &str) -> bool {
        self.before.as_ref().is_some_and(|before| {
            let ranges = before.dynamic.iter().map(|range| &range.template);
            let mut peers = before.peers.iter().chain(ranges);
            peers.any(|peer| is_of(peer, object))
        })
    }

    /// Whether a BGPPeer is about that node, on either side.
    pub(super) fn concerns(&self, good: &bgp_peer::Peer, name: &str, facts: &Facts) -> bool {
        let reverse = match &good.remote {
            Remote::Nodes { selector, reverse } => *reverse && selector.matches(&facts.labels),
            _ => false,
        };
        reverse || good.nodes.includes(name, &facts.labels)
    }

    /// Whether other nodes matter to this one.
    pub fn needs_nodes(&self) -> bool {
        let Some(own) = self.own() else {
            return false;
        };
        let mesh = self
            .configuration
            .as_ref()
            .map_or(Some(None), |kept| kept.good.as_ref().map(|good| good.mesh));
        mesh.is_some_and(|mesh| self.in_mesh(mesh, &self.node, own))
            || own.cluster_id.is_some()
            || self
                .remotes(own)
                .any(|it| matches!(it, Remote::Nodes { .. }))
    }

    /// Whether the pods on this node matter.
    pub fn needs_pods(&self) -> bool {
        self.own().is_some_and(|own| {
            self.remotes(own)
                .any(|it| matches!(it, Remote::Workloads(_)))
        })
    }

    /// Who the peers of this node are.
    fn remotes<'a>(&'a self, own: &'a Facts) -> impl Iterator<Item = &'a Remote> {
        let good = self.peers.values().filter_map(|kept| kept.good.as_ref());
        good.filter(|good| self.concerns(good, &self.node, own))
            .map(|good| &good.remote)
    }

    /// The Secrets that hold passwords of this node's sessions.
    pub fn secrets(&self) -> std::collections::BTreeSet<String> {
        let Some(own) = self.own() else {
            return Default::default();
        };
        let good = self.peers.values().filter_map(|kept| kept.good.as_ref());
        let peers = good
            .filter(|good| self.concerns(good, &self.node, own))
            .filter_map(|good| good.password.as_ref());
        let configuration = self.configuration.as_ref();
        let mesh = configuration.and_then(|kept| kept.good.as_ref()?.mesh_password.as_ref());
        peers.chain(mesh).map(|at| at.name.clone()).collect()
    }

    fn others(&self) -> impl Iterator<Item = (&str, &Facts)> {
        self.nodes
            .iter()
            .filter(|(name, _)| **name != self.node)
            .filter_map(|(name, kept)| Some((name.as_str(), kept.good.as_ref()?)))
    }

    /// The password as it is, or as it last was, in this run or in the one before.
    fn password(&self, at: &SecretKeyRef, name: &str) -> Option<Password> {
        let known = self
            .secrets
            .get(&at.name)
            .and_then(|secret| secret.good.get(&at.key));
        let before = || {
            let config = self.before.as_ref()?;
            let ranges = config.dynamic.iter().map(|range| &range.template);
            let mut peers = config.peers.iter().chain(ranges);
            peers
                .find(|peer| is_of(peer, name))
                .and_then(|peer| peer.options.password.as_ref())
        };
        known.or_else(before).cloned()
    }

    /// What is wrong with the Secret of a password; None: nothing, or it was not read yet.
    pub(super) fn secret_problem(&self, field: &str, at: &SecretKeyRef) -> Option<Problem> {
        let SecretKeyRef { name, key } = at;
        let secret = self.secrets.get(name)?;
        let what = match &secret.now {
            None => format!("Secret {name} does not exist in the namespace of the speakers"),
            Some(data) => match data.get(key).map(|value| password(value)) {
                Some(Ok(_)) => return None,
                Some(Err(what)) => format!("key {key} of Secret {name} {what}"),
                None => format!("Secret {name} has no key {key}"),
            },
        };
        Some(Problem {
            reason: "NoPassword",
            message: format!(
                "{field}: {what}: speakers that know the last password go on with it, others have no session"
            ),
        })
    }

    /// What is wrong with the filters a peer names; None: nothing.
    pub(super) fn filter_problem(&self, good: &bgp_peer::Peer) -> Option<Problem> {
        let filters = self.make_filters();
        let missing = good
            .filters
            .iter()
            .find(|name| !filters.contains_key(*name))?;
        let what = match self.filters.contains_key(missing) {
            true => "is not understood",
            false => "does not exist",
        };
        Some(Problem {
            reason: "NoFilter",
            message: format!(
                "spec.filters: BGPFilter {missing} {what}: until it is put right no route is taken from or told to this peer"
            ),
        })
    }

    /// The filters that can be used.
    pub(super) fn make_filters(&self) -> BTreeMap<String, Filter> {
        let before = self.before.as_ref().map(|before| &before.filters);
        self.filters
            .iter()
            .filter_map(|(name, kept): (&String, &Kept<Filter>)| {
                let last = || before.and_then(|before| before.get(name));
                let filter = kept.good.as_ref().or_else(last)?;
                Some((name.clone(), filter.clone()))
            })
            .collect()
    }

    /// Makes an internal peer of a route reflector its client, unless it is a reflector of the same clients.
    fn reflect(&self, peer: &mut Peer, own: &Facts, config: &Config) {
        let Some(own_id) = own.cluster_id else { return };
        if !peer.is_internal(config) {
            return;
        }
        let at = peer.key.address();
        let other = self.others().find(|(_, other)| other.has(at));
        let other_id: Option<Ipv4Addr> = other.and_then(|(_, other)| other.cluster_id);
        peer.export = if other_id == Some(own_id) {
            ExportClass::Transit
        } else {
            ExportClass::Reflect
        };
    }
}

/// The AS of another node.
fn other_asn(own: &Facts, other: &Facts, configuration: &Configuration, config: &Config) -> u32 {
    match other.asn {
        Some(other) => other,
        None if own.asn.is_none() => config.asn,
        None => configuration.as_number,
    }
}

/// Whether the object of that name asked for the peer.
fn is_of(peer: &Peer, name: &str) -> bool {
    let rest = peer.name.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || name == MESH)
}

/// Gives a peer the key that its object asks for, if any. One that is not known leaves it without a session.
fn secure(peer: &mut Peer, key: Option<&Option<Password>>) {
    peer.options.withheld = key.is_some_and(Option::is_none);
    peer.options.password = key.cloned().flatten();
}

struct Made {
    peers: BTreeMap<PeerKey, Peer>,
    dynamic: Vec<DynamicPeers>,
}

impl Made {
    fn add(&mut self, name: &str, peer: Peer, problems: &mut Vec<String>) {
        let known: Option<&Peer> = self.peers.get(&peer.key);
        match known {
            None => {
                self.peers.insert(peer.key.clone(), peer);
            }
            Some(first) => problems.push(format!(
                "BGPPeer {name}: {} is the address of BGPPeer {} too, which is used: remove one",
                peer.key, first.name
            )),
        }
    }

    fn like_before(&mut self, name: &str, before: Option<&Config>, problems: &mut Vec<String>) {
        let Some(before) = before else { return };
        for peer in before.peers.iter().filter(|peer| is_of(peer, name)) {
            self.add(name, peer.clone(), problems);
        }
        let ranges = before.dynamic.iter();
        let ranges = ranges.filter(|range| is_of(&range.template, name));
        self.dynamic.extend(ranges.cloned());
    }
}

impl Facts {
    /// Whether that is one of its addresses.
    fn has(&self, address: Option<IpAddr>) -> bool {
        address.is_some_and(|address| self.addresses.contains(&address))
    }
}
