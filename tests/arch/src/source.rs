//! The project's files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lexer;

/// One Rust file.
#[derive(Debug)]
pub struct Source {
    /// Path from the root of the project, with slashes.
    pub path: String,
    /// The file as it is.
    pub text: String,
    /// The file without comments and strings, line for line.
    pub code: String,
    /// Which lines belong to tests only.
    pub test: Vec<bool>,
}

impl Source {
    /// The lines of code that are no tests, with their numbers, counted from one.
    pub fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .lines()
            .enumerate()
            .filter(|(at, _)| !self.test.get(*at).copied().unwrap_or(false))
            .map(|(at, line)| (at + 1, line))
    }

    /// Whether the whole file is a test.
    pub fn is_test(&self) -> bool {
        self.test.iter().all(|test| *test)
    }
}

/// The root of the project.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap_or(root)
}

/// Every file of the project, as git sees it: tracked, or new and not ignored.
///
/// # Panics
///
/// If git cannot list them.
pub fn project_files() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        other => panic!("these tests need git and the project in a git tree: {other:?}"),
    };
    let mut files: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .filter(|path| root().join(path).is_file())
        .collect();
    files.sort();
    assert!(files.len() > 20, "git lists {} files only", files.len());
    files
}

/// Every Rust file of the project.
///
/// # Panics
///
/// If one cannot be read.
pub fn rust_sources() -> Vec<Source> {
    let mut sources: Vec<Source> = project_files()
        .into_iter()
        .filter(|path| path.ends_with(".rs"))
        .map(|path| {
            let text = fs::read_to_string(root().join(&path))
                .unwrap_or_else(|error| panic!("{path}: {error}"));
            let code = lexer::code(&text);
            let lines = code.lines().count();
            let whole = is_test_path(&path);
            Source {
                path,
                test: vec![whole; lines],
                text,
                code,
            }
        })
        .collect();
    let mut test_modules = Vec::new();
    for source in &mut sources {
        let (path, code) = (source.path.clone(), source.code.clone());
        for (first, last, module) in test_items(&code) {
            for line in &mut source.test[first..=last] {
                *line = true;
            }
            test_modules.extend(module.map(|name| module_path(&path, &name)));
        }
    }
    for source in &mut sources {
        let stem = source.path.trim_end_matches(".rs");
        let inside = |module: &String| stem == module || stem.starts_with(&format!("{module}/"));
        if test_modules.iter().any(inside) {
            source.test.fill(true);
        }
    }
    sources
}

/// Test code by where it is: `x/tests/…`, `tests.rs`, benches, fuzz targets.
fn is_test_path(path: &str) -> bool {
    // The crates below tests/ are programs and libraries of their own; their src is code like any other.
    let inside = path.strip_prefix("tests/").unwrap_or(path);
    inside.contains("/tests/")
        || inside.contains("/benches/")
        || inside.ends_with("/tests.rs")
        || path.starts_with("fuzz/")
}

/// Where the file of a child module is, without `.rs`.
fn module_path(parent: &str, name: &str) -> String {
    let stem = parent.trim_end_matches(".rs");
    let (directory, file) = stem.rsplit_once('/').unwrap_or(("", stem));
    if matches!(file, "mod" | "lib" | "main") {
        format!("{directory}/{name}")
    } else {
        format!("{stem}/{name}")
    }
}

/// The items marked `#[cfg(test)]`: first and last line, and the name if it is a module in a file of its own.
fn test_items(code: &str) -> Vec<(usize, usize, Option<String>)> {
    let mut items = Vec::new();
    let line_of = |at: usize| code[..at].matches('\n').count();
    for (start, marker) in code.match_indices("#[cfg(test)]") {
        let rest = &code[start + marker.len()..];
        let mut depth = 0_usize;
        let mut end = rest.len();
        let mut file_module = None;
        for (at, letter) in rest.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        end = at;
                        break;
                    }
                }
                ';' if depth == 0 => {
                    end = at;
                    file_module = rest[..at]
                        .rsplit_once("mod ")
                        .map(|(_, name)| name.trim().to_owned());
                    break;
                }
                _ => {}
            }
        }
        let last = line_of(start + marker.len() + end.min(rest.len().saturating_sub(1)));
        items.push((line_of(start), last, file_module));
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_tests_are_found() {
        let code = "a\n#[cfg(test)]\nmod tests {\n  x { }\n}\nb\n#[cfg(test)]\nmod other;\nc\n";
        assert_eq!(
            test_items(code),
            [(1, 4, None), (6, 7, Some("other".to_owned()))]
        );
    }

    #[test]
    fn modules_are_beside_or_below_their_parent() {
        assert_eq!(module_path("a/src/lib.rs", "x"), "a/src/x");
        assert_eq!(module_path("a/src/b/mod.rs", "x"), "a/src/b/x");
        assert_eq!(module_path("a/src/b.rs", "x"), "a/src/b/x");
    }

    #[test]
    fn paths_of_tests_are_known() {
        for (path, test) in [
            ("felix/src/policy/tests/random.rs", true),
            ("felix/src/policy/tests.rs", true),
            ("felix/tests/tamper.rs", true),
            ("felix/src/policy/engine.rs", false),
            ("tests/apiserver/src/store/mod.rs", false),
            ("tests/apiserver/src/store/tests.rs", true),
            ("tests/apiserver/tests/kubectl.rs", true),
            ("fuzz/fuzz_targets/open.rs", true),
        ] {
            assert_eq!(is_test_path(path), test, "{path}");
        }
    }
}
