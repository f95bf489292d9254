//! What BFD with many peers costs: two of our own speakers with a session for each of 200 pairs of addresses.
//!
//! Not a part of every run: `cargo test --release -p bgpd --test bfd_load -- --ignored --nocapture`. `BFD_SECONDS` says
//! for how long it is measured.

#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use api::v1;
use support::felix::wait_for_speaker;
use support::{BGPD, Namespace, Process, ip, wait_for};

const PEERS: u32 = 200;

/// The most of one core that may be used.
const SHARE: f64 = 0.1;

/// Addresses on the only link of a namespace, and a speaker with a peer on the other end of each.
fn start(namespace: &Namespace, dir: &Path, own: u32) -> Process {
    std::fs::create_dir_all(dir).unwrap();
    let (mut batch, mut peers) = (String::new(), String::new());
    for it in 0..PEERS {
        writeln!(batch, "addr add 10.7.{it}.{own}/30 dev up0").unwrap();
        let other = 3 - own;
        let passive = if own == 1 { ", passive: true" } else { "" };
        writeln!(
            peers,
            "- {{peerIP: 10.7.{it}.{other}, localAddress: 10.7.{it}.{own}, asNumber: {}, bfd: {{transmitMillis: 300, \
             receiveMillis: 300, multiplier: 3}}{passive}}}",
            65000 + other
        )
        .unwrap();
    }
    let file = dir.join("addresses");
    std::fs::write(&file, batch).unwrap();
    namespace.ip("link set up0 up");
    ip(&format!("-n {} -batch {}", namespace.name, file.display()));
    let config = format!(
        "asNumber: {}\nrouterID: 10.7.0.{own}\npeers:\n{peers}",
        65000 + own
    );
    std::fs::write(dir.join("bgpd.yaml"), config).unwrap();
    let mut command = namespace.command(BGPD);
    command.arg("--config").arg(dir.join("bgpd.yaml"));
    command.arg("--run-dir").arg(dir.join("run"));
    command.arg("--state-dir").arg(dir.join("state"));
    Process::start(command, dir.join("bgpd.log"))
}

fn sessions(dir: &Path) -> Vec<v1::BfdSession> {
    let socket = dir.join("run/bgpd.sock");
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        let mut bgpd = api::client::bgpd(&socket, Duration::from_secs(5))
            .await
            .ok()?;
        let answer = bgpd.list_bfd_sessions(v1::ListBfdSessionsRequest {}).await;
        Some(answer.ok()?.into_inner().sessions)
    });
    answer.unwrap_or_default()
}

/// CPU time of a process so far, all threads, user and system, and its memory, KiB.
fn usage(pid: u32) -> (Duration, String) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<u64> = text
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse().unwrap())
        .collect();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let memory = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    // A tick is a hundredth of a second on every Linux.
    (
        Duration::from_millis(fields.iter().sum::<u64>() * 10),
        memory.to_owned(),
    )
}

#[test]
#[ignore = "it measures, for as long as BFD_SECONDS says"]
fn two_hundred_peers_cost_little_and_none_is_lost() {
    let seconds = std::env::var("BFD_SECONDS").ok();
    let time = Duration::from_secs(seconds.map_or(20, |it| it.parse().unwrap()));
    let tmp = tempfile::tempdir().unwrap();
    let (here, there) = (Namespace::new("here"), Namespace::new("there"));
    here.ip(&format!(
        "link add up0 type veth peer name up0 netns {}",
        there.name
    ));
    let dirs = [tmp.path().join("here"), tmp.path().join("there")];
    let ours = start(&here, &dirs[0], 1);
    let _theirs = start(&there, &dirs[1], 2);
    for dir in &dirs {
        wait_for_speaker(&dir.join("run/bgpd.sock"));
    }
    let fast = |it: &v1::BfdSession| it.state == "Up" && it.detection_micros == 900_000;
    wait_for("all sessions", || {
        let all = sessions(&dirs[0]);
        (all.len() == 200 && all.iter().all(fast)).then_some(())
    });
    let (before, since) = (usage(ours.pid()).0, Instant::now());
    std::thread::sleep(time);
    let (after, memory) = usage(ours.pid());
    let share = (after - before).as_secs_f64() / since.elapsed().as_secs_f64();
    let failed: u64 = dirs
        .iter()
        .flat_map(|dir| sessions(dir))
        .map(|it| it.failed_count)
        .sum();
    println!(
        "{PEERS} peers, 300 ms x 3: {:.2} % of a core, {memory}, {failed} failures in {time:?}",
        share * 100.0
    );
    assert_eq!(failed, 0);
    assert!(share < SHARE, "{share}");
}
