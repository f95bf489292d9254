//! Routes, nexthop objects, links and addresses as rtnetlink messages (`linux/rtnetlink.h`, `linux/nexthop.h`). The
//! netlink crates do not know nexthop objects; with those by hand, the rest is little.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crds::net::Cidr;

use super::diff::Op;
use super::model::{
    BGP_PROTOCOL, Entry, FIRST_NEXTHOP, Kernel, Key, LAST_NEXTHOP, Leg, MAIN_TABLE, Nexthop, Via,
    WORKLOAD_PROTOCOL,
};
use super::uplink::{Address, Link};
use crate::nla::{self, Message, Received};

/// Message types.
pub mod kind {
    /// A link is there or has changed.
    pub const NEW_LINK: u16 = 16;
    /// A link is gone, or shall go.
    pub const DEL_LINK: u16 = 17;
    /// Asks for links.
    pub const GET_LINK: u16 = 18;
    /// Changes a link.
    pub const SET_LINK: u16 = 19;
    /// An address is there.
    pub const NEW_ADDRESS: u16 = 20;
    /// An address is gone.
    pub const DEL_ADDRESS: u16 = 21;
    /// Asks for addresses.
    pub const GET_ADDRESS: u16 = 22;
    /// A route is there, or shall be.
    pub const NEW_ROUTE: u16 = 24;
    /// A route is gone, or shall go.
    pub const DEL_ROUTE: u16 = 25;
    /// Asks for routes.
    pub const GET_ROUTE: u16 = 26;
    /// A nexthop object is there, or shall be.
    pub const NEW_NEXTHOP: u16 = 104;
    /// A nexthop object is gone, or shall go.
    pub const DEL_NEXTHOP: u16 = 105;
    /// Asks for nexthop objects.
    pub const GET_NEXTHOP: u16 = 106;
}

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const REPLACE: u16 = 0x100;
const EXCL: u16 = 0x200;
const CREATE: u16 = 0x400;

/// `AF_INET`.
const IP4: u8 = 2;
/// `AF_INET6`.
const IP6: u8 = 10;
/// `RTNH_F_ONLINK`.
const ONLINK: u32 = 4;
/// `RTN_UNICAST`.
const UNICAST: u8 = 1;
/// `RTN_UNREACHABLE`.
const UNREACHABLE: u8 = 7;

/// `RTA_…`.
mod rta {
    pub(super) const DST: u16 = 1;
    pub(super) const OIF: u16 = 4;
    pub(super) const GATEWAY: u16 = 5;
    pub(super) const PRIORITY: u16 = 6;
    pub(super) const PREFSRC: u16 = 7;
    pub(super) const MULTIPATH: u16 = 9;
    pub(super) const TABLE: u16 = 15;
    pub(super) const VIA: u16 = 18;
    pub(super) const NH_ID: u16 = 30;
}

/// `NHA_…`.
mod nha {
    pub(super) const ID: u16 = 1;
    pub(super) const GROUP: u16 = 2;
    pub(super) const BLACKHOLE: u16 = 4;
    pub(super) const OIF: u16 = 5;
    pub(super) const GATEWAY: u16 = 6;
    pub(super) const ENCAP: u16 = 8;
    pub(super) const FDB: u16 = 11;
}

/// The request for a dump of this type; `family` 0 asks for both. Of routes, the main table's are asked for.
#[must_use]
pub fn dump(kind: u16, family: u8, flags: u16, sequence: u32) -> Vec<u8> {
    let mut fixed = [0_u8; 16];
    fixed[0] = family;
    let length = match kind {
        kind::GET_ROUTE => {
            fixed[4] = u8::try_from(MAIN_TABLE).expect("invariant: 254");
            12
        }
        kind::GET_LINK => 16,
        _ => 8,
    };
    Message::new(kind, REQUEST | flags, sequence, &fixed[..length]).finish()
}

/// The request for an op. It is answered only when it is refused: an acknowledgement each would be as much work again.
#[must_use]
pub fn op(op: &Op, sequence: u32) -> Vec<u8> {
    match op {
        Op::AddNexthop(id, nexthop) => new_nexthop(*id, nexthop, CREATE | EXCL, sequence),
        Op::ReplaceNexthop(id, nexthop) => new_nexthop(*id, nexthop, REPLACE, sequence),
        Op::AddRoute(key, entry) => new_route(*key, *entry, CREATE | EXCL, sequence),
        Op::ReplaceRoute(key, entry) => new_route(*key, *entry, REPLACE, sequence),
        Op::DeleteRoute(key, protocol) => {
            // Any scope (RT_SCOPE_NOWHERE) and any type, but no other protocol's.
            let mut message = route(kind::DEL_ROUTE, 0, sequence, *key, [*protocol, 255, 0]);
            message.ne32(rta::PRIORITY, key.metric);
            message.finish()
        }
        Op::DeleteNexthop(id) => {
            let mut message = Message::new(kind::DEL_NEXTHOP, REQUEST, sequence, &[0; 8]);
            message.ne32(nha::ID, *id);
            message.finish()
        }
    }
}

/// The request which asks how packets for an address leave.
#[must_use]
pub fn lookup(address: IpAddr, sequence: u32) -> Vec<u8> {
    let octets = octets(address);
    let mut fixed = [0_u8; 12];
    fixed[0] = family(address);
    fixed[1] = if address.is_ipv4() { 32 } else { 128 };
    let mut message = Message::new(kind::GET_ROUTE, REQUEST | ACK, sequence, &fixed);
    message.bytes(rta::DST, &octets);
    message.finish()
}

/// The index of the interface in an answer to that.
#[must_use]
pub fn read_output(payload: &[u8]) -> Option<u32> {
    nla::find(payload.get(12..)?, rta::OIF).and_then(nla::ne32)
}

/// The request which asks for one link.
#[must_use]
pub fn link(name: &str, sequence: u32) -> Vec<u8> {
    const IFNAME: u16 = 3;
    let mut message = Message::new(kind::GET_LINK, REQUEST | ACK, sequence, &[0; 16]);
    message.string(IFNAME, name);
    message.finish()
}

/// The request which puts a link into a device group.
#[must_use]
pub fn set_group(name: &str, group: u32, sequence: u32) -> Vec<u8> {
    const IFNAME: u16 = 3;
    const GROUP: u16 = 27;
    let mut message = Message::new(kind::SET_LINK, REQUEST | ACK, sequence, &[0; 16]);
    message.string(IFNAME, name);
    message.ne32(GROUP, group);
    message.finish()
}

/// The request which removes a link.
#[must_use]
pub fn delete_link(name: &str, sequence: u32) -> Vec<u8> {
    const IFNAME: u16 = 3;
    let mut message = Message::new(kind::DEL_LINK, REQUEST | ACK, sequence, &[0; 16]);
    message.string(IFNAME, name);
    message.finish()
}

/// The request which removes every link of a device group, in one go.
#[must_use]
pub fn delete_group(group: u32, sequence: u32) -> Vec<u8> {
    const GROUP: u16 = 27;
    let mut message = Message::new(kind::DEL_LINK, REQUEST | ACK, sequence, &[0; 16]);
    message.ne32(GROUP, group);
    message.finish()
}

fn new_nexthop(id: u32, nexthop: &Nexthop, flags: u16, sequence: u32) -> Vec<u8> {
    let (family, onlink) = match nexthop {
        Nexthop::Leg(leg) => (family(leg.gateway), leg.onlink),
        Nexthop::Group(_) | Nexthop::Other => (0, false),
    };
    let mut fixed = [family, 0, BGP_PROTOCOL, 0, 0, 0, 0, 0];
    fixed[4..].copy_from_slice(&(if onlink { ONLINK } else { 0 }).to_ne_bytes());
    let mut message = Message::new(kind::NEW_NEXTHOP, REQUEST | flags, sequence, &fixed);
    message.ne32(nha::ID, id);
    match nexthop {
        Nexthop::Leg(leg) => {
            message.ne32(nha::OIF, leg.ifindex);
            message.bytes(nha::GATEWAY, &octets(leg.gateway));
        }
        Nexthop::Group(members) => {
            // Number, share less one, three bytes reserved.
            let entries = members.iter().flat_map(|(id, weight)| {
                let mut entry = [0; 8];
                entry[..4].copy_from_slice(&id.to_ne_bytes());
                entry[4] = weight.saturating_sub(1);
                entry
            });
            message.bytes(nha::GROUP, &entries.collect::<Vec<_>>());
        }
        Nexthop::Other => {}
    }
    message.finish()
}

fn new_route(key: Key, entry: Entry, flags: u16, sequence: u32) -> Vec<u8> {
    const LINK_SCOPE: u8 = 253;
    let (kind, scope) = match entry.via {
        Via::Unreachable => (UNREACHABLE, 0),
        Via::Device { .. } if key.prefix.first().is_ipv4() => (UNICAST, LINK_SCOPE),
        _ => (UNICAST, 0),
    };
    let mut message = route(
        kind::NEW_ROUTE,
        flags,
        sequence,
        key,
        [entry.protocol, scope, kind],
    );
    message.ne32(rta::PRIORITY, key.metric);
    let source = match entry.via {
        Via::Device { ifindex, source } => {
            message.ne32(rta::OIF, ifindex);
            source
        }
        Via::Nexthop { id, source } => {
            message.ne32(rta::NH_ID, id);
            source
        }
        Via::Unreachable | Via::Other => None,
    };
    if let Some(source) = source {
        message.bytes(rta::PREFSRC, &octets(source));
    }
    message.finish()
}

fn route(kind: u16, flags: u16, sequence: u32, key: Key, how: [u8; 3]) -> Message {
    let [protocol, scope, route_type] = how;
    let prefix = key.prefix;
    let table = u8::try_from(key.table).unwrap_or_default();
    let fixed = [
        family(prefix.first()),
        prefix.prefix_len(),
        0,
        0,
        table,
        protocol,
        scope,
        route_type,
        0,
        0,
        0,
        0,
    ];
    let mut message = Message::new(kind, REQUEST | flags, sequence, &fixed);
    message.bytes(rta::DST, &octets(prefix.first()));
    message.ne32(rta::TABLE, key.table);
    message
}

/// Takes a route of a dump in.
pub fn take_route(kernel: &mut Kernel, message: &Received<'_>) {
    if let Some((key, entry)) = read_route(message.payload) {
        match entry.protocol {
            WORKLOAD_PROTOCOL | BGP_PROTOCOL => {
                kernel.routes.insert(key, entry);
            }
            protocol => {
                kernel.foreign.insert(key, protocol);
            }
        }
    }
}

/// The route in a message.
#[must_use]
pub fn read_route(payload: &[u8]) -> Option<(Key, Entry)> {
    let [family, length, _, _, table, protocol, _, route_type, ..] =
        *payload.first_chunk::<12>()?;
    let attributes = &payload[12..];
    let number = |kind| nla::find(attributes, kind).and_then(nla::ne32);
    let first = match nla::find(attributes, rta::DST) {
        Some(bytes) => address(bytes)?,
        None if family == IP4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
        None => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let key = Key {
        table: number(rta::TABLE).unwrap_or_else(|| table.into()),
        prefix: Cidr::new(first, length).ok()?,
        metric: number(rta::PRIORITY).unwrap_or_default(),
    };
    let source = nla::find(attributes, rta::PREFSRC).and_then(address);
    let has = |kind| nla::find(attributes, kind).is_some();
    let via = match (route_type, number(rta::NH_ID), number(rta::OIF)) {
        (UNICAST, Some(id), _) => Via::Nexthop { id, source },
        (UNICAST, None, Some(ifindex))
            if !has(rta::GATEWAY) && !has(rta::VIA) && !has(rta::MULTIPATH) =>
        {
            Via::Device { ifindex, source }
        }
        (UNREACHABLE, ..) => Via::Unreachable,
        _ => Via::Other,
    };
    Some((key, Entry { protocol, via }))
}

/// Takes a nexthop object of a dump in.
pub fn take_nexthop(kernel: &mut Kernel, message: &Received<'_>) {
    let Some((id, protocol, nexthop)) = read_nexthop(message.payload) else {
        return;
    };
    if !(FIRST_NEXTHOP..=LAST_NEXTHOP).contains(&id) {
        return;
    }
    if protocol == BGP_PROTOCOL && nexthop != Nexthop::Other {
        kernel.nexthops.insert(id, nexthop);
    } else {
        kernel.foreign_nexthops.insert(id);
    }
}

fn read_nexthop(payload: &[u8]) -> Option<(u32, u8, Nexthop)> {
    let [_, _, protocol, _, flags @ ..] = *payload.first_chunk::<8>()?;
    let attributes = &payload[8..];
    let number = |kind| nla::find(attributes, kind).and_then(nla::ne32);
    let has = |kind| nla::find(attributes, kind).is_some();
    let id = number(nha::ID)?;
    let nexthop = if let Some(group) = nla::find(attributes, nha::GROUP) {
        let members = group
            .chunks_exact(8)
            .filter_map(|entry| Some((nla::ne32(entry)?, entry[4].saturating_add(1))));
        Nexthop::Group(members.collect())
    } else if let (Some(ifindex), Some(gateway)) = (
        number(nha::OIF),
        nla::find(attributes, nha::GATEWAY).and_then(address),
    ) && !has(nha::BLACKHOLE)
        && !has(nha::ENCAP)
        && !has(nha::FDB)
    {
        let onlink = u32::from_ne_bytes(flags) & ONLINK != 0;
        Nexthop::Leg(Leg {
            gateway,
            ifindex,
            onlink,
        })
    } else {
        Nexthop::Other
    };
    Some((id, protocol, nexthop))
}

/// The link in a message, and its index.
#[must_use]
pub fn read_link(payload: &[u8]) -> Option<(u32, Link)> {
    const UP: u32 = 1;
    const LOOPBACK: u32 = 8;
    const RUNNING: u32 = 0x40;
    let fixed = payload.first_chunk::<16>()?;
    let attributes = &payload[16..];
    let number = |kind| {
        nla::find(attributes, kind)
            .and_then(nla::ne32)
            .unwrap_or_default()
    };
    let flags = nla::ne32(&fixed[8..])?;
    let link = Link {
        name: nla::find(attributes, 3).map(nla::text)?,
        group: number(27),
        mtu: number(4),
        up: flags & UP != 0,
        running: flags & UP != 0 && flags & RUNNING != 0,
        loopback: flags & LOOPBACK != 0,
    };
    Some((nla::ne32(&fixed[4..])?, link))
}

/// The address in a message.
#[must_use]
pub fn read_address(payload: &[u8]) -> Option<Address> {
    const GLOBAL_SCOPE: u8 = 0;
    const FLAGS: u16 = 8;
    const TENTATIVE_OR_DUPLICATE: u32 = 0x40 | 0x08;
    let [_, length, _, scope, index @ ..] = *payload.first_chunk::<8>()?;
    let attributes = &payload[8..];
    let of = |kind| nla::find(attributes, kind).and_then(address);
    // Of an IPv4 point to point link, the one is the other end's and the other our own.
    let (peer, local) = (of(1), of(2));
    Some(Address {
        ifindex: u32::from_ne_bytes(index),
        address: local.or(peer)?,
        network: Cidr::new(peer.or(local)?, length).ok()?,
        global: scope == GLOBAL_SCOPE,
        usable: nla::find(attributes, FLAGS)
            .and_then(nla::ne32)
            .is_none_or(|flags| flags & TENTATIVE_OR_DUPLICATE == 0),
    })
}

/// Links by index, gathered from a dump.
pub fn take_link(links: &mut BTreeMap<u32, Link>, message: &Received<'_>) {
    links.extend(read_link(message.payload));
}

const fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => IP4,
        IpAddr::V6(_) => IP6,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().copied().map(IpAddr::from),
        16 => bytes.first_chunk::<16>().copied().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_requested_reads_back() {
        let key = Key {
            table: MAIN_TABLE,
            prefix: "fd00:2::/64".parse().expect("prefix"),
            metric: 128,
        };
        let source = Some("fd00:9::1".parse().expect("address"));
        for via in [
            Via::Nexthop { id: 7, source },
            Via::Device {
                ifindex: 3,
                source: None,
            },
            Via::Unreachable,
        ] {
            let entry = Entry {
                protocol: BGP_PROTOCOL,
                via,
            };
            let bytes = op(&Op::AddRoute(key, entry), 9);
            assert_eq!(read_route(&bytes[nla::HEADER..]), Some((key, entry)));
        }
        let leg = Leg {
            gateway: "fe80::1".parse().expect("address"),
            ifindex: 4,
            onlink: true,
        };
        for nexthop in [Nexthop::Leg(leg), Nexthop::Group([(1, 1), (2, 255)].into())] {
            let bytes = op(&Op::AddNexthop(5, nexthop.clone()), 9);
            assert_eq!(
                read_nexthop(&bytes[nla::HEADER..]),
                Some((5, BGP_PROTOCOL, nexthop))
            );
        }
    }
}
