//! A peer that speaks BGP badly, byte by byte.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::netns;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::rig::Rig;

/// A message with the marker and length of RFC 4271, section 4.1.
#[must_use]
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap_or(u16::MAX);
    with_length(kind, length, body)
}

/// The same with any length in the header.
#[must_use]
pub fn with_length(kind: u8, length: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 16];
    bytes.extend(length.to_be_bytes());
    bytes.push(kind);
    bytes.extend(body);
    bytes
}

/// The body of an OPEN (RFC 4271, section 4.2) with the capabilities of both families and of 4-octet AS numbers.
#[must_use]
pub fn open(version: u8, asn: u16, hold: u16, id: [u8; 4]) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 65, 4];
    capabilities.extend(u32::from(asn).to_be_bytes());
    let length = u8::try_from(capabilities.len()).unwrap_or(u8::MAX);
    let mut body = vec![version];
    body.extend(asn.to_be_bytes());
    body.extend(hold.to_be_bytes());
    body.extend(id);
    body.extend([length + 2, 2, length]);
    body.extend(capabilities);
    body
}

/// A connection of the bad peer.
#[derive(Debug)]
pub struct BadPeer {
    stream: TcpStream,
}

impl BadPeer {
    /// Connects from an address of a place to port 179 of another address.
    pub fn dial(rig: &Rig, place: &str, from: IpAddr, to: IpAddr) -> Result<Self> {
        let path = rig.netns(place)?;
        let stream = netns::run_in(&path, move || {
            let socket = Socket::new(
                Domain::for_address(SocketAddr::new(to, 179)),
                Type::STREAM,
                Some(Protocol::TCP),
            )?;
            socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
            let peer = SockAddr::from(SocketAddr::new(to, 179));
            socket.connect_timeout(&peer, Duration::from_secs(3))?;
            Ok(TcpStream::from(socket))
        })?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self { stream })
    }

    /// Sends bytes. A connection that is closed already says so when it is read.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next message: type and body.
    pub fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut header = [0; 19];
        self.stream.read_exact(&mut header)?;
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let mut body = vec![0; length.saturating_sub(19)];
        self.stream.read_exact(&mut body)?;
        Ok((header[18], body))
    }

    /// Brings a session up: OPEN and KEEPALIVE both ways.
    pub fn establish(&mut self, asn: u16, id: [u8; 4]) -> Result<()> {
        self.send(&message(1, &open(4, asn, 90, id)));
        loop {
            match self.receive().context("bring a session up")? {
                (1, _) => self.send(&message(4, &[])),
                (4, _) => return Ok(()),
                (3, body) => bail!("NOTIFICATION {body:?} instead of a session"),
                (kind, _) => bail!("message {kind} instead of a session"),
            }
        }
    }

    /// Reads up to the NOTIFICATION: code and subcode.
    pub fn notification(&mut self) -> Result<(u8, u8)> {
        loop {
            match self.receive() {
                Ok((3, body)) if body.len() >= 2 => return Ok((body[0], body[1])),
                Ok(_) => {}
                Err(error) => return Err(error).context("no NOTIFICATION"),
            }
        }
    }
}
