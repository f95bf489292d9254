//! What a BMP station is told, read by a strict receiver.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use bgpd::config::{BmpStation, Config, ImportPolicy, Pool};
use bgpd::speaker::{Input, Output, SEND_WINDOW, StationEvent};
use bgpd::wire::{Dialect, Message, Update, decode_stream, update};
use crds::net::{Cidr, Family};

use crate::bench::{Bench, with_peers};
use crate::sim::{cidr, ip};

/// What a message says, after its form has been checked.
#[derive(Debug, PartialEq)]
enum Told {
    Initiation(Vec<(u16, String)>),
    PeerUp(IpAddr),
    PeerDown(IpAddr, u8),
    Routes(IpAddr, Box<Update>),
    Statistics(IpAddr, Vec<(u16, u64)>),
    Termination,
}

/// Takes bytes from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at_checked(count).expect("enough bytes");
        self.0 = rest;
        taken
    }

    fn number(&mut self, bytes: usize) -> u64 {
        self.take(bytes)
            .iter()
            .fold(0, |sum, it| sum << 8 | u64::from(*it))
    }

    fn length(&mut self, bytes: usize) -> usize {
        usize::try_from(self.number(bytes)).unwrap()
    }

    /// One BGP message.
    fn message(&mut self) -> Message {
        assert_eq!(self.0[..16], [0xff; 16]);
        let length = usize::from(u16::from_be_bytes([self.0[16], self.0[17]]));
        let (messages, error) = decode_stream(self.take(length), Dialect::plain(true));
        assert_eq!(error, None);
        messages.into_iter().next().expect("a whole message")
    }

    fn peer(&mut self) -> IpAddr {
        assert_eq!(self.number(1), 0, "a global instance peer");
        let flags = self.number(1);
        assert_eq!(flags & !0x80, 0, "before policy, 4-octet AS numbers");
        assert_eq!(self.number(8), 0, "no distinguisher");
        let address: [u8; 16] = self.take(16).try_into().unwrap();
        let address = match flags {
            0 => {
                assert_eq!(address[..12], [0; 12]);
                IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(&address[12..]).unwrap()))
            }
            _ => IpAddr::from(address),
        };
        assert_eq!(self.number(4), 65000 + u64::from(last(address)), "its AS");
        assert_eq!(self.take(4), [10, 0, 0, last(address)], "its identifier");
        self.number(8);
        address
    }
}

fn last(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    }
}

/// Reads whole messages, and checks everything about their form.
fn read(bytes: &[u8]) -> Vec<Told> {
    let mut all = Reader(bytes);
    let mut told = Vec::new();
    while !all.0.is_empty() {
        assert_eq!(all.number(1), 3, "the version");
        let length = all.length(4);
        let kind = all.number(1);
        let mut it = Reader(all.take(length - 6));
        told.push(match kind {
            0 => {
                let peer = it.peer();
                let Message::Update(update) = it.message() else {
                    panic!("routes are told by UPDATEs");
                };
                assert_eq!(update.problems, []);
                Told::Routes(peer, Box::new(update))
            }
            1 => {
                let peer = it.peer();
                let count = it.number(4);
                let values = (0..count).map(|_| {
                    let code = it.number(2);
                    let mut value = Reader(it.take(0));
                    let length = it.length(2);
                    value.0 = it.take(length);
                    if length == 11 {
                        value.take(3);
                    }
                    (u16::try_from(code).unwrap(), value.number(8))
                });
                Told::Statistics(peer, values.collect())
            }
            2 => {
                let peer = it.peer();
                let reason = it.number(1);
                match reason {
                    1 | 3 => assert!(matches!(it.message(), Message::Notification(_))),
                    2 => assert_eq!(it.number(2), 0),
                    4 | 5 => {}
                    _ => panic!("reason {reason}"),
                }
                Told::PeerDown(peer, u8::try_from(reason).unwrap())
            }
            3 => {
                let peer = it.peer();
                assert_eq!(it.take(16)[12..], [192, 0, 2, 1]);
                assert_eq!(it.number(2), 179);
                assert_eq!(it.number(2), 40000);
                let (Message::Open(sent), Message::Open(received)) = (it.message(), it.message())
                else {
                    panic!("both OPENs");
                };
                assert_eq!(
                    (sent.asn(), received.router_id),
                    (65001, [10, 0, 0, last(peer)].into())
                );
                Told::PeerUp(peer)
            }
            4 | 5 => {
                let mut fields = Vec::new();
                while !it.0.is_empty() {
                    let code = u16::try_from(it.number(2)).unwrap();
                    let length = it.length(2);
                    fields.push((code, String::from_utf8(it.take(length).to_vec()).unwrap()));
                }
                if kind == 4 {
                    Told::Initiation(fields)
                } else {
                    assert_eq!(fields, [(1, "\0\0".to_owned())]);
                    Told::Termination
                }
            }
            kind => panic!("kind {kind}"),
        });
        assert!(it.0.is_empty(), "nothing is left of a message");
    }
    told
}

fn bytes(outputs: &[Output]) -> Vec<u8> {
    let bytes = outputs.iter().filter_map(|it| match it {
        Output::Bmp { station, bytes } => {
            assert_eq!(station, "collector");
            Some(bytes.to_vec())
        }
        _ => None,
    });
    bytes.flatten().collect()
}

fn told(outputs: &[Output]) -> Vec<Told> {
    read(&bytes(outputs))
}

fn with_station() -> Config {
    let mut config = with_peers(2);
    config.bmp = vec![BmpStation {
        name: "collector".to_owned(),
        address: "192.0.2.99:11019".parse().unwrap(),
        statistics: 1_000,
    }];
    config
}

fn event(bench: &mut Bench, event: StationEvent) -> Vec<Output> {
    let station = "collector".to_owned();
    bench.input(Input::Bmp { station, event })
}

/// The prefixes a station knows of a peer after these messages.
fn table(told: &[Told], peer: IpAddr) -> BTreeSet<Cidr> {
    let mut table = BTreeSet::new();
    for told in told {
        match told {
            Told::Routes(of, update) if *of == peer => {
                for prefix in &update.withdrawn {
                    table.remove(prefix);
                }
                table.extend(update.announced.iter().flat_map(|(_, prefixes)| prefixes));
            }
            Told::PeerDown(of, _) if *of == peer => table.clear(),
            _ => {}
        }
    }
    table
}

#[test]
fn a_station_hears_of_peers_and_routes_from_the_beginning_and_as_they_come() {
    let mut config = with_station();
    config.peers[0].import = ImportPolicy::Pools;
    config.pools = vec![Pool {
        cidr: cidr("10.244.0.0/16"),
        block_size: 26,
    }];
    let mut bench = Bench::started(config);
    bench.join(2, &[Family::V4]);
    let (first, second) = (cidr("10.244.7.0/26"), cidr("203.0.113.0/24"));
    // Policy refuses the second one; the station is told what came before policy.
    bench.announce(2, &[first, second]);

    let hello = told(&event(&mut bench, StationEvent::Connected));
    let Told::Initiation(fields) = &hello[0] else {
        panic!("{hello:?}");
    };
    assert!(fields[0].1.starts_with("margay-bgpd "), "{fields:?}");
    assert_eq!(fields.iter().map(|it| it.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(hello[1], Told::PeerUp(ip("192.0.2.2")));
    assert_eq!(table(&hello, ip("192.0.2.2")), [first, second].into());
    let Some(Told::Routes(_, end)) = hello.last() else {
        panic!("{hello:?}");
    };
    assert_eq!(end.end_of_rib, Some(Family::V4));

    let (_, outputs) = bench.join(3, &[Family::V4]);
    assert_eq!(told(&outputs)[0], Told::PeerUp(ip("192.0.2.3")));
    let outputs = bench.announce(3, &[first]);
    assert_eq!(table(&told(&outputs), ip("192.0.2.3")), [first].into());
    let withdrawal = update::withdraw(Family::V4, &[first]).concat();
    let outputs = bench.bytes(bgpd::speaker::ConnId::In(3), &withdrawal);
    let [Told::Routes(_, update)] = &told(&outputs)[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(update.withdrawn, [first]);

    let outputs = bench.tick(1_000);
    let statistics: Vec<Told> = told(&outputs)
        .into_iter()
        .filter(|it| matches!(it, Told::Statistics(..)))
        .collect();
    let of = |peer, received, accepted| {
        let counts = [
            (7, received),
            (8, accepted),
            (9, received),
            (10, accepted),
            (9, 0),
            (10, 0),
        ];
        Told::Statistics(ip(peer), counts.to_vec())
    };
    assert_eq!(statistics, [of("192.0.2.2", 2, 1), of("192.0.2.3", 0, 0)]);
}

#[test]
fn the_end_of_a_session_is_told_with_its_reason() {
    use bgpd::bfd::{Diagnostic, Event as Bfd};
    use bgpd::config::{OnBfdFailure, PeerKey};
    use bgpd::speaker::{ConnId, TcpEvent};
    use bgpd::wire::Notification;
    use bgpd::wire::notification::Cease;

    let closed = |_: &Bench| {
        let reason = String::new();
        Input::Tcp(ConnId::In(2), TcpEvent::Closed { reason })
    };
    let cease = |_: &Bench| {
        let bytes = Notification::cease(Cease::Shutdown).encode();
        Input::Tcp(ConnId::In(2), TcpEvent::Bytes(bytes))
    };
    let removed = |bench: &Bench| {
        let mut config = bench.speaker.config().clone();
        config.peers.remove(0);
        Input::Config(config)
    };
    let failed = |_: &Bench| Input::Bfd {
        peer: PeerKey::Address(ip("192.0.2.2")),
        event: Bfd::Down {
            diagnostic: Diagnostic::TIME_EXPIRED,
            independent: false,
        },
    };
    type Cause = fn(&Bench) -> Input;
    let cases: [(u8, Cause); 4] = [(4, closed), (3, cease), (1, removed), (2, failed)];
    for (reason, cause) in cases {
        let mut config = with_station();
        config.peers[0].options.bfd = Some(bgpd::config::Bfd {
            transmit: 300,
            receive: 300,
            multiplier: 3,
            on_failure: OnBfdFailure::Graceful,
        });
        let mut bench = Bench::started(config);
        event(&mut bench, StationEvent::Connected);
        bench.join(2, &[Family::V4]);
        let input = cause(&bench);
        let outputs = bench.input(input);
        assert_eq!(told(&outputs), [Told::PeerDown(ip("192.0.2.2"), reason)]);
    }
}

#[test]
fn a_station_that_stalls_costs_a_window_and_catches_up() {
    let mut bench = Bench::started(with_station());
    event(&mut bench, StationEvent::Connected);
    bench.join(2, &[Family::V4]);
    let mut heard = Vec::new();
    let peer = ip("192.0.2.2");
    let mut expected = BTreeSet::new();
    // It takes nothing while prefixes come and go.
    for round in 0_u32..40 {
        let prefixes: Vec<Cidr> = (0..256)
            .map(|it| {
                let address = 0x0a00_0000 + (round * 256 + it) * 64;
                Cidr::new(IpAddr::from(Ipv4Addr::from(address)), 26).unwrap()
            })
            .collect();
        for prefix in &prefixes {
            heard.extend(bytes(&bench.announce(2, &[*prefix])));
        }
        let gone = &prefixes[..16];
        let withdrawal = update::withdraw(Family::V4, gone).concat();
        heard.extend(bytes(
            &bench.bytes(bgpd::speaker::ConnId::In(2), &withdrawal),
        ));
        expected.extend(&prefixes[16..]);
        assert!(heard.len() < SEND_WINDOW + 65_536, "{} bytes", heard.len());
    }
    assert_ne!(
        table(&read(&heard), peer),
        expected,
        "it could not know all"
    );
    let mut taken = 0;
    while taken < heard.len() {
        let sent = (heard.len() - taken).min(10_000);
        taken += sent;
        heard.extend(bytes(&event(&mut bench, StationEvent::Sent(sent))));
    }
    let all = read(&heard);
    assert_eq!(table(&all, peer), expected);
    let again = all.iter().filter(|it| **it == Told::PeerUp(peer)).count();
    assert_eq!(again, 1, "it was told that the peer was there again");
    // It keeps up from then on.
    let news = cidr("10.244.7.0/26");
    let outputs = bench.announce(2, &[news]);
    assert_eq!(table(&told(&outputs), peer), [news].into());
}

#[test]
fn a_station_that_is_lost_or_unwanted_hears_nothing() {
    let mut bench = Bench::started(with_station());
    event(&mut bench, StationEvent::Connected);
    event(&mut bench, StationEvent::Closed);
    let (_, outputs) = bench.join(2, &[Family::V4]);
    assert_eq!(told(&outputs), []);
    let hello = told(&event(&mut bench, StationEvent::Connected));
    assert_eq!(hello[1], Told::PeerUp(ip("192.0.2.2")));
    let outputs = bench.input(Input::Config(with_peers(2)));
    assert_eq!(told(&outputs), [Told::Termination]);
    assert_eq!(told(&bench.announce(2, &[cidr("10.244.7.0/26")])), []);
}
