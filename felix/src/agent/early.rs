//! Before the agent: a node whose API server is behind BGP needs the routes to it before it can ask who it is. Nothing is
//! originated and nothing removed here; the agent's own stream to bgpd tells everything again.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::v1::{BgpdMessage, FelixMessage, felix_message};
use crds::net::Family;

use super::bgp::{Bgp, Change};
use crate::routes::want::Wants;

/// Best routes and nothing else.
#[derive(Debug)]
pub struct Early {
    bgp: Bgp,
    wants: Wants,
}

impl Early {
    /// None yet. The node's own packets carry `addresses`; the rest is as for [`Bgp::new`].
    #[must_use]
    pub fn new(
        instance: String,
        boot_id: String,
        preserved: [bool; 2],
        addresses: &[IpAddr],
    ) -> Self {
        let sources = addresses.iter().rev();
        let sources: BTreeMap<_, _> = sources
            .map(|address| (Family::of(*address), *address))
            .collect();
        Self {
            bgp: Bgp::new(instance, boot_id, preserved),
            wants: Wants {
                sources,
                ..Wants::default()
            },
        }
    }

    /// A stream is up: what bgpd must know. The snapshot of the origins is left open: they are not known yet.
    pub fn connect(&mut self) -> Vec<FelixMessage> {
        let mut messages = self.bgp.connect();
        messages
            .retain(|message| !matches!(message.body, Some(felix_message::Body::EndOfSnapshot(_))));
        messages
    }

    /// Takes a message of bgpd's; tells whether other routes are wanted now.
    pub fn take(&mut self, message: BgpdMessage) -> bool {
        let (Change::Routes(prefixes) | Change::Complete(prefixes)) = self.bgp.take(message) else {
            return false;
        };
        for prefix in &prefixes {
            match self.bgp.legs(prefix) {
                Some(legs) => self.wants.bgp.insert(*prefix, legs.to_vec()),
                None => self.wants.bgp.remove(prefix),
            };
        }
        !prefixes.is_empty()
    }

    /// The stream ended; the routes stay.
    pub const fn disconnect(&mut self) {
        self.bgp.disconnect();
    }

    /// What routes are wanted for.
    #[must_use]
    pub const fn wants(&self) -> &Wants {
        &self.wants
    }
}

#[cfg(test)]
mod tests {
    use api::v1::{Leg, RouteUpdate, bgpd_message};

    use super::*;

    #[test]
    fn best_routes_are_wanted_and_no_snapshot_of_origins_ends() {
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let mut early = Early::new("i".into(), "b".into(), [false; 2], &[address]);
        let messages = early.connect();
        assert_eq!(messages.len(), 2, "hello and report: {messages:?}");
        let route = |hops: &[&str]| BgpdMessage {
            body: Some(bgpd_message::Body::Route(RouteUpdate {
                generation: 1,
                prefix: "198.51.100.0/24".into(),
                legs: hops
                    .iter()
                    .map(|hop| Leg {
                        address: (*hop).into(),
                        weight: 1,
                        ..Leg::default()
                    })
                    .collect(),
            })),
        };
        assert!(early.take(route(&["192.0.2.254"])));
        assert!(!early.take(route(&["192.0.2.254"])), "known");
        early.disconnect();
        assert_eq!(early.wants().bgp.len(), 1);
        assert_eq!(early.wants().sources[&Family::V4], address);
        early.connect();
        assert!(early.take(route(&[])));
        assert!(early.wants().bgp.is_empty());
    }
}
