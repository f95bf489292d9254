//! margay-fib: writes bgpd's best routes into the kernel where there is no felix.
//!
//! It has the contract with bgpd and the difference of routes in common with felix, and nothing else: no pods, no policy,
//! no Kubernetes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use api::daemon::stopped;
use api::paths;
use api::v1::FelixMessage;
use crds::net::{Cidr, Family};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::bgp::{self, Event as BgpEvent};
use super::netlink::{Event, Monitor, Netlink};
use super::radv::{self, Advertiser};
use super::state;
use super::writer::Writer;
use crate::agent::bgp::{Bgp, Change};
use crate::args::FibArgs;
use crate::routes::diff::Sweep;
use crate::routes::model::{BGP_METRIC, BGP_PROTOCOL};
use crate::routes::table::{Changed, Table};
use crate::routes::want::{self, Wants};

/// Messages of bgpd that wait.
const QUEUE: usize = 1024;
/// Everything is read again this often: not every route that goes is told of.
const ROUND: Duration = Duration::from_secs(30);
/// How long the kernel is left to finish before it is looked at again.
const SETTLE: Duration = Duration::from_millis(20);

/// Runs until it is told to stop. The routes stay in force then.
pub async fn run(args: FibArgs) -> anyhow::Result<()> {
    let stop = stopped("routes stay in force")?;
    let _writer =
        Writer::take(&args.run_dir, "margay-fib").context("becoming the writer of routes")?;
    let netlink = Netlink::open().context("opening rtnetlink")?;
    // Before the first look, so that nothing changes unseen between the two.
    let mut monitor = Monitor::open(netlink.port()?).context("watching the kernel")?;
    let mut fib = Fib::new(netlink, &args)?;
    let (to_fib, mut events) = mpsc::channel(QUEUE);
    tokio::spawn(bgp::run(args.run_dir.join(paths::BGPD_SOCKET), to_fib));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "margay-fib is up");

    let mut stop = std::pin::pin!(stop);
    let mut round_at = Instant::now() + ROUND;
    loop {
        let look = tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            // Before what bgpd says of each prefix because of it.
            changed = monitor.next() => {
                let events = changed.context("reading the kernel's events")?;
                if events.iter().any(|it| matches!(it, Event::Link(..) | Event::LinkGone(..))) {
                    // An uplink that fails is a matter of milliseconds: its legs first, all else when it is over.
                    tokio::task::block_in_place(|| {
                        fib.relink()?;
                        fib.fail_over()?;
                        fib.settle()
                    })?;
                }
                concerns(&events)
            }
            event = events.recv() => {
                let event = event.context("the stream to bgpd cannot be made any more")?;
                fib.bgp(event);
                for _ in 0..QUEUE {
                    let Ok(event) = events.try_recv() else { break };
                    fib.bgp(event);
                }
                false
            }
            () = sleep_until(round_at.into()) => true,
        };
        if look {
            tokio::time::sleep(SETTLE).await;
            while let Ok(more) = tokio::time::timeout(Duration::ZERO, monitor.next()).await {
                more.context("reading the kernel's events")?;
            }
            round_at = Instant::now() + ROUND;
            tokio::task::block_in_place(|| fib.reread())?;
        }
        tokio::task::block_in_place(|| fib.settle())?;
    }
}

/// Whether any of these may change what our routes lead to, or took some away.
fn concerns(events: &[Event]) -> bool {
    events.iter().any(|event| match event {
        Event::RouteGone(key, entry) => entry.protocol == BGP_PROTOCOL || key.metric == BGP_METRIC,
        Event::RouteChanged(_, entry) => entry.protocol == BGP_PROTOCOL,
        Event::Address(address) | Event::AddressGone(address) => address.global,
        Event::Link(..) | Event::LinkGone(..) | Event::Nexthop | Event::Overrun => true,
    })
}

/// What is wanted, what is known of the kernel, and the sockets.
struct Fib {
    netlink: Netlink,
    routes: Table,
    bgp: Bgp,
    wants: Wants,
    changed: Changed,
    bgpd: Option<mpsc::Sender<FelixMessage>>,
    advertiser: Advertiser,
    conflicts: BTreeSet<String>,
    failure: Option<String>,
}

impl Fib {
    fn new(netlink: Netlink, args: &FibArgs) -> anyhow::Result<Self> {
        let boot_id = state::boot_id(&args.boot_id_file).context("reading the kernel's boot id")?;
        let instance = state::random_id()?;
        let mut fib = Self {
            netlink,
            routes: Table::default(),
            bgp: Bgp::new(instance.clone(), boot_id.clone(), [false; 2]),
            wants: Wants::default(),
            changed: Changed::All,
            bgpd: None,
            advertiser: Advertiser::default(),
            conflicts: BTreeSet::new(),
            failure: None,
        };
        fib.wants.sources = args
            .source
            .iter()
            .map(|it| (Family::of(*it), *it))
            .collect();
        fib.reread()?;
        let learnt = |family| {
            let mut routes = fib.routes.kernel().routes.iter();
            routes.any(|(key, it)| it.protocol == BGP_PROTOCOL && key.prefix.family() == family)
        };
        let preserved = [learnt(Family::V4), learnt(Family::V6)];
        fib.bgp = Bgp::new(instance, boot_id, preserved);
        Ok(fib)
    }

    fn reread(&mut self) -> anyhow::Result<()> {
        self.routes
            .read(self.netlink.read().context("reading routes")?);
        self.relink()
    }

    fn relink(&mut self) -> anyhow::Result<()> {
        let connected = self.netlink.connected().context("reading interfaces")?;
        self.routes.link(connected);
        Ok(())
    }

    /// Takes legs over dead links out of their groups. What is refused is seen to with the rest.
    fn fail_over(&mut self) -> anyhow::Result<()> {
        let ops = self.routes.fail_over();
        let applied = self.netlink.apply(&ops).context("changing groups")?;
        if applied.failed.is_empty() {
            self.routes.done(ops);
        }
        Ok(())
    }

    fn bgp(&mut self, event: BgpEvent) {
        match event {
            BgpEvent::Connected(to) => {
                tracing::info!("connected to bgpd");
                self.bgpd = Some(to);
                for message in self.bgp.connect() {
                    self.tell(message);
                }
            }
            BgpEvent::Message(message) => {
                if let Some(interfaces) = radv::asked(&message) {
                    self.advertiser.set(interfaces);
                }
                match self.bgp.take(message) {
                    Change::Routes(prefixes) => self.want(&prefixes),
                    Change::Complete(gone) => {
                        tracing::info!(routes = self.bgp.routes(), "the routes are complete");
                        self.want(&gone);
                    }
                    Change::Nothing | Change::Withdrawn(_) => {}
                }
                if let Some(problem) = self.bgp.problem() {
                    tracing::warn!(problem, "bgpd cannot be followed in all");
                }
            }
            BgpEvent::Lost(reason) => {
                tracing::warn!(reason, "bgpd is gone; its routes stay");
                self.bgpd = None;
                self.bgp.disconnect();
            }
        }
    }

    fn want(&mut self, prefixes: &[Cidr]) {
        for prefix in prefixes {
            match self.bgp.legs(prefix) {
                Some(legs) => self.wants.bgp.insert(*prefix, legs.to_vec()),
                None => self.wants.bgp.remove(prefix),
            };
            self.changed.add(want::bgp(*prefix));
        }
    }

    fn tell(&mut self, message: FelixMessage) {
        // A full channel means that bgpd has stopped reading: the next stream begins with everything again.
        if self
            .bgpd
            .as_ref()
            .is_some_and(|to| to.try_send(message).is_err())
        {
            self.bgpd = None;
        }
    }

    /// Brings the kernel in step with what is wanted; what it refuses is tried again with the next look at it.
    fn settle(&mut self) -> anyhow::Result<()> {
        let mut failure = self.apply()?;
        if failure.is_some() {
            // What was known of the kernel may be old: links take routes along that nobody tells of.
            self.reread()?;
            failure = self.apply()?;
        }
        match failure {
            None => {
                if let Some(ack) = self.bgp.ack() {
                    self.tell(ack);
                }
            }
            Some(problem) => {
                if self.failure.as_ref() != Some(&problem) {
                    tracing::warn!(problem, "the kernel refuses routes; trying again");
                }
                self.reread()?;
                self.failure = Some(problem);
                return Ok(());
            }
        }
        self.failure = None;
        Ok(())
    }

    /// One difference, carried out; the first thing that the kernel refuses.
    fn apply(&mut self) -> anyhow::Result<Option<String>> {
        // Routes of an earlier life may still be wanted until bgpd has said all.
        let sweep = Sweep {
            workloads: false,
            bgp: self.bgp.complete(),
        };
        let changed = std::mem::take(&mut self.changed);
        let plan = self.routes.plan(&self.wants, &changed, sweep);
        let conflicts = self.routes.conflicts();
        let conflicts: BTreeSet<String> = conflicts.map(|it| it.key.to_string()).collect();
        for route in conflicts.difference(&self.conflicts) {
            tracing::warn!(
                route,
                "another program has a route there; it stays, ours is not made"
            );
        }
        self.conflicts = conflicts;
        let applied = self.netlink.apply(&plan.ops).context("changing routes")?;
        if let Some((op, refusal)) = applied.failed.first() {
            return Ok(Some(format!("{op}: {refusal}")));
        }
        if applied.conflicts.is_empty() {
            self.routes.done(plan.ops);
        } else {
            // Made by somebody since they were last read.
            self.reread()?;
        }
        Ok(None)
    }
}
