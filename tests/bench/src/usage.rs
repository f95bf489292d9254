//! What processes cost, from proc(5) and getrusage(2).

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};

/// CPU time of a running process, its ended threads included, in user and kernel.
pub(crate) fn cpu_of(pid: i32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = ticks(&text).context("read /proc/PID/stat")?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("the clock's ticks are not known")?;
    Ok(Duration::from_secs_f64(
        f64::from(ticks) / f64::from(u32::try_from(per_second)?),
    ))
}

/// Fields 14 and 15. The name before them may hold blanks and brackets.
fn ticks(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u32>().ok();
    Some(next()? + next()?)
}

/// CPU time of all children of this process that have ended and been waited for, theirs included.
pub(crate) fn cpu_of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = usage.user_time() + usage.system_time();
    let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

/// The most memory a process has had so far, in MiB.
pub(crate) fn peak_rss(pid: i32) -> Option<f64> {
    high_water(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn high_water(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u32 = line.split_whitespace().next()?.parse().ok()?;
    Some(f64::from(kib) / 1024.0)
}

/// What the figures were measured on, and how busy that is.
pub(crate) fn machine() -> String {
    let text = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = text("/proc/sys/kernel/osrelease");
    let load = text("/proc/loadavg");
    let minute = load.split(' ').next().unwrap_or_default();
    format!(
        "machine: {cores} cores, Linux {}, load {minute}",
        kernel.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_survive_odd_names() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 0 0 0 13 4 0 0 20 0 1 0 987654 1 1";
        assert_eq!(ticks(line), Some(17));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn this_process_has_used_memory_and_a_machine() {
        assert_eq!(high_water("Name:\tx\nVmHWM:\t    2048 kB\n"), Some(2.0));
        let pid = nix::unistd::getpid().as_raw();
        assert!(peak_rss(pid).unwrap() > 0.5);
        cpu_of(pid).unwrap();
        assert!(machine().contains("load "), "{}", machine());
    }
}
