//! Against the kernel, in a network namespace of the test's own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;

use crds::net::Cidr;

use super::*;
use crate::nexthop::{Change, Route, Via};

/// Runs the test on a thread that is in a namespace of its own; the namespace goes with the thread.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("this test makes a network namespace: run it as root");
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test());
    });
    thread.join().unwrap();
}

fn ip(line: &str) {
    let output = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(
        output.status.success(),
        "ip {line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What a reader of the changes knows.
#[derive(Default)]
struct Known {
    links: BTreeMap<u32, (String, bool)>,
    addresses: Vec<(u32, IpAddr)>,
    routes: BTreeMap<(Cidr, u32), Vec<Via>>,
    routers: Vec<IpAddr>,
}

impl Known {
    fn learn(&mut self, change: Change) {
        match change {
            Change::Link { ifindex, name, up } => {
                self.links.insert(ifindex, (name, up));
            }
            Change::LinkGone { ifindex } => {
                self.links.remove(&ifindex);
            }
            Change::Address {
                ifindex, address, ..
            } => self.addresses.push((ifindex, address)),
            Change::AddressGone {
                ifindex, address, ..
            } => {
                self.addresses.retain(|known| *known != (ifindex, address));
            }
            Change::Router { address, .. } => self.routers.push(address.into()),
            Change::RouterGone { address, .. } => self.routers.retain(|it| *it != address),
            Change::Route(Route {
                prefix,
                metric,
                vias,
            }) => {
                self.routes.insert((prefix, metric), vias);
            }
            Change::RouteGone { prefix, metric } => {
                self.routes.remove(&(prefix, metric));
            }
        }
    }

    fn link(&self, name: &str) -> Option<(u32, bool)> {
        let found = self.links.iter().find(|(_, (known, _))| known == name);
        found.map(|(ifindex, (_, up))| (*ifindex, *up))
    }

    fn vias(&self, prefix: &str) -> Option<usize> {
        let prefix: Cidr = prefix.parse().unwrap();
        let found = self.routes.iter().find(|((known, _), _)| *known == prefix);
        found.map(|(_, vias)| vias.len())
    }

    fn has(&self, address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        self.addresses.iter().any(|(_, known)| *known == address)
    }
}

/// Learns until the condition holds.
async fn until(
    known: &mut Known,
    inbox: &mut mpsc::Receiver<Event>,
    what: &str,
    holds: impl Fn(&Known) -> bool,
) {
    let learning = async {
        while !holds(known) {
            match inbox.recv().await {
                Some(Event::Kernel(changes)) => changes.into_iter().for_each(|c| known.learn(c)),
                other => panic!("{other:?}"),
            }
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(10), learning).await;
    assert!(
        done.is_ok(),
        "{what}: links {:?}, addresses {:?}, routes {:?}",
        known.links,
        known.addresses,
        known.routes
    );
}

#[test]
fn follows_what_is_there_and_what_changes() {
    in_namespace(|| async {
        // There before the driver starts.
        ip("link add up0 type veth peer name up1");
        ip("link set up0 up");
        ip("link set up1 up");
        ip("addr add 192.0.2.1/24 dev up0");
        ip("-6 addr add 2001:db8::1/64 dev up0 nodad");
        ip("route add 198.51.100.0/24 via 192.0.2.254");
        ip("route add 10.244.1.0/26 via 192.0.2.254 proto 78 metric 128");
        ip("route add unreachable 10.244.0.0/26 proto 77 metric 64");

        let (events, mut inbox) = mpsc::channel(16);
        let following = tokio::spawn(follow(oneshot::channel().0, events));
        let mut known = Known::default();
        let k = &mut known;
        until(k, &mut inbox, "the first reading", |k| {
            k.link("up0").is_some_and(|(_, up)| up)
                && k.has("192.0.2.1")
                && k.has("2001:db8::1")
                && k.vias("198.51.100.0/24") == Some(1)
                && k.vias("192.0.2.0/24") == Some(1)
        })
        .await;
        assert_eq!(k.vias("10.244.1.0/26"), None, "learnt over BGP");
        assert_eq!(k.vias("10.244.0.0/26"), None, "our own block");

        // IPv4 over an IPv6 next hop, and several legs; IPv6 legs come and go one by one.
        ip("route add 203.0.113.0/24 via inet6 2001:db8::2");
        ip("route add 100.64.0.0/24 nexthop via 192.0.2.2 nexthop via 192.0.2.3");
        ip("-6 route add 2001:db8:1::/64 via 2001:db8::2");
        ip("-6 route append 2001:db8:1::/64 via 2001:db8::3");
        until(k, &mut inbox, "new routes", |k| {
            k.vias("203.0.113.0/24") == Some(1)
                && k.vias("100.64.0.0/24") == Some(2)
                && k.vias("2001:db8:1::/64") == Some(2)
        })
        .await;
        let six = &k.routes[&("203.0.113.0/24".parse().unwrap(), 0)][0];
        assert_eq!(six.gateway, Some("2001:db8::2".parse().unwrap()));
        ip("-6 route del 2001:db8:1::/64 via 2001:db8::3");
        until(k, &mut inbox, "one leg gone", |k| {
            k.vias("2001:db8:1::/64") == Some(1)
        })
        .await;

        // As the kernel enters who sends router advertisements.
        ip("-6 neigh add fe80::99 lladdr 02:00:00:00:00:99 dev up0 router nud stale");
        ip("-6 neigh add fe80::98 lladdr 02:00:00:00:00:98 dev up0 nud stale");
        until(k, &mut inbox, "a router", |k| !k.routers.is_empty()).await;
        assert_eq!(k.routers, ["fe80::99".parse::<IpAddr>().unwrap()]);
        ip("-6 neigh del fe80::99 dev up0");
        until(k, &mut inbox, "no router", |k| k.routers.is_empty()).await;

        // The kernel says nothing of the IPv4 routes that go with the interface.
        ip("link set up0 down");
        until(k, &mut inbox, "the interface down", |k| {
            k.link("up0").is_some_and(|(_, up)| !up) && k.vias("198.51.100.0/24").is_none()
        })
        .await;
        assert!(
            k.has("192.0.2.1"),
            "an address outlives its interface's going down"
        );
        ip("link del up0");
        until(k, &mut inbox, "the interface gone", |k| {
            k.link("up0").is_none() && !k.has("192.0.2.1")
        })
        .await;
        following.abort();
    });
}
