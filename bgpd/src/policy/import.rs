//! Which routes are taken from peers.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crds::net::Cidr;
use serde::{Deserialize, Serialize};

use crate::config::{Config, ImportPolicy, Pool};
use crate::wire::Attributes;

/// Why a route is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImportRefusal {
    /// Our AS is in its path (RFC 4271 section 9.1.2).
    AsLoop,
    /// Its path does not start with the peer's AS (RFC 4271 section 6.3).
    FirstAs,
    /// This speaker made it, and it came back through a reflector (RFC 4456 section 8).
    OwnOriginator,
    /// Our cluster is in its cluster list (RFC 4456 section 8).
    ClusterLoop,
    /// Its next hop is one of our own addresses (RFC 4271 section 5.1.3).
    OwnNextHop,
    /// A prefix that never is routed: loopback, link-local, multicast.
    Martian,
    /// A default route that no configured range asks for.
    DefaultRoute,
    /// Inside a prefix that this speaker originates.
    InsideOwn,
    /// Longer than the blocks of its pool.
    LongerThanBlock,
    /// Neither in a pool nor in a configured range.
    OutsidePools,
}

impl fmt::Display for ImportRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AsLoop => "own AS in the path",
            Self::FirstAs => "path does not start with the peer's AS",
            Self::OwnOriginator => "reflected to its originator",
            Self::ClusterLoop => "own cluster in the cluster list",
            Self::OwnNextHop => "next hop is an own address",
            Self::Martian => "not a routable prefix",
            Self::DefaultRoute => "default route not asked for",
            Self::InsideOwn => "inside an own prefix",
            Self::LongerThanBlock => "longer than the pool's blocks",
            Self::OutsidePools => "outside of pools and configured ranges",
        })
    }
}

/// What import needs to know of the peer.
#[derive(Debug, Clone, Copy)]
pub struct From {
    /// Its AS.
    pub asn: u32,
    /// The AS told to it.
    pub local_asn: u32,
    /// Which policy applies.
    pub policy: ImportPolicy,
}

/// The speaker's side of import: pools, ranges and own prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Importer {
    router_id: Ipv4Addr,
    asn: u32,
    pools: Vec<Pool>,
    ranges: Vec<Cidr>,
    own: BTreeSet<Cidr>,
}

impl Importer {
    /// What `config` says, with the prefixes originated now.
    pub fn new(config: &Config, own: impl IntoIterator<Item = Cidr>) -> Self {
        Self {
            router_id: config.router_id,
            asn: config.asn,
            pools: config.pools.clone(),
            ranges: config.import_ranges.clone(),
            own: own.into_iter().collect(),
        }
    }

    /// A prefix is originated now, or no longer.
    pub fn own(&mut self, prefix: Cidr, present: bool) {
        if present {
            self.own.insert(prefix);
        } else {
            self.own.remove(&prefix);
        }
    }

    /// Whether a route is taken.
    pub fn judge(
        &self,
        prefix: Cidr,
        attributes: &Attributes,
        from: From,
    ) -> Result<(), ImportRefusal> {
        self.judge_path(attributes, from)?;
        if is_martian(prefix) {
            return Err(ImportRefusal::Martian);
        }
        match from.policy {
            ImportPolicy::All => Ok(()),
            ImportPolicy::Pools => self.judge_prefix(prefix),
        }
    }

    /// What RFC 4271 forbids, whatever the policy.
    fn judge_path(&self, attributes: &Attributes, from: From) -> Result<(), ImportRefusal> {
        let path = &attributes.as_path;
        if path.contains(from.local_asn) || path.contains(self.asn) {
            return Err(ImportRefusal::AsLoop);
        }
        if from.asn == from.local_asn {
            if attributes.originator_id == Some(self.router_id) {
                return Err(ImportRefusal::OwnOriginator);
            }
            if attributes.cluster_list.contains(&self.router_id) {
                return Err(ImportRefusal::ClusterLoop);
            }
        } else if path.first() != Some(from.asn) {
            return Err(ImportRefusal::FirstAs);
        }
        Ok(())
    }

    fn judge_prefix(&self, prefix: Cidr) -> Result<(), ImportRefusal> {
        if prefix.prefix_len() == 0 {
            let asked = self.ranges.contains(&prefix);
            return if asked {
                Ok(())
            } else {
                Err(ImportRefusal::DefaultRoute)
            };
        }
        if self.own.iter().any(|own| own.covers(prefix)) {
            return Err(ImportRefusal::InsideOwn);
        }
        // A default route among the ranges stands for itself only.
        if self
            .ranges
            .iter()
            .any(|range| range.prefix_len() > 0 && range.covers(prefix))
        {
            return Ok(());
        }
        let mut refusal = ImportRefusal::OutsidePools;
        for pool in self.pools.iter().filter(|pool| pool.cidr.covers(prefix)) {
            if prefix.prefix_len() <= pool.block_size {
                return Ok(());
            }
            refusal = ImportRefusal::LongerThanBlock;
        }
        Err(refusal)
    }
}

fn is_martian(prefix: Cidr) -> bool {
    // A default route holds everything; only prefixes that lie wholly inside such a range are meant.
    prefix.prefix_len() > 0
        && match prefix.first() {
            IpAddr::V4(v4) => {
                v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast()
            }
            IpAddr::V6(v6) => {
                v6.is_loopback()
                    || v6.is_unicast_link_local()
                    || v6.is_multicast()
                    || v6.to_ipv4_mapped().is_some()
            }
        }
}
