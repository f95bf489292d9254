//! What a Node object says about its speaker.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crds::net::Family;
use k8s_openapi::api::core::v1::Node;

use crate::config::Drain;

/// Annotation of a Node with its own AS.
pub const AS_ANNOTATION: &str = "margay.io/as-number";

/// Annotation, or label, of a Node that is a route reflector: its cluster id (RFC 4456), written like an IPv4 address.
pub const CLUSTER_ID: &str = "margay.io/route-reflector-cluster-id";

/// Annotation of a Node that takes it out of use: `services` or `everything`; see [`Drain`].
pub const DRAIN_ANNOTATION: &str = "margay.io/drain";

/// What matters of a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) asn: Option<u32>,
    /// Cluster id of a route reflector.
    pub(super) cluster_id: Option<Ipv4Addr>,
    pub(super) drain: Drain,
    /// InternalIPs, in the order of the Node.
    pub(super) addresses: Vec<IpAddr>,
}

impl Facts {
    /// The first address of a family.
    pub(super) fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|a| Family::of(*a) == family)
    }
}

/// What a Node says, besides its drain.
pub(super) fn facts(node: &Node, drain: Drain) -> Result<Facts, String> {
    let annotations = node.metadata.annotations.as_ref();
    let asn = match annotations.and_then(|all| all.get(AS_ANNOTATION)) {
        None => None,
        Some(text) => Some(text.parse().ok().filter(|asn| *asn != 0).ok_or_else(|| {
            format!("annotation {AS_ANNOTATION}: {text:?} is no AS number: set 1 to 4294967295")
        })?),
    };
    let text = annotations.and_then(|all| all.get(CLUSTER_ID));
    let text = text.or_else(|| node.metadata.labels.as_ref()?.get(CLUSTER_ID));
    let cluster_id = match text {
        None => None,
        Some(text) => {
            let parsed = text.parse().ok();
            let id = parsed.filter(|id: &Ipv4Addr| !id.is_unspecified());
            Some(id.ok_or_else(|| {
                format!("{CLUSTER_ID}: {text:?} is no cluster id: write it as 244.0.0.1")
            })?)
        }
    };
    let status = node.status.as_ref();
    let addresses = status
        .and_then(|status| status.addresses.as_ref())
        .into_iter()
        .flatten();
    let addresses: Vec<IpAddr> = addresses
        .filter(|address| address.type_ == "InternalIP")
        .filter_map(|address| address.address.parse().ok())
        .collect();
    let labels = node.metadata.labels.clone().unwrap_or_default();
    Ok(Facts {
        labels,
        asn,
        cluster_id,
        drain,
        addresses,
    })
}

/// How far a Node is to be taken out of use, and what is wrong with the annotation: what held before, or nothing, holds
/// then.
pub(super) fn drain(node: &Node, before: Option<Drain>) -> (Drain, Option<String>) {
    let annotations = node.metadata.annotations.as_ref();
    let text = annotations.and_then(|all| all.get(DRAIN_ANNOTATION));
    match text.map(String::as_str) {
        None => (Drain::No, None),
        Some("services") => (Drain::Services, None),
        Some("everything") => (Drain::Everything, None),
        Some(text) => {
            let before = before.unwrap_or_default();
            let meanwhile = match before {
                Drain::No => "the node stays in use",
                Drain::Services => "services stay drained",
                Drain::Everything => "everything stays drained",
            };
            let problem = format!(
                "annotation {DRAIN_ANNOTATION}: {text:?} is neither services nor everything: set one of the two or remove it; {meanwhile}"
            );
            (before, Some(problem))
        }
    }
}
