//! The fabric alone: namespaces, routers, `exec`, `probe`, and that nothing is left afterwards. Needs root.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::probe::{Answer, Family, Probe, Protocol, Verdict};
use lab::responder::{Responder, Transport};
use lab::{Lab, Options, Parts, netns, process};

fn options(what: &str) -> Options {
    Options {
        dir: PathBuf::from(format!("/tmp/lab-{}-{what}", std::process::id())),
        parts: Parts::Fabric,
        report: |_| (),
        ..Options::default()
    }
}

fn namespaces_of(lab: &lab::plan::Plan) -> Vec<String> {
    let mut names = netns::list().unwrap();
    names.retain(|n| lab.owns_netns(n));
    names
}

fn assert_nothing_left(plan: &lab::plan::Plan) {
    assert_eq!(namespaces_of(plan), Vec::<String>::new());
    assert_eq!(process::marked(&plan.name), []);
    assert!(!plan.dir.exists());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&plan.netns("n1")), "{mounts}");
}

/// Takes a lab that was made by the command down, also when the test fails.
struct TakenDown(PathBuf);

impl Drop for TakenDown {
    fn drop(&mut self) {
        let _ = Lab::down(&self.0);
    }
}

/// A probe from the shell of a test: `from to protocol port family`.
fn ask(text: &str) -> Probe {
    let words: Vec<&str> = text.split(' ').collect();
    Probe {
        from: words[0].into(),
        to: words[1].into(),
        protocol: serde_json::from_value(words[2].into()).unwrap(),
        port: words[3].parse().unwrap(),
        family: words
            .get(4)
            .map(|f| serde_json::from_value((*f).into()).unwrap()),
    }
}

fn verdicts(lab: &Lab, probes: &[&str]) -> Vec<Verdict> {
    let probes: Vec<Probe> = probes.iter().map(|p| ask(p)).collect();
    let answers = lab.probe(&probes, Duration::from_millis(300));
    for answer in &answers {
        println!("{}", serde_json::to_string(answer).unwrap());
    }
    answers.iter().map(|a| a.verdict).collect()
}

fn nft(lab: &Lab, place: &str, rules: &str) {
    let out = lab.exec(place, &["nft", rules]).unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

#[test]
fn routers_peer_and_forward_between_the_racks_in_both_families() {
    let lab = Lab::up(&options("up")).unwrap();
    for (tor, other) in [("tor-a", "tor_b"), ("tor-b", "tor_a")] {
        let up: Vec<String> = lab
            .sessions(tor)
            .unwrap()
            .into_iter()
            .filter(|s| s.established)
            .map(|s| s.name)
            .collect();
        assert_eq!(up, [format!("{other}_v4"), format!("{other}_v6")]);
    }
    // Nodes have no routes beyond their rack yet; the ToRs have.
    assert_eq!(
        verdicts(
            &lab,
            &[
                "tor-a tor-b ICMP 0 ipv4",
                "tor-a tor-b ICMP 0 ipv6",
                "tor-a n3 ICMP 0 ipv4",
                "n1 n2 ICMP 0 ipv4",
                "n1 n2 ICMP 0 ipv6",
                "n1 n3 ICMP 0 ipv4",
            ]
        ),
        [
            Verdict::Allowed,
            Verdict::Allowed,
            Verdict::Denied,
            Verdict::Allowed,
            Verdict::Allowed,
            Verdict::Error,
        ],
        "n3 cannot answer tor-a's link, and n1 has no route to it"
    );
    let routes = lab.exec("n1", &["ip", "route", "show", "default"]).unwrap();
    assert!(routes.stdout.is_empty(), "a default route on a node");
}

#[test]
fn probe_tells_allowed_denied_and_error_apart() {
    let lab = Lab::up(&options("probe")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let ports = [
        (Transport::Tcp, 80),
        (Transport::Tcp, 81),
        (Transport::Udp, 53),
        (Transport::Udp, 54),
    ];
    let responder = runtime
        .block_on(Responder::start("n2", &lab.netns("n2").unwrap(), &ports))
        .unwrap();
    assert_eq!(responder.ports(), 4);
    nft(
        &lab,
        "n2",
        "add table inet t; \
         add chain inet t in { type filter hook input priority 0; }; \
         add rule inet t in tcp dport 81 drop; \
         add rule inet t in udp dport 54 drop; \
         add rule inet t in tcp dport 82 drop; \
         add rule inet t in icmpv6 type echo-request drop",
    );
    let questions = [
        ("n1 n2 TCP 80 ipv4", Verdict::Allowed),
        ("n1 n2 TCP 80 ipv6", Verdict::Allowed),
        ("n1 n2 TCP 81 ipv4", Verdict::Denied),
        ("n1 n2 TCP 81 ipv6", Verdict::Denied),
        ("n1 n2 UDP 53 ipv4", Verdict::Allowed),
        ("tor-a n2 UDP 53 ipv6", Verdict::Allowed),
        ("n1 n2 UDP 54 ipv4", Verdict::Denied),
        ("n1 n2 ICMP 0 ipv4", Verdict::Allowed),
        ("n1 n2 ICMP 0 ipv6", Verdict::Denied),
        // Nobody listens.
        ("n1 n2 TCP 99", Verdict::Error),
        ("n1 n2 UDP 99", Verdict::Error),
        ("n1 172.30.1.12 TCP 80", Verdict::Allowed),
        ("n1 fd00:30:1::12 TCP 80", Verdict::Allowed),
        // No route, no pod.
        ("n1 192.0.2.1 TCP 80", Verdict::Error),
        ("n1 no/pod TCP 80", Verdict::Error),
        ("no/pod n1 TCP 80", Verdict::Error),
    ];
    let (asked, expected): (Vec<&str>, Vec<Verdict>) = questions.into_iter().unzip();
    assert_eq!(verdicts(&lab, &asked), expected);

    // What the sender's own rules refuse.
    nft(
        &lab,
        "n1",
        "add table inet t; \
         add chain inet t out { type filter hook output priority 0; }; \
         add rule inet t out udp dport 53 drop; \
         add rule inet t out tcp dport 80 drop",
    );
    assert_eq!(
        verdicts(&lab, &["n1 n2 UDP 53", "n1 n2 TCP 80", "tor-a n2 TCP 80"]),
        [Verdict::Denied, Verdict::Denied, Verdict::Allowed]
    );
}

#[test]
fn hundreds_of_probes_take_a_few_seconds_also_when_all_are_dropped() {
    let lab = Lab::up(&options("many")).unwrap();
    nft(
        &lab,
        "n2",
        "add table inet t; add chain inet t in { type filter hook input priority 0; }; \
         add rule inet t in tcp dport 80 drop",
    );
    let probes: Vec<Probe> = (0..600)
        .map(|i| Probe {
            from: if i % 2 == 0 { "n1" } else { "tor-a" }.into(),
            to: "n2".into(),
            port: 80,
            protocol: Protocol::Tcp,
            family: Some(Family::ALL[i % 2]),
        })
        .collect();
    let start = Instant::now();
    let answers: Vec<Answer> = lab.probe(&probes, lab::probe::DEFAULT_TIMEOUT);
    assert!(answers.iter().all(|a| a.verdict == Verdict::Denied));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn the_command_does_what_the_library_does() {
    let options = options("cli");
    let _guard = TakenDown(options.dir.clone());
    let dir = options.dir.display().to_string();
    let lab = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command
            .args(["--dir", &dir])
            .args(args)
            .stdin(Stdio::null());
        command.output().unwrap()
    };
    let text = |out: std::process::Output| -> String {
        format!(
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        )
    };
    let up = lab(&["up", "--fabric-only", "--nodes", "4"]);
    assert!(up.status.success(), "{}", text(up));
    // Twice in a row works.
    let again = text(lab(&["up", "--fabric-only"]));
    assert!(
        again.contains("earlier lab") && again.contains("the lab is up"),
        "{again}"
    );

    assert_eq!(
        lab(&["exec", "n1", "--", "sh", "-c", "exit 42"])
            .status
            .code(),
        Some(42)
    );
    let addresses = text(lab(&[
        "exec", "n3", "--", "ip", "-br", "addr", "show", "eth0",
    ]));
    assert!(
        addresses.contains("172.30.2.13/24") && addresses.contains("fd00:30:2::13/64"),
        "{addresses}"
    );
    let env = text(lab(&["exec", "n2", "--", "env"]));
    assert!(
        env.contains(&format!("MARGAY_RUN_DIR={dir}/nodes/n2/run")),
        "{env}"
    );
    let birdc = text(lab(&["exec", "tor-a", "--", "birdc", "show", "protocols"]));
    assert!(birdc.contains("tor_b_v6"), "{birdc}");
    assert!(text(lab(&["exec", "n4", "--", "true"])).contains("neither n1, n2, n3, tor-a"));
    let status = text(lab(&["status"]));
    assert!(
        status.contains("tor-b.bird") && status.contains("Established"),
        "{status}"
    );
    let log = text(lab(&["logs", "tor-a"]));
    assert!(log.contains("Started"), "{log}");

    assert!(lab(&["kill", "bird", "tor-a"]).status.success());
    assert_eq!(lab(&["status"]).status.code(), Some(1));
    assert!(text(lab(&["kill", "bird", "tor-a"])).contains("does not run"));
    assert!(lab(&["start", "bird", "tor-a"]).status.success());
    assert_eq!(lab(&["status"]).status.code(), Some(0));

    let plan = Lab::open(&options.dir).unwrap().plan().clone();
    assert!(text(lab(&["down"])).contains("removed"));
    assert_nothing_left(&plan);
    assert!(text(lab(&["down"])).contains("no lab"));
}

#[test]
fn down_removes_what_a_killed_up_left() {
    let options = options("crash");
    let _guard = TakenDown(options.dir.clone());
    let plan = lab::plan::Plan::new(&options.dir, options.nodes);
    // Killed at a different point each time: as soon as so many namespaces exist, and while BIRD starts.
    for point in [1, 3, 5] {
        let mut up = Command::new(env!("CARGO_BIN_EXE_lab"))
            .args([
                "--dir",
                &options.dir.display().to_string(),
                "up",
                "--fabric-only",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while namespaces_of(&plan).len() < point {
            assert!(Instant::now() < deadline, "up makes no namespaces");
        }
        up.kill().unwrap();
        up.wait().unwrap();
        assert!(Lab::down(&options.dir).unwrap());
        assert_nothing_left(&plan);
    }
}

#[test]
fn dropping_a_lab_takes_it_down() {
    let options = options("drop");
    let lab = Lab::up(&options).unwrap();
    let plan = lab.plan().clone();
    assert_eq!(namespaces_of(&plan).len(), 5);
    assert!(!process::marked(&plan.name).is_empty());
    // A program started by `exec` would hold the namespace: it goes as well.
    let mut sleeper = lab
        .command("n1", &["sleep", "1000"])
        .unwrap()
        .spawn()
        .unwrap();
    drop(lab);
    assert!(!sleeper.wait().unwrap().success());
    assert_nothing_left(&plan);
}

#[test]
fn a_foreign_directory_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("precious"), "").unwrap();
    let options = Options {
        dir: dir.path().to_owned(),
        ..options("foreign")
    };
    assert!(
        Lab::up(&options)
            .unwrap_err()
            .to_string()
            .contains("left alone")
    );
    assert!(Path::new(dir.path()).join("precious").exists());
}
