//! A netlink socket for requests: one is sent, and its answers are read, before the next. The kernel answers while it
//! takes the request in, so that nothing here waits for anybody else.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::nla::{self, Received};

/// `NETLINK_ROUTE`.
pub const ROUTE: isize = libc::NETLINK_ROUTE as isize;
/// `NETLINK_NETFILTER`.
pub const NETFILTER: isize = libc::NETLINK_NETFILTER as isize;

const DUMP: u16 = 0x300;
const DUMP_INTERRUPTED: u16 = 0x10;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Datagrams of a dump are at most 32 KiB, and errors do not carry the request.
const DATAGRAM: usize = 64 * 1024;
/// Large transactions are sent in one piece.
const SEND_BUFFER: usize = 64 * 1024 * 1024;
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed.
    #[error("netlink socket: {0}")]
    Io(#[from] io::Error),
    /// The kernel refused the request.
    #[error("{0}")]
    Kernel(Refusal),
    /// What was dumped changed meanwhile, again and again.
    #[error("the kernel's state did not hold still while it was read")]
    Torn,
}

impl Error {
    /// The kernel's error number, when it was the kernel that refused.
    #[must_use]
    pub const fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel(refusal) => Some(refusal.errno),
            _ => None,
        }
    }
}

/// The kernel's answer to a request it refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Positive error number.
    pub errno: i32,
    /// Sequence number of the message which is refused.
    pub sequence: u32,
    /// The kernel's own words, where it has any.
    pub text: Option<String>,
    /// Where in the message the offending attribute begins.
    pub offset: Option<u32>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.errno))?;
        match &self.text {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
}

impl Socket {
    /// Opens one for [`ROUTE`] or [`NETFILTER`].
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut inner = netlink_sys::Socket::new(protocol)?;
        inner.bind_auto()?;
        inner.set_ext_ack(true)?;
        inner.set_cap_ack(true)?;
        if protocol == ROUTE {
            inner.set_netlink_get_strict_chk(true)?;
        }
        setsockopt(&inner.as_fd(), sockopt::SndBufForce, &SEND_BUFFER)?;
        setsockopt(&inner.as_fd(), sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        setsockopt(&inner.as_fd(), sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
        Ok(Self { inner, sequence: 0 })
    }

    /// The port the kernel gave the socket.
    pub fn port(&self) -> io::Result<u32> {
        let mut address = netlink_sys::SocketAddr::new(0, 0);
        self.inner.get_address(&mut address)?;
        Ok(address.port_number())
    }

    /// Reserves this many sequence numbers, and returns the first.
    pub const fn sequence(&mut self, count: u32) -> u32 {
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(count);
        first
    }

    /// Makes a dump with a request that is built anew for each attempt, and hands out the messages; what `start` made
    /// is filled by `take`, and made anew when the dump was torn by a change.
    pub fn dump<T>(
        &mut self,
        request: impl Fn(u16, u32) -> Vec<u8>,
        start: impl Fn() -> T,
        mut take: impl FnMut(&mut T, Received<'_>),
    ) -> Result<T, Error> {
        for _ in 0..10 {
            let sequence = self.sequence(1);
            self.send(&request(DUMP, sequence))?;
            let mut out = start();
            let mut torn = false;
            self.answers(sequence, |message| {
                torn |= message.flags & DUMP_INTERRUPTED != 0;
                if message.kind > DONE {
                    take(&mut out, message);
                }
            })?;
            if !torn {
                return Ok(out);
            }
        }
        Err(Error::Torn)
    }

    /// Sends a request which asks for an acknowledgement, and hands out what else is answered.
    pub fn request(
        &mut self,
        request: impl FnOnce(u32) -> Vec<u8>,
        take: impl FnMut(Received<'_>),
    ) -> Result<(), Error> {
        let sequence = self.sequence(1);
        self.send(&request(sequence))?;
        self.answers(sequence, take)
    }

    /// Sends messages in one piece, and hands out the answers the kernel gave while it took them in.
    pub fn exchange(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(Received<'_>),
    ) -> Result<(), Error> {
        self.send(bytes)?;
        while let Some(datagram) = self.receive(libc::MSG_DONTWAIT)? {
            nla::messages(&datagram).for_each(&mut take);
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        let kernel = netlink_sys::SocketAddr::new(0, 0);
        self.inner.send_to(bytes, &kernel, 0)?;
        Ok(())
    }

    /// Reads up to the end of a dump or the acknowledgement of the request with this number.
    fn answers(&self, sequence: u32, mut take: impl FnMut(Received<'_>)) -> Result<(), Error> {
        loop {
            let Some(datagram) = self.receive(0)? else {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            };
            for message in nla::messages(&datagram).filter(|message| message.sequence == sequence) {
                match message.kind {
                    ERROR => {
                        return refusal(&message)
                            .map_or(Ok(()), |refusal| Err(Error::Kernel(refusal)));
                    }
                    DONE => {
                        let errno = message
                            .payload
                            .first_chunk()
                            .map_or(0, |code| -i32::from_ne_bytes(*code));
                        take(message);
                        return match errno {
                            1.. => Err(Error::Kernel(Refusal {
                                errno,
                                sequence,
                                text: None,
                                offset: None,
                            })),
                            _ => Ok(()),
                        };
                    }
                    _ => take(message),
                }
            }
        }
    }

    fn receive(&self, flags: libc::c_int) -> Result<Option<Vec<u8>>, Error> {
        let mut datagram = Vec::with_capacity(DATAGRAM);
        loop {
            return match self.inner.recv(&mut datagram, flags | libc::MSG_TRUNC) {
                Ok(length) if length > datagram.len() => Err(io::Error::other(format!(
                    "a datagram of {length} bytes was cut short"
                ))
                .into()),
                Ok(_) => Ok(Some(datagram)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error.into()),
            };
        }
    }
}

/// What an error message says; `None` when it is an acknowledgement.
#[must_use]
pub fn refusal(message: &Received<'_>) -> Option<Refusal> {
    if message.kind != ERROR {
        return None;
    }
    let errno = message
        .payload
        .first_chunk()
        .map_or(0, |code| -i32::from_ne_bytes(*code));
    if errno == 0 {
        return None;
    }
    // The error number and the header of the request come first.
    let attributes = message.payload.get(4 + nla::HEADER..).unwrap_or_default();
    Some(Refusal {
        errno,
        sequence: message.sequence,
        text: nla::find(attributes, 1).map(nla::text),
        offset: nla::find(attributes, 2).and_then(nla::ne32),
    })
}
