//! Says what is wrong with this node's annotations by an Event of its Node: `kubectl describe node` shows it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource as _};
use tokio::time::Instant;
use tracing::{debug, warn};

/// Wait after a failed write.
const RETRY: Duration = Duration::from_secs(10);

/// Writes an Event for each new problem.
pub(crate) struct Writer {
    recorder: Recorder,
    /// The Node as it was last seen.
    node: Option<ObjectReference>,
    told: Option<String>,
    failed: Option<Instant>,
}

impl Writer {
    pub(crate) fn new(client: Client, node: &str) -> Self {
        let reporter = Reporter {
            controller: "margay-bgpd".to_owned(),
            instance: Some(node.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
            node: None,
            told: None,
            failed: None,
        }
    }

    /// The Node is there.
    pub(crate) fn seen(&mut self, node: &Node) {
        self.node = Some(node.object_ref(&()));
    }

    /// The problem is this one now. One that comes back is told again.
    pub(crate) async fn write(&mut self, problem: Option<&str>) {
        if self.told.as_deref() == problem || self.failed.is_some_and(|at| at.elapsed() < RETRY) {
            return;
        }
        let (Some(problem), Some(node)) = (problem, &self.node) else {
            self.told = None;
            return;
        };
        let event = Event {
            type_: EventType::Warning,
            reason: "InvalidAnnotation".to_owned(),
            note: Some(problem.to_owned()),
            action: "Configure".to_owned(),
            secondary: None,
        };
        let written = self.recorder.publish(&event, node);
        let Ok(written) = tokio::time::timeout(super::accepted::PATIENCE, written).await else {
            self.failed = Some(Instant::now());
            return;
        };
        match written {
            Ok(()) => {
                debug!(problem, "told by an Event of the Node");
                (self.told, self.failed) = (Some(problem.to_owned()), None);
            }
            Err(error) => {
                if self.failed.is_none() {
                    warn!(%error, "cannot write an Event of the Node, trying again");
                }
                self.failed = Some(Instant::now());
            }
        }
    }
}
