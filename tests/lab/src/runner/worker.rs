//! The life of one pod on its node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Shared, describe};
use crate::netns;
use crate::pods::Sandbox;
use crate::responder::Responder;

/// What is wanted of a pod.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    /// Not known yet: keep what is there.
    Keep,
    /// It is to run.
    Run(Arc<Pod>),
    /// It is to go: the object still has to be deleted if there is one.
    Remove(Option<Arc<Pod>>),
}

/// Makes a pod's wishes true.
pub(super) struct Worker {
    shared: Arc<Shared>,
    sandbox: Option<Sandbox>,
    responder: Option<Responder>,
    /// The pod's status was written since the sandbox was made.
    reported: bool,
    failures: u32,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, sandbox: Option<Sandbox>) -> Self {
        Self {
            shared,
            sandbox,
            responder: None,
            reported: false,
            failures: 0,
        }
    }

    /// Ends when the pod has gone.
    pub(super) async fn run(mut self, mut wishes: watch::Receiver<Wish>) {
        loop {
            let wish = wishes.borrow_and_update().clone();
            let result = match &wish {
                Wish::Keep => self.answer().await,
                Wish::Run(pod) => self.realise(pod).await,
                Wish::Remove(pod) => self.remove(pod.as_deref()).await,
            };
            match (&result, &wish) {
                (Ok(()), Wish::Remove(_)) => return,
                (Ok(()), _) => self.failures = 0,
                (Err(error), _) => {
                    self.failures += 1;
                    warn!(error = %format!("{error:#}"), failures = self.failures, "will try again");
                }
            }
            // A kubelet backs off as well, to minutes; nobody wants to wait that long in a lab.
            let pause = Duration::from_millis(100 << self.failures.min(5));
            tokio::select! {
                changed = wishes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause), if result.is_err() => {}
            }
        }
    }

    async fn realise(&mut self, pod: &Pod) -> Result<()> {
        if self
            .sandbox
            .as_ref()
            .is_some_and(|s| s.addresses.is_empty())
        {
            // ADD failed, or the runner was killed during it: never used, a new one is made.
            self.tear_down().await?;
        }
        let lost = |s: &Sandbox| !s.host_network && !netns::path(&s.netns).exists();
        if self.sandbox.as_ref().is_some_and(lost) {
            // The node was rebooted. The pod is the same, its sandbox is another.
            self.responder = None;
            self.tear_down().await?;
        }
        if self.sandbox.is_none() {
            self.create(pod).await?;
        }
        self.answer().await?;
        self.report(pod).await
    }

    async fn create(&mut self, pod: &Pod) -> Result<()> {
        let start = Instant::now();
        let host_network = pod.spec.as_ref().and_then(|s| s.host_network) == Some(true);
        if !host_network {
            self.shared.plugin.configured()?;
        }
        let sandbox = describe::sandbox(&self.shared.plan, pod, random_id()?);
        sandbox
            .save(&self.shared.records)
            .context("record the sandbox")?;
        let sandbox = self.sandbox.insert(sandbox);
        if sandbox.host_network {
            sandbox.addresses = self.shared.node.address.both().to_vec();
        } else {
            let name = sandbox.netns.clone();
            let made = tokio::task::spawn_blocking(move || netns::create(&name)).await?;
            made.with_context(|| format!("make {}", sandbox.netns))?;
            let called = Instant::now();
            let result = self.shared.plugin.add(sandbox, pod).await?;
            sandbox.addresses = describe::addresses(&result)?;
            sandbox.result = Some(result);
            info!(
                namespace = %sandbox.namespace,
                pod = %sandbox.pod,
                addresses = ?sandbox.addresses,
                add_ms = ms(called),
                total_ms = ms(start),
                "attached"
            );
        }
        sandbox
            .save(&self.shared.records)
            .context("record the sandbox")?;
        Ok(())
    }

    /// Starts the responder if it does not run.
    async fn answer(&mut self) -> Result<()> {
        let Some(sandbox) = self.sandbox.as_ref().filter(|s| !s.addresses.is_empty()) else {
            return Ok(());
        };
        if self.responder.is_none() {
            let name = format!("{}/{}", sandbox.namespace, sandbox.pod);
            let path = netns::path(&sandbox.netns);
            let responder = Responder::start(&name, &path, &sandbox.ports)
                .await
                .with_context(|| format!("answer in {name}"))?;
            self.responder = Some(responder);
        }
        Ok(())
    }

    async fn report(&mut self, pod: &Pod) -> Result<()> {
        let Some(sandbox) = &self.sandbox else {
            return Ok(());
        };
        if self.reported || describe::reports(pod, sandbox) {
            return Ok(());
        }
        let status = describe::status(&self.shared.node, pod, sandbox);
        let patched = self
            .pods(pod)
            .patch_status(
                &sandbox.pod,
                &PatchParams::default(),
                &Patch::Strategic(status),
            )
            .await;
        match patched {
            Ok(_) => {
                self.reported = true;
                Ok(())
            }
            // The pod is gone, or another one has its name: the watch will say so.
            Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => Ok(()),
            Err(e) => Err(e).context("write the pod's status"),
        }
    }

    async fn remove(&mut self, pod: Option<&Pod>) -> Result<()> {
        self.responder = None;
        self.tear_down().await?;
        let Some(pod) = pod else { return Ok(()) };
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: pod.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match self.pods(pod).delete(name, &parameters).await {
            Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => Ok(()),
            result => result.map(|_| ()).context("delete the pod object"),
        }
    }

    /// StopPodSandbox, StopPodSandbox again, RemovePodSandbox: containerd calls DEL in each, and has forgotten the
    /// namespace and the result after the first.
    async fn tear_down(&mut self) -> Result<()> {
        let Some(sandbox) = &self.sandbox else {
            return Ok(());
        };
        if !sandbox.host_network {
            let start = Instant::now();
            self.shared.plugin.del(sandbox, true).await?;
            netns::delete(&sandbox.netns).with_context(|| format!("remove {}", sandbox.netns))?;
            for _ in 0..2 {
                self.shared.plugin.del(sandbox, false).await?;
            }
            info!(namespace = %sandbox.namespace, pod = %sandbox.pod, del_ms = ms(start), "detached");
        }
        sandbox
            .forget(&self.shared.records)
            .context("forget the sandbox")?;
        self.sandbox = None;
        self.reported = false;
        Ok(())
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        Api::namespaced(self.shared.client.clone(), namespace)
    }
}

/// 64 hex digits, as a container runtime names its containers.
fn random_id() -> Result<String> {
    let mut id = String::new();
    for _ in 0..2 {
        id += &std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    }
    id.retain(|c| c.is_ascii_hexdigit());
    Ok(id)
}

fn ms(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1e5).round() / 100.0
}
