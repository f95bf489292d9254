//! A speaker without a table: whatever one peer sends goes to all others as it is. The floor of every latency, and what the
//! harness alone can do.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::wire::{self, HEADER};

const CHUNK: usize = 256 << 10;
/// The listener's name among the events.
const LISTENER: u64 = u64::MAX;

/// A session; its stream blocks, as the other ends always read.
struct Link {
    stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
}

/// Runs until it is killed.
pub(crate) fn run(asn: u32) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 179)).context("listen on 179")?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let open = wire::open(asn, 240, Ipv4Addr::new(198, 18, 0, 1), false);
    let mut links: Vec<Option<Link>> = Vec::new();
    loop {
        let mut events = [EpollEvent::empty(); 64];
        let count = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..count] {
            if event.data() == LISTENER {
                let (mut stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                stream.write_all(&open)?;
                let number = u64::try_from(links.len())?;
                epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, number))?;
                links.push(Some(Link {
                    stream,
                    input: vec![0; CHUNK],
                    filled: 0,
                }));
                continue;
            }
            let index = usize::try_from(event.data())?;
            if let Some(mut link) = links[index].take()
                && link.serve(&mut links)
            {
                links[index] = Some(link);
            }
        }
    }
}

impl Link {
    /// Passes on what came; false when the session has ended. The others are all but this one.
    fn serve(&mut self, others: &mut [Option<Self>]) -> bool {
        match self.stream.read(&mut self.input[self.filled..]) {
            Ok(0) | Err(_) => return false,
            Ok(count) => self.filled += count,
        }
        let mut at = 0;
        // UPDATEs in a row go on in one piece.
        let mut begin = 0;
        while let Ok(Some((length, kind))) = wire::frame(&self.input[at..self.filled]) {
            if at + length > self.filled {
                break;
            }
            if kind != wire::UPDATE {
                spread(others, &self.input[begin..at]);
                begin = at + length;
                if kind == wire::OPEN {
                    let keepalive = wire::message(wire::KEEPALIVE, &[]);
                    // A peer that has gone is noticed by reading.
                    let _ = self.stream.write_all(&keepalive);
                }
            }
            at += length;
        }
        spread(others, &self.input[begin..at]);
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        debug_assert!(self.filled < HEADER.max(wire::MESSAGE_MAX));
        true
    }
}

fn spread(others: &mut [Option<Link>], bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    for link in others.iter_mut().flatten() {
        // A peer that has gone is noticed by reading.
        let _ = link.stream.write_all(bytes);
    }
}
