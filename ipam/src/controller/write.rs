//! Writes the condition Programmed.

use crds::Condition;
use crds::condition::PROGRAMMED;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::PATIENCE;
use crate::programmed::{Failure, Key, Told};

/// All conditions of an object with the new one, which keeps its time while its status stays.
pub(super) fn updated(before: &[Condition], told: &Told) -> Vec<Condition> {
    let (old, mut conditions): (Vec<_>, Vec<_>) = before
        .iter()
        .cloned()
        .partition(|condition| condition.type_ == PROGRAMMED);
    let same = old.into_iter().find(|it| it.status == told.status);
    conditions.push(Condition {
        type_: PROGRAMMED.to_owned(),
        status: told.status,
        reason: told.reason.clone(),
        message: told.message.clone(),
        last_transition_time: same
            .map_or_else(|| Time(Timestamp::now()), |it| it.last_transition_time),
        observed_generation: Some(told.generation),
    });
    conditions
}

/// Writes them, if the object still has that version; returns the new one.
pub(super) async fn write(
    client: Client,
    key: &Key,
    version: &str,
    told: &Told,
    conditions: &[Condition],
) -> Result<String, Failure> {
    let resource = key.kind.resource();
    let api: Api<DynamicObject> = match key.namespace.as_str() {
        "" => Api::all_with(client, &resource),
        namespace => Api::namespaced_with(client, namespace, &resource),
    };
    let mut status = json!({ "conditions": conditions });
    if let Some(nodes) = &told.nodes {
        status["enforcedOn"] = json!(nodes);
    }
    let patch = json!({ "metadata": { "resourceVersion": version }, "status": status });
    let params = PatchParams::default();
    let patch = Patch::Merge(&patch);
    let answer = tokio::time::timeout(PATIENCE, api.patch_status(&key.name, &params, &patch));
    match answer.await {
        Ok(Ok(object)) => Ok(object.resource_version().unwrap_or_default()),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Failure::Conflict),
        Ok(Err(error)) => {
            tracing::warn!(%key, %error, "a status cannot be written");
            Err(Failure::Away)
        }
        Err(_) => {
            tracing::warn!(%key, "a status cannot be written: the API does not answer");
            Err(Failure::Away)
        }
    }
}

#[cfg(test)]
mod tests {
    use crds::condition::{ACCEPTED, ConditionStatus};

    use super::*;

    #[test]
    fn other_conditions_stay_and_the_time_is_that_of_the_last_change_of_status() {
        let told = |status, message: &str| Told {
            status,
            reason: "Pending".to_owned(),
            message: message.to_owned(),
            generation: 3,
            nodes: None,
        };
        let accepted = Condition {
            type_: ACCEPTED.to_owned(),
            status: ConditionStatus::True,
            reason: "Understood".to_owned(),
            message: String::new(),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            observed_generation: Some(3),
        };
        let mut first = updated(
            std::slice::from_ref(&accepted),
            &told(ConditionStatus::False, "1 of 2"),
        );
        assert_eq!(first[0], accepted);
        first[1].last_transition_time = Time(Timestamp::UNIX_EPOCH);
        let second = updated(&first, &told(ConditionStatus::False, "1 of 3"));
        assert_eq!(second.len(), 2);
        assert_eq!(second[1].message, "1 of 3");
        assert_eq!(second[1].last_transition_time, Time(Timestamp::UNIX_EPOCH));
        let third = updated(&second, &told(ConditionStatus::True, "3 of 3"));
        assert_ne!(third[1].last_transition_time, Time(Timestamp::UNIX_EPOCH));
    }
}
