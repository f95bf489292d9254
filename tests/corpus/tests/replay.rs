//! What fuzzing has found worth keeping, and every input that ever failed, goes through every target again.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn replay(name: &str) {
    let inputs = std::fs::read_dir(fuzz().join("corpus").join(name)).unwrap();
    let mut count = 0;
    for input in inputs {
        let path = input.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let outcome = std::panic::catch_unwind(|| corpus::run(name, &bytes));
        assert!(outcome.is_ok(), "{} makes {name} panic", path.display());
        count += 1;
    }
    assert!(count > 0, "fuzz/corpus/{name} is empty");
}

macro_rules! replays {
    ($($name:ident),+ $(,)?) => {
        /// Names of the tests below.
        const REPLAYED: &[&str] = &[$(stringify!($name)),+];
        $(#[test] fn $name() { replay(stringify!($name)); })+
    };
}

replays!(
    annotations,
    bfd,
    bgp_filter,
    bgp_message,
    bgp_objects,
    bgp_session,
    bootstrap,
    cluster_network_policy,
    cni,
    config_file,
    grpc,
    journal,
    kept,
    margay_policy,
    netlink,
    network_policy,
    recording,
    selector,
    values,
);

#[test]
fn every_target_is_fuzzed_and_replayed() {
    let targets: Vec<&str> = corpus::TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(targets, REPLAYED);
    let programs = std::fs::read_dir(fuzz().join("fuzz_targets")).unwrap();
    let stem = |it: std::io::Result<std::fs::DirEntry>| {
        let path = it.unwrap().path();
        path.file_stem().unwrap().to_str().unwrap().to_owned()
    };
    let programs: BTreeSet<String> = programs.map(stem).collect();
    assert_eq!(programs, targets.iter().map(ToString::to_string).collect());
}
