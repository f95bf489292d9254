//! A speaker, the network around it, and what has to hold of the two whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use crds::net::{Cidr, Family};

use crate::Millis;
use crate::config::{Config, PeerKey};
use crate::speaker::{
    ConnId, Input, Leg, Output, RouteFilter, RouteInfo, SEND_WINDOW, Speaker, SpeakerEvent,
    StationEvent, TcpEvent,
};
use crate::wire::{Attributes, Dialect, FrameReader, Message};

/// Bytes given to a connection at most beyond its window: what one look at the tables makes.
const BEYOND_WINDOW: usize = 3 << 19;

/// Own port of BGP, and the one that everybody connects from.
const PORTS: (u16, u16) = (179, 40_000);

/// What was done to the speaker, so that it can be done again.
#[derive(Debug, Clone)]
enum Done {
    Took(Box<Input>, Vec<Output>),
    Settled(Vec<Output>),
}

/// One connection, as the network sees it.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) peer: PeerKey,
    /// Bytes that the kernel has been given and has not taken.
    pub(super) unsent: usize,
    /// The kernel takes everything at once.
    pub(super) taking: bool,
    /// What has been sent to the speaker consists of whole messages.
    pub(super) whole: bool,
    reader: FrameReader,
    /// How the session reads and writes UPDATEs; None: it is not up, or was so shortly that nobody has seen.
    pub(super) dialect: Option<Dialect>,
    /// What the peer has been told.
    pub(super) heard: BTreeMap<(Cidr, u32), Attributes>,
}

pub(super) struct World {
    pub(super) speaker: Speaker,
    pub(super) now: Millis,
    pub(super) wires: BTreeMap<ConnId, Wire>,
    /// Connections that are asked for.
    pub(super) dialed: BTreeMap<ConnId, (PeerKey, SocketAddr)>,
    /// Best routes, as felix knows them.
    best: BTreeMap<Cidr, Vec<Leg>>,
    best_wanted: bool,
    /// Peers for which some routes were too long, so that not everything is told.
    too_long: BTreeSet<PeerKey>,
    /// What the speaker has closed since somebody looked, and why sessions ended.
    pub(super) events: Vec<SpeakerEvent>,
    /// The station of BMP: bytes that it has not taken.
    pub(super) station: Option<usize>,
    next_in: u64,
    start: (Config, u64),
    log: Vec<(Millis, Done)>,
}

impl World {
    pub(super) fn new(config: Config, seed: u64) -> Self {
        Self {
            speaker: Speaker::new(config.clone(), seed, 0),
            now: 0,
            wires: BTreeMap::new(),
            dialed: BTreeMap::new(),
            best: BTreeMap::new(),
            best_wanted: true,
            too_long: BTreeSet::new(),
            events: Vec::new(),
            station: None,
            next_in: 0,
            start: (config, seed),
            log: Vec::new(),
        }
    }

    /// The speaker takes an input, without settling.
    pub(super) fn take(&mut self, input: Input) {
        if let Input::Best(wanted) = input {
            // Whoever begins to listen may hear that something is gone of which nothing was said.
            self.settle();
            self.best_wanted = wanted;
            self.best.clear();
        }
        let mut out = Vec::new();
        self.speaker.take(input.clone(), self.now, &mut out);
        self.log
            .push((self.now, Done::Took(Box::new(input), out.clone())));
        self.carry_out(out);
    }

    pub(super) fn settle(&mut self) {
        for round in 0.. {
            let mut out = Vec::new();
            self.speaker.settle(self.now, &mut out);
            self.log.push((self.now, Done::Settled(out.clone())));
            self.carry_out(out);
            if !self.speaker.is_behind() {
                return;
            }
            assert!(round < 1000, "there is an end to what has to be told");
        }
    }

    pub(super) fn input(&mut self, input: Input) {
        self.take(input);
        self.settle();
    }

    /// Somebody connects from there.
    pub(super) fn connect(&mut self, from: IpAddr, to: IpAddr) -> ConnId {
        self.next_in += 1;
        let conn = ConnId::In(self.next_in);
        self.open(conn, PeerKey::Address(from));
        let accepted = TcpEvent::Accepted {
            local: SocketAddr::new(to, PORTS.0),
            remote: SocketAddr::new(from, PORTS.1),
            ttl: None,
        };
        self.input(Input::Tcp(conn, accepted));
        conn
    }

    /// A connection that was asked for is there.
    pub(super) fn connected(&mut self, conn: ConnId, local: IpAddr) {
        if let Some((peer, remote)) = self.dialed.remove(&conn) {
            self.open(conn, peer);
            let local = SocketAddr::new(local, PORTS.1);
            self.input(Input::Tcp(conn, TcpEvent::Connected { local, remote }));
        }
    }

    fn open(&mut self, conn: ConnId, peer: PeerKey) {
        let wire = Wire {
            peer,
            unsent: 0,
            taking: true,
            whole: true,
            reader: FrameReader::default(),
            dialect: None,
            heard: BTreeMap::new(),
        };
        self.wires.insert(conn, wire);
    }

    /// Brings bytes to the speaker.
    pub(super) fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        if self.wires.contains_key(&conn) {
            let bytes = Bytes::copy_from_slice(bytes);
            self.take(Input::Tcp(conn, TcpEvent::Bytes(bytes)));
        }
    }

    /// The other end is gone.
    pub(super) fn hang_up(&mut self, conn: ConnId) {
        if self.wires.remove(&conn).is_some() {
            let reason = String::new();
            self.take(Input::Tcp(conn, TcpEvent::Closed { reason }));
        }
    }

    /// The kernel takes what was given for a connection.
    pub(super) fn drain(&mut self, conn: ConnId) {
        while let Some(wire) = self.wires.get_mut(&conn) {
            let bytes = std::mem::take(&mut wire.unsent);
            if bytes == 0 {
                return;
            }
            self.input(Input::Tcp(conn, TcpEvent::Sent(bytes)));
        }
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        let mut sent = Vec::new();
        for output in outputs {
            match output {
                Output::Connect {
                    peer, remote, conn, ..
                } => {
                    let known = self.dialed.insert(conn, (peer, remote)).is_some();
                    assert!(
                        !known && !self.wires.contains_key(&conn),
                        "{conn} has a name of its own"
                    );
                }
                Output::Send(conn, bytes) => {
                    if self.hear(conn, &bytes) {
                        sent.push((conn, bytes.len()));
                    }
                }
                Output::Limit(conn, _) => {
                    assert!(
                        self.wires.contains_key(&conn),
                        "{conn} is not there to be limited"
                    );
                }
                Output::Close(conn) => {
                    let there = self.wires.remove(&conn).is_some();
                    let asked_for = self.dialed.remove(&conn).is_some();
                    assert!(there || asked_for, "{conn} is not there to be closed");
                }
                Output::Best { prefix, legs } if legs.is_empty() => {
                    // One that came and went while it waited for its turn is said to be gone all the same.
                    self.best.remove(&prefix);
                }
                Output::Best { prefix, legs } => {
                    let before = self.best.insert(prefix, legs.clone());
                    assert_ne!(before, Some(legs), "{prefix} is told twice");
                }
                Output::Bmp { bytes, .. } => self.hear_station(&bytes),
                Output::Event(event) => {
                    match &event {
                        SpeakerEvent::Established { peer, .. } => self.established(peer),
                        SpeakerEvent::TooLong { peer, .. } => {
                            self.too_long.insert(peer.clone());
                        }
                        _ => {}
                    }
                    self.events.push(event);
                }
                // Each prefix is told of as ever, whatever has moved.
                Output::BestMoved { .. }
                | Output::BestComplete
                | Output::BfdStart { .. }
                | Output::BfdStop { .. } => {}
            }
        }
        for (conn, bytes) in sent {
            if let Some(wire) = self.wires.get_mut(&conn).filter(|it| it.taking) {
                wire.unsent -= bytes;
                self.take(Input::Tcp(conn, TcpEvent::Sent(bytes)));
            }
        }
    }

    /// The session of a peer is up: on which connection, and how it speaks.
    fn established(&mut self, key: &PeerKey) {
        let Some(peer) = self.speaker.peers.get(key) else {
            return;
        };
        let (Some(up), Some(negotiated)) = (&peer.up, peer.session.negotiated()) else {
            return;
        };
        if let Some(wire) = self.wires.get_mut(&up.conn) {
            let dialect = negotiated.dialect;
            wire.reader.set_longest(dialect.max_message());
            // The peer reads what we write.
            wire.dialect = Some(Dialect {
                paths_received: dialect.paths_sent,
                paths_sent: dialect.paths_received,
                ..dialect
            });
        }
    }

    /// What a peer reads; whether it is still there.
    fn hear(&mut self, conn: ConnId, bytes: &[u8]) -> bool {
        let Some(wire) = self.wires.get_mut(&conn) else {
            panic!("{conn} is not there to be sent to");
        };
        wire.unsent += bytes.len();
        let bound = SEND_WINDOW + BEYOND_WINDOW;
        assert!(wire.unsent < bound, "{} bytes wait for {conn}", wire.unsent);
        wire.reader.push(bytes);
        loop {
            let frame = match wire.reader.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return true,
                Err(error) => panic!("what is sent is framed: {error}"),
            };
            let dialect = wire.dialect.unwrap_or(Dialect::plain(false));
            let message = Message::decode(&frame, dialect);
            let Ok(message) = message else {
                panic!("what is sent is well-formed: {message:?}");
            };
            if let (Message::Update(update), Some(_)) = (message, wire.dialect) {
                assert!(update.problems.is_empty(), "{:?}", update.problems);
                for path in update.withdrawn_paths() {
                    assert!(wire.heard.remove(&path).is_some(), "{path:?} was not told");
                }
                for (attributes, paths) in update.announced_paths() {
                    wire.heard.extend(paths.map(|it| (it, attributes.clone())));
                }
            }
        }
    }

    fn hear_station(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(([3, a, b, c, d, kind], _)) = rest.split_first_chunk() {
            let length =
                usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
            assert!(
                *kind < 7 && length >= 6 && length <= rest.len(),
                "a message of BMP"
            );
            rest = &rest[length..];
        }
        assert!(rest.is_empty(), "whole messages of BMP");
        if let Some(unsent) = &mut self.station {
            *unsent += bytes.len();
            assert!(
                *unsent < SEND_WINDOW + BEYOND_WINDOW,
                "{unsent} bytes wait for the station"
            );
        }
    }

    /// The station takes what it was given.
    pub(super) fn drain_station(&mut self) {
        while let Some(bytes) = self
            .station
            .as_mut()
            .map(std::mem::take)
            .filter(|it| *it > 0)
        {
            let (station, event) = ("station".to_owned(), StationEvent::Sent(bytes));
            self.input(Input::Bmp { station, event });
        }
    }

    pub(super) fn is_up(&self, key: &PeerKey, conn: ConnId) -> bool {
        let peer = self.speaker.peers.get(key);
        peer.and_then(|it| it.up.as_ref())
            .is_some_and(|it| it.conn == conn)
    }

    /// What people are shown is what the outside was told.
    pub(super) fn compare(&self) {
        if self.best_wanted {
            let best: Vec<_> = self.best.clone().into_iter().collect();
            assert_eq!(best, self.speaker.best());
        }
        for (conn, wire) in &self.wires {
            if !self.is_up(&wire.peer, *conn) || wire.dialect.is_none() || wire.unsent > 0 {
                continue;
            }
            let mut heard: Vec<Shown> = wire.heard.iter().map(Shown::from).collect();
            let told = self.speaker.advertised(&wire.peer).unwrap_or_default();
            let mut told: Vec<Shown> = told.iter().map(Shown::from).collect();
            heard.sort();
            told.sort();
            if self.too_long.contains(&wire.peer) {
                assert!(
                    heard.iter().all(|it| told.contains(it)),
                    "{heard:?} {told:?}"
                );
            } else {
                assert_eq!(heard, told, "what {} has been told", wire.peer);
            }
        }
    }

    /// The prefixes that a peer's paths are to.
    pub(super) fn known_of(&self, key: &PeerKey) -> BTreeSet<Cidr> {
        let filter = RouteFilter {
            neighbor: Some(key.clone()),
            ..RouteFilter::default()
        };
        let routes = self.speaker.routes(&filter, self.now);
        routes.into_iter().map(|it| it.prefix).collect()
    }

    /// The same inputs make the same outputs, and inputs are the same after a way through a file.
    pub(super) fn replay(&self, through_json: bool) {
        let mut speaker = Speaker::new(self.start.0.clone(), self.start.1, 0);
        for (now, done) in &self.log {
            let (mut out, made) = match done {
                Done::Took(input, made) => {
                    let mut input = Input::clone(input);
                    if through_json {
                        let text = serde_json::to_string(&input);
                        let read = text.and_then(|it| serde_json::from_str(&it));
                        let Ok(read) = read else {
                            panic!("an input that cannot be recorded: {input:?}: {read:?}");
                        };
                        assert_eq!(input, read);
                        input = read;
                    }
                    let mut out = Vec::new();
                    speaker.take(input, *now, &mut out);
                    (out, made)
                }
                Done::Settled(made) => {
                    let mut out = Vec::new();
                    speaker.settle(*now, &mut out);
                    (out, made)
                }
            };
            assert_eq!(&std::mem::take(&mut out), made, "at {now}");
        }
    }

    /// What is left: paths, prefixes' and attribute sets' numbers in use, peers, connections.
    pub(super) fn weight(&self) -> [usize; 4] {
        let it = &self.speaker;
        [
            it.rib.len(),
            it.rib.sets.len(),
            it.peers.len(),
            it.connections.len(),
        ]
    }

    pub(super) fn best(&self) -> Vec<(Cidr, Vec<Leg>)> {
        self.speaker.best()
    }

    pub(super) fn count(&self, key: &PeerKey, family: Family) -> usize {
        let peer = self.speaker.peers.get(key);
        peer.map_or(0, |it| {
            self.speaker.rib.source_count(it.id, family).received
        })
    }
}

/// What both an UPDATE and `margayctl` say of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Shown {
    prefix: Cidr,
    next_hop: Option<IpAddr>,
    as_path: Vec<u32>,
    origin: &'static str,
    local_pref: Option<u32>,
    med: Option<u32>,
    communities: Vec<String>,
}

impl From<(&(Cidr, u32), &Attributes)> for Shown {
    fn from(((prefix, _), attributes): (&(Cidr, u32), &Attributes)) -> Self {
        Self {
            prefix: *prefix,
            next_hop: Some(attributes.next_hop.address),
            as_path: attributes.as_path.asns().collect(),
            origin: attributes.origin.name(),
            local_pref: attributes.local_pref,
            med: attributes.med,
            communities: attributes.communities_text(),
        }
    }
}

impl From<&RouteInfo> for Shown {
    fn from(it: &RouteInfo) -> Self {
        Self {
            prefix: it.prefix,
            next_hop: it.next_hop,
            as_path: it.as_path.clone(),
            origin: it.origin,
            local_pref: it.local_pref,
            med: it.med,
            communities: it.communities.clone(),
        }
    }
}
