//! Network namespaces for tests. Each belongs to one thread and goes with it: nothing is left behind, even by a test
//! that is killed.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, with its loopback up.
pub(crate) struct Namespace {
    jobs: mpsc::Sender<Job>,
    thread: i32,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let (jobs, receiver) = mpsc::channel::<Job>();
        let (ready, made) = mpsc::channel();
        thread::spawn(move || {
            let result = unshare(CloneFlags::CLONE_NEWNET);
            ready
                .send(result.map(|()| gettid().as_raw()))
                .expect("the test waits");
            for job in receiver {
                job();
            }
        });
        let thread = made
            .recv()
            .expect("a thread")
            .expect("these tests need CAP_SYS_ADMIN to make network namespaces");
        let namespace = Self { jobs, thread };
        namespace.sh("ip link set lo up");
        namespace
    }

    #[allow(dead_code, reason = "not every suite moves links")]
    /// The thread which is in the namespace: what `ip link set … netns` takes.
    pub(crate) fn id(&self) -> i32 {
        self.thread
    }

    /// Runs something inside; what it spawns is inside, too.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, result) = mpsc::channel();
        let job = Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(job));
            sender.send(outcome).expect("the test waits");
        });
        self.jobs.send(job).expect("the namespace's thread");
        result
            .recv()
            .expect("the job")
            .unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Runs shell commands inside and returns what they print; they must succeed.
    pub(crate) fn sh(&self, script: &str) -> String {
        self.feed(script, "")
    }

    /// The same with something on standard input.
    pub(crate) fn feed(&self, script: &str, input: &str) -> String {
        let (script, input) = (script.to_owned(), input.to_owned());
        self.run(move || {
            let mut child = Command::new("sh")
                .args(["-ec", &script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("sh");
            child
                .stdin
                .take()
                .expect("stdin")
                .write_all(input.as_bytes())
                .expect("stdin");
            let output = child.wait_with_output().expect("sh");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "{script}: {}: {errors}",
                output.status
            );
            String::from_utf8(output.stdout).expect("UTF-8")
        })
    }
}
