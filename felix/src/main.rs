//! `margay-felix`, the node agent.

use clap::Parser;
use felix::args::Args;
use felix::driver;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    driver::log(&args)?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(driver::run(args))
}
