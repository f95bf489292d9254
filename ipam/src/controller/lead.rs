//! What the leader does: feeds the board, carries out what it wants.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use api::pinned::Identity;
use crds::Condition;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use super::reports::Service;
use super::{Clock, objects, publish, write};
use crate::args::Args;
use crate::programmed::{Board, Input, Key, Object, Output, StreamId};

/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    /// Something for the board.
    Input(Input),
    /// A policy, with all its conditions.
    Policy(Key, Object, Vec<Condition>),
    /// felix on that node has opened a stream; it ends when told why.
    Opened(StreamId, String, oneshot::Sender<String>),
    /// One of the watches has told everything.
    Complete,
}

/// Events that wait before their source has to.
const QUEUE: usize = 1024;
/// Events taken before the board is asked.
const AT_ONCE: usize = 256;
/// Streams of one connection; felix has one.
const STREAMS: u32 = 2;
/// A stream older than this ends and comes back: tokens are looked at anew.
const AGE: Duration = Duration::from_secs(3600);
const AGE_GRACE: Duration = Duration::from_secs(1);
/// How often a connection that is quiet is tried.
const ALIVE: Duration = Duration::from_secs(20);
const ALIVE_ANSWER: Duration = Duration::from_secs(10);

/// Leads, until it is dropped.
pub(super) async fn lead(client: &Client, args: &Args, clock: Clock) -> anyhow::Result<()> {
    let identity = Identity::generate()?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("listening on {}", args.listen))?;
    let (events, mut from) = mpsc::channel(QUEUE);
    // Everything that is started here ends with it.
    let mut tasks = JoinSet::new();
    objects::start(client, &mut tasks, &events);
    let mut leader = Leader {
        client,
        clock,
        board: Board::new(clock.now()),
        conditions: BTreeMap::new(),
        streams: BTreeMap::new(),
        writes: JoinSet::new(),
    };
    let mut lists = objects::LISTS;
    while lists > 0 {
        let event = from.recv().await.context("the watches have ended")?;
        match event {
            Event::Complete => lists -= 1,
            other => leader.take(other),
        }
    }
    leader.input(Input::Listed);
    tracing::info!("policies and nodes are known; felix may report");
    let connections = ReceiverStream::new(identity.accept(listener));
    let service = Service::server(client, &args.felix_account, events);
    let server = Server::builder()
        .max_concurrent_streams(STREAMS)
        .max_connection_age(AGE)
        .max_connection_age_grace(AGE_GRACE)
        .http2_keepalive_interval(Some(ALIVE))
        .http2_keepalive_timeout(Some(ALIVE_ANSWER))
        .add_service(service);
    tasks.spawn(async move {
        if let Err(error) = server.serve_with_incoming(connections).await {
            tracing::error!(%error, "serving felix");
        }
    });
    tasks.spawn(publish::publish(
        client.clone(),
        publish::object(args, &identity),
    ));
    leader.run(from).await
}

struct Leader<'a> {
    client: &'a Client,
    clock: Clock,
    board: Board,
    /// All conditions of every policy: a write replaces them together.
    conditions: BTreeMap<Key, Vec<Condition>>,
    streams: BTreeMap<StreamId, oneshot::Sender<String>>,
    writes: JoinSet<Input>,
}

impl Leader<'_> {
    async fn run(mut self, mut from: mpsc::Receiver<Event>) -> anyhow::Result<()> {
        loop {
            while let Some(output) = self.board.poll(self.clock.now()) {
                self.carry_out(output);
            }
            let timeout = self.board.next_timeout().map(|at| self.clock.at(at).into());
            tokio::select! {
                event = from.recv() => self.take(event.context("everybody has gone")?),
                Some(written) = self.writes.join_next() => match written {
                    Ok(input) => self.input(input),
                    Err(error) => anyhow::bail!("a write: {error}"),
                },
                () = sleep_until(timeout) => self.input(Input::Tick),
            }
            for _ in 0..AT_ONCE {
                let Ok(event) = from.try_recv() else { break };
                self.take(event);
            }
        }
    }

    fn input(&mut self, input: Input) {
        self.board.handle(input, self.clock.now());
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Input(input) => {
                match &input {
                    Input::Gone(key) => drop(self.conditions.remove(key)),
                    Input::Closed(stream) => drop(self.streams.remove(stream)),
                    _ => {}
                }
                self.input(input);
            }
            Event::Policy(key, object, conditions) => {
                self.conditions.insert(key.clone(), conditions);
                self.input(Input::Object(key, object));
            }
            Event::Opened(stream, node, close) => {
                tracing::info!(node, "felix reports");
                self.streams.insert(stream, close);
                self.input(Input::Opened(stream, node));
            }
            // Each says so once, and all have.
            Event::Complete => {}
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Close(stream, why) => {
                if let Some(close) = self.streams.remove(&stream) {
                    tracing::info!(stream, why, "a stream of reports is ended");
                    // It may have ended by itself.
                    let _ = close.send(why);
                }
            }
            Output::Write(key, version, told) => {
                let before = self.conditions.get(&key).map_or(&[][..], Vec::as_slice);
                let conditions = write::updated(before, &told);
                let client = self.client.clone();
                self.writes.spawn(async move {
                    let outcome = write::write(client, &key, &version, &told, &conditions).await;
                    Input::Written(key, outcome)
                });
            }
        }
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
