//! The agent: everything felix decides, as one machine.
//!
//! ```text
//!  Input ─► handle ─┬─► feed    ─► policy engine, ipam          Output: answers for the plugin, log records,
//!                   ├─► attach  ─► endpoints, ipam                       messages for bgpd, writes to the API,
//!                   ├─► bgp     ─► best routes, origins                  Apply: what the kernel shall hold
//!                   └─► now     ─► deadlines
//! ```
//!
//! The driver feeds inputs, then calls [`Agent::poll`] until it has no more output. An [`Output::Log`] or
//! [`Output::Apply`] is carried out before the next one is asked for, and its outcome fed back.

pub mod acks;
mod addresses;
mod attach;
pub mod bgp;
mod counters;
pub mod early;
pub mod endpoint;
pub mod events;
mod explain;
mod feed;
mod floating;
pub(crate) mod hosts;
pub mod input;
mod kernel;
pub mod services;
pub mod start;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use api::v1::FelixMessage;
use cni::error::{CniError, Code};
use cni::frame::Reply;
use crds::IPAMBlock;
use crds::ip_pool::Pool;
use crds::ipam_block::{Allocation, Owner};
use crds::net::Cidr;
use ipam::Ipam;

use self::addresses::Blocks;
use self::bgp::Bgp;
use self::endpoint::{Endpoint, State};
use self::input::{CallId, Input, Kind, Node, try_again};
use self::view::{Samples, millis};
use crate::Millis;
use crate::nft::epoch::Options;
use crate::policy::model::PolicyKey;
use crate::policy::tables::Tables;
use crate::policy::{Compiled, Engine};
use crate::routes::diff::Sweep;
use crate::routes::table::Changed;
use crate::routes::want::Wants;
use crate::terms::{Complaint, Terms, Wanted};

pub use self::start::Start;

/// What shall be done, in order.
#[derive(Debug)]
pub enum Output {
    /// Answer a call of the plugin.
    Answer(CallId, Reply),
    /// Append to the attachment log; answer with [`Agent::logged`].
    Log(Vec<u8>),
    /// Replace the attachment log.
    RewriteLog(Vec<u8>),
    /// Bring the kernel in step; answer with [`Agent::applied`].
    Apply(Plan),
    /// Delete a host interface; nobody waits for it.
    DeleteLink(String),
    /// Tell bgpd.
    ToBgpd(FelixMessage),
    /// Claim a block with this object.
    CreateBlock(Cidr, Box<IPAMBlock>),
    /// Give a block back, if its object has this uid.
    DeleteBlock(Cidr, String),
    /// Mirror a block's allocations, if its object has this uid.
    MirrorBlock(Cidr, String, Vec<Allocation>),
    /// List the prefixes of every block in the cluster.
    SurveyBlocks,
    /// Say on a pool whether it is understood: name and why not.
    PoolCondition(String, Option<String>),
    /// Look at a pod in the API: namespace, name, uid.
    FetchPod(String, String, String),
    /// Keep the node's addresses for a start without the API.
    KeepAddresses(Vec<IpAddr>),
    /// Tell the owner of a pod.
    PodEvent(Complaint),
    /// Tell those who look after the node what does not work.
    NodeEvent(String),
    /// The node can take pods: write the conflist, clear NetworkUnavailable.
    NetworkAvailable,
    /// Stop, for this reason, to begin a new life.
    Stop(String),
}

/// A step of the kernel.
#[derive(Debug)]
pub struct Plan {
    /// Changes of the policy tables; `None`: read what is there and compare it with [`Agent::tables`].
    pub policy: Policy,
    /// Routes that may differ from what the kernel has.
    pub routes: Changed,
    /// Read routes, links and nexthops again before comparing.
    pub reread_routes: bool,
    /// Read the links again before comparing.
    pub relink: bool,
    /// What is wanted beside policy may have changed.
    pub terms: bool,
}

impl Plan {
    /// Number of the compile whose tables the plan brings into force.
    #[must_use]
    pub const fn revision(&self) -> Option<u64> {
        match &self.policy {
            Policy::Keep => None,
            Policy::Changes(compiled) | Policy::Resync(compiled) => Some(compiled.revision),
        }
    }
}

/// What became of the routes of a [`Plan`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// Prefixes whose route is not as wanted, because the kernel refused it.
    pub refused: BTreeSet<Cidr>,
    /// What the kernel said first; `None` when it took everything.
    pub problem: Option<String>,
}

/// The policy part of a [`Plan`].
#[derive(Debug)]
pub enum Policy {
    /// Leave the tables as they are.
    Keep,
    /// Make these changes.
    Changes(Compiled),
    /// Read what the kernel has, and make it what the engine wants.
    Resync(Compiled),
}

/// The machine.
#[derive(Debug)]
pub struct Agent {
    node_name: String,
    owner: Owner,
    node: Node,
    /// MTU of pods: that of the smallest uplink, in bytes.
    mtu: u32,
    engine: Engine,
    /// What of the fixed rules an operator chose.
    options: Options,
    hosts: hosts::Hosts,
    ipam: Ipam,
    bgp: Bgp,
    /// By name of the host interface.
    endpoints: BTreeMap<String, Endpoint>,
    /// Host interfaces of ours, by name, with their index.
    links: BTreeMap<String, u32>,
    /// ADDs that wait for the feed or for a block.
    parked: Vec<attach::Parked>,
    in_sync: BTreeSet<Kind>,
    services: services::Services,
    /// Watches that fail now, and why.
    lost: BTreeMap<Kind, String>,
    /// UIDs of the pods the feed knows.
    pods: HashSet<Arc<str>>,
    /// Addresses of the pods bound to this node, by uid.
    local_pods: BTreeMap<Arc<str>, Arc<[IpAddr]>>,
    pools: BTreeMap<String, Pool>,
    /// Pools that are not understood, and why.
    pool_errors: BTreeMap<String, String>,
    blocks: Blocks,
    /// What our routes shall be made from.
    wants: Wants,
    routes_changed: Changed,
    reread_routes: bool,
    relink: bool,
    engine_dirty: bool,
    /// The kernel's tables were compared with the engine's since something went wrong with them, or since the start.
    tables_known: bool,
    /// A plan is being carried out.
    applying: bool,
    /// The last plan failed: next try then, and how often it failed in a row.
    retry: Option<(Millis, u32)>,
    kernel_problem: Option<String>,
    /// Routes that are not made because another program has one there.
    routes_refused: BTreeSet<String>,
    /// Kernel settings that are not as they must be.
    settings_refused: BTreeSet<String>,
    /// Own addresses on a loopback interface.
    loopbacks: BTreeSet<IpAddr>,
    /// Addresses of the node that are announced.
    told_addresses: BTreeSet<IpAddr>,
    /// How routes stood after they were last changed, and when those refused are tried again, how often they were.
    routed: Routed,
    route_retry: Option<(Millis, u32)>,
    /// The attachment log cannot be written: why, and when it is tried again.
    log_problem: Option<(String, Millis)>,
    network_available: bool,
    /// Since when there is no bgpd.
    bgpd_away: Option<Millis>,
    /// Pods wait until BGP was heard, but not longer than this.
    bgp_until: Option<Millis>,
    started: Millis,
    outputs: VecDeque<Output>,
    adds: Samples,
    policies: Samples,
    events: events::Events,
    /// Why denied packets are not told of: what was said, and the two reasons there can be.
    events_problem: Option<String>,
    events_unread: Option<String>,
    events_unlogged: Option<String>,
    /// When the oldest change of the feed came that is not in the kernel yet.
    policy_since: Option<Millis>,
    acks: acks::Acks,
    terms: Terms,
    /// Floating addresses that are routed to pods here, and the index of the interface.
    floating: BTreeMap<IpAddr, u32>,
}

/// Longest pause between two tries to bring the kernel in step.
const LONGEST_RETRY: Millis = 5_000;
/// Pause between two tries to write the attachment log.
const LOG_RETRY: Millis = 1_000;
/// The node takes pods without having heard from any BGP peer after this long.
const BGP_PATIENCE: Millis = 30_000;
/// A peer keeps the routes of a bgpd that is gone this long at most: hold time (RFC 4271, 90 s) and restart time of a
/// graceful restart (RFC 4724, 120 s by default), rounded up.
const PEERS_FORGET: Millis = 240_000;

/// When to try again after one more failure, and how many there were in a row.
fn again(before: Option<(Millis, u32)>, now: Millis) -> (Millis, u32) {
    let failures = before.map_or(0, |(_, failures)| failures).saturating_add(1);
    let pause = (50 << failures.min(7)).min(LONGEST_RETRY);
    (now + pause, failures)
}

impl Agent {
    /// Tells the agent that something happened.
    pub fn handle(&mut self, input: Input, now: Millis) {
        match input {
            Input::Feed(update) => self.feed(update, now),
            Input::Call(call, request) => self.call(call, request, now),
            Input::Hangup(call) => self.hangup(call, now),
            Input::Detach(key) => self.del(None, &key, now),
            Input::BgpdConnected => {
                let messages = self.bgp.connect();
                self.outputs
                    .extend(messages.into_iter().map(Output::ToBgpd));
            }
            Input::Bgpd(message) => {
                // Only now: one that refuses every stream is away.
                self.bgpd_away = None;
                let change = self.bgp.take(message);
                self.bgp_changed(change, now);
            }
            Input::BgpdLost => {
                self.bgp.disconnect();
                self.bgpd_away.get_or_insert(now);
            }
            Input::Link(name, ifindex) => self.link(&name, ifindex),
            Input::Mtu(mtu) => self.mtu = mtu,
            Input::Loopbacks(addresses) => self.loopbacks(addresses),
            Input::Interfaces(interfaces) => self.interfaces(interfaces),
            Input::SettingsRefused(problems) => self.settings_refused = problems,
            Input::EventsRead(problem) => self.events_read(problem),
            Input::LoggingRefused(refused) => self.logging_refused(refused),
            Input::RoutesRefused(routes) => self.routes_refused = routes,
            Input::RoutesChanged => self.reread_routes = true,
            Input::UplinksChanged => self.relink = true,
            Input::TablesChanged => {
                self.tables_known = false;
                self.engine_dirty = true;
            }
            Input::PodFetched(uid, found) => self.fetched(&uid, *found, now),
            Input::Ipam(input) => self.ipam(*input, now),
            Input::Tick => {
                self.ipam(ipam::Input::Tick, now);
                self.hurry(now);
                if self.withdrawn_at().is_some_and(|at| now >= at) {
                    let change = self.bgp.forget_withdrawn();
                    self.bgp_changed(change, now);
                }
            }
        }
    }

    /// The next thing to do, or `None` when there is nothing until the next input or [`Agent::next_timeout`].
    pub fn poll(&mut self, now: Millis) -> Option<Output> {
        self.offer_pods(now);
        while let Some(output) = self.outputs.pop_front() {
            match output {
                // The log is written anew as a whole once it can be; what is in it by then need not be appended.
                Output::Log(_) if self.log_problem.is_some() => {}
                Output::Answer(call, Reply::Reserved { .. }) if self.log_problem.is_some() => {
                    self.unlogged(call, now);
                }
                output => return Some(output),
            }
        }
        if self.log_problem.as_ref().is_some_and(|(_, at)| now >= *at) {
            return Some(Output::RewriteLog(self.ipam.compact()));
        }
        self.plan(now).map(Output::Apply)
    }

    /// When [`Input::Tick`] is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Millis> {
        let retry = self.retry.map(|(at, _)| at);
        let route_retry = self.route_retry.map(|(at, _)| at);
        let log = self.log_problem.as_ref().map(|(_, at)| *at);
        [
            self.ipam.next_timeout(),
            self.next_hurry(),
            self.next_tell(),
            retry,
            route_retry,
            log,
            self.bgp_until,
            self.withdrawn_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The outcome of an [`Output::Log`] or [`Output::RewriteLog`].
    pub fn logged(&mut self, outcome: Result<(), String>, now: Millis) {
        if let Err(problem) = &outcome {
            tracing::error!(
                problem,
                "the attachment log cannot be written: no pod can be attached"
            );
        }
        self.log_problem = outcome.err().map(|problem| (problem, now + LOG_RETRY));
    }

    /// The outcome of an [`Output::Apply`]; `Some` routes when the plan was about them. A refused route holds up nothing
    /// but what it leads to: policy and the other routes are in force.
    pub fn applied(
        &mut self,
        outcome: Result<Option<Routed>, String>,
        revision: Option<u64>,
        now: Millis,
    ) {
        self.applying = false;
        match outcome {
            Ok(routed) => {
                self.retry = None;
                self.kernel_problem = None;
                if let Some(routed) = routed {
                    self.routes_tried(routed, now);
                }
                if let Some(revision) = revision {
                    self.acks.applied();
                    self.engine.applied(revision);
                    self.tables_known = true;
                    if let Some(since) = self.policy_since.take() {
                        self.policies.add(millis(now.saturating_sub(since)));
                    }
                }
                if self.synced() {
                    self.swept();
                }
                self.settle(now);
                self.announce_blocks();
                self.announce_floating();
                self.outputs.extend(self.bgp.ack().map(Output::ToBgpd));
                self.unpark(now);
            }
            Err(problem) => {
                let (at, failures) = again(self.retry, now);
                tracing::warn!(problem, failures, "the kernel is not in step; trying again");
                self.acks.failed(&problem);
                self.retry = Some((at, failures));
                self.kernel_problem = Some(problem);
                self.tables_known = false;
                self.engine_dirty = true;
                self.reread_routes = true;
            }
        }
    }

    /// Live connections have been judged by all that the kernel was given.
    pub fn judged(&mut self) {
        self.acks.judged();
    }

    /// What of which policies is in force, as far as it changed since this was last asked; `None` for those that select
    /// nothing here. Nothing before everything has been in force once.
    pub fn policies_in_force(&mut self) -> Option<Vec<(PolicyKey, Option<acks::InForce>)>> {
        self.acks.changes()
    }

    fn routes_tried(&mut self, routed: Routed, now: Millis) {
        self.route_retry = routed.problem.as_ref().map(|problem| {
            let (at, failures) = again(self.route_retry, now);
            tracing::warn!(problem, failures, "the kernel refuses routes; trying again");
            (at, failures)
        });
        self.routed = routed;
    }

    /// The wanted tables.
    #[must_use]
    pub const fn tables(&self) -> &Tables {
        self.engine.tables()
    }

    /// What of the fixed rules an operator chose.
    #[must_use]
    pub const fn options(&self) -> Options {
        self.options
    }

    /// What is wanted beside policy.
    #[must_use]
    pub const fn terms(&self) -> &Wanted {
        self.terms.wanted()
    }

    /// What routes are wanted for.
    #[must_use]
    pub const fn wants(&self) -> &Wants {
        &self.wants
    }

    /// May routes that nobody wants go? Not before every list, or bgpd's snapshot, that could want them is complete.
    #[must_use]
    pub fn sweep(&self) -> Sweep {
        Sweep {
            workloads: self.synced(),
            bgp: self.bgp.complete(),
        }
    }

    /// What to change in the kernel now. Policy waits until every list is complete: half a cluster's policy is a wrong one.
    fn plan(&mut self, now: Millis) -> Option<Plan> {
        if self.applying || self.retry.is_some_and(|(at, _)| now < at) {
            return None;
        }
        self.reread_routes |= self.route_retry.is_some_and(|(at, _)| now >= at);
        let leaving = self
            .endpoints
            .values()
            .any(|e| matches!(e.state, State::Removing { .. }));
        let terms_due = self.synced() && self.terms.settle();
        self.ruleset(self.options);
        self.complain();
        if self.synced() {
            self.float();
        }
        let policy_due = self.synced() && (self.engine_dirty || !self.tables_known && terms_due);
        let routes_due = self.reread_routes || self.relink || self.routes_changed.any();
        if !policy_due && !leaving && !routes_due && !terms_due {
            return None;
        }
        let policy = match (policy_due, self.tables_known) {
            (false, _) => Policy::Keep,
            (true, true) => Policy::Changes(self.engine.compile()),
            (true, false) => Policy::Resync(self.engine.compile()),
        };
        if policy_due {
            self.engine_dirty = false;
            self.acks.compiled(self.engine.stirred());
        }
        self.applying = true;
        Some(Plan {
            policy,
            routes: std::mem::take(&mut self.routes_changed),
            reread_routes: std::mem::take(&mut self.reread_routes),
            relink: std::mem::take(&mut self.relink),
            terms: terms_due,
        })
    }

    /// Tells the owners of pods which of their annotations are not in force.
    fn complain(&mut self) {
        let complaints = self.terms.complaints().into_iter();
        self.outputs.extend(complaints.map(Output::PodEvent));
    }

    /// A reservation that is in no log is none: after a crash its address would be given out again.
    fn unlogged(&mut self, call: CallId, now: Millis) {
        let problem = self.log_problem.as_ref().map_or("", |(problem, _)| problem);
        let error = CniError::new(Code::Io, "the attachment log cannot be written", problem);
        let holds =
            |e: &&Endpoint| matches!(&e.state, State::Reserved { call: by, .. } if *by == call);
        let key = self.endpoints.values().find(holds).map(|e| e.key.clone());
        self.outputs
            .push_front(Output::Answer(call, Reply::Failed { error }));
        if let Some(key) = key {
            self.del(None, &key, now);
        }
    }

    /// Lets the kubelet start pods, once: when felix is in step, owns a block, and BGP had its chance.
    fn offer_pods(&mut self, now: Millis) {
        if self.bgp.complete() || self.bgp_until.is_some_and(|until| now >= until) {
            self.bgp_until = None;
        }
        let heard = self.bgp_until.is_none();
        if !self.network_available && self.tables_known && heard && self.owns_blocks() {
            self.network_available = true;
            self.outputs.push_back(Output::NetworkAvailable);
        }
    }

    /// When what is being withdrawn counts as withdrawn, although no bgpd says so.
    fn withdrawn_at(&self) -> Option<Millis> {
        let away = self.bgpd_away.filter(|_| self.bgp.withdrawing());
        away.map(|since| since + PEERS_FORGET)
    }

    /// Why an ADD cannot be served now.
    fn status_error(&self) -> Option<CniError> {
        if let Some((problem, _)) = &self.log_problem {
            return Some(CniError::new(
                Code::Io,
                "the attachment log cannot be written",
                problem,
            ));
        }
        if !self.synced() {
            let missing: Vec<_> = Kind::ALL
                .iter()
                .filter(|kind| !self.in_sync.contains(kind))
                .collect();
            let why = self
                .lost
                .values()
                .next()
                .map(String::as_str)
                .unwrap_or_default();
            return Some(try_again(
                "felix does not know the cluster yet",
                format!("waiting for {missing:?} {why}"),
            ));
        }
        None
    }
}
