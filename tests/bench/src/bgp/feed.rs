//! Tables to inject: made from a seed, encoded before anything is timed.

use std::net::Ipv4Addr;

use super::dice::Dice;
use super::wire::{Attributes, Prefix, Space, announce, withdraw};

/// What a table looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As the Internet's: about 5.8 prefixes to a set of attributes, lengths, paths and communities as they are there.
    Internet,
    /// /26s that all have the same attributes, as the blocks of a rack do.
    Shared,
    /// /26s that each have attributes of their own.
    Unique,
}

/// Who announces it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speaks {
    pub(crate) asn: u32,
    pub(crate) next_hop: Ipv4Addr,
    /// To a speaker of the same AS.
    pub(crate) internal: bool,
}

/// A table, encoded.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) announce: Vec<u8>,
    pub(crate) withdraw: Vec<u8>,
    pub(crate) prefixes: Vec<Prefix>,
    pub(crate) routes: usize,
    /// UPDATEs in `announce`.
    pub(crate) updates: usize,
    /// The fewest UPDATEs that can carry them once the speaker in between has added its bytes to every set.
    pub(crate) fewest: usize,
}

/// The Internet's prefixes; anything up to a million fits.
const INTERNET: Space = Space {
    base: 0x0100_0000,
    shift: 8,
    slots: 125 << 16,
};
/// Blocks of nodes.
const BLOCKS: Space = Space {
    base: 0x1400_0000,
    shift: 6,
    slots: 1 << 20,
};
const SEED: u64 = 0x6d61_7267_6179;
/// Lengths of the Internet's prefixes, in thousandths.
const LENGTHS: [(u32, u8); 9] = [
    (13, 16),
    (8, 17),
    (14, 18),
    (25, 19),
    (45, 20),
    (50, 21),
    (110, 22),
    (105, 23),
    (630, 24),
];
/// Prefixes that share a set of attributes, 5.8 on average.
const SHARING: [(u32, (u32, u32)); 7] = [
    (46, (1, 1)),
    (15, (2, 2)),
    (8, (3, 3)),
    (10, (4, 6)),
    (12, (7, 16)),
    (7, (17, 34)),
    (2, (37, 80)),
];

impl Shape {
    /// Where its prefixes are.
    pub(crate) const fn space(self) -> Space {
        match self {
            Self::Internet => INTERNET,
            Self::Shared | Self::Unique => BLOCKS,
        }
    }
}

impl Feed {
    /// A table of `routes` routes, of which the first is number `first` of its space (not the Internet's). `added`: bytes
    /// by which the speaker in between makes every set of attributes longer.
    pub(crate) fn new(shape: Shape, first: u32, routes: u32, from: Speaks, added: usize) -> Self {
        let mut feed = Self {
            announce: Vec::new(),
            withdraw: Vec::new(),
            prefixes: Vec::new(),
            routes: 0,
            updates: 0,
            fewest: 0,
        };
        let prefixes = match shape {
            Shape::Internet => internet(routes),
            Shape::Shared | Shape::Unique => (first..first + routes)
                .map(|i| (BLOCKS.base + (i << BLOCKS.shift), 26))
                .collect(),
        };
        feed.routes = prefixes.len();
        let mut left = prefixes.as_slice();
        let mut dice = Dice::new(SEED ^ 1);
        let mut scratch = Vec::new();
        while !left.is_empty() {
            let size = match shape {
                Shape::Internet => {
                    let (low, high) = dice.pick(&SHARING);
                    usize::try_from(dice.between(low, high)).expect("a small number")
                }
                Shape::Shared => left.len(),
                Shape::Unique => 1,
            };
            let (set, rest) = left.split_at(size.min(left.len()));
            left = rest;
            let attributes = match shape {
                Shape::Internet => internet_attributes(&mut dice, from),
                Shape::Shared => plain(from, None),
                Shape::Unique => plain(from, Some(set[0].0)),
            };
            feed.updates += announce(&mut feed.announce, attributes.bytes(), set);
            let longer = [attributes.bytes(), &vec![0; added]].concat();
            scratch.clear();
            feed.fewest += announce(&mut scratch, &longer, set);
        }
        withdraw(&mut feed.withdraw, &prefixes);
        feed.prefixes = prefixes;
        feed
    }

    /// The routes that the Internet has: one `number`ed prefix outside of every table, to time a single route.
    pub(crate) fn single(number: u32, from: Speaks) -> Self {
        // 198.51.100.0/24 is for documentation; no table has it.
        let prefix = (0xC633_6400 + number % 256, 32);
        let mut feed = Self {
            announce: Vec::new(),
            withdraw: Vec::new(),
            prefixes: Vec::new(),
            routes: 1,
            updates: 1,
            fewest: 1,
        };
        announce(&mut feed.announce, plain(from, None).bytes(), &[prefix]);
        withdraw(&mut feed.withdraw, &[prefix]);
        feed
    }
}

/// Ascending networks, some inside of others; never two of the same first three octets.
fn internet(routes: u32) -> Vec<Prefix> {
    let mut dice = Dice::new(SEED);
    let mut next = INTERNET.base;
    (0..routes)
        .map(|_| {
            let length = dice.pick(&LENGTHS);
            let size = 1_u32 << (32 - length);
            let network = next.next_multiple_of(size);
            // Three of four have more specifics inside.
            next = network + if dice.chance(250) { size } else { 256 };
            (network, length)
        })
        .collect()
}

/// What every set begins with.
fn begin(from: Speaks, origin: u8, path: &[u32], med: Option<u32>) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.add(0x40, 1, &[origin]);
    attributes.as_path(path);
    attributes.add(0x40, 3, &from.next_hop.octets());
    if let Some(med) = med {
        attributes.add(0x80, 4, &med.to_be_bytes());
    }
    if from.internal {
        attributes.add(0x40, 5, &100_u32.to_be_bytes());
    }
    attributes
}

fn plain(from: Speaks, mark: Option<u32>) -> Attributes {
    let path = [from.asn];
    let path = if from.internal { &[][..] } else { &path };
    let mut attributes = begin(from, 0, path, None);
    if let Some(mark) = mark {
        attributes.add(0xC0, 8, &mark.to_be_bytes());
    }
    attributes
}

fn internet_attributes(dice: &mut Dice, from: Speaks) -> Attributes {
    let asn = |dice: &mut Dice| {
        if dice.chance(350) {
            dice.between(131_072, 400_000)
        } else {
            dice.between(174, 63_999)
        }
    };
    let mut path = Vec::new();
    if !from.internal {
        path.push(from.asn);
    }
    let hops = dice.pick(&[(10, 2), (28, 3), (30, 4), (20, 5), (8, 6), (4, 7)]);
    path.extend((0..hops).map(|_| asn(dice)));
    if let (true, Some(&last)) = (dice.chance(150), path.last()) {
        // The origin prepends itself.
        let times = dice.between(1, 4);
        path.extend((0..times).map(|_| last));
    }
    let origin = dice.pick(&[(88, 0), (11, 2), (1, 1)]);
    let med = dice.chance(250).then(|| dice.below(1000));
    let mut attributes = begin(from, origin, &path, med);
    if dice.chance(80) {
        let aggregator = path.last().copied().unwrap_or(from.asn);
        attributes.add(0x40, 6, &[]);
        let address = dice.between(0x0100_0000, 0x7E00_0000);
        let value = [aggregator.to_be_bytes(), address.to_be_bytes()].concat();
        attributes.add(0xC0, 7, &value);
    }
    let communities = dice.pick(&[(22, 0), (20, 2), (25, 4), (18, 7), (10, 12), (5, 20)]);
    if communities > 0 {
        let mut values: Vec<u32> = (0..communities)
            .map(|_| (dice.between(174, 64_000) << 16) | dice.below(0x1_0000))
            .collect();
        values.sort_unstable();
        let value: Vec<u8> = values.iter().flat_map(|c| c.to_be_bytes()).collect();
        attributes.add(0xC0, 8, &value);
    }
    if dice.chance(50) {
        // A route target of two octets.
        let value = [
            0x0002_u32 << 16 | dice.between(174, 64_000),
            dice.below(1000),
        ];
        let value: Vec<u8> = value.iter().flat_map(|v| v.to_be_bytes()).collect();
        attributes.add(0xC0, 16, &value);
    }
    if dice.chance(150) {
        let value: Vec<u8> = (0..3 * dice.between(1, 4))
            .flat_map(|_| dice.between(1, 400_000).to_be_bytes())
            .collect();
        attributes.add(0xC0, 32, &value);
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Count, HEADER, MESSAGE_MAX, frame};
    use super::*;

    const FROM: Speaks = Speaks {
        asn: 64_510,
        next_hop: Ipv4Addr::new(198, 18, 1, 1),
        internal: false,
    };

    fn bodies(mut bytes: &[u8]) -> Vec<&[u8]> {
        let mut bodies = Vec::new();
        while let Some((length, _)) = frame(bytes).unwrap() {
            let (message, rest) = bytes.split_at(length);
            assert!(message.len() <= MESSAGE_MAX);
            bodies.push(&message[HEADER..]);
            bytes = rest;
        }
        bodies
    }

    #[test]
    fn every_route_is_announced_once_and_withdrawn() {
        for shape in [Shape::Internet, Shape::Shared, Shape::Unique] {
            let feed = Feed::new(shape, 0, 10_000, FROM, 4);
            let mut count = Count::new(shape.space());
            let bodies_in = bodies(&feed.announce);
            assert_eq!(bodies_in.len(), feed.updates);
            for body in bodies_in {
                count.update(body).unwrap();
            }
            assert_eq!((count.present, count.others), (10_000, (0, 0)), "{shape:?}");
            assert!((feed.updates..feed.updates + 10).contains(&feed.fewest));
            for body in bodies(&feed.withdraw) {
                count.update(body).unwrap();
            }
            assert_eq!((count.present, count.others), (0, (0, 0)));
        }
    }

    #[test]
    fn the_shape_is_the_internets_and_a_million_fits() {
        let routes = 1_000_000;
        let prefixes = internet(routes);
        let (last, _) = *prefixes.last().unwrap();
        let end = INTERNET.base + u32::try_from(INTERNET.slots << INTERNET.shift).unwrap();
        assert!(last < end, "{last:x} {end:x}");
        let long = prefixes.iter().filter(|p| p.1 == 24).count();
        assert!((600_000..660_000).contains(&long));

        let feed = Feed::new(Shape::Internet, 0, 100_000, FROM, 4);
        let sharing = 100_000 * 10 / feed.updates;
        assert!((56..=60).contains(&sharing), "{} UPDATEs", feed.updates);
        let bytes = feed.announce.len() / feed.updates;
        assert!((80..140).contains(&bytes), "{bytes} bytes each");
    }

    #[test]
    fn a_seed_makes_one_table_and_numbers_separate_them() {
        let make = || Feed::new(Shape::Internet, 0, 500, FROM, 4).announce;
        assert_eq!(make(), make());
        let mut count = Count::new(BLOCKS);
        for first in [0, 100] {
            let feed = Feed::new(Shape::Shared, first, 100, FROM, 4);
            bodies(&feed.announce)
                .iter()
                .for_each(|body| count.update(body).unwrap());
        }
        assert_eq!(count.present, 200);
        let single = Feed::single(7, FROM);
        bodies(&single.announce)
            .iter()
            .for_each(|body| count.update(body).unwrap());
        assert_eq!((count.present, count.others), (200, (1, 0)));
    }
}
