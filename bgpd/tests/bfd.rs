//! The real `margay-bgpd` beside the BFD of BIRD and of FRR, in network namespaces.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use api::v1;
use support::felix::wait_for_speaker;
use support::{BGPD, Namespace, Process, run, wait_for};

const CONFIG: &str = "
asNumber: 4200000001
routerID: 192.0.2.1
peers:
- {name: tor4, peerIP: 192.0.2.254, asNumber: 64601, bfd: {transmitMillis: 100, receiveMillis: 100, multiplier: 3}}
- {name: tor6, peerIP: '2001:db8::254', asNumber: 64601, bfd: {transmitMillis: 100, receiveMillis: 100, multiplier: 3}}
pools:
- {cidr: 10.244.0.0/16}
- {cidr: 'fd00:10:244::/48'}
origins: [10.244.0.0/26, 'fd00:10:244::/122']
";

const BIRD: &str = r#"
router id 192.0.2.254;
log stderr all;
debug protocols { states, events };
protocol device {}
protocol bfd {
  interface "up0" { interval 100 ms; multiplier 3; };
  multihop { interval 100 ms; multiplier 3; };
}
protocol static pods4 { ipv4; route 10.244.1.0/26 blackhole; }
protocol static pods6 { ipv6; route fd00:10:244:1::/122 blackhole; }
template bgp node {
  bfd on; @distance@
  connect delay time 1; connect retry time 1; error wait time 1, 2; hold time 90;
}
protocol bgp node4 from node {
  local 192.0.2.254 as 64601; neighbor 192.0.2.1 as 4200000001;
  ipv4 { import all; export where source = RTS_STATIC; next hop self; };
}
protocol bgp node6 from node {
  local 2001:db8::254 as 64601; neighbor 2001:db8::1 as 4200000001;
  ipv6 { import all; export where source = RTS_STATIC; next hop self; };
}
"#;

const FRR: &str = "
log stdout
bfd
 profile fast
  transmit-interval 100
  receive-interval 100
  detect-multiplier 3
 !
!
router bgp 64601
 bgp router-id 192.0.2.254
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor 192.0.2.1 remote-as 4200000001
 neighbor 192.0.2.1 timers 30 90
 neighbor 192.0.2.1 bfd
 neighbor 192.0.2.1 bfd profile fast
 neighbor 2001:db8::1 remote-as 4200000001
 neighbor 2001:db8::1 timers 30 90
 neighbor 2001:db8::1 bfd
 neighbor 2001:db8::1 bfd profile fast
 !
 address-family ipv4 unicast
  network 10.244.1.0/26
  no neighbor 2001:db8::1 activate
 exit-address-family
 address-family ipv6 unicast
  network fd00:10:244:1::/122
  neighbor 2001:db8::1 activate
 exit-address-family
";

/// Far less than the hold time, and more than a busy machine is late: what matters is who noticed. The benches measure.
const LATE: Duration = Duration::from_secs(3);

/// What the peer runs.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Bird,
    Frr,
}

/// A node with our speaker, a peer, and what is between them.
struct Rig {
    bgpd: Process,
    peer: Vec<Process>,
    tor: Namespace,
    node: Namespace,
    dir: tempfile::TempDir,
}

/// Addresses of one end.
fn address(namespace: &Namespace, last: &str) {
    namespace.ip("link set up0 up");
    namespace.ip(&format!("addr add 192.0.2.{last}/24 dev up0"));
    namespace.ip(&format!("-6 addr add 2001:db8::{last}/64 dev up0 nodad"));
}

impl Rig {
    /// On one link.
    fn new(kind: Kind) -> Self {
        Self::with(kind, CONFIG)
    }

    fn with(kind: Kind, config: &str) -> Self {
        let (node, tor) = (Namespace::new("node"), Namespace::new("tor"));
        // FRR takes no IPv6 session on an interface whose link-local address is not ready.
        let mut sysctl = tor.command("sysctl");
        let no_wait = ["-qw", "net.ipv6.conf.default.accept_dad=0"];
        assert!(sysctl.args(no_wait).status().unwrap().success());
        node.ip(&format!(
            "link add up0 type veth peer name up0 netns {}",
            tor.name
        ));
        address(&node, "1");
        address(&tor, "254");
        Self::start(kind, node, tor, &BIRD.replace("@distance@", ""), config)
    }

    fn start(kind: Kind, node: Namespace, tor: Namespace, bird: &str, config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let peer = match kind {
            Kind::Bird => vec![start_bird(&tor, dir.path(), bird)],
            Kind::Frr => start_frr(&tor, dir.path()),
        };
        std::fs::write(dir.path().join("bgpd.yaml"), config).unwrap();
        let mut command = node.command(BGPD);
        command.arg("--config").arg(dir.path().join("bgpd.yaml"));
        command.arg("--run-dir").arg(dir.path().join("run"));
        command.arg("--state-dir").arg(dir.path().join("state"));
        let bgpd = Process::start(command, dir.path().join("bgpd.log"));
        let rig = Self {
            bgpd,
            peer,
            tor,
            node,
            dir,
        };
        wait_for_speaker(&rig.socket());
        rig
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/bgpd.sock")
    }

    fn sessions(&self) -> Vec<v1::BfdSession> {
        let socket = self.socket();
        let answer = block_on(async {
            let mut bgpd = api::client::bgpd(&socket, Duration::from_secs(5))
                .await
                .ok()?;
            let answer = bgpd.list_bfd_sessions(v1::ListBfdSessionsRequest {}).await;
            Some(answer.ok()?.into_inner())
        });
        let answer = answer.unwrap_or_default();
        assert_eq!(answer.problem, "");
        answer.sessions
    }

    fn neighbors(&self) -> Vec<v1::Neighbor> {
        let socket = self.socket();
        let answer = block_on(async {
            let mut bgpd = api::client::bgpd(&socket, Duration::from_secs(5))
                .await
                .ok()?;
            let answer = bgpd.list_neighbors(v1::ListNeighborsRequest {}).await;
            Some(answer.ok()?.into_inner().neighbors)
        });
        answer.unwrap_or_default()
    }

    /// Waits until BFD and BGP are up with both addresses of the peer; the BFD sessions.
    fn up(&self) -> Vec<v1::BfdSession> {
        wait_for("sessions of BFD and BGP", || {
            let established = self
                .neighbors()
                .iter()
                .filter(|it| it.state == "Established")
                .count();
            let up: Vec<_> = self
                .sessions()
                .into_iter()
                .filter(|it| it.state == "Up")
                .collect();
            let fast = up
                .iter()
                .all(|it| it.transmit_micros < 1_000_000 && it.detection_micros < 1_000_000);
            (established == 2 && up.len() == 2 && fast).then_some(up)
        })
    }

    /// Drops everything the peer sends, without a word; when that was done.
    fn silence(&self) -> Instant {
        let rules = self.dir.path().join("silence.nft");
        std::fs::write(
            &rules,
            "table inet silence { chain out { type filter hook output priority 0; oifname up0 drop; }; }",
        )
        .unwrap();
        let mut nft = self.tor.command("nft");
        assert!(nft.arg("-f").arg(rules).status().unwrap().success());
        Instant::now()
    }

    fn speak_again(&self) {
        let mut nft = self.tor.command("nft");
        assert!(
            nft.args(["delete", "table", "inet", "silence"])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for the failure of both sessions; how long after `since` each of them was, at most.
    fn failures(&self, since: Instant) -> Vec<Duration> {
        wait_for("BFD to fail", || {
            let sessions = self.sessions();
            let asked = since.elapsed();
            let failed = sessions
                .iter()
                .filter(|it| it.failed_count > 0 && it.state == "Down");
            let ages: Vec<Duration> = failed
                .map(|it| Duration::from_millis(it.state_millis))
                .collect();
            (ages.len() == 2).then(|| ages.iter().map(|age| asked.saturating_sub(*age)).collect())
        })
    }

    /// Puts another configuration in force.
    fn configure(&self, from: &str, to: &str) {
        let path = self.dir.path().join("bgpd.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        let new = self.dir.path().join("new.yaml");
        std::fs::write(&new, text.replace(from, to)).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    fn birdc(&self, command: &str) -> String {
        let mut birdc = Command::new("birdc");
        birdc.arg("-s").arg(self.dir.path().join("bird.ctl"));
        let output = birdc.args(command.split(' ')).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn vtysh(&self, commands: &[&str]) -> String {
        let sockets = self.dir.path().join("frr").display().to_string();
        let mut args = vec!["--vty_socket", &sockets];
        for command in commands {
            args.extend(["-c", *command]);
        }
        run("vtysh", &args)
    }
}

fn start_bird(tor: &Namespace, dir: &Path, config: &str) -> Process {
    std::fs::write(dir.join("bird.conf"), config).unwrap();
    let mut bird = tor.command("bird");
    bird.arg("-f");
    bird.arg("-c").arg(dir.join("bird.conf"));
    bird.arg("-s").arg(dir.join("bird.ctl"));
    bird.arg("-P").arg(dir.join("bird.pid"));
    let bird = Process::start(bird, dir.join("bird.log"));
    wait_for("BIRD to answer", || {
        dir.join("bird.ctl").exists().then_some(())
    });
    bird
}

/// zebra, which tells the others of interfaces, then bfdd and bgpd.
fn start_frr(tor: &Namespace, dir: &Path) -> Vec<Process> {
    let frr = dir.join("frr");
    std::fs::create_dir(&frr).unwrap();
    // The daemons run as a user of their own.
    for (path, mode) in [(dir, 0o755), (&frr, 0o777)] {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    std::fs::write(frr.join("frr.conf"), FRR).unwrap();
    let start = |daemon: &str, more: &[&str]| {
        let mut command = tor.command(format!("/usr/lib/frr/{daemon}"));
        command.args(["-P", "0", "-f"]).arg(frr.join("frr.conf"));
        command.arg("-z").arg(frr.join("zserv"));
        command.arg("-i").arg(frr.join(format!("{daemon}.pid")));
        command.arg("--vty_socket").arg(&frr);
        command.args(more);
        let process = Process::start(command, frr.join(format!("{daemon}.log")));
        wait_for(daemon, || {
            frr.join(format!("{daemon}.vty")).exists().then_some(())
        });
        process
    };
    let control = frr.join("bfdd.sock").display().to_string();
    vec![
        start("zebra", &[]),
        start("bfdd", &["--bfdctl", &control]),
        start("bgpd", &["-p", "179"]),
    ]
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Up in both families, the detection time when the peer falls silent, what it does to BGP, and up again.
fn silence_is_detected(kind: Kind) {
    let rig = Rig::new(kind);
    for session in rig.up() {
        assert_eq!(
            (session.transmit_micros, session.detection_micros),
            (100_000, 300_000)
        );
        assert_eq!(session.interface, "up0");
    }
    let since = rig.silence();
    for took in rig.failures(since) {
        // The last packet may have come just before, or up to an interval before.
        let expected = Duration::from_millis(150)..LATE;
        assert!(expected.contains(&took), "{took:?}");
    }
    for neighbor in rig.neighbors() {
        assert_ne!(neighbor.state, "Established");
        // Where both keep routes through NOTIFICATIONs, it takes a hard reset to purge them.
        let error = match kind {
            Kind::Bird => "sent Cease: BFD down (6/10)",
            Kind::Frr => "sent Cease: hard reset (6/9) for Cease: BFD down (6/10)",
        };
        assert_eq!(neighbor.last_error, error);
        assert_eq!(neighbor.bfd, "Down");
    }
    rig.speak_again();
    for session in rig.up() {
        assert_eq!((session.up_count, session.failed_count), (2, 1));
    }
}

#[test]
fn birds_silence_is_detected() {
    silence_is_detected(Kind::Bird);
}

#[test]
fn frrs_silence_is_detected() {
    silence_is_detected(Kind::Frr);
}

#[test]
fn other_intervals_cost_no_session() {
    let rig = Rig::new(Kind::Bird);
    rig.up();
    rig.configure(
        "transmitMillis: 100, receiveMillis: 100, multiplier: 3",
        "transmitMillis: 400, receiveMillis: 250, multiplier: 4",
    );
    wait_for("the new intervals", || {
        let sessions = rig.sessions();
        let new =
            |it: &v1::BfdSession| (it.transmit_micros, it.detection_micros) == (400_000, 750_000);
        (sessions.len() == 2 && sessions.iter().all(new)).then_some(())
    });
    // BIRD: our interval and its detection time, in seconds.
    wait_for("BIRD to take them", || {
        let text = rig.birdc("show bfd sessions");
        let rows = text.lines().filter(|line| line.contains(" Up "));
        let taken = rows.filter(|line| line.contains("0.250") && line.contains("1.600"));
        (taken.count() == 2).then_some(())
    });
    rig.configure(
        "transmitMillis: 400, receiveMillis: 250, multiplier: 4",
        "transmitMillis: 50, receiveMillis: 50, multiplier: 5",
    );
    wait_for("shorter intervals", || {
        let text = rig.birdc("show bfd sessions");
        let rows = text.lines().filter(|line| line.contains(" Up "));
        (rows.filter(|line| line.contains("0.500")).count() == 2).then_some(())
    });
    for session in rig.sessions() {
        assert_eq!(
            (session.up_count, session.failed_count),
            (1, 0),
            "{session:?}"
        );
    }
    assert!(rig.neighbors().iter().all(|it| it.established_count == 1));
}

#[test]
fn a_peer_that_ends_bfd_on_purpose_keeps_its_bgp() {
    let rig = Rig::new(Kind::Frr);
    rig.up();
    rig.vtysh(&["configure terminal", "bfd", "profile fast", "shutdown"]);
    wait_for("administratively down", || {
        let all = rig.neighbors();
        (all.len() == 2 && all.iter().all(|it| it.bfd == "AdminDown")).then_some(())
    });
    for (session, neighbor) in rig.sessions().iter().zip(rig.neighbors()) {
        assert_eq!(
            (session.remote_state.as_str(), session.failed_count),
            ("AdminDown", 0)
        );
        assert_eq!(
            (neighbor.state.as_str(), neighbor.established_count),
            ("Established", 1)
        );
    }
    rig.vtysh(&["configure terminal", "bfd", "profile fast", "no shutdown"]);
    for session in rig.up() {
        assert_eq!(session.up_count, 2);
    }
    assert!(rig.neighbors().iter().all(|it| it.established_count == 1));
}

#[test]
fn our_end_is_no_failure_for_the_peer() {
    // Where it keeps nothing through our restart, it is told; otherwise it waits: the cells `planned_restart`.
    let config = CONFIG.replace("bfd:", "gracefulRestart: {enabled: false}, bfd:");
    let mut rig = Rig::with(Kind::Frr, &config);
    rig.up();
    rig.bgpd.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(rig.bgpd.wait_exit(), Some(0));
    let text = wait_for("FRR to hear it", || {
        let text = rig.vtysh(&["show bfd peers json"]);
        (!text.contains(r#""status":"up""#)).then_some(text)
    });
    let told = text.matches("neighbor signaled session down").count();
    assert_eq!(told, 2, "{text}");
}

#[test]
fn a_lost_carrier_ends_the_sessions_at_once() {
    let rig = Rig::new(Kind::Bird);
    rig.up();
    let since = Instant::now();
    rig.tor.ip("link set up0 down");
    let took = wait_for("sessions to end", || {
        let all = rig.neighbors();
        let lost = all
            .iter()
            .filter(|it| it.last_error == "interface up0 is down");
        (lost.count() == 2).then(|| since.elapsed())
    });
    assert!(took < LATE, "{took:?}");
    rig.tor.ip("link set up0 up");
    // The kernel took this address with the link.
    rig.tor.ip("-6 addr add 2001:db8::254/64 dev up0 nodad");
    rig.up();
}

#[test]
fn a_peer_several_hops_away_is_watched() {
    let (node, hop, tor) = (
        Namespace::new("node"),
        Namespace::new("hop"),
        Namespace::new("tor"),
    );
    for (end, name, net) in [(&node, "near", 1), (&tor, "far", 2)] {
        hop.ip(&format!(
            "link add {name} type veth peer name up0 netns {}",
            end.name
        ));
        hop.ip(&format!("link set {name} up"));
        hop.ip(&format!("addr add 10.9.{net}.254/24 dev {name}"));
        hop.ip(&format!(
            "-6 addr add 2001:db8:{net}::254/64 dev {name} nodad"
        ));
        end.ip("link set up0 up");
        end.ip(&format!("addr add 10.9.{net}.1/24 dev up0"));
        end.ip(&format!("-6 addr add 2001:db8:{net}::1/64 dev up0 nodad"));
        end.ip(&format!("route add default via 10.9.{net}.254"));
        end.ip(&format!("-6 route add default via 2001:db8:{net}::254"));
    }
    for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
        let mut sysctl = hop.command("sysctl");
        assert!(sysctl.args(["-qw", setting]).status().unwrap().success());
    }
    let config = CONFIG
        .replace("192.0.2.254,", "10.9.2.1, ebgpMultihop: 3,")
        .replace("'2001:db8::254',", "'2001:db8:2::1', ebgpMultihop: 3,");
    let bird = BIRD
        .replace("@distance@", "multihop 3;")
        .replace("192.0.2.254 as", "10.9.2.1 as")
        .replace("neighbor 192.0.2.1 ", "neighbor 10.9.1.1 ")
        .replace("2001:db8::254 as", "2001:db8:2::1 as")
        .replace("neighbor 2001:db8::1 ", "neighbor 2001:db8:1::1 ");
    let rig = Rig::start(Kind::Bird, node, tor, &bird, &config);
    for session in rig.up() {
        assert_eq!(
            (session.interface.as_str(), session.detection_micros),
            ("", 300_000)
        );
    }
    let since = rig.silence();
    for took in rig.failures(since) {
        assert!(took < LATE, "{took:?}");
    }
    rig.speak_again();
    rig.up();
    let _ = (&rig.node, &rig.peer);
}
