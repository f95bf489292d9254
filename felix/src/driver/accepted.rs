//! Writes the condition Accepted of objects that policies are made of.
//!
//! Every node comes to the same verdict, so each waits a while of its own and writes only what nobody else has written.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::Condition;
use crds::condition::{ACCEPTED, ConditionStatus};
use crds::host_endpoint::Endpoint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::ObjectMeta;
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Nodes spread their writes over this time, milliseconds.
const SPREAD: u64 = 2000;
/// Wait after a failed write, and for its answer.
const RETRY: Duration = Duration::from_secs(10);
/// Longest wait before a condition that others overwrite is written again.
const LONGEST: Duration = Duration::from_secs(600);

mod rivals;
pub(super) use rivals::Rivals;

/// An object as it is now.
#[derive(Debug, Clone)]
pub(super) struct Told {
    metadata: ObjectMeta,
    conditions: Vec<Condition>,
    /// Why it is not understood.
    problem: Option<String>,
    /// What only one of its kind can have.
    claim: Option<Endpoint>,
    /// Who has that, when it is another.
    conflict: Option<String>,
}

impl Told {
    /// An object with these conditions; `problem` says why it is not understood.
    pub(super) fn new(
        metadata: &ObjectMeta,
        conditions: Option<&[Condition]>,
        problem: Option<String>,
    ) -> Self {
        Self {
            metadata: metadata.clone(),
            conditions: conditions.unwrap_or_default().to_vec(),
            problem,
            claim: None,
            conflict: None,
        }
    }

    /// An object that claims what only one of its kind can have.
    pub(super) fn claiming(self, claim: Option<Endpoint>) -> Self {
        Self { claim, ..self }
    }

    fn key(&self) -> Key {
        let ObjectMeta {
            namespace, name, ..
        } = &self.metadata;
        (namespace.clone(), name.clone().unwrap_or_default())
    }

    fn wanted(&self) -> (ConditionStatus, &'static str, &str) {
        match (&self.problem, &self.conflict) {
            (None, None) => (ConditionStatus::True, "Understood", ""),
            (Some(problem), _) => (ConditionStatus::False, "NotUnderstood", problem),
            (None, Some(conflict)) => (ConditionStatus::False, "Conflict", conflict),
        }
    }

    fn is_written(&self) -> bool {
        let (status, reason, message) = self.wanted();
        self.conditions.iter().any(|condition| {
            condition.type_ == ACCEPTED
                && condition.status == status
                && condition.reason == reason
                && condition.message == message
                && condition.observed_generation == self.metadata.generation
        })
    }

    /// All conditions of the object with the new one, which keeps its time while its status stays.
    fn updated(&self) -> Vec<Condition> {
        let (status, reason, message) = self.wanted();
        let (before, mut conditions): (Vec<_>, Vec<_>) = self
            .conditions
            .iter()
            .cloned()
            .partition(|condition| condition.type_ == ACCEPTED);
        let same = before.into_iter().find(|it| it.status == status);
        conditions.push(Condition {
            type_: ACCEPTED.to_owned(),
            status,
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: same
                .map_or_else(|| Time(Timestamp::now()), |it| it.last_transition_time),
            observed_generation: self.metadata.generation,
        });
        conditions
    }
}

/// Namespace, if it has one, and name.
type Key = (Option<String>, String);

/// An object whose condition is not as it should be.
struct Due {
    told: Told,
    at: Instant,
}

/// Own writes for one generation of an object: versions of felix that differ in their verdicts must not overwrite each
/// other without end.
struct Written {
    generation: Option<i64>,
    times: u32,
    at: Instant,
}

/// Starts the writer for one kind; what is sent to it is judged.
pub(super) fn start<K: Resource<DynamicType = ()>>(
    client: &Client,
    node: &str,
) -> mpsc::Sender<Told> {
    let (sender, told) = mpsc::channel(64);
    let spread = node.bytes().fold(0_u64, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(byte.into())
    });
    let resource = ApiResource::erase::<K>(&());
    let wait = Duration::from_millis(spread % SPREAD);
    tokio::spawn(run(client.clone(), resource, wait, told));
    sender
}

async fn run(
    client: Client,
    resource: ApiResource,
    wait: Duration,
    mut told: mpsc::Receiver<Told>,
) {
    let mut due: BTreeMap<Key, Due> = BTreeMap::new();
    let mut written: BTreeMap<Key, Written> = BTreeMap::new();
    loop {
        let next = due.values().map(|it| it.at).min();
        let wake = tokio::time::sleep_until(next.unwrap_or_else(|| Instant::now() + LONGEST));
        tokio::select! {
            object = told.recv() => {
                let Some(object) = object else { return };
                let key = object.key();
                if object.is_written() {
                    due.remove(&key);
                    continue;
                }
                let now = Instant::now();
                let own = written.get(&key).filter(|it| it.generation == object.metadata.generation);
                let held = own.map_or(now, |it| now.max(it.at + pause(it.times)));
                // Later versions of the object do not put the write off.
                let at = due.get(&key).map_or(held + wait, |it| it.at);
                due.insert(key, Due { told: object, at });
            }
            () = wake => {
                let now = Instant::now();
                let ready: Vec<Key> = due
                    .iter()
                    .filter(|(_, it)| it.at <= now)
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in ready {
                    let Some(it) = due.remove(&key) else { continue };
                    match write(&client, &resource, &key, &it.told).await {
                        Ok(()) => note(&mut written, key, it.told.metadata.generation, now),
                        Err(error) => {
                            tracing::warn!(kind = resource.kind, name = key.1, error, "a condition cannot be written");
                            due.insert(key, Due { at: now + RETRY, ..it });
                        }
                    }
                }
            }
        }
    }
}

fn note(written: &mut BTreeMap<Key, Written>, key: Key, generation: Option<i64>, at: Instant) {
    written.retain(|_, it| it.at + LONGEST * 2 > at);
    let before = written.get(&key).filter(|it| it.generation == generation);
    let times = before.map_or(1, |it| it.times.saturating_add(1));
    written.insert(
        key,
        Written {
            generation,
            times,
            at,
        },
    );
}

/// How long a condition that was written so often is left as others make it.
fn pause(times: u32) -> Duration {
    match times.checked_sub(2) {
        None => Duration::ZERO,
        Some(more) => Duration::from_secs(4 << more.min(8)).min(LONGEST),
    }
}

async fn write(
    client: &Client,
    resource: &ApiResource,
    (namespace, name): &Key,
    told: &Told,
) -> Result<(), String> {
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    };
    let patch = json!({
        // Somebody else's write in between is looked at first: the watch brings it.
        "metadata": { "resourceVersion": told.metadata.resource_version },
        "status": { "conditions": told.updated() },
    });
    let params = PatchParams::default();
    let patch = Patch::Merge(&patch);
    let answer = tokio::time::timeout(RETRY, api.patch_status(name, &params, &patch)).await;
    match answer {
        Err(_) => Err("the API does not answer".to_owned()),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(generation: i64, conditions: &[Condition], problem: Option<&str>) -> Told {
        let metadata = ObjectMeta {
            generation: Some(generation),
            ..ObjectMeta::default()
        };
        Told::new(&metadata, Some(conditions), problem.map(str::to_owned))
    }

    #[test]
    fn a_condition_is_written_once_for_each_generation_and_verdict() {
        let first = told(3, &[], None);
        assert!(!first.is_written());
        let conditions = first.updated();
        assert!(told(3, &conditions, None).is_written());
        assert!(!told(4, &conditions, None).is_written());
        let refused = told(3, &conditions, Some("spec.order: no"));
        assert!(!refused.is_written());
        let [condition] = &refused.updated()[..] else {
            panic!("one condition takes the place of the other");
        };
        assert_eq!(condition.status, ConditionStatus::False);
        assert_eq!(condition.message, "spec.order: no");
        let again = told(4, &conditions, None).updated();
        let time = |it: &[Condition]| it[0].last_transition_time.clone();
        assert_eq!(time(&again), time(&conditions), "the status is the same");
    }

    #[test]
    fn whoever_is_contradicted_waits_longer_and_longer() {
        assert_eq!(pause(1), Duration::ZERO);
        assert!(pause(2) < pause(4) && pause(4) < pause(8));
        assert_eq!(pause(u32::MAX), LONGEST);
    }
}
