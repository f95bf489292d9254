//! Stations of BMP (RFC 7854): what they are told of peers and their routes, before policy.
//!
//! A station gets every UPDATE as it was understood, while it keeps up. What it has not taken waits in the tables: one that
//! falls behind is told that a peer is gone and there again, then its routes as they are then. So a station costs a window
//! of bytes, and a list of prefixes while it catches up.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use crds::net::{Cidr, Family};
use serde::{Deserialize, Serialize};

use crate::Millis;
use crate::bmp::{self, PeerDown, PeerHeader, Statistic};
use crate::config::{BmpStation, PeerKey};
use crate::fsm::DownReason;
use crate::rib::{PrefixId, Rib, SourceId};
use crate::wire::nlri::{SAFI_UNICAST, afi};
use crate::wire::{Attributes, Dialect, Update, update};

use super::peer::PeerState;
use super::{Output, SEND_WINDOW, Speaker};

/// What happened to a station's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StationEvent {
    /// It is there; the station knows nothing yet.
    Connected,
    /// The kernel has taken that many bytes.
    Sent(usize),
    /// It is gone.
    Closed,
}

/// Prefixes told between two looks at the window.
const STEP: usize = 256;

/// All stations, by name.
#[derive(Debug, Default)]
pub(super) struct Stations(BTreeMap<String, Station>);

#[derive(Debug)]
struct Station {
    config: BmpStation,
    link: Option<Link>,
}

/// What exists while a station is connected.
#[derive(Debug, Default)]
struct Link {
    unsent: usize,
    feeds: BTreeMap<SourceId, Feed>,
    /// Those of them that have something left to tell.
    unfinished: BTreeSet<SourceId>,
    /// When statistics are due; None: never.
    statistics_at: Option<Millis>,
}

/// How far a station knows a peer's routes.
#[derive(Debug)]
struct Feed {
    header: PeerHeader,
    /// Prefixes still to be told.
    todo: Vec<PrefixId>,
    /// Families whose end of the initial routes is still to be told, once nothing is left to do.
    ends: Vec<Family>,
    /// UPDATEs were left out: all is told again.
    behind: bool,
}

impl Link {
    fn has_room(&self) -> bool {
        self.unsent < SEND_WINDOW
    }

    fn send(&mut self, name: &str, bytes: Vec<u8>, out: &mut Vec<Output>) {
        self.unsent += bytes.len();
        let station = name.to_owned();
        out.push(Output::Bmp {
            station,
            bytes: bytes.into(),
        });
    }
}

impl Stations {
    /// When statistics are due.
    pub(super) fn next_timeout(&self) -> Option<Millis> {
        let links = self.0.values().filter_map(|it| it.link.as_ref());
        links.filter_map(|link| link.statistics_at).min()
    }

    /// Whether there is one.
    pub(super) fn are_any(&self) -> bool {
        !self.0.is_empty()
    }

    fn links(&mut self) -> impl Iterator<Item = (&str, &mut Link)> {
        let stations = self.0.iter_mut();
        stations.filter_map(|(name, it)| Some((name.as_str(), it.link.as_mut()?)))
    }
}

impl Speaker {
    /// Takes the stations of the configuration. The driver connects to them, and says when it is.
    pub(super) fn configure_stations(&mut self, out: &mut Vec<Output>) {
        let wanted: BTreeMap<&str, &BmpStation> = self
            .config
            .bmp
            .iter()
            .map(|it| (it.name.as_str(), it))
            .collect();
        self.stations.0.retain(|name, station| {
            let keep = wanted.get(name.as_str()) == Some(&&station.config);
            if let (false, Some(link)) = (keep, &mut station.link) {
                link.send(name, bmp::termination(), out);
            }
            keep
        });
        for (name, config) in wanted {
            if !self.stations.0.contains_key(name) {
                let config = config.clone();
                let station = Station { config, link: None };
                self.stations.0.insert(name.to_owned(), station);
            }
        }
    }

    /// Something happened to a station's connection.
    pub(super) fn station(
        &mut self,
        name: &str,
        event: StationEvent,
        now: Millis,
        out: &mut Vec<Output>,
    ) {
        let Some(station) = self.stations.0.get_mut(name) else {
            return;
        };
        match event {
            StationEvent::Closed => station.link = None,
            StationEvent::Sent(bytes) => {
                if let Some(link) = &mut station.link {
                    link.unsent = link.unsent.saturating_sub(bytes);
                }
            }
            StationEvent::Connected => {
                let interval = station.config.statistics;
                let mut link = Link {
                    statistics_at: (interval > 0).then(|| now + interval),
                    ..Link::default()
                };
                let description = concat!("margay-bgpd ", env!("CARGO_PKG_VERSION"));
                let hello = bmp::initiation(description, &self.config.router_id.to_string());
                link.send(name, hello, out);
                for peer in self.peers.values() {
                    link.greet(name, peer, &self.rib, out);
                }
                station.link = Some(link);
            }
        }
    }

    /// A session came up.
    pub(super) fn stations_up(&mut self, key: &PeerKey, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get(key) else {
            return;
        };
        for (name, link) in self.stations.links() {
            link.greet(name, peer, &self.rib, out);
        }
    }

    /// A session went down.
    pub(super) fn stations_down(
        &mut self,
        id: SourceId,
        reason: &DownReason,
        out: &mut Vec<Output>,
    ) {
        let reason = match reason {
            DownReason::Sent(it) => PeerDown::Sent(it.encode()),
            DownReason::Received(it) => PeerDown::Received(it.encode()),
            DownReason::LinkDown(_) | DownReason::BfdDown | DownReason::Replaced => {
                PeerDown::Closed
            }
            _ => PeerDown::Lost,
        };
        for (name, link) in self.stations.links() {
            if let Some(feed) = link.feeds.remove(&id) {
                link.unfinished.remove(&id);
                link.send(name, bmp::peer_down(&feed.header, &reason), out);
            }
        }
    }

    /// A peer's UPDATE, as it was understood.
    pub(super) fn stations_update(
        &mut self,
        key: &PeerKey,
        update: &Update,
        out: &mut Vec<Output>,
    ) {
        let Some(peer) = self.peers.get(key) else {
            return;
        };
        let Some(dialect) = dialect(peer) else { return };
        let mut messages: Option<Vec<u8>> = None;
        for (name, link) in self.stations.links() {
            let has_room = link.has_room();
            let Some(feed) = link.feeds.get_mut(&peer.id) else {
                continue;
            };
            if !has_room {
                feed.behind = true;
                link.unfinished.insert(peer.id);
            }
            if feed.behind {
                continue;
            }
            let header = feed.header;
            let messages =
                messages.get_or_insert_with(|| monitored(&header, &pdus(update, dialect)));
            if !messages.is_empty() {
                link.send(name, messages.clone(), out);
            }
        }
    }

    /// Tells stations what they have not been told yet, as far as their windows go.
    pub(super) fn settle_stations(&mut self, now: Millis, out: &mut Vec<Output>) {
        let peer_of = |id: &SourceId| self.peers.get(&self.established.get(id)?.0);
        for (name, station) in &mut self.stations.0 {
            let Some(link) = &mut station.link else {
                continue;
            };
            for source in std::mem::take(&mut link.unfinished) {
                if let Some(peer) = peer_of(&source) {
                    link.feed(name, peer, &self.rib, out);
                }
            }
            if link.statistics_at.is_some_and(|at| at <= now) {
                link.statistics_at = Some(now + station.config.statistics);
                let headers = link.feeds.iter().map(|(id, feed)| (*id, feed.header));
                for (source, header) in headers.collect::<Vec<_>>() {
                    // A station that does not keep up gets them the next time.
                    if link.has_room() {
                        let counts = counts(&self.rib, source);
                        link.send(name, bmp::statistics(&header, &counts), out);
                    }
                }
            }
        }
    }
}

impl Link {
    /// Says that a peer is up; its routes follow.
    fn greet(&mut self, name: &str, peer: &PeerState, rib: &Rib, out: &mut Vec<Output>) {
        let (Some(header), Some(ends), Some((sent, received))) =
            (header(peer), peer.session.ends(), peer.session.opens())
        else {
            return;
        };
        self.send(name, bmp::peer_up(&header, ends, (&sent, &received)), out);
        let mut todo = rib.ids_of(peer.id);
        todo.reverse();
        let feed = Feed {
            header,
            todo,
            ends: peer.families().to_vec(),
            behind: false,
        };
        self.feeds.insert(peer.id, feed);
        self.unfinished.insert(peer.id);
    }

    /// Goes on telling a peer's routes.
    fn feed(&mut self, name: &str, peer: &PeerState, rib: &Rib, out: &mut Vec<Output>) {
        let Some(dialect) = dialect(peer) else { return };
        while let Some(feed) = self.feeds.get_mut(&peer.id) {
            let header = feed.header;
            if feed.todo.is_empty() && !feed.behind && feed.ends.is_empty() {
                self.unfinished.remove(&peer.id);
                return;
            }
            // Back at it when there is room.
            self.unfinished.insert(peer.id);
            if self.unsent >= SEND_WINDOW {
                return;
            }
            if !feed.todo.is_empty() {
                let rest = feed.todo.len().saturating_sub(STEP);
                let step = feed.todo.split_off(rest);
                let messages = monitored(&header, &routes(rib, peer.id, &step, dialect));
                if !messages.is_empty() {
                    self.send(name, messages, out);
                }
            } else if feed.behind {
                self.send(name, bmp::peer_down(&header, &PeerDown::NoLonger), out);
                self.greet(name, peer, rib, out);
            } else {
                let ends = std::mem::take(&mut feed.ends);
                let ends: Vec<Bytes> = ends.into_iter().map(update::end_of_rib).collect();
                self.send(name, monitored(&header, &ends), out);
            }
        }
    }
}

/// What every message about a peer begins with, while its session is up.
fn header(peer: &PeerState) -> Option<PeerHeader> {
    let (_, remote) = peer.session.ends()?;
    let negotiated = peer.session.negotiated()?;
    Some(PeerHeader {
        address: remote.ip().to_canonical(),
        asn: negotiated.asn,
        router_id: negotiated.router_id,
    })
}

/// How UPDATEs for stations are written: as the peer would write them, with 4-octet AS numbers always.
fn dialect(peer: &PeerState) -> Option<Dialect> {
    let dialect = peer.session.negotiated()?.dialect;
    Some(Dialect {
        four_octet_as: true,
        paths_sent: dialect.paths_received,
        ..dialect
    })
}

fn monitored(header: &PeerHeader, updates: &[Bytes]) -> Vec<u8> {
    let updates = updates.iter();
    updates
        .flat_map(|update| bmp::route_monitoring(header, update))
        .collect()
}

/// An UPDATE as messages again.
fn pdus(update: &Update, dialect: Dialect) -> Vec<Bytes> {
    let mut messages = Vec::new();
    for family in Family::ALL {
        let gone = update.withdrawn_paths();
        let gone: Vec<(u32, Cidr)> = gone
            .filter(|(prefix, _)| prefix.family() == family)
            .map(|(prefix, id)| (id, prefix))
            .collect();
        messages.extend(withdraw(family, &gone, dialect));
    }
    for (attributes, paths) in update.announced_paths() {
        let paths: Vec<(u32, Cidr)> = paths.map(|(prefix, id)| (id, prefix)).collect();
        messages.extend(announce(attributes, &paths, dialect));
    }
    messages.extend(update.end_of_rib.map(update::end_of_rib));
    messages
}

/// A source's routes to some prefixes as messages, those of equal attributes together.
fn routes(rib: &Rib, source: SourceId, ids: &[PrefixId], dialect: Dialect) -> Vec<Bytes> {
    let mut groups: Vec<(Attributes, Vec<(u32, Cidr)>)> = Vec::new();
    for id in ids.iter().rev() {
        let prefix = rib.prefix(*id);
        for path in rib.paths(*id).into_iter().filter(|it| it.from == source) {
            let attributes = path.received.unwrap_or(path.attributes);
            // Prefixes that were announced together were mostly numbered together.
            match groups.last_mut() {
                Some((same, paths))
                    if *same == attributes
                        && paths
                            .last()
                            .is_some_and(|(_, it)| it.family() == prefix.family()) =>
                {
                    paths.push((path.id, prefix));
                }
                _ => groups.push((attributes, vec![(path.id, prefix)])),
            }
        }
    }
    let groups = groups.iter();
    groups
        .flat_map(|(attributes, paths)| announce(attributes, paths, dialect))
        .collect()
}

/// Paths of one family with these attributes.
fn announce(attributes: &Attributes, paths: &[(u32, Cidr)], dialect: Dialect) -> Vec<Bytes> {
    let Some(family) = paths.first().map(|(_, prefix)| prefix.family()) else {
        return Vec::new();
    };
    let messages = if dialect.paths_sent.contains(family) {
        update::announce_paths(attributes, family, paths, dialect)
    } else {
        update::announce(attributes, family, &prefixes(paths), dialect)
    };
    // What came in one message fits into one, but for attributes at the very limit.
    messages.unwrap_or_default()
}

fn withdraw(family: Family, paths: &[(u32, Cidr)], dialect: Dialect) -> Vec<Bytes> {
    if dialect.paths_sent.contains(family) {
        update::withdraw_paths(family, paths)
    } else {
        update::withdraw(family, &prefixes(paths))
    }
}

fn prefixes(paths: &[(u32, Cidr)]) -> Vec<Cidr> {
    paths.iter().map(|(_, prefix)| *prefix).collect()
}

fn counts(rib: &Rib, source: SourceId) -> Vec<Statistic> {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let of = Family::ALL.map(|family| (afi(family), rib.source_count(source, family)));
    let received = of.iter().map(|(_, it)| count(it.received)).sum();
    let accepted = of.iter().map(|(_, it)| count(it.accepted)).sum();
    let mut all = vec![Statistic::AdjRibIn(received), Statistic::LocRib(accepted)];
    for (afi, it) in of {
        all.push(Statistic::AdjRibInOf(afi, SAFI_UNICAST, count(it.received)));
        all.push(Statistic::LocRibOf(afi, SAFI_UNICAST, count(it.accepted)));
    }
    all
}
