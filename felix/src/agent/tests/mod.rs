use std::net::IpAddr;

use cni::frame::{Pod, Request};
use cni::key::AttachmentKey;
use crds::ipam_block::{Block, Owner};

use super::input::{Fetched, Update};
use super::*;
use crate::feed::{Identity, Labels};
use crate::policy::tables::Tables;

mod faults;
mod orders;

/// An agent with a driver that does what it is told at once and remembers it.
struct Rig {
    agent: Agent,
    now: Millis,
    answers: Vec<(CallId, Reply)>,
    log: Vec<u8>,
    log_full: bool,
    kernel_refuses: bool,
    /// Prefixes whose routes the kernel does not take.
    refused: Vec<Cidr>,
    applied: usize,
    deleted: Vec<String>,
    created: Vec<Cidr>,
    /// What the blocks' mirrors say.
    mirrors: BTreeMap<Cidr, Vec<Allocation>>,
    to_bgpd: Vec<FelixMessage>,
    fetches: Vec<String>,
    available: usize,
    conditions: Vec<Option<String>>,
}

fn owner() -> Owner {
    Owner {
        node: "n1".into(),
        node_uid: "node-uid".into(),
        instance: "i".into(),
    }
}

fn key(n: u32) -> AttachmentKey {
    AttachmentKey {
        network: "margay".into(),
        container_id: format!("c{n}"),
        interface: "eth0".into(),
    }
}

fn pod(n: u32) -> Pod {
    Pod {
        namespace: "default".into(),
        name: format!("web-{n}"),
        uid: format!("uid-{n}"),
    }
}

fn feed_pod(n: u32) -> input::Pod {
    let identity = Identity {
        uid: format!("uid-{n}").into(),
        namespace: "default".into(),
        name: format!("web-{n}").into(),
        labels: Labels::default(),
        service_account: "default".into(),
        created: 0,
        addresses: [].into(),
        named_ports: [].into(),
        host_network: false,
    };
    input::Pod {
        identity,
        node: "n1".into(),
        finished: false,
        annotations: BTreeMap::new(),
    }
}

fn pool(cidr: &str) -> Pool {
    Pool::new(cidr.replace(['/', ':', '.'], "-"), cidr.parse().unwrap())
}

/// The object of a block of [`owner`]'s, with these lines in its mirror.
fn block_object(cidr: Cidr, allocations: &[Allocation]) -> IPAMBlock {
    let pool = if cidr.prefix_len() == 26 {
        "10-244-0-0-16"
    } else {
        "fd00-10-244---64"
    };
    let mut object = Block::claim(cidr, pool, &owner());
    object.metadata.uid = Some(format!("epoch-{cidr}"));
    object.status.get_or_insert_default().allocations = allocations.to_vec();
    object
}

impl Rig {
    fn start(log: &[u8], links: &[(String, u32)]) -> Self {
        Self::routed(log, links, &[])
    }

    /// With workload routes of an earlier life to these addresses.
    fn routed(log: &[u8], links: &[(String, u32)], routed: &[IpAddr]) -> Self {
        let start = Start {
            owner: owner(),
            life: "life".into(),
            boot_id: "boot".into(),
            log: start::read_log(log, "boot"),
            links: links.iter().cloned().collect(),
            routed: routed.iter().copied().collect(),
            preserved: [false, false],
            tables: Tables::default(),
            mtu: 1500,
            addresses: Vec::new(),
            loopbacks: BTreeSet::new(),
            interfaces: BTreeMap::new(),
        };
        let mut rig = Self {
            agent: Agent::new(start, 0),
            now: 0,
            answers: Vec::new(),
            log: log.to_vec(),
            log_full: false,
            kernel_refuses: false,
            refused: Vec::new(),
            applied: 0,
            deleted: Vec::new(),
            created: Vec::new(),
            mirrors: BTreeMap::new(),
            to_bgpd: Vec::new(),
            fetches: Vec::new(),
            available: 0,
            conditions: Vec::new(),
        };
        rig.settle();
        rig
    }

    /// A node with its first blocks, in step.
    fn synced() -> Self {
        let mut rig = Self::start(&[], &[]);
        rig.sync();
        rig
    }

    fn sync(&mut self) {
        let node = Node {
            uid: "node-uid".into(),
            ..Node::default()
        };
        self.feed(Update::Node(node));
        self.feed(Update::Namespace("default".into(), Labels::default()));
        for cidr in ["10.244.0.0/16", "fd00:10:244::/64"] {
            self.feed(Update::Pool(cidr.into(), Ok(pool(cidr)), Some(false)));
        }
        for kind in Kind::ALL {
            self.feed(Update::InSync(kind));
        }
    }

    fn feed(&mut self, update: Update) {
        self.give(Input::Feed(update));
    }

    fn give(&mut self, input: Input) {
        self.agent.handle(input, self.now);
        self.settle();
    }

    fn wait(&mut self, millis: Millis) {
        let end = self.now + millis;
        while let Some(at) = self.agent.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.give(Input::Tick);
            self.assert_patient();
        }
        self.now = end;
        self.give(Input::Tick);
        self.assert_patient();
    }

    /// A timeout that has passed and passes again at once would keep a processor busy.
    fn assert_patient(&self) {
        let next = self.agent.next_timeout();
        assert!(
            next.is_none_or(|at| at > self.now),
            "a tick at {} asks for one at {next:?}",
            self.now
        );
    }

    fn settle(&mut self) {
        while let Some(output) = self.agent.poll(self.now) {
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        let full = || Err("no space left on device".to_owned());
        match output {
            Output::Answer(call, reply) => self.answers.push((call, reply)),
            Output::Log(bytes) => {
                let outcome = if self.log_full { full() } else { Ok(()) };
                if outcome.is_ok() {
                    self.log.extend(bytes);
                }
                self.agent.logged(outcome, self.now);
            }
            Output::RewriteLog(bytes) => {
                let outcome = if self.log_full { full() } else { Ok(()) };
                if outcome.is_ok() {
                    self.log = bytes;
                }
                self.agent.logged(outcome, self.now);
            }
            Output::Apply(plan) => {
                let routes = plan.routes.any() || plan.reread_routes || plan.relink;
                let outcome = if self.kernel_refuses {
                    Err("EINVAL".to_owned())
                } else {
                    Ok(routes.then(|| self.take_routes()))
                };
                self.applied += 1;
                self.agent.applied(outcome, plan.revision(), self.now);
            }
            Output::DeleteLink(name) => {
                self.agent.handle(Input::Link(name.clone(), None), self.now);
                self.deleted.push(name);
            }
            Output::ToBgpd(message) => self.to_bgpd.push(message),
            Output::CreateBlock(cidr, _) => {
                self.created.push(cidr);
                let made = ipam::Input::Created {
                    cidr,
                    uid: format!("epoch-{cidr}"),
                };
                self.agent.handle(Input::Ipam(Box::new(made)), self.now);
            }
            Output::DeleteBlock(cidr, _) => {
                let gone = Input::Ipam(Box::new(ipam::Input::Deleted { cidr }));
                self.agent.handle(gone, self.now);
            }
            Output::MirrorBlock(cidr, _, allocations) => {
                self.mirrors.insert(cidr, allocations);
                self.agent.handle(
                    Input::Ipam(Box::new(ipam::Input::Mirrored { cidr })),
                    self.now,
                );
            }
            Output::SurveyBlocks => {
                let taken = self.created.iter().copied().collect();
                self.agent.handle(
                    Input::Ipam(Box::new(ipam::Input::Surveyed(taken))),
                    self.now,
                );
            }
            Output::PoolCondition(_, problem) => self.conditions.push(problem),
            Output::FetchPod(_, _, uid) => self.fetches.push(uid),
            Output::KeepAddresses(_) | Output::PodEvent(_) | Output::NodeEvent(_) => {}
            Output::NetworkAvailable => self.available += 1,
            Output::Stop(reason) => panic!("stopped: {reason}"),
        }
    }

    fn take_routes(&self) -> Routed {
        let wants = &self.agent.wants;
        let workloads = wants.workloads.keys().map(|address| Cidr::host(*address));
        let wanted = workloads.chain(wants.blocks.iter().copied());
        let refused: BTreeSet<Cidr> = wanted
            .chain(wants.bgp.keys().copied())
            .filter(|prefix| self.refused.contains(prefix))
            .collect();
        let problem = (!refused.is_empty()).then(|| "ENETUNREACH".to_owned());
        Routed { refused, problem }
    }

    fn call(&mut self, id: CallId, request: Request) {
        self.give(Input::Call(id, request));
    }

    fn reply(&mut self, id: CallId) -> Option<Reply> {
        let at = self.answers.iter().position(|(call, _)| *call == id)?;
        Some(self.answers.remove(at).1)
    }

    fn add(&mut self, id: CallId, n: u32) -> Vec<IpAddr> {
        self.call(
            id,
            Request::Add {
                key: key(n),
                pod: pod(n),
            },
        );
        match self.reply(id) {
            Some(Reply::Reserved { addresses, .. }) => addresses,
            other => panic!("{other:?}"),
        }
    }

    fn ready(&mut self, id: CallId, n: u32) {
        self.give(Input::Link(key(n).host_interface(), Some(100 + n)));
        self.call(
            id,
            Request::Ready {
                key: key(n),
                mac: String::new(),
            },
        );
    }

    fn attach(&mut self, id: CallId, n: u32) -> Vec<IpAddr> {
        self.feed(Update::Pod(feed_pod(n)));
        let addresses = self.add(id, n);
        self.ready(id, n);
        assert_eq!(self.reply(id), Some(Reply::Done));
        addresses
    }

    fn error(&mut self, id: CallId) -> CniError {
        match self.reply(id) {
            Some(Reply::Failed { error }) => error,
            other => panic!("{other:?}"),
        }
    }

    fn used(&self) -> u32 {
        self.agent
            .list_blocks()
            .blocks
            .iter()
            .map(|block| block.used)
            .sum()
    }
}

#[test]
fn an_add_brings_address_route_and_policy_and_a_del_takes_them() {
    let mut rig = Rig::synced();
    let addresses = rig.attach(1, 1);
    assert_eq!(addresses.len(), 2);
    assert_eq!(
        (
            rig.agent.wants().blocks.len(),
            rig.agent.wants().workloads.len()
        ),
        (2, 2)
    );
    assert!(
        rig.agent
            .tables()
            .links
            .contains_key(&key(1).host_interface())
    );
    rig.call(2, Request::Del { key: key(1) });
    assert_eq!(rig.reply(2), Some(Reply::Done));
    assert!(rig.agent.wants().workloads.is_empty());
    assert!(rig.agent.tables().links.is_empty());
    assert_eq!(rig.used(), 0);
    assert_eq!(rig.deleted, [key(1).host_interface()]);
}

#[test]
fn before_the_lists_are_complete_an_add_waits_and_then_says_try_again() {
    let mut rig = Rig::start(&[], &[]);
    rig.call(
        1,
        Request::Add {
            key: key(1),
            pod: pod(1),
        },
    );
    assert_eq!(rig.reply(1), None);
    rig.wait(5_000);
    let error = rig.error(1);
    assert_eq!(error.code, Code::TryAgain);
    assert!(error.details.contains("NetworkPolicy"), "{error}");

    rig.call(
        2,
        Request::Add {
            key: key(1),
            pod: pod(1),
        },
    );
    rig.sync();
    assert!(
        matches!(rig.reply(2), Some(Reply::Reserved { .. })),
        "served as soon as it can be"
    );
}

#[test]
fn a_log_that_cannot_be_written_refuses_pods_and_leaks_nothing() {
    let mut rig = Rig::synced();
    rig.log_full = true;
    rig.call(
        1,
        Request::Add {
            key: key(1),
            pod: pod(1),
        },
    );
    assert_eq!(rig.error(1).code, Code::Io);
    assert_eq!(rig.used(), 0);
    rig.call(
        2,
        Request::Add {
            key: key(2),
            pod: pod(2),
        },
    );
    assert_eq!(rig.error(2).code, Code::Io);
    rig.log_full = false;
    rig.wait(2_000);
    let kept = rig.add(3, 3);
    let replay = start::read_log(&rig.log, "boot");
    assert!(replay.is_complete());
    let logged: Vec<_> = replay
        .attachments
        .values()
        .flat_map(|a| a.addresses.clone())
        .collect();
    assert_eq!(logged, kept);
}

#[test]
fn a_plugin_that_dies_between_its_requests_leaves_nothing() {
    let mut rig = Rig::synced();
    rig.add(1, 1);
    rig.give(Input::Hangup(1));
    assert_eq!(rig.used(), 0);
    assert_eq!(rig.deleted, [key(1).host_interface()]);
    rig.attach(2, 2);
    rig.give(Input::Hangup(2));
    assert_eq!(rig.used(), 2, "a finished one stays");
}

#[test]
fn a_pod_that_nobody_knows_is_asked_for_and_then_refused() {
    let mut rig = Rig::synced();
    rig.add(1, 1);
    rig.ready(1, 1);
    assert_eq!(rig.reply(1), None, "no network before its policy");
    rig.wait(2_100);
    assert_eq!(rig.fetches, ["uid-1"]);
    rig.give(Input::PodFetched("uid-1".into(), Box::new(Fetched::Gone)));
    assert_eq!(rig.error(1).code, Code::TryAgain);
    assert_eq!(rig.used(), 0);
}

#[test]
fn a_pod_that_the_feed_tells_late_is_served() {
    let mut rig = Rig::synced();
    rig.add(1, 1);
    rig.ready(1, 1);
    rig.wait(500);
    rig.feed(Update::Pod(feed_pod(1)));
    assert_eq!(rig.reply(1), Some(Reply::Done));
    rig.add(2, 2);
    rig.ready(2, 2);
    rig.wait(3_000);
    rig.give(Input::PodFetched(
        "uid-2".into(),
        Box::new(Fetched::Pod(feed_pod(2))),
    ));
    assert_eq!(rig.reply(2), Some(Reply::Done));
}

#[test]
fn while_the_kernel_refuses_nothing_is_called_ready_and_it_is_tried_again() {
    let mut rig = Rig::synced();
    rig.feed(Update::Pod(feed_pod(1)));
    rig.add(1, 1);
    rig.kernel_refuses = true;
    rig.ready(1, 1);
    assert_eq!(rig.reply(1), None);
    assert!(
        rig.agent
            .status(rig.now)
            .problems
            .iter()
            .any(|p| p.contains("EINVAL"))
    );
    rig.kernel_refuses = false;
    rig.wait(200);
    assert_eq!(rig.reply(1), Some(Reply::Done));
    assert!(rig.agent.kernel_problem.is_none());
}

#[test]
fn a_new_life_takes_up_what_the_log_and_the_interfaces_say() {
    let mut rig = Rig::synced();
    let stays = rig.attach(1, 1);
    rig.attach(2, 2);
    let links = [(key(1).host_interface(), 101)];
    let mut rig = Rig::start(&rig.log, &links);
    assert_eq!(rig.agent.list_endpoints().endpoints.len(), 1);
    assert_eq!(
        (
            rig.agent.wants().blocks.len(),
            rig.agent.wants().workloads.len()
        ),
        (2, 2),
        "before any list"
    );
    assert_eq!(rig.used(), 2, "what went with its interface is free");
    rig.feed(Update::Pod(feed_pod(1)));
    for cidr in rig
        .agent
        .list_blocks()
        .blocks
        .iter()
        .map(|b| b.cidr.clone())
        .collect::<Vec<_>>()
    {
        rig.feed(Update::Block(Box::new(block_object(
            cidr.parse().unwrap(),
            &[],
        ))));
    }
    rig.sync();
    assert!(
        rig.agent
            .tables()
            .links
            .contains_key(&key(1).host_interface())
    );
    assert!(
        rig.created.is_empty(),
        "its blocks are still its own: {:?}",
        rig.created
    );
    let endpoints = rig.agent.list_endpoints().endpoints;
    let told: Vec<String> = stays.iter().map(ToString::to_string).collect();
    assert_eq!(endpoints[0].addresses, told);
    assert!(!rig.add(9, 2).iter().any(|address| stays.contains(address)));
}

#[test]
fn blocks_are_announced_when_their_route_is_in_the_kernel() {
    let mut rig = Rig::start(&[], &[]);
    rig.give(Input::BgpdConnected);
    rig.kernel_refuses = true;
    rig.sync();
    let origins = |rig: &Rig| {
        let is_origin =
            |m: &&FelixMessage| matches!(m.body, Some(api::v1::felix_message::Body::Origin(_)));
        rig.to_bgpd.iter().filter(is_origin).count()
    };
    assert_eq!(origins(&rig), 0);
    rig.kernel_refuses = false;
    rig.wait(1_000);
    assert_eq!(origins(&rig), 2);
}

#[test]
fn pods_are_let_in_once_bgp_was_heard_or_had_its_chance() {
    let mut rig = Rig::synced();
    assert_eq!(rig.available, 0);
    rig.wait(BGP_PATIENCE);
    assert_eq!(rig.available, 1);
    rig.wait(BGP_PATIENCE);
    assert_eq!(rig.available, 1);
}

#[test]
fn a_del_of_something_unknown_succeeds() {
    let mut rig = Rig::start(&[], &[]);
    rig.call(1, Request::Del { key: key(7) });
    assert_eq!(
        rig.reply(1),
        Some(Reply::Done),
        "even before the lists are complete"
    );
}

#[test]
fn a_node_made_again_begins_a_new_life() {
    let mut rig = Rig::synced();
    let node = Node {
        uid: "another".into(),
        ..Node::default()
    };
    rig.agent.handle(Input::Feed(Update::Node(node)), rig.now);
    let stops = std::iter::from_fn(|| rig.agent.poll(rig.now))
        .any(|output| matches!(output, Output::Stop(_)));
    assert!(stops);
}

#[test]
fn a_watch_that_goes_on_is_no_problem_any_more() {
    let mut rig = Rig::synced();
    let well = rig.agent.status(rig.now);
    rig.feed(Update::Lost(Kind::Pod, "refused".into()));
    let lost = rig.agent.status(rig.now);
    assert!(!lost.api_connected && lost.problems.len() > well.problems.len());
    rig.feed(Update::Resumed(Kind::Pod));
    let resumed = rig.agent.status(rig.now);
    assert!(resumed.api_connected && resumed.problems == well.problems);
}
