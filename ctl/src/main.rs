//! `margayctl`: shows what the daemons of this node know.

mod args;
mod bgp;
mod neighbor;
mod query;
mod table;
mod view;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

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
    if let Some(every) = cli.global.watch {
        anyhow::ensure!(
            !cli.command.changes_something(),
            "--watch is for commands that only show: add --show, or leave it out"
        );
        return Ok(watch(cli, every).await);
    }
    let answer = query::run(cli).await?;
    // A closed pipe (`| head`) is no failure of ours.
    let _ = io::stdout().write_all(answer.text.as_bytes());
    Ok(match answer.incomplete {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// Shows it again and again, until nobody reads it. A daemon that does not answer may just be starting again.
async fn watch(cli: &args::Cli, every: Duration) -> ExitCode {
    // From the upper left corner; what is left of a longer text goes.
    let home = match io::stdout().is_terminal() {
        true => "\x1b[H\x1b[2J",
        false => "",
    };
    loop {
        let text = match query::run(cli).await {
            Ok(answer) => answer.text,
            Err(error) => format!("margayctl: {error:#}\n"),
        };
        let mut stdout = io::stdout();
        let written = write!(stdout, "{home}{text}").and_then(|()| stdout.flush());
        if written.is_err() {
            return ExitCode::SUCCESS;
        }
        tokio::time::sleep(every).await;
    }
}
