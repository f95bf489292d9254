//! Where the configuration comes from: the first one to start with, and those that follow.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::engine::Start;
use super::life::Life;
use super::record::Recording;
use super::{Event, Options, Source, state, watch};
use crate::config::bootstrap::{self, Bootstrap};
use crate::config::file::{self, File};
use crate::config::kubernetes::Cluster;

/// How long the API may take to answer before the kept configuration is used. Short: what differs is applied by
/// difference later, while every moment without sessions is one without routes.
const API_WAIT: Duration = Duration::from_millis(500);

/// How often the file is looked at.
const POLL: Duration = Duration::from_secs(1);

/// Waits for the first configuration, and follows its source from then on.
pub(crate) async fn start(options: &Options, events: mpsc::Sender<Event>) -> anyhow::Result<Start> {
    match &options.source {
        Source::File(path) => {
            // The mark first: a change in between is read twice rather than never.
            let mark = mark(path);
            let File {
                config,
                wait_for_felix,
            } = read(path)?;
            tokio::spawn(follow(path.clone(), mark, events));
            Ok(Start {
                config,
                source: "file",
                complaint: String::new(),
                wait_for_felix,
                recording: Recording::none(),
                life: Life::default(),
                keep: None,
            })
        }
        Source::Kubernetes { node, bootstrap } => {
            kubernetes(node, bootstrap_of(bootstrap)?, &options.state_dir, events).await
        }
    }
}

/// The bootstrap file, if there is one. One that is not understood is an error even when the API might answer: the node
/// would not come back from its next boot.
fn bootstrap_of(path: &Path) -> anyhow::Result<Option<Bootstrap>> {
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let read = bootstrap::parse(&text)
        .with_context(|| format!("{} is no bootstrap file", path.display()))?;
    Ok(Some(read))
}

/// The configuration of a node from the API; when that does not answer in time, the one that was kept, or the bootstrap
/// file's.
async fn kubernetes(
    node: &str,
    bootstrap: Option<Bootstrap>,
    state_dir: &Path,
    events: mpsc::Sender<Event>,
) -> anyhow::Result<Start> {
    let path = state::path(state_dir);
    let mut kept = state::load(&path).unwrap_or_else(|e| {
        warn!(path = %path.display(), error = format!("{e:#}"), "the kept configuration cannot be read");
        None
    });
    if let (Some(kept), Some(bootstrap)) = (&mut kept, &bootstrap) {
        // The file may have been changed since.
        bootstrap.add_to(kept);
    }
    let client = api::daemon::kubernetes(api::agent!("margay-bgpd"))
        .await
        .context("cannot find the Kubernetes API: set KUBECONFIG, run in a pod with a service account, or give --config FILE")?;
    let (first, mut waiting) = oneshot::channel();
    let cluster = Cluster::new(node, kept.clone());
    tokio::spawn(watch::follow(
        client,
        cluster,
        bootstrap.clone(),
        first,
        events,
    ));
    let start = |config, complaint| Start {
        config,
        source: "kubernetes",
        complaint,
        wait_for_felix: true,
        recording: Recording::none(),
        life: Life::default(),
        keep: Some(path.clone()),
    };
    if let Some(kept) = kept {
        let answered = match tokio::time::timeout(API_WAIT, &mut waiting).await {
            Ok(first) => Some(first.context("the watches ended")?),
            Err(_elapsed) => {
                // From here on the watches tell the engine; this one may just have come.
                waiting.close();
                waiting.try_recv().ok()
            }
        };
        let (config, complaint) = answered.unwrap_or_else(|| {
            let complaint =
                "the Kubernetes API does not answer, the kept configuration is in force";
            warn!(complaint);
            (kept, complaint.to_owned())
        });
        return Ok(start(config, complaint));
    }
    if let Some(bootstrap) = bootstrap {
        // Nothing is lost by not waiting: what the API says is applied by difference.
        waiting.close();
        let complaint = "the bootstrap file is in force until the Kubernetes API answers";
        info!(complaint);
        let config = bootstrap.config().clone();
        return Ok(start(config, complaint.to_owned()));
    }
    let (config, complaint) = waiting.await.context("the watches ended")?;
    Ok(start(config, complaint))
}

/// Reads and checks a file.
///
/// # Errors
///
/// Names the file and what is wrong with it.
pub(crate) fn read(path: &Path) -> anyhow::Result<File> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    file::parse(&text).with_context(|| format!("{} is not a configuration", path.display()))
}

/// What tells one state of a file from another.
type Mark = Option<(u64, u64, SystemTime)>;

fn mark(path: &Path) -> Mark {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.size(), found.modified().ok()?))
}

/// Reads the file again whenever it has changed.
async fn follow(path: PathBuf, mut seen: Mark, events: mpsc::Sender<Event>) {
    let mut poll = tokio::time::interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        poll.tick().await;
        let found = mark(&path);
        if found == seen {
            continue;
        }
        seen = found;
        let read = match std::fs::read_to_string(&path) {
            Ok(text) => file::parse(&text)
                .map(|file| Box::new(file.config))
                .map_err(|e| e.brief(&text)),
            Err(e) => Err(e.to_string()),
        };
        let read = read.map_err(|e| format!("{}: {e}", path.display()));
        if events.send(Event::Config(read)).await.is_err() {
            return;
        }
    }
}
