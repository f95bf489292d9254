//! What the condition says.

use std::fmt::Write as _;
use std::sync::Arc;

use crds::condition::ConditionStatus;

use super::{Board, Key, Kind, Object, Policy, Told};

/// Nodes that a message names.
const NAMED: usize = 3;

impl Board {
    /// What the policy should say; `None` while it cannot be known.
    pub(super) fn wanted(&self, key: &Key, policy: &Policy, object: &Object) -> Option<Told> {
        let mut failing: Vec<(&Arc<str>, &str)> = Vec::new();
        let mut waiting: Vec<&Arc<str>> = Vec::new();
        for (node, state) in &policy.nodes {
            if policy.enforced(object, node) {
                continue;
            }
            match &state.error {
                Some(error) => failing.push((node, error)),
                None => waiting.push(node),
            }
        }
        let wanted = policy.nodes.len();
        let enforced = wanted - failing.len() - waiting.len();
        let generation = object.generation;
        let mut message =
            format!("generation {generation} enforced on {enforced} of {wanted} nodes");
        if object.accepted == Some(false) {
            message.push_str("; it is not accepted");
        }
        if let [(node, error), more @ ..] = failing.as_slice() {
            // Nothing is left out but for want of memory, which strings do not report.
            let _ = write!(message, "; {node}: {error}");
            if !more.is_empty() {
                let _ = write!(message, " ({} more nodes fail)", more.len());
            }
        }
        if !waiting.is_empty() {
            let named = waiting.iter().map(|node| match self.is_connected(node) {
                true => node.to_string(),
                false => format!("{node} (not connected)"),
            });
            let _ = write!(message, "; waiting for {}", list(named, waiting.len()));
        }
        if !self.silent.is_empty() {
            let named = self.silent.iter().map(ToString::to_string);
            let _ = write!(
                message,
                "; not heard from {}",
                list(named, self.silent.len())
            );
        }
        let (status, reason) = if object.accepted == Some(false) {
            (ConditionStatus::False, "NotAccepted")
        } else if !failing.is_empty() {
            (ConditionStatus::False, "Failed")
        } else if !waiting.is_empty() {
            (ConditionStatus::False, "Pending")
        } else if !self.silent.is_empty() {
            (ConditionStatus::Unknown, "NodesSilent")
        } else if wanted == 0 && object.accepted.is_none() {
            // Nodes that do not understand it report nothing either.
            return None;
        } else {
            (ConditionStatus::True, "Enforced")
        };
        Some(Told {
            status,
            reason: reason.to_owned(),
            message,
            generation,
            nodes: (key.kind != Kind::ClusterNetworkPolicy).then(|| format!("{enforced}/{wanted}")),
        })
    }

    fn is_connected(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|it| it.stream.is_some())
    }
}

/// The first of these, and how many there are beside.
fn list(named: impl Iterator<Item = String>, all: usize) -> String {
    let mut text = named.take(NAMED).collect::<Vec<_>>().join(", ");
    if all > NAMED {
        let _ = write!(text, " and {} more", all - NAMED);
    }
    text
}
