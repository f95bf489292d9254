//! Peers with capabilities, played by the test.

use std::net::SocketAddr;

use bgpd::speaker::{ConnId, FamilyCount, Input, NeighborInfo, Output, SpeakerEvent, TcpEvent};
use bgpd::wire::capability::{GracefulRestart, LongLived};
use bgpd::wire::{self, Capability, Message, Notification, Open, RouteRefresh};
use crds::net::{Cidr, Family};

use crate::bench::Bench;

/// A restart capability with these families, all preserved or none.
pub(crate) fn graceful(families: &[Family], preserved: bool) -> GracefulRestart {
    GracefulRestart {
        restarted: false,
        notifications: false,
        time: 60,
        families: families.iter().map(|it| (afi(*it), 1, preserved)).collect(),
    }
}

pub(crate) fn long_lived(family: Family, time: u32) -> Capability {
    Capability::LongLived(vec![LongLived {
        afi: afi(family),
        safi: 1,
        preserved: true,
        time,
    }])
}

pub(crate) fn afi(family: Family) -> u16 {
    if family == Family::V4 { 1 } else { 2 }
}

/// Unicast routes of IPv4, and these.
pub(crate) fn with(more: impl IntoIterator<Item = Capability>) -> Vec<Capability> {
    let mut all = vec![Capability::unicast(Family::V4)];
    all.extend(more);
    all
}

pub(crate) fn restarting(families: &[Family], preserved: bool) -> Vec<Capability> {
    let capability = Capability::GracefulRestart(graceful(families, preserved));
    families
        .iter()
        .map(|it| Capability::unicast(*it))
        .chain([capability])
        .collect()
}

pub(crate) fn open(host: u8, capabilities: Vec<Capability>) -> Open {
    let asn = 65000 + u32::from(host);
    Open::new(asn, 90, [10, 0, 0, host].into(), capabilities)
}

/// The name of the `n`th connection of the peer at 192.0.2.`host`.
pub(crate) fn conn(host: u8, n: u64) -> ConnId {
    ConnId::In(u64::from(host) * 1000 + n)
}

/// The peer connects, and says nothing yet.
pub(crate) fn connect(bench: &mut Bench, host: u8, n: u64) -> (ConnId, Vec<Output>) {
    let end = |host, port| SocketAddr::from(([192, 0, 2, host], port));
    let conn = conn(host, n);
    let accepted = TcpEvent::Accepted {
        local: end(1, 179),
        remote: end(host, 40000),
        ttl: None,
    };
    (conn, bench.input(Input::Tcp(conn, accepted)))
}

/// The peer connects for the `n`th time and the session is established.
pub(crate) fn join(
    bench: &mut Bench,
    host: u8,
    n: u64,
    capabilities: &[Capability],
) -> (ConnId, Vec<Output>) {
    let (conn, mut outputs) = connect(bench, host, n);
    outputs.extend(bench.bytes(conn, &open(host, capabilities.to_vec()).encode()));
    outputs.extend(bench.bytes(conn, &wire::keepalive()));
    let is_up = |it: &Output| matches!(it, Output::Event(SpeakerEvent::Established { .. }));
    assert!(outputs.iter().any(is_up), "{outputs:?}");
    (conn, outputs)
}

/// The connection breaks.
pub(crate) fn lose(bench: &mut Bench, conn: ConnId) -> Vec<Output> {
    let closed = TcpEvent::Closed {
        reason: String::new(),
    };
    bench.input(Input::Tcp(conn, closed))
}

/// The peer announces prefixes over that connection.
pub(crate) fn announce(
    bench: &mut Bench,
    host: u8,
    conn: ConnId,
    prefixes: &[Cidr],
) -> Vec<Output> {
    announce_with(bench, host, conn, prefixes, |_| ())
}

pub(crate) fn announce_with(
    bench: &mut Bench,
    host: u8,
    conn: ConnId,
    prefixes: &[Cidr],
    edit: impl FnOnce(&mut wire::Attributes),
) -> Vec<Output> {
    let next_hop = match prefixes[0].family() {
        Family::V4 => format!("192.0.2.{host}"),
        Family::V6 => format!("2001:db8::{host}"),
    };
    let mut attributes = wire::Attributes::new(crate::sim::ip(&next_hop).into());
    attributes.as_path = wire::AsPath::sequence([65000 + u32::from(host)]);
    edit(&mut attributes);
    let family = prefixes[0].family();
    let messages =
        wire::update::announce(&attributes, family, prefixes, crate::bench::EBGP).unwrap();
    bench.bytes(conn, &messages.concat())
}

pub(crate) fn end_of_rib(bench: &mut Bench, conn: ConnId, family: Family) -> Vec<Output> {
    bench.bytes(conn, &wire::update::end_of_rib(family))
}

/// What is said about the peer at 192.0.2.`host`.
pub(crate) fn info(bench: &Bench, host: u8) -> NeighborInfo {
    let key = bgpd::config::PeerKey::Address([192, 0, 2, host].into());
    let neighbors = bench.speaker.neighbors(bench.now);
    neighbors.into_iter().find(|it| it.key == key).unwrap()
}

pub(crate) fn counts(bench: &Bench, host: u8, family: Family) -> FamilyCount {
    let info = info(bench, host);
    *info.families.iter().find(|it| it.family == family).unwrap()
}

/// All routes of the peer: those it has, and those of them that are not fresh.
pub(crate) fn routes(bench: &Bench, host: u8) -> (usize, usize) {
    let info = info(bench, host);
    let sum = |of: fn(&FamilyCount) -> usize| info.families.iter().map(of).sum();
    (sum(|it| it.received), sum(|it| it.stale))
}

/// The messages among the outputs for a connection.
pub(crate) fn messages(outputs: &[Output], conn: ConnId) -> Vec<Message> {
    let bytes = outputs.iter().filter_map(|it| match it {
        Output::Send(to, bytes) if *to == conn => Some(bytes.to_vec()),
        _ => None,
    });
    let dialect = wire::Dialect {
        extended_message: true,
        ..crate::bench::EBGP
    };
    let (messages, error) = wire::decode_stream(&bytes.collect::<Vec<_>>().concat(), dialect);
    assert_eq!(error, None);
    messages
}

/// The OPEN that the speaker sends on a connection.
pub(crate) fn opened(outputs: &[Output], conn: ConnId) -> Open {
    let all = messages(outputs, conn);
    let mut opens = all.into_iter().filter_map(|it| match it {
        Message::Open(open) => Some(open),
        _ => None,
    });
    opens.next().unwrap()
}

pub(crate) fn own_graceful(open: &Open) -> Option<GracefulRestart> {
    open.capabilities.iter().find_map(|it| match it {
        Capability::GracefulRestart(it) => Some(it.clone()),
        _ => None,
    })
}

pub(crate) fn notification(outputs: &[Output], conn: ConnId) -> Option<Notification> {
    messages(outputs, conn).into_iter().find_map(|it| match it {
        Message::Notification(it) => Some(it),
        _ => None,
    })
}

/// Subtypes of the ROUTE-REFRESH messages for a connection.
pub(crate) fn refreshes(outputs: &[Output], conn: ConnId) -> Vec<RouteRefresh> {
    let all = messages(outputs, conn).into_iter();
    all.filter_map(|it| match it {
        Message::RouteRefresh(it) => Some(it),
        _ => None,
    })
    .collect()
}

/// Lets timers expire until that much time has passed; a connection in `alive` is kept by its peer's keepalives.
pub(crate) fn pass(bench: &mut Bench, time: u64, alive: &[ConnId]) -> Vec<Output> {
    let until = bench.now + time;
    let mut outputs = Vec::new();
    loop {
        let due = bench.speaker.next_timeout().unwrap_or(u64::MAX);
        let next = due.max(bench.now).min(until);
        // Well within the shortest hold time of the tests.
        let next = next.min(bench.now + 2_000);
        bench.now = next;
        for conn in alive {
            outputs.extend(bench.bytes(*conn, &wire::keepalive()));
        }
        if due <= bench.now {
            outputs.extend(bench.input(Input::Tick));
        }
        if bench.now >= until {
            return outputs;
        }
    }
}
