//! BFD on a thread of its own.
//!
//! ```text
//!  engine ── start, stop, list ──► channel ──► thread: Monitor ──► UDP
//!         ◄── up, down ──────────  channel ◄──           ◄────────
//! ```
//!
//! The thread shares no lock and no runtime with the rest: a speaker that takes a million routes delays neither a packet
//! nor a timer.

pub(crate) mod parked;
mod udp;

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::{debug, error, info, warn};

use super::sock;
use crate::bfd::{Event, Info, Input, Micros, Monitor, Output, Refusal, Settings};
use crate::config::PeerKey;
use udp::{Kind, Listener, Sender};

/// Commands that wait for the thread, which takes them at once.
const COMMANDS: usize = 1024;

/// Events that wait for the engine.
pub(crate) const EVENTS: usize = 1024;

/// Events of one peer that wait for their place in the channel; with more, the oldest two, which cancel each other, go.
const UNSAID: usize = 4;

/// Packets taken from one socket before the timers are looked at again; more than a socket holds of small ones.
const ROUND: usize = 4096;

/// A port that is taken, or a socket that cannot be made, is tried again that often.
const RETRY: Micros = 1_000_000;

/// Events that found no place are tried again that often.
const UNSAID_RETRY: Micros = 10_000;

/// How long peers have to answer at the end; a packet and its answer, and some more in case one is lost.
const PARKING: Duration = Duration::from_millis(500);

/// What BFD says of a peer.
pub(crate) type Verdict = (PeerKey, Event);

/// What the monitor has, for people.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) sessions: Vec<Info>,
    /// Packets dropped since the start.
    pub(crate) refused: BTreeMap<Refusal, u64>,
    /// What is not as it should be; empty: all is.
    pub(crate) problem: String,
}

enum Command {
    Input(Input),
    List(tokio::sync::oneshot::Sender<Listing>),
    Leave(BTreeMap<PeerKey, Micros>),
    End,
}

/// The thread, for the engine. It ends when this is dropped: every peer is told that this is no failure.
#[derive(Debug)]
pub(crate) struct Bfd {
    commands: SyncSender<Command>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Bfd {
    /// Starts the thread. Events go to `events`; sessions that are to outlive the program, to a file.
    pub(crate) fn start(
        seed: u64,
        events: mpsc::Sender<Verdict>,
        keep: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let (wake, woken) = UnixStream::pair().context("cannot make a pair of sockets")?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (commands, inbox) = sync_channel(COMMANDS);
        let earlier = keep.as_deref().map_or_else(|| Ok(Vec::new()), parked::take);
        let earlier = earlier.unwrap_or_else(|e| {
            warn!(
                error = format!("{e:#}"),
                "BFD sessions of before begin anew"
            );
            Vec::new()
        });
        let mut worker = Worker {
            monitor: Monitor::resumed(seed, earlier),
            keep,
            started: Instant::now(),
            inbox,
            woken,
            events,
            unsaid: BTreeMap::new(),
            listeners: BTreeMap::new(),
            sessions: BTreeMap::new(),
            retry_at: None,
            problem: String::new(),
        };
        let thread = std::thread::Builder::new()
            .name("bfd".to_owned())
            .spawn(move || {
                if let Err(e) = sock::prefer_this_thread() {
                    debug!(error = %e, "BFD runs at the priority of the others");
                }
                worker.run();
            })
            .context("cannot start the thread of BFD")?;
        Ok(Self {
            commands,
            wake,
            thread: Some(thread),
        })
    }

    /// A session is wanted so.
    pub(crate) fn watch(&self, peer: PeerKey, settings: Settings) {
        self.command(Command::Input(Input::Start { peer, settings }));
    }

    /// A session is not wanted any more.
    pub(crate) fn forget(&self, peer: PeerKey) {
        self.command(Command::Input(Input::Stop { peer }));
    }

    /// Answers with what there is.
    pub(crate) fn list(&self, answer: tokio::sync::oneshot::Sender<Listing>) {
        self.command(Command::List(answer));
    }

    /// Ends, as a drop does; but these peers are asked to wait for so long, and their sessions go on in the next life.
    pub(crate) fn leave(self, peers: BTreeMap<PeerKey, Micros>) {
        if !peers.is_empty() {
            self.command(Command::Leave(peers));
        }
    }

    fn command(&self, command: Command) {
        if self.commands.send(command).is_err() {
            error!("the thread of BFD is gone");
        }
        // A full buffer wakes it just as well.
        let _ = (&self.wake).write(&[0]);
    }
}

impl Drop for Bfd {
    fn drop(&mut self) {
        self.command(Command::End);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the thread of BFD failed");
        }
    }
}

/// A session's socket, or why it has none.
struct Session {
    settings: Settings,
    sender: Option<Sender>,
    /// The source port it keeps.
    port: u16,
    /// What went wrong has been said.
    told: bool,
}

/// What the thread owns.
struct Worker {
    monitor: Monitor,
    /// Where sessions that outlive the program are kept.
    keep: Option<PathBuf>,
    started: Instant,
    inbox: Receiver<Command>,
    woken: UnixStream,
    events: mpsc::Sender<Verdict>,
    unsaid: BTreeMap<PeerKey, VecDeque<Event>>,
    listeners: BTreeMap<Kind, Option<Listener>>,
    sessions: BTreeMap<u32, Session>,
    /// When what could not be opened is tried again.
    retry_at: Option<Micros>,
    problem: String,
}

impl Worker {
    fn run(&mut self) {
        loop {
            let arrived = self.wait();
            // Packets first: those that came in time count, however late this thread is.
            for kind in arrived {
                self.receive(kind);
            }
            while let Ok(command) = self.inbox.try_recv() {
                match command {
                    Command::Input(input) => self.input(input),
                    // Whoever asked may be gone.
                    Command::List(answer) => drop(answer.send(self.list())),
                    Command::Leave(peers) => self.park(peers),
                    Command::End => return self.input(Input::End),
                }
            }
            let now = self.now();
            if self.monitor.next_timeout().is_some_and(|due| due <= now) {
                self.input(Input::Tick);
            }
            if self.retry_at.is_some_and(|due| due <= now) {
                self.retry();
            }
            self.say();
        }
    }

    /// Asks peers to wait for the next life, and keeps the sessions of those that will.
    fn park(&mut self, peers: BTreeMap<PeerKey, Micros>) {
        let (Some(keep), Some(wait)) = (self.keep.clone(), peers.values().min().copied()) else {
            return;
        };
        self.input(Input::Park(peers));
        let end = Instant::now() + PARKING;
        while !self.monitor.is_parked() && Instant::now() < end {
            for kind in self.wait() {
                self.receive(kind);
            }
            self.input(Input::Tick);
        }
        let parked = self.monitor.take_parked();
        let count = parked.len();
        match parked::save(&keep, parked, Duration::from_micros(wait)) {
            Ok(()) => info!(count, "BFD sessions wait for the next start"),
            Err(e) => {
                warn!(path = %keep.display(), error = format!("{e:#}"), "BFD sessions cannot be kept");
            }
        }
    }

    fn now(&self) -> Micros {
        Micros::try_from(self.started.elapsed().as_micros()).unwrap_or(Micros::MAX)
    }

    /// Sleeps until something happens; the sockets that something came to.
    fn wait(&mut self) -> Vec<Kind> {
        let unsaid = (!self.unsaid.is_empty()).then(|| self.now() + UNSAID_RETRY);
        let due = [self.monitor.next_timeout(), self.retry_at, unsaid];
        let timeout = due
            .into_iter()
            .flatten()
            .min()
            .map(|due| TimeSpec::from(Duration::from_micros(due.saturating_sub(self.now()))));
        let listening = self.listeners.iter();
        let (kinds, mut waiting): (Vec<Kind>, Vec<PollFd<'_>>) = listening
            .filter_map(|(kind, it)| {
                Some((*kind, PollFd::new(it.as_ref()?.as_fd(), PollFlags::POLLIN)))
            })
            .unzip();
        waiting.push(PollFd::new(self.woken.as_fd(), PollFlags::POLLIN));
        match ppoll(&mut waiting, timeout, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => {
                error!(error = %e, "waiting for BFD packets failed");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let ready = |it: &PollFd<'_>| it.any().unwrap_or(true);
        let arrived = kinds.into_iter().zip(&waiting);
        let arrived = arrived
            .filter(|(_, it)| ready(it))
            .map(|(kind, _)| kind)
            .collect();
        let mut sink = [0; 256];
        while (&self.woken)
            .read(&mut sink)
            .is_ok_and(|count| count == sink.len())
        {}
        arrived
    }

    fn receive(&mut self, kind: Kind) {
        for _ in 0..ROUND {
            let Some(Some(listener)) = self.listeners.get_mut(&kind) else {
                return;
            };
            match listener.receive() {
                Ok(Some(received)) => self.input(Input::Packet(received)),
                Ok(None) => return,
                Err(e) => {
                    warn!(port = kind.port(), error = %e, "receiving BFD packets failed, trying anew");
                    self.listeners.insert(kind, None);
                    self.retry_at = Some(self.now() + RETRY);
                    return;
                }
            }
        }
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        for output in self.monitor.handle(input, now) {
            match output {
                Output::Open {
                    discriminator,
                    settings,
                } => {
                    let kind = Kind::of(&settings);
                    let before = self.sessions.remove(&discriminator);
                    let session = Session {
                        settings,
                        // The one before, if any, is closed by now, so that its port is free.
                        port: before.map_or_else(|| spread(discriminator), |it| it.port),
                        sender: None,
                        told: false,
                    };
                    self.sessions.insert(discriminator, session);
                    self.open(discriminator);
                    if !matches!(self.listeners.get(&kind), Some(Some(_))) {
                        self.listen(kind);
                    }
                }
                Output::Send {
                    discriminator,
                    bytes,
                } => {
                    let session = self.sessions.get(&discriminator);
                    if let Some(sender) = session.and_then(|it| it.sender.as_ref())
                        && let Err(e) = sender.send(&bytes)
                    {
                        // No route, no carrier, no memory: for the peer all of them are silence.
                        debug!(error = %e, "a BFD packet was not sent");
                    }
                }
                Output::Close { discriminator } => {
                    self.sessions.remove(&discriminator);
                }
                Output::Event { peer, event } => {
                    let waiting = self.unsaid.entry(peer).or_default();
                    waiting.push_back(event);
                    if waiting.len() > UNSAID {
                        waiting.drain(..2);
                    }
                }
            }
        }
        self.say();
    }

    /// Passes events on as far as there is room.
    fn say(&mut self) {
        while let Some(mut first) = self.unsaid.first_entry() {
            let Some(event) = first.get_mut().pop_front() else {
                first.remove();
                continue;
            };
            match self.events.try_send((first.key().clone(), event)) {
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                Err(TrySendError::Full((_, event))) => {
                    first.get_mut().push_front(event);
                    return;
                }
            }
        }
    }

    /// Opens a session's socket.
    fn open(&mut self, discriminator: u32) {
        let Some(session) = self.sessions.get_mut(&discriminator) else {
            return;
        };
        match Sender::open(&session.settings, session.port) {
            Ok(sender) => {
                session.port = sender.port();
                session.sender = Some(sender);
            }
            Err(e) => {
                if !session.told {
                    let Settings { remote, path, .. } = &session.settings;
                    warn!(%remote, ?path, error = %e, "BFD cannot send, trying again");
                    session.told = true;
                }
                self.retry_at = Some(self.now() + RETRY);
            }
        }
    }

    /// Opens the socket that packets of one kind come to.
    fn listen(&mut self, kind: Kind) {
        let port = kind.port();
        let listener = match Listener::open(kind) {
            Ok(listener) => {
                info!(family = %kind.family, port, "BFD listens");
                self.problem.clear();
                Some(listener)
            }
            Err(e) => {
                let problem = format!("cannot listen on UDP port {port} ({}): {e}", kind.family);
                if self.problem != problem {
                    let fix = match e.kind() {
                        std::io::ErrorKind::AddrInUse => "another BFD daemon has the port: stop it",
                        _ => "no BFD session will come up",
                    };
                    warn!(problem, fix, "BFD cannot receive, trying again");
                    self.problem = problem;
                }
                self.retry_at = Some(self.now() + RETRY);
                None
            }
        };
        self.listeners.insert(kind, listener);
    }

    /// Tries again what could not be opened.
    fn retry(&mut self) {
        self.retry_at = None;
        let closed = self.listeners.iter().filter(|(_, it)| it.is_none());
        let closed: Vec<Kind> = closed.map(|(kind, _)| *kind).collect();
        for kind in closed {
            self.listen(kind);
        }
        let mute = self.sessions.iter().filter(|(_, it)| it.sender.is_none());
        let mute: Vec<u32> = mute.map(|(discriminator, _)| *discriminator).collect();
        for discriminator in mute {
            self.open(discriminator);
        }
    }

    fn list(&self) -> Listing {
        Listing {
            sessions: self.monitor.sessions(self.now()),
            refused: self.monitor.refused().clone(),
            problem: self.problem.clone(),
        }
    }
}

/// Where the search for a free source port begins, so that sessions do not all try the same ones.
fn spread(discriminator: u32) -> u16 {
    let [.., high, low] = discriminator.to_be_bytes();
    u16::from_be_bytes([high | 0xc0, low])
}
