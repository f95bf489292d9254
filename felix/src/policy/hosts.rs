//! What policy makes of this node's host endpoints: rows by interface and class.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::classes::{ClassKey, Offer};
use super::compile::Moves;
use super::engine::Engine;
use super::evaluate::Rule;
use super::function::{BySource, Function};
use super::hosted::{tiers_at, with_tiers};
use super::intervals::{Span, partition, span};
use super::lists::ListId;
use super::model::{PolicyKey, Stage};
use super::selecting::Labelled;
use super::sorting::offer;
use super::tables::{Answer, Class, Direction, Failsafe, Guard, HostHook, Program, Verdict};
use crate::feed::{self as said, HostEndpoint, HostInterface};

/// All addresses of both families.
const ANYWHERE: [Span; 2] = [
    (
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V4(Ipv4Addr::BROADCAST),
    ),
    (
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
    ),
];

/// Where a row of a host endpoint stands: `None` is every other interface, and every other class.
pub(super) type HostKey = (HostHook, Option<String>, Option<Class>);

impl HostHook {
    /// Whether policies of this stage are asked there.
    pub(super) const fn asks(self, stage: Stage) -> bool {
        match self {
            Self::LocalIn | Self::LocalOut => {
                matches!(stage, Stage::Normal | Stage::ApplyOnForward)
            }
            Self::ForwardIn | Self::ForwardOut => matches!(stage, Stage::ApplyOnForward),
            Self::PreDnat => matches!(stage, Stage::PreDnat),
            Self::RawIn | Self::RawOut => matches!(stage, Stage::DoNotTrack),
        }
    }

    /// What becomes of a flow, or packet, about which no policy of the stage says anything.
    pub(super) const fn otherwise(self) -> Verdict {
        match self {
            Self::RawIn | Self::RawOut => Verdict::Pass,
            _ => Verdict::Allow,
        }
    }

    /// Whether what policies there do not mention goes on to those of later stages, whatever their tiers do by default.
    pub(crate) const fn passes(self) -> bool {
        matches!(self, Self::PreDnat | Self::RawIn | Self::RawOut)
    }
}

/// What the rows of host endpoints come from.
#[derive(Debug, Default)]
pub(super) struct Hosting {
    /// Policies that select a host endpoint of this node.
    policies: BTreeSet<PolicyKey>,
    /// What their rules ask of the host endpoints' own addresses, as of the rows.
    own: BTreeSet<ListId>,
}

impl Engine {
    /// The ports that no policy of host endpoints closes: of the node (ingress), or elsewhere (egress).
    pub fn set_failsafes(&mut self, direction: Direction, ports: &[said::Failsafe]) {
        let mut open: BTreeMap<(u8, u16), Vec<Span>> = BTreeMap::new();
        for said in ports {
            let spans = open.entry((said.protocol, said.port)).or_default();
            match said.net {
                Some(net) => spans.push(span(net)),
                None => spans.extend(ANYWHERE),
            }
        }
        let mut wanted = BTreeSet::new();
        for ((protocol, port), spans) in open {
            let spans = partition(spans.into_iter().map(|span| (span, ())));
            wanted.extend(spans.into_iter().map(|((first, last), _)| Failsafe {
                direction,
                protocol,
                port,
                first,
                last,
            }));
        }
        let there = self.ledger.tables().failsafes.keys();
        let there: Vec<Failsafe> = there
            .filter(|it| it.direction == direction)
            .copied()
            .collect();
        for gone in there.into_iter().filter(|it| !wanted.contains(it)) {
            self.ledger.put_failsafe(gone, None);
        }
        for failsafe in wanted {
            self.ledger.put_failsafe(failsafe, Some(()));
        }
    }

    /// Which policies select which host endpoints of this node; returns those whose answer changed.
    pub(super) fn reselect_hosts(&mut self, edited: &BTreeSet<PolicyKey>) -> BTreeSet<PolicyKey> {
        let all = std::mem::take(&mut self.dirty.hosts);
        let mut changed = BTreeSet::new();
        let keys: Vec<PolicyKey> = match all {
            true => self.policies.keys().cloned().collect(),
            false => edited.iter().cloned().collect(),
        };
        for key in keys {
            let Some(installed) = self.policies.get_mut(&key) else {
                self.hosting.policies.remove(&key);
                continue;
            };
            let mut hosts = BTreeSet::new();
            for host in self.others.local_hosts() {
                self.work.selectors += 1;
                let it = Labelled::Host(host);
                if installed.policy.subject.selects(it, &self.index.inherited) {
                    hosts.insert(host.name.clone());
                }
            }
            if installed.hosts != hosts {
                match hosts.is_empty() {
                    true => self.hosting.policies.remove(&key),
                    false => self.hosting.policies.insert(key.clone()),
                };
                installed.hosts = hosts;
                changed.insert(key);
            }
        }
        self.dirty.host_rows |= all || !changed.is_empty();
        changed
    }

    /// Brings the rows of host endpoints up to date; `true` when something allowed may be forbidden now.
    pub(super) fn fill_hosts(&mut self, moves: &Moves) -> bool {
        let hosts: Vec<HostEndpoint> = self.others.local_hosts().cloned().collect();
        if hosts.is_empty() && self.ledger.tables().hosts.is_empty() {
            return false;
        }
        let unchanged = !std::mem::take(&mut self.dirty.host_rows)
            && moves.edited.is_empty()
            && self.classes.fresh().is_empty()
            && self.classes.unused().is_empty()
            // What rules say of the host endpoints' own addresses is in no class of theirs.
            && !self.own_views_moved(&self.hosting.own);
        if unchanged {
            // A class of an address that is judged differently has other rows already.
            return moves
                .classes
                .iter()
                .any(|&(before, after)| self.hosts_worse(before, after));
        }
        self.hosting.own.clear();
        let by_interface = by_interface(&hosts);
        let before = self.ledger.tables().hosts.clone();
        let mut wanted: BTreeMap<HostKey, Program> = BTreeMap::new();
        for hook in HostHook::ALL {
            let nothing = BySource::plain(Function::constant(Answer::plain(hook.otherwise())));
            let nothing = self.acquire_program(nothing);
            let mut rows = BTreeMap::new();
            for (interface, host) in &by_interface {
                self.host_rows(hook, interface.as_ref(), host, nothing, &mut rows);
            }
            if rows.values().any(|program| *program != nothing) {
                wanted.append(&mut rows);
            }
            // Nobody is asked anything there.
            for program in rows.into_values().chain([nothing]) {
                self.release_program(Some(program));
            }
        }
        for (guard, raw) in [(Guard::Flows, false), (Guard::Packets, true)] {
            let there = wanted.keys().any(|(hook, ..)| hook.is_raw() == raw);
            self.ledger.put_guard(guard, there.then_some(()));
        }
        let mut narrows = false;
        for key in before.keys().filter(|key| !wanted.contains_key(*key)) {
            self.ledger.put_host(key.clone(), None);
        }
        for (key, program) in &wanted {
            self.ledger.put_host(key.clone(), Some(*program));
        }
        // Before connections are tracked every packet is judged anyway.
        let keys = before.keys().chain(wanted.keys());
        let keys: BTreeSet<&HostKey> = keys.filter(|(hook, ..)| !hook.is_raw()).collect();
        for key in keys {
            let (old, new) = (at(&before, key), at(&wanted, key));
            narrows |= old != new && !self.covers(new, old);
        }
        for &(from, to) in &moves.classes {
            let asked = |(hook, _, class): &&HostKey| class.is_none() && !hook.is_raw();
            for (hook, interface, _) in before.keys().filter(asked) {
                let old = at(&before, &(*hook, interface.clone(), Some(from)));
                let new = at(&wanted, &(*hook, interface.clone(), Some(to)));
                narrows |= old != new && !self.covers(new, old);
            }
        }
        // The functions of before were needed until here.
        for program in before.values() {
            self.release_program(Some(*program));
        }
        narrows
    }

    fn hosts_worse(&self, before: Class, after: Class) -> bool {
        let rows = &self.ledger.tables().hosts;
        let asked = |(hook, _, class): &&HostKey| class.is_none() && !hook.is_raw();
        let mut defaults = rows.keys().filter(asked);
        defaults.any(|(hook, interface, _)| {
            let old = at(rows, &(*hook, interface.clone(), Some(before)));
            let new = at(rows, &(*hook, interface.clone(), Some(after)));
            old != new && !self.covers(new, old)
        })
    }

    /// The rows of one host endpoint at one hook. They hold their programs.
    fn host_rows(
        &mut self,
        hook: HostHook,
        interface: Option<&String>,
        host: &HostEndpoint,
        nothing: Program,
        rows: &mut BTreeMap<HostKey, Program>,
    ) {
        let direction = hook.direction();
        let asked = self.hosting.policies.iter().filter(|key| {
            self.policies.get(*key).is_some_and(|installed| {
                installed.hosts.contains(&host.name)
                    && hook.asks(installed.policy.stage)
                    && installed.rules(direction).is_some()
            })
        });
        let policies: BTreeSet<PolicyKey> = asked.cloned().collect();
        let at = |class| (hook, interface.cloned(), class);
        if policies.is_empty() {
            // It keeps the host endpoint of all other interfaces away.
            if interface.is_some() {
                self.reuse_program(nothing);
                rows.insert(at(None), nothing);
            }
            return;
        }
        let offers: BTreeSet<Offer> = host.named_ports.iter().map(offer).collect();
        let mut key = self.key_of(policies.iter(), std::iter::empty(), &offers);
        let classes: Vec<(Class, Arc<ClassKey>)> = self
            .classes
            .used()
            .map(|(number, key)| (Class(number), Arc::clone(key)))
            .collect();
        let mut causes = std::mem::take(&mut self.causes);
        // Nearly everything about a host is said by nobody.
        causes.quiet = true;
        let causes = RefCell::new(causes);
        let stages = self.stages(&policies, direction);
        let tiers = tiers_at(hook, &stages);
        let stages = with_tiers(&tiers, stages);
        let asked = stages.iter().flat_map(|stage| &stage.policies);
        let own = asked.flat_map(|policy| policy.rules.iter().flat_map(Rule::own_lists));
        let own: BTreeSet<ListId> = own.collect();
        let views = self.own_views(&own);
        let mut distinct = vec![BTreeSet::new()];
        for (_, view) in &views {
            if !distinct.contains(view) {
                distinct.push(view.clone());
            }
        }
        // What each class may do, once for every kind of own address.
        let mut found = Vec::new();
        for view in &distinct {
            key.own = [true, false]
                .into_iter()
                .flat_map(|family| view.iter().map(move |&list| (family, list)))
                .collect();
            let otherwise = hook.otherwise();
            found.push(self.rows_of(direction, &stages, otherwise, &key, &classes, &causes));
        }
        self.causes = causes.into_inner();
        self.causes.quiet = false;
        let spans: Vec<(Span, usize)> = views
            .into_iter()
            .filter_map(|(span, view)| Some((span, distinct.iter().position(|it| *it == view)?)))
            .collect();
        self.hosting.own.extend(own);
        let mut held = Vec::new();
        let mut columns = Vec::new();
        for found in found {
            self.work.functions += found.functions.len() as u64;
            let default = self.acquire_program(found.default);
            let functions = found.functions.into_iter();
            let programs: Vec<Program> = functions.map(|it| self.acquire_program(it)).collect();
            let of = |function: Option<usize>| {
                let program = function.and_then(|function| programs.get(function));
                program.copied().unwrap_or(default)
            };
            columns.push((
                default,
                found.rows.iter().map(|row| of(row.1)).collect::<Vec<_>>(),
            ));
            held.extend(programs.into_iter().chain([default]));
        }
        let combined = |engine: &mut Self, of: &dyn Fn(usize) -> Program| {
            engine.acquire_owned(of(0), spans.iter().map(|&(span, view)| (span, of(view))))
        };
        let default = combined(self, &|view| columns[view].0);
        for (index, (class, _)) in classes.iter().enumerate() {
            let program = combined(self, &|view| columns[view].1[index]);
            if program == default {
                self.release_program(Some(program));
            } else {
                rows.insert(at(Some(*class)), program);
            }
        }
        rows.insert(at(None), default);
        for program in held {
            self.release_program(Some(program));
        }
    }
}

/// The host endpoint of every interface, `None` for all others: one that somebody made comes before an automatic one,
/// and then the first by name.
pub(crate) fn by_interface<'a>(
    hosts: impl IntoIterator<Item = &'a HostEndpoint>,
) -> BTreeMap<Option<String>, &'a HostEndpoint> {
    let mut ordered: Vec<&HostEndpoint> = hosts.into_iter().collect();
    ordered.sort_by_key(|host| (host.automatic, &host.name));
    let mut found = BTreeMap::new();
    for host in ordered {
        match &host.interface {
            HostInterface::All => {
                found.entry(None).or_insert(host);
            }
            HostInterface::Named(names) => {
                for name in names {
                    found.entry(Some(name.clone())).or_insert(host);
                }
            }
        }
    }
    found
}

/// The program that the rows give an interface and a class; no rows at all allow everything.
fn at(rows: &BTreeMap<HostKey, Program>, key: &HostKey) -> Program {
    let (hook, interface, _) = key;
    let row = rows.get(key);
    let row = row.or_else(|| rows.get(&(*hook, interface.clone(), None)));
    let row = row.or_else(|| rows.get(&(*hook, None, key.2)));
    let row = row.or_else(|| rows.get(&(*hook, None, None)));
    row.copied().unwrap_or(Program::ALLOW)
}

impl HostHook {
    /// Which of a policy's rules are asked there.
    #[must_use]
    pub const fn direction(self) -> Direction {
        match self {
            Self::LocalIn | Self::ForwardIn | Self::PreDnat | Self::RawIn => Direction::Ingress,
            Self::LocalOut | Self::ForwardOut | Self::RawOut => Direction::Egress,
        }
    }
}
