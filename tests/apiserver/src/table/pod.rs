//! What `kubectl get pods` shows.

use serde_json::Value;

use super::age;

fn list<'v>(pod: &'v Value, place: &str, field: &str) -> &'v [Value] {
    pod[place][field]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn statuses(pod: &Value) -> &[Value] {
    list(pod, "status", "containerStatuses")
}

/// Ready containers of all: `1/2`.
pub(super) fn ready(pod: &Value, _now: i64) -> Value {
    let all = list(pod, "spec", "containers").len();
    let ready = statuses(pod)
        .iter()
        .filter(|status| status["ready"] == true && status["state"]["running"].is_object())
        .count();
    format!("{ready}/{all}").into()
}

/// The phase, or what keeps the pod from it.
pub(super) fn status(pod: &Value, _now: i64) -> Value {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut reason = text(&pod["status"]["phase"]);
    let own_reason = text(&pod["status"]["reason"]);
    if !own_reason.is_empty() {
        reason.clone_from(&own_reason);
    }
    let conditions = list(pod, "status", "conditions");
    if conditions
        .iter()
        .any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated")
    {
        reason = "SchedulingGated".to_owned();
    }
    match starting(pod) {
        Some(init) => reason = init,
        None => {
            let mut running = false;
            for status in statuses(pod).iter().rev() {
                let state = &status["state"];
                let waiting = text(&state["waiting"]["reason"]);
                let terminated = &state["terminated"];
                if !waiting.is_empty() {
                    reason = waiting;
                } else if terminated.is_object() {
                    reason = ended(terminated);
                } else if status["ready"] == true && state["running"].is_object() {
                    running = true;
                }
            }
            // One container done and another running is a running pod.
            if reason == "Completed" && running {
                let ready = conditions
                    .iter()
                    .any(|c| c["type"] == "Ready" && c["status"] == "True");
                reason = if ready { "Running" } else { "NotReady" }.to_owned();
            }
        }
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        reason = if own_reason == "NodeLost" {
            "Unknown"
        } else {
            "Terminating"
        }
        .to_owned();
    }
    reason.into()
}

/// `Init:…` while an init container is not done.
fn starting(pod: &Value) -> Option<String> {
    let all = list(pod, "spec", "initContainers").len();
    for (position, status) in list(pod, "status", "initContainerStatuses")
        .iter()
        .enumerate()
    {
        let state = &status["state"];
        if state["terminated"]["exitCode"] == 0 {
            continue;
        }
        if state["terminated"].is_object() {
            return Some(format!("Init:{}", ended(&state["terminated"])));
        }
        return Some(match state["waiting"]["reason"].as_str() {
            Some(reason) if !reason.is_empty() && reason != "PodInitializing" => {
                format!("Init:{reason}")
            }
            _ => format!("Init:{position}/{all}"),
        });
    }
    None
}

/// Why a container ended.
fn ended(terminated: &Value) -> String {
    match terminated["reason"]
        .as_str()
        .filter(|reason| !reason.is_empty())
    {
        Some(reason) => reason.to_owned(),
        None => match terminated["signal"].as_i64().filter(|signal| *signal != 0) {
            Some(signal) => format!("Signal:{signal}"),
            None => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
        },
    }
}

/// How often containers were restarted, and when last.
pub(super) fn restarts(pod: &Value, now: i64) -> Value {
    let count: i64 = statuses(pod)
        .iter()
        .filter_map(|status| status["restartCount"].as_i64())
        .fold(0, i64::saturating_add);
    let last = statuses(pod)
        .iter()
        .filter_map(|status| status["lastState"]["terminated"]["finishedAt"].as_str())
        .max();
    match last {
        Some(last) if count > 0 => format!("{count} ({} ago)", age::since(last, now)).into(),
        _ => count.to_string().into(),
    }
}

/// The first address.
pub(super) fn ip(pod: &Value, _now: i64) -> Value {
    let first = list(pod, "status", "podIPs")
        .first()
        .and_then(|ip| ip["ip"].as_str())
        .or_else(|| pod["status"]["podIP"].as_str());
    first.unwrap_or("<none>").into()
}

/// Fulfilled readiness gates of all.
pub(super) fn readiness_gates(pod: &Value, _now: i64) -> Value {
    let gates = list(pod, "spec", "readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let fulfilled = gates
        .iter()
        .filter(|gate| {
            list(pod, "status", "conditions")
                .iter()
                .any(|c| c["type"] == gate["conditionType"] && c["status"] == "True")
        })
        .count();
    format!("{fulfilled}/{}", gates.len()).into()
}
