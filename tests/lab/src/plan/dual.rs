//! The dual-ToR fabric: two ToRs for each rack, each in an AS of its own, and a spine above all of them.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Dual, Rack, Spine, Tor, Uplink};

/// Links between two machines are numbered from here; /31 and /127 (RFC 3021, RFC 6164), the even address is the
/// router's that is nearer to the spine.
fn link(net: [u8; 2], subnet: u16, even: u16) -> [Dual; 2] {
    [even, even + 1].map(|n| {
        let [high, low] = n.to_be_bytes();
        Dual {
            v4: Ipv4Addr::new(172, 30, net[0] + high, net[1] + low),
            v6: Ipv6Addr::new(0xfd00, 0x30, subnet, 0, 0, 0, 0, u16::from(net[1]) + n),
        }
    })
}

fn spine_link(tor: usize) -> [Dual; 2] {
    let even = u16::try_from(2 * tor).expect("invariant: there are four ToRs");
    link([0, 16], 0, even)
}

/// The spine's end of its link to a ToR, by the ToR's place in the plan.
pub(crate) fn spine_end(tor: usize) -> Dual {
    spine_link(tor)[0]
}

pub(super) fn tors() -> Vec<Tor> {
    let both = Rack::ALL
        .into_iter()
        .flat_map(|rack| [(rack, 1), (rack, 2)]);
    both.enumerate()
        .map(|(place, (rack, k))| {
            let r = rack.number();
            Tor {
                name: format!("tor-{rack}{k}"),
                rack,
                asn: tor_asn(rack, k),
                address: Dual {
                    v4: Ipv4Addr::new(172, 30, r, k),
                    v6: Ipv6Addr::new(0xfd00, 0x30, r.into(), 0, 0, 0, 0, k.into()),
                },
                link: spine_link(place)[1],
                segment: [format!("172.30.{r}.0/24"), format!("fd00:30:{r}::/64")],
            }
        })
        .collect()
}

fn tor_asn(rack: Rack, k: u8) -> u32 {
    65000 + 10 * u32::from(rack.number()) + u32::from(k)
}

pub(super) fn spine() -> Spine {
    Spine {
        name: "spine".to_owned(),
        asn: 65000,
        address: Dual {
            v4: Ipv4Addr::new(172, 30, 0, 1),
            v6: Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 1),
        },
        api_link: link([0, 100], 0, 0)[0],
    }
}

pub(super) fn api_address() -> Dual {
    link([0, 100], 0, 0)[1]
}

/// The links of node `i`: eth0 to the first ToR of its rack, eth1 to the second.
pub(super) fn uplinks(i: u8, rack: Rack) -> Vec<Uplink> {
    [1_u8, 2]
        .into_iter()
        .map(|k| {
            let even = 4 * u16::from(i) + 2 * u16::from(k - 1);
            let [far, near] = link([64, 0], 0x64, even);
            Uplink {
                interface: format!("eth{}", k - 1),
                tor: format!("tor-{rack}{k}"),
                tor_asn: tor_asn(rack, k),
                near,
                far,
            }
        })
        .collect()
}
