//! The stream to bgpd: made again whenever it ends.

use std::path::PathBuf;
use std::time::Duration;

use api::v1::dataplane_client::DataplaneClient;
use api::v1::{BgpdMessage, FelixMessage};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// What the stream tells the main loop.
#[derive(Debug)]
pub enum Event {
    /// A stream is up; messages for bgpd go here.
    Connected(mpsc::Sender<FelixMessage>),
    /// bgpd says.
    Message(BgpdMessage),
    /// The stream ended, with why.
    Lost(String),
}

/// Messages of bgpd in flight before it waits.
pub const WINDOW: usize = 1024;
/// Messages for bgpd that may wait: a snapshot comes at once, an origin for each block of the node. Room that is not used
/// costs nothing.
const OUTGOING: usize = 1 << 16;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Keeps a stream to the bgpd that listens on `socket`, until the main loop is gone.
pub async fn run(socket: PathBuf, events: mpsc::Sender<Event>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let End { opened, heard, why } = stream(&socket, &events).await;
        if heard {
            pause = FIRST_PAUSE;
        }
        if opened {
            if events.send(Event::Lost(why)).await.is_err() {
                return;
            }
        } else {
            tracing::debug!(reason = why, "bgpd does not answer yet");
        }
        if events.is_closed() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// How a stream ended.
struct End {
    /// The main loop was told of it.
    opened: bool,
    /// bgpd said something: it takes streams.
    heard: bool,
    why: String,
}

/// One stream, to its end.
async fn stream(socket: &std::path::Path, events: &mpsc::Sender<Event>) -> End {
    let end = |opened, heard, why| End { opened, heard, why };
    let channel = match api::local::connect(socket, None).await {
        Ok(channel) => channel,
        Err(error) => return end(false, false, error.to_string()),
    };
    let (to_bgpd, outgoing) = mpsc::channel(OUTGOING);
    // bgpd answers the call at once; what we have to say first must not wait for that answer, nor it for us.
    if events.send(Event::Connected(to_bgpd)).await.is_err() {
        return end(true, false, "felix stops".into());
    }
    let call = DataplaneClient::new(channel)
        .sync(ReceiverStream::new(outgoing))
        .await;
    let mut incoming = match call {
        Ok(response) => response.into_inner(),
        Err(status) => return end(true, false, status.to_string()),
    };
    let mut heard = false;
    loop {
        match incoming.message().await {
            Ok(Some(message)) => {
                heard = true;
                if events.send(Event::Message(message)).await.is_err() {
                    return end(true, heard, "felix stops".into());
                }
            }
            Ok(None) => return end(true, heard, "bgpd ended the stream".into()),
            Err(status) => return end(true, heard, status.to_string()),
        }
    }
}
