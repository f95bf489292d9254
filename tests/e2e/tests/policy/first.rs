//! The first packets of a pod's life: sent and received from the moment its namespace exists.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use e2e::suite::{self, Pod, Suite, until};
use lab::pods::{self, Sandbox};
use lab::{Lab, netns};

use crate::world::Policies;

/// What new pods send to, and where those hear who may not, and may, reach them.
const OUT: u16 = 7001;
const DENIED: u16 = 7002;
const ALLOWED: u16 = 7003;
const NODE: &str = "n1";
const PODS: usize = 6;

/// Everything that comes to a port, in both families.
fn ear(port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn sources(ear: &UdpSocket) -> BTreeSet<IpAddr> {
    let mut sources = BTreeSet::new();
    while let Ok((_, from)) = ear.recv_from(&mut [0; 16]) {
        sources.insert(from.ip().to_canonical());
    }
    sources
}

fn mouth(to: IpAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0))
}

/// Every address of the blocks that these are of: new pods of the node get theirs from there.
fn neighbours(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let around = |address: &IpAddr| -> Vec<IpAddr> {
        (0..64_u8)
            .map(|last| match address {
                IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & !63 | u32::from(last)).into(),
                IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !63 | u128::from(last)).into(),
            })
            .collect()
    };
    addresses.iter().flat_map(around).collect()
}

/// Sends to all of them, over and over.
fn flood(netns: PathBuf, to: Vec<SocketAddr>, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    thread::spawn(move || {
        netns::enter(&netns).unwrap();
        let mouths: Vec<_> = to.iter().map(|to| (mouth(to.ip()).unwrap(), *to)).collect();
        while !stop.load(Ordering::Relaxed) {
            for (mouth, to) in &mouths {
                // Nobody may be there yet.
                let _ = mouth.send_to(b"!", to);
            }
            thread::sleep(Duration::from_millis(1));
        }
    })
}

fn sandbox(lab: &Lab, namespace: &str, pod: &str) -> Option<Sandbox> {
    let dir = lab.plan().pods_dir(NODE);
    let mut all = pods::load(&dir).into_iter();
    all.find(|it| it.namespace == namespace && it.pod == pod)
}

/// What a new pod has seen.
#[derive(Debug)]
struct Life {
    /// Datagrams that its own kernel took.
    sent: usize,
    /// Of those who may not reach it.
    denied: usize,
    /// What it asked at the moment when ADD had answered was answered at once.
    answered: bool,
}

/// Speaks and listens in the namespace of a pod from when there is one.
fn life(
    suite: &Suite,
    namespace: &str,
    pod: &str,
    to: &[IpAddr],
    friends: &[IpAddr],
    allowed: &AtomicUsize,
    stop: &AtomicBool,
) -> Life {
    let start = Instant::now();
    let made = loop {
        if let Some(made) = sandbox(suite, namespace, pod) {
            break made;
        }
        assert!(start.elapsed() < suite::PATIENCE, "no sandbox of {pod}");
        thread::sleep(Duration::from_millis(1));
    };
    let path = netns::path(&made.netns);
    while netns::enter(&path).is_err() {
        assert!(start.elapsed() < suite::PATIENCE, "no namespace of {pod}");
        thread::sleep(Duration::from_millis(1));
    }
    let (bad, good) = (ear(DENIED).unwrap(), ear(ALLOWED).unwrap());
    let mut life = Life {
        sent: 0,
        denied: 0,
        answered: false,
    };
    let (mut asked, mut heard, mut rounds) = (false, false, 0_u32);
    while !stop.load(Ordering::Relaxed) {
        for to in to {
            // Each datagram is a flow of its own.
            let sent = mouth(*to).and_then(|mouth| mouth.send_to(b"!", (*to, OUT)));
            life.sent += usize::from(sent.is_ok());
        }
        life.denied += sources(&bad).len();
        if !heard && !sources(&good).is_empty() {
            heard = true;
            allowed.fetch_add(1, Ordering::Relaxed);
        }
        rounds += 1;
        let look = !asked && rounds % 8 == 0;
        if look && sandbox(suite, namespace, pod).is_some_and(|it| !it.addresses.is_empty()) {
            asked = true;
            life.answered = friends.iter().all(|friend| {
                let mouth = mouth(*friend).unwrap();
                mouth
                    .set_read_timeout(Some(Duration::from_secs(3)))
                    .unwrap();
                mouth.send_to(b"?", (*friend, 80)).is_ok() && mouth.recv(&mut [0; 64]).is_ok()
            });
        }
        thread::sleep(Duration::from_micros(300));
    }
    life
}

#[test]
fn no_first_packet_passes_what_policy_denies_and_add_answers_when_all_is_in_place() {
    let suite = suite::shared();
    let p = Policies::few(&suite, "first");
    let red = p.world.ns("red");
    p.apply(
        "red",
        "fresh",
        "{ podSelector: { matchLabels: { app: fresh } }, policyTypes: [Ingress, Egress], ingress: [{ from: [{ podSelector: { matchLabels: { role: a } } }] }], egress: [{ to: [{ podSelector: { matchLabels: { role: a } } }] }] }",
    );
    let fresh = |name| Pod {
        labels: &[("app", "fresh")],
        ..Pod::new(&red, name, NODE)
    };
    suite.run_pods(&[fresh("known")]);
    p.expect(&[
        ("blue/cli", "red/known", "udp/80", false),
        ("red/cli", "red/known", "udp/80", true),
        ("red/known", "blue/cli", "udp/80", false),
    ]);
    let addresses = |place: &str| -> Vec<IpAddr> {
        let texts = suite.addresses(&p.world.place(place));
        texts.iter().map(|it| it.parse().unwrap()).collect()
    };
    let [friend, stranger] = ["red/cli", "blue/cli"];
    let ear_of = |place: &str| {
        let netns = suite.netns(&p.world.place(place)).unwrap();
        netns::run_in(&netns, || ear(OUT)).unwrap()
    };
    let (ear_of_friend, ear_of_stranger) = (ear_of(friend), ear_of(stranger));
    let stop = Arc::new(AtomicBool::new(false));
    let everywhere = neighbours(&addresses("red/known"));
    let floods = [(friend, ALLOWED), (stranger, DENIED)].map(|(place, port)| {
        let to = everywhere.iter().map(|it| SocketAddr::new(*it, port));
        let netns = suite.netns(&p.world.place(place)).unwrap();
        flood(netns, to.collect(), stop.clone())
    });
    let names: Vec<String> = (0..PODS).map(|it| format!("new{it}")).collect();
    let to: Vec<IpAddr> = addresses(stranger)
        .into_iter()
        .chain(addresses(friend))
        .collect();
    let friends = addresses(friend);
    let allowed = AtomicUsize::new(0);
    let (lives, reached) = thread::scope(|scope| {
        let lives: Vec<_> = names
            .iter()
            .map(|name| {
                let (suite, red, to, friends) = (&suite, &red, &to, &friends);
                let (allowed, stop) = (&allowed, &stop);
                scope.spawn(move || life(suite, red, name, to, friends, allowed, stop))
            })
            .collect();
        let objects: Vec<_> = names
            .iter()
            .map(|name| fresh(name.as_str()).object())
            .collect();
        suite.create(&objects);
        for name in &names {
            suite.wait_ready(&format!("{red}/{name}"));
        }
        let mut reached = BTreeSet::new();
        let wanted: BTreeSet<IpAddr> = names
            .iter()
            .flat_map(|name| addresses(&format!("red/{name}")))
            .collect();
        until("every new pod to reach whom it may, and be reached", || {
            reached.extend(sources(&ear_of_friend));
            let heard = allowed.load(Ordering::Relaxed);
            match wanted.is_subset(&reached) && heard == PODS {
                true => Ok(()),
                false => Err(format!("{reached:?} of {wanted:?}, {heard} were reached")),
            }
        });
        thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        let lives: Vec<Life> = lives.into_iter().map(|it| it.join().unwrap()).collect();
        (lives, reached)
    });
    for flood in floods {
        flood.join().unwrap();
    }
    let sent: usize = lives.iter().map(|life| life.sent).sum();
    println!(
        "{PODS} new pods sent {sent} datagrams from their first moment on; {} addresses reached whom they may",
        reached.len()
    );
    assert_eq!(
        sources(&ear_of_stranger),
        BTreeSet::new(),
        "they came through"
    );
    for (name, life) in names.iter().zip(&lives) {
        assert_eq!(life.denied, 0, "{name} was reached: {life:?}");
        assert!(
            life.answered,
            "{name}: ADD had answered, and nobody else: {life:?}"
        );
        assert!(life.sent > 0, "{name}: {life:?}");
    }
}
