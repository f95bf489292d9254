//! The real daemon between a good peer and a bad one, each behind a cable of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use api::v1;
use api::v1::bgp_status_client::BgpStatusClient;
use crds::net::Cidr;

use crate::played::{self, Good, announce, attributes, connect, prefixes};
use crate::support::felix::wait_for_speaker;
use crate::support::{BGPD, Namespace, Process, wait_for};

type Client = BgpStatusClient<tonic::transport::Channel>;

pub(crate) const GOOD: &str = "192.0.2.2";
pub(crate) const BAD: &str = "198.51.100.2";
/// The speaker's own ends.
pub(crate) const TO_GOOD: &str = "192.0.2.1";
pub(crate) const TO_BAD: &str = "198.51.100.1";
pub(crate) const GOOD_AS: u32 = 65002;
pub(crate) const BAD_AS: u32 = 65003;
/// Routes of the good peer, which nothing may touch.
const GOOD_ROUTES: (u32, u32) = (0, 200);
/// Longest wait for one answer: some hundred times what it takes, for a busy machine and an unoptimised daemon.
const ANSWER: Duration = Duration::from_secs(10);

pub(crate) struct Rig {
    pub(crate) bad: Namespace,
    pub(crate) good: Good,
    process: Process,
    dir: tempfile::TempDir,
    _others: [Namespace; 2],
}

impl Rig {
    /// `bad` is what the configuration says of the bad peer, beyond its address and AS.
    pub(crate) fn new(bad_options: &str) -> Self {
        let (node, good, bad) = (
            Namespace::new("node"),
            Namespace::new("good"),
            Namespace::new("bad"),
        );
        for (other, name, own, theirs) in
            [(&good, "good", TO_GOOD, GOOD), (&bad, "bad", TO_BAD, BAD)]
        {
            node.ip(&format!(
                "link add {name} type veth peer name eth0 netns {}",
                other.name
            ));
            node.ip(&format!("addr add {own}/24 dev {name}"));
            node.ip(&format!("link set {name} up"));
            other.ip(&format!("addr add {theirs}/24 dev eth0"));
            other.ip("link set eth0 up");
        }
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "{{asNumber: 65001, routerID: 192.0.2.1, origins: [10.244.0.0/26],\n\
             pools: [{{cidr: 10.244.0.0/16, blockSize: 26}}],\n\
             peers: [{{peerIP: {GOOD}, asNumber: {GOOD_AS}, passive: true, import: all, export: transit}},\n\
             {{peerIP: {BAD}, asNumber: {BAD_AS}, passive: true, {bad_options}}}]}}\n"
        );
        let file = dir.path().join("bgpd.yaml");
        std::fs::write(&file, config).unwrap();
        let mut command = node.command(BGPD);
        command.arg("--config").arg(file);
        command.arg("--run-dir").arg(dir.path().join("run"));
        command.arg("--state-dir").arg(dir.path().join("state"));
        let process = Process::start(command, dir.path().join("log"));
        wait_for_speaker(&dir.path().join("run/bgpd.sock"));
        let stream = connect(&good, TO_GOOD, None);
        let rig = Self {
            good: Good::start(stream, GOOD_AS, 2),
            bad,
            process,
            dir,
            _others: [node, good],
        };
        let (first, count) = GOOD_ROUTES;
        let said = attributes(GOOD, &[GOOD_AS]);
        rig.good.say(announce(&said, &prefixes(first, count)));
        rig.wait_family(GOOD, "the good peer's routes", |it| it.accepted == count);
        rig
    }

    /// A connection of the bad peer.
    pub(crate) fn connect(&self) -> std::net::TcpStream {
        connect(&self.bad, TO_BAD, None)
    }

    /// An established session of the bad peer. One that ends makes the next one wait.
    pub(crate) fn session(&self) -> std::net::TcpStream {
        wait_for("a session of the bad peer", || {
            let mut stream = self.connect();
            played::establish(&mut stream, BAD_AS, 3).then_some(stream)
        })
    }

    fn ask<T>(&self, ask: impl AsyncFnOnce(&mut Client) -> Option<T>) -> T {
        ask_at(&self.dir.path().join("run/bgpd.sock"), ask)
    }

    pub(crate) fn neighbor(&self, address: &str) -> v1::Neighbor {
        let neighbors = self.ask(async |bgpd| {
            let request = v1::ListNeighborsRequest {};
            Some(bgpd.list_neighbors(request).await.ok()?.into_inner())
        });
        let found = neighbors
            .neighbors
            .into_iter()
            .find(|it| it.address == address);
        found.unwrap_or_else(|| panic!("no neighbour {address}"))
    }

    pub(crate) fn wait_neighbor(
        &self,
        address: &str,
        what: &str,
        holds: impl Fn(&v1::Neighbor) -> bool,
    ) {
        wait_for(&format!("{address}: {what}"), || {
            holds(&self.neighbor(address)).then_some(())
        });
    }

    /// The same of what is counted for IPv4.
    pub(crate) fn wait_family(
        &self,
        address: &str,
        what: &str,
        holds: impl Fn(&v1::FamilyCount) -> bool,
    ) {
        self.wait_neighbor(address, what, |it| {
            it.families
                .iter()
                .any(|it| it.family == "ipv4" && holds(it))
        });
    }

    pub(crate) fn routes(&self, neighbor: &str) -> Vec<v1::Route> {
        self.ask(async |bgpd| {
            let mut routes = Vec::new();
            let mut after = String::new();
            loop {
                let request = v1::ListRoutesRequest {
                    neighbor: neighbor.to_owned(),
                    after,
                    ..v1::ListRoutesRequest::default()
                };
                let answer = bgpd.list_routes(request).await.ok()?.into_inner();
                routes.extend(answer.routes);
                after = answer.next;
                if after.is_empty() {
                    return Some(routes);
                }
            }
        })
    }

    /// Resident memory of the daemon, bytes.
    pub(crate) fn memory(&self) -> usize {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).unwrap();
        let line = status.lines().find(|it| it.starts_with("VmRSS:")).unwrap();
        let kilobytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kilobytes << 10
    }

    /// Asks again and again while `fault` goes on, and judges after it that nobody else was harmed.
    pub(crate) fn during<T>(&self, name: &str, fault: impl FnOnce() -> T) -> T {
        let watch = Watch::start(self.dir.path().join("run/bgpd.sock"));
        let before = self.memory();
        let result = fault();
        let mut answers = watch.end();
        answers.sort_unstable();
        assert!(!answers.is_empty(), "it answers during {name}");
        let at = |share: usize| answers[(answers.len() - 1) * share / 100];
        println!(
            "{name}: {} answers, p50 {:?}, p99 {:?}, memory {} -> {} KiB",
            answers.len(),
            at(50),
            at(99),
            before >> 10,
            self.memory() >> 10,
        );
        self.judge();
        result
    }

    /// The good peer's session and routes are what they were.
    pub(crate) fn judge(&self) {
        assert!(!self.good.is_lost(), "the good peer's session ended");
        let good = self.neighbor(GOOD);
        assert_eq!(
            (good.state.as_str(), good.established_count),
            ("Established", 1)
        );
        let (first, count) = GOOD_ROUTES;
        let used: BTreeSet<String> = self
            .routes(GOOD)
            .into_iter()
            .filter(|it| it.best)
            .map(|it| it.prefix)
            .collect();
        for prefix in prefixes(first, count) {
            assert!(
                used.contains(&prefix.to_string()),
                "{prefix} is not used any more"
            );
        }
    }

    /// Waits until the good peer has been told exactly these beside our own block.
    pub(crate) fn wait_heard(&self, expected: &[Cidr]) {
        let own: Cidr = "10.244.0.0/26".parse().unwrap();
        let expected: BTreeSet<Cidr> = expected.iter().copied().chain([own]).collect();
        wait_for("what the good peer hears", || {
            (self.good.heard() == expected).then_some(())
        });
    }
}

fn ask_at<T>(socket: &std::path::Path, ask: impl AsyncFnOnce(&mut Client) -> Option<T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let answer = runtime.block_on(async {
        let mut bgpd = api::client::bgpd(socket, ANSWER).await.ok()?;
        ask(&mut bgpd).await
    });
    answer.expect("the daemon answers")
}

/// Asks for the neighbours all the time; how long each answer took.
struct Watch {
    end: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Watch {
    fn start(socket: std::path::PathBuf) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = end.clone();
        let thread = std::thread::spawn(move || {
            ask_at(&socket, async |bgpd| {
                let mut answers = Vec::new();
                while !ended.load(Ordering::Relaxed) || answers.is_empty() {
                    let started = Instant::now();
                    let request = v1::ListNeighborsRequest {};
                    bgpd.list_neighbors(request).await.ok()?;
                    answers.push(started.elapsed());
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Some(answers)
            })
        });
        Self { end, thread }
    }

    fn end(self) -> Vec<Duration> {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
