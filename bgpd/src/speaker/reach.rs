//! How peers are reached: which sessions may start, how far their connections may go, who is let in.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use serde::{Deserialize, Serialize};

use crate::Millis;
use crate::config::{Config, Distance, Peer};
use crate::fsm::{Settings, State};
use crate::nexthop::Table;
use crate::wire::Notification;
use crate::wire::notification::Cease;

use super::dynamic::Refusal;
use super::{ConnId, Connection, Hops, Output, PeerKey, Speaker, SpeakerEvent};

/// Why a session is not started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Hindrance {
    /// An external peer is not on a connected network, and nothing says that it may be farther away.
    #[error("{0} is not on a connected network: set the number of hops if it shall not be")]
    NotConnected(IpAddr),
    /// No router is known on the peer's interface: it can only be connected to by it.
    #[error("no router is known on {0}: waiting for its advertisements, or to be connected to")]
    NoRouter(String),
    /// The peer's interface is not there, or down.
    #[error("there is no interface {0} that is up")]
    NoInterface(String),
    /// The address that the peer is reached through has no route.
    #[error("{0}, which the peer is reached by, has no route")]
    NoRoute(IpAddr),
    /// It is shut down in the configuration.
    #[error("it is shut down: unset shutdown to have the session again")]
    Shutdown,
    /// Its password was never read.
    #[error("its password is not known: see the condition Accepted of the object that asks for it")]
    NoPassword,
}

impl Hindrance {
    /// Whether not even a connection that the peer makes is taken.
    pub fn blocks(&self) -> bool {
        match self {
            Self::NotConnected(_) | Self::NoRoute(_) | Self::NoPassword | Self::Shutdown => true,
            Self::NoRouter(_) | Self::NoInterface(_) => false,
        }
    }
}

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

/// Where a peer is connected to.
fn target(table: &Table, peer: &Peer) -> Result<SocketAddr, Hindrance> {
    match &peer.key {
        PeerKey::Address(address) => Ok(SocketAddr::new(*address, peer.port)),
        PeerKey::Interface(name) => {
            let ifindex = table.interface_named(name).filter(|it| table.is_up(*it));
            let ifindex = ifindex.ok_or_else(|| Hindrance::NoInterface(name.clone()))?;
            let said = peer.options.link_local;
            let router = said.or_else(|| table.router(ifindex));
            let router = router.ok_or_else(|| Hindrance::NoRouter(name.clone()))?;
            Ok(SocketAddrV6::new(router, peer.port, 0, ifindex).into())
        }
    }
}

/// Why the peer's session cannot start, or only if the peer connects.
fn hindrance(config: &Config, table: &Table, peer: &Peer) -> Option<Hindrance> {
    if peer.options.shutdown.is_some() {
        return Some(Hindrance::Shutdown);
    }
    if peer.options.withheld {
        return Some(Hindrance::NoPassword);
    }
    // Without the kernel's word nothing is known to be out of reach; who only waits to be connected to harms nobody.
    if table.is_empty() || peer.passive {
        return None;
    }
    let target = match target(table, peer) {
        Ok(target) => target.ip(),
        Err(hindrance) => return Some(hindrance),
    };
    if let Some(by) = peer.options.reachable_by {
        let found = table.resolve(by.into(), None);
        return found.is_none().then_some(Hindrance::NoRoute(by));
    }
    let direct = match peer.options.distance {
        Distance::Direct => !peer.is_internal(config),
        Distance::Secure(hops) => hops <= 1,
        Distance::Multihop(_) => false,
    };
    (direct && !table.is_connected(target)).then_some(Hindrance::NotConnected(target))
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
    /// The settings of a peer's session: as configured, but passive while nobody is known who could be connected to.
    pub(super) fn settings(&self, peer: &Peer) -> Settings {
        let mut settings = Settings::new(&self.config, peer);
        settings.passive |= target(&self.table, peer).is_err();
        settings
    }

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
            let blocked = hindrance.as_ref().is_some_and(Hindrance::blocks);
            peer.hindrance = hindrance;
            if !blocked {
                self.with_session(&key, now, out, |session, actions| {
                    session.start(now, actions);
                });
            }
        }
    }

    /// The kernel knows other networks: sessions may start that could not, and attempts end that cannot succeed. A
    /// connection that is there is left to its timers.
    pub(super) fn reach_again(&mut self, now: Millis, out: &mut Vec<Output>) {
        let (mut ended, mut changed) = (Vec::new(), Vec::new());
        for (key, peer) in &self.peers {
            let settings = self.settings(&peer.config);
            if settings.passive != peer.session.settings().passive {
                changed.push((key.clone(), settings));
            }
            let hindrance = hindrance(&self.config, &self.table, &peer.config);
            let idle = matches!(peer.session.state(), State::Connect | State::Active);
            if peer.is_blocked() {
                // Whether it still is hindered is looked at when it is started.
                self.unstarted.push(key.clone());
            } else if hindrance.is_some_and(|it| it.blocks()) && idle {
                ended.push(key.clone());
            }
        }
        for key in ended {
            self.with_session(&key, now, out, |session, actions| {
                session.stop(Cease::OtherChange, now, actions);
            });
            self.unstarted.push(key);
        }
        for (key, settings) in changed {
            self.with_session(&key, now, out, |session, actions| {
                session.set(settings, now, actions);
            });
        }
        for peer in self.peers.values_mut() {
            let hindrance = hindrance(&self.config, &self.table, &peer.config);
            if !hindrance.as_ref().is_some_and(Hindrance::blocks) && !peer.is_blocked() {
                peer.hindrance = hindrance;
            }
        }
    }

    /// The routers of peers on interfaces, as far as they are known: name of the interface, address.
    pub fn routers(&self) -> BTreeMap<String, Ipv6Addr> {
        let on = |peer: &Peer| match &peer.key {
            PeerKey::Interface(name) => {
                let found = || self.table.router(self.table.interface_named(name)?);
                Some((name.clone(), peer.options.link_local.or_else(found)?))
            }
            PeerKey::Address(_) => None,
        };
        self.config.peers.iter().filter_map(on).collect()
    }

    /// Asks for a connection to a peer.
    pub(super) fn connect(&mut self, key: &PeerKey, conn: ConnId, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get(key) else {
            return;
        };
        // Without one the session is passive and asks for none.
        let Ok(remote) = target(&self.table, &peer.config) else {
            return;
        };
        out.push(Output::Connect {
            peer: key.clone(),
            local: peer.config.local_address,
            local_port: peer.config.options.local_port,
            remote,
            hops: hops(&self.config, &peer.config),
            conn,
        });
        let connection = Connection {
            peer: key.clone(),
            unsent: 0,
        };
        self.connections.insert(conn, connection);
    }

    /// The interface that a link-local address is on, if it is known.
    pub fn interface_of(&self, remote: SocketAddr) -> Option<String> {
        match remote {
            SocketAddr::V6(v6) => self.table.interface_name(v6.scope_id()).map(str::to_owned),
            SocketAddr::V4(_) => None,
        }
    }

    /// Whose address that would be: the peer's on the interface, for a link-local one that it may have.
    fn key_of(&self, remote: SocketAddr) -> PeerKey {
        self.interface_of(remote)
            .map(PeerKey::Interface)
            .filter(|key| {
                let said = self.peers.get(key).map(|it| it.config.options.link_local);
                said.is_some_and(|it| it.is_none_or(|said| IpAddr::V6(said) == remote.ip()))
            })
            .unwrap_or_else(|| PeerKey::Address(remote.ip().to_canonical()))
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
        let mut key = self.key_of(remote);
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
        // Without it, as the kernel keeps none of a connection made by a SYN cookie, nothing is known of how far it came.
        let ttl = ttl.unwrap_or(0);
        if ttl < hops.least {
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
