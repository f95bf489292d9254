//! The embedded API server as a program. See `apiserver --help`.

use std::io::Write as _;

use anyhow::Context as _;
use apiserver::{Args, Server};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let server = Server::start(Args::parse().into())
        .await
        .context("cannot start")?;
    let listening = server
        .addresses
        .iter()
        .map(|address| format!("listening on https://{address}\n"));
    let kubectl = format!(
        "kubectl --kubeconfig {} get namespaces\n",
        server.kubeconfig.display()
    );
    let text = listening.chain([kubectl]).collect::<String>();
    // Whoever started the server may not want to hear it.
    let _unheard = std::io::stdout().write_all(text.as_bytes());
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot handle SIGINT")?,
    }
    server.stop().await;
    Ok(())
}
