//! The server: opens the store and the listeners, writes the kubeconfig, serves connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{self, App};
use crate::calls::Calls;
use crate::listen::Listen;
use crate::status::ApiError;
use crate::store::Store;
use crate::tls::{self, TlsError};
use crate::tokens::Tokens;
use crate::{base64, clock, random};

/// How a server is started.
#[derive(Debug, Clone)]
pub struct Config {
    /// For certificates, token and kubeconfig; made if it is not there.
    pub dir: PathBuf,
    /// The file that keeps the objects; without it they go with the process.
    pub data: Option<PathBuf>,
    /// Where to listen; the kubeconfig names the first.
    pub listen: Vec<Listen>,
    /// Events kept per kind: how far back a watch can start.
    pub history: usize,
    /// The file that gets a line for each kind of call; see [`crate::calls`].
    pub calls: Option<PathBuf>,
}

impl Config {
    /// A server for tests: a free port of 127.0.0.1, objects in memory only.
    pub fn local(dir: impl Into<PathBuf>) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            dir: dir.into(),
            data: None,
            listen: vec![address.into()],
            history: DEFAULT_HISTORY,
            calls: None,
        }
    }
}

/// The events kept per kind if nothing else is asked for.
pub const DEFAULT_HISTORY: usize = 4096;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory or the kubeconfig.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A listener.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// Where.
        listen: Listen,
        /// Why not.
        source: io::Error,
    },
    /// The first objects.
    #[error("cannot set up the store: {0}")]
    Store(#[from] ApiError),
}

/// Starts servers.
#[derive(Debug)]
pub struct Server;

/// A running server; dropping it stops the server.
#[derive(Debug)]
pub struct Handle {
    /// Where it listens, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    /// The kubeconfig written.
    pub kubeconfig: PathBuf,
    app: Arc<App>,
    tasks: TaskTracker,
}

impl Server {
    /// Starts a server; it answers when this returns.
    pub async fn start(config: Config) -> Result<Handle, StartError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| StartError::File { path, source }
        };
        std::fs::create_dir_all(&config.dir).map_err(at(&config.dir))?;
        let data = config.data.as_deref();
        let store = Store::open(data, config.history).map_err(at(data.unwrap_or(&config.dir)))?;
        let ips: Vec<IpAddr> = config
            .listen
            .iter()
            .map(|listen| listen.address.ip())
            .collect();
        let identity = tls::identity(&config.dir, &ips)?;
        let token = token(&config.dir)?;
        let calls = match &config.calls {
            None => Calls::default(),
            Some(path) => Calls::open(path).map_err(at(path))?,
        };
        let path = config.dir.join("service-account-tokens");
        let tokens = Tokens::open(&path).map_err(at(&path))?;
        let app = Arc::new(App::new(store, token.clone(), calls, tokens)?);
        let mut listeners = Vec::new();
        for listen in &config.listen {
            let bound = listen.bind().and_then(TcpListener::from_std);
            listeners.push(bound.map_err(|source| StartError::Listen {
                listen: listen.clone(),
                source,
            })?);
        }
        let addresses: Vec<SocketAddr> = listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect();
        let kubeconfig = config.dir.join("kubeconfig");
        if let Some(first) = addresses.first() {
            tls::write_private(
                &kubeconfig,
                &render_kubeconfig(*first, &identity.ca, &token),
            )?;
        }
        let router = Router::new()
            .fallback(app::handle)
            .with_state(Arc::clone(&app));
        let tasks = TaskTracker::new();
        for listener in listeners {
            let (router, tls) = (router.clone(), Arc::clone(&identity.config));
            tasks.spawn(accept(
                listener,
                tls,
                router,
                app.stopping.clone(),
                tasks.clone(),
            ));
        }
        tasks.spawn(expire_events(Arc::clone(&app)));
        tasks.close();
        Ok(Handle {
            addresses,
            kubeconfig,
            app,
            tasks,
        })
    }
}

impl Handle {
    /// Ends the watches and the listeners, and waits until the last connection is closed (at most a second).
    pub async fn stop(self) {
        self.app.stopping.cancel();
        // What is left are clients that keep an idle connection open; nothing is lost with those.
        let _elapsed = tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.app.stopping.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    stopping: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                tasks.spawn(serve(
                    stream,
                    TlsAcceptor::from(Arc::clone(&tls)),
                    router.clone(),
                    stopping.clone(),
                ));
            }
            Err(error) => {
                // Out of file descriptors, say: connections that end free some.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn expire_events(app: Arc<App>) {
    let mut minutes = tokio::time::interval(Duration::from_secs(60));
    while app
        .stopping
        .run_until_cancelled(minutes.tick())
        .await
        .is_some()
    {
        app.expire_events(clock::now());
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, router: Router, stopping: CancellationToken) {
    // Events are small and many wait for them: they must not be held back to fill a segment.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let stream = match tls.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "TLS handshake failed"),
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Each watch is a stream of its own, and one client may have many.
    builder.http2().max_concurrent_streams(4096);
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// The bearer token in `dir`, made at the first start.
fn token(dir: &Path) -> Result<String, StartError> {
    let path = dir.join("token");
    match std::fs::read_to_string(&path) {
        Ok(token) if !token.trim().is_empty() => Ok(token.trim().to_owned()),
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(StartError::File { path, source })
        }
        _ => {
            let token = random::hex(16);
            tls::write_private(&path, &token)?;
            Ok(token)
        }
    }
}

fn render_kubeconfig(address: SocketAddr, ca: &str, token: &str) -> String {
    let ca = base64::encode(ca.as_bytes());
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: margay\n\
         \x20 cluster:\n\
         \x20   server: https://{address}\n\
         \x20   certificate-authority-data: {ca}\n\
         users:\n\
         - name: admin\n\
         \x20 user:\n\
         \x20   token: {token}\n\
         contexts:\n\
         - name: margay\n\
         \x20 context:\n\
         \x20   cluster: margay\n\
         \x20   user: admin\n\
         current-context: margay\n"
    )
}
