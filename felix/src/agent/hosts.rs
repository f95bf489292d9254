//! What operators choose of how felix works, and the node's own interfaces under policy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crds::felix_configuration::{self, Configuration, FelixConfigurationSpec};
use crds::host_endpoint::{Endpoint, Interface};

use super::Agent;
use crate::feed::{HostEndpoint, HostInterface, NodeAddresses};
use crate::nft::epoch::Options;
use crate::nft::terms::Rules;
use crate::policy::tables::Direction;
use crate::translate;

/// What was told of it.
#[derive(Debug, Default)]
pub(super) struct Hosts {
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

    /// What holds on a node.
    fn configuration(&self, node: &str) -> Configuration {
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
        match said {
            Some(said) => self.hosts.configurations.insert(name, said),
            None => self.hosts.configurations.remove(&name),
        };
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
        let nodes: Vec<String> = self.hosts.nodes.keys().cloned().collect();
        for node in nodes {
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
        match node {
            Some(node) => self.hosts.nodes.insert(name.to_owned(), node),
            None => self.hosts.nodes.remove(name),
        };
        self.automatic_endpoint(name);
    }

    /// Makes a node a host endpoint of all its interfaces by itself, or not. Every felix does so for every node: what has
    /// labels is a peer everywhere.
    fn automatic_endpoint(&mut self, node: &str) {
        let hosts = &mut self.hosts;
        let enabled = hosts.configuration(node).auto_host_endpoints;
        match hosts.nodes.get(node).filter(|_| enabled) {
            Some(said) => {
                hosts.automatic.insert(node.to_owned());
                hosts.here |= node == self.node_name;
                self.engine.apply_host_endpoint(HostEndpoint {
                    name: automatic_name(node),
                    labels: said.labels.clone(),
                    local: node == self.node_name,
                    automatic: true,
                    interface: HostInterface::All,
                    addresses: said.addresses.clone(),
                    named_ports: Vec::new(),
                });
            }
            None => {
                if hosts.automatic.remove(node) {
                    self.engine.delete_host_endpoint(&automatic_name(node));
                }
            }
        }
    }

    /// A HostEndpoint came or changed.
    pub(super) fn host_endpoint(&mut self, said: Endpoint) {
        self.tell_host_endpoint(&said);
        self.hosts.said.insert(said.name.clone(), said);
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
        let holding = self.hosts.holding(&said.addresses);
        let local = said.node == self.node_name;
        self.hosts.here |= local;
        self.engine
            .apply_host_endpoint(translate::host_endpoint(said, local, holding));
    }
}
