//! Random clusters, policies and edits: the tables must say what the documentation says, after every step.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::oracle::World;
use super::*;
use crate::nft::diff::{Phases, plan};
use crate::nft::rows;

/// One edit. Pods, endpoints and policies are named by small numbers so that edits meet.
#[derive(Debug, Clone)]
enum Edit {
    Namespace(usize, Labels),
    NoNamespace(usize),
    Pod(Identity),
    NoPod(usize),
    Attach(usize),
    Detach(usize),
    Policy(usize, usize, Value),
    NoPolicy(usize, usize),
    Compile,
    Applied,
}

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const PORTS: [(u8, u16); 13] = [
    (TCP, 79),
    (TCP, 80),
    (TCP, 81),
    (TCP, 443),
    (TCP, 8080),
    (TCP, 8100),
    (TCP, 65535),
    (UDP, 53),
    (UDP, 80),
    (SCTP, 80),
    (ICMP, 0x0800),
    (ICMP6, 0x8000),
    (47, 0),
];

fn uid(pod: usize) -> String {
    format!("uid-{pod}")
}

/// Addresses that flows are tried with: those of pods, of endpoints, and some that nobody has.
fn addresses() -> Vec<IpAddr> {
    let pods = (1..=5).flat_map(|n| [format!("10.0.0.{n}"), format!("fd00::{n}")]);
    let endpoints = (0..3).flat_map(|n| [format!("10.0.1.{n}"), format!("fd00::1:{n}")]);
    let others = ["192.0.2.7", "10.0.0.77", "2001:db8::7", "fd00::77"].map(str::to_owned);
    pods.chain(endpoints)
        .chain(others)
        .map(|text| ip(&text))
        .collect()
}

fn pod_labels() -> impl Strategy<Value = Labels> {
    let app = proptest::option::of(select(vec!["web", "db"]));
    let stage = proptest::option::of(select(vec!["dev", "live"]));
    (app, stage).prop_map(|(app, stage)| {
        let app = app.map(|value| ("app".to_owned(), value.to_owned()));
        app.into_iter()
            .chain(stage.map(|value| ("stage".to_owned(), value.to_owned())))
            .collect()
    })
}

fn selector() -> impl Strategy<Value = Value> {
    let key = || select(vec!["app", "stage"]);
    let value = || select(vec!["web", "db", "dev", "live"]);
    let operator = (
        key(),
        select(vec!["In", "NotIn"]),
        proptest::collection::btree_set(value(), 1..3),
    )
        .prop_map(
            |(key, operator, values)| json!({"key": key, "operator": operator, "values": values}),
        );
    let existence = (key(), select(vec!["Exists", "DoesNotExist"]))
        .prop_map(|(key, operator)| json!({"key": key, "operator": operator}));
    prop_oneof![
        2 => Just(json!({})),
        3 => (key(), value()).prop_map(|(key, value)| json!({"matchLabels": {key: value}})),
        2 => operator.prop_map(|it| json!({"matchExpressions": [it]})),
        1 => (key(), value(), existence)
            .prop_map(|(key, value, it)| json!({"matchLabels": {key: value}, "matchExpressions": [it]})),
    ]
}

fn block() -> impl Strategy<Value = Value> {
    let blocks: Vec<(&str, Vec<&str>)> = vec![
        (
            "0.0.0.0/0",
            vec!["10.0.0.0/8", "10.0.0.2/31", "192.0.2.0/24", "128.0.0.0/1"],
        ),
        ("10.0.0.0/16", vec!["10.0.0.4/30", "10.0.1.0/24"]),
        ("10.0.0.1/32", vec![]),
        ("10.0.0.9/29", vec![]),
        ("::/0", vec!["fd00::/16", "2001:db8::/32", "8000::/1"]),
        ("fd00::/64", vec!["fd00::4/126", "fd00::1:0/120"]),
        ("fd00::2/128", vec![]),
    ];
    select(blocks).prop_flat_map(|(cidr, parts)| {
        let most = parts.len();
        proptest::sample::subsequence(parts, 0..=most)
            .prop_map(move |except| json!({"ipBlock": {"cidr": cidr, "except": except}}))
    })
}

fn peer() -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => selector().prop_map(|it| json!({"podSelector": it})),
        2 => selector().prop_map(|it| json!({"namespaceSelector": it})),
        2 => (selector(), selector()).prop_map(|(n, p)| json!({"namespaceSelector": n, "podSelector": p})),
        3 => block(),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    let protocol = || select(vec!["TCP", "UDP", "SCTP"]);
    prop_oneof![
        1 => Just(json!({})),
        1 => protocol().prop_map(|it| json!({"protocol": it})),
        3 => (protocol(), select(vec![53, 80, 443, 8080])).prop_map(|(p, n)| json!({"protocol": p, "port": n})),
        2 => (select(vec![1, 80, 8000]), select(vec![8000, 8100, 65535]))
            .prop_map(|(first, last)| json!({"port": first, "endPort": last})),
        3 => (protocol(), select(vec!["http", "dns"])).prop_map(|(p, n)| json!({"protocol": p, "port": n})),
    ]
}

fn rule(side: &'static str) -> impl Strategy<Value = Value> {
    let peers = proptest::option::of(proptest::collection::vec(peer(), 0..3));
    let ports = proptest::option::of(proptest::collection::vec(port(), 0..3));
    (peers, ports).prop_map(move |(peers, ports)| {
        let mut rule = json!({});
        if let Some(peers) = peers {
            rule[side] = Value::from(peers);
        }
        if let Some(ports) = ports {
            rule["ports"] = Value::from(ports);
        }
        rule
    })
}

fn spec() -> impl Strategy<Value = Value> {
    let types = proptest::option::of(select(vec![
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
    ]));
    let ingress = proptest::option::of(proptest::collection::vec(rule("from"), 0..3));
    let egress = proptest::option::of(proptest::collection::vec(rule("to"), 0..3));
    (selector(), types, ingress, egress).prop_map(|(pods, types, ingress, egress)| {
        let mut spec = json!({"podSelector": pods});
        if let Some(types) = types {
            spec["policyTypes"] = types;
        }
        if let Some(rules) = ingress {
            spec["ingress"] = Value::from(rules);
        }
        if let Some(rules) = egress {
            spec["egress"] = Value::from(rules);
        }
        spec
    })
}

fn identity(number: usize) -> impl Strategy<Value = Identity> {
    let names = prop_oneof![
        Just(vec![]),
        Just(vec![named("http", TCP, 80)]),
        Just(vec![named("http", TCP, 8080), named("dns", UDP, 53)]),
        Just(vec![
            named("http", TCP, 80),
            named("http", TCP, 443),
            named("http", UDP, 80)
        ]),
    ];
    let address = proptest::option::weighted(0.9, 1..6_u8);
    (
        select(vec!["x", "x", "y", "z"]),
        pod_labels(),
        address,
        names,
        0..4_i64,
        proptest::bool::weighted(0.1),
    )
        .prop_map(
            move |(namespace, labels, address, named_ports, created, host_network)| Identity {
                uid: uid(number).into(),
                namespace: namespace.into(),
                name: format!("pod-{number}").into(),
                labels,
                service_account: "default".into(),
                created,
                addresses: address
                    .into_iter()
                    .flat_map(|n| [ip(&format!("10.0.0.{n}")), ip(&format!("fd00::{n}"))])
                    .collect(),
                named_ports: named_ports.into(),
                host_network,
            },
        )
}

fn edit() -> impl Strategy<Value = Edit> {
    let namespace = || select(vec![0, 0, 0, 1, 2_usize]);
    prop_oneof![
        2 => (namespace(), pod_labels()).prop_map(|(n, labels)| Edit::Namespace(n, labels)),
        1 => namespace().prop_map(Edit::NoNamespace),
        8 => (0..7_usize).prop_flat_map(|n| identity(n).prop_map(Edit::Pod)),
        2 => (0..7_usize).prop_map(Edit::NoPod),
        2 => (0..3_usize).prop_map(Edit::Attach),
        1 => (0..3_usize).prop_map(Edit::Detach),
        8 => (namespace(), 0..3_usize, spec()).prop_map(|(n, name, spec)| Edit::Policy(n, name, spec)),
        2 => (namespace(), 0..3_usize).prop_map(|(n, name)| Edit::NoPolicy(n, name)),
        16 => Just(Edit::Compile),
        2 => Just(Edit::Applied),
    ]
}

/// Two pods attached in namespace x, one in y, and others elsewhere.
fn prelude() -> Vec<Edit> {
    let mut edits = Vec::new();
    for (number, (app, stage)) in [("web", "dev"), ("db", "live"), ("web", "live")]
        .into_iter()
        .enumerate()
    {
        edits.push(Edit::Namespace(number, labels(&[("app", app)])));
        let mut pods = [number, number + 3].map(|number| {
            let address = format!("10.0.0.{}", number.min(5));
            Identity {
                uid: uid(number).into(),
                named_ports: [named("http", TCP, if stage == "dev" { 80 } else { 8080 })].into(),
                ..pod(
                    "x",
                    &format!("pod-{number}"),
                    &[("app", app), ("stage", stage)],
                    &[&address],
                )
            }
        });
        pods[0].namespace = NAMESPACES[usize::from(number == 2)].into();
        pods[1].namespace = NAMESPACES[number].into();
        edits.extend(pods.map(Edit::Pod));
        edits.push(Edit::Attach(number));
    }
    edits.push(Edit::Compile);
    edits
}

/// Tells the engine and the oracle the same.
fn tell(engine: &mut Engine, world: &mut World, edit: &Edit) {
    match edit {
        Edit::Namespace(n, labels) => {
            engine.apply_namespace(NAMESPACES[*n], labels.clone());
            world
                .namespaces
                .insert(NAMESPACES[*n].to_owned(), labels.clone());
        }
        Edit::NoNamespace(n) => {
            engine.delete_namespace(NAMESPACES[*n]);
            world.namespaces.remove(NAMESPACES[*n]);
        }
        Edit::Pod(pod) => {
            engine.apply_identity(pod.clone());
            world.pods.insert(pod.uid.to_string(), (pod.clone(), false));
        }
        Edit::NoPod(n) => {
            engine.delete_identity(&uid(*n));
            if world.endpoints.values().any(|it| it.uid == uid(*n)) {
                if let Some((_, gone)) = world.pods.get_mut(&uid(*n)) {
                    *gone = true;
                }
            } else {
                world.pods.remove(&uid(*n));
            }
        }
        Edit::Attach(n) => {
            let endpoint = LocalEndpoint {
                uid: uid(*n),
                namespace: "x".to_owned(),
                pod: format!("pod-{n}"),
                addresses: vec![ip(&format!("10.0.1.{n}")), ip(&format!("fd00::1:{n}"))],
            };
            engine.set_local(&format!("mgy{n}"), endpoint.clone());
            world.endpoints.insert(format!("mgy{n}"), endpoint);
        }
        Edit::Detach(n) => {
            engine.remove_local(&format!("mgy{n}"));
            world.endpoints.remove(&format!("mgy{n}"));
            if world.pods.get(&uid(*n)).is_some_and(|(_, gone)| *gone) {
                world.pods.remove(&uid(*n));
            }
        }
        Edit::Policy(n, name, spec) => {
            let name = format!("policy-{name}");
            engine.apply_policy(network_policy(NAMESPACES[*n], &name, spec));
            world
                .policies
                .insert((NAMESPACES[*n].to_owned(), name), spec.clone());
        }
        Edit::NoPolicy(n, name) => {
            let key = (NAMESPACES[*n].to_owned(), format!("policy-{name}"));
            engine.delete_policy(&k8s::key(&object(&key.0, &key.1, &json!({}))));
            world.policies.remove(&key);
        }
        Edit::Compile | Edit::Applied => {}
    }
}

/// Every flow that is tried, with the verdict the documentation asks for.
fn flows(world: &World) -> BTreeSet<(bool, String, IpAddr, u8, u16)> {
    let mut allowed = BTreeSet::new();
    for ifname in world.endpoints.keys() {
        for address in addresses() {
            for (protocol, port) in PORTS {
                for egress in [false, true] {
                    if world.allows(egress, ifname, address, protocol, port) {
                        allowed.insert((egress, ifname.clone(), address, protocol, port));
                    }
                }
            }
        }
    }
    allowed
}

fn owned(world: &World) -> BTreeSet<IpAddr> {
    addresses()
        .into_iter()
        .filter(|address| world.owner(*address).is_some())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn tables_say_what_the_documentation_says(edits in proptest::collection::vec(edit(), 1..60)) {
        let (mut engine, mut world) = (Engine::new(), World::default());
        let mut mirror = Mirror::default();
        for edit in prelude() {
            tell(&mut engine, &mut world, &edit);
        }
        // Flows that may be alive: allowed at some time since live flows were last judged again.
        let mut alive = BTreeSet::new();
        let mut once_owned = BTreeSet::new();
        let mut compiled = 0;
        for edit in edits.iter().chain([&Edit::Compile]) {
            tell(&mut engine, &mut world, edit);
            match edit {
                Edit::Applied => engine.applied(compiled),
                Edit::Compile => {
                    let result = engine.compile();
                    compiled = result.revision;
                    for change in &result.changes {
                        check_change(&mirror.0, change);
                    }
                    let before = mirror.0.clone();
                    let phases = plan(&result.changes, engine.tables(), result.narrowing);
                    mirror.follow(result.changes);
                    prop_assert_eq!(&mirror.0, engine.tables());
                    check_between(&before, &linked(&before, &phases), engine.tables());
                    check_tables(engine.tables());

                    let allowed = flows(&world);
                    check_flows(&engine, &world, &allowed);
                    check_scratch(&world, engine.tables());
                    let owned = owned(&world);
                    // A flow to a pod that is gone dies with it, unless another gets the address.
                    let lost = alive.difference(&allowed).find(|(_, ifname, address, ..)| {
                        world.endpoints.contains_key(ifname)
                            && (owned.contains(address) || !once_owned.contains(address))
                    });
                    prop_assert!(lost.is_none() || result.narrowing, "{lost:?} was allowed and may live on");
                    once_owned.extend(owned);
                    if result.narrowing {
                        alive.clear();
                    }
                    alive.extend(allowed);
                }
                _ => {}
            }
        }
    }
}

/// The tables when the links have their new groups, and the commit is still to come.
fn linked(before: &Tables, phases: &Phases) -> Tables {
    assert!(phases.add.delete.is_empty());
    let mut tables = before.clone();
    for element in &phases.add.add {
        assert!(rows::insert(&mut tables, element), "{element}");
    }
    for (ifname, subject) in &phases.links {
        tables.links.insert(ifname.clone(), *subject);
    }
    tables
}

/// In the middle of a change everybody is judged as before it or as after it.
fn check_between(before: &Tables, between: &Tables, after: &Tables) {
    let stay = before
        .links
        .keys()
        .filter(|ifname| after.links.contains_key(*ifname));
    for ifname in stay {
        for address in addresses() {
            for (protocol, port) in PORTS {
                for direction in Direction::BOTH {
                    let [old, now, new] = [before, between, after]
                        .map(|it| through(it, direction, ifname, address, protocol, port));
                    assert!(
                        now == old || now == new,
                        "{direction:?} {ifname} {address} {protocol}/{port}: {now} between {old} and {new}"
                    );
                }
            }
        }
    }
}

/// A change says truly what was there before.
fn check_change(tables: &Tables, change: &Change) {
    macro_rules! check {
        ($($variant:ident $map:ident),+) => { match change {
            $(Change::$variant(edit) => {
                assert_eq!(tables.$map.get(&edit.key), edit.old.as_ref(), "{change:?}");
                assert_ne!(edit.old, edit.new, "{change:?}");
            })+
        } };
    }
    check!(
        Workload workloads, Peer peers, Net nets, Pair pairs, Default defaults, Port ports, PortRange port_ranges,
        Icmp icmp, Proto protos, Program programs, ProgramRanged programs_ranged, Source sources,
        SourceRest source_rest, Own owns, OwnRest own_rest, Host hosts, Guard guard, Failsafe failsafes, Link links
    );
}

/// Nothing refers to what is not there, and intervals are disjoint.
fn check_tables(tables: &Tables) {
    for ((first, last), (next, _)) in tables.nets.keys().zip(tables.nets.keys().skip(1)) {
        assert!(first <= last && last < next, "{first}-{last} and {next}");
    }
    let known = |program: &Program| {
        program.answer().is_some()
            || tables.programs.contains_key(program) != tables.programs_ranged.contains_key(program)
    };
    assert!(
        tables
            .pairs
            .values()
            .chain(tables.defaults.values())
            .all(known)
    );
    for subject in tables.links.values() {
        for direction in Direction::BOTH {
            assert_eq!(
                subject.isolated(direction),
                tables.defaults.contains_key(&(direction, *subject))
            );
        }
    }
    let subjects: BTreeSet<_> = tables.links.values().collect();
    assert!(
        tables
            .defaults
            .keys()
            .all(|(_, subject)| subjects.contains(subject)),
        "rows of nobody"
    );
    let used: BTreeSet<_> = tables
        .pairs
        .values()
        .chain(tables.defaults.values())
        .collect();
    let programs = tables.programs.keys().chain(tables.programs_ranged.keys());
    assert!(
        programs
            .into_iter()
            .all(|it| *it == Program::DENY || used.contains(it)),
        "an unused program"
    );
}

fn check_flows(
    engine: &Engine,
    world: &World,
    allowed: &BTreeSet<(bool, String, IpAddr, u8, u16)>,
) {
    for (ifname, endpoint) in &world.endpoints {
        for address in addresses() {
            for (protocol, port) in PORTS {
                for direction in Direction::BOTH {
                    let egress = direction == Direction::Egress;
                    let expected =
                        allowed.contains(&(egress, ifname.clone(), address, protocol, port));
                    let found =
                        through(engine.tables(), direction, ifname, address, protocol, port);
                    assert_eq!(
                        found, expected,
                        "{direction:?} {ifname} {address} {protocol}/{port}"
                    );
                    let explained = engine.judge(direction, &endpoint.uid, address, protocol, port);
                    if let (Some((_, trace)), Some(subject)) =
                        (&explained, engine.tables().links.get(ifname))
                    {
                        let traffic = Traffic {
                            protocol,
                            source_port: 0,
                            port,
                        };
                        let answer = lookup(engine.tables(), direction, *subject, address, traffic);
                        counters::check_cause(engine, answer, trace);
                    }
                    let explained = explained.map(|(verdict, _)| verdict == Verdict::Allow);
                    assert_eq!(
                        explained.unwrap_or(false),
                        expected,
                        "the explanation differs"
                    );
                }
            }
        }
    }
}

/// An engine that is told the final state at once has the same elements but for the numbers.
fn check_scratch(world: &World, tables: &Tables) {
    let mut engine = Engine::new();
    for ((namespace, name), spec) in &world.policies {
        engine.apply_policy(network_policy(namespace, name, spec));
    }
    for (ifname, endpoint) in &world.endpoints {
        engine.set_local(ifname, endpoint.clone());
    }
    for (pod, _) in world.pods.values() {
        engine.apply_identity(pod.clone());
    }
    for (name, labels) in &world.namespaces {
        engine.apply_namespace(name, labels.clone());
    }
    let compiled = engine.compile();
    assert!(
        !compiled.narrowing || world.pods.len() > 1,
        "nothing was there to be narrowed"
    );
    assert_eq!(shape(engine.tables()), shape(tables));
    for ifname in world.endpoints.keys() {
        for address in addresses() {
            for (protocol, port) in PORTS {
                for direction in Direction::BOTH {
                    assert_eq!(
                        through(engine.tables(), direction, ifname, address, protocol, port),
                        through(tables, direction, ifname, address, protocol, port),
                    );
                }
            }
        }
    }
}
