//! What felix writes to the Kubernetes API. Each write answers with an input for the agent; none is retried here: the
//! agent decides again with what it knows then.

use std::time::Duration;

use crds::condition::{self, Condition, ConditionStatus};
use crds::ipam_block::{Allocation, Block};
use crds::net::Cidr;
use crds::{IPAMBlock, IPPool};
use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{DeserializeGuard, ObjectMeta};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::agent::input::{Fetched, Input};
use crate::terms::Complaint;
use crate::translate;

/// Longest that one write may take. An API server that hangs answers nothing, and its connection stays open.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What comes of `work`, which is `lost` when it takes too long or panics: whoever waits for an answer always gets one.
pub async fn outcome(
    work: impl Future<Output = Option<Input>> + Send + 'static,
    patience: Duration,
    lost: Option<Input>,
) -> Option<Input> {
    let done = tokio::spawn(tokio::time::timeout(patience, work)).await;
    match done {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => {
            tracing::warn!("the API does not answer");
            lost
        }
        Err(error) => {
            tracing::error!(%error, "a write to the API broke off");
            lost
        }
    }
}

/// Claims a block: the create is the only arbiter.
pub async fn create_block(client: Client, cidr: Cidr, block: IPAMBlock) -> Input {
    let api: Api<IPAMBlock> = Api::all(client);
    let answer = match api.create(&PostParams::default(), &block).await {
        Ok(made) => ipam::Input::Created {
            cidr,
            uid: made.metadata.uid.unwrap_or_default(),
        },
        Err(kube::Error::Api(status)) if status.code == 409 => {
            // Our own create may have been carried out and its answer lost: whose it is, the object says.
            let there = api.get_opt(&block.name_any()).await.ok().flatten();
            match there.and_then(|there| Block::try_from(&there).ok()) {
                Some(there) => ipam::Input::Exists(there),
                None => ipam::Input::CreateFailed { cidr },
            }
        }
        Err(error) => {
            tracing::warn!(%cidr, %error, "claiming a block");
            ipam::Input::CreateFailed { cidr }
        }
    };
    Input::Ipam(Box::new(answer))
}

/// Gives a block back, if it is still the one that is meant.
pub async fn delete_block(client: Client, cidr: Cidr, uid: String) -> Input {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let deleted = Api::<IPAMBlock>::all(client)
        .delete(&cidr.object_name(), &params)
        .await;
    let answer = match deleted {
        Ok(_) => ipam::Input::Deleted { cidr },
        // Gone, or another's by now.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
            ipam::Input::Deleted { cidr }
        }
        Err(error) => {
            tracing::warn!(%cidr, %error, "giving a block back");
            ipam::Input::DeleteFailed { cidr }
        }
    };
    Input::Ipam(Box::new(answer))
}

/// Mirrors a block's allocations into its status. The uid in the patch makes it fail for another epoch.
pub async fn mirror_block(
    client: Client,
    cidr: Cidr,
    uid: String,
    allocations: Vec<Allocation>,
) -> Input {
    let patch = json!({
        "metadata": { "uid": uid },
        "status": {
            "used": allocations.len(),
            "allocations": allocations,
            "updatedAt": k8s_openapi::jiff::Timestamp::now().to_string(),
        },
    });
    let api: Api<IPAMBlock> = Api::all(client);
    let patched = api
        .patch_status(
            &cidr.object_name(),
            &PatchParams::default(),
            &Patch::Merge(patch),
        )
        .await;
    let answer = match patched {
        Ok(_) => ipam::Input::Mirrored { cidr },
        Err(error) => {
            tracing::debug!(%cidr, %error, "mirroring a block");
            ipam::Input::MirrorFailed { cidr }
        }
    };
    Input::Ipam(Box::new(answer))
}

/// Lists the prefixes of every block.
pub async fn survey_blocks(client: Client) -> Input {
    let api: Api<DeserializeGuard<IPAMBlock>> = Api::all(client);
    let answer = match api.list(&ListParams::default()).await {
        Ok(list) => {
            let cidrs = list
                .items
                .into_iter()
                .filter_map(|item| item.0.ok()?.spec.cidr.parse().ok());
            ipam::Input::Surveyed(cidrs.collect())
        }
        Err(error) => {
            tracing::warn!(%error, "listing the blocks of the cluster");
            ipam::Input::SurveyFailed
        }
    };
    Input::Ipam(Box::new(answer))
}

/// Says on a pool whether it is understood: `problem` is why not.
pub async fn pool_condition(client: Client, name: String, problem: Option<String>) {
    let condition = Condition {
        type_: condition::ACCEPTED.to_owned(),
        status: if problem.is_none() {
            ConditionStatus::True
        } else {
            ConditionStatus::False
        },
        reason: if problem.is_none() {
            "Understood"
        } else {
            "NotUnderstood"
        }
        .to_owned(),
        message: problem.unwrap_or_default(),
        last_transition_time: Time(k8s_openapi::jiff::Timestamp::now()),
        observed_generation: None,
    };
    let patch = json!({ "status": { "conditions": [condition] } });
    let api: Api<IPPool> = Api::all(client);
    if let Err(error) = api
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        tracing::warn!(pool = name, %error, "writing the pool's condition");
    }
}

/// Looks at one pod.
pub async fn fetch_pod(client: Client, namespace: String, name: String, uid: String) -> Input {
    let found = match Api::<Pod>::namespaced(client, &namespace)
        .get_opt(&name)
        .await
    {
        Ok(Some(pod)) if pod.metadata.uid.as_deref() == Some(&uid) => {
            Fetched::Pod(translate::pod(pod))
        }
        Ok(_) => Fetched::Gone,
        Err(error) => Fetched::Away(error.to_string()),
    };
    Input::PodFetched(uid, Box::new(found))
}

/// Tells the scheduler that the node has a network: condition NetworkUnavailable is False.
pub async fn network_available(client: Client, node: &str) -> kube::Result<()> {
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let condition = json!({
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": "MargayIsUp",
        "message": "margay-felix is in step and owns an address block",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    });
    let patch = json!({ "status": { "conditions": [condition] } });
    let api: Api<Node> = Api::all(client);
    api.patch_status(node, &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .map(drop)
}

/// Tells the owner of a pod. The name says what is told, so that another life of felix does not tell it again.
pub async fn pod_event(client: Client, node: &str, told: Complaint) {
    let said = format!("{} {}", told.uid, told.message);
    let hash = said.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let Complaint {
        namespace,
        name,
        uid,
        message,
    } = told;
    tracing::warn!(
        namespace,
        name,
        message,
        "a pod's annotation is not in force"
    );
    let pod = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(namespace.clone()),
        name: Some(name),
        uid: Some(uid),
        ..ObjectReference::default()
    };
    tell(
        client,
        node,
        &namespace,
        pod,
        hash,
        "AnnotationNotInForce",
        message,
    )
    .await;
}

/// Tells those who look after a node what does not work there; again when it fails again.
pub async fn node_event(client: Client, node: &str, message: String) {
    let of_node = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(node.to_owned()),
        uid: Some(node.to_owned()),
        ..ObjectReference::default()
    };
    let now = k8s_openapi::jiff::Timestamp::now().as_millisecond();
    let unique = now.cast_unsigned();
    tell(
        client,
        node,
        "default",
        of_node,
        unique,
        "PolicyEventsMissing",
        message,
    )
    .await;
}

/// Makes an event of this number about an object, unless it is there.
async fn tell(
    client: Client,
    node: &str,
    namespace: &str,
    about: ObjectReference,
    number: u64,
    reason: &str,
    message: String,
) {
    let now = Time(k8s_openapi::jiff::Timestamp::now());
    let name = about.name.as_deref().unwrap_or_default();
    // A name of a pod may be as long as one of an event.
    let name = &name[..name.floor_char_boundary(200)];
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{number:016x}")),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: about,
        reason: Some(reason.to_owned()),
        message: Some(message),
        type_: Some("Warning".to_owned()),
        source: Some(EventSource {
            component: Some("margay-felix".to_owned()),
            host: Some(node.to_owned()),
        }),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        ..Event::default()
    };
    let api: Api<Event> = Api::namespaced(client, namespace);
    match api.create(&PostParams::default(), &event).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => tracing::warn!(%error, "making an event"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_breaks_off_is_answered_too() {
        let lost = || Some(Input::Ipam(Box::new(ipam::Input::SurveyFailed)));
        let told = |input| match input {
            Some(Input::Ipam(input)) => matches!(*input, ipam::Input::SurveyFailed),
            _ => false,
        };
        let broken = async { panic!("a bug, or the runtime ends") };
        assert!(told(outcome(broken, PATIENCE, lost()).await));
        assert!(matches!(
            outcome(async { Some(Input::Tick) }, PATIENCE, lost()).await,
            Some(Input::Tick)
        ));
        let hanging = std::future::pending();
        assert!(told(
            outcome(hanging, Duration::from_millis(1), lost()).await
        ));
    }
}
