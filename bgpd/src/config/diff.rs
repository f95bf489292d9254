//! What a change of configuration costs: nothing, a re-evaluation, or the session.

use std::collections::BTreeMap;

use super::{Config, Options, Peer, PeerKey};

/// What a changed peer has to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cost {
    /// The new values are used from now on; nothing is sent.
    Nothing,
    /// Import and export are judged again; only differences are sent.
    Routes,
    /// The session is closed with Cease 6/6 (other configuration change) and starts again.
    Session,
}

/// One peer's part of a change of configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerChange {
    /// A new peer.
    Added,
    /// The peer is gone; its session gets Cease 6/3.
    Removed,
    /// The peer stays, at that cost.
    Changed(Cost),
}

/// Peers that are added, removed or changed between two configurations. An untouched peer is not in it.
pub fn diff(old: &Config, new: &Config) -> BTreeMap<PeerKey, PeerChange> {
    let speaker_cost = speaker_cost(old, new);
    let have: BTreeMap<&PeerKey, &Peer> = old.peers.iter().map(|p| (&p.key, p)).collect();
    let want: BTreeMap<&PeerKey, &Peer> = new.peers.iter().map(|p| (&p.key, p)).collect();
    let mut changes = BTreeMap::new();
    for key in have.keys() {
        if !want.contains_key(*key) {
            changes.insert((*key).clone(), PeerChange::Removed);
        }
    }
    for (key, peer) in want {
        let change = match have.get(key) {
            None => Some(PeerChange::Added),
            Some(before) => {
                let own_asn =
                    if before.local_asn.unwrap_or(old.asn) == peer.local_asn.unwrap_or(new.asn) {
                        Cost::Nothing
                    } else {
                        Cost::Session
                    };
                let hold = if before.hold_time.unwrap_or(old.hold_time)
                    == peer.hold_time.unwrap_or(new.hold_time)
                {
                    Cost::Nothing
                } else {
                    Cost::Session
                };
                let cost = peer_cost(before, peer)
                    .max(own_asn)
                    .max(hold)
                    .max(speaker_cost);
                (cost > Cost::Nothing || *before != peer).then_some(PeerChange::Changed(cost))
            }
        };
        if let Some(change) = change {
            changes.insert(key.clone(), change);
        }
    }
    changes
}

/// What a change outside of the peers costs each of them.
fn speaker_cost(old: &Config, new: &Config) -> Cost {
    // Every field is named, so that a new one has to be given its cost here.
    let Config {
        router_id,
        asn: _,
        listen_port: _,
        hold_time: _,
        peers: _,
        pools,
        import_ranges,
        origins,
        multipath,
        cluster_id,
        filters,
        advertisements,
        // Each of these is applied by itself, past the sessions.
        dynamic: _,
        require_policy,
        selection_deferral: _,
        bmp: _,
        drain,
    } = old;
    if *router_id != new.router_id {
        Cost::Session
    } else if *pools != new.pools
        || *import_ranges != new.import_ranges
        || *origins != new.origins
        || *multipath != new.multipath
        || *cluster_id != new.cluster_id
        || *filters != new.filters
        || *advertisements != new.advertisements
        || *require_policy != new.require_policy
        || *drain != new.drain
    {
        Cost::Routes
    } else {
        Cost::Nothing
    }
}

/// What a change of the peer's own fields costs it. AS and hold time have defaults outside and are judged by [`diff`].
fn peer_cost(old: &Peer, new: &Peer) -> Cost {
    let Peer {
        name: _,
        key: _,
        port,
        remote_asn,
        local_asn: _,
        local_address,
        families,
        passive: _,
        hold_time: _,
        export,
        import,
        timers,
        options,
    } = old;
    let options = options_cost(options, &new.options);
    let rest = if *port != new.port
        || *remote_asn != new.remote_asn
        || *local_address != new.local_address
        || *families != new.families
        || timers.keepalive != new.timers.keepalive
    {
        Cost::Session
    } else if *export != new.export || *import != new.import {
        Cost::Routes
    } else {
        Cost::Nothing
    };
    rest.max(options)
}

/// What a change of the peer's options costs it.
fn options_cost(old: &Options, new: &Options) -> Cost {
    let Options {
        local_port,
        // The key is changed on the living connection.
        password: _,
        withheld,
        shutdown,
        distance,
        bfd: _,
        graceful_restart,
        limits: _,
        allowed_own_as,
        next_hop,
        import_filters,
        export_filters,
        add_path,
        keep_refused,
        reachable_by: _,
        cluster_id,
        link_local,
        workload,
    } = old;
    if *local_port != new.local_port
        || *withheld != new.withheld
        || *shutdown != new.shutdown
        || *distance != new.distance
        || *link_local != new.link_local
        || *workload != new.workload
        || *add_path != new.add_path
        || graceful_restart.enabled != new.graceful_restart.enabled
        || graceful_restart.restart_time != new.graceful_restart.restart_time
        || graceful_restart.long_lived_time != new.graceful_restart.long_lived_time
    {
        Cost::Session
    } else if *allowed_own_as != new.allowed_own_as
        || *next_hop != new.next_hop
        || *import_filters != new.import_filters
        || *export_filters != new.export_filters
        || *keep_refused != new.keep_refused
        || *cluster_id != new.cluster_id
    {
        Cost::Routes
    } else {
        Cost::Nothing
    }
}

#[cfg(test)]
mod costs;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::config::ExportClass;

    fn config(peers: &[u8]) -> Config {
        Config {
            peers: peers
                .iter()
                .map(|n| Peer::new(IpAddr::from([192, 0, 2, *n]), 65000))
                .collect(),
            multipath: 1,
            ..Config::new(65001, Ipv4Addr::new(192, 0, 2, 1))
        }
    }

    #[test]
    fn an_unchanged_peer_is_left_alone_when_others_come_and_go() {
        let (old, new) = (config(&[2, 3]), config(&[3, 4]));
        let changes = diff(&old, &new);
        assert_eq!(changes.len(), 2);
        assert_eq!(changes[&old.peers[0].key], PeerChange::Removed);
        assert_eq!(changes[&new.peers[1].key], PeerChange::Added);
    }

    #[test]
    fn each_field_costs_what_it_must() {
        let old = config(&[2]);
        let cost = |edit: fn(&mut Config)| {
            let mut new = old.clone();
            edit(&mut new);
            diff(&old, &new).get(&old.peers[0].key).copied()
        };
        assert_eq!(cost(|_| ()), None);
        assert_eq!(
            cost(|c| c.peers[0].name = "x".into()),
            Some(PeerChange::Changed(Cost::Nothing))
        );
        assert_eq!(
            cost(|c| c.peers[0].passive = true),
            Some(PeerChange::Changed(Cost::Nothing))
        );
        assert_eq!(
            cost(|c| c.peers[0].timers.retry_max = 1),
            Some(PeerChange::Changed(Cost::Nothing))
        );
        assert_eq!(
            cost(|c| c.peers[0].export = ExportClass::Transit),
            Some(PeerChange::Changed(Cost::Routes))
        );
        assert_eq!(
            cost(|c| c.multipath = 8),
            Some(PeerChange::Changed(Cost::Routes))
        );
        assert_eq!(
            cost(|c| c.peers[0].remote_asn = 7),
            Some(PeerChange::Changed(Cost::Session))
        );
        assert_eq!(
            cost(|c| c.peers[0].hold_time = Some(9)),
            Some(PeerChange::Changed(Cost::Session))
        );
        assert_eq!(
            cost(|c| c.asn = 7),
            Some(PeerChange::Changed(Cost::Session))
        );
        assert_eq!(
            cost(|c| c.router_id = Ipv4Addr::new(1, 1, 1, 1)),
            Some(PeerChange::Changed(Cost::Session))
        );
    }

    #[test]
    fn a_default_that_a_peer_overrides_does_not_touch_it() {
        let mut old = config(&[2]);
        old.peers[0].hold_time = Some(30);
        old.peers[0].local_asn = Some(65009);
        let mut new = old.clone();
        new.hold_time = 60;
        new.asn = 65008;
        assert!(diff(&old, &new).is_empty());
    }
}
