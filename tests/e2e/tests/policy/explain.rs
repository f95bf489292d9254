//! What margayctl says about policy, beside what packets show.

use e2e::problems;
use e2e::suite::{self, Suite, until};
use serde_json::Value;

use crate::world::{CLIENTS, Policies, SERVERS};

const PORTS: [(u16, &str); 2] = [(80, "tcp/80"), (8080, "tcp/8080")];

/// Runs margayctl on a node and reads its JSON; with its exit code.
pub(crate) fn ask(suite: &Suite, node: &str, argv: &[&str]) -> (Value, Option<i32>) {
    let argv = [&["margayctl", "policy"], argv, &["-o", "json"]].concat();
    let output = suite.exec(node, &argv).unwrap_or_else(|e| panic!("{e:#}"));
    let json = serde_json::from_slice(&output.stdout);
    let said = json.unwrap_or_else(|e| panic!("{argv:?}: {e}: {output:?}"));
    (said, output.status.code())
}

pub(crate) fn array<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// The same flows by packets, by every node, and by files with what kubectl says of the cluster.
#[test]
fn every_node_and_the_files_explain_what_packets_show() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "explain");
    p.apply(
        "red",
        "p",
        "{ podSelector: { matchLabels: { app: srv } }, ingress: [{ from: [{ podSelector: { matchLabels: { role: a } } }], ports: [{ port: 80 }] }, { from: [{ namespaceSelector: { matchLabels: { team: blue } } }], ports: [{ port: api }] }] }",
    );
    p.apply(
        "blue",
        "q",
        "{ podSelector: { matchLabels: { role: c } }, policyTypes: [Egress], egress: [{ ports: [{ port: 8080 }] }] }",
    );
    let allowed = |from: &str, to: &str, port: u16| {
        let ingress = match port {
            80 => from == "red/cli1",
            // The name `api` is that number on srv1 alone.
            _ => from.starts_with("blue") && to == "red/srv1",
        };
        ingress && (from != "blue/cli3" || port == 8080)
    };
    let mut rows = Vec::new();
    for from in CLIENTS.split(' ') {
        for to in SERVERS.split(' ') {
            rows.extend(PORTS.map(|(port, what)| (from, to, what, allowed(from, to, port))));
        }
    }
    p.expect(&rows);

    let mut objects = String::new();
    for short in ["red", "blue"] {
        let ns = p.world.ns(short);
        for (kind, scope) in [("pods,netpol", Some(ns.as_str())), ("ns", None)] {
            let mut argv = vec!["get", kind, "-o", "json"];
            match scope {
                Some(ns) => argv.extend(["-n", ns]),
                None => argv.push(&ns),
            }
            objects.push_str(&suite.kubectl(&argv));
        }
    }
    let files = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    let cluster = files.path().join("cluster.json");
    std::fs::write(&cluster, objects).unwrap_or_else(|e| panic!("{e}"));
    let cluster = cluster.to_string_lossy().into_owned();

    for (from, to, what, expected) in rows {
        let (from_pod, to_pod) = (p.world.place(from), p.world.place(to));
        let port = what.trim_start_matches("tcp/");
        let flow = [
            "explain", "--from", &from_pod, "--to", &to_pod, "--port", port,
        ];
        let code = Some(if expected { 0 } else { 3 });
        let (answer, offline) = ask(&suite, "n1", &[&flow[..], &["-f", &cluster]].concat());
        assert_eq!(offline, code, "from files: {from} -> {to} {port}: {answer}");
        for node in ["n1", "n2", "n3"] {
            let (answer, told) = ask(&suite, node, &flow);
            assert_eq!(told, code, "{node}: {from} -> {to} {port}: {answer}");
            assert_eq!(answer["node"], node);
            assert_eq!(array(&answer, "flows").len(), 2, "both families: {answer}");
            for flow in array(&answer, "flows") {
                assert_eq!(flow["allowed"], expected, "{flow}");
                assert_eq!(array(flow, "advice").is_empty(), expected, "{flow}");
                let here = to == "red/srv1" && node == "n1" || to == "red/srv3" && node == "n3";
                assert_eq!(flow["ingress"]["enforced_here"], here, "{node}: {flow}");
            }
        }
    }

    // The kernel can tell of denied packets, or the status says that it cannot.
    let srv1 = p.world.place("red/srv1");
    until(
        "an event of a denied packet, or a word that there are none",
        || {
            let status = suite.ctl("n1", &["status"]);
            let all = array(&status["felix"], "problems").len();
            if all > problems(&status["felix"]).len() {
                return Ok(());
            }
            let argv = [
                "margayctl",
                "policy",
                "events",
                "--pod",
                &srv1,
                "-o",
                "json",
            ];
            let said = suite.run("n1", &argv);
            let events = said.lines().map(serde_json::from_str::<Value>);
            let denied = events.filter_map(Result::ok).any(|event| {
                event["what"] == "denied"
                    && event["direction"] == "ingress"
                    && event["pod"] == srv1.as_str()
                    && event["why"]
                        .as_str()
                        .is_some_and(|it| it.contains("no rule of"))
            });
            denied.then_some(()).ok_or(said)
        },
    );
}

#[test]
fn the_list_has_policies_in_the_order_in_which_they_are_asked() {
    let suite = suite::shared();
    let p = Policies::new(&suite, "list");
    let _tier = p.cluster("tier", "early", "{ order: 12.5, defaultAction: Pass }");
    p.apply("red", "k8s", "{ podSelector: {} }");
    p.namespaced(
        "red",
        "late",
        "{ order: 1000.5, selector: all(), types: [Ingress] }",
    );
    p.namespaced(
        "red",
        "audited",
        "{ order: 3, enforcement: Audit, selector: all(), types: [Ingress], ingress: [{ action: Deny }] }",
    );
    let early = p.cluster(
        "globalnetworkpolicy",
        "early",
        "{ tier: list-early, order: 5, selector: app == 'srv', types: [Ingress], ingress: [{ action: Pass }] }",
    );
    let red = p.world.ns("red");
    let expected = [
        (early.name.clone(), 5.0, 12.5, false),
        (format!("{red}/audited"), 3.0, 1_000_000.0, true),
        (format!("{red}/k8s"), 1000.0, 1_000_000.0, false),
        (format!("{red}/late"), 1000.5, 1_000_000.0, false),
    ];
    until("the four policies in their order", || {
        let (said, _) = ask(&suite, "n1", &["list"]);
        let ours = array(&said, "policies").iter().filter_map(|it| {
            let name = it["name"].as_str()?;
            let ours = name == early.name || name.starts_with(&format!("{red}/"));
            let numbers = (it["order"].as_f64()?, it["tier_order"].as_f64()?);
            ours.then(|| (name.to_owned(), numbers.0, numbers.1, it["audit"] == true))
        });
        match ours.collect::<Vec<_>>() == expected {
            true => Ok(()),
            false => Err(said.to_string()),
        }
    });
    let wide = suite.run("n1", &["margayctl", "policy", "list", "-o", "wide"]);
    let line = wide
        .lines()
        .find(|line| line.contains(&format!("{red}/audited")));
    assert!(line.is_some_and(|line| line.contains("Audit")), "{wide}");
}
