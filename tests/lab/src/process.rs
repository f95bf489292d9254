//! The lab's processes: started in a namespace, apart from the terminal, recorded so that a later command
//! finds them and never touches a process that got a re-used pid.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, setsid};
use serde::{Deserialize, Serialize};

/// In the environment of everything the lab starts, with the lab's name: `down` finds by it what a crash
/// left without a record.
pub const MARK: &str = "MARGAY_LAB_PROCESS";

/// How to start a process.
#[derive(Debug, Clone)]
pub struct Program {
    /// `n1.felix`, `tor-a.bird`, `apiserver`: names the record and the log.
    pub name: String,
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Added to the environment.
    pub env: Vec<(String, String)>,
    /// The namespace's file; `None` for the one of the caller.
    pub netns: Option<PathBuf>,
}

/// A process that was started. The start time makes the pid unmistakable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Process id.
    pub pid: i32,
    /// When it started, in clock ticks since boot: field 22 of /proc/PID/stat.
    pub started: u64,
}

impl Record {
    /// Whether that very process still runs; a zombie does not.
    pub fn alive(self) -> bool {
        stat(self.pid).is_some_and(|s| s.started == self.started && !s.zombie)
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(self) -> Result<()> {
        if self.alive() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.alive() {
            if Instant::now() > deadline {
                bail!("process {} does not end after SIGKILL", self.pid);
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Takes the exit status of a dead process if it was a child of ours, as it is in tests that use the library.
    fn reap(self) {
        let _ = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
    }
}

/// The processes of one lab.
#[derive(Debug, Clone)]
pub struct Processes {
    records: PathBuf,
    logs: PathBuf,
    mark: String,
}

impl Processes {
    /// Those with records and logs in these directories; `lab` is the lab's name.
    pub fn new(records: PathBuf, logs: PathBuf, lab: &str) -> Self {
        Self {
            records,
            logs,
            mark: lab.to_owned(),
        }
    }

    /// The log of a process.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// Starts a program unless it runs already; says whether it did.
    pub fn start(&self, program: &Program) -> Result<bool> {
        if self.record(&program.name).is_some_and(Record::alive) {
            return Ok(false);
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log(&program.name))
            .with_context(|| format!("open the log of {}", program.name))?;
        let mut command = Command::new(&program.path);
        command
            .args(&program.args)
            .envs(program.env.iter().map(|(k, v)| (k, v)))
            .env(MARK, &self.mark)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let netns = match &program.netns {
            Some(path) => {
                Some(fs::File::open(path).with_context(|| format!("open {}", path.display()))?)
            }
            None => None,
        };
        let in_child = move || {
            // Its own session: it outlives the command that started it, and the terminal.
            setsid()?;
            if let Some(netns) = &netns {
                setns(netns, CloneFlags::CLONE_NEWNET)?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec only setsid and setns run, bare system calls that neither
        // allocate nor lock.
        unsafe { command.pre_exec(in_child) };
        let child = command
            .spawn()
            .with_context(|| format!("start {}", program.path.display()))?;
        let pid = i32::try_from(child.id())?;
        let Some(stat) = stat(pid) else {
            bail!("{} ended at once", program.name);
        };
        let record = Record {
            pid,
            started: stat.started,
        };
        fs::write(self.file(&program.name), serde_json::to_vec(&record)?)?;
        Ok(true)
    }

    /// SIGKILL to a recorded process; says whether it ran.
    pub fn kill(&self, name: &str) -> Result<bool> {
        let Some(record) = self.record(name) else {
            return Ok(false);
        };
        let ran = record.alive();
        record.kill()?;
        record.reap();
        fs::remove_file(self.file(name))?;
        Ok(ran)
    }

    /// What was started under that name last.
    pub fn record(&self, name: &str) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.file(name)).ok()?).ok()
    }

    /// Kills everything of the lab, recorded or not; says how many processes that were.
    pub fn kill_all(&self) -> Result<usize> {
        let killed = kill_marked(&self.mark)?;
        let files = fs::read_dir(&self.records).into_iter().flatten().flatten();
        for file in files.filter_map(|e| fs::read(e.path()).ok()) {
            if let Ok(record) = serde_json::from_slice::<Record>(&file) {
                record.reap();
            }
        }
        Ok(killed)
    }

    /// The last `lines` lines of a process's log.
    pub fn log_tail(&self, name: &str, lines: usize) -> String {
        let text = fs::read(self.log(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.records.join(format!("{name}.json"))
    }
}

/// Every process that carries the lab's mark, except this one and its ancestors: whoever calls `lab down`
/// from a shell started by `lab exec` wants to see it end.
pub fn marked(lab: &str) -> Vec<Record> {
    let wanted = format!("{MARK}={lab}").into_bytes();
    let kin = ancestors();
    pids()
        .filter(|pid| !kin.contains(pid))
        .filter_map(|pid| {
            let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let found = environ
                .split(|b| *b == 0)
                .any(|var| var == wanted.as_slice());
            let stat = found.then(|| stat(pid)).flatten()?;
            (!stat.zombie).then_some(Record {
                pid,
                started: stat.started,
            })
        })
        .collect()
}

/// Kills everything that carries the mark, until nothing does.
fn kill_marked(lab: &str) -> Result<usize> {
    let mut killed = 0;
    // A process may have forked while we looked; three rounds are plenty for children of the dead.
    for _ in 0..3 {
        let found = marked(lab);
        if found.is_empty() {
            return Ok(killed);
        }
        killed += found.len();
        for record in &found {
            let _ = kill(Pid::from_raw(record.pid), Signal::SIGKILL);
        }
        for record in found {
            record.kill()?;
        }
    }
    Ok(killed)
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
}

fn ancestors() -> Vec<i32> {
    let mut kin = Vec::new();
    let mut pid = nix::unistd::getpid().as_raw();
    while pid > 0 {
        kin.push(pid);
        pid = stat(pid).map_or(0, |s| s.parent);
    }
    kin
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    zombie: bool,
    parent: i32,
    started: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// proc(5): pid, (name), state, ppid …, number of threads as field 20, start time as field 22. The name may hold spaces
/// and brackets. While other threads still end, a dead first thread is no dead process: its sockets are open.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Stat {
        zombie: matches!(*fields.first()?, "Z" | "X") && matches!(*fields.get(17)?, "0" | "1"),
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// Replaces this process by a command in a namespace. Returns only the error.
pub fn become_command(
    netns: &Path,
    lab: &str,
    env: &[(String, String)],
    command: &[String],
) -> io::Error {
    if let Err(e) = crate::netns::enter(netns) {
        return io::Error::new(e.kind(), format!("enter {}: {e}", netns.display()));
    }
    // PATH is looked up in the environment the command gets, not in ours.
    let mut shell = Command::new("/usr/bin/env");
    shell.arg("--").args(command);
    shell.envs(env.iter().map(|(k, v)| (k, v))).env(MARK, lab);
    shell.exec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_odd_names() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 987654 1 1";
        assert_eq!(
            parse_stat(line),
            Some(Stat {
                zombie: false,
                parent: 7,
                started: 987_654
            })
        );
        let zombie = |threads: u8| {
            let line = line
                .replace("S 7", "Z 7")
                .replace("0 1 0 987", &format!("0 {threads} 0 987"));
            parse_stat(&line).unwrap().zombie
        };
        assert!(zombie(1), "dead");
        assert!(!zombie(4), "three threads still end");
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn a_reused_pid_is_not_alive() {
        let pid = nix::unistd::getpid().as_raw();
        let started = stat(pid).unwrap().started;
        assert!(Record { pid, started }.alive());
        assert!(
            !Record {
                pid,
                started: started + 1
            }
            .alive()
        );
    }

    #[test]
    fn a_started_process_is_recorded_marked_and_killed() {
        let dir = tempfile::tempdir().unwrap();
        let lab = format!("unit{}", nix::unistd::getpid());
        let processes = Processes::new(dir.path().into(), dir.path().into(), &lab);
        let program = Program {
            name: "sleeper".into(),
            path: "/bin/sleep".into(),
            args: vec!["60".into()],
            env: vec![],
            netns: None,
        };
        assert!(processes.start(&program).unwrap());
        assert!(!processes.start(&program).unwrap(), "runs already");
        let record = processes.record("sleeper").unwrap();
        assert_eq!(marked(&lab), [record]);
        assert!(processes.kill("sleeper").unwrap());
        assert!(!record.alive());
        assert!(!processes.kill("sleeper").unwrap());

        assert!(processes.start(&program).unwrap());
        assert_eq!(processes.kill_all().unwrap(), 1);
        assert_eq!(marked(&lab), []);
    }
}
