//! Source 1 of the feed: trimmed watches of the Kubernetes API.

mod policy;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use crds::condition::{ACCEPTED, ConditionStatus};
use crds::{IPAMBlock, IPAMConfiguration, IPPool, ipam_block, ipam_configuration};
use futures::StreamExt;
use futures::future::{Fuse, FusedFuture, FutureExt};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::core::{DeserializeGuard, error_boundary::InvalidObject};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::accepted::{Rivals, Told};
use crate::agent::input::{Kind, Update};
use crate::policy::k8s;
use crate::policy::model::{PolicyKey, PolicyKind};
use crate::translate;

/// How one kind of object becomes updates.
struct Source<K> {
    kind: Kind,
    /// Whether a cluster may do without the kind: then none is the same as no object.
    optional: bool,
    /// What its condition Accepted is judged by, for kinds whose condition is written here.
    judge: Option<Judge<K>>,
    /// What to remember of an object, to be able to say that it is gone.
    key: fn(&DeserializeGuard<K>) -> String,
    come: fn(Result<K, InvalidObject>) -> Option<Update>,
    gone: fn(String) -> Option<Update>,
}

/// Where objects are told to, and how one is seen.
struct Judge<K> {
    told: mpsc::Sender<Told>,
    see: fn(&K) -> Told,
    rivals: Rivals,
}

impl<K> Judge<K> {
    /// An object of that name is there; `listed`: in a list that goes on.
    fn seen(&mut self, name: &str, object: &DeserializeGuard<K>, listed: bool) -> Vec<Told> {
        let Ok(object) = &object.0 else {
            return Vec::new();
        };
        let told = (self.see)(object);
        match listed {
            true => self.rivals.listed(name, told),
            false => self.rivals.came(name, told),
        }
    }
}

/// Starts every watch. They end when nobody listens any more.
pub fn start(client: &Client, node: &str, updates: &mpsc::Sender<Update>) {
    let all = watcher::Config::default();
    let this_node = watcher::Config::default().fields(&format!("metadata.name={node}"));
    let own_blocks =
        watcher::Config::default().labels(&format!("{}={node}", ipam_block::NODE_LABEL));
    let spawn = |client: &Client| (client.clone(), updates.clone());

    let (c, to) = spawn(client);
    tokio::spawn(run::<Namespace>(Api::all(c), all.clone(), namespaces(), to));
    let (c, to) = spawn(client);
    tokio::spawn(run::<Pod>(Api::all(c), all.clone(), pods(), to));
    let (c, to) = spawn(client);
    tokio::spawn(run::<NetworkPolicy>(
        Api::all(c),
        all.clone(),
        policies(),
        to,
    ));
    let (c, to) = spawn(client);
    tokio::spawn(run::<Node>(Api::all(c), this_node, nodes(), to));
    let (c, to) = spawn(client);
    tokio::spawn(run::<IPPool>(Api::all(c), all.clone(), pools(), to));
    let (c, to) = spawn(client);
    tokio::spawn(run::<IPAMBlock>(Api::all(c), own_blocks, blocks(), to));
    let (c, to) = spawn(client);
    tokio::spawn(run::<IPAMConfiguration>(
        Api::all(c),
        all,
        configuration(),
        to,
    ));
    policy::start(client, node, updates);
}

/// One watch: lists, then follows; says what vanished between two lists; reports failures and goes on.
async fn run<K>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    mut source: Source<K>,
    updates: mpsc::Sender<Update>,
) where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
{
    let mut known = BTreeSet::new();
    let mut listed = BTreeSet::new();
    let mut events = watch(api.clone(), config.clone()).default_backoff().boxed();
    // A watch that goes on where it was says nothing until something changes.
    let mut back = pin!(Fuse::terminated());
    loop {
        let mut out = Vec::new();
        let mut told = Vec::new();
        let event = tokio::select! {
            event = events.next() => match event {
                Some(event) => event,
                None => return,
            },
            () = &mut back => {
                if updates.send(Update::Resumed(source.kind)).await.is_err() {
                    return;
                }
                continue;
            }
        };
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                let key = (source.key)(&object);
                told.extend(judging(&mut source, |it| it.seen(&key, &object, true)));
                listed.insert(key);
                out.extend((source.come)(object.0));
            }
            Ok(Event::InitDone) => {
                out.extend(
                    known
                        .difference(&listed)
                        .cloned()
                        .filter_map(source.gone)
                        .map(unlisted),
                );
                known = std::mem::take(&mut listed);
                told.extend(judging(&mut source, |it| it.rivals.all(&known)));
                out.push(Update::InSync(source.kind));
            }
            Ok(Event::Apply(object)) => {
                let key = (source.key)(&object);
                told.extend(judging(&mut source, |it| it.seen(&key, &object, false)));
                known.insert(key);
                out.extend((source.come)(object.0));
            }
            Ok(Event::Delete(object)) => {
                let key = (source.key)(&object);
                known.remove(&key);
                told.extend(judging(&mut source, |it| it.rivals.gone(&key)));
                out.extend((source.gone)(key));
            }
            Err(error) if source.optional && is_unknown(&error) => {
                tracing::info!(kind = ?source.kind, "the API does not know this kind; it is looked for from time to time");
                let gone = std::mem::take(&mut known).into_iter();
                out.extend(gone.filter_map(source.gone));
                out.push(Update::InSync(source.kind));
                for update in out {
                    if updates.send(update).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    () = served(&api, UNKNOWN) => {}
                    () = updates.closed() => return,
                }
                events = watch(api.clone(), config.clone()).default_backoff().boxed();
                continue;
            }
            Err(error) => {
                out.push(Update::Lost(source.kind, error.to_string()));
                if back.is_terminated() {
                    back.set(served(&api, AWAY).fuse());
                }
            }
        }
        judge(source.judge.as_ref(), told).await;
        for update in out {
            if updates.send(update).await.is_err() {
                return;
            }
        }
    }
}

/// Tells whoever writes the condition of an object.
async fn judge<K>(judge: Option<&Judge<K>>, told: Vec<Told>) {
    let Some(judge) = judge else { return };
    for told in told {
        // Its end is that of this process.
        let _ = judge.told.send(told).await;
    }
}

/// What conditions are judged by, of kinds that have them.
fn judging<K>(source: &mut Source<K>, by: impl FnOnce(&mut Judge<K>) -> Vec<Told>) -> Vec<Told> {
    source.judge.as_mut().map(by).unwrap_or_default()
}

/// First and longest pause between two looks for an API that is away.
const AWAY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// And for a kind that nobody has defined.
const UNKNOWN: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];

/// Whether the API answers that there is no such kind.
fn is_unknown(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(answer) | watcher::Error::WatchStartFailed(answer)) =
        error
    else {
        return false;
    };
    matches!(answer, kube::Error::Api(status) if status.code == 404)
}

/// Done when the API serves the kind.
async fn served<K>(api: &Api<DeserializeGuard<K>>, [first, longest]: [Duration; 2])
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let mut pause = first;
    loop {
        tokio::time::sleep(pause).await;
        let one = ListParams::default().limit(1);
        let listed = tokio::time::timeout(longest, api.list(&one)).await;
        if listed.is_ok_and(|list| list.is_ok()) {
            return;
        }
        pause = (pause * 2).min(longest);
    }
}

/// An object that a new list does not have, although nobody saw it go. A block is then missing, not given up: what that
/// means is for address management to say.
fn unlisted(gone: Update) -> Update {
    match gone {
        Update::BlockGone(name) => Update::BlockUnlisted(name),
        other => other,
    }
}

fn name<K: Resource<DynamicType = ()>>(object: &DeserializeGuard<K>) -> String {
    object.name_any()
}

fn namespaced_name<K: Resource<DynamicType = ()>>(object: &DeserializeGuard<K>) -> String {
    let meta = object.meta();
    let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
    format!(
        "{}/{}",
        namespace.unwrap_or_default(),
        name.unwrap_or_default()
    )
}

/// For built-in kinds: the API server validates them, so one that does not decode is newer than we are.
fn readable<K>(
    kind: Kind,
    object: Result<K, InvalidObject>,
    update: impl FnOnce(K) -> Update,
) -> Option<Update> {
    match object {
        Ok(object) => Some(update(object)),
        Err(bad) => {
            let name = bad.metadata.name.as_deref().unwrap_or_default();
            tracing::warn!(
                ?kind,
                name,
                error = bad.error,
                "an object cannot be decoded; what was known of it stays"
            );
            None
        }
    }
}

fn namespaces() -> Source<Namespace> {
    Source {
        kind: Kind::Namespace,
        optional: false,
        judge: None,
        key: name,
        come: |object| {
            readable(Kind::Namespace, object, |ns| {
                Update::Namespace(ns.name_any(), ns.metadata.labels.unwrap_or_default().into())
            })
        },
        gone: |name| Some(Update::NamespaceGone(name)),
    }
}

fn pods() -> Source<Pod> {
    Source {
        kind: Kind::Pod,
        optional: false,
        judge: None,
        key: |object| object.meta().uid.clone().unwrap_or_default(),
        come: |object| readable(Kind::Pod, object, |pod| Update::Pod(translate::pod(pod))),
        gone: |uid| Some(Update::PodGone(uid)),
    }
}

fn policies() -> Source<NetworkPolicy> {
    Source {
        kind: Kind::NetworkPolicy,
        optional: false,
        judge: None,
        key: namespaced_name,
        come: |object| {
            let (meta, parsed) = match object {
                Ok(policy) => (policy.metadata.clone(), k8s::parse(&policy)),
                Err(bad) => (bad.metadata, Err(undecodable_policy(bad.error))),
            };
            Some(match parsed {
                Ok(policy) => Update::Policy(Box::new(policy)),
                Err(error) => {
                    let key = PolicyKey {
                        namespace: meta.namespace.unwrap_or_default(),
                        name: meta.name.unwrap_or_default(),
                        kind: PolicyKind::KubernetesNetworkPolicy,
                    };
                    Update::PolicyRefused(key, meta.generation.unwrap_or_default(), error)
                }
            })
        },
        gone: |key| {
            let (namespace, name) = key.split_once('/')?;
            Some(Update::PolicyGone(PolicyKey {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                kind: PolicyKind::KubernetesNetworkPolicy,
            }))
        },
    }
}

fn nodes() -> Source<Node> {
    Source {
        kind: Kind::Node,
        optional: false,
        judge: None,
        key: name,
        come: |object| {
            readable(Kind::Node, object, |node| {
                Update::Node(translate::node(node))
            })
        },
        // The node's own object gone changes nothing here: whoever deleted it decides about the blocks.
        gone: |_| None,
    }
}

fn pools() -> Source<IPPool> {
    Source {
        kind: Kind::IpPool,
        optional: false,
        judge: None,
        key: name,
        come: |object| {
            Some(match object {
                Ok(pool) => Update::Pool(
                    pool.name_any(),
                    crds::ip_pool::Pool::try_from(&pool),
                    Some(is_refused(&pool)),
                ),
                Err(bad) => Update::Pool(
                    bad.metadata.name.clone().unwrap_or_default(),
                    Err(undecodable(&bad)),
                    None,
                ),
            })
        },
        gone: |name| Some(Update::PoolGone(name)),
    }
}

/// Whether the object's condition says that it is not understood.
fn is_refused(pool: &IPPool) -> bool {
    let mut conditions = pool.status.iter().flat_map(|status| &status.conditions);
    conditions
        .any(|condition| condition.type_ == ACCEPTED && condition.status == ConditionStatus::False)
}

fn blocks() -> Source<IPAMBlock> {
    Source {
        kind: Kind::IpamBlock,
        optional: false,
        judge: None,
        key: name,
        come: |object| {
            readable(Kind::IpamBlock, object, |block| {
                Update::Block(Box::new(block))
            })
        },
        gone: |name| Some(Update::BlockGone(name)),
    }
}

fn configuration() -> Source<IPAMConfiguration> {
    Source {
        kind: Kind::IpamConfiguration,
        optional: false,
        judge: None,
        key: name,
        come: |object| {
            let parsed = object
                .map_err(|bad| undecodable(&bad))
                .and_then(|object| ipam_configuration::Configuration::try_from(&object));
            match parsed {
                Ok(configuration) => Some(Update::Configuration(configuration)),
                Err(error) => {
                    tracing::warn!(%error, "the IPAMConfiguration is not understood; the last good one stays");
                    None
                }
            }
        },
        gone: |_| {
            Some(Update::Configuration(
                ipam_configuration::Configuration::default(),
            ))
        },
    }
}

fn undecodable_policy(problem: String) -> k8s::PolicyError {
    k8s::PolicyError {
        field: "spec".into(),
        problem,
        closed: None,
    }
}

fn undecodable(bad: &InvalidObject) -> crds::FieldError {
    crds::FieldError {
        field: "spec".into(),
        problem: bad.error.clone(),
    }
}
