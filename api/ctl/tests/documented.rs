//! docs/policy.md says what is true: every object in it is one that the API server and felix accept and decides as the
//! text says, and every command in it exists and prints what is shown.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use apiserver::builtin;
use apiserver::schema::Schema;
use serde_json::Value;

/// The cluster that the text talks about.
const CLUSTER: &str = include_str!("documented/cluster.yaml");
/// The one change that it tries.
const NEW: &str = include_str!("documented/new.yaml");

/// Name of the last object of a block, and flows as `from to port[/protocol] verdict`, asked with nothing but the cluster's
/// pods and the block.
const VERDICTS: &[(&str, &[&str])] = &[
    (
        "nothing",
        &[
            "shop/web db/pg 5432 denied",
            "db/pg shop/web 8080 denied",
            "shop/web shop/gateway 8080 denied",
            "db/pg kube-system/coredns 53/udp allowed",
        ],
    ),
    (
        "names",
        &[
            "shop/web kube-system/coredns 53/udp allowed",
            "shop/web kube-system/coredns 53/tcp allowed",
            "shop/web kube-system/coredns 54/udp denied",
            "shop/web kube-system/other 53/udp denied",
            "shop/web db/pg 5432 denied",
            "db/pg shop/web 8080 allowed",
        ],
    ),
    (
        "clients",
        &[
            "shop/web db/pg 5432 allowed",
            "shop/web db/pg pg allowed",
            "shop/web db/pg 9090 denied",
            "shop/gateway db/pg 5432 denied",
            "kube-system/other db/pg 5432 denied",
            "203.0.113.7 db/pg 5432 denied",
        ],
    ),
    (
        "world",
        &[
            "203.0.113.7 shop/web 8080 allowed",
            "203.0.113.7 shop/web 8090 allowed",
            "203.0.113.7 shop/web 8091 denied",
            "198.51.100.9 shop/web 8080 denied",
            "203.0.113.7 shop/gateway 22 allowed",
        ],
    ),
    (
        "metadata-service",
        &[
            "shop/web 169.254.169.254 80 denied",
            "db/pg 169.254.169.254 443 denied",
            "shop/web 169.254.169.253 80 allowed",
            "shop/web db/pg 5432 allowed",
        ],
    ),
    (
        "front-not-db",
        &[
            "shop/web db/pg 5432 denied",
            "shop/gateway db/pg 80 denied",
            "kube-system/other db/pg 5432 allowed",
            "db/pg shop/web 8080 allowed",
        ],
    ),
    (
        "payment",
        &[
            "shop/checkout 192.0.2.5 443 allowed",
            "shop/checkout 2001:db8:7::5 443 allowed",
            "shop/checkout 192.0.2.5 80 denied",
            "shop/checkout 192.0.2.16 443 denied",
            "shop/web 192.0.2.16 80 allowed",
        ],
    ),
    (
        "only-the-gateway",
        &[
            "shop/gateway shop/web 8080 allowed",
            "db/pg shop/web 8080 allowed",
        ],
    ),
    (
        "admin",
        &[
            "203.0.113.7 shop/web 9000 denied",
            "203.0.113.7 shop/web 8080 allowed",
            "db/pg shop/web 9000 allowed",
        ],
    ),
    (
        "workers",
        &[
            "203.0.113.7 n1-eth0 443 allowed",
            "203.0.113.7 n1-eth0 80 denied",
            "2001:db8::7 2001:db8::10 80 denied",
            "203.0.113.7 192.0.2.10 22 allowed",
            "db/pg 192.0.2.10 80 denied",
            "192.0.2.10 203.0.113.7 80 allowed",
        ],
    ),
    ("default", &["db/pg shop/web 8080 allowed"]),
];

/// What the last of them says once it is enforced.
const ENFORCED: &[&str] = &[
    "shop/gateway shop/web 8080 allowed",
    "db/pg shop/web 8080 denied",
];

fn margayctl(dir: &Path, argv: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_margayctl"))
        .current_dir(dir)
        .args(argv)
        .output()
        .unwrap()
}

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policy.md");
    std::fs::read_to_string(path).unwrap()
}

/// The blocks in this language.
fn blocks(language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let text = document();
    let blocks = text.split(&fence).skip(1);
    blocks
        .map(|it| it.split("```").next().unwrap().to_owned())
        .collect()
}

fn objects(block: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(block).unwrap_or_else(|e| panic!("{e}: {block}"))
}

/// What the API server finds wrong with an object.
fn refused(object: &Value) -> Vec<String> {
    let kind = object["kind"].as_str().unwrap();
    let group = object["apiVersion"].as_str().unwrap().split('/').next();
    let mut object = object.clone();
    if group == Some("networking.k8s.io") {
        let unknown = builtin::prune(kind, &mut object);
        let wrong = builtin::validate(kind, &object, None);
        return unknown
            .into_iter()
            .chain(wrong.iter().map(ToString::to_string))
            .collect();
    }
    let known = [crds::all_crds(), crds::foreign_crds()].concat();
    let definition = known
        .into_iter()
        .find(|it| it.spec.names.kind == kind && Some(it.spec.group.as_str()) == group)
        .unwrap_or_else(|| panic!("there is no {kind} of {group:?}"));
    let definition = serde_json::to_value(definition).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let schema = Schema::parse(schema).unwrap();
    let unknown = schema.prune(&mut object);
    schema.default(&mut object);
    let wrong = schema.validate(&object, None);
    unknown
        .into_iter()
        .chain(wrong.iter().map(ToString::to_string))
        .collect()
}

#[track_caller]
fn expect(dir: &Path, files: &str, flow: &str) {
    let [from, to, port, verdict] = flow.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{flow:?} is no flow");
    };
    let (port, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let answer = margayctl(
        dir,
        &[
            "policy",
            "explain",
            "--from",
            from,
            "--to",
            to,
            "--port",
            port,
            "--protocol",
            protocol,
            "-f",
            files,
        ],
    );
    let code = match verdict {
        "allowed" => 0,
        "denied" => 3,
        other => panic!("{other:?} is no verdict"),
    };
    assert_eq!(answer.status.code(), Some(code), "{flow}: {answer:?}");
}

#[test]
fn every_example_is_accepted_and_decides_as_the_text_says() {
    let dir = tempfile::tempdir().unwrap();
    let pods = objects(CLUSTER)
        .into_iter()
        .filter(|it| it["kind"] != "NetworkPolicy")
        .map(|it| it.to_string())
        .collect::<Vec<_>>();
    std::fs::write(dir.path().join("pods.json"), pods.join("\n")).unwrap();
    let mut seen = Vec::new();
    for block in blocks("yaml") {
        let objects = objects(&block);
        for object in &objects {
            assert_eq!(refused(object), Vec::<String>::new(), "{block}");
        }
        std::fs::write(dir.path().join("block.yaml"), &block).unwrap();
        let read = [
            "policy",
            "unused",
            "-f",
            "pods.json,block.yaml",
            "-o",
            "json",
        ];
        let read: Value = serde_json::from_slice(&margayctl(dir.path(), &read).stdout).unwrap();
        assert_eq!(read["notes"], serde_json::json!([]), "{block}");
        let name = objects.last().unwrap()["metadata"]["name"]
            .as_str()
            .unwrap();
        let known = VERDICTS.iter().find(|(known, _)| *known == name);
        let Some((known, flows)) = known else {
            panic!("say in VERDICTS what {name} does");
        };
        for flow in *flows {
            expect(dir.path(), "pods.json,block.yaml", flow);
        }
        seen.push(*known);
        if block.contains("enforcement: Audit") {
            let enforced = block.replace("enforcement: Audit", "enforcement: Enforce");
            std::fs::write(dir.path().join("block.yaml"), enforced).unwrap();
            for flow in ENFORCED {
                expect(dir.path(), "pods.json,block.yaml", flow);
            }
        }
    }
    let expected: Vec<_> = VERDICTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        seen, expected,
        "examples and verdicts, in the order of the text"
    );
}

/// Commands of a console block, each with what it prints.
fn commands(block: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), found.last_mut()) {
            (Some(command), _) => {
                let command = command.split(" # ").next().unwrap_or_default();
                found.push((command.trim().to_owned(), String::new()));
            }
            (None, Some((_, printed))) => {
                printed.push_str(line);
                printed.push('\n');
            }
            (None, None) => panic!("a console block begins with a command: {block}"),
        }
    }
    found
}

#[test]
fn every_command_about_files_prints_what_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("cluster.yaml"), CLUSTER).unwrap();
    std::fs::write(dir.path().join("new.yaml"), NEW).unwrap();
    let mut ran = 0;
    for (command, shown) in blocks("console").iter().flat_map(|it| commands(it)) {
        let words: Vec<&str> = command.split(' ').collect();
        let Some(("margayctl", words)) =
            words.split_first().map(|(program, rest)| (*program, rest))
        else {
            continue;
        };
        if !command.contains("cluster.yaml") {
            continue;
        }
        let printed = margayctl(dir.path(), words);
        assert_eq!(
            String::from_utf8_lossy(&printed.stdout),
            shown,
            "{command}: {printed:?}"
        );
        ran += 1;
    }
    assert!(ran >= 2, "only {ran} commands were tried");
}

/// What stands between backticks and begins with the program's name.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    let spans = text
        .split("```")
        .step_by(2)
        .flat_map(|it| it.split('`').skip(1).step_by(2));
    spans.filter(|it| it.starts_with("margayctl "))
}

#[test]
fn every_command_that_is_named_exists() {
    let dir = tempfile::tempdir().unwrap();
    let text = document();
    let shown: Vec<_> = blocks("console")
        .iter()
        .flat_map(|it| commands(it))
        .collect();
    let shown = shown.iter().map(|(command, _)| command.as_str());
    let mut tried = 0;
    for command in spans(&text).chain(shown) {
        let command = &command.replace("ADDRESS", "192.0.2.1");
        let words: Vec<&str> = command
            .split_whitespace()
            .filter(|it| *it != "...")
            .collect();
        let Some(("margayctl", words)) =
            words.split_first().map(|(program, rest)| (*program, rest))
        else {
            continue;
        };
        // There is no daemon here, and some flows lack their ends: both are other exit codes than a wrong word.
        let words = match command.contains("explain") && !command.contains("--from") {
            true => [words, &["--from", "a/b", "--to", "c/d", "--port", "1"]].concat(),
            false => words.to_vec(),
        };
        let answer = margayctl(
            dir.path(),
            &[&words[..], &["--run-dir", "/nowhere"]].concat(),
        );
        assert_ne!(answer.status.code(), Some(2), "{command}: {answer:?}");
        tried += 1;
    }
    assert!(tried >= 10, "only {tried} commands are named");
}
