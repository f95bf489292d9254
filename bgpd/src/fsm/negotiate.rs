//! OPEN: what is offered, what is accepted, what both sides then have in common.

use std::net::Ipv4Addr;

use crds::net::Family;
use serde::Serialize;

use super::Settings;
use crate::Millis;
use crate::wire::capability::{GracefulRestart, LongLived, PathsOf};
use crate::wire::nlri::{SAFI_UNICAST, afi, family_of};
use crate::wire::notification::OpenError;
use crate::wire::{Capability, Dialect, Families, Notification, Open};

/// What two OPENs have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// The peer's AS.
    pub asn: u32,
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
    /// Begin and end of a refresh are marked (RFC 7313).
    pub enhanced_refresh: bool,
    /// What the peer said about its restarts; None: one side does not do graceful restart.
    pub restart: Option<PeerRestart>,
    /// Everything the peer announced.
    pub capabilities: Vec<Capability>,
    /// Everything it was announced.
    pub announced: Vec<Capability>,
}

/// Graceful restart as the peer announced it, of negotiated families only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerRestart {
    /// The peer has restarted and its routes are not complete: nobody waits for its End-of-RIB (R bit).
    pub restarted: bool,
    /// Both sides keep routes after a NOTIFICATION too (RFC 8538).
    pub notifications: bool,
    /// How long the peer may take to come back.
    pub time: Millis,
    /// Families it can keep forwarding for.
    pub families: Families,
    /// Those of them it has kept forwarding for until now (F bit).
    pub preserved: Families,
    /// How long each family is kept after that (RFC 9494), and whether it has been kept until now.
    pub long_lived: Vec<(Family, Millis, bool)>,
}

impl PeerRestart {
    /// How long a family is kept as long-lived stale; 0: not.
    pub fn long_lived_time(&self, family: Family) -> Millis {
        let find = self.long_lived.iter().find(|(it, ..)| *it == family);
        find.map_or(0, |(_, time, _)| *time)
    }
}

/// What this speaker can say about its own restart (RFC 4724 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forwarding {
    /// It has restarted while routes were kept, and is not complete again yet (R bit).
    pub restarted: bool,
    /// Families whose routes have stayed in the kernel all the time (F bit).
    pub preserved: Families,
}

/// How much of what this speaker can do is put into OPEN. A peer that refuses an OPEN because of it is offered less
/// (RFC 5492 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Offer {
    /// No capability at all.
    Nothing,
    /// What routes cannot be exchanged without.
    Needed,
    /// All.
    #[default]
    Everything,
}

impl Offer {
    /// The next smaller one with which a session is still worth having: without capabilities there is only IPv4 and no
    /// 4-octet AS.
    pub fn less(self, settings: &Settings) -> Self {
        match self {
            Self::Everything => Self::Needed,
            Self::Needed | Self::Nothing
                if settings.families.contains(&Family::V4)
                    && u16::try_from(settings.local_asn).is_ok() =>
            {
                Self::Nothing
            }
            it => it,
        }
    }
}

/// The OPEN of a session with these settings.
pub fn offer(settings: &Settings, offer: Offer, forwarding: Forwarding) -> Open {
    let (asn, hold_time, id) = (settings.local_asn, settings.hold_time, settings.router_id);
    if offer == Offer::Nothing {
        return Open {
            capabilities: Vec::new(),
            ..Open::new(asn, hold_time, id, Vec::new())
        };
    }
    let mut capabilities = wanted(settings);
    if offer == Offer::Everything {
        optional(settings, forwarding, &mut capabilities);
    }
    Open::new(asn, hold_time, id, capabilities)
}

fn wanted(settings: &Settings) -> Vec<Capability> {
    settings
        .families
        .iter()
        .map(|family| Capability::unicast(*family))
        .collect()
}

fn optional(settings: &Settings, forwarding: Forwarding, out: &mut Vec<Capability>) {
    out.push(Capability::RouteRefresh);
    out.push(Capability::EnhancedRefresh);
    out.push(Capability::ExtendedMessage);
    let unicast = u16::from(SAFI_UNICAST);
    if settings.extended_next_hop {
        let of = (afi(Family::V4), unicast, afi(Family::V6));
        out.push(Capability::ExtendedNextHop(vec![of]));
    }
    let (receive, send) = (settings.add_path.receive, settings.add_path.send > 1);
    if receive || send {
        let of = |family: &Family| PathsOf {
            afi: afi(*family),
            safi: SAFI_UNICAST,
            receive,
            send,
        };
        out.push(Capability::AddPath(
            settings.families.iter().map(of).collect(),
        ));
    }
    let graceful = &settings.graceful_restart;
    if !graceful.enabled {
        return;
    }
    let families = settings.families.iter().copied();
    let of = |family| {
        let preserved = forwarding.preserved.contains(family);
        (afi(family), SAFI_UNICAST, preserved)
    };
    out.push(Capability::GracefulRestart(GracefulRestart {
        restarted: forwarding.restarted,
        notifications: true,
        time: graceful.restart_time,
        families: families.clone().map(of).collect(),
    }));
    if graceful.long_lived_time > 0 {
        let of = |family| LongLived {
            afi: afi(family),
            safi: SAFI_UNICAST,
            preserved: forwarding.preserved.contains(family),
            time: graceful.long_lived_time,
        };
        out.push(Capability::LongLived(families.map(of).collect()));
    }
}

/// Whether the peer's OPEN is acceptable (RFC 4271 section 6.2), and what follows from it and from the OPEN it was sent.
pub fn accept(open: &Open, sent: &Open, settings: &Settings) -> Result<Negotiated, Notification> {
    // RFC 7607: AS 0 is nobody's, not even by configuration.
    if open.asn() == 0 || !settings.expects(open.asn()) {
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
    let (ours, theirs) = (offered(sent), offered(open));
    let mut families = settings.families.clone();
    families.retain(|it| ours.contains(it) && theirs.contains(it));
    if families.is_empty() {
        let mut data = Vec::new();
        wanted(settings)
            .iter()
            .for_each(|capability| capability.encode(&mut data));
        return Err(Notification::open(OpenError::UnsupportedCapability, &data));
    }
    let both = |capability| {
        open.capabilities.contains(&capability) && sent.capabilities.contains(&capability)
    };
    let next_hop = |it: &Open| it.capabilities.iter().any(has_extended_next_hop);
    let dialect = Dialect {
        four_octet_as: open.four_octet_as().is_some() && sent.four_octet_as().is_some(),
        internal,
        extended_message: both(Capability::ExtendedMessage),
        extended_next_hop: next_hop(open) && next_hop(sent),
        paths_sent: paths(&families, sent, open),
        paths_received: paths(&families, open, sent),
    };
    Ok(Negotiated {
        asn: open.asn(),
        router_id: open.router_id,
        // RFC 4271 section 4.2: the smaller one; 0 means that neither sends keepalives.
        hold_time: open.hold_time.min(settings.hold_time),
        dialect,
        route_refresh: both(Capability::RouteRefresh),
        enhanced_refresh: both(Capability::EnhancedRefresh),
        restart: restart(&families, open, sent),
        families,
        capabilities: open.capabilities.clone(),
        announced: sent.capabilities.clone(),
    })
}

/// Families an OPEN speaks of.
fn offered(open: &Open) -> Vec<Family> {
    let multi_protocol = |it: &Capability| matches!(it, Capability::MultiProtocol { .. });
    let mut families: Vec<Family> = open
        .capabilities
        .iter()
        .filter_map(Capability::family)
        .collect();
    if !open.capabilities.iter().any(multi_protocol) {
        // RFC 4760 section 8: a speaker without the capability speaks of IPv4 only.
        families.push(Family::V4);
    }
    families
}

fn has_extended_next_hop(capability: &Capability) -> bool {
    let of = (afi(Family::V4), u16::from(SAFI_UNICAST), afi(Family::V6));
    matches!(capability, Capability::ExtendedNextHop(all) if all.contains(&of))
}

/// Families in which `sender` tells several paths and `receiver` takes them.
fn paths(families: &[Family], sender: &Open, receiver: &Open) -> Families {
    let says = |open: &Open, family: Family, what: fn(&PathsOf) -> bool| {
        // RFC 7911 section 4: of several for one family the first counts.
        let mut all = open.capabilities.iter().filter_map(|it| match it {
            Capability::AddPath(all) => Some(all),
            _ => None,
        });
        all.next().is_some_and(|all| {
            let mut of = all
                .iter()
                .filter(|it| family_of(it.afi, it.safi) == Some(family));
            of.next().is_some_and(what)
        })
    };
    families
        .iter()
        .copied()
        .filter(|it| says(sender, *it, |it| it.send) && says(receiver, *it, |it| it.receive))
        .collect()
}

fn graceful(open: &Open) -> Option<&GracefulRestart> {
    // RFC 4724 section 3: of several the last one counts.
    let mut all = open.capabilities.iter().rev();
    all.find_map(|it| match it {
        Capability::GracefulRestart(it) => Some(it),
        _ => None,
    })
}

fn long_lived(open: &Open) -> &[LongLived] {
    let mut all = open.capabilities.iter().rev();
    let find = all.find_map(|it| match it {
        Capability::LongLived(it) => Some(it),
        _ => None,
    });
    find.map_or(&[], Vec::as_slice)
}

fn restart(families: &[Family], open: &Open, sent: &Open) -> Option<PeerRestart> {
    let (theirs, ours) = (graceful(open)?, graceful(sent)?);
    let listed = |only_preserved: bool| {
        let all = theirs.families.iter();
        all.filter(move |(_, _, preserved)| *preserved || !only_preserved)
            .filter_map(|(afi, safi, _)| family_of(*afi, *safi))
            .filter(|it| families.contains(it))
            .collect()
    };
    // RFC 9494 section 4.1: it means nothing unless both announced it.
    let both = !long_lived(sent).is_empty();
    let long_lived = long_lived(open).iter().filter_map(|it| {
        let family = family_of(it.afi, it.safi).filter(|family| families.contains(family))?;
        Some((family, Millis::from(it.time) * 1000, it.preserved))
    });
    Some(PeerRestart {
        restarted: theirs.restarted,
        notifications: theirs.notifications && ours.notifications,
        time: Millis::from(theirs.time) * 1000,
        families: listed(false),
        preserved: listed(true),
        long_lived: long_lived.filter(|_| both).collect(),
    })
}
