//! A lab as a value: what the commands and the end-to-end suites do with it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::bird::{control, show};
use crate::options::{Options, State, resolve_dir};
use crate::place::Place;
use crate::plan::{Fabric, Plan};
use crate::probe::{self, Answer, Probe};
use crate::process::{MARK, Processes};
use crate::{api, bootstrap, down, fabric, netns, pods, programs, status, up};

/// A running lab. One made by [`Lab::up`] is taken down when it is dropped, unless [`Lab::keep`] was called.
#[derive(Debug)]
pub struct Lab {
    pub(crate) plan: Plan,
    pub(crate) state: State,
    pub(crate) processes: Processes,
    owned: bool,
}

impl Lab {
    /// Makes a lab and waits until it works. One that is there in the same directory is taken down first.
    /// If it fails, nothing is left of it.
    pub fn up(options: &Options) -> Result<Self> {
        up::up(options, false)
    }

    /// As [`Lab::up`], but the lab stays, also a broken one, so that one can look at it.
    pub fn up_and_keep(options: &Options) -> Result<Self> {
        up::up(options, true)
    }

    /// The lab that was made in a directory before.
    pub fn open(dir: &Path) -> Result<Self> {
        let dir = resolve_dir(dir)?;
        let Some(state) = State::load(&dir)? else {
            bail!("no lab in {}: lab up", dir.display());
        };
        Ok(Self::of(&dir, state, false))
    }

    pub(crate) fn of(dir: &Path, state: State, owned: bool) -> Self {
        let plan = state.plan(dir);
        let processes = Processes::new(plan.processes(), plan.logs(), &plan.name);
        Self {
            plan,
            state,
            processes,
            owned,
        }
    }

    /// Leaves it up when the value is dropped.
    pub fn keep(&mut self) {
        self.owned = false;
    }

    /// Removes every process, namespace and file of the lab in a directory, also of half a lab after a crash;
    /// says whether there was anything.
    pub fn down(dir: &Path) -> Result<bool> {
        down::down(&resolve_dir(dir)?)
    }

    /// Names, addresses and files.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The admin kubeconfig; good on this machine and on every node.
    pub fn kubeconfig(&self) -> PathBuf {
        self.plan.kubeconfig()
    }

    /// A command in the network namespace of WHERE (`n1`, `tor-a`, `namespace/pod`), ready to be run.
    pub fn command(&self, place: &str, argv: &[&str]) -> Result<Command> {
        let place = Place::parse(&self.plan, place)?;
        let netns = place.netns(&self.plan)?;
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", netns.display()))
            .args(["--", "/usr/bin/env", "--"])
            .args(argv)
            .envs(place.env(&self.plan, &self.state.bin_dir))
            .env(MARK, &self.plan.name)
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a command in the network namespace of WHERE and returns its output, whatever its exit code.
    pub fn exec(&self, place: &str, argv: &[&str]) -> Result<Output> {
        self.command(place, argv)?
            .output()
            .with_context(|| format!("run {argv:?} in {place}"))
    }

    /// `kubectl` against the lab's API, ready to be run.
    pub fn kubectl_command(&self) -> Result<Command> {
        let kubectl = self.state.kubectl.as_ref();
        let mut command =
            Command::new(kubectl.context("kubectl was not installed when the lab was made")?);
        command
            .env("KUBECONFIG", self.kubeconfig())
            // Its discovery cache goes away with the lab.
            .env("KUBECACHEDIR", self.plan.dir.join("kubectl-cache"));
        Ok(command)
    }

    /// Runs `kubectl` with a text on its standard input; its standard output, or an error with what it said.
    pub fn kubectl(&self, argv: &[&str], stdin: &str) -> Result<String> {
        let mut child = self
            .kubectl_command()?
            .args(argv)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(stdin.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "kubectl {}: {}",
                argv.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// `kubectl apply` of a text of YAML documents.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        self.kubectl(&["apply", "-f", "-"], yaml).map(|_| ())
    }

    /// Asks who reaches whom, all at once; answers in the same order.
    pub fn probe(&self, probes: &[Probe], timeout: Duration) -> Vec<Answer> {
        probe::probe(&self.plan, probes, timeout)
    }

    /// SIGKILL to `felix`, `bgpd` or `runner` of a node, `bird` of a router, `apiserver` or `scheduler`.
    pub fn kill(&self, what: &str, place: Option<&str>) -> Result<()> {
        let name = programs::find(&self.plan, what, place)?;
        if !self.processes.kill(&name)? {
            bail!("{name} does not run");
        }
        Ok(())
    }

    /// Starts what [`Lab::kill`] ended; says whether it was not running already. The API
    /// server and BIRD are waited for until they answer.
    pub fn start(&self, what: &str, place: Option<&str>) -> Result<bool> {
        let name = programs::find(&self.plan, what, place)?;
        let mut program = programs::program(&self.plan, &self.state, &name)?;
        if what == "bird" && self.plan.fabric == Fabric::DualTor {
            // Unlike the first start, this one takes up what the earlier life left (RFC 4724).
            program.args.push("-R".to_owned());
        }
        let started = self.processes.start(&program)?;
        match place {
            None if name == programs::APISERVER => self.wait_for_api()?,
            Some(tor) if what == "bird" => {
                self.wait("BIRD to answer", &[&name], || {
                    self.birdc(tor, "show status").map(|_| None)
                })?;
            }
            _ => {}
        }
        Ok(started)
    }

    /// Ends everything on a node, as a reset does: its processes, pods' namespaces, interfaces, routes and settings; only
    /// what is on disk stays. Then it boots: links, and its processes.
    pub fn reboot(&self, node: &str) -> Result<()> {
        self.power_off(node)?;
        self.power_on(node)
    }

    /// The first half of [`Lab::reboot`].
    pub fn power_off(&self, node: &str) -> Result<()> {
        let node = self.plan.node(node).context("no such node")?;
        if self.plan.api_address().is_none() {
            bail!(
                "the API server listens in the node's namespace: only a node of --fabric dual-tor can be rebooted"
            );
        }
        for what in programs::on_node(&node.name) {
            self.processes.kill(&programs::name(&node.name, what))?;
        }
        for sandbox in pods::load(&self.plan.pods_dir(&node.name)) {
            netns::delete(&sandbox.netns)?;
        }
        // The other ends in the ToRs go with the links, at once: the namespace itself may live on for a moment.
        for link in &node.uplinks {
            self.exec(&link.tor, &["ip", "link", "del", &node.name])?;
        }
        netns::delete(&self.plan.netns(&node.name))?;
        Ok(())
    }

    /// The second half of [`Lab::reboot`].
    pub fn power_on(&self, node: &str) -> Result<()> {
        let node = self.plan.node(node).context("no such node")?;
        // It is in memory on a real node.
        let run = self.plan.run_dir(&node.name);
        for entry in std::fs::read_dir(&run)?.flatten() {
            std::fs::remove_file(entry.path())?;
        }
        bootstrap::boot(&self.plan, node)?;
        fabric::create_node(&self.plan, node)?;
        fabric::connect_node(&self.plan, node)?;
        for what in programs::on_node(&node.name) {
            self.start(what, Some(&node.name))?;
        }
        Ok(())
    }

    /// Processes, sessions, routes, nodes and pods.
    pub fn status(&self) -> status::Status {
        status::of(self)
    }

    /// The log files of WHERE, of one process if `what` is given.
    pub fn log_files(&self, place: &str, what: Option<&str>) -> Result<Vec<PathBuf>> {
        let names: Vec<String> = match what {
            Some(what) => vec![programs::find(&self.plan, what, Some(place))?],
            None => programs::expected(&self.plan, self.state.parts)
                .into_iter()
                .filter(|n| n == place || n.split_once('.').is_some_and(|(p, _)| p == place))
                .collect(),
        };
        if names.is_empty() {
            bail!("no logs of {place:?}: a node, a ToR, apiserver or scheduler");
        }
        Ok(names.iter().map(|n| self.processes.log(n)).collect())
    }

    /// A ToR's BIRD: the answer to a `birdc` command.
    pub fn birdc(&self, tor: &str, command: &str) -> Result<String> {
        control::ask(&self.plan.tor_dir(tor).join("bird.ctl"), command)
            .with_context(|| format!("ask BIRD on {tor}: {command}"))
    }

    /// The BGP sessions of a ToR.
    pub fn sessions(&self, tor: &str) -> Result<Vec<show::Session>> {
        Ok(show::sessions(&self.birdc(tor, "show protocols")?))
    }

    /// The BGP routes of a ToR, both families.
    pub fn routes(&self, tor: &str) -> Result<Vec<show::Route>> {
        Ok(show::routes(
            &self.birdc(tor, "show route where source = RTS_BGP")?,
        ))
    }

    /// The file of the network namespace of WHERE.
    pub fn netns(&self, place: &str) -> Result<PathBuf> {
        Place::parse(&self.plan, place)?.netns(&self.plan)
    }

    /// Replaces this process by a command in WHERE; returns only why that failed.
    pub(crate) fn become_command(&self, place: &str, argv: &[String]) -> Result<()> {
        let place = Place::parse(&self.plan, place)?;
        let netns = place.netns(&self.plan)?;
        let env = place.env(&self.plan, &self.state.bin_dir);
        Err(crate::process::become_command(&netns, &self.plan.name, &env, argv).into())
    }

    pub(crate) fn wait_for_api(&self) -> Result<()> {
        let kubeconfig = self.kubeconfig();
        self.wait("the API server to answer", &[programs::APISERVER], || {
            if !kubeconfig.exists() {
                return Ok(Some("no kubeconfig yet".to_owned()));
            }
            let version = api::block_on(async {
                let client = api::client(&kubeconfig).await?;
                Ok(client.apiserver_version().await?)
            });
            Ok(version.err().map(|e| format!("{e:#}")))
        })
    }

    /// Asks `missing` until it says that nothing is. The error has what was missing last and the ends of the logs
    /// of `processes`; a process that died ends the wait at once.
    pub(crate) fn wait(
        &self,
        what: &str,
        processes: &[&str],
        mut missing: impl FnMut() -> Result<Option<String>>,
    ) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut pause = Duration::from_millis(10);
        loop {
            let still = match missing() {
                Ok(None) => return Ok(()),
                Ok(Some(still)) => still,
                Err(e) => format!("{e:#}"),
            };
            let dead: Vec<&str> = processes
                .iter()
                .copied()
                .filter(|name| !self.processes.record(name).is_some_and(|r| r.alive()))
                .collect();
            if dead.is_empty() && Instant::now() < deadline {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(100));
                continue;
            }
            let mut text = format!("waited for {what}: {still}");
            for name in if dead.is_empty() { processes } else { &dead } {
                let state = if dead.is_empty() { "" } else { " has ended;" };
                text += &format!(
                    "\n{name}:{state} the end of {}:\n{}",
                    self.processes.log(name).display(),
                    self.processes.log_tail(name, 15)
                );
            }
            bail!(text);
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.owned
            && let Err(e) = down::down(&self.plan.dir)
        {
            eprintln!("take the lab in {} down: {e:#}", self.plan.dir.display());
        }
    }
}

/// Whether the namespace of a place exists.
pub(crate) fn netns_exists(plan: &Plan, place: &str) -> bool {
    netns::path(&plan.netns(place)).exists()
}
