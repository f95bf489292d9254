//! `bench`: figures beside those of others.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match bench::args::run(&bench::args::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
