//! The command line.

use std::time::Instant;

use anyhow::Result;
use clap::{Parser, Subcommand};
use lab::Lab;

use crate::ground::Ground;
use crate::{bgp, cni, pods, usage};

const EXAMPLES: &str = "\
Examples:
  bench                        everything, about three minutes
  bench cni -n 30              30 attachments with ours and with ptp, one at a time and 8 at once
  bench pods -n 10             10 pods and 10 policies, timed from the API to the packet
  bench bgp -n 20000 -r 1      20,000 routes through bgpd and through BIRD, once each

It runs as root and makes namespaces and files of its own (/tmp/margay-bench-PID), which are gone afterwards, also after
an interrupt. The daemons are looked for beside this binary, or in MARGAY_BIN_DIR. A ratio below 1 means less than the
other one's. No figure makes it fail: the machine decides about figures, the ratios are what to look at.";

/// Measures ours beside what others use for the same work.
#[derive(Debug, Parser)]
#[command(name = "bench", version, after_help = EXAMPLES, max_term_width = 120)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum What {
    /// ADD and DEL of the plugin, beside ptp + host-local
    Cni {
        /// How many attachments
        #[arg(short, default_value_t = ATTACHMENTS, value_parser = clap::value_parser!(u32).range(1..=250))]
        n: u32,
    },
    /// From the API to the packet: a new pod, a new policy
    Pods {
        /// How many pods, and how many policies
        #[arg(short, default_value_t = PODS, value_parser = clap::value_parser!(u32).range(1..))]
        n: u32,
    },
    /// Routes from a BIRD to a BIRD, through bgpd and through BIRD
    Bgp {
        /// How many routes
        #[arg(short, default_value_t = ROUTES, value_parser = clap::value_parser!(u32).range(1..=200_000))]
        n: u32,
        /// How many rounds of each
        #[arg(short, long, default_value_t = ROUNDS, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
}

const ATTACHMENTS: u32 = 100;
const PODS: u32 = 20;
const ROUTES: u32 = 100_000;
const ROUNDS: u32 = 3;

/// Does what was asked for.
pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let ground = Ground::new()?;
    println!("{}", usage::machine());
    match args.what {
        None => {
            let lab = lab(&ground)?;
            pods::run(&lab, PODS)?;
            cni::run(&ground, &lab, ATTACHMENTS)?;
            drop(lab);
            bgp::run(&ground, ROUTES, ROUNDS)?;
        }
        Some(What::Cni { n }) => cni::run(&ground, &lab(&ground)?, n)?,
        Some(What::Pods { n }) => pods::run(&lab(&ground)?, n)?,
        Some(What::Bgp { n, rounds }) => bgp::run(&ground, n, rounds)?,
    }
    drop(ground);
    println!(
        "\n{}\ndone in {:.0} s",
        usage::machine(),
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// A lab of three nodes, with the time it took.
fn lab(ground: &Ground) -> Result<Lab> {
    let start = Instant::now();
    let lab = ground.lab()?;
    println!(
        "lab up, three nodes Ready: {:.1} s",
        start.elapsed().as_secs_f64()
    );
    Ok(lab)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_examples_are_understood() {
        let examples = EXAMPLES
            .lines()
            .filter_map(|line| line.strip_prefix("  bench"));
        let mut count = 0;
        for example in examples {
            let (argv, _) = example.split_once("    ").unwrap();
            let argv = format!("bench{argv}");
            Args::try_parse_from(argv.split_whitespace()).unwrap();
            count += 1;
        }
        assert_eq!(count, 4);
    }
}
