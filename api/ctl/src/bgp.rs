//! What the speaker says about one route, neighbour or drain, for people.

use std::fmt::Write as _;

use api::v1;

use crate::table::{Cell, Screen, Table, Tone};

/// Routes a neighbour is told.
pub(crate) fn advertised(routes: &[v1::Route], neighbor: &str, screen: Screen) -> String {
    if routes.is_empty() {
        return format!(
            "{neighbor} is told no route: is its session established? `margayctl bgp explain PREFIX` says why\n"
        );
    }
    let heading = [
        "PREFIX",
        "NEXT-HOP",
        "AS-PATH",
        "ORIGIN",
        "LOCAL-PREF",
        "MED",
        "COMMUNITIES",
    ];
    let mut table = Table::new(&heading);
    for route in routes {
        table.row(vec![
            route.prefix.as_str().into(),
            route.next_hop.as_str().into(),
            path(route).into(),
            route.origin.as_str().into(),
            number(route.local_pref).into(),
            number(route.med).into(),
            Cell::from(route.communities.join(",")),
        ]);
    }
    table.render(screen)
}

/// Why a prefix is used as it is.
pub(crate) fn explanation(answer: &v1::ExplainResponse, screen: Screen) -> String {
    let mut out = String::new();
    if !answer.prefix.is_empty() {
        let _ = writeln!(out, "{}", answer.prefix);
    }
    for explained in &answer.paths {
        let Some(route) = &explained.route else {
            continue;
        };
        if route.neighbor == "local" {
            let _ = writeln!(out, "  originated here{}", attributes(route));
        } else {
            let _ = writeln!(out, "  from {}{}", route.neighbor, attributes(route));
        }
        section(&mut out, "import", &explained.import_steps, screen);
        let decision = std::slice::from_ref(&explained.decision);
        if !explained.decision.is_empty() {
            section(&mut out, "decision", decision, screen);
        }
    }
    for export in &answer.exports {
        let _ = match export.name.as_str() {
            name if name == export.neighbor => writeln!(out, "  to {name}"),
            name => writeln!(out, "  to {} ({name})", export.neighbor),
        };
        let mut steps = export.steps.clone();
        if let (Some(told), Some(last)) = (&export.told, steps.last_mut()) {
            last.push_str(&attributes(told));
        }
        section(&mut out, "export", &steps, screen);
    }
    for note in &answer.notes {
        let _ = writeln!(out, "{note}");
    }
    out
}

/// What is drained.
pub(crate) fn drains(drains: &[String]) -> String {
    if drains.is_empty() {
        return "nothing is drained\n".to_owned();
    }
    drains.iter().map(|it| format!("{it}\n")).collect()
}

/// Steps under a title; the last one decides.
fn section(out: &mut String, title: &str, steps: &[String], screen: Screen) {
    for (at, step) in steps.iter().enumerate() {
        let title = if at == 0 { title } else { "" };
        let bad = ["refused", "not told", "not used"];
        let tone = match at + 1 == steps.len() {
            true if bad.iter().any(|it| step.starts_with(it)) => Tone::Warn,
            true => Tone::Good,
            false => Tone::Plain,
        };
        let _ = writeln!(out, "    {title:<10}{}", screen.paint(step, tone));
    }
}

/// What is said of a route, as a continuation of a line.
fn attributes(route: &v1::Route) -> String {
    let mut said = Vec::new();
    if !route.next_hop.is_empty() {
        said.push(format!("next hop {}", route.next_hop));
    }
    if !route.as_path.is_empty() {
        said.push(format!("AS path {}", path(route)));
    }
    if let Some(preference) = route.local_pref {
        said.push(format!("LOCAL_PREF {preference}"));
    }
    if let Some(med) = route.med {
        said.push(format!("MED {med}"));
    }
    if !route.communities.is_empty() {
        said.push(format!("communities {}", route.communities.join(" ")));
    }
    match said.is_empty() {
        true => String::new(),
        false => format!(": {}", said.join(", ")),
    }
}

fn path(route: &v1::Route) -> String {
    let asns: Vec<String> = route.as_path.iter().map(ToString::to_string).collect();
    asns.join(" ")
}

fn number(number: Option<u32>) -> String {
    number.map(|it| it.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(neighbor: &str) -> v1::Route {
        v1::Route {
            prefix: "10.244.1.0/26".into(),
            neighbor: neighbor.into(),
            next_hop: "192.0.2.1".into(),
            as_path: vec![64601, 64603],
            origin: "igp".into(),
            med: Some(10),
            communities: vec!["64601:100".into(), "no-export".into()],
            ..Default::default()
        }
    }

    #[test]
    fn an_explanation_goes_from_import_to_export() {
        let answer = v1::ExplainResponse {
            prefix: "10.244.1.0/26".into(),
            paths: vec![
                v1::ExplainedPath {
                    route: Some(route("192.0.2.1")),
                    import_steps: vec![
                        "protocol: no loop, a routable prefix".into(),
                        "class pools: taken".into(),
                        "taken".into(),
                    ],
                    decision: "the best".into(),
                },
                v1::ExplainedPath {
                    route: Some(v1::Route {
                        communities: vec![],
                        med: None,
                        ..route("192.0.2.2")
                    }),
                    import_steps: vec!["refused: own AS in the path".into()],
                    decision: String::new(),
                },
            ],
            exports: vec![v1::ExplainedExport {
                neighbor: "192.0.2.2".into(),
                name: "tor-b".into(),
                steps: vec!["not told: not originated here".into()],
                told: None,
            }],
            notes: vec![],
        };
        assert_eq!(
            explanation(&answer, Screen::default()),
            "\
10.244.1.0/26
  from 192.0.2.1: next hop 192.0.2.1, AS path 64601 64603, MED 10, communities 64601:100 no-export
    import    protocol: no loop, a routable prefix
              class pools: taken
              taken
    decision  the best
  from 192.0.2.2: next hop 192.0.2.1, AS path 64601 64603
    import    refused: own AS in the path
  to 192.0.2.2 (tor-b)
    export    not told: not originated here
"
        );
    }

    #[test]
    fn a_prefix_nobody_knows_leaves_the_notes() {
        let answer = v1::ExplainResponse {
            notes: vec!["no path to 10.9.0.0/16 is known".into()],
            ..Default::default()
        };
        assert_eq!(
            explanation(&answer, Screen::default()),
            "no path to 10.9.0.0/16 is known\n"
        );
    }

    #[test]
    fn what_a_neighbour_is_told_has_all_attributes() {
        assert_eq!(
            advertised(&[route("192.0.2.1")], "192.0.2.1", Screen::default()),
            "\
PREFIX         NEXT-HOP   AS-PATH      ORIGIN  LOCAL-PREF  MED  COMMUNITIES
10.244.1.0/26  192.0.2.1  64601 64603  igp     -           10   64601:100,no-export
"
        );
        assert!(advertised(&[], "192.0.2.1", Screen::default()).contains("told no route"));
    }

    #[test]
    fn drains_are_listed_or_said_to_be_none() {
        assert_eq!(drains(&[]), "nothing is drained\n");
        assert_eq!(
            drains(&["a: withdrawn".into(), "b".into()]),
            "a: withdrawn\nb\n"
        );
    }
}
