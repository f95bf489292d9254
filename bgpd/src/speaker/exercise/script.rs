//! Any bytes as a row of choices.

use std::net::{IpAddr, Ipv4Addr};

use crds::net::{Cidr, Family};

use crate::nexthop::NextHop;
use crate::wire::attribute::community;
use crate::wire::capability::{GracefulRestart, LongLived, PathsOf};
use crate::wire::{
    Aggregator, AsPath, Attributes, Capability, Open, Origin, Segment, SegmentKind,
    UnknownAttribute,
};

/// Bytes that have not been read yet; zeros once there are none left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Script<'a>(pub(super) &'a [u8]);

impl<'a> Script<'a> {
    pub(super) fn is_over(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub(super) fn bit(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// That many bytes, or what is left.
    pub(super) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    /// Prefixes of all sorts: the peers', own ones, parts of them, and such as nobody routes.
    pub(super) fn prefixes(&mut self, family: Family) -> Vec<Cidr> {
        let count = 1 + self.byte() % 6;
        (0..count).filter_map(|_| self.prefix(family)).collect()
    }

    fn prefix(&mut self, family: Family) -> Option<Cidr> {
        let (net, host) = (self.byte(), self.byte());
        let (address, length): (IpAddr, u8) = match (family, net % 8) {
            (Family::V4, 0) => ([10, 3, host % 8, 0].into(), 24),
            (Family::V4, 1) => ([10, 5, host % 8, 0].into(), 24),
            (Family::V4, 2) => ([10, 4, host % 8, host].into(), 32),
            (Family::V4, 3) => ([10, 244, 0, 0].into(), 20 + host % 13),
            (Family::V4, 4) => ([192, 0, 2, host].into(), host % 33),
            (Family::V4, 5) => ([127, 0, 0, 1].into(), 8 + host % 25),
            (Family::V4, _) => ([20, net, host, 0].into(), 24),
            (Family::V6, 0) => ([0x2001, 0xdb8, 3, host.into(), 0, 0, 0, 0].into(), 64),
            (Family::V6, 1) => ([0xfe80, 0, 0, 0, 0, 0, 0, 1].into(), host % 129),
            (Family::V6, _) => ([0x2001, net.into(), host.into(), 0, 0, 0, 0, 0].into(), 48),
        };
        Cidr::new(address, length).ok()
    }

    /// Attributes that an UPDATE can carry, sensible or not.
    pub(super) fn attributes(&mut self, family: Family, asn: u32) -> Attributes {
        let what = self.byte();
        let next_hop = match family {
            Family::V4 => IpAddr::from(
                [
                    [198, 51, 100, 2],
                    [192, 0, 2, 3],
                    [192, 0, 2, 1],
                    [198, 51, 100, 1],
                    [203, 0, 113, 9],
                    [127, 0, 0, 1],
                    [192, 0, 2, 77],
                    [198, 51, 100, 3],
                ][usize::from(what >> 5)],
            ),
            Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(what >> 5)]),
        };
        let mut it = Attributes::new(NextHop::from(next_hop));
        it.as_path = self.path(asn);
        if what & 1 != 0 {
            it.origin = self.one_of(&[Origin::Igp, Origin::Egp, Origin::Incomplete]);
            it.med = self.bit().then(|| self.byte().into());
            it.local_pref = self.bit().then(|| u32::from(self.byte()) * 2);
        }
        if what & 2 != 0 {
            let known = [
                community::NO_EXPORT,
                community::NO_ADVERTISE,
                community::BLACKHOLE,
                community::GRACEFUL_SHUTDOWN,
                community::LLGR_STALE,
                7,
            ];
            let count = self.byte() % 4;
            it.communities = (0..count).map(|_| self.one_of(&known)).collect();
            if count == 3 {
                let many = u32::from(self.byte()) * 5;
                it.communities.extend(100..100 + many);
            }
        }
        if what & 4 != 0 {
            it.originator_id = Some(self.one_of(&[[10, 0, 0, 1], [192, 0, 2, 1]]).into());
            let clusters = self.byte() % 3;
            let clusters = (0..clusters).map(|_| self.one_of(&[[9, 9, 9, 9], [192, 0, 2, 1]]));
            it.cluster_list = clusters.map(Ipv4Addr::from).collect();
            it.extended_communities = vec![[self.byte(); 8]];
            it.large_communities = vec![[self.byte().into(); 3]];
        }
        if what & 8 != 0 {
            let code = 200 + self.byte() % 4;
            let length = usize::from(self.byte()) * 17;
            it.unknown = vec![UnknownAttribute {
                code,
                value: vec![code; length],
            }];
            it.atomic_aggregate = true;
            it.aggregator = Some(Aggregator {
                asn: self.one_of(&[65002, 4_200_000_000]),
                address: [10, 0, 0, 2].into(),
            });
        }
        it
    }

    fn path(&mut self, asn: u32) -> AsPath {
        let asns = [65002, 65001, 65003, 4_200_000_000, 7];
        let mut path = match self.byte() % 8 {
            0..6 => vec![asn],
            6 => Vec::new(),
            _ => (0..self.byte()).map(|_| 65002).collect(),
        };
        let more = self.byte() % 4;
        path.extend((0..more).map(|_| self.one_of(&asns)));
        let mut path = AsPath::sequence(path);
        if more == 3 {
            path.segments.push(Segment {
                kind: SegmentKind::Set,
                asns: vec![self.one_of(&asns), 8],
            });
        }
        path
    }

    /// An OPEN that may be accepted.
    pub(super) fn open(&mut self, asn: u32) -> Open {
        let (what, more) = (self.byte(), self.byte());
        let unicast = |family| PathsOf {
            afi: family,
            safi: 1,
            receive: more & 1 != 0,
            send: true,
        };
        let mut capabilities = Vec::new();
        let mut if_bit = |bit: u8, capability: Capability| {
            if what & bit != 0 {
                capabilities.push(capability);
            }
        };
        if_bit(1, Capability::unicast(Family::V4));
        if_bit(2, Capability::unicast(Family::V6));
        if_bit(4, Capability::RouteRefresh);
        if_bit(4, Capability::EnhancedRefresh);
        if_bit(8, Capability::ExtendedMessage);
        if_bit(16, Capability::AddPath(vec![unicast(1), unicast(2)]));
        if_bit(32, Capability::ExtendedNextHop(vec![(1, 1, 2)]));
        let families = vec![(1, 1, more & 2 != 0), (2, 1, true)];
        let restart = GracefulRestart {
            restarted: more & 4 != 0,
            notifications: more & 8 != 0,
            time: u16::from(more) * 4,
            families,
        };
        if_bit(64, Capability::GracefulRestart(restart));
        let long_lived = [1, 2].map(|afi| LongLived {
            afi,
            safi: 1,
            preserved: more & 16 != 0,
            time: u32::from(more),
        });
        if_bit(64, Capability::LongLived(long_lived.to_vec()));
        let hold_time = [90, 0, 3, 180][usize::from(more >> 6)];
        let open = Open::new(asn, hold_time, [10, 0, 0, 2].into(), capabilities);
        if what & 128 == 0 {
            return open;
        }
        // An old speaker: the 4-octet AS capability is left out.
        let not_asn = |it: &Capability| !matches!(it, Capability::FourOctetAs(_));
        Open {
            capabilities: open.capabilities.into_iter().filter(not_asn).collect(),
            ..open
        }
    }
}
