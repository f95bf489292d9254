//! What a run makes on the machine: a directory, namespaces, processes. All of it goes when the run ends, by itself or by
//! a signal.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use lab::process::{Processes, Program};
use lab::{Lab, Options, netns};

use crate::bgp::first;

/// The traces of one run. Dropped, they are removed.
#[derive(Debug)]
pub(crate) struct Ground {
    dir: PathBuf,
    /// Begins the names of namespaces, and marks processes.
    prefix: String,
    processes: Processes,
    /// Held while something is made, and for good by whoever cleans up: nothing is made behind its back.
    gate: Arc<Mutex<()>>,
}

impl Ground {
    /// Makes the directory; from here on an interrupt cleans up.
    pub(crate) fn new() -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("it makes network namespaces: run it as root");
        }
        let pid = std::process::id();
        let dir = PathBuf::from(format!("/tmp/margay-bench-{pid}"));
        fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        let prefix = format!("mgb{pid}-");
        let ground = Self {
            processes: Processes::new(dir.clone(), dir.clone(), &prefix),
            dir,
            prefix,
            gate: Arc::default(),
        };
        clean_at_signals(&ground)?;
        Ok(ground)
    }

    /// Makes the lab of this run.
    pub(crate) fn lab(&self) -> Result<Lab> {
        let _gate = pass(&self.gate);
        Lab::up(&Options {
            dir: self.dir.join("lab"),
            report: |_| {},
            ..Options::default()
        })
    }

    /// A file or directory of this run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes a network namespace.
    pub(crate) fn namespace(&self, name: &str) -> Result<Namespace> {
        let _gate = pass(&self.gate);
        let name = format!("{}{name}", self.prefix);
        netns::create(&name).with_context(|| format!("make the namespace {name}"))?;
        Ok(Namespace { name })
    }

    /// Starts a program that is ended by [`Ground::stop`] or with the ground; its process id.
    pub(crate) fn start(
        &self,
        name: &str,
        path: &Path,
        args: &[&str],
        within: &Namespace,
    ) -> Result<i32> {
        let _gate = pass(&self.gate);
        self.processes.start(&Program {
            name: name.to_owned(),
            path: path.to_owned(),
            args: args.iter().map(|&a| a.to_owned()).collect(),
            env: Vec::new(),
            netns: Some(within.path()),
        })?;
        let record = self.processes.record(name).context("nothing was started")?;
        Ok(record.pid)
    }

    /// The last lines that a program wrote.
    pub(crate) fn log(&self, name: &str) -> String {
        self.processes.log_tail(name, 10)
    }

    /// Ends a program.
    pub(crate) fn stop(&self, name: &str) -> Result<()> {
        self.processes.kill(name).map(|_| ())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // After a signal this waits until the process ends.
        let _gate = pass(&self.gate);
        clean(&self.dir, &self.prefix, &self.processes);
    }
}

/// A named network namespace; it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn path(&self) -> PathBuf {
        netns::path(&self.name)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` with these words, inside.
    pub(crate) fn ip(&self, words: &str) -> Result<String> {
        let output = Command::new("ip")
            .args(["-n", &self.name])
            .args(words.split(' '))
            .output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("ip {words}: {}", said.trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs many commands of `ip`, a line each, inside.
    pub(crate) fn ip_batch(&self, commands: &str) -> Result<()> {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("no way to tell ip")?;
        stdin.write_all(commands.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("ip -batch: {}", said.trim());
        }
        Ok(())
    }

    /// Puts a cable between an interface here and one in another namespace, and sets both up.
    pub(crate) fn cable(&self, here: &str, other: &Self, there: &str) -> Result<()> {
        self.ip(&format!(
            "link add {here} type veth peer name {there} netns {}",
            other.name
        ))?;
        self.ip(&format!("link set {here} up"))?;
        other.ip(&format!("link set {there} up"))?;
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = netns::delete(&self.name) {
            eprintln!("remove the namespace {}: {error}", self.name);
        }
    }
}

fn pass(gate: &Mutex<()>) -> MutexGuard<'_, ()> {
    gate.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes everything, and says what cannot be removed.
fn clean(dir: &Path, prefix: &str, processes: &Processes) {
    first::restore();
    let told = |what: &str, problem: Option<String>| {
        if let Some(problem) = problem {
            eprintln!("{what}: {problem}");
        }
    };
    let lab = Lab::down(&dir.join("lab")).err();
    told("take the lab down", lab.map(|e| format!("{e:#}")));
    let killed = processes.kill_all().err();
    told("end processes", killed.map(|e| format!("{e:#}")));
    for name in netns::list().unwrap_or_default() {
        if name.starts_with(prefix) {
            told(&name, netns::delete(&name).err().map(|e| e.to_string()));
        }
    }
    if dir.exists() {
        let removed = fs::remove_dir_all(dir).err();
        told("remove the directory", removed.map(|e| e.to_string()));
    }
}

/// An interrupt ends the process without a drop: a thread waits for it and cleans.
fn clean_at_signals(ground: &Ground) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    let (dir, prefix) = (ground.dir.clone(), ground.prefix.clone());
    let (processes, gate) = (ground.processes.clone(), ground.gate.clone());
    thread::spawn(move || {
        let code = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            }
        });
        eprintln!("interrupted; cleaning up");
        let _gate = pass(&gate);
        clean(&dir, &prefix, &processes);
        std::process::exit(code)
    });
    Ok(())
}
