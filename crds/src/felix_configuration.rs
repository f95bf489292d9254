//! `FelixConfiguration`: what an operator chooses of how felix works.

mod events;
mod terms;

use kube::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::error::FieldError;
use crate::net::Cidr;

pub use self::events::Events;
pub use self::terms::{ServiceLoops, Terms};

/// Name of the object that holds for every node.
pub const DEFAULT: &str = "default";

/// Name of the object that holds for one node, before the default.
#[must_use]
pub fn of_node(node: &str) -> String {
    format!("node.{node}")
}

/// What an operator chooses of how felix works: default for all nodes, and node.NAME for one. What the latter says holds there,
/// field by field.
#[derive(
    CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema,
)]
#[kube(
    group = "margay.io",
    version = "v1",
    kind = "FelixConfiguration",
    plural = "felixconfigurations",
    shortname = "felixconfig",
    category = "margay",
    status = "FelixConfigurationStatus",
    derive = "PartialEq",
    doc = "What an operator chooses of how felix works: default for all nodes, node.NAME for one, field by field.",
    validation = Rule::new("self.metadata.name == 'default' || self.metadata.name.startsWith('node.')").message("name it default, or node.NAME for the felix of one node"),
    printcolumn(name = "Mark", type_ = "string", json_path = ".spec.conntrackMarkMask"),
    printcolumn(name = "Revoked", type_ = "string", json_path = ".spec.revokedConnections"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct FelixConfigurationSpec {
    /// Eight adjacent bits of the mark of tracked connections in which felix keeps when it judged them, 0xff000000 when unset. All
    /// others are left to others. Every connection is judged once again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10))]
    #[x_kube(validation = Rule::new("self.matches('^0x[0-9a-fA-F]{1,8}$')").message("conntrackMarkMask is eight adjacent bits: write it as 0xff000000"))]
    pub conntrack_mark_mask: Option<String>,
    /// What becomes of a connection that policy allowed and forbids now. Reset, which holds when unset: TCP is answered with a
    /// reset, anything else is dropped. Drop: packets are dropped, and nobody is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "revocations")]
    pub revoked_connections: Option<String>,
    /// Ports of the node that no policy of host endpoints closes. When unset: SSH, DHCP, BGP, BFD, etcd, the API server and
    /// Calico's own (TCP 22, 179, 2379, 2380, 5473, 6443, 6666, 6667; UDP 68, 3784, 3785, 4784). An empty list is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub failsafe_inbound_host_ports: Option<Vec<ProtoPort>>,
    /// Ports elsewhere that no policy of host endpoints closes to the node. When unset: DNS, DHCP, BGP, BFD, etcd, the API server
    /// and Calico's own (TCP 179, 2379, 2380, 5473, 6443, 6666, 6667; UDP 53, 67, 3784, 3785, 4784). An empty list is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub failsafe_outbound_host_ports: Option<Vec<ProtoPort>>,
    /// Enabled: each node is a host endpoint of all its interfaces, with the labels and addresses of its Node, unless a
    /// HostEndpoint says otherwise. Disabled, which holds when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "switch")]
    pub auto_host_endpoints: Option<String>,
    /// Enabled, which holds when unset: packets are counted for the rules that decide about them. Disabled: the first packet of a
    /// flow costs a little less, and nothing is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "switch")]
    pub rule_counters: Option<String>,
    /// What becomes of a flow of a pod to its own node which the pod's egress policy allows. Accept, which holds when unset: it
    /// passes. Return: policies of the node's host endpoint of all interfaces are asked. Drop: nothing passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "to_host")]
    pub default_endpoint_to_host_action: Option<String>,
    /// Destinations that pods of pools with natOutgoing reach by their own addresses. IPPoolsOnly, which holds when unset: those of all pools.
    /// IPPoolsAndHostIPs: those of nodes, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "terms::exclusions")]
    pub nat_outgoing_exclusions: Option<String>,
    /// Source of what leaves pools with natOutgoing, in this address's family. Unset: the node's own address, or that of the
    /// interface it leaves by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    #[x_kube(validation = Rule::new("isIP(self)").message("natOutgoingAddress is an address: write it as 192.0.2.1 or 2001:db8::1"))]
    pub nat_outgoing_address: Option<String>,
    /// Source ports that TCP, UDP and SCTP get then, first and last: 32768:60999. Unset: the one the pod chose where it is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 11))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{0,4}:[1-9][0-9]{0,4}$') && int(self.split(':')[0]) <= int(self.split(':')[1]) && int(self.split(':')[1]) <= 65535")
        .message("natPortRange is the first and the last port: write it as 32768:60999"))]
    pub nat_port_range: Option<String>,
    /// Any: pods may send from the prefixes of their annotation margay.io/allowedSourcePrefixes, too. Disabled, which
    /// holds when unset: from their own addresses only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "terms::spoofing")]
    pub workload_source_spoofing: Option<String>,
    /// What becomes of packets to serviceCIDRs that no Service took: the default route would send them back to the router they
    /// came from. Drop (when unset), Reject (the sender is told), or Disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "terms::service_loops")]
    pub service_loop_prevention: Option<String>,
    /// Addresses of Services that the fabric sends to the nodes: cluster, external and load balancer addresses.
    #[serde(
        default,
        rename = "serviceCIDRs",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 64), inner(length(max = 48)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("self.all(it, isCIDR(it) && cidr(it) == cidr(it).masked())")
            .message("serviceCIDRs are prefixes without host bits: write them as 10.96.0.0/12 or fd00:96::/108")
    )]
    pub service_cidrs: Option<Vec<String>>,
    /// Enabled: pods are reached by the addresses of their annotation margay.io/floatingIPs, too. Disabled, which holds when unset:
    /// they are not.
    #[serde(
        default,
        rename = "floatingIPs",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "terms::floating")]
    pub floating_ips: Option<String>,
    /// Events that a node makes of packets which policy denies or notes, in a second: 0 to 1000, 50 when unset. 0: none, and
    /// the kernel hands over nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub policy_event_rate: Option<i32>,
    /// Events that it makes at once, when there were none for a while: 1 to 1000, 50 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub policy_event_burst: Option<i32>,
}

/// A port, and from or to where it is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ProtoPort {
    /// TCP, UDP or SCTP.
    #[schemars(schema_with = "protocols")]
    pub protocol: String,
    /// Its number.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Only from, or to, these addresses; any when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 43))]
    #[x_kube(validation = Rule::new("isCIDR(self) && cidr(self) == cidr(self).masked()").message("net is a prefix without host bits: write it as 10.0.0.0/8 or 2001:db8::/32"))]
    pub net: Option<String>,
}

impl FelixConfigurationSpec {
    /// What holds where this is said before `base`.
    #[must_use]
    pub fn over(self, base: &Self) -> Self {
        let base = base.clone();
        Self {
            conntrack_mark_mask: self.conntrack_mark_mask.or(base.conntrack_mark_mask),
            revoked_connections: self.revoked_connections.or(base.revoked_connections),
            failsafe_inbound_host_ports: self
                .failsafe_inbound_host_ports
                .or(base.failsafe_inbound_host_ports),
            failsafe_outbound_host_ports: self
                .failsafe_outbound_host_ports
                .or(base.failsafe_outbound_host_ports),
            auto_host_endpoints: self.auto_host_endpoints.or(base.auto_host_endpoints),
            rule_counters: self.rule_counters.or(base.rule_counters),
            default_endpoint_to_host_action: self
                .default_endpoint_to_host_action
                .or(base.default_endpoint_to_host_action),
            nat_outgoing_exclusions: self
                .nat_outgoing_exclusions
                .or(base.nat_outgoing_exclusions),
            nat_outgoing_address: self.nat_outgoing_address.or(base.nat_outgoing_address),
            nat_port_range: self.nat_port_range.or(base.nat_port_range),
            workload_source_spoofing: self
                .workload_source_spoofing
                .or(base.workload_source_spoofing),
            service_loop_prevention: self
                .service_loop_prevention
                .or(base.service_loop_prevention),
            service_cidrs: self.service_cidrs.or(base.service_cidrs),
            floating_ips: self.floating_ips.or(base.floating_ips),
            policy_event_rate: self.policy_event_rate.or(base.policy_event_rate),
            policy_event_burst: self.policy_event_burst.or(base.policy_event_burst),
        }
    }
}

/// Whether the configuration is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FelixConfigurationStatus {
    /// Accepted is False when the spec is not understood: the last good version stays in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

fn revocations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Reset", "Drop"] })
}

fn switch(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Enabled", "Disabled"] })
}

fn to_host(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Accept", "Return", "Drop"] })
}

fn protocols(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["TCP", "UDP", "SCTP"] })
}

/// What becomes of a pod's flow to its own node that the pod's policies allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToHost {
    /// It passes.
    #[default]
    Accept,
    /// The policies of the node's host endpoint of all interfaces are asked.
    Return,
    /// It does not pass.
    Drop,
}

/// A port that stays open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failsafe {
    /// IP protocol number.
    pub protocol: u8,
    /// Its number.
    pub port: u16,
    /// Only from, or to, here.
    pub net: Option<Cidr>,
}

/// [`FelixConfiguration`]s that were understood; the default is what holds without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Bits of the mark of connections; eight adjacent ones.
    pub mark_mask: u32,
    /// TCP connections that are forbidden now are answered with a reset.
    pub reset: bool,
    /// Ports of the node that stay open.
    pub failsafe_inbound: Vec<Failsafe>,
    /// Ports elsewhere that stay open to the node.
    pub failsafe_outbound: Vec<Failsafe>,
    /// Every node is a host endpoint.
    pub auto_host_endpoints: bool,
    /// Packets are counted for rules.
    pub counters: bool,
    /// What becomes of what pods open to their own node.
    pub to_host: ToHost,
    /// How many events of policy there are.
    pub events: Events,
    /// What is chosen beside policy.
    pub terms: Terms,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// Those of Calico, and BFD (RFC 5881, 5883) beside BGP.
const FAILSAFE_INBOUND: [(u8, u16); 12] = [
    (TCP, 22),
    (UDP, 68),
    (TCP, 179),
    (TCP, 2379),
    (TCP, 2380),
    (TCP, 5473),
    (TCP, 6443),
    (TCP, 6666),
    (TCP, 6667),
    (UDP, 3784),
    (UDP, 3785),
    (UDP, 4784),
];
const FAILSAFE_OUTBOUND: [(u8, u16); 12] = [
    (UDP, 53),
    (UDP, 67),
    (TCP, 179),
    (TCP, 2379),
    (TCP, 2380),
    (TCP, 5473),
    (TCP, 6443),
    (TCP, 6666),
    (TCP, 6667),
    (UDP, 3784),
    (UDP, 3785),
    (UDP, 4784),
];

fn failsafes(ports: &[(u8, u16)]) -> Vec<Failsafe> {
    let ports = ports.iter().map(|&(protocol, port)| Failsafe {
        protocol,
        port,
        net: None,
    });
    ports.collect()
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            mark_mask: 0xff00_0000,
            reset: true,
            failsafe_inbound: failsafes(&FAILSAFE_INBOUND),
            failsafe_outbound: failsafes(&FAILSAFE_OUTBOUND),
            auto_host_endpoints: false,
            counters: true,
            to_host: ToHost::default(),
            events: Events::default(),
            terms: Terms::default(),
        }
    }
}

impl TryFrom<&FelixConfiguration> for Configuration {
    type Error = FieldError;

    fn try_from(object: &FelixConfiguration) -> Result<Self, FieldError> {
        Self::try_from(&object.spec)
    }
}

impl TryFrom<&FelixConfigurationSpec> for Configuration {
    type Error = FieldError;

    fn try_from(spec: &FelixConfigurationSpec) -> Result<Self, FieldError> {
        let default = Self::default();
        let ports = |field: &str, said: &Option<Vec<ProtoPort>>, default: Vec<Failsafe>| {
            let Some(said) = said else {
                return Ok(default);
            };
            let ports = said.iter().enumerate();
            ports
                .map(|(index, it)| failsafe(&format!("spec.{field}[{index}]"), it))
                .collect()
        };
        Ok(Self {
            mark_mask: match &spec.conntrack_mark_mask {
                Some(text) => mark_mask(text)?,
                None => default.mark_mask,
            },
            reset: match spec.revoked_connections.as_deref() {
                None => default.reset,
                Some("Reset") => true,
                Some("Drop") => false,
                Some(other) => {
                    let problem = format!("{other:?} is neither Reset nor Drop");
                    return Err(FieldError::new("spec.revokedConnections", problem));
                }
            },
            failsafe_inbound: ports(
                "failsafeInboundHostPorts",
                &spec.failsafe_inbound_host_ports,
                default.failsafe_inbound,
            )?,
            failsafe_outbound: ports(
                "failsafeOutboundHostPorts",
                &spec.failsafe_outbound_host_ports,
                default.failsafe_outbound,
            )?,
            events: Events::try_from(spec)?,
            terms: Terms::try_from(spec)?,
            auto_host_endpoints: match spec.auto_host_endpoints.as_deref() {
                None => default.auto_host_endpoints,
                Some("Enabled") => true,
                Some("Disabled") => false,
                Some(other) => {
                    let problem = format!("{other:?} is neither Enabled nor Disabled");
                    return Err(FieldError::new("spec.autoHostEndpoints", problem));
                }
            },
            counters: match spec.rule_counters.as_deref() {
                None => default.counters,
                Some("Enabled") => true,
                Some("Disabled") => false,
                Some(other) => {
                    let problem = format!("{other:?} is neither Enabled nor Disabled");
                    return Err(FieldError::new("spec.ruleCounters", problem));
                }
            },
            to_host: match spec.default_endpoint_to_host_action.as_deref() {
                None => default.to_host,
                Some("Accept") => ToHost::Accept,
                Some("Return") => ToHost::Return,
                Some("Drop") => ToHost::Drop,
                Some(other) => {
                    let problem = format!("{other:?} is neither Accept nor Return nor Drop");
                    return Err(FieldError::new("spec.defaultEndpointToHostAction", problem));
                }
            },
        })
    }
}

fn mark_mask(text: &str) -> Result<u32, FieldError> {
    let digits = text.strip_prefix("0x").filter(|it| !it.starts_with('+'));
    let mask = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let byte = |mask: &u32| *mask != 0 && *mask >> mask.trailing_zeros() == 0xff;
    mask.filter(byte).ok_or_else(|| {
        let problem = format!("{text:?} is not eight adjacent bits: write it as 0xff000000");
        FieldError::new("spec.conntrackMarkMask", problem)
    })
}

fn failsafe(path: &str, said: &ProtoPort) -> Result<Failsafe, FieldError> {
    let protocol = match said.protocol.as_str() {
        "TCP" => TCP,
        "UDP" => UDP,
        "SCTP" => SCTP,
        other => {
            let problem = format!("{other:?} is none of TCP, UDP and SCTP");
            return Err(FieldError::new(format!("{path}.protocol"), problem));
        }
    };
    let port = u16::try_from(said.port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| {
        let problem = format!("{} is no port: set 1 to 65535", said.port);
        FieldError::new(format!("{path}.port"), problem)
    })?;
    let net = said.net.as_ref().map(|text| {
        let net = text.parse::<Cidr>();
        net.map_err(|error| FieldError::new(format!("{path}.net"), error))
    });
    Ok(Failsafe {
        protocol,
        port,
        net: net.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(spec: serde_json::Value) -> FelixConfigurationSpec {
        serde_json::from_value(spec).unwrap()
    }

    fn read(said: serde_json::Value) -> Result<Configuration, FieldError> {
        Configuration::try_from(&spec(said))
    }

    #[test]
    fn choices_are_read_or_refused() {
        assert_eq!(read(json!({})), Ok(Configuration::default()));
        let found = read(json!({
            "conntrackMarkMask": "0x0FF0", "revokedConnections": "Drop",
            "failsafeInboundHostPorts": [],
            "failsafeOutboundHostPorts": [{ "protocol": "SCTP", "port": 9, "net": "10.0.0.0/8" }],
            "autoHostEndpoints": "Enabled", "ruleCounters": "Disabled", "defaultEndpointToHostAction": "Return",
        }));
        let want = Configuration {
            mark_mask: 0x0ff0,
            reset: false,
            failsafe_inbound: Vec::new(),
            failsafe_outbound: vec![Failsafe {
                protocol: 132,
                port: 9,
                net: Some("10.0.0.0/8".parse().unwrap()),
            }],
            auto_host_endpoints: true,
            counters: false,
            to_host: ToHost::Return,
            events: Events::default(),
            terms: Terms::default(),
        };
        assert_eq!(found, Ok(want));
        for mask in ["0x1ff", "0xf0f0", "0x0", "ff", "0x", "0x+ff", "0x1ff000000"] {
            let error = read(json!({ "conntrackMarkMask": mask })).unwrap_err();
            assert_eq!(error.field, "spec.conntrackMarkMask", "{mask}");
        }
        let port = |protocol: &str, port: i32, net: &str| json!({ "failsafeInboundHostPorts": [{ "protocol": "TCP", "port": 1 }, { "protocol": protocol, "port": port, "net": net }] });
        for (said, field) in [
            (
                json!({ "revokedConnections": "Ask" }),
                "spec.revokedConnections",
            ),
            (
                json!({ "autoHostEndpoints": "Yes" }),
                "spec.autoHostEndpoints",
            ),
            (json!({ "ruleCounters": "off" }), "spec.ruleCounters"),
            (
                json!({ "defaultEndpointToHostAction": "Reject" }),
                "spec.defaultEndpointToHostAction",
            ),
            (
                port("ICMP", 1, "::/0"),
                "spec.failsafeInboundHostPorts[1].protocol",
            ),
            (
                port("TCP", 0, "::/0"),
                "spec.failsafeInboundHostPorts[1].port",
            ),
            (
                port("TCP", 65536, "::/0"),
                "spec.failsafeInboundHostPorts[1].port",
            ),
            (
                port("TCP", 1, "10.0.0.1/8"),
                "spec.failsafeInboundHostPorts[1].net",
            ),
        ] {
            assert_eq!(read(said).unwrap_err().field, field);
        }
    }

    #[test]
    fn what_is_said_of_a_node_holds_there_field_by_field() {
        let base = spec(json!({
            "revokedConnections": "Drop", "autoHostEndpoints": "Enabled",
            "failsafeInboundHostPorts": [{ "protocol": "TCP", "port": 22 }],
        }));
        let node = spec(json!({ "autoHostEndpoints": "Disabled", "failsafeInboundHostPorts": [] }));
        let found = Configuration::try_from(&node.over(&base)).unwrap();
        let want = Configuration {
            reset: false,
            failsafe_inbound: Vec::new(),
            ..Configuration::default()
        };
        assert_eq!(found, want);
        let every = json!({
            "conntrackMarkMask": "0xff", "revokedConnections": "Drop", "autoHostEndpoints": "Enabled",
            "failsafeInboundHostPorts": [], "failsafeOutboundHostPorts": [],
            "defaultEndpointToHostAction": "Drop",
        });
        let none = FelixConfigurationSpec::default();
        assert_eq!(none.clone().over(&spec(every.clone())), spec(every.clone()));
        assert_eq!(spec(every.clone()).over(&none), spec(every));
    }
}
