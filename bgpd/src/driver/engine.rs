//! The one task that owns the speaker: events in, outputs carried out, one timer.

mod bfd;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::v1;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::ask::{self, DrainOrder};
use super::bfd::{Bfd, Verdict};
use super::bmp::Stations;
use super::fib::{Fib, Told};
use super::grpc::{Felix, Query, Said};
use super::keys::Keys;
use super::life::Life;
use super::record::{self, Line, Recording};
use super::sock::{self, Dial};
use super::tcp::{Connections, Listeners};
use super::{Event, events, state, status};
use crate::Millis;
use crate::config::{Config, Peer, PeerKey};
use crate::nexthop::Change;
use crate::speaker::{ConnId, DataplaneReport, Input, Output, Speaker, TcpEvent};

/// Events handled before the timer is looked at again.
const BATCH: usize = 32;

/// How often the speaker may go on with what it has to say, before others have their turn.
const ROUNDS: usize = 8;

/// What the engine starts with.
pub(crate) struct Start {
    pub(crate) config: Config,
    /// "file" or "kubernetes".
    pub(crate) source: &'static str,
    /// Why it is not the newest one; empty: it is.
    pub(crate) complaint: String,
    /// Sessions wait for felix, which brings the origins.
    pub(crate) wait_for_felix: bool,
    /// What is recorded.
    pub(crate) recording: Recording,
    /// Whether there was an earlier life.
    pub(crate) life: Life,
    /// Where to keep the last good configuration.
    pub(crate) keep: Option<PathBuf>,
}

/// The speaker and what carries its outputs out.
pub(crate) struct Engine {
    speaker: Speaker,
    /// Started with the first session.
    bfd: Option<Bfd>,
    bfd_events: (mpsc::Sender<Verdict>, mpsc::Receiver<Verdict>),
    stations: Stations,
    events: mpsc::Sender<Event>,
    keys: Arc<Keys>,
    connections: Connections,
    listeners: Listeners,
    fib: Arc<Fib>,
    /// Best routes that the speaker has said since it was last given to the fib, and that they are complete.
    best: (Vec<Told>, bool),
    started: Instant,
    /// felix's stream and the generation to acknowledge there once peers have been told: it removes what was withdrawn then.
    taken: Option<(u64, u64)>,
    /// Whose bytes the speaker has taken last since it settled.
    heard: Option<ConnId>,
    facts: status::Facts,
    recording: Recording,
    life: Life,
    keep: Option<PathBuf>,
    /// Where to keep what is drained.
    drain: Option<PathBuf>,
}

impl Engine {
    pub(crate) fn new(
        start: Start,
        kernel: Vec<Change>,
        events: mpsc::Sender<Event>,
        fib: Arc<Fib>,
    ) -> Self {
        let Start {
            config,
            source,
            complaint,
            wait_for_felix,
            mut recording,
            life,
            keep,
        } = start;
        let seed = seed();
        if recording.is_on() {
            let config = record::without_passwords(&config);
            recording.line(&Line::Start { seed, config });
        }
        let started = Instant::now();
        let keys = Arc::new(Keys::default());
        keys.configure(&config);
        let listeners = Listeners::new(config.listen_port, &keys, &events);
        info!(source, asn = config.asn, router_id = %config.router_id, peers = config.peers.len(), "starting");
        let mut engine = Self {
            speaker: Speaker::new(config, seed, 0),
            bfd: None,
            bfd_events: mpsc::channel(super::bfd::EVENTS),
            stations: Stations::default(),
            connections: Connections::new(events.clone(), Arc::clone(&keys)),
            keys,
            events,
            listeners,
            fib,
            best: (Vec::new(), false),
            started,
            taken: None,
            heard: None,
            facts: status::Facts {
                source,
                complaint,
                felix: None,
            },
            recording,
            life,
            keep,
            drain: None,
        };
        engine.keep();
        let stations = engine.speaker.config().bmp.clone();
        engine.stations.configure(&stations, &engine.events);
        engine.advertise();
        engine.kernel(kernel);
        if !wait_for_felix {
            let report = DataplaneReport {
                boot_id: String::new(),
                preserved: Vec::new(),
                restarted: false,
            };
            engine.input(Input::Dataplane(report));
            engine.input(Input::OriginsComplete);
        }
        engine.input(Input::Best(false));
        engine.settle();
        engine
    }

    /// Runs until the speaker fails for good.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Event>) -> anyhow::Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let due = self.speaker.next_timeout();
            let timer = async {
                match due {
                    Some(due) => {
                        tokio::time::sleep_until(self.started + Duration::from_millis(due)).await
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // A failure is not to wait for what has queued up.
                biased;
                Some((peer, event)) = self.bfd_events.1.recv() => {
                    self.input(Input::Bfd { peer, event });
                }
                count = inbox.recv_many(&mut batch, BATCH) => {
                    anyhow::ensure!(count > 0, "no event can come any more");
                }
                () = std::future::ready(()), if self.speaker.is_behind() => {}
                () = timer => {}
            }
            for event in batch.drain(..) {
                while let Ok((peer, event)) = self.bfd_events.1.try_recv() {
                    self.input(Input::Bfd { peer, event });
                }
                self.take(event);
            }
            let now = self.now();
            if self.speaker.next_timeout().is_some_and(|due| due <= now) {
                self.input(Input::Tick);
            }
            self.settle();
            self.recording.flush();
            if self.speaker.is_behind() {
                // What reads and writes has its turn too.
                tokio::task::yield_now().await;
            }
        }
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.started.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Accepted(stream, remote) => {
                let Ok(local) = stream.local_addr() else {
                    // It is gone already.
                    return;
                };
                let syn = sock::syn(&stream);
                let interface = self.speaker.interface_of(remote);
                let signed = syn.is_some_and(|it| it.signed);
                match self
                    .connections
                    .accept(stream, remote.ip(), interface, signed)
                {
                    Ok(conn) => {
                        let ttl = syn.map(|it| it.ttl);
                        let accepted = TcpEvent::Accepted { local, remote, ttl };
                        self.input(Input::Tcp(conn, accepted));
                    }
                    Err(error) => warn!(%remote, %error, "connection refused"),
                }
            }
            Event::Connected(conn, stream) => {
                if let Some(event) = self.connections.connected(conn, stream) {
                    self.input(Input::Tcp(conn, event));
                }
            }
            Event::Tcp(conn, event) => {
                if self.connections.admit(conn, &event) {
                    self.input(Input::Tcp(conn, event));
                }
            }
            Event::Bytes(conn, bytes, turn) => {
                if self.connections.has(conn) {
                    self.input(Input::Tcp(conn, TcpEvent::Bytes(bytes)));
                }
                drop(turn);
            }
            Event::Kernel(changes) => self.kernel(changes),
            Event::Config(Ok(config)) => self.configure(*config),
            Event::Config(Err(problem)) | Event::Complaint(problem) => {
                if self.facts.complaint != problem && !problem.is_empty() {
                    warn!(problem, "the newest configuration is not (all) in force");
                }
                self.facts.complaint = problem;
            }
            Event::Bmp(station, task, told) => {
                if let Some(event) = self.stations.take(&station, task, told) {
                    self.input(Input::Bmp { station, event });
                }
            }
            Event::Felix(felix) => self.felix(felix),
            Event::Query(query) => self.answer(query),
        }
    }

    fn configure(&mut self, config: Config) {
        self.facts.complaint.clear();
        if *self.speaker.config() == config {
            return;
        }
        info!(
            peers = config.peers.len(),
            pools = config.pools.len(),
            "new configuration"
        );
        if config.listen_port != self.listeners.port() {
            self.listeners = Listeners::new(config.listen_port, &self.keys, &self.events);
        }
        // A peer that takes the new key at once must find it; the connections follow when those that end have ended.
        self.keys.configure(&config);
        let stations = config.bmp.clone();
        self.input(Input::Config(config));
        self.stations.configure(&stations, &self.events);
        self.advertise();
        self.rekey();
        self.keep();
    }

    fn kernel(&mut self, changes: Vec<Change>) {
        self.input(Input::Kernel(changes));
        if self.keys.learn(self.speaker.routers()) {
            self.rekey();
        }
    }

    /// Gives connections the keys they need now. One that cannot have it ends.
    fn rekey(&mut self) {
        for (conn, reason) in self.connections.rekey() {
            warn!(%conn, reason, "connection closed");
            self.lose(conn, reason);
        }
    }

    /// Asks for router advertisements where peers on interfaces have to learn our address.
    fn advertise(&self) {
        let on = |peer: &Peer| match &peer.key {
            PeerKey::Interface(name) => Some(name.clone()),
            PeerKey::Address(_) => None,
        };
        let peers = &self.speaker.config().peers;
        self.fib.advertise(peers.iter().filter_map(on).collect());
    }

    /// Keeps the configuration for a start without the API.
    fn keep(&self) {
        if let Some(path) = &self.keep
            && let Err(e) = state::save(path, self.speaker.config())
        {
            warn!(path = %path.display(), error = format!("{e:#}"), "cannot keep the configuration for the next start");
        }
    }

    fn felix(&mut self, Felix { stream, said }: Felix) {
        if !self.fib.is_current(stream) {
            return;
        }
        match said {
            Said::Opened => {
                self.facts.felix = Some(stream);
                self.input(Input::Best(true));
                self.input(Input::OriginsBegin);
            }
            Said::Report(mut report) => {
                report.restarted = self.life.restarted(&report.boot_id);
                self.input(Input::Dataplane(report));
            }
            Said::Origin {
                generation,
                prefix,
                kind,
                withdrawn,
                idle,
            } => {
                self.input(Input::Origin {
                    prefix,
                    kind,
                    withdrawn,
                });
                self.input(Input::OriginIdle { prefix, idle });
                self.taken = Some((stream, generation));
            }
            Said::OriginsComplete { generation } => {
                self.input(Input::OriginsComplete);
                self.taken = Some((stream, generation));
            }
            Said::Invalid {
                generation,
                problem,
            } => {
                warn!(problem, "felix sent an origin that makes no sense");
                // It stands for those before it, which must not come after it.
                self.taken = None;
                self.fib.ack(stream, generation, problem);
            }
            Said::Taken(routes) => self.input(Input::BestTaken(routes)),
            Said::Ack { generation, error } => {
                if !error.is_empty() {
                    warn!(generation, error, "felix could not take a route");
                }
            }
            Said::Closed => {
                info!("felix is gone; what it said stays in force");
                self.facts.felix = None;
                self.input(Input::Best(false));
            }
        }
    }

    /// Drains what was being drained on somebody's request when the program ended.
    pub(crate) fn drain_as_before(&mut self, path: PathBuf) {
        match state::load_drain(&path) {
            Ok(request) if request != *self.speaker.drain_request() => {
                info!(?request, "drained as before");
                self.input(Input::Drain(request));
            }
            Ok(_) => {}
            Err(e) => {
                warn!(path = %path.display(), error = format!("{e:#}"), "cannot read what was drained");
            }
        }
        self.drain = Some(path);
    }

    fn drain(&mut self, order: &DrainOrder) -> Result<v1::DrainResponse, String> {
        if !order.show {
            let request = ask::drain(&self.speaker, order)?;
            if request != *self.speaker.drain_request() {
                info!(?request, "drain");
            }
            self.input(Input::Drain(request));
            if let Some(path) = &self.drain
                && let Err(e) = state::save_drain(path, self.speaker.drain_request())
            {
                return Err(format!(
                    "drained, but not after a restart: cannot write {}: {e:#}",
                    path.display()
                ));
            }
        }
        let drains = ask::drains(&self.speaker, self.now());
        Ok(v1::DrainResponse { drains })
    }

    fn answer(&mut self, query: Query) {
        let now = self.now();
        // Whoever asked may be gone.
        match query {
            Query::Speaker(answer) => {
                let _ = answer.send(status::speaker(&self.speaker, &self.facts, now));
            }
            Query::Neighbors(answer) => {
                let _ = answer.send(status::neighbors(&self.speaker, &self.keys.problems(), now));
            }
            Query::Bfd(answer) => match &self.bfd {
                Some(bfd) => bfd.list(answer),
                None => drop(answer.send(super::bfd::Listing::default())),
            },
            Query::Routes(page, filter, answer) => {
                let found = self.speaker.routes_on(page, &filter, now);
                let _ = answer.send(ask::listed(found));
            }
            Query::Advertised(page, peer, answer) => {
                let found = self.speaker.advertised_on(page, &peer);
                let _ = answer.send(found.map(ask::listed));
            }
            Query::Explain(query, answer) => {
                let _ = answer.send(ask::explain(&self.speaker, &query, now));
            }
            Query::Drain(order, answer) => {
                let _ = answer.send(self.drain(&order));
            }
        }
    }

    /// Lets the speaker say what follows from the inputs it has taken, as far as the kernel takes it at once.
    fn settle(&mut self) {
        for _ in 0..ROUNDS {
            let now = self.now();
            if self.recording.is_on() {
                self.recording.line(&Line::Settled { now });
            }
            let mut outputs = Vec::new();
            let settled = AssertUnwindSafe(|| self.speaker.settle(now, &mut outputs));
            match (catch_unwind(settled), self.heard.take()) {
                (Ok(()), _) => self.answered(outputs),
                (Err(_), Some(conn)) => {
                    error!(%conn, "a defect of the speaker; the connection heard last is closed");
                    self.lose(conn, "internal error".to_owned());
                    continue;
                }
                (Err(panic), None) => std::panic::resume_unwind(panic),
            }
            let sent = self.connections.flush();
            for (conn, bytes) in sent {
                self.input(Input::Tcp(conn, TcpEvent::Sent(bytes)));
            }
            if !self.speaker.is_behind() {
                if let Some((stream, generation)) = self.taken.take() {
                    self.fib.ack(stream, generation, String::new());
                }
                return;
            }
        }
    }

    /// Feeds the speaker. A defect that bytes of a peer bring to light costs that connection, not the program.
    fn input(&mut self, input: Input) {
        let now = self.now();
        if self.recording.is_on() {
            let input = match &input {
                Input::Config(config) => Input::Config(record::without_passwords(config)),
                input => input.clone(),
            };
            self.recording.line(&Line::Input { now, input });
        }
        let conn = match &input {
            Input::Tcp(conn, _) => Some(*conn),
            _ => None,
        };
        if let Input::Tcp(conn, TcpEvent::Bytes(_)) = &input {
            self.heard = Some(*conn);
        }
        let mut outputs = Vec::new();
        let taken = AssertUnwindSafe(|| self.speaker.take(input, now, &mut outputs));
        match (catch_unwind(taken), conn) {
            (Ok(()), _) => self.answered(outputs),
            (Err(_), Some(conn)) => {
                error!(%conn, "a defect of the speaker; the connection is closed");
                self.connections.close(conn);
                let closed = TcpEvent::Closed {
                    reason: "internal error".to_owned(),
                };
                let input = Input::Tcp(conn, closed);
                if self.recording.is_on() {
                    let input = input.clone();
                    self.recording.line(&Line::Input { now, input });
                }
                let mut outputs = Vec::new();
                self.speaker.take(input, now, &mut outputs);
                self.answered(outputs);
            }
            // Its state may be half a change; a restart reads everything anew.
            (Err(panic), None) => std::panic::resume_unwind(panic),
        }
    }

    /// Closes a connection that the speaker did not want closed.
    fn lose(&mut self, conn: ConnId, reason: String) {
        self.connections.close(conn);
        self.input(Input::Tcp(conn, TcpEvent::Closed { reason }));
    }

    fn answered(&mut self, outputs: Vec<Output>) {
        if self.recording.is_on() {
            let outputs = outputs.clone();
            self.recording.line(&Line::Outputs { outputs });
        }
        self.carry_out(outputs);
        self.tell_best();
    }

    /// Gives the fib what the speaker has said.
    fn tell_best(&mut self) {
        let (routes, complete) = &mut self.best;
        if routes.is_empty() && !*complete {
            return;
        }
        let complete = std::mem::take(complete);
        match self.facts.felix {
            // A newer stream has them all still before it.
            Some(stream) => self.fib.tell(stream, routes, complete),
            None => routes.clear(),
        }
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Connect {
                    peer,
                    local,
                    local_port,
                    remote,
                    hops,
                    conn,
                } => {
                    let dial = Dial {
                        address: local,
                        port: local_port,
                        remote,
                        hops,
                        key: None,
                    };
                    let interface = match peer {
                        PeerKey::Interface(name) => Some(name),
                        PeerKey::Address(_) => None,
                    };
                    self.connections.connect(conn, dial, interface);
                }
                Output::Limit(conn, hops) => {
                    if let Err(error) = self.connections.limit(conn, hops) {
                        warn!(%conn, %error, "the TTL of a connection cannot be limited: closed");
                        self.lose(conn, error.to_string());
                    }
                }
                Output::Send(conn, bytes) => self.connections.send(conn, bytes),
                Output::Close(conn) => self.connections.close(conn),
                Output::Best { prefix, legs } => self.best.0.push(Told::Route(prefix, legs)),
                Output::BestMoved { from, to } => self.best.0.push(Told::Moved(from, to)),
                Output::BestComplete => {
                    info!("the best routes are complete");
                    self.best.1 = true;
                    self.tell_best();
                }
                Output::Bmp { station, bytes } => self.stations.send(&station, bytes),
                Output::BfdStart { peer, settings } => {
                    if let Some(bfd) = self.bfd() {
                        bfd.watch(peer, settings);
                    }
                }
                Output::BfdStop { peer } => {
                    if let Some(bfd) = &self.bfd {
                        bfd.forget(peer);
                    }
                }
                Output::Event(event) => events::log(&event),
            }
        }
    }
}

/// Changes with each start of the program.
pub(crate) fn instance() -> String {
    format!("{:016x}", seed())
}

/// A number nobody can foretell, from the randomness the standard library gives its hash maps.
fn seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}
