//! What the engine is told about everything that is neither a pod nor a policy.

use std::collections::BTreeMap;

use super::engine::Engine;
use crate::feed::{HostEndpoint, NetworkSet, NodeAddresses, ServiceAccount, ServiceBackends};

/// Everything with addresses that is no pod, by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Others {
    pub(super) sets: BTreeMap<(Option<String>, String), NetworkSet>,
    pub(super) services: BTreeMap<(String, String), ServiceBackends>,
    pub(super) nodes: BTreeMap<String, NodeAddresses>,
    pub(super) hosts: BTreeMap<String, HostEndpoint>,
}

impl Engine {
    /// A service account came or changed.
    pub fn apply_service_account(&mut self, account: ServiceAccount) {
        let key = (account.namespace.clone(), account.name.clone());
        let accounts = &mut self.index.inherited.service_accounts;
        if accounts.get(&key) != Some(&account.labels) {
            accounts.insert(key, account.labels);
            self.touch_service_account(&account.namespace, &account.name);
        }
    }

    /// A service account is gone.
    pub fn delete_service_account(&mut self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        if self.index.inherited.service_accounts.remove(&key).is_some() {
            self.touch_service_account(namespace, name);
        }
    }

    fn touch_service_account(&mut self, namespace: &str, name: &str) {
        let pods = self.index.in_namespace(namespace).filter(|uid| {
            let pod = self.index.resident(uid);
            pod.is_some_and(|pod| pod.identity.service_account == name)
        });
        for uid in pods.cloned().collect::<Vec<_>>() {
            self.touch_pod(uid);
        }
    }

    /// A network set came or changed.
    pub fn apply_network_set(&mut self, set: NetworkSet) {
        let key = (set.namespace.clone(), set.name.clone());
        self.others.sets.insert(key, set);
    }

    /// A network set is gone.
    pub fn delete_network_set(&mut self, namespace: Option<&str>, name: &str) {
        let key = (namespace.map(str::to_owned), name.to_owned());
        self.others.sets.remove(&key);
    }

    /// The backends of a service, all of them.
    pub fn apply_service(&mut self, service: ServiceBackends) {
        let key = (service.namespace.clone(), service.name.clone());
        self.others.services.insert(key, service);
    }

    /// A service has no backends any more.
    pub fn delete_service(&mut self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        self.others.services.remove(&key);
    }

    /// A node came or changed.
    pub fn apply_node(&mut self, node: NodeAddresses) {
        self.others.nodes.insert(node.name.clone(), node);
    }

    /// A node is gone.
    pub fn delete_node(&mut self, name: &str) {
        self.others.nodes.remove(name);
    }

    /// A host endpoint came or changed, of this node or of another.
    pub fn apply_host_endpoint(&mut self, endpoint: HostEndpoint) {
        self.others.hosts.insert(endpoint.name.clone(), endpoint);
    }

    /// A host endpoint is gone.
    pub fn delete_host_endpoint(&mut self, name: &str) {
        self.others.hosts.remove(name);
    }
}
