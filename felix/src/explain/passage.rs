//! The host endpoints of nodes that a flow of pods passes on its way, hook by hook.

use std::net::IpAddr;

use api::v1;
use crds::felix_configuration::{Configuration, Failsafe};

use super::{Flow, View, advice, summary};
use crate::feed::{HostEndpoint, HostInterface, Identity};
use crate::policy::explain::{Asked, Explanation};
use crate::policy::hosts::by_interface;
use crate::policy::tables::{Direction, HostHook, Verdict};

/// What is known of nodes.
pub trait Nodes {
    /// The node on which a pod runs.
    fn of_pod(&self, pod: &Identity) -> Option<String>;
    /// The node that has an address.
    fn at(&self, address: IpAddr) -> Option<String>;
    /// Its host endpoints.
    fn hosts(&self, node: &str) -> Vec<HostEndpoint>;
    /// What was chosen for it.
    fn configuration(&self, node: &str) -> Configuration;
    /// The interface by which packets for an address leave it.
    fn interface(&self, node: &str, towards: IpAddr) -> Option<String>;
}

/// Where a flow crosses the border of a node.
pub(super) struct Crossing {
    pub(super) node: String,
    pub(super) host: HostEndpoint,
    /// How that is known, or that it is taken to be so.
    pub(super) known: String,
}

/// What a hook said.
pub(super) struct AtHook {
    pub(super) judgement: v1::Judgement,
    /// Nobody else is asked.
    pub(super) ends: bool,
    explanation: Option<Explanation>,
}

/// What host endpoints say of a flow of pods.
#[derive(Default)]
pub(super) struct Passage {
    /// One of them forbids it.
    pub(super) denied: bool,
    /// Those asked before the policies of the pod it is opened to, in order.
    pub(super) before: Vec<v1::HookJudgement>,
    /// Those asked after them.
    pub(super) after: Vec<v1::HookJudgement>,
    pub(super) advice: Vec<String>,
    pub(super) notes: Vec<String>,
}

impl HostHook {
    /// What a policy says of itself to be asked there.
    pub(super) const fn stage(self) -> &'static str {
        match self {
            Self::LocalIn | Self::LocalOut => "host endpoint",
            Self::ForwardIn | Self::ForwardOut => "applyOnForward",
            Self::PreDnat => "preDNAT",
            Self::RawIn | Self::RawOut => "doNotTrack",
        }
    }
}

impl View<'_> {
    /// Asks the host endpoints between the ends. Those of ends that are nodes themselves are not among them.
    pub(super) fn passage(self, flow: &Flow<'_>) -> Passage {
        let mut passage = Passage::default();
        let [(from, source), (to, destination)] = flow.ends;
        let (leaves, enters) = (self.node_of(from, source), self.node_of(to, destination));
        if leaves.is_some() && leaves == enters || !self.engine.asks_on_the_way() {
            return passage;
        }
        if from.governed().is_some() {
            match &leaves {
                None => passage.notes.push(self.stranger(&from.name)),
                Some(node) => {
                    let hooks = [HostHook::ForwardOut];
                    self.through(flow, &hooks, node, destination, &mut passage);
                }
            }
        }
        if to.governed().is_some() {
            match &enters {
                None => passage.notes.push(self.stranger(&to.name)),
                Some(node) => {
                    let hooks = [HostHook::RawIn, HostHook::PreDnat, HostHook::ForwardIn];
                    self.through(flow, &hooks, node, source, &mut passage);
                }
            }
        }
        passage
    }

    fn stranger(self, pod: &str) -> String {
        match self.node {
            "" => format!(
                "the files do not say on which node {pod} runs: what host endpoints there say of flows that pass is left out"
            ),
            _ => format!(
                "{pod} is not on this node: what host endpoints of its own node say of flows that pass is left out; ask there"
            ),
        }
    }

    fn through(
        self,
        flow: &Flow<'_>,
        hooks: &[HostHook],
        node: &str,
        towards: IpAddr,
        passage: &mut Passage,
    ) {
        let Some(crossing) = self.crossing(node, towards, flow.interface) else {
            if !self.nodes.hosts(node).is_empty() {
                passage.notes.push(format!(
                    "the interface by which it passes {node} has no host endpoint: none is asked there"
                ));
            }
            return;
        };
        for &hook in hooks {
            let Some(mut asked) = self.ask(flow, hook, &crossing) else {
                continue;
            };
            if hook.is_raw() && asked.ends && asked.judgement.allowed {
                asked.judgement.allowed = false;
                asked.judgement.summary.push_str(
                    "; what doNotTrack policies allow is not tracked, and pods take tracked flows only: it is dropped",
                );
            }
            let allowed = asked.judgement.allowed;
            if let Some(explanation) = asked.explanation.filter(|it| it.verdict == Verdict::Deny) {
                let of = format!("host endpoint {}", crossing.host.name);
                let direction = hook.direction();
                let said = advice::advice(self.engine, flow, direction, &of, &explanation);
                passage.advice.extend(said);
            }
            let judged = v1::HookJudgement {
                hook: format!("{} {}", hook.stage(), way(hook.direction())),
                node: node.to_owned(),
                judgement: Some(asked.judgement),
            };
            match hook {
                HostHook::ForwardIn => passage.after.push(judged),
                _ => passage.before.push(judged),
            }
            if !allowed {
                passage.denied = true;
                return;
            }
        }
    }

    /// What a hook says; `None` when no policy is asked there.
    pub(super) fn ask(
        self,
        flow: &Flow<'_>,
        hook: HostHook,
        crossing: &Crossing,
    ) -> Option<AtHook> {
        let direction = hook.direction();
        let ((_, own), (_, peer)) = (flow.own(direction), flow.other(direction));
        let asked = Asked {
            own,
            peer,
            protocol: flow.protocol,
            port: flow.port,
            source_port: flow.source_port,
        };
        let explanation = self.engine.explain_host(hook, &crossing.host, &asked);
        if explanation.tiers.is_empty() {
            return None;
        }
        let mut judgement = v1::Judgement {
            direction: direction.word().to_owned(),
            allowed: true,
            enforced_here: crossing.node == self.node,
            endpoint: crossing.host.name.clone(),
            known: crossing.known.clone(),
            ..Default::default()
        };
        if self.is_failsafe(flow, hook, &crossing.node) {
            judgement.summary =
                "a failsafe port: it is open whatever policies of host endpoints say".to_owned();
            return Some(AtHook {
                judgement,
                ends: false,
                explanation: None,
            });
        }
        judgement.summary = summary(self.engine, &explanation);
        judgement.tiers = self.tiers(&explanation, &crossing.host.name, flow, direction);
        judgement.allowed = explanation.verdict != Verdict::Deny;
        Some(AtHook {
            judgement,
            ends: explanation.verdict == Verdict::Deny
                || hook.is_raw() && explanation.verdict == Verdict::Allow,
            explanation: Some(explanation),
        })
    }

    /// Single packets are compared both ways; flows through a node are not compared.
    fn is_failsafe(self, flow: &Flow<'_>, hook: HostHook, node: &str) -> bool {
        let chosen = self.nodes.configuration(node);
        let (inbound, outbound) = (&chosen.failsafe_inbound, &chosen.failsafe_outbound);
        let (_, peer) = flow.other(hook.direction());
        let open = |ports: &[Failsafe], port| {
            let mut same = ports
                .iter()
                .filter(|it| (it.protocol, it.port) == (flow.protocol, port));
            same.any(|it| it.net.is_none_or(|net| net.contains(peer)))
        };
        match hook {
            HostHook::LocalIn | HostHook::PreDnat => open(inbound, flow.port),
            HostHook::LocalOut => open(outbound, flow.port),
            HostHook::RawIn => open(inbound, flow.port) || open(outbound, flow.source_port),
            HostHook::RawOut => open(outbound, flow.port) || open(inbound, flow.source_port),
            HostHook::ForwardIn | HostHook::ForwardOut => false,
        }
    }

    /// The host endpoint by which a flow from or to an address crosses the border of a node; `None` when none is there.
    pub(super) fn crossing(self, node: &str, towards: IpAddr, wanted: &str) -> Option<Crossing> {
        let mut hosts = self.nodes.hosts(node);
        hosts.sort_by(|a, b| (a.automatic, &a.name).cmp(&(b.automatic, &b.name)));
        let interfaces = by_interface(&hosts);
        let all = interfaces.get(&None).copied();
        let of = |interface: &str| interfaces.get(&Some(interface.to_owned())).copied();
        let found = |host: Option<&HostEndpoint>, known: String| {
            host.map(|host| Crossing {
                node: node.to_owned(),
                host: host.clone(),
                known,
            })
        };
        if !wanted.is_empty() {
            let address: Option<IpAddr> = wanted.parse().ok();
            let is = |host: &&HostEndpoint| {
                host.name == wanted || address.is_some_and(|it| host.addresses.contains(&it))
            };
            let named = of(wanted).or_else(|| hosts.iter().find(is));
            // The name of another node's endpoint says nothing of this one.
            if named.is_some() || self.engine.host_named(wanted).is_none() {
                return found(named.or(all), format!("{wanted}, as asked for"));
            }
        }
        if let Some(interface) = self.nodes.interface(node, towards) {
            let known = format!("{interface}, by which the route to {towards} leads");
            return found(of(&interface).or(all), known);
        }
        let single: Vec<&HostEndpoint> = hosts
            .iter()
            .filter(|host| host.interface != HostInterface::All)
            .collect();
        match single.as_slice() {
            [] => found(all, "all interfaces".to_owned()),
            [one] if all.is_none() => found(
                Some(one),
                "assumed, as the node has no other: --interface says otherwise".to_owned(),
            ),
            [first, ..] => found(
                Some(first),
                "assumed, as the first of several by name: --interface says otherwise".to_owned(),
            ),
        }
    }
}

const fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "in",
        Direction::Egress => "out",
    }
}

#[cfg(test)]
mod tests;
