//! Why a flow is allowed or denied, for people: the verdict first, then what led to it, then what to do.

use std::fmt::Write as _;

use api::v1;

use crate::counters::so_far;
use crate::table::{Screen, Tone};
use crate::view::order;

/// Rules of one policy that are shown; the one that decides always is.
const RULES: usize = 20;

/// The whole answer.
pub(crate) fn explanation(answer: &v1::ExplainPolicyResponse, screen: Screen) -> String {
    let mut out = String::new();
    for (index, flow) in answer.flows.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        one(&mut out, flow, !answer.node.is_empty(), screen);
    }
    if !answer.notes.is_empty() {
        out.push('\n');
    }
    for note in &answer.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn one(out: &mut String, flow: &v1::ExplainedFlow, on_a_node: bool, screen: Screen) {
    let (from, to) = (end(flow.from.as_ref()), end(flow.to.as_ref()));
    let verdict = verdict(flow.allowed, screen);
    let _ = writeln!(out, "{verdict}  {from} -> {to}, {}", flow.traffic);
    let at_end = |out: &mut String, judgement: &Option<_>, end: &Option<_>| {
        if let (Some(judgement), Some(end)) = (judgement, end) {
            let _ = writeln!(out);
            judged(out, judgement, end, on_a_node, screen);
        }
    };
    at_end(out, &flow.egress, &flow.from);
    for hook in &flow.on_the_way {
        passed(out, hook, on_a_node, screen);
    }
    at_end(out, &flow.ingress, &flow.to);
    for hook in &flow.at_last {
        passed(out, hook, on_a_node, screen);
    }
    if !flow.advice.is_empty() {
        let _ = writeln!(out, "\nWhat to do");
    }
    for advice in &flow.advice {
        let mut lines = advice.lines();
        let _ = writeln!(out, "  - {}", lines.next().unwrap_or_default());
        for line in lines {
            let _ = writeln!(out, "    {line}");
        }
    }
}

fn verdict(allowed: bool, screen: Screen) -> String {
    match allowed {
        true => screen.paint("ALLOWED", Tone::Good),
        false => screen.paint("DENIED", Tone::Bad),
    }
}

fn end(end: Option<&v1::FlowEnd>) -> String {
    match end {
        Some(end) if end.pod.is_empty() => end.address.clone(),
        Some(end) => format!("{} ({})", end.pod, end.address),
        None => String::new(),
    }
}

fn judged(
    out: &mut String,
    judgement: &v1::Judgement,
    end: &v1::FlowEnd,
    on_a_node: bool,
    screen: Screen,
) {
    let name = match end.pod.is_empty() {
        true => &end.address,
        false => &end.pod,
    };
    let elsewhere = match on_a_node && !judgement.enforced_here && !end.pod.is_empty() {
        true => " [enforced on the pod's own node; this is what follows from the same objects]",
        false => "",
    };
    let _ = writeln!(
        out,
        "{} of {name}: {}  {}{elsewhere}",
        judgement.direction,
        verdict(judgement.allowed, screen),
        judgement.summary,
    );
    if !judgement.endpoint.is_empty() {
        let _ = writeln!(out, "  {}", endpoint(judgement));
    }
    tiers(out, judgement, screen);
    if !judgement.not_selecting.is_empty() {
        let _ = writeln!(out, "  not selecting {name}:");
    }
    for line in &judgement.not_selecting {
        let _ = writeln!(out, "    {line}");
    }
}

/// A host endpoint on the way.
fn passed(out: &mut String, hook: &v1::HookJudgement, on_a_node: bool, screen: Screen) {
    let Some(judgement) = &hook.judgement else {
        return;
    };
    let elsewhere = match on_a_node && !judgement.enforced_here {
        true => " [enforced on that node; this is what follows from the same objects]",
        false => "",
    };
    let _ = writeln!(
        out,
        "\n{} of node {}: {}  {}{elsewhere}\n  {}",
        hook.hook,
        hook.node,
        verdict(judgement.allowed, screen),
        judgement.summary,
        endpoint(judgement),
    );
    tiers(out, judgement, screen);
}

fn endpoint(judgement: &v1::Judgement) -> String {
    let v1::Judgement {
        endpoint, known, ..
    } = judgement;
    match known.is_empty() {
        true => format!("host endpoint {endpoint}"),
        false => format!("host endpoint {endpoint} ({known})"),
    }
}

fn tiers(out: &mut String, judgement: &v1::Judgement, screen: Screen) {
    for tier in &judgement.tiers {
        let outcome = match tier.outcome.as_str() {
            "default" => format!("no rule matches: {}", tier.default_action),
            other => other.to_owned(),
        };
        let _ = writeln!(out, "  tier {}: {outcome}", tier.name);
        for policy in &tier.policies {
            rules(out, policy, &judgement.direction, screen);
            if tier.outcome == "default" && policy.unmatched.is_some() {
                let so_far = so_far(policy.unmatched);
                let _ = writeln!(out, "      no rule of it matches{so_far}");
            }
        }
    }
}

fn rules(out: &mut String, policy: &v1::ExplainedPolicy, direction: &str, screen: Screen) {
    let audit = if policy.audit {
        ", audit only: decides nothing"
    } else {
        ""
    };
    let _ = writeln!(
        out,
        "    {} {} (order {}, generation {}{audit})",
        policy.kind,
        policy.name,
        order(policy.order),
        policy.generation
    );
    if !policy.error.is_empty() {
        let error = format!("newest generation is not in force: {}", policy.error);
        let _ = writeln!(out, "      {}", screen.paint(&error, Tone::Bad));
    }
    if policy.rules.is_empty() {
        let _ = writeln!(out, "      no {direction} rules");
    }
    let mut hidden = 0;
    for (at, rule) in policy.rules.iter().enumerate() {
        let matched = rule.outcome == "matched";
        if at >= RULES && !matched {
            hidden += 1;
            continue;
        }
        let tone = match (matched, rule.action.as_str()) {
            (false, _) => Tone::Plain,
            (true, "Allow") => Tone::Good,
            (true, "Deny") => Tone::Bad,
            (true, _) => Tone::Warn,
        };
        let mark = if matched { ">" } else { " " };
        let line = format!(
            "    {mark} {direction}[{}] {} {}: {}{}",
            rule.index,
            rule.action,
            rule.text,
            rule.outcome,
            so_far(rule.packets)
        );
        let _ = writeln!(out, "{}", screen.paint(&line, tone));
        if !rule.why.is_empty() {
            let _ = writeln!(out, "        because {}", rule.why);
        }
    }
    if hidden > 0 {
        let _ = writeln!(
            out,
            "      ... {hidden} more rules that do not match: -o json has them"
        );
    }
}
