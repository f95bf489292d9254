//! Watches of what policies are made of, beside pods, namespaces and NetworkPolicies.

use std::fmt::Debug;

use crds::felix_configuration::Configuration;
use crds::{
    ClusterNetworkPolicy, FelixConfiguration, FieldError, GlobalNetworkPolicy, GlobalNetworkSet,
    HostEndpoint, NetworkPolicy, NetworkSet, Tier, host_endpoint, network_set, tier,
};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{Judge, Source, name, namespaced_name, readable, run, undecodable, undecodable_policy};
use crate::agent::input::{Kind, Update};
use crate::driver::accepted::{self, Rivals, Told};
use crate::policy::k8s::PolicyError;
use crate::policy::model::{Policy, PolicyKey, PolicyKind};
use crate::policy::{cluster, margay};
use crate::translate;

/// Starts them.
pub(super) fn start(client: &Client, node: &str, updates: &mpsc::Sender<Update>) {
    spawn(client, updates, nodes());
    spawn(client, updates, service_accounts());
    spawn(client, updates, slices());
    spawn(client, updates, judged(client, node, tiers()));
    spawn(client, updates, judged(client, node, network_policies()));
    spawn(
        client,
        updates,
        judged(client, node, global_network_policies()),
    );
    spawn(
        client,
        updates,
        judged(client, node, cluster_network_policies()),
    );
    spawn(client, updates, judged(client, node, network_sets()));
    spawn(client, updates, judged(client, node, global_network_sets()));
    spawn(client, updates, judged(client, node, host_endpoints()));
    spawn(client, updates, judged(client, node, configuration()));
}

fn spawn<K>(client: &Client, updates: &mpsc::Sender<Update>, source: Source<K>)
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
{
    let api = Api::all(client.clone());
    let all = watcher::Config::default();
    tokio::spawn(run::<K>(api, all, source, updates.clone()));
}

/// A kind of ours, whose status says whether an object of it is understood.
trait Judged: Resource<DynamicType = ()> {
    /// The conditions it has, and why it is not understood.
    fn told(&self) -> Told;
}

macro_rules! judged {
    ($($kind:ty => $understood:ty),+ $(,)?) => {
        $(impl Judged for $kind {
            fn told(&self) -> Told {
                let conditions = self.status.as_ref().map(|it| it.conditions.as_slice());
                let problem = <$understood>::try_from(self).err();
                Told::new(&self.metadata, conditions, problem.map(|it| it.to_string()))
            }
        })+
    };
}

judged!(
    Tier => tier::Stage,
    NetworkPolicy => crds::policy::Policy,
    GlobalNetworkPolicy => crds::policy::Policy,
    NetworkSet => network_set::Set,
    GlobalNetworkSet => network_set::Set,
    FelixConfiguration => Configuration,
);

impl Judged for HostEndpoint {
    fn told(&self) -> Told {
        let conditions = self.status.as_ref().map(|it| it.conditions.as_slice());
        let (claim, problem) = match host_endpoint::Endpoint::try_from(self) {
            Ok(endpoint) => (Some(endpoint), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Told::new(&self.metadata, conditions, problem).claiming(claim)
    }
}

impl Judged for ClusterNetworkPolicy {
    fn told(&self) -> Told {
        let conditions = self.status.as_ref().map(|it| it.conditions.as_slice());
        let problem = match cluster::parse(self) {
            Ok((_, flaw)) => flaw,
            Err(error) => Some(error),
        };
        Told::new(&self.metadata, conditions, problem.map(|it| it.to_string()))
    }
}

fn judged<K: Judged>(client: &Client, node: &str, source: Source<K>) -> Source<K> {
    Source {
        judge: Some(Judge {
            told: accepted::start::<K>(client, node),
            see: K::told,
            rivals: Rivals::default(),
        }),
        ..source
    }
}

fn split(key: &str) -> Option<(String, String)> {
    let (namespace, name) = key.split_once('/')?;
    Some((namespace.to_owned(), name.to_owned()))
}

/// For kinds that rules look into: what is not understood leaves the last good version in force.
fn refused(kind: Kind, metadata: &kube::core::ObjectMeta, error: &FieldError) -> Option<Update> {
    let (namespace, name) = (&metadata.namespace, metadata.name.as_deref());
    let namespace = namespace.as_deref().unwrap_or_default();
    tracing::warn!(?kind, namespace, name = name.unwrap_or_default(), %error, "an object is not understood; its last good version stays");
    None
}

/// A policy, or why it is none.
fn policy<K: Resource<DynamicType = ()>>(
    object: Result<K, InvalidObject>,
    kind: PolicyKind,
    parse: fn(&K) -> Result<Policy, PolicyError>,
) -> Option<Update> {
    let (meta, parsed) = match object {
        Ok(object) => (object.meta().clone(), parse(&object)),
        Err(bad) => (bad.metadata, Err(undecodable_policy(bad.error))),
    };
    Some(match parsed {
        Ok(policy) => Update::Policy(Box::new(policy)),
        Err(error) => {
            let key = PolicyKey {
                namespace: meta.namespace.unwrap_or_default(),
                name: meta.name.unwrap_or_default(),
                kind,
            };
            Update::PolicyRefused(key, meta.generation.unwrap_or_default(), error)
        }
    })
}

fn nodes() -> Source<Node> {
    Source {
        kind: Kind::Nodes,
        optional: false,
        judge: None,
        key: name,
        come: |object| {
            readable(Kind::Nodes, object, |node| {
                Update::NodeAddresses(translate::node_addresses(node))
            })
        },
        gone: |name| Some(Update::NodeGone(name)),
    }
}

fn service_accounts() -> Source<ServiceAccount> {
    Source {
        kind: Kind::ServiceAccount,
        optional: false,
        judge: None,
        key: namespaced_name,
        come: |object| {
            readable(Kind::ServiceAccount, object, |account| {
                Update::ServiceAccount(translate::service_account(account))
            })
        },
        gone: |key| {
            split(&key).map(|(namespace, name)| Update::ServiceAccountGone(namespace, name))
        },
    }
}

fn slices() -> Source<EndpointSlice> {
    Source {
        kind: Kind::EndpointSlice,
        optional: false,
        judge: None,
        key: namespaced_name,
        come: |object| {
            readable(Kind::EndpointSlice, object, |slice| {
                Update::Slice(translate::slice(&slice))
            })
        },
        gone: |key| split(&key).map(|(namespace, name)| Update::SliceGone(namespace, name)),
    }
}

fn tiers() -> Source<Tier> {
    Source {
        kind: Kind::Tier,
        optional: true,
        judge: None,
        key: name,
        come: |object| match object {
            Ok(object) => match tier::Stage::try_from(&object) {
                Ok(stage) => Some(Update::Tier(margay::tier(stage))),
                Err(error) => refused(Kind::Tier, &object.metadata, &error),
            },
            Err(bad) => refused(Kind::Tier, &bad.metadata, &undecodable(&bad)),
        },
        gone: |name| Some(Update::TierGone(name)),
    }
}

fn network_policies() -> Source<NetworkPolicy> {
    Source {
        kind: Kind::MargayNetworkPolicy,
        optional: true,
        judge: None,
        key: namespaced_name,
        come: |object| policy(object, PolicyKind::NetworkPolicy, margay::network_policy),
        gone: |key| {
            let (namespace, name) = split(&key)?;
            Some(Update::PolicyGone(PolicyKey {
                namespace,
                name,
                kind: PolicyKind::NetworkPolicy,
            }))
        },
    }
}

fn global_network_policies() -> Source<GlobalNetworkPolicy> {
    Source {
        kind: Kind::GlobalNetworkPolicy,
        optional: true,
        judge: None,
        key: name,
        come: |object| {
            let parse = margay::global_network_policy;
            policy(object, PolicyKind::GlobalNetworkPolicy, parse)
        },
        gone: |name| {
            Some(Update::PolicyGone(PolicyKey {
                namespace: String::new(),
                name,
                kind: PolicyKind::GlobalNetworkPolicy,
            }))
        },
    }
}

fn cluster_network_policies() -> Source<ClusterNetworkPolicy> {
    Source {
        kind: Kind::ClusterNetworkPolicy,
        optional: true,
        judge: None,
        key: name,
        come: |object| {
            let (meta, parsed) = match object {
                Ok(object) => (object.metadata.clone(), cluster::parse(&object)),
                Err(bad) => (bad.metadata, Err(undecodable_policy(bad.error))),
            };
            Some(match parsed {
                Ok((policy, None)) => Update::Policy(Box::new(policy)),
                Ok((policy, Some(error))) => Update::PolicyFlawed(Box::new(policy), error),
                Err(error) => {
                    let key = cluster::key(meta.name.unwrap_or_default());
                    Update::PolicyRefused(key, meta.generation.unwrap_or_default(), error)
                }
            })
        },
        gone: |name| Some(Update::PolicyGone(cluster::key(name))),
    }
}

fn network_sets() -> Source<NetworkSet> {
    Source {
        kind: Kind::NetworkSet,
        optional: true,
        judge: None,
        key: namespaced_name,
        come: |object| match object {
            Ok(object) => match network_set::Set::try_from(&object) {
                Ok(set) => Some(Update::NetworkSet(translate::network_set(set))),
                Err(error) => refused(Kind::NetworkSet, &object.metadata, &error),
            },
            Err(bad) => refused(Kind::NetworkSet, &bad.metadata, &undecodable(&bad)),
        },
        gone: |key| {
            let (namespace, name) = split(&key)?;
            Some(Update::NetworkSetGone(Some(namespace), name))
        },
    }
}

fn global_network_sets() -> Source<GlobalNetworkSet> {
    Source {
        kind: Kind::GlobalNetworkSet,
        optional: true,
        judge: None,
        key: name,
        come: |object| match object {
            Ok(object) => match network_set::Set::try_from(&object) {
                Ok(set) => Some(Update::NetworkSet(translate::network_set(set))),
                Err(error) => refused(Kind::GlobalNetworkSet, &object.metadata, &error),
            },
            Err(bad) => refused(Kind::GlobalNetworkSet, &bad.metadata, &undecodable(&bad)),
        },
        gone: |name| Some(Update::NetworkSetGone(None, name)),
    }
}

fn host_endpoints() -> Source<HostEndpoint> {
    Source {
        kind: Kind::HostEndpoint,
        optional: true,
        judge: None,
        key: name,
        come: |object| match object {
            Ok(object) => match host_endpoint::Endpoint::try_from(&object) {
                Ok(endpoint) => Some(Update::HostEndpoint(endpoint)),
                Err(error) => refused(Kind::HostEndpoint, &object.metadata, &error),
            },
            Err(bad) => refused(Kind::HostEndpoint, &bad.metadata, &undecodable(&bad)),
        },
        gone: |name| Some(Update::HostEndpointGone(name)),
    }
}

fn configuration() -> Source<FelixConfiguration> {
    Source {
        kind: Kind::FelixConfiguration,
        optional: true,
        judge: None,
        key: name,
        come: |object| match object {
            Ok(object) => match Configuration::try_from(&object) {
                Ok(_) => {
                    let name = object.metadata.name.unwrap_or_default();
                    Some(Update::FelixConfiguration(
                        name,
                        Some(Box::new(object.spec)),
                    ))
                }
                Err(error) => refused(Kind::FelixConfiguration, &object.metadata, &error),
            },
            Err(bad) => refused(Kind::FelixConfiguration, &bad.metadata, &undecodable(&bad)),
        },
        gone: |name| Some(Update::FelixConfiguration(name, None)),
    }
}
