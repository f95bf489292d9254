//! A speaker on the bench, with its peers played by the test.

use std::net::SocketAddr;

use bgpd::Millis;
use bgpd::config::Config;
use bgpd::policy::ImportRefusal;
use bgpd::speaker::{
    ConnId, DataplaneReport, Input, Output, PeerKey, RouteFilter, Speaker, SpeakerEvent, TcpEvent,
};
use bgpd::wire::{self, AsPath, Attributes, Capability, Dialect, Message, Open, Update, update};
use bytes::Bytes;
use crds::net::{Cidr, Family};

use crate::sim::{cidr, config, interface, ip, peer};

pub(crate) const PEER_ASN: u32 = 65002;

/// A speaker whose peers, at 192.0.2.2 and so on, are played by the test.
pub(crate) struct Bench {
    pub(crate) speaker: Speaker,
    pub(crate) now: Millis,
    pub(crate) inputs: Vec<(Input, Millis)>,
    pub(crate) outputs: Vec<Vec<Output>>,
    pub(crate) report_sent: bool,
}

impl Bench {
    pub(crate) fn new(config: Config) -> Self {
        let speaker = Speaker::new(config, 1, 0);
        Self {
            speaker,
            now: 0,
            inputs: Vec::new(),
            outputs: Vec::new(),
            report_sent: true,
        }
    }

    /// A speaker at 192.0.2.1 that may start.
    pub(crate) fn started(config: Config) -> Self {
        let mut bench = Self::new(config);
        bench.input(Input::Kernel(interface(
            3,
            &["192.0.2.1/24", "2001:db8::1/64", "fe80::1/64"],
        )));
        bench.input(report());
        bench
    }

    pub(crate) fn input(&mut self, input: Input) -> Vec<Output> {
        self.inputs.push((input.clone(), self.now));
        let outputs = self.speaker.handle(input, self.now);
        self.outputs.push(outputs.clone());
        if self.report_sent {
            for output in &outputs {
                if let Output::Send(conn, bytes) = output {
                    let sent = Input::Tcp(*conn, TcpEvent::Sent(bytes.len()));
                    self.inputs.push((sent.clone(), self.now));
                    let more = self.speaker.handle(sent, self.now);
                    assert!(more.is_empty(), "{more:?}");
                    self.outputs.push(more);
                }
            }
        }
        outputs
    }

    pub(crate) fn tick(&mut self, time: Millis) -> Vec<Output> {
        self.now += time;
        self.input(Input::Tick)
    }

    /// The peer at 192.0.2.`host` connects and says hello with these families.
    pub(crate) fn join(&mut self, host: u8, families: &[Family]) -> (ConnId, Vec<Output>) {
        let conn = ConnId::In(u64::from(host));
        let end = |host, port| SocketAddr::from(([192, 0, 2, host], port));
        self.input(Input::Tcp(
            conn,
            TcpEvent::Accepted {
                local: end(1, 179),
                remote: end(host, 40000),
                ttl: None,
            },
        ));
        let capabilities = families.iter().map(|it| Capability::unicast(*it)).collect();
        let open = Open::new(
            65000 + u32::from(host),
            90,
            [10, 0, 0, host].into(),
            capabilities,
        );
        self.bytes(conn, &open.encode());
        let outputs = self.bytes(conn, &wire::keepalive());
        assert!(
            outputs
                .iter()
                .any(|it| matches!(it, Output::Event(SpeakerEvent::Established { .. }))),
            "{outputs:?}"
        );
        (conn, outputs)
    }

    pub(crate) fn bytes(&mut self, conn: ConnId, bytes: &[u8]) -> Vec<Output> {
        self.input(Input::Tcp(
            conn,
            TcpEvent::Bytes(Bytes::copy_from_slice(bytes)),
        ))
    }

    /// The peer announces prefixes with itself as next hop.
    pub(crate) fn announce(&mut self, host: u8, prefixes: &[Cidr]) -> Vec<Output> {
        let mut attributes = Attributes::new(ip(&format!("192.0.2.{host}")).into());
        attributes.as_path = AsPath::sequence([65000 + u32::from(host)]);
        self.announce_with(host, &attributes, prefixes)
    }

    pub(crate) fn announce_with(
        &mut self,
        host: u8,
        attributes: &Attributes,
        prefixes: &[Cidr],
    ) -> Vec<Output> {
        let family = prefixes[0].family();
        let messages = update::announce(attributes, family, prefixes, EBGP).unwrap();
        self.bytes(ConnId::In(u64::from(host)), &messages.concat())
    }

    pub(crate) fn refusal(&self, prefix: &str) -> Option<ImportRefusal> {
        let filter = RouteFilter {
            prefix: Some(cidr(prefix)),
            neighbor: Some(PeerKey::Address(ip("192.0.2.2"))),
            ..RouteFilter::default()
        };
        let routes = self.speaker.routes(&filter, self.now);
        assert_eq!(routes.len(), 1, "{prefix}");
        routes[0].refused
    }
}

pub(crate) const EBGP: Dialect = Dialect::plain(false);

pub(crate) fn report() -> Input {
    Input::Dataplane(DataplaneReport {
        boot_id: "boot".into(),
        preserved: Vec::new(),
        restarted: false,
    })
}

/// Our configuration with that many peers, which import everything.
pub(crate) fn with_peers(count: u8) -> Config {
    let mut config = config(65001, "192.0.2.1");
    config.peers = (2..2 + count)
        .map(|it| peer(&format!("192.0.2.{it}"), 65000 + u32::from(it)))
        .collect();
    for it in &mut config.peers {
        it.passive = true;
    }
    config
}

/// The UPDATEs among the outputs for a connection.
pub(crate) fn updates(outputs: &[Output], conn: ConnId) -> Vec<Update> {
    let bytes = outputs.iter().filter_map(|it| match it {
        Output::Send(to, bytes) if *to == conn => Some(bytes.to_vec()),
        _ => None,
    });
    let (messages, error) = wire::decode_stream(&bytes.collect::<Vec<_>>().concat(), EBGP);
    assert_eq!(error, None);
    let update = |message| {
        if let Message::Update(it) = message {
            Some(it)
        } else {
            None
        }
    };
    messages.into_iter().filter_map(update).collect()
}

pub(crate) fn announced(outputs: &[Output], conn: ConnId) -> Vec<Cidr> {
    let all = updates(outputs, conn)
        .into_iter()
        .flat_map(|it| it.announced)
        .flat_map(|it| it.1);
    all.collect()
}

pub(crate) fn ends(outputs: &[Output], conn: ConnId) -> Vec<Family> {
    updates(outputs, conn)
        .into_iter()
        .filter_map(|it| it.end_of_rib)
        .collect()
}

pub(crate) fn best(outputs: &[Output]) -> Vec<(Cidr, Vec<String>)> {
    let of = |it: &Output| match it {
        Output::Best { prefix, legs } => Some((
            *prefix,
            legs.iter().map(|leg| leg.address.to_string()).collect(),
        )),
        _ => None,
    };
    outputs.iter().filter_map(of).collect()
}
