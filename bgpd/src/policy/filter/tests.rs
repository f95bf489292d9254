use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::config::filter::{Community, Match, PrefixMatch};
use crate::rib::decide::DEFAULT_LOCAL_PREF;
use crate::wire::as_path::{AsPath, Segment, SegmentKind};

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn within(text: &str, min_len: u8, max_len: u8) -> PrefixMatch {
    PrefixMatch {
        cidr: cidr(text),
        min_len,
        max_len,
        negated: false,
    }
}

fn rule(matches: Match, changes: Vec<Change>, action: Action) -> Rule {
    Rule {
        name: String::new(),
        matches,
        changes,
        action,
    }
}

/// A chain of one filter, called f, for import.
fn chain(rules: Vec<Rule>) -> Chain {
    let filter = Filter {
        import: rules,
        export: Vec::new(),
    };
    let filters = BTreeMap::from([("f".to_owned(), filter)]);
    Chain::new(&filters, &["f".to_owned()], Direction::Import)
}

const CONTEXT: Context = Context {
    source: Source::Remote,
    peer_type: PeerType::External,
    asn: 65001,
};

fn attributes(path: &[u32]) -> Attributes {
    let mut attributes = Attributes::new(ip("192.0.2.2").into());
    attributes.as_path = AsPath::sequence(path.iter().copied());
    attributes
}

fn step(filter: u16, rule: u16) -> Step {
    Step {
        filter,
        rule: Some(rule),
    }
}

#[test]
fn the_first_rule_that_matches_and_decides_is_the_one() {
    let chain = chain(vec![
        rule(
            Match {
                prefixes: vec![within("10.9.0.0/16", 16, 32)],
                ..Match::default()
            },
            vec![],
            Action::Reject,
        ),
        rule(Match::default(), vec![Change::LocalPref(200)], Action::Next),
        // It sees what the rule before has done.
        rule(
            Match {
                local_pref: Some(200),
                prefixes: vec![within("10.0.0.0/8", 24, 26)],
                ..Match::default()
            },
            vec![Change::Med(Some(5))],
            Action::Accept,
        ),
    ]);
    let judge = |prefix| chain.judge(cidr(prefix), &attributes(&[65002]), CONTEXT);
    assert_eq!(judge("10.9.1.0/24").verdict, Verdict::Reject(step(0, 0)));
    let accepted = judge("10.1.1.0/24");
    assert_eq!(
        accepted.verdict,
        Verdict::Accept {
            step: step(0, 2),
            named: true,
            blackhole: false
        }
    );
    let changed = accepted.changed.unwrap();
    assert_eq!((changed.local_pref, changed.med), (Some(200), Some(5)));
    assert!(accepted.med_set && !accepted.next_hop_set);
    let undecided = judge("10.1.1.0/27");
    assert_eq!(undecided.verdict, Verdict::Undecided);
    assert_eq!(undecided.changed.unwrap().med, None);
}

#[test]
fn filters_are_asked_in_order_and_an_absent_one_rejects() {
    let one = |action| Filter {
        import: vec![rule(Match::default(), vec![], action)],
        export: Vec::new(),
    };
    let filters = BTreeMap::from([
        ("next".to_owned(), one(Action::Next)),
        ("accept".to_owned(), one(Action::Accept)),
    ]);
    let judged = |names: &[&str], direction| {
        let names: Vec<String> = names.iter().map(|&it| it.to_owned()).collect();
        let chain = Chain::new(&filters, &names, direction);
        let judged = chain.judge(cidr("10.0.0.0/24"), &attributes(&[]), CONTEXT);
        match judged.verdict {
            Verdict::Accept { step, .. } => format!("accepted by {}", chain.words(step)),
            Verdict::Reject(step) => format!("rejected by {}", chain.words(step)),
            Verdict::Undecided => "undecided".to_owned(),
        }
    };
    use Direction::{Export, Import};
    assert_eq!(
        judged(&["next", "accept"], Import),
        "accepted by filter accept rule 1"
    );
    assert_eq!(
        judged(&["gone", "accept"], Import),
        "rejected by filter gone, which does not exist"
    );
    assert_eq!(judged(&["next"], Import), "undecided");
    assert_eq!(judged(&["accept"], Export), "undecided");
}

#[test]
fn a_default_route_is_named_only_by_itself() {
    let named = |entries: &[PrefixMatch], prefix: &str| {
        let chain = chain(vec![rule(
            Match {
                prefixes: entries.to_vec(),
                ..Match::default()
            },
            vec![],
            Action::Accept,
        )]);
        match chain.judge(cidr(prefix), &attributes(&[]), CONTEXT).verdict {
            Verdict::Accept { named, .. } => Some(named),
            _ => None,
        }
    };
    let whole = within("0.0.0.0/0", 0, 32);
    assert_eq!(named(&[whole], "0.0.0.0/0"), Some(false));
    assert_eq!(named(&[whole], "10.0.0.0/8"), Some(false));
    assert_eq!(named(&[whole], "::/0"), None);
    let short = within("0.0.0.0/0", 0, 24);
    assert_eq!(named(&[short], "0.0.0.0/0"), Some(false));
    assert_eq!(named(&[short], "10.0.0.0/8"), Some(true));
    assert_eq!(named(&[within("::/0", 0, 0)], "::/0"), Some(true));
    assert_eq!(named(&[within("::/0", 0, 0)], "fd00::/8"), None);
    let but = PrefixMatch {
        negated: true,
        ..within("10.0.0.0/8", 8, 32)
    };
    assert_eq!(named(&[but], "10.1.0.0/16"), None);
    assert_eq!(named(&[but], "192.0.2.0/24"), Some(false));
    assert_eq!(
        named(&[but], "fd00::/8"),
        None,
        "the other family is not meant"
    );
}

#[test]
fn only_real_prefix_conditions_count_as_looking_at_the_prefix() {
    let with = |entries: Vec<PrefixMatch>| {
        chain(vec![rule(
            Match {
                prefixes: entries,
                ..Match::default()
            },
            vec![],
            Action::Accept,
        )])
        .looks_at_prefix()
    };
    assert!(!with(vec![]));
    assert!(!with(vec![
        within("0.0.0.0/0", 0, 32),
        within("::/0", 0, 128)
    ]));
    assert!(with(vec![within("0.0.0.0/0", 0, 31)]));
    assert!(with(vec![within("10.0.0.0/8", 8, 32)]));
}

#[test]
fn a_trace_names_filter_rule_and_what_happened() {
    let mut rules = vec![
        rule(
            Match {
                communities_any: BTreeSet::from([Community::Standard(0xffff_029a)]),
                ..Match::default()
            },
            vec![],
            Action::Reject,
        ),
        rule(
            Match {
                as_path_contains: BTreeSet::from([65007]),
                ..Match::default()
            },
            vec![
                Change::AddCommunities(BTreeSet::from([
                    Community::Standard(0xfde8_0001),
                    Community::Large([65000, 1, 2]),
                ])),
                Change::Prepend(None, 2),
            ],
            Action::Accept,
        ),
    ];
    rules[1].name = "through-7".to_owned();
    let (judged, steps) =
        chain(rules).trace(cidr("10.0.0.0/24"), &attributes(&[65002, 65007]), CONTEXT);
    let text: Vec<String> = steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "filter f rule 1: communities does not match",
            "filter f rule through-7: communities 65000:1 65000:1:2 added, own AS prepended 2 times, accepted",
        ]
    );
    let changed = judged.changed.unwrap();
    assert_eq!(
        changed.as_path,
        AsPath::sequence([65001, 65001, 65002, 65007])
    );
    assert_eq!(changed.communities, [0xfde8_0001]);
    assert_eq!(changed.large_communities, [[65000, 1, 2]]);
}

#[test]
fn an_ipv4_next_hop_is_not_set_on_an_ipv6_prefix() {
    let chain = chain(vec![rule(
        Match::default(),
        vec![Change::NextHop(ip("192.0.2.9"))],
        Action::Accept,
    )]);
    let next_hop = |prefix| chain.judge(cidr(prefix), &attributes(&[]), CONTEXT).changed;
    assert_eq!(
        next_hop("10.0.0.0/24").unwrap().next_hop.address,
        ip("192.0.2.9")
    );
    assert_eq!(next_hop("fd00::/64"), None);
}

/// What `config::filter` says in words, as directly as it can be written down; slow and plain.
mod model {
    use super::*;

    pub(super) struct Run {
        pub(super) accepted: Option<bool>,
        pub(super) attributes: Attributes,
    }

    pub(super) fn run(
        rules: &[Rule],
        prefix: Cidr,
        attributes: &Attributes,
        context: Context,
    ) -> Run {
        let mut attributes = attributes.clone();
        for rule in rules {
            if !matches(&rule.matches, prefix, &attributes, context) {
                continue;
            }
            for change in &rule.changes {
                apply(change, prefix, &mut attributes, context);
            }
            let accepted = match rule.action {
                Action::Next => continue,
                Action::Accept => true,
                Action::Reject => false,
            };
            return Run {
                accepted: Some(accepted),
                attributes,
            };
        }
        Run {
            accepted: None,
            attributes,
        }
    }

    fn carried(attributes: &Attributes) -> Vec<Community> {
        let standard = attributes
            .communities
            .iter()
            .map(|it| Community::Standard(*it));
        let extended = attributes
            .extended_communities
            .iter()
            .map(|it| Community::Extended(*it));
        let large = attributes
            .large_communities
            .iter()
            .map(|it| Community::Large(*it));
        standard.chain(extended).chain(large).collect()
    }

    fn matches(it: &Match, prefix: Cidr, attributes: &Attributes, context: Context) -> bool {
        let path: Vec<u32> = attributes.as_path.asns().collect();
        let carried = carried(attributes);
        let one_prefix = |entry: &PrefixMatch| {
            let inside = entry.cidr.covers(prefix)
                && entry.min_len <= prefix.prefix_len()
                && prefix.prefix_len() <= entry.max_len;
            entry.cidr.family() == prefix.family() && inside != entry.negated
        };
        let origin: Vec<u32> = match attributes.as_path.segments.last() {
            None => vec![context.asn],
            Some(last) if last.kind == SegmentKind::Set => last.asns.clone(),
            Some(last) => last.asns.last().copied().into_iter().collect(),
        };
        let length = u32::try_from(attributes.as_path.length()).unwrap();
        let ordered = attributes
            .as_path
            .segments
            .first()
            .is_some_and(|it| it.kind == SegmentKind::Sequence);
        (it.prefixes.is_empty() || it.prefixes.iter().any(one_prefix))
            && (it.as_path_contains.is_empty()
                || path.iter().any(|asn| it.as_path_contains.contains(asn)))
            && (it.as_path_prefix.is_empty() || ordered && path.starts_with(&it.as_path_prefix))
            && (it.origin_as.is_empty() || origin.iter().any(|asn| it.origin_as.contains(asn)))
            && it.as_path_min_length.is_none_or(|min| length >= min)
            && it.as_path_max_length.is_none_or(|max| length <= max)
            && (it.communities_any.is_empty()
                || carried.iter().any(|c| it.communities_any.contains(c)))
            && it.communities_all.iter().all(|c| carried.contains(c))
            && (it.next_hops.is_empty()
                || it
                    .next_hops
                    .iter()
                    .any(|n| n.contains(attributes.next_hop.address)))
            && it
                .peer_type
                .is_none_or(|wanted| wanted == context.peer_type)
            && (it.sources.is_empty() || it.sources.contains(&context.source))
            && it.med.is_none_or(|med| attributes.med == Some(med))
            && it
                .local_pref
                .is_none_or(|pref| attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF) == pref)
    }

    fn apply(change: &Change, prefix: Cidr, attributes: &mut Attributes, context: Context) {
        let mut carried: Vec<Community> = carried(attributes);
        match change {
            Change::AddCommunities(new) => {
                let new: Vec<Community> = new
                    .iter()
                    .filter(|it| !carried.contains(it))
                    .copied()
                    .collect();
                carried.extend(new);
            }
            Change::RemoveCommunities(gone) => carried.retain(|it| !gone.contains(it)),
            Change::ReplaceCommunities(new) => carried = new.iter().copied().collect(),
            Change::Prepend(asn, times) => {
                for _ in 0..*times {
                    attributes.as_path = attributes.as_path.prepended(asn.unwrap_or(context.asn));
                }
            }
            Change::Med(med) => attributes.med = *med,
            Change::LocalPref(preference) => attributes.local_pref = Some(*preference),
            Change::NextHop(address) => {
                if !(prefix.family() == Family::V6 && address.is_ipv4()) {
                    attributes.next_hop = NextHop::from(*address);
                }
            }
        }
        attributes.communities = carried
            .iter()
            .filter_map(|it| match it {
                Community::Standard(it) => Some(*it),
                _ => None,
            })
            .collect();
        attributes.extended_communities = carried
            .iter()
            .filter_map(|it| match it {
                Community::Extended(it) => Some(*it),
                _ => None,
            })
            .collect();
        attributes.large_communities = carried
            .iter()
            .filter_map(|it| match it {
                Community::Large(it) => Some(*it),
                _ => None,
            })
            .collect();
    }
}

/// Few values, so that conditions hold often.
fn some_prefix() -> impl Strategy<Value = Cidr> {
    prop_oneof![
        (0_u32..=3, 0_u8..=32).prop_map(|(n, length)| {
            Cidr::new(
                IpAddr::from((0x0a00_0000 | n << 22 | n << 5).to_be_bytes()),
                length,
            )
            .unwrap()
        }),
        (0_u128..=3, 0_u8..=128).prop_map(|(n, length)| {
            Cidr::new(
                IpAddr::from((0xfd00_u128 << 112 | n << 64 | n).to_be_bytes()),
                length,
            )
            .unwrap()
        }),
    ]
}

fn some_prefix_match() -> impl Strategy<Value = PrefixMatch> {
    (
        some_prefix(),
        0_u8..=40,
        0_u8..=128,
        prop::bool::weighted(0.2),
    )
        .prop_map(|(cidr, min_len, max_len, negated)| PrefixMatch {
            cidr: Cidr::new(cidr.first(), cidr.prefix_len().min(24)).unwrap(),
            min_len,
            max_len,
            negated,
        })
}

fn some_community() -> impl Strategy<Value = Community> {
    prop_oneof![
        (0_u32..3).prop_map(Community::Standard),
        (0_u8..2).prop_map(|n| Community::Extended([0, 2, 0, 0, 0, 0, 0, n])),
        (0_u32..2).prop_map(|n| Community::Large([65000, 0, n])),
    ]
}

fn some_communities() -> impl Strategy<Value = BTreeSet<Community>> {
    prop::collection::btree_set(some_community(), 0..3)
}

fn some_match() -> impl Strategy<Value = Match> {
    (
        (
            prop::collection::vec(some_prefix_match(), 0..4),
            prop::collection::btree_set(1_u32..5, 0..2),
            prop::collection::vec(1_u32..4, 0..2),
            prop::collection::btree_set(1_u32..5, 0..2),
            prop::option::weighted(0.2, 0_u32..4),
            prop::option::weighted(0.2, 0_u32..4),
        ),
        some_communities(),
        prop::collection::btree_set(some_community(), 0..2),
        prop::collection::vec(
            prop::sample::select(vec![cidr("192.0.2.0/24"), cidr("fd00::/8")]),
            0..2,
        ),
        prop::option::weighted(
            0.2,
            prop::sample::select(vec![PeerType::External, PeerType::Internal]),
        ),
        prop::collection::btree_set(
            prop::sample::select(vec![Source::Remote, Source::Block]),
            0..2,
        ),
        prop::option::weighted(0.1, 0_u32..2),
        prop::option::weighted(0.1, 99_u32..101),
    )
        .prop_map(
            |(
                (prefixes, contains, path, origin, min, max),
                any,
                all,
                next_hops,
                peer_type,
                sources,
                med,
                pref,
            )| Match {
                prefixes,
                as_path_contains: contains,
                as_path_prefix: path,
                origin_as: origin,
                as_path_min_length: min,
                as_path_max_length: max,
                communities_any: any,
                communities_all: all,
                next_hops,
                peer_type,
                sources,
                med,
                local_pref: pref,
            },
        )
}

fn some_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        some_communities().prop_map(Change::AddCommunities),
        some_communities().prop_map(Change::RemoveCommunities),
        some_communities().prop_map(Change::ReplaceCommunities),
        (prop::option::of(1_u32..5), 0_u8..3).prop_map(|(asn, times)| Change::Prepend(asn, times)),
        prop::option::of(0_u32..2).prop_map(Change::Med),
        (99_u32..102).prop_map(Change::LocalPref),
        prop::sample::select(vec!["192.0.2.9", "fd00::9"]).prop_map(|it| Change::NextHop(ip(it))),
    ]
}

fn some_rule() -> impl Strategy<Value = Rule> {
    (
        some_match(),
        prop::collection::vec(some_change(), 0..3),
        prop::sample::select(vec![Action::Accept, Action::Reject, Action::Next]),
    )
        .prop_map(|(matches, changes, action)| rule(matches, changes, action))
}

fn some_attributes() -> impl Strategy<Value = Attributes> {
    (
        prop::collection::vec(1_u32..5, 0..4),
        prop::collection::vec(1_u32..5, 0..2),
        some_communities(),
        prop::option::of(0_u32..2),
        prop::option::of(99_u32..102),
        prop::sample::select(vec!["192.0.2.2", "198.51.100.2", "fd00::2"]),
    )
        .prop_map(|(path, set, communities, med, local_pref, next_hop)| {
            let mut it = attributes(&path);
            it.next_hop = ip(next_hop).into();
            if !set.is_empty() {
                it.as_path.segments.push(Segment {
                    kind: SegmentKind::Set,
                    asns: set,
                });
            }
            Communities::new(&communities).add(&mut it);
            (it.med, it.local_pref) = (med, local_pref);
            it
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn compiled_filters_do_what_the_rules_say(
        rules in prop::collection::vec(some_rule(), 0..6),
        prefix in some_prefix(),
        attributes in some_attributes(),
        external in any::<bool>(),
        remote in any::<bool>(),
    ) {
        let context = Context {
            source: if remote { Source::Remote } else { Source::Block },
            peer_type: if external { PeerType::External } else { PeerType::Internal },
            asn: 3,
        };
        let expected = model::run(&rules, prefix, &attributes, context);
        let chain = chain(rules);
        let judged = chain.judge(prefix, &attributes, context);
        let accepted = match judged.verdict {
            Verdict::Accept { .. } => Some(true),
            Verdict::Reject(_) => Some(false),
            Verdict::Undecided => None,
        };
        prop_assert_eq!(accepted, expected.accepted);
        prop_assert_eq!(judged.changed.as_ref().unwrap_or(&attributes), &expected.attributes);
        let (traced, steps) = chain.trace(prefix, &attributes, context);
        prop_assert_eq!(&traced, &judged);
        let decided = steps.last().is_some_and(|it| {
            matches!(it.outcome, Outcome::Matched { action: Action::Accept | Action::Reject, .. })
        });
        prop_assert_eq!(decided, accepted.is_some());
        // One verdict holds for the whole family when the chain says that it does not look further.
        if !chain.looks_at_prefix() {
            let other = Cidr::host(prefix.last());
            prop_assert_eq!(chain.judge(other, &attributes, context), judged);
        }
    }
}
