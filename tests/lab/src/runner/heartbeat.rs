//! The node's condition Ready, by what the network plugin says of itself.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::Shared;
use super::describe::now;

/// Asks and reports as long as the process lives: often while the answer is no.
pub(super) async fn run(shared: Arc<Shared>) {
    let nodes: Api<Node> = Api::all(shared.client.clone());
    let mut reported: Option<Option<String>> = None;
    loop {
        let problem = shared.plugin.status().await.err().map(|e| format!("{e:#}"));
        if reported.as_ref() != Some(&problem) {
            let patch = Patch::Strategic(condition(problem.as_deref()));
            match nodes
                .patch_status(&shared.node.name, &PatchParams::default(), &patch)
                .await
            {
                Ok(_) => {
                    match &problem {
                        None => info!("Ready"),
                        Some(problem) => info!(problem, "not Ready"),
                    }
                    reported = Some(problem);
                }
                Err(error) => warn!(%error, "report the node's condition"),
            }
        }
        let steady = reported == Some(None);
        tokio::time::sleep(Duration::from_millis(if steady { 5000 } else { 250 })).await;
    }
}

fn condition(problem: Option<&str>) -> Value {
    let (status, reason) = match problem {
        None => ("True", "KubeletReady"),
        Some(_) => ("False", "KubeletNotReady"),
    };
    let message = problem.map_or_else(
        || "the node runner is ready".to_owned(),
        |p| format!("the network is not ready: {p}"),
    );
    let now = now();
    json!({
        "status": {
            "conditions": [{
                "type": "Ready",
                "status": status,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": now,
                "lastTransitionTime": now,
            }],
        },
    })
}
