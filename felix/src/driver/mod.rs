//! The only I/O of felix: Kubernetes, netlink, gRPC, the CNI socket.

mod accepted;
pub mod bgp;
pub mod cni;
pub mod conflist;
pub mod conntrack;
mod early;
pub mod enforce;
pub mod fib;
pub mod grpc;
pub mod kernel;
pub mod netlink;
pub mod nflog;
pub mod nft;
mod queues;
pub mod radv;
mod report;
mod run;
pub mod settings;
pub mod socket;
pub mod state;
pub mod sysctl;
pub mod tamper;
mod uninstall;
pub mod watch;
pub mod write;
pub mod writer;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use api::daemon::stopped;
use api::local::Listener;
use api::paths;
use crds::ipam_block::Owner;
use ipam::journal::Replay;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use self::kernel::Kernel;
use self::report::{Board, Reporter};
use self::run::{Loop, Sources};
use self::settings::Settings;
use self::state::StateDir;
use self::writer::Writer;
use crate::agent::early::Early;
use crate::agent::start::read_log;
use crate::agent::{Agent, Start};
use crate::args::{Args, Verb};

/// The spool's directory, in the state directory.
pub const SPOOL_DIR: &str = "spool";

/// Inputs that wait for the main loop before a source has to.
const QUEUE: usize = 1024;
/// How long a start waits for one answer of the API.
const API_PATIENCE: Duration = Duration::from_millis(500);
/// Between two questions.
const API_PAUSE: Duration = Duration::from_millis(200);

/// Sets up logging as asked.
pub fn log(args: &Args) -> anyhow::Result<()> {
    log_as(&args.log, args.log_json)
}

/// Sets up logging of what `filter` says, as JSON or as text.
pub fn log_as(filter: &str, json: bool) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("--log {filter:?} is not understood"))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if json {
        logs.json().init()
    } else {
        logs.with_ansi(false).init()
    }
    Ok(())
}

/// Does what the command line asks for: runs felix until it is told to stop, or takes back what it made.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.verb {
        None => serve(args).await,
        Some(Verb::Uninstall { force }) => {
            tokio::task::block_in_place(|| uninstall::uninstall(&args, force))
        }
    }
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let clock = Instant::now();
    let mut stop = Box::pin(stopped("routes and policy stay in force")?);
    let (state, left) = StateDir::open(&args.state_dir).context("opening the state directory")?;
    let _writer =
        Writer::take(&args.run_dir, "margay-felix").context("becoming the writer of routes")?;
    let boot_id = state::boot_id(&args.boot_id_file).context("reading the kernel's boot id")?;
    let replay = read_log(&left.log, &boot_id);
    let addresses = if left.addresses.is_empty() {
        bootstrap_addresses(&args.bootstrap)?
    } else {
        left.addresses
    };
    // Before anything else: interfaces that nobody vouches for have no network.
    let settings = Settings::open(&args.state_dir, &boot_id);
    let (mut kernel, found) =
        tokio::task::block_in_place(|| Kernel::open(settings)).context("opening the kernel")?;
    let (to_kernel, mut kernel_events) = mpsc::channel(QUEUE);
    found.changes.report(to_kernel.clone());

    let client = api::daemon::kubernetes(api::agent!("margay-felix"))
        .await
        .context("finding the Kubernetes API ($KUBECONFIG or a service account)")?;
    let life = state::random_id()?;
    let logged = logged_uid(&args.node_name, &replay);
    let (node_uid, missed) = match first_uid(&client, &args.node_name).await.or(logged) {
        Some(uid) => (uid, Vec::new()),
        None => {
            let early = Early::new(life.clone(), boot_id.clone(), found.preserved, &addresses);
            let socket = args.run_dir.join(paths::BGPD_SOCKET);
            let uid = patient_uid(&client, &args.node_name);
            tokio::select! {
                known = early::until(uid, socket, early, &mut kernel, &mut kernel_events) => known,
                () = &mut stop => return Ok(()),
            }
        }
    };
    let owner = Owner {
        node: args.node_name.clone(),
        node_uid,
        instance: left.instance,
    };
    let start = Start {
        owner,
        life,
        boot_id,
        log: replay,
        links: found.links,
        routed: found.routed,
        preserved: found.preserved,
        tables: found.tables,
        mtu: found.mtu,
        addresses,
        loopbacks: found.loopbacks,
        interfaces: found.interfaces,
    };
    let mut agent = Agent::new(start, 0);
    for input in missed {
        agent.handle(input, 0);
    }

    let (to_updates, updates) = mpsc::channel(QUEUE);
    let (to_calls, calls) = mpsc::channel(QUEUE);
    let (to_bgp, bgp) = mpsc::channel(QUEUE);
    let (to_queries, queries) = mpsc::channel(QUEUE);
    watch::start(&client, &args.node_name, &to_updates);
    let listener = Listener::bind(&args.run_dir.join(paths::CNI_SOCKET))
        .context("listening for the CNI plugin")?;
    tokio::spawn(cni::serve(listener, to_calls));
    tokio::spawn(bgp::run(args.run_dir.join(paths::BGPD_SOCKET), to_bgp));
    let status = Listener::bind(&args.run_dir.join(paths::FELIX_SOCKET))
        .context("listening for margayctl")?;
    let server = tonic::transport::Server::builder().add_service(grpc::Service::server(to_queries));
    tokio::spawn(server.serve_with_incoming(status));

    let (to_packets, packets) = mpsc::channel(QUEUE);
    tokio::spawn(nflog::keep(to_packets, to_kernel));

    let board = Arc::new(Board::default());
    let reporter = Reporter {
        client: client.clone(),
        node: args.node_name.clone(),
        token: args.controller_token.clone(),
        board: Arc::clone(&board),
    };
    tokio::spawn(reporter.run());

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
        packets,
    };
    Loop::new(args, client, agent, kernel, state, board, clock)
        .run(sources, stop)
        .await
}

/// The node's own addresses, by the bootstrap file; none without one.
fn bootstrap_addresses(path: &Path) -> anyhow::Result<Vec<IpAddr>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.with_context(|| format!("reading {}", path.display()))?,
    };
    crds::bootstrap::node_addresses(&text)
        .with_context(|| format!("{} is no bootstrap file", path.display()))
}

/// The uid of this node's object, as the attachment log has it. A log that names an object of the past is found out by the
/// feed.
fn logged_uid(name: &str, log: &Replay) -> Option<String> {
    let header = log.header.as_ref().map(|header| &header.owner);
    let owner = header.filter(|owner| owner.node == name)?;
    Some(owner.node_uid.clone())
}

/// The uid of this node's object, if the API says it at once.
async fn first_uid(client: &Client, name: &str) -> Option<String> {
    let api: Api<Node> = Api::all(client.clone());
    match tokio::time::timeout(API_PATIENCE, api.get(name)).await {
        Ok(Ok(node)) => return Some(node.metadata.uid.unwrap_or_default()),
        Ok(Err(error)) => tracing::warn!(%error, node = name, "looking up this node's object"),
        Err(_) => tracing::warn!(node = name, "the API does not answer"),
    }
    None
}

/// The uid of this node's object. Without it there is nothing to own blocks by, so it is waited for.
async fn patient_uid(client: &Client, name: &str) -> String {
    loop {
        tokio::time::sleep(API_PAUSE).await;
        if let Some(uid) = first_uid(client, name).await {
            return uid;
        }
    }
}
