//! What a change of policies changes: pairs of pods, and of pods and addresses outside, whose verdict is another.
//!
//! Pods that no policy tells apart are one [`Party`], so that the work grows with what policies say and not with the
//! square of the pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::classes::Offer;
use super::describe::protocol_name;
use super::engine::Engine;
use super::explain::Asked;
use super::intervals::span;
use super::model::{Peer, PeerList, Policy, PolicyKey, PortMatch, protocol};
use super::selecting::Labelled;
use super::tables::{Direction, Verdict};
use crate::feed::Identity;

/// Flows from one party to another that are judged otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flip {
    /// Who opens them.
    pub from: Party,
    /// Who they are opened to.
    pub to: Party,
    /// Pairs of one of each.
    pub pairs: usize,
    /// They are allowed after the change, and were not; else the other way round.
    pub gained: bool,
    /// Protocols and ports.
    pub traffic: Vec<String>,
    /// One of those flows, for who wants to have it explained: IP protocol and port.
    pub example: (u8, u16),
}

/// Pods that policies do not tell apart, or one address outside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Party {
    /// One of them: "namespace/name", or the address.
    pub name: String,
    /// UID of that one; empty for an address outside.
    pub uid: Arc<str>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// How many there are.
    pub count: usize,
}

/// What there is to tell, and what was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flips {
    /// Flows that are lost first, then those that are gained; in the order of names.
    pub flips: Vec<Flip>,
    /// Pods that both states have.
    pub pods: usize,
    /// Pairs of parties that were not looked at, because there were too many.
    pub skipped: usize,
}

/// Pairs of parties that are judged at most.
const PAIRS: usize = 40_000;

/// What tells a pod from others, in one engine.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone)]
struct Trait {
    selected: BTreeSet<PolicyKey>,
    lists: BTreeSet<PeerList>,
    ports: Arc<[crate::feed::NamedPort]>,
    /// Ports of Services, and those that rules find by name.
    offers: BTreeSet<Offer>,
}

/// Pods that look the same in both engines.
#[derive(Debug)]
struct Group {
    party: Party,
    /// Policies that differ select it, for egress and for ingress.
    edited: [bool; 2],
    /// Lists that contain it differ.
    moved: bool,
}

/// Every change of a verdict between two states. Looks at every pod: not for a thread with other work.
#[must_use]
pub fn flips(before: &Engine, after: &Engine) -> Flips {
    let groups = groups(before, after);
    let outside = outside(before, after);
    let mut found = Flips {
        pods: groups.iter().map(|it| it.party.count).sum(),
        ..Flips::default()
    };
    let mut looked = 0;
    let pods = || groups.iter().map(Some);
    let ends = || pods().chain([None]);
    for from in ends() {
        for to in ends() {
            let sides = match (from, to) {
                (Some(from), Some(to)) => vec![(&from.party, &to.party, false)],
                (Some(from), None) => {
                    let outside = outside.iter();
                    outside.map(|it| (&from.party, &it.0, it.1)).collect()
                }
                (None, Some(to)) => outside.iter().map(|it| (&it.0, &to.party, it.1)).collect(),
                (None, None) => continue,
            };
            let concerned = from.is_some_and(|it| it.edited[0] || it.moved)
                || to.is_some_and(|it| it.edited[1] || it.moved);
            for (from, to, moved) in sides {
                if !concerned && !moved {
                    continue;
                }
                if looked == PAIRS {
                    found.skipped += 1;
                    continue;
                }
                looked += 1;
                found.flips.extend(pair(before, after, from, to));
            }
        }
    }
    found
        .flips
        .sort_by(|a, b| (a.gained, &a.from, &a.to).cmp(&(b.gained, &b.from, &b.to)));
    found
}

fn groups(before: &Engine, after: &Engine) -> Vec<Group> {
    let mut groups: BTreeMap<(Trait, Trait), Group> = BTreeMap::new();
    let edited: BTreeSet<PolicyKey> = edited(before, after);
    let (before_lists, after_lists) = (before.named_lists(), after.named_lists());
    for pod in after.pods().filter(|pod| !pod.host_network) {
        let Some(old) = before.pod(&pod.namespace, &pod.name) else {
            continue;
        };
        let traits = (
            before.traits(&before_lists, old),
            after.traits(&after_lists, pod),
        );
        let group = groups.entry(traits).or_insert_with_key(|(old, new)| Group {
            party: Party {
                name: format!("{}/{}", pod.namespace, pod.name),
                uid: Arc::clone(&pod.uid),
                addresses: after.addresses_of(&pod.uid),
                count: 0,
            },
            edited: Direction::BOTH.map(|direction| {
                let rules = |engine: &Engine, key: &PolicyKey| {
                    engine
                        .policy(key)
                        .is_some_and(|it| it.rules(direction).is_some())
                };
                let both = old.selected.union(&new.selected);
                let mut concerned = both.filter(|key| {
                    edited.contains(*key)
                        || old.selected.contains(*key) != new.selected.contains(*key)
                });
                concerned.any(|key| rules(before, key) || rules(after, key))
            }),
            moved: old.lists != new.lists || old.ports != new.ports || old.offers != new.offers,
        });
        group.party.count += 1;
    }
    groups.into_values().collect()
}

/// Policies that are not the same in both; with a tier that is not, all of its policies.
fn edited(before: &Engine, after: &Engine) -> BTreeSet<PolicyKey> {
    let keys = before.policies.keys().chain(after.policies.keys());
    let tier = |engine: &Engine, policy: Option<&Policy>| {
        policy.and_then(|it| engine.tiers.get(&it.tier)).cloned()
    };
    keys.filter(|key| {
        let (old, new) = (before.policy(key), after.policy(key));
        old != new || tier(before, old) != tier(after, new)
    })
    .cloned()
    .collect()
}

/// An address of every block that rules or sets name, those of nodes, Services and host endpoints, all unless a pod has
/// them, and one that nobody names; with each, whether lists that contain it differ.
fn outside(before: &Engine, after: &Engine) -> Vec<(Party, bool)> {
    let mut candidates: BTreeSet<IpAddr> = ELSEWHERE.into_iter().collect();
    for engine in [before, after] {
        for policy in engine.policies.values().map(|it| &it.policy) {
            let rules = Direction::BOTH.iter().filter_map(|it| policy.rules(*it));
            let lists = rules.flatten().flat_map(|rule| &rule.peers);
            for peer in lists.flat_map(|term| term.any.iter()) {
                if let Peer::Net { cidr, except } = peer {
                    candidates.extend([cidr].into_iter().chain(except).map(|it| span(*it).1));
                }
            }
        }
    }
    for engine in [before, after] {
        let sets = engine.others.sets.values().flat_map(|set| &set.now.nets);
        candidates.extend(sets.map(|net| span(*net).1));
        candidates.extend(engine.others.all_addresses());
    }
    let (before_lists, after_lists) = (before.named_lists(), after.named_lists());
    let mut parties: BTreeMap<_, Party> = BTreeMap::new();
    for address in candidates {
        if after.pod_at(address).is_some() || before.pod_at(address).is_some() {
            continue;
        }
        let old = before.lists_of(&before_lists, None, &[address]);
        let new = after.lists_of(&after_lists, None, &[address]);
        let traits = (
            address.is_ipv6(),
            (old, before.offers(address)),
            (new, after.offers(address)),
        );
        parties.entry(traits).or_insert_with(|| Party {
            name: address.to_string(),
            uid: Arc::default(),
            addresses: vec![address],
            count: 1,
        });
    }
    let parties = parties.into_iter();
    parties
        .map(|((_, old, new), party)| (party, old != new))
        .collect()
}

/// Addresses for documentation: nobody's (RFC 5737, RFC 3849).
const ELSEWHERE: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

impl Engine {
    /// Judges a flow of any pod that is known.
    fn verdict_of(&self, direction: Direction, subject: &str, flow: &Asked) -> Option<Verdict> {
        let judged = self.judge(direction, subject, flow.peer, flow.protocol, flow.port);
        judged.map(|(verdict, _)| verdict)
    }

    /// Every list of every rule, of either side.
    fn named_lists(&self) -> BTreeSet<PeerList> {
        let policies = self.policies.values().map(|it| &it.policy);
        let rules = policies.flat_map(|policy| {
            Direction::BOTH
                .into_iter()
                .filter_map(|it| policy.rules(it))
                .flatten()
        });
        rules
            .flat_map(|rule| rule.peers.iter().chain(&rule.own))
            .map(|term| term.any.clone())
            .collect()
    }

    /// Those of these lists that contain the pod or one of the addresses.
    fn lists_of(
        &self,
        lists: &BTreeSet<PeerList>,
        pod: Option<&Identity>,
        addresses: &[IpAddr],
    ) -> BTreeSet<PeerList> {
        let listed = |list: &&PeerList| {
            pod.is_some_and(|it| list.selects(Labelled::Pod(it), &self.index.inherited))
                || addresses.iter().any(|it| self.lists_address(list, *it))
        };
        lists.iter().filter(listed).cloned().collect()
    }

    fn traits(&self, lists: &BTreeSet<PeerList>, pod: &Identity) -> Trait {
        let inherited = &self.index.inherited;
        let selects = |policy: &Policy| policy.subject.selects(Labelled::Pod(pod), inherited);
        let addresses = self.addresses_of(&pod.uid);
        Trait {
            selected: self
                .policies
                .iter()
                .filter(|(_, installed)| selects(&installed.policy))
                .map(|(key, _)| key.clone())
                .collect(),
            lists: self.lists_of(lists, Some(pod), &addresses),
            ports: Arc::clone(&pod.named_ports),
            offers: addresses.iter().flat_map(|it| self.offers(*it)).collect(),
        }
    }
}

fn pair(before: &Engine, after: &Engine, from: &Party, to: &Party) -> Vec<Flip> {
    let mut flips = Vec::new();
    let same = from == to;
    if same && from.count == 1 {
        return flips;
    }
    for source in &from.addresses {
        let family = |address: &&IpAddr| address.is_ipv6() == source.is_ipv6();
        let Some(destination) = to.addresses.iter().find(family) else {
            continue;
        };
        let mut runs: BTreeMap<bool, Vec<(u8, u16, u16)>> = BTreeMap::new();
        for (number, cuts) in cuts(before, after, to, source.is_ipv6()) {
            let mut starts = cuts.iter().copied().peekable();
            while let Some(first) = starts.next() {
                let last = starts.peek().map_or(u16::MAX, |next| next - 1);
                let allowed = |engine: &Engine| {
                    both(engine, (from, *source), (to, *destination), number, first)
                };
                let (old, new) = (allowed(before), allowed(after));
                if old == new {
                    continue;
                }
                let runs = runs.entry(new).or_default();
                match runs.last_mut() {
                    Some((same, _, end))
                        if *same == number && end.checked_add(1) == Some(first) =>
                    {
                        *end = last;
                    }
                    _ => runs.push((number, first, last)),
                }
            }
        }
        for (gained, runs) in runs {
            let Some(&(number, first, _)) = runs.first() else {
                continue;
            };
            let traffic: Vec<String> = runs.into_iter().map(stretch).collect();
            let others = if same { to.count - 1 } else { to.count };
            let known = flips
                .iter()
                .any(|flip: &Flip| flip.gained == gained && flip.traffic == traffic);
            // Most pods have two families, and most policies mean both.
            if !known {
                flips.push(Flip {
                    from: from.clone(),
                    to: to.clone(),
                    pairs: from.count * others,
                    gained,
                    traffic,
                    example: (number, first),
                });
            }
        }
    }
    flips
}

/// Whether both ends allow the flow.
fn both(
    engine: &Engine,
    from: (&Party, IpAddr),
    to: (&Party, IpAddr),
    protocol: u8,
    port: u16,
) -> bool {
    let judged = |direction, (own, address): (&Party, IpAddr), peer| {
        let asked = Asked {
            own: address,
            peer,
            protocol,
            port,
            source_port: 0,
        };
        let verdict = engine.verdict_of(direction, &own.uid, &asked);
        verdict.is_none_or(|verdict| verdict == Verdict::Allow)
    };
    judged(Direction::Egress, from, to.1) && judged(Direction::Ingress, to, from.1)
}

/// Ports at which a verdict may change, by protocol; each begins at 0.
fn cuts(before: &Engine, after: &Engine, to: &Party, v6: bool) -> BTreeMap<u8, BTreeSet<u16>> {
    let icmp = if v6 { protocol::ICMP6 } else { protocol::ICMP };
    let all = [protocol::TCP, protocol::UDP, protocol::SCTP, icmp];
    let mut cuts: BTreeMap<u8, BTreeSet<u16>> = all
        .into_iter()
        .map(|it| (it, BTreeSet::from([0])))
        .collect();
    for engine in [before, after] {
        let named = engine.index.resident(&to.uid);
        let ports = named.iter().flat_map(|pod| &*pod.identity.named_ports);
        for port in ports {
            cut(&mut cuts, port.protocol, port.port, port.port);
        }
        for offer in to.addresses.iter().flat_map(|it| engine.offers(*it)) {
            cut(&mut cuts, offer.protocol, offer.port, offer.port);
        }
        for policy in engine.policies.values().map(|it| &it.policy) {
            let rules = Direction::BOTH.iter().filter_map(|it| policy.rules(*it));
            for entry in rules
                .flatten()
                .flat_map(|rule| &rule.traffic)
                .flat_map(|it| &it.any)
            {
                match *entry {
                    PortMatch::Protocol(number) => cut(&mut cuts, number, 0, u16::MAX),
                    PortMatch::Ports {
                        protocol,
                        first,
                        last,
                    } => cut(&mut cuts, protocol, first, last),
                    PortMatch::Icmp {
                        protocol,
                        kind,
                        code,
                    } => {
                        let (first, last) = (code.unwrap_or(0), code.unwrap_or(u8::MAX));
                        let port = |code| u16::from_be_bytes([kind, code]);
                        cut(&mut cuts, protocol, port(first), port(last));
                    }
                    PortMatch::Named { .. } | PortMatch::Service { .. } => {}
                }
            }
        }
    }
    let other = if v6 { protocol::ICMP } else { protocol::ICMP6 };
    cuts.remove(&other);
    cuts
}

fn cut(cuts: &mut BTreeMap<u8, BTreeSet<u16>>, protocol: u8, first: u16, last: u16) {
    let cuts = cuts.entry(protocol).or_insert_with(|| BTreeSet::from([0]));
    cuts.insert(first);
    cuts.extend(last.checked_add(1));
}

/// A stretch of ports of a protocol, in words.
fn stretch((number, first, last): (u8, u16, u16)) -> String {
    let name = protocol_name(number);
    let icmp = matches!(number, protocol::ICMP | protocol::ICMP6);
    match (first, last) {
        (0, u16::MAX) => format!("all {name}"),
        _ if icmp => format!("{name} types {} to {}", first >> 8, last >> 8),
        (first, last) if first == last => format!("{name} {first}"),
        (first, last) => format!("{name} {first}-{last}"),
    }
}
