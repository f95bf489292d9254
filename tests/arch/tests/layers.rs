//! Cores have no sockets, clocks, files or runtimes: state × input × now → outputs.

use arch::{refuse, rust_sources};
use regex::Regex;

/// What a core does not do, and what it does instead.
const FORBIDDEN: [(&str, &str); 7] = [
    (
        r"\btokio(_stream|_util)?\b",
        "a core is not async: take the event as an input, return what to do",
    ),
    (
        r"\b(Tcp(Stream|Listener|Socket)|UdpSocket|Unix(Stream|Listener|Datagram))\b",
        "a core has no sockets: take bytes, return bytes",
    ),
    (
        r"\b(Instant|SystemTime)::now\b",
        "a core has no clock: take `now: Millis`",
    ),
    (
        r"\bstd::fs\b|\bFile::(open|create)\b|\bOpenOptions\b",
        "a core has no files: take and return bytes",
    ),
    (
        r"\bstd::process\b|\bCommand::new\b",
        "a core starts nothing",
    ),
    (
        r"\bstd::thread\b|\bthread::(spawn|sleep)\b",
        "a core has no threads",
    ),
    (
        r"\bstd::env\b|\benv::(var|args)\b",
        "a core has no environment: take the value from the constructor",
    ),
];

/// In the model, kube's derives and types are fine; its client is not.
const KUBE_CLIENT: &str = r"\bkube::(\{[^;]*\b)?(Api|Client|Config|client|config|runtime)\b";

/// Where a core's rule does not hold, and why.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

/// Whether a file is core: everything but the drivers, the programs and their arguments.
fn is_core(path: &str) -> bool {
    let core = ["crds/src/", "ipam/src/", "bgpd/src/", "felix/src/"]
        .iter()
        .any(|crate_| path.starts_with(crate_));
    let edge = ["/src/driver/", "/src/bin/", "/src/controller/"]
        .iter()
        .any(|edge| path.contains(edge))
        || ["/src/main.rs", "/src/args.rs", "/src/driver.rs"]
            .iter()
            .any(|edge| path.ends_with(edge));
    core && !edge
}

#[test]
fn cores_do_no_io() {
    let rules: Vec<(Regex, &str)> = FORBIDDEN
        .iter()
        .map(|(pattern, instead)| (Regex::new(pattern).unwrap(), *instead))
        .collect();
    let client = Regex::new(KUBE_CLIENT).unwrap();
    let any_kube = Regex::new(r"\bkube::").unwrap();
    let mut problems = Vec::new();
    let mut cores = 0;
    for source in rust_sources().iter().filter(|source| is_core(&source.path)) {
        cores += 1;
        let kube = if source.path.starts_with("crds/") {
            &client
        } else {
            &any_kube
        };
        for (number, line) in source.product_lines() {
            for (rule, instead) in &rules {
                let excused = EXCEPTIONS
                    .iter()
                    .any(|(path, word, _)| *path == source.path && line.contains(word));
                if let Some(found) = rule.find(line).filter(|_| !excused) {
                    problems.push(format!(
                        "{}:{number}: `{}`: {instead}",
                        source.path,
                        found.as_str()
                    ));
                }
            }
            if let Some(found) = kube.find(line) {
                problems.push(format!(
                    "{}:{number}: `{}`: a core has no Kubernetes client: the driver turns objects into inputs",
                    source.path,
                    found.as_str()
                ));
            }
        }
    }
    assert!(
        cores > 20,
        "only {cores} files are cores: is_core() no longer fits the tree"
    );
    refuse(
        &problems,
        "Move the effect to the crate's driver/, or take it as an input of the core.",
    );
}

#[test]
fn programs_are_only_wiring() {
    const LIMIT: usize = 60;
    let problems: Vec<String> = rust_sources()
        .iter()
        .filter(|source| source.path.ends_with("/src/main.rs") && !source.path.starts_with("fuzz/"))
        .filter(|source| source.text.lines().count() > LIMIT)
        .map(|source| {
            format!(
                "{}: {} lines, at most {LIMIT}",
                source.path,
                source.text.lines().count()
            )
        })
        .collect();
    refuse(
        &problems,
        "Move what main does into the library, where tests reach it.",
    );
}
