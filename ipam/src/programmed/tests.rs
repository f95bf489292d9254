use super::*;

fn key(name: &str) -> Key {
    Key {
        kind: Kind::GlobalNetworkPolicy,
        namespace: String::new(),
        name: name.to_owned(),
    }
}

/// The API server and the nodes around a board.
struct World {
    board: Board,
    now: Millis,
    objects: BTreeMap<Key, Object>,
    versions: u64,
    writes: Vec<(Millis, Key, Told)>,
    closed: Vec<(StreamId, String)>,
    /// The API refuses writes.
    away: Option<Failure>,
}

impl World {
    fn new(nodes: &[&str]) -> Self {
        let mut world = Self {
            board: Board::new(0),
            now: 0,
            objects: BTreeMap::new(),
            versions: 0,
            writes: Vec::new(),
            closed: Vec::new(),
            away: None,
        };
        for node in nodes {
            world.give(Input::Node((*node).to_owned(), true));
        }
        world
    }

    fn give(&mut self, input: Input) {
        self.board.handle(input, self.now);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.board.poll(self.now) {
            match output {
                Output::Close(stream, why) => self.closed.push((stream, why)),
                Output::Write(key, version, told) => {
                    let outcome = match (self.away, self.objects.get_mut(&key)) {
                        (Some(failure), _) => Err(failure),
                        (None, Some(object)) if object.version == version => {
                            self.versions += 1;
                            object.version = self.versions.to_string();
                            object.told = Some(told.clone());
                            self.writes.push((self.now, key.clone(), told));
                            Ok(object.version.clone())
                        }
                        (None, _) => Err(Failure::Conflict),
                    };
                    let ok = outcome.is_ok();
                    self.board
                        .handle(Input::Written(key.clone(), outcome), self.now);
                    if ok {
                        let object = self.objects[&key].clone();
                        self.board.handle(Input::Object(key, object), self.now);
                    }
                }
            }
        }
    }

    /// Lets time pass.
    fn pass(&mut self, millis: Millis) {
        let until = self.now + millis;
        while let Some(at) = self.board.next_timeout().filter(|at| *at <= until) {
            assert!(at >= self.now || self.board.next_timeout().is_some());
            self.now = self.now.max(at);
            self.board.handle(Input::Tick, self.now);
            let before = self.board.next_timeout();
            self.carry_out();
            if self.board.next_timeout() == before && before == Some(at) {
                panic!("a timeout at {at} that nothing comes of");
            }
        }
        self.now = until;
    }

    /// A policy is applied: made, or edited.
    fn apply(&mut self, name: &str) {
        self.versions += 1;
        let version = self.versions.to_string();
        let object = self.objects.entry(key(name)).or_insert_with(|| Object {
            uid: format!("uid of {name}, {version}"),
            generation: 0,
            version: String::new(),
            accepted: Some(true),
            told: None,
        });
        object.generation += 1;
        object.version = version;
        let object = object.clone();
        self.give(Input::Object(key(name), object));
    }

    fn delete(&mut self, name: &str) {
        self.objects.remove(&key(name));
        self.give(Input::Gone(key(name)));
    }

    fn enforced(&self, name: &str) -> Report {
        let object = &self.objects[&key(name)];
        Report {
            key: key(name),
            state: Some(InForce {
                uid: object.uid.clone(),
                generation: object.generation,
                error: None,
            }),
        }
    }

    /// felix on a node connects and says that it enforces these.
    fn connect(&mut self, stream: StreamId, node: &str, policies: &[&str]) {
        self.give(Input::Opened(stream, node.to_owned()));
        let reports = policies.iter().map(|name| self.enforced(name)).collect();
        self.give(Input::Reports(stream, reports));
        self.give(Input::SnapshotEnd(stream));
    }

    fn ack(&mut self, stream: StreamId, name: &str) {
        let report = self.enforced(name);
        self.give(Input::Reports(stream, vec![report]));
    }

    fn told(&self, name: &str) -> (ConditionStatus, &str, &str) {
        let told = self.objects[&key(name)].told.as_ref().expect("a condition");
        (told.status, &told.reason, &told.message)
    }
}

const TRUE: ConditionStatus = ConditionStatus::True;
const FALSE: ConditionStatus = ConditionStatus::False;

/// Two nodes that enforce `p`, which says so.
fn two() -> World {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("p");
    world.give(Input::Listed);
    world.connect(1, "n1", &["p"]);
    world.connect(2, "n2", &["p"]);
    world.pass(SETTLE);
    assert_eq!(
        world.told("p"),
        (TRUE, "Enforced", "generation 1 enforced on 2 of 2 nodes")
    );
    world
}

#[test]
fn an_edit_is_told_when_every_node_has_it() {
    let mut world = two();
    assert_eq!(world.writes.len(), 1);
    world.pass(10_000);
    world.apply("p");
    world.pass(100);
    world.ack(1, "p");
    world.ack(2, "p");
    world.pass(10_000);
    assert_eq!(
        world.told("p"),
        (TRUE, "Enforced", "generation 2 enforced on 2 of 2 nodes")
    );
    assert_eq!(
        world.objects[&key("p")]
            .told
            .as_ref()
            .unwrap()
            .nodes
            .as_deref(),
        Some("2/2")
    );
    assert_eq!(
        world.writes.len(),
        2,
        "one for each edit: {:?}",
        world.writes
    );
}

#[test]
fn a_node_that_lags_is_named_and_so_is_why() {
    let mut world = two();
    world.give(Input::Closed(2));
    world.pass(10_000);
    assert_eq!(world.writes.len(), 1, "its kernel goes on enforcing");
    world.apply("p");
    world.ack(1, "p");
    world.pass(2_000);
    assert_eq!(
        world.told("p"),
        (
            FALSE,
            "Pending",
            "generation 2 enforced on 1 of 2 nodes; waiting for n2 (not connected)"
        )
    );
    world.give(Input::Opened(3, "n2".to_owned()));
    let mut failed = world.enforced("p");
    failed.state.as_mut().unwrap().generation = 1;
    failed.state.as_mut().unwrap().error = Some("element refused: ENOMEM".to_owned());
    world.give(Input::Reports(3, vec![failed]));
    world.give(Input::SnapshotEnd(3));
    world.pass(2_000);
    assert_eq!(
        world.told("p"),
        (
            FALSE,
            "Failed",
            "generation 2 enforced on 1 of 2 nodes; n2: element refused: ENOMEM"
        )
    );
    world.ack(3, "p");
    world.pass(2_000);
    assert_eq!(world.told("p").0, TRUE);
}

#[test]
fn nodes_come_and_go_with_what_they_hold() {
    let mut world = two();
    // The last pod that it selects leaves n2.
    let none = Report {
        key: key("p"),
        state: None,
    };
    world.give(Input::Reports(2, vec![none]));
    world.pass(CALM);
    assert_eq!(world.told("p").2, "generation 1 enforced on 1 of 1 nodes");
    world.ack(2, "p");
    world.pass(CALM);
    assert_eq!(world.told("p").2, "generation 1 enforced on 2 of 2 nodes");
    world.give(Input::NodeGone("n2".to_owned()));
    world.pass(CALM);
    assert_eq!(world.told("p").2, "generation 1 enforced on 1 of 1 nodes");
    assert_eq!(world.closed, [(2, "the node n2 is gone".to_owned())]);
    // What still comes over its stream, or from a node nobody knows, counts for nothing.
    world.ack(2, "p");
    world.connect(7, "n2", &["p"]);
    world.pass(CALM);
    assert_eq!(world.told("p").2, "generation 1 enforced on 1 of 1 nodes");
    assert_eq!(world.closed.len(), 2);
    // It reconnects without the policy: a snapshot is all there is.
    world.connect(8, "n1", &[]);
    world.pass(CALM);
    assert_eq!(
        world.told("p"),
        (TRUE, "Enforced", "generation 1 enforced on 0 of 0 nodes")
    );
}

#[test]
fn what_nobody_understands_is_not_enforced() {
    let mut world = World::new(&[]);
    world.give(Input::Listed);
    world.apply("p");
    let judge = |world: &mut World, accepted| {
        let object = world.objects.get_mut(&key("p")).unwrap();
        object.accepted = accepted;
        let object = object.clone();
        world.give(Input::Object(key("p"), object));
    };
    world.objects.get_mut(&key("p")).unwrap().accepted = None;
    judge(&mut world, None);
    world.pass(60_000);
    assert_eq!(world.writes, [], "nobody has looked at it");
    judge(&mut world, Some(false));
    world.pass(1_000);
    assert_eq!(world.told("p").0, FALSE);
    assert_eq!(world.told("p").1, "NotAccepted");
    judge(&mut world, Some(true));
    world.pass(2_000);
    assert_eq!(world.told("p").0, TRUE);
}

#[test]
fn an_object_made_anew_is_not_taken_for_its_predecessor() {
    let mut world = two();
    world.apply("p");
    world.ack(1, "p");
    world.ack(2, "p");
    world.pass(5_000);
    world.delete("p");
    world.apply("p");
    world.pass(5_000);
    assert_eq!(
        world.told("p").2,
        "generation 1 enforced on 0 of 2 nodes; waiting for n1, n2"
    );
    world.ack(1, "p");
    world.ack(2, "p");
    world.pass(5_000);
    assert_eq!(world.told("p").0, TRUE);
}

#[test]
fn a_new_leader_writes_nothing_until_the_nodes_have_been_heard() {
    let mut old = two();
    old.pass(10_000);
    let mut world = World::new(&["n1", "n2"]);
    world.objects = old.objects;
    world.versions = 1_000;
    let object = world.objects[&key("p")].clone();
    world.give(Input::Object(key("p"), object));
    world.give(Input::Listed);
    world.pass(3_000);
    world.connect(1, "n1", &["p"]);
    world.pass(5_000);
    world.connect(2, "n2", &["p"]);
    world.pass(120_000);
    assert_eq!(world.writes, [], "what it says is still true");
}

#[test]
fn a_node_that_is_never_heard_makes_it_unknown_after_a_grace() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("p");
    world.give(Input::Listed);
    world.connect(1, "n1", &["p"]);
    world.pass(GRACE - 1);
    assert_eq!(world.writes, []);
    world.pass(SETTLE + 1);
    assert_eq!(
        world.told("p"),
        (
            ConditionStatus::Unknown,
            "NodesSilent",
            "generation 1 enforced on 1 of 1 nodes; not heard from n2"
        )
    );
    // One whose kubelet does not report runs nothing new.
    world.give(Input::Node("n2".to_owned(), false));
    world.pass(2_000);
    assert_eq!(world.told("p").0, TRUE);
    // A node that joins later has the same grace, and nothing is said meanwhile.
    world.give(Input::Node("n3".to_owned(), true));
    world.pass(GRACE - 5);
    assert_eq!(world.told("p").0, TRUE);
    world.connect(3, "n3", &["p"]);
    world.pass(GRACE);
    assert_eq!(world.told("p").2, "generation 1 enforced on 2 of 2 nodes");
    assert_eq!(world.writes.len(), 3);
}

#[test]
fn a_cluster_of_5000_nodes_costs_a_few_writes() {
    let names: Vec<String> = (0..5_000).map(|at| format!("node-{at:04}")).collect();
    let nodes: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(&nodes);
    let policies: Vec<String> = (0..8).map(|at| format!("p{at}")).collect();
    let policies: Vec<&str> = policies.iter().map(String::as_str).collect();
    for policy in &policies {
        world.apply(policy);
    }
    world.give(Input::Listed);
    for (stream, node) in (0..).zip(&nodes) {
        world.connect(stream, node, &policies);
        world.pass(2);
    }
    world.pass(10_000);
    assert_eq!(world.writes.len(), policies.len(), "one for each");
    // One edit, acknowledged over ten seconds.
    world.writes.clear();
    world.apply("p0");
    for stream in 0..5_000 {
        world.ack(stream, "p0");
        world.pass(2);
    }
    world.pass(10_000);
    assert!(world.writes.len() <= 12, "{}", world.writes.len());
    assert_eq!(
        world.told("p0").2,
        "generation 2 enforced on 5000 of 5000 nodes"
    );
    let apart = |it: &[(Millis, Key, Told)]| it[1].0 - it[0].0 >= PAUSE;
    assert!(world.writes.windows(2).all(apart));
    // felix is replaced everywhere: every stream ends and comes back.
    world.writes.clear();
    for (stream, node) in (10_000..).zip(&nodes) {
        world.give(Input::Closed(stream - 10_000));
        world.connect(stream, node, &policies);
        world.pass(10);
    }
    world.pass(60_000);
    assert_eq!(world.writes, [], "nothing has changed");
    // A hundred nodes leave at once, and every policy says so.
    for node in nodes.iter().take(100) {
        world.give(Input::NodeGone((*node).to_owned()));
    }
    world.pass(60_000);
    assert_eq!(world.writes.len(), policies.len());
    assert_eq!(world.board.connected(), 4_900);
}

#[test]
fn writes_are_bounded_over_all_policies_and_each_gets_its_turn() {
    let mut world = World::new(&["n1"]);
    let policies: Vec<String> = (0..2_000).map(|at| format!("p{at}")).collect();
    let policies: Vec<&str> = policies.iter().map(String::as_str).collect();
    for policy in &policies {
        world.apply(policy);
    }
    world.give(Input::Listed);
    world.connect(1, "n1", &policies);
    world.pass(200_000);
    assert_eq!(world.writes.len(), 2_000);
    for second in 0..200 {
        let within = |at: Millis| at / 1_000 == second;
        let writes = world.writes.iter().filter(|it| within(it.0)).count();
        assert!(
            writes <= usize::try_from(RATE + BURST).unwrap(),
            "{writes} in second {second}"
        );
    }
    let last = world.writes.last().unwrap().0;
    assert!((95_000..=101_000).contains(&last), "{last}");
}

#[test]
fn an_api_that_refuses_is_not_pressed() {
    let mut world = two();
    world.away = Some(Failure::Away);
    world.apply("p");
    let mut tries = 0;
    for _ in 0..60 {
        let before = world.board.next_timeout();
        world.pass(1_000);
        tries += usize::from(before != world.board.next_timeout());
    }
    assert!((5..=14).contains(&tries), "{tries} in a minute");
    world.away = None;
    world.ack(1, "p");
    world.ack(2, "p");
    world.pass(RETRY);
    assert_eq!(world.told("p").2, "generation 2 enforced on 2 of 2 nodes");
    // Somebody else's write in between is seen first.
    world.away = Some(Failure::Conflict);
    world.apply("p");
    world.pass(3_000);
    world.away = None;
    world.ack(1, "p");
    world.ack(2, "p");
    world.pass(3_000);
    assert_eq!(world.told("p").2, "generation 3 enforced on 2 of 2 nodes");
}

#[test]
fn what_a_node_says_is_bounded() {
    let mut world = two();
    let flood = (0..UNKNOWN + 5).map(|at| Report {
        key: key(&format!("made-up-{at}")),
        state: Some(InForce {
            uid: String::new(),
            generation: 1,
            error: Some("ä".repeat(10_000)),
        }),
    });
    world.give(Input::Reports(2, flood.collect()));
    assert_eq!(
        world.closed,
        [(2, "more policies are reported than there are".to_owned())]
    );
    assert!(world.board.policies.len() <= UNKNOWN + 2);
    let errors = world
        .board
        .policies
        .values()
        .flat_map(|it| it.nodes.values());
    let longest = errors
        .filter_map(|it| it.error.as_ref())
        .map(String::len)
        .max();
    assert!(longest.unwrap() <= ERROR_BYTES + 3);
    world.connect(3, "n2", &["p"]);
    assert_eq!(
        world.board.policies.len(),
        1,
        "what was made up is forgotten"
    );
    assert_eq!(world.told("p").0, TRUE);
}
