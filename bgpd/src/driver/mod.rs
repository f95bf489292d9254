//! The only I/O of bgpd.
//!
//! ```text
//!  listeners ─┐ tcp                                         ┌─► tcp: connect, send, close
//!  rtnetlink ─┤ netlink      bounded      ┌─────────┐       ├─► fib ──► felix (gRPC stream)
//!  felix ─────┤ grpc      ──► channel ──► │ engine  │ ──────┤
//!  people ────┤ grpc                      │ Speaker │       ├─► log
//!  file, API ─┘ source, watch             └─────────┘       └─► state: last good configuration
//! ```
//!
//! One task, the engine, owns the speaker; the others turn what happens into events for it.

mod accepted;
mod ask;
mod bfd;
mod bmp;
mod engine;
mod events;
pub mod exercise;
mod fib;
mod grpc;
mod keys;
mod life;
mod netlink;
mod node_event;
mod record;
mod replay;
mod sock;
mod source;
mod state;
mod status;
mod tcp;
mod view;
mod watch;

pub use record::Line;
pub use replay::{Replay, Replayed, replay};

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::watch::channel as watch_channel;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::config::Config;
use crate::nexthop::Change;
use crate::speaker::{ConnId, TcpEvent};

/// Events that wait for the engine; whoever has one more waits.
const EVENTS: usize = 1024;

/// How long the first look at the kernel may take; without it every peer counts as within reach.
const KERNEL_WAIT: Duration = Duration::from_millis(500);

/// What happened, for the engine.
#[derive(Debug)]
pub(crate) enum Event {
    /// A connection was accepted, from there.
    Accepted(TcpStream, SocketAddr),
    /// A connection that was asked for is there.
    Connected(ConnId, TcpStream),
    Tcp(ConnId, TcpEvent),
    /// Bytes, with the connection's turn, which ends when they are taken.
    Bytes(ConnId, Bytes, Option<OwnedSemaphorePermit>),
    Kernel(Vec<Change>),
    /// A new configuration, or why there is none; the last one stays in force then.
    Config(Result<Box<Config>, String>),
    /// The configuration is in force, but something of it is not as it was asked for. Empty: all is.
    Complaint(String),
    /// Of the BMP station of that name, by its task of that number.
    Bmp(String, u64, bmp::Told),
    Felix(grpc::Felix),
    Query(grpc::Query),
}

/// Where the configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// That file, followed.
    File(PathBuf),
    /// The Kubernetes API.
    Kubernetes {
        /// Name of the node.
        node: String,
        /// The bootstrap file, which may be missing.
        bootstrap: PathBuf,
    },
}

/// What the driver is told by the command line.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the configuration comes from.
    pub source: Source,
    /// Directory of the socket.
    pub run_dir: PathBuf,
    /// Directory of the last good configuration.
    pub state_dir: PathBuf,
    /// File to record the run to.
    pub record: Option<PathBuf>,
}

/// Checks a configuration file; the number of its peers and ranges of peers.
///
/// # Errors
///
/// Says what is wrong with it.
pub fn check(path: &Path) -> anyhow::Result<usize> {
    let config = source::read(path)?.config;
    Ok(config.peers.len() + config.dynamic.len())
}

/// Runs the speaker until SIGTERM or SIGINT.
///
/// The end is not announced to the peers: their TCP connections close without a Cease, as a graceful restart wants it.
///
/// # Errors
///
/// When there is no configuration to start with, or the socket cannot be served.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    // Configuration is followed by itself; a stray SIGHUP must not end the sessions.
    let mut hangup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;

    let socket = options.run_dir.join(api::paths::BGPD_SOCKET);
    let listener = api::local::Listener::bind(&socket)?;
    let (events, inbox) = mpsc::channel(EVENTS);
    let instance = engine::instance();
    let fib = Arc::new(fib::Fib::new());
    let (ready, is_ready) = watch_channel(false);
    let service = grpc::Service {
        events: events.clone(),
        fib: Arc::clone(&fib),
        instance: instance.clone(),
        ready: is_ready,
    };
    let mut serving = tokio::spawn(grpc::serve(listener, service));
    info!(socket = %socket.display(), instance, "serving");

    let (first, mut kernel) = oneshot::channel();
    tokio::spawn(netlink::follow(first, events.clone()));
    let starting = source::start(&options, events.clone());
    let mut start = tokio::select! {
        start = starting => start?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    if let Some(path) = &options.record {
        start.recording = record::Recording::begin(path)?;
    }
    start.life = life::Life::find(&options.state_dir);
    ready.send_replace(true);
    // Which peers are within reach is known before the first one is connected to.
    let kernel = match tokio::time::timeout(KERNEL_WAIT, &mut kernel).await {
        Ok(view) => view.unwrap_or_default(),
        Err(_) => {
            // What was sent in the meantime is not sent again.
            kernel.close();
            kernel.try_recv().unwrap_or_default()
        }
    };
    let drains = state::drain_path(&options.state_dir);
    let (running, mut ended) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let work = move || {
        let runtime = Builder::new_current_thread().enable_all().build();
        let run = |runtime: Runtime| {
            runtime.block_on(async {
                let mut engine = engine::Engine::new(start, kernel, events, fib);
                engine.drain_as_before(drains);
                // A task among those that read: what one of them has read is taken before the kernel is asked for more.
                let mut engine = tokio::spawn(engine.run(inbox));
                tokio::select! {
                    ended = &mut engine => ended.context("the speaker failed")?,
                    _ = stopped => {
                        engine.abort();
                        // It is gone when this returns, with its BFD.
                        let _ = engine.await;
                        Ok(())
                    }
                }
            })
        };
        // Nobody waits: the program ends.
        let _ = running.send(runtime.map_err(Into::into).and_then(run));
    };
    // Sessions and tables share a thread, so that a route passes through without waking another one; what answers
    // people and follows the API has its own.
    let engine = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(work)
        .context("cannot start a thread")?;
    loop {
        tokio::select! {
            ended = &mut ended => {
                return ended.context("the speaker failed")?;
            }
            ended = &mut serving => {
                ended.context("the gRPC server failed")??;
                anyhow::bail!("the gRPC server ended");
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => warn!("SIGHUP is ignored: configuration is followed without it"),
        }
    }
    info!("ending; sessions close without Cease");
    // BFD tells its peers that this is no failure.
    drop(stop);
    engine
        .join()
        .map_err(|_| anyhow::anyhow!("the speaker failed while it ended"))
}
