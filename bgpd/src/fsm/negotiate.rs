//! OPEN: what is offered, what is accepted, what both sides then have in common.

use std::net::Ipv4Addr;

use crds::net::Family;

use super::Settings;
use crate::wire::notification::OpenError;
use crate::wire::{Capability, Dialect, Notification, Open};

/// What two OPENs have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// The peer's BGP identifier.
    pub router_id: Ipv4Addr,
    /// Hold time, seconds; 0: none.
    pub hold_time: u16,
    /// Families both offered, in our order.
    pub families: Vec<Family>,
    /// How UPDATEs are written and read.
    pub dialect: Dialect,
    /// The peer can be asked for its routes again.
    pub route_refresh: bool,
    /// Everything the peer announced.
    pub capabilities: Vec<Capability>,
}

/// The OPEN of a session with these settings. Graceful restart is not announced, as it is not done.
pub fn offer(settings: &Settings) -> Open {
    let mut capabilities = wanted(settings);
    capabilities.push(Capability::RouteRefresh);
    Open::new(
        settings.local_asn,
        settings.hold_time,
        settings.router_id,
        capabilities,
    )
}

fn wanted(settings: &Settings) -> Vec<Capability> {
    settings
        .families
        .iter()
        .map(|family| Capability::unicast(*family))
        .collect()
}

/// Whether the peer's OPEN is acceptable (RFC 4271 section 6.2), and what follows from it.
pub fn accept(open: &Open, settings: &Settings) -> Result<Negotiated, Notification> {
    // RFC 7607: AS 0 is nobody's, not even by configuration.
    if open.asn() == 0 || open.asn() != settings.remote_asn {
        return Err(Notification::open(OpenError::BadPeerAs, &[]));
    }
    let internal = settings.is_internal();
    // RFC 6286 section 2.2: any number but zero, which only within an AS has to differ from ours.
    if open.router_id.is_unspecified() || internal && open.router_id == settings.router_id {
        return Err(Notification::open(OpenError::BadIdentifier, &[]));
    }
    if matches!(open.hold_time, 1 | 2) {
        return Err(Notification::open(OpenError::UnacceptableHoldTime, &[]));
    }
    let mut offered: Vec<Family> = open
        .capabilities
        .iter()
        .filter_map(Capability::family)
        .collect();
    let multi_protocol = |it: &Capability| matches!(it, Capability::MultiProtocol { .. });
    if !open.capabilities.iter().any(multi_protocol) {
        // RFC 4760 section 8: a speaker without the capability speaks of IPv4 only.
        offered.push(Family::V4);
    }
    let families: Vec<Family> = settings
        .families
        .iter()
        .copied()
        .filter(|it| offered.contains(it))
        .collect();
    if families.is_empty() {
        let mut data = Vec::new();
        wanted(settings)
            .iter()
            .for_each(|capability| capability.encode(&mut data));
        return Err(Notification::open(OpenError::UnsupportedCapability, &data));
    }
    // RFC 4271 section 4.2: the smaller one; 0 means that neither sends keepalives.
    let hold_time = open.hold_time.min(settings.hold_time);
    Ok(Negotiated {
        router_id: open.router_id,
        hold_time,
        families,
        dialect: Dialect {
            four_octet_as: open.four_octet_as().is_some(),
            internal,
        },
        route_refresh: open.capabilities.contains(&Capability::RouteRefresh),
        capabilities: open.capabilities.clone(),
    })
}
