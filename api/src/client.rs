//! Clients of a node's daemons, with errors that say what to do next.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::local;
use crate::v1::bgp_status_client::BgpStatusClient;
use crate::v1::node_status_client::NodeStatusClient;

/// A daemon with a gRPC socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// The node agent.
    Felix,
    /// The BGP speaker.
    Bgpd,
}

impl Daemon {
    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Felix => "felix",
            Self::Bgpd => "bgpd",
        }
    }

    /// Its program.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Felix => "margay-felix",
            Self::Bgpd => "margay-bgpd",
        }
    }
}

/// Why a daemon did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on its socket.
    #[error("{name} does not answer on {path}: is {program} running on this node?{hint}",
        name = daemon.name(), program = daemon.program(), path = path.display(),
        hint = socket_hint(*missing))]
    Unreachable {
        /// Who.
        daemon: Daemon,
        /// Where.
        path: PathBuf,
        /// There is no socket at all, so it may be looked for in the wrong place.
        missing: bool,
    },
    /// This user may not open the socket.
    #[error("{} may only be opened by root: run margayctl as root", path.display())]
    Forbidden {
        /// The socket.
        path: PathBuf,
    },
    /// Somebody listens, but the connection failed.
    #[error("cannot talk to {name} on {path}: {source}", name = daemon.name(), path = path.display())]
    Connect {
        /// Who.
        daemon: Daemon,
        /// Where.
        path: PathBuf,
        /// The transport's error.
        source: std::io::Error,
    },
    /// The call was answered with an error.
    #[error("{}", describe(*daemon, status))]
    Call {
        /// Who.
        daemon: Daemon,
        /// Its answer.
        status: Box<Status>,
    },
}

fn socket_hint(missing: bool) -> &'static str {
    if missing {
        " If its sockets are elsewhere, give --run-dir."
    } else {
        ""
    }
}

fn describe(daemon: Daemon, status: &Status) -> String {
    let (name, program) = (daemon.name(), daemon.program());
    match status.code() {
        Code::Unimplemented => format!(
            "{name} does not know this call: {program} is of another version than margayctl, use the margayctl that came with it"
        ),
        Code::DeadlineExceeded | Code::Cancelled => {
            format!("{name} took too long to answer: look at its log, or give a longer --timeout")
        }
        Code::Unavailable => format!("{name} is not available: {}", status.message()),
        Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition => {
            status.message().to_owned()
        }
        code => format!("{name} answered {code:?}: {}", status.message()),
    }
}

impl Error {
    /// Turns the answer of a call into an error.
    pub fn call(daemon: Daemon) -> impl Fn(Status) -> Self {
        move |status| Self::Call {
            daemon,
            status: Box::new(status),
        }
    }
}

async fn open(daemon: Daemon, path: &Path, timeout: Duration) -> Result<Channel, Error> {
    let answer = tokio::time::timeout(timeout, local::connect(path, Some(timeout)))
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(ErrorKind::TimedOut)));
    answer.map_err(|source| match source.kind() {
        kind @ (ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::NotADirectory) => {
            Error::Unreachable {
                daemon,
                path: path.to_owned(),
                missing: kind != ErrorKind::ConnectionRefused,
            }
        }
        ErrorKind::PermissionDenied => Error::Forbidden {
            path: path.to_owned(),
        },
        _ => Error::Connect {
            daemon,
            path: path.to_owned(),
            source,
        },
    })
}

/// Connects to felix's socket.
///
/// # Errors
///
/// When felix does not answer there within `timeout`.
pub async fn felix(path: &Path, timeout: Duration) -> Result<NodeStatusClient<Channel>, Error> {
    open(Daemon::Felix, path, timeout)
        .await
        .map(|channel| NodeStatusClient::new(channel).max_decoding_message_size(ANSWER_MAX))
}

/// Connects to bgpd's socket.
///
/// # Errors
///
/// When bgpd does not answer there within `timeout`.
pub async fn bgpd(path: &Path, timeout: Duration) -> Result<BgpStatusClient<Channel>, Error> {
    open(Daemon::Bgpd, path, timeout)
        .await
        .map(|channel| BgpStatusClient::new(channel).max_decoding_message_size(ANSWER_MAX))
}

/// Largest answer taken, in bytes: a list of a million routes, a table of a million elements.
const ANSWER_MAX: usize = 512 << 20;
