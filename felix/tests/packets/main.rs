//! Policy on the whole path: two nodes, pods on both, the rest of the world between them, and random clusters, policies and
//! changes. Real packets of every protocol go from everybody to everybody, and each arrives or does not, as the reference
//! says.
//!
//! ```text
//!   mgy0 mgy1 mgy2            r: everybody else           mgy3 mgy4 mgy5
//!     └── node 0 ── up0 ── eth0 ──┴── eth1 ── up0 ── node 1 ──┘
//! ```

#[path = "../ns/mod.rs"]
mod ns;

mod network;
mod wire;

use felix::feed;

/// Modules of the crate's own tests, which name their surroundings as these are there.
#[path = "../../src/policy"]
mod policy {
    use felix::policy::{labels, model, tables};

    #[path = "tests"]
    mod tests {
        use std::collections::BTreeMap;
        use std::net::IpAddr;

        use super::model::protocol::{ICMP, ICMP6, SCTP, TCP, UDP};
        use crate::feed::{Identity, Labels, NamedPort};

        #[allow(dead_code, clippy::unwrap_used, reason = "a module of tests")]
        mod dice;
        #[path = "../../../tests/packets/random.rs"]
        mod random;
        #[allow(dead_code, reason = "the crate's tests need more")]
        mod reference;

        fn ip(text: &str) -> IpAddr {
            text.parse().expect("an address")
        }

        fn named(name: &str, protocol: u8, port: u16) -> NamedPort {
            NamedPort {
                name: name.to_owned(),
                protocol,
                port,
            }
        }
    }
}
