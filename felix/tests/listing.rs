//! `nft list ruleset` at the size of a large cluster, read back as text, beside the tables of kube-proxy in both modes,
//! which stay as they are.

mod ns;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use felix::driver::enforce::Enforcer;
use felix::driver::netlink::Netlink;
use felix::nft::build::SETS;
use felix::nft::epoch::Options;
use felix::nft::model::{Element, Set, Type, Value};
use felix::nft::{diff, rows};
use felix::policy::tables::{Answer, Class, Direction, Program, Subject, Tables};
use ns::Namespace;

const PEERS: u32 = 100_000;
const SUBJECTS: u32 = 200;
const PORTS: u16 = 10_000;

/// kube-proxy as iptables-nft writes it, and in nftables mode: names, priorities and marks as they have them.
const KUBE_PROXY: &str = r#"
table ip nat {
  chain KUBE-MARK-MASQ { meta mark set meta mark | 0x4000; }
  chain KUBE-SVC-1 { meta mark & 0x4000 != 0x4000 counter jump KUBE-MARK-MASQ; ip protocol tcp counter dnat to 10.0.0.1:8080; }
  chain KUBE-SERVICES { ip daddr 10.96.0.1 tcp dport 80 counter jump KUBE-SVC-1; }
  chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; counter jump KUBE-SERVICES; }
  chain KUBE-POSTROUTING {
    meta mark & 0x4000 != 0x4000 counter return
    counter meta mark set meta mark ^ 0x4000
    counter masquerade fully-random
  }
  chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; counter jump KUBE-POSTROUTING; }
}
table ip filter {
  chain KUBE-FIREWALL { meta mark & 0x8000 == 0x8000 counter drop; }
  chain KUBE-FORWARD { ct state invalid counter drop; meta mark & 0x4000 == 0x4000 counter accept; }
  chain FORWARD { type filter hook forward priority filter; policy accept; counter jump KUBE-FORWARD; }
  chain INPUT { type filter hook input priority filter; policy accept; counter jump KUBE-FIREWALL; }
}
table ip kube-proxy {
  comment "rules for kube-proxy"
  set cluster-ips { type ipv4_addr; elements = { 10.96.0.1, 10.96.0.10 } }
  map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 10.96.0.1 . tcp . 80 : goto service-1 } }
  chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
  chain service-1 { ip saddr != 10.0.0.0/8 jump mark-for-masquerade; meta l4proto tcp dnat to 10.0.0.1:8080; }
  chain mark-for-masquerade { meta mark set meta mark | 0x4000; }
  chain masquerading { meta mark & 0x4000 == 0 return; meta mark set meta mark ^ 0x4000; masquerade fully-random; }
  chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
  chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept; jump masquerading; }
  chain filter-forward { type filter hook forward priority -110; policy accept; ct state new counter; }
}
"#;
const FOREIGN: [&str; 3] = ["ip nat", "ip filter", "ip kube-proxy"];

/// A large cluster: pods everywhere, 200 of them here, each with programs of its own.
fn cluster() -> Tables {
    let mut tables = Tables::default();
    for i in 0..PEERS / 2 {
        let class = Class(0x10 + i % 1000);
        tables
            .peers
            .insert(Ipv4Addr::from_bits(0x0a00_0000 + i).into(), class);
        tables.peers.insert(
            Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(i)).into(),
            class,
        );
    }
    for i in 0..SUBJECTS {
        let subject = Subject::new(0x10 + i, true, true);
        let link = format!("mgy{i:012x}");
        let address = Ipv4Addr::from_bits(0x0a00_0000 + i).into();
        tables
            .workloads
            .insert((link.clone(), address), format!("ns-{i}/pod-{i}"));
        for (direction, shift) in [(Direction::Egress, 0), (Direction::Ingress, 1)] {
            for class in 0..50 {
                let program = Program(0x10 + (i + class + shift) % 100);
                tables
                    .pairs
                    .insert((direction, subject, Class(0x10 + class)), program);
            }
            tables.defaults.insert((direction, subject), Program::DENY);
        }
    }
    for i in 0..PORTS {
        let program = Program(0x10 + u32::from(i % 100));
        tables.ports.insert((program, 6, 1 + i), Answer::ALLOW);
        tables.programs.insert(program, Answer::DENY);
    }
    for i in 0..100_u16 {
        let ranged = Program(0x100 + u32::from(i));
        tables.port_ranges.insert(
            (ranged, 17, 1000 * (i % 50), 1000 * (i % 50) + 499),
            Answer::ALLOW,
        );
        tables.icmp.insert((ranged, 1, 0x0800), Answer::ALLOW);
        tables.protos.insert((ranged, 132), Answer::DENY);
        tables.programs_ranged.insert(ranged, Answer::DENY);
    }
    for i in 0..5000_u32 {
        let first = 0xac10_0000 + (i << 4);
        let range = (
            Ipv4Addr::from_bits(first).into(),
            Ipv4Addr::from_bits(first + i % 15).into(),
        );
        tables.nets.insert(range, Class(0x2000 + i % 7));
    }
    tables
}

fn class(text: &str) -> Option<u32> {
    let (major, minor) = text.split_once(':')?;
    Some(u32::from_str_radix(major, 16).ok()? << 16 | u32::from_str_radix(minor, 16).ok()?)
}

fn value(kind: Type, text: &str) -> Option<Value> {
    Some(match kind {
        Type::IfName => Value::Name(text.trim_matches('"').to_owned()),
        Type::Ip4 | Type::Ip6 => Value::Address(text.parse().ok()?),
        Type::ClassId => Value::Number(class(text)?),
        _ => Value::Number(text.parse().ok()?),
    })
}

/// First and last of what nft writes as one value, a range or a prefix.
fn ends(kind: Type, text: &str) -> Option<(Value, Value)> {
    if let Some((first, length)) = text.split_once('/') {
        let length: u32 = length.parse().ok()?;
        let last = match first.parse().ok()? {
            IpAddr::V4(ip) => {
                Ipv4Addr::from_bits(ip.to_bits() | u32::MAX.checked_shr(length).unwrap_or(0)).into()
            }
            IpAddr::V6(ip) => {
                Ipv6Addr::from_bits(ip.to_bits() | u128::MAX.checked_shr(length).unwrap_or(0))
                    .into()
            }
        };
        return Some((value(kind, first)?, Value::Address(last)));
    }
    match text.split_once('-') {
        Some((first, last)) => Some((value(kind, first)?, value(kind, last)?)),
        None => Some((value(kind, text)?, value(kind, text)?)),
    }
}

fn element(set: &'static Set, text: &str) -> Option<Element> {
    let (rest, data) = match set.map {
        true => text
            .rsplit_once(" : ")
            .map(|(rest, data)| (rest, Some(data)))?,
        false => (text, None),
    };
    let (key, comment) = match rest.split_once(" comment ") {
        Some((key, comment)) => (key, Some(comment.trim_matches('"').to_owned())),
        None => (rest, None),
    };
    // What it has counted is no part of what it is.
    let key = match key.split_once(" counter ") {
        Some((key, _)) if set.counter => key,
        _ => key,
    };
    let ends: Option<Vec<_>> = set
        .key
        .iter()
        .zip(key.split(" . "))
        .map(|(kind, text)| ends(*kind, text.trim()))
        .collect();
    let (key, last) = ends?.into_iter().unzip();
    let value = match data {
        Some(data) => Some(class(data.trim())?),
        None => None,
    };
    Some(Element {
        set,
        key,
        last: set.interval.then_some(last),
        value,
        comment,
        more: None,
    })
}

/// What a listing says, by our own reading of nft's text.
fn parsed(listing: &str) -> Tables {
    let mut tables = Tables::default();
    let sets: BTreeMap<&str, &'static Set> = SETS.iter().map(|set| (set.name, *set)).collect();
    let mut set = None;
    let mut inside = false;
    let ours = listing
        .split("table ")
        .find(|table| table.starts_with("inet margay"))
        .expect("our table");
    for line in ours.lines().map(str::trim) {
        if let Some(name) = line
            .strip_prefix("map ")
            .or_else(|| line.strip_prefix("set "))
        {
            set = name
                .split(' ')
                .next()
                .and_then(|name| sets.get(name).copied());
        }
        let begins = line.strip_prefix("elements = {");
        if begins.is_none() && !inside {
            continue;
        }
        let body = begins.unwrap_or(line);
        inside = !body.ends_with('}');
        let set = set.expect("elements of a set of ours");
        for text in body
            .trim_end_matches('}')
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
        {
            let element = element(set, text).unwrap_or_else(|| panic!("{}: {text}", set.name));
            let constant = felix::nft::build::is_constant(set);
            assert!(constant || rows::insert(&mut tables, &element), "{element}");
        }
    }
    tables
}

#[test]
fn a_large_ruleset_is_listed_as_it_is_beside_kube_proxy_s() {
    let node = Namespace::new();
    node.feed("nft -f -", KUBE_PROXY);
    let list = |what: &str| node.sh(&format!("nft list table {what}"));
    let theirs = FOREIGN.map(list);
    let want = cluster();
    let tables = want.clone();
    let start = Instant::now();
    let mut enforcer = node.run(move || {
        let (mut enforcer, _) = Enforcer::open().expect("nftables");
        let phases = diff::plan(&Tables::default().diff(&tables), &tables, true);
        enforcer.prepare(&phases).expect("prepare");
        enforcer
            .commit(&phases, &mut Netlink::open().expect("rtnetlink"))
            .expect("commit");
        enforcer
    });
    let loaded = start.elapsed();
    let start = Instant::now();
    let mut listing = String::new();
    let mut back = Tables::default();
    // A hash gets more room a moment after it was filled, and what is listed meanwhile has gaps.
    for _ in 0..20 {
        // Numbers instead of the names of protocols and ports, and all of it: what others may print, too.
        listing = node.sh("nft -nn list ruleset");
        back = parsed(&listing);
        if back == want {
            break;
        }
    }
    println!(
        "{} bytes listed in {:?}, loaded in {loaded:?}: {} peers, {} pairs, {} ports",
        listing.len(),
        start.elapsed(),
        back.peers.len(),
        back.pairs.len(),
        back.ports.len()
    );
    assert!(back == want, "the listing is not what was loaded");
    assert!(enforcer.intact().expect("inspect"));
    // Everything that felix does to its own table leaves theirs alone.
    node.sh("nft flush chain inet margay judge");
    enforcer.ensure_table(Options::default()).expect("replace");
    let anew = enforcer.read().expect("read");
    let differing = anew.diff(&want);
    assert!(
        differing.is_empty(),
        "the table made anew differs in {}: {:?} …",
        differing.len(),
        differing.first()
    );
    assert_eq!(FOREIGN.map(list), theirs);
}
