//! Judging what peers say, again when the policy changes, and asking them again for what was not kept.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crds::net::{Cidr, Family};

use super::peer::PeerState;
use super::{Output, Speaker};
use crate::Millis;
use crate::config::{Config, ImportPolicy, Peer, PeerKey};
use crate::nexthop::{NextHop, Table, is_link_local};
use crate::policy::filter::{Chain, Direction};
use crate::policy::import::From;
use crate::policy::{Drained, ImportRefusal, Importer};
use crate::rib::SourceId;
use crate::wire::refresh::REQUEST;
use crate::wire::{Attributes, RouteRefresh};

/// Refused routes of a peer and family that are kept where nobody asks for more: enough for most tables to be explained
/// whole, and to be judged again without asking the peer, while a peer that sends the Internet costs no memory for it.
pub const REFUSED_KEPT: usize = 1024;

/// A peer's side of policy, made from the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Policy {
    pub(super) import: Arc<Chain>,
    pub(super) export: Arc<Chain>,
    pub(super) cluster_id: Option<Ipv4Addr>,
    pub(super) require: bool,
    pub(super) drained: Drained,
}

impl Policy {
    pub(super) fn new(config: &Config, peer: &Peer, drained: Drained) -> Self {
        let Config { filters, .. } = config;
        let options = &peer.options;
        let import = Chain::new(filters, &options.import_filters, Direction::Import);
        let export = Chain::new(filters, &options.export_filters, Direction::Export);
        Self {
            import: Arc::new(import),
            export: Arc::new(export),
            cluster_id: options.cluster_id.or(config.cluster_id),
            require: config.require_policy,
            drained,
        }
    }
}

/// What a peer's routes are judged by; a difference means that refused ones might be taken now.
pub(super) type Judging = (ImportPolicy, u8, bool, bool, Arc<Chain>);

/// Refused routes that were not kept, of one family and since it was last asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Unkept {
    /// All of them.
    pub(super) count: u64,
    /// Some were refused as they are inside an own prefix, which changes without the configuration.
    pub(super) inside_own: bool,
    /// Next hops that others were refused for, which changes with own addresses; more than these if there are many.
    pub(super) next_hops: BTreeSet<IpAddr>,
}

/// Next hops that are remembered of routes that are not.
const NEXT_HOPS_KEPT: usize = 64;

impl Unkept {
    /// Whether one that was refused may be taken now that those addresses have come or gone.
    pub(super) fn is_moved(&self, moved: &Moved) -> bool {
        self.next_hops.len() >= NEXT_HOPS_KEPT
            || self.next_hops.iter().any(|it| moved.concerns(*it))
    }

    fn add(&mut self, refusal: ImportRefusal, next_hop: IpAddr) {
        self.inside_own |= refusal == ImportRefusal::InsideOwn;
        if of_next_hop(refusal) && self.next_hops.len() < NEXT_HOPS_KEPT {
            self.next_hops.insert(next_hop);
        }
    }
}

/// Own addresses that have come or gone.
#[derive(Debug, Default)]
pub(super) struct Moved {
    addresses: BTreeSet<IpAddr>,
    /// The networks they are in, but for those that every link has.
    networks: BTreeSet<Cidr>,
}

impl Moved {
    pub(super) fn extend(&mut self, addresses: Vec<(IpAddr, Cidr)>) {
        for (address, network) in addresses {
            self.addresses.insert(address);
            if !is_link_local(address) {
                self.networks.insert(network);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Whether they make a difference to routes with that next hop.
    fn concerns(&self, next_hop: IpAddr) -> bool {
        self.addresses.contains(&next_hop) || self.networks.iter().any(|it| it.contains(next_hop))
    }
}

impl PeerState {
    pub(super) fn judging(&self) -> Judging {
        let Peer {
            import, options, ..
        } = &self.config;
        let filters = self.policy.import.clone();
        (
            *import,
            options.allowed_own_as,
            options.keep_refused,
            options.reachable_by.is_some(),
            filters,
        )
    }

    /// Whether a refused route is kept when that many of its family are already.
    pub(super) fn keeps_refused(&self, kept: usize) -> bool {
        // A peer that cannot be asked again has said all that it will say.
        let again = self.session.negotiated().is_some_and(|it| it.route_refresh);
        // They count for limits, so as many are kept as a limit needs to be noticed.
        let most = self.config.options.limits.iter().map(|it| it.max).max();
        let most = most.map_or(0, |max| usize::try_from(max).unwrap_or(usize::MAX));
        self.config.options.keep_refused
            || !again
            || kept < REFUSED_KEPT.max(most.saturating_add(1))
    }

    /// Counts a refused route that is not kept.
    pub(super) fn not_kept(&mut self, family: Family, refusal: ImportRefusal, next_hop: IpAddr) {
        if let Some(up) = &mut self.up {
            let unkept = up.unkept.entry(family).or_default();
            unkept.count += 1;
            unkept.add(refusal, next_hop);
        }
    }
}

/// Whether a refusal may end with own addresses.
fn of_next_hop(refusal: ImportRefusal) -> bool {
    matches!(
        refusal,
        ImportRefusal::OwnNextHop | ImportRefusal::ForeignNextHop
    )
}

/// Whether routes with that next hop are taken from a peer.
pub(super) fn judge_next_hop(
    table: &Table,
    next_hop: NextHop,
    from: From<'_>,
) -> Result<(), ImportRefusal> {
    let address = next_hop.address;
    if table.is_own_on(address, from.ifindex) {
        return Err(ImportRefusal::OwnNextHop);
    }
    // RFC 4271 section 6.3. A link-local address, also one that comes along with another, is on the peer's link.
    let near = |neighbor| {
        address == neighbor
            || next_hop.link_local.is_some()
            || is_link_local(address)
            || table.is_empty()
            || table.shares_network(address)
    };
    match from.neighbor {
        Some(neighbor) if !near(neighbor) => Err(ImportRefusal::ForeignNextHop),
        _ => Ok(()),
    }
}

/// Whether a route is taken, when `next_hop` is what is to be said about its next hop; policy may set another one,
/// but not one that is ours.
pub(super) fn judge(
    importer: &Importer,
    table: &Table,
    prefix: Cidr,
    attributes: &Attributes,
    from: From<'_>,
    next_hop: Result<(), ImportRefusal>,
) -> Result<Option<Attributes>, ImportRefusal> {
    if next_hop == Err(ImportRefusal::OwnNextHop) {
        return Err(ImportRefusal::OwnNextHop);
    }
    let taken = importer.judge(prefix, attributes, from)?;
    match &taken {
        Some(changed) if changed.next_hop != attributes.next_hop => {
            judge_next_hop(table, changed.next_hop, from)?;
        }
        _ => next_hop?,
    }
    Ok(taken)
}

impl Speaker {
    /// Judges the import of paths anew, of those inside a prefix or of all.
    pub(super) fn judge_again(&mut self, within: Option<Cidr>) {
        self.judge_where(within, |_, _| true);
        if within.is_none() {
            self.forget_refused();
        }
    }

    /// Judges the import of paths anew to whose next hop a change of own addresses makes a difference.
    pub(super) fn judge_moved(&mut self, moved: &Moved) {
        // Policy may have set a next hop for which it was refused, which nobody remembers.
        self.judge_where(None, |next_hop, refused| {
            refused.is_some_and(of_next_hop) || moved.concerns(next_hop.address)
        });
        self.forget_refused();
    }

    fn judge_where(
        &mut self,
        within: Option<Cidr>,
        concerned: impl Fn(NextHop, Option<ImportRefusal>) -> bool,
    ) {
        let from: BTreeMap<SourceId, From<'_>> = self
            .peers
            .values()
            .map(|peer| (peer.id, peer.from()))
            .collect();
        let (importer, table) = (&self.importer, &self.table);
        self.rib
            .judge_again(within, concerned, |source, prefix, attributes| {
                match from.get(&source) {
                    Some(from) => {
                        let next_hop = judge_next_hop(table, attributes.next_hop, *from);
                        judge(importer, table, prefix, attributes, *from, next_hop)
                    }
                    // Paths of a source that is going have nobody left to judge for.
                    None => Ok(None),
                }
            });
    }

    /// Asks peers again for families of which something was not kept, where `wanted` says so.
    pub(super) fn ask_again(
        &mut self,
        now: Millis,
        out: &mut Vec<Output>,
        wanted: impl Fn(&PeerKey, &Unkept) -> bool,
    ) {
        for (key, peer) in &mut self.peers {
            let Some(up) = &peer.up else { continue };
            let families: Vec<Family> = up
                .unkept
                .iter()
                .filter(|(_, unkept)| wanted(key, unkept))
                .map(|(family, _)| *family)
                .collect();
            let Some(up) = &mut peer.up else { continue };
            for family in families {
                up.unkept.remove(&family);
                let request = RouteRefresh::unicast(family, REQUEST);
                let bytes = peer.session.refresh(up.conn, request, now);
                if let Some(connection) = self.connections.get_mut(&up.conn) {
                    connection.unsent += bytes.len();
                    out.push(Output::Send(up.conn, bytes));
                }
            }
        }
    }

    /// Drops refused routes beyond what is kept, after a policy has refused many at once.
    fn forget_refused(&mut self) {
        for peer in self.peers.values_mut() {
            let refused = Family::ALL.map(|family| {
                let count = self.rib.source_count(peer.id, family);
                count.received.saturating_sub(count.accepted)
            });
            // The one that reaches the limit is kept.
            let over = |count: &usize| *count > 0 && !peer.keeps_refused(count - 1);
            if !refused.iter().any(over) {
                continue;
            }
            let Some(up) = &mut peer.up else { continue };
            let lost = RefCell::new(Unkept::default());
            self.rib.withdraw_where(peer.id, |attributes, refused| {
                if let Some(refusal) = refused
                    && (of_next_hop(refusal) || refusal == ImportRefusal::InsideOwn)
                {
                    let next_hop = attributes().next_hop.address;
                    lost.borrow_mut().add(refusal, next_hop);
                }
                refused.is_some()
            });
            let lost = lost.into_inner();
            for (family, count) in Family::ALL.into_iter().zip(refused) {
                let unkept = up.unkept.entry(family).or_default();
                unkept.count += u64::try_from(count).unwrap_or(u64::MAX);
                unkept.inside_own |= lost.inside_own;
                unkept.next_hops.extend(&lost.next_hops);
            }
        }
    }
}
