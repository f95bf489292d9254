//! Sessions between two monitors, one packet at a time, and any packets at one of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::*;
use crate::config::PeerKey;

mod hostile;
mod link;
mod timing;

const SECOND: Micros = 1_000_000;

fn address(host: usize) -> IpAddr {
    IpAddr::from([192, 0, 2, u8::try_from(host).unwrap() + 1])
}

/// The key one host has for the other.
fn peer_of(host: usize) -> PeerKey {
    PeerKey::Address(address(1 - host))
}

fn single_hop() -> Path {
    Path::SingleHop {
        ifindex: 3,
        interface: "eth0".to_owned(),
    }
}

fn settings(host: usize, transmit: u32, receive: u32, multiplier: u8) -> Settings {
    Settings {
        remote: address(1 - host),
        local: None,
        path: single_hop(),
        transmit,
        receive,
        multiplier,
    }
}

/// Two hosts, 0 and 1, and the link between them.
struct Pair {
    hosts: [Monitor; 2],
    now: Micros,
    delay: Micros,
    flying: BTreeMap<(Micros, u64), (usize, [u8; LENGTH])>,
    sent: u64,
    /// Which of the packets from each host arrive.
    passes: Box<dyn FnMut(usize) -> bool>,
    /// What each host said, and when.
    events: [Vec<(Micros, Event)>; 2],
    /// What each host sent, and when.
    packets: [Vec<(Micros, Packet)>; 2],
    closed: [usize; 2],
}

impl Pair {
    fn new() -> Self {
        Self {
            hosts: [Monitor::new(1), Monitor::new(2)],
            now: 0,
            delay: 200,
            flying: BTreeMap::new(),
            sent: 0,
            passes: Box::new(|_| true),
            events: Default::default(),
            packets: Default::default(),
            closed: [0; 2],
        }
    }

    /// Both sides with the same intervals, up.
    fn up(interval: u32, multiplier: u8) -> Self {
        let mut pair = Self::new();
        for host in [0, 1] {
            pair.start(host, settings(host, interval, interval, multiplier));
        }
        pair.run(4 * SECOND);
        assert_eq!(pair.states(), [State::Up; 2]);
        pair
    }

    fn start(&mut self, host: usize, settings: Settings) {
        let peer = peer_of(host);
        self.input(host, Input::Start { peer, settings });
    }

    fn stop(&mut self, host: usize) {
        let peer = peer_of(host);
        self.input(host, Input::Stop { peer });
    }

    fn input(&mut self, host: usize, input: Input) {
        for output in self.hosts[host].handle(input, self.now) {
            match output {
                Output::Send { bytes, .. } => {
                    let packet = Packet::decode(&bytes).expect("what is sent is sound");
                    self.packets[host].push((self.now, packet));
                    if (self.passes)(host) {
                        self.sent += 1;
                        let arrival = (self.now + self.delay, self.sent);
                        self.flying.insert(arrival, (1 - host, bytes));
                    }
                }
                Output::Event { peer, event } => {
                    assert_eq!(peer, peer_of(host));
                    self.events[host].push((self.now, event));
                }
                Output::Close { .. } => self.closed[host] += 1,
                Output::Open { .. } => {}
            }
        }
    }

    /// A packet from the other host, as the driver gives it.
    fn received(host: usize, bytes: [u8; LENGTH]) -> Received {
        Received {
            bytes: bytes.to_vec(),
            source: address(1 - host),
            destination: address(host),
            ifindex: 3,
            ttl: 255,
            multihop: false,
        }
    }

    fn run(&mut self, time: Micros) {
        let end = self.now + time;
        loop {
            let arrival = self.flying.first_key_value().map(|((at, _), _)| *at);
            let timers = self.hosts.each_ref().map(Monitor::next_timeout);
            let Some(next) = timers.into_iter().chain([arrival]).flatten().min() else {
                break;
            };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, (host, bytes)) = self.flying.pop_first().unwrap();
                self.input(host, Input::Packet(Self::received(host, bytes)));
            } else {
                let host = usize::from(timers[0] != Some(next));
                self.input(host, Input::Tick);
            }
        }
        self.now = end;
    }

    fn info(&self, host: usize) -> Info {
        self.hosts[host].sessions(self.now).remove(0)
    }

    fn states(&self) -> [State; 2] {
        [0, 1].map(|host| self.info(host).state)
    }

    /// Forgets what was seen so far.
    fn forget(&mut self) {
        self.events = Default::default();
        self.packets = Default::default();
    }

    /// Times between what a host sent, answers to polls left out.
    fn gaps(&self, host: usize) -> Vec<Micros> {
        let periodic = self.packets[host].iter().filter(|(_, it)| !it.is_final);
        let times: Vec<Micros> = periodic.map(|(at, _)| *at).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

#[test]
fn a_session_comes_up_says_so_once_and_learns_the_other_discriminator() {
    let pair = Pair::up(300_000, 3);
    for host in [0, 1] {
        let events: Vec<Event> = pair.events[host].iter().map(|(_, event)| *event).collect();
        assert_eq!(events, [Event::Up]);
        assert_eq!(
            pair.info(host).remote_discriminator,
            pair.info(1 - host).discriminator
        );
        assert_eq!(pair.info(host).counts.up, 1);
        // Three-way: nobody says Up before it has heard Init or Up.
        let states: Vec<State> = pair.packets[host].iter().map(|(_, it)| it.state).collect();
        assert!(states.is_sorted(), "{states:?}");
    }
}

#[test]
fn silence_is_a_failure_after_the_detection_time_on_both_sides() {
    let mut pair = Pair::up(100_000, 3);
    pair.forget();
    let cut = pair.now;
    // Only one direction is lost; the other side learns it from the packets that still come.
    pair.passes = Box::new(|host| host != 0);
    pair.run(SECOND);
    let (at, event) = pair.events[1][0];
    let expired = Event::Down {
        diagnostic: Diagnostic::TIME_EXPIRED,
        independent: false,
    };
    assert_eq!(event, expired);
    // The last packet may have left up to an interval before the cut.
    assert!(
        (cut + 200_000..=cut + 300_200).contains(&at),
        "{} µs",
        at - cut
    );
    let (told, event) = pair.events[0][0];
    let signalled = Event::Down {
        diagnostic: Diagnostic::NEIGHBOR_DOWN,
        independent: false,
    };
    assert_eq!((told, event), (at + 200, signalled));
    assert_eq!(pair.info(1).counts.failed, 1);
    // Section 6.8.1: it is forgotten whom the packets were from.
    assert_eq!(pair.info(1).remote_discriminator, 0);

    pair.passes = Box::new(|_| true);
    pair.run(4 * SECOND);
    assert_eq!(pair.states(), [State::Up; 2]);
    assert_eq!(pair.events[0].len(), 2);
}

#[test]
fn a_session_that_is_not_wanted_any_more_is_no_failure_for_the_peer() {
    let mut pair = Pair::up(100_000, 3);
    pair.forget();
    pair.stop(0);
    assert!(
        pair.hosts[0].sessions(pair.now).is_empty(),
        "it does not show any more"
    );
    pair.run(2 * SECOND);
    let events: Vec<Event> = pair.events[1].iter().map(|(_, event)| *event).collect();
    assert_eq!(events, [Event::AdminDown]);
    assert_eq!(pair.info(1).diagnostic, Diagnostic::NEIGHBOR_DOWN);
    assert_eq!(pair.info(1).counts.failed, 0);
    assert_eq!(
        pair.closed[0], 0,
        "it tells for a detection time (section 6.8.16)"
    );
    assert!(
        pair.packets[0]
            .iter()
            .all(|(_, it)| it.state == State::AdminDown && it.diagnostic == Diagnostic::ADMIN_DOWN)
    );
    pair.run(2 * SECOND);
    assert_eq!(pair.closed[0], 1);
    assert_eq!(pair.hosts[0].next_timeout(), None);

    // Wanted again, it comes up again.
    pair.start(0, settings(0, 100_000, 100_000, 3));
    pair.run(4 * SECOND);
    assert_eq!(pair.states(), [State::Up; 2]);
}

#[test]
fn a_session_wanted_again_while_the_old_one_ends_comes_up() {
    let mut pair = Pair::up(100_000, 3);
    pair.stop(0);
    pair.run(SECOND / 2);
    pair.start(0, settings(0, 100_000, 100_000, 3));
    pair.run(10 * SECOND);
    assert_eq!(pair.states(), [State::Up; 2]);
    assert_eq!(pair.closed[0], 1);
}

#[test]
fn the_end_of_the_program_is_told_at_once() {
    let mut pair = Pair::up(100_000, 3);
    pair.forget();
    pair.input(0, Input::End);
    assert_eq!((pair.packets[0].len(), pair.closed[0]), (1, 1));
    pair.run(SECOND);
    assert_eq!(pair.events[1][0].1, Event::AdminDown);
}

#[test]
fn a_session_nobody_answered_ends_without_a_word() {
    let mut pair = Pair::new();
    pair.start(0, settings(0, 100_000, 100_000, 3));
    pair.run(SECOND);
    pair.forget();
    pair.stop(0);
    assert!(pair.packets[0].is_empty());
    assert_eq!(pair.closed[0], 1);
}

#[test]
fn a_peer_that_restarts_is_a_failure_and_comes_up_again() {
    let mut pair = Pair::up(100_000, 3);
    pair.forget();
    // It has forgotten everything, and says so before the detection time is over.
    pair.hosts[1] = Monitor::new(99);
    pair.start(1, settings(1, 100_000, 100_000, 3));
    pair.run(4 * SECOND);
    let events: Vec<Event> = pair.events[0].iter().map(|(_, event)| *event).collect();
    assert!(
        matches!(events[..], [Event::Down { .. }, Event::Up]),
        "{events:?}"
    );
    assert_eq!(pair.states(), [State::Up; 2]);
}

#[test]
fn another_interface_or_address_opens_another_socket_and_keeps_the_session() {
    let mut pair = Pair::up(100_000, 3);
    let same = settings(0, 100_000, 100_000, 3);
    let peer = peer_of(0);
    let mut start = |settings: Settings| {
        let peer = peer.clone();
        let now = pair.now;
        pair.hosts[0].handle(Input::Start { peer, settings }, now)
    };
    assert!(start(same.clone()).is_empty());
    let other = Settings {
        local: Some(address(0)),
        ..same
    };
    let outputs = start(other);
    assert!(matches!(outputs[..], [Output::Open { .. }]), "{outputs:?}");
    assert_eq!(pair.states(), [State::Up; 2]);
}

/// Host 0 ends and begins anew with what it kept, `away` later; what it kept.
fn next_life(pair: &mut Pair, away: Micros) -> Vec<Parked> {
    let wait = [(peer_of(0), 60 * SECOND)].into();
    pair.input(0, Input::Park(wait));
    pair.run(SECOND);
    assert!(pair.hosts[0].is_parked());
    let parked = pair.hosts[0].take_parked();
    pair.input(0, Input::End);
    pair.hosts[0] = Monitor::new(3);
    pair.run(away);
    pair.hosts[0] = Monitor::resumed(4, parked.clone());
    pair.start(0, settings(0, 100_000, 100_000, 3));
    parked
}

#[test]
fn a_session_outlives_the_program() {
    let mut pair = Pair::up(100_000, 3);
    pair.events = Default::default();
    let parked = next_life(&mut pair, 40 * SECOND);
    assert_eq!(parked[0].interval, 20_000_000);
    assert_eq!(pair.events[1], [], "the peer noticed nothing");
    pair.run(2 * SECOND);
    assert_eq!(pair.states(), [State::Up; 2]);
    let of = |pair: &Pair, host: usize| pair.hosts[host].sessions(pair.now).remove(0);
    assert_eq!(of(&pair, 0).discriminator, parked[0].discriminator);
    for host in [0, 1] {
        let info = of(&pair, host);
        assert_eq!(
            (info.transmit_interval, info.detection_time),
            (100_000, 300_000)
        );
    }
    // What it looks for, it finds as fast as ever.
    assert_eq!(pair.events[1], []);
    pair.passes = Box::new(|from| from == 1);
    pair.run(SECOND);
    assert!(matches!(pair.events[1][..], [(_, Event::Down { .. })]));
}

#[test]
fn a_peer_that_waited_in_vain_begins_anew() {
    let mut pair = Pair::up(100_000, 3);
    pair.events = Default::default();
    next_life(&mut pair, 100 * SECOND);
    assert!(matches!(pair.events[1][..], [(_, Event::Down { .. })]));
    pair.run(5 * SECOND);
    assert_eq!(pair.states(), [State::Up; 2]);
}

#[test]
fn only_sessions_that_are_up_are_kept() {
    let mut pair = Pair::new();
    pair.start(0, settings(0, 100_000, 100_000, 3));
    pair.run(SECOND);
    pair.input(0, Input::Park([(peer_of(0), SECOND)].into()));
    assert!(pair.hosts[0].is_parked());
    assert_eq!(pair.hosts[0].take_parked(), []);
}
