//! What packets that the kernel hands over were about: the tuple is judged again, so that policy and rule have names.

use std::collections::VecDeque;

use api::v1;
use crds::felix_configuration::Events as Chosen;

use super::{Agent, Output};
use crate::Millis;
use crate::explain::{flow_end, rule_at, summary};
use crate::nft::build::{AUDIT_PREFIX, LOG_PREFIX};
use crate::nft::log::Logged;
use crate::policy::describe::traffic;
use crate::policy::explain::{Asked, Explanation};
use crate::policy::tables::{Direction, Verdict};
use crate::policy::{Decided, RuleRef};

/// The last events, and how many more may be made of packets: judging again is no work for a flood.
#[derive(Debug, Default)]
pub struct Events {
    kept: VecDeque<v1::PolicyEvent>,
    chosen: Chosen,
    /// Thousandths of events that may be made now, as of `since`.
    left: u64,
    since: Option<Millis>,
    left_out: u64,
}

/// How many events are kept for who asks later.
const KEPT: usize = 256;

impl Events {
    /// The last ones, oldest first.
    pub fn kept(&self) -> impl Iterator<Item = &v1::PolicyEvent> {
        self.kept.iter()
    }

    /// Packets that the kernel handed over and that were too many to become events.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// How many there are from now on.
    pub const fn choose(&mut self, chosen: Chosen) {
        self.chosen = chosen;
    }

    fn may(&mut self, now: Millis) -> bool {
        const ONE: u64 = 1000;
        let most = u64::from(self.chosen.burst) * ONE;
        let more = match self.since.replace(now) {
            Some(since) => now
                .saturating_sub(since)
                .saturating_mul(self.chosen.second.into()),
            None => most,
        };
        self.left = self.left.saturating_add(more).min(most);
        // What was handed over before the operator wanted none is on its way still.
        let may = self.left >= ONE && self.chosen.second > 0;
        match may {
            true => self.left -= ONE,
            false => self.left_out += 1,
        }
        may
    }
}

impl Agent {
    /// The last events, oldest first.
    pub fn events(&self) -> impl Iterator<Item = &v1::PolicyEvent> {
        self.events.kept()
    }

    /// Why the kernel does not tell of packets, or that it does.
    pub(super) fn events_read(&mut self, problem: Option<String>) {
        self.events_unread = problem.map(|why| format!("netlink log (nfnetlink_log) fails: {why}"));
        self.events_told();
    }

    /// Whether the kernel refuses rules that log.
    pub(super) fn logging_refused(&mut self, refused: bool) {
        let why = "the kernel refuses rules that log (nft_log, nfnetlink_log)";
        self.events_unlogged = refused.then(|| why.to_owned());
        self.events_told();
    }

    fn events_told(&mut self) {
        let why = self
            .events_unlogged
            .as_ref()
            .or(self.events_unread.as_ref());
        let problem =
            why.map(|why| format!("denied packets are not told of, everything else works: {why}"));
        if self.events_problem == problem {
            return;
        }
        match &problem {
            Some(problem) => {
                tracing::warn!("{problem}");
                self.outputs.push_back(Output::NodeEvent(problem.clone()));
            }
            None => tracing::info!("denied packets are told of"),
        }
        self.events_problem = problem;
    }

    /// Names what a packet was denied or noted by. `None` when there are too many.
    pub fn noted(
        &mut self,
        packet: &Logged,
        unix_millis: i64,
        now: Millis,
    ) -> Option<v1::PolicyEvent> {
        if !self.events.may(now) {
            return None;
        }
        let event = self.event(packet, unix_millis);
        if self.events.kept.len() == KEPT {
            self.events.kept.pop_front();
        }
        self.events.kept.push_back(event.clone());
        Some(event)
    }

    fn event(&self, packet: &Logged, unix_millis: i64) -> v1::PolicyEvent {
        let flow = &packet.flow;
        let what = match packet.prefix.as_str() {
            LOG_PREFIX => "logged",
            AUDIT_PREFIX => "audited",
            _ => "denied",
        };
        let mut event = v1::PolicyEvent {
            unix_millis,
            what: what.to_owned(),
            node: self.node_name.clone(),
            from: Some(flow_end(&self.engine, flow.source)),
            to: Some(flow_end(&self.engine, flow.destination)),
            traffic: traffic(flow.protocol, flow.port),
            source_port: flow.source_port.into(),
            reply: packet.reply,
            why: "no policy says so now: the interface was not programmed, the packet belonged to no connection, or \
                  policy has changed since"
                .to_owned(),
            ..Default::default()
        };
        for (direction, own, peer) in [
            (Direction::Egress, flow.source, flow.destination),
            (Direction::Ingress, flow.destination, flow.source),
        ] {
            let Some(pod) = self
                .engine
                .pod_at(own)
                .filter(|it| self.engine.is_here(&it.uid))
            else {
                continue;
            };
            let asked = Asked {
                own,
                peer,
                protocol: flow.protocol,
                port: flow.port,
                source_port: flow.source_port,
            };
            let Some(explanation) = self.engine.explain(direction, &pod.uid, &asked) else {
                continue;
            };
            let Some((rule, why)) = cause(what, &explanation, |it| summary(&self.engine, it))
            else {
                continue;
            };
            event.direction = direction.word().to_owned();
            event.pod = format!("{}/{}", pod.namespace, pod.name);
            event.why = why;
            if let Some(rule) = rule {
                event.kind = rule.policy.kind.to_string();
                event.policy = rule.policy.to_string();
                event.rule = rule_at(direction, rule.index);
            }
            break;
        }
        event
    }
}

/// The rule at this end that made the event, if it was this end's.
fn cause<'a>(
    what: &str,
    explanation: &'a Explanation,
    summary: impl Fn(&Explanation) -> String,
) -> Option<(Option<&'a RuleRef>, String)> {
    let trace = &explanation.trace;
    let of = |decided: &'a Decided| match decided {
        Decided::Rule(rule) => Some(rule),
        _ => None,
    };
    match what {
        "logged" => {
            let rule = trace.logged.first()?;
            let why = format!("a rule with action Log matches; {}", summary(explanation));
            Some((Some(rule), why))
        }
        "audited" => {
            let (verdict, decided) = trace.audited.as_ref()?;
            if *verdict == explanation.verdict {
                return None;
            }
            // What would be said if the policies under audit decided.
            let mut enforced = explanation.clone();
            enforced.verdict = *verdict;
            enforced.trace.decided = decided.clone();
            let why = format!(
                "enforced, policies under audit would decide otherwise: {}; now {}",
                summary(&enforced),
                summary(explanation)
            );
            Some((of(decided), why))
        }
        _ if explanation.verdict == Verdict::Deny => {
            Some((of(&trace.decided), summary(explanation)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_as_many_as_were_chosen_and_the_others_are_counted() {
        let mut events = Events::default();
        let made = |events: &mut Events, from: Millis, to: Millis| {
            (from..to).filter(|now| events.may(*now)).count()
        };
        assert_eq!(made(&mut events, 0, 1000), 99, "50 at once, 50 a second");
        assert_eq!(made(&mut events, 1000, 3000), 100);
        assert_eq!(events.left_out(), 3000 - 199);
        let (second, burst) = (2, 5);
        events.choose(Chosen { second, burst });
        assert_eq!(made(&mut events, 10_000, 11_000), 6);
        assert_eq!(made(&mut events, 11_000, 21_000), 20);
        events.choose(Chosen { second: 0, burst });
        assert_eq!(made(&mut events, 30_000, 31_000), 0);
    }
}
