//! What there is beside policy, with packets: rows 82 to 86 of the table of features. Each in both families where it has
//! any, over a restart of felix, and gone again when nobody wants it.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod connections;
mod events;
mod limits;

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use e2e::suite::{self, Pod, Suite, list, namespace, text, until};
use lab::netns;
use serde_json::{Value, json};

/// How long one attempt takes at most.
const TRY: Duration = Duration::from_millis(500);

/// A pod with annotations.
fn annotated(pod: &Pod<'_>, annotations: &[(&str, &str)]) -> Value {
    let mut object = pod.object();
    let said = annotations.iter().map(|(k, v)| ((*k).to_owned(), json!(v)));
    object["metadata"]["annotations"] = Value::Object(said.collect());
    object
}

fn run(suite: &Suite, pod: &Pod<'_>, annotations: &[(&str, &str)]) {
    suite.create(&[annotated(pod, annotations)]);
    suite.wait_ready(&pod.to_string());
}

/// Changes the FelixConfiguration, which there is none of otherwise.
fn configure(suite: &Suite, spec: &Value) {
    let object = json!({
        "apiVersion": "margay.io/v1", "kind": "FelixConfiguration", "metadata": { "name": "default" }, "spec": spec,
    });
    suite.create(&[object]);
}

fn unconfigure(suite: &Suite) {
    suite.kubectl(&["delete", "felixconfiguration", "default"]);
}

fn addresses(suite: &Suite, pod: &str) -> Vec<IpAddr> {
    let all = suite.addresses(pod);
    let mut all: Vec<IpAddr> = all.iter().map(|it| it.parse().unwrap()).collect();
    all.sort();
    all
}

fn place(suite: &Suite, name: &str) -> Vec<IpAddr> {
    let address = suite.plan().address_of(name).unwrap();
    address.both().to_vec()
}

/// Connects from one place to a listener at another one's address; whom the listener sees.
fn seen(suite: &Suite, from: &str, at: &str, to: IpAddr) -> Result<SocketAddr, String> {
    seen_by(suite, from, at, to, to)
}

/// As [`seen`], by another address than the listener's own.
fn seen_by(
    suite: &Suite,
    from: &str,
    at: &str,
    own: IpAddr,
    to: IpAddr,
) -> Result<SocketAddr, String> {
    let (from, at) = (suite.netns(from).unwrap(), suite.netns(at).unwrap());
    let told = |error: io::Error| error.to_string();
    let listener = netns::run_in(&at, move || TcpListener::bind((own, 0))).map_err(told)?;
    listener.set_nonblocking(true).map_err(told)?;
    let port = listener.local_addr().map_err(told)?.port();
    let to = SocketAddr::new(to, port);
    let _open = netns::run_in(&from, move || TcpStream::connect_timeout(&to, TRY)).map_err(told)?;
    // The last step of the handshake may still be on its way.
    let deadline = Instant::now() + TRY;
    loop {
        match listener.accept() {
            Ok((_, whom)) => return Ok(whom),
            Err(error) if Instant::now() > deadline => return Err(error.to_string()),
            Err(_) => std::thread::yield_now(),
        }
    }
}

fn until_seen(suite: &Suite, from: &str, at: &str, to: IpAddr, as_whom: IpAddr) -> SocketAddr {
    until(&format!("{from} is seen as {as_whom} at {at}"), || {
        let whom = seen(suite, from, at, to)?;
        match whom.ip() == as_whom {
            true => Ok(whom),
            false => Err(whom.to_string()),
        }
    })
}

fn table(suite: &Suite, node: &str) -> String {
    suite.run(node, &["nft", "list", "table", "inet", "margay"])
}

/// Elements of a set, as nft has them.
fn elements(suite: &Suite, node: &str, set: &str) -> Vec<Value> {
    let found = suite.run_json(node, &["nft", "-j", "list", "set", "inet", "margay", set]);
    let sets = list(&found["nftables"]).iter();
    let all = sets.flat_map(|it| list(&it["set"]["elem"]).to_vec());
    all.collect()
}

/// Waits until an event of the pod says this.
fn told(suite: &Suite, ns: &str, pod: &str, what: &str) {
    until(&format!("an event of {pod} about {what}"), || {
        let events = suite.objects(&["events", "-n", ns]);
        let of_pod = events
            .iter()
            .filter(|it| it["involvedObject"]["name"] == pod);
        let said: Vec<String> = of_pod.map(|it| text(&it["message"])).collect();
        match said.iter().any(|it| it.contains(what)) {
            true => Ok(()),
            false => Err(format!("{said:?}")),
        }
    });
}

/// Takes a felix away, and back, and says what holds meanwhile and after.
fn over_a_restart(suite: &Suite, node: &str, holds: impl Fn()) {
    holds();
    suite.kill("felix", Some(node)).unwrap();
    holds();
    suite.start("felix", Some(node)).unwrap();
    suite.wait_felix(node);
    holds();
}

fn patch_pools(suite: &Suite, spec: &str) {
    for pool in ["pods-v4", "pods-v6"] {
        let merge = format!(r#"{{"spec":{spec}}}"#);
        suite.kubectl(&["patch", "ippool", pool, "--type=merge", "-p", &merge]);
    }
}

#[test]
fn row_83_pods_leave_all_pools_by_the_address_of_their_node() {
    let suite = suite::alone();
    let ns = "row83";
    suite.create(&[namespace(ns, &[])]);
    let (from, far) = ("row83/a", "row83/far");
    suite.run_pods(&[Pod::new(ns, "a", "n1"), Pod::new(ns, "far", "n3")]);
    let (own, node) = (addresses(&suite, from), place(&suite, "n1"));
    let (outside, inside) = (place(&suite, "tor-a"), addresses(&suite, far));
    let other = place(&suite, "n3");
    for family in [0, 1] {
        until_seen(&suite, from, "tor-a", outside[family], own[family]);
    }
    assert!(
        !table(&suite, "n1").contains("masquerade"),
        "nobody asked for it"
    );
    patch_pools(&suite, r#"{"natOutgoing":true}"#);
    for family in [0, 1] {
        until_seen(&suite, from, "tor-a", outside[family], node[family]);
        until_seen(&suite, from, "n3", other[family], node[family]);
        until_seen(&suite, from, far, inside[family], own[family]);
        until_seen(&suite, far, from, own[family], inside[family]);
    }
    over_a_restart(&suite, "n1", || {
        for family in [0, 1] {
            let whom = seen(&suite, from, "tor-a", outside[family]);
            assert_eq!(whom.unwrap().ip(), node[family]);
        }
    });
    // What is translated is judged as before, in both directions, and live flows are, too.
    let mut flows = Vec::new();
    for family in [0, 1] {
        let at = suite.netns("tor-a").unwrap();
        let to = SocketAddr::new(outside[family], 0);
        let listener = netns::run_in(&at, move || TcpListener::bind(to)).unwrap();
        let to = listener.local_addr().unwrap();
        let from = suite.netns(from).unwrap();
        let open = netns::run_in(&from, move || TcpStream::connect_timeout(&to, TRY)).unwrap();
        flows.push((open, listener.accept().unwrap().0));
    }
    let says = |flows: &[(TcpStream, TcpStream)]| {
        let mut heard = Vec::new();
        for (open, taken) in flows {
            taken.set_read_timeout(Some(TRY)).unwrap();
            let said = (&*open).write_all(b"?");
            let mut byte = [0; 1];
            heard.push(said.is_ok() && (&*taken).read_exact(&mut byte).is_ok());
        }
        heard
    };
    assert_eq!(says(&flows), [true, true]);
    suite.apply_text(&format!(
        "{{ apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{ name: none, namespace: {ns} }},
            spec: {{ podSelector: {{}}, policyTypes: [Egress] }} }}"
    ));
    until("the flows to end", || match says(&flows).as_slice() {
        [false, false] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(seen(&suite, from, "tor-a", outside[0]).is_err());
    suite.kubectl(&["delete", "networkpolicy", "-n", ns, "none"]);
    configure(
        &suite,
        &json!({ "natOutgoingExclusions": "IPPoolsAndHostIPs", "natPortRange": "20000:20099" }),
    );
    for family in [0, 1] {
        until_seen(&suite, from, "n3", other[family], own[family]);
        until("ports of the range", || {
            let whom = seen(&suite, from, "tor-a", outside[family])?;
            match whom.ip() == node[family] && (20000..20100).contains(&whom.port()) {
                true => Ok(()),
                false => Err(whom.to_string()),
            }
        });
    }
    // Answers come back to an address that only routing leads here.
    let chosen: [IpAddr; 2] = [
        "198.51.100.77".parse().unwrap(),
        "2001:db8:77::1".parse().unwrap(),
    ];
    for (family, flag) in [(0, "-4"), (1, "-6")] {
        let (to, via) = (chosen[family].to_string(), node[family].to_string());
        suite.run("tor-a", &["ip", flag, "route", "add", &to, "via", &via]);
        configure(&suite, &json!({ "natOutgoingAddress": to }));
        until_seen(&suite, from, "tor-a", outside[family], chosen[family]);
        until_seen(&suite, from, "tor-a", outside[1 - family], node[1 - family]);
        suite.run("tor-a", &["ip", flag, "route", "del", &to]);
    }
    unconfigure(&suite);
    patch_pools(&suite, r#"{"natOutgoing":false}"#);
    for family in [0, 1] {
        until_seen(&suite, from, "tor-a", outside[family], own[family]);
    }
    assert!(
        !table(&suite, "n1").contains("masquerade"),
        "nobody wants it"
    );
}

/// Whether a datagram with this source arrives.
fn arrives(suite: &Suite, from: &str, source: IpAddr, at: &str, to: IpAddr) -> bool {
    let (from, at) = (suite.netns(from).unwrap(), suite.netns(at).unwrap());
    let listener = netns::run_in(&at, move || UdpSocket::bind((to, 0))).unwrap();
    listener
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let to = listener.local_addr().unwrap();
    let socket = netns::run_in(&from, move || UdpSocket::bind((source, 0))).unwrap();
    let _ = socket.send_to(b"?", to);
    let heard = listener.recv_from(&mut [0; 8]);
    heard.is_ok_and(|(_, whom)| whom.ip() == source)
}

#[test]
fn row_82_a_pod_may_have_other_sources_only_when_that_is_allowed() {
    let suite = suite::alone();
    let ns = "row82";
    suite.create(&[namespace(ns, &[])]);
    let annotation = [(
        "margay.io/allowedSourcePrefixes",
        r#"["192.0.2.0/28", "2001:db8:5::/64"]"#,
    )];
    let (from, to) = ("row82/a", "row82/b");
    run(&suite, &Pod::new(ns, "a", "n1"), &annotation);
    run(&suite, &Pod::new(ns, "b", "n1"), &[]);
    run(
        &suite,
        &Pod::new(ns, "bad", "n1"),
        &[("margay.io/allowedSourcePrefixes", "192.0.2.0/28")],
    );
    let extra: [IpAddr; 2] = [
        "192.0.2.5".parse().unwrap(),
        "2001:db8:5::5".parse().unwrap(),
    ];
    let never: [IpAddr; 2] = [
        "192.0.2.99".parse().unwrap(),
        "2001:db8:6::5".parse().unwrap(),
    ];
    for pod in [from, "row82/bad"] {
        for address in extra.iter().chain(&never) {
            let address = address.to_string();
            suite.run(pod, &["ip", "addr", "add", &address, "dev", "lo"]);
        }
    }
    let (own, there) = (addresses(&suite, from), addresses(&suite, to));
    let state = |allowed: bool| {
        for family in [0, 1] {
            let arrives =
                |from: &str, source: IpAddr| arrives(&suite, from, source, to, there[family]);
            assert!(arrives(from, own[family]));
            assert_eq!(arrives(from, extra[family]), allowed);
            assert!(!arrives(from, never[family]));
            assert!(!arrives("row82/bad", extra[family]));
        }
    };
    state(false);
    told(&suite, ns, "a", "workloadSourceSpoofing");
    told(&suite, ns, "bad", "JSON list");
    configure(&suite, &json!({ "workloadSourceSpoofing": "Any" }));
    let heard = |from: &str| arrives(&suite, from, extra[0], to, there[0]);
    until("the sources to be let in", || {
        heard(from).then_some(()).ok_or_else(|| table(&suite, "n1"))
    });
    over_a_restart(&suite, "n1", || state(true));
    suite.kubectl(&[
        "annotate",
        "pod",
        "-n",
        ns,
        "a",
        "margay.io/allowedSourcePrefixes-",
    ]);
    until("the sources to be refused", || {
        (!heard(from))
            .then_some(())
            .ok_or_else(|| table(&suite, "n1"))
    });
    state(false);
    unconfigure(&suite);
}

/// Packets that a rule of the test counted.
fn counted(suite: &Suite, place: &str) -> u64 {
    let argv = ["nft", "-j", "list", "table", "inet", "seen"];
    let rules = suite.run_json(place, &argv);
    let items = list(&rules["nftables"]).iter();
    let expressions = items.flat_map(|item| list(&item["rule"]["expr"]).to_vec());
    expressions
        .filter_map(|it| it["counter"]["packets"].as_u64())
        .sum()
}

fn count(suite: &Suite, place: &str, hook: &str, matches: &[String]) {
    suite.run(place, &["nft", "add", "table", "inet", "seen"]);
    let chain = format!("add chain inet seen c {{ type filter hook {hook} priority 10 ; }}");
    suite.run(place, &["nft", &chain]);
    for rule in matches {
        suite.run(
            place,
            &["nft", &format!("add rule inet seen c {rule} counter")],
        );
    }
}

fn uncount(suite: &Suite, place: &str) {
    suite.run(place, &["nft", "delete", "table", "inet", "seen"]);
}

#[test]
fn row_84_what_no_service_takes_does_not_go_back_to_the_fabric() {
    let suite = suite::alone();
    let ns = "row84";
    suite.create(&[namespace(ns, &[])]);
    let pod = "row84/a";
    run(&suite, &Pod::new(ns, "a", "n1"), &[]);
    let (node, tor) = (place(&suite, "n1"), place(&suite, "tor-a"));
    let nets = [("-4", "10.97.0.0/16"), ("-6", "fd00:10:97::/64")];
    let to: [IpAddr; 2] = [
        "10.97.0.9".parse().unwrap(),
        "fd00:10:97::9".parse().unwrap(),
    ];
    for (family, (flag, net)) in nets.iter().enumerate() {
        let (node, tor) = (node[family].to_string(), tor[family].to_string());
        suite.run("tor-a", &["ip", flag, "route", "add", net, "via", &node]);
        suite.run("n1", &["ip", flag, "route", "add", net, "via", &tor]);
    }
    let left = [
        format!("ip daddr {}", to[0]),
        format!("ip6 daddr {}", to[1]),
    ];
    count(&suite, "n1", "postrouting", &left);
    let connect = |from: &str, family: usize| {
        let from = suite.netns(from).unwrap();
        let to = SocketAddr::new(to[family], 80);
        netns::run_in(&from, move || TcpStream::connect_timeout(&to, TRY)).unwrap_err()
    };
    // Packets that leave the node when both a pod and the fabric send to the Service.
    let leave = || {
        let before = counted(&suite, "n1");
        let errors =
            [0, 1].map(|family| [connect("tor-a", family).kind(), connect(pod, family).kind()]);
        (counted(&suite, "n1") - before, errors.concat())
    };
    let (packets, _) = leave();
    assert!(
        packets > 40,
        "they go round until their TTL is over: {packets}"
    );
    configure(&suite, &json!({ "serviceCIDRs": nets.map(|(_, net)| net) }));
    let silent = |suite: &Suite| {
        until("no packet to leave", || match leave() {
            (0, errors) => Ok(errors),
            (packets, _) => Err(format!("{packets} packets\n{}", table(suite, "n1"))),
        })
    };
    let errors = silent(&suite);
    assert_eq!(errors, [io::ErrorKind::TimedOut; 4]);
    over_a_restart(&suite, "n1", || assert_eq!(leave().0, 0));
    configure(
        &suite,
        &json!({ "serviceCIDRs": nets.map(|(_, net)| net), "serviceLoopPrevention": "Reject" }),
    );
    until("the senders to be told", || match leave() {
        // Whether ICMPv6 gets out is up to the kernel's limits.
        (0, errors) if !errors[..2].contains(&io::ErrorKind::TimedOut) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    configure(
        &suite,
        &json!({ "serviceCIDRs": nets.map(|(_, net)| net), "serviceLoopPrevention": "Disabled" }),
    );
    until("the rules to go", || {
        match table(&suite, "n1").contains("looped") {
            true => Err(table(&suite, "n1")),
            false => Ok(()),
        }
    });
    assert!(leave().0 > 40);
    unconfigure(&suite);
    uncount(&suite, "n1");
    for (family, (flag, net)) in nets.iter().enumerate() {
        let (node, tor) = (node[family].to_string(), tor[family].to_string());
        suite.run("tor-a", &["ip", flag, "route", "del", net, "via", &node]);
        suite.run("n1", &["ip", flag, "route", "del", net, "via", &tor]);
    }
}

#[test]
fn row_85_a_pod_is_reached_by_its_floating_addresses() {
    let suite = suite::alone();
    let ns = "row85";
    suite.create(&[namespace(ns, &[])]);
    let annotation = [(
        "margay.io/floatingIPs",
        r#"["10.250.0.7", "fd00:10:250::7"]"#,
    )];
    run(&suite, &Pod::new(ns, "a", "n1"), &annotation);
    run(&suite, &Pod::new(ns, "far", "n3"), &[]);
    let (pod, far) = ("row85/a", "row85/far");
    let (own, floating): (_, [IpAddr; 2]) = (
        addresses(&suite, pod),
        [
            "10.250.0.7".parse().unwrap(),
            "fd00:10:250::7".parse().unwrap(),
        ],
    );
    told(&suite, ns, "a", "floatingIPs: Enabled");
    configure(&suite, &json!({ "floatingIPs": "Enabled" }));
    told(&suite, ns, "a", "in no IPPool");
    for (name, cidr, size) in [
        ("float-v4", "10.250.0.0/24", 32),
        ("float-v6", "fd00:10:250::/112", 128),
    ] {
        suite.create(&[json!({
            "apiVersion": "margay.io/v1", "kind": "IPPool", "metadata": { "name": name },
            "spec": { "cidr": cidr, "disabled": true, "blockSize": size },
        })]);
    }
    let reached =
        |from: &str, family: usize| seen_by(&suite, from, pod, own[family], floating[family]);
    for family in [0, 1] {
        // From another rack, from its own node, from another node, from a pod elsewhere, and from itself.
        for from in ["tor-b", "n1", "n3", far, pod] {
            until(&format!("{from} reaches {}", floating[family]), || {
                reached(from, family)
            });
        }
        assert_eq!(
            reached(pod, family).unwrap().ip(),
            floating[family],
            "it sees itself by the address it asked for"
        );
    }
    over_a_restart(&suite, "n1", || {
        for family in [0, 1] {
            reached("n3", family).unwrap();
        }
    });
    // Policy judges the pod, not the address.
    suite.apply_text(&format!(
        "{{ apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{ name: none, namespace: {ns} }},
            spec: {{ podSelector: {{}} }} }}"
    ));
    until("the policy to be in force", || match reached("tor-b", 0) {
        Ok(whom) => Err(whom.to_string()),
        Err(_) => Ok(()),
    });
    suite.kubectl(&["delete", "networkpolicy", "-n", ns, "none"]);
    until("the policy to be gone", || reached("tor-b", 0));
    // Whoever is older keeps it; the other is told, and takes over when it goes.
    run(&suite, &Pod::new(ns, "b", "n3"), &annotation);
    told(&suite, ns, "b", "row85/a");
    reached("tor-b", 0).unwrap();
    suite.delete_pod(pod);
    let next = addresses(&suite, "row85/b");
    for family in [0, 1] {
        until("the other pod to have it", || {
            seen_by(&suite, "tor-b", "row85/b", next[family], floating[family])
        });
    }
    suite.kubectl(&["annotate", "pod", "-n", ns, "b", "margay.io/floatingIPs-"]);
    until("nobody to have it", || {
        let known = suite.routes("tor-b").unwrap();
        match known
            .iter()
            .any(|route| route.prefix.starts_with("10.250.0.7"))
        {
            true => Err("it is still announced".to_owned()),
            false => Ok(()),
        }
    });
    unconfigure(&suite);
    for name in ["float-v4", "float-v6"] {
        suite.kubectl(&["delete", "ippool", name]);
    }
}
