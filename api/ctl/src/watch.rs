//! `--watch`.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use crate::args::Cli;
use crate::query;

/// Shows it again and again, until nobody reads it. A daemon that does not answer may just be starting again.
pub(crate) async fn run(cli: &Cli, every: Duration) -> ExitCode {
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
