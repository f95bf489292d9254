//! What the engine answers: which policies are in force where, and why a flow is judged as it is.

use std::net::IpAddr;

use super::engine::{Engine, Installed};
use super::evaluate::{Peer, VerdictTrace, explain};
use super::index::Resident;
use super::intervals::{Span, span};
use super::k8s::PolicyError;
use super::lists::ListId;
use super::model::{Peer as PeerEntry, PolicyKey};
use super::selecting::Labelled;
use super::tables::{Direction, Subject, Verdict};

/// A policy object and what has become of it on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyStatus {
    /// The object.
    pub key: PolicyKey,
    /// Newest generation that was seen.
    pub generation: i64,
    /// Generation in force as of the last compile; `None` while no version of the object was ever understood, in which
    /// case what it selects is closed.
    pub in_force: Option<i64>,
    /// Name of its tier; empty when nothing of the object could be read.
    pub tier: String,
    /// Directions it governs, in order.
    pub directions: Vec<Direction>,
    /// Endpoints on this node that it selects.
    pub endpoints: usize,
    /// Why the newest generation is not in force.
    pub error: Option<PolicyError>,
}

/// What governs one endpoint of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPolicies {
    /// Device group of the link; `None` while the pod is not known, so that everything is denied.
    pub subject: Option<Subject>,
    /// Policies for the flows it opens, in the order of evaluation.
    pub egress: Vec<PolicyKey>,
    /// Policies for the flows opened to it, in the order of evaluation.
    pub ingress: Vec<PolicyKey>,
}

impl Engine {
    /// Every policy object, in the order of keys.
    pub fn policies(&self) -> impl Iterator<Item = PolicyStatus> {
        let unread = self
            .refused
            .iter()
            .filter(|(key, _)| !self.policies.contains_key(*key));
        let unread = unread.map(|(key, refused)| PolicyStatus {
            key: key.clone(),
            generation: refused.generation,
            in_force: None,
            tier: String::new(),
            directions: Vec::new(),
            endpoints: 0,
            error: Some(refused.error.clone()),
        });
        let mut all: Vec<_> = self
            .policies
            .iter()
            .map(|(key, installed)| self.status(key, installed))
            .chain(unread)
            .collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all.into_iter()
    }

    fn status(&self, key: &PolicyKey, installed: &Installed) -> PolicyStatus {
        let refused = self.refused.get(key);
        let own = installed.policy.generation;
        let governed = |direction: &Direction| installed.rules(*direction).is_some();
        PolicyStatus {
            key: key.clone(),
            generation: refused.map_or(own, |refused| refused.generation),
            in_force: (!installed.closed).then_some(own),
            tier: installed.policy.tier.clone(),
            directions: Direction::BOTH.into_iter().filter(governed).collect(),
            endpoints: installed.selected.len(),
            error: refused.map(|refused| refused.error.clone()),
        }
    }

    /// What governs an endpoint as of the last compile; `None` if there is no such endpoint.
    #[must_use]
    pub fn endpoint_policies(&self, ifname: &str) -> Option<EndpointPolicies> {
        self.index.endpoint(ifname)?;
        let programmed = self.endpoints.get(ifname);
        let keys = |direction| {
            let policies = programmed
                .into_iter()
                .flat_map(|programmed| &programmed.policies);
            let stages = self.stages(policies, direction);
            stages
                .into_iter()
                .flat_map(|stage| stage.policies)
                .map(|(key, _)| key.clone())
                .collect()
        };
        Some(EndpointPolicies {
            subject: programmed.and_then(|programmed| programmed.subject),
            egress: keys(Direction::Egress),
            ingress: keys(Direction::Ingress),
        })
    }

    /// Judges a flow of any pod that is known, with what was told so far. `peer` is the other side's address; for ICMP,
    /// `port` is `type << 8 | code`. `None` when nothing is known of the pod.
    #[must_use]
    pub fn judge(
        &self,
        direction: Direction,
        subject: &str,
        peer: IpAddr,
        protocol: u8,
        port: u16,
    ) -> Option<(Verdict, VerdictTrace)> {
        let pod = self.index.resident(subject)?;
        let policies = self.policies.iter().filter(|(_, installed)| {
            installed
                .policy
                .subject
                .selects(Labelled::Pod(&pod.identity), &self.index.inherited)
        });
        let stages = self.stages(policies.map(|(key, _)| key), direction);
        let owner = self.index.owner(peer).map(|(_, pod)| pod);
        let destination = if direction == Direction::Ingress {
            Some(pod)
        } else {
            owner
        };
        let known = Known {
            engine: self,
            address: peer,
            owner,
            destination,
        };
        Some(explain(direction, &stages, &known, protocol, port))
    }
}

/// A peer as the objects describe it.
pub(super) struct Known<'a> {
    pub(super) engine: &'a Engine,
    pub(super) address: IpAddr,
    pub(super) owner: Option<&'a Resident>,
    pub(super) destination: Option<&'a Resident>,
}

impl Peer for Known<'_> {
    fn listed(&self, list: ListId) -> bool {
        let Some(list) = self.engine.lists.list(list) else {
            return false;
        };
        let inherited = &self.engine.index.inherited;
        let contains = |(first, last): Span| (first..=last).contains(&self.address);
        self.owner
            .is_some_and(|pod| list.selects(Labelled::Pod(&pod.identity), inherited))
            || list.iter().any(|peer| match peer {
                PeerEntry::Pods(_)
                | PeerEntry::Endpoints(_)
                | PeerEntry::Nodes(_)
                | PeerEntry::Service { .. } => false,
                PeerEntry::Net { cidr, except } => {
                    contains(span(*cidr)) && !except.iter().any(|part| contains(span(*part)))
                }
            })
    }

    fn named(&self, name: &str, protocol: u8, port: u16) -> bool {
        let ports = self
            .destination
            .into_iter()
            .flat_map(|pod| &pod.identity.named_ports);
        ports
            .into_iter()
            .any(|it| it.port == port && it.protocol == protocol && it.name == name)
    }
}
