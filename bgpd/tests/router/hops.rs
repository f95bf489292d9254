//! How far peers may be: GTSM (RFC 5082), several hops, connected networks; and where sessions come from.

use crate::rig::{Rig, cable, inside, sysctl};
use crate::support::{Namespace, wait_for};

const WAITS: &str = "connect: {timeoutMillis: 1000, retryMinMillis: 100, retryMaxMillis: 500}";

/// Another namespace, 198.51.100.2, behind the router.
fn behind(rig: &Rig) -> Namespace {
    let far = Namespace::new("far");
    cable(&rig.tor, "down0", &far, "up0");
    rig.tor.ip("addr add 198.51.100.1/24 dev down0");
    far.ip("addr add 198.51.100.2/24 dev up0");
    far.ip("addr add 198.51.100.3/24 dev up0");
    far.ip("addr add 198.51.100.4/24 dev up0");
    far.ip("route add 192.0.2.0/24 via 198.51.100.1");
    rig.node.ip("route add 198.51.100.0/24 via 192.0.2.254");
    // BIRD has one session with one address.
    rig.node.ip("addr add 192.0.2.2/24 dev up0");
    rig.node.ip("addr add 192.0.2.3/24 dev up0");
    sysctl(&rig.tor, "net.ipv4.ip_forward=1");
    far
}

#[test]
fn packets_of_a_neighbour_pass_and_those_from_behind_it_do_not() {
    let rig = Rig::new();
    let far = behind(&rig);
    // With a limit on both sides, as it is meant; everybody sends with TTL 255.
    let near = "router id 192.0.2.254;
        protocol bgp near4 from fast { neighbor 192.0.2.1 as 4200000001; ttl security on; ipv4 { import all; export none; }; }
        protocol bgp near6 from fast { neighbor 2001:db8::1 as 4200000001; ttl security on; ipv6 { import all; export none; }; }";
    let distant = "router id 198.51.100.2;
        protocol bgp two from fast { local 198.51.100.2 as 64601; neighbor 192.0.2.1 as 4200000001; multihop 2; ttl security on; ipv4 { import all; export none; }; }
        protocol bgp one from fast { local 198.51.100.3 as 64601; neighbor 192.0.2.2 as 4200000001; multihop 2; ttl security on; ipv4 { import all; export none; }; }";
    let _near = rig.bird(&rig.tor, "near", near);
    let distant = rig.bird(&far, "distant", distant);
    let bgpd = rig.bgpd(
        &rig.node,
        "bgpd",
        &format!(
            "asNumber: 4200000001\nrouterID: 192.0.2.1\nholdTimeSeconds: 9\npeers:\n\
             - {{name: near4, peerIP: 192.0.2.254, asNumber: 64601, ttlSecurity: 1, {WAITS}}}\n\
             - {{name: near6, peerIP: '2001:db8::254', asNumber: 64601, ttlSecurity: 1, {WAITS}}}\n\
             - {{name: two, peerIP: 198.51.100.2, asNumber: 64601, ttlSecurity: 2, {WAITS}}}\n\
             - {{name: one, peerIP: 198.51.100.3, asNumber: 64601, ttlSecurity: 1, passive: true}}\n"
        ),
    );
    bgpd.wait_established(&["near4", "near6", "two"]);
    wait_for("the one from too far to be refused", || {
        let log = bgpd.process.log();
        log.contains("it comes from too far away").then_some(())
    });
    assert_eq!(bgpd.neighbor("one").messages_received, 0);
    assert!(!distant.ask("show protocols one").contains("Established"));

    // The sockets themselves drop what comes from farther: on a path that is one hop longer the living session ends.
    sysctl(&rig.tor, "net.ipv4.conf.all.forwarding=1");
    inside(
        &rig.tor,
        "nft",
        &[
            "add table ip far; add chain ip far longer { type filter hook forward priority 0; }; add rule ip far longer ip ttl set 253",
        ],
    );
    bgpd.wait_neighbor("two", "down", |it| it.state != "Established");
    bgpd.wait_established(&["near4", "near6"]);
}

#[test]
fn a_peer_behind_a_router_needs_hops_and_a_connected_one_none() {
    let rig = Rig::new();
    let far = behind(&rig);
    let config = |hops: &str| {
        format!(
            "asNumber: 4200000001\nrouterID: 192.0.2.1\nholdTimeSeconds: 9\npeers:\n\
             - {{name: far, peerIP: 198.51.100.2, asNumber: 64601, {hops} {WAITS}}}\n\
             - {{name: inside, peerIP: 198.51.100.3, asNumber: 4200000001, localAddress: 192.0.2.2, {WAITS}}}\n\
             - {{name: by, peerIP: 198.51.100.4, asNumber: 64601, ebgpMultihop: 2, reachableBy: 203.0.113.9, localAddress: 192.0.2.3, {WAITS}}}\n"
        )
    };
    let bird = rig.bird(
        &far,
        "bird",
        "router id 198.51.100.2;
         protocol bgp far from fast { local 198.51.100.2 as 64601; neighbor 192.0.2.1 as 4200000001; multihop 2; ipv4 { import all; export none; }; }
         protocol bgp inside from fast { local 198.51.100.3 as 4200000001; neighbor 192.0.2.2 as 4200000001; multihop 2; ipv4 { import all; export none; }; }
         protocol bgp gate from fast { local 198.51.100.4 as 64601; neighbor 192.0.2.3 as 4200000001; multihop 2; ipv4 { import all; export none; }; }",
    );
    let bgpd = rig.bgpd(&rig.node, "bgpd", &config(""));
    bgpd.wait_established(&["inside"]);
    let held = bgpd.neighbor("far");
    assert_eq!(held.state, "Idle");
    assert!(
        held.problem
            .contains("198.51.100.2 is not on a connected network"),
        "{}",
        held.problem
    );
    let held = bgpd.neighbor("by");
    assert!(held.problem.contains("203.0.113.9"), "{}", held.problem);
    assert!(!bird.ask("show protocols far").contains("Established"));

    bgpd.configure(&config("ebgpMultihop: 2,"));
    bgpd.wait_established(&["far", "inside"]);
    assert_eq!(bgpd.neighbor("far").problem, "");
    rig.node.ip("route add 203.0.113.0/24 via 192.0.2.254");
    bgpd.wait_established(&["by", "far", "inside"]);
}

#[test]
fn a_session_comes_from_the_address_and_port_it_is_told() {
    let rig = Rig::new();
    rig.node.ip("addr add 192.0.2.9/24 dev up0");
    let bird = rig.bird(
        &rig.tor,
        "bird",
        "router id 192.0.2.254;
         protocol bgp node from fast { neighbor 192.0.2.9 as 4200000001; passive; ipv4 { import all; export none; }; }",
    );
    let bgpd = rig.bgpd(
        &rig.node,
        "bgpd",
        &format!(
            "asNumber: 4200000001\nrouterID: 192.0.2.1\nholdTimeSeconds: 9\npeers:\n\
             - {{name: tor, peerIP: 192.0.2.254, asNumber: 64601, localAddress: 192.0.2.9, localPort: 1790, {WAITS}}}\n\
             - {{name: nobody, peerIP: 192.0.2.250, asNumber: 64601, localAddress: 192.0.2.77, {WAITS}}}\n"
        ),
    );
    bgpd.wait_established(&["tor"]);
    let connected = || inside(&rig.tor, "ss", &["-Htn", "state", "established"]);
    assert!(connected().contains("192.0.2.9:1790"), "{}", connected());
    // The connection before has not been forgotten by the kernel, and its port is used again.
    bird.ask("restart node");
    bgpd.wait_neighbor("tor", "up again", |it| {
        it.established_count == 2 && it.state == "Established"
    });
    assert!(connected().contains("192.0.2.9:1790"), "{}", connected());
    let nobody = bgpd.neighbor("nobody");
    assert!(
        nobody.last_error.contains("cannot connect from 192.0.2.77"),
        "{}",
        nobody.last_error
    );
}
