//! One TCP connection to each station of BMP, made again when it is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Event;
use crate::config::BmpStation;
use crate::speaker::StationEvent;

/// Pieces that wait for a connection; the speaker's window holds fewer of them.
const PIECES: usize = 8192;

/// A connection that is not made in that time is tried again.
const CONNECT: Duration = Duration::from_secs(10);

/// Wait between two attempts: the first one, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A station that takes nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(300);

/// What a station's task tells the engine.
#[derive(Debug)]
pub(crate) enum Told {
    /// The connection is there, and takes pieces.
    Connected(mpsc::Sender<Bytes>),
    Sent(usize),
    Closed,
}

/// The stations of the configuration.
#[derive(Debug, Default)]
pub(crate) struct Stations {
    open: BTreeMap<String, Station>,
    /// Of the newest task: what an older one of the same name still says counts for nothing.
    task: u64,
}

#[derive(Debug)]
struct Station {
    config: BmpStation,
    number: u64,
    task: JoinHandle<()>,
    pieces: Option<mpsc::Sender<Bytes>>,
    /// Its end tells the task that the station is not wanted any more.
    _wanted: oneshot::Sender<()>,
}

impl Drop for Station {
    fn drop(&mut self) {
        // A task that is connected ends by itself when everything that waits is written.
        if self.pieces.take().is_none() {
            self.task.abort();
        }
    }
}

impl Stations {
    /// Connects to stations that are new, and leaves those that are gone.
    pub(crate) fn configure(&mut self, wanted: &[BmpStation], events: &mpsc::Sender<Event>) {
        self.open.retain(|_, it| wanted.contains(&it.config));
        for config in wanted {
            self.open.entry(config.name.clone()).or_insert_with(|| {
                let (wanted, unwanted) = oneshot::channel();
                self.task += 1;
                let following = follow(config.clone(), self.task, events.clone(), unwanted);
                Station {
                    config: config.clone(),
                    number: self.task,
                    task: tokio::spawn(following),
                    pieces: None,
                    _wanted: wanted,
                }
            });
        }
    }

    /// Takes what a task says; what the speaker has to know of it.
    pub(crate) fn take(&mut self, name: &str, task: u64, told: Told) -> Option<StationEvent> {
        let station = self.open.get_mut(name).filter(|it| it.number == task)?;
        Some(match told {
            Told::Connected(pieces) => {
                station.pieces = Some(pieces);
                StationEvent::Connected
            }
            Told::Sent(bytes) => StationEvent::Sent(bytes),
            Told::Closed => {
                station.pieces = None;
                StationEvent::Closed
            }
        })
    }

    /// Sends to a station.
    pub(crate) fn send(&mut self, name: &str, bytes: Bytes) {
        let Some(station) = self.open.get_mut(name) else {
            return;
        };
        if let Some(pieces) = &station.pieces
            && pieces.try_send(bytes).is_err()
        {
            // The task ends with the channel, and says so.
            warn!(station = name, "a BMP station does not keep up");
            station.pieces = None;
        }
    }
}

/// Keeps a station connected.
async fn follow(
    config: BmpStation,
    task: u64,
    events: mpsc::Sender<Event>,
    mut unwanted: oneshot::Receiver<()>,
) {
    let name = &config.name;
    let tell = |told| events.send(Event::Bmp(name.clone(), task, told));
    let mut wait = RETRY.0;
    let mut complained = false;
    loop {
        match timeout(CONNECT, TcpStream::connect(config.address)).await {
            Ok(Ok(stream)) => {
                info!(station = name, address = %config.address, "BMP station connected");
                (wait, complained) = (RETRY.0, false);
                let (pieces, inbox) = mpsc::channel(PIECES);
                if tell(Told::Connected(pieces)).await.is_err() {
                    return;
                }
                let ended = talk(stream, inbox, &tell).await;
                if let Err(error) = ended {
                    info!(station = name, %error, "BMP station lost");
                }
                if unwanted.try_recv() == Err(TryRecvError::Closed) {
                    return;
                }
                if tell(Told::Closed).await.is_err() {
                    return;
                }
            }
            Ok(Err(error)) if !complained => {
                warn!(station = name, address = %config.address, %error, "BMP station cannot be connected to, trying again");
                complained = true;
            }
            Ok(Err(_)) | Err(_) => {}
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

/// Writes what comes until nothing more can, or the connection is lost.
async fn talk<F: Future<Output = Result<(), mpsc::error::SendError<Event>>>>(
    stream: TcpStream,
    mut inbox: mpsc::Receiver<Bytes>,
    tell: &impl Fn(Told) -> F,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.into_split();
    let mut ignored = [0; 512];
    loop {
        tokio::select! {
            piece = inbox.recv() => {
                let Some(piece) = piece else {
                    return writer.shutdown().await;
                };
                match timeout(STALLED, writer.write_all(&piece)).await {
                    Ok(written) => written?,
                    Err(elapsed) => return Err(elapsed.into()),
                }
                // The program ends when nobody hears it.
                let _ = tell(Told::Sent(piece.len())).await;
            }
            // Stations say nothing (RFC 7854 section 3.2); their end is what counts.
            read = reader.read(&mut ignored) => if read? == 0 {
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            },
        }
    }
}
