//! Command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The node agent of Margay: routes, policy and addresses of one node.
#[derive(Debug, Clone, Parser)]
#[command(name = "margay-felix", version, after_help = EXAMPLES, subcommand_negates_reqs = true)]
pub struct Args {
    /// What to do instead of running.
    #[command(subcommand)]
    pub verb: Option<Verb>,

    /// Name of this node's Node object.
    #[arg(
        long,
        env = "NODE_NAME",
        required = true,
        default_value_if("verb", clap::builder::ArgPredicate::IsPresent, "")
    )]
    pub node_name: String,

    /// What to know while the Kubernetes API is not reachable: the node's own addresses; it may be missing.
    #[arg(long, env = "MARGAY_BOOTSTRAP", value_name = "FILE", default_value = api::paths::BOOTSTRAP_FILE)]
    pub bootstrap: PathBuf,

    /// Where the kernel says which boot this is.
    #[arg(
        long,
        env = "MARGAY_BOOT_ID_FILE",
        hide = true,
        default_value = "/proc/sys/kernel/random/boot_id"
    )]
    pub boot_id_file: PathBuf,

    /// Directory of the sockets; made with mode 0700.
    #[arg(long, env = "MARGAY_RUN_DIR", default_value = api::paths::RUN_DIR)]
    pub run_dir: PathBuf,

    /// Directory of the attachment log and the instance id.
    #[arg(long, env = "MARGAY_STATE_DIR", default_value = api::paths::STATE_DIR)]
    pub state_dir: PathBuf,

    /// Where 10-margay.conflist is written once the node can take pods.
    #[arg(long, env = "MARGAY_CNI_CONF_DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,

    /// Token for the controller, made for the audience margay-controller and read anew when it is needed. Without it the
    /// condition Programmed of policies does not know of this node.
    #[arg(
        long,
        env = "MARGAY_CONTROLLER_TOKEN",
        value_name = "FILE",
        default_value = "/var/run/secrets/margay/controller/token"
    )]
    pub controller_token: PathBuf,

    /// What to log, in tracing's notation.
    #[arg(long, env = "MARGAY_LOG", default_value = "info")]
    pub log: String,

    /// Log as JSON, one object a line.
    #[arg(long, env = "MARGAY_LOG_JSON")]
    pub log_json: bool,
}

/// What can be done instead of running.
#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    /// Take back what felix made on this node: the CNI configuration, routes, nexthop objects, the table inet margay, kernel
    /// settings. The attachment log and the blocks in the API stay.
    Uninstall {
        /// Also when pods still have interfaces: these are removed as well.
        #[arg(long)]
        force: bool,
    },
}

/// Writes the best routes of a margay-bgpd into the kernel where there is no felix. Needs NET_ADMIN; NET_RAW too where
/// bgpd has peers on interfaces.
#[derive(Debug, Clone, Parser)]
#[command(name = "margay-fib", version, after_help = FIB_EXAMPLES)]
pub struct FibArgs {
    /// Directory of bgpd's socket, and of the lock that only one writer of routes holds.
    #[arg(long, env = "MARGAY_RUN_DIR", default_value = api::paths::RUN_DIR)]
    pub run_dir: PathBuf,

    /// Own address that packets to learnt prefixes carry; at most one of each family.
    #[arg(long, value_name = "ADDRESS")]
    pub source: Vec<IpAddr>,

    /// Where the kernel tells boots apart.
    #[arg(
        long,
        env = "MARGAY_BOOT_ID_FILE",
        hide = true,
        default_value = "/proc/sys/kernel/random/boot_id"
    )]
    pub boot_id_file: PathBuf,

    /// What to log, in tracing's notation.
    #[arg(long, env = "MARGAY_LOG", default_value = "info")]
    pub log: String,

    /// Log as JSON, one object a line.
    #[arg(long, env = "MARGAY_LOG_JSON")]
    pub log_json: bool,
}

const FIB_EXAMPLES: &str = "\
Examples:
  margay-bgpd --config bgpd.yaml & margay-fib
      a BGP router: what the one learns, the other enters
  margay-fib --source 192.0.2.1 --source 2001:db8::1
      packets of this machine carry these addresses, whichever link they take

Routes have protocol 78 and metric 128; routes of others are never touched. They stay when margay-fib or bgpd ends, and are
taken up by the next life: nothing is removed before bgpd has said all it knows. With waitForFelix: true in bgpd's file its
peers are told truly whether the routes outlived a restart.";

const EXAMPLES: &str = "\
Examples:
  margay-felix --node-name n1
      on a node with its service account or $KUBECONFIG
  margay-felix --node-name n1 --run-dir /tmp/n1/run --state-dir /tmp/n1/state --cni-conf-dir /tmp/n1/cni
      beside another one, in a network namespace of its own
  margay-felix --node-name n1 --log info,felix=debug
      say more
  margay-felix uninstall
      leave the node as it was; give the directories as they were given to run it

The Kubernetes API is found as kubectl finds it ($KUBECONFIG, ~/.kube/config), else by the pod's service account.
What it knows: margayctl status | endpoints | ipam show | policy list.";
