//! A scheduler as small as it gets: pods without a node go to the Ready nodes in turn, where their
//! nodeSelector allows.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::PostParams;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::json;
use tracing::{info, warn};

use crate::api::{self, Impatient, schedulable};

/// Runs until the process is killed.
pub async fn run(kubeconfig: &Path) -> Result<()> {
    let client = api::client(kubeconfig).await?;
    let nodes: Api<Node> = Api::all(client.clone());
    let pods: Api<Pod> = Api::all(client.clone());
    let mut nodes = watcher(nodes, Config::default())
        .backoff(Impatient::default())
        .boxed();
    let unbound = Config::default().fields("spec.nodeName=");
    let mut pods = watcher(pods, unbound).backoff(Impatient::default()).boxed();
    let mut state = Scheduler::default();
    let mut retry = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        tokio::select! {
            Some(event) = nodes.next() => match event {
                Ok(event) => state.node_event(event),
                Err(error) => warn!(%error, "watch of nodes"),
            },
            Some(event) = pods.next() => match event {
                Ok(event) => state.pod_event(event),
                Err(error) => warn!(%error, "watch of pods"),
            },
            _ = retry.tick() => {}
            else => bail!("the watches ended"),
        }
        for (key, node) in state.decide() {
            match bind(&client, &key, &node).await {
                Ok(()) => {
                    info!(namespace = key.0, pod = key.1, node, "bound");
                    state.pending.remove(&key);
                }
                // It is gone, or somebody else was faster: the watch will say so.
                Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => {
                    state.pending.remove(&key);
                }
                Err(error) => warn!(%error, pod = key.1, "bind"),
            }
        }
    }
}

async fn bind(client: &Client, (namespace, name): &Key, node: &str) -> kube::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": { "name": name, "namespace": namespace },
        "target": { "apiVersion": "v1", "kind": "Node", "name": node },
    });
    let _: serde_json::Value = pods
        .create_subresource("binding", name, &PostParams::default(), &binding)
        .await?;
    Ok(())
}

/// Namespace and name.
type Key = (String, String);

/// What is known, and whose turn it is.
#[derive(Debug, Default)]
struct Scheduler {
    nodes: BTreeMap<String, Node>,
    pending: BTreeMap<Key, Pod>,
    turn: usize,
}

impl Scheduler {
    fn node_event(&mut self, event: Event<Node>) {
        match event {
            Event::Init => self.nodes.clear(),
            Event::InitApply(node) | Event::Apply(node) => {
                self.nodes
                    .insert(node.metadata.name.clone().unwrap_or_default(), node);
            }
            Event::Delete(node) => {
                self.nodes.remove(&node.metadata.name.unwrap_or_default());
            }
            Event::InitDone => {}
        }
    }

    fn pod_event(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.pending.clear(),
            Event::InitApply(pod) | Event::Apply(pod) => {
                let bound = pod.spec.as_ref().is_some_and(|s| s.node_name.is_some());
                if bound || pod.metadata.deletion_timestamp.is_some() {
                    self.pending.remove(&key(&pod));
                } else {
                    self.pending.insert(key(&pod), pod);
                }
            }
            Event::Delete(pod) => {
                self.pending.remove(&key(&pod));
            }
            Event::InitDone => {}
        }
    }

    /// Where pending pods go; those that fit nowhere now stay pending.
    fn decide(&mut self) -> Vec<(Key, String)> {
        let mut decisions = Vec::new();
        for (key, pod) in &self.pending {
            let fitting: Vec<&String> = self
                .nodes
                .iter()
                .filter(|(_, node)| schedulable(node) && selected(pod, node))
                .map(|(name, _)| name)
                .collect();
            if !fitting.is_empty() {
                decisions.push((key.clone(), fitting[self.turn % fitting.len()].clone()));
                self.turn += 1;
            }
        }
        decisions
    }
}

fn key(pod: &Pod) -> Key {
    (
        pod.metadata.namespace.clone().unwrap_or_default(),
        pod.metadata.name.clone().unwrap_or_default(),
    )
}

fn selected(pod: &Pod, node: &Node) -> bool {
    let selector = pod.spec.as_ref().and_then(|s| s.node_selector.as_ref());
    let labels = node.metadata.labels.as_ref();
    selector
        .into_iter()
        .flatten()
        .all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, rack: &str, ready: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "rack": rack } },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        }))
        .unwrap()
    }

    fn pod(name: &str, selector: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "namespace": "d", "name": name },
            "spec": { "containers": [], "nodeSelector": selector },
        }))
        .unwrap()
    }

    fn scheduler() -> Scheduler {
        let mut s = Scheduler::default();
        for (name, rack, ready) in [
            ("n1", "a", "True"),
            ("n2", "a", "False"),
            ("n3", "b", "True"),
        ] {
            s.node_event(Event::Apply(node(name, rack, ready)));
        }
        s
    }

    fn names(decisions: Vec<(Key, String)>) -> Vec<String> {
        decisions.into_iter().map(|(_, node)| node).collect()
    }

    #[test]
    fn pods_go_round_the_ready_nodes() {
        let mut s = scheduler();
        for name in ["p1", "p2", "p3"] {
            s.pod_event(Event::Apply(pod(name, json!({}))));
        }
        assert_eq!(names(s.decide()), ["n1", "n3", "n1"]);
    }

    #[test]
    fn a_selector_is_honoured_and_what_fits_nowhere_waits() {
        let mut s = scheduler();
        s.pod_event(Event::Apply(pod("p", json!({ "rack": "b" }))));
        s.pod_event(Event::Apply(pod("q", json!({ "rack": "c" }))));
        assert_eq!(names(s.decide()), ["n3"]);
        s.node_event(Event::Apply(node("n4", "c", "True")));
        s.pod_event(Event::Delete(pod("p", json!({}))));
        assert_eq!(names(s.decide()), ["n4"]);
    }

    #[test]
    fn a_cordoned_node_takes_none() {
        let mut s = scheduler();
        for name in ["n1", "n3"] {
            let mut n = node(name, "a", "True");
            n.spec = Some(serde_json::from_value(json!({ "unschedulable": true })).unwrap());
            s.node_event(Event::Apply(n));
        }
        s.pod_event(Event::Apply(pod("p", json!({}))));
        assert_eq!(s.decide(), []);
    }
}
