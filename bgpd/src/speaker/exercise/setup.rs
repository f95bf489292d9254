//! The speaker that is lived through: its configuration, its interfaces, its honest peers.

use std::net::IpAddr;

use bytes::Bytes;
use crds::net::{Cidr, Family};

use super::script::Script;
use crate::config::{
    AddPath, Bfd, BmpStation, Config, DynamicPeers, ExportClass, ImportPolicy, NextHopMode,
    OnBfdFailure, OverLimit, Peer, PeerKey, PrefixLimit,
};
use crate::nexthop::Change;
use crate::wire::{AsPath, Attributes, Dialect, update};

/// Own AS.
pub(super) const SPEAKER: u32 = 65001;
/// The two honest peers, one external and one internal, and the hostile one, on interfaces of their own.
pub(super) const HONEST: [([u8; 4], u32); 2] = [([192, 0, 2, 3], 65003), ([192, 0, 2, 4], SPEAKER)];
pub(super) const HOSTILE: [u8; 4] = [198, 51, 100, 2];
pub(super) const ENDS: [[u8; 4]; 2] = [[192, 0, 2, 1], [198, 51, 100, 1]];
/// The most IPv4 prefixes that a limited peer may announce.
pub(super) const LIMIT: u32 = 4;

/// The hostile peer, or those who come from its range.
pub(super) fn hostile_config(script: &mut Script<'_>) -> Config {
    let mut config = honest_config();
    let (a, b) = (script.byte(), script.byte());
    let internal = a & 1 != 0;
    let mut peer = Peer {
        passive: a & 2 != 0,
        families: match a & 12 {
            0 => vec![Family::V4],
            4 => vec![Family::V6],
            _ => Family::ALL.to_vec(),
        },
        import: match a & 16 {
            0 => ImportPolicy::All,
            _ => ImportPolicy::Pools,
        },
        export: match a >> 6 {
            0 => ExportClass::Origins,
            1 => ExportClass::Reflect,
            _ => ExportClass::Transit,
        },
        ..Peer::new(HOSTILE.into(), if internal { SPEAKER } else { 65002 })
    };
    let options = &mut peer.options;
    options.graceful_restart.long_lived_time = if b & 1 != 0 { 100 } else { 0 };
    options.graceful_restart.enabled = b & 2 == 0;
    options.add_path = AddPath {
        receive: b & 4 != 0,
        send: if b & 8 != 0 { 3 } else { 0 },
    };
    options.keep_refused = b & 16 != 0;
    options.next_hop = [NextHopMode::Auto, NextHopMode::Itself, NextHopMode::Keep]
        [usize::from(a >> 5 & 1) + usize::from(b >> 5 & 1)];
    let action = match b >> 6 {
        0 => None,
        1 => Some(OverLimit::Warn),
        2 => Some(OverLimit::Drop),
        _ => Some(OverLimit::TearDown {
            restart_after: (a & 32 != 0).then_some(5_000),
        }),
    };
    options.limits = action
        .map(|action| PrefixLimit {
            family: Family::V4,
            max: LIMIT,
            action,
        })
        .into_iter()
        .collect();
    if a & 48 == 48 {
        options.bfd = Some(Bfd {
            transmit: 100,
            receive: 100,
            multiplier: 3,
            on_failure: OnBfdFailure::Purge,
        });
    }
    config.dynamic.push(DynamicPeers {
        range: range(),
        limit: 2,
        template: Peer {
            passive: true,
            name: "range".into(),
            ..peer.clone()
        },
    });
    config.peers.push(peer);
    config
}

fn range() -> Cidr {
    Cidr::new([198, 51, 100, 0].into(), 24).unwrap_or_else(|_| Cidr::host(HOSTILE.into()))
}

/// A speaker that only has its honest peers.
pub(super) fn honest_config() -> Config {
    let mut config = Config::new(SPEAKER, [192, 0, 2, 1].into());
    config.multipath = 2;
    config.bmp = vec![BmpStation {
        name: "station".into(),
        address: ([192, 0, 2, 9], 11019).into(),
        statistics: 60_000,
    }];
    config.peers = HONEST
        .map(|(address, asn)| Peer {
            families: Family::ALL.to_vec(),
            import: ImportPolicy::All,
            export: ExportClass::Transit,
            passive: true,
            ..Peer::new(address.into(), asn)
        })
        .to_vec();
    config
}

/// Both interfaces; the second one is up or not.
pub(super) fn kernel(up: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    for (ifindex, own) in (3..).zip(ENDS) {
        let a = own[0];
        let global: IpAddr = [0x2001, 0xdb8, 0, 0, 0, 0, u16::from(a), 1].into();
        changes.push(Change::Link {
            ifindex,
            name: format!("eth{ifindex}"),
            up: up || own == ENDS[0],
        });
        for (address, length) in [(IpAddr::from(own), 24), (global, 112)] {
            if let Ok(network) = Cidr::new(address, length) {
                changes.push(Change::Address {
                    ifindex,
                    address,
                    network,
                });
            }
        }
    }
    changes
}

/// Who is at an address.
pub(super) fn key(address: [u8; 4]) -> PeerKey {
    PeerKey::Address(address.into())
}

/// What an honest peer says of a prefix.
pub(super) fn announcement(index: usize, prefix: Cidr, kind: u8) -> Vec<Bytes> {
    let (address, asn) = HONEST[index];
    let mut attributes = Attributes::new(IpAddr::from(address).into());
    let external = asn != SPEAKER;
    let path = if external {
        vec![asn, 7]
    } else {
        vec![65008, 7]
    };
    attributes.as_path = AsPath::sequence(path);
    attributes.med = (kind == 1).then_some(9);
    attributes.communities = vec![u32::from(kind) + 1];
    let prefixes = [prefix];
    let dialect = Dialect::plain(!external);
    update::announce(&attributes, Family::V4, &prefixes, dialect).unwrap_or_default()
}
