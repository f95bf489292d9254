//! Follows the Kubernetes API: feeds [`Cluster`] and passes on the configuration it makes.
//!
//! Watches end and come back by themselves; while they are away everything stays as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crds::{BGPConfiguration, BGPFilter, BGPPeer, IPPool};
use futures::StreamExt as _;
use futures::stream::{AbortHandle, BoxStream, SelectAll, abortable};
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event as Watched};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Event, accepted, node_event};
use crate::config::Config;
use crate::config::bootstrap::Bootstrap;
use crate::config::kubernetes::{Cluster, Outcome, Read};

/// How often due conditions are written and old errors forgotten.
const TICK: Duration = Duration::from_millis(500);

/// An error of a watch that was not repeated for so long is over: watches try again within half of it.
const ERROR_LIFE: Duration = Duration::from_secs(60);

/// The first configuration and what is wrong with it.
pub(crate) type First = (Config, String);

/// What a watch said.
enum Said {
    OwnNode(Watched<Node>),
    AllNodes(Watched<Node>),
    Configuration(Watched<DeserializeGuard<BGPConfiguration>>),
    Peer(Watched<DeserializeGuard<BGPPeer>>),
    Pool(Watched<DeserializeGuard<IPPool>>),
    Filter(Watched<DeserializeGuard<BGPFilter>>),
    Pod(Box<Watched<Pod>>),
    /// The Secret of that name.
    Secret(String, Watched<Secret>),
    Failed(Kind, watcher::Error),
}

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    OwnNode,
    AllNodes,
    Configuration,
    Peer,
    Pool,
    Filter,
    Pod,
    Secret,
}

/// Kinds that must be listed before there is a configuration.
const NEEDED: [Kind; 5] = [
    Kind::OwnNode,
    Kind::Configuration,
    Kind::Peer,
    Kind::Pool,
    Kind::Filter,
];

impl Said {
    fn kind(&self) -> Kind {
        match self {
            Self::OwnNode(_) => Kind::OwnNode,
            Self::AllNodes(_) => Kind::AllNodes,
            Self::Configuration(_) => Kind::Configuration,
            Self::Peer(_) => Kind::Peer,
            Self::Pool(_) => Kind::Pool,
            Self::Filter(_) => Kind::Filter,
            Self::Pod(_) => Kind::Pod,
            Self::Secret(..) => Kind::Secret,
            Self::Failed(kind, _) => *kind,
        }
    }
}

/// Follows the API for as long as the program runs. The first configuration goes to `first`, if it still waits.
pub(crate) async fn follow(
    client: Client,
    cluster: Cluster,
    bootstrap: Option<Bootstrap>,
    first: oneshot::Sender<First>,
    events: mpsc::Sender<Event>,
) {
    let mut watches = Watches {
        streams: SelectAll::new(),
        peers: accepted::Writer::new::<BGPPeer>(client.clone(), cluster.node()),
        filters: accepted::Writer::new::<BGPFilter>(client.clone(), cluster.node()),
        configurations: accepted::Writer::new::<BGPConfiguration>(client.clone(), cluster.node()),
        node: node_event::Writer::new(client.clone(), cluster.node()),
        secrets: BTreeMap::new(),
        client,
        cluster,
        bootstrap,
        listing: BTreeMap::new(),
        listed: BTreeSet::new(),
        errors: BTreeMap::new(),
        first: Some(first),
        changed: true,
        told: None,
        problems: Vec::new(),
        complaint: None,
        events,
    };
    watches.start();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            said = watches.streams.next() => match said {
                Some(said) => watches.take(said),
                // A watch never ends by itself.
                None => return,
            },
            _ = tick.tick() => {
                watches.errors.retain(|_, (_, at)| at.elapsed() < ERROR_LIFE);
                watches.peers.write_due().await;
                watches.filters.write_due().await;
                watches.configurations.write_due().await;
                watches.node.write(watches.cluster.node_problem()).await;
            }
        }
        if watches.tell().await.is_err() {
            return;
        }
    }
}

struct Watches {
    client: Client,
    streams: SelectAll<BoxStream<'static, Said>>,
    cluster: Cluster,
    bootstrap: Option<Bootstrap>,
    /// Names seen since a list began.
    listing: BTreeMap<Kind, BTreeSet<String>>,
    listed: BTreeSet<Kind>,
    errors: BTreeMap<Kind, (String, Instant)>,
    peers: accepted::Writer,
    filters: accepted::Writer,
    configurations: accepted::Writer,
    node: node_event::Writer,
    secrets: BTreeMap<String, SecretWatch>,
    first: Option<oneshot::Sender<First>>,
    /// Something was seen that no configuration was made of yet.
    changed: bool,
    told: Option<Config>,
    problems: Vec<String>,
    complaint: Option<String>,
    events: mpsc::Sender<Event>,
}

/// The watch of one Secret.
struct SecretWatch {
    abort: AbortHandle,
    /// The list that has begun had it.
    found: bool,
    /// A list has ended: whether the Secret is there is known.
    listed: bool,
}

/// The program ends.
struct Ending;

impl Watches {
    fn start(&mut self) {
        let all = || watcher::Config::default();
        let own = all().fields(&format!("metadata.name={}", self.cluster.node()));
        let client = &self.client;
        self.streams.push(stream(
            Api::all(client.clone()),
            own,
            Kind::OwnNode,
            Said::OwnNode,
        ));
        self.streams.push(stream(
            Api::all(client.clone()),
            all(),
            Kind::Configuration,
            Said::Configuration,
        ));
        self.streams.push(stream(
            Api::all(client.clone()),
            all(),
            Kind::Peer,
            Said::Peer,
        ));
        self.streams.push(stream(
            Api::all(client.clone()),
            all(),
            Kind::Pool,
            Said::Pool,
        ));
        self.streams.push(stream(
            Api::all(client.clone()),
            all(),
            Kind::Filter,
            Said::Filter,
        ));
    }

    /// Watches what has become needed, and no longer the Secrets that are not.
    fn follow_needs(&mut self) {
        let client = &self.client;
        if self.cluster.needs_nodes() && !self.listing.contains_key(&Kind::AllNodes) {
            // Once begun it goes on; when they are not needed its Nodes are not used.
            self.listing.insert(Kind::AllNodes, BTreeSet::new());
            let (api, all) = (Api::all(client.clone()), watcher::Config::default());
            let nodes = stream(api, all, Kind::AllNodes, Said::AllNodes);
            self.streams.push(nodes);
        }
        if self.cluster.needs_pods() && !self.listing.contains_key(&Kind::Pod) {
            self.listing.insert(Kind::Pod, BTreeSet::new());
            let here = format!("spec.nodeName={}", self.cluster.node());
            let here = watcher::Config::default().fields(&here);
            let said = |event| Said::Pod(Box::new(event));
            let pods = stream(Api::all(client.clone()), here, Kind::Pod, said);
            self.streams.push(pods);
        }
        let wanted = self.cluster.secrets();
        self.secrets.retain(|name, watch| {
            let stays = wanted.contains(name);
            if !stays {
                watch.abort.abort();
            }
            stays
        });
        for name in wanted {
            if self.secrets.contains_key(&name) {
                continue;
            }
            let one = watcher::Config::default().fields(&format!("metadata.name={name}"));
            let said = name.clone();
            let secret = stream(
                Api::<Secret>::default_namespaced(client.clone()),
                one,
                Kind::Secret,
                move |event| Said::Secret(said.clone(), event),
            );
            let (secret, abort) = abortable(secret);
            let watch = SecretWatch {
                abort,
                found: false,
                listed: false,
            };
            self.secrets.insert(name, watch);
            self.streams.push(secret.boxed());
        }
    }

    /// Takes what the watch of one Secret says.
    fn take_secret(&mut self, name: &str, event: Watched<Secret>) {
        let Some(watch) = self.secrets.get_mut(name) else {
            // It was ended.
            return;
        };
        watch.listed |= matches!(event, Watched::InitDone);
        match event {
            Watched::Init => watch.found = false,
            Watched::InitApply(secret) | Watched::Apply(secret) => {
                watch.found = true;
                let data = secret.data.unwrap_or_default();
                let data = data.into_iter().map(|(key, value)| (key, value.0));
                self.cluster.secret_is(name, Some(data.collect()));
            }
            Watched::InitDone if watch.found => {}
            Watched::InitDone | Watched::Delete(_) => self.cluster.secret_is(name, None),
        }
    }

    fn take(&mut self, said: Said) {
        let kind = said.kind();
        match said {
            Said::Failed(_, error) => {
                let absent = matches!(
                    &error,
                    watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404
                );
                let error = error.to_string();
                if self
                    .errors
                    .get(&kind)
                    .is_none_or(|(known, _)| *known != error)
                {
                    warn!(?kind, error, "a watch failed, trying again");
                }
                self.errors.insert(kind, (error, Instant::now()));
                if kind == Kind::Filter && absent {
                    // A cluster whose definitions are older than this program has none.
                    self.changed |= self.listed.insert(kind);
                }
                return;
            }
            Said::OwnNode(event) => {
                let (cluster, writer) = (&mut self.cluster, &mut self.node);
                list(
                    &mut self.listing,
                    &mut self.listed,
                    kind,
                    event,
                    |change| match change {
                        Change::Applied(_, node) => {
                            writer.seen(&node);
                            cluster.node_applied(&node);
                        }
                        Change::Deleted(name) => cluster.node_deleted(&name),
                        // The list has this node only.
                        Change::Only(_) => {}
                    },
                );
            }
            Said::AllNodes(event) => {
                let cluster = &mut self.cluster;
                list(
                    &mut self.listing,
                    &mut self.listed,
                    kind,
                    event,
                    |change| match change {
                        Change::Applied(_, node) => cluster.node_applied(&node),
                        Change::Deleted(name) => cluster.node_deleted(&name),
                        Change::Only(names) => cluster.nodes_are(&names),
                    },
                );
            }
            Said::Configuration(event) => {
                let (cluster, accepted) = (&mut self.cluster, &mut self.configurations);
                list(
                    &mut self.listing,
                    &mut self.listed,
                    kind,
                    event,
                    |change| match change {
                        Change::Applied(name, object) if name == crds::SINGLETON => {
                            accepted.seen(&name, &object, |it| {
                                Some(it.status.as_ref()?.conditions.clone())
                            });
                            cluster.configuration_is(Some(read(object)));
                        }
                        Change::Deleted(name) if name == crds::SINGLETON => {
                            cluster.configuration_is(None)
                        }
                        Change::Only(names) if !names.contains(crds::SINGLETON) => {
                            cluster.configuration_is(None)
                        }
                        _ => {}
                    },
                );
            }
            Said::Peer(event) => {
                let (cluster, accepted) = (&mut self.cluster, &mut self.peers);
                list(
                    &mut self.listing,
                    &mut self.listed,
                    kind,
                    event,
                    |change| match change {
                        Change::Applied(name, object) => {
                            accepted.seen(&name, &object, |it| {
                                Some(it.status.as_ref()?.conditions.clone())
                            });
                            cluster.peer_applied(&name, read(object));
                        }
                        Change::Deleted(name) => {
                            accepted.gone(&name);
                            cluster.peer_deleted(&name);
                        }
                        Change::Only(names) => {
                            accepted.only(&names);
                            cluster.peers_are(&names);
                        }
                    },
                );
            }
            Said::Pool(event) => {
                let cluster = &mut self.cluster;
                list(
                    &mut self.listing,
                    &mut self.listed,
                    kind,
                    event,
                    |change| match change {
                        Change::Applied(name, object) => cluster.pool_applied(&name, read(object)),
                        Change::Deleted(name) => cluster.pool_deleted(&name),
                        Change::Only(names) => cluster.pools_are(&names),
                    },
                );
            }
            Said::Filter(event) => {
                let (cluster, accepted) = (&mut self.cluster, &mut self.filters);
                list(
                    &mut self.listing,
                    &mut self.listed,
                    kind,
                    event,
                    |change| match change {
                        Change::Applied(name, object) => {
                            accepted.seen(&name, &object, |it| {
                                Some(it.status.as_ref()?.conditions.clone())
                            });
                            cluster.filter_applied(&name, read(object));
                        }
                        Change::Deleted(name) => {
                            accepted.gone(&name);
                            cluster.filter_deleted(&name);
                        }
                        Change::Only(names) => {
                            accepted.only(&names);
                            cluster.filters_are(&names);
                        }
                    },
                );
            }
            Said::Pod(event) => {
                let cluster = &mut self.cluster;
                list(
                    &mut self.listing,
                    &mut self.listed,
                    kind,
                    *event,
                    |change| match change {
                        Change::Applied(name, pod) => cluster.pod_applied(&name, &pod),
                        Change::Deleted(name) => cluster.pod_deleted(&name),
                        Change::Only(names) => cluster.pods_are(&names),
                    },
                );
            }
            Said::Secret(name, event) => self.take_secret(&name, event),
        }
        self.changed = true;
        self.errors.remove(&kind);
        self.follow_needs();
    }

    /// Everything that the configuration needs has been listed once.
    fn complete(&self) -> bool {
        let known = |needed: bool, kind| !needed || self.listed.contains(&kind);
        known(self.cluster.needs_nodes(), Kind::AllNodes)
            // Without the right to see pods everything else goes on.
            && known(self.cluster.needs_pods() && !self.errors.contains_key(&Kind::Pod), Kind::Pod)
            // A password that is on its way is no reason to end a session.
            && (self.errors.contains_key(&Kind::Secret) || self.secrets.values().all(|it| it.listed))
            && NEEDED.iter().all(|kind| self.listed.contains(kind))
    }

    /// Passes on what has changed.
    async fn tell(&mut self) -> Result<(), Ending> {
        if self.first.as_ref().is_some_and(oneshot::Sender::is_closed) {
            // The speaker has started with what it kept, and wants to know why.
            self.first = None;
            self.complaint = None;
        }
        if self.changed && self.complete() {
            self.changed = false;
            match self.cluster.outcome() {
                Ok(Outcome {
                    mut config,
                    mut problems,
                }) => {
                    self.cluster.used(&config);
                    if let Some(bootstrap) = &self.bootstrap {
                        problems.extend(bootstrap.add_to(&mut config));
                    }
                    self.problems = problems;
                    if self.told.as_ref() != Some(&config) {
                        self.told = Some(config.clone());
                        let complaint = self.complaints();
                        self.pass(config, complaint).await?;
                    }
                }
                Err(problem) => self.problems = vec![problem],
            }
            self.peers.judge(self.cluster.verdicts());
            self.filters.judge(self.cluster.filter_verdicts());
            let configuration = self.cluster.configuration_verdict();
            self.configurations
                .judge(configuration.into_iter().collect());
        }
        let complaint = self.complaints();
        if self.complaint.as_ref() != Some(&complaint) {
            if self.first.is_none() {
                self.send(Event::Complaint(complaint.clone())).await?;
            } else if !complaint.is_empty() {
                // There is no speaker yet to show it.
                warn!(complaint, "no configuration yet");
            }
            self.complaint = Some(complaint);
        }
        Ok(())
    }

    /// All that is not as it was asked for.
    fn complaints(&self) -> String {
        let away = self.errors.values().next().map(|(error, _)| {
            format!(
                "the Kubernetes API does not answer, the last configuration stays in force: {error}"
            )
        });
        let all: Vec<String> = away
            .into_iter()
            .chain(self.problems.iter().cloned())
            .collect();
        all.join("; ")
    }

    async fn pass(&mut self, config: Config, complaint: String) -> Result<(), Ending> {
        let config = match self.first.take() {
            None => config,
            Some(first) => match first.send((config, complaint)) {
                Ok(()) => return Ok(()),
                // The speaker has started with what it kept.
                Err((config, _)) => config,
            },
        };
        self.complaint = None;
        self.send(Event::Config(Ok(Box::new(config)))).await
    }

    async fn send(&mut self, event: Event) -> Result<(), Ending> {
        self.events.send(event).await.map_err(|_| Ending)
    }
}

/// What a watch's event means.
enum Change<K> {
    Applied(String, K),
    Deleted(String),
    /// Objects with other names are gone.
    Only(BTreeSet<String>),
}

/// Gathers the names of a list, so that what vanished unseen is found.
fn list<K: kube::Resource>(
    listing: &mut BTreeMap<Kind, BTreeSet<String>>,
    listed: &mut BTreeSet<Kind>,
    kind: Kind,
    event: Watched<K>,
    mut take: impl FnMut(Change<K>),
) {
    let names = listing.entry(kind).or_default();
    match event {
        Watched::Init => names.clear(),
        Watched::InitApply(object) => {
            names.insert(key(&object));
            take(Change::Applied(key(&object), object));
        }
        Watched::InitDone => {
            take(Change::Only(std::mem::take(names)));
            listed.insert(kind);
        }
        Watched::Apply(object) => take(Change::Applied(key(&object), object)),
        Watched::Delete(object) => take(Change::Deleted(key(&object))),
    }
}

/// What tells an object from others of its kind: namespace and name, or the name.
fn key<K: kube::Resource>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

fn read<K>(object: DeserializeGuard<K>) -> Read<K> {
    object.0.map_err(|invalid| {
        debug!(error = invalid.error, "an object cannot be read");
        invalid.error
    })
}

fn stream<K>(
    api: Api<K>,
    config: watcher::Config,
    kind: Kind,
    said: impl Fn(Watched<K>) -> Said + Send + 'static,
) -> BoxStream<'static, Said>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watch(api, config)
        .default_backoff()
        .map(move |event| match event {
            Ok(event) => said(event),
            Err(error) => Said::Failed(kind, error),
        })
        .boxed()
}
