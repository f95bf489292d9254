//! What policy makes of this node's host endpoints: rows by interface and class.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::classes::{ClassKey, Offer};
use super::compile::Moves;
use super::engine::Engine;
use super::evaluate::Tiered;
use super::function::BySource;
use super::model::{Action, PolicyKey, Stage, Tier};
use super::selecting::Labelled;
use super::sorting::offer;
use super::tables::{Class, Direction, HostHook, Program};
use crate::feed::{HostEndpoint, HostInterface};

/// Where a row of a host endpoint stands: `None` is every other interface, and every other class.
pub(super) type HostKey = (HostHook, Option<String>, Option<Class>);

impl HostHook {
    /// Whether policies of this stage are asked there.
    const fn asks(self, stage: Stage) -> bool {
        match self {
            Self::LocalIn | Self::LocalOut => {
                matches!(stage, Stage::Normal | Stage::ApplyOnForward)
            }
            Self::ForwardIn | Self::ForwardOut => matches!(stage, Stage::ApplyOnForward),
            Self::PreDnat => matches!(stage, Stage::PreDnat),
        }
    }
}

impl Engine {
    /// Which policies select which host endpoints of this node; returns those whose answer changed.
    pub(super) fn reselect_hosts(&mut self, edited: &BTreeSet<PolicyKey>) -> BTreeSet<PolicyKey> {
        let all = std::mem::take(&mut self.dirty.hosts);
        let mut changed = BTreeSet::new();
        for (key, installed) in &mut self.policies {
            if !all && !edited.contains(key) {
                continue;
            }
            let mut hosts = BTreeSet::new();
            for host in self.others.local_hosts() {
                self.work.selectors += 1;
                let it = Labelled::Host(host);
                if installed.policy.subject.selects(it, &self.index.inherited) {
                    hosts.insert(host.name.clone());
                }
            }
            if installed.hosts != hosts {
                installed.hosts = hosts;
                changed.insert(key.clone());
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
            && self.classes.unused().is_empty();
        if unchanged {
            // A class of an address that is judged differently has other rows already.
            return moves
                .classes
                .iter()
                .any(|&(before, after)| self.hosts_worse(before, after));
        }
        let mut by_interface: BTreeMap<Option<String>, &HostEndpoint> = BTreeMap::new();
        for host in &hosts {
            let interface = match &host.interface {
                HostInterface::All => None,
                HostInterface::Named(name) => Some(name.clone()),
            };
            by_interface.entry(interface).or_insert(host);
        }
        let before = self.ledger.tables().hosts.clone();
        let mut wanted: BTreeMap<HostKey, Program> = BTreeMap::new();
        for (interface, host) in &by_interface {
            for hook in HostHook::ALL {
                self.host_rows(hook, interface.as_ref(), host, &mut wanted);
            }
        }
        self.ledger
            .put_guard((), (!wanted.is_empty()).then_some(()));
        let mut narrows = false;
        for key in before.keys().filter(|key| !wanted.contains_key(*key)) {
            self.ledger.put_host(key.clone(), None);
        }
        for (key, program) in &wanted {
            self.ledger.put_host(key.clone(), Some(*program));
        }
        let keys: BTreeSet<&HostKey> = before.keys().chain(wanted.keys()).collect();
        for key in keys {
            let (old, new) = (at(&before, key), at(&wanted, key));
            narrows |= old != new && !self.covers(new, old);
        }
        for &(from, to) in &moves.classes {
            for (hook, interface, _) in before.keys().filter(|(.., class)| class.is_none()) {
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
        let mut defaults = rows.keys().filter(|(.., class)| class.is_none());
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
        rows: &mut BTreeMap<HostKey, Program>,
    ) {
        let direction = hook.direction();
        let asked = self.policies.iter().filter(|(_, installed)| {
            installed.hosts.contains(&host.name)
                && hook.asks(installed.policy.stage)
                && installed.rules(direction).is_some()
        });
        let policies: BTreeSet<PolicyKey> = asked.map(|(key, _)| key.clone()).collect();
        let at = |class| (hook, interface.cloned(), class);
        if policies.is_empty() {
            // It keeps the host endpoint of all other interfaces away.
            if interface.is_some() {
                rows.insert(at(None), Program::ALLOW);
            }
            return;
        }
        let offers: BTreeSet<Offer> = host.named_ports.iter().map(offer).collect();
        let key = self.key_of(policies.iter(), host.addresses.iter().copied(), &offers);
        let classes: Vec<(Class, Arc<ClassKey>)> = self
            .classes
            .used()
            .map(|(number, key)| (Class(number), Arc::clone(key)))
            .collect();
        let stages = self.stages(&policies, direction);
        // What no policy before address translation mentions goes on to the others.
        let passing: Vec<Tier> = stages
            .iter()
            .map(|stage| Tier {
                default_action: match hook {
                    HostHook::PreDnat => Action::Pass,
                    _ => stage.tier.default_action,
                },
                ..stage.tier.clone()
            })
            .collect();
        let stages: Vec<Tiered<'_>> = passing
            .iter()
            .zip(stages)
            .map(|(tier, stage)| Tiered {
                tier,
                policies: stage.policies,
            })
            .collect();
        let found = self.rows_of(direction, &stages, &key, &classes);
        self.work.functions += found.functions.len() as u64;
        let default = self.acquire_program(found.default);
        let programs: Vec<Program> = found
            .functions
            .into_iter()
            .map(|function: BySource<_>| self.acquire_program(function))
            .collect();
        for (class, function) in found.rows {
            let program = function
                .and_then(|function| programs.get(function))
                .copied();
            if let Some(program) = program.filter(|program| *program != default) {
                self.reuse_program(program);
                rows.insert(at(Some(class)), program);
            }
        }
        rows.insert(at(None), default);
        for program in programs {
            self.release_program(Some(program));
        }
    }
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
            Self::LocalIn | Self::ForwardIn | Self::PreDnat => Direction::Ingress,
            Self::LocalOut | Self::ForwardOut => Direction::Egress,
        }
    }
}
