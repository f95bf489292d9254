//! What the processes of all daemons begin and end with.

use std::io;

use kube::{Client, Config, Error};
use tokio::signal::unix::{SignalKind, signal};
pub use tonic::codegen::http::HeaderValue;
use tonic::codegen::http::header::USER_AGENT;

/// Done when the process is asked to stop, by SIGTERM or SIGINT; the log says then what `stays` in force. The signals are
/// waited for from the call on, not only from the first poll.
///
/// # Errors
///
/// When the signals cannot be waited for.
pub fn stopped(stays: &str) -> io::Result<impl Future<Output = ()> + use<'_>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("stopping; {stays}");
    })
}

/// A client of the Kubernetes API, configured by the environment, that says who it is: the API server's audit log has it.
///
/// # Errors
///
/// When there is neither a kubeconfig nor a service account, or what is there cannot be used.
pub async fn kubernetes(agent: HeaderValue) -> Result<Client, Error> {
    let mut config = Config::infer().await.map_err(Error::InferConfig)?;
    config.headers.push((USER_AGENT, agent));
    Client::try_from(config)
}

/// Name and version of a daemon, as it tells them to servers.
#[macro_export]
macro_rules! agent {
    ($name:literal) => {
        $crate::daemon::HeaderValue::from_static(concat!($name, "/", env!("CARGO_PKG_VERSION")))
    };
}
