//! `margay-bgpd`: the BGP speaker of a node.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use bgpd::args::{Args, Command, LogFormat};
use bgpd::driver::Replay;
use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match start(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("margay-bgpd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start(args: Args) -> anyhow::Result<()> {
    if let Some(Command::Replay {
        file,
        until,
        verbose,
    }) = args.command
    {
        let how = Replay { until, verbose };
        let replayed = bgpd::driver::replay(&file, how, &mut std::io::stdout().lock())?;
        anyhow::ensure!(replayed.differing == 0, "the run is not the same again");
        return Ok(());
    }
    if args.schema {
        print!("{}", bgpd::config::file::schema::text()?);
        return Ok(());
    }
    if let (true, Some(path)) = (args.check, &args.config) {
        let peers = bgpd::driver::check(path)?;
        println!("{} is right; peers: {peers}", path.display());
        return Ok(());
    }
    let filter = tracing_subscriber::EnvFilter::try_new(&args.log)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    bgpd::driver::run(args.options()).await
}
