//! Routes of peers on the bench: filters for them, what is told, and peers in the own AS.

use std::collections::BTreeSet;

use bgpd::Millis;
use bgpd::config::filter::{Action, Change, Community, Match, PrefixMatch, Rule};
use bgpd::config::{Config, Filter};
use bgpd::speaker::{ConnId, Output};
use bgpd::wire::{self, AsPath, Attributes, Dialect, Message, Update, update};
use crds::net::Cidr;

use crate::bench::{Bench, with_peers};
use crate::sim::{cidr, ip};

/// A configuration with that many peers, of which those at 192.0.2.`internal` are in the own AS.
pub(crate) fn with_internal(count: u8, internal: &[u8]) -> Config {
    let mut config = with_peers(count);
    for (peer, host) in config.peers.iter_mut().zip(2..) {
        if internal.contains(&host) {
            peer.local_asn = Some(peer.remote_asn);
        }
    }
    config
}

/// Attributes of a route of the peer at 192.0.2.`host`, in another AS.
pub(crate) fn external(host: u8, communities: &[u32]) -> Attributes {
    let mut attributes = Attributes::new(ip(&format!("192.0.2.{host}")).into());
    attributes.as_path = AsPath::sequence([65000 + u32::from(host)]);
    attributes.communities = communities.to_vec();
    attributes
}

/// Attributes of a route of a peer in the own AS.
pub(crate) fn internal(host: u8, communities: &[u32]) -> Attributes {
    let mut attributes = external(host, communities);
    attributes.as_path = AsPath::default();
    attributes.local_pref = Some(100);
    attributes
}

impl Bench {
    /// The peer in the own AS announces a prefix.
    pub(crate) fn announce_inside(
        &mut self,
        host: u8,
        attributes: &Attributes,
        prefix: &str,
    ) -> Vec<Output> {
        let prefix = cidr(prefix);
        let dialect = Dialect::plain(true);
        let messages = update::announce(attributes, prefix.family(), &[prefix], dialect).unwrap();
        self.bytes(ConnId::In(u64::from(host)), &messages.concat())
    }

    /// Time passes while these peers send keepalives.
    pub(crate) fn wait(&mut self, hosts: &[u8], time: Millis) -> Vec<Output> {
        let mut outputs = Vec::new();
        let mut left = time;
        while left > 0 {
            for host in hosts {
                let conn = ConnId::In(u64::from(*host));
                outputs.extend(self.bytes(conn, &wire::keepalive()));
            }
            let step = left.min(1000);
            outputs.extend(self.tick(step));
            left -= step;
        }
        outputs
    }
}

/// The UPDATEs to a peer, which is in the own AS or not.
pub(crate) fn updates_to(outputs: &[Output], conn: ConnId, inside: bool) -> Vec<Update> {
    let bytes: Vec<u8> = outputs
        .iter()
        .filter_map(|it| match it {
            Output::Send(to, bytes) if *to == conn => Some(bytes.to_vec()),
            _ => None,
        })
        .flatten()
        .collect();
    let (messages, error) = wire::decode_stream(&bytes, Dialect::plain(inside));
    assert_eq!(error, None);
    let update = |message| match message {
        Message::Update(it) => Some(it),
        _ => None,
    };
    messages.into_iter().filter_map(update).collect()
}

/// Every route told to a peer, with its attributes.
pub(crate) fn told(outputs: &[Output], conn: ConnId, inside: bool) -> Vec<(Cidr, Attributes)> {
    updates_to(outputs, conn, inside)
        .into_iter()
        .flat_map(|it| it.announced)
        .flat_map(|(attributes, prefixes)| {
            prefixes
                .into_iter()
                .map(move |prefix| (prefix, attributes.clone()))
        })
        .collect()
}

/// The prefixes withdrawn from a peer.
pub(crate) fn withdrawn(outputs: &[Output], conn: ConnId) -> Vec<Cidr> {
    updates_to(outputs, conn, false)
        .into_iter()
        .flat_map(|it| it.withdrawn)
        .collect()
}

/// A filter of one rule.
pub(crate) fn filter(matches: Match, changes: Vec<Change>, action: Action) -> Filter {
    let rule = Rule {
        name: String::new(),
        matches,
        changes,
        action,
    };
    Filter {
        import: vec![rule.clone()],
        export: vec![rule],
    }
}

/// Prefixes inside one, of any length.
pub(crate) fn inside(text: &str) -> Match {
    let cidr = cidr(text);
    Match {
        prefixes: vec![PrefixMatch {
            cidr,
            min_len: cidr.prefix_len(),
            max_len: cidr.family().bits(),
            negated: false,
        }],
        ..Match::default()
    }
}

/// Routes that carry the community.
pub(crate) fn carrying(community: u32) -> Match {
    Match {
        communities_any: BTreeSet::from([Community::Standard(community)]),
        ..Match::default()
    }
}

/// Gives the peer at 192.0.2.`host` a filter of that name for what it says.
pub(crate) fn import_by(config: &mut Config, host: u8, name: &str, filter: Filter) {
    config.filters.insert(name.into(), filter);
    let options = &mut config.peers[usize::from(host) - 2].options;
    options.import_filters.push(name.into());
}

/// The same for what it is told.
pub(crate) fn export_by(config: &mut Config, host: u8, name: &str, filter: Filter) {
    config.filters.insert(name.into(), filter);
    let options = &mut config.peers[usize::from(host) - 2].options;
    options.export_filters.push(name.into());
}
