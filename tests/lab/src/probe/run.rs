//! Runs probes: a thread per source namespace with its own sockets, all under one limit, so that hundreds
//! at once neither wait for each other nor drown each other's answers.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::{Protocol, Target, Verdict, icmp};
use crate::netns;

/// Probes under way at any time, over all sources.
const AT_ONCE: usize = 128;

/// What came of one.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    pub(super) took: Duration,
    pub(super) detail: Option<String>,
}

impl Outcome {
    fn error(detail: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Error,
            took: Duration::ZERO,
            detail: Some(detail.into()),
        }
    }
}

/// Runs them all; the outcomes are in the order of the targets.
pub(super) fn all(targets: &[Result<Target, String>], timeout: Duration) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(targets.len());
    let mut by_source: BTreeMap<&Path, Vec<(usize, Target)>> = BTreeMap::new();
    for (i, target) in targets.iter().enumerate() {
        outcomes.push(Outcome::error(match target {
            Ok(_) => "not run",
            Err(problem) => problem,
        }));
        if let Ok(target) = target {
            by_source
                .entry(&target.netns)
                .or_default()
                .push((i, target.clone()));
        }
    }
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let finished = thread::scope(|scope| {
        let threads: Vec<_> = by_source
            .into_iter()
            .map(|(netns, targets)| {
                let slots = slots.clone();
                scope.spawn(move || from_one_source(netns, targets, timeout, slots))
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap_or_default())
            .collect::<Vec<_>>()
    });
    for (i, outcome) in finished {
        outcomes[i] = outcome;
    }
    outcomes
}

fn from_one_source(
    netns: &Path,
    targets: Vec<(usize, Target)>,
    timeout: Duration,
    slots: Arc<Semaphore>,
) -> Vec<(usize, Outcome)> {
    let runtime = netns::enter(netns).and_then(|()| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
    });
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            let all = Outcome::error(format!("{}: {e}", netns.display()));
            return targets.into_iter().map(|(i, _)| (i, all.clone())).collect();
        }
    };
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for (i, target) in targets {
            let slots = slots.clone();
            tasks.spawn(async move {
                let _slot = slots.acquire().await;
                (i, one(&target, timeout).await)
            });
        }
        tasks.join_all().await
    })
}

async fn one(target: &Target, timeout: Duration) -> Outcome {
    let start = Instant::now();
    let deadline = (start + timeout).into();
    let attempt = async {
        match target.protocol {
            Protocol::Tcp => tcp(target).await,
            Protocol::Udp => udp(target, timeout).await,
            Protocol::Icmp => icmp::echo(target.address, timeout).await.map(|()| None),
        }
    };
    let result = timeout_at(deadline, attempt).await;
    let took = start.elapsed();
    let (verdict, detail) = match result {
        Err(_) => (Verdict::Denied, None),
        Ok(Ok(who)) => match (&target.expect, who) {
            (Some(expected), Some(who)) if *expected != who => {
                (Verdict::Error, Some(format!("{who:?} answered instead")))
            }
            _ => (Verdict::Allowed, None),
        },
        // A drop in the sender's own output hook shows as EPERM.
        Ok(Err(e)) if e.kind() == ErrorKind::PermissionDenied => (Verdict::Denied, None),
        // The kernel's own, longer, wait was shorter after all.
        Ok(Err(e)) if e.kind() == ErrorKind::TimedOut => (Verdict::Denied, None),
        Ok(Err(e)) => (Verdict::Error, Some(e.to_string())),
    };
    Outcome {
        verdict,
        took,
        detail,
    }
}

/// Connects; from a pod that was asked for by name it also takes the name.
async fn tcp(target: &Target) -> io::Result<Option<String>> {
    let mut stream = TcpStream::connect(SocketAddr::new(target.address, target.port)).await?;
    if target.expect.is_none() {
        return Ok(None);
    }
    let mut line = Vec::new();
    let mut buffer = [0; 256];
    while !line.ends_with(b"\n") {
        match stream.read(&mut buffer).await? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => line.extend_from_slice(&buffer[..n]),
        }
    }
    Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()))
}

/// Sends a datagram, and once more at half time: neither a lost one nor a late answer is a denial.
async fn udp(target: &Target, timeout: Duration) -> io::Result<Option<String>> {
    let any: IpAddr = match target.address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket
        .connect(SocketAddr::new(target.address, target.port))
        .await?;
    let mut buffer = [0; 256];
    loop {
        socket.send(b"?").await?;
        if let Ok(got) = tokio::time::timeout(timeout / 2, socket.recv(&mut buffer)).await {
            return Ok(Some(
                String::from_utf8_lossy(&buffer[..got?])
                    .trim_end()
                    .to_owned(),
            ));
        }
    }
}
