//! The row of BFD: one of ours on either side of a cable, with a session for each of many pairs of addresses. What one of
//! them uses is measured, and neither may lose a session.

use std::fmt::Write as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use api::v1::{BfdSession, ListBfdSessionsRequest};

use super::run::{SESSIONS, Seen};
use super::speakers::{self, Running};
use super::weather::Watch;
use crate::ground::{Ground, Namespace};

/// Between two packets, ms; as many packets may be lost before the session is.
const INTERVAL: u32 = 300;
const MULTIPLIER: u32 = 3;
/// Before the sessions are looked at again.
const LOOK: Duration = Duration::from_millis(200);
/// For an answer of a speaker.
const ANSWER: Duration = Duration::from_secs(10);

/// Watches so many sessions for that time.
pub(super) fn run(ground: &Ground, pairs: u32, time: Duration) -> Result<Seen> {
    let (here, there) = (ground.namespace("here")?, ground.namespace("there")?);
    here.cable("up0", &there, "up0")?;
    let ours = start(ground, &here, ("margay-bgpd", 1), pairs)?;
    let other = start(ground, &there, ("margay-bgpd-there", 2), pairs)?;
    let sockets = [ours.1.as_path(), other.1.as_path()];
    up(sockets[0], pairs)?;
    let pids = ours.0.pids.as_slice();
    let watch = Watch::start(pids)?;
    thread::sleep(time);
    let load = watch.stop(pids, Instant::now())?;
    for socket in sockets {
        let lost = |it: &&BfdSession| it.failed_count > 0;
        if let Some(lost) = sessions(socket)?.iter().find(lost) {
            bail!("the session of {} was lost: {}", lost.peer, lost.diagnostic);
        }
    }
    Ok(Seen::only(load, pids))
}

/// Waits until all sessions are there, at the pace that was asked for.
fn up(socket: &Path, pairs: u32) -> Result<()> {
    let pairs = usize::try_from(pairs)?;
    let deadline = Instant::now() + SESSIONS;
    let wanted = u64::from(INTERVAL * MULTIPLIER) * 1000;
    loop {
        // It may not serve yet.
        let all = sessions(socket).unwrap_or_default();
        let up = all
            .iter()
            .filter(|it| it.state == "Up" && it.detection_micros == wanted);
        let up = up.count();
        if up == pairs {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "waited {} s: {up} of {pairs} BFD sessions are up",
                SESSIONS.as_secs()
            );
        }
        thread::sleep(LOOK);
    }
}

/// A speaker with a peer at the other end of each of its addresses, and its socket.
fn start<'a>(
    ground: &'a Ground,
    within: &Namespace,
    (name, own): (&'static str, u32),
    pairs: u32,
) -> Result<(Running<'a>, std::path::PathBuf)> {
    let (mut addresses, mut config) = (
        String::new(),
        format!(
            "asNumber: {}\nrouterID: 10.7.0.{own}\npeers:\n",
            65000 + own
        ),
    );
    let other = 3 - own;
    for it in 0..pairs {
        let _ = writeln!(addresses, "addr add 10.7.{it}.{own}/30 dev up0");
        let _ = writeln!(
            config,
            "- {{peerIP: 10.7.{it}.{other}, localAddress: 10.7.{it}.{own}, asNumber: {}, passive: {}, \
             bfd: {{transmitMillis: {INTERVAL}, receiveMillis: {INTERVAL}, multiplier: {MULTIPLIER}}}}}",
            65000 + other,
            own == 1
        );
    }
    within.ip_batch(&addresses)?;
    speakers::ours(ground, within, name, &config)
}

fn sessions(socket: &Path) -> Result<Vec<BfdSession>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut bgpd = api::client::bgpd(socket, ANSWER).await?;
        let listed = bgpd.list_bfd_sessions(ListBfdSessionsRequest {});
        let listed = listed.await.context("list the BFD sessions")?;
        Ok(listed.into_inner().sessions)
    })
}
