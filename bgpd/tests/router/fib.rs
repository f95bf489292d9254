//! margay-fib: best routes in the kernel without felix.

use std::path::Path;
use std::process::Command;

use crate::rig::{Bgpd, Rig, cable, inside, ping};
use crate::support::{BGPD, Process, wait_for};

/// A margay-fib beside a speaker.
pub(crate) struct Fib {
    pub(crate) process: Process,
}

impl Fib {
    pub(crate) fn start(rig: &Rig, bgpd: &Bgpd, name: &str, args: &[&str]) -> Self {
        let log = rig.dir.path().join(format!("{name}.log"));
        Self {
            process: Process::start(Self::command(rig, bgpd, args), log),
        }
    }

    fn command(rig: &Rig, bgpd: &Bgpd, args: &[&str]) -> Command {
        let program = Path::new(BGPD).with_file_name("margay-fib");
        assert!(
            program.exists(),
            "no {}: cargo build -p felix --bin margay-fib",
            program.display()
        );
        let mut command = rig.node.command(program);
        command
            .arg("--run-dir")
            .arg(bgpd.dir.join("run"))
            .args(args);
        command
    }
}

/// Two routers that lead to the same pods, over up0 and up1.
const OURS: &str = "
asNumber: 4200000001
routerID: 192.0.2.1
holdTimeSeconds: 9
peers:
- {name: a, peerIP: 192.0.2.254, asNumber: 64601, connect: {retryMinMillis: 100, retryMaxMillis: 500}}
- {name: b, peerIP: 203.0.113.254, asNumber: 64601, connect: {retryMinMillis: 100, retryMaxMillis: 500}}
pools:
- {cidr: 10.244.0.0/16}
origins: [10.244.0.0/26]
waitForFelix: true
";

const THEIRS: &str = "
router id 192.0.2.254;
protocol kernel { ipv4 { export where source = RTS_BGP; }; merge paths on; }
protocol static { ipv4; route 10.244.1.0/26 blackhole; }
protocol static more { disabled; ipv4; route 10.244.2.0/26 blackhole; }
protocol static old { ipv4; route 10.244.3.0/26 blackhole; }
protocol bgp a from fast { neighbor 192.0.2.1 as 4200000001; ipv4 { import all; export where source = RTS_STATIC; next hop self; }; }
protocol bgp b from fast { neighbor 203.0.113.1 as 4200000001; ipv4 { import all; export where source = RTS_STATIC; next hop self; }; }
";

#[test]
fn routes_come_share_their_ways_and_outlive_every_process() {
    let rig = Rig::new();
    cable(&rig.node, "up1", &rig.tor, "up1");
    rig.node.ip("addr add 203.0.113.1/24 dev up1");
    rig.tor.ip("addr add 203.0.113.254/24 dev up1");
    rig.node.ip("addr add 10.244.0.1/32 dev lo");
    rig.tor.ip("addr add 10.244.1.1/32 dev lo");
    let routes = || inside(&rig.node, "ip", &["-4", "route", "show", "proto", "78"]);
    let has = |prefix: &str, ways: usize| {
        wait_for(&format!("{prefix} over {ways} ways"), || {
            let text = inside(
                &rig.node,
                "ip",
                &["-4", "route", "show", prefix, "proto", "78"],
            );
            (text.matches("via ").count() == ways).then_some(text)
        })
    };
    let bird = rig.bird(&rig.tor, "bird", THEIRS);
    let mut bgpd = rig.bgpd(&rig.node, "bgpd", OURS);
    let mut fib = Fib::start(&rig, &bgpd, "fib", &["--source", "10.244.0.1"]);
    let both = has("10.244.1.0/26", 2);
    assert!(
        both.contains("src 10.244.0.1") && both.contains("metric 128"),
        "{both}"
    );
    bird.wait_route("10.244.0.0/26");
    ping(&rig.node, "10.244.0.1", "10.244.1.1");

    // There is one writer, and the other one hears who.
    let mut second = Fib::start(&rig, &bgpd, "second", &[]);
    assert_eq!(second.process.wait_exit(), Some(1));
    let log = second.process.log();
    assert!(log.contains("margay-fib (process"), "{log}");

    // Packets all the time, while one process after the other is killed and started anew.
    let mut ping = rig.node.command("ping");
    ping.args(["-i", "0.02", "-W1", "-q", "-I", "10.244.0.1", "10.244.1.1"]);
    let mut pinging = Process::start(ping, rig.dir.path().join("ping.log"));
    fib.process.kill();
    bird.ask("enable more");
    bird.ask("disable old");
    wait_for("bgpd to know the change", || {
        let known = routes();
        assert!(
            known.contains("10.244.3.0/26"),
            "nobody is there to take it away: {known}"
        );
        let text = block(&bgpd);
        (text.contains("10.244.2.0/26") && !text.contains("10.244.3.0/26")).then_some(())
    });
    let mut fib = Fib::start(&rig, &bgpd, "fib", &["--source", "10.244.0.1"]);
    has("10.244.2.0/26", 2);
    has("10.244.3.0/26", 0);
    for _ in 0..2 {
        bgpd.process.kill();
        assert!(routes().contains("10.244.1.0/26"));
        std::fs::remove_file(bgpd.dir.join("run.jsonl")).unwrap();
        bgpd.again(&rig.node);
        bgpd.wait_established(&["a", "b"]);
        has("10.244.1.0/26", 2);
    }
    // The last life is the same again without a network, to the last byte it sent.
    let recording = bgpd.dir.join("run.jsonl");
    let replay = |args: &[&str]| {
        let output = Command::new(BGPD)
            .arg("replay")
            .arg(&recording)
            .args(args)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    // The kernel has had the route since an earlier life, so that its being there says nothing of what this one learnt.
    wait_for("the recording to have the route", || {
        let (code, said) = replay(&[]);
        assert_eq!(code, Some(0), "{said}");
        said.contains("best 10.244.1.0/26 via 192.0.2.254 203.0.113.254")
            .then_some(())
    });
    let (code, said) = replay(&["--until", "0", "--verbose"]);
    assert!(code == Some(0) && said.contains("> {\"Kernel\""), "{said}");

    pinging.signal(nix::sys::signal::Signal::SIGINT);
    pinging.wait_exit();
    let log = pinging.log();
    assert!(log.contains(" 0% packet loss"), "{log}");

    // A way that dies leaves the other one.
    rig.node.ip("link set up1 down");
    has("10.244.1.0/26", 1);
    crate::rig::ping(&rig.node, "10.244.0.1", "10.244.1.1");
    rig.node.ip("link set up1 up");
    has("10.244.1.0/26", 2);

    // An orderly end leaves everything as it is.
    fib.process.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(fib.process.wait_exit(), Some(0));
    has("10.244.1.0/26", 2);
}

/// All prefixes that the speaker has routes to.
fn block(bgpd: &Bgpd) -> String {
    let socket = bgpd.socket();
    crate::rig::block_on(async {
        let patience = std::time::Duration::from_secs(5);
        let mut client = api::client::bgpd(&socket, patience).await.ok()?;
        let answer = client
            .list_routes(api::v1::ListRoutesRequest::default())
            .await;
        let routes = answer.ok()?.into_inner().routes;
        Some(
            routes
                .iter()
                .map(|it| format!("{} ", it.prefix))
                .collect::<String>(),
        )
    })
    .unwrap_or_default()
}
