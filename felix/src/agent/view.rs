//! What the status API shows.

use std::collections::VecDeque;

use api::v1;

use super::Agent;
use super::input::Kind;
use crate::Millis;
use crate::policy::model::{Enforcement, PolicyKey};
use crate::policy::tables::Direction;

/// The last durations of something, in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Samples(VecDeque<f64>);

/// How many are kept.
const KEPT: usize = 512;

impl Samples {
    /// Adds one.
    pub(super) fn add(&mut self, millis: f64) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(millis);
    }

    /// The duration that this share (0 to 1) of them did not exceed; 0 when there are none.
    #[must_use]
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let mut sorted: Vec<f64> = self.0.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let below = sorted
            .iter()
            .enumerate()
            .filter(|(i, _)| to_f64(*i) < share * to_f64(sorted.len()))
            .count();
        sorted
            .get(below.saturating_sub(1))
            .copied()
            .unwrap_or_default()
    }
}

fn to_f64(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::MAX, f64::from)
}

impl Agent {
    /// felix as a whole.
    #[must_use]
    pub fn status(&self, now: Millis) -> v1::Status {
        v1::Status {
            node: self.node_name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.saturating_sub(self.started) / 1000,
            synced: self.synced() && self.tables_known && self.retry.is_none(),
            api_connected: self.lost.is_empty() && !self.in_sync.is_empty(),
            bgpd_connected: self.bgp.connected(),
            endpoints: count(self.endpoints.len()),
            blocks: count(self.ipam.blocks().count()),
            policies: count(
                self.engine
                    .policies()
                    .filter(|policy| policy.endpoints > 0)
                    .count(),
            ),
            workload_routes: count(self.wants.workloads.len() + self.wants.blocks.len()),
            bgp_routes: count(self.wants.bgp.len()),
            nft_elements: count(self.engine.tables().entries() - self.engine.tables().links.len()),
            problems: self.problems(),
            add_p50_ms: self.adds.quantile(0.5),
            add_p99_ms: self.adds.quantile(0.99),
            policy_p50_ms: self.policies.quantile(0.5),
            policy_p99_ms: self.policies.quantile(0.99),
            policy_events_left_out: self.events.left_out(),
        }
    }

    fn problems(&self) -> Vec<String> {
        let api = self
            .lost
            .iter()
            .map(|(kind, error)| format!("the watch of {kind:?} fails: {error}"));
        let missing = Kind::ALL.iter().filter(|kind| !self.in_sync.contains(kind));
        let missing = missing.map(|kind| format!("no list of {kind:?} has been complete yet"));
        let kernel = self
            .kernel_problem
            .iter()
            .map(|e| format!("the kernel is not in step: {e}"));
        let routes = self.routes_refused.iter().map(|route| {
            format!("the route {route} is another program's and stays; ours is not made")
        });
        let refused = self
            .routed
            .problem
            .iter()
            .map(|e| format!("the kernel refuses routes: {e}"));
        let settings = self.settings_refused.iter().cloned();
        let log = self
            .log_problem
            .iter()
            .map(|(e, _)| format!("the attachment log cannot be written: {e}"));
        let events = self.events_problem.iter().cloned();
        let bgp = self.bgp.problem().map(str::to_owned);
        let bgpd = (!self.bgp.connected())
            .then(|| "bgpd is not connected: is margay-bgpd running?".to_owned());
        let pools = self
            .pool_errors
            .iter()
            .map(|(name, e)| format!("IPPool {name} is not understood: {e}"));
        let policies = self.engine.policies().filter(|p| p.error.is_some());
        let policies = policies.map(|p| format!("{} {} is not understood", p.key.kind, p.key));
        api.chain(missing)
            .chain(kernel)
            .chain(refused)
            .chain(routes)
            .chain(settings)
            .chain(log)
            .chain(events)
            .chain(bgp)
            .chain(bgpd)
            .chain(pools)
            .chain(policies)
            .collect()
    }

    /// The node's blocks.
    #[must_use]
    pub fn list_blocks(&self) -> v1::ListBlocksResponse {
        v1::ListBlocksResponse {
            blocks: self.ipam.blocks().map(super::addresses::view).collect(),
        }
    }

    /// The local endpoints.
    #[must_use]
    pub fn list_endpoints(&self) -> v1::ListEndpointsResponse {
        let endpoints = self.endpoints.iter().map(|(name, endpoint)| {
            let policies = self.engine.endpoint_policies(name);
            let names = |keys: &[PolicyKey]| keys.iter().map(ToString::to_string).collect();
            v1::Endpoint {
                pod: endpoint.pod_name(),
                pod_uid: endpoint.pod.uid.clone(),
                container_id: endpoint.key.container_id.clone(),
                interface: name.clone(),
                addresses: endpoint.addresses.iter().map(ToString::to_string).collect(),
                state: endpoint.state_name().to_owned(),
                ingress_policies: policies
                    .as_ref()
                    .map(|p| names(&p.ingress))
                    .unwrap_or_default(),
                egress_policies: policies
                    .as_ref()
                    .map(|p| names(&p.egress))
                    .unwrap_or_default(),
            }
        });
        v1::ListEndpointsResponse {
            endpoints: endpoints.collect(),
        }
    }

    /// The policies this node has to do with.
    #[must_use]
    pub fn list_policies(&self) -> v1::ListPoliciesResponse {
        let policies = self.engine.policies().map(|policy| v1::Policy {
            name: policy.key.to_string(),
            kind: policy.key.kind.to_string(),
            tier: policy.tier.clone(),
            order: policy.order.0,
            tier_order: policy.tier_order.map(|it| it.0).unwrap_or_default(),
            audit: policy.enforcement == Enforcement::Audit,
            newest_generation: policy.generation,
            rules: count(policy.rules),
            ingress: policy.directions.contains(&Direction::Ingress),
            egress: policy.directions.contains(&Direction::Egress),
            endpoints: count(policy.endpoints),
            generation: self.acks.generation(&policy.key).unwrap_or_default(),
            error: policy
                .error
                .map(|error| error.to_string())
                .or_else(|| self.acks.problem(&policy.key).map(str::to_owned))
                .unwrap_or_default(),
        });
        v1::ListPoliciesResponse {
            policies: policies.collect(),
        }
    }
}

pub(super) fn millis(millis: Millis) -> f64 {
    u32::try_from(millis).map_or(f64::MAX, f64::from)
}

pub(super) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let mut samples = Samples::default();
        assert_eq!(samples.quantile(0.5), 0.0);
        for millis in 1..=100 {
            samples.add(f64::from(millis));
        }
        assert_eq!(samples.quantile(0.5), 50.0);
        assert_eq!(samples.quantile(0.99), 99.0);
        assert_eq!(samples.quantile(1.0), 100.0);
    }
}
