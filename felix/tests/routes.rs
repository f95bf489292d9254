//! Routes and nexthop objects in a real kernel, as `ip` shows them.

mod ns;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crds::net::Family;
use felix::driver::netlink::{Applied, Event, Monitor, Netlink};
use felix::driver::sysctl;
use felix::nft::diff::DOOMED;
use felix::policy::tables::Subject;
use felix::routes::diff::{self, Conflict, Op, Sweep};
use felix::routes::model::{BGP_METRIC, Entry, Key, MAIN_TABLE, Via, WORKLOAD_METRIC};
use felix::routes::uplink;
use felix::routes::want::{BgpLeg, Connected, Wants};
use ns::Namespace;

const SWEEP: Sweep = Sweep {
    workloads: true,
    bgp: true,
};

/// A node with three uplinks and the interface of a pod.
struct Node {
    namespace: Namespace,
    netlink: Arc<Mutex<Netlink>>,
}

impl Node {
    fn new() -> Self {
        let namespace = Namespace::new();
        namespace.sh("sysctl -qw net.ipv6.conf.default.accept_dad=0");
        for (number, mtu) in [(1, 1500), (2, 9000), (3, 1400)] {
            namespace.sh(&format!(
                "ip link add up{number} mtu {mtu} type veth peer name tor{number} mtu {mtu}
                 ip link set up{number} up; ip link set tor{number} up
                 ip addr add 10.9.{number}.2/24 dev up{number}
                 ip addr add fd00:9:{number}::2/64 dev up{number} nodad"
            ));
        }
        namespace.sh("ip link add mgy0 mtu 1300 type veth peer name pod0; ip link set mgy0 up; ip link set pod0 up");
        namespace.sh("ip addr add 10.0.0.7/32 dev lo; ip addr add fd00::7/128 dev lo");
        let netlink = namespace.run(|| Netlink::open().expect("netlink"));
        let node = Self {
            namespace,
            netlink: Arc::new(Mutex::new(netlink)),
        };
        wait("links run and addresses are usable", || {
            let connected = node.connected();
            connected.running.len() >= 8
                && connected
                    .addresses
                    .contains(&"fd00::7".parse().expect("address"))
        });
        node
    }

    fn with<T>(&self, act: impl FnOnce(&mut Netlink) -> T) -> T {
        act(&mut self.netlink.lock().expect("lock"))
    }

    fn connected(&self) -> Connected {
        self.with(|netlink| netlink.connected().expect("connected"))
    }

    fn index(&self, name: &str) -> u32 {
        let links = self.with(|netlink| netlink.links().expect("links"));
        links
            .iter()
            .find(|(_, link)| link.name == name)
            .map(|(index, _)| *index)
            .expect("a link")
    }

    /// One pass: what was found to do, and what became of it.
    fn pass(&self, wants: &Wants, sweep: Sweep) -> (diff::Plan, Applied) {
        let wanted = wants.routes(&self.connected());
        let have = self.with(|netlink| netlink.read().expect("read"));
        let plan = diff::diff(&have, &wanted.routes, sweep);
        let applied = self.with(|netlink| netlink.apply(&plan.ops).expect("apply"));
        (plan, applied)
    }

    /// A pass which does everything, and after which nothing is left to do.
    fn settle(&self, wants: &Wants) -> Vec<Op> {
        let (plan, applied) = self.pass(wants, SWEEP);
        assert!(
            applied.failed.is_empty() && applied.conflicts.is_empty(),
            "{applied:?}"
        );
        let (again, _) = self.pass(wants, SWEEP);
        assert_eq!(again.ops, [], "after {:?}\n{}", plan.ops, self.show());
        plan.ops
    }

    fn show(&self) -> String {
        self.namespace.sh("ip route; ip -6 route; ip nexthop")
    }

    /// What `ip` prints for a selection, a line per route, blanks at the end trimmed.
    fn routes(&self, command: &str) -> Vec<String> {
        self.namespace
            .sh(command)
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }
}

fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(5), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn leg(address: &str) -> BgpLeg {
    BgpLeg {
        address: address.parse().expect("address"),
        ifindex: None,
        onlink: false,
        weight: 1,
    }
}

fn legs4(uplinks: &[u32]) -> Vec<BgpLeg> {
    uplinks
        .iter()
        .map(|number| leg(&format!("10.9.{number}.1")))
        .collect()
}

fn legs6(uplinks: &[u32]) -> Vec<BgpLeg> {
    uplinks
        .iter()
        .map(|number| leg(&format!("fd00:9:{number}::1")))
        .collect()
}

fn key(prefix: &str, metric: u32) -> Key {
    Key {
        table: MAIN_TABLE,
        prefix: prefix.parse().expect("prefix"),
        metric,
    }
}

/// A pod, a block, and two remote blocks in each family: one over one uplink, one over two.
fn wants(node: &Node) -> Wants {
    let mgy0 = node.index("mgy0");
    Wants {
        workloads: ["10.244.0.5", "fd00:10::5"]
            .map(|ip| (ip.parse().expect("address"), mgy0))
            .into(),
        blocks: ["10.244.0.0/26", "fd00:10::/122"]
            .map(|block| block.parse().expect("block"))
            .into(),
        bgp: [
            ("10.244.1.0/26", legs4(&[1])),
            ("10.244.2.0/26", legs4(&[1, 2])),
            ("fd00:11::/122", legs6(&[1])),
            ("fd00:12::/122", legs6(&[1, 2])),
        ]
        .map(|(prefix, legs)| (prefix.parse().expect("prefix"), legs))
        .into(),
        sources: [
            (Family::V4, "10.0.0.7".parse().expect("address")),
            (Family::V6, "fd00::7".parse().expect("address")),
        ]
        .into(),
    }
}

#[test]
fn ip_shows_both_families_with_our_protocols_and_metrics() {
    let node = Node::new();
    let wants = wants(&node);
    node.settle(&wants);
    assert_eq!(
        node.routes("ip route show proto 77"),
        [
            "unreachable 10.244.0.0/26 metric 64",
            "10.244.0.5 dev mgy0 scope link src 10.0.0.7 metric 32",
        ]
    );
    assert_eq!(
        node.routes("ip -6 route show proto 77"),
        [
            "fd00:10::5 dev mgy0 src fd00::7 metric 32 pref medium",
            "unreachable fd00:10::/122 dev lo metric 64 pref medium",
        ]
    );
    let shown = node.routes("ip route show proto 78");
    assert_eq!(
        shown[0],
        "10.244.1.0/26 nhid 1828716544 via 10.9.1.1 dev up1 src 10.0.0.7 metric 128"
    );
    assert!(
        shown[1].starts_with("10.244.2.0/26 nhid 1828716546 src 10.0.0.7 metric 128"),
        "{shown:?}"
    );
    assert_eq!(shown[2].trim(), "nexthop via 10.9.1.1 dev up1 weight 1");
    assert_eq!(shown[3].trim(), "nexthop via 10.9.2.1 dev up2 weight 1");
    let shown = node.routes("ip -6 route show proto 78");
    assert!(
        shown[0].starts_with("fd00:11::/122 nhid 1828716547 via fd00:9:1::1 dev up1 src fd00::7"),
        "{shown:?}"
    );
    assert!(
        shown[1].starts_with("fd00:12::/122 nhid 1828716549 src fd00::7 metric 128"),
        "{shown:?}"
    );
    assert!(
        node.routes("ip nexthop")
            .iter()
            .all(|line| line.contains("proto 78")),
        "{}",
        node.show()
    );

    // Another felix finds nothing to do, and nothing is left when nothing is wanted.
    assert_eq!(node.settle(&wants), []);
    node.settle(&Wants::default());
    for command in [
        "ip route show proto 77",
        "ip route show proto 78",
        "ip nexthop",
    ] {
        assert_eq!(node.routes(command), [""; 0], "{command}");
    }
    assert_eq!(
        node.routes("ip -6 route show proto 77 ; ip -6 route show proto 78"),
        [""; 0]
    );
}

#[test]
fn a_change_of_legs_changes_the_group_and_no_route() {
    let node = Node::new();
    let routes = |uplinks: &[u32]| Wants {
        bgp: (0..200_u32)
            .map(|i| {
                (
                    format!("10.240.{i}.0/26").parse().expect("prefix"),
                    legs4(uplinks),
                )
            })
            .collect(),
        ..Wants::default()
    };
    assert_eq!(node.settle(&routes(&[1, 2])).len(), 203);
    let before = node.namespace.sh("ip route show proto 78 10.240.0.0/26");
    let ops: Vec<_> = node
        .settle(&routes(&[1, 3]))
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(ops.len(), 3, "{ops:?}");
    assert!(ops.iter().all(|op| op.contains("nexthop")), "{ops:?}");
    let after = node.namespace.sh("ip route show proto 78 10.240.0.0/26");
    assert_eq!(
        after,
        before.replace("via 10.9.2.1 dev up2", "via 10.9.3.1 dev up3")
    );
    assert_eq!(node.settle(&routes(&[3])).len(), 2);
    assert_eq!(node.routes("ip route show proto 78").len(), 200);
}

#[test]
fn ipv4_over_an_ipv6_next_hop_and_one_that_no_network_holds() {
    let node = Node::new();
    let up1 = Some(node.index("up1"));
    let odd = BgpLeg {
        ifindex: up1,
        onlink: true,
        ..leg("192.0.2.1")
    };
    let wants = Wants {
        bgp: [
            (
                "10.244.1.0/26",
                vec![BgpLeg {
                    ifindex: up1,
                    ..leg("fe80::1")
                }],
            ),
            ("10.244.2.0/26", vec![odd, leg("fd00:9:2::1")]),
            ("10.244.3.0/26", vec![leg("203.0.113.1")]),
        ]
        .map(|(prefix, legs)| (prefix.parse().expect("prefix"), legs))
        .into(),
        ..Wants::default()
    };
    node.settle(&wants);
    let shown = node.routes("ip route show proto 78").join("\n");
    assert!(
        shown.contains("10.244.1.0/26 nhid 1828716544 via inet6 fe80::1 dev up1 metric 128"),
        "{shown}"
    );
    assert!(
        shown.contains("nexthop via 192.0.2.1 dev up1 weight 1 onlink"),
        "{shown}"
    );
    assert!(
        shown.contains("nexthop via inet6 fd00:9:2::1 dev up2 weight 1"),
        "{shown}"
    );
    assert_eq!(
        wants.routes(&node.connected()).unresolved,
        ["10.244.3.0/26".parse().expect("prefix")].into()
    );
}

#[test]
fn foreign_routes_and_nexthops_stay_and_are_reported() {
    let node = Node::new();
    node.namespace.sh("ip route add default via 10.9.1.1
         ip route add 10.244.1.0/26 via 10.9.3.1 metric 128
         ip -6 route add fd00:11::/122 via fd00:9:3::1 metric 128 proto 99
         ip route add 10.244.0.5/32 via 10.9.3.1 metric 32
         ip nexthop add id 1828716544 via 10.9.3.1 dev up3
         ip nexthop add id 1828716545 via 10.9.3.1 dev up3 proto 78
         ip nexthop add id 5 via 10.9.3.1 dev up3 proto 78
         ip route add 10.1.0.0/16 nhid 5");
    let select = "ip route show proto boot; ip route show proto static; ip -6 route show proto 99; ip nexthop show id 5
        ip nexthop show id 1828716544; ip route show 10.1.0.0/16";
    let foreign = node.namespace.sh(select);
    let wants = wants(&node);
    let (plan, applied) = node.pass(&wants, SWEEP);
    assert_eq!(
        plan.conflicts,
        [
            Conflict {
                key: key("10.244.0.5/32", WORKLOAD_METRIC),
                protocol: 3
            },
            Conflict {
                key: key("10.244.1.0/26", BGP_METRIC),
                protocol: 3
            },
            Conflict {
                key: key("fd00:11::/122", BGP_METRIC),
                protocol: 99
            },
        ]
    );
    assert!(
        applied.failed.is_empty() && applied.conflicts.is_empty(),
        "{applied:?}"
    );
    assert_eq!(node.namespace.sh(select), foreign);
    // One of ours left by an earlier felix, which nothing refers to, is gone.
    assert!(
        !node.show().contains("1828716545 via 10.9.3.1"),
        "{}",
        node.show()
    );

    // Nor is one replaced that came up after we had looked.
    let entry = Entry {
        protocol: 77,
        via: Via::Unreachable,
    };
    let late = [Op::AddRoute(key("10.244.1.0/26", BGP_METRIC), entry)];
    let applied = node.with(|netlink| netlink.apply(&late).expect("apply"));
    assert_eq!(applied.conflicts, [key("10.244.1.0/26", BGP_METRIC)]);
    assert_eq!(node.namespace.sh(select), foreign);

    // Nothing of theirs goes when all of ours does.
    let (_, applied) = node.pass(&Wants::default(), SWEEP);
    assert!(applied.failed.is_empty(), "{applied:?}");
    assert_eq!(node.namespace.sh(select), foreign);
    assert_eq!(node.routes("ip route show proto 78"), [""; 0]);
}

#[test]
fn what_others_flush_or_links_take_along_comes_back() {
    let node = Node::new();
    let wants = wants(&node);
    node.settle(&wants);
    let whole = node.show();
    for damage in [
        // Told the gateways too, which it is by default, ip 6.1 sends back what the kernel refuses.
        "sysctl -qw net.ipv4.nexthop_compat_mode=0; ip route flush proto 78; sysctl -qw net.ipv4.nexthop_compat_mode=1",
        "ip -6 route del fd00:11::/122 metric 128; ip -6 route del fd00:12::/122 metric 128",
        "ip route flush proto 77; ip -6 route flush proto 77",
        "ip nexthop flush proto 78",
        "ip route replace 10.244.1.0/26 via 10.9.2.1 proto 78 metric 128",
        "ip route del 10.244.0.5; ip route add 10.244.0.5 dev up1 proto 77 metric 32",
        "ip nexthop replace id 1828716546 group 1828716544 proto 78",
    ] {
        node.namespace.sh(damage);
        assert_ne!(node.settle(&wants), [], "{damage}");
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text
                .lines()
                .filter(|line| !line.contains("fe80"))
                .map(str::to_owned)
                .collect();
            lines.sort();
            lines
        };
        let numberless = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
        assert_eq!(
            sorted(&numberless(&node.show())),
            sorted(&numberless(&whole)),
            "{damage}"
        );
    }

    node.namespace.sh("ip link set up1 down");
    wait("the link is down", || {
        !node.connected().running.contains(&node.index("up1"))
    });
    node.settle(&wants);
    assert!(!node.show().contains("10.9.1.1"), "{}", node.show());
    assert_eq!(
        node.routes("ip route show 10.244.2.0/26 proto 78").len(),
        1,
        "{}",
        node.show()
    );
    node.namespace
        .sh("ip link set up1 up; ip addr add fd00:9:1::2/64 dev up1 nodad");
    wait("the link runs", || {
        node.connected().running.contains(&node.index("up1"))
    });
    node.settle(&wants);
    assert!(
        node.routes("ip route show proto 78").len() >= 3,
        "{}",
        node.show()
    );
}

#[test]
fn nothing_goes_before_its_sweep() {
    let node = Node::new();
    let wants = wants(&node);
    node.settle(&wants);
    let whole = node.show();
    let (plan, _) = node.pass(&Wants::default(), Sweep::default());
    assert_eq!(plan.ops, []);
    node.pass(
        &Wants::default(),
        Sweep {
            workloads: true,
            bgp: false,
        },
    );
    assert_eq!(node.routes("ip route show proto 77"), [""; 0]);
    assert!(!node.routes("ip route show proto 78").is_empty());
    node.settle(&wants);
    assert_eq!(node.show(), whole);
}

#[test]
fn links_get_their_groups_and_settings_and_go() {
    let node = Node::new();
    let groups = [
        ("mgy0".to_owned(), Subject::new(7, true, false)),
        ("mgygone".to_owned(), Subject(0)),
    ];
    node.with(|netlink| netlink.set_groups(&groups).expect("groups"));
    let links = node.with(|netlink| netlink.links().expect("links"));
    let groups: BTreeMap<_, _> = links
        .values()
        .map(|link| (link.name.as_str(), link.group))
        .collect();
    assert_eq!(
        (groups["mgy0"], groups["up1"]),
        (Subject::new(7, true, false).0, 0)
    );

    let addresses = node.with(|netlink| netlink.addresses().expect("addresses"));
    assert_eq!(uplink::smallest_mtu(&links, &addresses, "mgy"), Some(1400));

    node.namespace
        .sh("sysctl -qw net.ipv4.conf.mgy0.proxy_arp=1 net.ipv6.conf.up1.accept_ra=1");
    node.namespace.run(|| {
        for (path, value) in sysctl::forwarding().expect("forwarding") {
            std::fs::write(path, value).expect("a setting");
        }
        assert_eq!(sysctl::forwarding().expect("forwarding").len(), 1);
        sysctl::workload("mgy0").expect("settings");
    });
    let settings = node.namespace.sh(
        "sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.mgy0.forwarding \
         net.ipv4.conf.mgy0.proxy_arp net.ipv6.conf.mgy0.accept_ra net.ipv6.conf.up1.accept_ra",
    );
    assert_eq!(
        settings.split_whitespace().collect::<Vec<_>>(),
        ["1", "1", "1", "0", "0", "2"]
    );

    assert!(node.with(|netlink| netlink.delete_link("mgy0").expect("delete")));
    assert!(!node.with(|netlink| netlink.delete_link("mgy0").expect("delete")));
}

#[test]
fn links_go_together_and_nobody_elses_with_them() {
    let node = Node::new();
    let names = ["mgya", "mgyb", "mgyc", "mgygone"].map(str::to_owned);
    let make = "for n in a b c; do ip link add mgy$n type veth peer name pod$n; done";
    let left = || node.namespace.sh("ip -o link").matches(": mgy").count();
    node.namespace.sh(make);
    let before = left();
    node.with(|netlink| netlink.delete_links(&names).expect("delete"));
    assert_eq!(left(), before - 3, "those that are not there stop nothing");

    node.namespace.sh(make);
    let group = DOOMED.0;
    node.namespace.sh(&format!(
        "ip link add other group {group} type veth peer name another"
    ));
    node.with(|netlink| netlink.delete_links(&names).expect("delete"));
    assert_eq!(left(), before - 3);
    assert!(node.namespace.sh("ip -o link").contains("other"));
}

#[test]
fn the_monitor_tells_what_others_do_and_when_it_could_not_keep_up() {
    let node = Node::new();
    let wants = wants(&node);
    let netlink = node.netlink.clone();
    let wanted = wants.routes(&node.connected());
    let sh = |script: &str| {
        let status = std::process::Command::new("sh")
            .args(["-ec", script])
            .status()
            .expect("sh");
        assert!(status.success(), "{script}");
    };
    node.namespace.run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let mut monitor = {
                let mut netlink = netlink.lock().expect("lock");
                let monitor = Monitor::open(netlink.port().expect("port")).expect("monitor");
                let have = netlink.read().expect("read");
                netlink.apply(&diff::diff(&have, &wanted.routes, SWEEP).ops).expect("apply");
                monitor
            };
            sh("ip route del 10.244.0.5");
            let first = next(&mut monitor).await;
            assert!(
                matches!(first.as_slice(), [Event::RouteGone(gone, _)] if *gone == key("10.244.0.5/32", 32)),
                "only what others do: {first:?}"
            );
            sh("ip nexthop del id 1828716544");
            until(&mut monitor, |event| *event == Event::Nexthop).await;
            sh("ip addr add 10.99.0.1/24 dev up1");
            until(&mut monitor, |event| matches!(event, Event::Address(address) if address.global)).await;
            sh("ip link del mgy0");
            until(&mut monitor, |event| matches!(event, Event::LinkGone(_, link) if link.name == "mgy0")).await;

            let entry = Entry { protocol: 77, via: Via::Unreachable };
            let flood: Vec<_> = (0..60_000_u32)
                .map(|i| {
                    let address = std::net::Ipv4Addr::from_bits(0x1400_0000 + i);
                    Op::AddRoute(key(&format!("{address}/32"), 64), entry)
                })
                .collect();
            assert_eq!(Netlink::open().expect("netlink").apply(&flood).expect("apply").done, flood.len());
            until(&mut monitor, |event| *event == Event::Overrun).await;
        });
    });
}

async fn next(monitor: &mut Monitor) -> Vec<Event> {
    tokio::time::timeout(Duration::from_secs(5), monitor.next())
        .await
        .expect("an event")
        .expect("monitor")
}

async fn until(monitor: &mut Monitor, wanted: impl Fn(&Event) -> bool) {
    while !next(monitor).await.iter().any(&wanted) {}
}
