//! What else the machine does while something is measured.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

use super::run::Took;

/// More than this, in shares of a core, makes a run doubtful.
pub(crate) const FOREIGN_MAX: f64 = 0.15;

/// Clocks at the start of a part.
#[derive(Debug)]
pub(crate) struct Watch {
    start: Instant,
    speaker: Duration,
    own: Duration,
    busy: Duration,
}

impl Watch {
    /// Now.
    pub(crate) fn start(pids: &[i32]) -> Result<Self> {
        Ok(Self {
            busy: busy()?,
            own: cpu(Pid::this())?,
            speaker: cpu_of(pids)?,
            start: Instant::now(),
        })
    }

    /// What it took until `done`, and the CPU until now.
    pub(crate) fn stop(&self, pids: &[i32], done: Instant) -> Result<Took> {
        let cpu_used = cpu_of(pids)? - self.speaker;
        let own = cpu(Pid::this())? - self.own;
        let foreign = (busy()? - self.busy).saturating_sub(own + cpu_used);
        Ok(Took {
            time: done - self.start,
            cpu: cpu_used,
            foreign: foreign.as_secs_f64() / self.start.elapsed().as_secs_f64(),
        })
    }
}

fn cpu_of(pids: &[i32]) -> Result<Duration> {
    pids.iter().map(|pid| cpu(Pid::from_raw(*pid))).sum()
}

/// User and system time of a process and all its threads, ended ones included. The same as in /proc/PID/stat, which counts
/// in hundredths of a second: too coarse for some rows.
pub(crate) fn cpu(pid: Pid) -> Result<Duration> {
    let clock: ClockId = clock_getcpuclockid(pid).with_context(|| format!("the clock of {pid}"))?;
    Ok(Duration::from(clock_gettime(clock)?))
}

/// What all cores did together.
fn busy() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let ticks = busy_ticks(&text).context("read /proc/stat")?;
    let second = sysconf(SysconfVar::CLK_TCK)?.context("the clock's ticks are not known")?;
    Ok(Duration::from_millis(ticks * 1000 / u64::try_from(second)?))
}

/// user nice system idle iowait irq softirq steal: without the two that mean rest.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields = line.split_whitespace().map(str::parse);
    let fields: Vec<u64> = fields.collect::<Result<_, _>>().ok()?;
    let at = |i: usize| fields.get(i).copied();
    Some(at(0)? + at(1)? + at(2)? + at(5)? + at(6)? + at(7)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_is_not_work() {
        let text = "cpu  1 2 4 1000 1000 8 16 32 64 0\ncpu0 9 9 9 9 9 9 9 9 9 9\n";
        assert_eq!(busy_ticks(text), Some(63));
        assert_eq!(busy_ticks("intr 5"), None);
    }

    #[test]
    fn a_watch_sees_this_process_work() {
        let watch = Watch::start(&[Pid::this().as_raw()]).unwrap();
        let end = Instant::now() + Duration::from_millis(20);
        while Instant::now() < end {}
        let took = watch.stop(&[Pid::this().as_raw()], Instant::now()).unwrap();
        assert!(took.cpu > Duration::from_millis(2), "{took:?}");
        assert!(took.time >= Duration::from_millis(20));
    }
}
