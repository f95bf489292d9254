//! Peers played by the test over real TCP: a good one, and whatever a bad one needs.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bgpd::wire::{
    self, AsPath, Attributes, Capability, Dialect, Message, Notification, Open, update,
};
use crds::net::{Cidr, Family};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::{Namespace, PATIENCE};

/// How a played peer reads and writes UPDATEs.
pub(crate) const DIALECT: Dialect = Dialect::plain(false);
/// Offered by the good peer; long enough for a machine with too much to do.
const HOLD: u16 = 60;
const KEEPALIVE: Duration = Duration::from_secs(3);

/// A connection to the speaker, from inside a namespace.
pub(crate) fn connect(namespace: &Namespace, to: &str, receive_buffer: Option<usize>) -> TcpStream {
    let to: SocketAddr = SocketAddr::new(to.parse().unwrap(), 179);
    namespace.inside(move || {
        let end = Instant::now() + PATIENCE;
        loop {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            if let Some(bytes) = receive_buffer {
                socket.set_recv_buffer_size(bytes).unwrap();
            }
            match socket.connect_timeout(&SockAddr::from(to), PATIENCE) {
                Ok(()) => return socket.into(),
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    })
}

pub(crate) fn open(asn: u32, host: u8) -> Vec<u8> {
    let capabilities = vec![Capability::unicast(Family::V4), Capability::RouteRefresh];
    let open = Open::new(asn, HOLD, [10, 0, 0, host].into(), capabilities);
    open.encode().to_vec()
}

/// An UPDATE's attributes: a path through the peer's AS and then those, with the peer's own address as next hop.
pub(crate) fn attributes(address: &str, path: &[u32]) -> Attributes {
    let address: IpAddr = address.parse().unwrap();
    let mut it = Attributes::new(address.into());
    it.as_path = AsPath::sequence(path.iter().copied());
    it
}

pub(crate) fn announce(attributes: &Attributes, prefixes: &[Cidr]) -> Vec<u8> {
    update::announce(attributes, Family::V4, prefixes, DIALECT)
        .unwrap()
        .concat()
}

pub(crate) fn withdraw(prefixes: &[Cidr]) -> Vec<u8> {
    update::withdraw(Family::V4, prefixes).concat()
}

/// That many /24s from a number on, in 20.0.0.0/6.
pub(crate) fn prefixes(first: u32, count: u32) -> Vec<Cidr> {
    let prefix = |number: u32| {
        let address = 0x1400_0000 + (number << 8);
        Cidr::new(std::net::Ipv4Addr::from(address).into(), 24).unwrap()
    };
    (first..first + count).map(prefix).collect()
}

/// Reads messages until the session is up, or the connection is gone.
pub(crate) fn establish(stream: &mut TcpStream, asn: u32, host: u8) -> bool {
    if stream.write_all(&open(asn, host)).is_err() || stream.write_all(&wire::keepalive()).is_err()
    {
        return false;
    }
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // No further than the KEEPALIVE: what follows is the session's.
    loop {
        let mut message = vec![0; wire::HEADER];
        if stream.read_exact(&mut message).is_err() {
            return false;
        }
        let length = usize::from(u16::from_be_bytes([message[16], message[17]]));
        let kind = message[18];
        let mut body = vec![0; length - wire::HEADER];
        if stream.read_exact(&mut body).is_err() {
            return false;
        }
        if kind == 4 {
            return true;
        }
    }
}

/// Reads until the other end closes; the NOTIFICATION before that.
pub(crate) fn until_closed(stream: &mut TcpStream) -> Option<Notification> {
    let mut bytes = Vec::new();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("it is not closed"),
        _ => {}
    }
    let (messages, _) = wire::decode_stream(&bytes, DIALECT);
    messages.into_iter().find_map(|it| match it {
        Message::Notification(it) => Some(it),
        _ => None,
    })
}

/// Ends with a reset instead of an end.
pub(crate) fn reset(stream: TcpStream) {
    Socket::from(stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

/// A peer that does what it shall, on a thread, until it is dropped.
pub(crate) struct Good {
    heard: Arc<Mutex<BTreeSet<Cidr>>>,
    lost: Arc<AtomicBool>,
    say: Sender<Vec<u8>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Good {
    pub(crate) fn start(mut stream: TcpStream, asn: u32, host: u8) -> Self {
        assert!(establish(&mut stream, asn, host));
        let (say, to_say) = channel();
        let mut this = Self {
            heard: Arc::default(),
            lost: Arc::default(),
            say,
            end: Arc::default(),
            thread: None,
        };
        let (heard, lost, end) = (this.heard.clone(), this.lost.clone(), this.end.clone());
        this.thread = Some(std::thread::spawn(move || {
            if !live(stream, &to_say, &heard, &end) {
                lost.store(true, Ordering::Relaxed);
            }
        }));
        this
    }

    pub(crate) fn say(&self, bytes: Vec<u8>) {
        self.say.send(bytes).unwrap();
    }

    pub(crate) fn heard(&self) -> BTreeSet<Cidr> {
        self.heard.lock().unwrap().clone()
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Good {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Speaks and listens; whether it was told to end.
fn live(
    mut stream: TcpStream,
    to_say: &Receiver<Vec<u8>>,
    heard: &Mutex<BTreeSet<Cidr>>,
    end: &AtomicBool,
) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let mut reader = wire::FrameReader::default();
    let mut buffer = vec![0; 1 << 16];
    let mut spoke = Instant::now();
    while !end.load(Ordering::Relaxed) {
        if spoke.elapsed() >= KEEPALIVE {
            spoke = Instant::now();
            if stream.write_all(&wire::keepalive()).is_err() {
                return false;
            }
        }
        while let Ok(bytes) = to_say.try_recv() {
            if stream.write_all(&bytes).is_err() {
                return false;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => reader.push(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return false,
        }
        while let Some(frame) = reader.next_frame().unwrap() {
            match Message::decode(&frame, DIALECT).unwrap() {
                Message::Update(update) => {
                    let mut heard = heard.lock().unwrap();
                    for prefix in &update.withdrawn {
                        heard.remove(prefix);
                    }
                    heard.extend(update.announced.into_iter().flat_map(|it| it.1));
                }
                Message::Notification(_) => return false,
                _ => {}
            }
        }
    }
    true
}
