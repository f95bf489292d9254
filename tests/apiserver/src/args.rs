//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::listen::Listen;
use crate::server::{Config, DEFAULT_HISTORY};

/// A small Kubernetes API server in one process, for one machine.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
    apiserver --dir /tmp/api\n  \
    kubectl --kubeconfig /tmp/api/kubeconfig get namespaces\n\n  \
    Objects kept over kill -9 and restart:\n  \
    apiserver --dir /tmp/api --data /tmp/api/data\n\n  \
    The same API in two network namespaces:\n  \
    apiserver --dir /tmp/api --listen 127.0.0.1:6443 --listen 127.0.0.1:6443@/run/netns/n1"
)]
pub struct Args {
    /// Directory for certificates, token and kubeconfig; kept, so that a restarted server is the same to clients
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// File that keeps the objects; without it they are in memory only
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Where to listen, ADDR:PORT or ADDR:PORT@/run/netns/NAME; may be repeated, the kubeconfig names the first
    #[arg(
        long,
        value_name = "ADDR:PORT[@NETNS]",
        default_value = "127.0.0.1:6443"
    )]
    listen: Vec<Listen>,
    /// Events kept per kind: a watch that starts further back gets 410 Gone
    #[arg(long, value_name = "N", default_value_t = DEFAULT_HISTORY)]
    history: usize,
    /// File that gets a line for each kind of call a client makes: what the rules of RBAC have to allow
    #[arg(long, value_name = "FILE")]
    calls: Option<PathBuf>,
}

impl From<Args> for Config {
    fn from(args: Args) -> Self {
        Self {
            dir: args.dir,
            data: args.data,
            listen: args.listen,
            history: args.history,
            calls: args.calls,
        }
    }
}
