//! The controller's I/O: the lease, watches, the streams of felix, writes of status. What it decides is in
//! [`programmed`](crate::programmed) and [`election`](crate::election).
//!
//! ```text
//!  lease ──► leading? ──► lead: publish · watch ─┐
//!                               reports ─────────┼──► Board ──► write
//!                               answers ─────────┘
//! ```

mod health;
mod lead;
mod lease;
mod objects;
mod publish;
mod reports;
mod write;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use api::daemon::stopped;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use self::health::Health;
use self::lease::Lease;
use crate::Millis;
use crate::args::Args;

/// Name of the Lease, of the ConfigMap, and the audience of felix' tokens.
pub const NAME: &str = "margay-controller";
/// How long one answer of the API may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sets up logging as asked.
///
/// # Errors
///
/// When the filter is not understood.
pub fn log(args: &Args) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log)
        .with_context(|| format!("--log {:?} is not understood", args.log))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if args.log_json {
        logs.json().init()
    } else {
        logs.with_ansi(false).init()
    }
    Ok(())
}

/// Milliseconds since the process started.
#[derive(Debug, Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn now(self) -> Millis {
        Millis::try_from(self.0.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    fn at(self, millis: Millis) -> Instant {
        self.0 + Duration::from_millis(millis)
    }
}

/// Runs until it is told to stop: leads whenever the lease is ours.
///
/// # Errors
///
/// When a port is taken, or there is no way to the API.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let clock = Clock(Instant::now());
    let stop = stopped("policy stays in force on every node")?;
    let client = api::daemon::kubernetes(api::agent!("margay-controller"))
        .await
        .context("finding the Kubernetes API ($KUBECONFIG or a service account)")?;
    // Before the lease: whoever cannot serve must not lead.
    let port = TcpListener::bind(args.listen).await;
    drop(port.with_context(|| format!("listening on {}", args.listen))?);
    let health = Arc::new(Health::default());
    health::serve(args.health, Arc::clone(&health))
        .await
        .with_context(|| format!("listening on {}", args.health))?;
    let mut lease = Lease::new(&client, args.lease_seconds, clock)?;
    tracing::info!(
        identity = lease.identity(),
        version = env!("CARGO_PKG_VERSION"),
        "the controller is up"
    );
    let work = async {
        loop {
            lease.win(&health).await;
            tracing::info!("leading");
            tokio::select! {
                () = lease.keep(&health) => tracing::warn!("the lease is lost; another may lead now"),
                ended = lead::lead(&client, &args, clock) => {
                    if let Err(error) = ended {
                        tracing::error!(error = format!("{error:#}"), "leading failed; trying again");
                    }
                    lease.give_back().await;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stop => {}
    }
    lease.give_back().await;
    Ok(())
}
