//! What people write: objects of the API, files, and values in them.

use std::collections::BTreeMap;

use bgpd::config::Filter;
use bgpd::config::kubernetes::Cluster;
use crds::bgp_filter::BGPFilterSpec;
use crds::net::Cidr;
use crds::selector::{NamespaceSelector, Selector};
use crds::{BGPConfiguration, BGPFilter, BGPPeer, Community, IPAMConfiguration, IPPool};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Any text is a selector that prints as itself, or an error inside the text.
pub(crate) fn selector(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match text.parse::<Selector>() {
        Ok(selector) => {
            selector.matches(&BTreeMap::new());
            let again = selector.to_string().parse::<Selector>();
            assert_eq!(again.as_ref(), Ok(&selector));
        }
        Err(error) => assert!((1..=text.chars().count() + 1).contains(&error.position)),
    }
    if let Ok(namespaces) = text.parse::<NamespaceSelector>() {
        let again = namespaces.to_string().parse::<NamespaceSelector>();
        assert_eq!(again.as_ref(), Ok(&namespaces));
    }
}

/// Any text is a value that prints as itself, or an error.
pub(crate) fn values(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(cidr) = text.parse::<Cidr>() {
        assert_eq!(cidr.to_string().parse::<Cidr>().ok(), Some(cidr));
        assert!(cidr.contains(cidr.first()) && cidr.covers(cidr));
    }
    // It is told in more than one way, but means the same each time.
    let first = text.parse::<Community>().ok();
    assert_eq!(first, text.parse::<Community>().ok());
    if let Ok(pool) = serde_json::from_str::<IPPool>(text) {
        let _ = crds::ip_pool::Pool::try_from(&pool);
    }
    if let Ok(object) = serde_json::from_str::<IPAMConfiguration>(text) {
        let _ = crds::ipam_configuration::Configuration::try_from(&object);
    }
}

/// A node's bootstrap file: bgpd and felix agree on the node's addresses.
pub(crate) fn bootstrap(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let addresses = crds::bootstrap::node_addresses(text);
    if let Ok(bootstrap) = bgpd::config::bootstrap::parse(text) {
        let origins = &bootstrap.config().origins;
        let of_bgpd: Vec<_> = origins.iter().map(|origin| origin.prefix.first()).collect();
        assert_eq!(addresses, Ok(of_bgpd));
    }
}

/// Any JSON is a BGPFilter's spec that means something, or an error that names a field of it.
pub(crate) fn bgp_filter(bytes: &[u8]) {
    let Ok(spec) = serde_json::from_slice::<BGPFilterSpec>(bytes) else {
        return;
    };
    match Filter::try_from(&spec) {
        Ok(filter) => {
            let rules = spec.import_v4.len() + spec.import_v6.len();
            assert_eq!(filter.import.len(), rules);
            for prefix in filter.import.iter().flat_map(|rule| &rule.matches.prefixes) {
                assert!(prefix.min_len <= prefix.max_len);
            }
        }
        Err(error) => assert!(error.field.starts_with("spec."), "{error}"),
    }
}

/// An object as it comes from the API, of which only the kind is known.
#[derive(Deserialize)]
struct Object {
    kind: String,
}

/// Any JSON, a line each, as the objects that make a node's configuration: what is understood makes one that a speaker
/// can run with, what is not is said.
pub(crate) fn bgp_objects(bytes: &[u8]) {
    let mut cluster = Cluster::new("node", None);
    let lines = bytes.split(|byte| *byte == b'\n').take(64);
    for (number, line) in lines.enumerate() {
        let Ok(Object { kind }) = serde_json::from_slice(line) else {
            continue;
        };
        let name = number.to_string();
        match kind.as_str() {
            "Node" => {
                if let Ok(node) = serde_json::from_slice::<Node>(line) {
                    cluster.node_applied(&node);
                }
            }
            "Pod" => {
                if let Ok(pod) = serde_json::from_slice::<Pod>(line) {
                    cluster.pod_applied(&name, &pod);
                }
            }
            "BGPPeer" => cluster.peer_applied(&name, read::<BGPPeer>(line)),
            "IPPool" => cluster.pool_applied(&name, read::<IPPool>(line)),
            "BGPFilter" => cluster.filter_applied(&name, read::<BGPFilter>(line)),
            "BGPConfiguration" => {
                cluster.configuration_is(Some(read::<BGPConfiguration>(line)));
            }
            _ => {}
        }
    }
    let verdicts = cluster.verdicts().into_iter();
    let verdicts = verdicts.chain(cluster.filter_verdicts());
    for verdict in verdicts.chain(cluster.configuration_verdict()) {
        assert!(verdict.problem.is_none_or(|it| !it.message.is_empty()));
    }
    if let Ok(outcome) = cluster.outcome() {
        let speaker = bgpd::speaker::Speaker::new(outcome.config.clone(), 0, 0);
        assert_eq!(speaker.config(), &outcome.config);
        assert!(
            outcome
                .config
                .peers
                .iter()
                .all(|it| !it.families.is_empty())
        );
    }
}

fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    serde_json::from_slice(json).map_err(|error| error.to_string())
}
