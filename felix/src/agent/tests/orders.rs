//! Every order in which felix and bgpd can die and their snapshots arrive: a route that is true is never taken from the
//! kernel, an origin never from bgpd, and at the end both have exactly what they should.

use api::v1::{
    Ack, BgpdMessage, EndOfSnapshot, Hello, Leg, RouteUpdate, bgpd_message, felix_message,
};

use super::*;
use crate::routes::diff::{Op, diff};
use crate::routes::model::{BGP_PROTOCOL, Kernel};
use crate::routes::want::Connected;

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// felix is killed and starts again.
    Felix,
    /// bgpd is killed and starts again.
    Bgpd,
    /// The stream between them breaks, if there is one.
    Break,
    /// felix connects, if it is not connected.
    Connect,
    /// bgpd learns one more route.
    Learn,
    /// bgpd has learnt all.
    Complete,
    /// felix' lists are complete.
    Sync,
}

const STEPS: [Step; 7] = [
    Step::Felix,
    Step::Bgpd,
    Step::Break,
    Step::Connect,
    Step::Learn,
    Step::Complete,
    Step::Sync,
];

/// What peers announce now.
const TRUTH: [(&str, &str); 3] = [
    ("10.244.64.0/26", "192.0.2.1"),
    ("10.244.65.0/26", "192.0.2.1"),
    ("fd00:10:244::400/122", "2001:db8::1"),
];
/// What they announced before everything was killed.
const PAST: [usize; 2] = [0, 2];
const GONE: (&str, &str) = ("10.244.66.0/26", "192.0.2.1");

/// bgpd, as far as the contract goes.
#[derive(Default)]
struct Bgpd {
    known: usize,
    complete: bool,
    /// The generation of the stream's last message.
    stream: Option<u64>,
    told_complete: bool,
    origins: BTreeSet<String>,
    unconfirmed: BTreeSet<String>,
    origins_complete: bool,
}

struct World {
    rig: Rig,
    bgpd: Bgpd,
    kernel: Kernel,
    connected: Connected,
    links: Vec<(String, u32)>,
}

fn say(body: bgpd_message::Body) -> Input {
    Input::Bgpd(BgpdMessage { body: Some(body) })
}

fn routes(of: impl Iterator<Item = (&'static str, &'static str)>) -> BTreeSet<Cidr> {
    of.map(|(prefix, _)| prefix.parse().unwrap()).collect()
}

impl World {
    /// Both have just been started on a node with routes and a log of an earlier life.
    fn new(log: &[u8], kernel: &Kernel) -> Self {
        let connected = Connected {
            running: [2].into(),
            networks: [
                ("192.0.2.0/24".parse().unwrap(), 2),
                ("2001:db8::/64".parse().unwrap(), 2),
            ]
            .into(),
            ..Connected::default()
        };
        let mut world = Self {
            rig: Rig::start(log, &[]),
            bgpd: Bgpd::default(),
            kernel: kernel.clone(),
            connected,
            links: Vec::new(),
        };
        world.settle();
        world
    }

    /// The kernel becomes what felix wants now.
    fn settle(&mut self) {
        let wanted = self.rig.agent.wants().routes(&self.connected);
        let plan = diff(&self.kernel, &wanted.routes, self.rig.agent.sweep());
        for op in plan.ops {
            match op {
                Op::AddNexthop(id, nexthop) | Op::ReplaceNexthop(id, nexthop) => {
                    self.kernel.nexthops.insert(id, nexthop);
                }
                Op::AddRoute(key, entry) | Op::ReplaceRoute(key, entry) => {
                    self.kernel.routes.insert(key, entry);
                }
                Op::DeleteRoute(key, _) => {
                    self.kernel.routes.remove(&key);
                }
                Op::DeleteNexthop(id) => {
                    self.kernel.nexthops.remove(&id);
                }
            }
        }
        for message in std::mem::take(&mut self.rig.to_bgpd) {
            self.hear(message.body);
        }
    }

    fn hear(&mut self, body: Option<felix_message::Body>) {
        let bgpd = &mut self.bgpd;
        if bgpd.stream.is_none() {
            return;
        }
        match body {
            Some(felix_message::Body::Origin(update)) if update.withdrawn => {
                bgpd.origins.remove(&update.prefix);
            }
            Some(felix_message::Body::Origin(update)) => {
                bgpd.unconfirmed.remove(&update.prefix);
                bgpd.origins.insert(update.prefix);
            }
            Some(felix_message::Body::EndOfSnapshot(_)) => {
                for prefix in std::mem::take(&mut bgpd.unconfirmed) {
                    bgpd.origins.remove(&prefix);
                }
                bgpd.origins_complete = true;
            }
            _ => {}
        }
    }

    fn give(&mut self, input: Input) {
        self.rig.give(input);
        self.settle();
    }

    fn tell(&mut self, body: impl FnOnce(u64) -> bgpd_message::Body) {
        let Some(generation) = &mut self.bgpd.stream else {
            return;
        };
        *generation += 1;
        let body = body(*generation);
        self.give(say(body));
    }

    fn tell_route(&mut self, (prefix, hop): (&'static str, &'static str)) {
        self.tell(|generation| {
            bgpd_message::Body::Route(RouteUpdate {
                generation,
                prefix: prefix.into(),
                legs: vec![Leg {
                    address: hop.into(),
                    weight: 1,
                    ..Leg::default()
                }],
            })
        });
    }

    fn tell_end(&mut self) {
        if self.bgpd.complete && self.bgpd.stream.is_some() && !self.bgpd.told_complete {
            self.bgpd.told_complete = true;
            self.tell(|generation| bgpd_message::Body::EndOfSnapshot(EndOfSnapshot { generation }));
        }
    }

    fn broken(&mut self) {
        self.bgpd.told_complete = false;
        if self.bgpd.stream.take().is_some() {
            self.give(Input::BgpdLost);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Felix => {
                self.bgpd.stream = None;
                self.bgpd.told_complete = false;
                let log = self.rig.log.clone();
                self.rig = Rig::start(&log, &self.links);
                self.settle();
            }
            Step::Bgpd => {
                self.broken();
                self.bgpd = Bgpd::default();
            }
            Step::Break => self.broken(),
            Step::Connect => {
                if self.bgpd.stream.is_some() {
                    return;
                }
                self.bgpd.stream = Some(0);
                self.bgpd.unconfirmed = self.bgpd.origins.clone();
                self.give(Input::BgpdConnected);
                self.give(say(bgpd_message::Body::Hello(Hello {
                    version: 1,
                    instance: "b".into(),
                })));
                self.tell(|_| bgpd_message::Body::Ack(Ack::default()));
                for route in &TRUTH[..self.bgpd.known] {
                    self.tell_route(*route);
                }
                self.tell_end();
            }
            Step::Learn => {
                if let Some(route) = TRUTH.get(self.bgpd.known) {
                    self.bgpd.known += 1;
                    self.tell_route(*route);
                }
            }
            Step::Complete => {
                while self.bgpd.known < TRUTH.len() {
                    self.step(Step::Learn);
                }
                self.bgpd.complete = true;
                self.tell_end();
            }
            Step::Sync => {
                self.rig.sync();
                self.settle();
            }
        }
    }

    fn learnt(&self) -> BTreeSet<Cidr> {
        let of_bgp = self.kernel.routes.iter();
        of_bgp
            .filter(|(_, entry)| entry.protocol == BGP_PROTOCOL)
            .map(|(key, _)| key.prefix)
            .collect()
    }
}

/// A log with a pod and its blocks, and a kernel with the routes of the past.
fn past() -> (Vec<u8>, Kernel, BTreeSet<String>) {
    let mut rig = Rig::synced();
    rig.attach(1, 1);
    let blocks = rig
        .agent
        .wants()
        .blocks
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut world = World::new(&rig.log, &Kernel::default());
    world.step(Step::Connect);
    for place in PAST {
        world.tell_route(TRUTH[place]);
    }
    world.tell_route(GONE);
    (rig.log, world.kernel, blocks)
}

#[test]
fn every_order_of_deaths_and_snapshots_keeps_what_is_true_and_ends_right() {
    const LENGTH: u32 = 4;
    let (log, kernel, blocks) = past();
    let truth = routes(TRUTH.into_iter());
    let mut orders = 0_u32;
    for number in 0..STEPS.len().pow(LENGTH) {
        let order: Vec<Step> = (0..LENGTH)
            .map(|place| STEPS[number / STEPS.len().pow(place) % STEPS.len()])
            .collect();
        let mut world = World::new(&log, &kernel);
        let mut had = routes(PAST.into_iter().map(|place| TRUTH[place]));
        let mut told = BTreeSet::new();
        let end = [Step::Connect, Step::Complete, Step::Sync];
        for (place, step) in order.iter().chain(&end).enumerate() {
            world.step(*step);
            let now = world.learnt();
            let lost: Vec<_> = had.difference(&now).collect();
            assert!(
                lost.is_empty(),
                "{order:?}, step {place}: {lost:?} are lost"
            );
            had.extend(now.intersection(&truth));
            if *step == Step::Bgpd {
                told.clear();
            }
            let withdrawn: Vec<_> = told.difference(&world.bgpd.origins).collect();
            assert!(
                withdrawn.is_empty(),
                "{order:?}, step {place}: {withdrawn:?} are withdrawn"
            );
            told.extend(world.bgpd.origins.iter().cloned());
            if world.bgpd.origins_complete {
                assert_eq!(world.bgpd.origins, blocks, "{order:?}, step {place}");
            }
        }
        assert_eq!(world.learnt(), truth, "{order:?}");
        assert_eq!(world.bgpd.origins, blocks, "{order:?}");
        orders += 1;
    }
    assert_eq!(orders, 7_u32.pow(LENGTH));
}
