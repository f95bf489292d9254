//! Unix sockets of a node's daemons: serve one, connect to one.
//!
//! A daemon holds a lock beside its socket for as long as it serves, so a socket without a
//! holder is known to be left over and is replaced, and one with a living holder never is.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::Stream;
use tonic::transport::{Channel, Endpoint};

/// Why a socket could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A living process serves the socket.
    #[error("{} is served by another process: stop it first, or give this one a --run-dir of its own", .0.display())]
    InUse(PathBuf),
    /// The path is taken by something that is not a socket; it is not touched.
    #[error("{} exists and is not a socket: remove it, or give another --run-dir", .0.display())]
    NotASocket(PathBuf),
    /// The path has no directory or no file name.
    #[error("{} is not a path of a socket: give a file in a directory", .0.display())]
    BadPath(PathBuf),
    /// The kernel refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// A listening unix socket of mode 0600, in a directory of mode 0700.
///
/// It is a [`Stream`] of connections, as `Server::serve_with_incoming` wants it. Dropping it
/// removes the socket.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Locked while this process serves the path.
    _lock: File,
}

impl Listener {
    /// Binds `path`, making its directory, and replacing a socket that nobody serves any more.
    ///
    /// # Errors
    ///
    /// When another process serves the path, when it is not a socket, or when the kernel refuses.
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(ListenError::BadPath(path.to_owned()));
        };
        let fail = |action, path: &Path| {
            let path = path.to_owned();
            move |source| ListenError::Io {
                action,
                path,
                source,
            }
        };
        private_dir(dir).map_err(fail("make the private directory", dir))?;

        let mut lock_name = name.to_owned();
        lock_name.push(".lock");
        let lock_path = dir.join(lock_name);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(fail("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ListenError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(fail("lock", &lock_path)(source)),
        }
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ListenError::NotASocket(path.to_owned()));
            }
            _ => {}
        }
        // Bound under another name and renamed, so that whoever finds the socket may use it:
        // there is no moment with a wrong mode, or without a socket where a stale one was.
        let mut new_name = name.to_owned();
        new_name.push(".new");
        let new = dir.join(new_name);
        match std::fs::remove_file(&new) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(fail("remove the left-over", &new)(e));
            }
            _ => {}
        }
        let socket = UnixListener::bind(&new).map_err(fail("listen on", &new))?;
        std::fs::set_permissions(&new, Permissions::from_mode(0o600))
            .map_err(fail("restrict", &new))?;
        std::fs::rename(&new, path).map_err(fail("put in place", path))?;
        Ok(Self {
            socket,
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Stream for Listener {
    type Item = std::io::Result<UnixStream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.socket
            .poll_accept(cx)
            .map(|accepted| Some(accepted.map(|(stream, _)| stream)))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The lock is still held, so the socket at this path is ours. A failure leaves a stale
        // socket, which the next start replaces.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Makes `dir` with mode 0700, or narrows an existing one to it.
fn private_dir(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mode = std::fs::metadata(dir)?.permissions().mode();
    if mode & 0o077 != 0 {
        std::fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Connects to a daemon's socket; `timeout` bounds the connect and each call's answer, but a
/// stream's life is not bounded when it is `None`.
///
/// # Errors
///
/// When nobody listens there, or this user may not connect.
pub async fn connect(path: &Path, timeout: Option<Duration>) -> Result<Channel, std::io::Error> {
    // The first connection is made here and handed to the channel, so that the error a person
    // reads is the kernel's and not a chain of transport errors.
    let first = UnixStream::connect(path).await?;
    let mut first = Some(first);
    let path = path.to_owned();
    let mut endpoint = Endpoint::from_static("http://localhost");
    if let Some(timeout) = timeout {
        endpoint = endpoint.connect_timeout(timeout).timeout(timeout);
    }
    endpoint
        .connect_with_connector(tower::service_fn(move |_| {
            let ready = first.take();
            let path = path.clone();
            async move {
                let stream = match ready {
                    Some(stream) => stream,
                    None => UnixStream::connect(path).await?,
                };
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        }))
        .await
        .map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn makes_a_private_socket_in_a_private_directory() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("run/felix.sock");
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        UnixStream::connect(&path).await.unwrap();
        drop(listener);
        assert!(!path.exists(), "the socket goes with its listener");
    }

    #[tokio::test]
    async fn narrows_a_directory_that_others_may_enter() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::set_permissions(tmp.path(), Permissions::from_mode(0o755)).unwrap();
        let _listener = Listener::bind(&tmp.path().join("s")).unwrap();
        assert_eq!(mode(tmp.path()), 0o700);
    }

    #[tokio::test]
    async fn replaces_a_socket_nobody_serves_and_refuses_one_in_use() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("s");
        // What kill -9 leaves behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = Listener::bind(&path).unwrap();
        UnixStream::connect(&path).await.unwrap();
        let error = Listener::bind(&path).unwrap_err();
        assert!(matches!(error, ListenError::InUse(_)), "{error}");
        UnixStream::connect(&path)
            .await
            .expect("the refused bind left it alone");
        drop(listener);
        Listener::bind(&path).unwrap();
    }

    #[tokio::test]
    async fn leaves_a_file_alone() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        let error = Listener::bind(&path).unwrap_err();
        assert!(error.to_string().contains("is not a socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
