//! Host endpoints: a node's own interfaces under policy. Each test has the lab for itself, since it is about a node.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{ErrorKind, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::thread;

use e2e::suite::{self, Suite, until};
use lab::netns;

use crate::explain::{array, ask};
use crate::world::Policies;

/// Something on n1 that answers on these ports, until the test is over and beyond.
fn listen(suite: &Suite, ports: &[u16]) {
    for &port in ports {
        let netns = suite.netns("n1").unwrap();
        let listener = netns::run_in(&netns, move || {
            TcpListener::bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
        });
        let listener = match listener {
            Ok(listener) => listener,
            // That of a test before this one.
            Err(error) if error.kind() == ErrorKind::AddrInUse => continue,
            Err(error) => panic!("{port}: {error}"),
        };
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.write_all(b"n1\n");
            }
        });
    }
}

/// An object that goes with the test.
struct Made<'a> {
    suite: &'a Suite,
    kind: &'static str,
    name: String,
    labels: String,
}

impl<'a> Made<'a> {
    fn new(suite: &'a Suite, kind: &'static str, name: &str, labels: &str, spec: &str) -> Self {
        let made = Self {
            suite,
            kind,
            name: name.to_owned(),
            labels: labels.to_owned(),
        };
        made.becomes(spec);
        made
    }

    fn becomes(&self, spec: &str) {
        let Self {
            kind, name, labels, ..
        } = self;
        self.suite.apply_text(&format!(
            "{{ apiVersion: margay.io/v1, kind: {kind}, metadata: {{ name: {name}, labels: {{ {labels} }} }}, spec: {spec} }}"
        ));
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        let deleted = lab::Lab::kubectl(self.suite, &["delete", self.kind, &self.name], "");
        assert!(deleted.is_ok() || thread::panicking(), "{deleted:?}");
    }
}

/// The interface of n1 as a host endpoint.
fn eth0(suite: &Suite) -> Made<'_> {
    let spec = "{ node: n1, interfaceName: eth0 }";
    Made::new(suite, "HostEndpoint", "n1-eth0", "host: n1", spec)
}

/// A policy of that host endpoint.
fn of_host<'a>(suite: &'a Suite, name: &str, spec: &str) -> Made<'a> {
    let spec = format!("{{ selector: host == 'n1', {spec} }}");
    Made::new(suite, "GlobalNetworkPolicy", name, "", &spec)
}

const ONLY_7001: &str =
    "ingress: [{ action: Allow, protocol: TCP, destination: { ports: [7001] } }]";
const NOTHING: &str = "types: [Ingress, Egress]";
/// Whoever comes to n1 by its interface.
const OUTSIDE: &str = "n3 red/cli3 blue/cli2";
/// Pods of n1.
const INSIDE: &str = "red/cli1 blue/cli1";

#[test]
fn a_host_endpoint_polices_one_interface_of_a_node() {
    let suite = suite::alone();
    let p = Policies::new(&suite, "hepone");
    listen(&suite, &[7001, 7002]);
    let free = [(OUTSIDE, "n1", "tcp/7001 tcp/7002 icmp", true)];
    p.expect(&free);
    let endpoint = eth0(&suite);
    // No policy selects it: it is as free as a pod that none selects.
    p.expect(&free);
    let policy = of_host(&suite, "hepone", ONLY_7001);
    p.expect(&[
        (OUTSIDE, "n1", "tcp/7001", true),
        (OUTSIDE, "n1", "tcp/7002 icmp", false),
        // Another interface, flows that n1 opens, and flows through it.
        (INSIDE, "n1", "tcp/7002 icmp", true),
        ("n1", "n3 red/srv3", "icmp", true),
        (OUTSIDE, "red/srv1", "tcp/80 icmp", true),
    ]);
    // What no policy of the tier mentions the tier decides.
    let tier = Made::new(
        &suite,
        "Tier",
        "hepone",
        "",
        "{ order: 10, defaultAction: Pass }",
    );
    policy.becomes(&format!(
        "{{ tier: hepone, selector: host == 'n1', {ONLY_7001} }}"
    ));
    p.expect(&free);
    drop(policy);
    drop(tier);
    drop(endpoint);
    p.expect(&free);
}

#[test]
fn failsafe_ports_survive_an_operator_who_denies_everything() {
    let suite = suite::alone();
    let p = Policies::new(&suite, "hepsafe");
    listen(&suite, &[22, 7001, 7002]);
    p.expect(&[("n3", "n1", "tcp/22 tcp/179 tcp/7001", true)]);
    let endpoint = eth0(&suite);
    let policy = of_host(&suite, "hepsafe", NOTHING);
    let kept = [
        ("n3 tor-a", "n1", "tcp/22 tcp/179", true),
        ("n3", "n1", "tcp/7001 icmp", false),
        ("n1", "n3", "icmp", false),
        // Probes: the node reaches its own pods, whatever is denied.
        ("n1", "red/srv1 red/cli1 blue/cli1", suite::WHATS, true),
        // Routes are still learnt.
        (OUTSIDE, "red/srv1", "tcp/80", true),
    ];
    p.expect(&kept);
    // Another list is in force at once: felix still hears of it.
    let ports = |inbound: &str| {
        format!(
            "{{ failsafeInboundHostPorts: [{inbound}], failsafeOutboundHostPorts: [{{ protocol: TCP, port: 6443 }}, {{ protocol: TCP, port: 179 }}] }}"
        )
    };
    let node = Made::new(
        &suite,
        "FelixConfiguration",
        "node.n1",
        "",
        &ports("{ protocol: TCP, port: 7002 }"),
    );
    p.expect(&[
        ("n3", "n1", "tcp/7002", true),
        ("n3", "n1", "tcp/22 tcp/179 tcp/7001", false),
    ]);
    let from = suite.plan().node("n3").unwrap().address.v4;
    node.becomes(&ports(&format!(
        "{{ protocol: TCP, port: 7002, net: {from}/32 }}"
    )));
    suite.expect_family(p.world, "n3", "n1", "tcp/7002", [true, false]);
    suite.expect_family(p.world, "n2", "n1", "tcp/7002", [false, false]);
    node.becomes(&ports(""));
    p.expect(&[("n3", "n1", "tcp/22 tcp/7001 tcp/7002", false)]);
    drop(node);
    p.expect(&kept);
    drop(policy);
    drop(endpoint);
}

#[test]
fn all_interfaces_are_policed_and_one_with_an_endpoint_of_its_own_is_not_among_them() {
    let suite = suite::alone();
    let p = Policies::new(&suite, "hepall");
    listen(&suite, &[7001, 7002]);
    let all = Made::new(
        &suite,
        "HostEndpoint",
        "n1-all",
        "host: n1",
        "{ node: n1, interfaceName: '*' }",
    );
    let policy = of_host(&suite, "hepall", ONLY_7001);
    let policed = [
        (OUTSIDE, "n1", "tcp/7001", true),
        (OUTSIDE, "n1", "tcp/7002 icmp", false),
        (INSIDE, "n1", "tcp/7002", true),
        ("n1", INSIDE, "tcp/80 icmp", true),
    ];
    p.expect(&policed);
    let spec = "{ node: n1, interfaceName: eth0 }";
    let own = Made::new(&suite, "HostEndpoint", "n1-own", "host: other", spec);
    p.expect(&[(OUTSIDE, "n1", "tcp/7001 tcp/7002 icmp", true)]);
    drop(own);
    p.expect(&policed);
    drop(policy);
    drop(all);
}

#[test]
fn an_interface_is_found_by_its_addresses_and_when_they_move() {
    let suite = suite::alone();
    let p = Policies::new(&suite, "hepaddr");
    listen(&suite, &[7001, 7002]);
    let address = suite.plan().node("n1").unwrap().address.v4;
    let at = |address: &str| format!("{{ node: n1, expectedIPs: [{address}] }}");
    let endpoint = Made::new(
        &suite,
        "HostEndpoint",
        "n1-addr",
        "host: n1",
        &at(&address.to_string()),
    );
    let policy = of_host(&suite, "hepaddr", ONLY_7001);
    let policed = [
        (OUTSIDE, "n1", "tcp/7001", true),
        (OUTSIDE, "n1", "tcp/7002", false),
    ];
    let free = [(OUTSIDE, "n1", "tcp/7001 tcp/7002", true)];
    p.expect(&policed);
    endpoint.becomes(&at("192.0.2.77"));
    p.expect(&free);
    let change = |verb: &str| {
        suite.run(
            "n1",
            &["ip", "address", verb, "192.0.2.77/32", "dev", "eth0"],
        )
    };
    change("add");
    p.expect(&policed);
    change("del");
    p.expect(&free);
    drop(policy);
    drop(endpoint);
}

#[test]
fn nodes_are_host_endpoints_by_themselves_when_the_operator_wants_it() {
    let suite = suite::alone();
    let p = Policies::new(&suite, "hepauto");
    listen(&suite, &[7001, 7002]);
    suite.kubectl(&["label", "node", "n1", "host=n1"]);
    let policy = of_host(&suite, "hepauto", ONLY_7001);
    let free = [(OUTSIDE, "n1", "tcp/7001 tcp/7002", true)];
    p.expect(&free);
    let enabled = Made::new(
        &suite,
        "FelixConfiguration",
        "default",
        "",
        "{ autoHostEndpoints: Enabled }",
    );
    let policed = [
        (OUTSIDE, "n1", "tcp/7001", true),
        (OUTSIDE, "n1", "tcp/7002", false),
        ("n1", "red/srv1", "tcp/80 icmp", true),
    ];
    p.expect(&policed);
    // What is said of the node comes before what is said of all; the other fields stay.
    let node = Made::new(
        &suite,
        "FelixConfiguration",
        "node.n1",
        "",
        "{ autoHostEndpoints: Disabled }",
    );
    p.expect(&free);
    drop(node);
    p.expect(&policed);
    // So does an object, with labels of its own.
    let spec = "{ node: n1, interfaceName: '*' }";
    let object = Made::new(&suite, "HostEndpoint", "n1-object", "host: other", spec);
    p.expect(&free);
    drop(object);
    p.expect(&policed);
    suite.kubectl(&["label", "node", "n1", "host-"]);
    p.expect(&free);
    drop(enabled);
    drop(policy);
}

#[test]
fn policies_apply_to_what_a_node_forwards_when_they_say_so() {
    let suite = suite::alone();
    let p = Policies::new(&suite, "hepfwd");
    let endpoint = eth0(&suite);
    let rule = "ingress: [{ action: Allow, protocol: TCP, destination: { ports: [80, 7001] } }]";
    let policy = of_host(&suite, "hepfwd", rule);
    p.expect(&[(OUTSIDE, "red/srv1", "tcp/80 tcp/8080 icmp", true)]);
    policy.becomes(&format!(
        "{{ selector: host == 'n1', applyOnForward: true, {rule} }}"
    ));
    p.expect(&[
        (OUTSIDE, "red/srv1", "tcp/80", true),
        (OUTSIDE, "red/srv1", "tcp/8080 icmp", false),
        // From inside, and between pods of the node.
        (INSIDE, "red/srv3", "tcp/8080 icmp", true),
        (INSIDE, "red/srv1", "tcp/8080 icmp", true),
    ]);
    // The node says so, by the interface of its routes; another node does not know where the pod is, and says that.
    let explained = |node: &str, from: &str, to: &str, port: &str| {
        let place = |who: &str| match who.contains('/') {
            true => p.world.place(who),
            false => suite.plan().node(who).unwrap().address.v4.to_string(),
        };
        let (from, to) = (place(from), place(to));
        let flow = ["explain", "--from", &from, "--to", &to, "--port", port];
        ask(&suite, node, &flow)
    };
    for (from, port, code) in [
        ("n3", "80", 0),
        ("n3", "8080", 3),
        ("red/cli3", "8080", 3),
        ("red/cli1", "8080", 0),
    ] {
        let (answer, said) = explained("n1", from, "red/srv1", port);
        assert_eq!(said, Some(code), "{from} {port}: {answer}");
        let asked = array(&answer["flows"][0], "at_last");
        assert_eq!(asked.len(), usize::from(from != "red/cli1"), "{answer}");
        for hook in asked {
            assert_eq!(hook["hook"], "applyOnForward in", "{answer}");
            assert_eq!(hook["judgement"]["endpoint"], "n1-eth0", "{answer}");
            let known = hook["judgement"]["known"].as_str().unwrap();
            assert!(known.starts_with("eth0, by which the route"), "{known}");
            let decided = hook["judgement"]["tiers"].to_string();
            assert!(decided.contains("hepfwd"), "{decided}");
        }
    }
    let (answer, _) = explained("n3", "n3", "red/srv1", "8080");
    assert!(
        answer["notes"].to_string().contains("ask there"),
        "{answer}"
    );
    policy.becomes("{ selector: host == 'n1', applyOnForward: true, types: [Egress], egress: [{ action: Deny, protocol: TCP, destination: { ports: [8080] } }, { action: Allow }] }");
    p.expect(&[
        (OUTSIDE, "red/srv1", "tcp/80 tcp/8080 icmp", true),
        (INSIDE, "red/srv3", "tcp/8080", false),
        (INSIDE, "red/srv3", "tcp/80 icmp", true),
    ]);
    for (port, code) in [("80", 0), ("8080", 3)] {
        let (answer, said) = explained("n1", "red/cli1", "red/srv3", port);
        assert_eq!(said, Some(code), "{port}: {answer}");
        let hook = &array(&answer["flows"][0], "on_the_way")[0];
        assert_eq!(hook["hook"], "applyOnForward out", "{answer}");
    }
    drop(policy);
    drop(endpoint);
}

#[test]
fn of_two_endpoints_of_one_interface_the_second_says_whose_it_is() {
    let suite = suite::alone();
    let accepted = |name: &str, status: &str, reason: &str, message: &str| {
        until("the condition Accepted", || {
            let object = suite.object(&["get", "hostendpoint", name]);
            let conditions = suite::list(&object["status"]["conditions"]);
            let found = conditions.iter().any(|it| {
                let text = it["message"].as_str().unwrap_or_default();
                it["type"] == "Accepted"
                    && it["status"] == status
                    && it["reason"] == reason
                    && text.contains(message)
            });
            match found {
                true => Ok(()),
                false => Err(object["status"].to_string()),
            }
        });
    };
    let spec = "{ node: n1, interfaceName: eth0 }";
    let second = Made::new(&suite, "HostEndpoint", "n1-two", "host: other", spec);
    accepted("n1-two", "True", "Understood", "");
    let first = Made::new(&suite, "HostEndpoint", "n1-one", "host: n1", spec);
    accepted("n1-two", "False", "Conflict", "HostEndpoint n1-one");
    accepted("n1-one", "True", "Understood", "");
    drop(first);
    accepted("n1-two", "True", "Understood", "");
    drop(second);
}

#[test]
fn node_ports_are_policed_before_their_destination_is_translated() {
    let suite = suite::alone();
    let p = Policies::new(&suite, "hepdnat");
    let pod = suite.addresses(&p.world.place("red/srv1"));
    // As kube-proxy does it, in a table beside ours.
    suite.run(
        "n1",
        &[
            "nft",
            &format!(
                "table inet nodeports {{\n\
                   chain pre {{\n type nat hook prerouting priority -100\n\
                     meta nfproto ipv4 tcp dport {{ 30080, 30081 }} dnat ip to {}:80\n\
                     meta nfproto ipv6 tcp dport {{ 30080, 30081 }} dnat ip6 to [{}]:80\n }}\n\
                   chain post {{\n type nat hook postrouting priority 100\n ct status dnat masquerade\n }}\n\
                 }}\n",
                pod[0], pod[1]
            ),
        ],
    );
    let free = [("n3 red/cli3", "n1", "tcp/30080 tcp/30081", true)];
    p.expect(&free);
    let endpoint = eth0(&suite);
    let policy = of_host(
        &suite,
        "hepdnat",
        "preDNAT: true, applyOnForward: true, ingress: [{ action: Deny, protocol: TCP, destination: { ports: [30080] } }]",
    );
    p.expect(&[
        ("n3 red/cli3", "n1", "tcp/30080", false),
        ("n3 red/cli3", "n1", "tcp/30081", true),
        // The pod itself, and what the policy does not mention.
        ("n3 red/cli3", "red/srv1", "tcp/80", true),
        ("n3", "n1", "tcp/179 icmp", true),
    ]);
    drop(policy);
    p.expect(&free);
    drop(endpoint);
    suite.run("n1", &["nft", "delete table inet nodeports"]);
}

#[test]
fn what_is_allowed_without_tracking_is_in_no_table_of_connections() {
    let suite = suite::alone();
    let p = Policies::new(&suite, "hepraw");
    listen(&suite, &[7001, 7002]);
    let tracked = |port: u16| {
        let script = "conntrack -L 2>/dev/null; conntrack -L -f ipv6 2>/dev/null; true";
        let listed = suite.run("n1", &["sh", "-c", script]);
        let of = format!("dport={port} ");
        listed.lines().filter(|line| line.contains(&of)).count()
    };
    let endpoint = eth0(&suite);
    let closed = of_host(&suite, "hepraw-closed", NOTHING);
    p.expect(&[("n3", "n1", "tcp/7001 tcp/7002", false)]);
    let raw = of_host(
        &suite,
        "hepraw",
        "doNotTrack: true, applyOnForward: true, types: [Ingress, Egress], \
         ingress: [{ action: Allow, protocol: TCP, destination: { ports: [7001] } }], \
         egress: [{ action: Allow, protocol: TCP, source: { ports: [7001] } }]",
    );
    // Whatever the policies of later stages say.
    p.expect(&[
        ("n3", "n1", "tcp/7001", true),
        ("n3", "n1", "tcp/7002 icmp", false),
        (OUTSIDE, "red/srv1", "tcp/80 icmp", true),
    ]);
    suite.run("n1", &["sh", "-c", "conntrack -F 2>/dev/null"]);
    p.expect(&[("n3", "n1", "tcp/7001", true)]);
    assert_eq!(tracked(7001), 0);
    drop(closed);
    // What it says nothing about is tracked and judged as ever.
    p.expect(&[("n3", "n1", "tcp/7001 tcp/7002", true)]);
    assert_eq!(tracked(7001), 0);
    assert!(tracked(7002) > 0);
    raw.becomes("{ selector: host == 'n1', doNotTrack: true, applyOnForward: true, ingress: [{ action: Deny, protocol: TCP, destination: { ports: [7001, 179] } }] }");
    p.expect(&[
        ("n3", "n1", "tcp/7001", false),
        // A failsafe port.
        ("n3", "n1", "tcp/7002 tcp/179", true),
    ]);
    drop(raw);
    p.expect(&[("n3", "n1", "tcp/7001", true)]);
    until("a connection that is tracked", || match tracked(7001) {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    });
    drop(endpoint);
}

#[test]
fn the_operator_says_what_pods_may_open_to_their_own_node() {
    let suite = suite::alone();
    let p = Policies::new(&suite, "hepend");
    listen(&suite, &[7001, 7002]);
    let all = "tcp/7001 tcp/7002 icmp";
    p.expect(&[(INSIDE, "n1", all, true)]);
    let choice = |action: &str| format!("{{ defaultEndpointToHostAction: {action} }}");
    let node = Made::new(&suite, "FelixConfiguration", "node.n1", "", &choice("Drop"));
    p.expect(&[
        (INSIDE, "n1", all, false),
        ("n1", INSIDE, suite::WHATS, true),
        (OUTSIDE, "n1", all, true),
        (INSIDE, "n3 red/srv1 red/srv3", "icmp", true),
    ]);
    node.becomes(&choice("Return"));
    p.expect(&[(INSIDE, "n1", all, true)]);
    let endpoint = Made::new(
        &suite,
        "HostEndpoint",
        "n1-all",
        "host: n1",
        "{ node: n1, interfaceName: '*' }",
    );
    let policy = of_host(&suite, "hepend", ONLY_7001);
    p.expect(&[
        (INSIDE, "n1", "tcp/7001", true),
        (INSIDE, "n1", "tcp/7002", false),
        ("n1", INSIDE, suite::WHATS, true),
    ]);
    // The pod's own policy is asked first.
    p.apply(
        "red",
        "out",
        "{ podSelector: { matchLabels: { app: cli } }, policyTypes: [Egress] }",
    );
    p.expect(&[
        ("red/cli1", "n1", "tcp/7001", false),
        ("blue/cli1", "n1", "tcp/7001", true),
    ]);
    node.becomes(&choice("Accept"));
    p.expect(&[("blue/cli1", "n1", all, true)]);
    drop(policy);
    drop(endpoint);
    drop(node);
}
