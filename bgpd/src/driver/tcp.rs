//! Connections: listeners, and two tasks for each connection that move its bytes.

mod parts;

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Shutdown};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use crds::net::{Cidr, Family};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tracing::{debug, error, info, warn};

use self::parts::Parts;
use super::Event;
use super::keys::Keys;
use super::sock::{self, Dial};
use crate::config::Password;
use crate::speaker::{ConnId, Hops, TcpEvent};

/// Bytes read at once.
const READ_CHUNK: usize = 64 << 10;

/// Bytes that are copied rather than handed on with their buffer.
const SHORT: usize = 2048;

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
    /// The writer waits for more: nothing that was given is unwritten.
    idle: bool,
}

impl Outbox {
    fn edit(&self, edit: impl FnOnce(&mut Queue)) {
        let mut queue = self.lock();
        edit(&mut queue);
        queue.idle = false;
        drop(queue);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code that holds the lock panics half-way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Queue {
        let mut queue = self.lock();
        queue.idle = queue.messages.is_empty();
        Queue {
            messages: std::mem::take(&mut queue.messages),
            close: queue.close,
            idle: queue.idle,
        }
    }
}

/// Every connection of the speaker, by its name.
pub(crate) struct Connections {
    events: mpsc::Sender<Event>,
    keys: Arc<Keys>,
    open: HashMap<ConnId, Connection>,
    /// Connections that have been given something since the last flush, each once.
    given: Vec<ConnId>,
    accepted: u64,
}

struct Connection {
    outbox: Arc<Outbox>,
    /// Given, and not written or handed to the writer yet.
    given: Vec<Bytes>,
    /// A connection that is not there yet ends at once.
    connecting: Option<JoinHandle<()>>,
    stream: Option<Arc<TcpStream>>,
    remote: IpAddr,
    /// The interface that a link-local address is on.
    interface: Option<String>,
    /// The key of TCP MD5 that it has.
    key: Option<Password>,
}

impl Connection {
    /// Gives the connection the key that it needs now.
    fn rekey(&mut self, keys: &Keys) -> io::Result<()> {
        let wanted = keys.of(self.remote, self.interface.as_deref());
        if wanted != self.key {
            let Some(stream) = &self.stream else {
                return Err(io::Error::other(
                    "its SYN has another key than it needs now",
                ));
            };
            let key = wanted.as_ref().map(|it| it.0.as_bytes());
            sock::set_key(&**stream, Cidr::host(self.remote), key).map_err(|e| {
                io::Error::other(format!("the kernel refuses the TCP MD5 key: {e}"))
            })?;
            self.key = wanted;
        }
        Ok(())
    }

    /// Writes what was given without waiting, unless the writer has something to write before it. Bytes written.
    fn flush(&mut self) -> usize {
        let mut given = std::mem::take(&mut self.given);
        let mut sent = 0;
        if let Some(stream) = &self.stream
            && self.outbox.lock().idle
        {
            let mut parts = Parts::new(&mut given);
            // An error is the writer's to report, which meets it too.
            while let Some(Ok(count)) = parts.try_write(stream) {
                sent += count;
            }
            parts.finish();
        }
        if !given.is_empty() {
            self.outbox.edit(|queue| queue.messages.append(&mut given));
        }
        // The memory is used again.
        given.clear();
        self.given = given;
        sent
    }
}

impl Connections {
    pub(crate) fn new(events: mpsc::Sender<Event>, keys: Arc<Keys>) -> Self {
        Self {
            events,
            keys,
            open: HashMap::new(),
            given: Vec::new(),
            accepted: 0,
        }
    }

    /// Starts to connect and reports on it as `conn`.
    pub(crate) fn connect(&mut self, conn: ConnId, mut dial: Dial, interface: Option<String>) {
        let remote = dial.remote.ip().to_canonical();
        let key = self.keys.of(remote, interface.as_deref());
        dial.key = key.as_ref().map(|it| it.0.clone().into_bytes());
        let events = self.events.clone();
        let task = tokio::spawn(async move {
            let event = match sock::connect(dial).await {
                Ok(stream) => Event::Connected(conn, stream),
                Err(e) => {
                    let reason = e.to_string();
                    Event::Tcp(conn, TcpEvent::ConnectFailed { reason })
                }
            };
            // No receiver: the program ends.
            let _ = events.send(event).await;
        });
        self.open.insert(
            conn,
            Connection {
                outbox: Arc::default(),
                given: Vec::new(),
                connecting: Some(task),
                stream: None,
                remote,
                interface,
                key,
            },
        );
    }

    /// A connection asked for is there; what the speaker is to hear, unless it has given it up.
    pub(crate) fn connected(&mut self, conn: ConnId, stream: TcpStream) -> Option<TcpEvent> {
        let connection = self.open.get_mut(&conn)?;
        connection.connecting = None;
        let stream = Arc::new(stream);
        connection.stream = Some(Arc::clone(&stream));
        // The key may have changed meanwhile.
        let ends = connection
            .rekey(&self.keys)
            .and_then(|()| Ok((stream.local_addr()?, stream.peer_addr()?)));
        match ends {
            Ok((local, remote)) => {
                let outbox = Arc::clone(&connection.outbox);
                tokio::spawn(carry(conn, stream, outbox, self.events.clone()));
                Some(TcpEvent::Connected { local, remote })
            }
            Err(e) => {
                self.open.remove(&conn);
                let reason = e.to_string();
                Some(TcpEvent::ConnectFailed { reason })
            }
        }
    }

    /// Takes an accepted connection in; its name, or why it is not taken. `signed`: its SYN had an MD5 signature.
    pub(crate) fn accept(
        &mut self,
        stream: TcpStream,
        remote: IpAddr,
        interface: Option<String>,
        signed: bool,
    ) -> io::Result<ConnId> {
        let remote = remote.to_canonical();
        // The listener may not have had the key then, or not know this address of the interface's.
        if !signed && self.keys.of(remote, interface.as_deref()).is_some() {
            return Err(io::Error::other("it has no MD5 signature, and needs one"));
        }
        if self.open.len() >= OPEN_MAX {
            return Err(io::Error::other("there are too many connections"));
        }
        let stream = Arc::new(stream);
        let mut connection = Connection {
            outbox: Arc::default(),
            given: Vec::new(),
            connecting: None,
            stream: Some(Arc::clone(&stream)),
            remote,
            interface,
            key: None,
        };
        // The key may be a newer one than the listener's was.
        connection.rekey(&self.keys)?;
        self.accepted += 1;
        let conn = ConnId::In(self.accepted);
        let outbox = Arc::clone(&connection.outbox);
        tokio::spawn(carry(conn, stream, outbox, self.events.clone()));
        self.open.insert(conn, connection);
        Ok(conn)
    }

    /// Says how far the other end may be.
    pub(crate) fn limit(&self, conn: ConnId, hops: Hops) -> io::Result<()> {
        let Some(connection) = self.open.get(&conn) else {
            return Ok(());
        };
        match &connection.stream {
            Some(stream) => sock::limit(&**stream, Family::of(connection.remote), hops),
            None => Ok(()),
        }
    }

    /// Gives every connection the key that it needs now; those that cannot have it, and why.
    pub(crate) fn rekey(&mut self) -> Vec<(ConnId, String)> {
        let mut failed = Vec::new();
        for (conn, connection) in &mut self.open {
            if let Err(e) = connection.rekey(&self.keys) {
                failed.push((*conn, e.to_string()));
            }
        }
        failed
    }

    /// What is known to the speaker of an event: nothing comes from a connection it has closed.
    pub(crate) fn admit(&mut self, conn: ConnId, event: &TcpEvent) -> bool {
        match event {
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

    /// Sends after what was given before, with the next flush.
    pub(crate) fn send(&mut self, conn: ConnId, bytes: Bytes) {
        if let Some(connection) = self.open.get_mut(&conn) {
            if connection.given.is_empty() {
                self.given.push(conn);
            }
            connection.given.push(bytes);
        }
    }

    /// Sends what was given: at once what the kernel takes, the rest as it takes it. Returns what was sent at once.
    pub(crate) fn flush(&mut self) -> Vec<(ConnId, usize)> {
        let mut sent = Vec::new();
        for conn in std::mem::take(&mut self.given) {
            if let Some(connection) = self.open.get_mut(&conn) {
                let bytes = connection.flush();
                if bytes > 0 {
                    sent.push((conn, bytes));
                }
            }
        }
        sent
    }

    /// Sends what was given, then closes.
    pub(crate) fn close(&mut self, conn: ConnId) {
        let Some(mut connection) = self.open.remove(&conn) else {
            return;
        };
        let given = std::mem::take(&mut connection.given);
        connection.outbox.edit(|queue| {
            queue.messages.extend(given);
            queue.close = true;
        });
        connection.outbox.closed.notify_one();
        if let Some(task) = connection.connecting {
            task.abort();
        }
    }
}

/// Moves a connection's bytes until one side ends it. A panic in here ends this connection only.
async fn carry(
    conn: ConnId,
    stream: Arc<TcpStream>,
    outbox: Arc<Outbox>,
    events: mpsc::Sender<Event>,
) {
    let drain = Arc::new(Notify::new());
    let reading = read(
        conn,
        Arc::clone(&stream),
        Arc::clone(&drain),
        events.clone(),
    );
    let mut reader = tokio::spawn(reading);
    let writing = write(conn, stream, Arc::clone(&outbox), events.clone());
    let mut writer = tokio::spawn(writing);
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
    let _ = events
        .send(Event::Tcp(conn, TcpEvent::Closed { reason }))
        .await;
}

/// Reads until the peer's end, or, once told to `drain`, drops what comes.
async fn read(
    conn: ConnId,
    stream: Arc<TcpStream>,
    drain: Arc<Notify>,
    events: mpsc::Sender<Event>,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    let ahead = Arc::new(Semaphore::new(READ_AHEAD));
    let mut wanted = true;
    loop {
        buffer.reserve(READ_CHUNK);
        let count = tokio::select! {
            count = read_some(&stream, &mut buffer) => count?,
            () = drain.notified(), if wanted => {
                wanted = false;
                continue;
            }
        };
        if count == 0 {
            return Ok(());
        }
        if buffer.len() < buffer.capacity() {
            // There was no more, which is not to be asked again before the kernel says that there is.
            drop(stream.try_io(Interest::READABLE, || {
                Err::<(), _>(ErrorKind::WouldBlock.into())
            }));
        }
        // What is short is copied, so that the buffer serves again: one route costs no large allocation.
        let bytes = match count <= SHORT {
            true => {
                let bytes = Bytes::copy_from_slice(&buffer);
                buffer.clear();
                bytes
            }
            false => buffer.split().freeze(),
        };
        if wanted {
            // Nobody closes the semaphore; without it the chunk goes on all the same.
            let turn = Arc::clone(&ahead).acquire_owned().await.ok();
            if events.send(Event::Bytes(conn, bytes, turn)).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Reads at least one byte, or 0 at the end. The stream is shared, as its options can change while it is read.
async fn read_some(stream: &TcpStream, buffer: &mut BytesMut) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.try_read_buf(buffer) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}

/// Each part that the kernel takes is told, unless nobody wants to know: a peer that takes little is no stuck one.
async fn write_all(
    conn: ConnId,
    stream: &TcpStream,
    bytes: &mut Vec<Bytes>,
    tell: Option<&mpsc::Sender<Event>>,
) -> io::Result<()> {
    let mut parts = Parts::new(bytes);
    loop {
        match parts.try_write(stream) {
            None => return Ok(()),
            Some(Ok(count)) => {
                if let Some(events) = tell {
                    let _ = events.send(Event::Tcp(conn, TcpEvent::Sent(count))).await;
                }
            }
            Some(Err(e)) if e.kind() == ErrorKind::WouldBlock => stream.writable().await?,
            Some(Err(e)) => return Err(e),
        }
    }
}

/// Writes what the outbox holds; ends after its close.
async fn write(
    conn: ConnId,
    stream: Arc<TcpStream>,
    outbox: Arc<Outbox>,
    events: mpsc::Sender<Event>,
) -> io::Result<()> {
    loop {
        let Queue {
            mut messages,
            close,
            idle,
        } = outbox.take();
        if !messages.is_empty() {
            write_all(conn, &stream, &mut messages, (!close).then_some(&events)).await?;
        }
        if close {
            return SockRef::from(&*stream).shutdown(Shutdown::Write);
        }
        if idle {
            outbox.changed.notified().await;
        }
    }
}

/// Listens on both families of a port for as long as it lives.
pub(crate) struct Listeners {
    port: u16,
    keys: Arc<Keys>,
    tasks: Vec<JoinHandle<()>>,
}

impl Listeners {
    pub(crate) fn new(port: u16, keys: &Arc<Keys>, events: &mpsc::Sender<Event>) -> Self {
        let keys = Arc::clone(keys);
        let listening = |family| listen(family, port, Arc::clone(&keys), events.clone());
        let tasks = Family::ALL
            .map(|family| tokio::spawn(listening(family)))
            .into();
        Self { port, keys, tasks }
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
        self.keys.forget(self.port);
    }
}

/// Listens on one family's port; a port that is taken is tried again, since outgoing sessions work without it.
async fn listen(family: Family, port: u16, keys: Arc<Keys>, events: mpsc::Sender<Event>) {
    let mut told = false;
    loop {
        match sock::bind(family, port).and_then(|socket| keys.listen(family, port, socket)) {
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
                        ErrorKind::AddrInUse => {
                            "another BGP speaker has the port: stop it, or set listenPort"
                        }
                        ErrorKind::PermissionDenied => {
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
