//! The only I/O of felix: Kubernetes, netlink, gRPC, the CNI socket.

pub mod bgp;
pub mod cni;
pub mod conflist;
pub mod conntrack;
pub mod grpc;
pub mod kernel;
pub mod netlink;
pub mod nft;
mod run;
pub mod socket;
pub mod state;
pub mod sysctl;
pub mod tamper;
pub mod watch;
pub mod write;

use std::time::{Duration, Instant};

use anyhow::Context;
use api::local::Listener;
use api::paths;
use crds::ipam_block::Owner;
use ipam::journal::Replay;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use self::kernel::Kernel;
use self::run::{Loop, Sources};
use self::state::StateDir;
use crate::agent::start::read_log;
use crate::agent::{Agent, Start};
use crate::args::Args;

/// The spool's directory, in the state directory.
pub const SPOOL_DIR: &str = "spool";

/// Inputs that wait for the main loop before a source has to.
const QUEUE: usize = 1024;
/// How long a start waits for one answer of the API.
const API_PATIENCE: Duration = Duration::from_millis(500);

/// Sets up logging as asked.
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

/// Runs felix until it is told to stop.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let clock = Instant::now();
    let mut stop = Box::pin(stopped()?);
    let (state, left) = StateDir::open(&args.state_dir).context("opening the state directory")?;
    let boot_id = state::boot_id().context("reading the kernel's boot id")?;
    let replay = read_log(&left.log, &boot_id);
    // Before anything else: interfaces that nobody vouches for have no network.
    let (kernel, found) =
        tokio::task::block_in_place(Kernel::open).context("opening the kernel")?;

    let client = Client::try_default()
        .await
        .context("finding the Kubernetes API ($KUBECONFIG or a service account)")?;
    let node_uid = tokio::select! {
        uid = node_uid(&client, &args.node_name, &replay) => uid,
        () = &mut stop => return Ok(()),
    };
    let owner = Owner {
        node: args.node_name.clone(),
        node_uid,
        instance: left.instance,
    };
    let start = Start {
        owner,
        life: state::random_id()?,
        boot_id,
        log: replay,
        links: found.links,
        routed: found.routed,
        preserved: found.preserved,
        tables: found.tables,
        mtu: found.mtu,
    };
    let agent = Agent::new(start, 0);

    let (to_updates, updates) = mpsc::channel(QUEUE);
    let (to_calls, calls) = mpsc::channel(QUEUE);
    let (to_bgp, bgp) = mpsc::channel(QUEUE);
    let (to_kernel, kernel_events) = mpsc::channel(QUEUE);
    let (to_queries, queries) = mpsc::channel(QUEUE);
    watch::start(&client, &args.node_name, &to_updates);
    let listener = Listener::bind(&args.run_dir.join(paths::CNI_SOCKET))
        .context("listening for the CNI plugin")?;
    tokio::spawn(cni::serve(listener, to_calls));
    tokio::spawn(bgp::run(args.run_dir.join(paths::BGPD_SOCKET), to_bgp));
    found.changes.report(to_kernel);
    let status = Listener::bind(&args.run_dir.join(paths::FELIX_SOCKET))
        .context("listening for margayctl")?;
    let server = tonic::transport::Server::builder().add_service(grpc::Service::server(to_queries));
    tokio::spawn(server.serve_with_incoming(status));

    tracing::info!(
        node = args.node_name,
        version = env!("CARGO_PKG_VERSION"),
        "felix is up"
    );
    let sources = Sources {
        updates,
        calls,
        bgp,
        kernel: kernel_events,
        queries,
    };
    Loop::new(args, client, agent, kernel, state, clock)
        .run(sources, stop)
        .await
}

/// The uid of this node's object: as the API says, or at once the log where the API is away. Without either there is
/// nothing to own blocks by, so it is waited for. A log that names an object of the past is found out by the feed.
async fn node_uid(client: &Client, name: &str, log: &Replay) -> String {
    let api: Api<Node> = Api::all(client.clone());
    let logged = log
        .header
        .as_ref()
        .map(|header| &header.owner)
        .filter(|owner| owner.node == name);
    loop {
        match tokio::time::timeout(API_PATIENCE, api.get(name)).await {
            Ok(Ok(node)) => return node.metadata.uid.unwrap_or_default(),
            Ok(Err(error)) => tracing::warn!(%error, node = name, "looking up this node's object"),
            Err(_) => tracing::warn!(node = name, "the API does not answer"),
        }
        if let Some(owner) = logged {
            tracing::warn!("going on with what the attachment log says of this node");
            return owner.node_uid.clone();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Done when the process is asked to stop. Nothing is taken back then: pods keep their network.
fn stopped() -> anyhow::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("stopping; routes and policy stay in force");
    })
}
