//! `margay-controller`: what one process does for the whole cluster.

use clap::Parser;
use ipam::args::Args;
use ipam::controller;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    controller::log(&args)?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(controller::run(args))
}
