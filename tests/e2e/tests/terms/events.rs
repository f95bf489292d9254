//! Events of policy: as many as an operator wants, and a node that cannot have them.

use std::net::UdpSocket;
use std::time::Duration;

use e2e::problems;
use e2e::suite::{self, Pod, Suite, list, namespace, text, until};
use felix::nft::build::LOG_GROUP;
use felix::nft::log;
use lab::netns;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{addresses, configure, run, seen, unconfigure};

/// Events of this pod that felix has kept.
fn events(suite: &Suite, pod: &str) -> Vec<Value> {
    let argv = ["margayctl", "policy", "events", "--pod", pod, "-o", "json"];
    let said = suite.run("n1", &argv);
    let events = said.lines().map(serde_json::from_str::<Value>);
    events.map(Result::unwrap).collect()
}

fn status(suite: &Suite) -> Value {
    suite.ctl("n1", &["status"])["felix"].clone()
}

/// What felix says that needs somebody and is not the kernel's lack.
fn told(suite: &Suite) -> Vec<String> {
    let problems = status(suite)["problems"].clone();
    list(&problems).iter().map(text).collect()
}

/// Two pods of n1, of which one may not be reached.
fn closed(suite: &Suite, ns: &str) -> (String, String) {
    suite.create(&[namespace(ns, &[])]);
    for name in ["a", "b"] {
        run(suite, &Pod::new(ns, name, "n1"), &[]);
    }
    suite.apply_text(&format!(
        "{{ apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{ name: closed, namespace: {ns} }},
            spec: {{ podSelector: {{}}, policyTypes: [Ingress] }} }}"
    ));
    let (from, to) = (format!("{ns}/a"), format!("{ns}/b"));
    let address = addresses(suite, &to)[0];
    until("the policy to be in force", || {
        match seen(suite, &from, &to, address) {
            Ok(whom) => Err(whom.to_string()),
            Err(_) => Ok(()),
        }
    });
    (from, to)
}

/// Sends datagrams that are denied, over a second and a half; how many became events.
fn made(suite: &Suite, from: &str, to: &str) -> usize {
    let address = addresses(suite, to)[0];
    let netns = suite.netns(from).unwrap();
    let socket = || netns::run_in(&netns, || UdpSocket::bind(("0.0.0.0", 0))).unwrap();
    // felix keeps the last 256.
    let time = |event: &Value| event["unix_millis"].as_i64().unwrap();
    let before = events(suite, to).iter().map(time).max();
    for _ in 0..150 {
        socket().send_to(b"?", (address, 9)).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    // The kernel may keep packets back for a tenth of a second.
    std::thread::sleep(Duration::from_millis(300));
    let all = events(suite, to);
    all.iter().filter(|it| Some(time(it)) > before).count()
}

#[test]
fn there_are_as_many_events_as_the_operator_wants() {
    let suite = suite::alone();
    let (from, to) = closed(&suite, "evrate");
    let wanted = |rate: u32, burst: u32| {
        let spec = json!({ "policyEventRate": rate, "policyEventBurst": burst });
        configure(&suite, &spec);
        let limit = format!(
            "limit rate {}/second burst {} packets log",
            2 * rate,
            2 * burst
        );
        until("the rules to say so", || {
            let argv = ["nft", "list", "chain", "inet", "margay", "deny"];
            let chain = suite.run("n1", &argv);
            match chain.contains(&limit) || rate == 0 && !chain.contains("log") {
                true => Ok(()),
                false => Err(chain),
            }
        });
    };
    let left_out = || status(&suite)["policy_events_left_out"].as_u64().unwrap();
    wanted(3, 3);
    let before = left_out();
    let few = made(&suite, &from, &to);
    assert!((3..=12).contains(&few), "{few}");
    assert!(
        left_out() > before,
        "those that felix leaves out are counted"
    );
    wanted(0, 3);
    assert_eq!(made(&suite, &from, &to), 0);
    // What one node is told holds there, over a restart, too.
    let own = json!({
        "apiVersion": "margay.io/v1", "kind": "FelixConfiguration",
        "metadata": { "name": "node.n1" },
        // The kernel hands packets over in heaps of a tenth of a second.
        "spec": { "policyEventRate": 1000, "policyEventBurst": 1000 },
    });
    suite.create(&[own]);
    until("many events", || match made(&suite, &from, &to) {
        many if many > 60 => Ok(()),
        few => Err(few.to_string()),
    });
    suite.kill("felix", Some("n1")).unwrap();
    suite.start("felix", Some("n1")).unwrap();
    suite.wait_felix("n1");
    let many = made(&suite, &from, &to);
    assert!(many > 60, "{many}");
    suite.kubectl(&["delete", "felixconfiguration", "node.n1"]);
    until("no events", || match made(&suite, &from, &to) {
        0 => Ok(()),
        some => Err(some.to_string()),
    });
    unconfigure(&suite);
    let refused = json!({
        "apiVersion": "margay.io/v1", "kind": "FelixConfiguration",
        "metadata": { "name": "default" }, "spec": { "policyEventRate": 1001 },
    });
    let said = suite.refusal(&["create", "-f", "-"], &refused.to_string());
    assert!(said.contains("policyEventRate"), "{said}");
}

#[test]
fn without_events_everything_else_works_and_the_node_says_so() {
    let suite = suite::alone();
    suite.kill("felix", Some("n1")).unwrap();
    // Somebody else reads the group: the kernel gives it to one only.
    let n1 = suite.netns("n1").unwrap();
    let other = netns::run_in(&n1, || {
        const NETLINK: i32 = 16;
        const NETFILTER: i32 = 12;
        let domain = Domain::from(NETLINK);
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(NETFILTER)))?;
        socket.send(&log::bind(LOG_GROUP, false, 1))?;
        Ok(socket)
    })
    .unwrap();
    suite.start("felix", Some("n1")).unwrap();
    suite.wait_felix("n1");
    let (from, to) = closed(&suite, "evnone");
    let lack = "denied packets are not told of, everything else works: netlink log";
    until("the status to say so", || {
        let told = told(&suite);
        let lacks = told.iter().any(|it| it.starts_with(lack));
        lacks.then_some(()).ok_or_else(|| format!("{told:?}"))
    });
    assert_eq!(problems(&status(&suite)), [""; 0], "and nothing else");
    until("an Event of the Node", || {
        let events = suite.objects(&["events", "-n", "default"]);
        let of_node = events.iter().filter(|it| {
            it["involvedObject"]["kind"] == "Node"
                && it["involvedObject"]["name"] == "n1"
                && it["reason"] == "PolicyEventsMissing"
                && text(&it["message"]).starts_with(lack)
        });
        match of_node.count() {
            1 => Ok(()),
            _ => Err(format!("{events:?}")),
        }
    });
    assert_eq!(made(&suite, &from, &to), 0);
    // It goes, and felix has it by itself.
    drop(other);
    until("the status to be clear", || {
        let told = told(&suite);
        told.is_empty()
            .then_some(())
            .ok_or_else(|| format!("{told:?}"))
    });
    until("events", || match made(&suite, &from, &to) {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    });
    let denied = events(&suite, &to);
    let why = text(&denied.last().unwrap()["why"]);
    assert!(
        why.contains("no policy allows it") || why.contains("evnone/closed"),
        "{why}"
    );
}
