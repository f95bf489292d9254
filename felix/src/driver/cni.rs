//! Serves the plugin's frames on a unix socket.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use api::local::Listener;
use cni::frame::{self, Reply, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;

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

/// Accepts until the main loop is gone.
pub async fn serve(mut listener: Listener, events: mpsc::Sender<Event>) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    while let Some(accepted) = listener.next().await {
        match accepted {
            Ok(stream) => {
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
