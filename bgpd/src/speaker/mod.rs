//! Sessions and tables as one machine: inputs × now → outputs.

mod best;
mod bfd;
mod bmp;
mod configure;
mod drain;
mod dynamic;
pub mod exercise;
mod explain;
mod learn;
mod limits;
mod origins;
mod peer;
mod reach;
mod restart;
mod route;
mod show;
mod stale;
mod startup;
mod tell;
mod types;
mod update;

use std::collections::{BTreeMap, BTreeSet};

pub use crate::config::PeerKey;
pub use best::BEST_WINDOW;
pub use bmp::StationEvent;
pub use drain::DrainRequest;
pub use explain::{ExplainedExport, ExplainedPath, Explanation};
pub use learn::REFUSED_KEPT;
pub use reach::Hindrance;
pub use route::{RouteFilter, RouteInfo};
pub use show::Page;
pub use stale::{StaleStage, SweepReason};
pub use types::{
    BfdInfo, ConnId, DataplaneReport, FamilyCount, Hops, Input, Leg, NeighborInfo, Output,
    SpeakerEvent, Summary, TcpEvent,
};

use crate::Millis;
use crate::config::Config;
use crate::fsm::{Action, DownReason, Forwarding, Jitter, State};
use crate::nexthop::{Change, Table};
use crate::policy::Importer;
use crate::rib::{Groups, Rib, Settled, Source, SourceId};
use crate::wire::{RouteRefresh, refresh};

use drain::Drains;
use origins::Origins;
use peer::{PeerState, Up};
use startup::Startup;

/// Most bytes given to a connection that the driver has not yet said are [`TcpEvent::Sent`]. More waits in the tables,
/// where later changes overtake it.
pub const SEND_WINDOW: usize = 1 << 18;

/// A BGP speaker. It does nothing by itself: every input is answered with the outputs it causes.
#[derive(Debug)]
pub struct Speaker {
    config: Config,
    jitter: Jitter,
    peers: BTreeMap<PeerKey, PeerState>,
    next_peer: u32,
    /// Peers whose sessions are to be started once that is allowed.
    unstarted: Vec<PeerKey>,
    connections: BTreeMap<ConnId, Connection>,
    /// Peers whose sessions are due for a tick, by when.
    timers: BTreeSet<(Millis, PeerKey)>,
    /// Peers with established sessions, by what the tables know them by.
    established: BTreeMap<SourceId, (PeerKey, ConnId)>,
    /// Those of them that have not got all routes, and End-of-RIB after that.
    unfinished: BTreeSet<SourceId>,
    rib: Rib,
    groups: Groups,
    /// What a session wants; empty between two inputs.
    actions: Vec<Action>,
    taker: best::Taker,
    /// What the last decisions have changed; empty between two inputs.
    settled: Vec<Settled>,
    table: Table,
    importer: Importer,
    origins: Origins,
    drains: Drains,
    startup: Startup,
    /// BFD sessions that were asked for, and the peers whose session may have to be another one.
    watched: BTreeMap<PeerKey, bfd::Watched>,
    rewatch: BTreeSet<PeerKey>,
    stations: bmp::Stations,
    /// What is said in OPENs about this speaker's restart.
    forwarding: Forwarding,
    /// When stale routes of which peer are to be looked at; some are outdated.
    sweeps: BTreeSet<(Millis, PeerKey)>,
}

/// A connection that has not been closed by either side.
#[derive(Debug)]
struct Connection {
    peer: PeerKey,
    /// Bytes given to the driver and not yet taken by the kernel.
    unsent: usize,
}

impl Speaker {
    /// A speaker that will be what `config` says once inputs arrive. All its random choices come from `seed`.
    pub fn new(config: Config, seed: u64, now: Millis) -> Self {
        let mut jitter = Jitter::new(seed);
        let mut rib = Rib::new(jitter.next_u64());
        rib.set_source(SourceId::LOCAL, Source::local(config.router_id));
        let mut speaker = Self {
            importer: Importer::new(&config, []),
            jitter,
            peers: BTreeMap::new(),
            next_peer: 1,
            unstarted: Vec::new(),
            connections: BTreeMap::new(),
            timers: BTreeSet::new(),
            established: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            rib,
            groups: Groups::default(),
            actions: Vec::new(),
            taker: best::Taker::default(),
            settled: Vec::new(),
            table: Table::default(),
            origins: Origins::default(),
            drains: Drains::default(),
            startup: Startup::new(now),
            watched: BTreeMap::new(),
            rewatch: BTreeSet::new(),
            stations: bmp::Stations::default(),
            forwarding: Forwarding::default(),
            sweeps: BTreeSet::new(),
            config,
        };
        speaker.configure_stations(&mut Vec::new());
        // Without sessions nothing is said to anybody.
        speaker.take_origins(now, &mut Vec::new());
        for peer in speaker.config.peers.clone() {
            speaker.add_peer(&peer, now);
        }
        speaker.drain_on(now);
        speaker
    }

    /// Takes one input and settles; the outputs are to be carried out in their order.
    pub fn handle(&mut self, input: Input, now: Millis) -> Vec<Output> {
        let mut out = Vec::new();
        self.take(input, now, &mut out);
        self.settle(now, &mut out);
        out
    }

    /// Takes one input: sessions answer at once, tables are brought to what follows by [`settle`](Self::settle). Several
    /// inputs that are there already are taken before that, so that routes which belong together leave together.
    pub fn take(&mut self, input: Input, now: Millis, out: &mut Vec<Output>) {
        match input {
            Input::Config(config) => self.configure(config, now, out),
            Input::Tcp(conn, event) => self.tcp(conn, event, now, out),
            Input::Dataplane(report) => self.startup.report(&report),
            Input::OriginsBegin => self.origins.begin(),
            Input::Origin {
                prefix,
                kind,
                withdrawn,
            } => {
                if self.origins.set(prefix, (!withdrawn).then_some(kind)) {
                    self.originate(prefix, now, out);
                }
            }
            Input::OriginIdle { prefix, idle } => {
                if self.origins.set_idle(prefix, idle) {
                    self.originate(prefix, now, out);
                }
            }
            Input::Drain(request) => self.drain(request, now),
            Input::OriginsComplete => {
                for prefix in self.origins.finish() {
                    self.originate(prefix, now, out);
                }
            }
            Input::Kernel(changes) => self.kernel(changes, now, out),
            Input::Bfd { peer, event } => self.bfd(&peer, event, now, out),
            Input::Bmp { station, event } => self.station(&station, event, now, out),
            Input::Best(wanted) => self.want_best(wanted),
            Input::BestTaken(count) => self.best_taken(count),
            Input::Tick => self.tick(now, out),
        }
        self.tell_restart();
        self.start_sessions(now, out);
        self.watch(now, out);
    }

    /// When [`Input::Tick`] is due; None: nothing is waited for.
    pub fn next_timeout(&self) -> Option<Millis> {
        let first = |timers: &BTreeSet<(Millis, PeerKey)>| timers.first().map(|(at, _)| *at);
        let (session, sweep) = (first(&self.timers), first(&self.sweeps));
        session
            .into_iter()
            .chain(sweep)
            .chain(self.startup.next_timeout())
            .chain(self.drains.next_timeout())
            .chain(self.stations.next_timeout())
            .min()
    }

    /// Whether [`settle`](Self::settle) has more to do, although no input has come.
    pub fn is_behind(&self) -> bool {
        self.groups.is_awake()
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn tick(&mut self, now: Millis, out: &mut Vec<Output>) {
        let due = self.timers.iter().take_while(|(at, _)| *at <= now);
        let due: Vec<(Millis, PeerKey)> = due.cloned().collect();
        for (at, key) in due {
            // A peer that is gone, or has come again since, leaves its timer behind.
            if self.peers.get(&key).is_none_or(|it| it.due != Some(at)) {
                self.timers.remove(&(at, key));
                continue;
            }
            self.with_session(&key, now, out, |session, actions| {
                session.tick(now, actions)
            });
        }
        if self.drains.next_timeout().is_some_and(|at| at <= now) {
            self.drain_on(now);
        }
        self.expire_stale(now, out);
    }

    fn tcp(&mut self, conn: ConnId, event: TcpEvent, now: Millis, out: &mut Vec<Output>) {
        if let TcpEvent::Accepted { local, remote, ttl } = event {
            return self.accept(conn, (local, remote), ttl, now, out);
        }
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let key = connection.peer.clone();
        match event {
            TcpEvent::Sent(bytes) => {
                let had_room = connection.unsent < SEND_WINDOW;
                connection.unsent = connection.unsent.saturating_sub(bytes);
                let has_room = connection.unsent < SEND_WINDOW;
                if let Some(peer) = self.peers.get_mut(&key) {
                    peer.session.sent(conn, bytes, now);
                    if !had_room && has_room {
                        self.groups.has_room(peer.id);
                    }
                }
            }
            TcpEvent::Connected { local, remote } => {
                self.with_session(&key, now, out, |it, actions| {
                    it.connected(conn, local, remote, now, actions)
                });
            }
            TcpEvent::Bytes(bytes) => {
                let (mut bytes, mut is_behind) = (&bytes[..], true);
                while is_behind {
                    is_behind = false;
                    self.with_session(&key, now, out, |it, actions| {
                        is_behind = it.bytes(conn, std::mem::take(&mut bytes), now, actions);
                    });
                }
            }
            TcpEvent::ConnectFailed { reason } => {
                self.connections.remove(&conn);
                self.with_session(&key, now, out, |it, actions| {
                    it.connect_failed(conn, reason, now, actions)
                });
            }
            TcpEvent::Closed { reason } => {
                self.connections.remove(&conn);
                self.with_session(&key, now, out, |it, actions| {
                    it.closed(conn, reason, now, actions)
                });
            }
            TcpEvent::Accepted { .. } => {}
        }
    }

    /// Lets a session do something, and does what it wants.
    fn with_session(
        &mut self,
        key: &PeerKey,
        now: Millis,
        out: &mut Vec<Output>,
        work: impl FnOnce(&mut crate::fsm::Session, &mut Vec<Action>),
    ) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        // The memory is used again: a chunk of bytes may hold hundreds of messages.
        let mut actions = std::mem::take(&mut self.actions);
        work(&mut peer.session, &mut actions);
        let due = peer.session.next_timeout();
        if due != peer.due {
            if let Some(before) = std::mem::replace(&mut peer.due, due) {
                self.timers.remove(&(before, key.clone()));
            }
            self.timers.extend(due.map(|at| (at, key.clone())));
        }
        for action in actions.drain(..) {
            self.act(key, action, now, out);
        }
        self.actions = actions;
        self.forget_if_gone(key);
    }

    fn act(&mut self, key: &PeerKey, action: Action, now: Millis, out: &mut Vec<Output>) {
        match action {
            Action::Connect(conn) => self.connect(key, conn, out),
            Action::Send(conn, bytes) => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.unsent += bytes.len();
                    out.push(Output::Send(conn, bytes));
                }
            }
            Action::Close(conn) => {
                if self.connections.remove(&conn).is_some() {
                    out.push(Output::Close(conn));
                }
            }
            Action::Established(conn) => self.established(key, conn, out),
            Action::Down(state, reason) => self.down(key, state, reason, now, out),
            Action::Update(update) => {
                self.stations_update(key, &update, out);
                self.update(key, update, now, out);
            }
            Action::Plain(plain) => self.plain_update(key, &plain, now, out),
            Action::Refresh(refresh) => self.refresh(key, refresh, now, out),
        }
    }

    fn established(&mut self, key: &PeerKey, conn: ConnId, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let (Some(source), Some(to)) = (peer.source(&self.table), peer.to(&self.table)) else {
            return;
        };
        let Some(dialect) = peer.session.negotiated().map(|it| it.dialect) else {
            return;
        };
        self.rewatch.insert(key.clone());
        (peer.last.address, peer.last.ifindex) = (source.address, source.ifindex);
        self.rib.set_source(peer.id, source);
        self.established.insert(peer.id, (key.clone(), conn));
        self.unfinished.insert(peer.id);
        let of = peer.key_of(to.clone(), dialect);
        self.groups.join(peer.id, of, &mut self.rib);
        peer.up = Some(Up {
            conn,
            to,
            eor_sent: Vec::new(),
            eor_received: Vec::new(),
            unkept: BTreeMap::new(),
            surplus: 0,
            missing: Vec::new(),
            restart: peer.session.negotiated().and_then(|it| it.restart.clone()),
            asked: Vec::new(),
            refreshing: Vec::new(),
        });
        peer.over.clear();
        peer.torn_down = None;
        if let Some(negotiated) = peer.session.negotiated() {
            peer.last.asn = negotiated.asn;
            out.push(Output::Event(SpeakerEvent::Established {
                peer: key.clone(),
                families: negotiated.families.clone(),
                hold_time: negotiated.hold_time,
            }));
        }
        self.resume(key, out);
        self.stations_up(key, out);
    }

    fn down(
        &mut self,
        key: &PeerKey,
        state: State,
        reason: DownReason,
        now: Millis,
        out: &mut Vec<Output>,
    ) {
        out.push(Output::Event(SpeakerEvent::Down {
            peer: key.clone(),
            state,
            reason: reason.clone(),
        }));
        if state != State::Established {
            return;
        }
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let Some(up) = peer.up.take() else {
            return;
        };
        let id = peer.id;
        self.groups.leave(id, &mut self.rib);
        self.established.remove(&id);
        self.unfinished.remove(&id);
        match up.restart.filter(|it| reason.keeps_routes(it)) {
            Some(restart) => self.keep(key, &restart, now, out),
            None => {
                peer.stale.clear();
                self.rib.remove_source(id);
            }
        }
        self.stations_down(id, &reason, out);
    }

    /// The peer wants everything of a family again (RFC 2918), or marks what it repeats (RFC 7313).
    fn refresh(
        &mut self,
        key: &PeerKey,
        refresh: RouteRefresh,
        now: Millis,
        out: &mut Vec<Output>,
    ) {
        let Some(family) = refresh.family() else {
            return;
        };
        if refresh.subtype != refresh::REQUEST {
            return self.refresh_mark(key, family, refresh.subtype, now, out);
        }
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        if let Some(up) = &mut peer.up
            && !up.asked.contains(&family)
        {
            up.asked.push(family);
            self.repeat(key, now, out);
        }
    }

    /// What OPENs and the end of this speaker's start depend on has changed.
    fn tell_restart(&mut self) {
        let forwarding = self.startup.forwarding();
        if self.forwarding != forwarding {
            self.forwarding = forwarding;
            for peer in self.peers.values_mut() {
                peer.session.set_forwarding(forwarding);
            }
        }
    }

    fn kernel(&mut self, changes: Vec<Change>, now: Millis, out: &mut Vec<Output>) {
        let (mut changed, mut moved) = (false, learn::Moved::default());
        let cut_off = self.cut_off(&changes);
        for change in changes {
            let addresses = self.table.addresses_of(&change);
            if self.table.apply(change) {
                changed = true;
                moved.extend(addresses);
            }
        }
        if !changed {
            return;
        }
        for (key, interface) in cut_off {
            self.with_session(&key, now, out, |session, actions| {
                session.path_lost(DownReason::LinkDown(interface), now, actions);
            });
        }
        self.watch_all();
        let keys: Vec<PeerKey> = self.peers.keys().cloned().collect();
        for key in keys {
            self.reconsider(&key);
        }
        self.rib.next_hops_changed(&self.table);
        self.reach_again(now, out);
        if !moved.is_empty() {
            self.ask_again(now, out, |_, unkept| unkept.is_moved(&moved));
            self.judge_moved(&moved);
        }
    }

    /// What the tables know of a peer may be different now, and what it is told.
    fn reconsider(&mut self, key: &PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let (source, to) = (peer.source(&self.table), peer.to(&self.table));
        let dialect = peer.session.negotiated().map(|it| it.dialect);
        let (Some(up), Some(source), Some(to), Some(dialect)) = (&mut peer.up, source, to, dialect)
        else {
            return;
        };
        up.to = to.clone();
        peer.last.ifindex = source.ifindex;
        self.unfinished.insert(peer.id);
        let key = peer.key_of(to, dialect);
        self.groups.join(peer.id, key, &mut self.rib);
        if self.rib.set_source(peer.id, source) {
            for id in self.rib.ids_of(peer.id) {
                self.groups.retell(id);
            }
        }
    }
}
