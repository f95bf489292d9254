//! Peers on an interface: no addresses but the link-local ones.

use crate::fib::Fib;
use crate::rig::{Bgpd, Bird, Rig, cable, inside, ping, sysctl};
use crate::support::{Namespace, Process, wait_for};

const OURS: &str = "
asNumber: 4200000001
routerID: 192.0.2.1
holdTimeSeconds: 9
peers:
- {name: tor, interface: up1, connect: {retryMinMillis: 100, retryMaxMillis: 500}}
pools:
- {cidr: 10.244.0.0/16}
- {cidr: 'fd00:10:244::/48'}
origins: [10.244.0.0/26, 'fd00:10:244::/122']
waitForFelix: true
";

/// A second cable without any global address, and a pod's address on either side.
fn bare(rig: &Rig) {
    cable(&rig.node, "up1", &rig.tor, "up1");
    for (namespace, four, six) in [
        (&rig.node, "10.244.0.1/32", "fd00:10:244::1/128"),
        (&rig.tor, "10.244.1.1/32", "fd00:10:244:1::1/128"),
    ] {
        namespace.ip(&format!("addr add {four} dev lo"));
        namespace.ip(&format!("addr add {six} dev lo"));
        namespace.ip("link set up0 down");
        sysctl(namespace, "net.ipv6.conf.all.forwarding=1");
    }
}

/// Both families lead over the link-local address, and packets go both ways.
fn check(rig: &Rig, bgpd: &Bgpd) {
    bgpd.wait_established(&["tor"]);
    let tor = bgpd.neighbor("tor");
    assert_eq!((tor.address.as_str(), tor.peer_asn), ("up1", 64601));
    for (family, prefix) in [("-4", "10.244.1.0/26"), ("-6", "fd00:10:244:1::/122")] {
        let route = wait_for(&format!("a kernel route to {prefix}"), || {
            let text = inside(
                &rig.node,
                "ip",
                &[family, "route", "show", prefix, "proto", "78"],
            );
            text.contains(prefix).then_some(text)
        });
        assert!(
            route.contains("fe80::") && route.contains("dev up1"),
            "{route}"
        );
    }
    ping(&rig.node, "10.244.0.1", "10.244.1.1");
    ping(&rig.node, "fd00:10:244::1", "fd00:10:244:1::1");
}

fn link_local(namespace: &Namespace) -> String {
    let text = inside(
        namespace,
        "ip",
        &["-6", "-o", "addr", "show", "dev", "up1", "scope", "link"],
    );
    let address = text.split_whitespace().find(|it| it.starts_with("fe80::"));
    address.unwrap().split('/').next().unwrap().to_owned()
}

/// BIRD in the ToR, whose router advertisements would not name it; `more` is said of the session.
fn bird(rig: &Rig, more: &str) -> Bird {
    rig.bird(
        &rig.tor,
        "bird",
        &format!(
            "router id 192.0.2.254;
             protocol kernel {{ ipv4 {{ export where source = RTS_BGP; }}; }}
             protocol kernel {{ ipv6 {{ export where source = RTS_BGP; }}; }}
             protocol static {{ ipv4; route 10.244.1.0/26 blackhole; }}
             protocol static {{ ipv6; route fd00:10:244:1::/122 blackhole; }}
             protocol bgp node from fast {{
               neighbor {}%up1 as 4200000001; {more}
               ipv4 {{ import all; export where source = RTS_STATIC; next hop self; extended next hop yes; }};
               ipv6 {{ import all; export where source = RTS_STATIC; next hop self; }};
             }}",
            link_local(&rig.node)
        ),
    )
}

#[test]
fn bird_connects_to_the_interface() {
    let rig = Rig::new();
    bare(&rig);
    let bird = bird(&rig, "");
    let bgpd = rig.bgpd(&rig.node, "bgpd", OURS);
    let _fib = Fib::start(&rig, &bgpd, "fib", &[]);
    let four = bird.wait_route("10.244.0.0/26");
    assert!(four.contains(&link_local(&rig.node)), "{four}");
    bird.wait_route("fd00:10:244::/122");
    check(&rig, &bgpd);
}

#[test]
fn bird_is_connected_to_by_its_link_local_address() {
    let rig = Rig::new();
    bare(&rig);
    let bird = bird(&rig, "passive yes;");
    let named = format!("peerIP: '{}%up1', asNumber: 64601", link_local(&rig.tor));
    let ours = OURS.replace("interface: up1", &named);
    let bgpd = rig.bgpd(&rig.node, "bgpd", &ours);
    let _fib = Fib::start(&rig, &bgpd, "fib", &[]);
    bird.wait_route("10.244.0.0/26");
    check(&rig, &bgpd);
}

/// FRR's zebra and bgpd in a namespace.
struct Frr {
    _processes: [Process; 2],
}

impl Frr {
    fn start(rig: &Rig, config: &str) -> Self {
        let dir = rig.dir.path().join("frr");
        std::fs::create_dir(&dir).unwrap();
        // They give up their rights before they write their files.
        inside(&rig.tor, "chmod", &["0777", dir.to_str().unwrap()]);
        inside(
            &rig.tor,
            "chmod",
            &["0755", rig.dir.path().to_str().unwrap()],
        );
        let file = dir.join("frr.conf");
        std::fs::write(&file, config).unwrap();
        let start = |daemon: &str| {
            let path = format!("/usr/lib/frr/{daemon}");
            assert!(
                std::path::Path::new(&path).exists(),
                "no {path}: install the package frr"
            );
            let mut command = rig.tor.command(&path);
            command.arg("-f").arg(&file);
            command.arg("-i").arg(dir.join(format!("{daemon}.pid")));
            command.arg("-z").arg(dir.join("zserv.api"));
            command.arg("--vty_socket").arg(&dir);
            command.args(["-P", "0", "--log", "stdout"]);
            Process::start(command, dir.join(format!("{daemon}.log")))
        };
        let zebra = start("zebra");
        wait_for("zebra to answer", || {
            dir.join("zserv.api").exists().then_some(())
        });
        Self {
            _processes: [zebra, start("bgpd")],
        }
    }
}

#[test]
fn frr_and_this_speaker_find_each_other() {
    let rig = Rig::new();
    bare(&rig);
    let _frr = Frr::start(
        &rig,
        "log stdout
router bgp 64601
 bgp router-id 192.0.2.254
 no bgp ebgp-requires-policy
 no bgp network import-check
 timers bgp 3 9
 neighbor up1 interface remote-as external
 neighbor up1 timers connect 1
 address-family ipv4 unicast
  network 10.244.1.0/26
 exit-address-family
 address-family ipv6 unicast
  network fd00:10:244:1::/122
  neighbor up1 activate
 exit-address-family
",
    );
    let bgpd = rig.bgpd(&rig.node, "bgpd", OURS);
    let _fib = Fib::start(&rig, &bgpd, "fib", &[]);
    check(&rig, &bgpd);
}
