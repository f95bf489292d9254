//! What rules have decided, for people.

use std::fmt::Write as _;

use api::v1;

use crate::table::{Cell, Screen, Table, Tone, duration};

/// Leaves those that have decided something.
pub(crate) fn only_zero(answer: &mut v1::ListRuleCountersResponse) {
    answer.rules.retain(|rule| rule.packets == Some(0));
    answer.ends.clear();
}

/// Rules with their counters, then the ends that no rule decides.
pub(crate) fn counters(answer: &v1::ListRuleCountersResponse, screen: Screen) -> String {
    let mut out = format!(
        "packets judged on {} since felix started, {} ago\n",
        answer.node,
        duration(answer.since_seconds)
    );
    if !answer.rules.is_empty() {
        let mut table = Table::new(&["KIND", "POLICY", "RULE", "ACTION", "PACKETS", "MATCHES"]);
        for rule in &answer.rules {
            table.row(vec![
                rule.kind.as_str().into(),
                rule.policy.as_str().into(),
                match rule.rule.as_str() {
                    "" => format!("{} end", rule.direction).into(),
                    name => name.into(),
                },
                action(rule),
                rule.packets.map_or_else(|| "".into(), Cell::from),
                match rule.rule.as_str() {
                    "" => format!("no rule of it, and the tier {} decided", rule.tier).into(),
                    _ => rule.text.as_str().into(),
                },
            ]);
        }
        let _ = write!(out, "\n{}", table.render(screen));
    }
    if !answer.ends.is_empty() {
        let mut table = Table::new(&["DIRECTION", "PACKETS", "DECIDED BY"]);
        for end in &answer.ends {
            table.row(vec![
                end.direction.as_str().into(),
                end.packets.into(),
                match end.end.as_str() {
                    "tier default" => format!("default of the tier {}", end.tier).into(),
                    "every tier passed" => "nobody: every tier passed, allowed".into(),
                    _ => "rules that are too many to be counted apart".into(),
                },
            ]);
        }
        let _ = write!(out, "\n{}", table.render(screen));
    }
    for note in &answer.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn action(rule: &v1::RuleCounter) -> Cell {
    match (rule.audit, rule.action.as_str()) {
        (true, action) => Cell::toned(format!("would {action}"), Tone::Warn),
        (false, "Allow") => Cell::toned("Allow", Tone::Good),
        (false, "Deny") => Cell::toned("Deny", Tone::Bad),
        (false, action) => action.into(),
    }
}

/// How often, behind what came of a rule.
pub(crate) fn so_far(packets: Option<u64>) -> String {
    match packets {
        None => String::new(),
        Some(1) => ", 1 packet so far".to_owned(),
        Some(packets) => format!(", {packets} packets so far"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> v1::ListRuleCountersResponse {
        let rule = |rule: &str, action: &str, packets, audit| v1::RuleCounter {
            policy: "shop/web".into(),
            kind: "NetworkPolicy".into(),
            tier: "default".into(),
            direction: "ingress".into(),
            rule: rule.into(),
            action: action.into(),
            text: "TCP 80".into(),
            packets,
            audit,
        };
        v1::ListRuleCountersResponse {
            node: "n1".into(),
            since_seconds: 192,
            rules: vec![
                rule("ingress[0]", "Allow", Some(12), false),
                rule("ingress[1]", "Log", None, true),
                rule("", "Deny", Some(0), false),
            ],
            ends: vec![v1::EndCounter {
                end: "tier default".into(),
                tier: "default".into(),
                direction: "ingress".into(),
                packets: 3,
            }],
            notes: vec!["so".into()],
        }
    }

    #[test]
    fn each_rule_is_a_line_and_each_end_another() {
        assert_eq!(
            counters(&answer(), Screen::default()),
            "packets judged on n1 since felix started, 3m12s ago\n\n\
             KIND           POLICY    RULE         ACTION     PACKETS  MATCHES\n\
             NetworkPolicy  shop/web  ingress[0]   Allow      12       TCP 80\n\
             NetworkPolicy  shop/web  ingress[1]   would Log  -        TCP 80\n\
             NetworkPolicy  shop/web  ingress end  Deny       0        no rule of it, and the tier default decided\n\n\
             DIRECTION  PACKETS  DECIDED BY\n\
             ingress    3        default of the tier default\n\
             note: so\n"
        );
    }

    #[test]
    fn those_that_decided_nothing_stay() {
        let mut some = answer();
        only_zero(&mut some);
        let rules: Vec<_> = some.rules.iter().map(|rule| rule.packets).collect();
        assert_eq!((rules, some.ends.len()), (vec![Some(0)], 0));
        assert_eq!(so_far(Some(1)), ", 1 packet so far");
        assert_eq!(so_far(None), "");
    }
}
