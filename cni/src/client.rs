//! A connection to felix.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::error::{CniError, Code};
use crate::frame::{self, Reply, Request};

/// One operation's connection.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

/// Longest wait for an answer. felix itself gives up on an ADD earlier, with a reason.
const PATIENCE: Duration = Duration::from_secs(10);

impl Client {
    /// Connects. Code 11 when felix does not answer: it may be on its way up.
    pub fn connect(socket: &Path) -> Result<Self, CniError> {
        let connect = || -> io::Result<UnixStream> {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        match connect() {
            Ok(stream) => Ok(Self { stream }),
            Err(error) => Err(away(socket, &error)),
        }
    }

    /// Sends a request and waits for its reply; a reply that says it failed is the error.
    pub fn call(&mut self, request: &Request) -> Result<Reply, CniError> {
        frame::write(&mut self.stream, request).map_err(|e| lost(&e))?;
        match frame::read(&mut self.stream).map_err(|e| lost(&e))? {
            Reply::Failed { error } => Err(error),
            reply => Ok(reply),
        }
    }
}

fn away(socket: &Path, error: &io::Error) -> CniError {
    let details = format!(
        "{}: {error}; is margay-felix running on this node?",
        socket.display()
    );
    CniError::new(Code::TryAgain, "felix does not answer", details)
}

fn lost(error: &io::Error) -> CniError {
    CniError::new(Code::TryAgain, "the connection to felix was lost", error)
}
