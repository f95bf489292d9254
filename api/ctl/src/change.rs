//! What other policies would change, and which do nothing, for people.

use std::fmt::Write as _;

use api::v1;

use crate::table::{Cell, Screen, Table, Tone};

/// Flows whose verdict would change.
pub(crate) fn flips(answer: &v1::WhatIfResponse, screen: Screen) -> String {
    let mut out = String::new();
    let (lost, gained) = (answer.lost_pairs, answer.gained_pairs);
    let _ = writeln!(
        out,
        "{} would lose flows, {} would gain some, of {} pods and the world outside",
        pairs(lost),
        pairs(gained),
        answer.pods
    );
    for (wanted, title, tone) in [
        (false, "allowed -> denied", Tone::Bad),
        (true, "denied -> allowed", Tone::Good),
    ] {
        let mut flips = answer
            .flips
            .iter()
            .filter(|it| it.gained == wanted)
            .peekable();
        if flips.peek().is_none() {
            continue;
        }
        let _ = writeln!(out, "\n{}", screen.paint(title, tone));
        let mut table = Table::new(&["FROM", "TO", "TRAFFIC", "PAIRS", "BECAUSE"]);
        for flip in flips {
            table.row(vec![
                party(&flip.from, flip.from_count),
                party(&flip.to, flip.to_count),
                traffic(&flip.traffic),
                flip.pairs.into(),
                flip.why.as_str().into(),
            ]);
        }
        out.push_str(&table.render(screen));
    }
    if answer.more > 0 {
        let _ = writeln!(out, "\n{} more lines: give a higher --limit", answer.more);
    }
    notes(&mut out, &answer.notes);
    out
}

fn pairs(count: u64) -> String {
    format!("{count} {}", if count == 1 { "pair" } else { "pairs" })
}

fn party(name: &str, count: u32) -> Cell {
    match count {
        0 | 1 => name.into(),
        count => format!("{name} (+{} alike)", count - 1).into(),
    }
}

/// The first stretches of ports; all of them are in -o json.
fn traffic(all: &[String]) -> Cell {
    const SAID: usize = 4;
    let mut said = all
        .iter()
        .take(SAID)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if all.len() > SAID {
        let _ = write!(said, ", +{}", all.len() - SAID);
    }
    said.into()
}

/// Policies and rules that do nothing.
pub(crate) fn unused(answer: &v1::ListUnusedResponse, screen: Screen) -> String {
    let mut out = format!(
        "{} of {} policies and {} rules do nothing, as far as {} pods go\n",
        answer.unused.len(),
        answer.policies,
        answer.rules,
        answer.pods
    );
    if !answer.unused.is_empty() {
        let mut table = Table::new(&["KIND", "POLICY", "RULE", "WHY"]);
        for it in &answer.unused {
            table.row(vec![
                it.kind.as_str().into(),
                it.policy.as_str().into(),
                it.rule.as_str().into(),
                it.why.as_str().into(),
            ]);
        }
        out.push_str(&table.render(screen));
    }
    notes(&mut out, &answer.notes);
    out
}

fn notes(out: &mut String, notes: &[String]) {
    for note in notes {
        let _ = writeln!(out, "note: {note}");
    }
}

/// The table as text, with the links of pods as comments.
pub(crate) fn table(answer: &v1::RenderTableResponse) -> String {
    let mut out = answer.document.clone();
    for link in &answer.links {
        let _ = writeln!(
            out,
            "# {} is {}: device group {:#010x}",
            link.interface, link.pod, link.group
        );
    }
    out
}
