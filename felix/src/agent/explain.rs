//! What the agent says about policies when asked.

use std::net::IpAddr;

use api::v1;
use crds::felix_configuration::Configuration;

use super::Agent;
use crate::explain::table::Picture;
use crate::explain::{Nodes, Unanswered, View};
use crate::feed::{HostEndpoint, Identity};
use crate::nft::epoch::{Epoch, Options};
use crate::offline::Cluster;

impl Agent {
    /// The table as it should be, with what the kernel has of options and epoch.
    #[must_use]
    pub fn picture(&self, (options, epoch): (Options, Epoch)) -> Picture {
        let pods = self.endpoints.iter();
        Picture {
            options,
            epoch,
            tables: self.engine.tables().clone(),
            terms: self.terms.wanted().elements.clone(),
            pods: pods
                .map(|(interface, endpoint)| (interface.clone(), endpoint.pod_name()))
                .collect(),
        }
    }

    /// All that is known of policies, for questions that take long.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        let hosts = self.hosts.clone();
        Cluster::of(
            self.engine.fork(),
            self.services.clone(),
            hosts,
            &self.node_name,
        )
    }

    /// Why a flow is allowed or denied. `route` tells the interface by which packets for an address leave the node.
    ///
    /// # Errors
    /// When an end of it is not known.
    pub fn explain_policy(
        &self,
        request: &v1::ExplainPolicyRequest,
        route: &dyn Fn(IpAddr) -> Option<String>,
    ) -> Result<v1::ExplainPolicyResponse, Unanswered> {
        let nodes = Around { agent: self, route };
        let view = View {
            engine: &self.engine,
            node: &self.node_name,
            nodes: &nodes,
        };
        let mut answer = view.explain(request)?;
        if !self.synced() {
            answer
                .notes
                .push("felix has not heard of every object yet: the answer may change".to_owned());
        }
        if let Some(problem) = &self.kernel_problem {
            answer.notes.push(format!(
                "the kernel is not in step, so it may decide otherwise: {problem}"
            ));
        }
        let unprogrammed = self.endpoints.iter().filter(|(name, endpoint)| {
            let programmed = self.engine.endpoint_policies(name);
            let asked = [&request.from, &request.to].contains(&&endpoint.pod_name());
            asked && programmed.is_none_or(|it| it.subject.is_none())
        });
        answer.notes.extend(unprogrammed.map(|(_, endpoint)| {
            format!(
                "{} is not programmed: it has no network until it is",
                endpoint.pod_name()
            )
        }));
        Ok(answer)
    }
}

/// The nodes, as this one knows them.
struct Around<'a> {
    agent: &'a Agent,
    route: &'a dyn Fn(IpAddr) -> Option<String>,
}

impl Nodes for Around<'_> {
    fn of_pod(&self, pod: &Identity) -> Option<String> {
        let here = self.agent.engine.is_here(&pod.uid);
        here.then(|| self.agent.node_name.clone())
    }

    fn at(&self, address: IpAddr) -> Option<String> {
        let agent = self.agent;
        match agent.node.addresses.contains(&address) || agent.loopbacks.contains(&address) {
            true => Some(agent.node_name.clone()),
            false => agent.hosts.node_at(address).map(str::to_owned),
        }
    }

    fn hosts(&self, node: &str) -> Vec<HostEndpoint> {
        self.agent.hosts.of_node(node, &self.agent.node_name)
    }

    fn configuration(&self, node: &str) -> Configuration {
        self.agent.hosts.configuration(node)
    }

    fn interface(&self, node: &str, towards: IpAddr) -> Option<String> {
        let here = node == self.agent.node_name;
        here.then(|| (self.route)(towards)).flatten()
    }
}
