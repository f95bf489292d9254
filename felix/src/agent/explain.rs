//! What the agent says about policies when asked.

use std::net::IpAddr;

use api::v1;

use super::Agent;
use crate::explain::table::Picture;
use crate::explain::{Unanswered, View};
use crate::feed::Identity;
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
        Cluster::of(self.engine.fork(), self.services.clone(), &self.node_name)
    }

    /// Why a flow is allowed or denied.
    ///
    /// # Errors
    /// When an end of it is not known.
    pub fn explain_policy(
        &self,
        request: &v1::ExplainPolicyRequest,
    ) -> Result<v1::ExplainPolicyResponse, Unanswered> {
        let own_node = |address: IpAddr, pod: &Identity| {
            self.engine.is_here(&pod.uid)
                && (self.node.addresses.contains(&address) || self.loopbacks.contains(&address))
        };
        let view = View {
            engine: &self.engine,
            node: &self.node_name,
            own_node: &own_node,
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
