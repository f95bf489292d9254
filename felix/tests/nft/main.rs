//! The table `inet margay` in a real kernel: it loads, lists, reads back, and judges packets.

#[path = "../ns/mod.rs"]
mod ns;

mod counters;
mod epochs;
mod hosts;
mod json;
mod net;
mod policed;
mod terms;
mod unlogged;

use std::sync::Arc;
use std::time::Duration;

use felix::driver::nft::{Ensured, Nft};
use felix::nft::build;
use felix::nft::diff;
use felix::nft::epoch::{Epoch, Options};
use felix::policy::tables::{Answer, Class, Direction, Program, Subject, Tables};
use net::Probe;
use ns::Namespace;
use policed::{Kernel, Policed, address, enforce};

/// One row of everything, ranges at both ends of the address space and next to each other included.
fn rows() -> Tables {
    let web = Subject::new(4, false, true);
    let mut tables = Tables::default();
    for ip in ["10.1.0.1", "fd00:1::1"] {
        tables
            .workloads
            .insert(("mgy0000000000a1".into(), address(ip)), "a/web1".into());
        tables.peers.insert(address(ip), Class(0x12));
    }
    tables.workloads.insert(
        ("mgy0000000000a2".into(), address("10.1.0.2")),
        format!("long/{}", "n".repeat(200)),
    );
    for (first, last, class) in [
        ("0.0.0.0", "9.255.255.255", 0x10),
        ("10.0.0.0", "10.0.255.255", 0x11),
        ("10.1.0.0", "10.1.0.0", 0x12),
        ("224.0.0.0", "255.255.255.255", 0x13),
        ("::", "::ffff", 0x10),
        ("fd00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 0x14),
    ] {
        tables
            .nets
            .insert((address(first), address(last)), Class(class));
    }
    for (direction, subject) in [
        (Direction::Ingress, web),
        (Direction::Egress, Subject::new(5, true, false)),
    ] {
        tables
            .pairs
            .insert((direction, subject, Class(0x12)), Program(0x11));
        tables.defaults.insert((direction, subject), Program(0x10));
    }
    tables.ports.insert((Program(0x10), 6, 8080), Answer::ALLOW);
    tables.ports.insert((Program(0x10), 17, 53), Answer::DENY);
    tables
        .port_ranges
        .insert((Program(0x11), 17, 5000, 5999), Answer::ALLOW);
    tables
        .port_ranges
        .insert((Program(0x11), 17, 6000, 65535), Answer::DENY);
    tables
        .port_ranges
        .insert((Program(0x11), 6, 0, 1023), Answer::DENY);
    tables
        .icmp
        .insert((Program(0x10), 1, 0x0800), Answer::ALLOW);
    tables
        .icmp
        .insert((Program(0x10), 58, 0x8000), Answer::ALLOW);
    tables.protos.insert((Program(0x11), 132), Answer::ALLOW);
    tables.programs.insert(Program(0x10), Answer::DENY);
    tables.programs_ranged.insert(Program(0x11), Answer::DENY);
    // TCP from a low port is asked like the second program, everything else like the first.
    let refined = Program(Program::REFINED | 0x10);
    tables.sources.insert((refined, 6, 0, 1023), Program(0x11));
    tables.source_rest.insert(refined, Program(0x10));
    tables
}

#[test]
fn the_kernel_holds_what_the_text_says() {
    let made = Kernel::new();
    let loaded = Namespace::new();
    loaded.feed(
        "nft -f -",
        &build::table(Options::default(), Epoch::FIRST).to_string(),
    );
    for list in [
        "nft list ruleset",
        "nft -j list ruleset",
        "nft --debug=netlink list ruleset",
    ] {
        let without_handles = |text: String| {
            let parts = text
                .split("\"handle\": ")
                .map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
            parts.collect::<Vec<_>>().join("\"handle\": ")
        };
        let (ours, theirs) = (
            without_handles(made.namespace.sh(list)),
            without_handles(loaded.sh(list)),
        );
        // The kernel tells the elements of a hash in any order.
        let sorted = |text: &str| {
            let elements = |line: &&str| line.starts_with("\telement ");
            let mut there: Vec<String> = text.lines().filter(elements).map(str::to_owned).collect();
            there.sort_unstable();
            let rest = text.lines().filter(|line| !elements(line));
            there.extend(rest.map(str::to_owned));
            there
        };
        let (ours, theirs) = (sorted(&ours), sorted(&theirs));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{list}");
        }
        assert_eq!(ours.len(), theirs.len(), "{list}");
    }
}

#[test]
fn nft_lists_elements_with_names_and_types() {
    let kernel = Kernel::new();
    enforce(&kernel, &Tables::default(), &rows(), false);
    let listed: String = kernel
        .namespace
        .sh("nft list ruleset")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    for part in [
        "table inet margay { comment \"ruleset ",
        "type ifname . ipv4_addr elements = { \"mgy0000000000a1\" . 10.1.0.1 comment \"a/web1\"",
        "map peer6 { type ipv6_addr : classid elements = { fd00:1::1 : 0:12 } }",
        "elements = { 0.0.0.0-9.255.255.255 : 0:10, 10.0.0.0/16 : 0:11, 10.1.0.0 : 0:12, 224.0.0.0/3 : 0:13 }",
        "map pair_in { type devgroup . classid : classid counter elements = { 1828716562 . 0:12 counter packets 0 bytes 0 : 0:11 } }",
        "0:11 . tcp . 0-1023 counter packets 0 bytes 0 : 0:2",
        "0:11 . udp . 5000-5999 counter packets 0 bytes 0 : 0:1",
        "0:10 . tcp . 8080 counter packets 0 bytes 0 : 0:1",
        "8000:10 . tcp . 0-1023 counter packets 0 bytes 0 : 0:11",
        "meta priority & 8000:0 == 8000:0 goto refine_o",
        "log prefix \"margay deny\" group 77",
        "map icmp_code { type classid . inet_proto . inet_service : classid",
        "type filter hook prerouting priority raw; policy accept;",
        "iifname . ip saddr @workload4 accept",
        "counter packets 0 bytes 0 drop comment \"unknown interface or spoofed source\"",
    ] {
        assert!(listed.contains(part), "{part}\nin {listed}");
    }
    kernel.namespace.sh("nft -j list ruleset");
}

#[test]
fn what_is_written_is_read_back_by_the_next_felix() {
    let kernel = Kernel::new();
    let want = rows();
    enforce(&kernel, &Tables::default(), &want, true);
    assert_eq!(kernel.with(|nft| nft.read().expect("read")), want);

    let mut next = kernel.namespace.run(|| Nft::open().expect("netlink"));
    assert_eq!(next.ensure_table().expect("table"), Ensured::Adopted);
    assert_eq!(next.epoch(), kernel.with(|nft| nft.epoch()));
    assert_eq!(next.epoch().number(), 2);
    assert_eq!(next.read().expect("read"), want);

    enforce(&kernel, &want, &Tables::default(), true);
    assert_eq!(next.read().expect("read"), Tables::default());
}

#[test]
fn a_refused_transaction_changes_nothing_and_names_the_element() {
    let kernel = Kernel::new();
    let have = rows();
    enforce(&kernel, &Tables::default(), &have, false);

    let mut want = have.clone();
    want.peers.insert(address("10.1.0.9"), Class(0x12));
    kernel
        .namespace
        .sh("nft add element inet margay peer4 { 10.1.0.9 : 0:77 }");
    let phases = diff::plan(&have.diff(&want), &want, true);
    let error = kernel
        .with(|nft| nft.apply(&phases.add))
        .expect_err("somebody was faster");
    assert!(error.is_drift(), "{error}");
    assert!(
        error.to_string().contains("peer4 { 10.1.0.9 : 0:12 }"),
        "{error}"
    );
    assert_eq!(kernel.with(|nft| nft.epoch()), Epoch::FIRST);

    // Reading what is there and applying the difference to that repairs it.
    let found = kernel.with(|nft| nft.read().expect("read"));
    assert_eq!(found.peers[&address("10.1.0.9")], Class(0x77));
    enforce(&kernel, &found, &want, true);
    assert_eq!(kernel.with(|nft| nft.read().expect("read")), want);

    // So does loading everything anew.
    kernel
        .namespace
        .sh("nft delete element inet margay peer4 { 10.1.0.1 }; nft flush map inet margay net4");
    kernel.with(|nft| nft.reload(&want).expect("reload"));
    assert_eq!(kernel.with(|nft| nft.read().expect("read")), want);
    assert!(kernel.with(|nft| nft.intact().expect("inspect")));
}

#[test]
fn a_change_is_made_upon_rules_that_are_intact_only() {
    let kernel = Kernel::new();
    let have = rows();
    enforce(&kernel, &Tables::default(), &have, false);
    let mut want = have.clone();
    want.peers.insert(address("10.1.0.9"), Class(0x12));
    let change = diff::plan(&have.diff(&want), &want, true).add;
    // The generation is everybody's: what others do to their own tables is looked past.
    kernel.namespace.sh("nft add table inet other");
    let moved = kernel.with(|nft| nft.apply(&change));
    moved.expect("the rules are as they were");
    enforce(&kernel, &want, &have, true);

    // Somebody between our look and our transaction: it would not mean what it says.
    kernel
        .namespace
        .sh("nft insert rule inet margay act accept");
    let error = kernel.with(|nft| nft.apply(&change)).expect_err("tampered");
    assert!(error.is_drift(), "{error}");
    assert_eq!(kernel.with(|nft| nft.read().expect("read")), have);
    kernel.with(|nft| nft.ensure_table().expect("table"));
    kernel.with(|nft| nft.apply(&change).expect("the rules are as they should be"));
    assert_eq!(kernel.with(|nft| nft.read().expect("read")), want);
}

#[test]
fn changes_are_made_while_others_change_their_tables_all_the_time() {
    let kernel = Kernel::new();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let others = kernel.namespace.run(move || {
        // Of this namespace, in a thread of its own.
        std::thread::spawn(move || {
            let mut rounds = 0;
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                let script = "add table ip busy; add set ip busy s { type ipv4_addr; }; add element ip busy s { 10.0.0.1 }; delete table ip busy";
                let status = std::process::Command::new("nft").arg(script).status();
                assert!(status.expect("nft").success());
                rounds += 1;
            }
            rounds
        })
    });
    let mut have = Tables::default();
    for i in 0..300_u32 {
        let mut want = have.clone();
        let address = std::net::Ipv4Addr::from_bits(0x0a02_0000 + i).into();
        want.peers.insert(address, Class(0x12));
        enforce(&kernel, &have, &want, i % 8 == 0);
        have = want;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let rounds = others.join().expect("the others");
    println!("300 changes beside {rounds} of others");
    assert!(rounds > 0);
    assert_eq!(kernel.with(|nft| nft.read().expect("read")), have);
    assert!(kernel.with(|nft| nft.intact().expect("inspect")));
}

#[test]
fn a_table_with_other_rules_is_replaced_and_keeps_its_elements() {
    let kernel = Kernel::new();
    let want = rows();
    enforce(&kernel, &Tables::default(), &want, true);
    kernel.namespace.sh("nft flush chain inet margay judge");
    assert!(!kernel.with(|nft| nft.intact().expect("inspect")));
    assert_eq!(
        kernel.with(|nft| nft.ensure_table().expect("table")),
        Ensured::Replaced
    );
    assert!(kernel.with(|nft| nft.intact().expect("inspect")));
    assert_eq!(kernel.with(|nft| nft.read().expect("read")), want);
    assert_eq!(kernel.with(|nft| nft.epoch().number()), 3);
    for (count, change) in (4_u8..).zip([
        // As many rules as before, one with another meaning, one in another order.
        "nft replace rule inet margay act handle $(nft -a list chain inet margay act | sed -n 's/.*goto deny # handle //p') accept",
        "nft insert rule inet margay deny accept; nft delete rule inet margay deny handle $(nft -a list chain inet margay deny | sed -n 's/.*denied. # handle //p')",
        "nft add chain inet margay more '{ type filter hook forward priority -5; policy drop; }'",
        "nft chain inet margay input '{ policy drop; }'",
        "nft add set inet margay more '{ type ipv4_addr; }'",
        "nft add counter inet margay more",
        "nft add table inet margay '{ flags dormant; }'",
    ]) {
        kernel.namespace.sh(change);
        assert!(!kernel.with(|nft| nft.intact().expect("inspect")), "{change}");
        assert_eq!(
            kernel.with(|nft| nft.ensure_table().expect("table")),
            Ensured::Replaced
        );
        assert!(kernel.with(|nft| nft.intact().expect("inspect")), "{change}");
        assert_eq!(kernel.with(|nft| nft.read().expect("read")), want);
        assert_eq!(kernel.with(|nft| nft.epoch().number()), count);
    }

    // Somebody else's table of another shape under our name; and none of the others is touched.
    kernel.namespace.sh(
        "nft delete table inet margay; nft add table inet margay; nft add chain inet margay judge",
    );
    kernel
        .namespace
        .sh("nft add table ip other; nft add chain ip other margay");
    assert_eq!(
        kernel.with(|nft| nft.ensure_table().expect("table")),
        Ensured::Replaced
    );
    assert_eq!(
        kernel.with(|nft| nft.read().expect("read")),
        Tables::default()
    );
    assert!(
        kernel
            .namespace
            .sh("nft list tables")
            .contains("table ip other")
    );

    kernel.namespace.sh("nft delete table inet margay");
    assert_eq!(
        kernel.with(|nft| nft.ensure_table().expect("table")),
        Ensured::Created
    );
}

#[test]
fn ten_thousand_elements_load_and_leave_in_one_transaction_each() {
    let kernel = Kernel::new();
    let mut want = Tables::default();
    for i in 0..10_000_u32 {
        want.peers.insert(
            std::net::Ipv4Addr::from_bits(0x0a00_0000 + i).into(),
            Class(0x10 + i % 7),
        );
        want.nets.insert(
            (
                std::net::Ipv4Addr::from_bits(0x2000_0000 + (i << 8)).into(),
                std::net::Ipv4Addr::from_bits(0x2000_00ff + (i << 8)).into(),
            ),
            Class(0x10 + i % 5),
        );
    }
    enforce(&kernel, &Tables::default(), &want, true);
    assert_eq!(kernel.with(|nft| nft.read().expect("read")), want);
    enforce(&kernel, &want, &Tables::default(), true);
    assert_eq!(
        kernel.with(|nft| nft.read().expect("read")),
        Tables::default()
    );
}

#[test]
fn verdicts_hold_in_both_directions_and_families() {
    use Probe::{Ping, Tcp, Udp};
    let policed = Policed::new();
    // Ingress of a: r and b may use one TCP port, a range of UDP ports, and ping.
    for from in ["r", "b"] {
        let probes = [
            (Tcp(8080), true),
            (Tcp(8081), false),
            (Udp(5001), true),
            (Udp(6000), false),
            (Ping, true),
        ];
        policed.expect(from, "a", &probes);
    }
    // Egress of b: nobody but a. Replies to what others open to b pass.
    policed.expect(
        "b",
        "r",
        &[(Tcp(8080), false), (Udp(5001), false), (Ping, false)],
    );
    policed.expect(
        "b",
        "node",
        &[(Tcp(8080), false), (Udp(5001), false), (Ping, false)],
    );
    policed.expect(
        "r",
        "b",
        &[(Tcp(8081), true), (Udp(6000), true), (Ping, true)],
    );
    policed.expect("a", "b", &[(Tcp(8081), true), (Ping, true)]);
    // a may open anything, also to its node.
    policed.expect(
        "a",
        "r",
        &[(Tcp(8080), true), (Udp(6000), true), (Ping, true)],
    );
    policed.expect("a", "node", &[(Tcp(8080), true), (Ping, true)]);
    // The node reaches all its pods, whatever policy says, and those not yet programmed.
    for to in ["a", "b", "c"] {
        policed.expect(
            "node",
            to,
            &[(Tcp(8081), true), (Udp(6000), true), (Ping, true)],
        );
    }
    // A pod that is not programmed has no other network.
    policed.expect("c", "r", &[(Tcp(8080), false), (Ping, false)]);
    policed.expect("r", "c", &[(Tcp(8080), false), (Ping, false)]);
    policed.expect("c", "b", &[(Tcp(8080), false)]);
    policed.expect("b", "c", &[(Tcp(8080), false)]);
    policed.expect("c", "node", &[(Tcp(8080), false)]);
    assert!(
        policed
            .kernel
            .with(|nft| nft.counters().expect("counters"))
            .denied
            > 0
    );
}

#[test]
fn unknown_interfaces_and_spoofed_sources_are_dropped() {
    use Probe::{Ping, Tcp, Udp};
    let policed = Policed::new();
    policed.expect(
        "d",
        "r",
        &[(Tcp(8080), false), (Udp(5001), false), (Ping, false)],
    );
    policed.expect("d", "node", &[(Tcp(8080), false)]);
    policed.expect("r", "d", &[(Tcp(8080), false)]);

    let spoofed = policed
        .kernel
        .with(|nft| nft.counters().expect("counters"))
        .spoofed;
    assert!(spoofed > 0);
    for (forged, to) in [("10.1.0.2", "10.9.0.2"), ("fd00:1::2", "fd00:9::2")] {
        policed
            .network
            .send_as("a", address(forged), address(to), 5001);
    }
    net::eventually("spoofed packets are counted", || {
        policed
            .kernel
            .with(|nft| nft.counters().expect("counters"))
            .spoofed
            >= spoofed + 2
    });
    assert_eq!(policed.network.seen("r", address("10.1.0.2")), 0);
    assert_eq!(policed.network.seen("r", address("fd00:1::2")), 0);
}

#[test]
fn a_rebuilt_table_lets_no_unpoliced_packet_through() {
    let policed = Policed::new();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flood = policed
        .network
        .flood("c", address("10.9.0.2"), 5002, stop.clone());
    for _ in 0..20 {
        policed
            .kernel
            .namespace
            .sh("nft add rule inet margay judge counter");
        assert_eq!(
            policed
                .kernel
                .with(|nft| nft.ensure_table().expect("table")),
            Ensured::Replaced
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(flood.join().expect("flood") > 100);
    assert_eq!(policed.network.seen("r", address("10.1.0.3")), 0);
    assert_eq!(
        policed
            .kernel
            .with(|nft| nft.read().expect("read"))
            .defaults,
        policed.tables.defaults
    );
}
