//! Tells the controller which policies are in force. Nothing here waits for it: without a controller everything is enforced,
//! and only the condition Programmed of policies stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use api::pinned::Peer;
use api::v1::policy_reports_client::PolicyReportsClient;
use api::v1::report_message::Body;
use api::v1::{EndOfReports, PolicyState, PolicyStates, ReportMessage, ReporterHello};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client};
use tokio::sync::{Notify, mpsc, watch as channel};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

use super::state;
use crate::agent::acks::InForce;
use crate::policy::model::{PolicyKey, PolicyKind};

/// Name of the ConfigMap in felix' own namespace.
const NAME: &str = "margay-controller";
/// Version of the contract.
const VERSION: u32 = 1;
/// Policies in one message, and messages that wait.
const BATCH: usize = 256;
const QUEUE: usize = 16;
/// Changes are gathered this long.
const GATHER: Duration = Duration::from_millis(50);
/// Longest answer to a call.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pauses between streams, the first and the longest; each is spread over its half.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];
/// A stream that lived so long was a good one.
const GOOD: Duration = Duration::from_secs(60);

/// What is in force, as the main loop says it and the stream reads it.
#[derive(Debug, Default)]
pub(super) struct Board {
    now: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    policies: BTreeMap<PolicyKey, InForce>,
    changed: BTreeSet<PolicyKey>,
    complete: bool,
}

impl Board {
    /// Some have changed, or all are known for the first time.
    pub(super) fn put(&self, changes: Vec<(PolicyKey, Option<InForce>)>) {
        let mut state = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = changes.is_empty() && state.complete;
        state.complete = true;
        for (key, now) in changes {
            if key.kind == PolicyKind::KubernetesNetworkPolicy {
                // It has no status to write.
                continue;
            }
            match now {
                Some(now) => state.policies.insert(key.clone(), now),
                None => state.policies.remove(&key),
            };
            state.changed.insert(key);
        }
        drop(state);
        if !quiet {
            self.news.notify_one();
        }
    }

    /// Everything; `None` while it is not known.
    fn snapshot(&self) -> Option<Vec<PolicyState>> {
        let mut state = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.complete {
            return None;
        }
        state.changed.clear();
        let all = state.policies.iter();
        Some(all.map(|(key, now)| told(key, Some(now))).collect())
    }

    /// What changed since the last look.
    fn changes(&self) -> Vec<PolicyState> {
        let mut state = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = std::mem::take(&mut state.changed).into_iter();
        changed
            .map(|key| told(&key, state.policies.get(&key)))
            .collect()
    }
}

fn told(key: &PolicyKey, now: Option<&InForce>) -> PolicyState {
    PolicyState {
        kind: kind(key.kind).to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        selects: now.is_some(),
        uid: now.map(|it| it.uid.clone()).unwrap_or_default(),
        generation: now.and_then(|it| it.generation).unwrap_or_default(),
        error: now.and_then(|it| it.error.clone()).unwrap_or_default(),
    }
}

/// As the contract names it.
const fn kind(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::KubernetesNetworkPolicy => "",
        PolicyKind::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        PolicyKind::NetworkPolicy => "NetworkPolicy",
        PolicyKind::GlobalNetworkPolicy => "GlobalNetworkPolicy",
    }
}

/// Where the controller that leads is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    certificate: String,
    addresses: Vec<SocketAddr>,
}

impl Place {
    fn read(object: &ConfigMap) -> Result<Self, String> {
        let field = |name: &str| {
            let value = object.data.as_ref().and_then(|it| it.get(name));
            value.ok_or_else(|| format!("data.{name} is missing"))
        };
        let addresses = field("addresses")?.split(',').map(str::trim);
        let addresses = addresses.map(|it| {
            it.parse()
                .map_err(|_| format!("data.addresses: {it:?} is no address with a port"))
        });
        Ok(Self {
            certificate: field("certificate")?.clone(),
            addresses: addresses.collect::<Result<_, _>>()?,
        })
    }
}

/// What a stream needs.
pub(super) struct Reporter {
    pub(super) client: Client,
    pub(super) node: String,
    /// The token for the controller; read anew for each stream, as it is replaced from time to time.
    pub(super) token: PathBuf,
    pub(super) board: Arc<Board>,
}

impl Reporter {
    /// Keeps a stream to whoever leads, for ever.
    pub(super) async fn run(self) {
        let (found, mut place) = channel::channel(None);
        tokio::spawn(look(self.client.clone(), found));
        let [first, longest] = PAUSES;
        let mut pause = first;
        let mut said = String::new();
        loop {
            let Some(now) = place.borrow_and_update().clone() else {
                if place.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let started = Instant::now();
            let ended = tokio::select! {
                ended = self.stream(&now) => ended,
                changed = place.changed() => match changed {
                    Ok(()) => {
                        pause = first;
                        // All nodes see it at once.
                        tokio::time::sleep(spread(first)).await;
                        continue;
                    }
                    Err(_) => return,
                },
            };
            if started.elapsed() > GOOD {
                pause = first;
            }
            let why = ended
                .err()
                .map(|error| format!("{error:#}"))
                .unwrap_or_default();
            if why != said {
                tracing::warn!(
                    reason = why,
                    "the controller does not hear what is in force; it is tried again, and nothing else waits for it"
                );
                said = why;
            }
            tokio::select! {
                () = tokio::time::sleep(spread(pause)) => {}
                changed = place.changed() => if changed.is_err() { return },
            }
            pause = (pause * 2).min(longest);
        }
    }

    /// One stream, to its end.
    async fn stream(&self, place: &Place) -> anyhow::Result<()> {
        let peer = Peer::new(&place.certificate)?;
        let mut connected = Err(anyhow::anyhow!("it has no address"));
        for address in &place.addresses {
            connected = peer
                .connect(*address)
                .await
                .with_context(|| format!("connecting to {address}"));
            if connected.is_ok() {
                break;
            }
        }
        let token = tokio::fs::read_to_string(&self.token).await;
        let token = token.with_context(|| format!("reading {}", self.token.display()))?;
        let (messages, outgoing) = mpsc::channel(QUEUE);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        let mut bearer: MetadataValue<Ascii> = format!("Bearer {}", token.trim()).parse()?;
        bearer.set_sensitive(true);
        request.metadata_mut().insert("authorization", bearer);
        let mut client = PolicyReportsClient::new(connected?);
        let hello = Body::Hello(ReporterHello {
            version: VERSION,
            node: self.node.clone(),
        });
        messages.send(message(hello)).await?;
        let answer = tokio::time::timeout(PATIENCE, client.report(request)).await;
        let mut answers = answer
            .context("the controller does not answer")??
            .into_inner();
        let tell = async {
            self.tell(&messages).await?;
            Ok(())
        };
        let listen = async {
            while answers.message().await?.is_some() {}
            bail!("the controller ended the stream")
        };
        tokio::select! {
            told = tell => told,
            heard = listen => heard,
        }
    }

    async fn tell(&self, messages: &mpsc::Sender<ReportMessage>) -> anyhow::Result<()> {
        let snapshot = loop {
            match self.board.snapshot() {
                Some(snapshot) => break snapshot,
                None => self.board.news.notified().await,
            }
        };
        send(messages, snapshot).await?;
        messages.send(message(Body::End(EndOfReports {}))).await?;
        tracing::info!("the controller hears what is in force");
        loop {
            self.board.news.notified().await;
            tokio::time::sleep(GATHER).await;
            send(messages, self.board.changes()).await?;
        }
    }
}

async fn send(
    messages: &mpsc::Sender<ReportMessage>,
    states: Vec<PolicyState>,
) -> anyhow::Result<()> {
    for batch in states.chunks(BATCH) {
        let states = batch.to_vec();
        messages
            .send(message(Body::States(PolicyStates { states })))
            .await?;
    }
    Ok(())
}

const fn message(body: Body) -> ReportMessage {
    ReportMessage { body: Some(body) }
}

/// A time between a half of it and all: nodes that lost the same controller do not come back together.
fn spread(pause: Duration) -> Duration {
    let id = state::random_id().unwrap_or_default();
    let dice = id.bytes().fold(0_u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    pause / 2 + pause / 2 * (dice % 1000) / 1000
}

/// Follows the ConfigMap that says where the controller is.
async fn look(client: Client, found: channel::Sender<Option<Place>>) {
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let one = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let mut events = watch(api, one).default_backoff().boxed();
    let mut said = String::new();
    while let Some(event) = events.next().await {
        let object = match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => object,
            // A controller whose word was deleted is where it was.
            Ok(Event::Init | Event::InitDone | Event::Delete(_)) => continue,
            Err(error) => {
                let error = error.to_string();
                if error != said {
                    tracing::warn!(error, "looking for the controller");
                    said = error;
                }
                continue;
            }
        };
        match Place::read(&object) {
            Ok(place) => {
                found.send_if_modified(|now| {
                    let new = now.as_ref() != Some(&place);
                    *now = Some(place);
                    new
                });
            }
            Err(problem) => {
                tracing::warn!(
                    problem,
                    "the ConfigMap {NAME} does not say where the controller is"
                );
            }
        }
        if found.is_closed() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, kind: PolicyKind) -> PolicyKey {
        PolicyKey {
            namespace: String::new(),
            name: name.to_owned(),
            kind,
        }
    }

    #[test]
    fn a_snapshot_is_everything_and_what_follows_are_changes() {
        let board = Board::default();
        assert!(board.snapshot().is_none());
        let now = InForce {
            uid: "u".to_owned(),
            generation: Some(4),
            error: None,
        };
        let global = PolicyKind::GlobalNetworkPolicy;
        board.put(vec![
            (key("a", global), Some(now.clone())),
            (key("b", global), Some(now.clone())),
            (key("c", PolicyKind::KubernetesNetworkPolicy), Some(now)),
        ]);
        let names = |states: Vec<PolicyState>| -> Vec<(String, bool)> {
            let short = |it: PolicyState| (it.name, it.selects);
            states.into_iter().map(short).collect()
        };
        let all = board.snapshot().map(names);
        assert_eq!(all, Some(vec![("a".into(), true), ("b".into(), true)]));
        assert_eq!(names(board.changes()), []);
        board.put(vec![(key("a", global), None)]);
        assert_eq!(names(board.changes()), [("a".into(), false)]);
        assert_eq!(board.snapshot().map(names), Some(vec![("b".into(), true)]));
    }

    #[test]
    fn a_place_has_addresses_and_a_certificate() {
        let object = |addresses: &str| ConfigMap {
            data: Some(BTreeMap::from([
                ("addresses".to_owned(), addresses.to_owned()),
                ("certificate".to_owned(), "PEM".to_owned()),
            ])),
            ..ConfigMap::default()
        };
        let place = Place::read(&object("192.0.2.1:9453,[2001:db8::1]:9453")).unwrap();
        assert_eq!(place.addresses.len(), 2);
        let problem = Place::read(&object("192.0.2.1")).unwrap_err();
        assert!(problem.contains("\"192.0.2.1\""), "{problem}");
        let problem = Place::read(&ConfigMap::default()).unwrap_err();
        assert_eq!(problem, "data.addresses is missing");
    }

    #[test]
    fn pauses_are_spread() {
        let pause = Duration::from_secs(1);
        let drawn: BTreeSet<Duration> = (0..50).map(|_| spread(pause)).collect();
        assert!(drawn.len() > 20);
        assert!(drawn.iter().all(|it| (pause / 2..=pause).contains(it)));
    }
}
