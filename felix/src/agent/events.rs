//! What packets that the kernel hands over were about: the tuple is judged again, so that policy and rule have names.

use std::collections::VecDeque;

use api::v1;

use super::Agent;
use crate::Millis;
use crate::explain::{flow_end, rule_at, summary};
use crate::nft::build::{AUDIT_PREFIX, LOG_PREFIX};
use crate::nft::log::Logged;
use crate::policy::describe::traffic;
use crate::policy::explain::{Asked, Explanation};
use crate::policy::tables::{Direction, Verdict};
use crate::policy::{Decided, RuleRef};

/// The last events, and how many more may be made of packets in this second.
#[derive(Debug, Default)]
pub struct Events {
    kept: VecDeque<v1::PolicyEvent>,
    second: Millis,
    made: usize,
}

/// How many events are kept for who asks later.
const KEPT: usize = 256;
/// Events made in one second: judging again is no work for a flood.
const PER_SECOND: usize = 50;

impl Events {
    /// The last ones, oldest first.
    pub fn kept(&self) -> impl Iterator<Item = &v1::PolicyEvent> {
        self.kept.iter()
    }

    fn may(&mut self, now: Millis) -> bool {
        if now / 1000 != self.second {
            (self.second, self.made) = (now / 1000, 0);
        }
        self.made += 1;
        self.made <= PER_SECOND
    }
}

impl Agent {
    /// The last events, oldest first.
    pub fn events(&self) -> impl Iterator<Item = &v1::PolicyEvent> {
        self.events.kept()
    }

    /// The kernel does not tell of packets. Everything else works.
    pub fn no_events(&mut self, why: &str) {
        tracing::warn!(
            why,
            "the kernel does not tell of denied packets: is nfnetlink_log there?"
        );
        self.events_problem = Some(format!(
            "denied packets are not told of, everything else works: netlink log (nfnetlink_log) fails: {why}"
        ));
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
            event.direction = match direction {
                Direction::Egress => "egress",
                Direction::Ingress => "ingress",
            }
            .to_owned();
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
