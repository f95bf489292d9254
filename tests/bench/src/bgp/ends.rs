//! The other ends of all sessions: one thread, one epoll, sockets that do not block.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Socket, Type};

use super::wire::{self, Count, HEADER, Space};

/// What we offer, in seconds; it is never the reason for traffic during a measurement.
const HOLD: u16 = 240;
/// Between two KEEPALIVEs of ours.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Before a refused connection is tried again.
const RETRY: Duration = Duration::from_millis(2);
/// Connections tried before the others have their turn: some listeners hold no more than eight.
const AT_ONCE: usize = 8;
/// A listener that holds no more does not answer; the kernel would ask again after a second.
const ANSWER: Duration = Duration::from_millis(50);
/// Read and written at once.
const CHUNK: usize = 256 << 10;
const EVENTS: usize = 128;
const PORT: u16 = 179;

/// How one end speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) address: Ipv4Addr,
    pub(crate) asn: u32,
    /// The speaker that is measured.
    pub(crate) to: Ipv4Addr,
    /// Offers graceful restart.
    pub(crate) restart: bool,
}

impl End {
    /// Connects from its address; `None` while nobody listens.
    pub(crate) fn connect(&self) -> Result<Option<TcpStream>> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), None)?;
        let local: SocketAddr = SocketAddrV4::new(self.address, 0).into();
        socket
            .bind(&local.into())
            .with_context(|| format!("bind to {}", self.address))?;
        let remote: SocketAddr = SocketAddrV4::new(self.to, PORT).into();
        let connected = socket.connect_timeout(&remote.into(), ANSWER).is_ok();
        Ok(connected.then(|| TcpStream::from(socket)))
    }

    /// What it says first.
    pub(crate) fn open(&self) -> Vec<u8> {
        wire::open(self.asn, HOLD, self.address, self.restart)
    }
}

/// What a peer says as soon as its session is there.
pub(crate) type Greeting = Arc<[u8]>;

/// One session's end.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) end: End,
    stream: Option<TcpStream>,
    input: Vec<u8>,
    filled: usize,
    output: VecDeque<(Arc<[u8]>, usize)>,
    wants_out: bool,
    again: Instant,
    pub(crate) established: bool,
    /// What it has been told.
    pub(crate) count: Count,
    /// Sessions that ended.
    pub(crate) lost: usize,
    /// Sessions that were there.
    pub(crate) made: usize,
    /// Why the last one ended.
    pub(crate) why: String,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Ends {
    epoll: Epoll,
    pub(crate) peers: Vec<Peer>,
    keepalive: Arc<[u8]>,
    next_keepalive: Instant,
    /// Connects again what is not connected.
    reconnect: bool,
}

impl Ends {
    /// In the namespace of the calling thread.
    pub(crate) fn new(ends: &[End], space: Space) -> Result<Self> {
        let now = Instant::now();
        let peers = ends.iter().map(|end| Peer {
            end: *end,
            stream: None,
            input: vec![0; CHUNK],
            filled: 0,
            output: VecDeque::new(),
            wants_out: false,
            again: now,
            established: false,
            count: Count::new(space),
            lost: 0,
            made: 0,
            why: String::new(),
        });
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            peers: peers.collect(),
            keepalive: wire::message(wire::KEEPALIVE, &[]).into(),
            next_keepalive: now + KEEPALIVE,
            reconnect: true,
        })
    }

    /// Connects all until every session is Established; from then on a lost session stays lost.
    pub(crate) fn establish(&mut self, patience: Duration) -> Result<Instant> {
        self.reconnect = true;
        let up = self.until("its sessions", patience, |peers| {
            peers.iter().all(|peer| peer.established)
        });
        self.reconnect = false;
        up
    }

    /// Connects all again, whenever they are lost, until `done`; each says its greeting once its session is there.
    pub(crate) fn greet_until(
        &mut self,
        greetings: &[Greeting],
        patience: Duration,
        mut done: impl FnMut(&[Peer]) -> bool,
    ) -> Result<Instant> {
        let deadline = Instant::now() + patience;
        let mut greeted: Vec<usize> = self.peers.iter().map(|peer| peer.made).collect();
        self.reconnect = true;
        loop {
            for (index, greeting) in greetings.iter().enumerate() {
                if self.peers[index].made > greeted[index] {
                    greeted[index] = self.peers[index].made;
                    self.send(index, Arc::clone(greeting))?;
                }
            }
            let now = Instant::now();
            if done(&self.peers) {
                self.reconnect = false;
                self.peers.iter_mut().for_each(|peer| peer.lost = 0);
                return Ok(now);
            }
            if now > deadline {
                bail!("waited {} s for what follows a restart", patience.as_secs());
            }
            self.turn(deadline)?;
        }
    }

    /// Sends bytes to a peer, as far as they go at once; the rest goes while waiting.
    pub(crate) fn send(&mut self, peer: usize, bytes: Arc<[u8]>) -> Result<()> {
        self.peers[peer].output.push_back((bytes, 0));
        self.write(peer)
    }

    /// Closes a session's connection.
    pub(crate) fn close(&mut self, peer: usize) {
        self.peers[peer].established = false;
        self.down(peer, "closed here");
    }

    /// Goes on until `done`; when that was.
    pub(crate) fn until(
        &mut self,
        what: &str,
        patience: Duration,
        mut done: impl FnMut(&[Peer]) -> bool,
    ) -> Result<Instant> {
        let deadline = Instant::now() + patience;
        loop {
            let now = Instant::now();
            if done(&self.peers) {
                return Ok(now);
            }
            if now > deadline {
                bail!("waited {} s for {what}", patience.as_secs());
            }
            if let (false, Some(lost)) = (self.reconnect, self.peers.iter().find(|p| p.lost > 0)) {
                bail!("lost the session of {}: {}", lost.end.address, lost.why);
            }
            self.turn(deadline)?;
        }
    }

    /// Goes on for a while.
    pub(crate) fn rest(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn(end)?;
        }
        Ok(())
    }

    fn turn(&mut self, until: Instant) -> Result<()> {
        let now = Instant::now();
        let mut wake = until.min(self.next_keepalive);
        if self.reconnect {
            let mut tries = 0;
            for index in 0..self.peers.len() {
                let peer = &self.peers[index];
                if peer.stream.is_none() && peer.again <= now && tries < AT_ONCE {
                    tries += 1;
                    self.connect(index)?;
                }
                let peer = &self.peers[index];
                if peer.stream.is_none() {
                    wake = wake.min(peer.again);
                }
            }
        }
        if now >= self.next_keepalive {
            self.next_keepalive = now + KEEPALIVE;
            for index in 0..self.peers.len() {
                if self.peers[index].established {
                    self.send(index, Arc::clone(&self.keepalive))?;
                }
            }
        }
        let mut events = [EpollEvent::empty(); EVENTS];
        // Rounded up: a wait of zero milliseconds would spin.
        let wait = wake.saturating_duration_since(now).as_millis() + 1;
        let wait = EpollTimeout::try_from(u64::try_from(wait)?).unwrap_or(EpollTimeout::MAX);
        let count = match self.epoll.wait(&mut events, wait) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..count] {
            let index = usize::try_from(event.data())?;
            if event.events().contains(EpollFlags::EPOLLOUT) {
                self.write(index)?;
            }
            if event.events() != EpollFlags::EPOLLOUT {
                self.read(index)?;
            }
        }
        Ok(())
    }

    fn connect(&mut self, index: usize) -> Result<()> {
        let peer = &mut self.peers[index];
        peer.again = Instant::now() + RETRY;
        let Some(stream) = peer.end.connect()? else {
            return Ok(());
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        self.epoll.add(&stream, interest(index, false)?)?;
        peer.stream = Some(stream);
        let open = peer.end.open();
        self.send(index, open.into())
    }

    fn write(&mut self, index: usize) -> Result<()> {
        let peer = &mut self.peers[index];
        let Some(stream) = &mut peer.stream else {
            return Ok(());
        };
        let mut problem = None;
        while let Some((bytes, done)) = peer.output.front_mut() {
            let end = bytes.len().min(*done + CHUNK);
            match stream.write(&bytes[*done..end]) {
                Ok(written) => *done += written,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => {
                    problem = Some(e.to_string());
                    break;
                }
            }
            if *done == bytes.len() {
                peer.output.pop_front();
            } else if *done == end {
                // The receivers have their turn between two chunks.
                break;
            }
        }
        let wants_out = !peer.output.is_empty();
        if wants_out != peer.wants_out {
            peer.wants_out = wants_out;
            self.epoll
                .modify(&*stream, &mut interest(index, wants_out)?)?;
        }
        if let Some(problem) = problem {
            self.down(index, &problem);
        }
        Ok(())
    }

    fn read(&mut self, index: usize) -> Result<()> {
        let peer = &mut self.peers[index];
        let Some(stream) = &mut peer.stream else {
            return Ok(());
        };
        let read = match stream.read(&mut peer.input[peer.filled..]) {
            Ok(0) => Err("it closed the connection".to_owned()),
            Ok(count) => Ok(count),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(e) => Err(e.to_string()),
        };
        let heard = read.and_then(|count| {
            peer.filled += count;
            peer.messages()
        });
        match heard {
            Ok(answers) => {
                for _ in 0..answers {
                    self.send(index, Arc::clone(&self.keepalive))?;
                }
            }
            Err(why) => self.down(index, &why),
        }
        Ok(())
    }

    fn down(&mut self, index: usize, why: &str) {
        let peer = &mut self.peers[index];
        // Closing takes the descriptor out of the epoll.
        peer.stream = None;
        peer.filled = 0;
        peer.output.clear();
        peer.wants_out = false;
        peer.again = Instant::now() + RETRY;
        if peer.established {
            peer.established = false;
            peer.lost += 1;
        }
        why.clone_into(&mut peer.why);
        peer.count.clear();
    }
}

impl Peer {
    /// Takes all whole messages out of the input; how many KEEPALIVEs are due as answers.
    fn messages(&mut self) -> Result<usize, String> {
        let mut at = 0;
        let mut answers = 0;
        let broken = |_| "bytes that are no message".to_owned();
        while let Some((length, kind)) =
            wire::frame(&self.input[at..self.filled]).map_err(broken)?
        {
            let Some(message) = self.input[..self.filled].get(at..at + length) else {
                break;
            };
            let body = &message[HEADER..];
            match kind {
                wire::UPDATE => self.count.update(body).map_err(broken)?,
                wire::OPEN => answers += 1,
                wire::KEEPALIVE => {
                    self.made += usize::from(!self.established);
                    self.established = true;
                }
                wire::NOTIFICATION => return Err(format!("NOTIFICATION {body:?}")),
                _ => {}
            }
            at += length;
        }
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(answers)
    }
}

fn interest(index: usize, out: bool) -> Result<EpollEvent> {
    let mut flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
    flags.set(EpollFlags::EPOLLOUT, out);
    Ok(EpollEvent::new(flags, u64::try_from(index)?))
}

#[cfg(test)]
mod tests {
    use super::super::feed::{Feed, Shape, Speaks};
    use super::*;

    fn end(last: u8) -> End {
        End {
            address: Ipv4Addr::new(127, 0, 1, last),
            asn: 64_500 + u32::from(last),
            to: Ipv4Addr::LOCALHOST,
            restart: false,
        }
    }

    /// A sender and two receivers around the relay, in a namespace of their own.
    fn relayed() -> Result<()> {
        std::thread::spawn(|| super::super::relay(64_511));
        let space = Shape::Internet.space();
        let mut ends = Ends::new(&[end(1), end(2), end(3)], space)?;
        let patience = Duration::from_secs(20);
        ends.establish(patience)?;
        let from = Speaks {
            asn: 64_501,
            next_hop: end(1).address,
            internal: false,
        };
        let feed = Feed::new(Shape::Internet, 0, 20_000, from, 0);
        ends.send(0, feed.announce.into())?;
        ends.until("routes", patience, |peers| {
            peers[1..].iter().all(|peer| peer.count.present == 20_000)
        })?;
        assert_eq!(ends.peers[2].count.updates, feed.updates);
        assert_eq!(ends.peers[0].count.updates, 0, "its own came back");
        ends.send(0, feed.withdraw.into())?;
        ends.until("withdrawals", patience, |peers| {
            peers[1..].iter().all(|peer| peer.count.present == 0)
        })?;
        ends.close(0);
        // A session that was lost by nobody's wish ends the waiting.
        ends.down(1, "for the test");
        let error = ends.until("nothing", patience, |_| false).unwrap_err();
        assert!(error.to_string().contains("for the test"), "{error}");
        Ok(())
    }

    #[test]
    fn what_a_sender_sends_is_counted_by_every_receiver() {
        lab::netns::run_in_new(|| relayed().map_err(|e| io::Error::other(format!("{e:#}"))))
            .unwrap();
    }
}
