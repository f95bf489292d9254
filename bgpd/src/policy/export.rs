//! Which routes a peer is told, and with which attributes.

use std::fmt;
use std::net::Ipv4Addr;

use crds::net::Family;
use serde::{Deserialize, Serialize};

use crate::config::ExportClass;
use crate::nexthop::NextHop;
use crate::rib::decide::DEFAULT_LOCAL_PREF;
use crate::rib::{Source, SourceId};
use crate::wire::Attributes;
use crate::wire::attribute::community;

/// What export needs to know of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct To {
    /// The peer as a source, whose own paths do not go back to it; None in what-if questions.
    pub source: Option<SourceId>,
    /// Which routes it is told.
    pub class: ExportClass,
    /// It is in our AS.
    pub internal: bool,
    /// The AS told to it.
    pub local_asn: u32,
    /// Our BGP identifier, also our cluster's.
    pub router_id: Ipv4Addr,
    /// Our next hop for IPv4 routes, if there is one and the family is negotiated.
    pub next_hop_v4: Option<NextHop>,
    /// Our next hop for IPv6 routes, if there is one and the family is negotiated.
    pub next_hop_v6: Option<NextHop>,
}

impl To {
    /// Our next hop for routes of that family.
    pub fn next_hop(&self, family: Family) -> Option<NextHop> {
        match family {
            Family::V4 => self.next_hop_v4,
            Family::V6 => self.next_hop_v6,
        }
    }
}

/// Why a best route is not told to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExportRefusal {
    /// There is no own next hop for the family, or it is not negotiated.
    NoNextHop,
    /// Learnt from a peer, while this one is told own routes only.
    NotOrigin,
    /// Learnt from one internal peer, not to be told to another (RFC 4271 section 9.2).
    Internal,
    /// It carries NO_ADVERTISE.
    NoAdvertise,
    /// It carries NO_EXPORT or NO_EXPORT_SUBCONFED.
    NoExport,
}

impl fmt::Display for ExportRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoNextHop => "no own next hop for the family",
            Self::NotOrigin => "not originated here",
            Self::Internal => "learnt from an internal peer",
            Self::NoAdvertise => "NO_ADVERTISE",
            Self::NoExport => "NO_EXPORT",
        })
    }
}

/// The attributes a best route is told with.
pub fn export(
    family: Family,
    attributes: &Attributes,
    source: &Source,
    to: &To,
) -> Result<Attributes, ExportRefusal> {
    let own_next_hop = to.next_hop(family).ok_or(ExportRefusal::NoNextHop)?;
    let reflected = source.internal && to.internal;
    if !source.is_local() {
        if to.class == ExportClass::Origins {
            return Err(ExportRefusal::NotOrigin);
        }
        // RFC 4456 section 6: from a client to everybody, from others to clients.
        if reflected && !source.client && to.class != ExportClass::Reflect {
            return Err(ExportRefusal::Internal);
        }
        if attributes.communities.contains(&community::NO_ADVERTISE) {
            return Err(ExportRefusal::NoAdvertise);
        }
        let kept_inside = [community::NO_EXPORT, community::NO_EXPORT_SUBCONFED];
        if !to.internal
            && attributes
                .communities
                .iter()
                .any(|it| kept_inside.contains(it))
        {
            return Err(ExportRefusal::NoExport);
        }
    }
    let mut told = attributes.clone();
    if to.internal {
        told.local_pref = Some(attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF));
        if reflected {
            // RFC 4456 section 8.
            told.originator_id = Some(attributes.originator_id.unwrap_or(source.router_id));
            told.cluster_list.insert(0, to.router_id);
        }
        // RFC 4271 section 5.1.3: inside the AS a learnt next hop stays.
        if source.is_local() {
            told.next_hop = own_next_hop;
        }
    } else {
        told.as_path = attributes.as_path.prepended(to.local_asn);
        told.next_hop = own_next_hop;
        told.local_pref = None;
        told.originator_id = None;
        told.cluster_list.clear();
        // RFC 4271 section 5.1.4: a learnt MED is not for further ASes.
        if !source.is_local() {
            told.med = None;
        }
    }
    Ok(told)
}
