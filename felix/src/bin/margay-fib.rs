//! `margay-fib`: bgpd's best routes in the kernel, without felix.

use clap::Parser;
use felix::args::FibArgs;
use felix::driver;

fn main() -> anyhow::Result<()> {
    let args = FibArgs::parse();
    driver::log_as(&args.log, args.log_json)?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(driver::fib::run(args))
}
