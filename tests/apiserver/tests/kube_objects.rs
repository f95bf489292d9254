//! What kube-rs clients rely on when they read and write objects.

#![allow(clippy::unwrap_used, reason = "the whole crate is a test")]

mod common;

use std::collections::BTreeSet;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod};
use kube::ResourceExt;
use kube::api::{
    Api, DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams, Preconditions,
    WatchEvent, WatchParams,
};
use kube::core::PartialObjectMetaExt as _;
use serde_json::{Value, json};

use common::{code, config_map, definitions, object, pod, widget, widget_definition, widgets};

#[tokio::test]
async fn objects_are_created_read_replaced_and_deleted() {
    let api = common::Api::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(api.client().await);
    let created = maps
        .create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    assert!(created.uid().is_some() && created.creation_timestamp().is_some());
    assert_eq!(maps.get("a").await.unwrap(), created);
    assert_eq!(
        code(maps.create(&PostParams::default(), &config_map("a")).await),
        (409, "AlreadyExists".into())
    );
    assert_eq!(code(maps.get("b").await), (404, "NotFound".into()));

    let mut changed = created.clone();
    changed
        .data
        .as_mut()
        .unwrap()
        .insert("b".into(), "2".into());
    let changed = maps
        .replace("a", &PostParams::default(), &changed)
        .await
        .unwrap();
    assert_ne!(changed.resource_version(), created.resource_version());
    assert_eq!(changed.uid(), created.uid());
    let again = maps
        .replace("a", &PostParams::default(), &changed)
        .await
        .unwrap();
    assert_eq!(
        again.resource_version(),
        changed.resource_version(),
        "a write that changes nothing is none"
    );
    assert_eq!(
        code(maps.replace("a", &PostParams::default(), &created).await),
        (409, "Conflict".into())
    );

    let wrong = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some("other".into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(
        code(maps.delete("a", &wrong).await),
        (409, "Conflict".into())
    );
    let status = maps
        .delete("a", &DeleteParams::default())
        .await
        .unwrap()
        .right()
        .unwrap();
    assert_eq!(status.details.unwrap().uid, created.uid().unwrap());
    assert_eq!(
        code(maps.delete("a", &DeleteParams::default()).await),
        (404, "NotFound".into())
    );
}

#[tokio::test]
async fn names_are_generated_and_namespaces_must_exist() {
    let api = common::Api::start().await;
    let client = api.client().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let map: ConfigMap = object(json!({"metadata": {"generateName": "made-"}}));
    let mut names = BTreeSet::new();
    for _ in 0..20 {
        names.insert(
            maps.create(&PostParams::default(), &map)
                .await
                .unwrap()
                .name_any(),
        );
    }
    assert_eq!(names.len(), 20);
    assert!(
        names
            .iter()
            .all(|name| name.len() == 10 && name.starts_with("made-"))
    );
    let nowhere: Api<ConfigMap> = Api::namespaced(client, "nowhere");
    assert_eq!(
        code(nowhere.create(&PostParams::default(), &map).await),
        (404, "NotFound".into())
    );
    assert_eq!(
        code(
            maps.create(&PostParams::default(), &object(json!({"metadata": {}})))
                .await
        )
        .0,
        422
    );
}

#[tokio::test]
async fn patches_change_objects() {
    let api = common::Api::start().await;
    let client = api.client().await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pods.create(&PostParams::default(), &object(pod("a")))
        .await
        .unwrap();
    let params = PatchParams::default();
    let merge = json!({"metadata": {"labels": {"x": "y", "app": null}}});
    let merged = pods
        .patch("a", &params, &Patch::Merge(&merge))
        .await
        .unwrap();
    assert_eq!(
        merged.labels().iter().collect::<Vec<_>>(),
        [(&"x".to_owned(), &"y".to_owned())]
    );
    let strategic =
        json!({"spec": {"containers": [{"name": "c", "image": "registry.invalid/c:2"}]}});
    let patched = pods
        .patch("a", &params, &Patch::Strategic(&strategic))
        .await
        .unwrap();
    assert_eq!(
        patched.spec.unwrap().containers[0].image.as_deref(),
        Some("registry.invalid/c:2")
    );
    let stale = json!({"metadata": {"resourceVersion": "1", "labels": {"x": "z"}}});
    assert_eq!(
        code(pods.patch("a", &params, &Patch::Merge(&stale)).await),
        (409, "Conflict".into())
    );
    let applied = pods
        .patch("a", &PatchParams::apply("test"), &Patch::Apply(&pod("a")))
        .await;
    assert_eq!(code(applied).0, 415);
    assert_eq!(
        code(pods.patch("b", &params, &Patch::Merge(&merge)).await).0,
        404
    );
    let widgets = widgets(&client).await;
    widgets
        .create(
            &PostParams::default(),
            &object(widget("w", json!({"size": 1}))),
        )
        .await
        .unwrap();
    assert_eq!(
        code(widgets.patch("w", &params, &Patch::Strategic(&merge)).await).0,
        415
    );
}

#[tokio::test]
async fn dry_runs_change_nothing() {
    let api = common::Api::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(api.client().await);
    let dry = PostParams {
        dry_run: true,
        ..Default::default()
    };
    assert!(
        maps.create(&dry, &config_map("a"))
            .await
            .unwrap()
            .uid()
            .is_some()
    );
    assert!(maps.get_opt("a").await.unwrap().is_none());
    let made = maps
        .create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    assert_eq!(code(maps.create(&dry, &config_map("a")).await).0, 409);
    let patch = Patch::Merge(json!({"data": {"a": "2"}}));
    let patched = maps
        .patch(
            "a",
            &PatchParams {
                dry_run: true,
                ..Default::default()
            },
            &patch,
        )
        .await
        .unwrap();
    assert_eq!(patched.data.unwrap()["a"], "2");
    maps.delete(
        "a",
        &DeleteParams {
            dry_run: true,
            ..Default::default()
        },
    )
    .await
    .unwrap();
    assert_eq!(maps.get("a").await.unwrap(), made);
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let api = common::Api::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(api.client().await);
    let mut map = config_map("a");
    map.metadata.finalizers = Some(vec!["test.margay.io/hold".into()]);
    maps.create(&PostParams::default(), &map).await.unwrap();
    let held = maps
        .delete("a", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    let again = maps
        .delete("a", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert_eq!(
        again.metadata.deletion_timestamp,
        held.metadata.deletion_timestamp
    );
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("a", &PatchParams::default(), &free)
        .await
        .unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let api = common::Api::start().await;
    let widgets = widgets(&api.client().await).await;
    let mut sent = widget("w", json!({"size": 1, "nonsense": true}));
    sent["status"] = json!({"ready": "no"});
    let made = widgets
        .create(&PostParams::default(), &object(sent))
        .await
        .unwrap();
    assert_eq!(
        made.data,
        json!({"spec": {"size": 1, "colour": "blue"}}),
        "pruned, defaulted, no status"
    );
    assert_eq!(made.metadata.generation, Some(1));
    let params = PatchParams::default();
    let both = Patch::Merge(json!({"spec": {"size": 2}, "status": {"ready": "yes"}}));
    let status = widgets.patch_status("w", &params, &both).await.unwrap();
    assert_eq!(
        status.data,
        json!({"spec": {"size": 1, "colour": "blue"}, "status": {"ready": "yes"}})
    );
    assert_eq!(status.metadata.generation, Some(1));
    let never = Patch::Merge(json!({"spec": {"size": 3}, "status": {"ready": "never"}}));
    let spec = widgets.patch("w", &params, &never).await.unwrap();
    assert_eq!(
        spec.data,
        json!({"spec": {"size": 3, "colour": "blue"}, "status": {"ready": "yes"}})
    );
    assert_eq!(spec.metadata.generation, Some(2));
    let mut blind = spec.clone();
    blind.metadata.resource_version = None;
    assert_eq!(
        code(widgets.replace("w", &PostParams::default(), &blind).await),
        (422, "Invalid".into())
    );
    assert_eq!(
        code(
            widgets
                .replace_status("w", &PostParams::default(), &made)
                .await
        ),
        (409, "Conflict".into())
    );
}

#[tokio::test]
async fn schemas_judge_custom_objects() {
    let api = common::Api::start().await;
    let widgets = widgets(&api.client().await).await;
    let refused = async |spec: Value| match widgets
        .create(&PostParams::default(), &object(widget("w", spec)))
        .await
        .unwrap_err()
    {
        kube::Error::Api(status) => status.message,
        other => panic!("{other}"),
    };
    let message = refused(json!({"size": 1000})).await;
    assert!(
        message.contains("Widget.test.margay.io \"w\" is invalid: spec.size: Invalid value"),
        "{message}"
    );
    assert!(
        refused(json!({}))
            .await
            .contains("spec.size: Required value")
    );
    assert!(
        refused(json!({"size": 1, "cidr": "banana"}))
            .await
            .contains("must be a CIDR such as 10.0.0.0/8")
    );
    let good = object(widget("w", json!({"size": 1, "cidr": "10.0.0.0/8"})));
    widgets.create(&PostParams::default(), &good).await.unwrap();
    let change = Patch::Merge(json!({"spec": {"cidr": "11.0.0.0/8"}}));
    let error = widgets
        .patch("w", &PatchParams::default(), &change)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("may not be changed"), "{error}");
}

#[tokio::test]
async fn a_bound_pod_ends_when_its_node_says_so() {
    let api = common::Api::start().await;
    let pods: Api<Pod> = Api::default_namespaced(api.client().await);
    pods.create(&PostParams::default(), &object(pod("loose")))
        .await
        .unwrap();
    pods.delete("loose", &DeleteParams::default())
        .await
        .unwrap();
    assert!(
        pods.get_opt("loose").await.unwrap().is_none(),
        "no node has to end it"
    );
    let mut bound = pod("bound");
    bound["spec"]["nodeName"] = "n1".into();
    pods.create(&PostParams::default(), &object(bound))
        .await
        .unwrap();
    let ending = pods
        .delete("bound", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert_eq!(ending.metadata.deletion_grace_period_seconds, Some(30));
    let sooner = pods
        .delete("bound", &DeleteParams::default().grace_period(3))
        .await
        .unwrap()
        .left()
        .unwrap();
    assert_eq!(sooner.metadata.deletion_grace_period_seconds, Some(3));
    let later = pods
        .delete("bound", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert_eq!(later.metadata.deletion_grace_period_seconds, Some(3));
    assert!(pods.get_opt("bound").await.unwrap().is_some());
    pods.delete("bound", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert!(pods.get_opt("bound").await.unwrap().is_none());
    let mut evicted = pod("evicted");
    evicted["spec"]["nodeName"] = "n1".into();
    pods.create(&PostParams::default(), &object(evicted))
        .await
        .unwrap();
    pods.evict("evicted", &EvictParams::default())
        .await
        .unwrap();
    assert!(
        pods.get("evicted")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_some()
    );
}

#[tokio::test]
async fn a_namespace_takes_its_objects_with_it() {
    let api = common::Api::start().await;
    let client = api.client().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let made = namespaces
        .create(
            &PostParams::default(),
            &object(json!({"metadata": {"name": "x"}})),
        )
        .await
        .unwrap();
    assert_eq!(made.labels()["kubernetes.io/metadata.name"], "x");
    let (pods, maps): (Api<Pod>, Api<ConfigMap>) = (
        Api::namespaced(client.clone(), "x"),
        Api::namespaced(client.clone(), "x"),
    );
    let mut held = config_map("held");
    held.metadata.finalizers = Some(vec!["test.margay.io/hold".into()]);
    maps.create(&PostParams::default(), &held).await.unwrap();
    maps.create(&PostParams::default(), &config_map("free"))
        .await
        .unwrap();
    let mut bound = pod("bound");
    bound["spec"]["nodeName"] = "n1".into();
    pods.create(&PostParams::default(), &object(bound))
        .await
        .unwrap();

    let ending = namespaces
        .delete("x", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert_eq!(ending.status.unwrap().phase.as_deref(), Some("Terminating"));
    assert!(maps.get_opt("free").await.unwrap().is_none());
    assert!(
        pods.get("bound")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_some()
    );
    assert_eq!(
        code(
            maps.create(&PostParams::default(), &config_map("late"))
                .await
        ),
        (403, "Forbidden".into())
    );
    pods.delete("bound", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert!(namespaces.get_opt("x").await.unwrap().is_some());
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("held", &PatchParams::default(), &free)
        .await
        .unwrap();
    assert!(namespaces.get_opt("x").await.unwrap().is_none());
    assert_eq!(
        code(namespaces.delete("default", &DeleteParams::default()).await).0,
        403
    );
}

#[tokio::test]
async fn bad_definitions_are_refused() {
    let api = common::Api::start().await;
    let client = api.client().await;
    for (path, value, want) in [
        (
            "/metadata/name",
            json!("gadgets.test.margay.io"),
            "metadata.name",
        ),
        (
            "/spec/scope",
            json!("Galaxy"),
            "spec.scope: Unsupported value",
        ),
        (
            "/spec/names/kind",
            Value::Null,
            "spec.names.kind: Required value",
        ),
        (
            "/spec/versions/0/storage",
            json!(false),
            "spec.versions: Invalid value",
        ),
        (
            "/spec/versions/0/schema/openAPIV3Schema/type",
            json!("thing"),
            "openAPIV3Schema",
        ),
    ] {
        let mut definition = widget_definition("Cluster");
        *definition.pointer_mut(path).unwrap() = value;
        let refused = definitions(&client)
            .create(&PostParams::default(), &object(definition))
            .await;
        let message = refused.unwrap_err().to_string();
        assert!(message.contains(want), "{path}: {message}");
    }
}

#[tokio::test]
async fn metadata_can_be_read_alone() {
    let api = common::Api::start().await;
    let client = api.client().await;
    let nodes: Api<Node> = Api::all(client.clone());
    let node = json!({"metadata": {"name": "n1", "labels": {"a": "b"}}, "spec": {"podCIDR": "10.0.0.0/24"}});
    let made = nodes
        .create(&PostParams::default(), &object(node))
        .await
        .unwrap();
    let metadata = nodes.get_metadata("n1").await.unwrap();
    assert_eq!(metadata.metadata, made.metadata);
    assert_eq!(
        nodes
            .list_metadata(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    let patch = made.metadata.clone().into_request_partial::<Node>();
    nodes
        .patch_metadata("n1", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    let mut events = std::pin::pin!(
        nodes
            .watch_metadata(&WatchParams::default(), "0")
            .await
            .unwrap()
    );
    assert!(matches!(
        events.try_next().await.unwrap(),
        Some(WatchEvent::Added(_))
    ));
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let api = common::Api::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(api.client().await);
    for name in ["a", "b", "c"] {
        let mut map = config_map(name);
        map.metadata.labels = Some([("keep".to_owned(), (name == "b").to_string())].into());
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    maps.delete_collection(
        &DeleteParams::default(),
        &ListParams::default().labels("keep=false"),
    )
    .await
    .unwrap();
    let left = maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(
        left.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        ["b"]
    );
}
