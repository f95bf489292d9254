//! The CNI plugin `margay`.

use std::io::{self, Read};
use std::process::ExitCode;

use cni::{cmd, conf};

/// Longest configuration taken, in bytes.
const MAX_STDIN: u64 = 1 << 20;

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_none() {
        eprintln!(
            "margay {}: a CNI plugin, called by a container runtime. It speaks CNI {}.",
            env!("CARGO_PKG_VERSION"),
            conf::VERSIONS.join(" and ")
        );
        return ExitCode::SUCCESS;
    }
    let mut stdin = Vec::new();
    if let Err(error) = io::stdin().lock().take(MAX_STDIN).read_to_end(&mut stdin) {
        eprintln!("margay: reading standard input: {error}");
    }
    match cmd::run(|name| std::env::var(name).ok(), &stdin) {
        Ok(answer) => {
            if !answer.is_empty() {
                println!("{answer}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", error.to_json(&conf::answer_version(&stdin)));
            ExitCode::FAILURE
        }
    }
}
