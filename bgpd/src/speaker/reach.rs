//! How peers are reached: which sessions may start, how far their connections may go, who is let in.

use std::net::SocketAddr;

use crate::Millis;
use crate::config::{Config, Distance, Peer};
use crate::fsm::State;
use crate::nexthop::Table;
use crate::wire::Notification;
use crate::wire::notification::Cease;

use super::dynamic::Refusal;
use super::{ConnId, Connection, Hindrance, Hops, Output, PeerKey, Speaker, SpeakerEvent};

/// How far the peer's connections may go.
fn hops(config: &Config, peer: &Peer) -> Hops {
    match peer.options.distance {
        Distance::Direct if peer.is_internal(config) => Hops { ttl: 255, least: 0 },
        Distance::Direct => Hops { ttl: 1, least: 0 },
        Distance::Multihop(ttl) => Hops { ttl, least: 0 },
        // RFC 5082 section 3: a packet over one hop still has 255.
        Distance::Secure(hops) => Hops {
            ttl: 255,
            least: 255 - hops.saturating_sub(1),
        },
    }
}

/// Why the peer's session cannot start.
fn hindrance(config: &Config, table: &Table, peer: &Peer) -> Option<Hindrance> {
    let address = peer.key.address()?;
    // Without the kernel's word nothing is known to be out of reach; who only waits to be connected to harms nobody.
    if table.is_empty() || peer.passive {
        return None;
    }
    if let Some(by) = peer.options.reachable_by {
        return table
            .resolve(by.into(), None)
            .is_none()
            .then_some(Hindrance::NoRoute(by));
    }
    let direct = match peer.options.distance {
        Distance::Direct => !peer.is_internal(config),
        Distance::Secure(hops) => hops <= 1,
        Distance::Multihop(_) => false,
    };
    (direct && !table.is_connected(address)).then_some(Hindrance::NotConnected(address))
}

/// Tells somebody that no connection of it is wanted.
fn refuse(conn: ConnId, remote: SocketAddr, refusal: &Refusal, out: &mut Vec<Output>) {
    let (event, cease) = match *refusal {
        Refusal::Unknown => (SpeakerEvent::UnknownPeer { remote }, Cease::Rejected),
        Refusal::Full { range, limit } => {
            let event = SpeakerEvent::RangeFull {
                remote,
                range,
                limit,
            };
            (event, Cease::OutOfResources)
        }
    };
    out.extend([
        Output::Event(event),
        Output::Send(conn, Notification::cease(cease).encode()),
        Output::Close(conn),
    ]);
}

impl Speaker {
    /// Starts all sessions once that is allowed, but for those whose peers are out of reach.
    pub(super) fn start_sessions(&mut self, now: Millis, out: &mut Vec<Output>) {
        if !self.startup.may_start(now, out) {
            return;
        }
        for key in std::mem::take(&mut self.unstarted) {
            let Some(peer) = self.peers.get_mut(&key) else {
                continue;
            };
            let hindrance = hindrance(&self.config, &self.table, &peer.config);
            if let Some(reason) = hindrance.clone().filter(|_| hindrance != peer.hindrance) {
                let peer = key.clone();
                out.push(Output::Event(SpeakerEvent::Held { peer, reason }));
            }
            peer.hindrance = hindrance;
            if peer.hindrance.is_none() {
                self.with_session(&key, now, out, |session, actions| {
                    session.start(now, actions);
                });
            }
        }
    }

    /// The kernel knows other networks: sessions may start that could not, and attempts end that cannot succeed. A
    /// connection that is there is left to its timers.
    pub(super) fn reach_again(&mut self, now: Millis, out: &mut Vec<Output>) {
        let mut ended = Vec::new();
        for (key, peer) in &self.peers {
            let is_hindered = hindrance(&self.config, &self.table, &peer.config).is_some();
            if peer.hindrance.is_some() {
                // Whether it still is, and why, is found when it is started.
                self.unstarted.push(key.clone());
            } else if is_hindered && matches!(peer.session.state(), State::Connect | State::Active)
            {
                ended.push(key.clone());
            }
        }
        for key in ended {
            self.with_session(&key, now, out, |session, actions| {
                session.stop(Cease::OtherChange, now, actions);
            });
            self.unstarted.push(key);
        }
    }

    /// Asks for a connection to a peer.
    pub(super) fn connect(&mut self, key: &PeerKey, conn: ConnId, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get(key) else {
            return;
        };
        let Some(address) = key.address() else { return };
        let connection = Connection {
            peer: key.clone(),
            unsent: 0,
        };
        self.connections.insert(conn, connection);
        out.push(Output::Connect {
            peer: key.clone(),
            local: peer.config.local_address,
            local_port: peer.config.options.local_port,
            remote: SocketAddr::new(address, peer.config.port),
            hops: hops(&self.config, &peer.config),
            conn,
        });
    }

    /// Judges a connection that somebody made.
    pub(super) fn accept(
        &mut self,
        conn: ConnId,
        (local, remote): (SocketAddr, SocketAddr),
        ttl: Option<u8>,
        now: Millis,
        out: &mut Vec<Output>,
    ) {
        let mut key = PeerKey::Address(remote.ip().to_canonical());
        let is_new = !self.peers.contains_key(&key);
        if is_new {
            match self.admit(remote.ip().to_canonical(), now) {
                Ok(admitted) => key = admitted,
                Err(refusal) => return refuse(conn, remote, &refusal, out),
            }
        }
        let Some(peer) = self.peers.get(&key) else {
            return;
        };
        let hops = hops(&self.config, &peer.config);
        // The limit is set on a connection that is there: what came before is judged by its first packet.
        if let Some(ttl) = ttl.filter(|ttl| *ttl < hops.least) {
            let least = hops.least;
            out.push(Output::Event(SpeakerEvent::TooFar { remote, ttl, least }));
            out.push(Output::Close(conn));
            return;
        }
        let connection = Connection {
            peer: key.clone(),
            unsent: 0,
        };
        self.connections.insert(conn, connection);
        out.push(Output::Limit(conn, hops));
        let mut refused = None;
        let may_start = self.startup.may_start(now, out);
        self.with_session(&key, now, out, |session, actions| {
            if is_new && may_start {
                session.start(now, actions);
            }
            refused = session.accepted(conn, local, remote, now, actions).err();
        });
        if let Some(state) = refused {
            self.connections.remove(&conn);
            out.extend([
                Output::Event(SpeakerEvent::NotReady { peer: key, state }),
                Output::Close(conn),
            ]);
        }
    }
}
