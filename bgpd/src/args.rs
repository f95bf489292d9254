//! The command line of `margay-bgpd`.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::driver::{Options, Source};

const EXAMPLES: &str = "\
Examples:
  margay-bgpd --config bgpd.yaml            speak BGP from a file, without Kubernetes
  margay-bgpd --config bgpd.yaml --check    say whether the file is right, and end
  margay-bgpd --node-name n1                configuration from the Kubernetes API (KUBECONFIG or in-cluster)
  margay-bgpd --schema > bgpd.schema.json   the JSON Schema of the file, for editors
  margay-bgpd replay run.jsonl              what a run recorded with --record did, and whether it does so again
  margayctl bgp neighbors                   ask the running one

A file:
  asNumber: 4200000001
  routerID: 192.0.2.1
  peers:
  - {name: tor-a, peerIP: 192.0.2.254, asNumber: 64601, families: [ipv4, ipv6]}
  pools:
  - {cidr: 10.244.0.0/16}                   blocks of these are imported
  - {cidr: fd00:10:244::/48}
  origins: [10.244.0.0/26, fd00:10:244::/122]
  # peers have the fields of a BGPPeer and export (origins, reflect, transit), import (pools, all);
  # every field: docs/bgp.md, and --schema for editors

It is followed: a change is applied by difference, a mistake leaves the last good one in force.
Exit codes: 0 ended by SIGTERM or the file is right, 1 failed, 2 wrong usage.";

/// A BGP speaker for one node. It never writes to the kernel: routes go to felix.
#[derive(Debug, Parser)]
#[command(name = "margay-bgpd", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    /// Something else than to run
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Read the configuration from this file instead of the Kubernetes API
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Only check the file
    #[arg(long, requires = "config")]
    pub check: bool,
    /// Print the JSON Schema of the file, and end
    #[arg(long)]
    pub schema: bool,
    /// Name of this node's Node object
    #[arg(long, env = "NODE_NAME", required_unless_present_any = ["config", "schema"])]
    pub node_name: Option<String>,
    /// What to start with while the Kubernetes API is not reachable; it may be missing
    #[arg(
        long,
        env = "MARGAY_BOOTSTRAP",
        value_name = "FILE",
        default_value = api::paths::BOOTSTRAP_FILE
    )]
    pub bootstrap: PathBuf,
    /// Directory of the sockets
    #[arg(long, env = "MARGAY_RUN_DIR", default_value = api::paths::RUN_DIR)]
    pub run_dir: PathBuf,
    /// Directory of the last good configuration
    #[arg(long, env = "MARGAY_STATE_DIR", default_value = api::paths::STATE_DIR)]
    pub state_dir: PathBuf,
    /// Record every input of the speaker to this new file, to replay a run later
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// What to log: a level, or targets with levels (info,bgpd=debug)
    #[arg(
        long,
        env = "MARGAY_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log: String,
    /// How to log
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// What can be done besides running.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the speaker of a recording again, without a network; fails when it does not do the same
    Replay {
        /// The recording: what --record wrote
        file: PathBuf,
        /// Stop before inputs later than that many milliseconds after the start
        #[arg(long, value_name = "MILLISECONDS")]
        until: Option<u64>,
        /// Print every input and output
        #[arg(long, short)]
        verbose: bool,
    },
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Args {
    /// What the driver needs to know.
    #[must_use]
    pub fn options(self) -> Options {
        let source = match (self.config, self.node_name) {
            (Some(path), _) => Source::File(path),
            (None, node) => Source::Kubernetes {
                node: node.expect("clap requires one of the two"),
                bootstrap: self.bootstrap,
            },
        };
        Options {
            source,
            run_dir: self.run_dir,
            state_dir: self.state_dir,
            record: self.record,
        }
    }
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
    fn the_file_of_the_help_is_right() {
        let text = EXAMPLES
            .split("A file:\n")
            .nth(1)
            .unwrap()
            .split("\n\n")
            .next()
            .unwrap();
        let plain: Vec<&str> = text
            .lines()
            .map(|l| l.split("       ").next().unwrap())
            .collect();
        let file = crate::config::file::parse(&plain.join("\n")).unwrap();
        assert_eq!((file.config.peers.len(), file.config.origins.len()), (1, 2));
    }
}
