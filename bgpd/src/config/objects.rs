//! Peers from what the custom resources, or the file's entries with the same fields, ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crds::Community;
use crds::bgp_configuration::{self, Configuration};
use crds::bgp_peer::{self, BfdFailure, LimitAction, Limits, LocalAddress, PeerNextHop, Remote};
use crds::net::{Cidr, Family};

use super::{
    AddPath, Advertisement, Bfd, BmpStation, Config, Distance, DynamicPeers, Filter,
    GracefulRestart, NextHopMode, OnBfdFailure, Options, OverLimit, Peer, PeerKey, PrefixLimit,
};
use crate::Millis;

/// What an object asks for, when it does not depend on other objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// One peer.
    Peer(Peer),
    /// Whoever connects from a range.
    Dynamic(DynamicPeers),
}

/// What the object asks for; None: its peers are other objects, nodes or pods.
pub(super) fn asked(
    object: &bgp_peer::Peer,
    configuration: &Configuration,
    own: impl Fn(Family) -> Option<IpAddr>,
) -> Option<Asked> {
    let asn = object.as_number.unwrap_or(0);
    match &object.remote {
        Remote::Address(address, port) => {
            let mut peer = peer_at(object, configuration, *address, asn, own);
            peer.port = *port;
            Some(Asked::Peer(peer))
        }
        Remote::Interface(name)
        | Remote::LinkLocal {
            interface: name, ..
        } => {
            let mut peer = peer_of(object, configuration, PeerKey::Interface(name.clone()), asn);
            if let Remote::LinkLocal { address, port, .. } = &object.remote {
                peer.options.link_local = Some(*address);
                peer.port = *port;
            }
            peer.families = object.families(None);
            peer.local_address = match object.local_address {
                LocalAddress::Address(address) => Some(address),
                LocalAddress::Route | LocalAddress::Node => None,
            };
            Some(Asked::Peer(peer))
        }
        Remote::Range(range, limit) => Some(Asked::Dynamic(DynamicPeers {
            range: *range,
            limit: *limit,
            template: peer_at(object, configuration, range.first(), asn, own),
        })),
        Remote::Nodes { .. } | Remote::Workloads(_) => None,
    }
}

/// One peer of the object, at an address and in an AS that it may not name itself.
pub(super) fn peer_at(
    object: &bgp_peer::Peer,
    configuration: &Configuration,
    address: IpAddr,
    asn: u32,
    own: impl Fn(Family) -> Option<IpAddr>,
) -> Peer {
    let mut peer = peer_of(object, configuration, PeerKey::Address(address), asn);
    peer.families = object.families(Some(Family::of(address)));
    peer.local_address = match object.local_address {
        LocalAddress::Route => None,
        LocalAddress::Node => own(Family::of(address)),
        LocalAddress::Address(local) => Some(local),
    };
    peer
}

fn peer_of(object: &bgp_peer::Peer, configuration: &Configuration, key: PeerKey, asn: u32) -> Peer {
    let keepalive = object
        .keepalive
        .or_else(|| configuration.keepalive.map(u32::from));
    let mut peer = Peer::new(
        key.address().unwrap_or_else(|| IpAddr::from([0, 0, 0, 0])),
        asn,
    );
    peer.key = key;
    peer.name.clone_from(&object.name);
    peer.local_asn = object.local_as_number;
    peer.hold_time = object.hold_time;
    peer.passive = object.passive;
    peer.timers.keepalive = keepalive.map(millis);
    peer.options = options(object);
    peer
}

/// Takes what is the same for all speakers.
pub(super) fn general(config: &mut Config, configuration: &Configuration) {
    config.listen_port = configuration.listen_port;
    config.hold_time = configuration.hold_time;
    config
        .import_ranges
        .clone_from(&configuration.import_ranges);
    config.multipath = configuration.multipath;
    config.require_policy = configuration.require_policy;
    if let Some(seconds) = configuration.selection_deferral {
        config.selection_deferral = millis(seconds);
    }
    config.advertisements = configuration
        .advertisements
        .iter()
        .map(advertisement)
        .collect();
    config.bmp = configuration.stations.iter().map(station).collect();
}

fn advertisement((prefix, communities): &(Cidr, Vec<Community>)) -> Advertisement {
    let mut made = Advertisement {
        prefix: *prefix,
        communities: BTreeSet::new(),
        large_communities: BTreeSet::new(),
    };
    for community in communities {
        match community {
            Community::Standard(value) => {
                made.communities.insert(*value);
            }
            Community::Large(value) => {
                made.large_communities.insert(*value);
            }
            // Refused where they are read: see Configuration.
            Community::Extended(_) => {}
        }
    }
    made
}

fn station(said: &bgp_configuration::BmpStation) -> BmpStation {
    BmpStation {
        name: said.name.clone(),
        address: said.address,
        statistics: millis(said.statistics),
    }
}

/// Gives the peer those of the filters that have rules for each direction. One that does not exist judges both, and
/// rejects everything: see [`crate::policy::filter::Chain::new`].
pub(super) fn name_filters(peer: &mut Peer, names: &[String], filters: &BTreeMap<String, Filter>) {
    let those = |judges: fn(&Filter) -> bool| {
        let named = names.iter();
        named
            .filter(|name| filters.get(*name).is_none_or(judges))
            .cloned()
            .collect()
    };
    peer.options.import_filters = those(|filter| !filter.import.is_empty());
    peer.options.export_filters = those(|filter| !filter.export.is_empty());
}

fn millis(seconds: u32) -> Millis {
    Millis::from(seconds) * 1000
}

fn options(object: &bgp_peer::Peer) -> Options {
    let (send, receive) = object.add_path;
    Options {
        local_port: object.local_port,
        // A Secret's content is known to the caller only.
        password: None,
        withheld: false,
        shutdown: object.shutdown.clone(),
        distance: match object.distance {
            bgp_peer::Distance::Direct => Distance::Direct,
            bgp_peer::Distance::Multihop(hops) => Distance::Multihop(hops),
            bgp_peer::Distance::Secure(hops) => Distance::Secure(hops),
        },
        bfd: object.bfd.map(|bfd| Bfd {
            transmit: bfd.transmit.into(),
            receive: bfd.receive.into(),
            multiplier: bfd.multiplier,
            on_failure: match bfd.on_failure {
                BfdFailure::Purge => OnBfdFailure::Purge,
                BfdFailure::Graceful => OnBfdFailure::Graceful,
            },
        }),
        graceful_restart: restart(object.restart),
        limits: object.limits.map(limits).unwrap_or_default(),
        allowed_own_as: object.allowed_own_as,
        next_hop: match object.next_hop {
            PeerNextHop::Auto => NextHopMode::Auto,
            PeerNextHop::Itself => NextHopMode::Itself,
            PeerNextHop::Keep => NextHopMode::Keep,
        },
        import_filters: Vec::new(),
        export_filters: Vec::new(),
        add_path: AddPath { send, receive },
        keep_refused: object.keep_rejected,
        reachable_by: object.reachable_by,
        cluster_id: None,
        link_local: None,
        workload: matches!(object.remote, Remote::Workloads(_)),
    }
}

/// Graceful restart, with the defaults where nothing is said.
pub(super) fn restart(said: bgp_peer::Restart) -> GracefulRestart {
    let default = GracefulRestart::default();
    GracefulRestart {
        enabled: !said.disabled,
        restart_time: said.restart_time.unwrap_or(default.restart_time),
        stale_time: said.stale_time.unwrap_or(default.stale_time),
        long_lived_time: said.long_lived_time.unwrap_or(default.long_lived_time),
    }
}

fn limits(said: Limits) -> Vec<PrefixLimit> {
    let action = match said.action {
        LimitAction::Warn => OverLimit::Warn,
        LimitAction::Drop => OverLimit::Drop,
        LimitAction::TearDown => OverLimit::TearDown {
            restart_after: said.restart_after.map(millis),
        },
    };
    let of = |family, max: Option<u32>| {
        max.map(|max| PrefixLimit {
            family,
            max,
            action,
        })
    };
    [of(Family::V4, said.ipv4), of(Family::V6, said.ipv6)]
        .into_iter()
        .flatten()
        .collect()
}
