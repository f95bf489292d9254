//! A cluster out of files: the engine is told what stands in them, and asked as felix asks it. No API, no kernel.

mod change;
mod kinds;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use api::v1;
use crds::felix_configuration::Configuration;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::agent::hosts::Hosts;
use crate::agent::services::Services;
use crate::explain::{Nodes, Unanswered, View};
use crate::feed::{HostEndpoint, Identity};
use crate::policy::Engine;
use crate::translate;

/// An object, and where it is from.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// File and place in it.
    pub origin: String,
    /// The object.
    pub object: Value,
}

impl Document {
    /// The object; or the members, when it is a List.
    #[must_use]
    pub fn unfold(origin: &str, object: Value) -> Vec<Self> {
        let kind = object["kind"].as_str().unwrap_or_default();
        let Some(items) = object["items"]
            .as_array()
            .filter(|_| kind.ends_with("List"))
        else {
            return vec![Self {
                origin: origin.to_owned(),
                object,
            }];
        };
        let items = items.iter().enumerate();
        items
            .map(|(index, item)| Self {
                origin: format!("{origin}, items[{index}]"),
                object: with_kind(item.clone(), &object),
            })
            .collect()
    }
}

/// Members of a PodList and its like do not say what they are.
fn with_kind(mut item: Value, list: &Value) -> Value {
    let kind = list["kind"].as_str().and_then(|it| it.strip_suffix("List"));
    if let (Value::Object(fields), Some(kind)) = (&mut item, kind)
        && !kind.is_empty()
    {
        for (field, value) in [("kind", kind), ("apiVersion", version(list))] {
            fields
                .entry(field)
                .or_insert_with(|| Value::String(value.to_owned()));
        }
    }
    item
}

fn version(object: &Value) -> &str {
    object["apiVersion"].as_str().unwrap_or_default()
}

/// What the files say about a cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Name of the node that knows it; empty when it is from files alone.
    node: String,
    engine: Engine,
    /// Name of the node a pod is bound to, by the pod's UID.
    bound: BTreeMap<String, String>,
    /// Nodes, host endpoints and what operators chose.
    hosts: Hosts,
    notes: Vec<String>,
    /// Kinds that say nothing about policy, and how many objects of each there were.
    ignored: BTreeMap<String, usize>,
    /// Addresses given to pods that have none.
    lent: u32,
    namespaces: BTreeSet<String>,
    services: Services,
}

/// Label that the API server gives a namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Namespace of objects that do not say theirs.
const DEFAULT_NAMESPACE: &str = "default";
/// Addresses nobody has (RFC 1112 section 4): for pods that have none in the files.
const LENT: Ipv4Addr = Ipv4Addr::new(240, 0, 0, 0);

impl Cluster {
    /// Understands the objects. What cannot be understood has a note, and does what it would do in a cluster.
    #[must_use]
    pub fn load(documents: Vec<Document>) -> Self {
        let (services, hosts) = (Services::default(), Hosts::default());
        let mut cluster = Self::of(Engine::new(), services, hosts, "");
        cluster.tell(documents);
        cluster
    }

    /// What an engine and its Services know, on the node with this name.
    #[must_use]
    pub(crate) fn of(engine: Engine, services: Services, hosts: Hosts, node: &str) -> Self {
        Self {
            node: node.to_owned(),
            engine,
            bound: BTreeMap::new(),
            hosts,
            notes: Vec::new(),
            ignored: BTreeMap::new(),
            lent: 0,
            namespaces: BTreeSet::new(),
            services,
        }
    }

    /// Objects come, or take the place of those with their name.
    fn tell(&mut self, documents: Vec<Document>) {
        let cluster = self;
        let mut populated = BTreeSet::new();
        for document in documents {
            if let Err(problem) = cluster.add(document.object, &mut populated) {
                let note = format!("{}: {problem}", document.origin);
                cluster.notes.push(note);
            }
        }
        for name in populated.difference(&cluster.namespaces.clone()) {
            if !cluster.engine.knows_namespace(name) {
                cluster.namespace(name.clone(), BTreeMap::new());
            }
        }
        let Self {
            engine,
            hosts,
            node: here,
            ..
        } = cluster;
        for node in hosts.nodes() {
            hosts.settle(&node, here, engine);
        }
        cluster.configure(&cluster.hosts.configuration(&cluster.node));
        if cluster.lent > 0 {
            let many = cluster.lent;
            cluster.notes.push(format!(
                "{many} pods have no address in the files: blocks of addresses are taken not to contain theirs"
            ));
        }
        if !cluster.ignored.is_empty() {
            let kinds: Vec<String> = cluster
                .ignored
                .iter()
                .map(|(kind, count)| format!("{count} {kind}"))
                .collect();
            let kinds = kinds.join(", ");
            let note = format!("left out, as policy does not look at them: {kinds}");
            cluster.notes.push(note);
        }
    }

    /// The engine, told but not compiled.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What a reader has to know about the files.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Judges a flow.
    ///
    /// # Errors
    /// When an end of it is not in the files.
    pub fn explain(
        &self,
        request: &v1::ExplainPolicyRequest,
    ) -> Result<v1::ExplainPolicyResponse, Unanswered> {
        let view = View {
            engine: &self.engine,
            node: &self.node,
            nodes: self,
        };
        let mut answer = view.explain(request)?;
        answer.notes.extend(self.notes.iter().cloned());
        Ok(answer)
    }

    fn add(&mut self, object: Value, populated: &mut BTreeSet<String>) -> Result<(), String> {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let group = version(&object)
            .rsplit_once('/')
            .map_or("", |(group, _)| group)
            .to_owned();
        match (group.as_str(), kind.as_str()) {
            (_, "") => return Err("it says no kind".to_owned()),
            ("", "Namespace") => {
                let namespace: Namespace = typed(object)?;
                let meta = namespace.metadata;
                self.namespace(
                    meta.name.unwrap_or_default(),
                    meta.labels.unwrap_or_default(),
                );
            }
            ("", "Pod") => populated.extend(self.pod(typed(object)?)),
            ("", "Node") => {
                let object: Node = typed(object)?;
                let name = object.metadata.name.clone().unwrap_or_default();
                self.engine
                    .apply_node(translate::node_addresses(object.clone()));
                self.hosts
                    .node(&name, Some(translate::node_addresses(object)));
            }
            _ => {
                if !self.add_policy(&group, &kind, object)? {
                    *self.ignored.entry(kind).or_default() += 1;
                }
            }
        }
        Ok(())
    }

    fn namespace(&mut self, name: String, mut labels: BTreeMap<String, String>) {
        labels.insert(NAMESPACE_NAME.to_owned(), name.clone());
        self.engine.apply_namespace(&name, labels.into());
        self.namespaces.insert(name);
    }

    /// Takes a pod; returns its namespace.
    fn pod(&mut self, object: Pod) -> Option<String> {
        let pod = translate::pod(object);
        if pod.finished {
            return None;
        }
        let mut identity = pod.identity;
        if identity.namespace.is_empty() {
            identity.namespace = DEFAULT_NAMESPACE.into();
        }
        if identity.uid.is_empty() {
            identity.uid = format!("{}/{}", identity.namespace, identity.name).into();
        }
        if identity.addresses.is_empty() && !identity.host_network {
            self.lent += 1;
            let address = Ipv4Addr::from(u32::from(LENT) + self.lent);
            identity.addresses = [address.into()].into();
        }
        self.bound.insert(identity.uid.to_string(), pod.node);
        let namespace = identity.namespace.to_string();
        self.engine.apply_identity(identity);
        Some(namespace)
    }
}

impl Nodes for Cluster {
    fn of_pod(&self, pod: &Identity) -> Option<String> {
        let node = self.bound.get(&*pod.uid);
        node.filter(|it| !it.is_empty()).cloned()
    }

    fn at(&self, address: IpAddr) -> Option<String> {
        self.hosts.node_at(address).map(str::to_owned)
    }

    fn hosts(&self, node: &str) -> Vec<HostEndpoint> {
        self.hosts.of_node(node, &self.node)
    }

    fn configuration(&self, node: &str) -> Configuration {
        self.hosts.configuration(node)
    }

    /// Files have no routes.
    fn interface(&self, _: &str, _: IpAddr) -> Option<String> {
        None
    }
}

fn typed<T: DeserializeOwned>(object: Value) -> Result<T, String> {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let what = format!("{kind} {name}");
    serde_json::from_value(object).map_err(|error| format!("{what}: {error}"))
}

#[cfg(test)]
mod tests;
