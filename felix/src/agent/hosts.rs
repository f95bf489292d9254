//! What operators choose of how felix works, and the node's own interfaces under policy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crds::felix_configuration::{self, Configuration, FelixConfigurationSpec};
use crds::host_endpoint::{Endpoint, Interface};

use super::Agent;
use crate::feed::{HostEndpoint, HostInterface, NodeAddresses};
use crate::nft::epoch::Options;
use crate::nft::terms::Rules;
use crate::policy::Engine;
use crate::policy::tables::Direction;
use crate::translate;

/// What was told of it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Hosts {
    /// FelixConfigurations by name.
    configurations: BTreeMap<String, FelixConfigurationSpec>,
    /// HostEndpoints by name.
    said: BTreeMap<String, Endpoint>,
    nodes: BTreeMap<String, NodeAddresses>,
    /// Names of nodes that are host endpoints by themselves.
    automatic: BTreeSet<String>,
    /// Addresses of this node by interface, without those of pods and loopbacks.
    interfaces: BTreeMap<String, BTreeSet<IpAddr>>,
    /// This node had a host endpoint once: the rules stay for this life, so that they do not come and go with objects.
    here: bool,
}

impl Hosts {
    /// That knows the node's addresses by interface.
    pub(super) fn new(interfaces: BTreeMap<String, BTreeSet<IpAddr>>) -> Self {
        Self {
            interfaces,
            ..Self::default()
        }
    }

    /// A FelixConfiguration came, changed (`Some`), or went.
    pub(crate) fn chosen(&mut self, name: String, said: Option<FelixConfigurationSpec>) {
        match said {
            Some(said) => self.configurations.insert(name, said),
            None => self.configurations.remove(&name),
        };
    }

    /// A Node came, changed (`Some`), or went.
    pub(crate) fn node(&mut self, name: &str, node: Option<NodeAddresses>) {
        match node {
            Some(node) => self.nodes.insert(name.to_owned(), node),
            None => self.nodes.remove(name),
        };
    }

    /// A HostEndpoint came or changed.
    pub(crate) fn endpoint(&mut self, said: Endpoint) {
        self.said.insert(said.name.clone(), said);
    }

    /// Names of all nodes.
    pub(crate) fn nodes(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    /// The node that has an address, by its own word or that of its host endpoints.
    pub(crate) fn node_at(&self, address: IpAddr) -> Option<&str> {
        let mut nodes = self.nodes.iter();
        let node = nodes.find(|(_, node)| node.addresses.contains(&address));
        let mut said = self.said.values();
        let said = said.find(|said| said.addresses.contains(&address));
        node.map(|(name, _)| name.as_str())
            .or_else(|| said.map(|said| said.node.as_str()))
    }

    /// The host endpoints of a node, as the node `here` knows them.
    pub(crate) fn of_node(&self, node: &str, here: &str) -> Vec<HostEndpoint> {
        let said = self.said.values().filter(|said| said.node == node);
        let said = said.map(|said| self.made(said, here));
        said.chain(self.automatic_of(node, here)).collect()
    }

    /// A HostEndpoint, as the node `here` knows it.
    pub(crate) fn made(&self, said: &Endpoint, here: &str) -> HostEndpoint {
        let local = said.node == here;
        let holding = match local {
            true => self.holding(&said.addresses),
            false => BTreeSet::new(),
        };
        translate::host_endpoint(said, local, holding)
    }

    /// The host endpoint that a node is by itself.
    fn automatic_of(&self, node: &str, here: &str) -> Option<HostEndpoint> {
        let said = self.nodes.get(node)?;
        let enabled = self.configuration(node).auto_host_endpoints;
        enabled.then(|| HostEndpoint {
            name: automatic_name(node),
            labels: said.labels.clone(),
            local: node == here,
            automatic: true,
            interface: HostInterface::All,
            addresses: said.addresses.clone(),
            named_ports: Vec::new(),
        })
    }

    /// Makes a node a host endpoint of all its interfaces by itself, or not; says whether it is one now. Every felix does so for every node: what has
    /// labels is a peer everywhere.
    pub(crate) fn settle(&mut self, node: &str, here: &str, engine: &mut Engine) -> bool {
        let host = self.automatic_of(node, here);
        let is = host.is_some();
        match host {
            Some(host) => {
                self.automatic.insert(node.to_owned());
                engine.apply_host_endpoint(host);
            }
            None => {
                if self.automatic.remove(node) {
                    engine.delete_host_endpoint(&automatic_name(node));
                }
            }
        }
        is
    }

    /// What holds on a node.
    pub(crate) fn configuration(&self, node: &str) -> Configuration {
        let default = self.configurations.get(felix_configuration::DEFAULT);
        let own = self.configurations.get(&felix_configuration::of_node(node));
        let base = default.cloned().unwrap_or_default();
        let said = match own {
            Some(own) => own.clone().over(&base),
            None => base,
        };
        // Each was understood by itself, and no field depends on another.
        Configuration::try_from(&said).unwrap_or_default()
    }

    /// Names of this node's interfaces that hold one of these addresses.
    fn holding(&self, addresses: &[IpAddr]) -> BTreeSet<String> {
        let holds = |own: &BTreeSet<IpAddr>| addresses.iter().any(|it| own.contains(it));
        let found = self.interfaces.iter().filter(|(_, own)| holds(own));
        found.map(|(name, _)| name.clone()).collect()
    }
}

/// Name of the host endpoint that a node is by itself. No object can have it.
fn automatic_name(node: &str) -> String {
    format!("node:{node}")
}

impl Agent {
    /// A FelixConfiguration came, changed (`Some`), or went.
    pub(super) fn felix_configuration(
        &mut self,
        name: String,
        said: Option<FelixConfigurationSpec>,
    ) {
        self.hosts.chosen(name, said);
        self.configure();
    }

    /// Puts in force what holds on this node.
    pub(super) fn configure(&mut self) {
        let said = self.hosts.configuration(&self.node_name);
        self.terms.choose(said.terms.clone());
        self.events.choose(said.events);
        self.ruleset(translate::ruleset(&said));
        for (direction, ports) in [
            (Direction::Ingress, &said.failsafe_inbound),
            (Direction::Egress, &said.failsafe_outbound),
        ] {
            let ports: Vec<_> = ports.iter().map(translate::failsafe).collect();
            self.engine.set_failsafes(direction, &ports);
        }
        for node in self.hosts.nodes() {
            self.automatic_endpoint(&node);
        }
    }

    /// Which rules there are beside policy is worked out here, and not chosen.
    pub(super) fn ruleset(&mut self, options: Options) {
        let terms = Rules {
            hosts: self.hosts.here,
            ..self.terms.wanted().rules
        };
        let options = Options { terms, ..options };
        if self.options != options {
            self.options = options;
            self.tables_known = false;
        }
    }

    /// A Node came, changed (`Some`), or went.
    pub(super) fn host_node(&mut self, name: &str, node: Option<NodeAddresses>) {
        self.hosts.node(name, node);
        self.automatic_endpoint(name);
    }

    fn automatic_endpoint(&mut self, node: &str) {
        let here = self.hosts.settle(node, &self.node_name, &mut self.engine);
        self.hosts.here |= here && node == self.node_name;
    }

    /// A HostEndpoint came or changed.
    pub(super) fn host_endpoint(&mut self, said: Endpoint) {
        self.tell_host_endpoint(&said);
        self.hosts.endpoint(said);
    }

    /// A HostEndpoint is gone.
    pub(super) fn host_endpoint_gone(&mut self, name: &str) {
        self.hosts.said.remove(name);
        self.engine.delete_host_endpoint(name);
    }

    /// This node's addresses by interface are these now.
    pub(super) fn interfaces(&mut self, interfaces: BTreeMap<String, BTreeSet<IpAddr>>) {
        if self.hosts.interfaces == interfaces {
            return;
        }
        self.hosts.interfaces = interfaces;
        let all = self.hosts.said.values();
        let addressed = all
            .filter(|said| said.interface == Interface::Addressed && said.node == self.node_name);
        let said: Vec<Endpoint> = addressed.cloned().collect();
        for said in &said {
            self.tell_host_endpoint(said);
            self.engine_dirty = true;
        }
    }

    fn tell_host_endpoint(&mut self, said: &Endpoint) {
        let made = self.hosts.made(said, &self.node_name);
        self.hosts.here |= made.local;
        self.engine.apply_host_endpoint(made);
    }
}
