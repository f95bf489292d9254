//! Kubernetes NetworkPolicy → [`Policy`].

use thiserror::Error;

use super::model::Policy;

/// Why a policy object cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct PolicyError {
    /// Path of the field, as in `spec.ingress[0].from[1].ipBlock.cidr`.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub problem: String,
    /// What to enforce while no earlier version is in force: the same pods and directions with no rule, so that the
    /// object allows nothing. `None` when not even the selection can be read.
    pub closed: Option<Box<Policy>>,
}
