//! The MTU pods get: that of the narrowest link which their packets may leave the node by.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crds::net::Cidr;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Device group.
    pub group: u32,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Up and with carrier: packets can be sent.
    pub running: bool,
    /// Loops packets back.
    pub loopback: bool,
}

/// An own address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Interface it is on.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
    /// The network it makes directly reachable.
    pub network: Cidr,
    /// Valid everywhere, not only on its link or host.
    pub global: bool,
    /// Known to be ours alone: duplicate address detection is over, and found none.
    pub usable: bool,
}

/// The smallest MTU of the interfaces which lead to other machines: up, no loopback, not a workload's, with a global
/// address that has neighbours. `None` when there is no such interface.
#[must_use]
pub fn smallest_mtu(
    links: &BTreeMap<u32, Link>,
    addresses: &[Address],
    workload_prefix: &str,
) -> Option<u32> {
    let routing = addresses
        .iter()
        .filter(|address| address.global && !address.network.is_host());
    routing
        .filter_map(|address| links.get(&address.ifindex))
        .filter(|link| link.up && !link.loopback && !link.name.starts_with(workload_prefix))
        .map(|link| link.mtu)
        .min()
}

/// Own addresses of no network, on loopback interfaces, that are valid everywhere.
#[must_use]
pub fn on_loopback(links: &BTreeMap<u32, Link>, addresses: &[Address]) -> BTreeSet<IpAddr> {
    let alone = addresses
        .iter()
        .filter(|it| it.global && it.usable && it.network.is_host());
    alone
        .filter(|it| {
            links
                .get(&it.ifindex)
                .is_some_and(|link| link.loopback && link.up)
        })
        .map(|it| it.address)
        .collect()
}

/// Own addresses by name of the interface, but for loopbacks and interfaces of workloads.
#[must_use]
pub fn by_interface(
    links: &BTreeMap<u32, Link>,
    addresses: &[Address],
    workload_prefix: &str,
) -> BTreeMap<String, BTreeSet<IpAddr>> {
    let mut found: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
    for address in addresses {
        let link = links.get(&address.ifindex);
        let own = |link: &&Link| !link.loopback && !link.name.starts_with(workload_prefix);
        if let Some(link) = link.filter(own) {
            let held = found.entry(link.name.clone()).or_default();
            held.insert(address.address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_to_other_machines_count() {
        let link = |name: &str, mtu, up| Link {
            name: name.to_owned(),
            group: 0,
            mtu,
            up,
            running: up,
            loopback: name == "lo",
        };
        let links = [
            (1, link("lo", 100, true)),
            (2, link("eth0", 9000, true)),
            (3, link("eth1", 8900, true)),
            (4, link("eth2", 200, false)),
            (5, link("mgy0", 300, true)),
            (6, link("dum0", 400, true)),
            (7, link("eth3", 500, true)),
        ]
        .into();
        let address = |ifindex, text: &str, global| {
            let network: Cidr = text.parse().expect("prefix");
            Address {
                ifindex,
                address: network.first(),
                network,
                global,
                usable: true,
            }
        };
        let addresses = [
            address(1, "127.0.0.0/8", false),
            address(2, "10.0.0.0/24", true),
            address(3, "fd00::/64", true),
            address(4, "10.0.2.0/24", true),
            address(5, "10.0.3.0/24", true),
            address(6, "10.0.4.1/32", true),
            address(7, "fe80::/64", false),
        ];
        assert_eq!(smallest_mtu(&links, &addresses, "mgy"), Some(8900));
        assert_eq!(smallest_mtu(&links, &addresses[..1], "mgy"), None);
        let lo = [
            address(1, "192.0.2.1/32", true),
            address(1, "::1/128", false),
            address(1, "192.0.2.64/26", true),
        ];
        let all = [&lo[..], &addresses[..]].concat();
        let found = on_loopback(&links, &all);
        assert_eq!(found, [lo[0].address].into());
        let found = by_interface(&links, &all, "mgy");
        assert!(
            found["eth0"]
                .iter()
                .all(|it| all.iter().any(|a| a.address == *it && a.ifindex == 2))
        );
        assert!(!found.contains_key("lo") && !found.contains_key("mgy0"));
    }
}
