//! Watches of policies and nodes.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use crds::condition::{ACCEPTED, ConditionStatus, PROGRAMMED};
use crds::{ClusterNetworkPolicy, Condition, GlobalNetworkPolicy, NetworkPolicy};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event as Watched};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::lead::Event;
use crate::programmed::{Input, Key, Kind, Object, Told};

/// Watches that say when they are complete.
pub(super) const LISTS: usize = 4;
/// Between two looks for a kind that nobody has defined.
const UNKNOWN: Duration = Duration::from_secs(60);

impl Kind {
    /// Where its objects are.
    pub(super) fn resource(self) -> ApiResource {
        match self {
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::GlobalNetworkPolicy => ApiResource::erase::<GlobalNetworkPolicy>(&()),
            Self::ClusterNetworkPolicy => ApiResource::erase::<ClusterNetworkPolicy>(&()),
        }
    }
}

/// Starts them.
pub(super) fn start(client: &Client, tasks: &mut JoinSet<()>, events: &mpsc::Sender<Event>) {
    for kind in [
        Kind::NetworkPolicy,
        Kind::GlobalNetworkPolicy,
        Kind::ClusterNetworkPolicy,
    ] {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.resource());
        let key = move |object: &DynamicObject| Key {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        };
        let come = move |object: &DynamicObject| policy(key(object), object);
        let gone = |key: Key| Event::Input(Input::Gone(key));
        tasks.spawn(run(api, key, come, gone, events.clone()));
    }
    let api: Api<Node> = Api::all(client.clone());
    let come = |node: &Node| Event::Input(Input::Node(node.name_any(), is_ready(node)));
    let gone = |name| Event::Input(Input::NodeGone(name));
    tasks.spawn(run(api, Node::name_any, come, gone, events.clone()));
}

/// One watch: tells what comes and goes, also what vanished between two lists, and once that it is complete.
async fn run<K, N>(
    api: Api<K>,
    key: impl Fn(&K) -> N,
    come: impl Fn(&K) -> Event,
    gone: impl Fn(N) -> Event,
    events: mpsc::Sender<Event>,
) where
    K: Resource + DeserializeOwned + Clone + Debug + Send + 'static,
    N: Ord + Clone + Hash,
{
    let (mut known, mut listed) = (BTreeSet::new(), BTreeSet::new());
    let mut complete = false;
    loop {
        let mut changes = watch(api.clone(), watcher::Config::default())
            .default_backoff()
            .boxed();
        while let Some(change) = changes.next().await {
            let mut out = Vec::new();
            match change {
                Ok(Watched::Init) => listed.clear(),
                Ok(Watched::InitApply(object)) => {
                    listed.insert(key(&object));
                    out.push(come(&object));
                }
                Ok(Watched::InitDone) => {
                    out.extend(known.difference(&listed).cloned().map(&gone));
                    known = std::mem::take(&mut listed);
                    if !std::mem::replace(&mut complete, true) {
                        out.push(Event::Complete);
                    }
                }
                Ok(Watched::Apply(object)) => {
                    known.insert(key(&object));
                    out.push(come(&object));
                }
                Ok(Watched::Delete(object)) => {
                    let key = key(&object);
                    known.remove(&key);
                    out.push(gone(key));
                }
                Err(error) if is_unknown(&error) => {
                    out.extend(std::mem::take(&mut known).into_iter().map(&gone));
                    if !std::mem::replace(&mut complete, true) {
                        out.push(Event::Complete);
                    }
                    for event in out {
                        if events.send(event).await.is_err() {
                            return;
                        }
                    }
                    break;
                }
                Err(error) => tracing::warn!(%error, "a watch fails; it is tried again"),
            }
            for event in out {
                if events.send(event).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(UNKNOWN).await;
    }
}

/// Whether the API answers that there is no such kind.
fn is_unknown(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(answer) | watcher::Error::WatchStartFailed(answer)) =
        error
    else {
        return false;
    };
    matches!(answer, kube::Error::Api(status) if status.code == 404)
}

fn policy(key: Key, object: &DynamicObject) -> Event {
    let status = object.data.get("status");
    let conditions = status.and_then(|it| it.get("conditions"));
    let conditions: Vec<Condition> = conditions
        .and_then(|it| serde_json::from_value(it.clone()).ok())
        .unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let of = |name: &str| conditions.iter().find(|it| it.type_ == name);
    let accepted = of(ACCEPTED)
        .filter(|it| it.observed_generation == Some(generation))
        .map(|it| it.status == ConditionStatus::True);
    let told = of(PROGRAMMED).map(|it| Told {
        status: it.status,
        reason: it.reason.clone(),
        message: it.message.clone(),
        generation: it.observed_generation.unwrap_or_default(),
        nodes: status
            .and_then(|it| it.get("enforcedOn"))
            .and_then(Value::as_str)
            .map(str::to_owned),
    });
    let known = Object {
        uid: object.metadata.uid.clone().unwrap_or_default(),
        generation,
        version: object.metadata.resource_version.clone().unwrap_or_default(),
        accepted,
        told,
    };
    Event::Policy(key, known, conditions)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|it| it.conditions.iter().flatten());
    conditions
        .filter(|it| it.type_ == "Ready")
        .any(|it| it.status == "True")
}
