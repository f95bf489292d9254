//! Reading the attributes of an UPDATE, each with the reaction RFC 7606 section 7 wants.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crds::net::Family;

use super::{
    Aggregator, Attributes, Origin, Problem, ProblemKind, Reaction, UnknownAttribute, code, flag,
};
use crate::nexthop::NextHop;
use crate::wire::cursor::Cursor;
use crate::wire::nlri::{self, Paths};
use crate::wire::notification::UpdateError;
use crate::wire::{AsPath, Dialect, Notification};

/// What MP_REACH_NLRI holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::wire) struct Reach {
    pub(in crate::wire) family: Family,
    pub(in crate::wire) next_hop: NextHop,
    pub(in crate::wire) paths: Paths,
}

/// All attributes of an UPDATE.
#[derive(Debug, Clone, Default)]
pub(in crate::wire) struct Decoded {
    /// Attribute codes seen, MP_UNREACH_NLRI aside.
    pub(in crate::wire) any: bool,
    pub(in crate::wire) origin: Option<Origin>,
    pub(in crate::wire) as_path: Option<AsPath>,
    pub(in crate::wire) next_hop: Option<Ipv4Addr>,
    pub(in crate::wire) reach: Option<Reach>,
    pub(in crate::wire) unreach: Option<(Family, Paths)>,
    pub(in crate::wire) problems: Vec<Problem>,
    med: Option<u32>,
    local_pref: Option<u32>,
    atomic_aggregate: bool,
    aggregator: Option<Aggregator>,
    communities: Vec<u32>,
    extended_communities: Vec<[u8; 8]>,
    large_communities: Vec<[u32; 3]>,
    originator_id: Option<Ipv4Addr>,
    cluster_list: Vec<Ipv4Addr>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
    unknown: Vec<UnknownAttribute>,
    partial: Vec<u8>,
}

/// Why an attribute could not be taken.
enum Bad {
    /// RFC 7606 handles it.
    Problem(ProblemKind, Reaction),
    /// It ends the session.
    Reset(Notification),
}

const WITHDRAW: Reaction = Reaction::TreatAsWithdraw;
const DISCARD: Reaction = Reaction::DiscardAttribute;

/// Reads a list of attributes. An error ends the session.
pub(in crate::wire) fn decode(bytes: &[u8], dialect: Dialect) -> Result<Decoded, Notification> {
    let mut decoded = Decoded::default();
    let mut seen = [false; 256];
    let mut cursor = Cursor::new(bytes);
    while !cursor.is_empty() {
        // RFC 7606 section 4: the prefixes can still be found, so a list that ends too early only withdraws them.
        let Some((flags, kind, value)) = header(&mut cursor) else {
            decoded.any = true;
            decoded.problem(0, ProblemKind::Truncated, WITHDRAW, cursor.rest());
            break;
        };
        decoded.any |= kind != code::MP_UNREACH;
        if std::mem::replace(&mut seen[usize::from(kind)], true) {
            // RFC 7606 section 3 g.
            if matches!(kind, code::MP_REACH | code::MP_UNREACH) {
                return Err(Notification::update(UpdateError::MalformedAttributes, &[]));
            }
            decoded.problem(kind, ProblemKind::Duplicate, DISCARD, value);
            continue;
        }
        match decoded.attribute(flags, kind, value, dialect) {
            Ok(()) => {}
            Err(Bad::Problem(problem, reaction)) => decoded.problem(kind, problem, reaction, value),
            Err(Bad::Reset(notification)) => return Err(notification),
        }
    }
    Ok(decoded)
}

fn header<'a>(cursor: &mut Cursor<'a>) -> Option<(u8, u8, &'a [u8])> {
    let mut ahead = *cursor;
    let flags = ahead.u8()?;
    let kind = ahead.u8()?;
    let length = if flags & flag::EXTENDED_LENGTH == 0 {
        u16::from(ahead.u8()?)
    } else {
        ahead.u16()?
    };
    let value = ahead.take(usize::from(length))?;
    *cursor = ahead;
    Some((flags, kind, value))
}

/// The Optional and Transitive bits a known attribute has.
fn expected_flags(kind: u8) -> Option<u8> {
    Some(match kind {
        code::ORIGIN
        | code::AS_PATH
        | code::NEXT_HOP
        | code::LOCAL_PREF
        | code::ATOMIC_AGGREGATE => flag::TRANSITIVE,
        code::MED
        | code::ORIGINATOR_ID
        | code::CLUSTER_LIST
        | code::MP_REACH
        | code::MP_UNREACH => flag::OPTIONAL,
        code::AGGREGATOR
        | code::COMMUNITIES
        | code::EXTENDED_COMMUNITIES
        | code::LARGE_COMMUNITIES
        | code::AS4_PATH
        | code::AS4_AGGREGATOR => flag::OPTIONAL | flag::TRANSITIVE,
        _ => return None,
    })
}

impl Decoded {
    fn problem(&mut self, code: u8, kind: ProblemKind, reaction: Reaction, bytes: &[u8]) {
        self.problems.push(Problem {
            code,
            kind,
            reaction,
            bytes: bytes.to_vec(),
        });
    }

    fn attribute(
        &mut self,
        flags: u8,
        kind: u8,
        value: &[u8],
        dialect: Dialect,
    ) -> Result<(), Bad> {
        let type_flags = flags & (flag::OPTIONAL | flag::TRANSITIVE);
        let Some(expected) = expected_flags(kind) else {
            return self.unknown(flags, kind, value);
        };
        // What an external peer may not say is ignored whatever it looks like (RFC 7606 sections 7.5, 7.9, 7.10).
        let internal_only = matches!(
            kind,
            code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST
        );
        // RFC 6793 section 3: speakers of 4-octet AS numbers do not send these to each other.
        let old_only = matches!(kind, code::AS4_PATH | code::AS4_AGGREGATOR);
        if internal_only && !dialect.internal || old_only && dialect.four_octet_as {
            return Err(Bad::Problem(ProblemKind::NotAllowed, DISCARD));
        }
        if type_flags != expected {
            // A list of prefixes is read all the same: it must be known what is withdrawn.
            if kind == code::MP_REACH {
                self.reach = mp_reach(value, dialect)
                    .map_err(|()| optional_attribute(flags, kind, value))?;
            } else if kind == code::MP_UNREACH {
                self.unreach = mp_unreach(value, dialect)
                    .map_err(|()| optional_attribute(flags, kind, value))?;
            }
            return Err(Bad::Problem(ProblemKind::Flags, WITHDRAW));
        }
        if flags & flag::PARTIAL != 0 && expected == flag::OPTIONAL | flag::TRANSITIVE {
            self.partial.push(kind);
        }
        self.known(flags, kind, value, dialect)
    }

    fn known(&mut self, flags: u8, kind: u8, value: &[u8], dialect: Dialect) -> Result<(), Bad> {
        let length = |reaction| move || Bad::Problem(ProblemKind::Length, reaction);
        let meaning = |reaction| move || Bad::Problem(ProblemKind::Value, reaction);
        match kind {
            code::ORIGIN => {
                let [origin] = exactly(value).ok_or_else(length(WITHDRAW))?;
                self.origin = Some(match origin {
                    0 => Origin::Igp,
                    1 => Origin::Egp,
                    2 => Origin::Incomplete,
                    _ => return Err(meaning(WITHDRAW)()),
                });
            }
            code::AS_PATH => {
                let path =
                    AsPath::decode(value, dialect.four_octet_as).ok_or_else(meaning(WITHDRAW))?;
                // RFC 5065 section 5.3: nobody outside may send them, and there is no confederation here.
                if path.has_confederation() {
                    return Err(meaning(WITHDRAW)());
                }
                self.as_path = Some(path);
            }
            code::NEXT_HOP => {
                let address = Ipv4Addr::from(exactly::<4>(value).ok_or_else(length(WITHDRAW))?);
                if !is_usable(address.into()) {
                    return Err(meaning(WITHDRAW)());
                }
                self.next_hop = Some(address);
            }
            code::MED => {
                self.med = Some(u32::from_be_bytes(
                    exactly(value).ok_or_else(length(WITHDRAW))?,
                ))
            }
            code::LOCAL_PREF => {
                self.local_pref = Some(u32::from_be_bytes(
                    exactly(value).ok_or_else(length(WITHDRAW))?,
                ));
            }
            code::ATOMIC_AGGREGATE => {
                exactly::<0>(value).ok_or_else(length(DISCARD))?;
                self.atomic_aggregate = true;
            }
            code::AGGREGATOR => {
                let parsed = if dialect.four_octet_as {
                    aggregator4(value)
                } else {
                    aggregator2(value)
                };
                let aggregator = parsed.ok_or_else(length(DISCARD))?;
                // RFC 7607: AS 0 aggregates nothing.
                self.aggregator = Some(aggregator).filter(|it| it.asn != 0);
                self.aggregator.ok_or_else(meaning(DISCARD))?;
            }
            code::COMMUNITIES => {
                let all = chunks::<4>(value).ok_or_else(length(WITHDRAW))?;
                self.communities = all.iter().copied().map(u32::from_be_bytes).collect();
            }
            code::EXTENDED_COMMUNITIES => {
                let all = chunks::<8>(value).ok_or_else(length(WITHDRAW))?;
                self.extended_communities = all.to_vec();
            }
            code::LARGE_COMMUNITIES => {
                let all = chunks::<12>(value).ok_or_else(length(WITHDRAW))?;
                self.large_communities = all.iter().copied().map(large).collect();
            }
            code::ORIGINATOR_ID => {
                self.originator_id = Some(Ipv4Addr::from(
                    exactly::<4>(value).ok_or_else(length(WITHDRAW))?,
                ));
            }
            code::CLUSTER_LIST => {
                let all = chunks::<4>(value).ok_or_else(length(WITHDRAW))?;
                self.cluster_list = all.iter().copied().map(Ipv4Addr::from).collect();
            }
            code::AS4_PATH => {
                // RFC 6793 section 6: malformed, it is discarded and the rest processed.
                self.as4_path = Some(AsPath::decode(value, true).ok_or_else(meaning(DISCARD))?);
            }
            code::AS4_AGGREGATOR => {
                let aggregator = aggregator4(value).ok_or_else(length(DISCARD))?;
                self.as4_aggregator = Some(aggregator).filter(|it| it.asn != 0);
                self.as4_aggregator.ok_or_else(meaning(DISCARD))?;
            }
            code::MP_REACH => {
                self.reach = mp_reach(value, dialect)
                    .map_err(|()| optional_attribute(flags, kind, value))?;
                match &self.reach {
                    None => return Err(Bad::Problem(ProblemKind::Family, DISCARD)),
                    Some(reach) if !is_usable(reach.next_hop.address) => {
                        return Err(meaning(WITHDRAW)());
                    }
                    Some(_) => {}
                }
            }
            code::MP_UNREACH => {
                self.unreach = mp_unreach(value, dialect)
                    .map_err(|()| optional_attribute(flags, kind, value))?;
                if self.unreach.is_none() {
                    return Err(Bad::Problem(ProblemKind::Family, DISCARD));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn unknown(&mut self, flags: u8, kind: u8, value: &[u8]) -> Result<(), Bad> {
        if flags & flag::OPTIONAL == 0 {
            let whole = whole(flags, kind, value);
            return Err(Bad::Reset(Notification::update(
                UpdateError::UnrecognizedWellKnown,
                &whole,
            )));
        }
        // RFC 4271 section 5: unknown and not transitive is ignored quietly.
        if flags & flag::TRANSITIVE != 0 {
            self.unknown.push(UnknownAttribute {
                code: kind,
                value: value.to_vec(),
            });
        }
        Ok(())
    }

    /// The attributes of routes with that next hop; None while a mandatory one is missing.
    pub(in crate::wire) fn attributes(self, next_hop: NextHop) -> Option<Attributes> {
        // RFC 6793 section 4.2.3: beside an AS4_AGGREGATOR, an AGGREGATOR that is not AS_TRANS was made by an old
        // speaker on the way, behind which neither of the new attributes can be trusted. Alone it says nothing of that:
        // an aggregator whose AS fits into two octets has no need of the other.
        let old_aggregator = self.as4_aggregator.is_some()
            && self
                .aggregator
                .is_some_and(|it| it.asn != u32::from(crate::wire::open::AS_TRANS));
        let (as4_path, as4_aggregator) = if old_aggregator {
            (None, None)
        } else {
            (self.as4_path, self.as4_aggregator)
        };
        let as_path = self.as_path?;
        let mut unknown = self.unknown;
        unknown.sort_by_key(|it| it.code);
        let mut partial = self.partial;
        // What the two are merged into has a bit of its own.
        partial.retain(|it| ![code::AS4_PATH, code::AS4_AGGREGATOR].contains(it));
        partial.sort_unstable();
        Some(Attributes {
            origin: self.origin?,
            as_path: match as4_path {
                Some(four) => as_path.merged(four),
                None => as_path,
            },
            next_hop,
            med: self.med,
            local_pref: self.local_pref,
            atomic_aggregate: self.atomic_aggregate,
            aggregator: self.aggregator.map(|two| as4_aggregator.unwrap_or(two)),
            communities: self.communities,
            extended_communities: self.extended_communities,
            large_communities: self.large_communities,
            originator_id: self.originator_id,
            cluster_list: self.cluster_list,
            unknown,
            partial,
            mark: 0,
        })
    }
}

fn exactly<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.try_into().ok()
}

/// A list of at least one item.
fn chunks<const N: usize>(value: &[u8]) -> Option<&[[u8; N]]> {
    let (items, rest) = value.as_chunks::<N>();
    (rest.is_empty() && !items.is_empty()).then_some(items)
}

fn large(bytes: [u8; 12]) -> [u32; 3] {
    let mut words = [0; 3];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    words
}

fn aggregator2(value: &[u8]) -> Option<Aggregator> {
    let [a, b, address @ ..] = exactly::<6>(value)?;
    Some(Aggregator {
        asn: u32::from(u16::from_be_bytes([a, b])),
        address: Ipv4Addr::from(address),
    })
}

fn aggregator4(value: &[u8]) -> Option<Aggregator> {
    let [a, b, c, d, address @ ..] = exactly::<8>(value)?;
    Some(Aggregator {
        asn: u32::from_be_bytes([a, b, c, d]),
        address: Ipv4Addr::from(address),
    })
}

/// An address a neighbour can have.
pub(in crate::wire) fn is_usable(address: IpAddr) -> bool {
    match address {
        // From 224 on there are multicast and what is reserved.
        IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_loopback() || v4.octets()[0] >= 224),
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast()),
    }
}

/// RFC 4760 section 7: lists of prefixes that cannot be read end the session.
fn optional_attribute(flags: u8, kind: u8, value: &[u8]) -> Bad {
    Bad::Reset(Notification::update(
        UpdateError::OptionalAttribute,
        &whole(flags, kind, value),
    ))
}

/// An attribute as it came: what a NOTIFICATION carries as data.
fn whole(flags: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![flags, kind];
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes();
    bytes.extend_from_slice(if flags & flag::EXTENDED_LENGTH == 0 {
        &length[1..]
    } else {
        &length
    });
    bytes.extend_from_slice(value);
    bytes
}

/// RFC 4760 section 3; `Ok(None)` for families not spoken here.
fn mp_reach(value: &[u8], dialect: Dialect) -> Result<Option<Reach>, ()> {
    let mut cursor = Cursor::new(value);
    let afi = cursor.u16().ok_or(())?;
    let safi = cursor.u8().ok_or(())?;
    let length = cursor.u8().ok_or(())?;
    let next_hop = cursor.take(usize::from(length)).ok_or(())?;
    cursor.u8().ok_or(())?;
    let Some(family) = nlri::family_of(afi, safi) else {
        return Ok(None);
    };
    let next_hop = parse_next_hop(family, next_hop).ok_or(())?;
    let with_ids = dialect.paths_received.contains(family);
    let paths = nlri::decode(cursor.rest(), family, with_ids).ok_or(())?;
    Ok(Some(Reach {
        family,
        next_hop,
        paths,
    }))
}

/// RFC 2545 section 3 and RFC 8950 section 3: IPv6 next hops of 16 or 32 bytes for both families.
fn parse_next_hop(family: Family, bytes: &[u8]) -> Option<NextHop> {
    if family == Family::V4
        && let Some(v4) = exactly::<4>(bytes)
    {
        return Some(IpAddr::V4(Ipv4Addr::from(v4)).into());
    }
    let (global, link_local) = match exactly::<16>(bytes) {
        Some(global) => (Ipv6Addr::from(global), None),
        None => {
            let both = exactly::<32>(bytes)?;
            let (global, local) = both.split_first_chunk::<16>()?;
            let local = Ipv6Addr::from(exactly::<16>(local)?);
            (
                Ipv6Addr::from(*global),
                Some(local).filter(Ipv6Addr::is_unicast_link_local),
            )
        }
    };
    // A sender without a global address may leave it out.
    match link_local {
        Some(local) if global.is_unspecified() => Some(IpAddr::V6(local).into()),
        _ => Some(NextHop {
            address: IpAddr::V6(global),
            link_local,
        }),
    }
}

/// RFC 4760 section 4; `Ok(None)` for families not spoken here.
fn mp_unreach(value: &[u8], dialect: Dialect) -> Result<Option<(Family, Paths)>, ()> {
    let mut cursor = Cursor::new(value);
    let afi = cursor.u16().ok_or(())?;
    let safi = cursor.u8().ok_or(())?;
    let Some(family) = nlri::family_of(afi, safi) else {
        return Ok(None);
    };
    let with_ids = dialect.paths_received.contains(family);
    let paths = nlri::decode(cursor.rest(), family, with_ids).ok_or(())?;
    Ok(Some((family, paths)))
}
