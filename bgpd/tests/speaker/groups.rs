//! What each peer has been told in the end, whatever happened on the way: the same as by a speaker to which only what
//! is left of it happened.

use std::collections::BTreeMap;

use bgpd::speaker::{ConnId, Input, Output, TcpEvent};
use bgpd::wire::{self, AsPath, Attributes, Message, RouteRefresh, update};
use crds::net::{Cidr, Family};
use proptest::prelude::*;

use crate::bench::{Bench, EBGP, with_peers};
use crate::sim::{cidr, ip};

/// Peers at 192.0.2.2 and so on.
const PEERS: u8 = 4;

/// Something that happens.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A peer announces a run of prefixes, with one of some attributes.
    Announce(u8, u8, u8, u8),
    /// A peer withdraws a run of prefixes.
    Withdraw(u8, u8, u8),
    /// The kernel takes all that was given for a peer.
    Take(u8),
    /// A peer's connection breaks, or it connects again.
    Toggle(u8),
    /// A peer asks for everything again.
    Refresh(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let peer = || 2..2 + PEERS;
    prop_oneof![
        6 => (peer(), 0..40u8, 1..12u8, 0..4u8).prop_map(|(a, b, c, d)| Step::Announce(a, b, c, d)),
        3 => (peer(), 0..40u8, 1..12u8).prop_map(|(a, b, c)| Step::Withdraw(a, b, c)),
        2 => peer().prop_map(Step::Take),
        1 => peer().prop_map(Step::Toggle),
        1 => peer().prop_map(Step::Refresh),
    ]
}

fn prefixes(first: u8, count: u8) -> Vec<Cidr> {
    let prefix = |number: u8| cidr(&format!("10.{number}.0.0/16"));
    (first..first + count).map(prefix).collect()
}

/// Some are so long that a peer that takes nothing has soon enough.
fn attributes(host: u8, kind: u8) -> Attributes {
    let mut attributes = Attributes::new(ip(&format!("192.0.2.{host}")).into());
    let mut path = vec![65000 + u32::from(host)];
    path.extend((0..kind % 3).map(|_| 64999));
    attributes.as_path = AsPath::sequence(path);
    attributes.med = (kind == 1).then_some(7);
    if kind == 3 {
        attributes.communities = (0..900).collect();
    }
    attributes
}

/// A speaker, its peers, and what they have heard and said.
struct Net {
    bench: Bench,
    heard: BTreeMap<u8, BTreeMap<Cidr, Attributes>>,
    said: BTreeMap<u8, BTreeMap<Cidr, u8>>,
    untaken: BTreeMap<u8, usize>,
}

impl Net {
    fn new() -> Self {
        let mut config = with_peers(PEERS);
        for peer in &mut config.peers {
            peer.export = bgpd::config::ExportClass::Transit;
        }
        let mut bench = Bench::started(config);
        bench.input(Input::OriginsComplete);
        bench.report_sent = false;
        Self {
            bench,
            heard: BTreeMap::new(),
            said: BTreeMap::new(),
            untaken: BTreeMap::new(),
        }
    }

    fn join(&mut self, host: u8) {
        self.heard.insert(host, BTreeMap::new());
        self.said.insert(host, BTreeMap::new());
        self.untaken.insert(host, 0);
        let before = self.bench.outputs.len();
        self.bench.join(host, &[Family::V4]);
        let outputs: Vec<Output> = self.bench.outputs[before..].concat();
        self.hear(outputs);
    }

    fn input(&mut self, input: Input) {
        let outputs = self.bench.input(input);
        self.hear(outputs);
    }

    /// Each output is whole messages.
    fn hear(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            let Output::Send(ConnId::In(host), bytes) = output else {
                continue;
            };
            let host = u8::try_from(host).unwrap();
            let Some(heard) = self.heard.get_mut(&host) else {
                continue;
            };
            *self.untaken.entry(host).or_default() += bytes.len();
            let (messages, error) = wire::decode_stream(&bytes, EBGP);
            assert_eq!(error, None);
            for message in messages {
                if let Message::Update(update) = message {
                    for prefix in &update.withdrawn {
                        assert!(heard.remove(prefix).is_some(), "{prefix} was not told");
                    }
                    for (attributes, prefixes) in update.announced {
                        heard.extend(prefixes.into_iter().map(|it| (it, attributes.clone())));
                    }
                }
            }
        }
    }

    fn is_up(&self, host: u8) -> bool {
        self.heard.contains_key(&host)
    }

    fn take(&mut self, host: u8) {
        while let Some(bytes) = self.untaken.get_mut(&host).map(std::mem::take)
            && bytes > 0
        {
            self.input(Input::Tcp(conn(host), TcpEvent::Sent(bytes)));
        }
    }

    fn say(&mut self, host: u8, prefixes: &[Cidr], kind: u8) {
        let attributes = attributes(host, kind);
        let messages = update::announce(&attributes, Family::V4, prefixes, EBGP).unwrap();
        self.bytes(host, &messages.concat());
        let said = self.said.entry(host).or_default();
        said.extend(prefixes.iter().map(|it| (*it, kind)));
    }

    fn bytes(&mut self, host: u8, bytes: &[u8]) {
        let bytes = bytes::Bytes::copy_from_slice(bytes);
        self.input(Input::Tcp(conn(host), TcpEvent::Bytes(bytes)));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Toggle(host) if !self.is_up(host) => self.join(host),
            Step::Toggle(host) => {
                self.heard.remove(&host);
                self.said.remove(&host);
                let reason = String::new();
                self.input(Input::Tcp(conn(host), TcpEvent::Closed { reason }));
            }
            Step::Announce(host, first, count, kind) if self.is_up(host) => {
                self.say(host, &prefixes(first, count), kind);
            }
            Step::Withdraw(host, first, count) if self.is_up(host) => {
                let prefixes = prefixes(first, count);
                for message in update::withdraw(Family::V4, &prefixes) {
                    self.bytes(host, &message);
                }
                let said = self.said.entry(host).or_default();
                said.retain(|it, _| !prefixes.contains(it));
            }
            Step::Take(host) => self.take(host),
            Step::Refresh(host) if self.is_up(host) => {
                let refresh = RouteRefresh {
                    afi: 1,
                    safi: 1,
                    subtype: 0,
                };
                self.bytes(host, &refresh.encode());
            }
            _ => {}
        }
    }

    /// Everything has been taken.
    fn end(&mut self) {
        while self
            .untaken
            .iter()
            .any(|(host, it)| *it > 0 && self.is_up(*host))
        {
            for host in 2..2 + PEERS {
                self.take(host);
            }
        }
    }
}

fn conn(host: u8) -> ConnId {
    ConnId::In(u64::from(host))
}

fn check(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut net = Net::new();
    (2..2 + PEERS).for_each(|host| net.join(host));
    for step in steps {
        net.step(*step);
    }
    net.end();
    let mut fresh = Net::new();
    for (host, said) in &net.said {
        fresh.join(*host);
        for (prefix, kind) in said {
            fresh.say(*host, &[*prefix], *kind);
            fresh.end();
        }
    }
    fresh.end();
    prop_assert_eq!(&net.heard, &fresh.heard);
    for (host, heard) in &net.heard {
        let advertised = net
            .bench
            .speaker
            .neighbors(net.bench.now)
            .into_iter()
            .find(|it| it.key == bgpd::speaker::PeerKey::Address(ip(&format!("192.0.2.{host}"))))
            .map(|it| it.families[0].advertised);
        prop_assert_eq!(advertised, Some(heard.len()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_peers_hear_in_the_end_depends_on_what_is_left_only(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        check(&steps)?;
    }
}

#[test]
fn a_peer_that_takes_nothing_holds_nobody_and_is_told_the_end_of_it() {
    let mut net = Net::new();
    (2..2 + PEERS).for_each(|host| net.join(host));
    // More than a group keeps for those who are behind, several times over.
    for round in 0..40_u8 {
        for first in 0..60 {
            net.say(2, &prefixes(first, 1), 3);
            net.say(2, &prefixes(first, 1), round % 3);
            net.take(3);
            net.take(4);
        }
        let last = prefixes(59, 1)[0];
        assert_eq!(net.heard[&3].get(&last).and_then(|it| it.med), None);
        assert_eq!(net.heard[&3].len(), 60);
    }
    let held = net.untaken[&5];
    assert!(held < 1 << 20, "{held} bytes for a peer that takes nothing");
    net.end();
    assert_eq!(net.heard[&5], net.heard[&3]);
}
