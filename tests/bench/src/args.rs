//! The command line.

use std::time::Instant;

use anyhow::Result;
use clap::{Parser, Subcommand};
use lab::Lab;

use crate::ground::Ground;
use crate::{bgp, cni, pods, policy, usage};

const EXAMPLES: &str = "\
Examples:
  bench                        everything, about three minutes
  bench cni -n 30              30 attachments with ours and with ptp, one at a time and 8 at once
  bench pods -n 10             10 pods and 10 policies, timed from the API to the packet
  bench policy                 changes, a cold start and packets under policy
  bench policy updates -p 1000,10000
  bench bgp                    every row of the BGP table, five runs of each
  bench bgp single-1m -r 3     a million routes through bgpd and through BIRD, three times in turn
  bench bgp -n 2000 -r 1       every row with 2,000 routes, once: does it still run?
  bench bgp ping-1 -s margay-bgpd,bird,null -o json

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

#[derive(Debug, Clone, Subcommand)]
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
    /// Routes through bgpd, and through the speakers of Debian
    Bgp(bgp::Choice),
    /// Policy: what a change costs, and what a packet
    Policy(policy::Choice),
    /// A cold start, for `policy`
    #[command(hide = true)]
    PolicyCold { pods: u32, policies: u32 },
    /// The relay without a table, for `bgp`
    #[command(hide = true)]
    BgpRelay { asn: u32 },
}

const ATTACHMENTS: u32 = 100;
const PODS: u32 = 20;

/// Does what was asked for.
pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    match &args.what {
        Some(What::BgpRelay { asn }) => return bgp::relay(*asn),
        Some(What::PolicyCold { pods, policies }) => return policy::cold(*pods, *policies),
        Some(What::Bgp(choice)) if choice.only_list() => {
            bgp::list();
            return Ok(());
        }
        _ => {}
    }
    let ground = Ground::new()?;
    eprintln!("{}", usage::machine());
    match &args.what {
        None => {
            let lab = lab(&ground)?;
            pods::run(&lab, PODS)?;
            cni::run(&ground, &lab, ATTACHMENTS)?;
            drop(lab);
            policy::run(&ground, &policy::Choice::default())?;
            bgp::run(&ground, &bgp::Choice::default())?;
        }
        Some(What::Cni { n }) => cni::run(&ground, &lab(&ground)?, *n)?,
        Some(What::Pods { n }) => pods::run(&lab(&ground)?, *n)?,
        Some(What::Bgp(choice)) => bgp::run(&ground, choice)?,
        Some(What::Policy(choice)) => policy::run(&ground, choice)?,
        Some(What::BgpRelay { .. } | What::PolicyCold { .. }) => {}
    }
    drop(ground);
    eprintln!("done in {:.0} s", start.elapsed().as_secs_f64());
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
            let argv = example.split("    ").next().unwrap();
            let argv = format!("bench{argv}");
            Args::try_parse_from(argv.split_whitespace()).unwrap();
            count += 1;
        }
        assert_eq!(count, 9);
    }
}
