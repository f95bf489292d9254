//! UPDATEs as nearly all of them are: known attributes about which there is no doubt. They are read where they lie, and
//! nothing of them is copied into lists of its own.
//!
//! Whatever is out of the ordinary is left to [`Update`], which says the same about what is not.

use std::net::Ipv4Addr;

use bytes::Bytes;
use crds::net::{Cidr, Family};

use super::attribute::{code, flag, is_usable};
use super::cursor::Cursor;
use super::{Dialect, Notification, Update, nlri};

/// A known attribute, in the order in which attributes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Field {
    Origin,
    AsPath,
    NextHop,
    Med,
    LocalPref,
    AtomicAggregate,
    Aggregator,
    Communities,
    OriginatorId,
    ClusterList,
    ExtendedCommunities,
    LargeCommunities,
}

const FIELDS: usize = 12;

impl Field {
    /// All of them in their order.
    pub(crate) const ALL: [Self; FIELDS] = [
        Self::Origin,
        Self::AsPath,
        Self::NextHop,
        Self::Med,
        Self::LocalPref,
        Self::AtomicAggregate,
        Self::Aggregator,
        Self::Communities,
        Self::OriginatorId,
        Self::ClusterList,
        Self::ExtendedCommunities,
        Self::LargeCommunities,
    ];

    fn of(code: u8) -> Option<Self> {
        Some(match code {
            code::ORIGIN => Self::Origin,
            code::AS_PATH => Self::AsPath,
            code::NEXT_HOP => Self::NextHop,
            code::MED => Self::Med,
            code::LOCAL_PREF => Self::LocalPref,
            code::ATOMIC_AGGREGATE => Self::AtomicAggregate,
            code::AGGREGATOR => Self::Aggregator,
            code::COMMUNITIES => Self::Communities,
            code::ORIGINATOR_ID => Self::OriginatorId,
            code::CLUSTER_LIST => Self::ClusterList,
            code::EXTENDED_COMMUNITIES => Self::ExtendedCommunities,
            code::LARGE_COMMUNITIES => Self::LargeCommunities,
            _ => return None,
        })
    }

    /// Its flags and type code.
    fn head(self) -> [u8; 2] {
        match self {
            Self::Origin => [flag::TRANSITIVE, code::ORIGIN],
            Self::AsPath => [flag::TRANSITIVE, code::AS_PATH],
            Self::NextHop => [flag::TRANSITIVE, code::NEXT_HOP],
            Self::Med => [flag::OPTIONAL, code::MED],
            Self::LocalPref => [flag::TRANSITIVE, code::LOCAL_PREF],
            Self::AtomicAggregate => [flag::TRANSITIVE, code::ATOMIC_AGGREGATE],
            Self::Aggregator => [flag::OPTIONAL | flag::TRANSITIVE, code::AGGREGATOR],
            Self::Communities => [flag::OPTIONAL | flag::TRANSITIVE, code::COMMUNITIES],
            Self::OriginatorId => [flag::OPTIONAL, code::ORIGINATOR_ID],
            Self::ClusterList => [flag::OPTIONAL, code::CLUSTER_LIST],
            Self::ExtendedCommunities => [
                flag::OPTIONAL | flag::TRANSITIVE,
                code::EXTENDED_COMMUNITIES,
            ],
            Self::LargeCommunities => [flag::OPTIONAL | flag::TRANSITIVE, code::LARGE_COMMUNITIES],
        }
    }

    /// Writes flags, type and length for a value of that many bytes.
    pub(crate) fn begin(self, length: usize, out: &mut Vec<u8>) {
        let [flags, code] = self.head();
        match u8::try_from(length) {
            Ok(length) => out.extend_from_slice(&[flags, code, length]),
            Err(_) => {
                // More never fits into a message; the caller sees the size and refuses.
                let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
                out.extend_from_slice(&[flags | flag::EXTENDED_LENGTH, code, high, low]);
            }
        }
    }

    /// Writes the attribute.
    pub(crate) fn put(self, value: &[u8], out: &mut Vec<u8>) {
        self.begin(value.len(), out);
        out.extend_from_slice(value);
    }
}

/// Known attributes of a list, each at most once and with the flags that it has to have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    values: [Option<&'a [u8]>; FIELDS],
}

impl<'a> Fields<'a> {
    /// The attributes in a list; None: it has others, or they are not written as usual.
    pub(crate) fn of(list: &'a [u8]) -> Option<Self> {
        let mut fields = Self {
            values: [None; FIELDS],
        };
        let mut cursor = Cursor::new(list);
        while !cursor.is_empty() {
            let [flags, code] = cursor.array()?;
            let field = Field::of(code)?;
            let length = match flags & flag::EXTENDED_LENGTH {
                0 => usize::from(cursor.u8()?),
                _ => usize::from(cursor.u16()?),
            };
            let slot = &mut fields.values[field as usize];
            if flags & !flag::EXTENDED_LENGTH != field.head()[0] || slot.is_some() {
                return None;
            }
            *slot = Some(cursor.take(length)?);
        }
        Some(fields)
    }

    /// The value of an attribute that is there.
    pub(crate) fn get(&self, field: Field) -> Option<&'a [u8]> {
        self.values[field as usize]
    }

    fn array<const N: usize>(&self, field: Field) -> Option<[u8; N]> {
        self.get(field)?.try_into().ok()
    }

    /// The number that an attribute is.
    pub(crate) fn number(&self, field: Field) -> Option<u32> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// ORIGIN.
    pub(crate) fn origin(&self) -> u8 {
        self.array(Field::Origin).map_or(0, |[origin]| origin)
    }

    /// NEXT_HOP.
    pub(crate) fn next_hop(&self) -> Option<Ipv4Addr> {
        self.array::<4>(Field::NextHop).map(Ipv4Addr::from)
    }

    /// AS_PATH.
    pub(crate) fn path(&self) -> Segments<'a> {
        Segments(Cursor::new(self.get(Field::AsPath).unwrap_or_default()))
    }

    /// The numbers that a list is.
    pub(crate) fn list(&self, field: Field) -> impl Iterator<Item = u32> + use<'a> {
        let (items, _) = self.get(field).unwrap_or_default().as_chunks::<4>();
        items.iter().copied().map(u32::from_be_bytes)
    }

    /// Writes them as attribute sets are kept: in their order, without NEXT_HOP.
    pub(crate) fn pack(&self, out: &mut Vec<u8>) {
        for field in Field::ALL {
            if let Some(value) = self.get(field).filter(|_| field != Field::NextHop) {
                field.put(value, out);
            }
        }
    }

    /// Whether they are all that routes of IPv4 need, and none has to be left out or makes its routes be refused.
    fn are_right(&self, dialect: Dialect) -> bool {
        let length = |field, length: usize| self.get(field).is_none_or(|it| it.len() == length);
        let list = |field, item: usize| {
            self.get(field)
                .is_none_or(|it| !it.is_empty() && it.len().is_multiple_of(item))
        };
        let internal = |field| dialect.internal || self.get(field).is_none();
        let aggregator = self.array::<8>(Field::Aggregator);
        self.array(Field::Origin).is_some_and(|[it]| it <= 2)
            && self.get(Field::AsPath).is_some()
            && self.path().are_right()
            && self.next_hop().is_some_and(|it| is_usable(it.into()))
            && length(Field::Med, 4)
            && internal(Field::LocalPref)
            && length(Field::LocalPref, 4)
            && length(Field::AtomicAggregate, 0)
            && length(Field::Aggregator, 8)
            && aggregator.is_none_or(|it| !it.starts_with(&[0; 4]))
            && list(Field::Communities, 4)
            && internal(Field::OriginatorId)
            && length(Field::OriginatorId, 4)
            && internal(Field::ClusterList)
            && list(Field::ClusterList, 4)
            && list(Field::ExtendedCommunities, 8)
            && list(Field::LargeCommunities, 12)
    }
}

/// Sets and sequences of an AS_PATH: whether it is a sequence, and the AS numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segments<'a>(Cursor<'a>);

const SET: u8 = 1;
pub(crate) const SEQUENCE: u8 = 2;

impl<'a> Iterator for Segments<'a> {
    type Item = (bool, &'a [[u8; 4]]);

    fn next(&mut self) -> Option<Self::Item> {
        let [kind, count] = self.0.array()?;
        let (asns, _) = self.0.take(usize::from(count) * 4)?.as_chunks::<4>();
        Some((kind == SEQUENCE, asns))
    }
}

impl Segments<'_> {
    /// Whether there are only sets and sequences, none is empty, and AS 0 is not in them.
    fn are_right(mut self) -> bool {
        while !self.0.is_empty() {
            let is_known = self
                .0
                .rest()
                .first()
                .is_some_and(|it| [SET, SEQUENCE].contains(it));
            let right = |(_, asns): (bool, &[[u8; 4]])| !asns.is_empty() && !asns.contains(&[0; 4]);
            if !is_known || !self.next().is_some_and(right) {
                return false;
            }
        }
        true
    }

    /// All AS numbers.
    pub(crate) fn asns(self) -> impl Iterator<Item = u32> {
        let all = self.flat_map(|(_, asns)| asns);
        all.copied().map(u32::from_be_bytes)
    }

    /// The first AS, unless a set comes first.
    pub(crate) fn first(mut self) -> Option<u32> {
        let (_, asns) = self.next().filter(|(is_sequence, _)| *is_sequence)?;
        asns.first().copied().map(u32::from_be_bytes)
    }

    /// Its length (RFC 4271 section 9.1.2.2 a).
    pub(crate) fn length(self) -> usize {
        let length = |(is_sequence, asns): (bool, &[_])| if is_sequence { asns.len() } else { 1 };
        self.map(length).sum()
    }
}

/// An UPDATE of IPv4 without path identifiers in which nothing is wrong or unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plain {
    body: Bytes,
    dialect: Dialect,
    /// Where its attributes and the prefixes announced begin.
    attributes: usize,
    announced: usize,
}

impl Plain {
    /// The body of an UPDATE; None: it takes a closer look.
    pub(crate) fn of(body: &Bytes, dialect: Dialect) -> Option<Self> {
        if !dialect.four_octet_as || dialect.paths_received.contains(Family::V4) {
            return None;
        }
        let mut cursor = Cursor::new(body);
        let length = usize::from(cursor.u16()?);
        let withdrawn = cursor.take(length)?;
        let attributes = body.len() - cursor.len() + 2;
        let length = usize::from(cursor.u16()?);
        let list = cursor.take(length)?;
        let announced = cursor.rest();
        let right = match (list.is_empty(), announced.is_empty()) {
            (true, true) => !withdrawn.is_empty(),
            (false, false) => Fields::of(list)?.are_right(dialect),
            _ => false,
        };
        let right = right && nlri::are_plain(withdrawn) && nlri::are_plain(announced);
        right.then(|| Self {
            body: body.clone(),
            dialect,
            attributes,
            announced: attributes + list.len(),
        })
    }

    /// Prefixes withdrawn.
    pub(crate) fn withdrawn(&self) -> impl Iterator<Item = Cidr> {
        nlri::plain(&self.body[2..self.attributes - 2])
    }

    /// The attributes of prefixes announced; None: there are none.
    pub(crate) fn fields(&self) -> Option<Fields<'_>> {
        let list = &self.body[self.attributes..self.announced];
        Fields::of(list).filter(|_| !list.is_empty())
    }

    /// Prefixes announced.
    pub(crate) fn announced(&self) -> impl Iterator<Item = Cidr> {
        nlri::plain(&self.body[self.announced..])
    }

    /// The same taken apart.
    pub(crate) fn decode(&self) -> Result<Update, Notification> {
        Update::decode(&self.body, self.dialect)
    }
}

#[cfg(test)]
mod tests;
