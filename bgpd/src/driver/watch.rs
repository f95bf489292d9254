//! Follows the Kubernetes API: feeds [`Cluster`] and passes on the configuration it makes.
//!
//! Watches end and come back by themselves; while they are away everything stays as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crds::{BGPConfiguration, BGPPeer, IPPool};
use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll};
use k8s_openapi::api::core::v1::Node;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event as Watched};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Event, accepted};
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
}

/// Kinds that must be listed before there is a configuration.
const NEEDED: [Kind; 4] = [Kind::OwnNode, Kind::Configuration, Kind::Peer, Kind::Pool];

impl Said {
    fn kind(&self) -> Kind {
        match self {
            Self::OwnNode(_) => Kind::OwnNode,
            Self::AllNodes(_) => Kind::AllNodes,
            Self::Configuration(_) => Kind::Configuration,
            Self::Peer(_) => Kind::Peer,
            Self::Pool(_) => Kind::Pool,
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
        accepted: accepted::Writer::new(client.clone(), cluster.node()),
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
                watches.accepted.write_due().await;
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
    accepted: accepted::Writer,
    first: Option<oneshot::Sender<First>>,
    /// Something was seen that no configuration was made of yet.
    changed: bool,
    told: Option<Config>,
    problems: Vec<String>,
    complaint: Option<String>,
    events: mpsc::Sender<Event>,
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
    }

    fn take(&mut self, said: Said) {
        let kind = said.kind();
        match said {
            Said::Failed(_, error) => {
                let error = error.to_string();
                if self
                    .errors
                    .get(&kind)
                    .is_none_or(|(known, _)| *known != error)
                {
                    warn!(?kind, error, "a watch failed, trying again");
                }
                self.errors.insert(kind, (error, Instant::now()));
                return;
            }
            Said::OwnNode(event) => {
                let cluster = &mut self.cluster;
                list(
                    &mut self.listing,
                    &mut self.listed,
                    kind,
                    event,
                    |change| match change {
                        Change::Applied(_, node) => cluster.node_applied(&node),
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
                let cluster = &mut self.cluster;
                list(
                    &mut self.listing,
                    &mut self.listed,
                    kind,
                    event,
                    |change| match change {
                        Change::Applied(name, object) if name == crds::SINGLETON => {
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
                let (cluster, accepted) = (&mut self.cluster, &mut self.accepted);
                list(
                    &mut self.listing,
                    &mut self.listed,
                    kind,
                    event,
                    |change| match change {
                        Change::Applied(name, object) => {
                            accepted.seen(&name, &object);
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
        }
        self.changed = true;
        self.errors.remove(&kind);
        if self.cluster.mesh() && !self.listing.contains_key(&Kind::AllNodes) {
            // Once begun it goes on; without the mesh its Nodes are not used.
            self.listing.insert(Kind::AllNodes, BTreeSet::new());
            let all = watcher::Config::default();
            self.streams.push(stream(
                Api::all(self.client.clone()),
                all,
                Kind::AllNodes,
                Said::AllNodes,
            ));
        }
    }

    /// Everything that the configuration needs has been listed once.
    fn complete(&self) -> bool {
        let mesh_known = !self.cluster.mesh() || self.listed.contains(&Kind::AllNodes);
        mesh_known && NEEDED.iter().all(|kind| self.listed.contains(kind))
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
            self.accepted.judge(self.cluster.verdicts());
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
            names.insert(object.name_any());
            take(Change::Applied(object.name_any(), object));
        }
        Watched::InitDone => {
            take(Change::Only(std::mem::take(names)));
            listed.insert(kind);
        }
        Watched::Apply(object) => take(Change::Applied(object.name_any(), object)),
        Watched::Delete(object) => take(Change::Deleted(object.name_any())),
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
