//! All sessions of a speaker: which one a packet belongs to, and which one is due.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::packet::{Diagnostic, LENGTH, Packet, Refusal, State};
use super::session::{Counts, Parked, Session, Wants};
use super::{Event, Micros, Path, Settings};
use crate::config::PeerKey;
use crate::fsm::Jitter;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A session is wanted, or wanted otherwise.
    Start {
        /// Whose.
        peer: PeerKey,
        /// What it shall be.
        settings: Settings,
    },
    /// A session is not wanted any more: the peer is told that this is no failure, then the session is gone.
    Stop {
        /// Whose.
        peer: PeerKey,
    },
    /// The program ends and comes back: these peers are asked to wait for so long.
    Park(BTreeMap<PeerKey, Micros>),
    /// The program ends: every peer is told once that this is no failure.
    End,
    /// Somebody's packet has come.
    Packet(Received),
    /// Time has passed: [`Monitor::next_timeout`] is due.
    Tick,
}

/// A packet, and how it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Who sent it.
    pub source: IpAddr,
    /// Whom to.
    pub destination: IpAddr,
    /// The interface it came in.
    pub ifindex: u32,
    /// Its TTL or hop limit, as it came.
    pub ttl: u8,
    /// It came to the port of multihop sessions.
    pub multihop: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A session's packets go out of a socket as the settings say; one that is open already is replaced.
    Open {
        /// Name of the session's socket.
        discriminator: u32,
        /// Where to.
        settings: Settings,
    },
    /// Send a packet.
    Send {
        /// The session's socket.
        discriminator: u32,
        /// The packet.
        bytes: [u8; LENGTH],
    },
    /// The session is gone.
    Close {
        /// Its socket.
        discriminator: u32,
    },
    /// The speaker has to know.
    Event {
        /// Of whose session.
        peer: PeerKey,
        /// What.
        event: Event,
    },
}

/// A session as people see it. Times are in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Whose it is.
    pub peer: PeerKey,
    /// What it shall be.
    pub settings: Settings,
    /// Its state.
    pub state: State,
    /// How long it has been in it.
    pub age: Micros,
    /// Why it last left the state Up.
    pub diagnostic: Diagnostic,
    /// State of the peer's session.
    pub remote_state: State,
    /// Why the peer's session last left the state Up.
    pub remote_diagnostic: Diagnostic,
    /// Own discriminator.
    pub discriminator: u32,
    /// The peer's; 0: not known.
    pub remote_discriminator: u32,
    /// Time between packets sent, before jitter.
    pub transmit_interval: u32,
    /// The peer is lost after so long without a packet; 0: nothing is known of it.
    pub detection_time: Micros,
    /// What has gone through it.
    pub counts: Counts,
}

/// All sessions.
#[derive(Debug)]
pub struct Monitor {
    /// By own discriminator.
    sessions: BTreeMap<u32, Entry>,
    by_peer: BTreeMap<PeerKey, u32>,
    /// By interface, for a single hop, and the peer's address: whose a packet is that names no session.
    by_path: BTreeMap<(Option<u32>, IpAddr), u32>,
    /// When which session is to be looked at: never later than it is due, one entry for each.
    queue: BTreeSet<(Micros, u32)>,
    refused: BTreeMap<Refusal, u64>,
    random: Jitter,
    /// Sessions of an earlier life that have not been wanted again yet.
    parked: Vec<Parked>,
    /// Sessions that are to outlive this life.
    parking: BTreeSet<u32>,
}

#[derive(Debug)]
struct Entry {
    peer: PeerKey,
    session: Session,
}

impl Monitor {
    /// Without sessions. Discriminators and jitter come from `seed`.
    pub fn new(seed: u64) -> Self {
        Self::resumed(seed, Vec::new())
    }

    /// The same with sessions of an earlier life, which go on once they are wanted again.
    pub fn resumed(seed: u64, parked: Vec<Parked>) -> Self {
        Self {
            sessions: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            by_path: BTreeMap::new(),
            queue: BTreeSet::new(),
            refused: BTreeMap::new(),
            random: Jitter::new(seed),
            parked,
            parking: BTreeSet::new(),
        }
    }

    /// Takes one input; the outputs are to be carried out in their order.
    pub fn handle(&mut self, input: Input, now: Micros) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Start { peer, settings } => self.start(peer, settings, now, &mut out),
            Input::Stop { peer } => self.stop(&peer, now, &mut out),
            Input::Park(peers) => self.park(&peers, now, &mut out),
            Input::End => self.end(now, &mut out),
            Input::Packet(received) => {
                if let Err(refusal) = self.packet(&received, now, &mut out) {
                    *self.refused.entry(refusal).or_default() += 1;
                }
            }
            Input::Tick => self.tick(now, &mut out),
        }
        out
    }

    /// When [`Input::Tick`] is due; None: nothing is waited for.
    pub fn next_timeout(&self) -> Option<Micros> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Every session that is wanted, in the order of peers.
    pub fn sessions(&self, now: Micros) -> Vec<Info> {
        let entries = self.by_peer.values();
        let entries = entries.filter_map(|discriminator| self.sessions.get(discriminator));
        entries
            .map(|Entry { peer, session }| Info {
                peer: peer.clone(),
                settings: session.settings.clone(),
                state: session.state,
                age: now.saturating_sub(session.since),
                diagnostic: session.diagnostic,
                remote_state: session.remote_state,
                remote_diagnostic: session.remote_diagnostic,
                discriminator: session.discriminator,
                remote_discriminator: session.remote_discriminator,
                transmit_interval: session.transmit_interval(),
                detection_time: session.detection_time(),
                counts: session.counts,
            })
            .collect()
    }

    /// Packets dropped since the start, by reason.
    pub fn refused(&self) -> &BTreeMap<Refusal, u64> {
        &self.refused
    }

    fn start(&mut self, peer: PeerKey, settings: Settings, now: Micros, out: &mut Vec<Output>) {
        let path = (settings.path.ifindex(), settings.remote);
        let Some(&discriminator) = self.by_peer.get(&peer) else {
            let earlier = self.earlier(&peer, &settings);
            let unused = || self.unused();
            let discriminator = earlier.as_ref().map_or_else(unused, |it| it.discriminator);
            let seed = self.random.next_u64();
            let mut session = Session::new(settings.clone(), discriminator, seed, now);
            if let Some(earlier) = &earlier {
                session.resume(earlier, now);
            }
            self.by_path.insert(path, discriminator);
            self.by_peer.insert(peer.clone(), discriminator);
            self.sessions.insert(discriminator, Entry { peer, session });
            self.requeue(discriminator);
            out.push(Output::Open {
                discriminator,
                settings: settings.clone(),
            });
            if earlier.is_some() {
                // The intervals are the usual ones from now on.
                self.work(discriminator, out, |session, wants| {
                    session.change(settings, now, wants);
                    wants.event = Some(Event::Up);
                });
            }
            return;
        };
        let Some(Entry { session, .. }) = self.sessions.get(&discriminator) else {
            return;
        };
        let old = &session.settings;
        let same_socket = (&old.remote, &old.local, &old.path)
            == (&settings.remote, &settings.local, &settings.path);
        if !same_socket {
            self.forget_path(discriminator);
            self.by_path.insert(path, discriminator);
            out.push(Output::Open {
                discriminator,
                settings: settings.clone(),
            });
        }
        self.work(discriminator, out, |session, wants| {
            session.change(settings, now, wants);
        });
    }

    fn stop(&mut self, peer: &PeerKey, now: Micros, out: &mut Vec<Output>) {
        let Some(discriminator) = self.by_peer.remove(peer) else {
            return;
        };
        self.forget_path(discriminator);
        self.work(discriminator, out, |session, wants| session.end(now, wants));
        self.tick(now, out);
    }

    /// The session of an earlier life that goes on with these settings.
    fn earlier(&mut self, peer: &PeerKey, settings: &Settings) -> Option<Parked> {
        let at = self.parked.iter().position(|it| it.peer == *peer)?;
        let found = self.parked.swap_remove(at);
        let same = (&found.settings.remote, &found.settings.path)
            == (&settings.remote, &settings.path)
            && found.settings.multiplier == settings.multiplier;
        let unused = !self.sessions.contains_key(&found.discriminator);
        (same && unused && found.discriminator != 0).then_some(found)
    }

    fn park(&mut self, peers: &BTreeMap<PeerKey, Micros>, now: Micros, out: &mut Vec<Output>) {
        for (peer, time) in peers {
            let Some(&discriminator) = self.by_peer.get(peer) else {
                continue;
            };
            let mut can = false;
            self.work(discriminator, out, |session, wants| {
                can = session.park(*time, now, wants);
            });
            if can {
                self.parking.insert(discriminator);
            }
        }
    }

    /// Whether every peer that was asked to wait has answered, or is lost.
    pub fn is_parked(&self) -> bool {
        let waits = |it: &u32| {
            let entry = self.sessions.get(it);
            entry.is_some_and(|it| {
                it.session.state == State::Up && it.session.parked(&it.peer).is_none()
            })
        };
        !self.parking.iter().any(waits)
    }

    /// Takes out the sessions whose peers wait for the next life.
    pub fn take_parked(&mut self) -> Vec<Parked> {
        let mut parked = Vec::new();
        for discriminator in std::mem::take(&mut self.parking) {
            let entry = self.sessions.get(&discriminator);
            let Some(it) = entry.and_then(|it| it.session.parked(&it.peer)) else {
                continue;
            };
            self.forget_path(discriminator);
            self.by_peer.remove(&it.peer);
            self.sessions.remove(&discriminator);
            parked.push(it);
        }
        parked
    }

    fn end(&mut self, now: Micros, out: &mut Vec<Output>) {
        let peers: Vec<PeerKey> = self.by_peer.keys().cloned().collect();
        for peer in peers {
            self.stop(&peer, now, out);
        }
        for (discriminator, _) in std::mem::take(&mut self.sessions) {
            out.push(Output::Close { discriminator });
        }
        self.queue.clear();
    }

    fn packet(
        &mut self,
        received: &Received,
        now: Micros,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let packet = Packet::decode(&received.bytes)?;
        let discriminator = match packet.your_discriminator {
            // RFC 5881 section 3, 5883 section 3: until the peer knows the discriminator, its address names the session.
            0 => {
                let ifindex = (!received.multihop).then_some(received.ifindex);
                let path = (ifindex, received.source);
                *self.by_path.get(&path).ok_or(Refusal::NoSession)?
            }
            known => known,
        };
        let entry = self.sessions.get(&discriminator);
        let settings = &entry.ok_or(Refusal::NoSession)?.session.settings;
        let least_ttl = match &settings.path {
            Path::SingleHop { ifindex, .. } => {
                if received.multihop || received.ifindex != *ifindex {
                    return Err(Refusal::WrongPath);
                }
                // RFC 5881 section 5: without authentication it must be 255.
                u8::MAX
            }
            Path::Multihop { least_ttl } => {
                let mine = |local: IpAddr| local == received.destination;
                if !received.multihop || !settings.local.is_none_or(mine) {
                    return Err(Refusal::WrongPath);
                }
                *least_ttl
            }
        };
        // Narrower than RFC 5880 section 6.3 asks for: the session watches the way to this address, so nobody else may
        // speak for it, not even with the right discriminator.
        if received.source != settings.remote {
            return Err(Refusal::WrongPath);
        }
        if received.ttl < least_ttl {
            return Err(Refusal::TimeToLive);
        }
        self.work(discriminator, out, |session, wants| {
            session.receive(&packet, now, wants);
        });
        Ok(())
    }

    fn tick(&mut self, now: Micros, out: &mut Vec<Output>) {
        while let Some(&(at, discriminator)) = self.queue.first() {
            if at > now {
                break;
            }
            self.queue.pop_first();
            let Some(entry) = self.sessions.get_mut(&discriminator) else {
                continue;
            };
            entry.session.queued = None;
            if entry.session.ends_at.is_some_and(|at| at <= now) {
                self.sessions.remove(&discriminator);
                out.push(Output::Close { discriminator });
                continue;
            }
            self.work(discriminator, out, |session, wants| {
                session.tick(now, wants);
            });
        }
    }

    /// Lets a session do something, and does what it wants.
    fn work(
        &mut self,
        discriminator: u32,
        out: &mut Vec<Output>,
        work: impl FnOnce(&mut Session, &mut Wants),
    ) {
        let Some(Entry { peer, session }) = self.sessions.get_mut(&discriminator) else {
            return;
        };
        let mut wants = Wants::default();
        work(session, &mut wants);
        for bytes in wants.send {
            out.push(Output::Send {
                discriminator,
                bytes,
            });
        }
        if let Some(event) = wants.event {
            out.push(Output::Event {
                peer: peer.clone(),
                event,
            });
        }
        self.requeue(discriminator);
    }

    /// Makes sure that the session is looked at in time. An entry that is too early costs one look, so that a packet,
    /// which only puts the detection off, does not touch the queue.
    fn requeue(&mut self, discriminator: u32) {
        let Some(Entry { session, .. }) = self.sessions.get_mut(&discriminator) else {
            return;
        };
        let Some(due) = session.next_timeout() else {
            return;
        };
        if session.queued.is_some_and(|at| at <= due) {
            return;
        }
        if let Some(at) = session.queued.replace(due) {
            self.queue.remove(&(at, discriminator));
        }
        self.queue.insert((due, discriminator));
    }

    /// The path does not name the session any more.
    fn forget_path(&mut self, discriminator: u32) {
        if let Some(Entry { session, .. }) = self.sessions.get(&discriminator) {
            let path = (session.settings.path.ifindex(), session.settings.remote);
            if self.by_path.get(&path) == Some(&discriminator) {
                self.by_path.remove(&path);
            }
        }
    }

    /// A discriminator that no session has, not to be guessed by others.
    fn unused(&mut self) -> u32 {
        loop {
            let [_, _, _, _, low @ ..] = self.random.next_u64().to_be_bytes();
            let candidate = u32::from_be_bytes(low);
            if candidate != 0 && !self.sessions.contains_key(&candidate) {
                return candidate;
            }
        }
    }
}
