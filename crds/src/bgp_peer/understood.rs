//! What a [`BGPPeer`] means.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{
    BGPPeer, BGPPeerSpec, BfdFailure, LimitAction, MaxPrefixes, PORT, PeerAddPath, PeerBfd,
    PeerNextHop, PeerRange, PeerRestart, ReversePeering, SecretKeyRef, SourceAddress,
};
use crate::bgp_configuration::{as_number, hold_time};
use crate::error::FieldError;
use crate::net::{Cidr, Family};
use crate::seconds::seconds;
use crate::selector::Selector;

/// The most a peer can be asked to wait for a restart (12 bits, RFC 4724).
const RESTART_MAX: u32 = 4095;

/// The most routes can be kept as long-lived stale ones (24 bits, RFC 9494).
const LONG_LIVED_MAX: u32 = 0xff_ffff;

/// Nodes that have a session with a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nodes {
    /// Every node.
    All,
    /// The node of that name.
    Named(String),
    /// Nodes whose labels match.
    Selected(Selector),
}

impl Nodes {
    /// Whether the node of that name and with those labels is one of them.
    pub fn includes(&self, node: &str, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::All => true,
            Self::Named(name) => name == node,
            Self::Selected(selector) => selector.matches(labels),
        }
    }
}

/// Who the peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// The speaker at that address and port.
    Address(IpAddr, u16),
    /// Whoever speaks BGP on that interface.
    Interface(String),
    /// The speaker at that link-local address and port.
    LinkLocal {
        /// Its address.
        address: Ipv6Addr,
        /// The interface it is on.
        interface: String,
        /// Its port.
        port: u16,
    },
    /// Whoever connects from that range, that many at a time.
    Range(Cidr, u32),
    /// Other nodes whose labels match; `reverse`: they have the session too.
    Nodes {
        /// Over the labels of nodes.
        selector: Selector,
        /// The selected nodes have the session too.
        reverse: bool,
    },
    /// Pods of the same node whose labels match.
    Workloads(Selector),
}

/// Own address of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LocalAddress {
    /// The route to the peer decides.
    #[default]
    Route,
    /// The node's address of the peer's family.
    Node,
    /// That one.
    Address(IpAddr),
}

/// How far away a peer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Distance {
    /// On a connected network, if it is external.
    #[default]
    Direct,
    /// At most that many hops.
    Multihop(u8),
    /// At most that many hops, packets from farther away are dropped (RFC 5082).
    Secure(u8),
}

/// BFD of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bfd {
    /// Least time between packets sent, milliseconds.
    pub transmit: u32,
    /// Least time between packets that can be taken, milliseconds.
    pub receive: u32,
    /// Packets missed before the peer is down.
    pub multiplier: u8,
    /// What happens to its routes then.
    pub on_failure: BfdFailure,
}

/// Graceful restart; None: what the speaker does when nobody says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restart {
    /// Not offered.
    pub disabled: bool,
    /// How long the peer shall keep the routes, seconds.
    pub restart_time: Option<u16>,
    /// How long the peer's routes are kept at most, seconds.
    pub stale_time: Option<u32>,
    /// How long they are kept after that, seconds.
    pub long_lived_time: Option<u32>,
}

/// The most prefixes a peer may announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of IPv4.
    pub ipv4: Option<u32>,
    /// Of IPv6.
    pub ipv6: Option<u32>,
    /// What happens beyond.
    pub action: LimitAction,
    /// When a session that was torn down is tried again, seconds; None: not by itself.
    pub restart_after: Option<u32>,
}

/// A [`BGPPeer`] that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Name of the object.
    pub name: String,
    /// Nodes that have the session.
    pub nodes: Nodes,
    /// Who it is.
    pub remote: Remote,
    /// AS number of the peer; None: its node's, or any other than the own one.
    pub as_number: Option<u32>,
    /// AS number told to it; None: the node's own.
    pub local_as_number: Option<u32>,
    /// Hold time offered, seconds; None is that of the configuration.
    pub hold_time: Option<u16>,
    /// Keepalive interval, seconds; None is that of the configuration.
    pub keepalive: Option<u32>,
    /// Own address of the session.
    pub local_address: LocalAddress,
    /// Own TCP port of the session.
    pub local_port: Option<u16>,
    /// Families exchanged; None: as the peer's address says.
    pub families: Option<BTreeSet<Family>>,
    /// Only the peer connects.
    pub passive: bool,
    /// How far away it may be.
    pub distance: Distance,
    /// Where its password is.
    pub password: Option<SecretKeyRef>,
    /// BFD, when wanted.
    pub bfd: Option<Bfd>,
    /// Graceful restart.
    pub restart: Restart,
    /// The most prefixes it may announce.
    pub limits: Option<Limits>,
    /// How many times the own AS may be in a path from it.
    pub allowed_own_as: u8,
    /// The next hop that routes are told with.
    pub next_hop: PeerNextHop,
    /// Names of the filters, in order.
    pub filters: Vec<String>,
    /// The most paths told for one prefix, and whether several are taken.
    pub add_path: (u8, bool),
    /// Routes that are not accepted are kept.
    pub keep_rejected: bool,
    /// The session is kept down, and these words say why; they may be empty.
    pub shutdown: Option<String>,
    /// The gateway to it.
    pub reachable_by: Option<IpAddr>,
}

impl Peer {
    /// The address, when the peer is the speaker at one.
    pub fn address(&self) -> Option<IpAddr> {
        match self.remote {
            Remote::Address(address, _) => Some(address),
            _ => None,
        }
    }

    /// Families exchanged with a peer at an address of `family`; None: on an interface.
    pub fn families(&self, family: Option<Family>) -> Vec<Family> {
        match (&self.families, family) {
            (Some(families), _) => families.iter().copied().collect(),
            (None, Some(family)) => vec![family],
            (None, None) => Family::ALL.to_vec(),
        }
    }
}

impl TryFrom<&BGPPeer> for Peer {
    type Error = FieldError;

    fn try_from(object: &BGPPeer) -> Result<Self, FieldError> {
        let spec = &object.spec;
        let remote = remote(spec)?;
        let number =
            |field: &str, given: Option<i64>| given.map(|n| as_number(field, n)).transpose();
        let keepalive = spec.keepalive_time.as_deref();
        Ok(Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            nodes: nodes(spec)?,
            as_number: peer_as(spec, &remote)?,
            local_as_number: number("spec.localASNumber", spec.local_as_number)?,
            hold_time: spec
                .hold_time
                .map(|given| hold_time("spec.holdTime", given))
                .transpose()?,
            keepalive: keepalive
                .map(|text| seconds("spec.keepaliveTime", text, 1, 21845))
                .transpose()?,
            local_address: local_address(spec, &remote)?,
            local_port: spec
                .local_port
                .map(|port| {
                    in_range("spec.localPort", port, 1, 65535)
                        .and_then(|p| to_u16("spec.localPort", p))
                })
                .transpose()?,
            families: match spec.families.as_deref() {
                None | Some([]) => None,
                Some(listed) => Some(listed.iter().map(|f| Family::from(*f)).collect()),
            },
            passive: spec.passive || matches!(remote, Remote::Range(..) | Remote::Workloads(_)),
            distance: distance(spec)?,
            password: spec.password.as_ref().map(|p| p.secret_key_ref.clone()),
            bfd: spec.bfd.as_ref().map(bfd).transpose()?,
            restart: restart(
                spec.max_restart_time.as_deref(),
                spec.graceful_restart.as_ref(),
            )?,
            limits: spec.max_prefixes.as_ref().map(limits).transpose()?,
            allowed_own_as: small(
                "spec.numAllowedLocalASNumbers",
                spec.num_allowed_local_as_numbers.unwrap_or(0),
                0,
                255,
            )?,
            next_hop: next_hop(spec)?,
            filters: filters(spec)?,
            add_path: spec.add_path.as_ref().map_or(
                Ok((0, false)),
                |PeerAddPath { send, receive }| {
                    Ok((small("spec.addPath.send", *send, 0, 255)?, *receive))
                },
            )?,
            keep_rejected: spec.keep_rejected_routes,
            shutdown: spec.words_of_shutdown()?,
            reachable_by: reachable_by(spec, &remote)?,
            remote,
        })
    }
}

fn nodes(spec: &BGPPeerSpec) -> Result<Nodes, FieldError> {
    match (&spec.node, &spec.node_selector) {
        (None, None) => Ok(Nodes::All),
        (Some(node), None) => Ok(Nodes::Named(node.clone())),
        (None, Some(text)) => Ok(Nodes::Selected(selector("spec.nodeSelector", text)?)),
        (Some(_), Some(_)) => Err(FieldError::new(
            "spec.nodeSelector",
            "node is set too: remove one of the two",
        )),
    }
}

fn selector(field: &str, text: &str) -> Result<Selector, FieldError> {
    text.parse().map_err(|e| FieldError::new(field, e))
}

fn remote(spec: &BGPPeerSpec) -> Result<Remote, FieldError> {
    let mut said: Vec<(&str, Remote)> = Vec::new();
    if let Some(text) = &spec.peer_ip {
        said.push(("spec.peerIP", endpoint(text)?));
    }
    if let Some(name) = &spec.interface {
        if !is_interface(name) {
            let problem = format!("{name:?} is no name of an interface: write it as eth0");
            return Err(FieldError::new("spec.interface", problem));
        }
        said.push(("spec.interface", Remote::Interface(name.clone())));
    }
    if let Some(PeerRange { cidr, limit }) = &spec.peer_range {
        let cidr = cidr
            .parse()
            .map_err(|e| FieldError::new("spec.peerRange.cidr", e))?;
        let limit = in_range("spec.peerRange.limit", *limit, 1, 100_000)?;
        said.push(("spec.peerRange", Remote::Range(cidr, limit)));
    }
    if let Some(text) = &spec.peer_selector {
        let remote = Remote::Nodes {
            selector: selector("spec.peerSelector", text)?,
            reverse: spec.reverse_peering != Some(ReversePeering::Manual),
        };
        said.push(("spec.peerSelector", remote));
    }
    if let Some(text) = &spec.local_workload_selector {
        let remote = Remote::Workloads(selector("spec.localWorkloadSelector", text)?);
        said.push(("spec.localWorkloadSelector", remote));
    }
    if let Some((field, _)) = said.get(1) {
        let problem = "the peer is named in another way too: remove one of the two";
        return Err(FieldError::new(*field, problem));
    }
    let problem = "the peer is missing: set peerIP, interface, peerRange, peerSelector or localWorkloadSelector";
    said.pop()
        .map(|(_, remote)| remote)
        .ok_or_else(|| FieldError::new("spec.peerIP", problem))
}

fn peer_as(spec: &BGPPeerSpec, remote: &Remote) -> Result<Option<u32>, FieldError> {
    let given = spec
        .as_number
        .map(|n| as_number("spec.asNumber", n))
        .transpose()?;
    match (remote, given) {
        (Remote::Nodes { .. }, Some(_)) => Err(FieldError::new(
            "spec.asNumber",
            "the AS number of peers that are nodes is that of the node: leave it out",
        )),
        (Remote::Address(..) | Remote::LinkLocal { .. } | Remote::Workloads(_), None) => {
            Err(FieldError::new(
                "spec.asNumber",
                "it is missing: set the AS number of the peer",
            ))
        }
        _ => Ok(given),
    }
}

fn local_address(spec: &BGPPeerSpec, remote: &Remote) -> Result<LocalAddress, FieldError> {
    match (&spec.local_address, spec.source_address) {
        (None, None | Some(SourceAddress::None)) => Ok(LocalAddress::Route),
        (None, Some(SourceAddress::UseNodeIP)) => Ok(LocalAddress::Node),
        (Some(text), None) => {
            let local = address("spec.localAddress", text, "192.0.2.2")?;
            same_family("spec.localAddress", local, remote)?;
            Ok(LocalAddress::Address(local))
        }
        (Some(_), Some(_)) => Err(FieldError::new(
            "spec.localAddress",
            "sourceAddress is set too: remove one of the two",
        )),
    }
}

fn reachable_by(spec: &BGPPeerSpec, remote: &Remote) -> Result<Option<IpAddr>, FieldError> {
    let Some(text) = &spec.reachable_by else {
        return Ok(None);
    };
    if !matches!(remote, Remote::Address(..)) {
        let problem = "it is for a peer with a peerIP: leave it out";
        return Err(FieldError::new("spec.reachableBy", problem));
    }
    let gateway = address("spec.reachableBy", text, "192.0.2.1")?;
    same_family("spec.reachableBy", gateway, remote)?;
    Ok(Some(gateway))
}

fn address(field: &str, text: &str, example: &str) -> Result<IpAddr, FieldError> {
    text.parse().map_err(|_| {
        FieldError::new(
            field,
            format!("{text:?} is no address: write it as {example}"),
        )
    })
}

fn same_family(field: &str, given: IpAddr, remote: &Remote) -> Result<(), FieldError> {
    let peer = match remote {
        Remote::Address(address, _) => *address,
        Remote::LinkLocal { address, .. } => IpAddr::V6(*address),
        Remote::Range(cidr, _) => cidr.first(),
        _ => return Ok(()),
    };
    if Family::of(given) == Family::of(peer) {
        return Ok(());
    }
    let problem = format!("{given} and the peer's {peer} are of different families");
    Err(FieldError::new(field, problem))
}

fn distance(spec: &BGPPeerSpec) -> Result<Distance, FieldError> {
    match (spec.ttl_security, spec.ebgp_multihop) {
        (None, None) => Ok(Distance::Direct),
        (Some(hops), None) => Ok(Distance::Secure(small("spec.ttlSecurity", hops, 1, 254)?)),
        (None, Some(hops)) => Ok(Distance::Multihop(small(
            "spec.ebgpMultihop",
            hops,
            1,
            255,
        )?)),
        (Some(_), Some(_)) => Err(FieldError::new(
            "spec.ebgpMultihop",
            "ttlSecurity is set too: remove one of the two",
        )),
    }
}

fn bfd(spec: &PeerBfd) -> Result<Bfd, FieldError> {
    Ok(Bfd {
        transmit: in_range("spec.bfd.transmitMillis", spec.transmit_millis, 10, 60_000)?,
        receive: in_range("spec.bfd.receiveMillis", spec.receive_millis, 10, 60_000)?,
        multiplier: small("spec.bfd.multiplier", spec.multiplier, 1, 255)?,
        on_failure: spec.on_failure,
    })
}

/// Graceful restart as the fields `maxRestartTime` and `gracefulRestart` say.
fn restart(restart_time: Option<&str>, rest: Option<&PeerRestart>) -> Result<Restart, FieldError> {
    let stale = rest.and_then(|rest| rest.stale_time.as_deref());
    let long_lived = rest.and_then(|rest| rest.long_lived_stale_time.as_deref());
    Ok(Restart {
        disabled: rest.is_some_and(|rest| !rest.enabled),
        restart_time: restart_time
            .map(|text| restart_seconds("spec.maxRestartTime", text))
            .transpose()?,
        stale_time: stale
            .map(|text| seconds("spec.gracefulRestart.staleTime", text, 0, LONG_LIVED_MAX))
            .transpose()?,
        long_lived_time: long_lived
            .map(|text| {
                seconds(
                    "spec.gracefulRestart.longLivedStaleTime",
                    text,
                    0,
                    LONG_LIVED_MAX,
                )
            })
            .transpose()?,
    })
}

/// A restart time (RFC 4724): 0 to 4095 seconds.
pub(crate) fn restart_seconds(field: &str, text: &str) -> Result<u16, FieldError> {
    seconds(field, text, 0, RESTART_MAX).and_then(|s| to_u16(field, s))
}

fn limits(spec: &MaxPrefixes) -> Result<Limits, FieldError> {
    let limit = |field: &str, given: Option<i32>| {
        given
            .map(|n| in_range(field, n, 1, i32::MAX.unsigned_abs()))
            .transpose()
    };
    let restart_after = spec.restart_after.as_deref();
    if restart_after.is_some() && spec.action != LimitAction::TearDown {
        let problem = "it is for action TearDown: set the action or leave it out";
        return Err(FieldError::new("spec.maxPrefixes.restartAfter", problem));
    }
    if spec.ipv4.is_none() && spec.ipv6.is_none() {
        let problem = "no number is set: set ipv4, ipv6 or both";
        return Err(FieldError::new("spec.maxPrefixes", problem));
    }
    Ok(Limits {
        ipv4: limit("spec.maxPrefixes.ipv4", spec.ipv4)?,
        ipv6: limit("spec.maxPrefixes.ipv6", spec.ipv6)?,
        action: spec.action,
        restart_after: restart_after
            .map(|text| seconds("spec.maxPrefixes.restartAfter", text, 1, LONG_LIVED_MAX))
            .transpose()?,
    })
}

fn next_hop(spec: &BGPPeerSpec) -> Result<PeerNextHop, FieldError> {
    match (spec.next_hop_mode, spec.keep_original_next_hop) {
        (Some(_), Some(_)) => Err(FieldError::new(
            "spec.keepOriginalNextHop",
            "nextHopMode is set too: leave this older name out",
        )),
        (Some(mode), None) => Ok(mode),
        (None, Some(true)) => Ok(PeerNextHop::Keep),
        (None, _) => Ok(PeerNextHop::Auto),
    }
}

fn filters(spec: &BGPPeerSpec) -> Result<Vec<String>, FieldError> {
    for (index, name) in spec.filters.iter().enumerate() {
        if name.is_empty() || spec.filters[..index].contains(name) {
            let problem = if name.is_empty() {
                "a filter has a name: remove the empty one".to_owned()
            } else {
                format!("{name} is listed twice: remove one")
            };
            return Err(FieldError::new(format!("spec.filters[{index}]"), problem));
        }
    }
    Ok(spec.filters.clone())
}

/// A number that the schema bounds already.
fn in_range(field: &str, given: i32, least: u32, most: u32) -> Result<u32, FieldError> {
    u32::try_from(given)
        .ok()
        .filter(|given| (least..=most).contains(given))
        .ok_or_else(|| {
            FieldError::new(
                field,
                format!("{given} is out of range: set {least} to {most}"),
            )
        })
}

fn small(field: &str, given: i32, least: u8, most: u8) -> Result<u8, FieldError> {
    u8::try_from(given)
        .ok()
        .filter(|given| (least..=most).contains(given))
        .ok_or_else(|| {
            FieldError::new(
                field,
                format!("{given} is out of range: set {least} to {most}"),
            )
        })
}

fn to_u16(field: &str, given: u32) -> Result<u16, FieldError> {
    u16::try_from(given)
        .map_err(|_| FieldError::new(field, format!("{given} is out of range: set at most 65535")))
}

/// What the kernel takes for a name of an interface.
fn is_interface(name: &str) -> bool {
    !name.is_empty() && name.len() <= 15 && !name.contains(['/', ' ', ':', '%', ']'])
}

/// `ip`, `ip4:port`, `[ip6]:port`; a link-local address with its interface: `fe80::1%eth0`, `[fe80::1%eth0]:port`.
fn endpoint(text: &str) -> Result<Remote, FieldError> {
    let error = |problem: String| FieldError::new("spec.peerIP", problem);
    let malformed = || {
        error(format!(
            "{text:?} is no address with an optional port: write it as 192.0.2.1:1179, [2001:db8::1]:1179 or fe80::1%eth0"
        ))
    };
    let (zone, text) = match text.split_once('%') {
        None => (None, text.to_owned()),
        Some((address, rest)) => {
            let end = rest.find(']').unwrap_or(rest.len());
            let (name, rest) = rest.split_at(end);
            if !is_interface(name) {
                return Err(malformed());
            }
            (Some(name.to_owned()), format!("{address}{rest}"))
        }
    };
    let (address, port) = if let Ok(address) = text.parse::<IpAddr>() {
        (address, PORT)
    } else if let Ok(socket) = text.parse::<SocketAddr>() {
        (socket.ip(), socket.port())
    } else {
        return Err(malformed());
    };
    if port == 0 {
        return Err(error(
            "port 0 cannot be connected to: set 1 to 65535".to_owned(),
        ));
    }
    if address.is_unspecified() || address.is_multicast() {
        return Err(error(format!("{address} is not the address of one host")));
    }
    match (address, zone) {
        (IpAddr::V6(address), Some(interface)) if address.is_unicast_link_local() => {
            Ok(Remote::LinkLocal {
                address,
                interface,
                port,
            })
        }
        (address, Some(interface)) => Err(error(format!(
            "{address} is not link-local: leave %{interface} out"
        ))),
        (IpAddr::V6(address), None) if address.is_unicast_link_local() => Err(error(format!(
            "{address} is link-local: add its interface, as {address}%eth0"
        ))),
        (address, None) => Ok(Remote::Address(address, port)),
    }
}
