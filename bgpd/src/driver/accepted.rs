//! Writes the condition Accepted of the objects of one kind.
//!
//! Every node comes to the same verdict, so each waits a while of its own and writes only what nobody else has written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crds::condition::{ACCEPTED, Condition, ConditionStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::config::kubernetes::Verdict;

/// Nodes spread their writes over this time, milliseconds.
const SPREAD: u64 = 2000;

/// Wait after a failed write.
const RETRY: Duration = Duration::from_secs(10);

/// A write that is not answered for so long has failed: an API server that went away in the middle says nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Longest wait before a condition that others overwrite is written again.
const LONGEST: Duration = Duration::from_secs(600);

/// Own writes count for so long after the last of them.
const CALM: Duration = Duration::from_secs(1800);

/// What is known of an object's status.
struct Seen {
    version: Option<String>,
    generation: Option<i64>,
    conditions: Vec<Condition>,
}

/// Own writes of one condition.
struct Written {
    generation: Option<i64>,
    times: u32,
    at: Instant,
}

impl Written {
    /// Whether they still count, for that generation of the object.
    fn counts(&self, generation: Option<i64>, now: Instant) -> bool {
        self.generation == generation && self.at + CALM >= now
    }
}

/// Writes conditions when they are due.
pub(crate) struct Writer {
    api: Api<DynamicObject>,
    wait: Duration,
    seen: BTreeMap<String, Seen>,
    due: BTreeMap<String, (Instant, Verdict)>,
    /// How often, and when last, the condition of this generation of an object was written. Speakers of different releases,
    /// or with a different past, may differ in their verdicts, and would overwrite each other without end.
    written: BTreeMap<String, Written>,
    kind: String,
    /// Not to repeat the same failure.
    failure: Option<String>,
}

impl Writer {
    pub(crate) fn new<K: Resource<DynamicType = ()>>(client: Client, node: &str) -> Self {
        let spread = node.bytes().fold(0_u64, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(byte.into())
        });
        Self {
            // Not as the kind itself: the answer may be one that cannot be read as such.
            api: Api::all_with(client, &ApiResource::erase::<K>(&())),
            wait: Duration::from_millis(spread % SPREAD),
            seen: BTreeMap::new(),
            due: BTreeMap::new(),
            written: BTreeMap::new(),
            kind: K::kind(&()).into_owned(),
            failure: None,
        }
    }

    /// An object is there or has changed; `conditions` are those it has, if it can be read.
    pub(crate) fn seen<K: Resource>(
        &mut self,
        name: &str,
        object: &DeserializeGuard<K>,
        conditions: impl Fn(&K) -> Option<Vec<Condition>>,
    ) {
        let read = object.0.as_ref().ok();
        let conditions = read.and_then(conditions).unwrap_or_default();
        let (version, generation) = (object.resource_version(), object.meta().generation);
        self.seen.insert(
            name.to_owned(),
            Seen {
                version,
                generation,
                conditions,
            },
        );
    }

    /// An object is gone.
    pub(crate) fn gone(&mut self, name: &str) {
        self.seen.remove(name);
        self.due.remove(name);
        self.written.remove(name);
    }

    /// Only these objects exist.
    pub(crate) fn only(&mut self, names: &BTreeSet<String>) {
        self.seen.retain(|name, _| names.contains(name));
        self.due.retain(|name, _| names.contains(name));
        self.written.retain(|name, _| names.contains(name));
    }

    /// The verdicts are these now.
    pub(crate) fn judge(&mut self, verdicts: Vec<Verdict>) {
        for verdict in verdicts {
            let Some(seen) = self.seen.get(&verdict.name) else {
                continue;
            };
            if is_written(seen, &verdict) {
                self.due.remove(&verdict.name);
            } else if self
                .due
                .get(&verdict.name)
                .is_none_or(|(_, known)| *known != verdict)
            {
                let now = Instant::now();
                let written = self.written.get(&verdict.name);
                let written = written.filter(|it| it.counts(seen.generation, now));
                let held = written.map_or(now, |it| now.max(it.at + pause(it.times)));
                let at = held + self.wait;
                self.due.insert(verdict.name.clone(), (at, verdict));
            }
        }
    }

    /// Writes what is due.
    pub(crate) async fn write_due(&mut self) {
        let now = Instant::now();
        let names: Vec<String> = self
            .due
            .iter()
            .filter(|(_, (at, _))| *at <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            let Some((_, verdict)) = self.due.remove(&name) else {
                continue;
            };
            let Some(seen) = self.seen.get(&name) else {
                continue;
            };
            let patch = json!({
                // Somebody else's write in between is looked at first.
                "metadata": {"resourceVersion": seen.version},
                "status": {"conditions": conditions(seen, &verdict)},
            });
            let generation = seen.generation;
            let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
            let write = self.api.patch_status(&name, &params, &patch);
            let Ok(answer) = tokio::time::timeout(PATIENCE, write).await else {
                self.due.insert(name, (now + RETRY, verdict));
                // The others would wait as long, and what is watched with them.
                return;
            };
            match answer {
                Ok(_) => {
                    self.failure = None;
                    self.wrote(name, generation, now);
                }
                // The watch brings the newer version, and with it another verdict.
                Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {
                    debug!(
                        kind = self.kind,
                        name, "a condition was not written: the object has changed"
                    );
                }
                Err(e) => {
                    let text = e.to_string();
                    if self.failure.as_ref() != Some(&text) {
                        warn!(
                            kind = self.kind,
                            name,
                            error = text,
                            "cannot write a condition"
                        );
                    }
                    self.failure = Some(text);
                    self.due.insert(name, (now + RETRY, verdict));
                }
            }
        }
    }

    fn wrote(&mut self, name: String, generation: Option<i64>, at: Instant) {
        let before = self.written.get(&name);
        let again = before.filter(|it| it.counts(generation, at));
        let times = again.map_or(1, |it| it.times.saturating_add(1));
        let written = Written {
            generation,
            times,
            at,
        };
        self.written.insert(name, written);
    }
}

/// How long a condition that was written so often is left as others make it.
fn pause(times: u32) -> Duration {
    // The first corrections are free: verdicts change while a speaker starts.
    match times.checked_sub(3) {
        None => Duration::ZERO,
        Some(more) => Duration::from_secs(4 << more.min(8)).min(LONGEST),
    }
}

/// Status, reason and message of the condition.
fn wanted(verdict: &Verdict) -> (ConditionStatus, &'static str, String) {
    match &verdict.problem {
        None => (
            ConditionStatus::True,
            "Valid",
            "the speakers of the selected nodes use it".to_owned(),
        ),
        Some(problem) => (
            ConditionStatus::False,
            problem.reason,
            problem.message.clone(),
        ),
    }
}

fn is_written(seen: &Seen, verdict: &Verdict) -> bool {
    let (status, reason, message) = wanted(verdict);
    seen.conditions.iter().any(|condition| {
        condition.type_ == ACCEPTED
            && condition.status == status
            && condition.reason == reason
            && condition.message == message
            && condition.observed_generation == seen.generation
    })
}

/// All conditions of the object with the new one.
fn conditions(seen: &Seen, verdict: &Verdict) -> Vec<Condition> {
    let (status, reason, message) = wanted(verdict);
    let before = seen
        .conditions
        .iter()
        .find(|condition| condition.type_ == ACCEPTED);
    let last_transition_time = match before {
        Some(before) if before.status == status => before.last_transition_time.clone(),
        _ => Time(Timestamp::now()),
    };
    let mut conditions: Vec<Condition> = seen
        .conditions
        .iter()
        .filter(|condition| condition.type_ != ACCEPTED)
        .cloned()
        .collect();
    conditions.push(Condition {
        type_: ACCEPTED.to_owned(),
        status,
        reason: reason.to_owned(),
        message,
        last_transition_time,
        observed_generation: seen.generation,
    });
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::kubernetes::Problem;

    fn verdict(problem: Option<&str>) -> Verdict {
        Verdict {
            name: "tor-a".into(),
            problem: problem.map(|message| Problem {
                reason: "Invalid",
                message: message.to_owned(),
            }),
        }
    }

    #[test]
    fn a_condition_is_written_once_for_each_generation_and_verdict() {
        let mut seen = Seen {
            version: None,
            generation: Some(3),
            conditions: Vec::new(),
        };
        let good = verdict(None);
        assert!(!is_written(&seen, &good));
        seen.conditions = conditions(&seen, &good);
        assert!(is_written(&seen, &good));
        assert!(!is_written(&seen, &verdict(Some("spec.peerIP: no"))));
        seen.generation = Some(4);
        assert!(!is_written(&seen, &good));
        let before = seen.conditions[0].last_transition_time.clone();
        seen.conditions = conditions(&seen, &good);
        assert_eq!(seen.conditions.len(), 1);
        assert_eq!(
            seen.conditions[0].last_transition_time, before,
            "the status is the same"
        );
    }
}
