//! `BGPConfiguration`: what all speakers of the cluster share.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::bgp_peer::{PeerPassword, SecretKeyRef, restart_seconds};
use crate::community::Community;
use crate::condition::Condition;
use crate::error::FieldError;
use crate::net::Cidr;
use crate::seconds::{duration_rule, seconds};

/// What all BGP speakers of the cluster share; there is one, named default.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "margay.io",
    version = "v1",
    kind = "BGPConfiguration",
    plural = "bgpconfigurations",
    shortname = "bgpconfig",
    category = "margay",
    status = "BGPConfigurationStatus",
    derive = "PartialEq",
    doc = "What all BGP speakers of the cluster share.",
    validation = Rule::new("self.metadata.name == 'default'").message("there is one BGPConfiguration: name it default"),
    printcolumn(name = "AS", type_ = "integer", json_path = ".spec.asNumber"),
    printcolumn(name = "Mesh", type_ = "boolean", json_path = ".spec.nodeToNodeMeshEnabled"),
    printcolumn(name = "Port", type_ = "integer", json_path = ".spec.listenPort"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("self.holdTimeSeconds == 0 || self.holdTimeSeconds >= 3")
        .message("holdTimeSeconds is 0 (no keepalives) or at least 3 (RFC 4271)"),
    validation = Rule::new("!has(self.keepaliveSeconds) || self.keepaliveSeconds <= self.holdTimeSeconds / 3")
        .message("keepaliveSeconds must be at most a third of holdTimeSeconds: lower it or leave it out")
)]
#[serde(rename_all = "camelCase")]
pub struct BGPConfigurationSpec {
    /// AS number of nodes without the annotation margay.io/as-number.
    #[serde(default = "default_as_number")]
    #[schemars(range(min = 1, max = 4294967295i64))]
    pub as_number: i64,
    /// Nodes peer with each other over iBGP: true, all that are no route reflectors; false, none; unset, those without a BGPPeer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_to_node_mesh_enabled: Option<bool>,
    /// TCP port the speakers listen on.
    #[serde(default = "default_listen_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub listen_port: i32,
    /// Hold time offered to peers (RFC 4271 4.2), seconds: 0 or 3 to 65535.
    #[serde(default = "default_hold_time")]
    #[schemars(range(min = 0, max = 65535))]
    pub hold_time_seconds: i32,
    /// Keepalive interval, seconds; a third of the negotiated hold time when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 21845))]
    pub keepalive_seconds: Option<i32>,
    /// What is accepted from peers besides the blocks of the pools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<Import>,
    /// The most equal-cost paths used for one prefix.
    #[serde(default = "default_multipath")]
    #[schemars(range(min = 1, max = 255))]
    pub multipath: i32,
    /// External peers without a filter are told nothing and nothing of theirs is taken (RFC 8212). The built-in rules count as a
    /// filter unless they are set to let everything through.
    #[serde(default)]
    pub require_policy: bool,
    /// How long the best paths wait after a start for the routes of the peers (RFC 4724): 10s when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = duration_rule!("selectionDeferralTime"))]
    pub selection_deferral_time: Option<String>,
    /// Names for communities, to be used in prefixAdvertisements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub communities: Vec<NamedCommunity>,
    /// Own prefixes that are told with communities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub prefix_advertisements: Vec<PrefixAdvertisement>,
    /// Stations that are told what the speakers know, by BMP (RFC 7854).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub bmp_stations: Vec<Station>,
    /// Password of the sessions between nodes (TCP MD5, RFC 2385).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh_password: Option<PeerPassword>,
    /// How long nodes keep each other's routes while a speaker restarts: 2m when unset, at most 4095s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = duration_rule!("nodeMeshMaxRestartTime"))]
    pub node_mesh_max_restart_time: Option<String>,
}

/// A name for a community.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamedCommunity {
    /// The name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The community: 65000:100, or 65000:1:2 (RFC 8092).
    #[schemars(length(max = 40))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]+:[0-9]+(:[0-9]+)?$')").message("value is a community: write it as 65000:100 or 65000:1:2"))]
    pub value: String,
}

/// Own prefixes that are told with communities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrefixAdvertisement {
    /// The prefix, and those inside it: 10.244.0.0/16.
    #[schemars(length(max = 48))]
    #[x_kube(validation = Rule::new("isCIDR(self) && cidr(self) == cidr(self).masked()")
        .message("cidr of prefixAdvertisements is a prefix without host bits: write it as 10.244.0.0/16 or fd00:10:244::/48"))]
    pub cidr: String,
    /// Communities added: a name out of communities, 65000:100, or 65000:1:2.
    #[schemars(length(min = 1, max = 50), inner(length(max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub communities: Vec<String>,
}

/// A station of BMP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Station {
    /// A name for people.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Where it listens, address and port: 192.0.2.1:11019; an IPv6 address in brackets.
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new(r"self.matches('^([0-9.]+|\\[[0-9a-fA-F:.]+\\]):[1-9][0-9]{0,4}$')")
        .message("address of a station is an address and a port: write it as 192.0.2.1:11019 or [2001:db8::1]:11019"))]
    pub address: String,
    /// How often statistics are sent: 60s; never when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = duration_rule!("statisticsInterval"))]
    pub statistics_interval: Option<String>,
}

/// What is accepted from peers besides the blocks of the pools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Import {
    /// Prefixes that are accepted, they and longer ones inside: aggregates, node addresses. A default route only as 0.0.0.0/0 or ::/0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 48)))]
    #[x_kube(validation = Rule::new("self.all(r, isCIDR(r) && cidr(r) == cidr(r).masked())")
        .message("ranges are prefixes without host bits: write them as 192.0.2.0/24 or 2001:db8::/32"))]
    pub ranges: Vec<String>,
}

/// Whether the configuration is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BGPConfigurationStatus {
    /// Accepted is False when the spec is not understood.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

fn default_as_number() -> i64 {
    64512
}

fn default_multipath() -> i32 {
    16
}

fn default_listen_port() -> i32 {
    179
}

fn default_hold_time() -> i32 {
    90
}

/// A [`BGPConfiguration`] that was understood; the default is what holds without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// AS number of nodes without one of their own.
    pub as_number: u32,
    /// Nodes peer with each other; None: those without a peer.
    pub mesh: Option<bool>,
    /// TCP port the speakers listen on.
    pub listen_port: u16,
    /// Hold time offered, seconds; 0 means none.
    pub hold_time: u16,
    /// Keepalive interval, seconds; None is a third of the negotiated hold time.
    pub keepalive: Option<u16>,
    /// Ranges accepted from peers besides the pools' blocks.
    pub import_ranges: Vec<Cidr>,
    /// The most equal-cost paths used for one prefix.
    pub multipath: u8,
    /// External peers need a filter (RFC 8212).
    pub require_policy: bool,
    /// How long the best paths wait after a start, seconds; None is the speaker's own default.
    pub selection_deferral: Option<u32>,
    /// Own prefixes and the communities they are told with.
    pub advertisements: Vec<(Cidr, Vec<Community>)>,
    /// Stations of BMP.
    pub stations: Vec<BmpStation>,
    /// Where the password of the sessions between nodes is.
    pub mesh_password: Option<SecretKeyRef>,
    /// How long nodes keep each other's routes, seconds.
    pub mesh_restart_time: Option<u16>,
}

/// A station of BMP that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BmpStation {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// How often statistics are sent, seconds; 0: never.
    pub statistics: u32,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            as_number: 64512,
            mesh: None,
            listen_port: 179,
            hold_time: 90,
            keepalive: None,
            import_ranges: Vec::new(),
            multipath: 16,
            require_policy: false,
            selection_deferral: None,
            advertisements: Vec::new(),
            stations: Vec::new(),
            mesh_password: None,
            mesh_restart_time: None,
        }
    }
}

/// An AS number: 1 to 4294967295 (RFC 7607 keeps 0).
pub(crate) fn as_number(field: &str, given: i64) -> Result<u32, FieldError> {
    match u32::try_from(given) {
        Ok(asn) if asn != 0 => Ok(asn),
        _ => Err(FieldError::new(
            field,
            format!("{given} is no AS number: set 1 to 4294967295"),
        )),
    }
}

/// A hold time: 0 or at least 3 seconds (RFC 4271 4.2).
pub(crate) fn hold_time(field: &str, given: i32) -> Result<u16, FieldError> {
    match u16::try_from(given) {
        Ok(seconds) if seconds == 0 || seconds >= 3 => Ok(seconds),
        _ => Err(FieldError::new(
            field,
            format!("{given} is no hold time: set 0 or 3 to 65535 seconds"),
        )),
    }
}

impl TryFrom<&BGPConfiguration> for Configuration {
    type Error = FieldError;

    fn try_from(object: &BGPConfiguration) -> Result<Self, FieldError> {
        let spec = &object.spec;
        let hold_time = hold_time("spec.holdTimeSeconds", spec.hold_time_seconds)?;
        let keepalive = match spec.keepalive_seconds {
            None => None,
            Some(given) => Some(
                u16::try_from(given)
                    .ok()
                    .filter(|s| *s >= 1 && *s <= hold_time / 3)
                    .ok_or_else(|| {
                        let problem = format!(
                            "{given} is not between 1 and {}, a third of the hold time",
                            hold_time / 3
                        );
                        FieldError::new("spec.keepaliveSeconds", problem)
                    })?,
            ),
        };
        let listen_port = u16::try_from(spec.listen_port)
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| {
                FieldError::new(
                    "spec.listenPort",
                    format!("{} is no port: set 1 to 65535", spec.listen_port),
                )
            })?;
        let multipath = u8::try_from(spec.multipath)
            .ok()
            .filter(|paths| *paths != 0)
            .ok_or_else(|| {
                let problem = format!("{} is out of range: set 1 to 255", spec.multipath);
                FieldError::new("spec.multipath", problem)
            })?;
        let deferral = spec.selection_deferral_time.as_deref();
        let ranges = spec
            .import
            .iter()
            .flat_map(|import| &import.ranges)
            .enumerate();
        let import_ranges = ranges
            .map(|(i, text)| {
                text.parse()
                    .map_err(|e| FieldError::new(format!("spec.import.ranges[{i}]"), e))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            as_number: as_number("spec.asNumber", spec.as_number)?,
            mesh: spec.node_to_node_mesh_enabled,
            listen_port,
            hold_time,
            keepalive,
            import_ranges,
            multipath,
            require_policy: spec.require_policy,
            selection_deferral: deferral
                .map(|text| seconds("spec.selectionDeferralTime", text, 0, 3600))
                .transpose()?,
            advertisements: advertisements(spec)?,
            stations: stations(spec)?,
            mesh_password: spec
                .node_mesh_password
                .as_ref()
                .map(|password| password.secret_key_ref.clone()),
            mesh_restart_time: spec
                .node_mesh_max_restart_time
                .as_deref()
                .map(|text| restart_seconds("spec.nodeMeshMaxRestartTime", text))
                .transpose()?,
        })
    }
}

/// Communities by their names or as such; extended ones are not for advertisements.
fn advertisements(spec: &BGPConfigurationSpec) -> Result<Vec<(Cidr, Vec<Community>)>, FieldError> {
    let mut names: BTreeMap<&str, Community> = BTreeMap::new();
    for (index, NamedCommunity { name, value }) in spec.communities.iter().enumerate() {
        let field = format!("spec.communities[{index}]");
        let community = value
            .parse()
            .map_err(|e| FieldError::new(format!("{field}.value"), e))?;
        if names.insert(name, community).is_some() {
            let problem = format!("{name} is there twice: remove one");
            return Err(FieldError::new(format!("{field}.name"), problem));
        }
    }
    let mut made = Vec::new();
    for (index, entry) in spec.prefix_advertisements.iter().enumerate() {
        let field = format!("spec.prefixAdvertisements[{index}]");
        let cidr = entry
            .cidr
            .parse()
            .map_err(|e| FieldError::new(format!("{field}.cidr"), e))?;
        let mut communities = Vec::new();
        for (index, text) in entry.communities.iter().enumerate() {
            let known = names.get(text.as_str()).copied();
            let community = known.or_else(|| text.parse().ok());
            match community {
                Some(community @ (Community::Standard(_) | Community::Large(_))) => {
                    communities.push(community);
                }
                Some(Community::Extended(_)) | None => {
                    let problem = format!(
                        "{text:?} is no name in communities and no community: write it as 65000:100 or 65000:1:2"
                    );
                    let field = format!("{field}.communities[{index}]");
                    return Err(FieldError::new(field, problem));
                }
            }
        }
        made.push((cidr, communities));
    }
    Ok(made)
}

fn stations(spec: &BGPConfigurationSpec) -> Result<Vec<BmpStation>, FieldError> {
    let mut made: Vec<BmpStation> = Vec::new();
    for (index, station) in spec.bmp_stations.iter().enumerate() {
        let field = format!("spec.bmpStations[{index}]");
        let address: SocketAddr = station
            .address
            .parse()
            .ok()
            .filter(|address: &SocketAddr| address.port() != 0)
            .ok_or_else(|| {
                let problem = format!(
                    "{:?} is no address and port: write it as 192.0.2.1:11019 or [2001:db8::1]:11019",
                    station.address
                );
                FieldError::new(format!("{field}.address"), problem)
            })?;
        if made.iter().any(|known| known.name == station.name) {
            let problem = format!("{} is there twice: remove one", station.name);
            return Err(FieldError::new(format!("{field}.name"), problem));
        }
        let interval = station.statistics_interval.as_deref();
        made.push(BmpStation {
            name: station.name.clone(),
            address,
            statistics: interval
                .map(|text| seconds(&format!("{field}.statisticsInterval"), text, 0, 86_400))
                .transpose()?
                .unwrap_or(0),
        });
    }
    Ok(made)
}

#[cfg(test)]
mod tests;
