//! Prefixes as UPDATEs carry them (RFC 4271 section 4.3, RFC 4760).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crds::net::{Cidr, Family};

use super::cursor::Cursor;

/// The SAFI of unicast routes.
pub const SAFI_UNICAST: u8 = 1;

/// The AFI of a family.
pub fn afi(family: Family) -> u16 {
    match family {
        Family::V4 => 1,
        Family::V6 => 2,
    }
}

/// The family whose unicast routes are meant; None: none of ours.
pub fn family_of(afi: u16, safi: u8) -> Option<Family> {
    match (afi, safi) {
        (1, SAFI_UNICAST) => Some(Family::V4),
        (2, SAFI_UNICAST) => Some(Family::V6),
        _ => None,
    }
}

/// What is written as one prefix.
pub(crate) trait Item: Copy {
    /// Bytes that [`encode`](Self::encode) writes.
    fn encoded_len(self) -> usize;

    /// Writes it.
    fn encode(self, out: &mut Vec<u8>);
}

impl Item for Cidr {
    fn encoded_len(self) -> usize {
        1 + usize::from(self.prefix_len().div_ceil(8))
    }

    fn encode(self, out: &mut Vec<u8>) {
        let length = self.prefix_len();
        let bytes = usize::from(length.div_ceil(8));
        out.push(length);
        match self.first() {
            IpAddr::V4(address) => out.extend_from_slice(&address.octets()[..bytes]),
            IpAddr::V6(address) => out.extend_from_slice(&address.octets()[..bytes]),
        }
    }
}

/// With a path identifier (RFC 7911 section 3).
impl Item for (u32, Cidr) {
    fn encoded_len(self) -> usize {
        4 + self.1.encoded_len()
    }

    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes());
        self.1.encode(out);
    }
}

/// Prefixes, and the path identifier of each; no identifiers at all where the family carries none.
pub(super) type Paths = (Vec<Cidr>, Vec<u32>);

/// Reads prefixes, `with_ids` (RFC 7911) or without, up to the end; None: they do not parse. Bits beyond a prefix's
/// length mean nothing and are cleared.
pub(super) fn decode(bytes: &[u8], family: Family, with_ids: bool) -> Option<Paths> {
    let mut cursor = Cursor::new(bytes);
    let mut ids = Vec::new();
    // Five bytes hold a /24..32; a guess that avoids growing for most messages.
    let mut prefixes = Vec::with_capacity(bytes.len() / 4);
    while !cursor.is_empty() {
        if with_ids {
            ids.push(cursor.u32()?);
        }
        let length = cursor.u8().filter(|length| *length <= family.bits())?;
        let given = cursor.take(usize::from(length.div_ceil(8)))?;
        let address = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(padded::<4>(given)?)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(padded::<16>(given)?)),
        };
        prefixes.push(Cidr::new(address, length).ok()?);
    }
    Some((prefixes, ids))
}

/// Whether bytes are prefixes of IPv4 without path identifiers.
pub(super) fn are_plain(bytes: &[u8]) -> bool {
    let mut cursor = Cursor::new(bytes);
    while let Some(length) = cursor.u8() {
        let whole = length <= Family::V4.bits();
        if !whole || cursor.take(usize::from(length.div_ceil(8))).is_none() {
            return false;
        }
    }
    true
}

/// Such prefixes.
pub(super) fn plain(bytes: &[u8]) -> impl Iterator<Item = Cidr> {
    let mut cursor = Cursor::new(bytes);
    std::iter::from_fn(move || {
        let length = cursor.u8()?;
        let given = cursor.take(usize::from(length.div_ceil(8)))?;
        let address = Ipv4Addr::from(padded::<4>(given)?);
        Cidr::new(address.into(), length).ok()
    })
}

fn padded<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let mut all = [0; N];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(all)
}
