//! One configured peer: its session, and its place in the tables.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crds::net::{Cidr, Family};

use crate::Millis;
use crate::config::{Distance, ExportClass, Peer};
use crate::fsm::{PeerRestart, Session, Settings};
use crate::nexthop::{NextHop, Table};
use crate::policy::drain::Stage;
use crate::policy::export::To;
use crate::policy::import::From;
use crate::rib::{Source, SourceId, group};
use crate::wire::{Dialect, Families};

use super::learn::{Policy, Unkept};
use super::restart::Stale;
use super::{ConnId, Hindrance};

/// One configured peer.
#[derive(Debug)]
pub(super) struct PeerState {
    pub(super) id: SourceId,
    pub(super) config: Peer,
    /// What the configuration says about its routes.
    pub(super) policy: Policy,
    pub(super) session: Session,
    /// When the session's next tick is due, as the speaker's timers have it.
    pub(super) due: Option<Millis>,
    pub(super) up: Option<Up>,
    /// Why the session is not started.
    pub(super) hindrance: Option<Hindrance>,
    /// The range it connected from, when it is not configured by itself.
    pub(super) range: Option<Cidr>,
    /// The last session, which the routes kept of it are judged by.
    pub(super) last: Last,
    /// Routes that are not fresh, by family.
    pub(super) stale: BTreeMap<Family, Stale>,
    /// Families of which more prefixes have come in this session than may.
    pub(super) over: Vec<Family>,
    /// The family that ended the last session by its number of prefixes.
    pub(super) torn_down: Option<Family>,
}

/// What import needs to know of a session, also when it is over.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Last {
    /// The peer's AS; 0 before the first session.
    pub(super) asn: u32,
    pub(super) ifindex: Option<u32>,
    /// The peer's address.
    pub(super) address: Option<IpAddr>,
}

/// What exists while the session is established.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) conn: ConnId,
    pub(super) to: To,
    /// Families whose End-of-RIB has been sent, and received.
    pub(super) eor_sent: Vec<Family>,
    pub(super) eor_received: Vec<Family>,
    /// Refused routes that were not kept.
    pub(super) unkept: BTreeMap<Family, Unkept>,
    /// Paths that there was no room for, as the peer has too many to one prefix.
    pub(super) surplus: u64,
    /// Families that could not be announced for want of a next hop; said once.
    pub(super) missing: Vec<Family>,
    /// What the peer said about its restarts.
    pub(super) restart: Option<PeerRestart>,
    /// Families that the peer wants again, and those that are being repeated; both, if it has asked again meanwhile.
    pub(super) asked: Vec<Family>,
    pub(super) refreshing: Vec<Family>,
}

impl PeerState {
    /// The session's families; none before it is established.
    pub(super) fn families(&self) -> &[Family] {
        self.session.negotiated().map_or(&[], |it| &it.families)
    }

    /// Whether the best paths after a start wait for this peer (RFC 4724 section 4.1): only while nothing says
    /// that it is down, and once it is up for its End-of-RIB, if it has promised one. A peer that restarts itself would
    /// wait for us.
    pub(super) fn is_awaited(&self, coming: bool, kept: bool) -> bool {
        let Some(up) = &self.up else {
            // A passive one has to be given a chance to come back, but only where there are routes of it to be kept.
            let passive = self.session.settings().passive;
            let coming = coming && self.session.is_coming() && (kept || !passive);
            // What there is of it in the kernel would be gone, though it is about to be said again.
            return coming || kept && self.session.is_likely();
        };
        // Whoever names none of them keeps nothing, but does send End-of-RIB (RFC 4724 section 3).
        up.restart.as_ref().is_some_and(|restart| {
            let all = restart.families == Families::NONE;
            let promised = |it: &Family| all || restart.families.contains(*it);
            let mut families = self.families().iter().filter(|it| promised(it));
            !restart.restarted && families.any(|it| !up.eor_received.contains(it))
        })
    }

    /// Whether the session may not be started.
    pub(super) fn is_blocked(&self) -> bool {
        self.hindrance.as_ref().is_some_and(Hindrance::blocks)
    }

    /// What import needs to know.
    pub(super) fn from(&self) -> From<'_> {
        let settings = self.session.settings();
        let options = &self.config.options;
        let one_hop = match options.distance {
            Distance::Direct => options.reachable_by.is_none(),
            Distance::Secure(hops) => hops <= 1,
            Distance::Multihop(_) => false,
        };
        From {
            // Without a fixed AS the session knows none while it is down, but its routes may be kept.
            asn: match self.session.remote_asn() {
                0 => self.last.asn,
                asn => asn,
            },
            local_asn: settings.local_asn,
            policy: self.config.import,
            allowed_own_as: self.config.options.allowed_own_as,
            filters: &self.policy.import,
            leaving: self.policy.drained.peer != Stage::InUse,
            ifindex: self.last.ifindex,
            neighbor: self
                .last
                .address
                .filter(|_| one_hop && !settings.is_internal()),
            workload: self.config.options.workload,
        }
    }

    /// What the decision process needs to know, once the session is established.
    pub(super) fn source(&self, table: &Table) -> Option<Source> {
        let (local, remote) = self.session.ends()?;
        Some(Source {
            address: Some(remote.ip()),
            internal: self.session.settings().is_internal(),
            client: self.config.export == ExportClass::Reflect,
            router_id: self.session.negotiated()?.router_id,
            ifindex: session_interface(table, local, remote),
            workload: self.config.options.workload,
        })
    }

    /// What decides what the peer is told.
    pub(super) fn key_of(&self, to: To, dialect: Dialect) -> group::Key {
        let several = dialect.paths_sent != Families::NONE;
        let paths = match several {
            true => self.config.options.add_path.send,
            false => 1,
        };
        group::Key { to, dialect, paths }
    }

    /// What export needs to know, once the session is established.
    pub(super) fn to(&self, table: &Table) -> Option<To> {
        let (local, remote) = self.session.ends()?;
        let negotiated = self.session.negotiated()?;
        let extended = negotiated.dialect.extended_next_hop;
        let Settings {
            router_id,
            local_asn,
            ..
        } = *self.session.settings();
        let ifindex = session_interface(table, local, remote);
        let ends = (local.ip(), remote.ip());
        let next_hop = |family: Family| {
            let negotiated = self.families().contains(&family);
            negotiated
                .then(|| own_next_hop(table, family, ends, ifindex, extended))
                .flatten()
        };
        Some(To {
            class: self.config.export,
            internal: self.session.settings().is_internal(),
            local_asn,
            cluster_id: self.policy.cluster_id.unwrap_or(router_id),
            next_hop_v4: next_hop(Family::V4),
            next_hop_v6: next_hop(Family::V6),
            extended_next_hop: extended,
            next_hop: self.config.options.next_hop,
            filters: self.policy.export.clone(),
            require_policy: self.policy.require,
            drained: self.policy.drained,
            long_lived: negotiated
                .restart
                .as_ref()
                .is_some_and(|it| !it.long_lived.is_empty()),
        })
    }
}

/// The interface a session runs over: that of a link-local end, or that of the own address.
pub(super) fn session_interface(
    table: &Table,
    local: SocketAddr,
    remote: SocketAddr,
) -> Option<u32> {
    for end in [remote, local] {
        if let SocketAddr::V6(v6) = end
            && v6.scope_id() != 0
        {
            return Some(v6.scope_id());
        }
    }
    // The own address may be on lo, with the peer on an uplink.
    table
        .connected(remote.ip())
        .or_else(|| table.interface_of(local.ip()))
}

/// Our next hop for routes of a family: the session's own address, or for the other family an own address on the
/// same interface.
fn own_next_hop(
    table: &Table,
    family: Family,
    (local, remote): (IpAddr, IpAddr),
    ifindex: Option<u32>,
    extended: bool,
) -> Option<NextHop> {
    let on_interface = |family| table.own_address(ifindex?, family);
    let link_local = is_link_local(local);
    let address = match Family::of(local) == family {
        true if !link_local => local,
        true => on_interface(family).unwrap_or(local),
        // RFC 8950; where there are only link-local addresses on purpose, an IPv4 one is not looked for.
        false if extended && link_local => on_interface(Family::V6).unwrap_or(local),
        false if extended && local.is_ipv6() => on_interface(family).unwrap_or(local),
        false => on_interface(family)?,
    };
    // RFC 2545 section 3: a link-local address too if the peer is on the same link.
    let shares_link = link_local || ifindex.is_some() && table.connected(remote) == ifindex;
    let second = ifindex.filter(|_| shares_link && address.is_ipv6() && !is_link_local(address));
    Some(NextHop {
        address,
        link_local: second.and_then(|ifindex| table.link_local(ifindex)),
    })
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
