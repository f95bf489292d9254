//! What rules can say and the evaluator does not read yet: such a rule allows nothing, and forbids whatever it could.

use super::model::{Action, Peer, PortMatch, Rule};

/// The rule with what is not read decided for the worst.
pub(super) fn closed(rule: &Rule) -> Option<Rule> {
    let peers = |peer: &Peer| {
        matches!(
            peer,
            Peer::Endpoints(_) | Peer::Nodes(_) | Peer::Service { .. }
        )
    };
    let mut lists = rule.peers.iter().flat_map(|term| term.any.iter());
    let mut ports = rule.traffic.iter().flat_map(|term| &term.any);
    let unread = !rule.own.is_empty()
        || !rule.source_ports.is_empty()
        || lists.any(peers)
        || ports.any(|port| matches!(port, PortMatch::Service { .. }));
    match rule.action {
        _ if !unread => Some(rule.clone()),
        Action::Deny => Some(Rule::new(Action::Deny)),
        Action::Allow | Action::Pass | Action::Log => None,
    }
}
