//! `HostEndpoint`: an interface of a node that policy applies to.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::error::FieldError;
use crate::policy;

/// An interface of a node, or all of them, that GlobalNetworkPolicies apply to. Failsafe ports stay open.
#[derive(
    CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema,
)]
#[kube(
    group = "margay.io",
    version = "v1",
    kind = "HostEndpoint",
    plural = "hostendpoints",
    shortname = "hep",
    category = "margay",
    status = "HostEndpointStatus",
    derive = "PartialEq",
    doc = "An interface of a node, or all of them, that GlobalNetworkPolicies apply to.",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(
        name = "Interface",
        type_ = "string",
        json_path = ".spec.interfaceName"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(validation = Rule::new("has(self.interfaceName) || has(self.expectedIPs)")
    .message("say which interface: set interfaceName (eth0, or * for all) or expectedIPs"))]
#[serde(rename_all = "camelCase")]
pub struct HostEndpointSpec {
    /// Name of the node.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// The interface: eth0, or * for all of the node's but those of pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    #[x_kube(validation = Rule::new("self.matches('^[^/ ]+$')").message("interfaceName is the name of a network interface of the node (eth0), or * for all"))]
    pub interface_name: Option<String>,
    /// Its addresses: the interface that has one of them is meant when interfaceName is unset. They are what rules that select
    /// the endpoint match.
    #[serde(default, rename = "expectedIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 45)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("self.all(it, isIP(it))").message("expectedIPs are addresses: write them as 192.0.2.1 or 2001:db8::1")
    )]
    pub expected_ips: Vec<String>,
    /// Ports with names, for rules that name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub ports: Vec<EndpointPort>,
}

/// A port with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct EndpointPort {
    /// Its name.
    #[schemars(length(min = 1, max = 15))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')").message("a port's name is up to 15 of a-z, 0-9 and dashes inside"))]
    pub name: String,
    /// TCP, UDP, SCTP, UDPLite or a number.
    #[schemars(schema_with = "policy::schema::protocol")]
    pub protocol: IntOrString,
    /// Its number.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// Whether the endpoint is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostEndpointStatus {
    /// Accepted is False when the spec is not understood: the last good version stays in force; and with the reason Conflict
    /// when another HostEndpoint of the node, first by name, has the interface.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// Which interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interface {
    /// All but those of pods.
    All,
    /// The one of that name.
    Named(String),
    /// The one that has one of the expected addresses.
    Addressed,
}

/// A port with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// IP protocol number.
    pub protocol: u8,
    /// Its number.
    pub port: u16,
}

/// A [`HostEndpoint`] that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the object.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Name of the node.
    pub node: String,
    /// Which interface of it.
    pub interface: Interface,
    /// Its addresses, as far as they were said.
    pub addresses: Vec<IpAddr>,
    /// Ports with names.
    pub ports: Vec<NamedPort>,
}

impl Endpoint {
    /// What both endpoints claim of one node, in words, as far as their specs say: only one of them can have it.
    #[must_use]
    pub fn contests(&self, other: &Self) -> Option<String> {
        if self.node != other.node {
            return None;
        }
        match (&self.interface, &other.interface) {
            (Interface::All, Interface::All) => Some("every other interface (*)".to_owned()),
            (Interface::Named(name), Interface::Named(same)) if name == same => {
                Some(format!("interface {name}"))
            }
            (Interface::Addressed, Interface::Addressed) => {
                let mut own = self.addresses.iter();
                let both = own.find(|address| other.addresses.contains(address))?;
                Some(format!("the interface with {both}"))
            }
            _ => None,
        }
    }
}

impl TryFrom<&HostEndpoint> for Endpoint {
    type Error = FieldError;

    fn try_from(object: &HostEndpoint) -> Result<Self, FieldError> {
        let spec = &object.spec;
        let addresses = spec.expected_ips.iter().enumerate().map(|(index, text)| {
            text.parse().map_err(|_| {
                let problem =
                    format!("{text:?} is no address: write it as 192.0.2.1 or 2001:db8::1");
                FieldError::new(format!("spec.expectedIPs[{index}]"), problem)
            })
        });
        let interface = match spec.interface_name.as_deref() {
            Some("*") => Interface::All,
            Some(name) if (1..=15).contains(&name.len()) && !name.contains(['/', ' ']) => {
                Interface::Named(name.to_owned())
            }
            Some(name) => {
                let problem =
                    format!("{name:?} is no name of an interface: write eth0, or * for all");
                return Err(FieldError::new("spec.interfaceName", problem));
            }
            None if spec.expected_ips.is_empty() => {
                let problem =
                    "say which interface: set interfaceName (eth0, or * for all) or expectedIPs";
                return Err(FieldError::new("spec", problem));
            }
            None => Interface::Addressed,
        };
        let ports = spec.ports.iter().enumerate().map(|(index, port)| {
            let path = format!("spec.ports[{index}]");
            Ok(NamedPort {
                name: port.name.clone(),
                protocol: policy::protocol(&format!("{path}.protocol"), &port.protocol)?,
                port: u16::try_from(port.port)
                    .ok()
                    .filter(|it| *it > 0)
                    .ok_or_else(|| {
                        let problem = format!("{} is no port: set 1 to 65535", port.port);
                        FieldError::new(format!("{path}.port"), problem)
                    })?,
            })
        });
        Ok(Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            labels: object.metadata.labels.clone().unwrap_or_default(),
            node: spec.node.clone(),
            interface,
            addresses: addresses.collect::<Result<_, FieldError>>()?,
            ports: ports.collect::<Result<_, FieldError>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn endpoint(spec: serde_json::Value) -> Result<Endpoint, FieldError> {
        let object = json!({ "apiVersion": "margay.io/v1", "kind": "HostEndpoint", "metadata": { "name": "e" }, "spec": spec });
        Endpoint::try_from(&serde_json::from_value::<HostEndpoint>(object).unwrap())
    }

    #[test]
    fn every_field_is_read() {
        let found = endpoint(json!({
            "node": "n1", "interfaceName": "eth0", "expectedIPs": ["192.0.2.1", "2001:db8::1"],
            "ports": [{ "name": "ssh", "protocol": "TCP", "port": 22 }, { "name": "x", "protocol": 136, "port": 9 }],
        }))
        .unwrap();
        assert_eq!(found.interface, Interface::Named("eth0".into()));
        assert_eq!(found.addresses.len(), 2);
        let ports: Vec<_> = found
            .ports
            .iter()
            .map(|it| (it.name.as_str(), it.protocol, it.port))
            .collect();
        assert_eq!(ports, [("ssh", 6, 22), ("x", 136, 9)]);
        let all = endpoint(json!({ "node": "n1", "interfaceName": "*" })).unwrap();
        assert_eq!(all.interface, Interface::All);
        let addressed = endpoint(json!({ "node": "n1", "expectedIPs": ["192.0.2.1"] })).unwrap();
        assert_eq!(addressed.interface, Interface::Addressed);
    }

    #[test]
    fn errors_name_field_and_fix() {
        for (spec, problem) in [
            (json!({ "node": "n1" }), "spec: say which interface"),
            (
                json!({ "node": "n1", "interfaceName": "a/b" }),
                "spec.interfaceName: \"a/b\" is no name",
            ),
            (
                json!({ "node": "n1", "expectedIPs": ["x"] }),
                "spec.expectedIPs[0]: \"x\" is no address",
            ),
            (
                json!({ "node": "n1", "interfaceName": "*", "ports": [{ "name": "x", "protocol": "IP", "port": 1 }] }),
                "spec.ports[0].protocol: IP is no protocol",
            ),
            (
                json!({ "node": "n1", "interfaceName": "*", "ports": [{ "name": "x", "protocol": 6, "port": 0 }] }),
                "spec.ports[0].port: 0 is no port: set 1 to 65535",
            ),
        ] {
            let error = endpoint(spec).unwrap_err().to_string();
            assert!(error.starts_with(problem), "{error}");
        }
    }
}
