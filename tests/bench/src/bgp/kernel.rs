//! Rows that end in the kernel: routes from the wire into it, and away from an uplink that has died.

use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::ends::Ends;
use super::run::{Prepared, REST, ROUTES, SESSIONS, Seen, Took};
use super::speakers::Running;
use super::weather::Watch;
use crate::ground::Namespace;

/// Sessions are up for so long before anything is measured: BIRD looks at the kernel first.
const SETTLE: Duration = Duration::from_secs(2);
/// Between two looks at the kernel.
const LOOK: Duration = Duration::from_millis(1);
/// Destinations that are looked up to see whether an uplink is still used.
const SAMPLES: usize = 200;

impl Prepared {
    /// Until the kernel has them all.
    pub(super) fn kernel(&self, mut ends: Ends, running: &Running<'_>) -> Result<Seen> {
        ends.establish(SESSIONS)?;
        ends.rest(SETTLE)?;
        let pids = running.pids.as_slice();
        let file = format!("/proc/{}/net/fib_triestat", pids[0]);
        let before = routes(&file)?;
        let watch = Watch::start(pids)?;
        self.announce(&mut ends, 0, 0)?;
        let done = full(&mut ends, &file, before + self.feeds[0].routes)?;
        ends.rest(REST)?;
        Ok(Seen::only(watch.stop(pids, done)?, pids))
    }

    /// Until nothing goes to the uplink without carrier.
    pub(super) fn failover(
        &self,
        mut ends: Ends,
        running: &Running<'_>,
        outside: &Namespace,
        inside: &Namespace,
    ) -> Result<Seen> {
        ends.establish(SESSIONS)?;
        ends.rest(SETTLE)?;
        let pids = running.pids.as_slice();
        let file = format!("/proc/{}/net/fib_triestat", pids[0]);
        let before = routes(&file)?;
        // The same table from both: the second has its own AS and next hop.
        self.announce(&mut ends, 0, 0)?;
        self.announce(&mut ends, 1, 1)?;
        full(&mut ends, &file, before + self.feeds[0].routes)?;
        ends.rest(SETTLE)?;

        let samples = self.samples();
        let uplinks = [("senders", 18), ("receivers", 19)];
        let through = |second: u8, samples: &[Ipv4Addr]| users(&inside.path(), samples, second);
        let mut victim = uplinks[0];
        for uplink in uplinks {
            if through(uplink.1, &samples)? > through(victim.1, &samples)? {
                victim = uplink;
            }
        }
        if through(victim.1, &samples)? == 0 {
            bail!("no destination goes to an uplink");
        }
        // Already there when it is needed.
        let mut ip = Command::new("ip")
            .args(["-n", outside.name(), "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()?;
        let mut stdin = ip.stdin.take().context("no way to tell ip")?;
        ends.rest(REST)?;
        let watch = Watch::start(pids)?;
        let start = Instant::now();
        writeln!(stdin, "link set {} down", victim.0)?;
        let done = lab::netns::run_in(&inside.path(), move || {
            while used(&samples, victim.1)? > 0 {
                if start.elapsed() > ROUTES {
                    return Err(io::Error::other("the dead uplink is still used"));
                }
            }
            Ok(Instant::now())
        })?;
        drop(stdin);
        ip.wait()?;
        std::thread::sleep(REST);
        let load = Took {
            time: done - start,
            ..watch.stop(pids, done)?
        };
        Ok(Seen::only(load, pids))
    }

    /// Sends a table from one of the ends.
    fn announce(&self, ends: &mut Ends, table: usize, from: usize) -> Result<()> {
        ends.send(from, Arc::clone(&self.announce[table]))
    }

    /// Destinations spread over the first table.
    fn samples(&self) -> Vec<Ipv4Addr> {
        let prefixes = &self.feeds[0].prefixes;
        let step = (prefixes.len() / SAMPLES).max(1);
        let spread = prefixes.iter().step_by(step);
        spread
            .map(|(network, _)| Ipv4Addr::from_bits(network + 1))
            .collect()
    }
}

/// Waits until the kernel holds so many prefixes.
fn full(ends: &mut Ends, file: &str, due: usize) -> Result<Instant> {
    let deadline = Instant::now() + ROUTES;
    loop {
        let have = routes(file)?;
        if have >= due {
            return Ok(Instant::now());
        }
        if Instant::now() > deadline {
            bail!(
                "waited {} s: the kernel has {have} of {due} prefixes",
                ROUTES.as_secs()
            );
        }
        ends.rest(LOOK)?;
    }
}

/// The prefixes of all IPv4 tables.
fn routes(file: &str) -> Result<usize> {
    let text = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    Ok(prefixes(&text))
}

fn prefixes(text: &str) -> usize {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Prefixes:"))
        .filter_map(|count| count.trim().parse::<usize>().ok())
        .sum()
}

/// How many of these leave by the uplink with that second octet; from another namespace.
fn users(netns: &Path, samples: &[Ipv4Addr], second: u8) -> io::Result<usize> {
    let samples = samples.to_vec();
    lab::netns::run_in(netns, move || used(&samples, second))
}

/// The kernel chooses the source address by the route: each uplink has one.
fn used(samples: &[Ipv4Addr], second: u8) -> io::Result<usize> {
    let mut count = 0;
    for sample in samples {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // Nowhere to send it is not that uplink either.
        if socket.connect((*sample, 9)).is_ok()
            && let IpAddr::V4(source) = socket.local_addr()?.ip()
        {
            count += usize::from(source.octets()[1] == second);
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_all_tables_are_counted() {
        let text = "Main:\n\tLeaves:         3\n\tPrefixes:       5\nLocal:\n\tPrefixes:       7\n";
        assert_eq!(prefixes(text), 12);
    }

    #[test]
    fn the_source_says_the_uplink() {
        let samples = [Ipv4Addr::LOCALHOST];
        assert_eq!(used(&samples, 0).unwrap(), 1);
        assert_eq!(used(&samples, 19).unwrap(), 0);
    }
}
