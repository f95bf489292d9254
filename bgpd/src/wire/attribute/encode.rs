//! Writing the attributes of an UPDATE.

use std::net::IpAddr;

use crds::net::Family;

use super::{Attributes, code, flag};
use crate::nexthop::NextHop;
use crate::wire::nlri;
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
    if !attributes.large_communities.is_empty() {
        put_with(out, partial(kind), kind, |value| {
            let words = attributes.large_communities.iter().flatten();
            words.for_each(|word| value.extend_from_slice(&word.to_be_bytes()));
        });
    }
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

/// Writes MP_REACH_NLRI (RFC 4760 section 3) up to its prefixes; the length is right for that many more bytes.
pub(in crate::wire) fn reach(
    family: Family,
    next_hop: NextHop,
    prefixes: usize,
    out: &mut Vec<u8>,
) {
    let mut value = [0; 37];
    let [high, low] = nlri::afi(family).to_be_bytes();
    (value[0], value[1], value[2]) = (high, low, nlri::SAFI_UNICAST);
    let length = match (next_hop.address, next_hop.link_local) {
        (IpAddr::V4(address), _) => {
            value[4..8].copy_from_slice(&address.octets());
            4
        }
        (IpAddr::V6(address), link_local) => {
            value[4..20].copy_from_slice(&address.octets());
            match link_local {
                Some(local) => {
                    value[20..36].copy_from_slice(&local.octets());
                    32
                }
                None => 16,
            }
        }
    };
    value[3] = length;
    // The reserved byte follows.
    let fixed = 4 + usize::from(length) + 1;
    head(out, code::MP_REACH, fixed + prefixes);
    out.extend_from_slice(&value[..fixed]);
}

/// Writes MP_UNREACH_NLRI (RFC 4760 section 4) up to its prefixes; the length is right for that many more bytes.
pub(in crate::wire) fn unreach(family: Family, prefixes: usize, out: &mut Vec<u8>) {
    head(out, code::MP_UNREACH, 3 + prefixes);
    out.extend_from_slice(&nlri::afi(family).to_be_bytes());
    out.push(nlri::SAFI_UNICAST);
}

/// Flags, type and length of an attribute that lists prefixes.
fn head(out: &mut Vec<u8>, kind: u8, length: usize) {
    match u8::try_from(length) {
        Ok(length) => out.extend_from_slice(&[flag::OPTIONAL, kind, length]),
        Err(_) => {
            let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
            out.extend_from_slice(&[flag::OPTIONAL | flag::EXTENDED_LENGTH, kind, high, low]);
        }
    }
}

fn put_list<const N: usize>(
    out: &mut Vec<u8>,
    flags: u8,
    kind: u8,
    items: impl ExactSizeIterator<Item = [u8; N]>,
) {
    if items.len() > 0 {
        put_with(out, flags, kind, |value| {
            items.for_each(|item| value.extend_from_slice(&item));
        });
    }
}

fn put_with(out: &mut Vec<u8>, flags: u8, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[flags, kind, 0]);
    let value = out.len();
    write(out);
    match u8::try_from(out.len() - value) {
        Ok(length) => out[value - 1] = length,
        Err(_) => {
            // More than 65535 bytes never fit into a message; the caller sees the size and refuses.
            let length = u16::try_from(out.len() - value).unwrap_or(u16::MAX);
            let length = length.to_be_bytes();
            out[start] |= flag::EXTENDED_LENGTH;
            out[value - 1] = length[0];
            out.insert(value, length[1]);
        }
    }
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
