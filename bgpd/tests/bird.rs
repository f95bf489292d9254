//! The real `margay-bgpd` and a real BIRD, in two network namespaces with a cable between them.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use api::v1;
use api::v1::bgpd_message::Body as Told;
use bgpd::driver::Line;
use bgpd::speaker::{RouteFilter, Speaker};
use nix::sys::signal::Signal;
use support::felix::{Felix, wait_for_speaker};
use support::{BGPD, Namespace, Process, wait_for};

const BIRD: &str = r#"
router id 192.0.2.254;
log stderr all;
debug protocols { states, events };
protocol device {}
protocol static pods4 { ipv4; route 10.244.1.0/26 blackhole; route 198.18.0.0/15 blackhole; }
protocol static pods6 { ipv6; route fd00:10:244:1::/122 blackhole; }
template bgp node {
  local as 64601;
  connect delay time 1; connect retry time 1; error wait time 1, 2; hold time 9; graceful restart on;
}
protocol bgp node4 from node {
  neighbor 192.0.2.1 as 4200000001;
  ipv4 { import all; export where source = RTS_STATIC; next hop self; };
}
protocol bgp node6 from node {
  neighbor 2001:db8::1 as 4200000001;
  ipv6 { import all; export where source = RTS_STATIC; next hop self; };
}
"#;

const CONFIG: &str = "
asNumber: 4200000001
routerID: 192.0.2.1
holdTimeSeconds: 9
peers:
- {name: tor4, peerIP: 192.0.2.254, asNumber: 64601}
- {name: tor6, peerIP: '2001:db8::254', asNumber: 64601}
pools:
- {cidr: 10.244.0.0/16}
- {cidr: 'fd00:10:244::/48'}
origins: [10.244.0.0/26, 'fd00:10:244::/122']
";

/// A peer that never brings a session up.
const ROGUE: &str = "- {name: rogue, peerIP: 192.0.2.66, asNumber: 64666, passive: true}\n";

/// A node with our speaker and a router with BIRD.
struct Rig {
    bgpd: Process,
    bird: Process,
    router: Namespace,
    node: Namespace,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (node, router) = (Namespace::new("node"), Namespace::new("tor"));
        node.ip(&format!(
            "link add up0 type veth peer name up0 netns {}",
            router.name
        ));
        for (namespace, last) in [(&node, "1"), (&router, "254")] {
            namespace.ip("link set up0 up");
            namespace.ip(&format!("addr add 192.0.2.{last}/24 dev up0"));
            namespace.ip(&format!("-6 addr add 2001:db8::{last}/64 dev up0 nodad"));
        }
        router.ip("addr add 192.0.2.66/24 dev up0");
        let config = CONFIG.replace("pools:", &format!("{more}pools:"));
        std::fs::write(dir.path().join("bgpd.yaml"), config).unwrap();
        std::fs::write(dir.path().join("bird.conf"), BIRD).unwrap();
        let bird = start_bird(&router, dir.path(), &[]);
        let bgpd = start_bgpd(&node, dir.path());
        let rig = Self {
            bgpd,
            bird,
            router,
            node,
            dir,
        };
        wait_for_speaker(&rig.socket());
        wait_for("BIRD to answer", || {
            rig.dir.path().join("bird.ctl").exists().then_some(())
        });
        rig
    }

    fn birdc(&self, command: &str) -> String {
        let mut birdc = Command::new("birdc");
        birdc.arg("-s").arg(self.dir.path().join("bird.ctl"));
        // It fails when it has nothing to show, so its code says nothing.
        let output = birdc.args(command.split(' ')).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// What BIRD knows of a prefix, once it is what is expected.
    fn bird_has(&self, prefix: &str, expected: bool) -> String {
        wait_for(&format!("BIRD to have {prefix}: {expected}"), || {
            let text = self.birdc(&format!("show route for {prefix} all"));
            let exact = text.contains(&format!("{prefix} "));
            (exact == expected).then_some(text)
        })
    }

    /// BIRD keeps our IPv4 routes, as we shall come back.
    fn waits_for_restart(&self) {
        wait_for("BIRD to wait for a restart", || {
            let text = self.birdc("show protocols all node4");
            text.contains("Neighbor graceful restart active")
                .then_some(())
        });
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/bgpd.sock")
    }

    fn established(&self) -> Vec<String> {
        let socket = self.socket();
        let answer = block_on(async {
            let mut bgpd = api::client::bgpd(&socket, Duration::from_secs(5))
                .await
                .ok()?;
            let answer = bgpd
                .list_neighbors(v1::ListNeighborsRequest {})
                .await
                .ok()?;
            Some(answer.into_inner().neighbors)
        });
        let up = answer
            .into_iter()
            .flatten()
            .filter(|n| n.state == "Established");
        up.map(|n| n.name).collect()
    }
}

fn start_bird(router: &Namespace, dir: &Path, more: &[&str]) -> Process {
    let mut bird = router.command("bird");
    bird.arg("-f").args(more);
    bird.arg("-c").arg(dir.join("bird.conf"));
    bird.arg("-s").arg(dir.join("bird.ctl"));
    bird.arg("-P").arg(dir.join("bird.pid"));
    Process::start(bird, dir.join("bird.log"))
}

fn start_bgpd(node: &Namespace, dir: &Path) -> Process {
    let mut command = node.command(BGPD);
    command.arg("--config").arg(dir.join("bgpd.yaml"));
    command.arg("--run-dir").arg(dir.join("run"));
    command.arg("--state-dir").arg(dir.join("state"));
    command.arg("--record").arg(dir.join("run.jsonl"));
    Process::start(command, dir.join("bgpd.log"))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn routes_pass_both_ways_and_a_kill_costs_only_time() {
    let mut rig = Rig::new("");
    let four = rig.bird_has("10.244.0.0/26", true);
    assert!(four.contains("BGP.next_hop: 192.0.2.1"), "{four}");
    assert!(four.contains("BGP.as_path: 4200000001"), "{four}");
    let six = rig.bird_has("fd00:10:244::/122", true);
    assert!(six.contains("BGP.next_hop: 2001:db8::1"), "{six}");
    assert_eq!(rig.established(), ["tor4", "tor6"]);

    let learnt = block_on(async {
        let mut felix = Felix::connect(&rig.socket()).await;
        let mut learnt: Vec<(String, Vec<v1::Leg>)> = Vec::new();
        felix
            .hear("the end of the snapshot", |body| match body {
                Told::Route(route) => {
                    learnt.push((route.prefix, route.legs));
                    None
                }
                Told::EndOfSnapshot(_) => Some(()),
                _ => None,
            })
            .await;
        learnt.retain(|(_, legs)| !legs.is_empty());
        learnt.sort_by(|a, b| a.0.cmp(&b.0));
        learnt
    });
    let prefixes: Vec<&str> = learnt.iter().map(|(prefix, _)| prefix.as_str()).collect();
    assert_eq!(
        prefixes,
        ["10.244.1.0/26", "fd00:10:244:1::/122"],
        "inside the pools only"
    );
    assert_eq!(learnt[0].1.len(), 1);
    assert_eq!(learnt[0].1[0].address, "192.0.2.254");
    assert_ne!(learnt[0].1[0].ifindex, 0);
    let gateway: IpAddr = learnt[1].1[0].address.parse().unwrap();
    assert!(gateway.is_ipv6());

    rig.bgpd.kill();
    let replayed = replay(&rig.dir.path().join("run.jsonl"));
    assert_eq!(replayed.len(), 5, "{replayed:?}");
    assert!(
        prefixes
            .iter()
            .all(|prefix| replayed.contains(&(*prefix).to_owned()))
    );
    std::fs::remove_file(rig.dir.path().join("run.jsonl")).unwrap();
    rig.waits_for_restart();
    rig.bird_has("10.244.0.0/26", true);
    rig.bgpd = start_bgpd(&rig.node, rig.dir.path());
    wait_for("both sessions", || {
        (rig.established().len() == 2).then_some(())
    });
    rig.bird_has("10.244.0.0/26", true);
    rig.bird_has("fd00:10:244::/122", true);
    wait_for("both sessions", || {
        (rig.established().len() == 2).then_some(())
    });

    rig.bgpd.signal(Signal::SIGHUP);
    rig.bgpd.signal(Signal::SIGTERM);
    assert_eq!(rig.bgpd.wait_exit(), Some(0));
    rig.waits_for_restart();
    rig.bird_has("10.244.0.0/26", true);
    let error = rig.birdc("show protocols all node4");
    assert!(
        !error.contains("Administrative"),
        "the end is no Cease: {error}"
    );
}

#[test]
fn felix_brings_origins_and_a_broken_stream_withdraws_nothing() {
    let rig = Rig::new("");
    rig.bird_has("10.244.0.0/26", true);
    block_on(async {
        let mut felix = Felix::connect(&rig.socket()).await;
        felix.origin("10.244.7.0/26").await;
        felix.origin("10.244.8.0/26").await;
        felix.end_of_snapshot().await;
        felix.acked().await;
    });
    rig.bird_has("10.244.7.0/26", true);
    rig.bird_has("10.244.8.0/26", true);

    block_on(async {
        // The stream is gone; what it said stays until the next one's snapshot is complete.
        let mut felix = Felix::connect(&rig.socket()).await;
        felix.origin("10.244.8.0/26").await;
        felix.origin("10.244.9.0/26").await;
        felix.acked().await;
        rig.bird_has("10.244.9.0/26", true);
        rig.bird_has("10.244.7.0/26", true);
        felix.end_of_snapshot().await;
        felix.acked().await;
        rig.bird_has("10.244.7.0/26", false);
        rig.bird_has("10.244.8.0/26", true);
    });
    rig.bird_has("10.244.0.0/26", true);
}

#[test]
fn sessions_wait_for_felix_when_told_to() {
    let rig = Rig::new("waitForFelix: true\n");
    let overdue = || rig.bgpd.log().contains("felix sent no report in time");
    assert!(rig.established().is_empty() || overdue());
    block_on(async {
        let mut felix = Felix::connect(&rig.socket()).await;
        felix.origin("10.244.7.0/26").await;
        felix.end_of_snapshot().await;
        felix.acked().await;
    });
    rig.bird_has("10.244.7.0/26", true);
    assert!(!overdue(), "the report started the sessions");
}

#[test]
fn garbage_gets_a_notification_and_harms_nobody() {
    let mut rig = Rig::new(ROGUE);
    wait_for("both sessions", || {
        (rig.established().len() == 2).then_some(())
    });
    for (garbage, code, subcode) in [
        // No marker; a length no message has; a type no message has.
        (vec![0_u8; 64], 1, 1),
        ([&[0xff; 16][..], &[0, 1, 4]].concat(), 1, 2),
        ([&[0xff; 16][..], &[0, 19, 99]].concat(), 1, 3),
    ] {
        let heard = rig.router.inside(move || talk(&garbage));
        let last = messages(&heard).pop().expect("a message");
        assert_eq!(
            (last[18], last[19], last[20]),
            (3, code, subcode),
            "{heard:02x?}"
        );
    }
    assert!(rig.bgpd.is_running());
    assert_eq!(
        rig.established(),
        ["tor4", "tor6"],
        "the others did not notice"
    );
    rig.bird_has("10.244.0.0/26", true);
}

/// Runs the speaker of a recording again, without any network; the prefixes it ends with.
fn replay(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let Some(Line::Start { seed, config }) = lines.next() else {
        panic!("no start");
    };
    let mut speaker = Speaker::new(config, seed, 0);
    let mut last = 0;
    for line in lines {
        let mut outputs = Vec::new();
        last = match line {
            Line::Start { .. } => panic!("a second start"),
            Line::Outputs { .. } => continue,
            Line::Input { now, input } => {
                speaker.take(input, now, &mut outputs);
                now
            }
            Line::Settled { now } => {
                speaker.settle(now, &mut outputs);
                now
            }
        };
    }
    let routes = speaker.routes(&RouteFilter::default(), last);
    routes
        .into_iter()
        .map(|route| route.prefix.to_string())
        .collect()
}

/// Connects as the rogue peer, says something, and hears until the end.
fn talk(garbage: &[u8]) -> Vec<u8> {
    wait_for("an answer", || {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket
            .bind(&SocketAddr::from(([192, 0, 2, 66], 0)).into())
            .unwrap();
        socket
            .connect(&SocketAddr::from(([192, 0, 2, 1], 179)).into())
            .ok()?;
        let mut stream = std::net::TcpStream::from(socket);
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream.write_all(garbage).ok()?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).ok()?;
        // Nothing: the session was still waiting after the last mishap.
        (!heard.is_empty()).then_some(heard)
    })
}

/// Cuts a stream into its messages (RFC 4271 section 4.1).
fn messages(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while stream.len() >= 19 {
        let length = usize::from(u16::from_be_bytes([stream[16], stream[17]]));
        let (message, rest) = stream.split_at(length.min(stream.len()));
        messages.push(message);
        stream = rest;
    }
    messages
}

/// How many routes the speaker has of each IPv4 neighbour that are used, and how many of them are stale.
fn of_tor4(rig: &Rig) -> Option<(String, u32, u32, u32)> {
    let socket = rig.socket();
    let neighbors = block_on(async {
        let mut bgpd = api::client::bgpd(&socket, Duration::from_secs(5))
            .await
            .ok()?;
        let request = v1::ListNeighborsRequest {};
        Some(
            bgpd.list_neighbors(request)
                .await
                .ok()?
                .into_inner()
                .neighbors,
        )
    })?;
    let tor4 = neighbors.into_iter().find(|it| it.name == "tor4")?;
    let four = tor4.families.iter().find(|it| it.family == "ipv4")?;
    Some((tor4.state, four.accepted, four.stale, four.received))
}

#[test]
fn a_restart_of_bird_costs_none_of_its_routes() {
    let mut rig = Rig::new("");
    wait_for("its routes", || of_tor4(&rig).filter(|it| it.1 == 1));
    rig.bird.kill();
    let kept = wait_for("the loss", || {
        of_tor4(&rig).filter(|it| it.0 != "Established")
    });
    assert_eq!((kept.1, kept.2), (1, kept.3), "all are stale: {kept:?}");
    std::fs::remove_file(rig.dir.path().join("bird.ctl")).unwrap();
    // It recovers from a restart: R and F bits are set.
    rig.bird = start_bird(&rig.router, rig.dir.path(), &["-R"]);
    wait_for("the session and its End-of-RIB", || {
        let now = of_tor4(&rig)?;
        assert_eq!(now.1, 1, "the route was gone: {now:?}");
        (now.0 == "Established" && now.2 == 0).then_some(())
    });
}

#[test]
fn a_restart_of_ours_costs_bird_no_route() {
    let mut rig = Rig::new("waitForFelix: true\n");
    let announce = |rig: &Rig, preserved: bool| {
        let socket = rig.socket();
        wait_for_speaker(&socket);
        block_on(async {
            let mut felix = match preserved {
                true => Felix::connect_preserved(&socket).await,
                false => Felix::connect(&socket).await,
            };
            felix.origin("10.244.7.0/26").await;
            felix.end_of_snapshot().await;
            felix.acked().await;
        });
    };
    announce(&rig, false);
    rig.bird_has("10.244.7.0/26", true);
    wait_for("both sessions", || {
        (rig.established().len() == 2).then_some(())
    });
    for round in 0..2 {
        rig.bgpd.kill();
        rig.waits_for_restart();
        std::fs::remove_file(rig.dir.path().join("run.jsonl")).unwrap();
        rig.bgpd = start_bgpd(&rig.node, rig.dir.path());
        announce(&rig, true);
        wait_for("both sessions", || {
            let text = rig.birdc("show route for 10.244.7.0/26");
            assert!(text.contains("10.244.7.0/26"), "round {round}: {text}");
            (rig.established().len() == 2).then_some(())
        });
        let text = wait_for("BIRD to be done with the restart", || {
            let text = rig.birdc("show protocols all node4");
            (!text.contains("Neighbor graceful restart active")).then_some(text)
        });
        assert!(text.contains("Restart recovery"), "the R bit: {text}");
        assert!(text.contains("AF preserved: ipv4"), "the F bit: {text}");
        rig.bird_has("10.244.7.0/26", true);
    }
    // BIRD has not lost the route for a moment: it is the one of the first session.
    let log = rig.bird.log();
    assert_eq!(
        log.matches("Neighbor graceful restart detected").count(),
        4,
        "{log}"
    );
}
