//! Serves the plugin's frames on a unix socket.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use cni::frame::{self, Reply, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::agent::input::{CallId, Input};

/// A call with the way back to the plugin.
#[derive(Debug)]
pub struct Call {
    /// Its number.
    pub id: CallId,
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Reply>,
}

/// What the server tells the main loop.
#[derive(Debug)]
pub enum Event {
    /// The plugin asks.
    Call(Call),
    /// The plugin went away before it had its answer, or between Add and Ready.
    Hangup(CallId),
}

impl Event {
    /// The input for the agent, and the way back of a call.
    pub fn split(self) -> (Input, Option<(CallId, oneshot::Sender<Reply>)>) {
        match self {
            Self::Call(call) => (
                Input::Call(call.id, call.request),
                Some((call.id, call.answer)),
            ),
            Self::Hangup(id) => (Input::Hangup(id), None),
        }
    }
}

/// Listens on `path`, readable by root only. A socket that an earlier life left is replaced; anything else there is not.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => {
            let what = format!("{} exists and is not a socket: remove it", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Accepts until the main loop is gone.
pub async fn serve(listener: UnixListener, events: mpsc::Sender<Event>) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let id = NEXT.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(connection(stream, id, events.clone()));
            }
            Err(error) => {
                // Out of descriptors, most likely: those in use come back, so wait rather than spin.
                tracing::warn!(%error, "accepting a connection of the plugin");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
        if events.is_closed() {
            return;
        }
    }
}

/// One operation of the plugin: each request in turn, then the end of the connection.
async fn connection(mut stream: UnixStream, id: CallId, events: mpsc::Sender<Event>) {
    let served = async {
        while let Some(request) = read(&mut stream).await? {
            let (answer, answered) = oneshot::channel();
            let call = Call {
                id,
                request,
                answer,
            };
            if events.send(Event::Call(call)).await.is_err() {
                break;
            }
            let reply = tokio::select! {
                reply = answered => reply.map_err(io::Error::other)?,
                end = gone(&stream) => return Err(end),
            };
            stream.write_all(&frame::encode(&reply)?).await?;
        }
        io::Result::Ok(())
    };
    if let Err(error) = served.await {
        tracing::debug!(%error, id, "the plugin's connection ended early");
    }
    let _ = events.send(Event::Hangup(id)).await;
}

/// Done when the plugin has gone; it says nothing while it waits for an answer.
async fn gone(stream: &UnixStream) -> io::Error {
    loop {
        if let Err(error) = stream.readable().await {
            return error;
        }
        match stream.try_read(&mut [0]) {
            Ok(0) => return io::ErrorKind::ConnectionAborted.into(),
            Ok(_) => {
                return io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a request before the answer to the last",
                );
            }
            // Readiness may be of before the last read.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return error,
        }
    }
}

/// The next request, or `None` at an orderly end.
async fn read(stream: &mut UnixStream) -> io::Result<Option<Request>> {
    let mut header = [0; 4];
    match stream.read_exact(&mut header).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let mut body = vec![0; frame::body_len(header)?];
    stream.read_exact(&mut body).await?;
    frame::decode(&body).map(Some)
}
