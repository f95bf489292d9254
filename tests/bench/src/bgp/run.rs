//! One run: a fresh speaker, its sessions, and the work, timed.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::bfd;
use super::dice::Dice;
use super::ends::{End, Ends, Greeting, Peer};
use super::feed::Feed;
use super::rows::{Ending, Kind, Work};
use super::speakers::{Running, Speaker};
use super::weather::Watch;
use super::wire;
use crate::ground::{Ground, Namespace};
use crate::usage;

/// Longest time for all sessions, and for all routes.
pub(super) const SESSIONS: Duration = Duration::from_secs(60);
pub(super) const ROUTES: Duration = Duration::from_secs(180);
/// What a speaker may still have to do when the last route has arrived.
pub(super) const REST: Duration = Duration::from_millis(300);
/// How long idle sessions are watched: a KEEPALIVE of each is in it.
const IDLE: Duration = Duration::from_secs(30);

/// What one part of the work took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    /// From the first byte sent until the slowest receiver had everything.
    pub(crate) time: Duration,
    /// Of the speaker, a short rest included.
    pub(crate) cpu: Duration,
    /// What everything else used meanwhile, as a share of one core.
    pub(crate) foreign: f64,
}

/// What one run showed.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) load: Took,
    /// The most memory until then, MiB.
    pub(crate) rss: f64,
    /// UPDATEs to one receiver, beyond the fewest possible, as a share of these.
    pub(crate) excess: f64,
    /// Median of single routes, and what everything else used.
    pub(crate) ping: Option<(Duration, f64)>,
    pub(crate) end: Option<Took>,
}

impl Seen {
    /// Nothing but this.
    pub(crate) fn only(load: Took, pids: &[i32]) -> Self {
        Self {
            load,
            rss: peak(pids),
            excess: f64::NAN,
            ping: None,
            end: None,
        }
    }
}

/// Work with its tables encoded.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) work: Work,
    pub(super) feeds: Vec<Feed>,
    pub(super) announce: Vec<Arc<[u8]>>,
    withdraw: Vec<Arc<[u8]>>,
    total: usize,
    fewest: usize,
    /// How long sessions are watched that only have to stay.
    watched: Duration,
}

impl Prepared {
    pub(crate) fn new(work: Work, watched: Duration) -> Self {
        let ends = work.ends();
        // The receiver of a failover is the second uplink.
        let tables = match work.kind {
            Kind::Failover => 2,
            _ => work.senders,
        };
        let feeds: Vec<Feed> = (0..tables)
            .zip(&ends)
            .map(|(i, end)| {
                let first = i * work.routes;
                Feed::new(
                    work.shape,
                    first,
                    work.routes,
                    work.speaks(end),
                    work.added(),
                )
            })
            .collect();
        Self {
            work,
            watched,
            // As a speaker ends its table.
            announce: feeds
                .iter()
                .map(|f| [f.announce.clone(), wire::end_of_rib()].concat().into())
                .collect(),
            withdraw: feeds.iter().map(|f| f.withdraw.as_slice().into()).collect(),
            total: feeds.iter().map(|f| f.routes).sum(),
            fewest: feeds.iter().map(|f| f.fewest).sum(),
            feeds,
        }
    }

    /// Runs it once.
    pub(crate) fn run(&self, ground: &Ground, speaker: Speaker) -> Result<Seen> {
        if self.work.kind == Kind::Bfd {
            let seen = bfd::run(ground, self.work.senders, self.watched);
            return seen.map_err(|error| anyhow!("{error:#}\n{}", ground.log(speaker.name())));
        }
        let inside = ground.namespace("speaker")?;
        let outside = ground.namespace("ends")?;
        lay(&self.work, &outside, &inside)?;
        let ends = self.work.ends();
        let role = self.work.role(&ends);
        let start = |again| speaker.start(ground, &inside, &role, again);
        let seen = thread::scope(|scope| {
            let work = scope.spawn(|| {
                lab::netns::enter(&outside.path())?;
                stay_on_last_core()?;
                let mut all = Ends::new(&ends, self.work.shape.space())?;
                if self.work.receivers == 0 {
                    let size = usize::try_from(self.work.routes)?;
                    for (i, peer) in all.peers.iter_mut().enumerate() {
                        peer.count.leave_out(i * size..(i + 1) * size);
                    }
                }
                let running = start(false)?;
                match self.work.kind {
                    Kind::Routes => self.steps(all, speaker, &running),
                    Kind::Idle | Kind::Bfd => idle(all, speaker, &running),
                    Kind::Start => first_open(&ends[0], &running),
                    Kind::Kernel => self.kernel(all, &running),
                    Kind::Failover => self.failover(all, &running, &outside, &inside),
                    Kind::Restart => self.restart(all, speaker, running, || start(true)),
                }
            });
            work.join()
                .map_err(|_| anyhow!("the thread of the other ends panicked"))?
        });
        seen.map_err(|error| {
            let log = ground.log(speaker.name());
            anyhow!("{error:#}\n{log}")
        })
    }

    /// Loaded, killed, started again.
    fn restart<'a>(
        &self,
        mut ends: Ends,
        speaker: Speaker,
        running: Running<'a>,
        start: impl FnOnce() -> Result<Running<'a>>,
    ) -> Result<Seen> {
        let greetings: Vec<Greeting> = (0..ends.peers.len())
            .map(|i| match self.announce.get(i) {
                Some(bytes) => Arc::clone(bytes),
                None => wire::end_of_rib().into(),
            })
            .collect();
        let all = |peers: &[Peer]| {
            self.heard(peers)
                .all(|(due, peer)| peer.count.present == due && peer.count.ends > 0)
        };
        ends.greet_until(&greetings, ROUTES, all)
            .context("before the restart")?;
        ends.rest(settling(speaker, ends.peers.len()))?;
        drop(running);
        ends.rest(Duration::from_millis(100))?;
        let running = start()?;
        let watch = Watch::start(&running.pids)?;
        let done = ends.greet_until(&greetings, ROUTES, all)?;
        let load = Took {
            time: done - running.since,
            ..watch.stop(&running.pids, done)?
        };
        Ok(Seen::only(load, &running.pids))
    }

    fn steps(&self, mut ends: Ends, speaker: Speaker, running: &Running<'_>) -> Result<Seen> {
        ends.establish(SESSIONS)?;
        ends.rest(settling(speaker, ends.peers.len()))?;
        let pids = running.pids.as_slice();

        let told = |ends: &Ends| -> usize {
            let heard = self.heard(&ends.peers).map(|(_, peer)| peer.count.updates);
            heard.max().unwrap_or(0)
        };
        let before = told(&ends);
        let watch = Watch::start(pids)?;
        for (sender, bytes) in self.announce.iter().enumerate() {
            ends.send(sender, Arc::clone(bytes))?;
        }
        let done = ends.until("all routes", ROUTES, |peers| {
            self.heard(peers)
                .all(|(due, peer)| peer.count.present == due)
        });
        let done = done.with_context(|| {
            let heard = self.heard(&ends.peers).map(|(_, peer)| peer.count.present);
            format!("the slowest has {}", heard.min().unwrap_or(0))
        })?;
        ends.rest(REST)?;
        let load = watch.stop(pids, done)?;
        let (fewest, updates) = (self.fewest_heard(), told(&ends) - before);
        let rss = peak(pids);

        let ping = match self.work.pings {
            0 => None,
            count => Some(self.pings(&mut ends, count, pids)?),
        };
        Ok(Seen {
            load,
            rss,
            excess: ratio(updates, fewest) - 1.0,
            ping,
            end: match speaker {
                // It has no table to withdraw when a session ends.
                Speaker::Null => None,
                _ => self.ending(&mut ends, pids)?,
            },
        })
    }

    /// Those that count as receivers, each with the number of routes it is due.
    fn heard<'a>(&'a self, peers: &'a [Peer]) -> impl Iterator<Item = (usize, &'a Peer)> {
        let senders = self.feeds.len();
        let mesh = self.work.receivers == 0;
        peers
            .iter()
            .enumerate()
            .skip(if mesh { 0 } else { senders })
            .map(move |(i, peer)| {
                let own = self.feeds.get(i).map_or(0, |feed| feed.routes);
                (self.total - own, peer)
            })
    }

    /// What a receiver must be told at least.
    fn fewest_heard(&self) -> usize {
        match self.work.receivers {
            0 => self.fewest - self.feeds.first().map_or(0, |feed| feed.fewest),
            _ => self.fewest,
        }
    }

    /// One route at a time; from the byte sent until every receiver has it.
    fn pings(&self, ends: &mut Ends, count: u32, pids: &[i32]) -> Result<(Duration, f64)> {
        let speaks = self.work.speaks(&ends.peers[0].end);
        let senders = self.feeds.len();
        let mut dice = Dice::new(u64::from(count));
        let mut times = Vec::new();
        let watch = Watch::start(pids)?;
        for number in 0..count {
            let one = Feed::single(number, speaks);
            let due = times.len() + 1;
            let start = Instant::now();
            ends.send(0, one.announce.into())?;
            let there = ends.until("a single route", ROUTES, |peers| {
                peers[senders..].iter().all(|p| p.count.others.0 == due)
            })?;
            times.push(there - start);
            ends.send(0, one.withdraw.into())?;
            ends.until("its withdrawal", ROUTES, |peers| {
                peers[senders..].iter().all(|p| p.count.others.1 == due)
            })?;
            // Not in step with anybody's timer.
            ends.rest(Duration::from_micros(u64::from(dice.between(2000, 12_000))))?;
        }
        let took = watch.stop(pids, Instant::now())?;
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        Ok((median, took.foreign))
    }

    fn ending(&self, ends: &mut Ends, pids: &[i32]) -> Result<Option<Took>> {
        let watch = Watch::start(pids)?;
        let senders = self.feeds.len();
        match self.work.end {
            Ending::Nothing => return Ok(None),
            Ending::Withdraw => {
                for (sender, bytes) in self.withdraw.iter().enumerate() {
                    ends.send(sender, Arc::clone(bytes))?;
                }
            }
            Ending::Flap => (0..senders).for_each(|sender| ends.close(sender)),
        }
        let done = ends.until("all withdrawals", ROUTES, |peers| {
            peers[senders..].iter().all(|p| p.count.present == 0)
        })?;
        ends.rest(REST)?;
        watch.stop(pids, done).map(Some)
    }
}

/// Sessions that say nothing but KEEPALIVE.
fn idle(mut ends: Ends, speaker: Speaker, running: &Running<'_>) -> Result<Seen> {
    ends.establish(SESSIONS)?;
    ends.rest(settling(speaker, ends.peers.len()))?;
    let watch = Watch::start(&running.pids)?;
    ends.rest(IDLE)?;
    if let Some(lost) = ends.peers.iter().find(|peer| peer.lost > 0) {
        bail!("lost the session of {}: {}", lost.end.address, lost.why);
    }
    let load = watch.stop(&running.pids, Instant::now())?;
    Ok(Seen::only(load, &running.pids))
}

/// Knocks until it is let in, and waits for the first byte.
fn first_open(end: &End, running: &Running<'_>) -> Result<Seen> {
    let watch = Watch::start(&running.pids)?;
    let deadline = Instant::now() + SESSIONS;
    let mut byte = [0];
    while Instant::now() < deadline {
        if let Some(mut stream) = end.connect()? {
            stream.set_read_timeout(Some(SESSIONS))?;
            if stream.write_all(&end.open()).is_ok() && stream.read_exact(&mut byte).is_ok() {
                let done = Instant::now();
                let load = Took {
                    time: done - running.since,
                    ..watch.stop(&running.pids, done)?
                };
                return Ok(Seen::only(load, &running.pids));
            }
        }
        thread::sleep(Duration::from_micros(200));
    }
    bail!("waited {} s for an OPEN", SESSIONS.as_secs())
}

/// How long the sessions are up before anything is measured.
fn settling(speaker: Speaker, peers: usize) -> Duration {
    match speaker {
        // FRR holds the first advertisements back after sessions came up, by 50 ms for each peer: with many, anything
        // sooner measures that timer.
        Speaker::Frr | Speaker::FrrQueue if peers > 2 => Duration::from_secs(12),
        Speaker::Frr | Speaker::FrrQueue => Duration::from_secs(3),
        _ => Duration::from_secs(1),
    }
}

/// Two cables, senders and receivers, with all addresses.
fn lay(work: &Work, outside: &Namespace, inside: &Namespace) -> Result<()> {
    let mut batch = String::new();
    let ends = work.ends();
    for (device, second) in [("senders", 18), ("receivers", 19)] {
        outside.cable(device, inside, device)?;
        inside.ip(&format!("addr add 198.{second}.255.1/16 dev {device}"))?;
        let here = ends.iter().filter(|end| end.address.octets()[1] == second);
        for end in here {
            batch += &format!("addr add {}/16 dev {device}\n", end.address);
        }
    }
    outside.ip_batch(&batch)
}

/// The other ends leave the other cores to the speaker.
fn stay_on_last_core() -> Result<()> {
    let cores = thread::available_parallelism()?.get();
    let mut set = CpuSet::new();
    set.set(cores - 1)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    Ok(())
}

/// The most memory of all of them, MiB.
fn peak(pids: &[i32]) -> f64 {
    let peaks = pids.iter().map(|pid| usage::peak_rss(*pid));
    peaks.sum::<Option<f64>>().unwrap_or(f64::NAN)
}

fn ratio(a: usize, b: usize) -> f64 {
    let float = |n: usize| u32::try_from(n).map_or(f64::NAN, f64::from);
    float(a) / float(b)
}
