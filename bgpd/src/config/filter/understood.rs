//! What a `BGPFilter`, or the filter of a file with the same fields, means.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crds::FieldError;
use crds::bgp_filter::{
    BGPFilterSpec, FilterAction, FilterOperation, FilterPeerType, FilterPrefix, FilterRule,
    FilterSource, MatchOperator, PrefixLength,
};
use crds::net::{Cidr, Family};

use super::{Action, Change, Community, Filter, Match, PeerType, PrefixMatch, Rule, Source};

impl TryFrom<&BGPFilterSpec> for Filter {
    type Error = FieldError;

    fn try_from(spec: &BGPFilterSpec) -> Result<Self, FieldError> {
        let mut filter = Self::default();
        for (field, rules, family, into) in [
            ("importV4", &spec.import_v4, Family::V4, &mut filter.import),
            ("exportV4", &spec.export_v4, Family::V4, &mut filter.export),
        ] {
            into.extend(each(field, rules, family)?);
        }
        for (field, rules, family, into) in [
            ("importV6", &spec.import_v6, Family::V6, &mut filter.import),
            ("exportV6", &spec.export_v6, Family::V6, &mut filter.export),
        ] {
            into.extend(each(field, rules, family)?);
        }
        Ok(filter)
    }
}

/// The rules of one list. Those of the two families never meet, so one list can follow the other.
fn each(field: &str, rules: &[FilterRule], family: Family) -> Result<Vec<Rule>, FieldError> {
    let rules = rules.iter().enumerate();
    rules
        .map(|(index, spec)| rule(&format!("{field}[{index}]"), spec, family))
        .collect()
}

fn rule(at: &str, spec: &FilterRule, family: Family) -> Result<Rule, FieldError> {
    let path = |field: &str| format!("spec.{at}.{field}");
    if spec.cidr.is_none() && (spec.match_operator.is_some() || spec.prefix_length.is_some()) {
        let problem = "it is missing: matchOperator and prefixLength say how to compare with it";
        return Err(FieldError::new(path("cidr"), problem));
    }
    if spec.action == FilterAction::Reject && !spec.operations.is_empty() {
        let problem =
            "they change a route that is rejected: remove them, or set action to Accept or Next";
        return Err(FieldError::new(path("operations"), problem));
    }
    let mut changes = Vec::new();
    for (index, operation) in spec.operations.iter().enumerate() {
        let field = path(&format!("operations[{index}]"));
        changes.extend(operations(&field, operation, family)?);
    }
    Ok(Rule {
        name: spec.name.clone().unwrap_or_else(|| at.to_owned()),
        matches: matches(&path, spec, family)?,
        changes,
        action: match spec.action {
            FilterAction::Accept => Action::Accept,
            FilterAction::Reject => Action::Reject,
            FilterAction::Next => Action::Next,
        },
    })
}

fn matches(
    path: &dyn Fn(&str) -> String,
    spec: &FilterRule,
    family: Family,
) -> Result<Match, FieldError> {
    let mut prefixes = Vec::new();
    if let Some(cidr) = &spec.cidr {
        let own = FilterPrefix {
            cidr: cidr.clone(),
            match_operator: spec.match_operator,
            prefix_length: spec.prefix_length,
        };
        prefixes.push(prefix(&path(""), &own, family)?);
    }
    for (index, spec) in spec.prefixes.iter().enumerate() {
        prefixes.push(prefix(&path(&format!("prefixes[{index}].")), spec, family)?);
    }
    if prefixes.is_empty() {
        prefixes.push(whole(family));
    }
    let communities = spec.communities.clone().unwrap_or_default();
    let as_path = spec.as_path.clone().unwrap_or_default();
    let contains = asns(&path("asPath.contains"), &as_path.contains)?;
    let origin = asns(&path("asPath.originAS"), &as_path.origin_as)?;
    let length = |field: &str, given: Option<i32>| {
        given
            .map(|given| number(&path(field), given.into(), 65_535))
            .transpose()
    };
    let next_hops = spec.next_hops.iter().enumerate();
    Ok(Match {
        prefixes,
        as_path_contains: contains.into_iter().collect(),
        as_path_prefix: asns(&path("asPathPrefix"), &spec.as_path_prefix)?,
        origin_as: origin.into_iter().collect(),
        as_path_min_length: length("asPath.minLength", as_path.min_length)?,
        as_path_max_length: length("asPath.maxLength", as_path.max_length)?,
        communities_any: set(&path("communities.values"), &communities.values)?,
        communities_all: set(&path("communities.allOf"), &communities.all_of)?,
        next_hops: next_hops
            .map(|(index, text)| {
                let parsed = text.parse();
                parsed.map_err(|e| FieldError::new(path(&format!("nextHops[{index}]")), e))
            })
            .collect::<Result<_, _>>()?,
        peer_type: spec.peer_type.map(|kind| match kind {
            FilterPeerType::External => PeerType::External,
            FilterPeerType::Internal => PeerType::Internal,
        }),
        sources: spec
            .source
            .map(|source| match source {
                FilterSource::RemotePeers => Source::Remote,
                FilterSource::Block => Source::Block,
                FilterSource::Borrowed => Source::Borrowed,
                FilterSource::Service => Source::Service,
                FilterSource::Node => Source::Node,
            })
            .into_iter()
            .collect(),
        med: spec
            .med
            .map(|n| number(&path("med"), n, u32::MAX))
            .transpose()?,
        local_pref: spec
            .local_pref
            .map(|n| number(&path("localPref"), n, u32::MAX))
            .transpose()?,
    })
}

/// Every prefix of the family.
fn whole(family: Family) -> PrefixMatch {
    let first: IpAddr = match family {
        Family::V4 => [0, 0, 0, 0].into(),
        Family::V6 => [0_u16; 8].into(),
    };
    PrefixMatch {
        // The default route is a host's prefix cut to nothing.
        cidr: Cidr::new(first, 0).unwrap_or_else(|_| Cidr::host(first)),
        min_len: 0,
        max_len: family.bits(),
        negated: false,
    }
}

fn prefix(at: &str, spec: &FilterPrefix, family: Family) -> Result<PrefixMatch, FieldError> {
    let cidr: Cidr = spec
        .cidr
        .parse()
        .map_err(|e| FieldError::new(format!("{at}cidr"), e))?;
    if cidr.family() != family {
        let problem = format!("{cidr} is no {family} prefix: put the rule into the other list");
        return Err(FieldError::new(format!("{at}cidr"), problem));
    }
    let operator = spec.match_operator.unwrap_or_default();
    let (own, most) = (cidr.prefix_len(), family.bits());
    let exact = matches!(operator, MatchOperator::Equal | MatchOperator::NotEqual);
    let PrefixLength { min, max } = spec.prefix_length.unwrap_or_default();
    if exact && (min.is_some() || max.is_some()) {
        let problem = "matchOperator compares the whole prefix: leave it out, or use In or NotIn";
        return Err(FieldError::new(format!("{at}prefixLength"), problem));
    }
    let bound = |field: &str, given: Option<i32>, otherwise: u8| {
        let Some(given) = given else {
            return Ok(otherwise);
        };
        u8::try_from(given)
            .ok()
            .filter(|length| (own..=most).contains(length))
            .ok_or_else(|| {
                let problem = format!("{given} is no length inside {cidr}: set {own} to {most}");
                FieldError::new(format!("{at}prefixLength.{field}"), problem)
            })
    };
    let min_len = bound("min", min, own)?;
    let max_len = bound("max", max, if exact { own } else { most })?;
    if min_len > max_len {
        let problem = format!("{min_len} is more than max, {max_len}: lower it");
        return Err(FieldError::new(format!("{at}prefixLength.min"), problem));
    }
    Ok(PrefixMatch {
        cidr,
        min_len,
        max_len,
        negated: matches!(operator, MatchOperator::NotEqual | MatchOperator::NotIn),
    })
}

fn operations(at: &str, spec: &FilterOperation, family: Family) -> Result<Vec<Change>, FieldError> {
    let mut made: Vec<(&str, Vec<Change>)> = Vec::new();
    let one = |field: &str, text: &str| -> Result<BTreeSet<Community>, FieldError> {
        Ok(BTreeSet::from([community(
            &format!("{at}.{field}.value"),
            text,
        )?]))
    };
    if let Some(it) = &spec.add_community {
        let set = one("addCommunity", &it.value)?;
        made.push(("addCommunity", vec![Change::AddCommunities(set)]));
    }
    if let Some(it) = &spec.remove_community {
        let set = one("removeCommunity", &it.value)?;
        made.push(("removeCommunity", vec![Change::RemoveCommunities(set)]));
    }
    if let Some(it) = &spec.replace_communities {
        let set = set(&format!("{at}.replaceCommunities.values"), &it.values)?;
        made.push(("replaceCommunities", vec![Change::ReplaceCommunities(set)]));
    }
    if let Some(it) = &spec.prepend_as_path {
        let asns = asns(&format!("{at}.prependASPath.prefix"), &it.prefix)?;
        // Each goes in front, so the last one has to be the first.
        let changes = asns.into_iter().rev();
        let changes = changes.map(|asn| Change::Prepend(Some(asn), 1)).collect();
        made.push(("prependASPath", changes));
    }
    if let Some(it) = &spec.prepend_own_as {
        let times = u8::try_from(it.times)
            .ok()
            .filter(|times| (1..=10).contains(times))
            .ok_or_else(|| {
                let problem = format!("{} is out of range: set 1 to 10", it.times);
                FieldError::new(format!("{at}.prependOwnAS.times"), problem)
            })?;
        made.push(("prependOwnAS", vec![Change::Prepend(None, times)]));
    }
    if let Some(it) = &spec.set_med {
        let field = format!("{at}.setMED.value");
        let med = it.value.map(|n| number(&field, n, u32::MAX)).transpose()?;
        made.push(("setMED", vec![Change::Med(med)]));
    }
    if let Some(it) = &spec.set_local_pref {
        let value = number(&format!("{at}.setLocalPref.value"), it.value, u32::MAX)?;
        made.push(("setLocalPref", vec![Change::LocalPref(value)]));
    }
    if let Some(it) = &spec.set_next_hop {
        let field = format!("{at}.setNextHop.address");
        let address = next_hop(&field, &it.address, family)?;
        made.push(("setNextHop", vec![Change::NextHop(address)]));
    }
    if made.len() > 1 {
        let problem = "another change is there: make it an operation of its own";
        return Err(FieldError::new(format!("{at}.{}", made[1].0), problem));
    }
    made.pop().map(|(_, changes)| changes).ok_or_else(|| {
        FieldError::new(
            at,
            "it changes nothing: set addCommunity, removeCommunity, replaceCommunities, prependASPath, prependOwnAS, setMED, setLocalPref or setNextHop",
        )
    })
}

fn next_hop(field: &str, text: &str, family: Family) -> Result<IpAddr, FieldError> {
    let address: IpAddr = text.parse().map_err(|_| {
        let problem = format!("{text:?} is no address: write it as 192.0.2.1 or 2001:db8::1");
        FieldError::new(field, problem)
    })?;
    if address.is_unspecified() || address.is_multicast() {
        let problem = format!("{address} is not the address of one host");
        return Err(FieldError::new(field, problem));
    }
    // An IPv4 route may have an IPv6 next hop (RFC 8950), never the other way round.
    if family == Family::V6 && address.is_ipv4() {
        let problem =
            format!("an IPv6 route cannot have the next hop {address}: set an IPv6 address");
        return Err(FieldError::new(field, problem));
    }
    Ok(address)
}

fn asns(field: &str, given: &[i64]) -> Result<Vec<u32>, FieldError> {
    let number = |(index, given): (usize, &i64)| {
        u32::try_from(*given)
            .ok()
            .filter(|asn| *asn != 0)
            .ok_or_else(|| {
                let problem = format!("{given} is no AS number: set 1 to 4294967295");
                FieldError::new(format!("{field}[{index}]"), problem)
            })
    };
    given.iter().enumerate().map(number).collect()
}

fn number(field: &str, given: i64, most: u32) -> Result<u32, FieldError> {
    u32::try_from(given)
        .ok()
        .filter(|value| *value <= most)
        .ok_or_else(|| FieldError::new(field, format!("{given} is out of range: set 0 to {most}")))
}

fn set(field: &str, given: &[String]) -> Result<BTreeSet<Community>, FieldError> {
    let given = given.iter().enumerate();
    given
        .map(|(index, text)| community(&format!("{field}[{index}]"), text))
        .collect()
}

fn community(field: &str, text: &str) -> Result<Community, FieldError> {
    let parsed: crds::Community = text.parse().map_err(|e| FieldError::new(field, e))?;
    Ok(match parsed {
        crds::Community::Standard(value) => Community::Standard(value),
        crds::Community::Extended(value) => Community::Extended(value),
        crds::Community::Large(value) => Community::Large(value),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filter(spec: serde_json::Value) -> Result<Filter, FieldError> {
        Filter::try_from(&serde_json::from_value::<BGPFilterSpec>(spec).unwrap())
    }

    fn import(rule: serde_json::Value) -> Result<Rule, FieldError> {
        filter(json!({ "importV4": [rule] })).map(|mut filter| filter.import.remove(0))
    }

    fn error(rule: serde_json::Value) -> String {
        import(rule).unwrap_err().to_string()
    }

    #[test]
    fn rules_of_both_families_are_kept_apart() {
        let filter = filter(json!({
            "importV4": [{ "action": "Accept" }],
            "importV6": [{ "name": "six", "action": "Reject" }],
            "exportV6": [{ "action": "Next" }],
        }))
        .unwrap();
        let names: Vec<&str> = filter
            .import
            .iter()
            .map(|rule| rule.name.as_str())
            .collect();
        assert_eq!(names, ["importV4[0]", "six"]);
        let families: Vec<Family> = filter
            .import
            .iter()
            .map(|rule| rule.matches.prefixes[0].cidr.family())
            .collect();
        assert_eq!(families, Family::ALL);
        assert_eq!(filter.import[0].matches.prefixes[0].max_len, 32);
        assert_eq!(filter.export[0].action, Action::Next);
    }

    #[test]
    fn operators_and_lengths_make_ranges() {
        let read = |operator: &str, length: serde_json::Value| {
            let mut rule =
                json!({ "cidr": "10.0.0.0/8", "matchOperator": operator, "action": "Accept" });
            if !length.is_null() {
                rule["prefixLength"] = length;
            }
            let prefix = import(rule).unwrap().matches.prefixes[0];
            (prefix.min_len, prefix.max_len, prefix.negated)
        };
        assert_eq!(read("Equal", json!(null)), (8, 8, false));
        assert_eq!(read("NotEqual", json!(null)), (8, 8, true));
        assert_eq!(read("In", json!(null)), (8, 32, false));
        assert_eq!(read("In", json!({ "min": 24, "max": 26 })), (24, 26, false));
        assert_eq!(read("NotIn", json!({ "max": 24 })), (8, 24, true));
    }

    #[test]
    fn every_match_and_operation_is_read() {
        let rule = import(json!({
            "prefixes": [{ "cidr": "10.0.0.0/8" }, { "cidr": "192.0.2.0/24", "matchOperator": "Equal" }],
            "source": "RemotePeers", "peerType": "eBGP", "asPathPrefix": [65001, 65002],
            "communities": { "values": ["65000:1", "65000:1:2"], "allOf": ["no-export"] },
            "asPath": { "contains": [1], "originAS": [2], "minLength": 3, "maxLength": 4 },
            "nextHops": ["192.0.2.0/24"], "med": 5, "localPref": 6, "action": "Accept",
            "operations": [
                { "addCommunity": { "value": "65000:7" } }, { "removeCommunity": { "value": "65000:8" } },
                { "replaceCommunities": { "values": [] } }, { "prependASPath": { "prefix": [65001, 65002] } },
                { "prependOwnAS": { "times": 3 } }, { "setMED": {} }, { "setMED": { "value": 9 } },
                { "setLocalPref": { "value": 200 } }, { "setNextHop": { "address": "2001:db8::1" } },
            ],
        }))
        .unwrap();
        let m = &rule.matches;
        assert_eq!(m.prefixes.len(), 2);
        assert_eq!(m.sources, BTreeSet::from([Source::Remote]));
        assert_eq!(m.peer_type, Some(PeerType::External));
        assert_eq!(m.as_path_prefix, [65001, 65002]);
        assert_eq!((m.communities_any.len(), m.communities_all.len()), (2, 1));
        assert_eq!(
            (&m.as_path_contains, &m.origin_as),
            (&BTreeSet::from([1]), &BTreeSet::from([2]))
        );
        assert_eq!(
            (m.as_path_min_length, m.as_path_max_length),
            (Some(3), Some(4))
        );
        assert_eq!(
            (m.med, m.local_pref, m.next_hops.len()),
            (Some(5), Some(6), 1)
        );
        let standard = |low: u32| BTreeSet::from([Community::Standard(65000 << 16 | low)]);
        let want = [
            Change::AddCommunities(standard(7)),
            Change::RemoveCommunities(standard(8)),
            Change::ReplaceCommunities(BTreeSet::new()),
            Change::Prepend(Some(65002), 1),
            Change::Prepend(Some(65001), 1),
            Change::Prepend(None, 3),
            Change::Med(None),
            Change::Med(Some(9)),
            Change::LocalPref(200),
            Change::NextHop("2001:db8::1".parse().unwrap()),
        ];
        assert_eq!(rule.changes, want);
    }

    #[test]
    fn errors_name_the_field_and_the_fix() {
        for (rule, want) in [
            (
                json!({ "action": "Accept", "cidr": "10.0.0.1/8" }),
                "spec.importV4[0].cidr: ",
            ),
            (
                json!({ "action": "Accept", "cidr": "fd00::/8" }),
                "spec.importV4[0].cidr: fd00::/8 is no IPv4 prefix: put",
            ),
            (
                json!({ "action": "Accept", "matchOperator": "In" }),
                "spec.importV4[0].cidr: it is missing",
            ),
            (
                json!({ "action": "Accept", "cidr": "10.0.0.0/8", "prefixLength": { "min": 7 } }),
                "spec.importV4[0].prefixLength.min: 7 is no length inside 10.0.0.0/8: set 8 to 32",
            ),
            (
                json!({ "action": "Accept", "cidr": "10.0.0.0/8", "prefixLength": { "min": 25, "max": 24 } }),
                "spec.importV4[0].prefixLength.min: 25 is more",
            ),
            (
                json!({ "action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "Equal", "prefixLength": { "max": 9 } }),
                "spec.importV4[0].prefixLength: ",
            ),
            (
                json!({ "action": "Accept", "prefixes": [{ "cidr": "x" }] }),
                "spec.importV4[0].prefixes[0].cidr: ",
            ),
            (
                json!({ "action": "Reject", "operations": [{ "setMED": {} }] }),
                "spec.importV4[0].operations: they change",
            ),
            (
                json!({ "action": "Next", "operations": [{}] }),
                "spec.importV4[0].operations[0]: it changes nothing",
            ),
            (
                json!({ "action": "Next", "operations": [{ "setMED": {}, "setLocalPref": { "value": 1 } }] }),
                "spec.importV4[0].operations[0].setLocalPref: another",
            ),
            (
                json!({ "action": "Next", "communities": { "values": ["x"] } }),
                "spec.importV4[0].communities.values[0]: \"x\" is no community",
            ),
            (
                json!({ "action": "Next", "asPathPrefix": [0] }),
                "spec.importV4[0].asPathPrefix[0]: 0 is no AS number",
            ),
            (
                json!({ "action": "Next", "med": -1 }),
                "spec.importV4[0].med: -1 is out of range",
            ),
            (
                json!({ "action": "Next", "nextHops": ["192.0.2.1"] }),
                "spec.importV4[0].nextHops[0]: ",
            ),
        ] {
            let found = error(rule.clone());
            assert!(found.starts_with(want), "{rule}: {found}");
        }
        let six = filter(
            json!({ "exportV6": [{ "action": "Next", "operations": [{ "setNextHop": { "address": "192.0.2.1" } }] }] }),
        );
        assert!(six.unwrap_err().to_string().contains("set an IPv6 address"));
    }
}
