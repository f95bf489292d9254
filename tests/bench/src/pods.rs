//! From the API to the packet: a pod that is created, a policy that is applied.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use lab::{Lab, api};
use serde_json::{Value, json};

use crate::probe;
use crate::report::{Samples, Table};

/// Namespace of everything made here.
pub(crate) const NAMESPACE: &str = "bench";
/// The pods' responders answer there.
const PORT: u16 = 5000;
/// Longest that a pod may take for its next step.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the benchmark in a lab, with `n` pods and `n` policies, and prints it.
pub(crate) fn run(lab: &Lab, n: u32) -> Result<()> {
    block_on(async {
        let client = api::client(&lab.kubeconfig()).await?;
        ensure_namespace(&client).await?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let mut events = watcher(pods.clone(), watcher::Config::default()).boxed();
        let asking = json!({ "nodeSelector": { "kubernetes.io/hostname": "n3" } });
        start(&pods, &mut events, "client", asking).await?;
        let client_netns = lab.netns(&format!("{NAMESPACE}/client"))?;
        let (known, answered) = created(&pods, &mut events, &client_netns, n).await?;
        let enforced = enforced(&client, &pods, &mut events, &client_netns, n).await?;
        pods.delete("client", &DeleteParams::default()).await?;
        gone(&mut events, "client").await?;
        let mut table = Table::alone(
            &format!(
                "From the API to the packet, {n} of each, IPv4 and IPv6 by turns (scheduler and node runner are the \
                 lab's; no container is started)"
            ),
            &["median, ms", "p99, ms"],
        );
        for (what, samples) in [
            ("pod created → address in its status", known),
            (
                "pod created → first packet answered from the other rack",
                answered,
            ),
            ("NetworkPolicy applied → first packet denied", enforced),
        ] {
            table.row(what, &[samples.median(), samples.p99()]);
        }
        table.print();
        Ok(())
    })
}

/// Pods on n1, asked from rack b: until the API tells the address, and until it answers.
async fn created(
    pods: &Api<Pod>,
    events: &mut Events<'_>,
    from: &Path,
    n: u32,
) -> Result<(Samples, Samples)> {
    let (mut known, mut answered) = (Samples::default(), Samples::default());
    for i in 0..n {
        let name = format!("new-{i}");
        let (begun, addresses) = start(pods, events, &name, on_n1()).await?;
        known.add(begun.elapsed());
        let to = SocketAddr::new(pick(&addresses, i)?, PORT);
        answered.add(probe::first_answer(from, to)?.duration_since(begun));
        pods.delete(&name, &DeleteParams::default()).await?;
        gone(events, &name).await?;
    }
    Ok((known, answered))
}

/// A policy that forbids what was allowed, from the request to the packet.
async fn enforced(
    client: &Client,
    pods: &Api<Pod>,
    events: &mut Events<'_>,
    from: &Path,
    n: u32,
) -> Result<Samples> {
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), NAMESPACE);
    let (_, addresses) = start(pods, events, "server", on_n1()).await?;
    let mut samples = Samples::default();
    for i in 0..n {
        let to = SocketAddr::new(pick(&addresses, i)?, PORT);
        probe::first_answer(from, to)?;
        let asker = thread::spawn({
            let from = from.to_owned();
            move || probe::first_denial(&from, to)
        });
        let begun = Instant::now();
        create_policy(client, "deny", &json!({ "app": "pods" })).await?;
        let denied = asker
            .join()
            .map_err(|_| anyhow!("the asking thread panicked"))??;
        if denied < begun {
            bail!("{to} stopped answering before the policy was applied");
        }
        samples.add(denied - begun);
        policies.delete("deny", &DeleteParams::default()).await?;
    }
    pods.delete("server", &DeleteParams::default()).await?;
    gone(events, "server").await?;
    Ok(samples)
}

fn on_n1() -> Value {
    json!({ "nodeSelector": { "kubernetes.io/hostname": "n1" } })
}

fn pick(addresses: &[IpAddr], turn: u32) -> Result<IpAddr> {
    let family = addresses
        .iter()
        .find(|address| address.is_ipv6() == (turn % 2 == 1));
    family.copied().context("a pod lacks an address family")
}

/// Watch events of the pods.
type Events<'a> = std::pin::Pin<Box<dyn Stream<Item = watcher::Result<Event<Pod>>> + Send + 'a>>;

/// Creates a pod and waits for its addresses; when the request was sent, and the addresses.
async fn start(
    pods: &Api<Pod>,
    events: &mut Events<'_>,
    name: &str,
    spec: Value,
) -> Result<(Instant, Vec<IpAddr>)> {
    let pod = pod(name, "pods", spec)?;
    let begun = Instant::now();
    pods.create(&PostParams::default(), &pod).await?;
    let what = format!("addresses of {name}");
    let addresses = wait(events, &what, |event| {
        let (Event::Apply(pod) | Event::InitApply(pod)) = event else {
            return None;
        };
        if pod.metadata.name.as_deref() != Some(name) {
            return None;
        }
        let addresses = pod.status.as_ref()?.pod_ips.as_ref()?.iter();
        let addresses: Vec<IpAddr> = addresses.filter_map(|ip| ip.ip.parse().ok()).collect();
        (!addresses.is_empty()).then_some(addresses)
    });
    Ok((begun, addresses.await?))
}

async fn gone(events: &mut Events<'_>, name: &str) -> Result<()> {
    wait(events, &format!("the end of {name}"), |event| match event {
        Event::Delete(pod) => (pod.metadata.name.as_deref() == Some(name)).then_some(()),
        _ => None,
    })
    .await
}

async fn wait<T>(
    events: &mut Events<'_>,
    what: &str,
    mut found: impl FnMut(&Event<Pod>) -> Option<T>,
) -> Result<T> {
    let search = async {
        loop {
            let event = events.next().await.context("the watch of pods ended")??;
            if let Some(found) = found(&event) {
                return Ok(found);
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, search).await;
    found.with_context(|| format!("waited {PATIENCE:?} for {what}"))?
}

/// A pod whose responder answers on [`PORT`]; `spec` says where it runs.
pub(crate) fn pod(name: &str, app: &str, spec: Value) -> Result<Pod> {
    let mut pod = json!({
        "metadata": { "name": name, "labels": { "app": app } },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "c",
                "image": "none",
                "ports": [{ "containerPort": PORT, "protocol": "UDP" }],
            }],
        },
    });
    if let (Some(all), Value::Object(more)) = (pod["spec"].as_object_mut(), spec) {
        all.extend(more);
    }
    Ok(serde_json::from_value(pod)?)
}

/// Makes [`NAMESPACE`] unless it is there.
pub(crate) async fn ensure_namespace(client: &Client) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
    match namespaces.create(&PostParams::default(), &namespace).await {
        Err(kube::Error::Api(e)) if e.code == 409 => Ok(()),
        made => Ok(made.map(drop)?),
    }
}

/// A policy that lets only one application of many reach these pods, on one port that nobody asks.
pub(crate) async fn create_policy(client: &Client, name: &str, labels: &Value) -> Result<()> {
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), NAMESPACE);
    let policy = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "podSelector": { "matchLabels": labels },
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{ "podSelector": { "matchLabels": { "role": "front" } } }],
                "ports": [{ "protocol": "TCP", "port": 80 }],
            }],
        },
    }))?;
    policies.create(&PostParams::default(), &policy).await?;
    Ok(())
}

/// Runs a future on a runtime of its own.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?
        .block_on(future)
}
