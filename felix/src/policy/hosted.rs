//! What policies say of one flow, or packet, of a host endpoint: what the rows of `hosts.rs` tabulate for all.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::engine::Engine;
use super::evaluate::{Tiered, Traffic, VerdictTrace, explain};
use super::explain::{Asked, Explanation};
use super::hosts::by_interface;
use super::model::{Action, PolicyKey, Stage, Tier};
use super::selecting::Labelled;
use super::tables::{HostHook, Verdict};
use crate::feed::HostEndpoint;

impl Engine {
    /// The host endpoint that an interface of this node belongs to.
    #[must_use]
    pub fn host_of(&self, interface: &str) -> Option<&HostEndpoint> {
        let of_this_node = by_interface(self.others.local_hosts());
        let own = of_this_node.get(&Some(interface.to_owned()));
        own.or_else(|| of_this_node.get(&None)).copied()
    }

    /// A host endpoint of any node by its name, or by an address of it: one that somebody made comes first.
    #[must_use]
    pub fn host_named(&self, name: &str) -> Option<&HostEndpoint> {
        let address: Option<IpAddr> = name.parse().ok();
        let is = |host: &&HostEndpoint| {
            host.name == name || address.is_some_and(|it| host.addresses.contains(&it))
        };
        let found = self.others.hosts().filter(is);
        found.min_by_key(|host| (host.automatic, &host.name))
    }

    /// Some policy is asked about what only passes through a node, or before others are.
    #[must_use]
    pub fn asks_on_the_way(&self) -> bool {
        let mut policies = self.policies.values();
        policies.any(|installed| installed.policy.stage != Stage::Normal)
    }

    /// Judges a flow, or before connections are tracked a packet, at a hook of a host endpoint. `own` is the address at the
    /// end of the node, or of whom it forwards for.
    #[must_use]
    pub fn judge_host(
        &self,
        hook: HostHook,
        host: &HostEndpoint,
        own: IpAddr,
        peer: IpAddr,
        traffic: Traffic,
    ) -> (Verdict, VerdictTrace) {
        let direction = hook.direction();
        let policies = self.asked_of(hook, host);
        let stages = self.stages(&policies, direction);
        let tiers = tiers_at(hook, &stages);
        let stages = with_tiers(&tiers, stages);
        let known = self.known_of_host(direction, host, own, peer);
        explain(direction, &stages, hook.otherwise(), &known, traffic)
    }

    /// Judges likewise, and tells every rule's part in it.
    #[must_use]
    pub fn explain_host(&self, hook: HostHook, host: &HostEndpoint, flow: &Asked) -> Explanation {
        let traffic = Traffic {
            protocol: flow.protocol,
            source_port: flow.source_port,
            port: flow.port,
        };
        let judged = self.judge_host(hook, host, flow.own, flow.peer, traffic);
        let direction = hook.direction();
        let policies = self.asked_of(hook, host);
        let stages = self.stages(&policies, direction);
        let tiers = tiers_at(hook, &stages);
        let stages = with_tiers(&tiers, stages);
        let known = self.known_of_host(direction, host, flow.own, flow.peer);
        self.explained(direction, stages, &known, judged, flow)
    }

    /// The policies that are asked there.
    pub(super) fn asked_of(&self, hook: HostHook, host: &HostEndpoint) -> BTreeSet<PolicyKey> {
        let asked = self.policies.iter().filter(|(_, installed)| {
            let policy = &installed.policy;
            hook.asks(policy.stage)
                && installed.rules(hook.direction()).is_some()
                && policy
                    .subject
                    .selects(Labelled::Host(host), &self.index.inherited)
        });
        asked.map(|(key, _)| key.clone()).collect()
    }
}

/// The tiers of these stages with what they do by default at a hook.
pub(super) fn tiers_at(hook: HostHook, stages: &[Tiered<'_>]) -> Vec<Tier> {
    let tiers = stages.iter().map(|stage| Tier {
        default_action: if hook.passes() {
            Action::Pass
        } else {
            stage.tier.default_action
        },
        ..stage.tier.clone()
    });
    tiers.collect()
}

/// The same stages with these tiers.
pub(super) fn with_tiers<'a>(tiers: &'a [Tier], stages: Vec<Tiered<'a>>) -> Vec<Tiered<'a>> {
    let stages = tiers.iter().zip(stages).map(|(tier, stage)| Tiered {
        tier,
        policies: stage.policies,
    });
    stages.collect()
}
