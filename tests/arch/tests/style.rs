//! Sizes, `unwrap`, `unsafe`, and words that do not belong into the project.

use std::fs;

use arch::{project_files, refuse, root, rust_sources};
use regex::Regex;

/// Nobody keeps more in the head.
const HARD_LIMIT: usize = 1000;
/// Beyond this a file needs a reason.
const SOFT_LIMIT: usize = 600;

/// Files that may have more than [`SOFT_LIMIT`] lines, and why.
const LONG: [(&str, &str); 0] = [];

/// Files that may contain `unsafe`, and why.
const UNSAFE: [(&str, &str); 6] = [
    (
        "bgpd/examples/tables.rs",
        "an allocator that counts hands every call on",
    ),
    (
        "bgpd/src/driver/sock.rs",
        "TCP_MD5SIG and IP_MINTTL have no safe wrapper",
    ),
    ("cni/src/netns.rs", "setns hands over a file descriptor"),
    (
        "felix/src/driver/netlink.rs",
        "a netlink socket of another namespace is handed over by descriptor",
    ),
    (
        "tests/lab/src/netns.rs",
        "setns hands over a file descriptor",
    ),
    (
        "tests/lab/src/process.rs",
        "pre_exec runs between fork and exec",
    ),
];

#[test]
fn files_fit_into_the_head() {
    let mut problems = Vec::new();
    for source in rust_sources() {
        let lines = source.text.lines().count();
        let excused = LONG.iter().any(|(path, _)| *path == source.path);
        if lines > HARD_LIMIT {
            problems.push(format!(
                "{}: {lines} lines, never more than {HARD_LIMIT}",
                source.path
            ));
        } else if lines > SOFT_LIMIT && !excused {
            problems.push(format!(
                "{}: {lines} lines, more than {SOFT_LIMIT}",
                source.path
            ));
        } else if lines <= SOFT_LIMIT && excused {
            problems.push(format!(
                "{}: {lines} lines again: take it from LONG",
                source.path
            ));
        }
    }
    refuse(
        &problems,
        "Cut the file where it has two subjects; move tests beyond 150 lines to foo/tests.rs. If it is one table \
         that belongs together, add it with the reason to LONG in tests/arch/tests/style.rs.",
    );
}

#[test]
fn nothing_unwraps_outside_tests() {
    // What makes the impossible impossible, in two words at least.
    let expect = Regex::new(r#"\.expect(_err)?\(\s*""#).unwrap();
    let reason = Regex::new(r#"\.expect(_err)?\(\s*"[^"\s]+\s+[^"\s]"#).unwrap();
    let mut problems = Vec::new();
    for source in rust_sources() {
        // The suites' shared code is test code in all but place.
        if source.is_test() || source.path.starts_with("tests/e2e/") {
            continue;
        }
        let text: Vec<&str> = source.text.lines().collect();
        for (number, line) in source.product_lines() {
            if line.contains(".unwrap()") || line.contains(".unwrap_err()") {
                problems.push(format!(
                    "{}:{number}: unwrap(): return the error, or expect(\"invariant: …\")",
                    source.path
                ));
            }
            // The words may be on the line below.
            let words = format!("{}{}", text[number - 1], text.get(number).unwrap_or(&""));
            if line.contains(".expect") && expect.is_match(&words) && !reason.is_match(&words) {
                problems.push(format!(
                    "{}:{number}: expect() that does not say why it cannot happen",
                    source.path
                ));
            }
        }
    }
    refuse(
        &problems,
        "A panic in a daemon is an outage: make the impossible unrepresentable, or handle it.",
    );
}

#[test]
fn unsafe_is_where_it_is_known_and_explained() {
    let word = Regex::new(r"\bunsafe\b").unwrap();
    let mut problems = Vec::new();
    for source in rust_sources() {
        let text: Vec<&str> = source.text.lines().collect();
        let known = UNSAFE.iter().any(|(path, _)| *path == source.path);
        for (at, line) in source
            .code
            .lines()
            .enumerate()
            .filter(|(_, line)| word.is_match(line))
        {
            if !known {
                problems.push(format!(
                    "{}:{}: unsafe in a file that is not listed",
                    source.path,
                    at + 1
                ));
            }
            let explained = text[at.saturating_sub(8)..=at]
                .iter()
                .any(|l| l.contains("SAFETY:"));
            if !explained && !line.contains("unsafe_") {
                problems.push(format!(
                    "{}:{}: unsafe without a `// SAFETY:` above it",
                    source.path,
                    at + 1
                ));
            }
        }
    }
    refuse(
        &problems,
        "Look for a safe wrapper first (nix, socket2, std). If there is none, say in a SAFETY comment why it is sound, \
         and list the file with the reason in UNSAFE in tests/arch/tests/style.rs.",
    );
}

#[test]
fn nothing_depends_on_the_machine_it_was_written_on() {
    // Put together here, so that this file does not contain what it looks for.
    let words = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("index.crat", "es.io"),
        concat!("static.crat", "es.io"),
        concat!("replace-", "with"),
        concat!("registry.np", "mjs.org"),
        concat!("proxy.gol", "ang.org"),
        concat!("files.pytho", "nhosted.org"),
    ];
    let mut problems = Vec::new();
    for path in project_files() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for (at, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                problems.push(format!("{path}:{}: `{word}`", at + 1));
            }
        }
    }
    refuse(
        &problems,
        "Use a path relative to the repository, a flag, or a temporary directory; leave the choice of a registry to \
         the user's own configuration.",
    );
}

#[test]
fn no_promise_is_left_in_a_comment() {
    let word = Regex::new(concat!(r"\b(TO", r"DO|FIX", r"ME|X", r"XX|HA", r"CK)\b")).unwrap();
    let macros = Regex::new(r"\b(todo|unimplemented|dbg)!").unwrap();
    let mut problems = Vec::new();
    for source in rust_sources() {
        for (at, line) in source.text.lines().enumerate() {
            if let Some(found) = word.find(line) {
                problems.push(format!("{}:{}: {}", source.path, at + 1, found.as_str()));
            }
        }
        for (at, line) in source.code.lines().enumerate() {
            if let Some(found) = macros.find(line) {
                problems.push(format!("{}:{}: {}", source.path, at + 1, found.as_str()));
            }
        }
    }
    refuse(
        &problems,
        "Do it now, or open an issue and say in the comment what is so, not what will be.",
    );
}
