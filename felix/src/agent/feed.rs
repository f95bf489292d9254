//! Changes of the cluster.

use std::sync::Arc;

use super::input::{Kind, Pod, Update};
use super::services::Changed;
use super::{Agent, Output};
use crate::Millis;
use crate::terms::annotations::{self, FLOATING};
use crate::terms::{Asking, Claim};

impl Agent {
    pub(super) fn feed(&mut self, update: Update, now: Millis) {
        match update {
            Update::Namespace(name, labels) => self.engine.apply_namespace(&name, labels),
            Update::NamespaceGone(name) => self.engine.delete_namespace(&name),
            Update::Pod(pod) => self.pod(pod),
            Update::PodGone(uid) => {
                self.pods.remove(uid.as_str());
                self.local_pods.remove(uid.as_str());
                self.terms.pod(&uid, None);
                self.terms.claim(&uid, None);
                self.engine.delete_identity(&uid);
            }
            Update::Policy(policy) => self.engine.apply_policy(*policy),
            Update::PolicyRefused(key, generation, error) => {
                tracing::warn!(policy = %key, %error, "a policy is not understood; its last good version stays, or what it selects is closed");
                self.engine.refuse_policy(key, generation, error);
            }
            Update::PolicyFlawed(policy, error) => {
                tracing::warn!(policy = %policy.key, %error, "a part of a policy is not understood; it is closed");
                let (key, generation) = (policy.key.clone(), policy.generation);
                self.engine.apply_policy(*policy);
                self.engine.refuse_policy(key, generation, error);
            }
            Update::PolicyGone(key) => self.engine.delete_policy(&key),
            Update::Tier(tier) => self.engine.apply_tier(tier),
            Update::TierGone(name) => self.engine.delete_tier(&name),
            Update::NetworkSet(set) => self.engine.apply_network_set(set),
            Update::NetworkSetGone(namespace, name) => {
                self.engine.delete_network_set(namespace.as_deref(), &name);
            }
            Update::HostEndpoint(endpoint) => self.host_endpoint(endpoint),
            Update::HostEndpointGone(name) => self.host_endpoint_gone(&name),
            Update::ServiceAccount(account) => self.engine.apply_service_account(account),
            Update::ServiceAccountGone(namespace, name) => {
                self.engine.delete_service_account(&namespace, &name);
            }
            Update::Slice(slice) => {
                for changed in self.services.came(slice) {
                    self.service(changed);
                }
            }
            Update::SliceGone(namespace, name) => {
                if let Some(changed) = self.services.went(namespace, name) {
                    self.service(changed);
                }
            }
            Update::NodeAddresses(node) => {
                self.terms.node(&node.name, Some(&node.addresses));
                self.host_node(&node.name.clone(), Some(node.clone()));
                self.engine.apply_node(node);
            }
            Update::NodeGone(name) => {
                self.host_node(&name, None);
                self.terms.node(&name, None);
                self.engine.delete_node(&name);
            }
            Update::Node(node) => return self.node(node, now),
            Update::Pool(name, pool, refused) => return self.pool(name, pool, refused, now),
            Update::PoolGone(name) => return self.pool_gone(&name, now),
            Update::Block(block) => return self.block(&block, now),
            Update::BlockGone(name) => return self.block_gone(&name, now),
            Update::BlockUnlisted(name) => return self.block_unlisted(&name),
            Update::Configuration(configuration) => return self.configuration(configuration, now),
            Update::FelixConfiguration(name, said) => {
                self.felix_configuration(name, said.map(|it| *it));
            }
            Update::InSync(kind) => return self.kind_in_sync(kind, now),
            Update::Lost(kind, error) => {
                tracing::debug!(?kind, error, "a watch failed; what it told stays in force");
                self.lost.insert(kind, error);
                return;
            }
            Update::Resumed(kind) => {
                self.lost.remove(&kind);
                return;
            }
        }
        self.policy_changed(now);
    }

    fn service(&mut self, changed: Changed) {
        match changed {
            Changed::Has(service) => self.engine.apply_service(service),
            Changed::Gone(namespace, name) => self.engine.delete_service(&namespace, &name),
        }
    }

    fn policy_changed(&mut self, now: Millis) {
        self.engine_dirty = true;
        if self.synced() {
            self.policy_since.get_or_insert(now);
        }
    }

    pub(super) fn pod(&mut self, pod: Pod) {
        let uid = Arc::clone(&pod.identity.uid);
        let here = pod.node == self.node_name && !pod.finished && !pod.identity.host_network;
        let asks = pod.annotations.contains_key(FLOATING);
        let runs = !pod.node.is_empty() && !pod.finished && !pod.identity.host_network;
        let claim = (asks && runs).then(|| Claim {
            created: pod.identity.created,
            pod: format!("{}/{}", pod.identity.namespace, pod.identity.name),
            addresses: annotations::parse(&pod.annotations).0.floating,
        });
        self.terms.claim(&uid, claim);
        let asking = here.then(|| Asking {
            namespace: pod.identity.namespace.to_string(),
            name: pod.identity.name.to_string(),
            annotations: pod.annotations,
        });
        self.terms.pod(&uid, asking);
        if here {
            self.local_pods
                .insert(Arc::clone(&uid), Arc::clone(&pod.identity.addresses));
        } else {
            self.local_pods.remove(&uid);
        }
        if pod.finished {
            self.pods.remove(&uid);
            self.engine.delete_identity(&uid);
        } else {
            self.pods.insert(uid);
            self.engine.apply_identity(pod.identity);
        }
        self.engine_dirty = true;
    }

    fn kind_in_sync(&mut self, kind: Kind, now: Millis) {
        self.lost.remove(&kind);
        let before = self.synced();
        self.in_sync.insert(kind);
        self.addresses_in_sync(kind, now);
        if !before && self.synced() {
            tracing::info!("every list is complete");
            self.engine_dirty = true;
            // Only now may routes go that nobody wants.
            self.reread_routes = true;
            self.unpark(now);
        }
    }

    /// Is every initial list complete?
    pub(super) fn synced(&self) -> bool {
        self.in_sync.len() == Kind::ALL.len()
    }

    /// Says on a pool whether it is understood, when that changed or its condition says otherwise: an earlier life may
    /// have left it. Words alone are no reason, or two versions of felix would never stop correcting each other.
    pub(super) fn pool_told(&mut self, name: &str, problem: Option<String>, refused: Option<bool>) {
        let before = match &problem {
            Some(problem) => self.pool_errors.insert(name.to_owned(), problem.clone()),
            None => self.pool_errors.remove(name),
        };
        let contradicted = refused.is_some_and(|refused| refused != problem.is_some());
        if before != problem || contradicted {
            self.outputs
                .push_back(Output::PoolCondition(name.to_owned(), problem));
        }
    }
}
