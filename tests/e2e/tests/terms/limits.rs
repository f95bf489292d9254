//! Row 86: limits and DSCP of pods.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use e2e::suite::{self, Pod, Suite, namespace, until};
use lab::netns;

use crate::{
    TRY, addresses, count, counted, elements, over_a_restart, place, run, seen, told, uncount,
};

/// How many of these datagrams arrive when they are sent all at once.
fn burst(suite: &Suite, from: &str, at: &str, to: IpAddr, datagrams: usize) -> usize {
    let (from, at) = (suite.netns(from).unwrap(), suite.netns(at).unwrap());
    let listener = netns::run_in(&at, move || UdpSocket::bind((to, 0))).unwrap();
    listener
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let to = listener.local_addr().unwrap();
    let any: IpAddr = match to {
        SocketAddr::V4(_) => [0; 4].into(),
        SocketAddr::V6(_) => [0_u8; 16].into(),
    };
    let socket = netns::run_in(&from, move || UdpSocket::bind((any, 0))).unwrap();
    for _ in 0..datagrams {
        let _ = socket.send_to(&[0; 100], to);
    }
    std::iter::from_fn(|| listener.recv(&mut [0; 200]).ok()).count()
}

#[test]
fn row_86_packet_rates_hold_for_the_pod_that_has_them() {
    let suite = suite::alone();
    let ns = "row86p";
    suite.create(&[namespace(ns, &[])]);
    run(
        &suite,
        &Pod::new(ns, "slow", "n1"),
        &[
            ("qos.margay.io/egressPacketRate", "20"),
            ("qos.margay.io/egressPacketBurst", "10"),
            ("qos.margay.io/ingressPacketRate", "20"),
            ("qos.margay.io/dscp", "99"),
        ],
    );
    run(&suite, &Pod::new(ns, "free", "n1"), &[]);
    run(&suite, &Pod::new(ns, "far", "n3"), &[]);
    told(
        &suite,
        ns,
        "slow",
        "annotation qos.margay.io/dscp: \"99\" is no DSCP",
    );
    let (slow, free, far) = ("row86p/slow", "row86p/free", "row86p/far");
    let (slow_ip, free_ip, far_ip) = (
        addresses(&suite, slow),
        addresses(&suite, free),
        addresses(&suite, far),
    );
    over_a_restart(&suite, "n1", || {
        for family in [0, 1] {
            // 200 at once, of which the burst gets through, and 20 in each second that sending takes.
            for (from, at, to) in [
                (slow, far, far_ip[family]),
                (slow, free, free_ip[family]),
                (far, slow, slow_ip[family]),
            ] {
                let heard = burst(&suite, from, at, to, 200);
                assert!((1..60).contains(&heard), "{from} to {at}: {heard}");
            }
            for (from, at, to) in [(free, far, far_ip[family]), (far, free, free_ip[family])] {
                assert_eq!(burst(&suite, from, at, to, 200), 200, "{from} to {at}");
            }
        }
    });
    for what in [
        "egressPacketRate-",
        "egressPacketBurst-",
        "ingressPacketRate-",
        "dscp-",
    ] {
        let annotation = format!("qos.margay.io/{what}");
        suite.kubectl(&["annotate", "pod", "-n", ns, "slow", &annotation]);
    }
    until("the limits to go", || {
        match burst(&suite, slow, far, far_ip[0], 200) {
            200 => Ok(()),
            heard => Err(format!("{heard}")),
        }
    });
    assert_eq!(burst(&suite, far, slow, slow_ip[1], 200), 200);
    for set in ["limited", "egress_packets", "ingress_packets"] {
        let elements = elements(&suite, "n1", set);
        let ours = elements.iter().filter(|it| it.to_string().contains(slow));
        assert_eq!(ours.count(), 0, "{set}: {elements:?}");
    }
}

/// How long so many bytes take.
fn transfer(suite: &Suite, from: &str, at: &str, to: IpAddr, bytes: usize) -> Duration {
    let (from, at) = (suite.netns(from).unwrap(), suite.netns(at).unwrap());
    let listener = netns::run_in(&at, move || TcpListener::bind((to, 0))).unwrap();
    let to = listener.local_addr().unwrap();
    let mut sender = netns::run_in(&from, move || TcpStream::connect_timeout(&to, TRY)).unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(suite::PATIENCE)).unwrap();
    let start = Instant::now();
    let sending = std::thread::spawn(move || sender.write_all(&vec![0; bytes]));
    let mut taken = vec![0; bytes];
    receiver.read_exact(&mut taken).unwrap();
    let took = start.elapsed();
    sending.join().unwrap().unwrap();
    took
}

#[test]
fn row_86_bandwidth_is_limited_to_and_from_a_pod() {
    let suite = suite::alone();
    let ns = "row86b";
    suite.create(&[namespace(ns, &[])]);
    // A megabyte a second.
    run(
        &suite,
        &Pod::new(ns, "in", "n1"),
        &[("qos.margay.io/ingressBandwidth", "8M")],
    );
    run(
        &suite,
        &Pod::new(ns, "out", "n1"),
        &[("kubernetes.io/egress-bandwidth", "8M")],
    );
    run(&suite, &Pod::new(ns, "far", "n3"), &[]);
    let (far, inward, outward) = ("row86b/far", "row86b/in", "row86b/out");
    for family in [0, 1] {
        let to = |pod: &str| addresses(&suite, pod)[family];
        let free = transfer(&suite, inward, far, to(far), 3_000_000);
        let limited = transfer(&suite, far, inward, to(inward), 3_000_000);
        assert!(
            limited > Duration::from_secs(2) && limited > free * 2,
            "{limited:?} to the pod, {free:?} from it"
        );
        let free = transfer(&suite, far, outward, to(outward), 3_000_000);
        let limited = transfer(&suite, outward, far, to(far), 3_000_000);
        assert!(
            limited > Duration::from_millis(1200) && limited > free * 2,
            "{limited:?} from the pod, {free:?} to it"
        );
    }
    let queues = || suite.run("n1", &["tc", "qdisc", "show"]);
    over_a_restart(&suite, "n1", || {
        assert_eq!(queues().matches("tbf 6d67:").count(), 1, "{}", queues())
    });
    // A queue that somebody else takes away comes back, and one that nobody wants goes.
    let line = queues();
    let words: Vec<&str> = line
        .lines()
        .find(|it| it.contains("tbf 6d67:"))
        .unwrap()
        .split(' ')
        .collect();
    let device = words[words.iter().position(|it| *it == "dev").unwrap() + 1].to_owned();
    suite.run("n1", &["tc", "qdisc", "del", "dev", &device, "root"]);
    suite::until_within(
        "the queue to come back",
        Duration::from_secs(60),
        || match queues() {
            all if all.contains("tbf 6d67:") => Ok(()),
            all => Err(all),
        },
    );
    suite.kubectl(&[
        "annotate",
        "pod",
        "-n",
        ns,
        "in",
        "qos.margay.io/ingressBandwidth-",
    ]);
    until("the queue to go", || match queues() {
        all if all.contains("tbf") => Err(all),
        _ => Ok(()),
    });
}

#[test]
fn row_86_what_leaves_the_cluster_has_the_dscp_of_the_pod() {
    let suite = suite::alone();
    let ns = "row86d";
    suite.create(&[namespace(ns, &[])]);
    run(
        &suite,
        &Pod::new(ns, "fast", "n1"),
        &[("qos.margay.io/dscp", "EF")],
    );
    run(&suite, &Pod::new(ns, "plain", "n1"), &[]);
    run(&suite, &Pod::new(ns, "far", "n3"), &[]);
    let (fast, plain, far) = ("row86d/fast", "row86d/plain", "row86d/far");
    let (outside, inside, own) = (
        place(&suite, "tor-a"),
        addresses(&suite, far),
        addresses(&suite, fast),
    );
    let marked = ["ip dscp 46".to_owned(), "ip6 dscp 46".to_owned()];
    count(&suite, "tor-a", "input", &marked);
    count(&suite, "n3", "prerouting", &marked);
    over_a_restart(&suite, "n1", || {
        for family in [0, 1] {
            let before = counted(&suite, "tor-a");
            seen(&suite, plain, "tor-a", outside[family]).unwrap();
            assert_eq!(counted(&suite, "tor-a"), before);
            seen(&suite, fast, "tor-a", outside[family]).unwrap();
            // A SYN and its acknowledgement at least: not only the first packet of a connection.
            let marked = counted(&suite, "tor-a");
            assert!(marked >= before + 2, "{marked}");
            // What it answers leaves, too.
            seen(&suite, "tor-a", fast, own[family]).unwrap();
            assert!(counted(&suite, "tor-a") > marked);
            seen(&suite, fast, far, inside[family]).unwrap();
            seen(&suite, fast, "n3", place(&suite, "n3")[family]).unwrap();
            assert_eq!(counted(&suite, "n3"), 0, "inside the cluster");
        }
    });
    suite.kubectl(&["annotate", "pod", "-n", ns, "fast", "qos.margay.io/dscp-"]);
    until("the mark to go", || {
        let before = counted(&suite, "tor-a");
        seen(&suite, fast, "tor-a", outside[0])?;
        match counted(&suite, "tor-a") - before {
            0 => Ok(()),
            marked => Err(format!("{marked}")),
        }
    });
    uncount(&suite, "tor-a");
    uncount(&suite, "n3");
}
