//! What fuzzing and property tests share: a whole life of a speaker between a hostile peer and two honest ones.
//!
//! Any bytes are a row of steps: what the hostile peer sends, cut anywhere; connections that come and go; time; what
//! operators, felix, the kernel, BFD and the station do. After each step and in the end it is judged what always holds.

mod allowed;
mod script;
mod setup;
mod world;

use std::collections::BTreeMap;

use crds::net::{Cidr, Family};

use super::{
    ConnId, DataplaneReport, DrainRequest, Input, PeerKey, SpeakerEvent, StationEvent, TcpEvent,
};
use crate::Millis;
use crate::bfd;
use crate::config::{Config, Drain, OriginKind, OverLimit};
use crate::fsm::DownReason;
use crate::wire::{self, Dialect, Families, HEADER, Notification, RouteRefresh, update};

use allowed::may_reset;
use script::Script;
use setup::{
    ENDS, HONEST, HOSTILE, LIMIT, SPEAKER, announcement, honest_config, hostile_config, kernel, key,
};
use world::World;

/// Most steps of one life: the rest of the bytes says nothing new.
const STEPS: usize = 300;
/// An honest peer is heard of that often.
const KEEPALIVE: Millis = 20_000;
/// Lives through what the bytes say.
///
/// # Panics
///
/// If the speaker panics; if what it says to anybody is malformed, or is not what it shows; if an honest peer's session or
/// routes are touched; if an UPDATE ends a session that RFC 7606 lets go on; if a limit is passed, or more is kept of a
/// peer that is gone than of one that never was; if the same inputs make other outputs a second time.
pub fn life(bytes: &[u8]) {
    let mut script = Script(bytes);
    let what = script.byte();
    let mut life = Life::new(hostile_config(&mut script));
    for _ in 0..STEPS {
        if script.is_over() {
            break;
        }
        life.step(&mut script);
        life.judge();
    }
    life.end();
    life.world.replay(what & 1 == 1);
}

struct Life {
    world: World,
    config: Config,
    honest: [Honest; 2],
    /// The hostile peer's connections, the last one last.
    hostile: Vec<ConnId>,
    origins: BTreeMap<Cidr, OriginKind>,
    steps: usize,
}

struct Honest {
    key: PeerKey,
    conn: ConnId,
    said: BTreeMap<Cidr, u8>,
    spoke: Millis,
}

impl Life {
    fn new(config: Config) -> Self {
        let mut world = World::new(config.clone(), 7);
        world.input(Input::Kernel(kernel(true)));
        world.input(Input::Dataplane(DataplaneReport {
            boot_id: "boot".into(),
            preserved: Vec::new(),
            restarted: false,
        }));
        let honest = HONEST.map(|(address, asn)| {
            let conn = world.connect(address.into(), ENDS[0].into());
            let capabilities = Family::ALL.map(wire::Capability::unicast).to_vec();
            let open = wire::Open::new(asn, 90, address.into(), capabilities);
            world.send(conn, &open.encode());
            world.send(conn, &wire::keepalive());
            world.settle();
            Honest {
                key: key(address),
                conn,
                said: BTreeMap::new(),
                spoke: 0,
            }
        });
        let mut life = Self {
            world,
            config,
            honest,
            hostile: Vec::new(),
            origins: BTreeMap::new(),
            steps: 0,
        };
        for index in 0..HONEST.len() {
            life.say(index, 0, 0);
        }
        life
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 32 {
            0 => self.connect(script, HOSTILE),
            1 => {
                let last = 2 + script.byte() % 6;
                self.connect(script, [198, 51, 100, last]);
            }
            2 => self.answer(script),
            3 => self.handshake(script),
            4 | 5 => self.hostile_update(script, false),
            6 | 7 => self.hostile_update(script, true),
            8 => self.hostile_body(script),
            9 => {
                let length = usize::from(script.byte());
                let bytes = script.bytes(length);
                self.hostile_bytes(script, bytes, false);
            }
            10 => self.hostile_bytes(script, &wire::keepalive(), true),
            11 => {
                let (code, subcode) = (script.byte(), script.byte());
                let notification = Notification {
                    code,
                    subcode,
                    data: script.bytes(3).to_vec(),
                };
                self.hostile_bytes(script, &notification.encode(), true);
            }
            12 => {
                let what = script.byte();
                let refresh = RouteRefresh {
                    afi: u16::from(what & 3),
                    safi: 1 + (what >> 2 & 1),
                    subtype: what >> 3 & 3,
                };
                self.hostile_bytes(script, &refresh.encode(), true);
            }
            13 => {
                if let Some(conn) = self.hostile.pop() {
                    self.world.hang_up(conn);
                }
            }
            14 | 15 => {
                let time = Millis::from(script.byte());
                self.pass([10, 500, 5_000, 40_000][usize::from(script.byte() % 4)] * time / 16);
            }
            16 => self.stall(script),
            17 => {
                for conn in self.hostile.clone() {
                    self.world.drain(conn);
                }
            }
            18 => self.edit(script),
            19 => {
                let up = script.bit();
                self.world.take(Input::Kernel(kernel(up)));
            }
            20 | 21 => self.originate(script),
            22 => self.world.take(Input::Drain(DrainRequest {
                node: [Drain::No, Drain::Services, Drain::Everything]
                    [usize::from(script.byte() % 3)],
                force: script.bit(),
                peers: script.bit().then(|| key(HOSTILE)).into_iter().collect(),
            })),
            23 => {
                let event = match script.byte() % 3 {
                    0 => bfd::Event::Up,
                    1 => bfd::Event::AdminDown,
                    _ => bfd::Event::Down {
                        diagnostic: bfd::Diagnostic(1),
                        independent: script.bit(),
                    },
                };
                let peer = key(HOSTILE);
                self.world.take(Input::Bfd { peer, event });
            }
            24 => self.station(script),
            25 => {
                let wanted = script.bit();
                self.world.take(Input::Best(wanted));
            }
            26 => self.world.take(Input::OriginsBegin),
            27 => {
                self.world.take(Input::OriginsBegin);
                for (prefix, kind) in self.origins.clone() {
                    self.world.take(Input::Origin {
                        prefix,
                        kind,
                        withdrawn: false,
                    });
                }
                self.world.take(Input::OriginsComplete);
            }
            28 => self.world.settle(),
            29 => self.world.take(Input::Tick),
            _ => {
                let (who, what) = (script.byte(), script.byte());
                self.say(usize::from(who % 2), what, script.byte());
            }
        }
    }

    fn connect(&mut self, script: &mut Script<'_>, from: [u8; 4]) {
        let conn = self.world.connect(from.into(), ENDS[1].into());
        self.hostile.push(conn);
        self.handshake(script);
    }

    /// The other end answers what the speaker asked for.
    fn answer(&mut self, script: &mut Script<'_>) {
        let Some((conn, _)) = self.world.dialed.first_key_value() else {
            return;
        };
        let conn = *conn;
        if script.bit() {
            self.world.connected(conn, ENDS[1].into());
            self.hostile.push(conn);
            self.handshake(script);
        } else {
            self.world.dialed.remove(&conn);
            let reason = "refused".to_owned();
            let failed = TcpEvent::ConnectFailed { reason };
            self.world.take(Input::Tcp(conn, failed));
        }
    }

    /// The hostile peer says hello, in full, halfway, or not at all.
    fn handshake(&mut self, script: &mut Script<'_>) {
        let how = script.byte();
        if how & 3 > 0 {
            let asn = match how >> 2 & 7 {
                0 => 65003,
                1 => 0,
                2 => 4_200_000_000,
                3 | 4 => SPEAKER,
                _ => 65002,
            };
            let open = script.open(asn).encode();
            self.hostile_bytes(script, &open, true);
        }
        if how & 3 > 1 {
            self.hostile_bytes(script, &wire::keepalive(), true);
        }
    }

    /// How the last connection reads UPDATEs.
    fn dialect(&self) -> Dialect {
        let wire = self.hostile.last().and_then(|it| self.world.wires.get(it));
        let dialect = wire.and_then(|it| it.dialect);
        dialect.unwrap_or(Dialect::plain(false))
    }

    fn hostile_update(&mut self, script: &mut Script<'_>, damaged: bool) {
        let dialect = self.dialect();
        let what = script.byte();
        let family = if what & 1 == 0 {
            Family::V4
        } else {
            Family::V6
        };
        let prefixes = script.prefixes(family);
        let with_ids = dialect.paths_sent.contains(family);
        let paths = prefixes.iter().map(|it| (u32::from(what >> 6), *it));
        let paths: Vec<(u32, Cidr)> = paths.collect();
        let messages = if what & 6 == 6 {
            match with_ids {
                true => update::withdraw_paths(family, &paths),
                false => update::withdraw(family, &prefixes),
            }
        } else if what & 56 == 56 {
            vec![update::end_of_rib(family)]
        } else {
            let asn = if dialect.internal { 65009 } else { 65002 };
            let attributes = script.attributes(family, asn);
            let messages = match with_ids {
                true => update::announce_paths(&attributes, family, &paths, dialect),
                false => update::announce(&attributes, family, &prefixes, dialect),
            };
            messages.unwrap_or_default()
        };
        for message in messages {
            let mut message = message.to_vec();
            if damaged {
                for _ in 0..1 + script.byte() % 3 {
                    let at = HEADER + usize::from(script.byte()) % (message.len() - HEADER);
                    message[at] = script.byte();
                }
            }
            self.hostile_message(script, &message);
        }
    }

    /// An UPDATE with any body.
    fn hostile_body(&mut self, script: &mut Script<'_>) {
        let length = script.byte().max(19);
        let body = script.bytes(usize::from(length) - HEADER);
        let length = u8::try_from(HEADER + body.len()).unwrap_or(u8::MAX);
        let mut message = vec![0xff; 16];
        message.extend([0, length, 2]);
        message.extend(body);
        self.hostile_message(script, &message);
    }

    /// A whole UPDATE, after which the session goes on if RFC 7606 says so.
    fn hostile_message(&mut self, script: &mut Script<'_>, message: &[u8]) {
        let before = self.hostile.last().copied();
        let wire = before.and_then(|it| self.world.wires.get(&it));
        let judged = wire.filter(|it| it.whole).and_then(|it| it.dialect);
        self.world.events.clear();
        self.hostile_bytes(script, message, message.len() >= 23);
        let Some(dialect) = judged else { return };
        // The way there is the way back of what the peer reads.
        let read = Dialect {
            paths_received: dialect.paths_sent,
            paths_sent: Families::NONE,
            ..dialect
        };
        let told_off = |it: &SpeakerEvent| matches!(it, SpeakerEvent::Down { reason: DownReason::Sent(it), .. } if it.code == 3);
        if message.len() >= 23 && self.world.events.iter().any(told_off) {
            let allowed = may_reset(&message[HEADER..], read);
            assert!(
                allowed,
                "RFC 7606 lets the session go on after {}",
                wire::hex(message)
            );
        }
    }

    /// Bytes of the last connection, cut as the script says; `whole`: they are messages.
    fn hostile_bytes(&mut self, script: &mut Script<'_>, bytes: &[u8], whole: bool) {
        let Some(conn) = self.hostile.last().copied() else {
            return;
        };
        if let Some(wire) = self.world.wires.get_mut(&conn) {
            wire.whole &= whole;
        }
        let how = script.byte();
        let piece = match how & 3 {
            0 => 1,
            1 => 1 + usize::from(how >> 2),
            _ => bytes.len().max(1),
        };
        for piece in bytes.chunks(piece) {
            self.world.send(conn, piece);
            if how & 4 != 0 {
                self.world.settle();
            }
        }
    }

    /// Whose kernel takes nothing, until time passes or it is told to.
    fn stall(&mut self, script: &mut Script<'_>) {
        let (who, takes) = (script.byte(), script.bit());
        let conn = match who % 3 {
            0 => self.hostile.last().copied(),
            it => Some(self.honest[usize::from(it) - 1].conn),
        };
        if let Some(wire) = conn.and_then(|it| self.world.wires.get_mut(&it)) {
            wire.taking = takes;
        }
    }

    /// Somebody edits what concerns the hostile peer, or all.
    fn edit(&mut self, script: &mut Script<'_>) {
        let what = script.byte();
        let mut config = self.config.clone();
        match what % 4 {
            0 => config.peers.truncate(HONEST.len()),
            1 => config.dynamic.clear(),
            2 => config.multipath = 1 + (what >> 2) % 3,
            _ => config = hostile_config(script),
        }
        if what & 128 != 0 {
            config.bmp.clear();
            self.world.station = None;
        }
        config.require_policy = false;
        self.world.take(Input::Config(config));
    }

    fn originate(&mut self, script: &mut Script<'_>) {
        let what = script.byte();
        let (first, length, kind) = match what & 3 {
            0 => ([10, 244, 0, what & 0xc0], 26, OriginKind::Block),
            1 => ([10, 96, 0, what], 32, OriginKind::Service),
            2 => ([10, 5, what >> 5, 0], 24, OriginKind::Block),
            _ => ([10, 3, 0, 9], 32, OriginKind::Borrowed),
        };
        let Ok(prefix) = Cidr::new(first.into(), length) else {
            return;
        };
        if what & 4 != 0 {
            let idle = what & 8 != 0;
            return self.world.take(Input::OriginIdle { prefix, idle });
        }
        let withdrawn = what & 24 == 24;
        match withdrawn {
            true => self.origins.remove(&prefix),
            false => self.origins.insert(prefix, kind),
        };
        self.world.take(Input::Origin {
            prefix,
            kind,
            withdrawn,
        });
    }

    fn station(&mut self, script: &mut Script<'_>) {
        let event = match script.byte() % 3 {
            0 if self.world.station.is_none() => {
                self.world.station = Some(0);
                StationEvent::Connected
            }
            0 => return self.world.drain_station(),
            1 => {
                self.world.station = None;
                StationEvent::Closed
            }
            _ => return,
        };
        let station = "station".to_owned();
        self.world.take(Input::Bmp { station, event });
    }

    /// An honest peer announces or withdraws one of its prefixes.
    fn say(&mut self, index: usize, number: u8, kind: u8) {
        let honest = &mut self.honest[index];
        // Some are of one of them, some of both.
        let net = match number & 8 {
            0 => 5,
            _ if index == 0 => 3,
            _ => 4,
        };
        let Ok(prefix) = Cidr::new([10, net, number & 7, 0].into(), 24) else {
            return;
        };
        let bytes = match kind % 4 {
            3 => {
                honest.said.remove(&prefix);
                update::withdraw(Family::V4, &[prefix])
            }
            kind => {
                honest.said.insert(prefix, kind);
                announcement(index, prefix, kind)
            }
        };
        for message in bytes {
            self.world.send(self.honest[index].conn, &message);
        }
    }

    /// Time passes: honest peers speak and read.
    fn pass(&mut self, time: Millis) {
        let end = self.world.now + time;
        loop {
            for index in 0..self.honest.len() {
                let honest = &mut self.honest[index];
                let conn = honest.conn;
                if self.world.now >= honest.spoke + KEEPALIVE {
                    honest.spoke = self.world.now;
                    self.world.send(conn, &wire::keepalive());
                }
                if let Some(wire) = self.world.wires.get_mut(&conn) {
                    wire.taking = true;
                }
                self.world.drain(conn);
            }
            self.world.settle();
            let due = self.world.speaker.next_timeout();
            if due.is_some_and(|due| due <= self.world.now) {
                self.world.input(Input::Tick);
                let next = self.world.speaker.next_timeout();
                assert!(
                    next.is_none_or(|next| next > self.world.now),
                    "a tick leaves nothing that is due"
                );
            }
            if self.world.now >= end {
                return;
            }
            let next = self.world.speaker.next_timeout().unwrap_or(Millis::MAX);
            let spoke = self.honest.iter().map(|it| it.spoke + KEEPALIVE).min();
            let next = next.min(end).min(spoke.unwrap_or(end));
            self.world.now = next.max(self.world.now);
        }
    }

    fn judge(&mut self) {
        self.hostile.retain(|it| self.world.wires.contains_key(it));
        for honest in &self.honest {
            let up = self.world.is_up(&honest.key, honest.conn);
            assert!(up, "the session with {} goes on", honest.key);
        }
        self.steps += 1;
        if self.steps.is_multiple_of(8) {
            self.world.settle();
            self.compare();
        }
    }

    fn compare(&self) {
        self.world.compare();
        for honest in &self.honest {
            let said = honest.said.keys().copied().collect();
            assert_eq!(
                self.world.known_of(&honest.key),
                said,
                "routes of {}",
                honest.key
            );
        }
        let peer = self.world.speaker.config().peers.get(HONEST.len());
        let limit = peer.and_then(|it| it.options.limits.first());
        if limit.is_some_and(|it| it.action == OverLimit::Drop)
            && self.config == *self.world.speaker.config()
        {
            let count = self.world.count(&key(HOSTILE), Family::V4);
            assert!(count <= LIMIT as usize * 2, "{count} prefixes are taken");
        }
    }

    /// The hostile peer is gone for good: nothing tells of it any more.
    fn end(&mut self) {
        self.world.settle();
        self.compare();
        for input in [
            Input::Drain(DrainRequest::default()),
            Input::Kernel(kernel(true)),
            Input::Config(honest_config()),
            Input::Best(true),
        ] {
            self.world.input(input);
        }
        self.complete();
        self.world.drain_station();
        self.pass(120_000);
        self.compare();
        let mut fresh = Self::new(honest_config());
        fresh.origins = self.origins.clone();
        fresh.complete();
        for (index, honest) in self.honest.iter().enumerate() {
            let conn = fresh.honest[index].conn;
            let first: Vec<Cidr> = fresh.honest[index].said.keys().copied().collect();
            for message in update::withdraw(Family::V4, &first) {
                fresh.world.send(conn, &message);
            }
            fresh.honest[index].said = honest.said.clone();
            for (prefix, kind) in &honest.said {
                for message in announcement(index, *prefix, *kind) {
                    fresh.world.send(conn, &message);
                }
            }
        }
        fresh.pass(60_000);
        fresh.compare();
        assert_eq!(self.world.best(), fresh.world.best(), "the best routes");
        for (honest, other) in self.honest.iter().zip(&fresh.honest) {
            let heard = |world: &World, conn| world.wires.get(&conn).map(|it| it.heard.clone());
            assert_eq!(
                heard(&self.world, honest.conn),
                heard(&fresh.world, other.conn)
            );
        }
        assert_eq!(
            self.world.weight(),
            fresh.world.weight(),
            "paths, sets, peers, connections"
        );
    }

    /// felix says all its origins again.
    fn complete(&mut self) {
        self.world.input(Input::OriginsBegin);
        for (prefix, kind) in self.origins.clone() {
            self.world.take(Input::Origin {
                prefix,
                kind,
                withdrawn: false,
            });
            let idle = false;
            self.world.take(Input::OriginIdle { prefix, idle });
        }
        self.world.input(Input::OriginsComplete);
    }
}

#[cfg(test)]
mod tests;
