//! Row 86: how many connections a pod may have.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use e2e::suite::{self, Pod, Suite, namespace, until};
use lab::netns;

use crate::{TRY, addresses, run, table, told};

/// A listener of a pod in each family.
struct Server {
    pod: String,
    listeners: Vec<TcpListener>,
}

/// Both ends of a connection; dropped, it is closed.
struct Open {
    _client: TcpStream,
    _server: TcpStream,
}

impl Server {
    fn of(suite: &Suite, pod: &str) -> Self {
        let listen = |address: IpAddr| {
            let at = suite.netns(pod).unwrap();
            netns::run_in(&at, move || TcpListener::bind((address, 0))).unwrap()
        };
        let listeners = addresses(suite, pod).into_iter().map(listen).collect();
        Self {
            pod: pod.to_owned(),
            listeners,
        }
    }

    fn connect(&self, suite: &Suite, from: &str, family: usize) -> io::Result<Open> {
        let to = self.listeners[family].local_addr()?;
        let from = suite.netns(from).unwrap();
        let client = netns::run_in(&from, move || TcpStream::connect_timeout(&to, TRY))?;
        Ok(Open {
            _client: client,
            _server: self.listeners[family].accept()?.0,
        })
    }

    /// As many as there may be, in both families by turns, and not one more in either.
    fn fill(&self, suite: &Suite, from: &str, most: usize) -> Vec<Open> {
        let open = (0..most).map(|number| self.connect(suite, from, number % 2).unwrap());
        let open = open.collect();
        self.full(suite, from);
        open
    }

    fn full(&self, suite: &Suite, from: &str) {
        for family in [0, 1] {
            let refused = self.connect(suite, from, family).map(drop).unwrap_err();
            let kind = refused.kind();
            assert_eq!(kind, ErrorKind::ConnectionRefused, "to {}", self.pod);
        }
    }

    /// One closes, and there is room for one again.
    fn replace(&self, suite: &Suite, from: &str, open: &mut Vec<Open>) {
        let family = open.len() % 2;
        drop(open.remove(0));
        open.push(until("room for another connection", || {
            let again = self.connect(suite, from, family);
            again.map_err(|error| error.to_string())
        }));
        self.full(suite, from);
    }
}

fn annotate(suite: &Suite, ns: &str, pod: &str, said: &str) {
    suite.kubectl(&["annotate", "--overwrite", "pod", "-n", ns, pod, said]);
}

/// What the kernel has of a limit of a pod: the name of its chain, and the rule there.
fn limit(suite: &Suite, map: &str, pod: &str) -> Option<(String, String)> {
    // Both at once: it may be under repair.
    let table = table(suite, "n1");
    let mut lines = table.lines();
    let element = lines.find(|line| line.contains(pod) && line.contains(map))?;
    let (_, chain) = element.split_once(": jump ")?;
    let chain = chain.trim_end_matches([' ', '}', ',']).to_owned();
    let begin = format!("chain {chain} {{");
    let rules = table.lines().skip_while(|line| !line.contains(&begin));
    let rules = rules.skip(1).take_while(|line| !line.contains('}'));
    Some((chain, rules.map(str::trim).collect::<Vec<_>>().join("; ")))
}

#[test]
fn row_86_a_pod_has_only_so_many_connections() {
    let suite = suite::alone();
    let ns = "row86c";
    suite.create(&[namespace(ns, &[])]);
    run(
        &suite,
        &Pod::new(ns, "few", "n1"),
        &[
            ("qos.margay.io/ingressMaxConnections", "3"),
            ("qos.margay.io/egressMaxConnections", "2"),
        ],
    );
    run(
        &suite,
        &Pod::new(ns, "free", "n1"),
        &[("qos.margay.io/egressMaxConnections", "some")],
    );
    run(&suite, &Pod::new(ns, "far", "n3"), &[]);
    told(
        &suite,
        ns,
        "free",
        "annotation qos.margay.io/egressMaxConnections: \"some\" is none of the numbers from 1 to 65535",
    );
    let [few, free, far] = ["few", "free", "far"].map(|name| format!("{ns}/{name}"));
    let [to_few, to_free, to_far] = [&few, &free, &far].map(|pod| Server::of(&suite, pod));

    // Whoever opens them, from here and from elsewhere: they are counted together.
    let mut inward = to_few.fill(&suite, &far, 3);
    to_few.full(&suite, &free);
    to_few.replace(&suite, &far, &mut inward);
    let mut outward = to_far.fill(&suite, &few, 2);
    to_free.full(&suite, &few);
    to_far.replace(&suite, &few, &mut outward);
    // The node's own probes get through, and other pods are not held up.
    let probe = to_few.connect(&suite, "n1", 0).unwrap();
    let others = [0, 1].map(|family| to_far.connect(&suite, &free, family).unwrap());
    drop((probe, others));

    // Whoever takes felix's place finds them counted.
    suite.kill("felix", Some("n1")).unwrap();
    to_few.full(&suite, &far);
    suite.start("felix", Some("n1")).unwrap();
    suite.wait_felix("n1");
    to_few.full(&suite, &far);
    to_far.full(&suite, &few);
    to_few.replace(&suite, &far, &mut inward);
    to_far.replace(&suite, &few, &mut outward);

    // What somebody changes by hand is put right.
    drop((inward, outward));
    let (chain, rule) = limit(&suite, "egress_connections", &few).unwrap();
    let interface = chain.trim_start_matches("egress_connections_");
    for change in [
        format!("flush chain inet margay {chain}"),
        format!("add rule inet margay {chain} accept"),
        format!("delete element inet margay egress_connections {{ {interface} }}"),
        "flush chain inet margay opened".to_owned(),
    ] {
        suite.run("n1", &["nft", &change]);
        until("the limit to come back", || {
            let there = limit(&suite, "egress_connections", &few);
            let opened = suite.run("n1", &["nft", "list", "chain", "inet", "margay", "opened"]);
            match there {
                Some((_, now)) if now == rule && opened.contains("@egress_connections") => Ok(()),
                there => Err(format!("{change}: {there:?}, {opened}")),
            }
        });
        drop(to_far.fill(&suite, &few, 2));
    }

    // Another number, and none, while the pod runs.
    annotate(&suite, ns, "few", "qos.margay.io/ingressMaxConnections=5");
    until("the other limit", || {
        match limit(&suite, "ingress_connections", &few) {
            Some((_, rule)) if rule == "ct count over 5 goto crowded" => Ok(()),
            there => Err(format!("{there:?}")),
        }
    });
    let five = to_few.fill(&suite, &far, 5);
    annotate(&suite, ns, "few", "qos.margay.io/ingressMaxConnections-");
    let more = until("no limit", || {
        let more = (0..4).map(|number| to_few.connect(&suite, &free, number % 2));
        let more: io::Result<Vec<_>> = more.collect();
        more.map_err(|error| error.to_string())
    });
    assert_eq!(limit(&suite, "ingress_connections", &few), None);
    let table = table(&suite, "n1");
    assert!(!table.contains("chain ingress_connections_"), "{table}");
    drop((five, more));
}

#[test]
fn row_86_a_refused_flow_takes_nothing_from_those_that_are_there() {
    let suite = suite::alone();
    let ns = "row86u";
    suite.create(&[namespace(ns, &[])]);
    run(
        &suite,
        &Pod::new(ns, "few", "n1"),
        &[("qos.margay.io/egressMaxConnections", "2")],
    );
    run(&suite, &Pod::new(ns, "far", "n3"), &[]);
    let (few, far) = ("row86u/few", "row86u/far");
    let to = addresses(&suite, far)[1];
    let at = suite.netns(far).unwrap();
    let listener = netns::run_in(&at, move || UdpSocket::bind((to, 0))).unwrap();
    let wait = Some(Duration::from_millis(300));
    listener.set_read_timeout(wait).unwrap();
    let to: SocketAddr = listener.local_addr().unwrap();
    let from = addresses(&suite, few)[1];
    let netns = suite.netns(few).unwrap();
    let socket = || netns::run_in(&netns, move || UdpSocket::bind((from, 0))).unwrap();
    // Nobody answers: for connection tracking each of their packets might be the first.
    let sockets = [socket(), socket(), socket(), socket()];
    let mut heard = [0; 4];
    for _ in 0..5 {
        for socket in &sockets {
            socket.send_to(b"?", to).unwrap();
        }
        while let Ok((_, whom)) = listener.recv_from(&mut [0; 8]) {
            let known = |it: &UdpSocket| it.local_addr().is_ok_and(|own| own == whom);
            heard[sockets.iter().position(known).unwrap()] += 1;
        }
    }
    assert_eq!(heard, [5, 5, 0, 0]);
}
