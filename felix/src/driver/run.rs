//! The main loop: feeds the agent, carries out what it wants.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use api::v1::{FelixMessage, PolicyEvent};
use cni::frame::Reply;
use kube::Client;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::sleep_until;

use super::bgp::Event as BgpEvent;
use super::cni::Event as CniEvent;
use super::grpc::Query;
use super::kernel::Kernel;
use super::radv::{self, Advertiser};
use super::report::Board;
use super::state::StateDir;
use super::{SPOOL_DIR, conflist, write};
use crate::Millis;
use crate::agent::input::{CallId, Fetched, Input, Update};
use crate::agent::{Agent, Output};
use crate::args::Args;
use crate::nft::log::Logged;
use crate::policy::counts::Packets;

/// Everything that reaches the main loop.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) updates: mpsc::Receiver<Update>,
    pub(super) calls: mpsc::Receiver<CniEvent>,
    pub(super) bgp: mpsc::Receiver<BgpEvent>,
    pub(super) kernel: mpsc::Receiver<Input>,
    pub(super) queries: mpsc::Receiver<Query>,
    pub(super) packets: mpsc::Receiver<Logged>,
}

/// The loop's own state.
pub(super) struct Loop {
    pub(super) args: Args,
    pub(super) client: Client,
    pub(super) agent: Agent,
    pub(super) kernel: Kernel,
    pub(super) state: StateDir,
    pub(super) clock: Instant,
    /// Answers of writes to the API.
    answers: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    waiting: HashMap<CallId, oneshot::Sender<Reply>>,
    bgpd: Option<mpsc::Sender<FelixMessage>>,
    advertiser: Advertiser,
    events: broadcast::Sender<PolicyEvent>,
    /// What the controller is told of.
    board: Arc<Board>,
}

/// How often the spool is looked into, and drift in the kernel looked for.
const ROUND: Duration = Duration::from_secs(30);
/// Inputs taken before the agent is polled: a burst becomes one kernel transaction.
const BURST: usize = 256;
/// Events that wait for who watches them.
const EVENTS: usize = 256;

impl Loop {
    pub(super) fn new(
        args: Args,
        client: Client,
        agent: Agent,
        kernel: Kernel,
        state: StateDir,
        board: Arc<Board>,
        clock: Instant,
    ) -> Self {
        Self {
            args,
            client,
            agent,
            kernel,
            state,
            clock,
            answers: mpsc::channel(64),
            waiting: HashMap::new(),
            bgpd: None,
            advertiser: Advertiser::default(),
            events: broadcast::Sender::new(EVENTS),
            board,
        }
    }

    /// Runs until `stop` is done.
    pub(super) async fn run(
        mut self,
        mut from: Sources,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let mut stop = std::pin::pin!(stop);
        let mut round_at = Instant::now();
        loop {
            if Instant::now() >= round_at {
                self.round();
                round_at = Instant::now() + ROUND;
            }
            if self.agent.next_timeout().is_some_and(|at| at <= self.now()) {
                self.input(Input::Tick);
            }
            self.settle()?;
            if let Err(error) = tokio::task::block_in_place(|| self.kernel.bump()) {
                tracing::warn!(%error, "policy is compared with the kernel");
                self.input(Input::TablesChanged);
                self.settle()?;
            }
            self.tell();
            let timeout = self
                .agent
                .next_timeout()
                .map(|at| self.clock + Duration::from_millis(at));
            let wake = [timeout, self.kernel.bump_due()]
                .into_iter()
                .flatten()
                .fold(round_at, Instant::min);
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                Some(event) = from.calls.recv() => self.call(event),
                Some(input) = from.kernel.recv() => self.kernel(input),
                Some(update) = from.updates.recv() => self.input(Input::Feed(update)),
                Some(event) = from.bgp.recv() => self.bgp(event),
                Some(input) = self.answers.1.recv() => self.input(input),
                Some(query) = from.queries.recv() => self.query(query),
                Some(packet) = from.packets.recv() => self.packet(&packet),
                () = sleep_until(wake.into()) => {}
            }
            self.drain(&mut from);
        }
    }

    /// Takes what else is there, up to a burst of each source: one that never falls silent must not silence the others.
    fn drain(&mut self, from: &mut Sources) {
        for _ in 0..BURST {
            let Ok(event) = from.calls.try_recv() else {
                break;
            };
            self.call(event);
        }
        for _ in 0..BURST {
            let Ok(input) = from.kernel.try_recv() else {
                break;
            };
            self.kernel(input);
        }
        for _ in 0..BURST {
            let Ok(update) = from.updates.try_recv() else {
                break;
            };
            self.input(Input::Feed(update));
        }
        for _ in 0..BURST {
            let Ok(event) = from.bgp.try_recv() else {
                break;
            };
            self.bgp(event);
        }
        for _ in 0..BURST {
            let Ok(input) = self.answers.1.try_recv() else {
                break;
            };
            self.input(input);
        }
        for _ in 0..BURST {
            let Ok(query) = from.queries.try_recv() else {
                break;
            };
            self.query(query);
        }
    }

    /// What is in force is told when live connections have been judged by it.
    fn tell(&mut self) {
        if self.kernel.bump_due().is_none() {
            self.agent.judged();
        }
        if let Some(changes) = self.agent.policies_in_force() {
            self.board.put(changes);
        }
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.clock.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        self.agent.handle(input, now);
    }

    fn kernel(&mut self, input: Input) {
        if let Input::Link(name, Some(_)) = &input {
            // The report may be older than our own change of the group: what counts is what the kernel has now.
            let tables = self.agent.tables();
            match tokio::task::block_in_place(|| self.kernel.regrouped(name, tables)) {
                Ok(false) => {}
                Ok(true) => {
                    tracing::warn!(
                        name,
                        "another program has changed the group of a pod's interface; it is set again"
                    );
                    self.input(Input::TablesChanged);
                }
                Err(error) => tracing::warn!(%error, name, "looking at a pod's interface"),
            }
        }
        self.input(input);
    }

    fn call(&mut self, event: CniEvent) {
        if let CniEvent::Call(call) = &event
            && let cni::frame::Request::Ready { key, .. } = &call.request
        {
            // The monitor's word of the new interface may still be on its way.
            let name = key.host_interface();
            match tokio::task::block_in_place(|| self.kernel.ifindex(&name)) {
                Ok(ifindex) => self.input(Input::Link(name, ifindex)),
                Err(error) => tracing::warn!(%error, name, "looking for the pod's interface"),
            }
        }
        if let CniEvent::Hangup(call) = &event {
            // Nobody is there any more to be answered.
            self.waiting.remove(call);
        }
        let (input, waiting) = event.split();
        self.waiting.extend(waiting);
        self.input(input);
    }

    fn bgp(&mut self, event: BgpEvent) {
        match event {
            BgpEvent::Connected(to) => {
                tracing::info!("connected to bgpd");
                self.bgpd = Some(to);
                self.input(Input::BgpdConnected);
            }
            BgpEvent::Message(message) => {
                if let Some(interfaces) = radv::asked(&message) {
                    self.advertiser.set(interfaces);
                }
                self.input(Input::Bgpd(message));
            }
            BgpEvent::Lost(reason) => {
                tracing::warn!(reason, "bgpd is gone; its routes stay");
                self.bgpd = None;
                self.input(Input::BgpdLost);
            }
        }
    }

    fn round(&mut self) {
        let mut keys = Vec::new();
        match cni::spool::drain(&self.args.state_dir.join(SPOOL_DIR), |key| keys.push(key)) {
            Ok(bad) => bad
                .iter()
                .for_each(|what| tracing::warn!(what, "a file of the spool cannot be read")),
            Err(error) => tracing::warn!(%error, "reading the spool"),
        }
        for key in keys {
            self.input(Input::Detach(key));
        }
        match tokio::task::block_in_place(|| {
            self.kernel.drifted(self.agent.tables(), self.agent.terms())
        }) {
            Ok(false) => {}
            Ok(true) => self.input(Input::TablesChanged),
            Err(error) => tracing::warn!(%error, "looking for drift in the kernel"),
        }
        // Not every route that goes is told of.
        self.input(Input::RoutesChanged);
    }

    /// Carries out what the agent wants until it wants nothing more.
    fn settle(&mut self) -> anyhow::Result<()> {
        while let Some(output) = {
            let now = self.now();
            self.agent.poll(now)
        } {
            self.carry_out(output)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, output: Output) -> anyhow::Result<()> {
        match output {
            Output::Answer(call, reply) => {
                if let Some(answer) = self.waiting.remove(&call) {
                    // A plugin that is gone has hung up, which is an input of its own.
                    let _ = answer.send(reply);
                }
            }
            Output::Log(record) => {
                let outcome = self.state.append(&record).map_err(|e| e.to_string());
                self.agent.logged(outcome, self.now());
            }
            Output::RewriteLog(bytes) => {
                let outcome = self.state.rewrite(&bytes).map_err(|e| e.to_string());
                self.agent.logged(outcome, self.now());
            }
            Output::Apply(plan) => {
                let revision = plan.revision();
                let outcome =
                    tokio::task::block_in_place(|| self.kernel.carry_out(&plan, &self.agent));
                // As long as it is known what was counted.
                self.agent.count(&self.kernel.gone());
                self.agent
                    .applied(outcome.map_err(|e| format!("{e:#}")), revision, self.now());
                self.input(Input::Mtu(self.kernel.mtu()));
                self.input(Input::Loopbacks(self.kernel.loopbacks().clone()));
                self.input(Input::Interfaces(self.kernel.interfaces().clone()));
                self.input(Input::SettingsRefused(self.kernel.settings_refused()));
                self.input(Input::RoutesRefused(self.kernel.conflicts().clone()));
                let quiet = self.kernel.rules().0.quiet;
                self.input(Input::LoggingRefused(quiet && !self.agent.options().quiet));
            }
            Output::DeleteLink(name) => self.kernel.delete_link(name),
            Output::ToBgpd(message) => {
                // A full channel means that bgpd has stopped reading: the stream ends, and the next one begins with
                // everything again.
                if self
                    .bgpd
                    .as_ref()
                    .is_some_and(|to| to.try_send(message).is_err())
                {
                    self.bgpd = None;
                }
            }
            Output::CreateBlock(cidr, block) => {
                let lost = ipam::Input::CreateFailed { cidr };
                self.spawn(Some(Input::Ipam(Box::new(lost))), |client| async move {
                    Some(write::create_block(client, cidr, *block).await)
                });
            }
            Output::DeleteBlock(cidr, uid) => {
                let lost = ipam::Input::DeleteFailed { cidr };
                self.spawn(Some(Input::Ipam(Box::new(lost))), |client| async move {
                    Some(write::delete_block(client, cidr, uid).await)
                });
            }
            Output::MirrorBlock(cidr, uid, allocations) => {
                let lost = ipam::Input::MirrorFailed { cidr };
                self.spawn(Some(Input::Ipam(Box::new(lost))), |client| async move {
                    Some(write::mirror_block(client, cidr, uid, allocations).await)
                });
            }
            Output::SurveyBlocks => {
                self.spawn(
                    Some(Input::Ipam(Box::new(ipam::Input::SurveyFailed))),
                    |client| async { Some(write::survey_blocks(client).await) },
                );
            }
            Output::PoolCondition(name, problem) => self.spawn(None, |client| async move {
                write::pool_condition(client, name, problem).await;
                None
            }),
            Output::PodEvent(complaint) => {
                let node = self.args.node_name.clone();
                self.spawn(None, |client| async move {
                    write::pod_event(client, &node, complaint).await;
                    None
                });
            }
            Output::NodeEvent(problem) => {
                let node = self.args.node_name.clone();
                self.spawn(None, |client| async move {
                    write::node_event(client, &node, problem).await;
                    None
                });
            }
            Output::FetchPod(namespace, name, uid) => {
                let away = Fetched::Away("it does not answer".into());
                let lost = Input::PodFetched(uid.clone(), Box::new(away));
                self.spawn(Some(lost), |client| async move {
                    Some(write::fetch_pod(client, namespace, name, uid).await)
                });
            }
            Output::KeepAddresses(addresses) => {
                if let Err(error) = self.state.keep_addresses(&addresses) {
                    tracing::warn!(%error, "keeping the node's addresses for a start without the API");
                }
            }
            Output::NetworkAvailable => self.network_available()?,
            Output::Stop(reason) => anyhow::bail!(reason),
        }
        Ok(())
    }

    /// Writes to the API without waiting; what comes of it is an input, and `lost` is when nothing does.
    fn spawn<F>(&self, lost: Option<Input>, work: impl FnOnce(Client) -> F)
    where
        F: Future<Output = Option<Input>> + Send + 'static,
    {
        let work = work(self.client.clone());
        let answers = self.answers.0.clone();
        tokio::spawn(async move {
            if let Some(input) = write::outcome(work, write::PATIENCE, lost).await {
                let _ = answers.send(input).await;
            }
        });
    }

    fn network_available(&self) -> anyhow::Result<()> {
        let Args {
            cni_conf_dir,
            run_dir,
            state_dir,
            node_name,
            ..
        } = &self.args;
        conflist::write(cni_conf_dir, run_dir, state_dir).with_context(|| {
            format!("writing {} into {}", conflist::FILE, cni_conf_dir.display())
        })?;
        tracing::info!("the node takes pods");
        let (client, node) = (self.client.clone(), node_name.clone());
        tokio::spawn(async move {
            let mut pause = Duration::from_millis(200);
            while let Err(error) = write::network_available(client.clone(), &node).await {
                tracing::warn!(%error, "telling the scheduler that the network is available; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(ROUND);
            }
        });
        Ok(())
    }

    /// A packet was denied or noted.
    fn packet(&mut self, packet: &Logged) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = unix.map_or(0, |it| i64::try_from(it.as_millis()).unwrap_or(i64::MAX));
        let now = self.now();
        if let Some(event) = self.agent.noted(packet, millis, now) {
            // Nobody may be watching.
            let _ = self.events.send(event);
        }
    }

    /// What the kernel has counted, or why that cannot be read.
    fn packets(&mut self) -> Result<Packets, String> {
        tokio::task::block_in_place(|| self.kernel.packets()).map_err(|error| format!("{error:#}"))
    }

    fn query(&mut self, query: Query) {
        // Whoever asked may have gone meanwhile.
        match query {
            Query::Status(answer) => drop(answer.send(self.agent.status(self.now()))),
            Query::Blocks(answer) => drop(answer.send(self.agent.list_blocks())),
            Query::Endpoints(answer) => drop(answer.send(self.agent.list_endpoints())),
            Query::Policies(answer) => drop(answer.send(self.agent.list_policies())),
            Query::Events(answer) => {
                let kept = self.agent.events().cloned().collect();
                drop(answer.send((kept, self.events.subscribe())));
            }
            Query::Table(answer) => {
                drop(answer.send(self.agent.picture(self.kernel.rules())));
            }
            Query::Cluster(answer) => drop(answer.send(self.agent.cluster())),
            Query::Explain(asked, answer) => {
                let mut explained = self.agent.explain_policy(&asked, &super::netlink::towards);
                if let Ok(explained) = &mut explained {
                    let packets = self.packets();
                    self.agent.add_counters(explained, packets);
                }
                drop(answer.send(explained));
            }
            Query::Counters(answer) => {
                let packets = self.packets();
                drop(answer.send(self.agent.list_rule_counters(packets, self.now())));
            }
        }
    }
}
