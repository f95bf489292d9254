//! `margayctl`: shows what the daemons of this node know.

mod args;
mod bgp;
mod neighbor;
mod query;
mod table;
mod view;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let answer = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(query::run(&cli)));
    match answer {
        Ok(answer) => {
            // A closed pipe (`| head`) is no failure of ours.
            let _ = std::io::stdout().write_all(answer.text.as_bytes());
            if answer.incomplete {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            }
        }
        Err(error) => {
            eprintln!("margayctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}
