//! `margayctl`: shows what the daemons of this node know.

mod args;
mod bgp;
mod change;
mod counters;
mod events;
mod explain;
mod files;
mod neighbor;
mod policy;
mod query;
mod table;
mod view;
mod watch;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run(&cli)));
    done.unwrap_or_else(|error| {
        eprintln!("margayctl: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run(cli: &args::Cli) -> anyhow::Result<ExitCode> {
    if let Some(every) = cli.global.watch.filter(|_| !cli.command.streams()) {
        anyhow::ensure!(
            !cli.command.changes_something(),
            "--watch is for commands that only show: add --show, or leave it out"
        );
        return Ok(watch::run(cli, every).await);
    }
    let answer = query::run(cli).await?;
    // A closed pipe (`| head`) is no failure of ours.
    let _ = io::stdout().write_all(answer.text.as_bytes());
    Ok(ExitCode::from(answer.exit))
}
