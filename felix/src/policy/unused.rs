//! Policies and rules that do nothing: they select nobody, match nobody, or are never reached.

use std::collections::BTreeSet;

use super::engine::{Engine, Installed};
use super::model::{Action, Peer, PeerList, PolicyKey, PortMatch, Rule, Selection, Term};
use super::selecting::Labelled;
use super::tables::Direction;
use super::told::Object;
use crate::feed::Identity;

/// Something that does nothing, as far as the cluster of this moment goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// The policy.
    pub key: PolicyKey,
    /// The rule of it, by direction and place; `None` for the policy as a whole.
    pub rule: Option<(Direction, usize)>,
    /// Why it does nothing.
    pub why: String,
}

impl Engine {
    /// Everything that does nothing, by policy. Looks at every pod for every policy: not for a thread with other work.
    #[must_use]
    pub fn unused(&self) -> Vec<Unused> {
        let mut found = Vec::new();
        for (key, installed) in &self.policies {
            if installed.closed {
                continue;
            }
            let policy = &installed.policy;
            let selected = self.selected(installed);
            // Host endpoints have no namespace.
            let hosts = policy.subject.namespace().is_none()
                && matches!(policy.subject, Selection::Endpoints(_));
            if selected.is_empty() && !hosts {
                found.push(Unused {
                    key: key.clone(),
                    rule: None,
                    why: format!("it selects nobody: there are no {}", policy.subject),
                });
                continue;
            }
            for direction in Direction::BOTH {
                for (index, rule) in policy.rules(direction).into_iter().flatten().enumerate() {
                    let why = self
                        .never(rule, direction, &selected, hosts)
                        .or_else(|| self.shadowed(installed, direction, index, rule));
                    found.extend(why.map(|why| Unused {
                        key: key.clone(),
                        rule: Some((direction, index)),
                        why,
                    }));
                }
            }
        }
        found
    }

    fn selected(&self, installed: &Installed) -> Vec<&Identity> {
        let subject = &installed.policy.subject;
        let pods = self.index.residents().map(|(_, pod)| &pod.identity);
        pods.filter(|pod| subject.selects(Labelled::Pod(pod), &self.index.inherited))
            .collect()
    }

    /// Why a rule can match nothing.
    fn never(
        &self,
        rule: &Rule,
        direction: Direction,
        selected: &[&Identity],
        hosts: bool,
    ) -> Option<String> {
        let nobody = rule.peers.iter().find(|term| !self.somebody(term));
        if let Some(term) = nobody {
            return Some(format!("nobody matches it: there are no {}", term.any));
        }
        let mut positive = rule.traffic.iter().filter(|term| !term.negated);
        let empty = positive.clone().any(|term| term.any.is_empty());
        if empty {
            return Some("it names no traffic at all".to_owned());
        }
        let unnamed = positive.find(|term| {
            term.any
                .iter()
                .all(|entry| !self.has_port(entry, direction, selected, hosts))
        });
        let term = unnamed?;
        Some(format!("no pod that it is about has a {term}"))
    }

    /// Whether anybody at all matches the term. Of blocks it is taken that somebody may; of Nodes and Services too, when
    /// none is known at all: files often leave them out.
    fn somebody(&self, term: &Term<PeerList>) -> bool {
        if term.negated {
            return true;
        }
        let list = &term.any;
        let inherited = &self.index.inherited;
        let known = |kind: fn(&Object) -> bool| self.others.objects().any(kind);
        let taken = |peer: &Peer| match peer {
            Peer::Net { .. } => true,
            Peer::Nodes(_) => !known(|it| matches!(it, Object::Node(_))),
            Peer::Service { .. } => !known(|it| matches!(it, Object::Service(_))),
            Peer::Pods(_) | Peer::Endpoints(_) => false,
        };
        let mut pods = self.index.residents();
        let mut sets = self.others.sets.values().map(|set| &set.now);
        list.iter().any(taken)
            || pods.any(|(_, pod)| list.selects(Labelled::Pod(&pod.identity), inherited))
            || sets.any(|set| !set.nets.is_empty() && list.selects(Labelled::Set(set), inherited))
            || self.others.objects().any(|it| it.listed(list, inherited))
    }

    /// Whether an entry may match: a name needs somebody who gives it to a port.
    fn has_port(
        &self,
        entry: &PortMatch,
        direction: Direction,
        selected: &[&Identity],
        hosts: bool,
    ) -> bool {
        let PortMatch::Named { protocol, name } = entry else {
            return true;
        };
        let has = |pod: &Identity| {
            let mut ports = pod.named_ports.iter();
            ports.any(|port| port.protocol == *protocol && port.name == *name)
        };
        match direction {
            Direction::Ingress => hosts || selected.iter().any(|pod| has(pod)),
            Direction::Egress => self.index.residents().any(|(_, pod)| has(&pod.identity)),
        }
    }

    /// The rule before it that matches whenever it does, in the same policy or in one before it in the tier that
    /// selects the same.
    fn shadowed(
        &self,
        installed: &Installed,
        direction: Direction,
        index: usize,
        rule: &Rule,
    ) -> Option<String> {
        let own = &installed.policy;
        let place = |it: &Installed| (it.policy.order, it.policy.key.clone());
        let ahead = self.policies.values().filter(|it| {
            it.policy.tier == own.tier
                && it.policy.subject == own.subject
                && it.policy.stage == own.stage
                && it.policy.enforcement == Default::default()
                && place(it) <= place(installed)
        });
        for other in ahead {
            let same = other.policy.key == own.key;
            let rules = other.policy.rules(direction).unwrap_or_default();
            let before = if same { index } else { rules.len() };
            let wider = rules
                .iter()
                .take(before)
                .position(|earlier| earlier.action != Action::Log && weaker(earlier, rule));
            if let Some(at) = wider {
                let word = direction.word();
                return Some(format!(
                    "it is never reached: {word}[{at}] of {} {} matches all that it matches",
                    other.policy.key.kind, other.policy.key
                ));
            }
        }
        None
    }
}

/// Whether one rule asks for nothing that the other does not ask for too.
fn weaker(one: &Rule, other: &Rule) -> bool {
    fn among<T: Ord>(some: &[Term<T>], all: &[Term<T>]) -> bool {
        let all: BTreeSet<&Term<T>> = all.iter().collect();
        some.iter().all(|term| all.contains(term))
    }
    among(&one.peers, &other.peers)
        && among(&one.own, &other.own)
        && among(&one.traffic, &other.traffic)
        && among(&one.source_ports, &other.source_ports)
}
