//! The kernel of this node, as one thing: policy tables, routes, host interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use cni::key::HOST_PREFIX;
use crds::net::{Cidr, Family};
use tokio::sync::mpsc;

use super::enforce::Enforcer;
use super::netlink::{Event, Monitor, Netlink};
use super::queues::Queues;
use super::settings::Settings;
use super::socket::Refusal;
use super::sysctl;
use super::tamper;
use crate::agent::input::Input;
use crate::agent::{Agent, Plan, Policy, Routed};
use crate::nft::diff::{self, DOOMED, Phases, UNPROGRAMMED};
use crate::nft::epoch::{Epoch, Options};
use crate::policy::counts::Packets;
use crate::policy::tables::{Subject, Tables};
use crate::routes::diff::{Op, Sweep};
use crate::routes::model::{
    BGP_METRIC, BGP_PROTOCOL, BLOCK_METRIC, WORKLOAD_METRIC, WORKLOAD_PROTOCOL,
};
use crate::routes::table::{Changed, Table};
use crate::routes::uplink;
use crate::routes::want::Wants;
use crate::terms::Wanted;

/// What an earlier life of felix left in the kernel.
pub struct Found {
    /// What changes from then on.
    pub changes: Changes,
    /// Host interfaces of ours, by name, with their index.
    pub links: BTreeMap<String, u32>,
    /// Addresses that our workload routes lead to.
    pub routed: BTreeSet<IpAddr>,
    /// Whether BGP routes of ours are there, for IPv4 and IPv6.
    pub preserved: [bool; 2],
    /// Elements of the table.
    pub tables: Tables,
    /// MTU for pods, in bytes.
    pub mtu: u32,
    /// Own addresses on loopback interfaces that are valid everywhere.
    pub loopbacks: BTreeSet<IpAddr>,
    /// Own addresses by interface, without those of pods and loopbacks.
    pub interfaces: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// What others, or the kernel by itself, do: links, addresses, routes, and the table.
pub struct Changes {
    links: Monitor,
    tables: tamper::Monitor,
}

impl Changes {
    /// Reports them, until nobody listens.
    pub fn report(self, inputs: mpsc::Sender<Input>) {
        tokio::spawn(watch(self.links, inputs.clone()));
        tokio::spawn(guard(self.tables, inputs));
    }
}

/// Sockets to the kernel, and what is known of its routes.
#[derive(Debug)]
pub struct Kernel {
    policy: Enforcer,
    netlink: Netlink,
    routes: Table,
    conflicts: BTreeSet<String>,
    mtu: u32,
    loopbacks: BTreeSet<IpAddr>,
    interfaces: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Names of interfaces by index.
    names: BTreeMap<u32, String>,
    settings: Settings,
    queues: Queues,
    doomed: std::sync::mpsc::Sender<String>,
}

/// MTU of pods when no interface leads anywhere.
const DEFAULT_MTU: u32 = 1500;
/// How long the kernel is left to finish before it is looked at again: a link that goes takes many things along.
const SETTLE: Duration = Duration::from_millis(20);

impl Kernel {
    /// Opens the sockets and puts the fixed rules in place: from here on nothing unknown has network. Elements and routes
    /// of an earlier life stay as they are.
    pub fn open(mut settings: Settings) -> anyhow::Result<(Self, Found)> {
        settings.node().context("letting the node route")?;
        let (mut policy, ensured) = Enforcer::open()?;
        tracing::info!(?ensured, "the table inet margay is in place");
        let tables = policy.read().context("reading the table inet margay")?;
        let netlink = Netlink::open().context("opening rtnetlink")?;
        // Before the first look, so that nothing changes unseen between the two.
        let changes = Changes {
            links: Monitor::open(netlink.port()?).context("watching the kernel")?,
            tables: tamper::Monitor::open(policy.port()?).context("watching nftables")?,
        };
        let mut kernel = Self {
            policy,
            netlink,
            routes: Table::default(),
            conflicts: BTreeSet::new(),
            mtu: DEFAULT_MTU,
            loopbacks: BTreeSet::new(),
            interfaces: BTreeMap::new(),
            names: BTreeMap::new(),
            settings,
            queues: Queues::open().context("opening rtnetlink")?,
            doomed: undertaker(),
        };
        kernel.reread()?;
        let links = kernel.netlink.links()?;
        let ours = links
            .into_iter()
            .filter(|(_, link)| link.name.starts_with(HOST_PREFIX));
        let of = |protocol| {
            let routes = &kernel.routes.kernel().routes;
            routes
                .iter()
                .filter(move |(_, entry)| entry.protocol == protocol)
        };
        let learnt = |family| of(BGP_PROTOCOL).any(|(key, _)| key.prefix.family() == family);
        let found = Found {
            changes,
            links: ours.map(|(ifindex, link)| (link.name, ifindex)).collect(),
            routed: of(WORKLOAD_PROTOCOL)
                .filter(|(key, _)| key.prefix.is_host() && key.metric == WORKLOAD_METRIC)
                .map(|(key, _)| key.prefix.first())
                .collect(),
            preserved: [learnt(Family::V4), learnt(Family::V6)],
            tables,
            mtu: kernel.mtu,
            loopbacks: kernel.loopbacks.clone(),
            interfaces: kernel.interfaces.clone(),
        };
        Ok((kernel, found))
    }

    /// Brings the kernel in step with the agent: what nothing refers to yet, then routes, then the interfaces' groups,
    /// then the rest together with a new judgement of live flows. A step that fails leaves what is stricter. A route that
    /// is refused stops nothing; what became of the routes is returned, when there was something to do about them.
    pub fn carry_out(&mut self, plan: &Plan, agent: &Agent) -> anyhow::Result<Option<Routed>> {
        if plan.reread_routes {
            self.reread()?;
        } else if plan.relink || self.routes.lacks_link(agent.wants(), &plan.routes) {
            let connected = self.netlink.connected().context("reading interfaces")?;
            self.routes.link(connected);
            let ops = self.routes.fail_over();
            let applied = self.netlink.apply(&ops).context("changing groups")?;
            if applied.failed.is_empty() {
                self.routes.done(ops);
            }
        }
        let resync = matches!(plan.policy, Policy::Resync(_));
        let mut phases = match &plan.policy {
            Policy::Keep => Phases::default(),
            Policy::Changes(compiled) => {
                diff::plan(&compiled.changes, agent.tables(), compiled.narrowing)
            }
            Policy::Resync(_) => {
                self.policy.ensure_table(agent.options())?;
                let mut have = self.policy.read()?;
                have.links = self.groups()?;
                diff::plan(&have.diff(agent.tables()), agent.tables(), true)
            }
        };
        if plan.terms || resync {
            self.terms(agent.terms(), &mut phases, resync)?;
        }
        self.policy.prepare(&phases)?;
        let mut routed = None;
        if plan.routes.any() || plan.reread_routes || plan.relink {
            routed = Some(self.route(agent.wants(), &plan.routes, agent.sweep())?);
        }
        self.policy.commit(&phases, &mut self.netlink)?;
        Ok(routed)
    }

    /// What is wanted beside policy comes first: it holds for a pod's first packet.
    fn terms(&mut self, wanted: &Wanted, phases: &mut Phases, resync: bool) -> anyhow::Result<()> {
        let held = self.policy.hold(&wanted.elements);
        phases.commit.bump |= held.context("changing what there is beside policy")?;
        if resync {
            self.queues.look_again();
        }
        self.queues
            .set(&wanted.queues)
            .context("limiting what pods get")?;
        for interface in &wanted.unfiltered {
            if let Err(error) = sysctl::any_source(interface) {
                tracing::warn!(%error, interface, "letting a pod have other sources");
            }
        }
        Ok(())
    }

    /// When [`Kernel::bump`] has something to do.
    #[must_use]
    pub fn bump_due(&self) -> Option<Instant> {
        self.policy.bump_due()
    }

    /// Has live connections judged again for changes which have waited for that, if it is time.
    pub fn bump(&mut self) -> anyhow::Result<()> {
        self.policy.bump()
    }

    /// Index of an interface, if there is one of that name.
    pub fn ifindex(&mut self, name: &str) -> anyhow::Result<Option<u32>> {
        match nix::net::if_::if_nametoindex(name) {
            Ok(ifindex) => Ok(Some(ifindex)),
            Err(nix::errno::Errno::ENODEV) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Has somebody else changed the rules, taken the table away, or put host interfaces into other groups?
    pub fn drifted(&mut self, wanted: &Tables, terms: &Wanted) -> anyhow::Result<bool> {
        if self.queues.strayed(&terms.queues)? {
            return Ok(true);
        }
        let links = self.netlink.links()?.into_values();
        let mut ours =
            links.filter(|link| link.name.starts_with(HOST_PREFIX) && link.group != DOOMED.0);
        let strayed = ours.any(|link| {
            let wanted = wanted.links.get(&link.name).unwrap_or(&UNPROGRAMMED);
            link.group != wanted.0
        });
        Ok(strayed || !self.policy.intact()?)
    }

    /// Is an interface in another group than it should be? One that shall be in none, or is gone, is not.
    pub fn regrouped(&mut self, name: &str, wanted: &Tables) -> anyhow::Result<bool> {
        let Some(subject) = wanted.links.get(name) else {
            return Ok(false);
        };
        let link = self.netlink.link(name)?;
        Ok(link.is_some_and(|link| link.group != subject.0))
    }

    /// Options and epoch of the rules in force.
    #[must_use]
    pub const fn rules(&self) -> (Options, Epoch) {
        self.policy.rules()
    }

    /// Packets that policy's elements have counted, by what led to their verdicts.
    pub fn packets(&mut self) -> anyhow::Result<Packets> {
        self.policy.packets().context("reading counters")
    }

    /// The same of elements that are gone since this was last asked.
    pub fn gone(&mut self) -> Packets {
        self.policy.gone()
    }

    /// MTU for pods, in bytes, as of the last look.
    #[must_use]
    pub const fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Own addresses on loopback interfaces, as of the last look.
    #[must_use]
    pub const fn loopbacks(&self) -> &BTreeSet<IpAddr> {
        &self.loopbacks
    }

    /// Own addresses by interface, as of the last look.
    #[must_use]
    pub const fn interfaces(&self) -> &BTreeMap<String, BTreeSet<IpAddr>> {
        &self.interfaces
    }

    /// Kernel settings that are not as they must be, one sentence each.
    #[must_use]
    pub fn settings_refused(&self) -> BTreeSet<String> {
        self.settings.refused()
    }

    /// Routes of ours, as prefix and metric, that are not made because another program has one there.
    #[must_use]
    pub const fn conflicts(&self) -> &BTreeSet<String> {
        &self.conflicts
    }

    /// Deletes a host interface some time soon: the kernel takes milliseconds for it, which nobody should wait for.
    pub fn delete_link(&self, name: String) {
        // The thread ends only with the process.
        let _ = self.doomed.send(name);
    }

    fn reread(&mut self) -> anyhow::Result<()> {
        self.settings.look_again();
        self.routes
            .read(self.netlink.read().context("reading routes")?);
        self.routes
            .link(self.netlink.connected().context("reading interfaces")?);
        let (links, addresses) = (self.netlink.links()?, self.netlink.addresses()?);
        let mtu = uplink::smallest_mtu(&links, &addresses, HOST_PREFIX);
        self.mtu = mtu.unwrap_or(DEFAULT_MTU);
        self.loopbacks = uplink::on_loopback(&links, &addresses);
        self.interfaces = uplink::by_interface(&links, &addresses, HOST_PREFIX);
        self.names = links
            .into_iter()
            .map(|(ifindex, link)| (ifindex, link.name))
            .collect();
        Ok(())
    }

    fn groups(&mut self) -> anyhow::Result<BTreeMap<String, Subject>> {
        let links = self.netlink.links()?.into_values();
        let ours = links.filter(|link| {
            link.name.starts_with(HOST_PREFIX) && ![UNPROGRAMMED.0, DOOMED.0].contains(&link.group)
        });
        Ok(ours.map(|link| (link.name, Subject(link.group))).collect())
    }

    /// Makes the routes as they are wanted before there is an agent: none is removed.
    pub fn route_early(&mut self, wants: &Wants, reread: bool) -> anyhow::Result<Routed> {
        if reread {
            self.reread()?;
        }
        self.route(wants, &Changed::All, Sweep::default())
    }

    fn route(&mut self, wants: &Wants, changed: &Changed, sweep: Sweep) -> anyhow::Result<Routed> {
        let routed = self.route_as_known(wants, changed, sweep)?;
        if routed.problem.is_none() {
            return Ok(routed);
        }
        // What was known of the kernel may be old: links take routes along that nobody tells of.
        self.reread()?;
        let routed = self.route_as_known(wants, &Changed::Nothing, sweep)?;
        if routed.problem.is_some() {
            self.reread()?;
        }
        Ok(routed)
    }

    fn route_as_known(
        &mut self,
        wants: &Wants,
        changed: &Changed,
        sweep: Sweep,
    ) -> anyhow::Result<Routed> {
        let plan = self.routes.plan(wants, changed, sweep);
        // Before the first packet comes over it.
        let legs = self.routes.legs().flat_map(|legs| legs.iter());
        let uplinks: BTreeSet<&str> = legs
            .filter_map(|(leg, _)| self.names.get(&leg.ifindex).map(String::as_str))
            .collect();
        self.settings.uplinks(&uplinks, !self.loopbacks.is_empty());
        let applied = self.netlink.apply(&plan.ops).context("changing routes")?;
        let conflicts: BTreeSet<String> = self
            .routes
            .conflicts()
            .map(|conflict| conflict.key.to_string())
            .collect();
        for conflict in conflicts.difference(&self.conflicts) {
            tracing::warn!(
                route = conflict,
                "another program has a route there; it stays, ours is not made"
            );
        }
        self.conflicts = conflicts;
        if let Some((op, refusal)) = applied.failed.first() {
            let problem = format!(
                "{op}: {refusal} ({} of {} route changes failed)",
                applied.failed.len(),
                plan.ops.len()
            );
            return Ok(Routed {
                refused: applied.failed.iter().filter_map(prefix).collect(),
                problem: Some(problem),
            });
        }
        if applied.conflicts.is_empty() {
            self.routes.done(plan.ops);
        } else {
            // Made by somebody since they were last read.
            self.reread()?;
        }
        Ok(Routed::default())
    }
}

/// The prefix whose route was not changed. A nexthop object that is refused shows in the routes that refer to it.
fn prefix((op, _): &(Op, Refusal)) -> Option<Cidr> {
    match op {
        Op::AddRoute(key, _) | Op::ReplaceRoute(key, _) | Op::DeleteRoute(key, _) => {
            Some(key.prefix)
        }
        Op::AddNexthop(..) | Op::ReplaceNexthop(..) | Op::DeleteNexthop(_) => None,
    }
}

/// A thread that deletes interfaces: all that wait at a time together.
fn undertaker() -> std::sync::mpsc::Sender<String> {
    let (doomed, names) = std::sync::mpsc::channel::<String>();
    std::thread::spawn(move || {
        while let Ok(first) = names.recv() {
            let batch: Vec<String> = std::iter::once(first).chain(names.try_iter()).collect();
            let deleted = Netlink::open()
                .map_err(anyhow::Error::from)
                .and_then(|mut kernel| Ok(kernel.delete_links(&batch)?));
            if let Err(error) = deleted {
                tracing::warn!(%error, ?batch, "deleting host interfaces");
            }
        }
    });
    doomed
}

async fn watch(mut monitor: Monitor, inputs: mpsc::Sender<Input>) {
    loop {
        let mut events = match monitor.next().await {
            Ok(events) => events,
            Err(error) => {
                tracing::error!(%error, "the kernel's events cannot be read any more; drift is found by the regular look only");
                return;
            }
        };
        // An uplink that fails or comes back is a matter of milliseconds: one look at once, another when all is over.
        let urgent = events
            .iter()
            .any(|event| matches!(event, Event::Link(_, link) | Event::LinkGone(_, link) if !link.name.starts_with(HOST_PREFIX)));
        if urgent && inputs.send(Input::UplinksChanged).await.is_err() {
            return;
        }
        // One look for all that one change of a link or of somebody's routes brings about.
        if events
            .iter()
            .any(|event| matches!(concern(event), Some(Input::RoutesChanged)))
        {
            tokio::time::sleep(SETTLE).await;
            while let Ok(Ok(more)) = tokio::time::timeout(Duration::ZERO, monitor.next()).await {
                events.extend(more);
            }
        }
        let mut changed = false;
        for input in events.iter().filter_map(concern) {
            if matches!(input, Input::RoutesChanged) && std::mem::replace(&mut changed, true) {
                continue;
            }
            if inputs.send(input).await.is_err() {
                return;
            }
        }
    }
}

async fn guard(mut tables: tamper::Monitor, inputs: mpsc::Sender<Input>) {
    loop {
        if let Err(error) = tables.next().await {
            tracing::error!(%error, "changes of the table cannot be noticed any more; drift is found by the regular look only");
            return;
        }
        // The reports of one transaction are there all at once.
        while let Ok(Ok(())) = tokio::time::timeout(Duration::ZERO, tables.next()).await {}
        tracing::warn!("another program has changed the table inet margay; it is made anew");
        if inputs.send(Input::TablesChanged).await.is_err() {
            return;
        }
        // One who keeps changing it is not given the whole processor.
        tokio::time::sleep(SETTLE).await;
    }
}

/// What an event is to the agent.
fn concern(event: &Event) -> Option<Input> {
    match event {
        Event::Link(ifindex, link) if link.name.starts_with(HOST_PREFIX) => {
            Some(Input::Link(link.name.clone(), Some(*ifindex)))
        }
        Event::LinkGone(_, link) if link.name.starts_with(HOST_PREFIX) => {
            Some(Input::Link(link.name.clone(), None))
        }
        Event::RouteGone(key, entry) => {
            let ours = matches!(entry.protocol, WORKLOAD_PROTOCOL | BGP_PROTOCOL);
            let in_our_way = matches!(key.metric, WORKLOAD_METRIC | BLOCK_METRIC | BGP_METRIC);
            (ours || in_our_way).then_some(Input::RoutesChanged)
        }
        Event::Address(address) | Event::AddressGone(address) if !address.global => None,
        _ => Some(Input::RoutesChanged),
    }
}
