//! Writing UPDATEs, one after the other, into one run of bytes.

use crds::net::Family;

use super::attribute::{self, Attributes};
use super::frame::MessageType;
use super::nlri::Item;
use super::update::TooLong;
use super::{Dialect, HEADER, MAX_MESSAGE};
use crate::nexthop::NextHop;

/// Attributes as bytes, ready to be put before any number of prefixes of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announcer {
    attributes: Vec<u8>,
    family: Family,
    /// The next hop, when it goes with the prefixes into MP_REACH_NLRI.
    reach: Option<NextHop>,
    /// Bytes for prefixes in one message.
    room: usize,
}

/// Bytes of an UPDATE beside what its three lists hold.
const FRAME: usize = HEADER + 4;

/// Most bytes that MP_REACH_NLRI has beside next hop and prefixes.
const REACH: usize = 9;

impl Announcer {
    pub(crate) fn new(
        attributes: &Attributes,
        family: Family,
        dialect: Dialect,
    ) -> Result<Self, TooLong> {
        let next_hop = attributes.next_hop;
        let plain = family == Family::V4 && next_hop.address.is_ipv4();
        let mut bytes = Vec::with_capacity(128);
        attribute::encode(attributes, plain, dialect, &mut bytes);
        Self::of(bytes, next_hop, family, dialect)
    }

    /// The same of attributes that have been written, with NEXT_HOP among them where it is one of IPv4 for IPv4.
    pub(crate) fn of(
        bytes: Vec<u8>,
        next_hop: NextHop,
        family: Family,
        dialect: Dialect,
    ) -> Result<Self, TooLong> {
        let plain = family == Family::V4 && next_hop.address.is_ipv4();
        let reach = match (plain, next_hop.address.is_ipv4(), next_hop.link_local) {
            (true, ..) => 0,
            (_, true, _) => REACH + 4,
            (.., None) => REACH + 16,
            (.., Some(_)) => REACH + 32,
        };
        let taken = FRAME + bytes.len() + reach;
        Ok(Self {
            attributes: bytes,
            family,
            reach: (!plain).then_some(next_hop),
            room: dialect.max_message().checked_sub(taken).ok_or(TooLong)?,
        })
    }

    /// Writes one message with as many of the prefixes as fit; the others.
    pub(crate) fn write_one<'a, T: Item>(
        &self,
        prefixes: &'a [T],
        out: &mut Vec<u8>,
    ) -> Result<&'a [T], TooLong> {
        let (some, bytes, rest) = cut(prefixes, self.room);
        if some.is_empty() {
            return Err(TooLong);
        }
        let start = begin(out);
        out.extend_from_slice(&[0, 0]);
        let attributes = out.len();
        out.extend_from_slice(&[0, 0]);
        // RFC 7606 section 5.1: MP_REACH_NLRI comes first.
        if let Some(next_hop) = self.reach {
            attribute::reach(self.family, next_hop, bytes, out);
            some.iter().for_each(|prefix| prefix.encode(out));
        }
        out.extend_from_slice(&self.attributes);
        let length = out.len() - attributes - 2;
        set_length(out, attributes, length);
        if self.reach.is_none() {
            some.iter().for_each(|prefix| prefix.encode(out));
        }
        end(out, start);
        Ok(rest)
    }

    /// Writes the fewest messages for all the prefixes; how many.
    pub(crate) fn write<T: Item>(
        &self,
        prefixes: &[T],
        out: &mut Vec<u8>,
    ) -> Result<usize, TooLong> {
        let (mut rest, mut messages) = (prefixes, 0);
        while !rest.is_empty() {
            rest = self.write_one(rest, out)?;
            messages += 1;
        }
        Ok(messages)
    }
}

/// Writes one message that withdraws as many of the prefixes as fit; the others. Without any it is an End-of-RIB.
pub(crate) fn withdraw_one<'a, T: Item>(
    family: Family,
    prefixes: &'a [T],
    out: &mut Vec<u8>,
) -> &'a [T] {
    let overhead = match family {
        Family::V4 => 0,
        // Flags, type and length of the attribute, AFI and SAFI.
        Family::V6 => 7,
    };
    let (some, bytes, rest) = cut(prefixes, MAX_MESSAGE - FRAME - overhead);
    let start = begin(out);
    let list = out.len();
    out.extend_from_slice(&[0, 0]);
    match family {
        Family::V4 => {
            some.iter().for_each(|prefix| prefix.encode(out));
            set_length(out, list, bytes);
            out.extend_from_slice(&[0, 0]);
        }
        Family::V6 => {
            let attributes = out.len();
            out.extend_from_slice(&[0, 0]);
            attribute::unreach(family, bytes, out);
            some.iter().for_each(|prefix| prefix.encode(out));
            let length = out.len() - attributes - 2;
            set_length(out, attributes, length);
        }
    }
    end(out, start);
    rest
}

/// Writes the fewest messages that withdraw all the prefixes; how many.
pub(crate) fn withdraw_all<T: Item>(family: Family, prefixes: &[T], out: &mut Vec<u8>) -> usize {
    let (mut rest, mut messages) = (prefixes, 0);
    while !rest.is_empty() {
        rest = withdraw_one(family, rest, out);
        messages += 1;
    }
    messages
}

/// The prefixes that are written in `room` bytes, the bytes, and the other prefixes.
fn cut<T: Item>(prefixes: &[T], room: usize) -> (&[T], usize, &[T]) {
    let (mut bytes, mut count) = (0, 0);
    for prefix in prefixes {
        let more = bytes + prefix.encoded_len();
        if more > room {
            break;
        }
        (bytes, count) = (more, count + 1);
    }
    let (some, rest) = prefixes.split_at(count);
    (some, bytes, rest)
}

fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0xff; HEADER]);
    out[start + HEADER - 1] = MessageType::Update as u8;
    start
}

fn end(out: &mut [u8], start: usize) {
    let length = out.len() - start;
    set_length(out, start + 16, length);
}

fn set_length(out: &mut [u8], at: usize, length: usize) {
    // The caller bounds what it writes.
    let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    out[at..at + 2].copy_from_slice(&length);
}
