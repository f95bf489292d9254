//! The lab of a test binary, shared by its tests, and what they do with it: objects in, verdicts and state out.
//!
//! ```text
//!  test ── shared() ─╮                    kubectl, margayctl, ip, nft, BIRD   (mod.rs)
//!  test ── shared() ─┼──► one lab ──►     who reaches whom                    (matrix.rs)
//!  test ── alone()  ─╯  (others wait)     connections that stay open          (flow.rs)
//! ```
//!
//! Helpers panic with what they saw: a test is over at the first surprise.

mod flow;
mod matrix;
mod objects;
mod sctp;

use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

use lab::{Lab, Options};
use serde_json::{Value, json};

use crate::readback;

pub use flow::Flow;
pub use matrix::{Row, WHATS, World};
pub use objects::{Pod, namespace};

/// How long something that normally takes milliseconds may take on a machine that has a lot to do.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The lab, as long as a test uses or waits for it.
struct Shelf {
    visitors: usize,
    lab: Option<Arc<Lab>>,
    made: usize,
}

static SHELF: Mutex<Shelf> = Mutex::new(Shelf {
    visitors: 0,
    lab: None,
    made: 0,
});
/// Tests that disturb a whole node take it for writing.
static TURN: RwLock<()> = RwLock::new(());

/// Counts somebody who uses the lab or waits for it; the last one to go takes it down.
struct Visitor;

impl Visitor {
    fn enter() -> Self {
        shelf().visitors += 1;
        Self
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        let mut shelf = shelf();
        shelf.visitors -= 1;
        let last = if shelf.visitors == 0 {
            shelf.lab.take()
        } else {
            None
        };
        drop(shelf);
        let Some(lab) = last else { return };
        if thread::panicking() {
            return;
        }
        let found = readback::differences(&lab, true);
        drop(lab);
        assert!(
            found.is_empty(),
            "the kernel does not hold what felix wants:\n{}",
            found.join("\n")
        );
    }
}

fn shelf() -> MutexGuard<'static, Shelf> {
    SHELF.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Turn {
    Shared {
        _guard: RwLockReadGuard<'static, ()>,
    },
    Alone {
        _guard: RwLockWriteGuard<'static, ()>,
    },
}

/// A test's hold on the lab of its binary.
pub struct Suite {
    lab: Arc<Lab>,
    turn: Turn,
    _visitor: Visitor,
}

/// The lab, together with other tests: for those that leave nodes and pools alone.
pub fn shared() -> Suite {
    let visitor = Visitor::enter();
    let guard = TURN.read().unwrap_or_else(PoisonError::into_inner);
    Suite::new(visitor, Turn::Shared { _guard: guard })
}

/// The lab for one test: others wait meanwhile.
pub fn alone() -> Suite {
    let visitor = Visitor::enter();
    let guard = TURN.write().unwrap_or_else(PoisonError::into_inner);
    Suite::new(visitor, Turn::Alone { _guard: guard })
}

impl Deref for Suite {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        self.print_logs();
        if matches!(self.turn, Turn::Alone { .. }) {
            // What it did to the lab must not fail the next test as well.
            let spoilt = shelf().lab.take();
            drop(spoilt);
        }
    }
}

impl Suite {
    fn new(visitor: Visitor, turn: Turn) -> Self {
        let mut shelf = shelf();
        let lab = match &shelf.lab {
            Some(lab) => lab.clone(),
            None => {
                shelf.made += 1;
                let lab = Arc::new(bring_up(shelf.made));
                shelf.lab.insert(lab).clone()
            }
        };
        drop(shelf);
        Self {
            lab,
            turn,
            _visitor: visitor,
        }
    }

    /// Runs kubectl; its standard output.
    #[track_caller]
    pub fn kubectl(&self, argv: &[&str]) -> String {
        match self.lab.kubectl(argv, "") {
            Ok(out) => out,
            Err(e) => panic!("{e:#}"),
        }
    }

    /// `kubectl ARGV -o json`.
    #[track_caller]
    pub fn object(&self, argv: &[&str]) -> Value {
        let out = self.kubectl(&[argv, &["-o", "json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("kubectl {argv:?}: {e}\n{out}"))
    }

    /// The items of `kubectl get KIND -o json`.
    #[track_caller]
    pub fn objects(&self, kind: &[&str]) -> Vec<Value> {
        let list = self.object(&[&["get"], kind].concat());
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// `kubectl apply` of objects.
    #[track_caller]
    pub fn create(&self, objects: &[Value]) {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        self.apply_text(&list.to_string());
    }

    /// `kubectl apply` of YAML.
    #[track_caller]
    pub fn apply_text(&self, yaml: &str) {
        // Without a document's start kubectl takes what begins with a brace for JSON.
        if let Err(e) = self.lab.apply(&format!("---\n{yaml}")) {
            panic!("{e:#}\n{yaml}");
        }
    }

    /// What kubectl says when it is not allowed to apply this.
    #[track_caller]
    pub fn refusal(&self, argv: &[&str], stdin: &str) -> String {
        match self.lab.kubectl(argv, &format!("---\n{stdin}")) {
            Ok(out) => panic!("kubectl {argv:?} was not refused: {out}\n{stdin}"),
            Err(e) => format!("{e:#}"),
        }
    }

    /// Makes pods and waits until they run.
    #[track_caller]
    pub fn run_pods(&self, pods: &[Pod<'_>]) {
        let objects: Vec<Value> = pods.iter().map(Pod::object).collect();
        self.create(&objects);
        for pod in pods {
            self.wait_ready(&pod.to_string());
        }
    }

    /// Waits until `namespace/pod` is Ready.
    #[track_caller]
    pub fn wait_ready(&self, pod: &str) {
        let (namespace, name) = split(pod);
        let limit = format!("--timeout={}s", PATIENCE.as_secs());
        let target = format!("pod/{name}");
        self.kubectl(&[
            "wait",
            "-n",
            namespace,
            &target,
            "--for=condition=Ready",
            &limit,
        ]);
    }

    /// Deletes `namespace/pod` and waits until the object is gone.
    #[track_caller]
    pub fn delete_pod(&self, pod: &str) {
        let (namespace, name) = split(pod);
        let limit = format!("--timeout={}s", PATIENCE.as_secs());
        self.kubectl(&["delete", "pod", "-n", namespace, name, &limit]);
    }

    /// `status.podIPs` of `namespace/pod`.
    #[track_caller]
    pub fn addresses(&self, pod: &str) -> Vec<String> {
        let (namespace, name) = split(pod);
        let object = self.object(&["get", "pod", "-n", namespace, name]);
        list(&object["status"]["podIPs"])
            .iter()
            .map(|ip| text(&ip["ip"]))
            .collect()
    }

    /// Runs a command in WHERE; its standard output. It must succeed.
    #[track_caller]
    pub fn run(&self, place: &str, argv: &[&str]) -> String {
        let output = match self.exec(place, argv) {
            Ok(output) => output,
            Err(e) => panic!("{e:#}"),
        };
        assert!(
            output.status.success(),
            "{argv:?} in {place}: {} {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a command in WHERE that prints JSON.
    #[track_caller]
    pub fn run_json(&self, place: &str, argv: &[&str]) -> Value {
        let out = self.run(place, argv);
        if out.trim().is_empty() {
            return json!([]);
        }
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{argv:?} in {place}: {e}\n{out}"))
    }

    /// `margayctl ARGV -o json` on a node.
    #[track_caller]
    pub fn ctl(&self, node: &str, argv: &[&str]) -> Value {
        self.run_json(node, &[&["margayctl"], argv, &["-o", "json"]].concat())
    }

    /// The routes of both families in a node's main table, as `ip -N -j route` has them: protocols are numbers.
    #[track_caller]
    pub fn kernel_routes(&self, node: &str) -> Vec<Value> {
        ["-4", "-6"]
            .iter()
            .flat_map(|family| {
                let argv = ["ip", "-N", "-j", family, "route", "show", "table", "main"];
                list(&self.run_json(node, &argv)).to_vec()
            })
            .collect()
    }

    /// Names of a node's interfaces that belong to pods.
    #[track_caller]
    pub fn pod_links(&self, node: &str) -> Vec<String> {
        list(&self.run_json(node, &["ip", "-j", "link", "show"]))
            .iter()
            .map(|link| text(&link["ifname"]))
            .filter(|name| name.starts_with("mgy"))
            .collect()
    }

    /// Waits until felix on a node has answered and is in step.
    #[track_caller]
    pub fn wait_felix(&self, node: &str) {
        until(&format!("felix on {node} in step"), || {
            let output = self
                .exec(node, &["margayctl", "status", "-o", "json"])
                .map_err(|e| format!("{e:#}"))?;
            let status: Value = serde_json::from_slice(&output.stdout)
                .map_err(|e| format!("{e}: {}", String::from_utf8_lossy(&output.stderr)))?;
            let felix = &status["felix"];
            match (&felix["synced"], &felix["bgpd_connected"]) {
                (Value::Bool(true), Value::Bool(true)) => Ok(()),
                _ => Err(felix.to_string()),
            }
        });
    }

    fn print_logs(&self) {
        let plan = self.plan();
        let places = plan.nodes.iter().map(|n| n.name.as_str());
        for place in places.chain(["apiserver"]) {
            for file in self.log_files(place, None).unwrap_or_default() {
                let log = fs::read_to_string(&file).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let from = lines.len().saturating_sub(25);
                eprintln!("── {}\n{}", file.display(), lines[from..].join("\n"));
            }
        }
    }
}

/// A lab in a directory of this process. What dead test processes left is removed first.
fn bring_up(number: usize) -> Lab {
    sweep();
    let exe = std::env::current_exe().unwrap_or_default();
    let stem = exe.file_stem().map(|s| s.to_string_lossy().into_owned());
    let suite = stem.as_deref().and_then(|s| s.split('-').next());
    let dir = format!(
        "e2e-{}-{}-{number}",
        std::process::id(),
        suite.unwrap_or("x")
    );
    let options = Options {
        dir: std::env::temp_dir().join(dir),
        report: |_| (),
        ..Options::default()
    };
    match Lab::up(&options) {
        Ok(lab) => lab,
        Err(e) => panic!("the lab of this suite does not come up: {e:#}"),
    }
}

fn sweep() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten() {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name
            .strip_prefix("e2e-")
            .and_then(|rest| rest.split('-').next());
        let dead = process
            .and_then(|pid| pid.parse::<u32>().ok())
            .is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists());
        if dead {
            // Another suite may be about the same.
            let _ = Lab::down(&entry.path());
        }
    }
}

/// Looks again and again until it succeeds; panics with the last answer when [`PATIENCE`] is over.
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    until_within(what, PATIENCE, look)
}

/// As [`until`], with a limit.
#[track_caller]
pub fn until_within<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(10);
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if Instant::now() > deadline => {
                panic!("waited {} s for {what}: {seen}", limit.as_secs())
            }
            Err(_) => thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// The elements of a JSON array; of anything else none.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A JSON string as it is, anything else as JSON.
pub fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[track_caller]
fn split(pod: &str) -> (&str, &str) {
    match pod.split_once('/') {
        Some(parts) => parts,
        None => panic!("{pod:?} is not NAMESPACE/POD"),
    }
}
