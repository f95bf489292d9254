//! A lab of one test, and what the tests do with it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::Output;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::plan::Fabric;
use lab::pods::{self, Sandbox};
use lab::{Lab, Options, netns, process};
use serde_json::{Value, json};

/// Labs whose losses and times are counted come one after the other: each is a whole fabric.
static TURN: Mutex<()> = Mutex::new(());

/// A pod to be made: namespace `default`, answers on UDP and TCP port 80.
#[derive(Debug, Clone, Copy)]
pub struct Pod<'a> {
    /// Its name.
    pub name: &'a str,
    /// The node it is bound to.
    pub node: &'a str,
}

/// A lab that is gone when the value is dropped; a failing test prints the ends of the logs first.
#[derive(Debug)]
pub struct Rig {
    lab: Lab,
    /// How long `lab up` took.
    pub up_time: Duration,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Deref for Rig {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl Rig {
    /// A lab of three nodes, when its turn has come. `what` names the test.
    pub fn up(what: &str) -> Result<Self> {
        Self::make(what, Options::default(), Some(turn()))
    }

    /// A lab of three nodes beside those of other tests: for one that counts no losses and measures no times.
    pub fn beside(what: &str) -> Result<Self> {
        Self::make(what, Options::default(), None)
    }

    /// A lab of three nodes with two ToRs for each rack, with or without BFD, when its turn has come.
    pub fn dual(what: &str, bfd: bool) -> Result<Self> {
        let options = Options {
            fabric: Fabric::DualTor,
            bfd,
            ..Options::default()
        };
        Self::make(what, options, Some(turn()))
    }

    fn make(what: &str, options: Options, turn: Option<MutexGuard<'static, ()>>) -> Result<Self> {
        let options = Options {
            dir: PathBuf::from(format!("/tmp/e2e-{}-{what}", std::process::id())),
            report: |_| (),
            ..options
        };
        let start = Instant::now();
        let lab = Lab::up(&options).context("bring the lab up")?;
        Ok(Self {
            lab,
            up_time: start.elapsed(),
            _turn: turn,
        })
    }

    /// Takes the lab down, and fails when anything of it is left.
    pub fn finish(self) -> Result<()> {
        let plan = self.lab.plan().clone();
        drop(self);
        let namespaces: Vec<_> = netns::list()?
            .into_iter()
            .filter(|name| plan.owns_netns(name))
            .collect();
        let processes = process::marked(&plan.name);
        if plan.dir.exists() || !namespaces.is_empty() || !processes.is_empty() {
            bail!(
                "left after down: {namespaces:?} {processes:?}, {}",
                plan.dir.display()
            );
        }
        Ok(())
    }

    /// Creates pods, without waiting for them.
    pub fn create(&self, pods: &[Pod<'_>]) -> Result<()> {
        let items: Vec<Value> = pods.iter().map(object).collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        self.lab
            .kubectl(&["create", "-f", "-"], &list.to_string())
            .map(drop)
    }

    /// Creates pods and waits until each of them runs.
    pub fn run(&self, pods: &[Pod<'_>]) -> Result<()> {
        self.create(pods)?;
        let names: Vec<&str> = pods.iter().map(|pod| pod.name).collect();
        self.running(&names)
    }

    /// Waits until pods run.
    pub fn running(&self, names: &[&str]) -> Result<()> {
        wait("the pods to run", Duration::from_secs(60), || {
            let there = self.pods()?;
            let missing: Vec<&&str> = names
                .iter()
                .filter(|name| {
                    there
                        .get(**name)
                        .is_none_or(|pod| pod["status"]["phase"] != "Running")
                })
                .collect();
            Ok((!missing.is_empty()).then(|| format!("{missing:?}")))
        })
    }

    /// Deletes pods, without waiting.
    pub fn delete(&self, names: &[&str]) -> Result<()> {
        let mut argv = vec!["delete", "--wait=false", "pod"];
        argv.extend(names);
        self.lab.kubectl(&argv, "").map(drop)
    }

    /// Waits until no object and no sandbox of these pods is left.
    pub fn gone(&self, names: &[&str]) -> Result<()> {
        wait("the pods to be gone", Duration::from_secs(60), || {
            let objects = self.pods()?;
            let sandboxes = self.sandboxes();
            let left: Vec<_> = names
                .iter()
                .filter(|name| {
                    objects.contains_key(**name) || sandboxes.iter().any(|s| s.pod == **name)
                })
                .collect();
            Ok((!left.is_empty()).then(|| format!("{left:?}")))
        })
    }

    /// The objects of all pods, by name.
    pub fn pods(&self) -> Result<BTreeMap<String, Value>> {
        let list: Value =
            serde_json::from_str(&self.lab.kubectl(&["get", "pods", "-A", "-o", "json"], "")?)?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        Ok(items
            .into_iter()
            .map(|pod| (text(&pod["metadata"]["name"]), pod))
            .collect())
    }

    /// Every recorded sandbox, attached or not.
    pub fn sandboxes(&self) -> Vec<Sandbox> {
        let plan = self.lab.plan();
        plan.nodes
            .iter()
            .flat_map(|node| pods::load(&plan.pods_dir(&node.name)))
            .collect()
    }

    /// The sandbox of a pod that runs.
    pub fn sandbox(&self, pod: &str) -> Result<Sandbox> {
        self.sandboxes()
            .into_iter()
            .find(|s| s.pod == pod && !s.addresses.is_empty())
            .with_context(|| format!("no sandbox of {pod}"))
    }

    /// Runs a command in WHERE; its standard output, or an error with what it said.
    pub fn ask(&self, place: &str, argv: &[&str]) -> Result<String> {
        let Output {
            status,
            stdout,
            stderr,
        } = self.lab.exec(place, argv)?;
        if !status.success() {
            bail!(
                "{argv:?} in {place}: {status}: {}{}",
                String::from_utf8_lossy(&stdout),
                String::from_utf8_lossy(&stderr)
            );
        }
        Ok(String::from_utf8(stdout)?)
    }

    /// The same, for a command that prints JSON; nothing is `null`.
    pub fn json(&self, place: &str, argv: &[&str]) -> Result<Value> {
        let out = self.ask(place, argv)?;
        if out.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&out).with_context(|| format!("{argv:?} in {place}: {out}"))
    }

    /// The process id of a lab's process, such as `n1.felix`.
    pub fn pid(&self, process: &str) -> Result<i32> {
        let file = self.lab.plan().processes().join(format!("{process}.json"));
        let record: process::Record = serde_json::from_slice(&std::fs::read(&file)?)?;
        Ok(record.pid)
    }

    /// Whether a lab's process runs.
    pub fn alive(&self, process: &str) -> bool {
        let file = self.lab.plan().processes().join(format!("{process}.json"));
        std::fs::read(file)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<process::Record>(&bytes).ok())
            .is_some_and(process::Record::alive)
    }

    /// Waits until felix on a node answers, knows the cluster, has the kernel in step and hears bgpd.
    pub fn felix_ready(&self, node: &str) -> Result<()> {
        wait(&format!("felix on {node}"), Duration::from_secs(60), || {
            let status = self.json(node, &["margayctl", "status", "-o", "json"])?;
            let felix = &status["felix"];
            Ok(
                (!self.alive(&format!("{node}.felix")) || felix_unwell(felix))
                    .then(|| felix.to_string()),
            )
        })
    }

    /// Waits until every ToR has every session up.
    pub fn sessions_up(&self) -> Result<()> {
        wait("every BGP session", Duration::from_secs(60), || {
            let mut down = Vec::new();
            for router in self.lab.plan().routers() {
                let sessions = self.lab.sessions(router)?;
                down.extend(
                    sessions
                        .into_iter()
                        .filter(|s| !s.established)
                        .map(|s| format!("{router} {}: {}", s.name, s.info)),
                );
            }
            Ok((!down.is_empty()).then(|| down.join("; ")))
        })
    }

    /// What a daemon has logged so far.
    pub fn log(&self, node: &str, what: &str) -> String {
        let files = self.lab.log_files(node, Some(what)).unwrap_or_default();
        files
            .iter()
            .filter_map(|file| std::fs::read_to_string(file).ok())
            .collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !thread::panicking() {
            // A test may have left a node without felix; nothing is wanted there.
            let found = crate::readback::differences(&self.lab, false);
            assert!(
                found.is_empty(),
                "the kernel does not hold what felix wants:\n{}",
                found.join("\n")
            );
            return;
        }
        for node in &self.lab.plan().nodes {
            for what in ["felix", "bgpd", "runner"] {
                let log = self.log(&node.name, what);
                // The client says each failure several times over.
                let lines: Vec<&str> = log.lines().filter(|l| !l.contains("kube_client")).collect();
                let tail = lines[lines.len().saturating_sub(25)..].join("\n");
                eprintln!("── the end of the log of {} on {}\n{tail}", what, node.name);
            }
        }
    }
}

/// Asks until nothing is missing; the error says what was last.
pub fn wait(
    what: &str,
    patience: Duration,
    mut missing: impl FnMut() -> Result<Option<String>>,
) -> Result<()> {
    let start = Instant::now();
    loop {
        let still: Box<dyn Display> = match missing() {
            Ok(None) => return Ok(()),
            Ok(Some(still)) => Box::new(still),
            Err(error) => Box::new(format!("{error:#}")),
        };
        if start.elapsed() > patience {
            bail!("waited {patience:?} for {what}: {still}");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn felix_unwell(felix: &Value) -> bool {
    felix["synced"] != true
        || felix["bgpd_connected"] != true
        || !felix["problems"].is_array()
        || !crate::problems(felix).is_empty()
}

fn object(pod: &Pod<'_>) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": pod.name, "namespace": "default", "labels": { "app": pod.name } },
        "spec": {
            "nodeName": pod.node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "c",
                "image": "responder",
                "ports": [
                    { "containerPort": 80, "protocol": "TCP" },
                    { "containerPort": 80, "protocol": "UDP" },
                ],
            }],
        },
    })
}

/// A JSON string as a string.
pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
