//! The engine: what it is told. `compile.rs` turns that into tables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::active::{Active, Uses};
use super::anchors::{Anchor, Selectors};
use super::causes::{Causes, RuleId};
use super::classes::{ClassKey, SubjectKey};
use super::counts::Counts;
use super::evaluate::Rule;
use super::function::{BySource, Function};
use super::hosts::Hosting;
use super::ids::Interned;
use super::index::{Claimed, Ifname, Index, Uid};
use super::intervals::Span;
use super::k8s::PolicyError;
use super::lists::{ListId, PeerLists};
use super::model::{Action, Order, Policy, PolicyKey, Tier};
use super::nets::Nets;
use super::owned::ByOwn;
use super::rows::MOST_COUNTED;
use super::tables::{Answer, Change, Class, Direction, Ledger, Program, Subject, Tables};
use super::told::{OtherId, Others, Set, SetKey};
use crate::feed::{Identity, Labels, LocalEndpoint};

/// What one compile changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Number of this compile; hand it to [`Engine::applied`] when the kernel has it.
    pub revision: u64,
    /// The elements that differ from the compile before, at most one change per element.
    pub changes: Vec<Change>,
    /// Some flow that was allowed may now be denied: live flows must be judged again. It is said once: when the changes
    /// could not be applied, the next application still has to do it.
    pub narrowing: bool,
}

/// How much the engine has computed since it was made. Counts, not times: what one change costs can be asserted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Times a peer list was tried on a pod.
    pub lists: u64,
    /// Times a policy's selector was tried on an endpoint.
    pub selectors: u64,
    /// Times the classes of one address were looked at.
    pub addresses: u64,
    /// Functions tabulated.
    pub functions: u64,
}

/// Index, evaluator and tables of one node.
#[derive(Debug)]
pub struct Engine {
    pub(super) tiers: BTreeMap<String, Tier>,
    pub(super) policies: BTreeMap<PolicyKey, Installed>,
    /// Policies by the labels that what they select must have.
    pub(super) selectors: Selectors<PolicyKey>,
    pub(super) refused: BTreeMap<PolicyKey, Refused>,
    pub(super) lists: PeerLists,
    pub(super) active: Active,
    /// Lists in use by the labels that the pods in them must have.
    pub(super) listing: Selectors<ListId>,
    /// Of the lists in use.
    pub(super) anchors: BTreeMap<ListId, Anchor>,
    pub(super) index: Index,
    pub(super) others: Others,
    pub(super) endpoints: BTreeMap<Ifname, Programmed>,
    pub(super) hosting: Hosting,
    pub(super) nets: Nets,
    /// Blocks of the lists in use.
    pub(super) blocks: BTreeMap<ListId, Vec<Span>>,
    /// Class of every address that has an owner.
    pub(super) addresses: BTreeMap<IpAddr, Class>,
    pub(super) classes: Interned<ClassKey>,
    pub(super) subjects: Interned<SubjectKey>,
    pub(super) programs: Interned<Function>,
    /// Those which ask for the source port first; each holds the programs it refers to.
    pub(super) refined: Interned<BySource<Program>>,
    /// Those which ask for our own address first; each holds the programs it refers to.
    pub(super) owned: Interned<ByOwn>,
    /// What leads to answers, and what was counted of it.
    pub(super) causes: Causes,
    pub(super) counts: Counts,
    /// Elements of programs, and up to how many of them every rule is counted apart.
    pub(super) written: usize,
    pub(super) most_counted: usize,
    pub(super) ledger: Ledger,
    pub(super) dirty: Dirty,
    /// Addresses that lost their owner since live flows were last judged again.
    pub(super) freed: BTreeSet<IpAddr>,
    /// What was told since the last compile may forbid a live flow, whatever the tables say.
    pub(super) narrowing: bool,
    /// Policies whose [`PolicyStatus`](super::PolicyStatus) may have changed since they were last [asked for](Self::stirred).
    pub(super) stirred: BTreeSet<PolicyKey>,
    pub(super) work: Work,
    pub(super) revision: u64,
}

/// A policy in force.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) policy: Policy,
    pub(super) egress: Vec<Rule>,
    pub(super) ingress: Vec<Rule>,
    /// Stands in for a policy that was never understood.
    pub(super) closed: bool,
    /// Endpoints it selects, as of the last compile.
    pub(super) selected: BTreeSet<Ifname>,
    /// Host endpoints of this node that it selects, as of the last compile.
    pub(super) hosts: BTreeSet<String>,
    /// What it had in use at the last compile.
    pub(super) uses: Uses,
}

/// The newest version of a policy, which could not be understood.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) generation: i64,
    pub(super) error: PolicyError,
}

/// An endpoint whose pod is known.
#[derive(Debug, Default)]
pub(super) struct Programmed {
    pub(super) policies: BTreeSet<PolicyKey>,
    pub(super) subject: Option<Subject>,
}

/// What the next compile has to look at.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) pods: BTreeSet<Uid>,
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) endpoints: BTreeSet<Ifname>,
    pub(super) policies: BTreeSet<PolicyKey>,
    /// Of policies that are gone.
    pub(super) uses: Vec<Uses>,
    pub(super) sets: BTreeSet<SetKey>,
    pub(super) gone_sets: Vec<Set>,
    pub(super) others: BTreeSet<OtherId>,
    /// Some host endpoint of this node changed.
    pub(super) hosts: bool,
    /// The rows of host endpoints may not be what they should.
    pub(super) host_rows: bool,
}

impl Installed {
    pub(super) fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        self.policy.rules(direction)?;
        Some(match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        })
    }
}

/// The tiers that are there without an object.
fn built_in_tiers() -> impl Iterator<Item = Tier> {
    crds::tier::Stage::built_in()
        .into_iter()
        .map(super::margay::tier)
}

/// Stands in for a tier that policies name and nobody declared: after all others.
fn undeclared_tier(name: &str) -> Tier {
    Tier {
        name: name.to_owned(),
        order: Order(f64::INFINITY),
        default_action: Action::Deny,
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine {
    /// An engine that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let mut ledger = Ledger::default();
        ledger.put_program(Program::DENY, Some(Answer::DENY));
        Self {
            tiers: built_in_tiers()
                .map(|tier| (tier.name.clone(), tier))
                .collect(),
            policies: BTreeMap::new(),
            selectors: Selectors::default(),
            refused: BTreeMap::new(),
            lists: PeerLists::default(),
            active: Active::default(),
            listing: Selectors::default(),
            anchors: BTreeMap::new(),
            index: Index::default(),
            others: Others::default(),
            endpoints: BTreeMap::new(),
            hosting: Hosting::default(),
            nets: Nets::default(),
            blocks: BTreeMap::new(),
            addresses: BTreeMap::new(),
            classes: Interned::new(Class::FIRST, u32::MAX - 1),
            subjects: Interned::new(Subject::FIRST, Subject::BRIDGES - 1),
            programs: Interned::new(Program::FIRST, Program::LAST),
            refined: Interned::new(Program::FIRST, Program::LAST),
            owned: Interned::new(Program::FIRST, Program::LAST),
            causes: Causes::default(),
            counts: Counts::default(),
            written: 0,
            most_counted: MOST_COUNTED,
            ledger,
            dirty: Dirty::default(),
            freed: BTreeSet::new(),
            narrowing: false,
            stirred: BTreeSet::new(),
            work: Work::default(),
            revision: 0,
        }
    }

    /// Tells what the kernel holds from an earlier life of felix, before the first compile. None of the numbers in use
    /// there gets another meaning until a compile was [applied](Self::applied), and the first compile narrows.
    pub fn resume(&mut self, kernel: &Tables) {
        for class in kernel.peers.values().chain(kernel.nets.values()) {
            self.classes.reserve(class.0);
        }
        for (_, subject, class) in kernel.pairs.keys() {
            self.subjects.reserve(subject.number());
            self.classes.reserve(class.0);
        }
        for (_, subject) in kernel.defaults.keys() {
            self.subjects.reserve(subject.number());
        }
        for subject in kernel.links.values() {
            self.subjects.reserve(subject.number());
        }
        let programs = kernel.pairs.values().chain(kernel.defaults.values());
        for program in programs
            .chain(kernel.hosts.values())
            .chain(kernel.programs.keys())
            .chain(kernel.programs_ranged.keys())
            .chain(kernel.own_rest.keys())
            .chain(kernel.own_rest.values())
            .chain(kernel.owns.values())
            .chain(kernel.source_rest.keys())
            .chain(kernel.source_rest.values())
            .chain(kernel.sources.values())
        {
            self.reserve_program(*program);
        }
        for &(program, ..) in kernel.sources.keys() {
            self.reserve_program(program);
        }
        for (.., class) in kernel.hosts.keys() {
            self.classes.reserve(class.map_or(0, |class| class.0));
        }
        for &(program, ..) in kernel.ports.keys().chain(kernel.icmp.keys()) {
            self.programs.reserve(program.0);
        }
        for &(program, ..) in kernel.port_ranges.keys() {
            self.programs.reserve(program.0);
        }
        for &(program, _) in kernel.protos.keys() {
            self.programs.reserve(program.0);
        }
        for answer in kernel.answers() {
            self.causes.reserve(answer.cause);
        }
        self.narrowing = true;
    }

    fn reserve_program(&mut self, program: Program) {
        if let Some(answer) = program.answer() {
            self.causes.reserve(answer.cause);
        } else if program.is_refined() {
            self.refined.reserve(program.0 & !Program::REFINED);
        } else if program.is_owned() {
            self.owned.reserve(program.0 & !Program::OWNED);
        } else {
            self.programs.reserve(program.0);
        }
    }

    /// Tells that the kernel holds the tables of this compile: numbers that went out of use before may be reused.
    pub fn applied(&mut self, revision: u64) {
        self.classes.applied(revision);
        self.subjects.applied(revision);
        self.programs.applied(revision);
        self.refined.applied(revision);
        self.owned.applied(revision);
        self.causes.applied(revision);
    }

    /// A namespace came or changed.
    pub fn apply_namespace(&mut self, name: &str, labels: Labels) {
        if self.index.inherited.namespaces.get(name) != Some(&labels) {
            self.index
                .inherited
                .namespaces
                .insert(name.to_owned(), labels);
            self.touch_namespace(name);
        }
    }

    /// A namespace is gone.
    pub fn delete_namespace(&mut self, name: &str) {
        if self.index.inherited.namespaces.remove(name).is_some() {
            self.touch_namespace(name);
        }
    }

    fn touch_namespace(&mut self, name: &str) {
        let pods: Vec<_> = self.index.in_namespace(name).map(Arc::clone).collect();
        for uid in pods {
            self.touch_pod(uid);
        }
        self.touch_sets(name);
    }

    pub(super) fn touch_pod(&mut self, uid: Uid) {
        self.dirty
            .endpoints
            .extend(self.index.attached(&uid).map(Arc::clone));
        if let Some(pod) = self.index.resident(&uid) {
            self.dirty.addresses.extend(pod.claimed());
        }
        self.dirty.pods.insert(uid);
    }

    /// A pod came or changed. A pod that has finished is to be deleted, not applied: its addresses are free.
    pub fn apply_identity(&mut self, identity: Identity) {
        let uid = Arc::clone(&identity.uid);
        if let Some(claimed) = self.index.insert(identity) {
            self.note(claimed);
            self.touch_pod(uid);
        }
    }

    /// A pod is gone. One that is still attached here keeps its identity until it is detached.
    pub fn delete_identity(&mut self, uid: &str) {
        let claimed = self.index.delete(uid);
        self.note(claimed);
    }

    /// An endpoint is attached here, or its addresses changed. It stays without a link, and so without network, until
    /// its pod is known.
    pub fn set_local(&mut self, ifname: &str, endpoint: LocalEndpoint) {
        let ifname = Ifname::from(ifname);
        let before: Vec<IpAddr> = self
            .index
            .endpoint(&ifname)
            .map(|endpoint| endpoint.addresses.clone())
            .unwrap_or_default();
        let comment = format!("{}/{}", endpoint.namespace, endpoint.pod);
        // Whether or not the pod is known yet, it must not inherit the flows of whoever had its addresses.
        if endpoint
            .addresses
            .iter()
            .any(|address| self.freed.contains(address))
        {
            self.narrowing = true;
        }
        let (uid, addresses) = (Uid::from(endpoint.uid.as_str()), endpoint.addresses.clone());
        let Some(claimed) = self.index.attach(&ifname, endpoint) else {
            return;
        };
        self.note(claimed);
        for address in before {
            self.ledger
                .put_workload((ifname.to_string(), address), None);
        }
        for address in addresses {
            self.ledger
                .put_workload((ifname.to_string(), address), Some(comment.clone()));
        }
        self.touch_pod(uid);
        self.dirty.endpoints.insert(ifname);
    }

    /// An endpoint is detached.
    pub fn remove_local(&mut self, ifname: &str) {
        let (endpoint, claimed) = self.index.detach(ifname);
        self.note(claimed);
        let Some(endpoint) = endpoint else { return };
        for address in endpoint.addresses {
            self.ledger.put_workload((ifname.to_owned(), address), None);
            self.freed.insert(address);
        }
        self.dirty.endpoints.insert(Ifname::from(ifname));
    }

    /// An address that another pod had a moment ago carries flows which were judged for that one.
    fn note(&mut self, claimed: Claimed) {
        for address in claimed.gained {
            if self.freed.contains(&address) || self.index.claimants(address).nth(1).is_some() {
                self.narrowing = true;
            }
        }
        self.freed.extend(claimed.lost);
        self.dirty.addresses.extend(claimed.touched);
    }

    /// A tier came or changed. Those of Kubernetes' policies are there from the start.
    pub fn apply_tier(&mut self, tier: Tier) {
        if self.tiers.get(&tier.name) != Some(&tier) {
            self.touch_tier(&tier.name);
            self.tiers.insert(tier.name.clone(), tier);
        }
    }

    /// A tier is gone. Its policies stay in force, after all others; one that is built in is as it was at the start.
    pub fn delete_tier(&mut self, name: &str) {
        if let Some(tier) = built_in_tiers().find(|tier| tier.name == name) {
            self.apply_tier(tier);
        } else if self.tiers.contains_key(name) {
            self.apply_tier(undeclared_tier(name));
        }
    }

    fn touch_tier(&mut self, name: &str) {
        let policies = self
            .policies
            .iter()
            .filter(|(_, installed)| installed.policy.tier == name);
        self.dirty
            .policies
            .extend(policies.map(|(key, _)| key.clone()));
    }

    /// A policy came or changed.
    pub fn apply_policy(&mut self, policy: Policy) {
        self.stirred.insert(policy.key.clone());
        self.refused.remove(&policy.key);
        self.install(policy, false);
    }

    /// A policy came or changed and cannot be understood: its last good version stays in force, and if there is none,
    /// what it selects is closed.
    pub fn refuse_policy(&mut self, key: PolicyKey, generation: i64, error: PolicyError) {
        if self
            .policies
            .get(&key)
            .is_none_or(|installed| installed.closed)
        {
            match &error.closed {
                Some(closed) => self.install((**closed).clone(), true),
                None => self.uninstall(&key),
            }
        }
        self.stirred.insert(key.clone());
        self.refused.insert(key, Refused { generation, error });
    }

    /// A policy is gone.
    pub fn delete_policy(&mut self, key: &PolicyKey) {
        self.stirred.insert(key.clone());
        self.refused.remove(key);
        self.uninstall(key);
    }

    fn install(&mut self, policy: Policy, closed: bool) {
        if let Some(installed) = self.policies.get_mut(&policy.key)
            && installed.policy == policy
        {
            installed.closed = closed;
            return;
        }
        self.tiers
            .entry(policy.tier.clone())
            .or_insert_with(|| undeclared_tier(&policy.tier));
        let before = self.policies.get(&policy.key);
        let [egress_ids, ingress_ids] =
            [Direction::Egress, Direction::Ingress].map(|it| self.counts.ids(it, &policy, before));
        let mut intern = |rules: Option<&[super::model::Rule]>, ids: Vec<RuleId>| -> Vec<Rule> {
            let rules = rules.into_iter().flatten().zip(ids);
            let interned = rules.map(|(rule, id)| Rule {
                id,
                action: rule.action,
                peers: self.lists.acquire_terms(&rule.peers),
                own: self.lists.acquire_terms(&rule.own),
                traffic: rule.traffic.clone(),
                source_ports: rule.source_ports.clone(),
            });
            interned.collect()
        };
        let egress = intern(policy.rules(Direction::Egress), egress_ids);
        let ingress = intern(policy.rules(Direction::Ingress), ingress_ids);
        let key = policy.key.clone();
        let mut installed = Installed {
            policy,
            egress,
            ingress,
            closed,
            selected: BTreeSet::new(),
            hosts: BTreeSet::new(),
            uses: Uses::default(),
        };
        if let Some(before) = self.policies.remove(&key) {
            self.counts.installed(Some(&before), &installed);
            self.release(&before);
            installed.selected = before.selected;
            installed.hosts = before.hosts;
            installed.uses = before.uses;
        } else {
            self.counts.installed(None, &installed);
        }
        self.selectors
            .insert(&Anchor::of_selection(&installed.policy.subject), &key);
        self.policies.insert(key.clone(), installed);
        self.dirty.policies.insert(key);
    }

    fn uninstall(&mut self, key: &PolicyKey) {
        if let Some(before) = self.policies.remove(key) {
            self.counts.removed(&before);
            self.release(&before);
            self.dirty.uses.push(before.uses);
            self.dirty.policies.insert(key.clone());
        }
    }

    /// Takes a policy that is no longer in force out of the indexes.
    fn release(&mut self, installed: &Installed) {
        let policy = &installed.policy;
        self.selectors
            .remove(&Anchor::of_selection(&policy.subject), &policy.key);
        for rule in installed.egress.iter().chain(&installed.ingress) {
            for list in rule.lists().chain(rule.own_lists()) {
                self.lists.release(list);
            }
        }
    }

    /// All elements as of the last compile.
    #[must_use]
    pub const fn tables(&self) -> &Tables {
        self.ledger.tables()
    }

    /// What was computed so far.
    #[must_use]
    pub const fn work(&self) -> Work {
        self.work
    }
}
