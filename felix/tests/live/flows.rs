//! Connections that stay, and what passes over them. Nothing here waits for one of them: what is allowed arrives, and
//! whatever was sent before it would have arrived by then.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::network::{HOSTS, Network, PORTS, R, Via, target};
use crate::rules::Question;

/// How long something that is allowed may take, on a machine that has a lot to do.
const PATIENCE: Duration = Duration::from_secs(5);

/// One connection, opened anew when it has been cut.
pub(crate) struct Flow {
    pub(crate) question: Question,
    via: Via,
    family: usize,
    /// Who speaks first after a change.
    server_first: bool,
    state: State,
}

enum State {
    Closed,
    Tcp {
        client: Stream,
        server: Stream,
    },
    /// What the server sends to, when it has heard of it.
    Udp {
        client: UdpSocket,
        back: Option<SocketAddr>,
    },
}

/// A TCP stream, and what of a message has come so far.
struct Stream {
    stream: TcpStream,
    partial: Vec<u8>,
}

/// What has arrived of a round: (flow, at the server).
type Arrived = BTreeSet<(usize, bool)>;

/// Every flow, and the servers' sockets.
pub(crate) struct Flows<'a> {
    network: &'a Network,
    pub(crate) flows: Vec<Flow>,
    listeners: BTreeMap<(usize, u16, usize), TcpListener>,
    sockets: BTreeMap<(usize, u16, usize), UdpSocket>,
    round: u32,
    /// Connections that have been opened so far, and resets seen.
    pub(crate) opened: usize,
    pub(crate) resets: usize,
}

impl<'a> Flows<'a> {
    /// None is open yet.
    pub(crate) fn new(network: &'a Network) -> Self {
        let mut listeners = BTreeMap::new();
        let mut sockets = BTreeMap::new();
        for host in 0..HOSTS.len() {
            for family in 0..2 {
                for (protocol, port, hidden) in PORTS {
                    for port in [port, hidden] {
                        let key = (host, port, family);
                        let socket = network.hosts[host].run(move || bound(protocol, port, family));
                        if protocol == 6 {
                            listeners.insert(key, socket.into());
                        } else {
                            sockets.insert(key, socket.into());
                        }
                    }
                }
            }
        }
        let ways = [
            (0, 1, Via::Plain),
            (1, 0, Via::Plain),
            (2, 0, Via::Plain),
            (1, 2, Via::Plain),
            (0, R, Via::Plain),
            (R, 0, Via::Plain),
            (R, 2, Via::Plain),
            (0, 1, Via::Service),
            (2, 0, Via::Service),
            (R, 1, Via::Service),
            (R, 0, Via::NodePort),
            (0, R, Via::Hidden),
            (2, R, Via::Hidden),
            // A pod and its own service.
            (0, 0, Via::Service),
            (1, 1, Via::Service),
        ];
        let mut flows = Vec::new();
        for (number, (from, to, via)) in ways.into_iter().enumerate() {
            for (protocol, port, hidden) in PORTS {
                for family in 0..2 {
                    let port = if via == Via::Hidden { hidden } else { port };
                    flows.push(Flow {
                        question: Question {
                            from,
                            to,
                            protocol,
                            port,
                        },
                        via,
                        family,
                        server_first: (number + family) % 2 == 0,
                        state: State::Closed,
                    });
                }
            }
        }
        Self {
            network,
            flows,
            listeners,
            sockets,
            round: 0,
            opened: 0,
            resets: 0,
        }
    }

    pub(crate) fn describe(&self, flow: usize) -> String {
        let Flow {
            question,
            via,
            family,
            ..
        } = &self.flows[flow];
        let Question {
            from,
            to,
            protocol,
            port,
        } = question;
        let family = ["IPv4", "IPv6"][*family];
        format!(
            "{} to {} ({via:?}, {family}, protocol {protocol}, port {port})",
            HOSTS[*from], HOSTS[*to]
        )
    }

    /// Opens what is allowed and closed; closes the streams of what is not.
    pub(crate) fn arrange(&mut self, allowed: &[bool]) {
        for (number, allowed) in allowed.iter().enumerate() {
            match (&self.flows[number].state, allowed) {
                (State::Closed, true) => self.open(number),
                (State::Tcp { .. }, false) => self.flows[number].state = State::Closed,
                _ => {}
            }
        }
    }

    /// Closes the streams of a host.
    pub(crate) fn close(&mut self, host: usize) {
        for flow in &mut self.flows {
            let ends = [flow.question.from, flow.question.to];
            if ends.contains(&host) && matches!(flow.state, State::Tcp { .. }) {
                flow.state = State::Closed;
            }
        }
    }

    fn open(&mut self, number: usize) {
        let Flow {
            question,
            via,
            family,
            ..
        } = self.flows[number];
        let to = target(question.to, question.protocol, via, family);
        let host = &self.network.hosts[question.from];
        self.opened += 1;
        self.flows[number].state = if question.protocol == 17 {
            let client = host
                .run(move || UdpSocket::bind(SocketAddr::new(any(family), 0)).expect("a socket"));
            client.connect(to).expect("connect");
            client.set_nonblocking(true).expect("nonblocking");
            State::Udp { client, back: None }
        } else {
            let listener = &self.listeners[&(question.to, question.port, family)];
            // Of earlier connections that were given up.
            while listener.accept().is_ok() {}
            let client = host.run(move || TcpStream::connect_timeout(&to, PATIENCE));
            let client =
                client.unwrap_or_else(|error| panic!("{}: {error}", self.describe(number)));
            let deadline = Instant::now() + PATIENCE;
            let server = loop {
                match listener.accept() {
                    Ok((server, _)) => break server,
                    Err(error) => assert!(
                        Instant::now() < deadline,
                        "{}: {error}",
                        self.describe(number)
                    ),
                }
            };
            State::Tcp {
                client: Stream::new(client),
                server: Stream::new(server),
            }
        };
    }

    /// Sends one message in each direction of every open connection, waits for those which are allowed, and tells the
    /// others that got through.
    pub(crate) fn round(&mut self, allowed: &[bool]) -> Vec<usize> {
        self.round += 1;
        let mut order: Vec<usize> = (0..self.flows.len()).collect();
        order.sort_by_key(|number| allowed[*number]);
        let mut wanted = Arrived::new();
        for number in order {
            for at_server in [
                self.flows[number].server_first,
                !self.flows[number].server_first,
            ] {
                let to_server = !at_server;
                match self.send(number, to_server) {
                    Ok(true) if allowed[number] => drop(wanted.insert((number, to_server))),
                    Err(error) if allowed[number] => panic!("{}: {error}", self.describe(number)),
                    _ => {}
                }
            }
        }
        let deadline = Instant::now() + PATIENCE;
        let mut arrived = Arrived::new();
        loop {
            self.receive(allowed, &mut arrived);
            let mut missing = wanted.difference(&arrived);
            let Some((number, at_server)) = missing.next() else {
                break;
            };
            assert!(
                Instant::now() < deadline,
                "lost on the way to the {}: {}, and {} more",
                if *at_server { "server" } else { "client" },
                self.describe(*number),
                missing.count(),
            );
        }
        let through: BTreeSet<usize> = arrived
            .into_iter()
            .map(|(number, _)| number)
            .filter(|number| !allowed[*number])
            .collect();
        through.into_iter().collect()
    }

    /// Whether it could be sent at all: a server that has not heard of a client cannot.
    fn send(&mut self, number: usize, to_server: bool) -> io::Result<bool> {
        let mut message = [0; 8];
        message[..4].copy_from_slice(&u32::try_from(number).expect("few flows").to_be_bytes());
        message[4..].copy_from_slice(&self.round.to_be_bytes());
        let Flow {
            question, family, ..
        } = self.flows[number];
        match &mut self.flows[number].state {
            State::Closed => return Ok(false),
            State::Tcp { client, server } => {
                let end = if to_server { client } else { server };
                end.stream.write_all(&message)?;
            }
            State::Udp { client, back } => match (to_server, *back) {
                (true, _) => drop(client.send(&message)?),
                (false, Some(back)) => {
                    let socket = &self.sockets[&(question.to, question.port, family)];
                    socket.send_to(&message, back)?;
                }
                (false, None) => return Ok(false),
            },
        }
        Ok(true)
    }

    fn receive(&mut self, allowed: &[bool], arrived: &mut Arrived) {
        let round = self.round;
        let mut note = |message: &[u8], at_server| {
            let [a, b, c, d, rest @ ..] = message else {
                return None;
            };
            let number = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            if rest == round.to_be_bytes() {
                arrived.insert((number, at_server));
            }
            Some(number)
        };
        let mut buffer = [0; 2048];
        for ((_, _, family), socket) in &self.sockets {
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let number = note(&buffer[..length], true).expect("a message");
                let flow = &mut self.flows[number];
                assert_eq!(flow.family, *family);
                if let State::Udp { back, .. } = &mut flow.state {
                    *back = Some(from);
                }
            }
        }
        for (number, flow) in self.flows.iter_mut().enumerate() {
            match &mut flow.state {
                State::Closed => {}
                State::Udp { client, .. } => {
                    while let Ok(length) = client.recv(&mut buffer) {
                        note(&buffer[..length], false);
                    }
                }
                State::Tcp { client, server } => {
                    for (end, at_server) in [(client, false), (server, true)] {
                        let over = end.messages(&mut buffer, |message| {
                            note(message, at_server);
                        });
                        if let Err(error) = over {
                            assert!(!allowed[number], "flow {number} was cut: {error}");
                            self.resets += 1;
                        }
                    }
                }
            }
        }
    }
}

impl Stream {
    fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).expect("nonblocking");
        stream.set_nodelay(true).expect("nodelay");
        Self {
            stream,
            partial: Vec::new(),
        }
    }

    /// Every message that has come; an error when the connection is over.
    fn messages(&mut self, buffer: &mut [u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.partial.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Said once.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => break,
                Err(error) => return Err(error),
            }
        }
        let whole = self.partial.len() / 8 * 8;
        self.partial
            .drain(..whole)
            .as_slice()
            .chunks(8)
            .for_each(&mut take);
        Ok(())
    }
}

fn any(family: usize) -> IpAddr {
    let any: [IpAddr; 2] = [[0; 4].into(), [0_u16; 8].into()];
    any[family]
}

fn bound(protocol: u8, port: u16, family: usize) -> Socket {
    let address = SocketAddr::new(any(family), port);
    let kind = if protocol == 6 {
        Type::STREAM
    } else {
        Type::DGRAM
    };
    let socket = Socket::new(Domain::for_address(address), kind, None).expect("a socket");
    if family == 1 {
        socket.set_only_v6(true).expect("IPv6 only");
    }
    socket.bind(&address.into()).expect("bind");
    if protocol == 6 {
        socket.listen(16).expect("listen");
    }
    socket.set_nonblocking(true).expect("nonblocking");
    socket
}
