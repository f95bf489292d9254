//! The command line.

pub(crate) mod policy;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnetwork::IpNetwork;

pub(crate) use self::policy::Policy;

const EXAMPLES: &str = "\
Examples:
  margayctl status                          is this node well?
  margayctl bgp neighbors                   sessions, and what was exchanged
  margayctl bgp neighbor 192.0.2.1          one of them, with all that was agreed on
  margayctl bgp bfd                         BFD sessions, and how fast they see a failure
  margayctl bgp routes 10.244.0.0/26        every path to a prefix, and why it is (not) the best
  margayctl bgp routes 10.244.0.7           the same for the prefixes that contain an address
  margayctl bgp routes --neighbor 192.0.2.1 what one neighbour sent
  margayctl bgp advertised 192.0.2.1        what it is told
  margayctl bgp explain 10.244.0.0/26       why a prefix is (not) taken, used and told: every step
  margayctl bgp drain                       move service addresses away from this node
  margayctl bgp neighbors --watch           sessions again every 2 s, until Ctrl-C
  margayctl endpoints -o wide               the node's pods, with the policies that select them
  margayctl ipam show -o json | jq .        blocks and every address in use
  margayctl policy explain --from shop/web --to db/pg --port 5432
                                            why a flow is (not) allowed, and what to do
  margayctl policy what-if -f new.yaml      who could not talk any more, and who could then
  margayctl policy unused                   policies and rules that do nothing
  margayctl policy events --watch           packets as they are denied, with policy and rule

Exit codes: 0 done, 1 failed or a daemon does not answer, 2 wrong usage, 3 the flow is denied.";

const NEIGHBOR_EXAMPLES: &str = "\
Examples:
  margayctl bgp neighbor 192.0.2.1          by its address
  margayctl bgp neighbor rack-a-tor         by the name of its BGPPeer
  margayctl bgp neighbor eth0               the one on an interface";

const ROUTES_EXAMPLES: &str = "\
Examples:
  margayctl bgp routes                      every path
  margayctl bgp routes 10.244.0.7           prefixes that contain an address
  margayctl bgp routes 10.244.0.0/16 --longer
  margayctl bgp routes --neighbor local     what this node originates
  margayctl bgp routes --community 65535:0 -o wide";

const ADVERTISED_EXAMPLES: &str = "\
Examples:
  margayctl bgp advertised 192.0.2.1
  margayctl bgp advertised eth0 -o yaml";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  margayctl bgp explain 10.244.0.0/26
  margayctl bgp explain 10.244.0.7          the longest prefix that contains it
  margayctl bgp explain 10.244.0.0/26 --peer 192.0.2.1";

const DRAIN_EXAMPLES: &str = "\
Examples:
  margayctl bgp drain                       addresses of services leave
  margayctl bgp drain --everything          blocks without pods too
  margayctl bgp drain --everything --force  blocks with pods too: they are cut off
  margayctl bgp drain --peer 192.0.2.1      only the way over one ToR, before it is worked on
  margayctl bgp drain --show --watch        how far it has come
  margayctl bgp drain --undo                back into use (--peer 192.0.2.1 --undo: that ToR)

The annotation margay.io/drain=services or =everything of the Node does the same from afar.";

/// Shows what Margay's daemons on this node know and have in force.
#[derive(Debug, Parser)]
#[command(name = "margayctl", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Heading of what is not of one command only.
const COMMON: &str = "Options of every command";

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// How to print
    #[arg(help_heading = COMMON, short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Directory of the daemons' sockets
    #[arg(help_heading = COMMON, long, global = true, env = "MARGAY_RUN_DIR", default_value = api::paths::RUN_DIR)]
    pub(crate) run_dir: PathBuf,
    /// felix's socket [default: felix.sock in the run directory]
    #[arg(help_heading = COMMON, long, global = true, env = "MARGAY_NODE_SOCKET", value_name = "PATH")]
    pub(crate) node_socket: Option<PathBuf>,
    /// bgpd's socket [default: bgpd.sock in the run directory]
    #[arg(help_heading = COMMON, long, global = true, env = "MARGAY_BGPD_SOCKET", value_name = "PATH")]
    pub(crate) bgpd_socket: Option<PathBuf>,
    /// Seconds to wait for an answer
    #[arg(help_heading = COMMON, long, global = true, default_value = "10", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// Ask again and again, every 2 seconds or as many as said, until Ctrl-C
    #[arg(
        help_heading = COMMON,
        short,
        long,
        global = true,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = seconds
    )]
    pub(crate) watch: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Columns that fit a terminal
    Table,
    /// The table with every column, never cut
    Wide,
    /// One JSON document; the field names are those of the API
    Json,
    /// The same in YAML
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Is this node well: both daemons, what they hold, what needs somebody
    Status,
    /// The BGP speaker
    #[command(subcommand)]
    Bgp(Bgp),
    /// Addresses
    #[command(subcommand)]
    Ipam(Ipam),
    /// Workload endpoints of this node
    Endpoints,
    /// Policies
    #[command(subcommand)]
    Policy(Policy),
}

impl Command {
    /// Whether --watch makes it go on, instead of asking again.
    pub(crate) fn streams(&self) -> bool {
        matches!(self, Self::Policy(Policy::Events { .. }))
    }

    /// Whether it does something else than to show.
    pub(crate) fn changes_something(&self) -> bool {
        matches!(self, Self::Bgp(Bgp::Drain { show: false, .. }))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bgp {
    /// Sessions: state, routes exchanged, last error
    #[command(visible_alias = "neighbours")]
    Neighbors,
    /// One session with all that was agreed on: capabilities, restarts, limits, messages, the last error
    #[command(visible_alias = "neighbour", after_help = NEIGHBOR_EXAMPLES)]
    Neighbor {
        /// The neighbour's address, interface or name
        #[arg(value_name = "ADDRESS")]
        neighbor: String,
    },
    /// BFD sessions: state, intervals, what was dropped
    Bfd,
    /// Paths: which is best, and why the others are not
    #[command(after_help = ROUTES_EXAMPLES)]
    Routes {
        /// Prefix (10.244.0.0/26: exactly that one) or address (the prefixes that contain it)
        #[arg(value_parser = prefix)]
        prefix: Option<String>,
        /// Only paths from this neighbour's address, or `local`
        #[arg(long, value_name = "ADDRESS", visible_alias = "peer", value_parser = neighbor)]
        neighbor: Option<String>,
        /// Prefixes inside PREFIX as well
        #[arg(long, requires = "prefix", conflicts_with = "shorter")]
        longer: bool,
        /// Prefixes that PREFIX is inside of as well
        #[arg(long, requires = "prefix")]
        shorter: bool,
        /// Only paths that originate in this AS
        #[arg(long, value_name = "AS")]
        origin_as: Option<u32>,
        /// Only paths with this community: 64512:100, 64512:1:2 or a name as no-export
        #[arg(long)]
        community: Option<String>,
    },
    /// Routes a neighbour is told, with the attributes it is told
    #[command(after_help = ADVERTISED_EXAMPLES)]
    Advertised {
        /// The neighbour's address
        #[arg(value_name = "ADDRESS", value_parser = neighbor)]
        neighbor: String,
    },
    /// Why a prefix is used as it is: import, decision and export, step by step
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain {
        /// Prefix, or address (the longest prefix that contains it)
        #[arg(value_parser = prefix)]
        prefix: String,
        /// Only what concerns this neighbour's address
        #[arg(long, value_name = "ADDRESS", visible_alias = "neighbor", value_parser = neighbor)]
        peer: Option<String>,
    },
    /// Take this node out of use: told as the last to be used for 30 s, then withdrawn
    ///
    /// Without options the addresses of services leave. It stays so when bgpd restarts, until --undo.
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain {
        /// Blocks without pods, and routes passed on, leave too
        #[arg(long)]
        everything: bool,
        /// Blocks with pods leave too: their pods are cut off
        #[arg(long)]
        force: bool,
        /// Only the way over this neighbour: everything told to it leaves, what it says is the last to be used
        #[arg(long, value_name = "ADDRESS", value_parser = neighbor, conflicts_with_all = ["everything", "force"])]
        peer: Option<String>,
        /// Back into use
        #[arg(long, conflicts_with_all = ["everything", "force"])]
        undo: bool,
        /// Only say what is drained
        #[arg(long, conflicts_with_all = ["everything", "force", "peer", "undo"])]
        show: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ipam {
    /// Blocks of this node and their use
    Show,
}

fn prefix(text: &str) -> Result<String, String> {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let wrong =
        |_| format!("`{text}` is neither a prefix like 10.244.0.0/26 or fd00::/122 nor an address");
    let net: IpNetwork = text.parse().map_err(wrong)?;
    let masked = format!("{}/{}", net.network(), net.prefix());
    if net.ip() == net.network() {
        Ok(masked)
    } else {
        Err(format!(
            "`{text}` has bits beyond its length, did you mean {masked}?"
        ))
    }
}

fn neighbor(text: &str) -> Result<String, String> {
    // IFNAMSIZ leaves 15 bytes for an interface's name.
    let interface = |text: &str| {
        (1..=15).contains(&text.len())
            && !text.contains(['/', ':', ' '])
            && text.contains(char::is_alphabetic)
    };
    if text == "local" || text.parse::<std::net::IpAddr>().is_ok() || interface(text) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` is neither an address, nor an interface, nor `local`"
        ))
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .filter(|d| !d.is_zero())
        .ok_or_else(|| format!("`{text}` is not a number of seconds above 0"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_prefix_with_host_bits_is_answered_with_the_masked_one() {
        assert_eq!(prefix("10.0.0.0/8").unwrap(), "10.0.0.0/8");
        assert_eq!(prefix("fd00::1").unwrap(), "fd00::1");
        assert!(prefix("10.1.2.3/8").unwrap_err().contains("10.0.0.0/8"));
        assert!(prefix("banana").unwrap_err().contains("like 10.244.0.0/26"));
    }

    #[test]
    fn a_timeout_must_be_a_positive_number() {
        assert_eq!(seconds("0.5").unwrap(), Duration::from_millis(500));
        for bad in ["0", "-1", "soon", "inf"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
