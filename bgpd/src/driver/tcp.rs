//! Connections: listeners, and two tasks for each connection that move its bytes.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use crds::net::Family;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tracing::{debug, error, info, warn};

use super::{Event, sock};
use crate::speaker::{ConnId, TcpEvent};

/// Bytes read at once.
const READ_CHUNK: usize = 64 << 10;

/// Chunks of one connection that wait for the engine, so that a peer with much to say does not delay the others.
const READ_AHEAD: usize = 4;

/// How long a closed connection may take to send what it was given, and the peer to take it.
const LINGER: Duration = Duration::from_secs(1);

/// Wait before a port that could not be had is tried again.
const LISTEN_RETRY: Duration = Duration::from_secs(2);

/// Connections that are open at one time; a peer needs one or two.
const OPEN_MAX: usize = 4096;

/// What the writer of a connection has to do. The speaker bounds it by its send window.
#[derive(Default)]
struct Outbox {
    queue: Mutex<Queue>,
    changed: Notify,
    closed: Notify,
}

#[derive(Default)]
struct Queue {
    messages: Vec<Bytes>,
    close: bool,
}

impl Outbox {
    fn edit(&self, edit: impl FnOnce(&mut Queue)) {
        edit(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    fn take(&self) -> Queue {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        Queue {
            messages: std::mem::take(&mut queue.messages),
            close: queue.close,
        }
    }
}

/// Every connection of the speaker, by its name.
pub(crate) struct Connections {
    events: mpsc::Sender<Event>,
    open: HashMap<ConnId, Connection>,
    accepted: u64,
}

struct Connection {
    outbox: Arc<Outbox>,
    /// A connection that is not there yet ends at once.
    connecting: Option<JoinHandle<()>>,
}

impl Connections {
    pub(crate) fn new(events: mpsc::Sender<Event>) -> Self {
        Self {
            events,
            open: HashMap::new(),
            accepted: 0,
        }
    }

    /// Starts to connect and reports on it as `conn`.
    pub(crate) fn connect(
        &mut self,
        conn: ConnId,
        local: Option<std::net::IpAddr>,
        remote: SocketAddr,
    ) {
        let outbox = Arc::new(Outbox::default());
        let (events, theirs) = (self.events.clone(), Arc::clone(&outbox));
        let task = tokio::spawn(async move {
            let ends = |stream: &TcpStream| {
                Ok::<_, io::Error>((stream.local_addr()?, stream.peer_addr()?))
            };
            let made = match sock::connect(local, remote).await {
                Ok(stream) => ends(&stream).map(|ends| (stream, ends)),
                Err(e) => Err(e),
            };
            match made {
                Ok((stream, (local, remote))) => {
                    let connected = TcpEvent::Connected { local, remote };
                    if events.send(Event::Tcp(conn, connected)).await.is_ok() {
                        tokio::spawn(carry(conn, stream, theirs, events));
                    }
                }
                Err(e) => {
                    let reason = e.to_string();
                    // No receiver: the program ends.
                    let _ = events
                        .send(Event::Tcp(conn, TcpEvent::ConnectFailed { reason }))
                        .await;
                }
            }
        });
        let connecting = Some(task);
        self.open.insert(conn, Connection { outbox, connecting });
    }

    /// Takes an accepted connection in; its name, unless there are too many.
    pub(crate) fn accept(&mut self, stream: TcpStream) -> Option<ConnId> {
        if self.open.len() >= OPEN_MAX {
            return None;
        }
        self.accepted += 1;
        let conn = ConnId::In(self.accepted);
        let outbox = Arc::new(Outbox::default());
        tokio::spawn(carry(
            conn,
            stream,
            Arc::clone(&outbox),
            self.events.clone(),
        ));
        let connecting = None;
        self.open.insert(conn, Connection { outbox, connecting });
        Some(conn)
    }

    /// What is known to the speaker of an event: nothing comes from a connection it has closed.
    pub(crate) fn admit(&mut self, conn: ConnId, event: &TcpEvent) -> bool {
        match event {
            TcpEvent::Connected { .. } => match self.open.get_mut(&conn) {
                Some(connection) => {
                    connection.connecting = None;
                    true
                }
                None => false,
            },
            TcpEvent::ConnectFailed { .. } | TcpEvent::Closed { .. } => {
                self.open.remove(&conn).is_some()
            }
            _ => self.has(conn),
        }
    }

    /// Whether the speaker wants what comes from there.
    pub(crate) fn has(&self, conn: ConnId) -> bool {
        self.open.contains_key(&conn)
    }

    /// Sends after what was given before.
    pub(crate) fn send(&self, conn: ConnId, bytes: Bytes) {
        if let Some(connection) = self.open.get(&conn) {
            connection.outbox.edit(|queue| queue.messages.push(bytes));
        }
    }

    /// Sends what was given, then closes.
    pub(crate) fn close(&mut self, conn: ConnId) {
        let Some(connection) = self.open.remove(&conn) else {
            return;
        };
        connection.outbox.edit(|queue| queue.close = true);
        connection.outbox.closed.notify_one();
        if let Some(task) = connection.connecting {
            task.abort();
        }
    }
}

/// Moves a connection's bytes until one side ends it. A panic in here ends this connection only.
async fn carry(conn: ConnId, stream: TcpStream, outbox: Arc<Outbox>, events: mpsc::Sender<Event>) {
    let (reading, writing) = stream.into_split();
    let drain = Arc::new(Notify::new());
    let mut reader = tokio::spawn(read(conn, reading, Arc::clone(&drain), events.clone()));
    let mut writer = tokio::spawn(write(conn, writing, Arc::clone(&outbox), events.clone()));
    let ended = tokio::select! {
        ended = &mut reader => {
            writer.abort();
            ended
        }
        ended = &mut writer => {
            reader.abort();
            ended
        }
        () = outbox.closed.notified() => {
            // What the peer still sends is read and dropped: to close with unread bytes would reset the connection
            // and could destroy a NOTIFICATION on its way.
            drain.notify_one();
            let finish = async {
                let _ = (&mut writer).await;
                let _ = (&mut reader).await;
            };
            if tokio::time::timeout(LINGER, finish).await.is_err() {
                writer.abort();
                reader.abort();
            }
            return;
        }
    };
    let reason = match ended {
        Ok(Ok(())) => String::new(),
        Ok(Err(e)) => e.to_string(),
        Err(e) => {
            error!(%conn, error = %e, "the task of a connection failed; only this connection is closed");
            "internal error".to_owned()
        }
    };
    // No receiver: the program ends.
    let _ = events
        .send(Event::Tcp(conn, TcpEvent::Closed { reason }))
        .await;
}

/// Reads until the peer's end, or, once told to `drain`, drops what comes.
async fn read(
    conn: ConnId,
    mut stream: OwnedReadHalf,
    drain: Arc<Notify>,
    events: mpsc::Sender<Event>,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    let ahead = Arc::new(Semaphore::new(READ_AHEAD));
    let mut wanted = true;
    loop {
        buffer.reserve(READ_CHUNK);
        let count = tokio::select! {
            count = stream.read_buf(&mut buffer) => count?,
            () = drain.notified(), if wanted => {
                wanted = false;
                continue;
            }
        };
        if count == 0 {
            return Ok(());
        }
        let bytes = buffer.split().freeze();
        if wanted {
            // Nobody closes the semaphore; without it the chunk goes on all the same.
            let turn = Arc::clone(&ahead).acquire_owned().await.ok();
            if events.send(Event::Bytes(conn, bytes, turn)).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Writes what the outbox holds; ends after its close.
async fn write(
    conn: ConnId,
    mut stream: OwnedWriteHalf,
    outbox: Arc<Outbox>,
    events: mpsc::Sender<Event>,
) -> io::Result<()> {
    loop {
        let Queue { messages, close } = outbox.take();
        if !messages.is_empty() {
            let bytes = messages.concat();
            stream.write_all(&bytes).await?;
            if !close {
                // No receiver: the program ends.
                let _ = events
                    .send(Event::Tcp(conn, TcpEvent::Sent(bytes.len())))
                    .await;
            }
        }
        if close {
            return stream.shutdown().await;
        }
        outbox.changed.notified().await;
    }
}

/// Listens on both families of a port for as long as it lives.
pub(crate) struct Listeners {
    port: u16,
    tasks: Vec<JoinHandle<()>>,
}

impl Listeners {
    pub(crate) fn new(port: u16, events: &mpsc::Sender<Event>) -> Self {
        let tasks = Family::ALL
            .map(|family| tokio::spawn(listen(family, port, events.clone())))
            .into();
        Self { port, tasks }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Listens on one family's port; a port that is taken is tried again, since outgoing sessions work without it.
async fn listen(family: Family, port: u16, events: mpsc::Sender<Event>) {
    let mut told = false;
    loop {
        match sock::listen(family, port) {
            Ok(listener) => {
                info!(%family, port, "listening");
                accept(&listener, &events).await;
                return;
            }
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                info!(%family, "the kernel has no such family: not listening");
                return;
            }
            Err(e) => {
                if !told {
                    let fix = match e.kind() {
                        io::ErrorKind::AddrInUse => {
                            "another BGP speaker has the port: stop it, or set listenPort"
                        }
                        io::ErrorKind::PermissionDenied => {
                            "give the capability NET_BIND_SERVICE, or set a listenPort above 1023"
                        }
                        _ => "sessions that peers open will not come up",
                    };
                    warn!(%family, port, error = %e, fix, "cannot listen, trying again");
                    told = true;
                }
                tokio::time::sleep(LISTEN_RETRY).await;
            }
        }
    }
}

async fn accept(listener: &TcpListener, events: &mpsc::Sender<Event>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                if events.send(Event::Accepted(stream, remote)).await.is_err() {
                    return;
                }
            }
            Err(e) => {
                // The connection is gone already, or there are no descriptors; the latter passes.
                debug!(error = %e, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
