//! What the Kubernetes documentation says about NetworkPolicy, straight from the objects: no classes, no indexes, and
//! nothing shared with the code under test.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use crate::feed::{Identity, Labels, LocalEndpoint};

/// Everything that was told.
#[derive(Debug, Clone, Default)]
pub(super) struct World {
    pub(super) namespaces: BTreeMap<String, Labels>,
    /// By UID; the flag says that the pod was deleted while attached.
    pub(super) pods: BTreeMap<String, (Identity, bool)>,
    pub(super) endpoints: BTreeMap<String, LocalEndpoint>,
    /// Namespace and spec by `(namespace, name)`.
    pub(super) policies: BTreeMap<(String, String), Value>,
}

impl World {
    fn addresses(&self, pod: &Identity) -> Vec<IpAddr> {
        let attached: Vec<_> = self
            .endpoints
            .values()
            .filter(|it| *it.uid == *pod.uid)
            .collect();
        if attached.is_empty() {
            if pod.host_network {
                Vec::new()
            } else {
                pod.addresses.to_vec()
            }
        } else {
            attached
                .iter()
                .flat_map(|it| it.addresses.clone())
                .collect()
        }
    }

    pub(super) fn owner(&self, address: IpAddr) -> Option<&Identity> {
        let claims = self.pods.values().map(|(pod, _)| pod);
        claims
            .filter(|pod| self.addresses(pod).contains(&address))
            .max_by_key(|pod| {
                (
                    self.endpoints.values().any(|it| *it.uid == *pod.uid),
                    pod.created,
                    &pod.uid,
                )
            })
    }

    /// Whether the endpoint behind the interface may open this flow (`to`), or have it opened to it (`from`).
    pub(super) fn allows(
        &self,
        egress: bool,
        ifname: &str,
        peer: IpAddr,
        protocol: u8,
        port: u16,
    ) -> bool {
        let Some((pod, _)) = self
            .endpoints
            .get(ifname)
            .and_then(|it| self.pods.get(&it.uid))
        else {
            return false;
        };
        let mut isolated = false;
        for ((namespace, _), spec) in &self.policies {
            let selector = &spec["podSelector"];
            if pod.host_network || **namespace != *pod.namespace || !selects(selector, &pod.labels)
            {
                continue;
            }
            let side = if egress { "egress" } else { "ingress" };
            let governed = match spec["policyTypes"].as_array() {
                Some(types) => types
                    .iter()
                    .any(|kind| kind.as_str() == Some(if egress { "Egress" } else { "Ingress" })),
                None => {
                    !egress
                        || spec["egress"]
                            .as_array()
                            .is_some_and(|rules| !rules.is_empty())
                }
            };
            if !governed {
                continue;
            }
            isolated = true;
            for rule in spec[side].as_array().into_iter().flatten() {
                let peers = rule[if egress { "to" } else { "from" }].as_array();
                let peer_matches = peers.is_none_or(|peers| {
                    peers.is_empty() || peers.iter().any(|entry| self.peer(entry, namespace, peer))
                });
                let destination = if egress { self.owner(peer) } else { Some(pod) };
                let ports = rule["ports"].as_array();
                let port_matches = ports.is_none_or(|ports| {
                    ports.is_empty()
                        || ports
                            .iter()
                            .any(|entry| port_entry(entry, destination, protocol, port))
                });
                if peer_matches && port_matches {
                    return true;
                }
            }
        }
        !isolated
    }

    fn peer(&self, entry: &Value, namespace: &str, address: IpAddr) -> bool {
        if let Some(block) = entry.get("ipBlock") {
            let inside = |text: &Value| contains(text.as_str().unwrap(), address);
            let except = block["except"].as_array();
            return inside(&block["cidr"]) && !except.into_iter().flatten().any(inside);
        }
        let Some(pod) = self.owner(address) else {
            return false;
        };
        let namespaces = match entry.get("namespaceSelector") {
            None => *pod.namespace == *namespace,
            Some(selector) => match self.namespaces.get(&*pod.namespace) {
                Some(labels) => selects(selector, labels),
                None => selector.as_object().is_some_and(serde_json::Map::is_empty),
            },
        };
        namespaces && !pod.host_network && selects(&entry["podSelector"], &pod.labels)
    }
}

fn selects(selector: &Value, labels: &Labels) -> bool {
    let value_of = |key: &Value| labels.get(key.as_str().unwrap());
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let mut equal = equal.map(|(key, value)| labels.get(key) == value.as_str());
    let mut expressions = selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten();
    equal.all(|holds| holds)
        && expressions.all(|expression| {
            let value = value_of(&expression["key"]);
            let among = value.is_some_and(|value| {
                expression["values"]
                    .as_array()
                    .unwrap_or(&Vec::new())
                    .contains(&Value::from(value))
            });
            match expression["operator"].as_str().unwrap() {
                "In" => among,
                "NotIn" => !among,
                "Exists" => value.is_some(),
                _ => value.is_none(),
            }
        })
}

fn port_entry(entry: &Value, destination: Option<&Identity>, protocol: u8, port: u16) -> bool {
    let wanted = match entry["protocol"].as_str() {
        None | Some("TCP") => 6,
        Some("UDP") => 17,
        _ => 132,
    };
    if wanted != protocol {
        return false;
    }
    match &entry["port"] {
        Value::String(name) => destination.is_some_and(|pod| {
            pod.named_ports
                .iter()
                .any(|it| it.name == *name && it.protocol == protocol && it.port == port)
        }),
        Value::Number(first) => {
            let first = first.as_u64().unwrap();
            (first..=entry["endPort"].as_u64().unwrap_or(first)).contains(&u64::from(port))
        }
        _ => true,
    }
}

fn contains(cidr: &str, address: IpAddr) -> bool {
    let (network, prefix) = cidr.split_once('/').unwrap();
    let prefix: u32 = prefix.parse().unwrap();
    match (network.parse().unwrap(), address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let bits = network.to_bits() ^ address.to_bits();
            bits.checked_shr(32 - prefix).unwrap_or(0) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let bits = network.to_bits() ^ address.to_bits();
            bits.checked_shr(128 - prefix).unwrap_or(0) == 0
        }
        _ => false,
    }
}
