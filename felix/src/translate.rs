//! Objects of the Kubernetes API → plain data, once, at the border.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crds::felix_configuration::{self, Configuration};
use crds::host_endpoint::{self, Interface};
use crds::network_set::Set;
use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::agent::input::{Node, Pod};
use crate::agent::services::Slice;
use crate::feed::{
    Failsafe, HostEndpoint, HostInterface, Identity, NamedPort, NetworkSet, NodeAddresses,
    ServiceAccount,
};
use crate::nft::epoch::{LOG_RATE, MarkByte, Options, Revoked, ToHost};
use crate::nft::model::Rate;
use crate::nft::terms::Rules;
use crate::policy::model::protocol;
use crate::terms::annotations::concerns;

/// A pod. Addresses that do not parse are left out: the API server does not let them in.
#[must_use]
pub fn pod(pod: core::Pod) -> Pod {
    let mut meta = pod.metadata;
    let mut annotations = meta.annotations.take().unwrap_or_default();
    annotations.retain(|name, _| concerns(name));
    let spec = pod.spec.unwrap_or_default();
    let status = pod.status.unwrap_or_default();
    let addresses = status.pod_ips.unwrap_or_default();
    let identity = Identity {
        uid: meta.uid.unwrap_or_default().into(),
        namespace: meta.namespace.unwrap_or_default().into(),
        name: meta.name.unwrap_or_default().into(),
        labels: meta.labels.unwrap_or_default().into(),
        // The API server fills it in; no pod runs without one.
        service_account: spec
            .service_account_name
            .as_deref()
            .unwrap_or("default")
            .into(),
        created: meta.creation_timestamp.map_or(0, |time| time.0.as_second()),
        addresses: addresses
            .iter()
            .filter_map(|ip| ip.ip.parse().ok())
            .collect(),
        named_ports: named_ports(&spec),
        host_network: spec.host_network.unwrap_or_default(),
    };
    let phase = status.phase.unwrap_or_default();
    Pod {
        identity,
        node: spec.node_name.unwrap_or_default(),
        finished: matches!(phase.as_str(), "Succeeded" | "Failed"),
        annotations,
    }
}

/// Ports of containers that have a name; of init containers too, when those stay running (restartPolicy Always).
fn named_ports(spec: &core::PodSpec) -> Arc<[NamedPort]> {
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(NamedPort {
                name: port.name.clone()?,
                protocol: ip_protocol(port.protocol.as_deref())?,
                port: u16::try_from(port.container_port).ok()?,
            })
        })
        .collect()
}

fn ip_protocol(name: Option<&str>) -> Option<u8> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(protocol::TCP),
        "UDP" => Some(protocol::UDP),
        "SCTP" => Some(protocol::SCTP),
        _ => None,
    }
}

/// This node.
#[must_use]
pub fn node(node: core::Node) -> Node {
    let addresses = node.status.and_then(|status| status.addresses);
    let internal: Vec<IpAddr> = addresses
        .unwrap_or_default()
        .iter()
        .filter(|address| address.type_ == "InternalIP")
        .filter_map(|address| address.address.parse().ok())
        .collect();
    Node {
        uid: node.metadata.uid.unwrap_or_default(),
        labels: node.metadata.labels.unwrap_or_default(),
        addresses: internal,
    }
}

/// Any node, as a peer: every address it has, whatever its type.
#[must_use]
pub fn node_addresses(node: core::Node) -> NodeAddresses {
    let addresses = node.status.and_then(|status| status.addresses);
    let mut addresses: Vec<IpAddr> = addresses
        .unwrap_or_default()
        .iter()
        .filter_map(|address| address.address.parse().ok())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    NodeAddresses {
        name: node.metadata.name.unwrap_or_default(),
        labels: node.metadata.labels.unwrap_or_default().into(),
        addresses,
    }
}

/// A service account.
#[must_use]
pub fn service_account(account: core::ServiceAccount) -> ServiceAccount {
    ServiceAccount {
        namespace: account.metadata.namespace.unwrap_or_default(),
        name: account.metadata.name.unwrap_or_default(),
        labels: account.metadata.labels.unwrap_or_default().into(),
    }
}

/// The label of an EndpointSlice with the name of its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A slice: every endpoint, ready or not, as flows to one that is just ending go on.
#[must_use]
pub fn slice(slice: &EndpointSlice) -> Slice {
    let ports = slice.ports.iter().flatten().filter_map(|port| {
        let number = u16::try_from(port.port?).ok()?;
        Some((ip_protocol(port.protocol.as_deref())?, number))
    });
    let ports: Vec<_> = ports.collect();
    let addresses = slice
        .endpoints
        .iter()
        .flatten()
        .flat_map(|endpoint| &endpoint.addresses)
        .filter_map(|address| address.parse::<IpAddr>().ok());
    let backends = addresses.flat_map(|address| {
        ports
            .iter()
            .map(move |(protocol, port)| (address, *protocol, *port))
    });
    let meta = &slice.metadata;
    let labels = meta.labels.as_ref();
    Slice {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        service: labels.and_then(|labels| labels.get(SERVICE_LABEL)).cloned(),
        ports: backends.collect(),
    }
}

/// What an operator chooses of the rules.
#[must_use]
pub fn ruleset(said: &Configuration) -> Options {
    Options {
        mark: MarkByte::new(said.mark_mask).unwrap_or_default(),
        revoked: if said.reset {
            Revoked::Reset
        } else {
            Revoked::Drop
        },
        to_host: match said.to_host {
            felix_configuration::ToHost::Accept => ToHost::Accept,
            felix_configuration::ToHost::Return => ToHost::Return,
            felix_configuration::ToHost::Drop => ToHost::Drop,
        },
        quiet: said.events.second == 0,
        log: log_rate(said.events),
        counters: said.counters,
        terms: Rules::default(),
    }
}

/// How many packets each rule hands over: twice what becomes events, as several rules share those.
fn log_rate(events: felix_configuration::Events) -> Rate {
    match events.second {
        // Nothing is handed over: the rules are the same, whatever the burst.
        0 => LOG_RATE,
        second => Rate {
            second: 2 * second,
            burst: 2 * events.burst,
        },
    }
}

/// A host endpoint: of this node or not, and the interfaces that hold its addresses.
#[must_use]
pub fn host_endpoint(
    said: &host_endpoint::Endpoint,
    local: bool,
    holding: BTreeSet<String>,
) -> HostEndpoint {
    let ports = said.ports.iter().map(|port| NamedPort {
        name: port.name.clone(),
        protocol: port.protocol,
        port: port.port,
    });
    HostEndpoint {
        name: said.name.clone(),
        labels: said.labels.clone().into(),
        local,
        automatic: false,
        interface: match &said.interface {
            Interface::All => HostInterface::All,
            Interface::Named(name) => HostInterface::Named([name.clone()].into()),
            Interface::Addressed => HostInterface::Named(holding),
        },
        addresses: said.addresses.clone(),
        named_ports: ports.collect(),
    }
}

/// A port that stays open.
#[must_use]
pub fn failsafe(said: &felix_configuration::Failsafe) -> Failsafe {
    Failsafe {
        protocol: said.protocol,
        port: said.port,
        net: said.net.map(IpNetwork::from),
    }
}

/// Addresses with labels.
#[must_use]
pub fn network_set(set: Set) -> NetworkSet {
    NetworkSet {
        namespace: set.namespace,
        name: set.name,
        labels: set.labels.into(),
        nets: set.nets.into_iter().map(IpNetwork::from).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_keeps_what_policy_needs() {
        let object = serde_json::from_value(json!({
            "metadata": {"uid": "u", "namespace": "shop", "name": "web", "labels": {"app": "web"},
                         "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n1",
                     "initContainers": [
                        {"name": "once", "ports": [{"name": "early", "containerPort": 1}]},
                        {"name": "mesh", "restartPolicy": "Always", "ports": [{"name": "mesh", "containerPort": 15000}]}],
                     "containers": [{"name": "c", "ports": [
                        {"name": "http", "containerPort": 8080},
                        {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                        {"containerPort": 9}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        }))
        .unwrap();
        let pod = pod(object);
        assert_eq!(pod.identity.created, 1_767_225_600);
        let names: Vec<_> = pod
            .identity
            .named_ports
            .iter()
            .map(|p| (p.name.as_str(), p.protocol, p.port))
            .collect();
        assert_eq!(
            names,
            [("http", 6, 8080), ("dns", 17, 53), ("mesh", 6, 15000)]
        );
        assert_eq!(pod.identity.addresses.len(), 2);
        assert!(!pod.finished && !pod.identity.host_network);
    }

    #[test]
    fn a_slice_is_every_address_with_every_port() {
        let object = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                          {"addresses": ["not-an-address"]}],
            "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}, {"name": "any"}],
        }))
        .unwrap();
        let slice = slice(&object);
        assert_eq!(
            (slice.service.as_deref(), slice.name.as_str()),
            (Some("web"), "web-x")
        );
        let found: Vec<String> = slice
            .ports
            .iter()
            .map(|(ip, p, n)| format!("{ip} {p} {n}"))
            .collect();
        assert_eq!(
            found,
            [
                "10.0.0.1 6 80",
                "10.0.0.1 17 53",
                "10.0.0.2 6 80",
                "10.0.0.2 17 53"
            ]
        );
    }

    #[test]
    fn every_address_of_a_node_is_a_peer_s() {
        let object = serde_json::from_value(json!({
            "metadata": {"name": "n1", "labels": {"a": "b"}},
            "status": {"addresses": [
                {"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "n1"},
                {"type": "ExternalIP", "address": "203.0.113.1"}, {"type": "InternalIP", "address": "192.0.2.1"}]},
        }))
        .unwrap();
        let node = node_addresses(object);
        let found: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1", "203.0.113.1"]);
        assert_eq!(node.labels.len(), 1);
    }

    #[test]
    fn a_finished_pod_is_finished() {
        for (phase, finished) in [
            ("Succeeded", true),
            ("Failed", true),
            ("Running", false),
            ("Pending", false),
        ] {
            let object =
                serde_json::from_value(json!({"metadata": {}, "status": {"phase": phase}}))
                    .unwrap();
            assert_eq!(pod(object).finished, finished, "{phase}");
        }
    }

    #[test]
    fn only_internal_addresses_are_the_node_s() {
        let object = serde_json::from_value(json!({
            "metadata": {"uid": "u"},
            "status": {"addresses": [
                {"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "n1"},
                {"type": "ExternalIP", "address": "203.0.113.1"}, {"type": "InternalIP", "address": "fd00::1"}]},
        }))
        .unwrap();
        let found: Vec<String> = node(object)
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["192.0.2.1", "fd00::1"]);
    }
}
