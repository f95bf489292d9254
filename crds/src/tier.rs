//! `Tier`: a stage of the evaluation of policies.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::error::FieldError;
use crate::policy::DEFAULT_TIER;

/// Place of the tier `default`, in which Kubernetes NetworkPolicies are.
pub const DEFAULT_ORDER: f64 = 1_000_000.0;
/// The tier of ClusterNetworkPolicies that say Admin.
pub const ADMIN_TIER: &str = "kube-admin";
/// Its place.
pub const ADMIN_ORDER: f64 = 1000.0;
/// The tier of ClusterNetworkPolicies that say Baseline.
pub const BASELINE_TIER: &str = "kube-baseline";
/// Its place.
pub const BASELINE_ORDER: f64 = 10_000_000.0;

/// A stage of the evaluation: the policies of a tier decide before those of later tiers are asked. An endpoint that none of
/// its policies selects leaves the tier out. Built in are kube-admin (order 1000, Pass), default (1000000, Deny) and
/// kube-baseline (10000000, Pass); an object may repeat them and not change them.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "margay.io",
    version = "v1",
    kind = "Tier",
    plural = "tiers",
    category = "margay",
    status = "TierStatus",
    derive = "PartialEq",
    doc = "A stage of the evaluation: the policies of a tier decide before those of later tiers are asked.",
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$')")
        .message("the name of a tier is up to 63 of a-z, 0-9 and dashes inside"),
    validation = Rule::new("self.metadata.name != 'default' || (has(self.spec.order) && self.spec.order == 1000000.0 && self.spec.defaultAction == 'Deny')")
        .message("the tier default is built in: set order 1000000 and defaultAction Deny, or use another name"),
    validation = Rule::new("self.metadata.name != 'kube-admin' || (has(self.spec.order) && self.spec.order == 1000.0 && self.spec.defaultAction == 'Pass')")
        .message("the tier kube-admin is built in: set order 1000 and defaultAction Pass, or use another name"),
    validation = Rule::new("self.metadata.name != 'kube-baseline' || (has(self.spec.order) && self.spec.order == 10000000.0 && self.spec.defaultAction == 'Pass')")
        .message("the tier kube-baseline is built in: set order 10000000 and defaultAction Pass, or use another name"),
    printcolumn(name = "Order", type_ = "number", json_path = ".spec.order"),
    printcolumn(name = "Default", type_ = "string", json_path = ".spec.defaultAction"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct TierSpec {
    /// Its place among the tiers, lower first; last when unset. Equal ones go by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// What happens to a flow of an endpoint that a policy of the tier selects and no rule of the tier decides: Deny drops it,
    /// Pass asks the next tier.
    #[serde(default = "deny")]
    #[schemars(schema_with = "crate::policy::schema::tier_action")]
    pub default_action: String,
}

/// Whether the tier is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TierStatus {
    /// Accepted is False when the spec is not understood.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

fn deny() -> String {
    "Deny".to_owned()
}

/// A [`Tier`] that was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Name of the object.
    pub name: String,
    /// Place among the tiers; None: last.
    pub order: Option<f64>,
    /// What its rules do not decide goes on to the next tier.
    pub pass: bool,
}

impl Stage {
    /// The tiers that are always there.
    pub fn built_in() -> [Self; 3] {
        [
            (ADMIN_TIER, ADMIN_ORDER, true),
            (DEFAULT_TIER, DEFAULT_ORDER, false),
            (BASELINE_TIER, BASELINE_ORDER, true),
        ]
        .map(|(name, order, pass)| Self {
            name: name.to_owned(),
            order: Some(order),
            pass,
        })
    }
}

impl TryFrom<&Tier> for Stage {
    type Error = FieldError;

    fn try_from(object: &Tier) -> Result<Self, FieldError> {
        let pass = match object.spec.default_action.as_str() {
            "Deny" => false,
            "Pass" => true,
            other => {
                let problem = format!("{other:?} is no default action: set Deny or Pass");
                return Err(FieldError::new("spec.defaultAction", problem));
            }
        };
        if object.spec.order.is_some_and(f64::is_nan) {
            let problem = "is no number: set one, or leave it out to come last";
            return Err(FieldError::new("spec.order", problem));
        }
        let stage = Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            order: object.spec.order,
            pass,
        };
        let fixed = Self::built_in()
            .into_iter()
            .find(|it| it.name == stage.name);
        match fixed {
            Some(fixed) if fixed != stage => {
                let problem = format!("the tier {} is built in: use another name", stage.name);
                Err(FieldError::new("metadata.name", problem))
            }
            _ => Ok(stage),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tier(name: &str, spec: serde_json::Value) -> Result<Stage, FieldError> {
        let object = json!({ "apiVersion": "margay.io/v1", "kind": "Tier", "metadata": { "name": name }, "spec": spec });
        Stage::try_from(&serde_json::from_value::<Tier>(object).unwrap())
    }

    #[test]
    fn a_tier_denies_and_comes_last_when_nothing_is_said() {
        let found = tier("security", json!({})).unwrap();
        assert_eq!((found.order, found.pass), (None, false));
        let found = tier(
            "security",
            json!({ "order": -7.5, "defaultAction": "Pass" }),
        )
        .unwrap();
        assert_eq!((found.order, found.pass), (Some(-7.5), true));
    }

    #[test]
    fn built_in_tiers_are_repeated_and_not_changed() {
        for it in Stage::built_in() {
            let action = if it.pass { "Pass" } else { "Deny" };
            let same = json!({ "order": it.order, "defaultAction": action });
            assert_eq!(tier(&it.name, same), Ok(it.clone()));
            let other = tier(&it.name, json!({ "order": 5 }))
                .unwrap_err()
                .to_string();
            assert!(other.contains("use another name"), "{other}");
        }
    }

    #[test]
    fn errors_name_field_and_fix() {
        let error = tier("x", json!({ "defaultAction": "Allow" })).unwrap_err();
        assert_eq!(
            error.to_string(),
            "spec.defaultAction: \"Allow\" is no default action: set Deny or Pass"
        );
    }
}
