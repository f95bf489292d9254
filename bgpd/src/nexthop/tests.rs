use crds::net::Family;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn link(ifindex: u32, up: bool) -> Change {
    Change::Link {
        ifindex,
        name: format!("eth{ifindex}"),
        up,
    }
}

fn address(ifindex: u32, text: &str) -> Change {
    let (address, length) = text.split_once('/').unwrap();
    let address = ip(address);
    let network = Cidr::new(address, length.parse().unwrap()).unwrap();
    Change::Address {
        ifindex,
        address,
        network,
    }
}

fn route(prefix: &str, metric: u32, vias: &[(Option<&str>, u32)]) -> Change {
    let via = |(gateway, ifindex): &(Option<&str>, u32)| Via {
        gateway: gateway.map(ip),
        ifindex: *ifindex,
    };
    Change::Route(Route {
        prefix: cidr(prefix),
        metric,
        vias: vias.iter().map(via).collect(),
    })
}

/// eth2 with 192.0.2.1/24 and 2001:db8::1/64, eth3 with 198.51.100.1/31, both up.
fn table() -> Table {
    let mut table = Table::default();
    for change in [
        link(2, true),
        link(3, true),
        address(2, "192.0.2.1/24"),
        address(2, "2001:db8::1/64"),
        address(2, "fe80::1/64"),
        address(3, "198.51.100.1/31"),
        address(3, "fe80::1/64"),
    ] {
        assert!(table.apply(change));
    }
    table
}

fn to(table: &Table, next_hop: &str) -> Option<Resolution> {
    table.resolve(ip(next_hop).into(), None)
}

fn direct(gateway: &str, ifindex: u32) -> Option<Resolution> {
    Some(Resolution {
        gateway: ip(gateway),
        ifindex,
        onlink: false,
        cost: 0,
    })
}

#[test]
fn a_connected_next_hop_is_its_own_gateway() {
    let table = table();
    assert_eq!(to(&table, "192.0.2.7"), direct("192.0.2.7", 2));
    assert_eq!(to(&table, "2001:db8::7"), direct("2001:db8::7", 2));
    assert_eq!(to(&table, "198.51.100.0"), direct("198.51.100.0", 3));
    assert_eq!(to(&table, "203.0.113.1"), None);
}

#[test]
fn a_link_that_is_down_connects_nothing() {
    let mut table = table();
    assert!(table.apply(link(2, false)));
    assert_eq!(to(&table, "192.0.2.7"), None);
    assert!(table.apply(link(2, true)));
    assert!(!table.apply(link(2, true)), "nothing has changed");
    assert!(table.apply(Change::LinkGone { ifindex: 2 }));
    assert!(!table.is_own(ip("192.0.2.1")));
    assert_eq!(to(&table, "192.0.2.7"), None);
}

#[test]
fn a_farther_next_hop_takes_the_longest_and_cheapest_route() {
    let mut table = table();
    table.apply(route("0.0.0.0/0", 100, &[(Some("192.0.2.254"), 2)]));
    table.apply(route("203.0.113.0/24", 20, &[(Some("198.51.100.0"), 3)]));
    table.apply(route("203.0.113.0/24", 10, &[(Some("192.0.2.253"), 2)]));
    let via = |gateway, ifindex, cost| {
        Some(Resolution {
            cost,
            ..direct(gateway, ifindex).unwrap()
        })
    };
    assert_eq!(to(&table, "203.0.113.1"), via("192.0.2.253", 2, 10));
    assert_eq!(to(&table, "8.8.8.8"), via("192.0.2.254", 2, 100));
    assert!(table.apply(Change::RouteGone {
        prefix: cidr("203.0.113.0/24"),
        metric: 10
    }));
    assert!(!table.apply(Change::RouteGone {
        prefix: cidr("203.0.113.0/24"),
        metric: 10
    }));
    assert_eq!(to(&table, "203.0.113.1"), via("198.51.100.0", 3, 20));
}

#[test]
fn an_unreachable_route_hides_shorter_ones() {
    let mut table = table();
    table.apply(route("0.0.0.0/0", 0, &[(Some("192.0.2.254"), 2)]));
    table.apply(route("203.0.113.0/26", 64, &[]));
    assert_eq!(to(&table, "203.0.113.1"), None);
    assert!(to(&table, "203.0.113.65").is_some());
}

#[test]
fn a_host_route_overrides_a_connected_prefix() {
    let mut table = table();
    table.apply(route("192.0.2.7/32", 5, &[(Some("198.51.100.0"), 3)]));
    assert_eq!(to(&table, "192.0.2.7").unwrap().gateway, ip("198.51.100.0"));
    assert_eq!(to(&table, "192.0.2.8"), direct("192.0.2.8", 2));
}

#[test]
fn the_next_way_of_a_route_is_taken_when_a_link_is_down() {
    let mut table = table();
    table.apply(route(
        "203.0.113.0/24",
        0,
        &[(Some("192.0.2.254"), 2), (Some("198.51.100.0"), 3)],
    ));
    assert_eq!(to(&table, "203.0.113.1"), direct("192.0.2.254", 2));
    table.apply(link(2, false));
    assert_eq!(to(&table, "203.0.113.1"), direct("198.51.100.0", 3));
}

#[test]
fn an_address_that_only_a_route_puts_on_the_link_is_onlink() {
    let mut table = table();
    table.apply(route("10.9.9.9/32", 0, &[(None, 3)]));
    let onlink = Resolution {
        onlink: true,
        ..direct("10.9.9.9", 3).unwrap()
    };
    assert_eq!(to(&table, "10.9.9.9"), Some(onlink));
}

#[test]
fn ipv4_may_go_through_an_ipv6_gateway() {
    let mut table = table();
    table.apply(route("203.0.113.0/24", 0, &[(Some("fe80::9"), 3)]));
    assert_eq!(to(&table, "203.0.113.1"), direct("fe80::9", 3));
}

#[test]
fn a_link_local_next_hop_is_on_the_sessions_interface() {
    let mut table = table();
    let next_hop = NextHop::from(ip("fe80::2"));
    assert_eq!(table.resolve(next_hop, Some(3)), direct("fe80::2", 3));
    assert_eq!(table.resolve(next_hop, None), None);
    // RFC 2545: the global address counts, unless nothing is known of it.
    let both = |global| NextHop {
        address: ip(global),
        link_local: Some("fe80::2".parse().unwrap()),
    };
    assert_eq!(
        table.resolve(both("2001:db8::2"), Some(2)),
        direct("2001:db8::2", 2)
    );
    assert_eq!(
        table.resolve(both("2001:db8:9::2"), Some(2)),
        direct("fe80::2", 2)
    );
    table.apply(link(2, false));
    assert_eq!(table.resolve(both("2001:db8::2"), Some(2)), None);
}

#[test]
fn own_addresses_are_found_by_interface_and_family() {
    let table = table();
    assert_eq!(table.own_address(2, Family::V4), Some(ip("192.0.2.1")));
    assert_eq!(table.own_address(2, Family::V6), Some(ip("2001:db8::1")));
    assert_eq!(
        table.own_address(3, Family::V6),
        None,
        "a link-local address is no next hop for others"
    );
    assert_eq!(table.link_local(3), Some("fe80::1".parse().unwrap()));
    assert_eq!(table.interface_of(ip("198.51.100.1")), Some(3));
    assert_eq!(table.interface_named("eth3"), Some(3));
    assert_eq!(table.interface_name(2), Some("eth2"));
}

#[test]
fn own_addresses_are_known_by_their_link_where_that_gives_them_their_meaning() {
    let mut table = Table::default();
    let on = |ifindex, address: &str, network: &str| Change::Address {
        ifindex,
        address: ip(address),
        network: cidr(network),
    };
    let gone = |ifindex, address: &str, network: &str| Change::AddressGone {
        ifindex,
        address: ip(address),
        network: cidr(network),
    };
    table.apply(on(2, "fe80::1", "fe80::/64"));
    table.apply(on(2, "192.0.2.1", "192.0.2.0/24"));
    table.apply(on(2, "192.0.2.1", "192.0.2.0/25"));
    let own = |table: &Table, address, index| table.is_own_on(ip(address), index);
    assert!(own(&table, "fe80::1", Some(2)) && own(&table, "fe80::1", None));
    assert!(!own(&table, "fe80::1", Some(3)));
    assert!(own(&table, "192.0.2.1", Some(3)));
    // It is in another network still.
    table.apply(gone(2, "192.0.2.1", "192.0.2.0/24"));
    assert!(table.is_own(ip("192.0.2.1")));
    table.apply(gone(2, "192.0.2.1", "192.0.2.0/25"));
    assert!(!table.is_own(ip("192.0.2.1")));
    assert!(table.shares_network(ip("fe80::5")) && !table.shares_network(ip("192.0.2.5")));
}
