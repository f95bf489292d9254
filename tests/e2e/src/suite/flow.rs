//! A conversation with a pod's responder that stays open while policies change.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use lab::netns;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_millis(500);

/// A flow from a namespace to a responder.
#[derive(Debug)]
pub enum Flow {
    /// A connection.
    Tcp(TcpStream),
    /// Datagrams of one socket.
    Udp(UdpSocket),
}

impl Flow {
    /// Connects, in the namespace of `from`, and takes the greeting.
    pub fn tcp(from: &Path, to: SocketAddr) -> io::Result<Self> {
        let stream = netns::run_in(from, move || TcpStream::connect_timeout(&to, ANSWER))?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_nodelay(true)?;
        let flow = Self::Tcp(stream);
        flow.hear()?;
        Ok(flow)
    }

    /// A socket in the namespace of `from`, that has had one answer.
    pub fn udp(from: &Path, to: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let socket = netns::run_in(from, move || {
            let socket = UdpSocket::bind(any)?;
            socket.connect(to)?;
            Ok(socket)
        })?;
        socket.set_read_timeout(Some(ANSWER))?;
        let flow = Self::Udp(socket);
        flow.ask()?;
        Ok(flow)
    }

    /// Says something and waits for the answer.
    pub fn ask(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => (&*stream).write_all(b"?")?,
            Self::Udp(socket) => drop(socket.send(b"?")?),
        }
        self.hear()
    }

    fn hear(&self) -> io::Result<()> {
        let mut buffer = [0; 256];
        let heard = match self {
            Self::Tcp(stream) => (&*stream).read(&mut buffer)?,
            Self::Udp(socket) => socket.recv(&mut buffer)?,
        };
        match heard {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
