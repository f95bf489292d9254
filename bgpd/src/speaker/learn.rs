//! Judging what peers say, again when the policy changes, and asking them again for what was not kept.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crds::net::{Cidr, Family};

use super::peer::PeerState;
use super::{Output, Speaker};
use crate::Millis;
use crate::config::{Config, ImportPolicy, Peer, PeerKey};
use crate::nexthop::Table;
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
pub(super) type Judging = (ImportPolicy, u8, bool, Arc<Chain>);

/// Refused routes that were not kept, of one family and since it was last asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Unkept {
    /// All of them.
    pub(super) count: u64,
    /// Refused for what changes without the configuration: own prefixes and addresses.
    pub(super) passing: bool,
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
    pub(super) fn not_kept(&mut self, family: Family, refusal: ImportRefusal) {
        if let Some(up) = &mut self.up {
            let unkept = up.unkept.entry(family).or_default();
            unkept.count += 1;
            unkept.passing |= passing(refusal);
        }
    }
}

/// Whether a refusal may end without the configuration changing.
fn passing(refusal: ImportRefusal) -> bool {
    matches!(
        refusal,
        ImportRefusal::InsideOwn | ImportRefusal::OwnNextHop
    )
}

/// Whether a route is taken whose next hop is no own address: what policy says, unless that sets one.
pub(super) fn judge(
    importer: &Importer,
    table: &Table,
    prefix: Cidr,
    attributes: &Attributes,
    from: From<'_>,
) -> Result<Option<Attributes>, ImportRefusal> {
    let taken = importer.judge(prefix, attributes, from)?;
    let to_self = |changed: &Attributes| {
        changed.next_hop != attributes.next_hop && table.is_own(changed.next_hop.address)
    };
    match taken {
        Some(changed) if to_self(&changed) => Err(ImportRefusal::OwnNextHop),
        taken => Ok(taken),
    }
}

impl Speaker {
    /// Judges the import of paths anew, of those inside a prefix or of all.
    pub(super) fn judge_again(&mut self, within: Option<Cidr>) {
        let from: BTreeMap<SourceId, From<'_>> = self
            .peers
            .values()
            .map(|peer| (peer.id, peer.from()))
            .collect();
        let (importer, table) = (&self.importer, &self.table);
        self.rib.judge_again(within, |source, prefix, attributes| {
            match from.get(&source) {
                Some(_) if table.is_own(attributes.next_hop.address) => {
                    Err(ImportRefusal::OwnNextHop)
                }
                Some(from) => judge(importer, table, prefix, attributes, *from),
                // Paths of a source that is going have nobody left to judge for.
                None => Ok(None),
            }
        });
        if within.is_none() {
            self.forget_refused();
        }
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
            let lost_passing = Cell::new(false);
            self.rib.withdraw_where(peer.id, |_, refused| {
                if refused.is_some_and(passing) {
                    lost_passing.set(true);
                }
                refused.is_some()
            });
            for (family, count) in Family::ALL.into_iter().zip(refused) {
                let unkept = up.unkept.entry(family).or_default();
                unkept.count += u64::try_from(count).unwrap_or(u64::MAX);
                unkept.passing |= lost_passing.get();
            }
        }
    }
}
