//! What policies of host endpoints say of a flow that ends in a node, or begins there.

use std::net::IpAddr;

use api::v1;

use super::{End, Flow, View, summary, word};
use crate::feed::HostEndpoint;
use crate::policy::explain::Asked;
use crate::policy::tables::{Direction, HostHook, Verdict};

impl View<'_> {
    /// The host endpoint that an end is: by its name, or by its address.
    pub(super) fn host(&self, end: &End<'_>, address: IpAddr) -> Option<&HostEndpoint> {
        let named = self.engine.host_named(&end.name);
        named.or_else(|| self.engine.host_named(&address.to_string()))
    }

    /// Stage by stage: before connections are tracked, before the destination is translated, and then.
    pub(super) fn at_host(
        self,
        flow: &Flow<'_>,
        direction: Direction,
        host: &HostEndpoint,
    ) -> v1::Judgement {
        let (_, own) = flow.own(direction);
        let (other, peer) = flow.other(direction);
        let mut judgement = v1::Judgement {
            direction: word(direction).to_owned(),
            allowed: true,
            enforced_here: host.local,
            ..Default::default()
        };
        if other
            .governed()
            .is_some_and(|pod| (self.own_node)(own, pod))
        {
            judgement.summary =
                "between a node and its own pods policies of host endpoints are asked only when \
                 defaultEndpointToHostAction is Return"
                    .to_owned();
            return judgement;
        }
        if self
            .engine
            .is_failsafe(direction, peer, flow.protocol, flow.port)
        {
            judgement.summary =
                "a failsafe port: it is open whatever policies of host endpoints say".to_owned();
            return judgement;
        }
        let hooks: &[HostHook] = match direction {
            Direction::Ingress => &[HostHook::RawIn, HostHook::PreDnat, HostHook::LocalIn],
            Direction::Egress => &[HostHook::RawOut, HostHook::LocalOut],
        };
        let asked = Asked {
            own,
            peer,
            protocol: flow.protocol,
            port: flow.port,
            source_port: flow.source_port,
        };
        for hook in hooks {
            let explanation = self.engine.explain_host(*hook, host, &asked);
            let tiers = self.tiers(&explanation, &host.name, flow, direction);
            judgement.tiers.extend(tiers);
            judgement.summary = summary(self.engine, &explanation);
            match explanation.verdict {
                Verdict::Deny => {
                    judgement.allowed = false;
                    return judgement;
                }
                Verdict::Allow if hook.is_raw() => return judgement,
                Verdict::Allow | Verdict::Pass => {}
            }
        }
        judgement
    }
}
