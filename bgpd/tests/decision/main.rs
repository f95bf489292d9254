//! The decision process against an executable model of it: after any changes of any tables, the best path, those used with
//! it, and what each peer has been told are what the model says.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod model;
#[path = "../sim/mod.rs"]
mod sim;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use bgpd::Millis;
use bgpd::config::{Distance, ExportClass, OriginKind, PeerKey};
use bgpd::nexthop::{Change, Route as KernelRoute, Via};
use bgpd::speaker::{ConnId, DataplaneReport, Input, Leg, Output, RouteFilter, Speaker, TcpEvent};
use bgpd::wire::{
    self, AsPath, Attributes, Capability, Dialect, Message, Open, Origin, Segment, SegmentKind,
    update,
};
use crds::net::{Cidr, Family};
use model::{AS, Best, Model, Peer, Route, Told};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Two external peers in one AS, one in another, two clients and an internal peer that is none.
const PEERS: [Peer; 6] = [
    peer(2, 65002, false),
    peer(3, 65003, false),
    peer(4, 65002, false),
    peer(5, AS, true),
    peer(6, AS, true),
    peer(7, AS, false),
];
const PREFIXES: u8 = 4;
const NEXT_HOPS: u8 = 4;
const NO_EXPORT: u32 = 0xffff_ff01;
const NO_ADVERTISE: u32 = 0xffff_ff02;

const fn peer(host: u8, asn: u32, client: bool) -> Peer {
    Peer { host, asn, client }
}

/// Something that changes.
#[derive(Debug, Clone)]
enum Step {
    Announce(usize, u8, Route),
    Withdraw(usize, u8),
    /// A session is lost, and is back at once.
    Flap(usize),
    /// A next hop is there at that cost, or no longer.
    Cost(u8, Option<u32>),
    Originate(u8, bool),
    MaxPaths(u8),
}

prop_compose! {
    fn route()(
        own in any::<bool>(),
        path in vec(prop_oneof![Just(65002u32), Just(65003), Just(7), Just(8), Just(AS)], 0..3),
        set in prop_oneof![3 => Just(vec![]), 1 => Just(vec![9u32, 10])],
        local_pref in option::of(99..102u32),
        origin in 0..3u8,
        med in option::of(0..3u32),
        next_hop in 0..NEXT_HOPS,
        originator in option::of(1..8u8),
        clusters in 0..3u8,
        kept in 0..12u8,
    ) -> (bool, Route) {
        let no_export = kept == 0;
        let no_advertise = kept == 1;
        (own, Route { local_pref, path, set, origin, med, next_hop, originator, clusters, no_export, no_advertise })
    }
}

fn step() -> impl Strategy<Value = Step> {
    let announce =
        (0..PEERS.len(), 0..PREFIXES, route()).prop_map(|(who, prefix, (own, route))| {
            let mut route = route;
            let peer = PEERS[who];
            // Most external routes begin as they have to.
            if !peer.internal() && (own || route.path.is_empty()) {
                route.path.insert(0, peer.asn);
            }
            Step::Announce(who, prefix, route)
        });
    prop_oneof![
        12 => announce,
        3 => (0..PEERS.len(), 0..PREFIXES).prop_map(|(who, prefix)| Step::Withdraw(who, prefix)),
        1 => (0..PEERS.len()).prop_map(Step::Flap),
        2 => (0..NEXT_HOPS, option::weighted(0.8, 1..3u32)).prop_map(|(it, cost)| Step::Cost(it, cost)),
        1 => (0..PREFIXES, any::<bool>()).prop_map(|(it, there)| Step::Originate(it, there)),
        1 => (1..4u8).prop_map(Step::MaxPaths),
    ]
}

/// The speaker, and what its peers have heard.
struct World {
    speaker: Speaker,
    model: Model,
    heard: BTreeMap<u8, BTreeMap<Cidr, Attributes>>,
    conns: BTreeMap<u8, ConnId>,
    legs: BTreeMap<Cidr, Vec<Leg>>,
    next_conn: u64,
    /// Stands still but for flaps: a peer that flaps too often is not let in for a moment.
    now: Millis,
}

fn prefix(number: u8) -> Cidr {
    Cidr::new([10, number, 0, 0].into(), 16).unwrap()
}

fn next_hop(number: u8) -> IpAddr {
    [203, 0, 113, number + 1].into()
}

fn gateway(number: u8) -> IpAddr {
    [192, 0, 2, 100 + number].into()
}

impl World {
    fn new() -> Self {
        let mut config = sim::config(AS, "10.0.0.1");
        config.multipath = 2;
        for peer in PEERS {
            let mut it = sim::peer(&format!("192.0.2.{}", peer.host), peer.asn);
            it.passive = true;
            it.families = vec![Family::V4];
            it.export = match peer.client {
                true => ExportClass::Reflect,
                false => ExportClass::Transit,
            };
            it.options.graceful_restart.enabled = false;
            // Next hops are somewhere else, which RFC 4271 section 6.3 allows only of peers that are not next door.
            it.options.distance = Distance::Multihop(2);
            config.peers.push(it);
        }
        let mut world = Self {
            speaker: Speaker::new(config, 1, 0),
            model: Model {
                peers: PEERS.to_vec(),
                max_paths: 2,
                ..Model::default()
            },
            heard: BTreeMap::new(),
            conns: BTreeMap::new(),
            legs: BTreeMap::new(),
            next_conn: 0,
            now: 0,
        };
        world.input(Input::Kernel(sim::interface(3, &["192.0.2.1/24"])));
        world.input(Input::Dataplane(DataplaneReport {
            boot_id: "boot".into(),
            preserved: Vec::new(),
            restarted: false,
        }));
        world.input(Input::OriginsComplete);
        PEERS.iter().for_each(|it| world.join(*it));
        for it in 0..NEXT_HOPS {
            world.step(&Step::Cost(it, Some(1)));
        }
        world
    }

    fn join(&mut self, peer: Peer) {
        self.next_conn += 1;
        let conn = ConnId::In(self.next_conn);
        self.conns.insert(peer.host, conn);
        self.heard.insert(peer.host, BTreeMap::new());
        let end = |host, port| SocketAddr::from(([192, 0, 2, host], port));
        let accepted = TcpEvent::Accepted {
            local: end(1, 179),
            remote: end(peer.host, 40000),
            ttl: None,
        };
        self.input(Input::Tcp(conn, accepted));
        let capabilities = vec![Capability::unicast(Family::V4)];
        let open = Open::new(peer.asn, 90, [10, 0, 0, peer.host].into(), capabilities);
        self.bytes(peer.host, open.encode());
        self.bytes(peer.host, wire::keepalive());
    }

    fn bytes(&mut self, host: u8, bytes: bytes::Bytes) {
        let conn = self.conns[&host];
        self.input(Input::Tcp(conn, TcpEvent::Bytes(bytes)));
    }

    fn input(&mut self, input: Input) {
        for output in self.speaker.handle(input, self.now) {
            match output {
                Output::Send(conn, bytes) => {
                    let found = self.conns.iter().find(|(_, it)| **it == conn);
                    let Some((host, _)) = found else { continue };
                    self.hear(*host, &bytes);
                    let sent = TcpEvent::Sent(bytes.len());
                    assert!(
                        self.speaker
                            .handle(Input::Tcp(conn, sent), self.now)
                            .is_empty()
                    );
                }
                Output::Best { prefix, legs } => {
                    self.legs.insert(prefix, legs);
                }
                _ => {}
            }
        }
    }

    fn hear(&mut self, host: u8, bytes: &[u8]) {
        let internal = PEERS.iter().any(|it| it.host == host && it.internal());
        let (messages, error) = wire::decode_stream(bytes, Dialect::plain(internal));
        assert_eq!(error, None);
        let heard = self.heard.get_mut(&host).unwrap();
        for message in messages {
            if let Message::Update(update) = message {
                assert!(update.problems.is_empty());
                for prefix in &update.withdrawn {
                    assert!(heard.remove(prefix).is_some(), "{prefix} was not told");
                }
                for (attributes, prefixes) in update.announced {
                    heard.extend(prefixes.into_iter().map(|it| (it, attributes.clone())));
                }
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Announce(who, number, route) => {
                let peer = PEERS[*who];
                let dialect = Dialect::plain(peer.internal());
                let prefixes = [prefix(*number)];
                let attributes = attributes(route);
                let messages = update::announce(&attributes, Family::V4, &prefixes, dialect);
                for message in messages.unwrap() {
                    self.bytes(peer.host, message);
                }
                let routes = self.model.routes.entry(*number).or_default();
                routes.insert(peer.host, route.clone());
            }
            Step::Withdraw(who, number) => {
                let host = PEERS[*who].host;
                for message in update::withdraw(Family::V4, &[prefix(*number)]) {
                    self.bytes(host, message);
                }
                self.model.routes.entry(*number).or_default().remove(&host);
            }
            Step::Flap(who) => {
                let peer = PEERS[*who];
                let conn = self.conns.remove(&peer.host).unwrap();
                let reason = String::new();
                self.input(Input::Tcp(conn, TcpEvent::Closed { reason }));
                self.now += 1_000;
                for routes in self.model.routes.values_mut() {
                    routes.remove(&peer.host);
                }
                self.join(peer);
            }
            Step::Cost(number, cost) => {
                let prefix = Cidr::host(next_hop(*number));
                let mut changes = Vec::new();
                if let Some(metric) = self.model.costs.remove(number) {
                    changes.push(Change::RouteGone { prefix, metric });
                }
                if let Some(cost) = cost {
                    self.model.costs.insert(*number, *cost);
                    let via = Via {
                        gateway: Some(gateway(*number)),
                        ifindex: 3,
                    };
                    changes.push(Change::Route(KernelRoute {
                        prefix,
                        metric: *cost,
                        vias: vec![via],
                    }));
                }
                self.input(Input::Kernel(changes));
            }
            Step::Originate(number, there) => {
                match there {
                    true => self.model.origins.insert(*number),
                    false => self.model.origins.remove(number),
                };
                self.input(Input::Origin {
                    prefix: prefix(*number),
                    kind: OriginKind::Block,
                    withdrawn: !there,
                });
            }
            Step::MaxPaths(count) => {
                self.model.max_paths = usize::from(*count);
                let mut config = self.speaker.config().clone();
                config.multipath = *count;
                self.input(Input::Config(config));
            }
        }
    }

    fn compare(&self) {
        for number in 0..PREFIXES {
            self.compare_prefix(number);
        }
    }

    fn compare_prefix(&self, number: u8) {
        let filter = RouteFilter {
            prefix: Some(prefix(number)),
            ..RouteFilter::default()
        };
        let routes = self.speaker.routes(&filter, self.now);
        let host = |key: &PeerKey| match key.address() {
            Some(IpAddr::V4(it)) => it.octets()[3],
            _ => panic!("{key} is no peer of these"),
        };
        let used: Vec<Option<u8>> = routes
            .iter()
            .filter(|it| it.best)
            .map(|it| it.neighbor.as_ref().map(host))
            .collect();
        let best = self.model.best(number);
        let multipath = self.model.multipath(number);
        let mut expected: Vec<Option<u8>> = match best {
            Some(Best::Own) => vec![None],
            _ => multipath.iter().map(|it| Some(*it)).collect(),
        };
        let mut used_any_order = used.clone();
        used_any_order.sort_unstable();
        expected.sort_unstable();
        assert_eq!(
            used_any_order, expected,
            "used for {number}: {:#?}",
            self.model
        );
        let single = routes
            .iter()
            .find(|it| it.best && it.why_not_best.is_none());
        let single = single.map(|it| match it.neighbor.as_ref().map(host) {
            None => Best::Own,
            Some(host) => Best::Of(host),
        });
        assert_eq!(single, best, "best of {number}: {:#?}", self.model);
        let mut legs: Vec<IpAddr> = multipath
            .iter()
            .map(|host| gateway(self.model.routes[&number][host].next_hop))
            .collect();
        legs.sort_unstable();
        legs.dedup();
        let told = self.legs.get(&prefix(number));
        let told: Vec<IpAddr> = told.into_iter().flatten().map(|it| it.address).collect();
        assert_eq!(told, legs, "ways of {number}: {:#?}", self.model);
        for peer in PEERS {
            let heard = self.heard[&peer.host].get(&prefix(number)).map(told_by);
            let told = self.model.told(peer.host, number);
            assert_eq!(
                heard, told,
                "{} is told of {number}: {:#?}",
                peer.host, self.model
            );
        }
    }
}

fn attributes(route: &Route) -> Attributes {
    let mut it = Attributes::new(next_hop(route.next_hop).into());
    it.origin = [Origin::Igp, Origin::Egp, Origin::Incomplete][usize::from(route.origin)];
    it.as_path = AsPath::sequence(route.path.iter().copied());
    if !route.set.is_empty() {
        it.as_path.segments.push(Segment {
            kind: SegmentKind::Set,
            asns: route.set.clone(),
        });
    }
    it.local_pref = route.local_pref;
    it.med = route.med;
    it.originator_id = route.originator.map(|it| [10, 0, 0, it].into());
    it.cluster_list = (0..route.clusters)
        .map(|it| [10, 9, 9, it].into())
        .collect();
    it.communities.extend(route.no_export.then_some(NO_EXPORT));
    it.communities
        .extend(route.no_advertise.then_some(NO_ADVERTISE));
    it
}

/// What an UPDATE says, as the model would.
fn told_by(attributes: &Attributes) -> Told {
    let IpAddr::V4(address) = attributes.next_hop.address else {
        panic!("an IPv6 next hop");
    };
    let [net, .., last] = address.octets();
    Told {
        local_pref: attributes.local_pref,
        path: attributes.as_path.asns().collect(),
        origin: attributes.origin as u8,
        med: attributes.med,
        next_hop: (net == 203).then(|| last - 1),
        originator: attributes.originator_id.map(|it| it.octets()[3]),
        clusters: attributes.cluster_list.len(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_speaker_decides_as_the_model(steps in vec(step(), 1..60)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.compare();
        }
    }
}
