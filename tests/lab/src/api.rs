//! The lab as a client of its API server.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::utils::Backoff;
use kube::{Client, Config};
use serde_json::Value;

use crate::objects;
use crate::plan::Plan;

/// A client with the lab's kubeconfig. An API server that is just being restarted is waited for by the
/// callers, not by the client, whose own patience would be invisible.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("read {}", kubeconfig.display()))?;
    let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(Duration::from_secs(2));
    Ok(Client::try_from(config)?)
}

/// Runs a future on a runtime of its own: the library's interface is synchronous.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}

/// Creates everything a fresh lab has.
pub(crate) async fn populate(client: &Client, plan: &Plan) -> Result<()> {
    for crd in objects::crds() {
        let api = Api::all(client.clone());
        ignore_exists(api.create(&PostParams::default(), &crd).await).context("create a CRD")?;
    }
    let nodes: Api<Node> = Api::all(client.clone());
    for node in &plan.nodes {
        let object = serde_json::from_value(objects::node(node))?;
        ignore_exists(nodes.create(&PostParams::default(), &object).await)
            .with_context(|| format!("create the Node {}", node.name))?;
        let status = Patch::Merge(objects::node_status(node));
        nodes
            .patch_status(&node.name, &PatchParams::default(), &status)
            .await
            .with_context(|| format!("set the addresses of the Node {}", node.name))?;
    }
    for object in objects::margay(plan) {
        create_when_served(client, object).await?;
    }
    tokens(client, plan).await
}

/// Gives felix on each node a token for the controller, as its pod would have one.
async fn tokens(client: &Client, plan: &Plan) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    let params = PostParams::default();
    let account = serde_json::from_value(objects::felix_account())?;
    ignore_exists(accounts.create(&params, &account).await).context("create felix' account")?;
    for node in &plan.nodes {
        let request = serde_json::from_value(objects::token_request(&node.name))?;
        let made = accounts
            .create_token_request(objects::FELIX_ACCOUNT, &params, &request)
            .await
            .with_context(|| format!("make the token of {}", node.name))?;
        let token = made.status.and_then(|it| it.token);
        let token = token.context("the token is missing")?;
        let path = plan.controller_token(&node.name);
        std::fs::write(&path, token).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Creates an object of a kind that was defined a moment ago; until it is served the answer is 404.
async fn create_when_served(client: &Client, object: Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object)?;
    let kind = object.types.clone().context("the object has no kind")?;
    let name = object.metadata.name.clone().unwrap_or_default();
    let gvk = GroupVersionKind::try_from(&kind)?;
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&gvk));
    for _ in 0..100 {
        match api.create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(e)) if e.code == 404 => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            result => {
                return ignore_exists(result)
                    .with_context(|| format!("create the {} {name}", kind.kind));
            }
        }
    }
    bail!(
        "{} is not served 5 s after its definition was created",
        kind.kind
    )
}

fn ignore_exists<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(e)) if e.code == 409 => Ok(()),
        result => result.map(|_| ()),
    }
}

/// A node as `lab status` shows it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct NodeReady {
    /// The node's name.
    pub name: String,
    /// Its condition Ready.
    pub ready: bool,
    /// The reason it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Which nodes are ready to run pods.
pub(crate) async fn nodes(client: &Client) -> Result<Vec<NodeReady>> {
    let nodes: Api<Node> = Api::all(client.clone());
    let list = nodes
        .list(&Default::default())
        .await
        .context("list nodes")?;
    Ok(list.items.iter().map(ready).collect())
}

fn ready(node: &Node) -> NodeReady {
    let name = node.metadata.name.clone().unwrap_or_default();
    let unready = |reason: String| NodeReady {
        name: name.clone(),
        ready: false,
        reason: Some(reason),
    };
    let condition = |kind: &str| {
        node.status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten())
            .find(|c| c.type_ == kind)
    };
    if let Some(c) = condition("NetworkUnavailable").filter(|c| c.status == "True") {
        return unready(
            c.message
                .clone()
                .unwrap_or_else(|| "NetworkUnavailable".to_owned()),
        );
    }
    match condition("Ready") {
        Some(c) if c.status == "True" => NodeReady {
            name,
            ready: true,
            reason: None,
        },
        Some(c) => unready(c.message.clone().unwrap_or_else(|| "not Ready".to_owned())),
        None => unready("its runner has not reported yet".to_owned()),
    }
}

/// Whether a node takes pods: Ready, its network available, not cordoned.
pub(crate) fn schedulable(node: &Node) -> bool {
    ready(node).ready && node.spec.as_ref().and_then(|s| s.unschedulable) != Some(true)
}

/// How long a watch waits after an error: a killed API server is back within a second, and pods wait for it.
#[derive(Debug, Default)]
pub(crate) struct Impatient {
    errors: u32,
}

impl Iterator for Impatient {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.errors = (self.errors + 1).min(5);
        Some(Duration::from_millis(25 << self.errors))
    }
}

impl Backoff for Impatient {
    fn reset(&mut self) {
        self.errors = 0;
    }
}
