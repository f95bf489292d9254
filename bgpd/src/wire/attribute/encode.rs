//! Writing the attributes of an UPDATE.

use std::net::{IpAddr, Ipv6Addr};

use crds::net::Family;

use super::{Attributes, code, flag};
use crate::nexthop::NextHop;
use crate::wire::nlri::{self, Item};
use crate::wire::open::AS_TRANS;
use crate::wire::{AsPath, Dialect};

/// Writes everything but the prefixes and, unless it is plain NEXT_HOP for IPv4, the next hop.
pub(in crate::wire) fn encode(
    attributes: &Attributes,
    plain_next_hop: bool,
    dialect: Dialect,
    out: &mut Vec<u8>,
) {
    let well_known = flag::TRANSITIVE;
    let transitive = flag::OPTIONAL | flag::TRANSITIVE;
    put(out, well_known, code::ORIGIN, &[attributes.origin as u8]);
    let four = dialect.four_octet_as;
    put_with(out, well_known, code::AS_PATH, |value| {
        attributes.as_path.encode(four, value)
    });
    if let (true, IpAddr::V4(address)) = (plain_next_hop, attributes.next_hop.address) {
        put(out, well_known, code::NEXT_HOP, &address.octets());
    }
    if let Some(med) = attributes.med {
        put(out, flag::OPTIONAL, code::MED, &med.to_be_bytes());
    }
    if let (true, Some(preference)) = (dialect.internal, attributes.local_pref) {
        put(out, well_known, code::LOCAL_PREF, &preference.to_be_bytes());
    }
    if attributes.atomic_aggregate {
        put(out, well_known, code::ATOMIC_AGGREGATE, &[]);
    }
    let partial = |kind: u8| {
        transitive
            | if attributes.partial.contains(&kind) {
                flag::PARTIAL
            } else {
                0
            }
    };
    if let Some(aggregator) = attributes.aggregator {
        put_with(out, partial(code::AGGREGATOR), code::AGGREGATOR, |value| {
            if four {
                value.extend_from_slice(&aggregator.asn.to_be_bytes());
            } else {
                value.extend_from_slice(
                    &u16::try_from(aggregator.asn)
                        .unwrap_or(AS_TRANS)
                        .to_be_bytes(),
                );
            }
            value.extend_from_slice(&aggregator.address.octets());
        });
    }
    put_list(
        out,
        partial(code::COMMUNITIES),
        code::COMMUNITIES,
        attributes.communities.iter().map(|it| it.to_be_bytes()),
    );
    if dialect.internal {
        if let Some(originator) = attributes.originator_id {
            put(
                out,
                flag::OPTIONAL,
                code::ORIGINATOR_ID,
                &originator.octets(),
            );
        }
        put_list(
            out,
            flag::OPTIONAL,
            code::CLUSTER_LIST,
            attributes.cluster_list.iter().map(|it| it.octets()),
        );
    }
    let kind = code::EXTENDED_COMMUNITIES;
    put_list(
        out,
        partial(kind),
        kind,
        attributes.extended_communities.iter().copied(),
    );
    if !four {
        old_speaker(attributes, out);
    }
    let kind = code::LARGE_COMMUNITIES;
    let words = attributes.large_communities.iter().flatten();
    put_list(out, partial(kind), kind, words.map(|it| it.to_be_bytes()));
    for unknown in &attributes.unknown {
        put(
            out,
            transitive | flag::PARTIAL,
            unknown.code,
            &unknown.value,
        );
    }
}

/// What a 2-octet speaker needs to pass the truth on (RFC 6793 section 4.2.2).
fn old_speaker(attributes: &Attributes, out: &mut Vec<u8>) {
    let transitive = flag::OPTIONAL | flag::TRANSITIVE;
    if attributes.as_path.needs_four_octets() {
        let path: AsPath = attributes.as_path.without_confederation();
        put_with(out, transitive, code::AS4_PATH, |value| {
            path.encode(true, value)
        });
    }
    if let Some(aggregator) = attributes.aggregator
        && u16::try_from(aggregator.asn).is_err()
    {
        put_with(out, transitive, code::AS4_AGGREGATOR, |value| {
            value.extend_from_slice(&aggregator.asn.to_be_bytes());
            value.extend_from_slice(&aggregator.address.octets());
        });
    }
}

/// Writes MP_REACH_NLRI (RFC 4760 section 3).
pub(in crate::wire) fn reach<T: Item>(
    family: Family,
    next_hop: NextHop,
    prefixes: &[T],
    out: &mut Vec<u8>,
) {
    put_with(out, flag::OPTIONAL, code::MP_REACH, |value| {
        value.extend_from_slice(&nlri::afi(family).to_be_bytes());
        value.push(nlri::SAFI_UNICAST);
        match (next_hop.address, next_hop.link_local) {
            (IpAddr::V4(address), _) => {
                value.push(4);
                value.extend_from_slice(&address.octets());
            }
            (IpAddr::V6(address), link_local) => {
                let local = link_local.as_ref().map(Ipv6Addr::octets);
                value.push(if local.is_some() { 32 } else { 16 });
                value.extend_from_slice(&address.octets());
                value.extend(local.into_iter().flatten());
            }
        }
        value.push(0);
        prefixes.iter().for_each(|prefix| prefix.encode(value));
    });
}

/// Writes MP_UNREACH_NLRI (RFC 4760 section 4).
pub(in crate::wire) fn unreach<T: Item>(family: Family, prefixes: &[T], out: &mut Vec<u8>) {
    put_with(out, flag::OPTIONAL, code::MP_UNREACH, |value| {
        value.extend_from_slice(&nlri::afi(family).to_be_bytes());
        value.push(nlri::SAFI_UNICAST);
        prefixes.iter().for_each(|prefix| prefix.encode(value));
    });
}

fn put_list<const N: usize>(
    out: &mut Vec<u8>,
    flags: u8,
    kind: u8,
    items: impl Iterator<Item = [u8; N]>,
) {
    let value: Vec<u8> = items.flatten().collect();
    if !value.is_empty() {
        put(out, flags, kind, &value);
    }
}

fn put_with(out: &mut Vec<u8>, flags: u8, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let mut value = Vec::new();
    write(&mut value);
    put(out, flags, kind, &value);
}

fn put(out: &mut Vec<u8>, flags: u8, kind: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(length) => out.extend_from_slice(&[flags, kind, length]),
        Err(_) => {
            // More than 65535 bytes never fit into a message; the caller sees the size and refuses.
            let length = u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes();
            out.extend_from_slice(&[flags | flag::EXTENDED_LENGTH, kind, length[0], length[1]]);
        }
    }
    out.extend_from_slice(value);
}
