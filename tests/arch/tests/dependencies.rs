//! Which crate may depend on which: model ← core ← edge, and a small plugin.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use arch::{refuse, root};
use serde_json::Value;

/// Crates of the project and those of the project they may depend on. The crates below `tests/` may use any.
const ALLOWED: [(&str, &[&str]); 7] = [
    ("crds", &[]),
    ("ipam", &["api", "crds"]),
    ("api", &[]),
    ("cni", &[]),
    ("bgpd", &["api", "crds"]),
    ("felix", &["api", "cni", "crds", "ipam"]),
    ("ctl", &["api", "felix"]),
];

/// What the plugin must not link: it starts for every pod and has no credentials.
const NOT_IN_CNI: [&str; 9] = [
    "tokio",
    "kube",
    "kube-client",
    "k8s-openapi",
    "hyper",
    "rustls",
    "tonic",
    "axum",
    "openssl",
];

/// What would bring a second TLS or C code into the daemons.
const NOT_ANYWHERE: [&str; 4] = ["openssl-sys", "aws-lc-sys", "native-tls", "libnftnl-sys"];

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .arg("--offline")
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

#[test]
fn crates_depend_in_one_direction() {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let place: BTreeMap<&str, &str> = packages
        .iter()
        .map(|package| {
            let manifest = package["manifest_path"].as_str().unwrap();
            (package["name"].as_str().unwrap(), manifest)
        })
        .collect();
    let is_test_crate = |name: &str| place[name].contains("/tests/");
    let mut problems = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        if is_test_crate(name) {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            problems.push(format!(
                "{name}: a new crate: say in ALLOWED what it may depend on"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = dependency["name"].as_str().unwrap();
            let dev = dependency["kind"] == "dev";
            if !place.contains_key(other) || allowed.contains(&other) || dev {
                continue;
            }
            problems.push(format!("{name} depends on {other}"));
        }
    }
    refuse(
        &problems,
        "Move the shared type to the crate both may use (crds for the model, api for protocols), or change the borders \
         in ARCHITECTURE.md first and then ALLOWED in tests/arch/tests/dependencies.rs.",
    );
}

/// The names of all crates linked into one.
fn linked(package: &str) -> Vec<String> {
    let tree = cargo(&[
        "tree", "-p", package, "-e", "normal", "--prefix", "none", "--format", "{p}",
    ]);
    tree.lines()
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect()
}

#[test]
fn the_plugin_stays_small() {
    let linked = linked("cni");
    let problems: Vec<String> = NOT_IN_CNI
        .iter()
        .filter(|name| linked.iter().any(|l| l == *name))
        .map(|name| format!("cni links {name}: see `cargo tree -p cni -e normal -i {name}`"))
        .collect();
    refuse(
        &problems,
        "The plugin is synchronous and asks felix over a unix socket; put the work there.",
    );
}

#[test]
fn the_daemons_link_one_tls_and_no_c_libraries_beside_it() {
    let mut problems = Vec::new();
    for package in ["felix", "bgpd", "api", "cni", "ctl", "ipam"] {
        let linked = linked(package);
        for name in NOT_ANYWHERE
            .iter()
            .filter(|name| linked.iter().any(|l| l == *name))
        {
            problems.push(format!(
                "{package} links {name}: see `cargo tree -p {package} -e normal -i {name}`"
            ));
        }
    }
    refuse(
        &problems,
        "Turn off the feature that brings it: rustls with ring is the one TLS here.",
    );
}

/// Nothing else in the suite reads that manifest: it is outside the workspace.
#[test]
fn every_fuzz_program_is_in_its_manifest() {
    let manifest = ["--manifest-path", "fuzz/Cargo.toml"];
    let mut arguments = vec!["metadata", "--format-version", "1", "--no-deps"];
    arguments.extend(manifest);
    let metadata: Value = serde_json::from_str(&cargo(&arguments)).unwrap();
    let targets = metadata["packages"][0]["targets"].as_array().unwrap();
    let said: BTreeSet<String> = targets
        .iter()
        .map(|target| target["name"].as_str().unwrap().to_owned())
        .collect();
    let there: BTreeSet<String> = std::fs::read_dir(root().join("fuzz/fuzz_targets"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            path.file_stem().unwrap().to_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(said, there);
}
