//! What there is beside policy, in a kernel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use felix::driver::nft::{Ensured, Nft};
use felix::nft::build;
use felix::nft::epoch::{Epoch, Options};
use felix::nft::model::{Element, More, Quota, Set, Value};
use felix::nft::terms::{Elements, Rules, Services};

use crate::ns::Namespace;
use crate::policed::{Kernel, Policed, address};

/// Source ports of what leaves, and what becomes of packets to Services, each at least once.
pub(crate) const CHOICES: [(Option<(u16, u16)>, Services); 3] = [
    (None, Services::Drop),
    (Some((20000, 30000)), Services::Reject),
    (Some((443, 443)), Services::Drop),
];

pub(crate) fn every_rule(ports: Option<(u16, u16)>, services: Services) -> Options {
    Options {
        terms: Rules {
            outgoing: Some(ports),
            floating: true,
            services: Some(services),
            limits: true,
            hosts: true,
            connections: true,
        },
        ..Options::default()
    }
}

fn at(text: &str) -> Value {
    Value::Address(address(text))
}

fn pod() -> Value {
    Value::Name("mgy0000000000a1".to_owned())
}

fn one(set: &'static Set, key: Vec<Value>) -> Element {
    Element {
        set,
        key,
        last: None,
        value: None,
        comment: None,
        more: None,
    }
}

fn range(set: &'static Set, first: Vec<Value>, last: Vec<Value>) -> Element {
    Element {
        last: Some(last),
        ..one(set, first)
    }
}

fn over(set: &'static Set, quota: Quota) -> Element {
    Element {
        more: Some(More::Over(quota)),
        comment: Some("a/web1".to_owned()),
        ..one(set, vec![pod()])
    }
}

fn mapped(to: &str, element: Element) -> Element {
    Element {
        more: Some(More::Address(address(to))),
        ..element
    }
}

/// One of every kind.
pub(crate) fn elements() -> Elements {
    let net = |set, first, last| range(set, vec![at(first)], vec![at(last)]);
    let limits = [
        (
            &build::EGRESS_PACKETS,
            Quota::Packets {
                rate: 100,
                burst: 20,
            },
        ),
        (
            &build::EGRESS_BYTES,
            Quota::Bytes {
                rate: 125_000,
                burst: 262_144,
            },
        ),
        (
            &build::INGRESS_PACKETS,
            Quota::Packets { rate: 7, burst: 5 },
        ),
        (&build::EGRESS_CONNECTIONS, Quota::Connections(3)),
        (&build::INGRESS_CONNECTIONS, Quota::Connections(65_535)),
    ];
    let mut all = vec![
        range(
            &build::SOURCE4,
            vec![pod(), at("192.0.2.0")],
            vec![pod(), at("192.0.2.15")],
        ),
        range(
            &build::SOURCE6,
            vec![pod(), at("2001:db8::")],
            vec![pod(), at("2001:db8::ffff")],
        ),
        net(&build::NAT_FROM4, "10.244.0.0", "10.244.255.255"),
        net(&build::NAT_NOT4, "10.244.0.0", "10.244.255.255"),
        net(&build::NAT_NOT4, "10.245.0.0", "10.245.255.255"),
        net(&build::SERVICE6, "fd00:96::", "fd00:96::ffff"),
        mapped(
            "192.0.2.1",
            net(&build::NAT_TO4, "10.244.0.0", "10.244.255.255"),
        ),
        mapped("2001:db8::1", net(&build::NAT_TO6, "fd00::", "fd00::ffff")),
        mapped("10.244.0.9", one(&build::FLOATING4, vec![at("10.250.0.1")])),
        mapped("fd00::9", one(&build::FLOATING6, vec![at("fd00:250::1")])),
        mapped(
            "fd00:250::1",
            one(&build::HAIRPIN6, vec![at("fd00::9"), at("fd00::9")]),
        ),
        one(&build::LIMITED, vec![pod()]),
        Element {
            value: Some(46),
            ..one(&build::DSCP, vec![pod()])
        },
    ];
    all.extend(limits.map(|(set, quota)| over(set, quota)));
    all.into_iter().collect()
}

#[test]
fn the_kernel_holds_what_the_text_of_every_rule_says() {
    for (ports, services) in CHOICES {
        let options = every_rule(ports, services);
        let made = Kernel::new();
        made.with(|nft| {
            nft.set_options(options);
            assert_eq!(nft.ensure_table().expect("table"), Ensured::Replaced);
            nft.apply(&Elements::default().step(&elements()))
                .expect("elements");
            assert_eq!(nft.read_terms().expect("read"), elements());
        });
        let epoch = made.with(|nft| nft.epoch());
        let mut table = build::table(options, epoch);
        table.elements.extend(elements().iter().cloned());
        let loaded = Namespace::new();
        loaded.feed("nft -f -", &table.to_string());
        for list in ["nft list ruleset", "nft --debug=netlink list ruleset"] {
            let sorted = |text: String| {
                let is_element = |line: &&str| line.starts_with("\telement ");
                // nft says that intervals do not begin with the first address there is; the kernel needs no telling.
                let marker = |line: &&str| {
                    let key = line.split_once(" : 1 [end]").map_or("x", |(key, _)| key);
                    is_element(line)
                        && key
                            .trim_start_matches("\telement ")
                            .chars()
                            .all(|c| "0 ".contains(c))
                };
                let (mut elements, rest): (Vec<_>, Vec<_>) = text
                    .lines()
                    .filter(|line| !marker(line))
                    // Handles of rules: one table was made before.
                    .map(|line| {
                        line.trim_end_matches(|c: char| {
                            c == ' ' || c.is_ascii_digit() && line.starts_with("inet ")
                        })
                    })
                    .map(str::to_owned)
                    .partition(|line| is_element(&line.as_str()));
                elements.sort_unstable();
                elements.extend(rest);
                elements
            };
            let (ours, theirs) = (sorted(made.namespace.sh(list)), sorted(loaded.sh(list)));
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert_eq!(ours, theirs, "{list}");
            }
            assert_eq!(ours.len(), theirs.len(), "{list}");
        }
        // Another life finds everything as it is, by the rules alone, and does not touch it.
        let mut next = made.namespace.run(|| Nft::open().expect("netlink"));
        assert_eq!(next.take_up().expect("table"), Ensured::Adopted);
        assert_eq!(next.read_terms().expect("read"), elements());
        next.set_options(Options::default());
        assert_eq!(next.ensure_table().expect("table"), Ensured::Replaced);
        let all = elements();
        let uncounted = all.iter().filter(|it| !it.set.verdicts);
        let stay: Elements = uncounted.cloned().collect();
        assert_eq!(next.read_terms().expect("read"), stay, "sets stay");
        assert_ne!(next.epoch(), Epoch::FIRST);
        next.set_options(options);
        assert_eq!(next.ensure_table().expect("table"), Ensured::Replaced);
        next.apply(&stay.step(&elements())).expect("add");
        assert_eq!(next.read_terms().expect("read"), elements());
        next.apply(&elements().step(&Elements::default()))
            .expect("remove");
        assert!(next.read_terms().expect("read").is_empty());
    }
}

#[test]
fn optional_rules_that_somebody_damaged_are_put_right_and_keep_their_elements() {
    let options = every_rule(Some((20000, 30000)), Services::Reject);
    let kernel = Kernel::new();
    kernel.with(|nft| {
        nft.set_options(options);
        nft.ensure_table().expect("table");
        nft.apply(&Elements::default().step(&elements()))
            .expect("elements");
    });
    for damage in [
        "nft flush chain inet margay limit_in",
        "nft add rule inet margay code_0 accept",
        "nft flush chain inet margay code_8; nft add chain inet margay empty",
        "nft add chain inet margay more; nft add rule inet margay more accept",
        "nft add chain inet margay late '{ type nat hook postrouting priority 200; }'",
    ] {
        kernel.namespace.sh(damage);
        assert!(
            !kernel.with(|nft| nft.intact().expect("inspect")),
            "{damage}"
        );
        // By this life, which knows what is wanted, and by another, which has to find out.
        let mut next = kernel.namespace.run(|| Nft::open().expect("netlink"));
        assert_eq!(
            next.take_up().expect("table"),
            Ensured::Replaced,
            "{damage}"
        );
        assert_eq!(next.options(), options, "{damage}");
        assert_eq!(next.read_terms().expect("read"), elements(), "{damage}");
        let mine = kernel.with(|nft| nft.ensure_table().expect("table"));
        assert_eq!(mine, Ensured::Adopted, "{damage}");
    }
}

#[test]
fn optional_rules_come_and_go_with_no_gap() {
    let policed = Policed::new();
    let stop = Arc::new(AtomicBool::new(false));
    let flood = policed
        .network
        .flood("c", address("10.9.0.2"), 5002, stop.clone());
    for round in 0..20 {
        let wanted = match round % 2 {
            0 => every_rule(None, Services::Drop),
            _ => Options::default(),
        };
        let mut next = policed
            .kernel
            .namespace
            .run(|| Nft::open().expect("netlink"));
        assert_eq!(next.take_up().expect("table"), Ensured::Adopted, "{round}");
        next.set_options(wanted);
        assert_eq!(next.ensure_table().expect("table"), Ensured::Replaced);
        assert!(next.intact().expect("inspect"));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    stop.store(true, Ordering::Relaxed);
    assert!(flood.join().expect("flood") > 100);
    assert_eq!(policed.network.seen("r", address("10.1.0.3")), 0);
}

#[test]
fn what_nobody_asks_for_has_no_rule() {
    let rules = |options| {
        let table = build::table(options, Epoch::FIRST);
        let count: usize = table.chains.iter().map(|chain| chain.rules.len()).sum();
        (table.chains.len(), count)
    };
    let (chains, count) = rules(Options::default());
    let (all_chains, all) = rules(every_rule(None, Services::Drop));
    assert!(all_chains > chains + 10 && all > count + 100);
    let text = build::table(Options::default(), Epoch::FIRST).to_string();
    for word in [
        "type nat",
        "@limited",
        "@egress_connections",
        "chain opened",
        "@service4",
        "dscp set",
        "@floating4",
        "@host_guard",
        "@raw_guard",
    ] {
        assert!(!text.contains(word), "{word}");
    }
}
