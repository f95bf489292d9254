//! Command line of the controller.

use std::net::{IpAddr, SocketAddr};

use clap::Parser;

const EXAMPLES: &str = "\
Examples:
  margay-controller --advertise $HOST_IP
      in its Deployment, in the network of its node
  margay-controller --advertise 192.0.2.7 --listen 192.0.2.7:9453 --health 192.0.2.7:9454
      by hand, with $KUBECONFIG

Several may run: one leads, by the Lease margay-controller in their namespace. Where the leader is, and with which certificate,
is in the ConfigMap of the same name, for felix. Without any controller everything is enforced as with one; only the condition
Programmed of policies stays as it is.";

/// Says where policies are enforced: the condition Programmed, counted from what felix reports from every node.
#[derive(Debug, Clone, Parser)]
#[command(name = "margay-controller", version, after_help = EXAMPLES)]
pub struct Args {
    /// Where felix connects, gRPC over TLS.
    #[arg(long, env = "MARGAY_LISTEN", default_value = "[::]:9453")]
    pub listen: SocketAddr,

    /// Addresses under which all nodes reach this process; one of each family at most.
    #[arg(
        long,
        env = "MARGAY_ADVERTISE",
        value_name = "ADDRESS",
        required = true,
        value_delimiter = ','
    )]
    pub advertise: Vec<IpAddr>,

    /// Where /healthz and /readyz are answered.
    #[arg(long, env = "MARGAY_HEALTH", default_value = "[::]:9454")]
    pub health: SocketAddr,

    /// Name of felix' service account, in the controller's own namespace.
    #[arg(long, env = "MARGAY_FELIX_ACCOUNT", default_value = "margay-felix")]
    pub felix_account: String,

    /// How long others leave the lease to a leader that is gone.
    #[arg(long, env = "MARGAY_LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..=600))]
    pub lease_seconds: u16,

    /// What to log, in tracing's notation.
    #[arg(long, env = "MARGAY_LOG", default_value = "info")]
    pub log: String,

    /// Log as JSON, one object a line.
    #[arg(long, env = "MARGAY_LOG_JSON")]
    pub log_json: bool,
}
