//! A sender in a pod's namespace that never pauses, and counts what was not answered.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::netns;

/// Pause between two datagrams.
const EVERY: Duration = Duration::from_millis(10);
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One flow that lives as long as the traffic.
    Flow,
    /// Every datagram begins a flow of its own, which has to be judged anew.
    NewFlows,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Loss {
    /// Who was asked, and how.
    pub what: String,
    /// Datagrams sent.
    pub sent: usize,
    /// Not answered.
    pub lost: usize,
    /// Longest time between two answers.
    pub gap: Duration,
}

impl Loss {
    /// How long it took to send what was lost.
    #[must_use]
    pub fn time(&self) -> Duration {
        EVERY * u32::try_from(self.lost).unwrap_or(u32::MAX)
    }
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            what,
            sent,
            lost,
            gap,
        } = self;
        write!(
            f,
            "{what}: {lost} of {sent} lost, longest gap {} ms",
            gap.as_millis()
        )
    }
}

/// Senders that run until they are stopped.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    /// Do not wait for late answers.
    hurry: Arc<AtomicBool>,
    senders: Vec<(String, JoinHandle<io::Result<Loss>>)>,
}

impl Traffic {
    /// None yet.
    #[must_use]
    pub fn none() -> Self {
        Self {
            stop: Arc::new(AtomicBool::new(false)),
            hurry: Arc::new(AtomicBool::new(false)),
            senders: Vec::new(),
        }
    }

    /// Adds both kinds to every address of a pod, from a namespace.
    pub fn add(&mut self, name: &str, from: &Path, to: &[IpAddr]) {
        for address in to {
            for kind in [Kind::Flow, Kind::NewFlows] {
                self.add_one(name, from, *address, kind);
            }
        }
    }

    /// Adds one sender.
    pub fn add_one(&mut self, name: &str, from: &Path, to: IpAddr, kind: Kind) {
        let what = format!(
            "{name} {} {kind:?}",
            if to.is_ipv4() { "IPv4" } else { "IPv6" }
        );
        let (stop, hurry) = (self.stop.clone(), self.hurry.clone());
        let (from, label) = (from.to_owned(), what.clone());
        let sender = thread::spawn(move || {
            netns::enter(&from)?;
            send(label, SocketAddr::new(to, 80), kind, &stop, &hurry)
        });
        self.senders.push((what, sender));
    }

    /// Ends it, waits for the last answers, and tells what was lost.
    pub fn stop(self) -> Result<Vec<Loss>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut losses = Vec::new();
        for (what, sender) in self.senders {
            let sent = sender
                .join()
                .ok()
                .with_context(|| format!("{what}: the sender panicked"))?;
            losses.push(sent.with_context(|| format!("send {what}"))?);
        }
        Ok(losses)
    }

    /// Ends it: whether each sender had an answer within a moment.
    pub fn stop_soon(self) -> Result<bool> {
        const MOMENT: Duration = Duration::from_millis(30);
        thread::sleep(MOMENT);
        self.hurry.store(true, Ordering::Relaxed);
        Ok(self.stop()?.iter().all(|loss| loss.lost < loss.sent))
    }

    /// Ends it and fails when anything was lost.
    pub fn stop_unharmed(self, during: &str) -> Result<()> {
        let losses = self.stop()?;
        let sent: usize = losses.iter().map(|loss| loss.sent).sum();
        let gap = losses.iter().map(|loss| loss.gap).max().unwrap_or_default();
        println!(
            "{during}: {sent} datagrams, longest gap {} ms",
            gap.as_millis()
        );
        let bad: Vec<String> = losses
            .iter()
            .filter(|loss| loss.lost > 0 || loss.sent == 0)
            .map(ToString::to_string)
            .collect();
        anyhow::ensure!(bad.is_empty(), "{during}: {}", bad.join("; "));
        Ok(())
    }
}

struct Pending {
    socket: UdpSocket,
    sent: Instant,
    awaited: usize,
}

fn send(
    what: String,
    to: SocketAddr,
    kind: Kind,
    stop: &AtomicBool,
    hurry: &AtomicBool,
) -> io::Result<Loss> {
    let mut loss = Loss {
        what,
        sent: 0,
        lost: 0,
        gap: Duration::ZERO,
    };
    let mut answered = Instant::now();
    let mut open: Vec<Pending> = Vec::new();
    let mut stopped = None;
    loop {
        if stopped.is_none() && stop.load(Ordering::Relaxed) {
            stopped = Some(Instant::now());
        }
        if stopped.is_none() {
            if kind == Kind::NewFlows || open.is_empty() {
                open.push(Pending {
                    socket: connect(to)?,
                    sent: Instant::now(),
                    awaited: 0,
                });
            }
            if let Some(flow) = open.last_mut() {
                loss.sent += 1;
                flow.awaited += 1;
                flow.sent = Instant::now();
                // A datagram that cannot even be sent will not be answered.
                let _ = flow.socket.send(b"?");
            }
        }
        thread::sleep(EVERY);
        let now = Instant::now();
        for flow in &mut open {
            let mut answer = [0; 256];
            while flow.awaited > 0 {
                match flow.socket.recv(&mut answer) {
                    Ok(_) => {
                        flow.awaited -= 1;
                        loss.gap = loss.gap.max(now - answered);
                        answered = now;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // The ICMP answer to one of ours.
                    Err(_) => {}
                }
            }
        }
        if kind == Kind::NewFlows {
            open.retain(|flow| {
                let late = now - flow.sent > PATIENCE;
                loss.lost += if late { flow.awaited } else { 0 };
                flow.awaited > 0 && !late
            });
        }
        let awaited: usize = open.iter().map(|flow| flow.awaited).sum();
        let patience = if hurry.load(Ordering::Relaxed) {
            Duration::ZERO
        } else {
            PATIENCE
        };
        if stopped.is_some_and(|at| awaited == 0 || now - at > patience) {
            loss.lost += awaited;
            // The wait for what is lost is no gap.
            let end = stopped.unwrap_or(now);
            loss.gap = loss.gap.max(end.saturating_duration_since(answered));
            return Ok(loss);
        }
    }
}

fn connect(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(to)?;
    Ok(socket)
}
