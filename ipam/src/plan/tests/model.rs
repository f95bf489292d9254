//! Three nodes against a simulated API server, with everything going wrong at random: lost answers, late events, kills in the
//! middle of a write, reboots, lost and damaged logs, blocks deleted behind their owner's back. Runs are functions of a seed.

use std::collections::VecDeque;

use super::*;

mod checks;

/// A container with addresses, as the kernel knows it.
type Containers = BTreeMap<Key, Vec<IpAddr>>;

struct Node {
    name: String,
    instance: usize,
    boot: usize,
    ipam: Option<Ipam>,
    log: Vec<u8>,
    containers: Containers,
    /// Keys whose DEL came while nobody answered.
    spool: Vec<Key>,
    watch: VecDeque<Input>,
    calls: Vec<Output>,
    announced: BTreeSet<Cidr>,
}

impl Node {
    fn owner(&self) -> Owner {
        owner(
            &self.name,
            &format!("uid-{}", self.name),
            &format!("i{}", self.instance),
        )
    }

    fn boot_id(&self) -> String {
        format!("boot-{}", self.boot)
    }

    fn evidence(&self) -> BTreeSet<IpAddr> {
        self.containers.values().flatten().copied().collect()
    }
}

struct World {
    seed: u64,
    random: u64,
    now: Millis,
    away: bool,
    calm: bool,
    api: BTreeMap<Cidr, SeenBlock>,
    counter: usize,
    nodes: Vec<Node>,
    pools: Vec<Pool>,
    /// Prefixes whose object was deleted behind the owner's back: for these alone two nodes may meet.
    lost: BTreeSet<Cidr>,
    given: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let node = |n: usize| Node {
            name: format!("n{n}"),
            instance: n,
            boot: 0,
            ipam: None,
            log: Vec::new(),
            containers: Containers::new(),
            spool: Vec::new(),
            watch: VecDeque::new(),
            calls: Vec::new(),
            announced: BTreeSet::new(),
        };
        let pools = vec![
            pool("four", "10.244.0.0/25", 29),
            pool("six", "fd00:10:244::/121", 125),
        ];
        Self {
            seed,
            random: seed,
            now: 0,
            away: false,
            calm: false,
            api: BTreeMap::new(),
            counter: 0,
            nodes: (1..=3).map(node).collect(),
            pools,
            lost: BTreeSet::new(),
            given: 0,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn fails(&mut self, one_in: usize) -> bool {
        !self.calm && self.below(one_in) == 0
    }

    fn number(&mut self) -> usize {
        self.counter += 1;
        self.counter
    }

    // The node's driver.

    fn start(&mut self, n: usize) {
        let (now, away, pools) = (self.now, self.away, self.pools.clone());
        let early_evidence = self.below(2) == 0;
        let node = &mut self.nodes[n];
        let mut ipam = Ipam::new(node.owner(), node.boot_id());
        ipam.recover(journal::replay(&node.log, &node.boot_id()), now);
        node.log = ipam.compact();
        node.announced.clear();
        node.watch.clear();
        ipam.handle(Input::Pools(pools), now);
        if early_evidence {
            ipam.handle(Input::InUse(node.evidence()), now);
        }
        node.ipam = Some(ipam);
        let mut spool = std::mem::take(&mut node.spool);
        // What the kernel does not know any more is freed, as a driver does for links that are gone.
        let ipam = node.ipam.as_ref().unwrap();
        spool.extend(
            ipam.attachments()
                .map(|a| a.key.clone())
                .filter(|key| !node.containers.contains_key(key)),
        );
        if !away {
            self.relist(n);
        }
        if self.drain(n) {
            for key in spool {
                self.free(n, key);
            }
        } else {
            self.nodes[n].spool.extend(spool);
        }
    }

    fn relist(&mut self, n: usize) {
        let label = |block: &&SeenBlock| block.owner.node == self.nodes[n].name;
        let blocks = self.api.values().filter(label).cloned().collect();
        self.nodes[n].watch.push_back(Input::Listed(blocks));
    }

    fn handle(&mut self, n: usize, input: Input) {
        let now = self.now;
        if let Some(ipam) = &mut self.nodes[n].ipam {
            ipam.handle(input, now);
            self.drain(n);
        }
    }

    /// Carries out outputs; false when the process was killed meanwhile.
    fn drain(&mut self, n: usize) -> bool {
        while let Some(output) = self.nodes[n].ipam.as_mut().and_then(Ipam::poll) {
            let killed = self.fails(400);
            let node = &mut self.nodes[n];
            match output {
                Output::Log(record) => {
                    let mut line = Vec::new();
                    journal::encode(&record, &mut line);
                    node.log.extend(&line);
                    if killed {
                        let lost = self.below(line.len() + 1);
                        let node = &mut self.nodes[n];
                        node.log.truncate(node.log.len() - lost);
                    }
                }
                _ if killed => {}
                Output::Announce { cidr, .. } => drop(node.announced.insert(cidr)),
                Output::Withdraw { cidr } => {
                    node.announced.remove(&cidr);
                    node.calls.push(output);
                }
                Output::Quarantined { cidr, .. } => {
                    assert!(
                        self.lost.contains(&cidr),
                        "seed {}: {cidr} quarantined for no reason",
                        self.seed
                    );
                }
                call => node.calls.push(call),
            }
            if killed {
                self.kill(n);
                return false;
            }
        }
        let node = &mut self.nodes[n];
        if let Some(ipam) = node.ipam.as_mut().filter(|ipam| ipam.wants_compaction()) {
            node.log = ipam.compact();
        }
        self.check_announced();
        true
    }

    fn kill(&mut self, n: usize) {
        self.nodes[n].ipam = None;
        for call in std::mem::take(&mut self.nodes[n].calls) {
            // It may have been on its way.
            if self.below(2) == 0 {
                self.perform(n, call);
            }
        }
    }

    fn add(&mut self, n: usize) {
        let number = self.number();
        let families = [&Family::ALL[..], &Family::ALL[..1], &Family::ALL[1..]][self.below(3)];
        let request = request(number, families);
        let now = self.now;
        let Some(ipam) = &mut self.nodes[n].ipam else {
            return;
        };
        let given = ipam.allocate(&request, now);
        if !self.drain(n) {
            // The ADD failed: the runtime calls DEL.
            self.nodes[n].spool.push(request.key);
            return;
        }
        let Ok(addresses) = given else { return };
        assert_eq!(addresses.len(), families.len());
        for address in &addresses {
            self.check_given(n, *address);
        }
        self.given += 1;
        self.nodes[n].containers.insert(request.key, addresses);
    }

    fn del(&mut self, n: usize) {
        let keys: Vec<Key> = self.nodes[n].containers.keys().cloned().collect();
        if keys.is_empty() {
            return;
        }
        let key = keys[self.below(keys.len())].clone();
        self.nodes[n].containers.remove(&key);
        self.free(n, key);
    }

    fn free(&mut self, n: usize, key: Key) {
        let now = self.now;
        match &mut self.nodes[n].ipam {
            Some(ipam) => {
                ipam.free(&key, now);
                if !self.drain(n) {
                    self.nodes[n].spool.push(key);
                }
            }
            None => self.nodes[n].spool.push(key),
        }
    }

    // The API server.

    fn call(&mut self, n: usize) {
        if self.nodes[n].calls.is_empty() {
            return;
        }
        let which = self.below(self.nodes[n].calls.len());
        let call = self.nodes[n].calls.remove(which);
        let local = matches!(call, Output::Withdraw { .. });
        let failed = match &call {
            Output::Create { cidr, .. } => Input::CreateFailed { cidr: *cidr },
            Output::Delete { cidr, .. } => Input::DeleteFailed { cidr: *cidr },
            Output::Mirror { cidr, .. } => Input::MirrorFailed { cidr: *cidr },
            _ => Input::SurveyFailed,
        };
        let answer = if !local && (self.away || self.fails(12)) {
            // Half of the failures are lost answers.
            if !self.away && self.below(2) == 0 {
                self.perform(n, call);
            }
            failed
        } else {
            self.perform(n, call)
        };
        self.handle(n, answer);
    }

    fn perform(&mut self, n: usize, call: Output) -> Input {
        match call {
            Output::Create { cidr, pool } => {
                if let Some(found) = self.api.get(&cidr) {
                    return Input::Exists(found.clone());
                }
                let uid = format!("e{}", self.number());
                let block = SeenBlock {
                    pool,
                    ..seen(cidr, &uid, &self.nodes[n].owner())
                };
                self.api.insert(cidr, block.clone());
                self.publish(&block, Input::Seen(block.clone()));
                Input::Created { cidr, uid }
            }
            Output::Delete { cidr, uid } => {
                if self.api.get(&cidr).is_some_and(|block| block.uid == uid) {
                    let block = self.api.remove(&cidr).unwrap();
                    self.publish(&block, Input::Gone { cidr, uid });
                }
                Input::Deleted { cidr }
            }
            Output::Mirror {
                cidr,
                uid,
                allocations,
            } => match self.api.get_mut(&cidr) {
                Some(block) if block.uid == uid => {
                    block.allocations = allocations
                        .into_iter()
                        .map(|a| (a.address.parse().unwrap(), a))
                        .collect();
                    let block = block.clone();
                    self.publish(&block, Input::Seen(block.clone()));
                    Input::Mirrored { cidr }
                }
                _ => Input::MirrorFailed { cidr },
            },
            Output::Survey => Input::Surveyed(self.api.keys().copied().collect()),
            Output::Withdraw { cidr } => Input::Withdrawn { cidr },
            other => unreachable!("{other:?} is not a call"),
        }
    }

    fn publish(&mut self, block: &SeenBlock, event: Input) {
        if let Some(node) = self
            .nodes
            .iter_mut()
            .find(|node| node.name == block.owner.node && !self.away)
        {
            node.watch.push_back(event);
        }
    }

    fn come_back(&mut self) {
        self.away = false;
        for n in 0..self.nodes.len() {
            self.relist(n);
        }
    }

    // What goes wrong.

    fn lose_blocks(&mut self) {
        let all = self.below(4) == 0;
        for cidr in self.api.keys().copied().collect::<Vec<_>>() {
            if all || self.below(6) == 0 {
                let block = self.api.remove(&cidr).unwrap();
                self.lost.insert(cidr);
                self.publish(
                    &block,
                    Input::Gone {
                        cidr,
                        uid: block.uid.clone(),
                    },
                );
            }
        }
    }

    fn disaster(&mut self, n: usize, with_loss: bool) {
        match self.below(if with_loss { 6 } else { 5 }) {
            0 => self.kill(n),
            1 => {
                self.kill(n);
                let cut = self.below(self.nodes[n].log.len() + 1);
                let node = &mut self.nodes[n];
                node.log.truncate(cut);
                node.boot += 1;
                node.containers.clear();
            }
            2 => {
                self.kill(n);
                let instance = self.number() + 100;
                self.nodes[n].log.clear();
                self.nodes[n].instance = instance;
            }
            3 => {
                self.kill(n);
                let at = self.below(self.nodes[n].log.len());
                if let Some(byte) = self.nodes[n].log.get_mut(at) {
                    *byte ^= 0x15;
                }
            }
            4 if self.away => self.come_back(),
            4 => {
                self.away = true;
                self.nodes.iter_mut().for_each(|node| node.watch.clear());
            }
            _ => self.lose_blocks(),
        }
    }

    fn step(&mut self, with_loss: bool) {
        let n = self.below(self.nodes.len());
        match self.below(100) {
            0..25 => self.add(n),
            25..42 => self.del(n),
            42..64 => self.call(n),
            64..84 => {
                if let Some(event) = self.nodes[n].watch.pop_front() {
                    self.handle(n, event);
                }
            }
            84..92 => self.pass(500),
            92 => self.pass(70_000),
            93..95 => self.handle(n, Input::InUse(self.nodes[n].evidence())),
            95..97 => self.disaster(n, with_loss),
            _ if self.nodes[n].ipam.is_none() => self.start(n),
            _ => {}
        }
    }

    fn pass(&mut self, most: usize) {
        self.now += u64::try_from(self.below(most)).unwrap();
        self.tick();
    }

    fn tick(&mut self) {
        for n in 0..self.nodes.len() {
            let due = self.nodes[n].ipam.as_ref().and_then(Ipam::next_timeout);
            if due.is_some_and(|due| due <= self.now) {
                self.handle(n, Input::Tick);
            }
        }
    }

    /// Nothing fails any more; everything pending is carried out and some minutes pass.
    fn settle(&mut self) {
        self.calm = true;
        if self.away {
            self.come_back();
        }
        for n in 0..self.nodes.len() {
            if self.nodes[n].ipam.is_none() {
                self.start(n);
            }
        }
        for round in 0..400 {
            self.now += 1000;
            self.tick();
            for n in 0..self.nodes.len() {
                if round % 60 == 0 {
                    self.handle(n, Input::InUse(self.nodes[n].evidence()));
                }
                while let Some(event) = self.nodes[n].watch.pop_front() {
                    self.handle(n, event);
                }
                while !self.nodes[n].calls.is_empty() {
                    self.call(n);
                }
            }
        }
    }
}

fn run(seed: u64, with_loss: bool) -> usize {
    let mut world = World::new(seed);
    (0..3).for_each(|n| world.start(n));
    for _ in 0..600 {
        world.step(with_loss);
    }
    world.settle();
    world.check_mirrors();
    for n in 0..3 {
        while !world.nodes[n].containers.is_empty() {
            world.del(n);
        }
    }
    world.settle();
    world.check_clean();
    world.given
}

/// Runs many seeds; MARGAY_MODEL_SEEDS sets how many.
fn runs(with_loss: bool) {
    let seeds = std::env::var("MARGAY_MODEL_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(60);
    let given: usize = (0..seeds)
        .map(|seed| run(seed * 7919 + u64::from(with_loss), with_loss))
        .sum();
    assert!(
        given > 30 * usize::try_from(seeds).unwrap(),
        "only {given} attachments: the runs test little"
    );
}

#[test]
fn no_address_twice_and_no_leak_whatever_fails() {
    runs(false);
}

#[test]
fn blocks_deleted_behind_their_owner_are_restored_or_quarantined() {
    runs(true);
}
