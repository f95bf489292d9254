//! Reads the project's own source, for the tests that guard its borders (`tests/`).
//!
//! ```text
//!  files ──► Source { text, code: comments and strings blanked, test: lines that are tests } ──► rules
//! ```
//!
//! The rules look at words, not at syntax trees: a few hundred lines that anyone can read, fast enough to run
//! with every test.

pub mod lexer;
pub mod source;

pub use source::{Source, project_files, root, rust_sources};

/// Fails with all problems at once, and what to do about them.
///
/// # Panics
///
/// If there is a problem.
pub fn refuse(problems: &[String], what_to_do: &str) {
    assert!(
        problems.is_empty(),
        "\n{}\n{} problem(s). {what_to_do}\n",
        problems.join("\n"),
        problems.len()
    );
}
