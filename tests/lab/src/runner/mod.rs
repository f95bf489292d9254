//! The kubelet's part on one node: pods bound to it get a network namespace, the plugin is called as
//! containerd calls it, their status is written; on deletion the plugin is called again and the object goes.
//!
//! ```text
//!  watch pods of this node ──► one worker per uid ──► netns, plugin (ADD/DEL), responder, status
//!                              records on disk  ◄──╯  (a runner that was killed finds its sandboxes there)
//! ```

pub mod cni;
pub mod describe;
mod heartbeat;
mod worker;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::api::{self, Impatient};
use crate::plan::{Node, Plan};
use crate::pods;
use worker::{Wish, Worker};

/// Runs until the process is killed.
pub async fn run(plan: Plan, bin_dir: PathBuf, node: &str) -> Result<()> {
    let node = plan.node(node).context("no such node in this lab")?.clone();
    let client = api::client(&plan.node_kubeconfig()).await?;
    let shared = Arc::new(Shared {
        plugin: cni::Network::new(&plan, &node.name, bin_dir),
        records: plan.pods_dir(&node.name),
        node,
        plan,
        client: client.clone(),
    });
    tokio::spawn(heartbeat::run(shared.clone()));
    let mut workers = Workers::adopt(shared.clone());
    let pods: Api<Pod> = Api::all(client);
    let mine = watcher::Config::default().fields(&format!("spec.nodeName={}", shared.node.name));
    let mut events = watch_objects(pods, mine)
        .backoff(Impatient::default())
        .boxed();
    let mut listed = HashSet::new();
    loop {
        tokio::select! {
            Some(uid) = workers.finished() => workers.forget(&uid),
            event = events.next() => match event {
                Some(Ok(Event::Init)) => listed.clear(),
                Some(Ok(Event::InitApply(pod))) => {
                    listed.extend(pod.metadata.uid.clone());
                    workers.wish(pod);
                }
                Some(Ok(Event::InitDone)) => workers.keep_only(&listed),
                Some(Ok(Event::Apply(pod))) => workers.wish(pod),
                Some(Ok(Event::Delete(pod))) => {
                    if let Some(uid) = &pod.metadata.uid {
                        workers.remove(uid);
                    }
                }
                Some(Err(error)) => warn!(%error, "watch of pods"),
                None => anyhow::bail!("the watch of pods ended"),
            },
        }
    }
}

/// What all workers of a node share.
struct Shared {
    plan: Plan,
    node: Node,
    client: Client,
    plugin: cni::Network,
    records: PathBuf,
}

/// One worker per pod, by uid.
struct Workers {
    shared: Arc<Shared>,
    wishes: HashMap<String, watch::Sender<Wish>>,
    tasks: JoinSet<String>,
}

impl Workers {
    /// Takes over the sandboxes an earlier runner left. Their pods answer at once; what the API wants of them
    /// is known later.
    fn adopt(shared: Arc<Shared>) -> Self {
        let mut workers = Self {
            wishes: HashMap::new(),
            tasks: JoinSet::new(),
            shared,
        };
        for sandbox in pods::load(&workers.shared.records) {
            info!(namespace = %sandbox.namespace, pod = %sandbox.pod, netns = %sandbox.netns, "adopted");
            let uid = sandbox.uid.clone();
            let worker = Worker::new(workers.shared.clone(), Some(sandbox));
            workers.spawn(uid, worker, Wish::Keep);
        }
        workers
    }

    fn spawn(&mut self, uid: String, worker: Worker, wish: Wish) {
        let (sender, wishes) = watch::channel(wish);
        self.wishes.insert(uid.clone(), sender);
        self.tasks.spawn(async move {
            worker.run(wishes).await;
            uid
        });
    }

    /// The next worker that is done with its pod.
    async fn finished(&mut self) -> Option<String> {
        self.tasks.join_next().await.map(Result::unwrap_or_default)
    }

    fn forget(&mut self, uid: &str) {
        self.wishes.remove(uid);
    }

    fn wish(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else {
            return;
        };
        let pod = Arc::new(pod);
        let wish = if pod.metadata.deletion_timestamp.is_some() {
            Wish::Remove(Some(pod))
        } else {
            Wish::Run(pod)
        };
        match self.wishes.get(&uid) {
            Some(sender) => {
                sender.send_replace(wish);
            }
            None => {
                let worker = Worker::new(self.shared.clone(), None);
                self.spawn(uid, worker, wish);
            }
        }
    }

    /// The object is gone already: only the sandbox is left to remove.
    fn remove(&self, uid: &str) {
        if let Some(sender) = self.wishes.get(uid) {
            sender.send_replace(Wish::Remove(None));
        }
    }

    fn keep_only(&self, listed: &HashSet<String>) {
        for uid in self.wishes.keys().filter(|uid| !listed.contains(*uid)) {
            self.remove(uid);
        }
    }
}
