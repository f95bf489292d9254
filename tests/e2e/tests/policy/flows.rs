//! When: how long a change takes, and what it means for flows that are alive.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use e2e::suite::{self, Flow, Suite, until};
use lab::netns;

use crate::world::Policies;

fn flows(suite: &Suite, from: &str, to: &str) -> Vec<(String, Flow)> {
    let netns = suite.netns(from).unwrap();
    let mut flows = Vec::new();
    for address in suite.addresses(to) {
        let target = SocketAddr::new(address.parse().unwrap(), 80);
        let open = |what: &str, flow: std::io::Result<Flow>| {
            let name = format!("{what} {from} → {target}");
            match flow {
                Ok(flow) => (name, flow),
                Err(e) => panic!("{name}: {e}"),
            }
        };
        flows.push(open("tcp", Flow::tcp(&netns, target)));
        flows.push(open("udp", Flow::udp(&netns, target)));
    }
    flows
}

#[test]
fn a_change_ends_the_flows_it_forbids_and_no_others() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "flows");
    let place = |short: &str| p.world.place(short);
    // Other rack, same node, and the node itself.
    let mut kept = flows(&suite, &place("red/cli1"), &place("red/srv3"));
    kept.extend(flows(&suite, &place("red/cli1"), &place("red/srv1")));
    kept.extend(flows(&suite, "n1", &place("red/srv1")));
    let mut doomed = flows(&suite, &place("blue/cli1"), &place("red/srv1"));
    doomed.extend(flows(&suite, &place("blue/cli2"), &place("red/srv3")));
    let alive = |flows: &[(String, Flow)]| {
        for (name, flow) in flows {
            if let Err(e) = flow.ask() {
                panic!("{name} died: {e}");
            }
        }
    };
    alive(&kept);
    alive(&doomed);
    let only = |who: &str| {
        format!(
            "{{ podSelector: {{ matchLabels: {{ app: srv }} }}, ingress: [{{ from: [{{ {who} }}] }}] }}"
        )
    };
    let mine = "podSelector: { matchLabels: { role: a } }";
    p.apply("red", "p", &only(mine));
    for (name, flow) in &doomed {
        until(&format!("{name} to die"), || match flow.ask() {
            Ok(()) => Err("it is answered".to_owned()),
            Err(_) => Ok(()),
        });
    }
    alive(&kept);
    // Allowed by another rule, by two policies, by one of them: alive all the time.
    p.apply(
        "red",
        "p",
        &only("podSelector: { matchExpressions: [{ key: role, operator: In, values: [a, z] }] }"),
    );
    alive(&kept);
    p.apply(
        "red",
        "q",
        &only("namespaceSelector: { matchLabels: { team: red } }"),
    );
    alive(&kept);
    p.delete("red", "p");
    alive(&kept);
    for (name, flow) in &doomed {
        assert!(flow.ask().is_err(), "{name} came back to life");
    }
    // Only the subject's own egress is left to forbid it.
    p.apply(
        "red",
        "out",
        "{ podSelector: { matchLabels: { role: a } }, policyTypes: [Egress] }",
    );
    for (name, flow) in kept.iter().filter(|(name, _)| !name.contains(" n1 ")) {
        until(&format!("{name} to die"), || match flow.ask() {
            Ok(()) => Err("it is answered".to_owned()),
            Err(_) => Ok(()),
        });
    }
    let own: Vec<(String, Flow)> = kept
        .into_iter()
        .filter(|(name, _)| name.contains(" n1 "))
        .collect();
    assert_eq!(own.len(), 4);
    alive(&own);
}

/// Asks a responder over and over, each time as a new flow, and remembers when it began and ceased to answer.
struct Prober {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<(Instant, bool)>>>,
    thread: thread::JoinHandle<()>,
}

impl Prober {
    fn start(netns: PathBuf, target: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = seen.clone();
        let thread = thread::spawn(move || {
            netns::enter(&netns).unwrap();
            let any: SocketAddr = match target.ip() {
                IpAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
                IpAddr::V6(_) => ([0_u16; 8], 0).into(),
            };
            while !stopped.load(Ordering::Relaxed) {
                let socket = UdpSocket::bind(any).unwrap();
                socket
                    .set_read_timeout(Some(Duration::from_millis(20)))
                    .unwrap();
                let sent = Instant::now();
                let answered =
                    socket.send_to(b"?", target).is_ok() && socket.recv(&mut [0; 64]).is_ok();
                told.lock().unwrap().push((sent, answered));
                thread::sleep(Duration::from_millis(2));
            }
        });
        Self { stop, seen, thread }
    }

    /// Waits until the last few answers are as they have to be, and tells when the last other one was asked for.
    fn settled(&self, answered: bool) -> Option<Instant> {
        until("another answer", || {
            let seen = self.seen.lock().unwrap();
            let last = seen.iter().rev().take(6);
            match seen.len() > 6 && last.clone().all(|(_, it)| *it == answered) {
                true => Ok(()),
                false => Err(format!("{:?}", last.collect::<Vec<_>>())),
            }
        });
        let seen = self.seen.lock().unwrap();
        let other = seen.iter().rev().find(|(_, it)| *it != answered);
        other.map(|(sent, _)| *sent)
    }

    fn finish(self) -> Vec<(Instant, bool)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.seen.lock().unwrap().clone()
    }
}

/// A change is in force within 2 s on any machine; how long it really takes is printed.
#[test]
fn a_change_is_in_force_soon() {
    const ROUNDS: usize = 8;
    let suite = suite::shared();
    let p = Policies::new(&suite, "soon");
    let netns = suite.netns(&p.world.place("blue/cli2")).unwrap();
    let to = suite.addresses(&p.world.place("red/srv1"));
    let (mut closing, mut opening) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let target = SocketAddr::new(to[round % 2].parse().unwrap(), 80);
        let step = |change: &dyn Fn(), allowed: bool| -> Duration {
            let prober = Prober::start(netns.clone(), target);
            thread::sleep(Duration::from_millis(30));
            change();
            let changed = Instant::now();
            p.expect(&[("blue/cli2", "red/srv1", "udp/80", allowed)]);
            let seen = prober.finish();
            // The last time that it was not as it has to be. A lost packet is one of these too.
            let last = seen.iter().rev().find(|(_, answered)| *answered != allowed);
            last.map_or(Duration::ZERO, |(sent, _)| {
                sent.saturating_duration_since(changed)
            })
        };
        closing.push(step(&|| p.apply("red", "p", "{ podSelector: {} }"), false));
        opening.push(step(&|| p.delete("red", "p"), true));
    }
    for (what, mut times) in [("denied", closing), ("allowed", opening)] {
        times.sort();
        println!(
            "in force after kubectl returned, {what}: median {:.1} ms, worst {:.1} ms of {ROUNDS}",
            times[times.len() / 2].as_secs_f64() * 1e3,
            times[times.len() - 1].as_secs_f64() * 1e3,
        );
        assert!(times[times.len() / 2] < Duration::from_secs(2), "{times:?}");
    }
}

/// As many relabels as tell a spread, seen by packets all the time.
#[test]
fn a_relabelled_pod_is_under_its_new_policies_soon() {
    const RELABELS: usize = 50;
    let suite = suite::shared();
    let p = Policies::few(&suite, "relabel");
    p.apply(
        "red",
        "p",
        "{ podSelector: { matchLabels: { quiet: 'yes' } } }",
    );
    p.expect(&[("blue/cli", "red/srv", "udp/80", true)]);
    let netns = suite.netns(&p.world.place("blue/cli")).unwrap();
    let to = suite.addresses(&p.world.place("red/srv"));
    let red = p.world.ns("red");
    let (mut closing, mut opening) = (Vec::new(), Vec::new());
    for relabel in 0..RELABELS {
        let close = relabel % 2 == 0;
        let target = SocketAddr::new(to[relabel / 2 % 2].parse().unwrap(), 80);
        let prober = Prober::start(netns.clone(), target);
        thread::sleep(Duration::from_millis(20));
        let label = if close { "quiet=yes" } else { "quiet=no" };
        suite.kubectl(&["label", "pod", "-n", &red, "srv", label, "--overwrite"]);
        let labelled = Instant::now();
        let last = prober.settled(!close);
        let took = last.map_or(Duration::ZERO, |last| {
            last.saturating_duration_since(labelled)
        });
        drop(prober.finish());
        let times = if close { &mut closing } else { &mut opening };
        times.push(took);
    }
    for (what, mut times) in [("denied", closing), ("allowed", opening)] {
        times.sort();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        println!(
            "relabelled (kubectl has returned), {what}: median {:.1} ms, 90% within {:.1} ms, worst {:.1} ms of {}",
            at(50),
            at(90),
            at(100),
            times.len()
        );
        // A machine that has a lot to do takes its time.
        assert!(times[times.len() / 2] < Duration::from_secs(1), "{times:?}");
    }
}
