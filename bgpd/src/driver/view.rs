//! The kernel's interfaces, addresses and routes as a value, and the difference of two such values.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use crds::net::{Cidr, Family};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::nexthop::{Change, Route, Via};

/// The table next hops are looked up in (`RT_TABLE_MAIN`).
pub(crate) const MAIN_TABLE: u8 = 254;

/// Protocol of felix's own routes: to pods, and unreachable ones for blocks.
const WORKLOAD_PROTOCOL: u8 = 77;

/// Protocols of our own routes: those above, and learnt over BGP. No next hop is resolved through them but to a pod.
const OWN_PROTOCOLS: [u8; 2] = [WORKLOAD_PROTOCOL, 78];

/// What a notification demands beside what was taken from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Nothing,
    /// The kernel does not tell all that follows from it: read again.
    ReadAgain,
}

/// What next hops depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Name, and whether it is up and has a carrier.
    links: BTreeMap<u32, (String, bool)>,
    addresses: BTreeSet<(u32, IpAddr, Cidr)>,
    /// Routers, by the interface they are on.
    routers: BTreeSet<(u32, Ipv6Addr)>,
    /// By destination and metric.
    routes: BTreeMap<(Cidr, u32), Vec<Via>>,
}

impl View {
    /// Takes a message of a dump or of the monitor.
    pub(crate) fn apply(&mut self, message: &RouteNetlinkMessage) -> Effect {
        match message {
            RouteNetlinkMessage::NewLink(link) => self.link(link),
            RouteNetlinkMessage::DelLink(link) => {
                let ifindex = link.header.index;
                // A bridge tells of a port that leaves with this message too; the interface stays.
                if link.header.interface_family != AddressFamily::Unspec {
                    return Effect::Nothing;
                }
                self.links.remove(&ifindex);
                self.addresses.retain(|(on, _, _)| *on != ifindex);
                self.routers.retain(|(on, _)| *on != ifindex);
                self.after_loss_on(ifindex)
            }
            RouteNetlinkMessage::NewAddress(message) => {
                if let Some((key, usable)) = address(message) {
                    if usable {
                        self.addresses.insert(key);
                    } else {
                        self.addresses.remove(&key);
                    }
                }
                Effect::Nothing
            }
            RouteNetlinkMessage::DelAddress(message) => match address(message) {
                Some((key, _)) => {
                    self.addresses.remove(&key);
                    self.after_loss_on(key.0)
                }
                None => Effect::Nothing,
            },
            RouteNetlinkMessage::NewNeighbour(message) => {
                if let Some((key, usable)) = neighbour(message) {
                    if usable {
                        self.routers.insert(key);
                    } else {
                        self.routers.remove(&key);
                    }
                }
                Effect::Nothing
            }
            RouteNetlinkMessage::DelNeighbour(message) => {
                if let Some((key, _)) = neighbour(message) {
                    self.routers.remove(&key);
                }
                Effect::Nothing
            }
            RouteNetlinkMessage::NewRoute(message) => match route(message) {
                Some((key, vias)) => {
                    let ipv6 = key.0.family() == Family::V6;
                    let known = self.routes.insert(key, vias).is_some();
                    // An IPv6 leg that is added may come alone.
                    if ipv6 && known {
                        Effect::ReadAgain
                    } else {
                        Effect::Nothing
                    }
                }
                None => Effect::Nothing,
            },
            RouteNetlinkMessage::DelRoute(message) => match route(message) {
                // Of several IPv6 legs one may go alone; of several IPv4 routes that differ in TOS one may stay.
                Some((key, _)) if self.routes.remove(&key).is_some() => Effect::ReadAgain,
                _ => Effect::Nothing,
            },
            _ => Effect::Nothing,
        }
    }

    fn link(&mut self, message: &LinkMessage) -> Effect {
        if message.header.interface_family != AddressFamily::Unspec {
            return Effect::Nothing;
        }
        let ifindex = message.header.index;
        let name = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            });
        let up = message
            .header
            .flags
            .contains(LinkFlags::Up | LinkFlags::LowerUp);
        let before = self.links.insert(ifindex, (name.unwrap_or_default(), up));
        match before {
            Some((_, true)) if !up => self.after_loss_on(ifindex),
            // Routes of an interface that comes back are told one by one.
            _ => Effect::Nothing,
        }
    }

    /// The kernel drops IPv4 routes silently with their interface or address.
    fn after_loss_on(&self, ifindex: u32) -> Effect {
        let used = |vias: &Vec<Via>| vias.iter().any(|via| via.ifindex == ifindex);
        if self.routes.values().any(used) {
            Effect::ReadAgain
        } else {
            Effect::Nothing
        }
    }
}

/// What makes `have` into `want`: losses first, then what is new, interfaces before what is on them.
pub(crate) fn diff(have: &View, want: &View) -> Vec<Change> {
    let mut changes = Vec::new();
    for (prefix, metric) in have.routes.keys() {
        if !want.routes.contains_key(&(*prefix, *metric)) {
            let (prefix, metric) = (*prefix, *metric);
            changes.push(Change::RouteGone { prefix, metric });
        }
    }
    for &(ifindex, address, network) in have.addresses.difference(&want.addresses) {
        changes.push(Change::AddressGone {
            ifindex,
            address,
            network,
        });
    }
    for &(ifindex, address) in have.routers.difference(&want.routers) {
        changes.push(Change::RouterGone { ifindex, address });
    }
    for &ifindex in have.links.keys() {
        if !want.links.contains_key(&ifindex) {
            changes.push(Change::LinkGone { ifindex });
        }
    }
    for (&ifindex, (name, up)) in &want.links {
        if have.links.get(&ifindex) != Some(&(name.clone(), *up)) {
            let (name, up) = (name.clone(), *up);
            changes.push(Change::Link { ifindex, name, up });
        }
    }
    for &(ifindex, address, network) in want.addresses.difference(&have.addresses) {
        changes.push(Change::Address {
            ifindex,
            address,
            network,
        });
    }
    for &(ifindex, address) in want.routers.difference(&have.routers) {
        changes.push(Change::Router { ifindex, address });
    }
    for (key, vias) in &want.routes {
        if have.routes.get(key) != Some(vias) {
            let (prefix, metric) = *key;
            let vias = vias.clone();
            changes.push(Change::Route(Route {
                prefix,
                metric,
                vias,
            }));
        }
    }
    changes
}

/// Interface, own address and connected prefix; and whether the address can be used yet.
fn address(message: &AddressMessage) -> Option<((u32, IpAddr, Cidr), bool)> {
    let (mut peer, mut local, mut unusable) = (None, None, false);
    let early = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    unusable |= message.header.flags.intersects(early)
        && !message
            .header
            .flags
            .contains(AddressHeaderFlags::Optimistic);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(address) => peer = Some(*address),
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Flags(flags) => {
                unusable |= flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed)
                    && !flags.contains(AddressFlags::Optimistic);
            }
            _ => {}
        }
    }
    // With a peer address the prefix is the peer's; IPv6 without one gives the own address in the same attribute.
    let own = local.or(peer)?;
    let network = Cidr::new(peer.unwrap_or(own), message.header.prefix_len).ok()?;
    Some(((message.header.index, own, network), !unusable))
}

/// Interface and link-local address of a neighbour; and whether it is a router that can be reached as far as is known.
fn neighbour(message: &NeighbourMessage) -> Option<((u32, Ipv6Addr), bool)> {
    let address = message.attributes.iter().find_map(|it| match it {
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(*v6),
        _ => None,
    })?;
    let lost = matches!(
        message.header.state,
        NeighbourState::None | NeighbourState::Incomplete | NeighbourState::Failed
    );
    let is_router = message.header.flags.contains(NeighbourFlags::Router);
    let key = (message.header.ifindex, address);
    address
        .is_unicast_link_local()
        .then_some((key, is_router && !lost))
}

/// Destination, metric and ways of a route that counts.
fn route(message: &RouteMessage) -> Option<((Cidr, u32), Vec<Via>)> {
    let header = &message.header;
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let ours = OWN_PROTOCOLS.contains(&u8::from(header.protocol));
    if (ours && !leads_to_pod(header)) || header.tos != 0 {
        return None;
    }
    // Clones are IPv6's per-destination exceptions.
    if header
        .flags
        .contains(netlink_packet_route::route::RouteFlags::Cloned)
    {
        return None;
    }
    let (mut destination, mut metric, mut table) = (any, 0, u32::from(header.table));
    let (mut gateway, mut oif, mut legs) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = route_address(to)?,
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Gateway(to) => gateway = route_address(to),
            RouteAttribute::Via(to) => gateway = via_address(to),
            RouteAttribute::Oif(index) => oif = Some(*index),
            RouteAttribute::MultiPath(hops) => legs = Some(hops),
            _ => {}
        }
    }
    if table != u32::from(MAIN_TABLE) {
        return None;
    }
    let prefix = Cidr::new(destination, header.destination_prefix_length).ok()?;
    // Every interface has this one, with one key; no next hop is resolved through it.
    if matches!(destination, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        return None;
    }
    let vias = match header.kind {
        RouteType::Unicast => match (legs, oif) {
            (Some(legs), _) => legs.iter().map(leg).collect(),
            (None, Some(ifindex)) => vec![Via { gateway, ifindex }],
            (None, None) => Vec::new(),
        },
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => Vec::new(),
        _ => return None,
    };
    Some(((prefix, metric), vias))
}

/// Whether it is felix's route to a pod, which may be the next hop of what the pod itself announces.
fn leads_to_pod(header: &RouteHeader) -> bool {
    u8::from(header.protocol) == WORKLOAD_PROTOCOL && header.kind == RouteType::Unicast
}

fn leg(hop: &RouteNextHop) -> Via {
    let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(to) => route_address(to),
        RouteAttribute::Via(to) => via_address(to),
        _ => None,
    });
    Via {
        gateway,
        ifindex: hop.interface_index,
    }
}

fn route_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn via_address(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(v4) => Some((*v4).into()),
        RouteVia::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteProtocol;

    use super::*;

    fn link(ifindex: u32, up: bool) -> RouteNetlinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        if up {
            message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        }
        message
            .attributes
            .push(LinkAttribute::IfName(format!("eth{ifindex}")));
        RouteNetlinkMessage::NewLink(message)
    }

    fn address(ifindex: u32, address: &str, length: u8, tentative: bool) -> RouteNetlinkMessage {
        let mut message = AddressMessage::default();
        let ip: IpAddr = address.parse().unwrap();
        message.header.index = ifindex;
        message.header.prefix_len = length;
        message.attributes.push(AddressAttribute::Address(ip));
        if tentative {
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Tentative));
        }
        RouteNetlinkMessage::NewAddress(message)
    }

    fn route(prefix: &str, metric: u32, ifindex: u32, protocol: u8) -> RouteMessage {
        let prefix: Cidr = prefix.parse().unwrap();
        let mut message = RouteMessage::default();
        message.header.address_family = match prefix.family() {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        message.header.table = MAIN_TABLE;
        message.header.kind = RouteType::Unicast;
        message.header.protocol = RouteProtocol::from(protocol);
        message.header.destination_prefix_length = prefix.prefix_len();
        message.attributes = vec![
            RouteAttribute::Destination(prefix.first().into()),
            RouteAttribute::Priority(metric),
            RouteAttribute::Oif(ifindex),
        ];
        message
    }

    fn view(messages: &[RouteNetlinkMessage]) -> View {
        let mut view = View::default();
        for message in messages {
            view.apply(message);
        }
        view
    }

    #[test]
    fn own_routes_and_other_tables_do_not_count() {
        let foreign = route("192.0.2.0/24", 0, 2, 4);
        let mut elsewhere = route("198.51.100.0/24", 0, 2, 4);
        elsewhere.header.table = 252;
        elsewhere.attributes.push(RouteAttribute::Table(1000));
        let seen = view(&[
            RouteNetlinkMessage::NewRoute(foreign),
            RouteNetlinkMessage::NewRoute(route("10.0.0.7/32", 32, 3, 77)),
            RouteNetlinkMessage::NewRoute({
                let mut block = route("10.0.0.0/26", 64, 2, 77);
                block.header.kind = RouteType::Unreachable;
                block
            }),
            RouteNetlinkMessage::NewRoute(route("10.0.1.0/26", 128, 2, 78)),
            RouteNetlinkMessage::NewRoute(elsewhere),
            RouteNetlinkMessage::NewRoute(route("fe80::/64", 256, 2, 2)),
        ]);
        let prefixes: Vec<String> = seen.routes.keys().map(|(p, _)| p.to_string()).collect();
        assert_eq!(prefixes, ["10.0.0.7/32", "192.0.2.0/24"]);
    }

    #[test]
    fn an_address_counts_once_it_is_no_duplicate() {
        let mut seen = view(&[link(2, true), address(2, "2001:db8::1", 64, true)]);
        assert!(seen.addresses.is_empty());
        let before = seen.clone();
        seen.apply(&address(2, "2001:db8::1", 64, false));
        assert_eq!(
            diff(&before, &seen),
            [Change::Address {
                ifindex: 2,
                address: "2001:db8::1".parse().unwrap(),
                network: "2001:db8::/64".parse().unwrap(),
            }]
        );
    }

    #[test]
    fn what_the_kernel_drops_silently_is_read_again() {
        let mut seen = view(&[
            link(2, true),
            link(3, true),
            RouteNetlinkMessage::NewRoute(route("192.0.2.0/24", 0, 2, 4)),
        ]);
        assert_eq!(
            seen.apply(&link(3, false)),
            Effect::Nothing,
            "no route used it"
        );
        assert_eq!(seen.apply(&link(2, false)), Effect::ReadAgain);
        let gone = route("192.0.2.0/24", 0, 2, 4);
        assert_eq!(
            seen.apply(&RouteNetlinkMessage::DelRoute(gone.clone())),
            Effect::ReadAgain
        );
        assert_eq!(
            seen.apply(&RouteNetlinkMessage::DelRoute(gone)),
            Effect::Nothing
        );
    }

    #[test]
    fn a_difference_leads_from_one_to_the_other_and_is_empty_for_the_same() {
        let have = view(&[
            link(2, true),
            address(2, "192.0.2.1", 24, false),
            RouteNetlinkMessage::NewRoute(route("0.0.0.0/0", 0, 2, 4)),
        ]);
        let want = view(&[link(3, true)]);
        assert!(diff(&have, &have).is_empty());
        let text = format!("{:?}", diff(&have, &want));
        let order = [
            "RouteGone",
            "AddressGone",
            "LinkGone { ifindex: 2",
            "Link { ifindex: 3",
        ];
        let at: Vec<usize> = order.iter().map(|word| text.find(word).unwrap()).collect();
        assert!(at.is_sorted(), "{text}");
    }
}
