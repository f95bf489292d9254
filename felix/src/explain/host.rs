//! What policies of host endpoints say of a flow that ends in a node, or begins there.

use std::net::IpAddr;

use api::v1;
use crds::felix_configuration::ToHost;

use super::passage::Crossing;
use super::{End, Flow, View};
use crate::policy::hosts::by_interface;
use crate::policy::tables::{Direction, HostHook};

impl View<'_> {
    /// The node that an end is in.
    pub(super) fn node_of(self, end: &End<'_>, address: IpAddr) -> Option<String> {
        let bound = end.pod.and_then(|pod| self.nodes.of_pod(pod));
        match end.governed() {
            Some(_) => bound,
            None => bound.or_else(|| self.nodes.at(address)),
        }
    }

    /// Of an end that is no pod with a network of its own.
    pub(super) fn at_node(self, flow: &Flow<'_>, direction: Direction) -> v1::Judgement {
        let (own, address) = flow.own(direction);
        let (other, peer) = flow.other(direction);
        let node = self.node_of(own, address);
        let mut judgement = v1::Judgement {
            direction: direction.word().to_owned(),
            allowed: true,
            enforced_here: own.here || node.as_deref() == Some(self.node),
            ..Default::default()
        };
        if let (Some(node), Some(_)) = (&node, other.governed())
            && self.node_of(other, peer).as_ref() == Some(node)
        {
            self.with_own_pods(flow, direction, node, &mut judgement);
            return judgement;
        }
        let Some(crossing) = self.crossing_at(own, address, node.as_deref(), flow, peer) else {
            judgement.summary = match own.pod {
                Some(_) => "the pod is in its node's network: no policy for pods is asked",
                None => "it is no pod: no policy is asked",
            }
            .to_owned();
            return judgement;
        };
        let hooks: &[HostHook] = match direction {
            Direction::Ingress => &[HostHook::RawIn, HostHook::PreDnat, HostHook::LocalIn],
            Direction::Egress => &[HostHook::RawOut, HostHook::LocalOut],
        };
        self.at_host(flow, hooks, &crossing, &mut judgement);
        judgement
    }

    /// Between a node and its own pods.
    fn with_own_pods(
        self,
        flow: &Flow<'_>,
        direction: Direction,
        node: &str,
        judgement: &mut v1::Judgement,
    ) {
        if direction == Direction::Egress {
            judgement.summary =
                "a node always reaches its own pods: host endpoints are not asked".to_owned();
            return;
        }
        match self.nodes.configuration(node).to_host {
            ToHost::Accept => {
                judgement.summary =
                    "what pods may open to their own node passes, as defaultEndpointToHostAction is Accept: host endpoints \
                     are not asked"
                        .to_owned();
            }
            ToHost::Drop => {
                judgement.allowed = false;
                judgement.summary =
                    "what pods open to their own node is dropped: defaultEndpointToHostAction is Drop"
                        .to_owned();
            }
            ToHost::Return => {
                let hosts = self.nodes.hosts(node);
                match by_interface(&hosts).get(&None) {
                    None => {
                        judgement.summary =
                            "the node has no host endpoint of all interfaces, which is asked about its own pods"
                                .to_owned();
                    }
                    Some(&host) => {
                        let crossing = Crossing {
                            node: node.to_owned(),
                            host: host.clone(),
                            known: "as defaultEndpointToHostAction is Return".to_owned(),
                        };
                        self.at_host(flow, &[HostHook::LocalIn], &crossing, judgement);
                    }
                }
            }
        }
    }

    /// The host endpoint that an end is: the one it was called by, or that of the interface.
    fn crossing_at(
        self,
        own: &End<'_>,
        address: IpAddr,
        node: Option<&str>,
        flow: &Flow<'_>,
        peer: IpAddr,
    ) -> Option<Crossing> {
        let named = self.engine.host_named(&own.name);
        let named = named.filter(|host| host.name == own.name);
        let (host, known) = match (named, node) {
            (Some(host), _) => (host, "as asked for"),
            (None, Some(node)) => return self.crossing(node, peer, flow.interface),
            (None, None) => (
                self.engine.host_named(&address.to_string())?,
                "by its address",
            ),
        };
        Some(Crossing {
            node: node.unwrap_or_default().to_owned(),
            host: host.clone(),
            known: known.to_owned(),
        })
    }

    /// Stage by stage: before connections are tracked, before the destination is translated, and then.
    fn at_host(
        self,
        flow: &Flow<'_>,
        hooks: &[HostHook],
        crossing: &Crossing,
        judgement: &mut v1::Judgement,
    ) {
        judgement.endpoint.clone_from(&crossing.host.name);
        judgement.known.clone_from(&crossing.known);
        "no policy selects it, so everything may pass".clone_into(&mut judgement.summary);
        for &hook in hooks {
            let Some(asked) = self.ask(flow, hook, crossing) else {
                continue;
            };
            judgement.tiers.extend(asked.judgement.tiers);
            judgement.summary = asked.judgement.summary;
            judgement.allowed = asked.judgement.allowed;
            if !judgement.allowed || asked.ends {
                if hook.passes() {
                    judgement.summary = format!("{}: {}", hook.stage(), judgement.summary);
                }
                return;
            }
        }
    }
}
