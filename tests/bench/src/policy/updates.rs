//! What a change costs in clusters of several sizes: felix's own work, and the kernel's.

use anyhow::Result;
use lab::netns;
use serde_json::{Value, json};

use super::cluster::{self, LOCAL, Size};
use super::node::{Cost, Node};
use crate::ground::Ground;
use crate::report::Samples;

/// Numbers of pods that are not there yet.
const NEWCOMER: u32 = 0x0070_0000;
/// Blocks of the set that gets one more.
const BLOCKS: u32 = 100_000;

/// The figures of one kind of change in one cluster.
#[derive(Debug)]
pub(crate) struct Figures {
    /// What is done.
    pub(crate) what: &'static str,
    /// felix, in milliseconds on a core.
    pub(crate) compute: Samples,
    /// The kernel, in milliseconds on the clock.
    pub(crate) commit: Samples,
    /// Elements in a change, at most.
    pub(crate) changes: usize,
}

impl Figures {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            compute: Samples::default(),
            commit: Samples::default(),
            changes: 0,
        }
    }

    fn add(&mut self, cost: Cost) {
        self.compute.add(cost.compute);
        self.commit.add(cost.commit);
        self.changes = self.changes.max(cost.changes);
    }
}

/// Every kind of change, `runs` times each, in a cluster of this size.
pub(crate) fn run(ground: &Ground, size: Size, runs: u32) -> Result<Vec<Figures>> {
    let within = ground.namespace(&format!("policy-{}", size.pods))?;
    // The veth of the local pod that comes and goes: its group is part of the change.
    let (veth, _) = cluster::endpoint(NEWCOMER);
    within.ip(&format!("link add {veth} type veth peer name peer0"))?;
    netns::run_in(&within.path(), move || Ok(changes(size, runs)))?
}

fn changes(size: Size, runs: u32) -> Result<Vec<Figures>> {
    let mut node = Node::new()?;
    node.change(|engine| cluster::fill(engine, size))?;
    Ok(vec![
        remote(&mut node, runs)?,
        local(&mut node, runs)?,
        reclassified(&mut node, runs)?,
    ])
}

/// A pod of another node comes, is relabelled, and goes.
fn remote(node: &mut Node, runs: u32) -> Result<Figures> {
    let mut figures = Figures::new("a remote pod comes, is relabelled, goes");
    for run in 0..runs {
        let number = NEWCOMER + 1 + run;
        for kind in [13, 26] {
            figures.add(node.change(|engine| {
                engine.apply_identity(cluster::pod(number, kind));
                Ok(())
            })?);
        }
        figures.add(node.change(|engine| {
            engine.delete_identity(&format!("uid-{number}"));
            Ok(())
        })?);
    }
    Ok(figures)
}

/// A pod of this node comes, is relabelled, and goes.
fn local(node: &mut Node, runs: u32) -> Result<Figures> {
    let mut figures = Figures::new("a local pod comes, is relabelled, goes");
    let (veth, mut endpoint) = cluster::endpoint(NEWCOMER);
    for run in 0..runs {
        let kinds = [run % cluster::HERE, (run + 1) % cluster::HERE];
        for (first, kind) in [true, false].into_iter().zip(kinds) {
            let identity = cluster::pod(NEWCOMER, kind);
            endpoint.namespace = identity.namespace.to_string();
            let attached = first.then(|| endpoint.clone());
            figures.add(node.change(|engine| {
                if let Some(attached) = attached {
                    engine.set_local(&veth, attached);
                }
                engine.apply_identity(identity);
                Ok(())
            })?);
        }
        figures.add(node.change(|engine| {
            engine.remove_local(&veth);
            engine.delete_identity(&format!("uid-{NEWCOMER}"));
            Ok(())
        })?);
    }
    Ok(figures)
}

/// A rule's peers become others, so that a thousand pods have other classes.
fn reclassified(node: &mut Node, runs: u32) -> Result<Figures> {
    let mut figures = Figures::new("an edit that reclassifies 1000 pods");
    // Of a kind that nothing else mentions.
    for at in 0..1000 {
        let mut pod = cluster::pod(NEWCOMER + 0x1_0000 + at, 1);
        pod.labels = [("app".to_owned(), "edited".to_owned())].into();
        node.engine.apply_identity(pod);
    }
    node.change(|_| Ok(()))?;
    for run in 0..runs {
        let app = if run % 2 == 0 { "edited" } else { "nobody" };
        let peers =
            json!([{ "namespaceSelector": {}, "podSelector": { "matchLabels": { "app": app } } }]);
        let policy = ingress("edited", "k1", 1, &peers)?;
        figures.add(node.change(|engine| cluster::tell(engine, &policy))?);
    }
    Ok(figures)
}

/// Lets these peers in to pods of a kind.
fn ingress(
    name: &str,
    app: &str,
    kind: u32,
    peers: &Value,
) -> Result<k8s_openapi::api::networking::v1::NetworkPolicy> {
    cluster::policy_of(
        name,
        &cluster::pod(0, kind).namespace,
        json!({ "matchLabels": { "app": app } }),
        json!({ "ingress": [{ "from": peers, "ports": [{ "protocol": "TCP", "port": 80 }] }] }),
    )
}

/// One block more among very many.
pub(crate) fn blocks(ground: &Ground, runs: u32) -> Result<Figures> {
    let within = ground.namespace("policy-blocks")?;
    netns::run_in(&within.path(), move || Ok(one_more(runs)))?
}

fn one_more(runs: u32) -> Result<Figures> {
    let mut figures = Figures::new("one block more among 100,000");
    let mut node = Node::new()?;
    node.change(|engine| cluster::fill(engine, Size::of(LOCAL)))?;
    // As a set of blocks would be, in as many policies as it takes.
    let policy = ingress("blocks", "k1", 1, &Value::Array(cluster::blocks(BLOCKS)))?;
    node.change(|engine| cluster::tell(engine, &policy))?;
    for run in 0..runs {
        let extra = json!([{ "ipBlock": { "cidr": format!("203.0.113.{}/32", run % 128 * 2) } }]);
        let policy = ingress("extra", "k1", 1, &extra)?;
        figures.add(node.change(|engine| cluster::tell(engine, &policy))?);
    }
    Ok(figures)
}
