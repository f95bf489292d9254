//! The state of a node as plain values: what must be the same after a fault as before, and what must not be
//! left over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use felix::policy::tables::{Answer, Program};
use ipam::journal;
use serde_json::Value;

use super::rig::{Rig, text};

/// What a node holds, without numbers that may differ between two lives of felix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Our routes, each with its protocol, gateways and device.
    pub routes: BTreeSet<String>,
    /// Nexthop objects of ours, without their ids.
    pub nexthops: Vec<String>,
    /// Elements of the sets of `inet margay`, by set.
    pub elements: BTreeMap<String, BTreeSet<String>>,
    /// Host interfaces, and whether they are in a group of ours.
    pub links: BTreeSet<String>,
    /// Blocks with state, epoch and allocations.
    pub blocks: BTreeSet<String>,
    /// Endpoints with their state.
    pub endpoints: BTreeSet<String>,
    /// Attachments in the log on disk.
    pub log: BTreeSet<String>,
}

/// Takes the picture of a node.
pub fn picture(rig: &Rig, node: &str) -> Result<Picture> {
    let blocks = rig.json(node, &["margayctl", "ipam", "show", "-o", "json"])?;
    let endpoints = rig.json(node, &["margayctl", "endpoints", "-o", "json"])?;
    Ok(Picture {
        routes: routes(rig, node)?,
        nexthops: nexthops(rig, node)?,
        elements: elements(rig, node)?,
        links: links(rig, node)?,
        blocks: items(
            &blocks["blocks"],
            &["cidr", "state", "epoch", "allocations"],
        ),
        endpoints: items(
            &endpoints["endpoints"],
            &["pod", "container_id", "interface", "addresses", "state"],
        ),
        log: log(rig, node)?,
    })
}

/// All of policy in a node's kernel as it prints it, but for the epoch: quickly taken, to be compared within one life of
/// felix.
pub fn policy(rig: &Rig, node: &str) -> Result<Vec<String>> {
    let table = rig.ask(node, &["nft", "-s", "list", "table", "inet", "margay"])?;
    let rules = table.lines().map(|line| match line.split_once("ct mark") {
        Some((before, _)) => format!("{before}ct mark"),
        None => line.to_owned(),
    });
    let links = own_links(rig, node)?;
    let groups = links
        .iter()
        .map(|link| format!("{} in {}", text(&link["ifname"]), text(&link["group"])));
    Ok(rules.chain(groups).collect())
}

/// What a node must not hold when it has no pod: one line for each.
pub fn leftovers(rig: &Rig, node: &str) -> Result<Vec<String>> {
    let seen = picture(rig, node)?;
    let plan = rig.plan();
    let mut left: Vec<String> = seen
        .routes
        .iter()
        .filter(|route| route.starts_with("77 ") && !route.contains("unreachable"))
        .map(|route| format!("route {route}"))
        .collect();
    left.extend(seen.links.iter().map(|link| format!("link {link}")));
    left.extend(seen.endpoints.iter().map(|e| format!("endpoint {e}")));
    left.extend(seen.log.iter().map(|line| format!("log {line}")));
    left.extend(
        seen.blocks
            .iter()
            .filter(|block| !block.contains("allocations=[]"))
            .map(|block| format!("block {block}")),
    );
    for (set, elements) in &seen.elements {
        // `program` always has its verdict of "nothing said".
        let fixed = [
            "local6",
            "neighbour",
            "failsafe_in4",
            "failsafe_in6",
            "failsafe_out4",
            "failsafe_out6",
            "loopback",
            "program",
        ];
        if !fixed.contains(&set.as_str()) {
            left.extend(elements.iter().map(|e| format!("element {set} {e}")));
        }
    }
    let files = [plan.node_state_dir(node).join("spool"), plan.pods_dir(node)];
    for dir in files {
        left.extend(
            std::fs::read_dir(dir)
                .into_iter()
                .flatten()
                .flatten()
                .map(|file| format!("file {}", file.path().display())),
        );
    }
    Ok(left
        .into_iter()
        .map(|line| format!("{node}: {line}"))
        .collect())
}

/// Who holds each address, as everybody tells it.
pub type Claims = BTreeMap<IpAddr, BTreeSet<String>>;

/// Who holds which address: by the status of live pods, the runners' records and felix' attachments. An address with two holders
/// is the worst that can happen.
pub fn claims(rig: &Rig) -> Result<Claims> {
    let mut claims = Claims::new();
    let mut claim = |address: &str, by: String| -> Result<()> {
        let address: IpAddr = address.parse().with_context(|| format!("{address:?}"))?;
        claims.entry(address).or_default().insert(by);
        Ok(())
    };
    for pod in rig.pods()?.values() {
        let running = pod["metadata"]["deletionTimestamp"].is_null();
        for ip in pod["status"]["podIPs"].as_array().into_iter().flatten() {
            if running {
                claim(&text(&ip["ip"]), text(&pod["metadata"]["uid"]))?;
            }
        }
    }
    for sandbox in rig.sandboxes() {
        for address in &sandbox.addresses {
            claim(&address.to_string(), sandbox.uid.clone())?;
        }
    }
    for node in &rig.plan().nodes {
        // One whose felix is away just now tells by the others.
        let Ok(endpoints) = rig.json(&node.name, &["margayctl", "endpoints", "-o", "json"]) else {
            continue;
        };
        for endpoint in endpoints["endpoints"].as_array().into_iter().flatten() {
            for address in endpoint["addresses"].as_array().into_iter().flatten() {
                claim(&text(address), text(&endpoint["pod_uid"]))?;
            }
        }
    }
    Ok(claims)
}

fn routes(rig: &Rig, node: &str) -> Result<BTreeSet<String>> {
    let mut routes = BTreeSet::new();
    for family in ["-4", "-6"] {
        for protocol in ["77", "78"] {
            let argv = [
                "ip", "-j", "-d", family, "route", "show", "table", "all", "proto", protocol,
            ];
            let list = rig.json(node, &argv)?;
            for route in list.as_array().into_iter().flatten() {
                let mut kept = route.clone();
                strip(&mut kept, &["nhid", "nh_info", "id", "protocol", "flags"]);
                // The members of a group come by their numbers.
                if let Some(legs) = kept["nexthops"].as_array_mut() {
                    legs.sort_by_key(ToString::to_string);
                }
                routes.insert(format!("{protocol} {kept}"));
            }
        }
    }
    Ok(routes)
}

fn nexthops(rig: &Rig, node: &str) -> Result<Vec<String>> {
    let mut nexthops = Vec::new();
    for protocol in ["77", "78"] {
        let list = rig.json(node, &["ip", "-j", "nexthop", "show", "proto", protocol])?;
        for nexthop in list.as_array().into_iter().flatten() {
            let mut kept = nexthop.clone();
            // A group names its members by id; how many they are stays comparable.
            let members = kept["group"].as_array().map(Vec::len);
            strip(&mut kept, &["id", "group", "flags"]);
            nexthops.push(format!("{protocol} {kept} {members:?}"));
        }
    }
    nexthops.sort();
    Ok(nexthops)
}

fn elements(rig: &Rig, node: &str) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let list = rig.json(node, &["nft", "-j", "list", "table", "inet", "margay"])?;
    let mut sets: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for object in list["nftables"].as_array().into_iter().flatten() {
        for kind in ["set", "map"] {
            let set = &object[kind];
            if !set.is_null() {
                let elements = set["elem"].as_array().cloned().unwrap_or_default();
                sets.insert(text(&set["name"]), elements);
            }
        }
    }
    ensure!(!sets.is_empty(), "{node} has no table inet margay");
    let names = Names::of(rig, node, &sets)?;
    Ok(sets
        .into_iter()
        .map(|(set, elements)| {
            let named = elements.into_iter().map(|e| names.element(&set, e));
            let named = named.collect();
            (set, named)
        })
        .collect())
}

/// Names for the numbers that felix gives to classes and groups, which another life may give otherwise: a class is
/// the addresses in it, a group the interfaces in it, a program just one.
struct Names {
    classes: BTreeMap<String, String>,
    groups: BTreeMap<String, String>,
}

impl Names {
    fn of(rig: &Rig, node: &str, sets: &BTreeMap<String, Vec<Value>>) -> Result<Self> {
        let mut members: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for set in ["peer4", "peer6", "net4", "net6"] {
            for element in sets.get(set).into_iter().flatten() {
                let class = members.entry(element[1].to_string()).or_default();
                class.insert(element[0].to_string());
            }
        }
        let mut groups = BTreeMap::new();
        for link in own_links(rig, node)? {
            groups.insert(text(&link["group"]), text(&link["ifname"]));
        }
        let list = |members: BTreeSet<String>| members.into_iter().collect::<Vec<_>>().join("+");
        Ok(Self {
            classes: members
                .into_iter()
                .map(|(class, members)| (class, list(members)))
                .collect(),
            groups,
        })
    }

    fn class(&self, number: &Value) -> Value {
        let number = number.to_string();
        self.classes.get(&number).cloned().unwrap_or(number).into()
    }

    fn group(&self, number: &Value) -> Value {
        let number = number
            .as_str()
            .map_or_else(|| number.to_string(), str::to_owned);
        self.groups.get(&number).cloned().unwrap_or(number).into()
    }

    fn element(&self, set: &str, mut element: Value) -> String {
        if element.is_array() {
            uncounted(&mut element[0]);
        }
        match set {
            "peer4" | "peer6" | "net4" | "net6" => element[1] = self.class(&element[1]),
            "pair_eg" | "pair_in" => {
                let key = &mut element[0]["concat"];
                key[0] = self.group(&key[0]);
                key[1] = self.class(&key[1]);
                element[1] = program(&element[1]);
            }
            "default_eg" | "default_in" => {
                element[0] = self.group(&element[0]);
                element[1] = program(&element[1]);
            }
            "port" | "icmp_code" | "port_range" | "proto" => {
                element[0]["concat"][0] = "program".into();
                element[1] = answer(&element[1]);
            }
            "program" | "program_ranged" => {
                element[0] = "program".into();
                element[1] = answer(&element[1]);
            }
            _ => {}
        }
        element.to_string()
    }
}

/// A key without what was counted under it.
fn uncounted(key: &mut Value) {
    if let Some(element) = key.get_mut("elem").and_then(Value::as_object_mut) {
        element.remove("counter");
        if let (1, Some(plain)) = (element.len(), element.get("val").cloned()) {
            *key = plain;
        }
    }
}

/// A class id, as `nft` prints it, as a number.
fn class_id(value: &Value) -> Option<u32> {
    let (major, minor) = value.as_str()?.split_once(':')?;
    let part = |text: &str| match text {
        "" => Some(0),
        hex => u32::from_str_radix(hex, 16).ok(),
    };
    Some(part(major)? << 16 | part(minor)?)
}

/// An answer without its cause, which has another number in another life.
fn answer(value: &Value) -> Value {
    let number = class_id(value).map(|number| number & Answer::BITS);
    number.map_or_else(|| value.clone(), Value::from)
}

/// A program: what it answers when that is all it is.
fn program(value: &Value) -> Value {
    match class_id(value) {
        Some(number) if Program(number).answer().is_some() => answer(value),
        _ => "program".into(),
    }
}

fn own_links(rig: &Rig, node: &str) -> Result<Vec<Value>> {
    let list = rig.json(node, &["ip", "-j", "-d", "link", "show"])?;
    let links = list.as_array().into_iter().flatten().cloned();
    Ok(links
        .filter(|link| text(&link["ifname"]).starts_with("mgy"))
        .collect())
}

/// Whether a link is up, and in one of our groups, whose top byte is 0x6d.
fn links(rig: &Rig, node: &str) -> Result<BTreeSet<String>> {
    let links = own_links(rig, node)?;
    Ok(links
        .into_iter()
        .map(|link| {
            let group: u32 = text(&link["group"]).parse().unwrap_or_default();
            let (name, state) = (text(&link["ifname"]), &link["operstate"]);
            format!("{name} {state} programmed={}", group >> 24 == 0x6d)
        })
        .collect())
}

fn log(rig: &Rig, node: &str) -> Result<BTreeSet<String>> {
    let file = rig.plan().node_state_dir(node).join("attachments.log");
    let boot_id = std::fs::read_to_string(rig.plan().boot_id_file(node))?;
    let replay = journal::replay(&std::fs::read(&file)?, boot_id.trim());
    ensure!(
        replay.damaged.is_empty(),
        "{}: {:?}",
        file.display(),
        replay.damaged
    );
    Ok(replay
        .attachments
        .values()
        .map(|attachment| format!("{attachment:?}"))
        .chain(replay.holds.values().map(|hold| format!("{hold:?}")))
        .collect())
}

fn items(list: &Value, fields: &[&str]) -> BTreeSet<String> {
    let list = list.as_array().into_iter().flatten();
    list.map(|item| {
        let fields = fields
            .iter()
            .map(|field| format!("{field}={}", item[*field]));
        fields.collect::<Vec<_>>().join(" ")
    })
    .collect()
}

fn strip(value: &mut Value, keys: &[&str]) {
    match value {
        Value::Object(map) => {
            for key in keys {
                map.remove(*key);
            }
            map.values_mut().for_each(|value| strip(value, keys));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| strip(value, keys)),
        _ => {}
    }
}
