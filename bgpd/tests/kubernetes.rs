//! The real `margay-bgpd` on the embedded API server, in a network namespace of the test's own.

#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Debug;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use api::v1;
use apiserver::server::{Config, Handle, Server};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use support::{BGPD, PATIENCE, Process, ip};

/// Runs the test on a thread that is in a namespace of its own, which its children share.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("this test makes a network namespace: run it as root");
        ip("link set lo up");
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test());
    });
    thread.join().unwrap();
}

/// Waits until `condition` gives something.
async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

async fn create<K>(client: &Client, object: Value)
where
    K: kube::Resource<Scope = kube::core::ClusterResourceScope, DynamicType = ()>,
    K: Clone + Debug + Serialize + DeserializeOwned,
{
    let api = Api::<K>::all(client.clone());
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

fn custom(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "margay.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// What a cluster has when bgpd starts.
async fn populate(client: &Client) {
    for crd in crds::all_crds() {
        create::<CustomResourceDefinition>(client, serde_json::to_value(crd).unwrap()).await;
    }
    eventually("the kinds", || async {
        Api::<crds::BGPPeer>::all(client.clone())
            .list(&kube::api::ListParams::default())
            .await
            .ok()
    })
    .await;
    for (name, asn, address) in [
        ("n1", "4200000001", "10.0.1.1"),
        ("n2", "4200000002", "10.0.1.2"),
    ] {
        let metadata = json!({
            "name": name,
            "labels": {"rack": "a"},
            "annotations": {"margay.io/as-number": asn},
        });
        create::<Node>(
            client,
            json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata}),
        )
        .await;
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
        let nodes = Api::<Node>::all(client.clone());
        nodes
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }
    create::<crds::IPPool>(
        client,
        custom("IPPool", "v4", json!({"cidr": "10.244.0.0/16"})),
    )
    .await;
    let spec = json!({"nodeSelector": "rack == 'a'", "peerIP": "10.0.1.254", "asNumber": 64601});
    create::<crds::BGPPeer>(client, custom("BGPPeer", "tor-a", spec)).await;
    let spec = json!({"nodeSelector": "rack == 'b'", "peerIP": "10.0.2.254", "asNumber": 64602});
    create::<crds::BGPPeer>(client, custom("BGPPeer", "tor-b", spec)).await;
}

fn start_bgpd(dir: &Path, kubeconfig: &Path) -> Process {
    let mut command = Command::new(BGPD);
    command.env("KUBECONFIG", kubeconfig).env("NODE_NAME", "n1");
    command.arg("--run-dir").arg(dir.join("run"));
    command.arg("--state-dir").arg(dir.join("state"));
    Process::start(command, dir.join("bgpd.log"))
}

async fn speaker(dir: &Path) -> Option<v1::Speaker> {
    let socket = dir.join("run/bgpd.sock");
    let mut bgpd = api::client::bgpd(&socket, Duration::from_secs(5))
        .await
        .ok()?;
    Some(
        bgpd.get_speaker(v1::GetSpeakerRequest {})
            .await
            .ok()?
            .into_inner(),
    )
}

/// Name and AS of every peer.
async fn neighbors(dir: &Path) -> Option<Vec<v1::Neighbor>> {
    let socket = dir.join("run/bgpd.sock");
    let mut bgpd = api::client::bgpd(&socket, Duration::from_secs(5))
        .await
        .ok()?;
    let answer = bgpd
        .list_neighbors(v1::ListNeighborsRequest {})
        .await
        .ok()?;
    Some(answer.into_inner().neighbors)
}

async fn peers(dir: &Path) -> Option<Vec<(String, u32)>> {
    let neighbors = neighbors(dir).await?;
    Some(
        neighbors
            .into_iter()
            .map(|n| (n.name, n.peer_asn))
            .collect(),
    )
}

async fn peers_become(dir: &Path, expected: &[(&str, u32)]) {
    let expected: Vec<(String, u32)> = expected
        .iter()
        .map(|(name, asn)| ((*name).to_owned(), *asn))
        .collect();
    eventually(&format!("the peers {expected:?}"), || async {
        peers(dir).await.filter(|found| *found == expected)
    })
    .await;
}

/// Waits for the condition Accepted of a BGPPeer; its message.
async fn accepted(client: &Client, name: &str, status: &str) -> String {
    let api = Api::<crds::BGPPeer>::all(client.clone());
    eventually(&format!("Accepted={status} of {name}"), || async {
        let object = serde_json::to_value(api.get(name).await.ok()?).unwrap();
        let conditions = object["status"]["conditions"].as_array()?;
        let found = conditions
            .iter()
            .find(|c| c["type"] == "Accepted" && c["status"] == status)?;
        assert_eq!(
            found["observedGeneration"],
            object["metadata"]["generation"]
        );
        Some(found["message"].as_str()?.to_owned())
    })
    .await
}

async fn patch(client: &Client, name: &str, spec: Value) {
    let api = Api::<crds::BGPPeer>::all(client.clone());
    let patch = Patch::Merge(json!({ "spec": spec }));
    api.patch(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

async fn serve(dir: &Path, listen: Option<std::net::SocketAddr>) -> Handle {
    let mut config = Config::local(dir.join("api"));
    config.data = Some(dir.join("api.json"));
    if let Some(listen) = listen {
        config.listen = vec![listen.into()];
    }
    Server::start(config).await.unwrap()
}

#[test]
fn objects_are_followed_and_an_absent_api_changes_nothing() {
    in_namespace(|| async {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        let server = serve(dir, None).await;
        let kubeconfig = server.kubeconfig.clone();
        let address = server.addresses[0];
        let api = client(&kubeconfig).await;
        populate(&api).await;

        let mut bgpd = start_bgpd(dir, &kubeconfig);
        peers_become(dir, &[("tor-a", 64601)]).await;
        let status = speaker(dir).await.unwrap();
        assert_eq!(
            (status.asn, status.router_id.as_str()),
            (4_200_000_001, "10.0.1.1")
        );
        assert_eq!(
            (status.config_source.as_str(), status.config_error.as_str()),
            ("kubernetes", "")
        );
        accepted(&api, "tor-a", "True").await;

        // A change, then one that is not understood: the last good one stays, and the object says why.
        patch(&api, "tor-a", json!({"asNumber": 64700})).await;
        peers_become(dir, &[("tor-a", 64700)]).await;
        patch(
            &api,
            "tor-a",
            json!({"asNumber": 64800, "nodeSelector": "rack ==="}),
        )
        .await;
        let message = accepted(&api, "tor-a", "False").await;
        assert!(message.contains("spec.nodeSelector"), "{message}");
        assert_eq!(peers(dir).await.unwrap(), [("tor-a".to_owned(), 64700)]);
        let complaint = speaker(dir).await.unwrap().config_error;
        assert!(
            complaint.contains("BGPPeer tor-a: spec.nodeSelector"),
            "{complaint}"
        );

        // It survives a crash while it is still wrong.
        bgpd.kill();
        let mut bgpd = start_bgpd(dir, &kubeconfig);
        peers_become(dir, &[("tor-a", 64700)]).await;
        patch(
            &api,
            "tor-a",
            json!({"asNumber": 64700, "nodeSelector": "rack == 'a'"}),
        )
        .await;
        accepted(&api, "tor-a", "True").await;
        eventually("no complaint", || async {
            speaker(dir).await.filter(|s| s.config_error.is_empty())
        })
        .await;

        // All nodes as peers.
        let spec = json!({"nodeToNodeMeshEnabled": true, "listenPort": 11790});
        create::<crds::BGPConfiguration>(&api, custom("BGPConfiguration", "default", spec)).await;
        peers_become(dir, &[("mesh-n2", 4_200_000_002), ("tor-a", 64700)]).await;

        // Without the API nothing changes, not even over a crash.
        drop(api);
        server.stop().await;
        eventually("a complaint about the API", || async {
            speaker(dir)
                .await
                .filter(|s| s.config_error.contains("does not answer"))
        })
        .await;
        let both = [("mesh-n2", 4_200_000_002), ("tor-a", 64700)];
        peers_become(dir, &both).await;
        bgpd.kill();
        let _bgpd = start_bgpd(dir, &kubeconfig);
        peers_become(dir, &both).await;

        let server = serve(dir, Some(address)).await;
        let api = client(&server.kubeconfig).await;
        let peers = Api::<crds::BGPPeer>::all(api.clone());
        peers
            .delete("tor-a", &DeleteParams::default())
            .await
            .unwrap();
        peers_become(dir, &[("mesh-n2", 4_200_000_002)]).await;
    });
}

/// The condition Accepted of any object.
async fn condition<K>(client: &Client, name: &str, status: &str, word: &str)
where
    K: kube::Resource<Scope = kube::core::ClusterResourceScope, DynamicType = ()>,
    K: Clone + Debug + Serialize + DeserializeOwned,
{
    let api = Api::<K>::all(client.clone());
    eventually(&format!("{status} with {word} at {name}"), || async {
        let object = serde_json::to_value(api.get(name).await.ok()?).unwrap();
        let conditions = object["status"]["conditions"].as_array()?.clone();
        let holds = |c: &Value| {
            c["status"] == status && c["message"].as_str().is_some_and(|m| m.contains(word))
        };
        conditions.iter().any(holds).then_some(())
    })
    .await;
}

#[test]
fn passwords_and_filters_are_waited_for_and_missed_aloud() {
    in_namespace(|| async {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        let server = serve(dir, None).await;
        let api = client(&server.kubeconfig).await;
        populate(&api).await;
        let spec = json!({
            "password": {"secretKeyRef": {"name": "bgp", "key": "tor-a"}}, "filters": ["from-tors"],
        });
        patch(&api, "tor-a", spec).await;
        let _bgpd = start_bgpd(dir, &server.kubeconfig);

        // Without its password the peer has no session, and says so.
        condition::<crds::BGPPeer>(&api, "tor-a", "False", "Secret bgp does not exist").await;
        eventually("the reason", || async {
            let neighbor = neighbors(dir).await?.pop()?;
            (neighbor.state == "Idle" && neighbor.problem.contains("password")).then_some(())
        })
        .await;
        let secrets = Api::<k8s_openapi::api::core::v1::Secret>::default_namespaced(api.clone());
        let secret = json!({"metadata": {"name": "bgp"}, "stringData": {"tor-a": "secret"}});
        let secret = serde_json::from_value(secret).unwrap();
        secrets
            .create(&PostParams::default(), &secret)
            .await
            .unwrap();
        eventually("a session that may start", || async {
            let neighbor = neighbors(dir).await?.pop()?;
            (!neighbor.problem.contains("password")).then_some(())
        })
        .await;

        // Its filter is missing still.
        condition::<crds::BGPPeer>(&api, "tor-a", "False", "BGPFilter from-tors does not exist")
            .await;
        let spec = json!({"importV4": [{"cidr": "10.0.0.0/8", "action": "Accept"}]});
        create::<crds::BGPFilter>(&api, custom("BGPFilter", "from-tors", spec)).await;
        condition::<crds::BGPFilter>(&api, "from-tors", "True", "").await;
        condition::<crds::BGPPeer>(&api, "tor-a", "True", "").await;

        // A lost Secret ends nothing.
        secrets
            .delete("bgp", &DeleteParams::default())
            .await
            .unwrap();
        condition::<crds::BGPPeer>(&api, "tor-a", "False", "go on with it").await;
        peers_become(dir, &[("tor-a", 64601)]).await;
        let spec = json!({"localASNumber": 65009});
        patch(&api, "tor-a", spec).await;
        peers_become(dir, &[("tor-a", 64601)]).await;
    });
}

#[test]
fn an_annotation_that_is_not_understood_is_an_event_of_the_node() {
    in_namespace(|| async {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        let server = serve(dir, None).await;
        let api = client(&server.kubeconfig).await;
        populate(&api).await;
        let _bgpd = start_bgpd(dir, &server.kubeconfig);
        peers_become(dir, &[("tor-a", 64601)]).await;

        let nodes = Api::<Node>::all(api.clone());
        let annotate = |text: Value| {
            let patch = json!({"metadata": {"annotations": {"margay.io/drain": text}}});
            let nodes = nodes.clone();
            async move {
                let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
                nodes.patch("n1", &params, &patch).await.unwrap();
            }
        };
        annotate(json!("please")).await;
        let events = Api::<k8s_openapi::api::events::v1::Event>::default_namespaced(api.clone());
        let event = eventually("an Event", || async {
            let all = events.list(&Default::default()).await.ok()?;
            let of_node = |it: &k8s_openapi::api::events::v1::Event| {
                let regarding = it.regarding.as_ref();
                regarding.and_then(|it| it.name.as_deref()) == Some("n1")
            };
            all.items.into_iter().find(of_node)
        })
        .await;
        assert_eq!(event.reason.as_deref(), Some("InvalidAnnotation"));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        let note = event.note.unwrap();
        assert!(note.contains("margay.io/drain: \"please\""), "{note}");
        assert!(note.contains("set one of the two or remove it"), "{note}");
        let status = speaker(dir).await.unwrap();
        assert!(status.config_error.contains(&note), "{status:?}");

        annotate(json!("everything")).await;
        eventually("the drain", || async {
            let status = speaker(dir).await?;
            (status.config_error.is_empty() && status.drains.len() == 2).then_some(())
        })
        .await;
        annotate(Value::Null).await;
        eventually("no drain", || async {
            speaker(dir).await?.drains.is_empty().then_some(())
        })
        .await;
    });
}
